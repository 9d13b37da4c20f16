"""Two dictionaries around an MLP, or at any two hook points of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .directions import (
    DirectionAblation,
    Samples,
    Sweep,
    ablate as ablate_directions,
    sweep,
)
from .features import Features
from .jacobian import Jacobian, jacobian, mlp, sandwich
from .jacobian_totals import accumulate
from .jobs import Job

if TYPE_CHECKING:
    from .dictionary import Dictionary, Inputs


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
