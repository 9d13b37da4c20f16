"""What a model's output loses when latents are taken away, one at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from . import _protos, _requests
from ._requests import Positions, Prompts
from .errors import DataLoss, InvalidArgument
from .results import Answer, Provenance
from .run import Answers, answers_messages

if TYPE_CHECKING:
    import pandas

    from .dictionary import Dictionary

_MODES = {
    "subtract": _protos.run.AblateRequest.SUBTRACT,
    "reconstruct": _protos.run.AblateRequest.RECONSTRUCT,
}


class Ablation(Answer):
    """A row per prompt and latent, by prompt and then by latent.

    `loss`, `logprob` and `rank` are what the model says at `position` with the
    latent taken away, `clean_loss` and so on without an ablation, row for row;
    in mode "reconstruct" `reconstructed_loss` and so on are those of the full
    reconstruction (else None). `logprob` and `rank` are of the answer: [rows],
    or [rows, answers] of several per prompt.
    """

    def __init__(
        self,
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        latent: NDArray[np.uint32],
        activation: NDArray[np.float32],
        after: Sequence[NDArray[Any]],
        base: Sequence[NDArray[Any]],
        mode: str,
        provenance: Provenance,
    ) -> None:
        self.prompt = prompt  # [rows]
        self.position = position[prompt]  # [rows]
        self.latent = latent  # [rows]
        self.activation = activation  # [rows]; 0: not active, nothing changes
        self.loss, self.logprob, self.rank = after
        self.clean_loss, self.clean_logprob, self.clean_rank = (
            array[prompt, 0] for array in base
        )
        self.reconstructed_loss: Optional[NDArray[np.float32]] = None
        self.reconstructed_logprob: Optional[NDArray[np.float32]] = None
        self.reconstructed_rank: Optional[NDArray[np.int32]] = None
        if mode == "reconstruct":
            (
                self.reconstructed_loss,
                self.reconstructed_logprob,
                self.reconstructed_rank,
            ) = (array[prompt, 1] for array in base)
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
        for name in ("loss", "logprob", "rank"):
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
    )
    request.position.CopyFrom(
        _requests.positions_message(-2 if position is None else position)
    )
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
    connection = dictionary._client._connection
    start = time.perf_counter()
    header, arrays = connection.stream(
        connection.analysis.Ablate,
        request,
        dictionary.info.model,
        lambda header: [
            header.prompt,
            header.latent,
            header.activation,
            header.loss,
            header.logprob,
            header.rank,
            header.base_loss,
            header.base_logprob,
            header.base_rank,
            header.position,
        ],
    )
    if any(array is None for array in arrays):
        raise DataLoss("the answer lacks a tensor")
    prompt, latent, activation, loss, logprob, rank, *base, where = arrays
    if logprob.shape[1] == 1:
        logprob, rank = logprob[:, 0], rank[:, 0]
        base = [base[0], base[1][..., 0], base[2][..., 0]]
    return Ablation(
        prompt,
        where,
        latent,
        activation,
        (loss, logprob, rank),
        base,
        mode,
        Provenance.from_message(
            header.provenance, time.perf_counter() - start
        ),
    )


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
    connection = dictionary._client._connection
    start = time.perf_counter()
    header, arrays = connection.stream(
        connection.analysis.TabulateAblations,
        request,
        dictionary.info.model,
        lambda header: [getattr(header, name) for name in names],
    )
    if any(array is None for array in arrays):
        raise DataLoss("the answer lacks a tensor")
    table = pandas.DataFrame(dict(zip(names, arrays)))
    table.attrs["provenance"] = Provenance.from_message(
        header.provenance, time.perf_counter() - start
    )
    return table
