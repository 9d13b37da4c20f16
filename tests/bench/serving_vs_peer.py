"""Many clients at once, Cupola beside TransformerLens + SAELens, in one run.

    serving_vs_peer.py [--turns 5] [--threads 2] [--clients 1,8,32]

Pythia-70m's shapes with a TopK dictionary of 16,384 latents, 1 x 32 tokens a
request, random weights, float32. The peer answers one prompt after the other in
this process. Cupola answers so many clients of cupola_bench at once, each of
which asks again when it has its answer, every prompt a new one. The two take
turns; a ratio is the median over the turns. At the end health checks over gRPC
are timed while 32 clients keep the device busy with ablations.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import grpc
import numpy as np
import torch

import workload
from harness.server import Server, binary, catalog_text

AIMS = {8: "6"}
LENGTH = 32
PROBES = 500
PROBE_SECONDS = 0.02  # from one to the next
EMPTY = b""  # a HealthCheckRequest for the whole server


def load(server, *options):
    """cupola_bench against the server, as a process."""
    program = binary().with_name("cupola_bench")
    return subprocess.Popen(
        [program, server.grpc, *options, "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def points(process):
    output, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"cupola_bench ended with {process.returncode}")
    return json.loads(output)["points"]


def peer_rate(peer, prompts, seconds=4.0):
    """Prompts a second, one after the other."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        peer.features(prompts.draw(1, LENGTH))
        count += 1
    return count / (time.perf_counter() - start)


def probe(server):
    """Seconds that each of many health checks takes."""
    times = []
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        check(EMPTY)
        for _ in range(PROBES):
            start = time.perf_counter()
            check(EMPTY)
            times.append(time.perf_counter() - start)
            time.sleep(PROBE_SECONDS)
    return times


def print_rates(clients, theirs, ours):
    print("| clients | peer, prompts/s | cupola, prompts/s | ratio | aim | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    median = statistics.median
    for number in clients:
        mine = ours[number]
        rates = [point["throughput"] for point in mine]
        latency = [point["latency_seconds"] for point in mine]
        print(
            f"| {number} | {median(theirs):.1f} | {median(rates):.1f} | "
            f"{median(np.divide(rates, theirs)):.2f} | {AIMS.get(number, '')} | "
            f"{1e3 * median(one['p50'] for one in latency):.1f} | "
            f"{1e3 * median(one['p99'] for one in latency):.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", default="1,8,32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clients = [int(number) for number in options.clients.split(",")]
    shape = workload.PYTHIA_70M
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / shape.name
        folder.mkdir()
        model = workload.write_model(shape, folder)
        sae = scratch / "sae"
        workload.write_dictionary(shape, model.config.hidden_size, sae)
        peer = workload.Peer(shape, folder, model, sae)
        catalog = catalog_text(
            {shape.name: folder}, {f"{shape.name}/sae": (shape.name, sae)}
        )
        flags = [f"--threads={options.threads}", "--no-self_check"]
        with Server(scratch / "server", catalog, *flags) as server:
            server.wait_until_loaded()
            prompts = workload.Prompts()
            theirs, ours = [], {number: [] for number in clients}
            for _ in range(options.turns):
                theirs.append(peer_rate(peer, prompts))
                for number in clients:
                    (point,) = points(
                        load(
                            server,
                            f"--clients={number}",
                            f"--lengths={LENGTH}",
                            "--window=1",
                            "--max_windows=6",
                        )
                    )
                    if point["hits"] or set(point["codes"]) != {"OK"}:
                        raise SystemExit(f"not what was asked for: {point['codes']}")
                    ours[number].append(point)
            print_rates(clients, theirs, ours)
            busy = load(
                server, "--clients=32", "--features=0", "--ablate=1", "--window=60"
            )
            time.sleep(3)
            times = probe(server)
            busy.terminate()
            busy.communicate()
    p50, p99 = 1e3 * np.quantile(times, [0.5, 0.99])
    print()
    print(f"health checks while 32 clients ablate: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
