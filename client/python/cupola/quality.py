"""How well a dictionary stands in for the activation it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from numpy.typing import NDArray

from . import _answers, _protos, _requests
from ._requests import Positions, Prompts
from .results import Rows

if TYPE_CHECKING:
    import pandas

    from .dictionary import Dictionary


class Quality(Rows):
    """How well a dictionary stands in for its activation. The rows are the
    positions where it did."""

    clean_loss: float
    zero_loss: float  # with the activation set to zero
    reconstruction_loss: float
    # (zero - reconstruction) / (zero - clean): 1 where nothing is lost.
    loss_recovered: float
    fvu: float  # sum |x - x^|^2 / sum |x - mean(x)|^2
    mean_squared_error: float  # per value
    l0: float

    def __init__(
        self,
        header: Any,
        losses: NDArray[np.float32],
        loss_prompt: NDArray[np.int32],
        loss_position: NDArray[np.int32],
        squared_error: NDArray[np.float32],
        token_l0: NDArray[np.float32],
        **rows: Any,
    ) -> None:
        super().__init__(**rows)
        for name in (
            "clean_loss",
            "zero_loss",
            "reconstruction_loss",
            "loss_recovered",
            "fvu",
            "mean_squared_error",
            "l0",
        ):
            setattr(self, name, getattr(header, name))
        self.losses = losses  # [scored, 3]: clean, zero, reconstruction
        self.loss_prompt = loss_prompt  # [scored]
        self.loss_position = loss_position  # [scored]
        self.squared_error = squared_error  # [rows]
        self.token_l0 = token_l0  # [rows]

    @property
    def explained_variance(self) -> float:
        return 1 - self.fvu

    def to_dataframe(self) -> pandas.DataFrame:
        """A line per scored token: prompt, position, and the three losses of
        predicting the next one."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "prompt": self.loss_prompt,
                "position": self.loss_position,
                "clean": self.losses[:, 0],
                "zero": self.losses[:, 1],
                "reconstruction": self.losses[:, 2],
            }
        )
        return frame

    def __repr__(self) -> str:
        return (
            f"Quality of {self.provenance.dictionary}: loss recovered "
            f"{self.loss_recovered:.4g} (clean {self.clean_loss:.4g}, zero "
            f"{self.zero_loss:.4g}, reconstruction "
            f"{self.reconstruction_loss:.4g}), FVU {self.fvu:.4g}, L0 "
            f"{self.l0:.4g}, {self._origin()}"
        )


def quality(
    dictionary: Dictionary,
    prompts: Prompts,
    positions: Positions,
    score_every: bool,
    prepend_bos: Optional[bool],
) -> Quality:
    """See Dictionary.quality."""
    request = _protos.quality.QualityRequest(
        dictionary=dictionary.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(dictionary.processing),
        score_every=score_every,
    )
    header, arrays, rows = _answers.ask_rows(
        dictionary._client,
        "GetQuality",
        request,
        dictionary.info.model,
        ["losses", "loss_prompt", "loss_position", "squared_error", "token_l0"],
    )
    return Quality(header, *arrays, **rows)
