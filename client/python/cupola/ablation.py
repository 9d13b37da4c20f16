"""What a model's output loses when latents are taken away, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from . import _answers, _protos, _requests
from ._requests import Positions, Prompts
from ._run_request import Answers, answers_messages
from .errors import InvalidArgument
from .results import Answer, Provenance

if TYPE_CHECKING:
    import pandas

    from .dictionary import Dictionary

_MODES = {
    "subtract": _protos.run.AblateRequest.SUBTRACT,
    "reconstruct": _protos.run.AblateRequest.RECONSTRUCT,
}


class Ablation(Answer):
    """A row per prompt, position and latent, in this order.

    `loss`, `logprob` and `rank` are what the model says at `position` with the
    latent taken away, `clean_loss` and so on without an ablation, row for row;
    in mode "reconstruct" `reconstructed_loss` and so on are those of the full
    reconstruction (else None). `logprob` and `rank` are of the answer: [rows],
    or [rows, answers] of several per prompt. Where latents are taken away at
    several positions at once, `position` is -1, `loss` the mean over the
    prompt, and the rest is told at its last token but one.

    With `later`, `later_loss` is the mean of the losses from the position on,
    and `losses` [rows, longest - 1] those of all tokens, NaN behind a prompt's
    last; `clean_later_loss`, `reconstructed_losses` and so on as above.
    """

    def __init__(
        self,
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        latent: NDArray[np.uint32],
        activation: NDArray[np.float32],
        after: Dict[str, NDArray[Any]],
        base: Dict[str, NDArray[Any]],
        place: NDArray[np.int32],
        mode: str,
        provenance: Provenance,
    ) -> None:
        self.prompt = prompt  # [rows]
        self.position = position  # [rows]
        self.latent = latent  # [rows]
        self.activation = activation  # [rows]; 0: not active, nothing changes
        self.loss: NDArray[np.float32] = after["loss"]
        self.logprob: NDArray[np.float32] = after["logprob"]
        self.rank: NDArray[np.int32] = after["rank"]
        self.later_loss: Optional[NDArray[np.float32]] = after.get("later_loss")
        self.losses: Optional[NDArray[np.float32]] = after.get("losses")
        self.clean_loss: NDArray[np.float32] = base["loss"][place, 0]
        self.clean_logprob: NDArray[np.float32] = base["logprob"][place, 0]
        self.clean_rank: NDArray[np.int32] = base["rank"][place, 0]
        self.clean_later_loss: Optional[NDArray[np.float32]] = None
        self.clean_losses: Optional[NDArray[np.float32]] = None
        self.reconstructed_loss: Optional[NDArray[np.float32]] = None
        self.reconstructed_logprob: Optional[NDArray[np.float32]] = None
        self.reconstructed_rank: Optional[NDArray[np.int32]] = None
        self.reconstructed_later_loss: Optional[NDArray[np.float32]] = None
        self.reconstructed_losses: Optional[NDArray[np.float32]] = None
        for name, values in base.items():
            setattr(self, f"clean_{name}", values[place, 0])
            if mode == "reconstruct":
                setattr(self, f"reconstructed_{name}", values[place, 1])
        self.mode = mode
        self.provenance = provenance

    @property
    def loss_increase(self) -> NDArray[np.float32]:
        """[rows], over the clean loss."""
        increase: NDArray[np.float32] = self.loss - self.clean_loss
        return increase

    @property
    def token_ids(self) -> List[List[int]]:
        """All ids of each prompt, BOS included."""
        return self.provenance.token_ids

    def __len__(self) -> int:
        return len(self.latent)

    def to_dataframe(self) -> pandas.DataFrame:
        """One line per prompt and latent; of several answers the first."""
        import pandas

        columns: Dict[str, Any] = {
            "prompt": self.prompt,
            "position": self.position,
            "latent": self.latent,
            "activation": self.activation,
        }
        prefixes = ["clean_", ""]
        if self.mode == "reconstruct":
            prefixes.insert(1, "reconstructed_")
        names = ["loss", "logprob", "rank"]
        if self.later_loss is not None:
            names.append("later_loss")
        for name in names:
            for prefix in prefixes:
                values = getattr(self, prefix + name)
                columns[prefix + name] = (
                    values if values.ndim == 1 else values[:, 0]
                )
        columns["loss_increase"] = self.loss_increase
        return pandas.DataFrame(columns)

    def top(self, n: int = 10) -> pandas.DataFrame:
        """The rows whose loss rises most."""
        frame = self.to_dataframe()
        order = np.argsort(-self.loss_increase, kind="stable")[:n]
        return frame.iloc[order].reset_index(drop=True)

    def __repr__(self) -> str:
        return (
            f"Ablation of {self.provenance.dictionary} ({self.mode}): "
            f"{len(self)} latents, {self._origin()}"
        )

    def _repr_html_(self) -> str:
        table: str = self.top().to_html(index=False)
        return table


def ablate(
    dictionary: Dictionary,
    prompts: Prompts,
    latents: Union[None, int, Sequence[int]],
    position: Positions,
    mode: str,
    answers: Answers,
    prepend_bos: Optional[bool],
    later: bool,
    together: bool,
    targets: Any,
) -> Ablation:
    """Dictionary.ablate."""
    if mode not in _MODES:
        raise InvalidArgument(
            f"mode: expected 'subtract' or 'reconstruct', got {mode!r}"
        )
    request = _protos.run.AblateRequest(
        dictionary=dictionary.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        processing=_requests.processing_code(dictionary.processing),
        mode=_MODES[mode],
        later=bool(later),
        together=bool(together) or (targets is None and position is None),
    )
    if targets is not None:
        request.targets.extend(_targets(targets))
    elif position is not None:
        request.position.CopyFrom(_requests.positions_message(position))
    if latents is not None:
        wanted = [latents] if _requests.is_int(latents) else list(latents)  # type: ignore[arg-type]
        if not wanted:
            raise InvalidArgument(
                "latents: an empty list; leave it out to ask for all active"
            )
        request.latents.extend(_requests.unsigned(wanted, "latents:"))
    request.answers.extend(
        answers_messages(
            dictionary._client,
            dictionary.info.model,
            prompts,
            len(request.prompts.prompts),
            answers,
        )
    )
    after = ["loss", "logprob", "rank"]
    before = [f"base_{name}" for name in after]
    more = ["later_loss", "losses"] if later else []
    _, arrays, provenance = _answers.ask(
        dictionary._client,
        "Ablate",
        request,
        dictionary.info.model,
        ["prompt", "latent", "activation", *after, *before, "position", "place"]
        + [*more, *(f"base_{name}" for name in more)],
    )
    prompt, latent, activation, *arrays = arrays
    rows, bases, (where, place), rest = (
        dict(zip(after, arrays)),
        dict(zip(after, arrays[3:])),
        arrays[6:8],
        arrays[8:],
    )
    rows.update(zip(more, rest))
    bases.update(zip(more, rest[len(more) :]))
    if rows["logprob"].shape[1] == 1:
        for name in ("logprob", "rank"):
            rows[name] = rows[name][:, 0]
            bases[name] = bases[name][..., 0]
    return Ablation(
        prompt, where, latent, activation, rows, bases, place, mode, provenance
    )


def _targets(targets: Any) -> List[_protos.run.AblateRequest.Target]:
    columns = ["prompt", "position", "latent"]
    if hasattr(targets, "columns"):
        try:
            targets = targets[columns]
        except KeyError as error:
            raise InvalidArgument(f"targets: {error.args[0]}") from None
    rows = np.asarray(targets)
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
        raise InvalidArgument(
            "targets: expected rows of (prompt, position, latent), got shape "
            f"{list(rows.shape)} of {rows.dtype}"
        )
    if not len(rows):
        raise InvalidArgument("targets: empty; at least one is needed")
    for name, column in (("prompt", 0), ("latent", 2)):
        _requests.unsigned(rows[:, column].tolist(), f"targets: {name}")
    return [
        _protos.run.AblateRequest.Target(
            prompt=prompt, position=position, latent=latent
        )
        for prompt, position, latent in rows.tolist()
    ]


def ablation_table(
    dictionary: Dictionary,
    prompts: Prompts,
    position: Positions,
    prepend_bos: Optional[bool],
    **thresholds: Any,
) -> pandas.DataFrame:
    """Dictionary.ablation_table."""
    import pandas

    request = _protos.run.AblationTableRequest(
        dictionary=dictionary.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        processing=_requests.processing_code(dictionary.processing),
        **thresholds,
    )
    request.position.CopyFrom(_requests.positions_message(position))
    names = (
        "latent",
        "loss_increase",
        "loss_increase_encoded",
        "mean_activation",
        "share_active",
        "prompts",
    )
    _, arrays, provenance = _answers.ask(
        dictionary._client,
        "TabulateAblations",
        request,
        dictionary.info.model,
        names,
    )
    table = pandas.DataFrame(dict(zip(names, arrays)))
    table.attrs["provenance"] = provenance
    return table
