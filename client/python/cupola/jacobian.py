"""How the latents before an MLP move those behind it: Jacobians of a pair."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from . import _answers, _figures, _protos, _requests
from ._requests import Positions, Prompts
from .errors import InvalidArgument
from .features import Features
from .results import Rows

if TYPE_CHECKING:
    import pandas

    from .dictionary import Dictionary, Inputs
    from .pair import Pair

_MLP_INPUTS = {
    "original": _protos.jacobian.ORIGINAL,
    "reconstruction": _protos.jacobian.RECONSTRUCTION,
}
_MASKS = {
    "slots": _protos.jacobian.SLOTS,
    "positive": _protos.jacobian.POSITIVE,
}
_FIELDS = [
    "in_latents",
    "in_acts",
    "out_latents",
    "out_acts",
    "values",
    "indptr",
    "indices",
    "second_order",
    "mlp_output",
    "gradients",
    "source_position",
]
_MODES = {
    "full": _protos.jacobian.FULL,
    "frozen": _protos.jacobian.FROZEN,
}


class Jacobian(Rows):
    """d out_latent / d in_latent, a block per token: of the output latents at
    `position` by the input latents at `source_position`.

    Latents are in descending pre-activation order for TopK dictionaries and in
    ascending index order otherwise; rows with fewer are padded with index -1
    and value 0. Of rows against all input latents `values` is None and `csr`
    holds them: row `token * k_out + slot`, column the input latent.
    """

    def __init__(
        self, header: Any, arrays: List[Any], all_inputs: bool, **rows: Any
    ) -> None:
        super().__init__(**rows)
        (
            self.in_latents,  # int32 [n, k_in]
            self.in_acts,  # float32 [n, k_in]
            self.out_latents,  # int32 [n, k_out]
            self.out_acts,  # float32 [n, k_out]
            values,
            indptr,
            indices,
            second_order,
            mlp_output,
            gradients,
            self.source_position,  # int32 [n]
        ) = arrays
        self.values: Optional[NDArray[np.float32]] = None  # [n, k_out, k_in]
        self.csr: Any = None
        if all_inputs:
            self.csr = csr_matrix(
                (values, indices.astype(np.int32, copy=False), indptr),
                shape=(len(indptr) - 1, header.columns),
            )
        else:
            self.values = values
        # Where they were asked for: d^2 out / d in^2 [n, k_out, k_in], the
        # MLP's output [n, d_model], and its activation function's derivative
        # [n, d_mlp] (gated: by the gate, then by the linear half).
        self.second_order = _asked(second_order)
        self.mlp_output = _asked(mlp_output)
        self.gradients = _asked(gradients)
        self.output_dictionary: str = header.output_dictionary
        self.output_dictionary_digest: str = (
            header.output_dictionary_digest.hex()
        )

    def row(self, token: int, slot: int) -> NDArray[np.float32]:
        """One output latent's derivative by every input latent [d_sae]."""
        if self.csr is None:
            raise InvalidArgument('row: ask for block="all" to have whole rows')
        index = token * self.out_latents.shape[1] + slot
        whole: NDArray[np.float32] = self.csr[index].toarray()[0]
        return whole

    def _entries(self) -> Tuple[NDArray[Any], ...]:
        """token, output slot, input latent, value of every entry not zero."""
        k_out = self.out_latents.shape[1]
        if self.values is None:
            entries = self.csr.tocoo()
            token, slot = np.divmod(entries.row, max(k_out, 1))
            return token, slot, entries.col, entries.data
        token, slot, column = np.nonzero(self.values)
        return (
            token,
            slot,
            self.in_latents[token, column],
            self.values[token, slot, column],
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """A line per entry that is not zero: prompt, position,
        source_position, in_latent, out_latent, value."""
        import pandas

        token, slot, in_latent, value = self._entries()
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "prompt": self.prompt[token],
                "position": self.position[token],
                "source_position": self.source_position[token],
                "in_latent": in_latent,
                "out_latent": self.out_latents[token, slot],
                "value": value,
            }
        )
        return frame

    def top(self, n: int = 10) -> pandas.DataFrame:
        """The entries of largest absolute value."""
        frame = self.to_dataframe()
        order = np.argsort(-np.abs(frame["value"].to_numpy()), kind="stable")
        return frame.iloc[order[:n]].reset_index(drop=True)

    def figure(self, token: Optional[int] = None) -> Any:
        """A plotly heat map of a token's block, input latents across; None: of
        each token's (the first 100), with a slider over their texts."""
        return _figures.of_jacobian(self, token)

    def to_html(self, token: Optional[int] = None) -> str:
        """The figure, or the strongest entries where there are no blocks."""
        if self.values is None:
            table: str = self.top().to_html(index=False)
            return table
        return _figures.to_html(self.figure(token))

    def _repr_html_(self) -> str:
        summary = f"<p>{html.escape(repr(self))}</p>"
        try:
            return summary + self.to_html()
        except (ImportError, InvalidArgument) as error:
            table: str = self.top().to_html(index=False)
            return f"{summary}{table}<p>{html.escape(str(error))}</p>"

    def __repr__(self) -> str:
        size = (
            f"{self.out_latents.shape[1]} x {self.in_latents.shape[1]}"
            if self.csr is None
            else f"{self.out_latents.shape[1]} x {self.csr.shape[1]}, "
            f"{self.csr.nnz} entries"
        )
        return (
            f"Jacobian of {self.output_dictionary} by "
            f"{self.provenance.dictionary}: {len(self)} tokens, {size}, "
            f"{self._origin()}"
        )


def _asked(array: Optional[NDArray[Any]]) -> Optional[NDArray[Any]]:
    return None if array is None or array.ndim < 2 else array


def name_pair(pair: Pair, request: Any) -> None:
    """Fills in the dictionaries and the processing of a question about a
    pair."""
    first, second = pair.input, pair.output
    if first.info.model != second.info.model:
        raise InvalidArgument(
            f"pair: {first.name!r} is of model {first.info.model!r} and "
            f"{second.name!r} of {second.info.model!r}"
        )
    wanted = {first.processing, second.processing} - {None}
    if len(wanted) > 1:
        raise InvalidArgument(
            f"pair: {first.name!r} is asked in {first.processing!r} and "
            f"{second.name!r} in {second.processing!r}"
        )
    request.dictionary = first.name
    request.output_dictionary = second.name
    request.processing = _requests.processing_code(
        next(iter(wanted), None)
    )


def add_rows(
    dictionary: Dictionary,
    request: Any,
    prompts: Optional[Prompts],
    positions: Positions,
    inputs: Optional[Inputs],
    prepend_bos: Optional[bool],
) -> None:
    """As Dictionary._set_source, but the processing stays what it is."""
    processing = request.processing
    dictionary._set_source(request, prompts, positions, inputs, prepend_bos)
    request.processing = processing


def code_of(value: str, codes: Dict[str, Any], name: str) -> Any:
    if value not in codes:
        raise InvalidArgument(
            f"{name}: expected {' or '.join(map(repr, codes))}, got {value!r}"
        )
    return codes[value]


def _without_block(pair: Pair, inputs: Inputs, mlp_output: bool) -> Any:
    request = _protos.jacobian.JacobianRequest(
        without_block=True, mask=_MASKS["positive"], mlp_output=mlp_output
    )
    name_pair(pair, request)
    add_rows(pair.input, request, None, None, inputs, None)
    return _answers.ask_rows(
        pair.input._client,
        "GetJacobian",
        request,
        pair.input.info.model,
        _FIELDS,
    )


def mlp(pair: Pair, inputs: Inputs) -> NDArray[np.float32]:
    """See Pair.mlp."""
    _, arrays, _ = _without_block(pair, inputs, mlp_output=True)
    output: NDArray[np.float32] = arrays[_FIELDS.index("mlp_output")]
    return output


def sandwich(pair: Pair, features: Inputs) -> Features:
    """See Pair.sandwich."""
    _, arrays, rows = _without_block(pair, features, mlp_output=False)
    latents = arrays[_FIELDS.index("out_latents")]
    acts = arrays[_FIELDS.index("out_acts")]
    held = latents >= 0
    d_sae = pair.output._loaded_info().d_sae
    csr = csr_matrix(
        (acts[held], (np.nonzero(held)[0], latents[held])),
        shape=(len(latents), d_sae),
        dtype=np.float32,
    )
    csr.sort_indices()
    return Features(csr, **rows)


def jacobian(
    pair: Pair,
    prompts: Optional[Prompts],
    positions: Positions,
    mlp_input: str,
    block: str,
    min_abs: float,
    top: Optional[int],
    mask: str,
    second_order: bool,
    mlp_output: bool,
    gradients: bool,
    inputs: Optional[Inputs],
    prepend_bos: Optional[bool],
    mode: str,
    source_positions: Union[Positions, str],
) -> Jacobian:
    """See Pair.jacobian."""
    request = bridge_request(pair, mlp_input, block, min_abs, top, mask)
    request.second_order = second_order
    request.mlp_output = mlp_output
    request.gradients = gradients
    request.mode = code_of(mode, _MODES, "mode")
    _set_sources(request, source_positions)
    add_rows(pair.input, request, prompts, positions, inputs, prepend_bos)
    header, arrays, rows = _answers.ask_rows(
        pair.input._client,
        "GetJacobian",
        request,
        pair.input.info.model,
        _FIELDS,
    )
    return Jacobian(header, arrays, block == "all", **rows)


def _set_sources(request: Any, sources: Union[Positions, str]) -> None:
    if sources is None:
        return
    if not isinstance(sources, str):
        request.source_positions.at.CopyFrom(
            _requests.positions_message(sources, "source_positions")
        )
    elif sources == "all":
        request.source_positions.all = True
    else:
        raise InvalidArgument(
            "source_positions: expected None, 'all', an integer, a list of "
            f"integers or one such list per prompt, got {sources!r}"
        )


def bridge_request(
    pair: Pair,
    mlp_input: str,
    block: str,
    min_abs: float,
    top: Optional[int],
    mask: str,
) -> Any:
    """What is asked of each token; its rows are yet to be added."""
    request = _protos.jacobian.JacobianRequest(
        mlp_input=code_of(mlp_input, _MLP_INPUTS, "mlp_input"),
        mask=code_of(mask, _MASKS, "mask"),
    )
    if block not in ("active", "all"):
        raise InvalidArgument(
            f"block: expected 'active' or 'all', got {block!r}"
        )
    if block == "all":
        (most,) = _requests.unsigned([top or 0], "top")
        request.all_inputs.min_abs = float(min_abs)
        request.all_inputs.top = most
    else:
        if top is not None:
            raise InvalidArgument('top: goes with block="all"')
        request.min_abs = float(min_abs)
    name_pair(pair, request)
    return request
