"""The bar that a watched job draws: in terminals, in notebooks, nowhere else."""

import dataclasses
import datetime
import io
import re
import sys
import types

import cupola
import pytest
from cupola import _progress
from rich.console import Console

INFO = cupola.JobInfo(
    id="job-1",
    kind="match_features",
    title="small/sae <- first/sae, second/sae, third/sae, fourth/sae, fifth/sae",
    state="running",
    chunks_done=1,
    chunks=4,
    chunks_saved=0,
    tokens_done=4096,
    tokens=16384,
    seconds=8.0,
    tokens_per_second=1234.5,
    seconds_left=75.0,
    error="",
    submitted=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
)
DONE = dataclasses.replace(
    INFO, state="done", tokens_done=16384, tokens_per_second=None, seconds_left=None
)


@pytest.fixture
def job():
    return types.SimpleNamespace(info=INFO, id=INFO.id)


def drawn(job, wanted, infos, terminal=True, width=100):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    with _progress.bar(job, wanted, console) as show:
        for info in infos:
            show(info)
    return re.sub(r"\x1b\[[?\d]*[A-Za-z]", "", out.getvalue())


def test_a_terminal_shows_one_line(job):
    said = drawn(job, None, [INFO, DONE])
    last = said.rstrip().splitlines()[-1]
    assert "done" in last and "100%" in last and "16,384 tokens in 8 s" in last
    # A title that is too long is cut, and not wrapped.
    assert "match_features small/sae" in last and "…" in last
    assert all(len(line) < 130 for line in said.splitlines())


def test_how_fast_and_how_long(job):
    half = dataclasses.replace(INFO, name="nightly [run]")
    said = drawn(job, None, [half])
    assert "25%" in said and "1,234 tokens/s, 1:15 left" in said
    assert "nightly [run]" in said  # no markup of rich's
    assert _progress._clock(3725) == "1:02:05"
    failed = dataclasses.replace(DONE, state="failed", error="the disk is full")
    assert "the disk is full" in drawn(job, None, [failed])


def test_elsewhere_there_is_none_unless_asked(job):
    assert drawn(job, None, [INFO], terminal=False) == ""
    assert drawn(job, False, [INFO]) == ""
    assert "done" in drawn(job, True, [DONE], terminal=False)


def test_a_notebook_shows_html(job, monkeypatch):
    shown = []

    def display(page, display_id):
        assert display_id
        shown.append(page)
        return types.SimpleNamespace(update=shown.append)

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    screen = types.ModuleType("IPython.display")
    screen.HTML, screen.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", screen)
    named = dataclasses.replace(DONE, name="<b>night</b>")
    assert drawn(job, None, [INFO, named], terminal=False) == ""
    assert len(shown) == 3
    assert "width:25.0%" in shown[0] and "1,234 tokens/s" in shown[1]
    assert "width:100.0%" in shown[2] and "&lt;b&gt;night" in shown[2]
    # Not in IPython without a kernel; nor where none is wanted.
    assert drawn(job, False, [INFO]) == "" and len(shown) == 3
    shell.kernel = None
    assert "25%" in drawn(job, None, [INFO]) and len(shown) == 3
