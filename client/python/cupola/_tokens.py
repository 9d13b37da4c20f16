"""Tokens as users name them: by id, or by a text that is one token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Union

from . import _protos, _requests
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .client import Client

# An id, a text that is exactly one token, or several of them.
Tokens = Union[int, str, Sequence[Union[int, str]]]


def token_ids(
    client: Client, model: str, tokens: Tokens, name: str
) -> List[int]:
    """The ids of `tokens`; asks the server once for those given as text."""
    entries: List[Any]
    if isinstance(tokens, str) or _requests.is_int(tokens):
        entries = [tokens]
    else:
        entries = list(tokens)  # type: ignore[arg-type]
    texts = sorted({entry for entry in entries if isinstance(entry, str)})
    known = _single_tokens(client, model, texts, name) if texts else {}
    return _requests.unsigned(
        [known.get(entry, entry) for entry in entries], f"{name}:"
    )


def _single_tokens(
    client: Client, model: str, texts: List[str], name: str
) -> Dict[str, int]:
    answer = client._connection.unary(
        client._connection.analysis.Tokenize,
        _protos.analysis.TokenizeRequest(
            model=model, prompts=_requests.prompts_message(texts, False)
        ),
        model,
    )
    for text, tokens in zip(texts, answer.prompts):
        if len(tokens.ids) != 1:
            pieces = [p.decode("utf-8", "replace") for p in tokens.pieces]
            raise InvalidArgument(
                f"{name}: {text!r} is {len(tokens.ids)} tokens, not one: "
                f"{pieces}"
            )
    return {
        text: int(tokens.ids[0]) for text, tokens in zip(texts, answer.prompts)
    }
