"""What a server tells about its entries and itself."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Optional, Tuple, TypeVar

from . import _html, _protos

Info = TypeVar("Info")


class InfoList(List[Info]):
    """A list that notebooks show as a table."""

    def _repr_html_(self) -> str:
        return _html.info_table(self)


@dataclasses.dataclass(frozen=True)
class HookPoint:
    """A named tensor of the forward pass."""

    name: str
    # Per position; -1 stands for the sequence's length.
    shape: Tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A dictionary measured on sample text with its own model."""

    tokens: int
    l0: float  # mean number of active latents per token
    fvu: float  # fraction of variance unexplained
    dead_latents: int  # never active on these tokens


class _Shown:
    def _repr_html_(self) -> str:
        return _html.info_card(self)


@dataclasses.dataclass(frozen=True)
class ModelInfo(_Shown):
    """A model of the catalog; zeros where its files are not yet open."""

    name: str
    state: str  # "registered", "loading", "resident", "evicted", "failed"
    failure: str  # why, when failed
    family: str
    digest: str  # SHA-256, hexadecimal
    dtype: str
    device: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    default_prepend_bos: bool
    bos_token_id: Optional[int]
    resident_processing: Tuple[str, ...]
    weight_bytes: int
    resident_bytes: int
    load_seconds: float
    load_progress: float  # 0 to 1, while it is loading
    # Only from Client.describe and Model.info.
    hook_points: Tuple[HookPoint, ...] = dataclasses.field(repr=False)

    @staticmethod
    def from_message(message: _protos.catalog.ModelInfo) -> ModelInfo:
        values = _plain(message, ModelInfo)
        values["bos_token_id"] = (
            message.bos_token_id if message.HasField("bos_token_id") else None
        )
        values["resident_processing"] = tuple(
            processing_name(code) for code in message.resident_processing
        )
        values["hook_points"] = tuple(
            HookPoint(hook.name, tuple(hook.shape))
            for hook in message.hook_points
        )
        return ModelInfo(**values)


@dataclasses.dataclass(frozen=True)
class DictionaryInfo(_Shown):
    """A dictionary of the catalog; zeros where its files are not yet open."""

    name: str
    state: str
    failure: str
    kind: str  # "sae", "transcoder", "pair"
    model: str
    architecture: str
    d_in: int
    d_out: int
    d_sae: int
    k: int  # TopK; else 0
    hook_in: str
    hook_out: str
    tap: str
    dtype: str
    processing: str  # used when a request leaves it open
    digest: str
    normalize_activations: str
    apply_b_dec_to_input: bool
    fold_w_dec_norm: bool
    prepend_bos: bool
    context_size: int
    mlp_source: str
    has_mlp: bool
    resident_bytes: int
    load_seconds: float
    load_progress: float
    measured: Optional[Measurement]
    measured_out: Optional[Measurement]  # of a pair's output half
    expected_l0: Optional[float]
    expected_fvu: Optional[float]
    warnings: Tuple[str, ...]

    @staticmethod
    def from_message(message: _protos.catalog.DictionaryInfo) -> DictionaryInfo:
        values = _plain(message, DictionaryInfo)
        for half in ("measured", "measured_out"):
            measured = getattr(message, half)
            values[half] = (
                Measurement(**_plain(measured, Measurement))
                if message.HasField(half)
                else None
            )
        for name in ("l0", "fvu"):
            values[f"expected_{name}"] = (
                getattr(message.expect, name)
                if message.expect.HasField(name)
                else None
            )
        values["warnings"] = tuple(message.warnings)
        return DictionaryInfo(**values)


@dataclasses.dataclass(frozen=True)
class DeviceMemory(_Shown):
    device: str
    used_bytes: int  # of weights, to the last running request's
    budget_bytes: int  # 0: without a limit

    @staticmethod
    def from_message(message: _protos.catalog.DeviceMemory) -> DeviceMemory:
        return DeviceMemory(**_plain(message, DeviceMemory))


@dataclasses.dataclass(frozen=True)
class ServerInfo(_Shown):
    version: str
    torch_version: str
    devices: Tuple[str, ...]
    uptime_seconds: float
    requests: int
    queue_depth: int
    max_message_bytes: int
    max_tokens_per_request: int

    @staticmethod
    def from_message(message: _protos.admin.ServerInfo) -> ServerInfo:
        values = _plain(message, ServerInfo)
        values["devices"] = tuple(message.devices)
        return ServerInfo(**values)


@dataclasses.dataclass(frozen=True)
class CacheStatistics(_Shown):
    enabled: bool
    disabled_reason: str
    hits: int
    misses: int
    inserts: int
    dropped_inserts: int
    corrupt_records: int
    write_errors: int
    disk_bytes: int
    capacity_bytes: int
    memory_bytes: int
    estimated_entries: int

    @staticmethod
    def from_message(
        message: _protos.admin.CacheStatistics,
    ) -> CacheStatistics:
        return CacheStatistics(**_plain(message, CacheStatistics))


@dataclasses.dataclass(frozen=True)
class Status(_Shown):
    """A server at a glance."""

    target: str
    serving: bool  # ready for requests: its catalog is loaded
    server: ServerInfo
    cache: CacheStatistics


def processing_name(code: int) -> str:
    return _enum_name(_protos.common.Processing, code)


def dtype_name(code: int) -> str:
    return _enum_name(_protos.tensor.DType, code)


def _enum_name(enum: Any, code: int) -> str:
    """ "resident" for RESIDENT; "" for an unspecified value."""
    if code == 0:
        return ""
    try:
        name: str = enum.Name(code)
    except ValueError:  # of a newer server
        return str(code)
    return name.lower()


_ENUMS = {
    "state": _protos.catalog.State,
    "kind": _protos.catalog.DictionaryKind,
    "dtype": _protos.tensor.DType,
    "processing": _protos.common.Processing,
    "tap": _protos.catalog_config.Tap,
    "mlp_source": _protos.catalog_config.MlpSource,
}


def _plain(message: Any, kind: Any) -> Any:
    """The fields of `kind` whose message field is a scalar, as a dict."""
    values = {}
    for field in dataclasses.fields(kind):
        value = getattr(message, field.name, None)
        if field.name in _ENUMS:
            value = _enum_name(_ENUMS[field.name], value)  # type: ignore[arg-type]
        elif isinstance(value, bytes):
            value = value.hex()
        values[field.name] = value
    return values
