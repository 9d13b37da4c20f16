"""A model of the server's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Union

from . import _protos, _requests
from ._requests import Positions, Prompts
from .errors import DataLoss, InvalidArgument
from .info import HookPoint, ModelInfo
from .results import Activations, Provenance

if TYPE_CHECKING:
    from .client import Client


class Model:
    """A handle: holds no weights, and stays good when the server drops them.

    From `Client.model`. `info` is how the model was described then.
    """

    def __init__(
        self, client: Client, info: ModelInfo, processing: Optional[str]
    ) -> None:
        _requests.processing_code(processing)
        self._client = client
        self.info = info
        self.processing = processing

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def hook_points(self) -> Sequence[HookPoint]:
        return self.info.hook_points

    def tokenize(
        self, prompts: Prompts, prepend_bos: Optional[bool] = None
    ) -> List[List[int]]:
        """The token ids of each prompt. `prepend_bos` None: the model's way."""
        answer = self._tokenize(prompts, prepend_bos)
        return [list(tokens.ids) for tokens in answer.prompts]

    def str_tokens(
        self, prompts: Prompts, prepend_bos: Optional[bool] = None
    ) -> List[List[str]]:
        """Each prompt's tokens as strings. Bytes that are not UTF-8 by
        themselves show as U+FFFD."""
        answer = self._tokenize(prompts, prepend_bos)
        return [
            [piece.decode("utf-8", "replace") for piece in tokens.pieces]
            for tokens in answer.prompts
        ]

    def single_token(self, text: str) -> int:
        """The id of a text that is exactly one token, without BOS."""
        if not isinstance(text, str):
            raise InvalidArgument(
                f"text: expected a string, got {type(text).__name__}"
            )
        (tokens,) = self._tokenize(text, prepend_bos=False).prompts
        if len(tokens.ids) != 1:
            pieces = [p.decode("utf-8", "replace") for p in tokens.pieces]
            raise InvalidArgument(
                f"text: {text!r} is {len(tokens.ids)} tokens, not one: {pieces}"
            )
        return int(tokens.ids[0])

    def activations(
        self,
        prompts: Prompts,
        hooks: Union[str, Sequence[str]],
        positions: Positions = None,
        dtype: Any = "float32",
        *,
        prepend_bos: Optional[bool] = None,
    ) -> Activations:
        """The activations at `hooks`: ``acts[hook][prompt]``.

        `dtype` is that of the transfer: "float32", "bfloat16" (half the bytes;
        arrives as float32) or "float16".
        """
        hooks = [hooks] if isinstance(hooks, str) else list(hooks)
        request = _protos.analysis.ActivationsRequest(
            model=self.name,
            prompts=_requests.prompts_message(prompts, prepend_bos),
            hooks=hooks,
            positions=_requests.positions_message(positions),
            processing=_requests.processing_code(self.processing),
            dtype=_requests.answer_dtype_code(dtype),
        )
        connection = self._client._connection
        start = time.perf_counter()
        header, arrays = connection.stream(
            connection.analysis.GetActivations,
            request,
            self.name,
            lambda header: [
                *(tensor for hook in header.hooks for tensor in hook.prompts),
                *header.positions,
            ],
        )
        round_trip = time.perf_counter() - start
        if len(header.hooks) != len(hooks):
            raise DataLoss(
                f"asked for {len(hooks)} hooks, got {len(header.hooks)}"
            )
        remaining = iter(arrays)
        return Activations(
            arrays={
                hook.name: [next(remaining) for _ in hook.prompts]
                for hook in header.hooks
            },
            positions=list(remaining),
            # The answer lists the hooks in the order they were asked for.
            aliases={
                asked: hook.name for asked, hook in zip(hooks, header.hooks)
            },
            provenance=Provenance.from_message(header.provenance, round_trip),
        )

    def _tokenize(self, prompts: Prompts, prepend_bos: Optional[bool]) -> Any:
        connection = self._client._connection
        request = _protos.analysis.TokenizeRequest(
            model=self.name,
            prompts=_requests.prompts_message(prompts, prepend_bos),
        )
        return connection.unary(
            connection.analysis.Tokenize, request, self.name
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, processing={self.processing!r})"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()
