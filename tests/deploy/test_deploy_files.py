"""The files of deploy/: they parse, name what exists, and fit together."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from harness.server import ROOT, binary

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
IMAGES = re.compile(
    r"cupola|nginx:[\d.]+-alpine|prom/prometheus:v[\d.]+|grafana/grafana:[\d.]+"
)
FLAG = re.compile(r"--([a-z_]+)(?:=|$)")


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]


def compose():
    return documents(DEPLOY / "compose.yaml")[0]


def kubernetes():
    """{(kind, name): object}"""
    found = {}
    for path in sorted(KUBERNETES.glob("*.yaml")):
        for document in documents(path):
            if document["kind"] == "Kustomization":
                continue
            key = document["kind"], document["metadata"]["name"]
            assert key not in found, key
            found[key] = document
    return found


def container(workload):
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


def server_commands():
    """Each way in which deploy/ starts the server: (where, arguments)."""
    for name, service in compose()["services"].items():
        if service["image"] == "cupola":
            yield f"compose {name}", service["command"]
    stateful = kubernetes()["StatefulSet", "cupola"]
    yield "kubernetes", container(stateful)["args"]
    docker = (ROOT / "Dockerfile").read_text()
    command = re.search(r"^CMD (\[.*?\])", docker, re.M | re.S)[1]
    yield "Dockerfile", json.loads(command.replace("\\\n", ""))


def flags_of(arguments):
    return {FLAG.match(a)[1] for a in arguments if FLAG.match(a)}


@pytest.fixture(scope="module")
def known_flags():
    if not binary().exists():
        pytest.skip(f"{binary()} is not built")
    text = subprocess.run(
        [binary(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"^  --([a-z_]+)", text, re.M))


def test_every_flag_exists(known_flags):
    seen = 0
    for where, arguments in server_commands():
        flags = flags_of(arguments)
        assert "catalog" in flags, where
        assert flags <= known_flags, (where, flags - known_flags)
        seen += 1
    assert seen == 5
    for path in (ROOT / "README.md", *DEPLOY.glob("*.sh")):
        for line in path.read_text().splitlines():
            if "cupola_server" in line:
                flags = set(re.findall(r"--([a-z]+_[a-z_]+)\b", line))
                assert flags <= known_flags, (path, line)


def test_the_server_takes_each_command(tmp_path, known_flags):
    """As far as reading its command line goes: the catalog is not there."""
    for where, arguments in server_commands():
        expanded = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", a) for a in arguments]
        ended = subprocess.run(
            [binary(), *expanded], capture_output=True, text=True, cwd=tmp_path
        )
        assert ended.returncode == 1, (where, ended.stderr)
        assert "/catalog/catalog.textproto" in ended.stderr, where


def test_compose_fits_together():
    file = compose()
    services = file["services"]
    for name, service in services.items():
        assert IMAGES.fullmatch(service["image"]), name
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service["networks"]) <= set(file["networks"]), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
        for volume in service["volumes"]:
            source = re.sub(r"^\$\{.*?\}", "${}", volume).split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), volume
            elif source != "${}":
                assert source in file["volumes"], volume
    servers = {n for n, s in services.items() if s["image"] == "cupola"}
    assert addresses(DEPLOY / "cupola-servers.conf") == {
        f"{name}:7070" for name in servers
    }
    config = documents(DEPLOY / "prometheus.yml")[0]
    (static,) = config["scrape_configs"][0]["static_configs"]
    assert set(static["targets"]) == {f"{name}:7071" for name in servers}
    # No two write to one cache, and each has the time to drain.
    caches = [s["volumes"][1] for n, s in services.items() if n in servers]
    assert len(set(caches)) == len(caches) == 3
    for name in servers:
        drain = value_of(services[name]["command"], "drain_seconds")
        assert int(services[name]["stop_grace_period"].rstrip("s")) > drain


def value_of(arguments, flag):
    (value,) = [a.split("=")[1] for a in arguments if a.startswith(f"--{flag}=")]
    return int(value)


def addresses(source):
    text = source if isinstance(source, str) else source.read_text()
    return set(re.findall(r"^server (\S+)", text, re.M))


def test_kubernetes_fits_together():
    objects = kubernetes()
    kinds = {kind for kind, _ in objects}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
        "StatefulSet",
    }
    listed = documents(KUBERNETES / "kustomization.yaml")[0]["resources"]
    files = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert files == {*listed, "kustomization.yaml"}

    templates = {}
    for (kind, name), workload in objects.items():
        if kind not in ("StatefulSet", "Deployment"):
            continue
        spec = workload["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels, name
        templates[name] = labels
        only = container(workload)
        assert IMAGES.fullmatch(only["image"]), name
        claims = spec.get("volumeClaimTemplates", [])
        volumes = {v["name"]: v for v in spec["template"]["spec"]["volumes"]}
        volumes.update({c["metadata"]["name"]: c for c in claims})
        assert {m["name"] for m in only["volumeMounts"]} == set(volumes), name
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in objects
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in objects
        ports = {port["name"] for port in only["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for check in ("httpGet", "tcpSocket"):
                if check in only.get(probe, {}):
                    assert only[probe][check]["port"] in ports, (name, probe)
    for (kind, name), service in objects.items():
        if kind == "Service":
            assert service["spec"]["selector"] in templates.values(), name


def test_kubernetes_drains_and_keeps_its_caches():
    objects = kubernetes()
    stateful = objects["StatefulSet", "cupola"]["spec"]
    headless = objects["Service", stateful["serviceName"]]["spec"]
    assert headless["clusterIP"] == "None"
    pod = stateful["template"]["spec"]
    (server,) = pod["containers"]
    drain = value_of(server["args"], "drain_seconds")
    pause = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= drain + pause + 10
    assert server["readinessProbe"]["grpc"]["port"] == 7070
    mounts = {m["name"]: m for m in server["volumeMounts"]}
    (cache,) = [a for a in server["args"] if a.startswith("--cache_dir=")]
    assert cache.split("=")[1].startswith(mounts["cache"]["mountPath"] + "/")
    assert server["securityContext"]["readOnlyRootFilesystem"]
    budget = objects["PodDisruptionBudget", "cupola"]["spec"]
    assert budget["selector"] == stateful["selector"]
    assert budget["maxUnavailable"] == 1
    # The catalog's paths lie on the volume with the models.
    catalog = objects["ConfigMap", "cupola-catalog"]["data"]["catalog.textproto"]
    paths = re.findall(r'path: "([^"]+)"', catalog)
    assert paths
    for path in paths:
        assert path.startswith(mounts["models"]["mountPath"] + "/")


def test_the_proxy_of_kubernetes_is_the_same():
    objects = kubernetes()
    data = objects["ConfigMap", "cupola-proxy"]["data"]
    assert data["nginx.conf"] == (DEPLOY / "nginx.conf").read_text()
    stateful = objects["StatefulSet", "cupola"]
    service = stateful["spec"]["serviceName"]
    assert addresses(data["cupola-servers.conf"]) == {
        f"cupola-{i}.{service}:7070" for i in range(stateful["spec"]["replicas"])
    }


def test_grafana_finds_its_files():
    dashboard = json.loads((DEPLOY / "grafana" / "cupola.json").read_text())
    (source,) = documents(DEPLOY / "grafana" / "datasources.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = documents(DEPLOY / "grafana" / "dashboards.yaml")[0]["providers"]
    mounts = compose()["services"]["grafana"]["volumes"]
    assert any(
        m.split(":")[1].startswith(provider["options"]["path"] + "/") for m in mounts
    )
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 20
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["targets"] and panel["title"]
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$([a-z]+)", json.dumps(dashboard))) <= variables


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool")
def test_prometheus_accepts_its_configuration():
    for command in (
        ["check", "config", DEPLOY / "prometheus.yml"],
        ["check", "rules", DEPLOY / "cupola.rules.yml"],
        ["test", "rules", pathlib.Path(__file__).with_name("alerts.test.yml")],
    ):
        ended = subprocess.run(
            ["promtool", *map(str, command)], capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
