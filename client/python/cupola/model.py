"""A model of the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _answers, _protos, _requests, attribution, means, weights
from ._requests import Positions, Prompts
from ._run_request import Answers
from ._tokens import Tokens
from .attribution import Attribution, LogitLens, PromptTokens
from .errors import DataLoss, InvalidArgument
from .generation import Generation, TokenStream, generate
from .info import HookPoint, ModelInfo
from .interventions import dictionary_name
from .results import Activations
from .run import Run, run

if TYPE_CHECKING:
    from .client import Client
    from .dictionary import Dictionary


class Model:
    """A handle: holds no weights, and stays good when the server drops them.

    From `Client.model`. `info` is how the model was described then.
    """

    def __init__(
        self, client: Client, info: ModelInfo, processing: Optional[str]
    ) -> None:
        _requests.processing_code(processing)
        self._client = client
        self.info = info
        self.processing = processing

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def hook_points(self) -> Sequence[HookPoint]:
        return self.info.hook_points

    def tokenize(
        self, prompts: Prompts, prepend_bos: Optional[bool] = None
    ) -> List[List[int]]:
        """The token ids of each prompt. `prepend_bos` None: the model's way."""
        answer = self._tokenize(prompts, prepend_bos)
        return [list(tokens.ids) for tokens in answer.prompts]

    def str_tokens(
        self, prompts: Prompts, prepend_bos: Optional[bool] = None
    ) -> List[List[str]]:
        """Each prompt's tokens as strings. Bytes that are not UTF-8 by
        themselves show as U+FFFD."""
        answer = self._tokenize(prompts, prepend_bos)
        return [
            [piece.decode("utf-8", "replace") for piece in tokens.pieces]
            for tokens in answer.prompts
        ]

    def single_token(self, text: str) -> int:
        """The id of a text that is exactly one token, without BOS."""
        if not isinstance(text, str):
            raise InvalidArgument(
                f"text: expected a string, got {type(text).__name__}"
            )
        (tokens,) = self._tokenize(text, prepend_bos=False).prompts
        if len(tokens.ids) != 1:
            pieces = [p.decode("utf-8", "replace") for p in tokens.pieces]
            raise InvalidArgument(
                f"text: {text!r} is {len(tokens.ids)} tokens, not one: {pieces}"
            )
        return int(tokens.ids[0])

    def activations(
        self,
        prompts: Prompts,
        hooks: Union[str, Sequence[str]],
        positions: Positions = None,
        dtype: Any = "float32",
        *,
        prepend_bos: Optional[bool] = None,
    ) -> Activations:
        """The activations at `hooks`: ``acts[hook][prompt]``.

        `dtype` is that of the transfer: "float32", "bfloat16" (half the bytes;
        arrives as float32) or "float16".
        """
        hooks = [hooks] if isinstance(hooks, str) else list(hooks)
        request = _protos.analysis.ActivationsRequest(
            model=self.name,
            prompts=_requests.prompts_message(prompts, prepend_bos),
            hooks=hooks,
            positions=_requests.positions_message(positions),
            processing=_requests.processing_code(self.processing),
            dtype=_requests.answer_dtype_code(dtype),
        )
        header, arrays, provenance = _answers.ask(
            self._client,
            "GetActivations",
            request,
            self.name,
            lambda header: [
                *(tensor for hook in header.hooks for tensor in hook.prompts),
                *header.positions,
            ],
        )
        if len(header.hooks) != len(hooks):
            raise DataLoss(
                f"asked for {len(hooks)} hooks, got {len(header.hooks)}"
            )
        remaining = iter(arrays)
        return Activations(
            arrays={
                hook.name: [next(remaining) for _ in hook.prompts]
                for hook in header.hooks
            },
            positions=list(remaining),
            # The answer lists the hooks in the order they were asked for.
            aliases={
                asked: hook.name for asked, hook in zip(hooks, header.hooks)
            },
            provenance=provenance,
        )

    def run(
        self,
        prompts: Prompts,
        interventions: Sequence[Any] = (),
        positions: Positions = None,
        loss: Union[bool, str] = True,
        top_logits: int = 0,
        answers: Answers = None,
        dictionaries: Sequence[Any] = (),
        hooks: Union[str, Sequence[str]] = (),
        *,
        boosts: int = 0,
        min_logprob: float = -9.0,
        boost_tokens: Sequence[int] = (),
        prepend_bos: Optional[bool] = None,
    ) -> Union[Run, List[Run]]:
        """Runs the prompts with interventions (cupola.Zero, cupola.Add, ...),
        and without; reads loss, log-probability and rank of `answers` (None:
        the token that comes next), the largest logits, the latents of
        `dictionaries` and the values of `hooks` at `positions`.

        A list of lists is a list of intervention sets, each run by itself, and
        gives one Run per set. `loss` "mean": one loss per prompt, the mean over
        its positions.

        `boosts`: so many tokens that the interventions cost most
        log-probability, and as many that gain most, in the mean over the
        prompts, at one position of each. Tokens whose mean clean
        log-probability is below `min_logprob`, and others than `boost_tokens`
        where these are given, count as unchanged.
        """
        return run(
            self,
            prompts,
            interventions,
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

    def generate(
        self,
        prompts: Prompts,
        max_new_tokens: int = 32,
        interventions: Sequence[Any] = (),
        temperature: float = 0.0,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        seed: int = 0,
        stop: Optional[Tokens] = None,
        top_logprobs: int = 0,
        samples: int = 1,
        stream: bool = False,
        *,
        prepend_bos: Optional[bool] = None,
    ) -> Union[Generation, TokenStream]:
        """Continues each prompt, with interventions active on the prompt and on
        what is generated (their `scope` narrows that).

        `temperature` 0 takes the most probable token each time; above, tokens
        are drawn: logits divided by it, then only the `top_k` largest, then the
        most probable ones that have `top_p` together, as transformers does it.
        The same seed and prompt give the same `samples` texts. A text ends
        behind a token of `stop` (None: the model's own end of text; []: none).
        `top_logprobs`: so many of the most probable tokens beside each.

        `stream` True gives the tokens one by one as they come (all prompts'
        together); leaving the loop stops the server's work.
        """
        return generate(
            self,
            prompts,
            max_new_tokens,
            interventions,
            temperature,
            top_k,
            top_p,
            seed,
            stop,
            top_logprobs,
            samples,
            stream,
            prepend_bos,
        )

    def mean_activation(
        self,
        prompts: Prompts,
        hook: str,
        positions: Positions = None,
        name: Optional[str] = None,
        *,
        prepend_bos: Optional[bool] = None,
    ) -> means.MeanActivation:
        """The mean of `hook` over all `positions` of all prompts.

        `name` stores it on the server for interventions to use:
        ``cupola.Mean(hook, name)``, or as any `value`. It stays until it is
        stored again or deleted; one name may stand for a mean of each of
        several hook points.
        """
        return means.mean_activation(
            self, prompts, hook, positions, name, prepend_bos
        )

    def means(self) -> List[means.StoredMean]:
        """The means that the server keeps of this model, in all processings."""
        return means.means(self)

    def delete_mean(self, name: str, hook: str) -> None:
        """Deletes a stored mean of this model in this handle's processing;
        NotFound where there is none."""
        means.delete_mean(self, name, hook)

    def attribute(
        self,
        prompts: Prompts,
        tokens: Optional[PromptTokens] = None,
        incorrect: Optional[PromptTokens] = None,
        *,
        latents: Union[None, int, Sequence[int]] = None,
        vectors: Optional[ArrayLike] = None,
        inactive: Optional[ArrayLike] = None,
        reference: Optional[Prompts] = None,
        reference_positions: Positions = None,
        dictionary: Union[None, str, Dictionary] = None,
        level: str = "layers",
        layer: Optional[int] = None,
        mlp_input: bool = False,
        apply_norm: bool = False,
        gain: bool = True,
        split_dictionary: Any = False,
        positions: Positions = None,
        mean: bool = False,
        prepend_bos: Optional[bool] = None,
    ) -> Attribution:
        """What each component of the residual adds to logits of `tokens` (or
        to their differences to `incorrect`), to the pre-activations of a
        dictionary's `latents`, or to directions `vectors` [n, d_model]; with
        none of them the components themselves. `tokens` are the same for all
        prompts, or a list of lists: each prompt's own.

        `level`: "layers" (attention and MLP of each layer), "heads" or
        "neurons", in TransformerLens' row order. `layer` and `mlp_input` take
        the residual entering a layer, or its MLP, instead of the last one;
        `apply_norm` then gives components as the norm there sees them.
        `split_dictionary`: the component at a dictionary's output point is
        told as its reconstruction and its error; a dictionary, several, or
        True for `dictionary`. `mean`: over all rows.
        The components of latents on attn.hook_z are the prompt's positions,
        through the attention pattern, or with level "heads" the heads. For
        latents on mlp.hook_post neurons that do not fire count as zero, as the
        mean of each component over `reference` prompts (over the
        `reference_positions` of each, and then over them), or as `inactive`
        [components, d_mlp].
        `gain` False leaves the final norm's gain out in raw processing, as
        TransformerLens does; the components then do not sum to the logit.
        """
        if isinstance(dictionary, str):
            dictionary = self._client.dictionary(dictionary)
        return attribution.attribute(
            self,
            prompts,
            tokens,
            incorrect,
            dictionary,
            latents,  # type: ignore[arg-type]
            vectors,
            inactive,
            reference,
            reference_positions,
            self._splits(split_dictionary, dictionary),
            level,
            layer,
            gain,
            positions,
            prepend_bos,
            mlp_input=mlp_input,
            apply_norm=apply_norm,
            mean=mean,
        )

    @staticmethod
    def _splits(wanted: Any, dictionary: Optional[Dictionary]) -> List[str]:
        """The names of the dictionaries that `split_dictionary` means."""
        if wanted is None or wanted is False:
            return []
        if wanted is True:
            if dictionary is None:
                raise InvalidArgument(
                    "split_dictionary: True means `dictionary`; it is not given"
                )
            wanted = dictionary
        one = isinstance(wanted, str) or hasattr(wanted, "name")
        several = [wanted] if one else list(wanted)
        return [dictionary_name(item) for item in several]

    def logit_lens(
        self,
        prompts: Prompts,
        tokens: Optional[Tokens] = None,
        top: int = 5,
        *,
        mids: bool = False,
        positions: Positions = None,
        prepend_bos: Optional[bool] = None,
    ) -> LogitLens:
        """What the model would predict if it ended at the residual entering
        each layer (`mids`: also between attention and MLP): the `top` tokens,
        and the logit, log-probability and rank of `tokens`."""
        return attribution.logit_lens(
            self, prompts, tokens, top, mids, positions, prepend_bos
        )

    def weight(
        self,
        name: str,
        rows: weights.Indices = None,
        columns: weights.Indices = None,
    ) -> NDArray[np.float32]:
        """A weight under its TransformerLens name and in its shape:
        "blocks.3.mlp.W_in", "blocks.0.attn.W_Q" [n_heads, d_model, d_head],
        "W_U", ...

        `rows` select from the first axis, `columns` from the last one; an axis
        selected by a single integer is dropped.
        """
        return weights.fetch(
            self._client,
            self.name,
            rows,
            columns,
            model=self.name,
            name=name,
            processing=_requests.processing_code(self.processing),
        )

    def _tokenize(self, prompts: Prompts, prepend_bos: Optional[bool]) -> Any:
        connection = self._client._connection
        request = _protos.analysis.TokenizeRequest(
            model=self.name,
            prompts=_requests.prompts_message(prompts, prepend_bos),
        )
        return connection.unary(
            connection.analysis.Tokenize, request, self.name
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, processing={self.processing!r})"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()
