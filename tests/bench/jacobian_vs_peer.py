"""Jacobians between features, Cupola beside PyTorch, in one run.

    jacobian_vs_peer.py [--tokens 2048] [--peer_tokens 6] [--turns 5] [--threads 2]

Pythia-70m's shapes with a Jacobian SAE pair of 16,384 latents and k = 32, random
weights, float32. The peer differentiates the sandwich of each token by autograd,
as the published notebooks do; to accumulate rows against all input latents it adds
each token's into dense matrices. Cupola answers through its Python client and
gRPC, each time other tokens, so that no answer comes from the cache. From given
inputs both begin at the MLP's input; from text Cupola also tokenizes and runs the
model, and the peer's time is that of given inputs. The two take turns, the table
has each one's best, and before anything is timed the blocks are compared.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np
import torch

from pair_peer import D_SAE, Workbench

TOLERANCE = 5e-5  # of the largest entry: the project's float32 promise


def compare(peer, answer, rows):
    for token, x in enumerate(rows):
        outputs, active, whole = peer.jacobian(torch.from_numpy(x))
        block = whole[:, active]
        inputs = active.nonzero()[:, 0].numpy()
        by_in = np.argsort(answer.in_latents[token])
        by_out = np.argsort(answer.out_latents[token])
        ours = answer.values[token][by_out][:, by_in]
        keep_in = np.isin(answer.in_latents[token][by_in], inputs)
        keep_out = np.isin(answer.out_latents[token][by_out], outputs)
        worst = np.abs(ours[keep_out][:, keep_in] - block.numpy()).max()
        if worst > TOLERANCE * np.abs(ours).max():
            raise SystemExit(f"blocks differ by {worst} at token {token}")


class Totals:
    """The published accumulator: whole matrices, each token's rows put into one."""

    def __init__(self):
        self.sums = torch.zeros(D_SAE, D_SAE)
        self.largest = torch.zeros(D_SAE, D_SAE)

    def add(self, outputs, rows):
        whole = torch.zeros(D_SAE, D_SAE)
        whole[outputs] = rows.abs()
        self.sums += whole
        self.largest = torch.maximum(self.largest, whole)


def seconds(call):
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def fresh(answer):
    if answer.from_cache:
        raise SystemExit("a new question was answered from the cache")


def peer_blocks(peer, rows):
    for x in rows:
        peer.jacobian(x)


def peer_accumulation(peer, rows, totals):
    for x in rows:
        outputs, _, whole = peer.jacobian(x)
        totals.add(outputs, whole)


def accumulate(bench, prompts):
    bench.pair.accumulate(prompts, block="all").result()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--peer_tokens", type=int, default=6)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    count = options.tokens // 128
    with tempfile.TemporaryDirectory() as scratch:
        with Workbench(pathlib.Path(scratch), options.threads) as bench:
            prompts = bench.prompts(count, 128)
            rows = bench.rows(prompts)
            compare(bench.peer, bench.pair.jacobian(inputs=rows[:3]), rows[:3])
            sample = torch.from_numpy(rows[: options.peer_tokens])
            torch.set_grad_enabled(True)
            totals = Totals()
            best = {}

            def turn(name, work, tokens):
                spent, answer = seconds(work)
                best[name] = max(best.get(name, 0), tokens / spent)
                return answer

            for number in range(options.turns):
                few = len(sample)
                turn("peer", lambda: peer_blocks(bench.peer, sample), few)
                scaled = rows * np.float32(1 + 0.01 * number)
                fresh(turn("inputs", lambda: bench.pair.jacobian(inputs=scaled), len(rows)))
                texts = [[number + 1, *ids[1:]] for ids in prompts]
                fresh(turn("text", lambda: bench.pair.jacobian(texts), len(rows)))
                short = sample[:2]
                turn(
                    "peer rows",
                    lambda: peer_accumulation(bench.peer, short, totals),
                    len(short),
                )
                turn("rows", lambda: accumulate(bench, texts[:4]), 4 * 128)

    print(f"| best of {options.turns} | peer, tokens/s | cupola, tokens/s | ratio | aim |")
    print("|---|---|---|---|---|")
    for title, peer, ours, aim in (
        ("k x k blocks, given inputs", "peer", "inputs", 1000),
        ("k x k blocks, text", "peer", "text", 400),
        (f"accumulated rows x {D_SAE}", "peer rows", "rows", 120),
    ):
        print(
            f"| {title} | {best[peer]:.2f} | {best[ours]:.0f} | "
            f"{best[ours] / best[peer]:.0f} | {aim} |"
        )


if __name__ == "__main__":
    main()
