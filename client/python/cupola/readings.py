"""The questions of a dictionary that are one encode or decode: activations of
latents, what activations stand for, and both beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _answers, _protos, _requests, _tensors
from ._requests import Positions, Prompts
from .errors import InvalidArgument
from .features import Features, csr_rows
from .results import Reconstruction

if TYPE_CHECKING:
    from .dictionary import Dictionary, Inputs


def features(
    dictionary: Dictionary,
    prompts: Optional[Prompts],
    positions: Positions,
    latents: Union[None, int, Sequence[int]],
    top_k: Optional[int],
    min_activation: float,
    inputs: Optional[Inputs],
    prepend_bos: Optional[bool],
) -> Features:
    """Dictionary.features."""
    request = _protos.analysis.FeaturesRequest(
        dictionary=dictionary.name,
        top_k=_top_k(top_k),
        min_activation=float(min_activation),
    )
    if latents is not None:
        request.latents.extend(_latents(latents))
    dictionary._set_source(request, prompts, positions, inputs, prepend_bos)
    header, arrays, provenance = _answers.ask(
        dictionary._client,
        "GetFeatures",
        request,
        dictionary.info.model,
        lambda header: [
            *_tensors.of_sparse_rows(header.features),
            header.prompt,
            header.position,
        ],
        required=3,
    )
    indptr, indices, values, prompt, position = arrays
    csr = _tensors.to_csr(indptr, indices, values, header.features.columns)
    rows = len(indptr) - 1
    return Features(
        csr,
        _or_rows(prompt, np.zeros(rows, np.int32)),
        _or_rows(position, np.arange(rows, dtype=np.int32)),
        provenance,
        lambda ids: dictionary._client._token_strings(provenance, ids),
    )


def decode(
    dictionary: Dictionary, features: Union[Features, ArrayLike, Any]
) -> NDArray[np.float32]:
    """Dictionary.decode."""
    csr = csr_rows(features, dictionary._loaded_info().d_sae)
    request = _protos.analysis.ReconstructRequest(
        dictionary=dictionary.name,
        features=_protos.common.SparseRows(
            indptr=_tensors.to_tensor(csr.indptr.astype(np.int64)),
            indices=_tensors.to_tensor(csr.indices.astype(np.uint32)),
            values=_tensors.to_tensor(csr.data),
            columns=csr.shape[1],
        ),
    )
    return _reconstruction(dictionary, request).reconstruction


def reconstruct(
    dictionary: Dictionary,
    prompts: Optional[Prompts],
    positions: Positions,
    inputs: Optional[Inputs],
    prepend_bos: Optional[bool],
) -> Reconstruction:
    """Dictionary.reconstruct."""
    request = _protos.analysis.ReconstructRequest(dictionary=dictionary.name)
    dictionary._set_source(request, prompts, positions, inputs, prepend_bos)
    return _reconstruction(dictionary, request)


def _reconstruction(dictionary: Dictionary, request: Any) -> Reconstruction:
    header, arrays, provenance = _answers.ask(
        dictionary._client,
        "Reconstruct",
        request,
        dictionary.info.model,
        [
            "reconstruction",
            "target",
            "squared_error",
            "l0",
            "prompt",
            "position",
        ],
        required=1,
    )
    output, target, squared_error, l0, prompt, position = arrays
    known = target is not None and len(target) == len(output)
    rows = len(output)
    return Reconstruction(
        reconstruction=output,
        target=target if known else None,
        squared_error=squared_error if known else None,
        token_l0=_or_rows(l0, np.zeros(rows, np.float32)),
        prompt=_or_rows(prompt, np.zeros(rows, np.int32)),
        position=_or_rows(position, np.arange(rows, dtype=np.int32)),
        fvu=header.fvu,
        l0=header.mean_l0,
        provenance=provenance,
    )


def _or_rows(
    array: Optional[NDArray[Any]], default: NDArray[Any]
) -> NDArray[Any]:
    """`array`, or `default` where the server left it out."""
    return default if array is None or len(array) != len(default) else array


def _latents(latents: Union[int, Sequence[int]]) -> List[int]:
    several = [latents] if isinstance(latents, int) else list(latents)
    if not several:
        raise InvalidArgument(
            "latents: an empty list; leave it out to ask for all"
        )
    return _requests.unsigned(several, "latents:")


def _top_k(top_k: Optional[int]) -> int:
    if top_k is None:
        return 0
    (value,) = _requests.unsigned([top_k], "top_k")
    if value == 0:
        raise InvalidArgument("top_k: expected at least 1, or None for all")
    return value
