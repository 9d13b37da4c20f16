"""Continuing kept rows equals full recomputation, for every family, processing
and hook point. Tolerance: the server's float32 promise, 5e-5 of the scale; what
rounding leaves is about 1e-6."""

import pytest

from make_models import FAMILIES

TOLERANCE = 5e-5


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_equals_full(family, processing, check):
    errors = check("resume", family, processing)
    assert len(errors) > 40
    assert max(errors.values()) <= TOLERANCE, max(errors.items(), key=lambda e: e[1])
