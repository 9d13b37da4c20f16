"""Where residuals come from and what they say: direct attribution of their
components, and the logit lens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _answers, _protos, _requests, _tensors, _tokens
from ._requests import Positions, Prompts
from ._tokens import Tokens
from .errors import InvalidArgument
from .results import Rows

if TYPE_CHECKING:
    import pandas

    from .dictionary import Dictionary
    from .model import Model

# The same tokens for all prompts, or a list of them for each.
PromptTokens = Union[Tokens, Sequence[Sequence[Union[int, str]]]]

_LEVELS = {
    "layers": _protos.attribution.LAYERS,
    "heads": _protos.attribution.HEADS,
    "neurons": _protos.attribution.NEURONS,
}


class Attribution(Rows):
    """The residual's components, each attributed to `n` targets.

    `values` [rows, components, n]; their sum over the components is `total`
    [rows, n]; with `bias` [rows, n] that is the logit (before a softcap), the
    difference of logits or the latent's pre-activation. A mean over prompts
    has one row, and no prompt and position.
    """

    def __init__(
        self,
        components: List[str],
        targets: List[str],
        values: NDArray[np.float32],
        total: NDArray[np.float32],
        bias: NDArray[np.float32],
        **rows: Any,
    ) -> None:
        super().__init__(**rows)
        self.components = components
        self.targets = targets  # [n], for tables
        self.values = values
        self.total = total
        self.bias = bias

    @property
    def result(self) -> NDArray[np.float32]:
        """[rows, n]: the logit, difference or pre-activation itself."""
        return self.total + self.bias

    def __getitem__(self, component: str) -> NDArray[np.float32]:
        """One component's values, [rows, n]."""
        return self.values[:, self.components.index(component)]

    def to_dataframe(self) -> pandas.DataFrame:
        """One line per row, component and target: prompt and position (not of
        a mean), component, target, attribution."""
        import pandas

        rows, components, n = self.values.shape
        columns: Dict[str, Any] = {}
        if len(self):
            repeats = components * n
            columns["prompt"] = np.repeat(self.prompt, repeats)
            columns["position"] = np.repeat(self.position, repeats)
        columns["component"] = np.tile(np.repeat(self.components, n), rows)
        columns["target"] = np.tile(self.targets, rows * components)
        columns["attribution"] = self.values.reshape(-1)
        frame: pandas.DataFrame = pandas.DataFrame(columns)
        return frame

    def top(self, n: int = 10, target: int = 0) -> pandas.DataFrame:
        """The `n` components with the largest attribution to one target in
        absolute value, by their mean over the rows."""
        import pandas

        mean = self.values[:, :, target].mean(0, dtype=np.float64)
        order = np.argsort(-np.abs(mean), kind="stable")[:n]
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "component": np.array(self.components, object)[order],
                "attribution": mean[order],
            }
        )
        return frame

    def __repr__(self) -> str:
        rows = f"{len(self)} tokens" if len(self) else "a mean"
        return (
            f"Attribution in {self.provenance.model}: {rows}, "
            f"{len(self.components)} components, {self.values.shape[2]} "
            f"targets, {self._origin()}"
        )


class LogitLens(Rows):
    """What the model would say if it ended at each residual."""

    def __init__(
        self,
        residuals: List[str],
        tokens: List[int],
        top_tokens: NDArray[np.int32],
        top_logits: NDArray[np.float32],
        logits: NDArray[np.float32],
        logprobs: NDArray[np.float32],
        ranks: NDArray[np.int32],
        **rows: Any,
    ) -> None:
        super().__init__(**rows)
        self.residuals = residuals  # 0_pre, ..., final_post
        self.tokens = tokens
        self.top_tokens = top_tokens  # [rows, residuals, top]
        self.top_logits = top_logits
        self.logits = logits  # [rows, residuals, tokens]
        self.logprobs = logprobs
        self.ranks = ranks  # how many logits are greater

    def top(self) -> pandas.DataFrame:
        """Prompt, position, residual, and the texts of the likeliest tokens,
        a column each."""
        texts = self._strings(self.top_tokens)
        columns = {
            f"top {i + 1}": texts[:, :, i].reshape(-1)
            for i in range(texts.shape[2])
        }
        return self._frame(columns)

    def to_dataframe(self) -> pandas.DataFrame:
        """Prompt, position, residual; logit, logprob and rank of each token."""
        columns: Dict[str, Any] = {}
        for i, token in enumerate(self.tokens):
            columns[f"logit {token}"] = self.logits[:, :, i].reshape(-1)
            columns[f"logprob {token}"] = self.logprobs[:, :, i].reshape(-1)
            columns[f"rank {token}"] = self.ranks[:, :, i].reshape(-1)
        return self._frame(columns)

    def _frame(self, columns: Dict[str, Any]) -> pandas.DataFrame:
        import pandas

        n = len(self.residuals)
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "prompt": np.repeat(self.prompt, n),
                "position": np.repeat(self.position, n),
                "residual": np.tile(self.residuals, len(self)),
                **columns,
            }
        )
        return frame

    def __repr__(self) -> str:
        return (
            f"LogitLens of {self.provenance.model}: {len(self)} tokens at "
            f"{len(self.residuals)} residuals, {self._origin()}"
        )


def attribute(
    model: Model,
    prompts: Prompts,
    tokens: Optional[PromptTokens],
    incorrect: Optional[PromptTokens],
    dictionary: Optional[Dictionary],
    latents: Optional[Sequence[int]],
    vectors: Optional[ArrayLike],
    inactive: Optional[ArrayLike],
    reference: Optional[Prompts],
    reference_positions: Positions,
    splits: List[str],
    level: str,
    layer: Optional[int],
    gain: bool,
    positions: Positions,
    prepend_bos: Optional[bool],
    **flags: bool,
) -> Attribution:
    """See Model.attribute."""
    if level not in _LEVELS:
        raise InvalidArgument(
            f"level: expected one of {', '.join(_LEVELS)}, got {level!r}"
        )
    given = [tokens is not None, latents is not None, vectors is not None]
    if sum(given) > 1:
        raise InvalidArgument("expected one of tokens, latents and vectors")
    if incorrect is not None and tokens is None:
        raise InvalidArgument("incorrect: goes with tokens")
    request = _protos.attribution.AttributeRequest(
        model=model.name,
        dictionary=dictionary.name if dictionary is not None else "",
        prompts=_requests.prompts_message(prompts, prepend_bos),
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(model.processing),
        level=_LEVELS[level],
        split_dictionaries=splits,
        **flags,
    )
    if layer is not None:
        (request.layer,) = _requests.unsigned([layer], "layer")
    targets = [str(i) for i in range(model.info.d_model)]
    if tokens is not None:
        right = _lists(model, tokens, "tokens")
        request.logits.tokens.extend(right)
        request.logits.without_gain = not gain
        targets = _names(right)
        if incorrect is not None:
            wrong = _lists(model, incorrect, "incorrect")
            request.logits.incorrect.extend(wrong)
            targets = [f"{a} - {b}" for a, b in zip(targets, _names(wrong))]
    elif latents is not None:
        listed = [latents] if _requests.is_int(latents) else list(latents)
        request.latents.latents.extend(_requests.unsigned(listed, "latents:"))
        request.latents.SetInParent()
        if inactive is not None:
            mean = np.ascontiguousarray(inactive, np.float32)
            request.latents.inactive.CopyFrom(_tensors.to_tensor(mean))
        if reference is not None:
            request.latents.reference.CopyFrom(
                _requests.prompts_message(reference, prepend_bos)
            )
            where = _requests.positions_message(reference_positions)
            if where is not None:
                request.latents.reference_positions.CopyFrom(where)
        targets = [str(i) for i in listed]
    elif vectors is not None:
        rows = _tensors.to_rows(vectors, model.info.d_model)
        request.vectors.CopyFrom(_tensors.to_tensor(rows))
        targets = [str(i) for i in range(len(rows))]
    for name, value in (("inactive", inactive), ("reference", reference)):
        if value is not None and latents is None:
            raise InvalidArgument(f"{name}: goes with latents")
    if reference_positions is not None and reference is None:
        raise InvalidArgument("reference_positions: goes with reference")
    header, arrays, rows_of = _answers.ask_rows(
        model._client,
        "Attribute",
        request,
        model.name,
        ["values", "total", "bias"],
    )
    return Attribution(
        list(header.components), targets, *arrays, **rows_of
    )


def _lists(
    model: Model, tokens: PromptTokens, name: str
) -> List[_protos.common.TokenIds]:
    """One list for all prompts, or one for each."""
    nested = not isinstance(tokens, str) and not _requests.is_int(tokens)
    entries: List[Any] = list(tokens) if nested else [tokens]  # type: ignore[arg-type]
    if not any(isinstance(entry, (list, tuple)) for entry in entries):
        entries = [entries]
    elif not all(isinstance(entry, (list, tuple)) for entry in entries):
        raise InvalidArgument(
            f"{name}: expected tokens or lists of them, not both"
        )
    return [
        _protos.common.TokenIds(
            ids=_tokens.token_ids(model._client, model.name, entry, name)
        )
        for entry in entries
    ]


def _names(lists: List[_protos.common.TokenIds]) -> List[str]:
    """Of the targets: ids, or numbers where each prompt has its own."""
    if len(lists) > 1:
        return [str(i) for i in range(len(lists[0].ids))]
    return [str(i) for i in lists[0].ids]


def logit_lens(
    model: Model,
    prompts: Prompts,
    tokens: Optional[Tokens],
    top: int,
    mids: bool,
    positions: Positions,
    prepend_bos: Optional[bool],
) -> LogitLens:
    """See Model.logit_lens."""
    ids = (
        _tokens.token_ids(model._client, model.name, tokens, "tokens")
        if tokens is not None
        else []
    )
    request = _protos.attribution.LogitLensRequest(
        model=model.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(model.processing),
        tokens=ids,
        top=_requests.unsigned([top], "top")[0],
        mids=mids,
    )
    header, arrays, rows = _answers.ask_rows(
        model._client,
        "LogitLens",
        request,
        model.name,
        ["top_tokens", "top_logits", "logits", "logprobs", "ranks"],
    )
    return LogitLens(list(header.residuals), ids, *arrays, **rows)
