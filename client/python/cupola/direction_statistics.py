"""What a dictionary's directions do over a corpus of prompts: a job."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Union

import numpy as np

from . import _protos, _requests, _submit
from ._requests import Prompts
from .datasets import DatasetRows
from .errors import InvalidArgument
from .jobs import Job

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .dictionary import Dictionary

_J = _protos.jobs
_LEVELS = {
    "layers": _protos.attribution.LAYERS,
    "heads": _protos.attribution.HEADS,
    "neurons": _protos.attribution.NEURONS,
}
_TENSORS = [
    "latent",
    "loss_increase",
    "loss_increase_encoded",
    "mean_activation",
    "share_active",
    "ablated",
    "count",
    "largest",
    "top_row",
    "top_position",
    "top_value",
    "active_indptr",
    "active_row",
    "active_position",
    "activation",
    "active_increase",
    "active_encoded",
    "losses",
    "increases",
    "deviations",
    "attribution",
    "boosted_tokens",
    "boost",
    "deboosted_tokens",
    "deboost",
]
# The variants of losses, in the answer's order.
_VARIANTS = [
    "clean",
    "zero",
    "reconstruction",
    "ablated",
    "reconstruction_ablated",
]

Latents = Union[int, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class LossesRecovered:
    """Mean losses of the tokens behind the scored positions."""

    rows: int
    # By variant: "clean"; "zero" and "reconstruction" of the dictionary's
    # output point; "ablated" without the directions' contributions, and
    # "reconstruction_ablated" without them in the reconstruction.
    losses: Dict[str, float]
    increases: Dict[str, float]  # means over the clean loss
    deviations: Dict[str, float]  # their standard deviations

    def recovered(self, variant: str = "reconstruction") -> float:
        """(zero - variant) / (zero - clean): 1 where nothing is lost."""
        zero, clean = self.losses["zero"], self.losses["clean"]
        return (zero - self.losses[variant]) / (zero - clean)


class DirectionStatistics:
    """What the directions of a dictionary did over prompts, each scored at one
    position. The numbers stay on the server; each method asks for some. `row`
    is the dataset's row, or the prompt."""

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self.job = job
        header, _ = self._fetch()
        self.rows: int = header.rows
        self.d_sae: int = header.d_sae
        self._model: str = header.job.provenance.model

    def _fetch(self, **wanted: Any) -> Any:
        connection = self._client._connection
        header, arrays = connection.stream(
            connection.jobs.GetDirectionStatistics,
            _J.GetDirectionStatisticsRequest(job=self.job, **wanted),
            "",
            lambda header: [getattr(header, name) for name in _TENSORS],
        )
        return header, dict(zip(_TENSORS, arrays))

    def table(
        self,
        share_of_max: float = 0.17,
        min_share: float = 0.05,
        max_latents: int = 100,
    ) -> pandas.DataFrame:
        """The table of Dictionary.ablation_table: of the `max_latents` latents
        with the largest mean activation at the scored position (of activations
        above `share_of_max` of the latent's largest, in the first rows, at
        least `min_share` of which have one) the mean loss increase when it is
        ablated. Columns: latent, loss_increase, loss_increase_encoded,
        mean_activation, share_active, prompts. A job without ablations has NaN
        and orders by mean activation: its latents are candidates."""
        import pandas

        _, arrays = self._fetch(
            table=True,
            share_of_max=share_of_max,
            min_share=min_share,
            max_latents=max_latents,
        )
        table = {name: arrays[name] for name in _TENSORS[:5]}
        return pandas.DataFrame({**table, "prompts": arrays["ablated"]})

    def top(self, latents: Latents) -> pandas.DataFrame:
        """The rows with each latent's largest activations up to the scored
        position, the best first: latent, rank, row, position, value."""
        import pandas

        asked = _listed(latents)
        _, arrays = self._fetch(latents=asked)
        there = np.nonzero(arrays["top_row"] >= 0)
        return pandas.DataFrame(
            {
                "latent": np.asarray(asked, np.int64)[there[0]],
                "rank": there[1],
                "row": arrays["top_row"][there],
                "position": arrays["top_position"][there],
                "value": arrays["top_value"][there],
            }
        )

    def active(self, latents: Latents) -> pandas.DataFrame:
        """The first rows at whose scored position each latent is active:
        latent, row, position, activation, loss_increase and
        loss_increase_encoded (NaN where it was not ablated)."""
        import pandas

        asked = _listed(latents)
        _, arrays = self._fetch(latents=asked)
        return pandas.DataFrame(
            {
                "latent": np.repeat(
                    np.asarray(asked, np.int64),
                    np.diff(arrays["active_indptr"]),
                ),
                "row": arrays["active_row"],
                "position": arrays["active_position"],
                "activation": arrays["activation"],
                "loss_increase": arrays["active_increase"],
                "loss_increase_encoded": arrays["active_encoded"],
            }
        )

    def counts(self, latents: Latents) -> pandas.DataFrame:
        """latent, count (rows at whose scored position it is active), max (its
        largest activation up to there)."""
        import pandas

        asked = _listed(latents)
        _, arrays = self._fetch(latents=asked)
        return pandas.DataFrame(
            {
                "latent": asked,
                "count": arrays["count"],
                "max": arrays["largest"],
            }
        )

    def losses(self) -> LossesRecovered:
        """Of a job with losses."""
        header, arrays = self._fetch()
        if not len(arrays["losses"]):
            raise InvalidArgument("the job was submitted with losses=False")

        def by_variant(name: str) -> Dict[str, float]:
            return dict(zip(_VARIANTS, arrays[name].tolist()))

        return LossesRecovered(
            header.loss_rows,
            by_variant("losses"),
            by_variant("increases"),
            by_variant("deviations"),
        )

    def attribution(self) -> pandas.Series:
        """The mean direct attribution of the residual's components to the logit
        of the token behind the scored position, by component."""
        import pandas

        header, arrays = self._fetch()
        if not header.components:
            raise InvalidArgument("the job was submitted without attribution")
        return pandas.Series(arrays["attribution"], list(header.components))

    def boosts(
        self, top: int = 15, min_logprob: float = -9.0, min_count: int = 100
    ) -> pandas.DataFrame:
        """The tokens that ablating the directions makes less likely at the
        scored position (boosted by them), then those it makes more likely: end,
        token_id, token, boost (the mean of clean less ablated
        log-probabilities). Tokens with a mean clean log-probability below
        `min_logprob`, or with no more than `min_count` occurrences in the rows,
        count as unchanged."""
        import pandas

        _, arrays = self._fetch(
            boosts=top, min_logprob=min_logprob, min_count=min_count
        )
        ids = np.concatenate(
            [arrays["boosted_tokens"], arrays["deboosted_tokens"]]
        )
        model = self._client.model(self._model)
        texts = model.str_tokens([[int(i)] for i in ids]) if len(ids) else []
        return pandas.DataFrame(
            {
                "end": ["boosted"] * top + ["deboosted"] * top,
                "token_id": ids,
                "token": [text for (text,) in texts],
                "boost": np.concatenate([arrays["boost"], arrays["deboost"]]),
            }
        )

    def __repr__(self) -> str:
        return (
            f"DirectionStatistics of {self.job}: {self.d_sae:,} latents over "
            f"{self.rows:,} rows"
        )


def _listed(latents: Latents) -> Any:
    several: Any = [latents] if _requests.is_int(latents) else latents
    return _requests.unsigned(list(several), "latents")


def submit(
    dictionary: Dictionary,
    rows: Union[Prompts, DatasetRows],
    position: int,
    ablate: Union[bool, Sequence[int]],
    directions: Sequence[int],
    losses: bool,
    attribution: Optional[str],
    boost_rows: int,
    thresholds: Dict[str, Any],
    prepend_bos: Optional[bool],
    chunk_rows: Optional[int],
    options: Dict[str, Any],
) -> Job:
    """See Dictionary.direction_statistics."""
    if attribution is not None and attribution not in _LEVELS:
        raise InvalidArgument(
            f"attribution: expected {', '.join(map(repr, _LEVELS))} or None, "
            f"got {attribution!r}"
        )
    chosen = [] if isinstance(ablate, bool) else _listed(ablate)
    request = _J.DirectionStatisticsRequest(
        dictionary=dictionary.name,
        position=position,
        without_ablation=ablate is False,
        ablate_latents=sorted(set(chosen)),
        directions=sorted(set(_listed(directions))),
        without_losses=not losses,
        boost_rows=boost_rows,
        chunk_rows=chunk_rows or 0,
        processing=_requests.processing_code(dictionary.processing),
        options=_submit.options_message(**options),
        **thresholds,
    )
    if attribution is not None:
        request.attribution = _LEVELS[attribution]
    if isinstance(rows, DatasetRows):
        request.rows.CopyFrom(rows.to_message())
    else:
        request.prompts.CopyFrom(_requests.prompts_message(rows, prepend_bos))
    return _submit.send(
        dictionary._client,
        "ComputeDirectionStatistics",
        request,
        dictionary.info.model,
    )
