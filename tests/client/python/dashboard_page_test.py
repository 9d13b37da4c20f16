"""A page's numbers, from plain arrays."""

import numpy as np
import pytest
from cupola import _dashboard_page as page

# Activations of a latent in bins [0, 1), [1, 2), [2, 4) and from 4 on.
COUNTS = page.Counts(np.array([2, 0, 4, 1]), np.array([1.0, 2.0, 4.0]), 5.0, 20)
DEAD = page.Counts(np.zeros(4, int), COUNTS.edges, 0.0, 20)


def test_counts_are_spread_over_their_bins():
    limits = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0])
    np.testing.assert_allclose(COUNTS.between(limits), [1, 1, 0, 2, 2, 0.5, 0.5])
    heights, middles = COUNTS.bars()
    assert len(heights) == len(middles) == 50
    assert sum(heights) == pytest.approx(7) and middles[0] == 0.05
    assert middles[-1] == pytest.approx(4.95) and heights[0] == pytest.approx(0.2)


def test_shares_of_all_tokens():
    # The lowest interval has the 13 tokens where the latent is not active.
    np.testing.assert_allclose(COUNTS.shares(5) * 20, [15, 0, 2, 2, 1])
    assert COUNTS.shares(3).sum() == pytest.approx(1)
    np.testing.assert_allclose(DEAD.shares(4), [1, 0, 0, 0])
    assert DEAD.bars() == ([], [])


def test_maximal_examples_come_first_then_high_intervals():
    def example(interval, position):
        return page.Example(["a", "b"], np.float32([0.5, 4.000001]), position, interval)

    made = [example(0, 0), example(None, 1), example(4, 2), example(None, 3)]
    told = page.activations(made, COUNTS, 5)
    assert [one["qualifying_token_index"] for one in told] == [1, 3, 2, 0]
    assert told[0] == {
        "bin_min": -1.0,
        "bin_max": 5.0,
        "bin_contains": -1.0,
        "tokens": ["a", "b"],
        "values": [0.5, 4.0],
        "qualifying_token_index": 1,
    }
    assert [told[2][k] for k in ("bin_min", "bin_max", "bin_contains")] == [4, 5, 0.05]
    assert [told[3][k] for k in ("bin_min", "bin_max", "bin_contains")] == [0, 1, 0.75]
    assert page.activations([], DEAD, 5) == []


def test_alignment_is_with_the_largest_coordinates():
    told = page.alignment(np.float32([0.1, -3, 0.5, 0.2, 0.2]))
    assert told["neuron_alignment_indices"] == [2, 3, 4]
    assert told["neuron_alignment_values"] == [0.5, 0.2, 0.2]
    assert told["neuron_alignment_l1"] == [0.125, 0.05, 0.05]
