"""A dictionary of the server's: an SAE, a transcoder or half of a pair."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from . import (
    _export_dictionary,
    _requests,
    _tensors,
    coactivation,
    direction_statistics,
    feature_statistics,
    matching,
    stores,
)
from ._requests import Positions, Prompts
from ._run_request import Answers
from .ablation import Ablation, ablate, ablation_table
from .datasets import DatasetRows
from .errors import InvalidArgument
from .features import Features
from .info import DictionaryInfo
from .jobs import Job
from .logit_weights import LogitWeights, logit_weights
from .quality import Quality, quality
from .readings import decode, features, reconstruct
from .results import Reconstruction
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
        others: Sequence[Union[str, Dictionary]] = (),
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
        activations, `per_stratum` tokens of each of some ten strata. `others`:
        more dictionaries of the same model, which one pass of the model is for.
        The result is a FeatureStatistics. `name=`, `shard=(i, n)` and `keep=`:
        see Client.submit."""
        return feature_statistics.submit(
            self,
            prompts,
            positions,
            top_k,
            [
                other if isinstance(other, str) else other.name
                for other in others
            ],
            distinct_rows,
            per_stratum,
            octaves,
            bins_per_octave,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def match(
        self,
        others: Sequence[Union[str, Dictionary]],
        prompts: Union[Prompts, DatasetRows],
        positions: Positions = None,
        *,
        min_activation: float = 0.0,
        dtype: Optional[str] = None,
        prepend_bos: Optional[bool] = None,
        chunk_tokens: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job: which of this dictionary's features are which of the
        others', by the cosines of their activations on the same tokens of
        `prompts`, or of rows of a dataset (`Dataset.select`).

        `others` are dictionaries or their names, in the order of training where
        they are checkpoints'; their models read the token ids that this one's
        tokenizer made. `dtype` is that of the products' sums, "float64" or
        "float32"; None: float64 where it fits (FeatureMatching.dtype tells). A
        processing that was chosen for this dictionary goes for all of them;
        else each has its own. The result is a FeatureMatching: the exact one-to-one assignment, matched fractions,
        appearing features, cosines. `name=`, `shard=(i, n)` and `keep=`: see
        Client.submit."""
        return matching.submit(
            self,
            others,
            prompts,
            positions,
            min_activation,
            dtype,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def coactivation(
        self,
        prompts: Union[Prompts, DatasetRows],
        positions: Positions = None,
        *,
        sample: Optional[int] = None,
        products: bool = True,
        prepend_bos: Optional[bool] = None,
        chunk_tokens: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job: which latents are active together on `prompts`, or on
        rows of a dataset (`Dataset.select`). The result is a Coactivation.

        `sample` 0 counts all pairs exactly, which takes 4 bytes a pair and 12
        with `products` of activations (for Pearson's correlation and the
        cosine); above 0 so many tokens of each latent are kept, from which
        pairs are estimated. None: exactly where that fits, else a sample of
        256. `name=`, `shard=(i, n)` and `keep=`: see Client.submit."""
        return coactivation.submit(
            self,
            prompts,
            positions,
            sample,
            products,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def store(
        self,
        prompts: Union[Prompts, DatasetRows],
        positions: Positions = None,
        *,
        min_activation: float = 0.0,
        prepend_bos: Optional[bool] = None,
        chunk_tokens: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job that keeps the features of `prompts`, or of rows of a
        dataset (`Dataset.select`), on the server's disk. The result is an
        ActivationStore. What is there already is not computed again, and
        `statistics` and `match` over the same tokens, with the same
        `chunk_tokens` and `min_activation`, read it. `name=`, `shard=(i, n)`
        and `keep=`: see Client.submit."""
        return stores.submit(
            self,
            prompts,
            positions,
            min_activation,
            prepend_bos,
            chunk_tokens,
            options,
        )

    def direction_statistics(
        self,
        prompts: Union[Prompts, DatasetRows],
        position: int = -2,
        *,
        ablate: Union[bool, Sequence[int]] = True,
        directions: Sequence[int] = (),
        losses: bool = True,
        attribution: Optional[str] = None,
        boost_rows: int = 0,
        active_above: float = 0.1,
        rows_per_latent: int = 200,
        mean_rows: int = 1000,
        top_k: int = 20,
        prepend_bos: Optional[bool] = None,
        chunk_rows: Optional[int] = None,
        **options: Any,
    ) -> Job:
        """Submits a job: what the dictionary's directions do over `prompts`, or
        over rows of a dataset (`Dataset.select`), each scored at `position`,
        whose next token is foretold. The result is a DirectionStatistics.

        Kept are each latent's `top_k` rows with its largest activations up to
        there, and the first `rows_per_latent` rows where it is above
        `active_above` at the position; in these it is ablated, unless `ablate`
        is False or a list of other latents. The thresholds of the table are
        given when it is asked for; its means are of the first `mean_rows` rows.

        `losses`: as they are, with the dictionary's output point set to zero
        and reconstructed, and with `directions` without their contributions.
        `attribution`: "layers", "heads" or "neurons" of the residual, towards
        the next token's logit. `boost_rows`: log-probabilities of the whole
        vocabulary without `directions`, in so many first rows. `name=`,
        `shard=(i, n)` and `keep=`: see Client.submit."""
        return direction_statistics.submit(
            self,
            prompts,
            position,
            ablate,
            directions,
            losses,
            attribution,
            boost_rows,
            {
                "active_above": active_above,
                "rows_per_latent": rows_per_latent,
                "mean_rows": mean_rows,
                "top_k": top_k,
            },
            prepend_bos,
            chunk_rows,
            options,
        )

    def logit_weights(
        self,
        latents: Indices = None,
        top: int = 10,
        bottom: Optional[int] = None,
        bins: int = 50,
        *,
        gain: bool = True,
    ) -> LogitWeights:
        """What latents (None: all) do to the logits directly, through
        W_dec (W_out) W_U: the `top` tokens that each raises most, the `bottom`
        ones (None: as many) that it lowers most, and a histogram of all logits
        in `bins` equal bins. `gain` False leaves the final norm's gain out in
        raw processing."""
        return logit_weights(
            self,
            latents,
            top,
            top if bottom is None else bottom,
            bins,
            gain,
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
        return features(
            self,
            prompts,
            positions,
            latents,
            top_k,
            min_activation,
            inputs,
            prepend_bos,
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
        return decode(self, features)

    def reconstruct(
        self,
        prompts: Optional[Prompts] = None,
        positions: Positions = None,
        *,
        inputs: Optional[Inputs] = None,
        prepend_bos: Optional[bool] = None,
    ) -> Reconstruction:
        """The dictionary's output beside what it should be, with FVU and L0."""
        return reconstruct(self, prompts, positions, inputs, prepend_bos)

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

    def save_saelens(
        self,
        folder: Union[str, os.PathLike[str]],
        latents: Optional[ArrayLike] = None,
    ) -> Path:
        """Writes the dictionary as a folder of cfg.json and safetensors, which
        SAELens and a server's catalog read; returns the folder.

        `latents`: only these, in this order, such as `Matched.matched`, so that
        latent i of the folder is latent `latents[i]` of this one. The numbers
        are those that the server computes with: norms and scalings are folded
        in. Not of Jacobian pairs and matching pursuit."""
        return _export_dictionary.save(self, folder, latents)

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

    def __repr__(self) -> str:
        return f"Dictionary({self.name!r}, processing={self.processing!r})"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()
