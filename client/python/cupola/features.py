"""Feature activations: which latents fire on which tokens, and how strongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from . import _html_features
from .results import Provenance, Rows, TokenStrings

if TYPE_CHECKING:
    import pandas


class Features(Rows):
    """Sparse activations of a dictionary's latents, one row per token.

    `prompt`, `position` and `token_ids` say, row by row, which token it is:
    the prompt's index, the token's index in it and the token's id. For rows
    that were encoded from inputs, `position` counts the rows and `token_ids`
    is empty.
    """

    def __init__(
        self,
        csr: Any,
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        provenance: Provenance,
        token_strings: TokenStrings,
    ) -> None:
        super().__init__(prompt, position, provenance, token_strings)
        self.csr: Any = csr  # scipy, float32 [tokens, d_sae]
        self._tokens: Optional[List[str]] = None

    @property
    def dictionary(self) -> str:
        return self.provenance.dictionary

    @property
    def prompt_token_ids(self) -> List[List[int]]:
        """All ids of each prompt, BOS included, whatever rows were asked."""
        return self.provenance.token_ids

    @property
    def tokens(self) -> List[str]:
        """Each row's token as text; asks the server once. Empty for inputs."""
        if self._tokens is None:
            texts = self._token_strings(self.prompt_token_ids)
            self._tokens = (
                [texts[i][j] for i, j in zip(self.prompt, self.position)]
                if texts
                else []
            )
        return self._tokens

    def to_dataframe(self) -> pandas.DataFrame:
        """One line per activation: prompt, position, token_id, token, latent,
        activation (without the token's columns for inputs)."""
        import pandas

        rows = np.repeat(np.arange(len(self)), np.diff(self.csr.indptr))
        columns: Dict[str, Any] = {
            "prompt": self.prompt[rows],
            "position": self.position[rows],
        }
        if self.prompt_token_ids:
            columns["token_id"] = self.token_ids[rows]
            columns["token"] = np.array(self.tokens, object)[rows]
        columns["latent"] = self.csr.indices
        columns["activation"] = self.csr.data
        frame: pandas.DataFrame = pandas.DataFrame(columns)
        return frame

    def top(self, n: int = 10) -> pandas.DataFrame:
        """The `n` latents with the largest activation, strongest first.

        Columns: latent, max_activation, active_tokens, and the token where it
        is largest (prompt, position, token). The lowest index wins ties. A BOS
        token's activations often dwarf all others: leave its position out of
        the request to rank the rest.
        """
        import pandas

        latents, rows, values, counts = self.strongest(n)
        columns: Dict[str, Any] = {
            "latent": latents,
            "max_activation": values,
            "active_tokens": counts,
            "prompt": self.prompt[rows],
            "position": self.position[rows],
        }
        if self.prompt_token_ids:
            columns["token"] = np.array(self.tokens, object)[rows]
        frame: pandas.DataFrame = pandas.DataFrame(columns)
        return frame

    def strongest(
        self, n: int, among: Optional[NDArray[np.bool_]] = None
    ) -> Tuple[
        NDArray[np.int64],
        NDArray[np.int64],
        NDArray[np.float32],
        NDArray[np.int64],
    ]:
        """As `top`, in arrays: latent, row of its maximum, maximum, number of
        active rows. `among` [tokens] narrows it to some rows."""
        entries = self.csr.tocoo()
        rows, latents, values = entries.row, entries.col, entries.data
        if among is not None:
            kept = among[rows]
            rows, latents, values = rows[kept], latents[kept], values[kept]
        # By latent, each latent's largest value (at its first row) first.
        order = np.lexsort((rows, -values, latents))
        found, first, counts = np.unique(
            latents[order], return_index=True, return_counts=True
        )
        best = order[first]
        ranked = np.lexsort((found, -values[best]))[:n]
        return (
            found[ranked].astype(np.int64),
            rows[best][ranked].astype(np.int64),
            values[best][ranked],
            counts[ranked],
        )

    def top_per_token(self, n: int = 5) -> List[List[Tuple[int, float]]]:
        """Each row's `n` strongest (latent, activation), strongest first."""
        csr, answer = self.csr, []
        for start, end in zip(csr.indptr[:-1], csr.indptr[1:]):
            latents, values = csr.indices[start:end], csr.data[start:end]
            order = np.lexsort((latents, -values))[:n]
            answer.append([(int(latents[i]), float(values[i])) for i in order])
        return answer

    def to_html(self, latent: Optional[int] = None, top: int = 12) -> str:
        """The tokens coloured by `latent`, or by each token's strongest.

        Ask a token for its latents by pointing at it; pick one of the `top`
        latents of the table to colour by it.
        """
        return _html_features.features(self, latent, top)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __repr__(self) -> str:
        return (
            f"Features of {self.dictionary}: {len(self)} tokens x "
            f"{self.csr.shape[1]} latents, {self.csr.nnz} active, "
            f"{self._origin()}"
        )


def csr_rows(value: Any, columns: int) -> Any:
    """Features, a scipy sparse matrix or a dense array, as csr float32
    [n, columns] with ascending indices."""
    from .errors import InvalidArgument

    if isinstance(value, Features):
        value = value.csr
    try:
        csr = csr_matrix(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"features: {error}") from None
    if csr.shape[1] != columns:
        raise InvalidArgument(
            f"features: expected shape [n, {columns}], got {list(csr.shape)}"
        )
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr
