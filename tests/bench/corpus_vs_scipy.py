"""Matching the features of two dictionaries, Cupola beside SciPy, in one run.

    corpus_vs_scipy.py [--latents 8192] [--tokens 640000] [--turns 3]

Two stores of sparse activations, k = 32 of the latents on each token, some latents
far more often than others: SciPy multiplies their normalised CSR matrices and makes
the product dense; Cupola adds the same tokens up in chunks, as a job does, and takes
the cosines. Then the exact one-to-one assignment on float64 costs, of those distances
and of random numbers: scipy.optimize.linear_sum_assignment beside Cupola's. The
results are compared before the times are printed. And one pass of feature statistics
and of co-activation.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import scipy.optimize
import scipy.sparse

TOLERANCE = 5e-5
K = 32
CHUNK = 512


def store(tokens, latents, seed):
    """CSR float32 [tokens, latents], K active latents a token."""
    random = np.random.default_rng(seed)
    share = random.lognormal(0.0, 1.5, latents)
    edges = np.cumsum(share / share.sum())
    picks = np.searchsorted(edges, random.random((tokens, 2 * K)))
    picks = np.minimum(picks, latents - 1)
    picks.sort(axis=1)
    first = np.ones_like(picks, dtype=bool)
    first[:, 1:] = picks[:, 1:] != picks[:, :-1]
    # The first K different ones, in an order that does not prefer low indices.
    order = np.argsort(np.where(first, random.random(picks.shape), 2), axis=1)[:, :K]
    keep = np.zeros_like(first)
    np.put_along_axis(keep, order, True, axis=1)
    keep &= first
    indptr = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    values = random.exponential(1.0, int(indptr[-1])).astype(np.float32) + 0.01
    return scipy.sparse.csr_matrix((values, picks[keep].astype(np.int32), indptr),
                                   shape=(tokens, latents))


def save(matrix, prefix):
    matrix.indptr.astype(np.int64).tofile(f"{prefix}.indptr")
    matrix.indices.astype(np.int32).tofile(f"{prefix}.indices")
    matrix.data.astype(np.float32).tofile(f"{prefix}.values")


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def ours(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], check=True, text=True,
                          capture_output=True)
    return [float(number) for number in done.stdout.split()]


def cosines(a, b, dtype=np.float32):
    def unit(x):
        x = x.astype(dtype)
        norms = np.sqrt(np.asarray(x.multiply(x).sum(axis=0)).ravel())
        return x @ scipy.sparse.diags(1 / np.maximum(norms, 1e-30)).astype(dtype)

    return (unit(a).T @ unit(b)).toarray()


def row(name, theirs, mine):
    print(f"| {name} | {theirs:.2f} | {mine:.2f} | {theirs / mine:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=640_000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    build = pathlib.Path(os.environ.get("CUPOLA_BUILD", "build"))
    program = build / "corpus_math"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        a = store(arguments.tokens, arguments.latents, 1)
        b = store(arguments.tokens, arguments.latents, 2)
        save(a, folder / "a")
        save(b, folder / "b")
        print("| best of turns | SciPy, s | Cupola, s | ratio |\n|---|---|---|---|")

        def similarity():
            return ours(program, "similarity", folder / "a", folder / "b",
                        arguments.latents, CHUNK, folder / "cosines")

        mine = min(sum(similarity()) for _ in range(arguments.turns))
        theirs = min(timed(lambda: cosines(a, b).shape)[0]
                     for _ in range(max(1, arguments.turns - 1)))
        got = np.fromfile(folder / "cosines", np.float32)
        got = got.reshape(arguments.latents, arguments.latents)
        # Where the sums are longest, in float64: SciPy's in float32 are further off.
        most = np.argsort(-np.asarray(a.sum(axis=0)).ravel())[:128]
        exact = cosines(a[:, most], b, np.float64)
        worst = np.abs(got[most] - exact).max()
        assert worst <= TOLERANCE * np.abs(exact).max(), worst
        name = f"{arguments.latents}^2 cosines, {arguments.tokens} tokens, k {K}"
        row(name, theirs, mine)

        random = np.random.default_rng(3)
        for name, costs in [
            ("distances", 1 - got.astype(np.float64)),
            ("random costs", random.random(got.shape)),
        ]:
            costs.tofile(folder / "costs")
            best = min((ours(program, "assign", folder / "costs", arguments.latents)
                        for _ in range(arguments.turns)), key=lambda pair: pair[0])
            theirs, (rows, columns) = timed(
                lambda: scipy.optimize.linear_sum_assignment(costs))
            total = costs[rows, columns].sum()
            assert abs(best[1] - total) <= 1e-9 * abs(total), (best[1], total)
            row(f"{arguments.latents}^2 assignment, {name}", theirs, best[0])

        passes = [ours(program, "statistics", folder / "a", arguments.latents, CHUNK)
                  for _ in range(arguments.turns)]
        for name, seconds in zip(("feature statistics", "co-activation"), zip(*passes)):
            print(f"\nOne pass of {name}: {arguments.tokens / min(seconds):,.0f} tokens/s "
                  f"({arguments.latents} latents, k {K}).")


if __name__ == "__main__":
    main()
