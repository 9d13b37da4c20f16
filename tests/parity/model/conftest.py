"""Runs the C++ model through build/cupola_dump_activations."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

torch.manual_seed(0)
torch.set_num_threads(1)
torch.set_grad_enabled(False)


def _tool(name="cupola_dump_activations"):
    build = pathlib.Path(os.environ.get("CUPOLA_BUILD", HERE.parents[2] / "build"))
    return build / name


class Cupola:
    """What the C++ model answers, by case."""

    def __init__(self, folder):
        self._folder = folder

    def run(self, model, cases, processing="raw", dtype="float32"):
        """cases: see dump_activations.cc. Returns ({case: {name: array}}, about)."""
        out = self._folder / "out"
        out.mkdir(exist_ok=True)
        request = self._folder / "request.json"
        request.write_text(
            json.dumps(
                dict(
                    model=str(model),
                    processing=processing,
                    dtype=dtype,
                    device=os.environ.get("CUPOLA_TEST_DEVICE", "cpu"),
                    cases=cases,
                )
            )
        )
        done = subprocess.run(
            [str(_tool()), str(request), str(out)],
            capture_output=True,
            text=True,
            # Tiny matrices: threads would only wait for each other.
            env=dict(os.environ, OMP_NUM_THREADS="1"),
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        names = [case["name"] for case in cases]
        return {n: load_file(out / f"{n}.safetensors") for n in names}, json.loads(
            done.stdout
        )


@pytest.fixture
def cupola(tmp_path):
    return Cupola(tmp_path)


@pytest.fixture(scope="session")
def once(tmp_path_factory, models):
    """(family, processing) -> what Cupola answers to test_model_parity.cases_of,
    run once a session."""
    from test_model_parity import cases_of

    answers = {}

    def get(family, processing):
        key = (family, processing)
        if key not in answers:
            runner = Cupola(tmp_path_factory.mktemp("once"))
            answers[key] = runner.run(models(family), cases_of(family), processing)
        return answers[key]

    return get


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """families -> folder, made once a session."""
    from make_models import make

    root = tmp_path_factory.mktemp("models")
    made = {}

    def get(family):
        if family not in made:
            made[family] = make(family, root / family)
        return made[family]

    return get


def error(actual, expected):
    """The largest difference relative to the tensor's scale; masked scores must
    be masked on both sides."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(actual), finite)
    if not finite.any():
        return 0.0
    scale = np.abs(expected[finite]).max()
    return float(np.abs(actual[finite] - expected[finite]).max() / max(scale, 1e-30))


@pytest.fixture(name="error", scope="session")
def error_fixture():
    return error


@pytest.fixture
def check(models):
    """Runs build/cupola_check_NAME on a family's model: {hook: relative error}."""

    def run(name, family, processing):
        done = subprocess.run(
            [str(_tool(f"cupola_check_{name}")), str(models(family)), processing],
            capture_output=True,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS="1"),
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
