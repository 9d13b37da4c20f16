"""The generated messages and stubs, under one short name each.

An installed package brings them; a checkout used in place generates them on
first import, and again when a .proto file has changed.
"""

from __future__ import annotations

import pathlib

from . import _generate


def _ensure() -> None:
    package = pathlib.Path(__file__).resolve().parent
    protos = _generate.find_protos(package.parent)
    target = package / "_proto"
    if protos is None or _generate.is_current(protos, target):
        return
    try:
        _generate.generate(protos, target)
    except ImportError:
        raise ImportError(
            "this checkout of cupola must generate its gRPC stubs, which needs "
            "grpcio-tools: pip install grpcio-tools, or pip install "
            f"{package.parent}"
        ) from None


_ensure()

from ._proto import (  # noqa: E402  (they may just have been generated)
    admin_pb2 as admin,
    admin_pb2_grpc as admin_grpc,
    analysis_pb2 as analysis,
    analysis_pb2_grpc as analysis_grpc,
    attribution_pb2 as attribution,
    catalog_config_pb2 as catalog_config,
    catalog_pb2 as catalog,
    catalog_pb2_grpc as catalog_grpc,
    common_pb2 as common,
    datasets_pb2 as datasets,
    datasets_pb2_grpc as datasets_grpc,
    generate_pb2 as generate,
    directions_pb2 as directions,
    jacobian_pb2 as jacobian,
    jobs_pb2 as jobs,
    jobs_pb2_grpc as jobs_grpc,
    means_pb2 as means,
    quality_pb2 as quality,
    run_pb2 as run,
    stores_pb2 as stores,
    stores_pb2_grpc as stores_grpc,
    tensor_pb2 as tensor,
    weights_pb2 as weights,
)

__all__ = [
    "admin",
    "admin_grpc",
    "analysis",
    "analysis_grpc",
    "attribution",
    "catalog",
    "catalog_config",
    "catalog_grpc",
    "common",
    "datasets",
    "datasets_grpc",
    "generate",
    "directions",
    "jacobian",
    "jobs",
    "jobs_grpc",
    "means",
    "quality",
    "run",
    "stores",
    "stores_grpc",
    "tensor",
    "weights",
]
