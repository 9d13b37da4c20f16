"""`cupola top`: the page, its numbers, and where they come from."""

import contextlib
import http.server
import math
import threading
import time

import pytest
from typer.testing import CliRunner

from cupola import _metrics, _top, cli

BOUNDS = ("0.001", "0.01", "0.1", "1", "+Inf")


def histogram(name, labels, counts, total):
    """Cumulative counts at BOUNDS."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    lines = [
        f'{name}_bucket{{{inside}{"," if inside else ""}le="{bound}"}} {count}'
        for bound, count in zip(BOUNDS, counts)
    ]
    lines += [
        f"{name}_sum{{{inside}}} {total}",
        f"{name}_count{{{inside}}} {counts[-1]}",
    ]
    return "\n".join(lines)


def page(requests=200, errors=50, hits=30, start=None, counts=(0, 100, 190, 200, 200)):
    start = time.time() - 100 if start is None else start
    return "\n".join(
        [
            "# HELP cupola_requests_total Finished requests.",
            "# TYPE cupola_requests_total counter",
            f"cupola_start_time_seconds {start}",
            'cupola_build_info{torch="2.13.0",version="1.2.3"} 1',
            'cupola_requests_total{code="OK",method="GetFeatures",model="m"} '
            f"{requests - errors}",
            'cupola_requests_total{code="NOT_FOUND",method="GetFeatures",model=""} '
            f"{errors}",
            'cupola_requests_total{code="OK",method="Run",model="m"} 10',
            "cupola_requests_in_flight 7",
            'cupola_queue_depth{priority="interactive"} 5',
            'cupola_queue_depth{priority="bulk"} 64',
            'cupola_cache_lookups_total{tier="memory",result="hit"} ' + str(hits),
            'cupola_cache_lookups_total{tier="disk",result="miss"} 70',
            'cupola_cache_bytes{tier="disk"} 1048576',
            "cupola_cache_capacity_bytes 10737418240",
            'cupola_device_memory_bytes{device="cuda:0"} 2147483648',
            'cupola_resident_bytes{kind="model",name="tiny"} 3072',
            'cupola_resident_bytes{kind="dictionary",name="gone"} 0',
            histogram("cupola_request_seconds", {"method": "GetFeatures"}, counts, 5.0),
            histogram("cupola_batch_tokens", {"device": "cpu"}, (0, 0, 0, 0, 4), 512),
        ]
    )


def test_parse():
    text = r"""# TYPE a counter
a 1
a{x="1"} 2 1700000000
a{x="quote \" slash \\ line \n",y="2"} 3e2
b NaN
not a sample
broken{x="1"} many
"""
    parsed = _metrics.parse(text)
    assert parsed.samples["a"] == [
        ({}, 1.0),
        ({"x": "1"}, 2.0),
        ({"x": 'quote " slash \\ line \n', "y": "2"}, 300.0),
    ]
    assert math.isnan(parsed.sum("b"))
    assert parsed.sum("a") == 303 and parsed.sum("a", x="1") == 2
    assert "broken" not in parsed.samples
    assert parsed.sum("missing") == 0


def test_quantile_as_prometheus():
    counts = dict(zip(map(float, BOUNDS), (0, 100, 190, 200, 200)))
    assert _metrics.quantile(0.5, counts) == pytest.approx(0.01)
    # The 195th of 200 lies halfway between 0.1 (190) and 1 (200).
    assert _metrics.quantile(0.975, counts) == pytest.approx(0.55)
    assert _metrics.quantile(0.25, counts) == pytest.approx(0.001 + 0.009 * 0.5)
    # Above the last bound only that bound is known.
    beyond = dict(zip(map(float, BOUNDS), (0, 0, 0, 0, 9)))
    assert _metrics.quantile(0.5, beyond) == 1
    # Of what came in between.
    before = dict(zip(map(float, BOUNDS), (0, 100, 100, 100, 100)))
    assert _metrics.quantile(0.45, counts, before) == pytest.approx(0.055)
    assert _metrics.quantile(0.5, counts, counts) is None
    assert _metrics.quantile(0.5, {}) is None


def frame(now, before=None, seconds=2.0):
    earlier = None if before is None else _metrics.parse(before)
    return _top.Frame.of(_metrics.parse(now), earlier, seconds)


def test_rates_lie_between_two_pages():
    start = time.time() - 100
    found = frame(
        page(260, 60, 40, start, (0, 110, 230, 260, 260)), page(start=start)
    )
    assert found.rate("cupola_requests_total", method="GetFeatures") == 30
    assert found.rate("cupola_requests_total", method="Run") == 0
    assert found.share("cupola_cache_lookups_total", "result", "hit") == 1
    assert found.mean("cupola_batch_tokens") is None
    # Of the 60 between: 10 up to 0.01, 30 up to 0.1, 20 up to 1.
    assert found.quantile(0.5, "cupola_request_seconds") == pytest.approx(0.07)


def test_a_server_that_was_started_again_counts_from_its_start():
    found = frame(page(start=time.time() - 50), page(5000, start=1.0))
    assert found.before is None
    assert found.rate("cupola_requests_total", method="GetFeatures") == (
        pytest.approx(4, rel=0.05)
    )


@contextlib.contextmanager
def serving(answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answer(self)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def test_once(run):
    asked = []

    def answer(request):
        asked.append((request.path, request.headers.get("Authorization")))
        return 200, page()

    with serving(answer) as address:
        output = run("--token", "secret", "top", "--once", "--http", address)
    assert asked == [("/metrics", "Bearer secret")]
    assert "version 1.2.3" in output and "since the start" in output
    assert "5 and 64 bulk" in output
    assert "30.0%" in output  # hits
    assert "1.0 MiB / 10.0 GiB" in output
    assert "cuda:0 2.0 GiB" in output
    (line,) = [x for x in output.splitlines() if x.startswith("GetFeatures")]
    assert line.split()[1:] == ["2.0", "25.0%", "10", "ms", "100", "ms", "820", "ms"]
    assert "tiny" in output and "3.0 KiB" in output and "gone" not in output


def test_an_empty_server(run):
    text = "cupola_start_time_seconds 1\ncupola_requests_in_flight 0\n"
    with serving(lambda _: (200, text)) as address:
        output = run("top", "--once", "--http", address)
    assert "no requests" in output


def test_failures_end_in_one_line(run):
    output = run("top", "--once", "--http", "127.0.0.1:1", code=4)
    assert output.startswith("cupola: http://127.0.0.1:1: ")
    with serving(lambda _: (401, "")) as address:
        assert "401" in run("top", "--once", "--http", address, code=1)
    # Not named: the port beside the gRPC server's.
    output = run("--server", "127.0.0.1:1", "top", "--once", code=4)
    assert "127.0.0.1:7071" in output


def test_watch_shows_what_lies_between():
    start = time.time() - 100
    pages = [page(n, start=start) for n in (200, 300)]
    shown = []

    def show(one):
        shown.append(one)
        if len(shown) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _top.watch(lambda: _metrics.parse(pages.pop(0)), show, 0.001)
    assert shown[0].before is None
    assert shown[1].count("cupola_requests_total", method="GetFeatures") == 100
