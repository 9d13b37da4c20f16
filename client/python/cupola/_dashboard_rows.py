"""The rows of tokens that a job went over, and what latents do on them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .datasets import Dataset, Tokenization
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .client import Client
    from .dictionary import Dictionary
    from .job_info import JobProvenance

# Tokens of one request for activations.
_REQUEST_TOKENS = 16_384
# Rows of a dataset that are asked for together.
_READ = 256
# The same tokens in a batch of another shape.
_ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the rows come from, and how many there are."""

    count: int
    longest: int
    prompts: Optional[Sequence[Sequence[int]]] = None
    dataset: Optional[Dataset] = None
    how: Optional[Tokenization] = None

    def read(self, wanted: Sequence[int]) -> Dict[int, List[int]]:
        """The tokens of some rows, in ascending order."""
        if self.dataset is None or self.how is None:
            assert self.prompts is not None
            return {row: list(self.prompts[row]) for row in wanted}
        found: Dict[int, List[int]] = {}
        for row in wanted:
            if row in found:
                continue
            # Neighbours come along, as long as they are near.
            near = [one for one in wanted if row <= one < row + _READ]
            count = near[-1] - row + 1
            read = self.dataset.tokens(self.how, row, count)
            found.update(zip(range(row, row + count), read))
        return {row: found[row] for row in wanted}


def rows_of(
    client: Client,
    provenance: JobProvenance,
    prompts: Optional[Sequence[Sequence[int]]],
) -> Rows:
    """The rows of a job. Of a dataset they are found again by their digest;
    InvalidArgument where the dataset, or these rows of it, are gone."""
    if provenance.dataset is None:
        if prompts is None:
            raise InvalidArgument(
                "prompts: the job went over prompts of its own; give their "
                "token ids again"
            )
        rows = [list(row) for row in prompts]
        return Rows(len(rows), max(map(len, rows), default=0), prompts=rows)
    if prompts is not None:
        raise InvalidArgument(
            f"prompts: the job went over the dataset {provenance.dataset}"
        )
    dataset = client.dataset(provenance.dataset)
    for made in dataset.info.tokenized:
        if made.digest == provenance.rows_digest:
            which = provenance.parameters.get("rows", {})
            return Rows(
                which.get("row_count", made.rows),
                made.longest,
                dataset=dataset,
                how=made.tokenization,
            )
    raise InvalidArgument(
        f"the dataset {provenance.dataset} has no rows of digest "
        f"{provenance.rows_digest} any more"
    )


class Contexts:
    """Activations of some latents on whole rows."""

    def __init__(
        self,
        tokens: Dict[int, List[str]],
        values: Dict[Tuple[int, int], NDArray[np.float32]],
    ) -> None:
        self.tokens = tokens  # by row
        self._values = values

    def values(self, latent: int, row: int) -> NDArray[np.float32]:
        """float32 [tokens of the row]"""
        return self._values[latent, row]


def contexts(
    rows: Rows,
    dictionary: Dictionary,
    pairs: NDArray[np.int64],
    most: NDArray[np.float64],
    skip: int,
) -> Contexts:
    """What latents do on the rows of (latent, row) `pairs` [n, 2]. `most`
    [d_sae] is the job's maximum of each latent, which a row's tokens from
    `skip` on do not exceed: those before it are 0."""
    pairs = np.unique(pairs, axis=0)
    latents = np.unique(pairs[:, 0]).tolist()
    tokens = rows.read(np.unique(pairs[:, 1]).tolist())
    texts: Dict[int, List[str]] = {}
    values: Dict[Tuple[int, int], NDArray[np.float32]] = {}
    for some in _requests_of(tokens):
        ids = [tokens[row] for row in some]
        found = dictionary.features(ids, latents=latents)
        columns: Any = found.csr.tocsc()
        begins = np.cumsum([0, *map(len, ids)])
        strings = dictionary._client._token_strings(found.provenance, ids)
        texts.update(zip(some, strings))
        places = {row: i for i, row in enumerate(some)}
        for latent, row in pairs[np.isin(pairs[:, 1], some)].tolist():
            i = places[row]
            column = np.zeros(len(ids[i]), np.float32)
            begin, end = columns.indptr[latent : latent + 2]
            place = columns.indices[begin:end] - begins[i]
            here = (place >= skip) & (place < len(column))
            column[place[here]] = columns.data[begin:end][here]
            _check(column, latent, row, float(most[latent]))
            values[latent, row] = column
    return Contexts(texts, values)


def _requests_of(tokens: Dict[int, List[int]]) -> List[List[int]]:
    """Rows that are asked about together."""
    groups: List[List[int]] = []
    room = 0
    for row, ids in tokens.items():
        if not groups or room < len(ids):
            groups.append([])
            room = _REQUEST_TOKENS
        groups[-1].append(row)
        room -= len(ids)
    return groups


def _check(
    column: NDArray[np.float32], latent: int, row: int, most: float
) -> None:
    highest = int(np.argmax(column))
    if column[highest] > most * (1 + _ROUNDING):
        raise InvalidArgument(
            f"latent {latent} is {column[highest]:.4g} at position {highest} "
            f"of row {row}, and at most {most:.4g} where the job looked: give "
            "skip_positions as it was selected, and the prompts that it had"
        )
