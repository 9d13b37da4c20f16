"""One latent's page, in SAEDashboard's fields."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

# SAEDashboard's.
_BARS, ROWS, _DECIMALS, _BIN_DECIMALS = 50, 3, 5, 3


@dataclasses.dataclass(frozen=True)
class Example:
    """A row of tokens with a latent's activations on all of them."""

    tokens: List[str]
    values: NDArray[np.float32]
    position: int  # where it was found
    # Of equal ones from 0 to the latent's maximum; None: a maximal example.
    interval: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Counts:
    """How often a latent had which activation: a row of the job's histogram."""

    counts: NDArray[np.int64]  # [bins]
    edges: NDArray[np.float64]  # [bins - 1]; the last bin ends at `most`
    most: float
    tokens: int  # of the corpus, active or not

    def between(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Activations above 0 in each interval between two limits, those of a
        bin spread evenly over it."""
        ends = np.minimum(np.append(self.edges, np.inf), self.most)
        below = np.interp(
            limits,
            np.concatenate([[0.0], ends]),
            np.concatenate([[0], np.cumsum(self.counts)]),
        )
        return np.diff(below)

    def bars(self) -> Tuple[List[float], List[float]]:
        """Heights and middles of the histogram's bars."""
        if not self.counts.sum():
            return [], []
        edges = np.linspace(0.0, self.most, _BARS + 1)
        return rounded(self.between(edges)), rounded(edges[:-1] + edges[1] / 2)

    def shares(self, intervals: int) -> NDArray[np.float64]:
        """Of all tokens, how many have an activation in each of so many equal
        intervals from 0, which the first one includes, to the maximum."""
        counts = self.between(np.linspace(0.0, self.most, intervals + 1))
        counts[0] += self.tokens - self.counts.sum()
        return counts / max(self.tokens, 1)


def rounded(values: Any, decimals: int = _DECIMALS) -> List[float]:
    told: List[float] = np.round(np.asarray(values, float), decimals).tolist()
    return told


def alignment(direction: NDArray[np.float32]) -> Dict[str, Any]:
    """The coordinates that a latent writes to most."""
    best = np.argsort(-direction, kind="stable")[:ROWS]
    length = max(float(np.abs(direction).sum()), 1e-30)
    return {
        "neuron_alignment_indices": best.tolist(),
        "neuron_alignment_values": rounded(direction[best]),
        "neuron_alignment_l1": rounded(np.abs(direction[best]) / length),
    }


def logits(
    words: Sequence[str],
    values: Sequence[float],
    raised: int,
    histogram: NDArray[np.int64],
    edges: NDArray[np.float64],
) -> Dict[str, Any]:
    """The tokens that a latent raises most, `raised` of `words`, and those that
    it lowers most, each the strongest first; and a histogram of all logits:
    counts [bins] between edges [bins + 1]."""
    return {
        "pos_str": list(words[:raised]),
        "pos_values": rounded(values[:raised]),
        "neg_str": list(words[raised:]),
        "neg_values": rounded(values[raised:]),
        "logits_hist_data_bar_heights": rounded(histogram),
        "logits_hist_data_bar_values": rounded((edges[1:] + edges[:-1]) / 2),
    }


def correlated(
    partners: Sequence[int],
    pearson: Sequence[float],
    cosines: Sequence[float],
) -> Dict[str, Any]:
    """Other latents of the dictionary, the most correlated first. What is
    called l1 there is the cosine."""
    return {
        "correlated_features_indices": [int(one) for one in partners],
        "correlated_features_l1": rounded(cosines),
        "correlated_features_pearson": rounded(pearson),
    }


def activations(
    examples: Sequence[Example], counts: Counts, intervals: int
) -> List[Dict[str, Any]]:
    """Maximal examples first, then those of intervals, the highest first."""
    ordered = sorted(
        examples,
        key=lambda one: -intervals if one.interval is None else -one.interval,
    )
    bins = _bins(counts, intervals)
    return [
        {
            **bins[one.interval],
            "tokens": one.tokens,
            "values": rounded(one.values),
            "qualifying_token_index": one.position,
        }
        for one in ordered
    ]


def _bins(
    counts: Counts, intervals: int
) -> Dict[Optional[int], Dict[str, float]]:
    """What is said of the examples of each interval, and of maximal ones."""
    edges = np.linspace(0.0, counts.most, intervals + 1)
    shares = counts.shares(intervals)
    limits: Dict[Optional[int], Tuple[float, float, float]] = {
        i: (edges[i], edges[i + 1], shares[i]) for i in range(intervals)
    }
    limits[None] = -1.0, counts.most, -1.0
    return {
        interval: {
            "bin_min": round(float(low), _BIN_DECIMALS),
            "bin_max": round(float(high), _BIN_DECIMALS),
            "bin_contains": round(float(share), _DECIMALS),
        }
        for interval, (low, high, share) in limits.items()
    }
