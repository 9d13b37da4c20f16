"""Features a second, Cupola beside TransformerLens + SAELens, in one run.

    features_vs_peer.py [--pairs 30] [--threads 2]

Both answer the same prompts, turn by turn: the peer in this process, Cupola
through its Python client, gRPC and a server that is idle in the peer's turns. A
row's ratio is the median over the pairs of (peer's time / Cupola's time). Every
prompt is new, so no answer comes from the cache; then the same prompts are asked
again for the cached rows. Before anything is timed the answers are compared.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch

import workload
from harness.server import Server, catalog_text

TOLERANCE = 5e-5  # of the largest activation: the project's float32 promise


class Case:
    def __init__(self, shape, count, length, target):
        self.shape, self.count, self.length = shape, count, length
        self.target = target  # the ratio that is aimed at

    def __str__(self):
        return f"{self.shape.name} {self.count} x {self.length}"


CASES = [
    Case(workload.PYTHIA_70M, 1, 32, 4.0),
    Case(workload.PYTHIA_70M, 1, 128, 3.0),
    Case(workload.PYTHIA_70M, 16, 128, 3.5),
    Case(workload.GPT2, 1, 32, 4.0),
]


def compare(dense, features):
    """Raises unless both have the same numbers and latents.

    A latent may differ where its activation is within the tolerance of the
    smallest one kept: there rounding decides.
    """
    ours = torch.from_numpy(features.csr.toarray())
    bound = TOLERANCE * dense.abs().max()
    either = (dense > 0) | (ours > 0)
    threshold = dense.topk(workload.K, dim=-1).values[:, -1:]
    close = (dense - ours).abs() <= bound
    swapped = ((dense == 0) | (ours == 0)) & (
        (torch.maximum(dense, ours) - threshold).abs() <= 2 * bound
    )
    wrong = either & ~close & ~swapped
    if wrong.any():
        row, latent = wrong.nonzero()[0].tolist()
        raise SystemExit(
            f"answers differ at row {row}, latent {latent}: peer "
            f"{dense[row, latent]:.6f}, cupola {ours[row, latent]:.6f}"
        )


def seconds(call):
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def measure(case, peer, sae, pairs):
    """One row: medians of the peer, of Cupola, of the ratio, and of hits."""
    prompts = workload.Prompts()
    first = prompts.draw(case.count, case.length)
    compare(peer.features(first), sae.features(first))
    asked, theirs, ours = [], [], []
    for turn in range(pairs):
        batch = prompts.draw(case.count, case.length)
        asked.append(batch)
        sides = [
            (theirs, lambda batch=batch: peer.features(batch)),
            (ours, lambda batch=batch: sae.features(batch)),
        ]
        for times, call in sides if turn % 2 else reversed(sides):
            spent, answer = seconds(call)
            times.append(spent)
            if times is ours and answer.from_cache:
                raise SystemExit("a new prompt was answered from the cache")
    for batch in asked:  # the cache is filled in the background: now all are in
        sae.features(batch)
    hits = [seconds(lambda batch=batch: sae.features(batch)) for batch in asked]
    if not all(answer.from_cache for _, answer in hits):
        raise SystemExit("a repeated prompt was not answered from the cache")
    median = statistics.median
    cached = median(spent for spent, _ in hits)
    return {
        "peer": case.count / median(theirs),
        "cupola": case.count / median(ours),
        "p50": median(ours),
        "ratio": median(np.divide(theirs, ours)),
        "cached": cached,
        "speedup": median(ours) / cached,
        "server_hit": median(answer.seconds.total for _, answer in hits),
    }


def print_tables(rows):
    print("| shape, prompts x tokens | peer, prompts/s | cupola, prompts/s | ratio | target |")
    print("|---|---|---|---|---|")
    for case, row in rows:
        print(
            f"| {case} | {row['peer']:.1f} | {row['cupola']:.1f} | "
            f"{row['ratio']:.2f} | {case.target} |"
        )
    print()
    print("| shape, prompts x tokens | computed, p50 ms | cached, p50 ms | times faster | cached, in the server, ms |")
    print("|---|---|---|---|---|")
    for case, row in rows:
        print(
            f"| {case} | {1e3 * row['p50']:.1f} | {1e3 * row['cached']:.2f} | "
            f"{row['speedup']:.0f} | {1e3 * row['server_hit']:.3f} |"
        )


def main():
    import cupola

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models, dictionaries, peers = {}, {}, {}
        for shape in (workload.PYTHIA_70M, workload.GPT2):
            folder = scratch / shape.name
            folder.mkdir()
            model = workload.write_model(shape, folder)
            sae = scratch / f"{shape.name}-sae"
            workload.write_dictionary(shape, model.config.hidden_size, sae)
            models[shape.name] = folder
            dictionaries[f"{shape.name}/sae"] = (shape.name, sae)
            peers[shape] = workload.Peer(shape, folder, model, sae)
        catalog = catalog_text(models, dictionaries)
        with Server(
            scratch / "server",
            catalog,
            f"--threads={options.threads}",
            "--no-self_check",  # it would run beside the first case
        ) as server:
            with cupola.connect(server.grpc) as client:
                for case in CASES:
                    sae = client.dictionary(f"{case.shape.name}/sae")
                    row = measure(case, peers[case.shape], sae, options.pairs)
                    rows.append((case, row))
    print_tables(rows)


if __name__ == "__main__":
    main()
