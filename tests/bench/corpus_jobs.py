"""Jobs over a corpus from end to end, beside the features alone, in one run.

    corpus_jobs.py [--tokens 65536] [--turns 3]

pythia-70m's shapes with two TopK SAEs of 16,384 latents. In turns, over the same
rows of 128 tokens: GetFeatures, 4096 tokens a request and nothing cached; feature
statistics of all latents; the features stored on the disk; the two SAEs matched,
computed and then from their stores. A rate is the median of the turns, that of a
job what it took with its checkpoints. What is stored is compared with GetFeatures'
answers, and the matching from stores with the computed one, before anything is told.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cupola
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import workload
from harness.server import Server, catalog_text

SHAPE = workload.PYTHIA_70M
ROW, CHUNK = 128, 4096
MIB = 1 << 20


def write(folder):
    model = workload.write_model(SHAPE, folder / "model")
    entries = {}
    for name in ("sae", "other"):
        workload.write_dictionary(SHAPE, model.config.hidden_size, folder / name)
        entries[name] = ("m", folder / name)
    # The other one: the same latents, but for a few, in another order.
    path = folder / "other" / "sae_weights.safetensors"
    tensors = load_file(path)
    order = np.random.default_rng(1).permutation(SHAPE.d_sae)
    for tensor, axis in (("W_enc", 1), ("W_dec", 0), ("b_enc", 0)):
        tensors[tensor] = tensors[tensor].index_select(
            axis, torch.from_numpy(order)
        ).contiguous()
    save_file(tensors, path)
    return catalog_text({"m": folder / "model"}, entries)


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sweep(sae, rows):
    """GetFeatures over all rows; nothing is kept."""
    step = CHUNK // ROW
    for at in range(0, len(rows), step):
        sae.features(rows[at : at + step])


def check(client, rows, selected):
    """A store is the features; a matching is the same with stores and without."""
    sae = client.dictionary("sae")
    store = sae.store(selected, chunk_tokens=CHUNK).result()
    expected = sae.features(rows[:32]).csr
    worst = abs(store.csr(0, expected.shape[0]) - expected).max()
    assert worst <= 5e-5 * expected.max(), worst
    latents = range(0, SHAPE.d_sae, 500)
    other = client.dictionary("other")
    other.store(selected, chunk_tokens=CHUNK).wait()
    job = sae.match(["other"], selected, chunk_tokens=CHUNK)
    read = job.result().cosines(latents)
    for one in client.activation_stores():
        one.delete()
    computed = sae.match(["other"], selected, chunk_tokens=CHUNK).result()
    np.testing.assert_allclose(read, computed.cosines(latents), atol=5e-5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.tokens // ROW
    tokens = count * ROW
    flags = ["--cache_memory_bytes=0", "--cache_bytes=1M", "--no-self_check"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        catalog = write(folder)
        with Server(folder / "server", catalog, *flags) as server:
            server.wait_until_loaded()
            with cupola.connect(server.grpc) as client:
                before = server.resident_bytes()
                rows = workload.Prompts(1).draw(count, ROW)
                selected = client.dataset("corpus", rows).select("m")
                check(client, rows, selected)
                sae, other = client.dictionary("sae"), client.dictionary("other")

                def job(submit, **options):
                    return seconds_of(
                        lambda: submit(selected, chunk_tokens=CHUNK, **options).wait(
                            progress=False
                        )
                    )

                def match(rows, **options):
                    return sae.match(["other"], rows, **options)

                taken = {}
                turns = workload.Prompts(2)
                for _ in range(arguments.turns):
                    fresh = turns.draw(count, ROW)  # none of them is cached
                    for label, work in (
                        ("GetFeatures", lambda: seconds_of(lambda: sweep(sae, fresh))),
                        ("feature statistics", lambda: job(sae.statistics)),
                        ("two SAEs matched", lambda: job(match)),
                        ("stored", lambda: job(sae.store)),
                    ):
                        taken.setdefault(label, []).append(work())
                    job(other.store)
                    stores = client.activation_stores()
                    disk = stores[0].info
                    label = "feature statistics, from the store"
                    taken.setdefault(label, []).append(job(sae.statistics))
                    label = "two SAEs matched, from their stores"
                    taken.setdefault(label, []).append(job(match))
                    for store in stores:
                        store.delete()
                peak = server.resident_bytes(peak=True)
    alone = statistics.median(taken["GetFeatures"])
    print(f"| {tokens:,} tokens, {SHAPE.d_sae} latents, k {workload.K} "
          "| tokens/s | of GetFeatures |\n|---|---|---|")
    for label, times in taken.items():
        median = statistics.median(times)
        print(f"| {label} | {tokens / median:,.0f} | {alone / median:.2f} |")
    print(
        f"\nStored: {disk.bytes / MIB:.1f} MiB, {disk.bytes / tokens:.0f} bytes a token "
        f"({disk.entries / tokens:.1f} activations). Peak memory {peak / MIB:,.0f} MiB, "
        f"{(peak - before) / MIB:,.0f} MiB above the loaded server; the products of two "
        f"SAEs are {4 * SHAPE.d_sae**2 / MIB:,.0f} MiB of it."
    )


if __name__ == "__main__":
    main()
