"""The package as it is built and installed."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[3]

pytest.importorskip("setuptools")
pytest.importorskip("grpc_tools")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy without what was generated, since a build writes beside it."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "proto", root / "proto")
    shutil.copytree(
        ROOT / "client" / "python",
        root / "client" / "python",
        ignore=shutil.ignore_patterns(
            "_proto", "build", "dist", "*.egg-info", "__pycache__"
        ),
    )
    return root


def run(*command, cwd, **environment):
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(source, out):
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation"),
        *("--no-deps", "--no-index", "--wheel-dir", str(out), str(source)),
        cwd=out,
    )
    (wheel,) = out.glob("cupola-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    return build_wheel(
        checkout / "client" / "python", tmp_path_factory.mktemp("wheel")
    )


def test_wheel_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "cupola/__init__.py",
        "cupola/py.typed",
        "cupola/importers/gguf.py",
        "cupola/importers/dictionaries.py",
        "cupola/_proto/__init__.py",
        "cupola/_proto/analysis_pb2.py",
        "cupola/_proto/analysis_pb2.pyi",
        "cupola/_proto/analysis_pb2_grpc.py",
    ):
        assert name in names
    # Nothing outside the one package, and nothing public from the stubs.
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cupola"}
    assert not any(name.startswith("cupola/v1") for name in names)


def test_wheel_requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
    metadata = archive.read(name).decode()
    generator = importlib.metadata.version("grpcio-tools")
    requires = [
        line.split(": ", 1)[1]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    assert any(
        line.startswith("grpcio") and f">={generator}" in line
        for line in requires
    )
    assert any(line.startswith("protobuf") for line in requires)
    assert not any(line.startswith("torch") for line in requires)


def test_the_installed_package_works_alone(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    output = run(
        sys.executable,
        "-c",
        "import cupola, sys; print(cupola.__file__); "
        "cupola.connect('localhost:1').close(); "
        "assert not {'torch', 'pandas', 'gguf'} & set(sys.modules)",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert output.startswith(str(tmp_path / "site"))


def test_source_archive_builds_without_the_repository(checkout, tmp_path):
    source = checkout / "client" / "python"
    run(
        *(sys.executable, "setup.py", "-q", "sdist"),
        *("--dist-dir", str(tmp_path)),
        cwd=source,
    )
    (archive,) = tmp_path.glob("cupola-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "unpacked")
    assert any(
        name.endswith("proto/cupola/v1/analysis.proto") for name in names
    )
    assert not any("_proto/" in name for name in names)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = build_wheel(unpacked, tmp_path)
    assert "cupola/_proto/common_pb2.py" in zipfile.ZipFile(wheel).namelist()


def test_a_checkout_generates_its_stubs_when_protos_change(checkout, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(checkout, root)
    package = root / "client" / "python"
    shutil.rmtree(package / "cupola" / "_proto", ignore_errors=True)

    def fields():
        return run(
            sys.executable,
            "-c",
            "from cupola import _protos; "
            "print(*_protos.common.TokenIds.DESCRIPTOR.fields_by_name)",
            cwd=tmp_path,
            PYTHONPATH=str(package),
        ).split()

    assert fields() == ["ids"]
    proto = root / "proto" / "cupola" / "v1" / "common.proto"
    text = proto.read_text()
    assert "repeated uint32 ids = 1;" in text
    proto.write_text(
        text.replace(
            "repeated uint32 ids = 1;",
            "repeated uint32 ids = 1; uint32 added = 99;",
            1,
        )
    )
    assert fields() == ["ids", "added"]
