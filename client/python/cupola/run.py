"""A model's output under interventions, beside the clean one."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

import numpy as np
from numpy.typing import NDArray

from . import _answers, _run_request, _tensors
from ._requests import Positions, Prompts
from ._run_request import Answers
from .errors import DataLoss, InvalidArgument
from .results import Answer, Provenance

if TYPE_CHECKING:
    import pandas

    from .model import Model

T = TypeVar("T")
_READOUT = ("loss", "logprob", "rank", "top_tokens", "top_logits")
_BOOSTS = ("boosted_tokens", "boost", "deboosted_tokens", "deboost")


class Beside(List[T]):
    """Values under the interventions, one per prompt, and the clean ones."""

    def __init__(self, changed: Iterable[T], clean: Iterable[T]) -> None:
        super().__init__(changed)
        self.clean: List[T] = list(clean)

    @property
    def changed(self) -> List[T]:
        return list(self)


class Top(NamedTuple):
    """The largest logits at each position, descending."""

    tokens: NDArray[np.int32]  # [positions, n]
    logits: NDArray[np.float32]  # [positions, n]


class Boosts(NamedTuple):
    """What the interventions do to the log-probabilities of all tokens at the
    one position of each prompt: the mean over the prompts of clean less
    changed. `tokens` lose most under the interventions, `bottom_tokens` gain
    most; the most first."""

    tokens: NDArray[np.int32]  # [n]
    boost: NDArray[np.float32]  # [n]
    bottom_tokens: NDArray[np.int32]  # [n]
    bottom_boost: NDArray[np.float32]  # [n]


class Run(Answer):
    """What a set of interventions changed. Every field has one item per prompt,
    and the clean run's items in its `clean`: ``run.loss[0]`` is the first
    prompt's loss under the interventions, ``run.loss.clean[0]`` without.
    """

    def __init__(
        self,
        shown: List[_Shown],
        clean: List[_Shown],
        positions: List[NDArray[np.int32]],
        dictionaries: List[str],
        hooks: List[str],
        aliases: Dict[str, str],
        boosts: Optional[Boosts],
        provenance: Provenance,
    ) -> None:
        def beside(field: str) -> Beside[Any]:
            return Beside(
                [getattr(item, field) for item in shown],
                [getattr(item, field) for item in clean],
            )

        # [positions]: of predicting the next token; without given positions the
        # last token, which predicts none, is left out. Of loss="mean" one
        # number, over the positions that have a next token.
        self.loss: Beside[NDArray[np.float32]] = beside("loss")
        # [positions], or [positions, answers] of several answers per prompt.
        self.logprob: Beside[NDArray[np.float32]] = beside("logprob")
        # The same shape: how many logits are greater.
        self.rank: Beside[NDArray[np.int32]] = beside("rank")
        self.top: Beside[Top] = beside("top")
        # By dictionary: scipy matrices [positions, d_sae].
        self.features: Dict[str, Beside[Any]] = {
            name: Beside(
                [item.features[i] for item in shown],
                [item.features[i] for item in clean],
            )
            for i, name in enumerate(dictionaries)
        }
        # By hook point: arrays [positions, ...].
        self.activations: Dict[str, Beside[NDArray[np.float32]]] = _Named(
            {
                name: Beside(
                    [item.activations[i] for item in shown],
                    [item.activations[i] for item in clean],
                )
                for i, name in enumerate(hooks)
            },
            aliases,
        )
        self.boosts = boosts  # where they were asked for
        self.positions = positions  # [prompt]: what the rows stand for
        self.provenance = provenance

    @property
    def token_ids(self) -> List[List[int]]:
        """All ids of each prompt, BOS included."""
        return self.provenance.token_ids

    def to_dataframe(self) -> pandas.DataFrame:
        """One line per prompt and position: loss, logprob and rank of the
        (first) answer, clean and changed."""
        import pandas

        blocks = []
        for i, positions in enumerate(self.positions):
            columns: Dict[str, Any] = {}
            for name in ("loss", "logprob", "rank"):
                field = getattr(self, name)
                if np.ndim(field[i]) == 0:
                    raise InvalidArgument(
                        "to_dataframe: a mean loss has no positions"
                    )
                columns[f"clean_{name}"] = _first(field.clean[i])
                columns[name] = _first(field[i])
            rows = len(columns["loss"])
            ids = self.token_ids[i]
            blocks.append(
                pandas.DataFrame(
                    {
                        "prompt": i,
                        "position": positions[:rows],
                        "token_id": [ids[p] for p in positions[:rows]],
                        **{k: v[:rows] for k, v in columns.items()},
                    }
                )
            )
        return pandas.concat(blocks, ignore_index=True)

    def __repr__(self) -> str:
        prompts = len(self.positions)
        lines = [
            f"Run of {self.provenance.model}: {prompts} "
            f"prompt{'' if prompts == 1 else 's'}, {self._origin()}"
        ]
        losses = [
            np.concatenate([np.atleast_1d(loss) for loss in part])
            for part in (self.loss.clean, self.loss)
        ]
        if len(losses[0]):
            clean, changed = (float(np.nanmean(loss)) for loss in losses)
            lines.append(f"  mean loss: {clean:.4f} clean, {changed:.4f}")
        return "\n".join(lines)


class _Shown(NamedTuple):
    loss: NDArray[np.float32]
    logprob: NDArray[np.float32]
    rank: NDArray[np.int32]
    top: Top
    features: List[Any]
    activations: List[NDArray[np.float32]]


class _Named(Dict[str, Any]):
    def __init__(self, values: Dict[str, Any], aliases: Dict[str, str]) -> None:
        super().__init__(values)
        self._aliases = aliases

    def __missing__(self, key: str) -> Any:
        if key not in self._aliases:
            raise KeyError(key)
        return self[self._aliases[key]]


def run(
    model: Model,
    prompts: Prompts,
    wanted: Sequence[Any],
    positions: Positions,
    loss: Union[bool, str],
    top_logits: int,
    answers: Answers,
    dictionaries: Sequence[Any],
    hooks: Union[str, Sequence[str]],
    prepend_bos: Optional[bool],
    boosts: int,
    min_logprob: float,
    boost_tokens: Sequence[int],
) -> Union[Run, List[Run]]:
    """Model.run."""
    request, several = _run_request.build(
        model,
        prompts,
        wanted,
        positions,
        loss,
        top_logits,
        answers,
        dictionaries,
        hooks,
        prepend_bos,
        boosts,
        min_logprob,
        boost_tokens,
    )
    header, arrays, provenance = _answers.ask(
        model._client, "Run", request, model.name, _tensors_of
    )
    read = _Reader(
        header, arrays, provenance, positions is None, loss == "mean"
    )
    full_names = [values.hook for values in header.activations]
    aliases = dict(zip(request.hooks, full_names))
    clean = read.variant(0)
    runs = [
        Run(
            read.variant(number) if number else clean,
            clean,
            read.positions,
            list(request.dictionaries),
            full_names,
            aliases,
            read.boosts(number - 1) if number else None,
            provenance,
        )
        for number in (range(1, header.variants) or [0])
    ]
    return runs if several else runs[0]


def _tensors_of(header: Any) -> List[Any]:
    tensors: List[Any] = [getattr(header, name) for name in _READOUT]
    for rows in header.features:
        tensors += _tensors.of_sparse_rows(rows)
    tensors += [values.values for values in header.activations]
    if header.HasField("boost"):
        tensors += [getattr(header, name) for name in _BOOSTS]
    return tensors + [header.prompt, header.position]


class _Reader:
    """Cuts an answer's arrays, which hold all variants and prompts."""

    def __init__(
        self,
        header: Any,
        arrays: List[Any],
        provenance: Provenance,
        cut: bool,
        mean: bool,
    ) -> None:
        if not header.variants:
            raise DataLoss("the answer has no run")
        left = iter(arrays)
        self._cut = cut
        self._mean = mean
        self._readout = [next(left) for _ in _READOUT]
        self._features = [
            _tensors.to_csr(next(left), next(left), next(left), rows.columns)
            for rows in header.features
        ]
        values = [next(left) for _ in header.activations]
        self._boosts: List[Any] = []
        if header.HasField("boost"):
            self._boosts = [next(left) for _ in _BOOSTS]
        prompt, position = left
        tokens = [len(ids) for ids in provenance.token_ids]
        counts = np.bincount(prompt, minlength=len(tokens))
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        self.positions = np.split(position, self._ends[1:-1])
        self._activations = [
            self._cut_values(array, list(field.shape), counts, tokens, header)
            for array, field in zip(values, header.activations)
        ]

    @staticmethod
    def _cut_values(
        array: NDArray[np.float32],
        shape: List[int],
        counts: NDArray[Any],
        tokens: List[int],
        header: Any,
    ) -> List[List[NDArray[np.float32]]]:
        shapes = [
            [rows, *(length if size < 0 else size for size in shape)]
            for rows, length in zip(counts, tokens)
        ]
        sizes = [int(np.prod(one)) for one in shapes] * header.variants
        if sum(sizes) != len(array):
            raise DataLoss("activations of another size than their shape's")
        parts = np.split(array, np.cumsum(sizes)[:-1])
        return [
            [
                part.reshape(one)
                for part, one in zip(parts[i : i + len(shapes)], shapes)
            ]
            for i in range(0, len(parts), len(shapes))
        ]

    def boosts(self, number: int) -> Optional[Boosts]:
        if not self._boosts:
            return None
        return Boosts(*(array[number] for array in self._boosts))

    def variant(self, number: int) -> List[_Shown]:
        return [
            self._shown(number, prompt) for prompt in range(len(self.positions))
        ]

    def _shown(self, number: int, prompt: int) -> _Shown:
        begin, end = self._ends[prompt], self._ends[prompt + 1]
        losses, *others = (array[number] for array in self._readout)
        logprob, rank, tokens, logits = (array[begin:end] for array in others)
        rows = len(self._features) and self._ends[-1] * number
        features = [csr[rows + begin : rows + end] for csr in self._features]
        activations = [values[number][prompt] for values in self._activations]
        if logprob.shape[1:] == (1,):
            logprob, rank = logprob[:, 0], rank[:, 0]
        if self._mean:
            loss = losses[prompt]
        else:
            loss = losses[begin:end]
            if self._cut:  # the last token predicts nothing
                loss = loss[:-1]
                if len(logprob) and np.isnan(logprob[-1]).all():
                    logprob, rank = logprob[:-1], rank[:-1]
        top = Top(tokens, logits)
        return _Shown(loss, logprob, rank, top, features, activations)


def _first(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 1 else values[:, 0]
