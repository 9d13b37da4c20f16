"""The texts of tokens, asked for once."""

from __future__ import annotations

import threading
from typing import Dict, List

from . import _protos, _requests
from ._connection import Connection
from .results import Provenance

# Texts that one request asks for; the server takes 65,536.
_AT_ONCE = 32_768


class TokenTexts:
    """Texts by model digest and token id, which never change. Safe to use from
    several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._texts: Dict[str, Dict[int, str]] = {}
        self._lock = threading.Lock()

    def of(
        self, provenance: Provenance, prompts: List[List[int]]
    ) -> List[List[str]]:
        """The texts of token ids of the model that made an answer."""
        with self._lock:
            texts = self._texts.setdefault(provenance.model_digest, {})
        wanted = {index for ids in prompts for index in ids}
        unknown = [[index] for index in sorted(wanted - texts.keys())]
        for begin in range(0, len(unknown), _AT_ONCE):
            answer = self._connection.unary(
                self._connection.analysis.Tokenize,
                _protos.analysis.TokenizeRequest(
                    model=provenance.model,
                    prompts=_requests.prompts_message(
                        unknown[begin : begin + _AT_ONCE]
                    ),
                ),
                provenance.model,
            )
            for tokens in answer.prompts:
                for index, piece in zip(tokens.ids, tokens.pieces):
                    texts[index] = piece.decode("utf-8", "replace")
        return [[texts[index] for index in ids] for ids in prompts]
