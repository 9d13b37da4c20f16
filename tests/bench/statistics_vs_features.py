"""Tokens a second of jobs over a corpus beside GetFeatures alone, in one run.

    statistics_vs_features.py [--pairs 5] [--rows 256] [--threads 2]

The dictionary has 16,384 latents on pythia-70m's shapes, with random weights.
Each round draws new rows of 128 tokens. GetFeatures answers them as prompts, 32
rows a request, one request after another; a job counts the same rows of a
dataset, timed by the client from its submission until it is done. A row's ratio
is the median over the rounds of the job's rate by that of GetFeatures. Then what
the jobs left on the disk, and the most memory that the server had.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cupola
import workload
from harness.server import Server, catalog_text

LENGTH, BATCH, MIB = 128, 32, 1 << 20
TARGET = 0.7  # of GetFeatures' rate


def features_alone(sae, rows):
    for begin in range(0, len(rows), BATCH):
        answer = sae.features(rows[begin : begin + BATCH])
        if answer.from_cache:
            raise SystemExit("a new prompt was answered from the cache")


def counted(submit, rows):
    """The job's result, which must have looked at every token."""
    job = submit(rows)
    job.wait(progress=False)
    result = job.result()
    if result.tokens != job.info.tokens:
        raise SystemExit("the job did not look at all tokens")


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bytes_below(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    shape, prompts = workload.PYTHIA_70M, workload.Prompts()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = scratch / shape.name
        model.mkdir()
        hidden = workload.write_model(shape, model).config.hidden_size
        workload.write_dictionary(shape, hidden, scratch / "sae")
        catalog = catalog_text({"model": model}, {"sae": ("model", scratch / "sae")})
        flags = (f"--threads={options.threads}", "--no-self_check")
        with Server(scratch / "server", catalog, *flags) as server:
            with cupola.connect(server.grpc) as client:
                server.wait_until_loaded()
                sae = client.dictionary("sae")
                kinds = {"feature_statistics": sae.statistics, "coactivation": sae.coactivation}
                features_alone(sae, prompts.draw(BATCH, LENGTH))
                alone, jobs = [], {kind: [] for kind in kinds}
                for turn in range(options.pairs):
                    rows = prompts.draw(options.rows, LENGTH)
                    corpus = client.dataset(f"round {turn}", rows).select("model")
                    client.dataset(f"round {turn}").tokenize("model")
                    calls = [
                        lambda rows=rows: alone.append(
                            seconds(lambda: features_alone(sae, rows))
                        )
                    ]
                    for kind, submit in kinds.items():
                        calls.append(
                            lambda kind=kind, submit=submit, corpus=corpus: jobs[kind].append(
                                seconds(lambda: counted(submit, corpus))
                            )
                        )
                    for call in calls if turn % 2 else reversed(calls):
                        call()
                tokens = options.rows * LENGTH
                rate = tokens / statistics.median(alone)
                print("| over the same tokens | tokens/s | of GetFeatures | target |")
                print("|---|---|---|---|")
                print(f"| GetFeatures, {BATCH} x {LENGTH} a request | {rate:,.0f} | | |")
                for kind, spent in jobs.items():
                    ratio = statistics.median(a / b for a, b in zip(alone, spent))
                    target = f">= {TARGET}" if kind == "feature_statistics" else ""
                    rate = tokens / statistics.median(spent)
                    print(f"| {kind} | {rate:,.0f} | {ratio:.2f} | {target} |")
                print()
                folders = {
                    job.id: bytes_below(found[0])
                    for job in client.jobs()
                    if (found := list((scratch / "server").rglob(job.id)))
                }
                for job in client.jobs()[-len(kinds) :]:
                    print(f"{job.info.kind} on the disk: {folders[job.id] / MIB:.1f} MiB")
                peak = server.resident_bytes(peak=True) / MIB
                print(f"most memory of the server: {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
