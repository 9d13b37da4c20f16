"""The client's calls about the server's catalog."""

from __future__ import annotations

from typing import Any, List, Optional, Union

from . import _protos, _requests, registration
from ._connection import Connection
from .info import DeviceMemory, DictionaryInfo, InfoList, ModelInfo


class CatalogCalls:
    """What a Client can ask about models and dictionaries, and change."""

    _connection: Connection

    def models(self) -> List[ModelInfo]:
        """All models, without their hook points."""
        return InfoList(map(ModelInfo.from_message, self._list().models))

    def dictionaries(self) -> List[DictionaryInfo]:
        entries = self._list().dictionaries
        return InfoList(map(DictionaryInfo.from_message, entries))

    def device_memory(self) -> List[DeviceMemory]:
        """What the weights on each device hold, and may hold."""
        return InfoList(map(DeviceMemory.from_message, self._list().memory))

    def describe(self, name: str) -> Union[ModelInfo, DictionaryInfo]:
        """One entry; NotFound names those that exist."""
        return self._entry(
            self._connection.catalog.Describe,
            _protos.catalog.DescribeRequest(name=name),
        )

    def load(
        self, name: str, processing: Optional[str] = None
    ) -> Union[ModelInfo, DictionaryInfo]:
        """Loads an entry (a dictionary's model too) and waits until it is
        resident. `processing` is for models: "raw" (default) or "folded"."""
        return self._entry(
            self._connection.catalog.Load,
            _protos.catalog.LoadRequest(
                name=name, processing=_requests.processing_code(processing)
            ),
        )

    def unload(self, name: str) -> Union[ModelInfo, DictionaryInfo]:
        """Drops an entry's weights; they come back on demand."""
        return self._entry(
            self._connection.catalog.Unload,
            _protos.catalog.UnloadRequest(name=name),
        )

    def self_check(self, name: str) -> DictionaryInfo:
        """Measures a dictionary on sample text again: L0, FVU and the like."""
        info = self._entry(
            self._connection.catalog.SelfCheck,
            _protos.catalog.SelfCheckRequest(name=name),
        )
        assert isinstance(info, DictionaryInfo)
        return info

    def register_model(
        self,
        name: str,
        path: str,
        dtype: Optional[str] = None,
        device: str = "",
    ) -> ModelInfo:
        """Adds a model to the server's catalog, for good. `path` is a folder
        below the server's model root. `load` waits until it is resident."""
        entry = registration.model_entry(name, path, dtype, device)
        info = self._register(_protos.catalog.RegisterRequest(model=entry))
        assert isinstance(info, ModelInfo)
        return info

    def register_dictionary(
        self, name: str, model: str, path: str, **fields: Any
    ) -> DictionaryInfo:
        """Adds a dictionary of `model`, as `register_model`. `fields`: those of
        the catalog file, e.g. processing="folded", tap="post_affine"."""
        entry = registration.entry(name, model, path, **fields)
        info = self._register(_protos.catalog.RegisterRequest(dictionary=entry))
        assert isinstance(info, DictionaryInfo)
        return info

    def upload_dictionary(
        self,
        name: str,
        model: str,
        source: registration.Source,
        **fields: Any,
    ) -> DictionaryInfo:
        """Sends a dictionary to the server, which keeps it: a folder with
        cfg.json and sae_weights.safetensors, or a pair of arrays by tensor
        name and what cfg.json says."""
        entry = registration.entry(name, model, **fields)
        answer = registration.upload(self._connection, entry, source)
        return DictionaryInfo.from_message(answer.dictionary)

    def unregister(self, name: str) -> None:
        """Removes an entry that was registered or uploaded. Requests in flight
        finish."""
        self._connection.unary(
            self._connection.catalog.Unregister,
            _protos.catalog.UnregisterRequest(name=name),
        )

    def _list(self) -> Any:
        return self._connection.unary(
            self._connection.catalog.List, _protos.catalog.ListRequest()
        )

    def _register(self, request: Any) -> Union[ModelInfo, DictionaryInfo]:
        answer = self._connection.unary(
            self._connection.catalog.Register, request
        )
        if answer.WhichOneof("entry") == "model":
            return ModelInfo.from_message(answer.model)
        return DictionaryInfo.from_message(answer.dictionary)

    def _entry(
        self, method: Any, request: Any
    ) -> Union[ModelInfo, DictionaryInfo]:
        answer = self._connection.unary(method, request, request.name)
        if answer.WhichOneof("entry") == "model":
            return ModelInfo.from_message(answer.model)
        return DictionaryInfo.from_message(answer.dictionary)
