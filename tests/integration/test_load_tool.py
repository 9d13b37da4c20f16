"""cupola_bench against a server: what it reports is what the server counted."""

import json
import signal
import subprocess

import pytest
from harness.server import Server, binary
from harness.zoo import Zoo

BENCH = binary().with_name("cupola_bench")
QUICK = ("--window=0.3", "--max_windows=4", "--lengths=8")

pytestmark = pytest.mark.skipif(not BENCH.exists(), reason=f"{BENCH} is not built")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    zoo.add("gpt2", "standard")
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, zoo.catalog(), "--no-self_check") as server:
        server.wait_until_loaded()
        yield server


def bench(*arguments, code=0):
    ended = subprocess.run(
        [BENCH, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == code, ended.stderr
    return ended


def answered(server, method):
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in server.get("/metrics").splitlines()
        if line.startswith("cupola_requests_total{") and f'method="{method}"' in line
    )


def check(report, loop):
    assert report["tool"] == "cupola_bench" and report["format"] == 1
    assert report["loop"] == loop
    assert report["dictionary"] == "gpt2/standard" and report["model"] == "gpt2"
    for point in report["points"]:
        latency = point["latency_seconds"]
        assert latency["count"] == point["codes"]["OK"] > 0
        assert set(point["codes"]) == {"OK"}
        order = [latency[key] for key in ("p50", "p90", "p95", "p99", "max")]
        assert order == sorted(order) and order[0] > 0
        assert point["unfinished"] == point["backlog"] == 0
        expected = latency["count"] / point["seconds"]
        assert point["throughput"] == pytest.approx(expected)
        assert point["bytes"] > 0 and point["compute_seconds_mean"] > 0


def test_closed_loop_of_distinct_and_repeated_prompts(small, tmp_path):
    before = answered(small, "GetFeatures")
    path = tmp_path / "report.json"
    table = bench(
        *(small.grpc, *QUICK, "--clients=1,3", "--repeat=0.5"),
        *("--repeated_prompts=2", "--json", path),
    ).stdout
    report = json.loads(path.read_text())
    check(report, "closed")
    assert [point["clients"] for point in report["points"]] == [1, 3]
    # Distinct prompts are computed, those asked before are not.
    last = report["points"][1]
    assert 0.2 < last["hits"] / last["latency_seconds"]["count"] < 0.8
    # Each call, also those of the warm-up, reached the server.
    counted = answered(small, "GetFeatures") - before
    assert counted >= sum(p["latency_seconds"]["count"] for p in report["points"])
    assert "answers/s" in table and len(table.splitlines()) == 4


def test_open_loop_of_a_mix(small):
    before = {m: answered(small, m) for m in ("GetFeatures", "Ablate", "Run")}
    report = json.loads(
        bench(
            *(small.grpc, *QUICK, "--rate=40", "--features=1", "--ablate=1"),
            *("--run=1", "--json=-", "--seed=5"),
        ).stdout
    )
    check(report, "open")
    assert report["arrivals"] == "poisson" and report["seed"] == 5
    for method, count in before.items():
        assert answered(small, method) > count, method


def test_a_thousand_clients(small):
    """Their calls are all in flight, on a few connections and threads."""
    report = json.loads(
        bench(
            *(small.grpc, "--clients=1000", "--window=1", "--max_windows=3"),
            *("--lengths=4", "--repeat=1", "--repeated_prompts=4", "--json=-"),
        ).stdout
    )
    (point,) = report["points"]
    assert point["clients"] == 1000 and point["unfinished"] == 0
    assert point["codes"]["OK"] > 0
    assert point["refusals_without_delay"] == 0


def test_what_the_server_refuses_is_counted(small):
    report = json.loads(
        bench(
            *(small.grpc, *QUICK, "--clients=2", "--deadline=0.000001"),
            "--json=-",
        ).stdout
    )
    codes = report["points"][0]["codes"]
    assert codes and "OK" not in codes and codes["DEADLINE_EXCEEDED"] > 0
    assert report["points"][0]["throughput"] == 0
    assert not report["points"][0]["stable"]


def test_calls_that_do_not_end_are_cancelled_and_told(small):
    counted = answered(small, "Run")
    process = subprocess.Popen(
        [BENCH, small.grpc, *QUICK, "--clients=3", "--features=0", "--run=1"]
        + ["--json=-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while answered(small, "Run") == counted:
        assert process.poll() is None
    small.process.send_signal(signal.SIGSTOP)
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        small.process.send_signal(signal.SIGCONT)
    assert process.returncode == 0
    assert json.loads(output)["points"][0]["unfinished"] == 3


def test_bad_command_lines(small):
    assert "address" in bench(code=2).stderr
    assert "--rate" in bench(small.grpc, "--rate=0", code=2).stderr
    too_long = bench(small.grpc, "--lengths=100000", code=2).stderr
    assert "context" in too_long and "100000" in too_long
    missing = bench(small.grpc, "--dictionary=none", code=1).stderr
    assert "none" in missing
    assert "127.0.0.1:1" in bench("127.0.0.1:1", code=1).stderr
