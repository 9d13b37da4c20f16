"""The Python client of the Cupola interpretability server.

import cupola

with cupola.connect("localhost:7070") as client:
    sae = client.dictionary("smollm2-135m/l12-resid")
    print(sae.features("The capital of France is Paris").top(10))
"""

from .ablation import Ablation
from .attribution import Attribution, LogitLens
from .client import Client, connect
from .coactivation import Coactivation
from .dashboards import Exported
from .datasets import (
    Dataset,
    DatasetInfo,
    DatasetRows,
    Tokenization,
    TokenizedDataset,
)
from .dictionary import Dictionary
from .direction_statistics import DirectionStatistics, LossesRecovered
from .directions import DirectionAblation, Sweep
from .errors import (
    AlreadyExists,
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
from .feature_statistics import FeatureStatistics
from .features import Features
from .generation import (
    Choice,
    GeneratedText,
    GeneratedToken,
    Generation,
    TokenStream,
)
from .importers import Imported, ImportFailed, import_dictionary
from .info import (
    CacheStatistics,
    DeviceMemory,
    DictionaryInfo,
    HookPoint,
    Measurement,
    ModelInfo,
    ServerInfo,
    Status,
)
from .interventions import (
    Add,
    Mean,
    Patch,
    ProjectOut,
    Reconstruct,
    Scale,
    Set,
    SetLatents,
    SubtractLatents,
    Zero,
)
from .jacobian import Jacobian
from .jacobian_totals import JacobianTotals
from .job_info import JobInfo, JobProvenance
from .jobs import Job
from .logit_weights import LogitWeights
from .matching import FeatureMatching, Matched
from .means import MeanActivation, StoredMean
from .model import Model
from .pair import Pair
from .quality import Quality
from .results import (
    Activations,
    Estimate,
    Provenance,
    Reconstruction,
    Seconds,
)
from .run import Beside, Boosts, Run, Top
from .stores import ActivationStore, StoreInfo
from .weights import Weights

__version__ = "0.1.0"

__all__ = [
    "Ablation",
    "ActivationStore",
    "Activations",
    "AlreadyExists",
    "Attribution",
    "Add",
    "Beside",
    "Boosts",
    "CacheStatistics",
    "Cancelled",
    "Client",
    "Coactivation",
    "CupolaError",
    "DataLoss",
    "Dataset",
    "DatasetInfo",
    "DatasetRows",
    "DeadlineExceeded",
    "DeviceMemory",
    "Dictionary",
    "DictionaryInfo",
    "FailedPrecondition",
    "FeatureMatching",
    "FeatureStatistics",
    "Matched",
    "Features",
    "Choice",
    "GeneratedText",
    "GeneratedToken",
    "Generation",
    "HookPoint",
    "ImportFailed",
    "Imported",
    "Internal",
    "InvalidArgument",
    "LogitLens",
    "LogitWeights",
    "LossesRecovered",
    "Mean",
    "MeanActivation",
    "Measurement",
    "Model",
    "ModelInfo",
    "NotFound",
    "Pair",
    "Patch",
    "PermissionDenied",
    "ProjectOut",
    "Estimate",
    "Exported",
    "Provenance",
    "DirectionAblation",
    "DirectionStatistics",
    "Jacobian",
    "Sweep",
    "JacobianTotals",
    "Job",
    "JobInfo",
    "JobProvenance",
    "Quality",
    "Reconstruct",
    "Reconstruction",
    "ResourceExhausted",
    "Run",
    "Scale",
    "Seconds",
    "ServerInfo",
    "Set",
    "SetLatents",
    "Status",
    "StoreInfo",
    "StoredMean",
    "SubtractLatents",
    "TokenStream",
    "TokenizedDataset",
    "Tokenization",
    "Top",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Weights",
    "Zero",
    "connect",
    "import_dictionary",
]
