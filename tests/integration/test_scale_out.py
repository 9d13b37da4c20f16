"""Three servers behind nginx, watched by Prometheus, with the files of deploy/."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import cupola
import make_models
import pytest
from harness.server import ROOT, Server
from harness.zoo import Zoo

DEPLOY = ROOT / "deploy"
START_SECONDS = 30
KEYS = 24

needs_nginx = pytest.mark.skipif(
    not shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"),
    reason="no nginx",
)
needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="no prometheus"
)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def replaced(text, old, new):
    assert text.count(old) == 1, (old, text.count(old))
    return text.replace(old, new)


@contextlib.contextmanager
def running(command, ready, what):
    """The program, from when `ready()` is true."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            assert process.poll() is None, f"{what} ended: {process.returncode}"
            assert time.monotonic() < deadline, f"{what} does not start"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def proxy(folder, servers):
    """nginx with deploy/nginx.conf: only addresses and folders are changed."""
    folder.mkdir()
    port = free_port()
    temporary = "".join(
        f"    {kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = (DEPLOY / "nginx.conf").read_text()
    text = replaced(text, "listen 7070 http2", f"listen 127.0.0.1:{port} http2")
    text = replaced(text, "\nhttp {\n", "\nhttp {\n" + temporary)
    (folder / "nginx.conf").write_text(text)
    lines = (DEPLOY / "cupola-servers.conf").read_text()
    for i, server in enumerate(servers):
        lines = replaced(lines, f"cupola-{i + 1}:7070", server.grpc)
    (folder / "cupola-servers.conf").write_text(lines)
    command = [
        shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"),
        *("-p", str(folder), "-c", str(folder / "nginx.conf")),
        *("-g", f"daemon off; pid {folder / 'nginx.pid'};"),
    ]
    with running(command, lambda: answers(port), "nginx"):
        yield f"127.0.0.1:{port}"


class Fleet:
    def __init__(self, folder, zoo):
        self.servers = [
            Server(folder / f"server{i}", zoo.catalog(), "--no-self_check")
            for i in range(3)
        ]
        for server in self.servers:
            server.wait_until_loaded()

    def stop(self):
        for server in self.servers:
            server.stop()

    def counts(self):
        """GetFeatures answered by each server that lives."""
        return {
            i: int(counter(server.get("/metrics"), "GetFeatures"))
            for i, server in enumerate(self.servers)
            if server.process.poll() is None
        }


def counter(text, method):
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("cupola_requests_total{") and f'method="{method}"' in line
    )


@pytest.fixture(scope="module")
def small_zoo(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("small"))
    zoo.add("gpt2", "standard")
    return zoo


@pytest.fixture
def fleet(tmp_path, small_zoo):
    fleet = Fleet(tmp_path, small_zoo)
    yield fleet
    fleet.stop()


def prompt(i):
    return [(7 * i + j * j) % make_models.VOCABULARY for j in range(8)]


def homes(fleet, sae):
    """Where each question is answered, and whether from the cache."""
    found = []
    for i in range(KEYS):
        before = fleet.counts()
        answer = sae.features([prompt(i)])
        after = fleet.counts()
        (home,) = [s for s in after if after[s] != before[s]]
        found.append((home, answer.from_cache))
    return found


@needs_nginx
def test_questions_stick_and_a_lost_server_is_survived(fleet, tmp_path, small_zoo):
    dictionary = next(iter(small_zoo.dictionaries))
    with proxy(tmp_path / "nginx", fleet.servers) as address:
        with cupola.connect(address) as client:
            assert client.status().serving
            sae = client.dictionary(dictionary)
            first = homes(fleet, sae)
            # Spread over all, and computed.
            assert {home for home, _ in first} == {0, 1, 2}
            assert not any(cached for _, cached in first)
            second = homes(fleet, sae)
            assert [home for home, _ in second] == [home for home, _ in first]
            assert all(cached for _, cached in second)

            # One is lost while it is being asked.
            stop, errors, asked = threading.Event(), [], [0, 0]

            def ask(which):
                with cupola.connect(address) as own:
                    mine = own.dictionary(dictionary)
                    while not stop.is_set():
                        try:
                            number = 1000 * (which + 1) + asked[which]
                            mine.features([prompt(number)])
                            mine.features([prompt(asked[which] % KEYS)])
                        except cupola.CupolaError as error:
                            errors.append(error)
                        asked[which] += 1

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
            for thread in threads:
                thread.start()
            while min(asked) < 5:
                time.sleep(0.01)
            fleet.servers[1].kill()
            seen = list(asked)
            while min(a - b for a, b in zip(asked, seen)) < 30 and not errors:
                time.sleep(0.01)
            stop.set()
            for thread in threads:
                thread.join()
            assert not errors

            third = homes(fleet, sae)
            for (old, _), (new, cached) in zip(first, third):
                assert new != 1 and cached  # the ones that moved were asked above
                assert old == 1 or new == old


@needs_nginx
def test_jobs_and_the_catalog_pass(fleet, tmp_path):
    with proxy(tmp_path / "nginx", fleet.servers) as address:
        for _ in range(3):
            with cupola.connect(address) as client:
                assert client.models() and client.jobs() == []
        asked = [
            counter(server.get("/metrics"), "ListJobs")
            + counter(server.get("/metrics"), "List")
            for server in fleet.servers
        ]
        assert sum(asked) == 6


def families(text):
    """Names of metrics on a page."""
    return set(re.findall(r"^# TYPE (\S+) ", text, re.M))


def metrics_of_deploy():
    """Names that the dashboard and the alerts ask for."""
    dashboard = json.loads((DEPLOY / "grafana" / "cupola.json").read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    ]
    expressions += [v.get("query", "") for v in dashboard["templating"]["list"]]
    expressions.append((DEPLOY / "cupola.rules.yml").read_text())
    names = set()
    for expression in expressions:
        names |= set(re.findall(r"\bcupola_[a-z_]+\b", str(expression)))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


@needs_prometheus
def test_prometheus_scrapes_what_dashboard_and_alerts_ask_for(
    fleet, tmp_path, small_zoo
):
    for server in fleet.servers:
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(next(iter(small_zoo.dictionaries)))
            sae.features([prompt(0)])
            sae.features([prompt(0)])
    page = families(fleet.servers[0].get("/metrics"))
    assert metrics_of_deploy() <= page, metrics_of_deploy() - page

    port = free_port()
    text = (DEPLOY / "prometheus.yml").read_text()
    for i, server in enumerate(fleet.servers):
        text = replaced(text, f"cupola-{i + 1}:7071", f'"{server.http}"')
    text = text.replace("15s", "500ms")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(DEPLOY / "cupola.rules.yml", folder)
    base = f"http://127.0.0.1:{port}"

    def query(expression):
        url = f"{base}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(url, timeout=10) as page:
            answer = json.load(page)
        assert answer["status"] == "success"
        return answer["data"]["result"]

    def ready():
        try:
            with urllib.request.urlopen(f"{base}/-/ready", timeout=5):
                return len(query("cupola_build_info")) == 3
        except OSError:
            return False

    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with running(command, ready, "prometheus"):
        assert [r["value"][1] for r in query('up{job="cupola"}')] == ["1"] * 3
        for name in sorted(metrics_of_deploy()):
            found = query(f'{{__name__=~"{name}(_count)?"}}')
            assert found, name
        hits = query('sum(cupola_cache_lookups_total{result="hit"})')
        assert float(hits[0]["value"][1]) == 3
        # Every panel's question is one that Prometheus understands.
        dashboard = json.loads((DEPLOY / "grafana" / "cupola.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m")
                expression = re.sub(r"\$(instance|model)", ".*", expression)
                query(expression)
        with urllib.request.urlopen(f"{base}/api/v1/rules", timeout=10) as page:
            (group,) = json.load(page)["data"]["groups"]
        assert all(rule["health"] != "err" for rule in group["rules"])
