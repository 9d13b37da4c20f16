"""Generates the gRPC stubs into cupola/_proto; the rest is pyproject.toml."""

import importlib.util
import pathlib
import shutil

from setuptools import setup
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).parent.resolve()


def load_generator():
    """cupola/_generate.py, without importing the package it belongs to."""
    spec = importlib.util.spec_from_file_location(
        "cupola_generate", HERE / "cupola" / "_generate.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SdistWithProtos(sdist):
    """Puts the repository's protos into the archive, to build from there."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        target = pathlib.Path(base_dir) / "proto"
        if not target.exists():
            shutil.copytree(
                PROTOS,
                target,
                ignore=lambda folder, names: [
                    name
                    for name in names
                    if not name.endswith(".proto")
                    and not (pathlib.Path(folder) / name).is_dir()
                ],
            )


generator = load_generator()
PROTOS = generator.find_protos(HERE)
if PROTOS is None:
    raise SystemExit(
        "cupola: the .proto files are neither in ../../proto (the repository) "
        "nor in ./proto (a source archive)"
    )
versions = generator.generate(PROTOS, HERE / "cupola" / "_proto")
protobuf_major = int(versions.protobuf.split(".")[0])

setup(
    cmdclass={"sdist": SdistWithProtos},
    install_requires=[
        # Generated code refuses libraries older than its generator, and
        # Protobuf promises that one newer major version reads it.
        f"grpcio>={versions.grpcio},<2",
        f"protobuf>={versions.protobuf},<{protobuf_major + 2}",
        "numpy>=1.22",
        "scipy>=1.8",
        "pandas>=1.4",
        "rich>=12",
        "typer>=0.9",
    ],
)
