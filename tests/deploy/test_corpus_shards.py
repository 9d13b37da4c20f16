"""A job over a corpus in shards on two servers, by Ray and by the commands that
the Kubernetes jobs run: both give the result of one job."""

import os
import subprocess
import sys

import cupola
import numpy as np
import pandas as pd
import pytest
import yaml
from harness.server import ROOT, Server, binary, catalog_text
from harness.zoo import D_MODEL, HOOK, make_dictionaries, make_models

SAE = "tiny/sae"
CORPUS = ROOT / "deploy" / "kubernetes" / "corpus"
pytestmark = pytest.mark.skipif(not binary().exists(), reason="no server is built")


def job_of(file):
    (job,) = [
        document
        for document in yaml.safe_load_all((CORPUS / file).read_text())
        if document["kind"] == "Job"
    ]
    return job["spec"]


def container(job):
    (only,) = job["template"]["spec"]["containers"]
    return only


def environment(job):
    return {one["name"]: one["value"] for one in container(job)["env"]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "standard", folder / "sae", d_in=D_MODEL, hook_name=HOOK, seed=1
    )
    catalog = catalog_text({"tiny": model}, {SAE: ("tiny", sae)})
    random = np.random.default_rng(5)
    rows = [random.integers(3, 90, size=n).tolist() for n in range(3, 35)]
    with Server(folder / "one", catalog) as one, Server(folder / "two", catalog) as two:
        for server in (one, two):
            server.wait_until_loaded()
            with cupola.connect(server.grpc) as client:
                client.dataset("corpus", rows)
        yield one, two


@pytest.fixture(scope="module")
def whole(servers):
    """The result of one job on one server."""
    with cupola.connect(servers[0].grpc) as client:
        rows = client.dataset("corpus").select("tiny")
        job = client.submit("feature_statistics", SAE, rows, top_k=4, chunk_tokens=40)
        job.wait()
        assert job.info.chunks > 6
        result = job.result()
        yield result.to_dataframe(), result.top(), result.histogram()[0]


def check_merged(server, name, whole):
    table, top, counts = whole
    with cupola.connect(server.grpc) as client:
        (job,) = [job for job in client.jobs() if job.info.name == name]
        result = job.result()
        merged = result.to_dataframe()
        for exact in ("count", "max"):
            np.testing.assert_array_equal(merged[exact], table[exact])
        np.testing.assert_allclose(merged["mean"], table["mean"], rtol=1e-6)
        pd.testing.assert_frame_equal(result.top(), top)
        np.testing.assert_array_equal(result.histogram()[0], counts)


def run(*command, **env):
    ended = subprocess.run(
        [str(part) for part in command],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def test_ray_spreads_a_job_over_two_servers(servers, whole, tmp_path):
    pytest.importorskip("ray")
    command = [
        *(sys.executable, ROOT / "deploy" / "ray" / "corpus_job.py"),
        *("feature_statistics", SAE, "--dataset", "corpus"),
        *("--servers", ",".join(server.grpc for server in servers)),
        *("--option", "top_k=4", "--option", "chunk_tokens=40"),
        *("--shards", "3", "--out", tmp_path / "shards"),
    ]
    ray = dict(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    said = run(*command, "--name", "by ray", **ray)
    assert said.count("\nshard ") + said.startswith("shard ") == 3
    check_merged(servers[0], "by ray", whole)
    assert len(list((tmp_path / "shards").iterdir())) == 3
    # Again: nothing is missing, so nothing is computed, and Ray is not started.
    said = run(*command, "--name", "again", "--merge-on", servers[1].grpc, **ray)
    assert "shard " not in said
    check_merged(servers[1], "again", whole)


def test_the_jobs_of_kubernetes(servers, whole, tmp_path):
    """Their own commands, with these servers' addresses and this folder."""
    shards, merge = job_of("shards.yaml"), job_of("merge.yaml")
    assert shards["completionMode"] == "Indexed"
    variables = environment(shards)
    assert int(variables["SHARDS"]) == shards["completions"]
    assert environment(merge)["SHARDS"] == variables["SHARDS"]
    stateful = yaml.safe_load_all(
        (ROOT / "deploy" / "kubernetes" / "servers.yaml").read_text()
    )
    (replicas,) = [
        d["spec"]["replicas"] for d in stateful if d["kind"] == "StatefulSet"
    ]
    assert int(variables["SERVERS"]) == replicas == shards["parallelism"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for job in (shards, merge)
        for volume in job["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"cupola-shards"}

    command = tmp_path / "bin" / "cupola"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cupola "$@"\n')
    command.chmod(0o755)
    out = tmp_path / "shards"
    out.mkdir()

    def run_container(job, server, **env):
        shell, flag = container(job)["command"]
        (script,) = container(job)["args"]
        place = "cupola-$((JOB_COMPLETION_INDEX % SERVERS)).cupola-servers:7070"
        for there in (place, "cupola-0.cupola-servers:7070"):
            script = script.replace(there, server.grpc)
        script = script.replace("/shards/", f"{out}/").replace(
            '--out "$out"', '--out "$out" --option top_k=4 --option chunk_tokens=40'
        )
        assert ".cupola-servers" not in script
        path = f"{command.parent}:{os.environ['PATH']}"
        return run(shell, flag, script, PATH=path, **env)

    variables.update(DICTIONARY=SAE, SHARDS="2", SERVERS="2")
    for index in (0, 1, 1):  # the last is there already: nothing is done
        run_container(
            shards, servers[index], JOB_COMPLETION_INDEX=str(index), **variables
        )
    assert sorted(path.name for path in out.iterdir()) == ["0-of-2", "1-of-2"]
    run_container(merge, servers[0], SHARDS="2", NAME="by kubernetes")
    check_merged(servers[0], "by kubernetes", whole)
