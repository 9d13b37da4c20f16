"""The worked examples: run as a script is, and what they leave behind."""

import os
import subprocess
import sys

import pytest
from harness.server import ROOT

EXAMPLES = ROOT / "client/python/examples"


def run(name, server, **settings):
    """What an example prints."""
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "CUPOLA_ADDRESS": server.grpc, **settings},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def figures(folder, names):
    """Every figure is a page and a picture, and neither is empty."""
    pytest.importorskip("PIL.Image")
    from PIL import Image

    for name in names:
        page = (folder / f"{name}.html").read_text()
        assert "Plotly.newPlot" in page and "</html>" in page
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 300
            # Axes, text and something drawn: not one colour alone.
            assert sum(map(bool, picture.convert("L").histogram())) > 20
    assert {file.stem for file in folder.glob("*.png")} == set(names)
