"""Statistics of all latents of a dictionary over a corpus: a job."""

from __future__ import annotations

import pathlib
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from numpy.typing import NDArray

from . import _protos, _requests, _submit, dashboards
from ._requests import Positions, Prompts
from .dashboards import Exported
from .datasets import DatasetRows
from .errors import InvalidArgument
from .jobs import Job

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .coactivation import Coactivation
    from .dictionary import Dictionary

_J = _protos.jobs
_TENSORS = [
    "count",
    "density",
    "mean",
    "powers",
    "max",
    "histogram",
    "edges",
    "top_row",
    "top_position",
    "top_value",
    "interval_row",
    "interval_position",
    "interval_value",
]


class FeatureStatistics:
    """What one pass over a corpus told about every latent.

    The numbers stay on the server; each method asks for some of them, of
    latents `first` to `first + count - 1` (None: all from `first` on). `row`
    and `position` say where a token stands: the dataset's row (or the prompt),
    and its place in it.
    """

    def __init__(self, client: Client, job: str, dictionary: int = 0) -> None:
        self._client = client
        self.job = job
        self._dictionary = dictionary
        header, _ = self._fetch(0, 1)
        # Their names, in the order of the job.
        self.dictionaries: List[str] = [
            one.name for one in header.job.provenance.dictionaries
        ]
        self.tokens: int = header.tokens
        self.d_sae: int = header.d_sae
        self.dead: int = header.dead  # latents that were never active

    def _fetch(self, first: int, count: Optional[int], **wanted: Any) -> Any:
        connection = self._client._connection
        header, arrays = connection.stream(
            connection.jobs.GetFeatureStatistics,
            _J.GetFeatureStatisticsRequest(
                job=self.job,
                dictionary=self._dictionary,
                first=first,
                count=count or 0,
                **wanted,
            ),
            "",
            lambda header: [getattr(header, name) for name in _TENSORS],
        )
        return header, dict(zip(_TENSORS, arrays))

    def of(self, dictionary: Union[str, Dictionary]) -> FeatureStatistics:
        """The same of another dictionary of the job."""
        name = dictionary if isinstance(dictionary, str) else dictionary.name
        if name not in self.dictionaries:
            raise InvalidArgument(
                f"dictionary: {name!r} is not one of the job's, "
                f"{', '.join(map(repr, self.dictionaries))}"
            )
        return FeatureStatistics(
            self._client, self.job, self.dictionaries.index(name)
        )

    def to_dataframe(
        self, first: int = 0, count: Optional[int] = None
    ) -> pandas.DataFrame:
        """latent, count (tokens with it), density (of all tokens), mean (of
        activations above 0), max."""
        import pandas

        _, arrays = self._fetch(first, count)
        columns = {
            name: arrays[name] for name in ("count", "density", "mean", "max")
        }
        latents = np.arange(first, first + len(arrays["count"]))
        return pandas.DataFrame({"latent": latents, **columns})

    def power_sums(
        self, first: int = 0, count: Optional[int] = None
    ) -> NDArray[np.float64]:
        """Sums of activation, its square, third and fourth power: [n, 4]."""
        sums: NDArray[np.float64] = self._fetch(first, count)[1]["powers"]
        return sums

    def dead_latents(self) -> NDArray[np.int64]:
        """Those that were never active, ascending."""
        return np.flatnonzero(self._fetch(0, None)[1]["count"] == 0)

    def histogram(
        self, first: int = 0, count: Optional[int] = None
    ) -> Tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts of activations [n, bins] and the edges between bins [bins -
        1]; the first bin begins at 0, the last one is open."""
        arrays = self._fetch(first, count, histogram=True)[1]
        return arrays["histogram"], arrays["edges"]

    def top(
        self, first: int = 0, count: Optional[int] = None
    ) -> pandas.DataFrame:
        """The max-activating contexts, the strongest first: latent, rank, row,
        position, value."""
        arrays = self._fetch(first, count, top=True)[1]
        return _examples(arrays, "top", first, ["rank"])

    def intervals(
        self,
        first: int = 0,
        count: Optional[int] = None,
        intervals: int = 10,
        each: int = 5,
    ) -> pandas.DataFrame:
        """Examples of equal intervals from 0 to each latent's maximum: latent,
        interval, number, row, position, value."""
        arrays = self._fetch(first, count, intervals=intervals, each=each)[1]
        return _examples(arrays, "interval", first, ["interval", "number"])

    def export(
        self,
        folder: Union[str, pathlib.Path],
        latents: Optional[Sequence[int]] = None,
        *,
        prompts: Optional[Sequence[Sequence[int]]] = None,
        skip_positions: int = 0,
        coactivation: Optional[Coactivation] = None,
        name: Optional[str] = None,
        model_id: Optional[str] = None,
        top: int = 20,
        intervals: int = 5,
        each: int = 5,
        logits: int = 10,
        vectors: bool = False,
        latents_per_file: int = 128,
        overwrite: bool = False,
        progress: Optional[dashboards.Progress] = None,
    ) -> Exported:
        """Writes batch-N.json files as SAEDashboard does, for Neuronpedia and
        what else reads them; see the module `dashboards`.

        `latents` None: all that are not dead. The rows of a dataset are found
        again; of a job over prompts give their token ids, as `prompts`, and of
        rows whose beginnings were not looked at `skip_positions`, as in
        Dataset.select. A page has `top` maximal examples, at most as many as
        the job was asked to keep, `each` of so many equal `intervals` up to the
        maximum, `logits` tokens that the latent raises and lowers most, and
        with `vectors` the decoder's row; and with `coactivation`, the result of
        Dictionary.coactivation with all pairs, the three latents of the whole
        dictionary that correlate most. `name` and `model_id` stand in the
        files for the dictionary's and the model's. `progress(done, all)` is
        called with every file."""
        wanted = dashboards.Wanted(
            top, intervals, each, logits, vectors, skip_positions
        )
        info = self._client.job(self.job).info
        assert info.provenance is not None
        return dashboards.export(
            self,
            info.provenance,
            self._dictionary,
            folder,
            latents,
            prompts,
            wanted,
            coactivation,
            name,
            model_id,
            latents_per_file,
            overwrite,
            progress,
        )

    def __repr__(self) -> str:
        return (
            f"FeatureStatistics of {self.job}: {self.d_sae:,} latents, "
            f"{self.dead:,} of them dead, over {self.tokens:,} tokens"
        )


def _examples(
    arrays: Any, kind: str, first: int, names: List[str]
) -> pandas.DataFrame:
    import pandas

    rows = arrays[f"{kind}_row"]
    there = np.nonzero(rows >= 0)
    columns = {"latent": there[0] + first}
    columns.update(zip(names, there[1:]))
    columns["row"] = rows[there]
    columns["position"] = arrays[f"{kind}_position"][there]
    columns["value"] = arrays[f"{kind}_value"][there]
    return pandas.DataFrame(columns)


def submit(
    dictionary: Dictionary,
    rows: Union[Prompts, DatasetRows],
    positions: Positions,
    top_k: int,
    others: List[str],
    distinct_rows: bool,
    per_stratum: int,
    octaves: Optional[Tuple[int, int]],
    bins_per_octave: int,
    prepend_bos: Optional[bool],
    chunk_tokens: Optional[int],
    options: Dict[str, Any],
) -> Job:
    """See Dictionary.statistics."""
    log2 = bins_per_octave.bit_length() - 1
    if bins_per_octave < 1 or bins_per_octave != 1 << log2:
        raise InvalidArgument(
            f"bins_per_octave: expected a power of two, got {bins_per_octave}"
        )
    request = _J.FeatureStatisticsRequest(
        dictionary=dictionary.name,
        others=others,
        top_k=top_k,
        repeat_rows=not distinct_rows,
        per_stratum=per_stratum,
        log2_per_octave=log2,
        chunk_tokens=chunk_tokens or 0,
        processing=_requests.processing_code(dictionary.processing),
        positions=_requests.positions_message(positions),
        options=_submit.options_message(**options),
    )
    if octaves is not None:
        request.first_octave, request.octaves = octaves
    if isinstance(rows, DatasetRows):
        request.rows.CopyFrom(rows.to_message())
    else:
        request.prompts.CopyFrom(_requests.prompts_message(rows, prepend_bos))
    return _submit.send(
        dictionary._client,
        "ComputeFeatureStatistics",
        request,
        dictionary.info.model,
    )
