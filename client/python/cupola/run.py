"""A model's output under interventions, beside the clean one."""

from __future__ import annotations

import time
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from . import _protos, _requests, _tokens, interventions
from ._requests import Positions, Prompts
from .errors import DataLoss, InvalidArgument
from .results import Answer, Provenance

if TYPE_CHECKING:
    import pandas

    from .model import Model

T = TypeVar("T")
# One token for every prompt, or for each prompt one or several: ids or texts
# that are one token.
Answers = Union[None, int, str, Sequence[Any]]
_TENSORS_OF_SHOWN = ("loss", "logprob", "rank", "top_tokens", "top_logits")


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
        provenance: Provenance,
    ) -> None:
        def beside(field: str) -> Beside[Any]:
            return Beside(
                [getattr(item, field) for item in shown],
                [getattr(item, field) for item in clean],
            )

        # [positions]: of predicting the next token; without given positions the
        # last token, which predicts none, is left out.
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
        losses = [np.concatenate(self.loss.clean), np.concatenate(self.loss)]
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
    loss: bool,
    top_logits: int,
    answers: Answers,
    dictionaries: Sequence[Any],
    hooks: Union[str, Sequence[str]],
    prepend_bos: Optional[bool],
) -> Union[Run, List[Run]]:
    """Model.run."""
    sets, several = _sets(wanted)
    hooks = [hooks] if isinstance(hooks, str) else list(hooks)
    if isinstance(dictionaries, str) or hasattr(dictionaries, "name"):
        dictionaries = [dictionaries]
    names = [interventions.dictionary_name(item) for item in dictionaries]
    (top,) = _requests.unsigned([top_logits], "top_logits")
    request = _protos.run.RunRequest(
        model=model.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        sets=_set_messages(sets),
        processing=_requests.processing_code(model.processing),
        output=bool(loss),
        top_logits=top,
        dictionaries=names,
        hooks=hooks,
    )
    if prepend_bos is not None:
        _tokenize_sources_alike(request, prepend_bos)
    selection = _requests.positions_message(positions)
    if selection is not None:
        request.positions.CopyFrom(selection)
    count = len(request.prompts.prompts)
    request.answers.extend(
        answers_messages(model._client, model.name, prompts, count, answers)
    )
    connection = model._client._connection
    start = time.perf_counter()
    header, arrays = connection.stream(
        connection.analysis.Run, request, model.name, _tensors_of
    )
    provenance = Provenance.from_message(
        header.provenance, time.perf_counter() - start
    )
    variants, where = _variants(header, arrays, cut=positions is None)
    aliases = dict(zip(hooks, header.hooks))
    runs = [
        Run(
            variant,
            variants[0],
            where,
            names,
            list(header.hooks),
            aliases,
            provenance,
        )
        for variant in (variants[1:] or variants)
    ]
    return runs if several else runs[0]


def _tokenize_sources_alike(request: Any, prepend_bos: bool) -> None:
    """A patch's text gets a BOS where the prompts get one: else its positions
    would not be theirs."""
    for one in request.sets:
        for intervention in one.interventions:
            if not intervention.HasField("patch"):
                continue
            source = intervention.patch.source
            if any(prompt.HasField("text") for prompt in source.prompts):
                source.prepend_bos = prepend_bos


def answers_messages(
    client: Any, model: str, prompts: Prompts, count: int, answers: Answers
) -> List[_protos.common.TokenIds]:
    """One list of ids per prompt; none: the token that comes next."""
    if answers is None:
        return []
    if isinstance(answers, str) or _requests.is_int(answers):
        ids = _tokens.token_ids(client, model, answers, "answers")  # type: ignore[arg-type]
        return [_protos.common.TokenIds(ids=ids)] * count
    entries = list(answers)  # type: ignore[arg-type]
    if isinstance(prompts, str):  # the answers are all of this prompt
        return [
            _protos.common.TokenIds(
                ids=_tokens.token_ids(client, model, entries, "answers")
            )
        ]
    if len(entries) != count:
        raise InvalidArgument(
            f"answers: {len(entries)} for {count} prompts; expected one answer, "
            "or for each prompt one or a list"
        )
    return [
        _protos.common.TokenIds(
            ids=_tokens.token_ids(client, model, entry, f"answers[{i}]")
        )
        for i, entry in enumerate(entries)
    ]


def _sets(wanted: Sequence[Any]) -> Tuple[List[List[Any]], bool]:
    """The sets, and whether they came as a list of lists."""
    if hasattr(wanted, "positions"):  # one intervention by itself
        return [[wanted]], False
    entries = list(wanted)
    nested = [isinstance(entry, (list, tuple)) for entry in entries]
    if any(nested):
        if not all(nested):
            raise InvalidArgument(
                "interventions: expected interventions or lists of them, not "
                "both"
            )
        return [list(entry) for entry in entries], True
    return ([entries] if entries else []), False


def _set_messages(sets: List[List[Any]]) -> List[_protos.run.InterventionSet]:
    messages = []
    for s, entries in enumerate(sets):
        place = f"interventions[{s}]" if len(sets) > 1 else "interventions"
        messages.append(
            _protos.run.InterventionSet(
                interventions=[
                    interventions.message_of(entry, f"{place}[{i}]")
                    for i, entry in enumerate(entries)
                ]
            )
        )
    return messages


def _tensors_of(header: Any) -> List[Any]:
    tensors: List[Any] = []
    for variant in header.variants:
        for shown in variant.prompts:
            tensors += [getattr(shown, name) for name in _TENSORS_OF_SHOWN]
            for rows in shown.features:
                tensors += [rows.indptr, rows.indices, rows.values]
            tensors += shown.activations
    return tensors + list(header.positions)


def _variants(
    header: Any, arrays: List[Any], cut: bool
) -> Tuple[List[List[_Shown]], List[NDArray[np.int32]]]:
    if any(array is None for array in arrays) or not header.variants:
        raise DataLoss("the answer lacks a tensor")
    left = iter(arrays)
    variants = []
    for variant in header.variants:
        prompts = []
        for shown in variant.prompts:
            loss, logprob, rank, tokens, logits = (next(left) for _ in range(5))
            features = [
                _csr(next(left), next(left), next(left), rows.columns)
                for rows in shown.features
            ]
            activations = [next(left) for _ in shown.activations]
            if logprob.shape[1] == 1:
                logprob, rank = logprob[:, 0], rank[:, 0]
            if cut:  # the last token predicts nothing
                loss = loss[:-1]
                if len(logprob) and np.isnan(logprob[-1]).all():
                    logprob, rank = logprob[:-1], rank[:-1]
            prompts.append(
                _Shown(
                    loss,
                    logprob,
                    rank,
                    Top(tokens, logits),
                    features,
                    activations,
                )
            )
        variants.append(prompts)
    return variants, list(left)


def _csr(indptr: Any, indices: Any, values: Any, columns: int) -> Any:
    return csr_matrix(
        (values, indices.astype(np.int32, copy=False), indptr),
        shape=(len(indptr) - 1, columns),
    )


def _first(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 1 else values[:, 0]
