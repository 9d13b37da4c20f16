"""Weights of models and dictionaries, and what they tell without a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _answers, _protos, _requests, _tensors, _tokens
from ._tokens import Tokens
from .errors import InvalidArgument
from .results import Provenance

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .dictionary import Dictionary

# One, several, or (None) all.
Indices = Union[None, int, Sequence[int]]

_SIDES = {
    "decoder": _protos.weights.DECODER,
    "encoder": _protos.weights.ENCODER,
}


def fetch(
    client: Client,
    route: str,
    rows: Indices,
    columns: Indices,
    **request: Any,
) -> NDArray[np.float32]:
    """Entries of a tensor: `request` says whose and which, `route` the model it
    belongs to. An axis selected by a single integer is dropped, as in numpy."""
    message = _protos.weights.WeightRequest(
        rows=_indices(rows, "rows:"),
        columns=_indices(columns, "columns:"),
        **request,
    )
    _, (array, _), _ = _answers.ask(
        client, "GetWeight", message, route, ["values", "shape"], required=1
    )
    if _requests.is_int(columns):
        array = array[..., 0]
    if _requests.is_int(rows):
        array = array[0]
    entries: NDArray[np.float32] = array
    return entries


class Weights:
    """What a dictionary's weights say of its latents. From
    `Dictionary.weights`."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary

    def decoder(self, latents: Indices) -> NDArray[np.float32]:
        """What latents write per unit of activation: rows of W_dec,
        [latents, d_out]; of a single integer [d_out]."""
        return self._dictionary.weight("W_dec", rows=latents)

    def encoder(self, latents: Indices) -> NDArray[np.float32]:
        """What latents read: columns of W_enc as rows, [latents, d_in]; of a
        single integer [d_in]."""
        return self._dictionary.weight("W_enc", columns=latents).T

    def nearest(
        self,
        latents: Indices = None,
        top_k: int = 10,
        side: str = "decoder",
        *,
        vectors: Optional[ArrayLike] = None,
    ) -> pandas.DataFrame:
        """The latents most alike in cosine to `latents` (never themselves),
        or to `vectors` [n, width]; by decoder rows or encoder columns.

        Columns: latent (of vectors: the row), rank, neighbour, cosine.
        """
        import pandas

        (top_k,) = _requests.unsigned([top_k], "top_k")
        if top_k == 0:
            raise InvalidArgument("top_k: expected at least 1")
        nearest = _protos.weights.LatentWeightsRequest.Nearest(
            latents=_indices(latents, "latents:"),
            top_k=top_k,
            side=_side(side),
        )
        if vectors is not None:
            info = self._dictionary._loaded_info()
            width = info.d_out if side == "decoder" else info.d_in
            rows = _tensors.to_rows(vectors, width)
            nearest.vectors.CopyFrom(_tensors.to_tensor(rows))
        indices, values, _ = self._ask(nearest=nearest)
        asked = (
            np.arange(len(indices))
            if vectors is not None
            else np.array(list(nearest.latents))
        )
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "latent": np.repeat(asked, indices.shape[1]),
                "rank": np.tile(np.arange(indices.shape[1]), len(indices)),
                "neighbour": indices.reshape(-1),
                "cosine": values.reshape(-1),
            }
        )
        return frame

    def tokens(
        self,
        latents: Union[int, Sequence[int]],
        top: int = 10,
        bottom: int = 10,
        *,
        gain: bool = True,
    ) -> pandas.DataFrame:
        """The tokens whose logits a latent raises and lowers most, through
        W_dec (W_out) W_U.

        `gain` False leaves the final norm's gain out in raw processing.
        Columns: latent, token_id, token, effect; each latent's strongest
        promotion first, its strongest suppression last.
        """
        import pandas

        question = _protos.weights.LatentWeightsRequest.Tokens(
            latents=_indices(latents, "latents:"),
            top=_requests.unsigned([top], "top")[0],
            bottom=_requests.unsigned([bottom], "bottom")[0],
            without_gain=not gain,
        )
        if top == bottom == 0:
            raise InvalidArgument("top, bottom: expected at least one above 0")
        indices, values, made = self._ask(tokens=question, projected=True)
        # The bottom ones come strongest first.
        order = [*range(top), *reversed(range(top, top + bottom))]
        ids = indices[:, order].reshape(-1)
        texts = self._dictionary._client._token_strings(
            made, [[int(i)] for i in ids]
        )
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "latent": np.repeat(list(question.latents), len(order)),
                "token_id": ids,
                "token": [text for (text,) in texts],
                "effect": values[:, order].reshape(-1),
            }
        )
        return frame

    def logits(
        self,
        tokens: Tokens,
        incorrect: Optional[Tokens] = None,
        *,
        gain: bool = True,
    ) -> NDArray[np.float32]:
        """Every latent's direct effect on tokens' logits per unit of
        activation, [tokens, d_sae]; with `incorrect` on the differences to
        these tokens' logits. The final norm's scale is left out."""
        client, info = self._dictionary._client, self._dictionary.info
        question = _protos.weights.LatentWeightsRequest.Logits(
            tokens=_tokens.token_ids(client, info.model, tokens, "tokens"),
            without_gain=not gain,
        )
        if incorrect is not None:
            question.incorrect.extend(
                _tokens.token_ids(client, info.model, incorrect, "incorrect")
            )
        _, effects, _ = self._ask(logits=question, projected=True)
        return effects

    def gram(
        self,
        latents: Sequence[int],
        side: str = "decoder",
        *,
        normalize: bool = True,
        threshold: float = 0.0,
    ) -> NDArray[np.float32]:
        """Cosines among latents, [n, n]; inner products without `normalize`.
        Entries below `threshold` in absolute value are 0."""
        _, gram, _ = self._ask(
            gram=_protos.weights.LatentWeightsRequest.Gram(
                latents=_indices(latents, "latents:"),
                side=_side(side),
                inner_products=not normalize,
                threshold=float(threshold),
            )
        )
        return gram

    def density(self) -> NDArray[np.float32]:
        """The share of tokens on which each latent fires, as the dictionary's
        files declare it; NotFound where they do not."""
        return self._dictionary.weight("density")

    def _ask(
        self, projected: bool = False, **question: Any
    ) -> Tuple[NDArray[np.int32], NDArray[np.float32], Provenance]:
        dictionary = self._dictionary
        request = _protos.weights.LatentWeightsRequest(
            dictionary=dictionary.name, **question
        )
        if projected:
            request.processing = _requests.processing_code(
                dictionary.processing
            )
        _, (indices, values), provenance = _answers.ask(
            dictionary._client,
            "GetLatentWeights",
            request,
            dictionary.info.model,
            ["indices", "values"],
        )
        return indices, values, provenance


def _side(side: str) -> Any:
    if side not in _SIDES:
        raise InvalidArgument(
            f"side: expected 'decoder' or 'encoder', got {side!r}"
        )
    return _SIDES[side]


def _indices(values: Indices, name: str) -> List[int]:
    if values is None:
        return []
    if _requests.is_int(values):
        return _requests.unsigned([values], name)
    listed = list(values)  # type: ignore[arg-type]
    if not listed:
        raise InvalidArgument(f"{name} an empty list; leave it out for all")
    return _requests.unsigned(listed, name)
