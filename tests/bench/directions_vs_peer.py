"""Direction ablations and sweeps a second, Cupola beside PyTorch, in one run.

    directions_vs_peer.py [--tokens 313] [--turns 5] [--threads 2]

Pythia-70m's shapes with a Jacobian SAE pair of 16,384 latents and k = 32, random
weights, float32. Ablations are source notebook A's loop: of each token the block of
its Jacobian by the published closed form and 32 pairs of latents, each one unit of
the input latent's direction taken away and the output latent read. Sweeps are 100
points each, with the least-squares line and the class. Cupola answers through its
Python client and gRPC, each time other tokens. The two take turns, the table has
each one's best, and before anything is timed the numbers are compared.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np
import torch

from pair_peer import Workbench

TOLERANCE = 5e-5  # of the largest activation: the project's float32 promise
DRAWS, POINTS = 32, 100


def ablation_loop(peer, rows, samples):
    for x in rows:
        ins, outs, before, _ = peer.run_sandwich(x)
        picks = np.random.default_rng(0).integers(0, len(ins), (samples, 2))
        for i, o in picks:
            peer.ablate(x, int(ins[i]), int(outs[o]), before)


def compare(bench, rows):
    """The first samples of a few tokens, and their sweeps."""
    found = bench.pair.ablate(inputs=rows[:4], draws=DRAWS)
    scale = max(np.abs(found.before).max(), 1)
    for i in range(0, len(found), 5):
        x = torch.from_numpy(rows[found.row[i]])
        before = bench.peer.outputs(x)
        expected = bench.peer.ablate(
            x, int(found.in_latent[i]), int(found.out_latent[i]), before
        )
        worst = abs(expected - found.difference[i])
        if worst > TOLERANCE * scale:
            raise SystemExit(f"sample {i}: ablations differ by {worst}")
    swept = bench.pair.sweep(inputs=rows[:4], draws=4, points=POINTS, curves=True)
    for i in range(len(swept)):
        x = torch.from_numpy(rows[swept.row[i]])
        _, curve, kind = bench.peer.sweep(
            x, int(swept.in_latent[i]), int(swept.out_latent[i]), POINTS
        )
        worst = np.abs(curve.numpy() - swept.curves[i]).max()
        ours = swept.to_dataframe()["class"][i]
        if worst > TOLERANCE * scale or ours != kind:
            raise SystemExit(f"sweep {i}: {worst}, {ours} and {kind}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=313)
    parser.add_argument("--sweep_tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        with Workbench(pathlib.Path(scratch), options.threads) as bench:
            rows = bench.rows(bench.prompts(3, 128))[: options.tokens]
            compare(bench, rows)
            best = {}

            def turn(name, work, count):
                start = time.perf_counter()
                answer = work()
                spent = time.perf_counter() - start
                best[name] = max(best.get(name, 0), count / spent)
                if answer is None:
                    return
                if answer.from_cache:
                    raise SystemExit("a new question was answered from the cache")
                if len(answer) != count:
                    raise SystemExit(f"{len(answer)} samples instead of {count}")

            few = torch.from_numpy(rows[:1])
            for number in range(options.turns):
                scaled = rows * np.float32(1 + 0.01 * number)
                turn("peer", lambda: ablation_loop(bench.peer, few, DRAWS), DRAWS)
                turn(
                    "ablations",
                    lambda: bench.pair.ablate(inputs=scaled, draws=DRAWS),
                    DRAWS * len(scaled),
                )
                x, (ins, outs, _, _) = few[0], bench.peer.run_sandwich(few[0])
                turn(
                    "peer sweeps",
                    lambda: [
                        bench.peer.sweep(x, int(i), int(o), POINTS)
                        for i, o in zip(ins[:16], outs[:16])
                    ]
                    and None,
                    16,
                )
                part = scaled[: options.sweep_tokens]
                turn(
                    "sweeps",
                    lambda: bench.pair.sweep(inputs=part, draws=8, points=POINTS),
                    8 * len(part),
                )

    print(
        f"| best of {options.turns} | peer, per s | cupola, per s | ratio | aim |"
    )
    print("|---|---|---|---|---|")
    for title, peer, ours, aim in (
        ("direction ablations", "peer", "ablations", 150),
        (f"sweeps of {POINTS} points", "peer sweeps", "sweeps", 6),
    ):
        print(
            f"| {title} | {best[peer]:.1f} | {best[ours]:.0f} | "
            f"{best[ours] / best[peer]:.0f} | {aim} |"
        )


if __name__ == "__main__":
    main()
