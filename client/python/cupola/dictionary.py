"""A dictionary of the server's: an SAE, a transcoder or half of a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from . import _answers, _protos, _requests, _tensors, feature_statistics
from ._requests import Positions, Prompts
from .ablation import Ablation, ablate, ablation_table
from .datasets import DatasetRows
from .errors import InvalidArgument
from .features import Features, csr_rows
from .directions import DirectionAblation, Samples, Sweep, sweep
from .directions import ablate as ablate_directions
from .info import DictionaryInfo
from .jacobian import Jacobian, jacobian, mlp, sandwich
from .jobs import Job, accumulate
from .quality import Quality, quality
from .results import Reconstruction
from .run import Answers
from .weights import Indices, Weights, fetch

if TYPE_CHECKING:
    import pandas

    from .client import Client

# float32 [n, d_in] at the hook point, or latents to decode first.
Inputs = Union[ArrayLike, Features]


class Dictionary:
    """A handle: holds no weights, and stays good when the server drops them.

    From `Client.dictionary` or a `Pair`. `info` is how the dictionary was
    described then; for half of a pair it is the pair's. `processing` None
    means what the dictionary declares.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        info: DictionaryInfo,
        processing: Optional[str],
    ) -> None:
        _requests.processing_code(processing)
        self._client = client
        self.name = name
        self.info = info
        self.processing = processing

    def statistics(
        self,
        prompts: Union[Prompts, DatasetRows],
        positions: Positions = None,
        top_k: int = 20,
        *,
        distinct_rows: bool = True,
        per_stratum: int = 5,
        octaves: Optional[Tuple[int, int]] = None,
        bins_per_octave: int = 4,
        prepend_bos: Optional[bool] = None,
        chunk_tokens: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job: one pass over `prompts`, or over rows of a dataset
        (`Dataset.select`), that counts and averages every latent, and keeps its
        `top_k` strongest contexts (`distinct_rows`: of each row its best one
        only), a histogram (`bins_per_octave` bins in each of so many octaves
        from 2^first on: `octaves=(first, number)`) and, for examples of weaker
        activations, `per_stratum` tokens of each of some ten strata. The result
        is a FeatureStatistics. `name=`, `shard=(i, n)` and `keep=`: see
        Client.submit."""
        return feature_statistics.submit(
            self,
            prompts,
            positions,
            top_k,
            distinct_rows,
            per_stratum,
            octaves,
            bins_per_octave,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def features(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        latents: Union[None, int, Sequence[int]] = None,
        top_k: Optional[int] = None,
        min_activation: float = 0.0,
        *,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
    ) -> Features:
        """The latents' activations on `prompts` (or on `inputs`).

        Keeps those above `min_activation`; with `latents` only of these, with
        `top_k` at most so many per token, the largest (the lowest index wins
        ties).
        """
        request = _protos.analysis.FeaturesRequest(
            dictionary=self.name,
            top_k=_top_k(top_k),
            min_activation=float(min_activation),
        )
        if latents is not None:
            request.latents.extend(_latents(latents))
        self._set_source(request, prompts, positions, inputs, prepend_bos)
        header, arrays, provenance = _answers.ask(
            self._client,
            "GetFeatures",
            request,
            self.info.model,
            lambda header: [
                *_tensors.of_sparse_rows(header.features),
                header.prompt,
                header.position,
            ],
            required=3,
        )
        indptr, indices, values, prompt, position = arrays
        csr = _tensors.to_csr(
            indptr, indices, values, header.features.columns
        )
        return Features(
            csr,
            _or_rows(prompt, np.zeros(len(indptr) - 1, np.int32)),
            _or_rows(position, np.arange(len(indptr) - 1, dtype=np.int32)),
            provenance,
            lambda ids: self._client._token_strings(provenance, ids),
        )

    def encode(self, inputs: Inputs) -> Features:
        """The latents' activations on rows at the dictionary's hook point."""
        return self.features(inputs=inputs)

    def decode(
        self, features: Union[Features, ArrayLike, csr_matrix]
    ) -> NDArray[np.float32]:
        """What the latents stand for: float32 [n, d_out].

        Takes Features, a scipy sparse matrix or a dense array [n, d_sae].
        Refused for a skip transcoder, whose output also needs its input.
        """
        csr = csr_rows(features, self._loaded_info().d_sae)
        request = _protos.analysis.ReconstructRequest(
            dictionary=self.name,
            features=_protos.common.SparseRows(
                indptr=_tensors.to_tensor(csr.indptr.astype(np.int64)),
                indices=_tensors.to_tensor(csr.indices.astype(np.uint32)),
                values=_tensors.to_tensor(csr.data),
                columns=csr.shape[1],
            ),
        )
        return self._reconstruct(request).reconstruction

    def reconstruct(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        *,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
    ) -> Reconstruction:
        """The dictionary's output beside what it should be, with FVU and L0."""
        request = _protos.analysis.ReconstructRequest(dictionary=self.name)
        self._set_source(request, prompts, positions, inputs, prepend_bos)
        return self._reconstruct(request)

    def ablate(
        self,
        prompts: Prompts,
        latents: Union[None, int, Sequence[int]] = None,
        position: Positions = -2,
        mode: str = "subtract",
        answers: Answers = None,
        *,
        later: bool = False,
        together: bool = False,
        targets: Any = None,
        prepend_bos: Optional[bool] = None,
    ) -> Ablation:
        """Takes latents away one at a time at `position` (one or several per
        prompt, each a row of its own) and reads the model's output there: the
        loss of the token that follows, and log-probability and rank of
        `answers` (None: that token).

        `latents` None: all that are active there. Mode "subtract" takes the
        latent's contribution away and leaves the dictionary's error;
        "reconstruct" puts the reconstruction without the latent in its place.

        `position` None, or `together` for given ones: a latent is taken away at
        all of the prompt's positions at once; the loss is then the mean over
        the prompt, log-probability and rank those at its last token but one.
        `later` also reads the losses of all later tokens. `targets` instead of
        `latents` and `position`: each latent at its own position, as rows of
        (prompt, position, latent) or a table with these columns, such as
        ``features.to_dataframe().sample(64)``.
        """
        return ablate(
            self,
            prompts,
            latents,
            position,
            mode,
            answers,
            prepend_bos,
            later,
            together,
            targets,
        )

    def ablation_table(
        self,
        prompts: Prompts,
        position: Positions = -2,
        *,
        active_above: float = 0.1,
        share_of_max: float = 0.17,
        min_share: float = 0.05,
        mean_prompts: int = 1000,
        max_latents: int = 100,
        prompts_per_latent: int = 200,
        ablate_with_bos: Optional[bool] = None,
        prepend_bos: Optional[bool] = None,
    ) -> pandas.DataFrame:
        """Which latents matter at `position` of many prompts: a row per latent,
        by falling loss increase.

        A latent's `mean_activation` is over those of the first `mean_prompts`
        prompts where it exceeds `share_of_max` of its largest activation on any
        token but the last, `share_active` their share; below `min_share` it is
        left out. The `max_latents` of the largest means are ablated in the
        first `prompts_per_latent` prompts where they exceed `active_above`
        (`prompts` tells how many): `loss_increase` without the latent's
        contribution, `loss_increase_encoded` under the reconstruction without
        the latent; both over the clean loss. `ablate_with_bos`: whether the
        ablated texts begin with BOS, if not as `prepend_bos` says (published
        tables take activations with it, and ablate without).
        """
        return ablation_table(
            self,
            prompts,
            position,
            prepend_bos,
            active_above=active_above,
            share_of_max=share_of_max,
            min_share=min_share,
            mean_prompts=mean_prompts,
            max_latents=max_latents,
            prompts_per_latent=prompts_per_latent,
            ablate_with_bos=ablate_with_bos,
        )

    def quality(
        self,
        prompts: Prompts,
        positions: Positions = None,
        *,
        score_every: bool = False,
        prepend_bos: Optional[bool] = None,
    ) -> Quality:
        """What the language model loses when the dictionary's reconstruction
        replaces the activation at `positions`: its loss as it is, with the
        activation zeroed and with the reconstruction; loss recovered; FVU, L0.

        The losses are those of the selected positions' next tokens, or with
        `score_every` of all.
        """
        return quality(self, prompts, positions, score_every, prepend_bos)

    @property
    def weights(self) -> Weights:
        """What the weights say of the latents, without any prompt."""
        return Weights(self)

    def weight(
        self, name: str, rows: Indices = None, columns: Indices = None
    ) -> NDArray[np.float32]:
        """A tensor under its SAELens name and in its shape: "W_dec" [d_sae,
        d_out], "W_enc" [d_in, d_sae], "b_enc", "threshold", ..., as the server
        computes with it (norms and scalings folded in).

        `rows` select from the first axis, `columns` from the last one; an axis
        selected by a single integer is dropped.
        """
        return fetch(
            self._client,
            self.info.model,
            rows,
            columns,
            dictionary=self.name,
            name=name,
        )

    def _loaded_info(self) -> DictionaryInfo:
        """`info` with its sizes, which are zero until the server has opened
        the dictionary's files."""
        if not self.info.d_in:
            info = self._client.load(self.info.name)
            assert isinstance(info, DictionaryInfo)
            self.info = info
        return self.info

    def _set_source(
        self,
        request: Any,
        prompts: Optional[Prompts],
        positions: Positions,
        inputs: Optional[Inputs],
        prepend_bos: Optional[bool],
    ) -> None:
        if (prompts is None) == (inputs is None):
            raise InvalidArgument("expected either prompts or inputs")
        if inputs is not None:
            if positions is not None or prepend_bos is not None:
                raise InvalidArgument(
                    "positions and prepend_bos go with prompts, not with inputs"
                )
            if isinstance(inputs, Features):
                inputs = self.decode(inputs)
            rows = _tensors.to_rows(inputs, self._loaded_info().d_in)
            request.inputs.CopyFrom(_tensors.to_tensor(rows))
            return
        assert prompts is not None
        request.prompts.CopyFrom(
            _requests.prompts_message(prompts, prepend_bos)
        )
        selection = _requests.positions_message(positions)
        if selection is not None:
            request.positions.CopyFrom(selection)
        request.processing = _requests.processing_code(self.processing)

    def _reconstruct(self, request: Any) -> Reconstruction:
        header, arrays, provenance = _answers.ask(
            self._client,
            "Reconstruct",
            request,
            self.info.model,
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

    def __repr__(self) -> str:
        return f"Dictionary({self.name!r}, processing={self.processing!r})"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()


class Pair:
    """A Jacobian SAE pair: a dictionary before an MLP and one after it."""

    def __init__(self, input: Dictionary, output: Dictionary) -> None:
        self.input = input
        self.output = output

    def jacobian(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        mlp_input: str = "original",
        block: str = "active",
        min_abs: float = 0.0,
        *,
        top: Optional[int] = None,
        mask: str = "slots",
        second_order: bool = False,
        mlp_output: bool = False,
        gradients: bool = False,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
        mode: str = "full",
        source_positions: Union[Positions, str] = None,
    ) -> Jacobian:
        """The derivative of the output latents by the input latents, token by
        token: around an MLP of a -> encode_out(mlp(c + a W_dec)) at the clean
        activations.

        The dictionaries may stand at any two hook points of the model, the
        input not after the output: then the tensor at the input's hook point
        moves along decoder rows, and everything between answers ("full"), or
        all but attention patterns and norm scales ("frozen"). `positions` are
        the output latents'; the input latents are at the same ones, or at every
        one of `source_positions` (as positions; "all": up to the output's), a
        row of the answer for each, zero where a source is behind its output.

        The MLP is evaluated at the "original" activation or at the input
        dictionary's "reconstruction" of it. `block` "active" gives the active
        latents' block, with entries below `min_abs` zero; "all" gives the
        output latents' rows against every input latent, active or not: entries
        of at least `min_abs`, of each row the `top` largest. `mask` "slots"
        takes all k slots of a TopK dictionary, "positive" those above 0.
        `inputs` are rows at the input dictionary's hook point, instead of
        prompts.
        """
        return jacobian(
            self,
            prompts,
            positions,
            mlp_input,
            block,
            min_abs,
            top,
            mask,
            second_order,
            mlp_output,
            gradients,
            inputs,
            prepend_bos,
            mode,
            source_positions,
        )

    def accumulate(
        self,
        prompts: Union[Prompts, DatasetRows],
        positions: Positions = None,
        mlp_input: str = "original",
        block: str = "active",
        min_abs: float = 0.0,
        *,
        mask: str = "slots",
        dtype: str = "float32",
        bins: int = 110,
        histogram_end: float = 1.1,
        prepend_bos: Optional[bool] = None,
        chunk_tokens: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job: sum, maximum and count of |J| over all tokens of
        `prompts` for each pair of latents, and a histogram of all |J| > 0.

        The arguments up to `mask` are `jacobian`'s. `dtype` is that of the
        sums; the histogram has `bins` equal bins up to `histogram_end` and one
        behind. `job.watch()` tells how it gets on, `job.result()` waits for the
        numbers (a JacobianTotals); `client.job(id)` finds it again, also after
        a restart of either side. `prompts` may be rows of a dataset
        (`Dataset.select`). `name=`, `shard=(i, n)` and `keep=`: see
        Client.submit.
        """
        return accumulate(
            self,
            prompts,
            positions,
            mlp_input,
            block,
            min_abs,
            mask,
            dtype,
            bins,
            histogram_end,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def mlp(self, inputs: Inputs) -> NDArray[np.float32]:
        """The MLP itself: what it adds to the residual stream for rows at the
        input dictionary's hook point, float32 [n, d_model]."""
        return mlp(self, inputs)

    def sandwich(self, features: Inputs) -> Features:
        """The output latents of what the MLP makes of the input dictionary's
        reconstruction: encode_out(mlp(decode_in(features))). Arrays are rows at
        the input dictionary's hook point, as everywhere."""
        return sandwich(self, features)

    def ablate(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        samples: Optional[Samples] = None,
        *,
        deltas: Optional[ArrayLike] = None,
        step: str = "unit",
        draws: int = 32,
        seed: int = 0,
        on_line: Optional[float] = None,
        cluster_jacobian: Optional[float] = None,
        cluster_drop: Optional[float] = None,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
    ) -> DirectionAblation:
        """Subtracts input latents' decoder directions from the MLP's input and
        reads output latents, beside what the Jacobian foretells.

        `samples` are (row, input latent, output latent), with rows counting the
        selected tokens; None: `draws` pairs of each token's active latents, by
        `seed`. Step "unit" subtracts the direction once, "strength" times the
        latent's activation; `deltas` says how much of each sample. A sample is
        "on line" where |delta J + difference| < `on_line` (0.1), "cluster" where
        J < `cluster_jacobian` (0.05) and difference < `cluster_drop` (-0.5),
        else "outlier".
        """
        return ablate_directions(
            self,
            samples,
            deltas,
            draws,
            seed,
            step,
            {
                "on_line": on_line,
                "cluster_jacobian": cluster_jacobian,
                "cluster_drop": cluster_drop,
            },
            prompts=prompts,
            positions=positions,
            inputs=inputs,
            prepend_bos=prepend_bos,
        )

    def sweep(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        samples: Optional[Samples] = None,
        *,
        grid: Optional[ArrayLike] = None,
        points: int = 100,
        tolerance: float = 1e-2,
        published_classes: bool = False,
        curves: bool = False,
        draws: int = 1,
        seed: int = 0,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
    ) -> Sweep:
        """Output latents as functions of an input latent's strength, from 0 to
        max(5, strength + 1) in `points` steps, or at the strengths of `grid`.

        A curve is "linear", "JumpReLU" (a line outside a zero region, residuals
        below `tolerance`) or "other"; `published_classes` also calls a line
        without a zero region JumpReLU. `curves` brings the values too. Samples
        as in `ablate`.
        """
        return sweep(
            self,
            samples,
            draws,
            seed,
            grid,
            points,
            tolerance,
            published_classes,
            curves,
            prompts=prompts,
            positions=positions,
            inputs=inputs,
            prepend_bos=prepend_bos,
        )

    def __repr__(self) -> str:
        return f"Pair({self.input.name!r}, {self.output.name!r})"


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
