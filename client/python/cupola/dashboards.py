"""Pages about latents, as SAEDashboard writes them and Neuronpedia reads them.

`export` writes what SAEDashboard's Neuronpedia runner leaves in its output
folder: batch-0.json, batch-1.json, ... of some latents each. Their numbers come
from a job's FeatureStatistics, which is one pass over the corpus, and from one
more pass over those rows that hold examples, for each thousand latents.

What a reader of SAEDashboard's files may not expect: activations are as the
server computes them, with the decoder's norms folded in only where its catalog
says so (`fold_w_dec_norm`; SAEDashboard always folds). Contexts are whole rows,
with their first token. The bars of the activations' histogram, and the shares
of intervals, spread the counts of one of the job's bins evenly: they are finer
the more `bins_per_octave` the job was given. Correlated neurons stay empty.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from numpy.typing import NDArray

from . import _dashboard_page as page, _requests
from ._dashboard_rows import Rows, contexts, rows_of
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .coactivation import Coactivation
    from .dictionary import Dictionary
    from .feature_statistics import FeatureStatistics
    from .job_info import JobProvenance

# Latents whose contexts are in memory together.
_AT_ONCE = 1024
# Latents whose partners' cosines are asked for together.
_PAIRS = 128

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: pathlib.Path
    files: Tuple[pathlib.Path, ...]
    latents: int
    skipped: int  # of the dictionary's: dead, or not asked for


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a page holds; the defaults are SAEDashboard's."""

    top: int = 20  # maximal examples: as many as the job has, and no more
    intervals: int = 5
    each: int = 5  # examples of each interval
    logits: int = 10  # tokens raised, and as many lowered
    vectors: bool = False  # the decoder's rows
    skip_positions: int = 0  # of each row, at its beginning


def export(
    statistics: FeatureStatistics,
    provenance: JobProvenance,
    index: int,
    folder: Union[str, pathlib.Path],
    latents: Optional[Sequence[int]],
    prompts: Optional[Sequence[Sequence[int]]],
    wanted: Wanted,
    coactivation: Optional[Coactivation],
    name: Optional[str],
    model_id: Optional[str],
    latents_per_file: int,
    overwrite: bool,
    progress: Optional[Progress],
) -> Exported:
    """See FeatureStatistics.export. `index`: of the job's dictionaries."""
    (per_file,) = _requests.unsigned([latents_per_file], "latents_per_file")
    for field, value in (
        ("latents_per_file", per_file),
        ("logits", wanted.logits),
        ("intervals", wanted.intervals),
    ):
        if value < 1:
            raise InvalidArgument(f"{field}: expected at least 1, got {value}")
    client = statistics._client
    about, digest = list(provenance.dictionaries.items())[index]
    dictionary = client.dictionary(
        about, "folded" if provenance.parameters.get("folded") else "raw"
    )
    if dictionary.info.digest != digest:
        raise InvalidArgument(f"{about} is not what it was when the job began")
    if coactivation is not None:
        _check_coactivation(coactivation, digest)
    table = statistics.to_dataframe()
    chosen = (
        np.flatnonzero(table["count"].to_numpy() > 0)
        if latents is None
        else _chosen(latents, len(table))
    )
    writer = _Writer(
        dictionary,
        statistics,
        table,
        rows_of(client, provenance, prompts),
        provenance.dataset or "",
        wanted,
        coactivation,
    )
    header = {
        "model_id": model_id or provenance.model,
        "layer": _layer(dictionary.info.hook_in),
        "sae_set": name or about,
        "sae_id_suffix": None,
    }
    target = _folder(pathlib.Path(folder), overwrite)
    files: List[pathlib.Path] = []
    step = max(per_file, _AT_ONCE // per_file * per_file)
    for begin in range(0, len(chosen), step):
        group = chosen[begin : begin + step]
        pages = writer.pages(group)
        for first in range(0, len(group), per_file):
            part = [next(pages) for _ in group[first : first + per_file]]
            files.append(target / f"batch-{len(files)}.json")
            _write(files[-1], {**header, "features": part})
            if progress is not None:
                progress(begin + first + len(part), len(chosen))
    skipped = np.setdiff1d(np.arange(len(table)), chosen)
    _write(
        target / "skipped_indexes.json",
        {
            "model_id": header["model_id"],
            "layer": str(header["layer"]),
            "sae_set": header["sae_set"],
            "log_sparsity": None,
            "skipped_indexes": skipped.tolist(),
        },
    )
    return Exported(target, tuple(files), len(chosen), len(skipped))


def _check_coactivation(coactivation: Coactivation, digest: str) -> None:
    told = coactivation._client.job(coactivation.job).info.provenance
    assert told is not None
    if digest not in told.dictionaries.values():
        raise InvalidArgument("coactivation: it is of another dictionary")
    if not coactivation.exact:
        raise InvalidArgument(
            "coactivation: a sample of tokens has no correlations; submit it "
            "with sample=0"
        )


def _chosen(latents: Sequence[int], d_sae: int) -> NDArray[np.int64]:
    chosen = np.unique(_requests.unsigned(list(latents), "latents:"))
    if len(chosen) and chosen[-1] >= d_sae:
        raise InvalidArgument(
            f"latents: {chosen[-1]}; the dictionary has {d_sae}"
        )
    return chosen.astype(np.int64)


def _folder(folder: pathlib.Path, overwrite: bool) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    earlier = sorted(folder.glob("batch-*.json"))
    if earlier and not overwrite:
        raise InvalidArgument(
            f"folder: {folder} holds {earlier[0].name} already; overwrite=True "
            "replaces what is there"
        )
    for path in earlier:
        path.unlink()
    return folder


def _write(path: pathlib.Path, value: Any) -> None:
    """A file is there whole or not at all."""
    waiting = path.with_suffix(".part")
    waiting.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
    waiting.replace(path)


def _layer(hook: str) -> int:
    found = re.match(r"blocks\.(\d+)\.", hook)
    return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class _Writer:
    dictionary: Dictionary
    statistics: FeatureStatistics
    table: Any  # of all latents
    rows: Rows
    dataset: str
    wanted: Wanted
    coactivation: Optional[Coactivation]

    def pages(self, latents: NDArray[np.int64]) -> Iterator[Dict[str, Any]]:
        """A page for each of `latents`, which ascend, in order."""
        examples = self._examples(latents)
        counts = self._counts(latents)
        weights = self.dictionary.weights
        decoder = weights.decoder(latents.tolist())
        each = self.wanted.logits
        logits = self.dictionary.logit_weights(latents.tolist(), each)
        edges = logits.edges()
        words = logits.to_dataframe()["token"].to_numpy()
        words = words.reshape(len(latents), 2 * each)
        correlated = self._correlated(latents)
        for i, latent in enumerate(latents.tolist()):
            heights, middles = counts[i].bars()
            yield {
                "feature_index": latent,
                **page.alignment(decoder[i]),
                "correlated_neurons_indices": [],
                "correlated_neurons_l1": [],
                "correlated_neurons_pearson": [],
                **correlated[i],
                **page.logits(
                    words[i].tolist(),
                    logits.values[i].tolist(),
                    each,
                    logits.histogram[i],
                    edges[i],
                ),
                "frac_nonzero": float(self.table["density"].iloc[latent]),
                "freq_hist_data_bar_values": middles,
                "freq_hist_data_bar_heights": heights,
                "n_prompts_total": self.rows.count,
                "n_tokens_in_prompt": self.rows.longest,
                "dataset": self.dataset,
                "decoder_weights_dist": [],
                "activations": page.activations(
                    examples.get(latent, []), counts[i], self.wanted.intervals
                ),
                "vector": (
                    decoder[i].astype(float).tolist()
                    if self.wanted.vectors
                    else []
                ),
            }

    def _correlated(self, latents: NDArray[np.int64]) -> List[Dict[str, Any]]:
        if self.coactivation is None:
            return [page.correlated([], [], [])] * len(latents)
        found = self.coactivation.partners(
            latents.tolist(), page.ROWS, "pearson"
        )
        told = []
        for begin in range(0, len(latents), _PAIRS):
            some = latents[begin : begin + _PAIRS].tolist()
            mine = found[found["latent"].isin(some)]
            others = np.unique(mine["partner"])
            cosines = (
                self.coactivation.between(some, others.tolist(), "cosine")
                if len(others)
                else None
            )
            by_latent = dict(list(mine.groupby("latent")))
            for i, latent in enumerate(some):
                if latent not in by_latent:
                    told.append(page.correlated([], [], []))
                    continue
                assert cosines is not None
                best = by_latent[latent]
                at = np.searchsorted(others, best["partner"])
                told.append(
                    page.correlated(
                        best["partner"].tolist(), best["value"], cosines[i, at]
                    )
                )
        return told

    def _counts(self, latents: NDArray[np.int64]) -> List[page.Counts]:
        first, last = int(latents[0]), int(latents[-1])
        counts, edges = self.statistics.histogram(first, last + 1 - first)
        return [
            page.Counts(
                counts[latent - first],
                edges,
                float(self.table["max"].iloc[latent]),
                self.statistics.tokens,
            )
            for latent in latents
        ]

    def _examples(
        self, latents: NDArray[np.int64]
    ) -> Dict[int, List[page.Example]]:
        """By latent."""
        import pandas

        first, last = int(latents[0]), int(latents[-1])
        wanted, count = self.wanted, last + 1 - first
        best = self.statistics.top(first, count)
        found = best[best["rank"] < wanted.top].assign(interval=-1)
        if wanted.each:
            drawn = self.statistics.intervals(
                first, count, wanted.intervals, wanted.each
            )
            found = pandas.concat([found, drawn])
        found = found[found["latent"].isin(latents)]
        if not len(found):
            return {}
        told = contexts(
            self.rows,
            self.dictionary,
            found[["latent", "row"]].to_numpy(np.int64),
            self.table["max"].to_numpy(),
            wanted.skip_positions,
        )
        examples: Dict[int, List[page.Example]] = {}
        for one in found.itertuples():
            examples.setdefault(one.latent, []).append(
                page.Example(
                    told.tokens[one.row],
                    told.values(one.latent, one.row),
                    one.position,
                    None if one.interval < 0 else one.interval,
                )
            )
        return examples
