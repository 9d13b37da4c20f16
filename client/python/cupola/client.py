"""The connection to a server and what it offers."""

from __future__ import annotations

import datetime
import pathlib
from types import TracebackType
from typing import (
    Any,
    Callable,
    List,
    Optional,
    Sequence,
    Type,
    Union,
)

from . import (
    _connection,
    _protos,
    _shards,
    datasets,
    jobs,
    stores,
)
from ._catalog_calls import CatalogCalls
from ._connection import Connection, Tls
from ._documents import Source
from ._token_texts import TokenTexts
from .datasets import Dataset
from .dictionary import Dictionary
from .errors import InvalidArgument
from .info import (
    CacheStatistics,
    DictionaryInfo,
    ModelInfo,
    ServerInfo,
    Status,
)
from .jobs import Job
from .model import Model
from .pair import Pair
from .results import Estimate, Provenance
from .stores import ActivationStore

DEFAULT_DEADLINE = 600.0


def connect(
    target: str = "localhost:7070",
    token: Optional[str] = None,
    deadline: Optional[float] = DEFAULT_DEADLINE,
    tls: Tls = None,
) -> Client:
    """A client of the server at `target` (HOST:PORT).

    Nothing is sent yet. `token` is presented to servers that ask for one.
    `deadline` is the most seconds that an answer may take (None: no limit).
    `tls`: True encrypts and checks the server against the system's certificate
    authorities, a path against those of a PEM file.
    """
    return Client(target, token, deadline, tls)


class Client(CatalogCalls):
    """A connection; safe to use from several threads. From `connect`."""

    def __init__(
        self,
        target: str,
        token: Optional[str] = None,
        deadline: Optional[float] = DEFAULT_DEADLINE,
        tls: Tls = None,
    ) -> None:
        self._connection = Connection(target, token, deadline, tls)
        self._texts = TokenTexts(self._connection)

    @property
    def target(self) -> str:
        return self._connection.target

    def estimate(
        self, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Estimate:
        """What a call would take, without the computation: bytes, seconds on
        the device and in the queue, and what of it the cache has.

        `call` is a method of this client's handles:
        `client.estimate(sae.features, prompts, top_k=8)`. A call that sends
        several requests is estimated by the first that computes."""
        return _connection.estimate(lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Ends requests in flight; the client is of no use afterwards."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.target!r})"

    # Handles.

    def model(self, name: str, processing: Optional[str] = "raw") -> Model:
        """A model in "raw" (Hugging Face's numbers) or "folded"
        (TransformerLens' default) processing."""
        info = self.describe(name)
        if not isinstance(info, ModelInfo):
            raise InvalidArgument(f"{name!r} is a dictionary, not a model")
        return Model(self, info, processing)

    def dictionary(
        self, name: str, processing: Optional[str] = None
    ) -> Dictionary:
        """A dictionary, or half of a pair as NAME:in or NAME:out.

        `processing` None: what the dictionary declares, else raw.
        """
        entry, half, _ = name.rpartition(":")
        is_half = bool(half) and name.endswith((":in", ":out"))
        info = self.describe(entry if is_half else name)
        if not isinstance(info, DictionaryInfo):
            raise InvalidArgument(f"{name!r} is a model, not a dictionary")
        # An entry that has not been read yet does not say what it is.
        if is_half and info.kind in ("sae", "transcoder"):
            raise InvalidArgument(f"{entry!r} is no pair and has no halves")
        if not is_half and info.kind == "pair":
            raise InvalidArgument(
                f"{name!r} is a pair; name its half, {name + ':in'!r} or "
                f"{name + ':out'!r}, or use client.pair"
            )
        return Dictionary(self, name, info, processing)

    def datasets(self) -> List[Dataset]:
        """All datasets of the server, by name."""
        return datasets.datasets(self)

    def dataset(
        self,
        name: str,
        source: Optional[Source] = None,
        format: Optional[str] = None,
        column: Optional[str] = None,
        skip_empty: bool = False,
        keep: Optional[datetime.timedelta] = None,
    ) -> Dataset:
        """The dataset of this name; with a `source`, sent to the server first.

        `source`: a path, several as pathlib.Path objects, or documents: texts
        or lists of token ids. `format`: "jsonl", "lines" (of plain text),
        "text" (a file is a document), "parquet" or "arrow" (both need pyarrow);
        None: by the file's name. `column`: of the files that have some; "text",
        else "input_ids" or "tokens". An empty document is an error, or skipped
        with `skip_empty`. The server deletes the dataset after `keep`."""
        if source is None:
            return datasets.dataset(self, name)
        return datasets.upload(
            self, name, source, format, column, skip_empty, keep
        )

    def submit(
        self, kind: str, dictionary: str, rows: Any, **options: Any
    ) -> Job:
        """Submits a job of this kind: "feature_statistics" of a dictionary
        (Dictionary.statistics), "match_features" (Dictionary.match, with
        `others=`), "coactivation" (Dictionary.coactivation),
        "direction_statistics" (Dictionary.direction_statistics),
        "store_activations" (Dictionary.store) or "accumulate_jacobian" of a
        pair (Pair.accumulate), with their arguments. `rows`: prompts, or rows
        of a dataset (Dataset.select).

        Of every kind: `name=`, which no other job of the server has;
        `shard=(i, n)`, the i-th of n parts, from 0, whose states merge_shards
        puts together; `keep=`, how long the server keeps the job once it has
        ended."""
        if kind == "feature_statistics":
            return self.dictionary(dictionary).statistics(rows, **options)
        if kind == "match_features":
            others = options.pop("others", [])
            return self.dictionary(dictionary).match(others, rows, **options)
        if kind == "coactivation":
            return self.dictionary(dictionary).coactivation(rows, **options)
        if kind == "store_activations":
            return self.dictionary(dictionary).store(rows, **options)
        if kind == "direction_statistics":
            return self.dictionary(dictionary).direction_statistics(
                rows, **options
            )
        if kind == "accumulate_jacobian":
            return self.pair(dictionary).accumulate(rows, **options)
        raise InvalidArgument(
            "kind: expected 'feature_statistics', 'match_features', "
            "'coactivation', 'direction_statistics', 'store_activations' or "
            f"'accumulate_jacobian', got {kind!r}"
        )

    def activation_stores(self) -> List[ActivationStore]:
        """Stored activations, by time of making: see Dictionary.store."""
        return stores.stores(self)

    def activation_store(self, key: str) -> ActivationStore:
        """The store with this key (`ActivationStore.key`)."""
        return stores.store(self, key)

    def merge_shards(
        self,
        paths: Sequence[Union[str, pathlib.Path]],
        name: Optional[str] = None,
        keep: Optional[datetime.timedelta] = None,
    ) -> Job:
        """One job that is done, of the states of all its shards
        (`Job.save_shard`), computed on this server or others with the same
        models and dictionaries."""
        return _shards.merge(self, [pathlib.Path(p) for p in paths], name, keep)

    def jobs(self) -> List[Job]:
        """All jobs of the server, by time of submission."""
        return jobs.jobs(self)

    def job(self, id: str) -> Job:
        """The job with this id (`Job.id`)."""
        return jobs.job(self, id)

    def pair(
        self,
        name: Union[str, Dictionary],
        output: Union[None, str, Dictionary] = None,
    ) -> Pair:
        """A pair by its name, or of an input and an output dictionary."""
        if output is not None:
            return Pair(self._as_dictionary(name), self._as_dictionary(output))
        if not isinstance(name, str):
            raise InvalidArgument("pair: expected a name or two dictionaries")
        return Pair(
            self.dictionary(name + ":in"), self.dictionary(name + ":out")
        )

    # The server.

    def cache_statistics(self) -> CacheStatistics:
        return self._cache_statistics(
            self._connection.admin.GetCacheStatistics,
            _protos.admin.GetCacheStatisticsRequest(),
        )

    def clear_cache(self) -> CacheStatistics:
        """Empties the result cache; its statistics afterwards."""
        return self._cache_statistics(
            self._connection.admin.ClearCache,
            _protos.admin.ClearCacheRequest(),
        )

    def server_info(self) -> ServerInfo:
        return ServerInfo.from_message(
            self._connection.unary(
                self._connection.admin.GetServerInfo,
                _protos.admin.GetServerInfoRequest(),
            )
        )

    def status(self) -> Status:
        """The server at a glance: readiness, load, cache."""
        return Status(
            target=self.target,
            serving=self._connection.serving(),
            server=self.server_info(),
            cache=self.cache_statistics(),
        )

    def _cache_statistics(self, method: Any, request: Any) -> CacheStatistics:
        return CacheStatistics.from_message(
            self._connection.unary(method, request)
        )

    def _as_dictionary(self, value: Union[str, Dictionary]) -> Dictionary:
        return (
            value if isinstance(value, Dictionary) else self.dictionary(value)
        )

    def _token_strings(
        self, provenance: Provenance, prompts: List[List[int]]
    ) -> List[List[str]]:
        """The texts of token ids of the model that made an answer."""
        return self._texts.of(provenance, prompts)
