"""The Python client of the Cupola interpretability server.

import cupola

with cupola.connect("localhost:7070") as client:
    sae = client.dictionary("smollm2-135m/l12-resid")
    print(sae.features("The capital of France is Paris").top(10))
"""

from .client import Client, connect
from .dictionary import Dictionary, Pair
from .errors import (
    Cancelled,
    CupolaError,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from .features import Features
from .info import (
    CacheStatistics,
    DictionaryInfo,
    HookPoint,
    Measurement,
    ModelInfo,
    ServerInfo,
    Status,
)
from .model import Model
from .results import Activations, Provenance, Reconstruction, Seconds

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "CacheStatistics",
    "Cancelled",
    "Client",
    "CupolaError",
    "DataLoss",
    "DeadlineExceeded",
    "Dictionary",
    "DictionaryInfo",
    "FailedPrecondition",
    "Features",
    "HookPoint",
    "Internal",
    "InvalidArgument",
    "Measurement",
    "Model",
    "ModelInfo",
    "NotFound",
    "Pair",
    "PermissionDenied",
    "Provenance",
    "Reconstruction",
    "ResourceExhausted",
    "Seconds",
    "ServerInfo",
    "Status",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "connect",
]
