"""The message that asks for a run under interventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

from . import _protos, _requests, _tokens, interventions
from ._requests import Positions, Prompts
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .model import Model

# One token for every prompt, or for each prompt one or several: ids or texts
# that are one token.
Answers = Union[None, int, str, Sequence[Any]]


def build(
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
) -> Tuple[_protos.run.RunRequest, bool]:
    """The request, and whether several sets of interventions were asked for,
    as a list of lists."""
    if isinstance(loss, str) and loss != "mean":
        raise InvalidArgument(
            f"loss: expected True, False or 'mean', got {loss!r}"
        )
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
        mean_loss=loss == "mean",
        top_logits=top,
        dictionaries=names,
        hooks=hooks,
    )
    if boosts:
        (request.boosts.top,) = _requests.unsigned([boosts], "boosts:")
        request.boosts.min_logprob = float(min_logprob)
        request.boosts.tokens.extend(
            _requests.unsigned(list(boost_tokens), "boost_tokens:")
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
    return request, several


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
        ids = _tokens.token_ids(client, model, answers, "answers")
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
