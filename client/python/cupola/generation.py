"""Texts that a model writes, token by token."""

from __future__ import annotations

import codecs
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from . import _html, _protos, _requests, _tokens, interventions
from ._requests import Prompts
from ._tokens import Tokens
from .errors import DataLoss, InvalidArgument
from .results import Answer, Provenance

if TYPE_CHECKING:
    import pandas

    from .model import Model

_FINISHES = {
    _protos.generate.GenerateResponse.LENGTH: "length",
    _protos.generate.GenerateResponse.STOP: "stop",
    _protos.generate.GenerateResponse.NO_NUMBERS: "no_numbers",
}


class Choice(NamedTuple):
    """A token that could come next."""

    id: int
    piece: bytes  # need not be valid UTF-8
    logprob: float

    @property
    def token(self) -> str:
        return self.piece.decode("utf-8", "replace")


class GeneratedToken(NamedTuple):
    """One token of one text. `text` is what it adds to the text's valid
    UTF-8: a character that takes several tokens comes with its last one."""

    prompt: int
    sample: int
    id: int
    piece: bytes
    logprob: float
    top: List[Choice]  # the most probable, descending
    text: str


class GeneratedText(NamedTuple):
    """One sample of one prompt."""

    text: str  # what follows the prompt, without the stop token
    token_ids: List[int]  # the stop token included
    tokens: List[str]
    logprobs: List[float]
    top: List[List[Choice]]  # by token
    finish: str  # "length", "stop", or "no_numbers": no logit was a number


class Generation(Answer):
    """What `Model.generate` wrote. Each field has one item per prompt; with
    several samples per prompt an item is the list of theirs:
    ``answer.text[0]``, or ``answer.text[0][2]``."""

    def __init__(
        self, samples: List[List[GeneratedText]], provenance: Provenance
    ) -> None:
        self.samples = samples  # [prompt][sample]
        self.provenance = provenance

    def _each(self, field: str) -> List[Any]:
        return [
            [getattr(one, field) for one in texts]
            if len(texts) > 1
            else getattr(texts[0], field)
            for texts in self.samples
        ]

    @property
    def text(self) -> List[Any]:
        """What follows each prompt."""
        return self._each("text")

    @property
    def token_ids(self) -> List[Any]:
        """The ids that were generated; a stop token is the last of them."""
        return self._each("token_ids")

    @property
    def tokens(self) -> List[Any]:
        return self._each("tokens")

    @property
    def logprobs(self) -> List[Any]:
        """Of each token, under the interventions, before temperature, top_k
        and top_p."""
        return self._each("logprobs")

    @property
    def top(self) -> List[Any]:
        """The most probable tokens at each step."""
        return self._each("top")

    @property
    def finish(self) -> List[Any]:
        """Why each text ended: "length" or "stop"."""
        return self._each("finish")

    @property
    def prompt_token_ids(self) -> List[List[int]]:
        """All ids of each prompt, BOS included."""
        return self.provenance.token_ids

    def to_dataframe(self) -> pandas.DataFrame:
        """One line per generated token; `position` is its index in the text,
        the prompt included."""
        import pandas

        rows = []
        for i, texts in enumerate(self.samples):
            start = len(self.prompt_token_ids[i])
            for sample, text in enumerate(texts):
                rows += [
                    (i, sample, start + step, token_id, token, logprob)
                    for step, (token_id, token, logprob) in enumerate(
                        zip(text.token_ids, text.tokens, text.logprobs)
                    )
                ]
        columns = "prompt sample position token_id token logprob".split()
        return pandas.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        lines = [f"Generation by {self.provenance.model}, {self._origin()}"]
        for i, texts in enumerate(self.samples):
            for sample, text in enumerate(texts):
                name = f"{i}" if len(texts) == 1 else f"{i}.{sample}"
                lines.append(f"  {name}: {text.text!r} ({text.finish})")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Each text, a token the stronger coloured the less it was expected."""
        parts = [f'<div class="cupola"><style>{_html.STYLE}</style>']
        for texts in self.samples:
            for text in texts:
                parts.append('<div class="text">')
                for token, logprob in zip(text.tokens, text.logprobs):
                    surprise = min(1.0, -logprob / 8)
                    parts.append(
                        f'<span class="t" style="--m:{surprise:.2f}" '
                        f'title="log-probability {logprob:.3f}">'
                        f"{_html.text(token)}</span>"
                    )
                parts.append(
                    f' <span class="dim">{_html.text(text.finish)}</span></div>'
                )
        parts.append(
            '<div class="foot dim">coloured: how little a token was expected '
            f"· {_html.text(self._origin())}</div></div>"
        )
        return "".join(parts)


class TokenStream:
    """The tokens of a generation as they come: iterate once. Leaving the loop
    early, `close`, or the end of a ``with`` block stops the server's work.
    `result` is there when all tokens have come."""

    def __init__(self, model: Model, request: Any) -> None:
        self._model = model
        self._request = request
        self._tokens: Optional[Iterator[GeneratedToken]] = None
        self._result: Optional[Generation] = None

    def __iter__(self) -> Iterator[GeneratedToken]:
        if self._tokens is not None:
            raise RuntimeError("a stream of tokens is iterated once")
        self._tokens = self._read()
        try:
            yield from self._tokens
        finally:
            self.close()

    @property
    def result(self) -> Generation:
        if self._result is None:
            raise RuntimeError("the stream has not come to its end")
        return self._result

    def close(self) -> None:
        if self._tokens is not None:
            self._tokens.close()  # type: ignore[attr-defined]

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Iterator[GeneratedToken]:
        connection = self._model._client._connection
        samples = max(1, self._request.samples)
        texts = [
            [_Growing() for _ in range(samples)]
            for _ in self._request.prompts.prompts
        ]
        start = time.perf_counter()
        end = None
        for message in connection.messages(
            connection.analysis.Generate, self._request, self._model.name
        ):
            for token in message.tokens:
                try:
                    growing = texts[token.prompt][token.sample]
                except IndexError:
                    raise DataLoss(
                        f"a token of text {token.prompt}.{token.sample}, which "
                        "was not asked for"
                    ) from None
                yield growing.add(token)
            if message.HasField("end"):
                end = message.end
        round_trip = time.perf_counter() - start
        if end is None or [len(p.samples) for p in end.prompts] != [
            samples
        ] * len(texts):
            raise DataLoss("the answer has no end")
        self._result = Generation(
            [
                [one.finish(told) for one, told in zip(mine, prompt.samples)]
                for mine, prompt in zip(texts, end.prompts)
            ],
            Provenance.from_message(end.provenance, round_trip),
        )


class _Growing:
    """A text while its tokens come."""

    def __init__(self) -> None:
        self._tokens: List[GeneratedToken] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, message: Any) -> GeneratedToken:
        chosen = message.chosen
        token = GeneratedToken(
            message.prompt,
            message.sample,
            chosen.id,
            chosen.piece,
            chosen.logprob,
            [Choice(top.id, top.piece, top.logprob) for top in message.top],
            self._decoder.decode(chosen.piece),
        )
        self._tokens.append(token)
        return token

    def finish(self, told: Any) -> GeneratedText:
        if told.tokens != len(self._tokens):
            raise DataLoss(
                f"{len(self._tokens)} tokens of a text of {told.tokens}"
            )
        return GeneratedText(
            told.text,
            [token.id for token in self._tokens],
            [token.piece.decode("utf-8", "replace") for token in self._tokens],
            [token.logprob for token in self._tokens],
            [token.top for token in self._tokens],
            _FINISHES.get(told.finish, "unknown"),
        )


def generate(
    model: Model,
    prompts: Prompts,
    max_new_tokens: int,
    changes: Sequence[Any],
    temperature: float,
    top_k: Optional[int],
    top_p: Optional[float],
    seed: int,
    stop: Optional[Tokens],
    top_logprobs: int,
    samples: int,
    stream: bool,
    prepend_bos: Optional[bool],
) -> Union[Generation, TokenStream]:
    """See Model.generate."""

    def count(value: Any, name: str) -> int:
        return _requests.unsigned([value], f"{name}:")[0]

    if not _requests.is_int(seed) or not 0 <= seed < 2**64:
        raise InvalidArgument(
            f"seed {seed!r}: expected an integer of at least 0 and below 2**64"
        )
    request = _protos.generate.GenerateRequest(
        model=model.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        interventions=[
            interventions.message_of(change, f"interventions[{i}]")
            for i, change in enumerate(changes)
        ],
        processing=_requests.processing_code(model.processing),
        max_new_tokens=count(max_new_tokens, "max_new_tokens"),
        temperature=float(temperature),
        top_k=count(top_k or 0, "top_k"),
        top_p=None if top_p is None else float(top_p),
        seed=seed,
        samples=count(samples, "samples"),
        top_logprobs=count(top_logprobs, "top_logprobs"),
    )
    if stop is not None:
        request.stop.SetInParent()  # an empty list is not "the model's own"
        request.stop.ids.extend(
            _tokens.token_ids(model._client, model.name, stop, "stop")
        )
    tokens = TokenStream(model, request)
    if stream:
        return tokens
    for _ in tokens:
        pass
    return tokens.result
