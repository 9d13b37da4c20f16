"""What a user passes, turned into request messages.

Shapes and types that have no message are refused here; what only the server
can judge (ranges, names, lengths) is left to it.
"""

from __future__ import annotations

import numbers
from typing import Any, List, Optional, Sequence, Union

import numpy as np

from . import _protos
from .errors import InvalidArgument

# A text, texts, token ids, or lists of token ids.
Prompts = Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]]]
# All, one, several, or several for each prompt.
Positions = Union[None, int, Sequence[int], Sequence[Sequence[int]]]

_PROCESSING = {
    None: _protos.common.PROCESSING_UNSPECIFIED,
    "raw": _protos.common.RAW,
    "folded": _protos.common.FOLDED,
}
_ANSWER_DTYPES = {
    "float32": _protos.tensor.FLOAT32,
    "bfloat16": _protos.tensor.BFLOAT16,
    "float16": _protos.tensor.FLOAT16,
}
_UINT32_MAX = 2**32 - 1


def is_int(value: Any) -> bool:
    return isinstance(value, (numbers.Integral, np.integer)) and not isinstance(
        value, (bool, np.bool_)
    )


def _items(value: Any) -> Optional[List[Any]]:
    """The items of a list, tuple, array or the like; None for anything else."""
    if isinstance(value, (str, bytes, dict)):
        return None
    if hasattr(value, "tolist"):  # numpy arrays, pandas series, torch tensors
        value = value.tolist()
    try:
        return list(value)
    except TypeError:
        return None


def prompts_message(
    prompts: Prompts, prepend_bos: Optional[bool] = None
) -> _protos.common.Prompts:
    """The message for `prompts`; see Prompts for their forms."""
    if isinstance(prompts, str):
        entries: List[Any] = [prompts]
    else:
        listed = _items(prompts)
        if listed is None:
            raise InvalidArgument(
                "prompts: expected a string, a list of strings, a list of "
                f"token ids or a list of such lists, got {_kind(prompts)}"
            )
        entries = [listed] if listed and all(map(is_int, listed)) else listed
    if not entries:
        raise InvalidArgument("prompts: empty; at least one is needed")
    message = _protos.common.Prompts(prompts=map(_prompt, entries))
    if prepend_bos is not None:
        message.prepend_bos = bool(prepend_bos)
    return message


def _prompt(entry: Any) -> _protos.common.Prompt:
    if isinstance(entry, str):
        try:
            return _protos.common.Prompt(text=entry)
        except (UnicodeEncodeError, ValueError):
            raise InvalidArgument(
                "prompts: a text holds lone surrogates, which are not Unicode"
            ) from None
    ids = _items(entry)
    if ids is None:
        raise InvalidArgument(
            "prompts: expected strings or lists of token ids, got an item of "
            f"type {_kind(entry)}"
        )
    return _protos.common.Prompt(
        tokens=_protos.common.TokenIds(ids=unsigned(ids, "prompts: token id"))
    )


def unsigned(values: Sequence[Any], name: str) -> List[int]:
    """`values` as unsigned 32-bit integers."""
    if values and set(map(type, values)) == {int}:  # as a batch of prompts is
        if min(values) >= 0 and max(values) <= _UINT32_MAX:
            return list(values)
    for value in values:
        if not is_int(value) or not 0 <= value <= _UINT32_MAX:
            raise InvalidArgument(
                f"{name} {value!r}: expected an integer of at least 0"
            )
    return [int(value) for value in values]


def positions_message(
    positions: Positions, name: str = "positions"
) -> Optional[_protos.common.Positions]:
    """None (all), an int, a list, or one list per prompt."""
    if positions is None:
        return None
    entries = [positions] if is_int(positions) else _items(positions)
    if entries is None:
        raise InvalidArgument(
            f"{name}: expected None, an integer, a list of integers or one "
            f"such list per prompt, got {_kind(positions)}"
        )
    message = _protos.common.Positions()
    if all(map(is_int, entries)):
        message.every_prompt.values.extend(_signed(entries, name))
        message.every_prompt.SetInParent()  # an empty list is not "all"
        return message
    message.per_prompt.SetInParent()
    for entry in entries:
        row = [entry] if is_int(entry) else _items(entry)
        if row is None or not all(map(is_int, row)):
            raise InvalidArgument(
                f"{name}: expected integers, got {entry!r}"
            )
        message.per_prompt.lists.add(values=_signed(row, name))
    return message


def _signed(values: Sequence[Any], name: str) -> List[int]:
    for value in values:
        if not -(2**63) <= value < 2**63:
            raise InvalidArgument(f"{name}: {value} is no token index")
    return [int(value) for value in values]


def processing_code(processing: Optional[str]) -> Any:
    """None leaves the choice to the server."""
    try:
        return _PROCESSING[processing]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f"processing: expected 'raw', 'folded' or None, got {processing!r}"
        ) from None


def answer_dtype_code(dtype: Any) -> Any:
    """A name ("bfloat16") or a numpy type; None: the server's default."""
    if dtype is None:
        return _protos.tensor.DTYPE_UNSPECIFIED
    name = dtype if isinstance(dtype, str) else None
    if name not in _ANSWER_DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = None
    if name not in _ANSWER_DTYPES:
        raise InvalidArgument(
            f"dtype: expected one of {', '.join(_ANSWER_DTYPES)}, got {dtype!r}"
        )
    return _ANSWER_DTYPES[name]


def _kind(value: Any) -> str:
    return type(value).__name__
