"""Generates cupola/_proto from the repository's .proto files.

Runs at build time (setup.py loads this file by path, so it imports nothing of
the package) and, in a checkout that is used in place, at import time. Needs
grpcio-tools.

protoc writes imports by the .proto files' own path, ``from cupola.v1 import``;
they are rewritten so that the stubs live in the private ``cupola._proto``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pathlib
import re
import tempfile
from typing import NamedTuple, Optional

_STAMP = "stamp.txt"


class Versions(NamedTuple):
    grpcio: str  # of the generator; the runtime must not be older
    protobuf: str


def find_protos(package_root: pathlib.Path) -> Optional[pathlib.Path]:
    """The folder that holds cupola/v1/*.proto, if this is a source tree."""
    for folder in (
        package_root.parent.parent / "proto",
        package_root / "proto",
    ):
        if (folder / "cupola" / "v1").is_dir():
            return folder
    return None


def fingerprint(protos: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((protos / "cupola" / "v1").glob("*.proto")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_current(protos: pathlib.Path, target: pathlib.Path) -> bool:
    try:
        return (target / _STAMP).read_text().split()[0] == fingerprint(protos)
    except (OSError, IndexError):
        return False


def generate(protos: pathlib.Path, target: pathlib.Path) -> Versions:
    """Writes the stubs into `target`, each file replaced whole."""
    import grpc_tools
    from grpc_tools import protoc

    mark = fingerprint(protos)
    sources = sorted((protos / "cupola" / "v1").glob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        arguments = ["protoc", f"-I{protos}", f"-I{well_known}"]
        for kind in ("python", "pyi", "grpc_python"):
            arguments.append(f"--{kind}_out={scratch}")
        if protoc.main(arguments + [str(source) for source in sources]) != 0:
            raise RuntimeError(f"protoc failed on {protos}")
        texts = {
            path.name: re.sub(
                r"^from cupola\.v1 import",
                "from cupola._proto import",
                path.read_text(encoding="utf-8"),
                flags=re.MULTILINE,
            )
            for path in pathlib.Path(scratch, "cupola", "v1").iterdir()
        }
        texts["__init__.py"] = '"""Generated from proto/cupola/v1."""\n'
        texts[_STAMP] = mark + "\n"  # last: it vouches for the others
        for name, text in texts.items():
            _replace(target / name, text)
    found = re.search(
        r"^# Protobuf Python Version: (\d[\d.]*)",
        texts["common_pb2.py"],
        re.MULTILINE,
    )
    return Versions(
        grpcio=importlib.metadata.version("grpcio-tools"),
        protobuf=found.group(1) if found else "4.21",
    )


def _replace(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
