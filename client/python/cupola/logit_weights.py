"""What latents do to the logits directly, without any prompt."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, List

import numpy as np
from numpy.typing import NDArray

from . import _answers, _protos, _requests
from .errors import InvalidArgument
from .results import Provenance
from .weights import Indices

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .dictionary import Dictionary

# Latents that one call asks for: an answer of so many is small enough for the
# server's cache.
_LATENTS = 2048
_TENSORS = ["indices", "values", "histogram", "ends"]


@dataclasses.dataclass(frozen=True, repr=False)
class LogitWeights:
    """The logits that latents' decoder rows write, W_dec (W_out) W_U, summed up
    over the vocabulary: a row for each of `latents`.

    tokens: int32 [n, top + bottom], the `top` most raised ones, descending,
    then the most lowered ones, ascending; values: float32, their logits.
    histogram: int64 [n, bins], equal bins from the smallest logit to the
    largest, which is in the last one; ends: float32 [n, 2], these two.
    """

    latents: NDArray[np.int64]
    top: int
    tokens: NDArray[np.int32]
    values: NDArray[np.float32]
    histogram: NDArray[np.int64]
    ends: NDArray[np.float32]
    provenance: Provenance
    _client: Client = dataclasses.field(compare=False)

    def edges(self) -> NDArray[np.float64]:
        """Of the bins, [n, bins + 1]."""
        ends = self.ends.astype(np.float64)
        edges: NDArray[np.float64] = np.linspace(
            ends[:, 0], ends[:, 1], self.histogram.shape[1] + 1, axis=1
        )
        return edges

    def to_dataframe(self) -> pandas.DataFrame:
        """latent, rank (0 on for the raised tokens, -1 on down for the lowered
        ones), token_id, token, logit."""
        import pandas

        n, both = self.tokens.shape
        ranks = [*range(self.top), *range(-1, self.top - both - 1, -1)]
        ids = self.tokens.reshape(-1)
        texts = self._client._token_strings(
            self.provenance, [[int(i)] for i in ids]
        )
        return pandas.DataFrame(
            {
                "latent": np.repeat(self.latents, both),
                "rank": np.tile(ranks, n),
                "token_id": ids,
                "token": [text for (text,) in texts],
                "logit": self.values.reshape(-1),
            }
        )

    def __len__(self) -> int:
        return len(self.latents)

    def __repr__(self) -> str:
        return (
            f"LogitWeights of {len(self):,} latents: {self.top} + "
            f"{self.tokens.shape[1] - self.top} tokens, "
            f"{self.histogram.shape[1]} bins"
        )


def logit_weights(
    dictionary: Dictionary,
    latents: Indices,
    top: int,
    bottom: int,
    bins: int,
    gain: bool,
) -> LogitWeights:
    """See Dictionary.logit_weights."""
    if latents is None:
        asked = list(range(dictionary._loaded_info().d_sae))
    else:
        listed: Any = [latents] if _requests.is_int(latents) else latents
        asked = _requests.unsigned(list(listed), "latents:")
    if not asked:
        raise InvalidArgument("latents: an empty list; leave it out for all")
    (bins,) = _requests.unsigned([bins], "bins")
    if bins == 0:
        raise InvalidArgument("bins: expected at least 1")
    parts: List[List[Any]] = []
    for begin in range(0, len(asked), _LATENTS):
        request = _protos.weights.LatentWeightsRequest(
            dictionary=dictionary.name,
            processing=_requests.processing_code(dictionary.processing),
            logit_weights=_protos.weights.LatentWeightsRequest.LogitWeights(
                latents=asked[begin : begin + _LATENTS],
                top=_requests.unsigned([top], "top")[0],
                bottom=_requests.unsigned([bottom], "bottom")[0],
                bins=bins,
                without_gain=not gain,
            ),
        )
        _, arrays, provenance = _answers.ask(
            dictionary._client,
            "GetLatentWeights",
            request,
            dictionary.info.model,
            _TENSORS,
        )
        parts.append(arrays)
    joined = [np.concatenate(arrays) for arrays in zip(*parts)]
    return LogitWeights(
        np.asarray(asked, np.int64),
        top,
        *joined,
        provenance,
        dictionary._client,
    )
