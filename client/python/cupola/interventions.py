"""Typed changes of a forward pass, for `Model.run` and `Model.generate`.

Each acts where a hook point, or a dictionary's output, is made: at `positions`
(None: all; an int, a list, or one list per prompt). `heads` and `neurons`
narrow a hook point to some of its heads and of its last dimension. A
dictionary is a name or a handle.
"""

from __future__ import annotations

import dataclasses
from typing import Any, List, Mapping, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike

from . import _protos, _requests, _tensors
from ._requests import Positions, Prompts
from .errors import InvalidArgument

# One, several, or (None) all.
Indices = Union[None, int, Sequence[int]]
# One number, a vector as long as the (narrowed) last dimension, which each head
# gets, all values of one position, or [positions, ...] with a row for each of
# the intervention's positions; values for all heads and neurons are narrowed as
# the intervention is. Or the name of a mean that `Model.mean_activation` stored.
Value = Union[str, ArrayLike]


# Where an intervention without positions acts on a generated text: all of it
# (None), the "prompt" or what is "generated". Positions of scope "generated"
# count from the first generated one; all others are the prompt's.
Scope = Optional[str]


@dataclasses.dataclass
class Zero:
    """Sets a hook point to zero."""

    hook: str
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


@dataclasses.dataclass
class Set:
    """Sets a hook point to `value`."""

    hook: str
    value: Value
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


class Mean(Set):
    """Puts a mean in a hook point's place (mean ablation): the name of one that
    `Model.mean_activation` stored for the model in this processing, or a value
    as Set takes it."""


@dataclasses.dataclass
class Add:
    """Adds `scale` times `value`."""

    hook: str
    value: Value
    scale: float = 1.0
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


@dataclasses.dataclass
class Scale:
    """Multiplies by `factor`."""

    hook: str
    factor: float
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


@dataclasses.dataclass
class ProjectOut:
    """Takes away the part along `value`, which need not have length 1."""

    hook: str
    value: Value
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


@dataclasses.dataclass
class Patch:
    """Takes the values that the same hook point has in `source`: a prompt, or
    one for each prompt. Without `source_positions` these are `positions`, and
    the source must be as long as the prompt."""

    hook: str
    source: Prompts
    source_positions: Positions = None
    positions: Positions = None
    heads: Indices = None
    neurons: Indices = None
    scope: Scope = None


@dataclasses.dataclass
class SubtractLatents:
    """Takes away what latents contribute to the reconstruction. The error that
    the dictionary makes stays."""

    dictionary: Any
    latents: Indices
    positions: Positions = None
    scope: Scope = None


@dataclasses.dataclass
class SetLatents:
    """Gives latents the activations of {latent: value}; `keep_error` False
    drops the dictionary's error."""

    dictionary: Any
    latents: Mapping[int, float]
    keep_error: bool = True
    positions: Positions = None
    scope: Scope = None


@dataclasses.dataclass
class Reconstruct:
    """Replaces the value by the dictionary's reconstruction, perhaps with other
    activations, {latent: value}."""

    dictionary: Any
    overrides: Mapping[int, float] = dataclasses.field(default_factory=dict)
    positions: Positions = None
    scope: Scope = None


Intervention = Union[
    Zero,
    Set,
    Mean,
    Add,
    Scale,
    ProjectOut,
    Patch,
    SubtractLatents,
    SetLatents,
    Reconstruct,
]


def message_of(intervention: Any, where: str) -> _protos.run.Intervention:
    """The message; `where` names the intervention in errors."""
    message = _protos.run.Intervention()
    fill = _FILL.get(type(intervention))
    if fill is None:
        raise InvalidArgument(
            f"{where}: expected an intervention such as cupola.Zero, got "
            f"{type(intervention).__name__}"
        )
    if hasattr(intervention, "hook"):
        if not isinstance(intervention.hook, str):
            raise InvalidArgument(f"{where}.hook: expected a string")
        message.hook = intervention.hook
        message.heads.extend(_indices(intervention.heads, f"{where}.heads"))
        message.neurons.extend(
            _indices(intervention.neurons, f"{where}.neurons")
        )
    else:
        message.dictionary = dictionary_name(intervention.dictionary)
    positions = _requests.positions_message(intervention.positions)
    if positions is not None:
        message.positions.CopyFrom(positions)
    try:
        message.scope = _SCOPES[intervention.scope]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f"{where}.scope: expected 'prompt', 'generated' or None, got "
            f"{intervention.scope!r}"
        ) from None
    fill(message, intervention, where)
    return message


def dictionary_name(dictionary: Any) -> str:
    """The name of a dictionary given by name or as a handle."""
    name = getattr(dictionary, "name", dictionary)
    if not isinstance(name, str):
        raise InvalidArgument(
            "dictionary: expected a name or a Dictionary, got "
            f"{type(dictionary).__name__}"
        )
    return name


def _indices(indices: Indices, where: str) -> List[int]:
    if indices is None:
        return []
    several = [indices] if _requests.is_int(indices) else list(indices)  # type: ignore[arg-type]
    if not several:
        raise InvalidArgument(f"{where}: an empty list; leave it out for all")
    return _requests.unsigned(several, f"{where}:")


def _fill_value(message: Any, value: Value, where: str) -> None:
    if isinstance(value, str):
        if not value:
            raise InvalidArgument(f"{where}.value: an empty name")
        message.mean = value
        return
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{where}.value: {error}") from None
    message.value.CopyFrom(_tensors.to_tensor(array))


def _latent_values(
    values: Mapping[int, float], where: str
) -> List[_protos.run.Intervention.LatentValue]:
    if not isinstance(values, Mapping):
        raise InvalidArgument(
            f"{where}: expected {{latent: value}}, got {type(values).__name__}"
        )
    ids = _requests.unsigned(list(values), f"{where}:")
    return [
        _protos.run.Intervention.LatentValue(latent=latent, value=float(value))
        for latent, value in zip(ids, values.values())
    ]


_SCOPES = {
    None: _protos.run.Intervention.SCOPE_UNSPECIFIED,
    "prompt": _protos.run.Intervention.PROMPT,
    "generated": _protos.run.Intervention.GENERATED,
}


def _fill_zero(message: Any, plain: Zero, where: str) -> None:
    message.zero.SetInParent()


def _fill_set(message: Any, plain: Set, where: str) -> None:
    _fill_value(message.set, plain.value, where)


def _fill_add(message: Any, plain: Add, where: str) -> None:
    _fill_value(message.add, plain.value, where)
    message.add.scale = float(plain.scale)


def _fill_scale(message: Any, plain: Scale, where: str) -> None:
    message.scale.factor = float(plain.factor)


def _fill_project_out(message: Any, plain: ProjectOut, where: str) -> None:
    _fill_value(message.project_out, plain.value, where)


def _fill_patch(message: Any, plain: Patch, where: str) -> None:
    message.patch.source.CopyFrom(_requests.prompts_message(plain.source))
    positions: Optional[Any] = _requests.positions_message(
        plain.source_positions
    )
    if positions is not None:
        message.patch.source_positions.CopyFrom(positions)


def _fill_subtract(message: Any, plain: SubtractLatents, where: str) -> None:
    message.subtract_latents.latents.extend(
        _indices(plain.latents, f"{where}.latents")
    )
    message.subtract_latents.SetInParent()


def _fill_set_latents(message: Any, plain: SetLatents, where: str) -> None:
    message.set_latents.latents.extend(
        _latent_values(plain.latents, f"{where}.latents")
    )
    message.set_latents.drop_error = not plain.keep_error


def _fill_reconstruct(message: Any, plain: Reconstruct, where: str) -> None:
    message.reconstruct.overrides.extend(
        _latent_values(plain.overrides, f"{where}.overrides")
    )
    message.reconstruct.SetInParent()


_FILL: Mapping[type, Any] = {
    Zero: _fill_zero,
    Set: _fill_set,
    Mean: _fill_set,
    Add: _fill_add,
    Scale: _fill_scale,
    ProjectOut: _fill_project_out,
    Patch: _fill_patch,
    SubtractLatents: _fill_subtract,
    SetLatents: _fill_set_latents,
    Reconstruct: _fill_reconstruct,
}
