"""Rows that grow token by token equal full recomputation, for every family and
processing, without edits and with one at every hook point. Tolerance: the
server's float32 promise, 5e-5 of the scale."""

import json
import os
import pathlib
import subprocess

import pytest

from make_models import FAMILIES

TOLERANCE = 5e-5
ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_grown_equals_full(family, processing, models):
    build = os.environ.get("CUPOLA_BUILD", ROOT / "build")
    done = subprocess.run(
        [f"{build}/cupola_check_growing", str(models(family)), processing],
        capture_output=True,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) > 40
    assert max(errors.values()) <= TOLERANCE, max(errors.items(), key=lambda e: e[1])
