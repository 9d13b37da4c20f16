"""Rows that grow token by token equal full recomputation, for every family and
processing, without edits and with one at every hook point. Tolerance: the
server's float32 promise, 5e-5 of the scale."""

import pytest

from make_models import FAMILIES

TOLERANCE = 5e-5


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_grown_equals_full(family, processing, check):
    errors = check("growing", family, processing)
    assert len(errors) > 40
    assert max(errors.values()) <= TOLERANCE, max(errors.items(), key=lambda e: e[1])
