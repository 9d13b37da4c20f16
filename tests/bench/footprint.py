"""Memory, start and cached answers of a server with pythia-70m and one TopK SAE.

    footprint.py [--starts 5] [--calls 2000]

Bytes are those of the process beyond a server with an empty catalog. "resident"
is what the server counts itself: every copy of a weight.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import cupola

import workload
from harness.server import Server, binary, catalog_text

MIB = 1 << 20
SHAPE = workload.PYTHIA_70M
CACHED_TOKENS = 32  # of 512 float32: 64 KiB


def empty_server_bytes(folder):
    with Server(folder, "") as server:
        server.wait_until_loaded()
        return server.resident_bytes()


def ready_seconds(folder, catalog, starts):
    """Median time from the start to a loaded catalog; the files are warm."""
    times = []
    for _ in range(starts):
        start = time.perf_counter()
        with Server(folder, catalog) as server:
            server.wait_until_loaded()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def entry_bytes(server):
    """(weights of the model and the dictionary, what the server holds)."""
    with cupola.connect(server.grpc) as client:
        (model,), (sae,) = client.models(), client.dictionaries()
    parameters = 2 * sae.d_in * sae.d_sae + sae.d_sae + sae.d_in
    dictionary = 4 * parameters
    return (
        model.weight_bytes,
        model.resident_bytes,
        dictionary,
        sae.resident_bytes,
    )


def cached_latency(server, calls):
    command = [
        str(binary().with_name("cache_latency")),
        server.grpc,
        SHAPE.name,
        SHAPE.hook,
        str(CACHED_TOKENS),
        str(calls),
    ]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.fullmatch(r"(\d+) (\S+) (\S+) (\S+)\n", line)
    return found.groups()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model, sae = scratch / "model", scratch / "sae"
        model.mkdir()
        hidden = workload.write_model(SHAPE, model).config.hidden_size
        workload.write_dictionary(SHAPE, hidden, sae)
        catalog = catalog_text(
            {SHAPE.name: model}, {f"{SHAPE.name}/sae": (SHAPE.name, sae)}
        )
        base = empty_server_bytes(scratch / "empty")
        ready = ready_seconds(scratch / "server", catalog, options.starts)
        with Server(scratch / "server", catalog) as server:
            server.wait_until_loaded()
            now, peak = server.resident_bytes(), server.resident_bytes(peak=True)
            weights, resident, sae_weights, sae_resident = entry_bytes(server)
            size, p50, p90, p99 = cached_latency(server, options.calls)

    whole = resident + sae_resident
    print("| pythia-70m and one TopK SAE of 16,384 latents, float32 | | target |")
    print("|---|---|---|")
    print(f"| model's weights | {weights / MIB:.1f} MiB | |")
    print(
        f"| model resident, counted | {resident / MIB:.1f} MiB, "
        f"{resident / weights:.2f} x its weights | <= 1.15 x |"
    )
    print(
        f"| SAE resident, counted | {sae_resident / MIB:.1f} MiB, "
        f"{sae_resident / sae_weights:.2f} x its weights | |"
    )
    print(
        f"| process beyond an empty server | {(now - base) / MIB:.1f} MiB, "
        f"{(now - base) / whole:.2f} x counted | |"
    )
    print(
        f"| its peak while loading | {(peak - base) / MIB:.1f} MiB, "
        f"{(peak - base) / whole:.2f} x counted | < 1.3 x |"
    )
    print(f"| ready after | {ready:.2f} s | <= 2 s |")
    print(
        f"| cached answer of {int(size) // 1024} KiB, C++ client | p50 {p50} ms, "
        f"p90 {p90} ms, p99 {p99} ms | p50 < 1 ms |"
    )


if __name__ == "__main__":
    main()
