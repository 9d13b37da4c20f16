"""Jacobians, direction ablations, sweeps and jobs, against the fake server."""

import builtins
import datetime

import grpc
import numpy as np
import pytest

import cupola
from cupola import _protos as protos
from cupola import jobs as cupola_jobs
from fake_pairs import D_SAE, JOB, block
from html_test import Page


@pytest.fixture(params=[None, 7, 1 << 20], ids=["whole", "7 bytes", "1 MiB"])
def chunked(request, server):
    server.chunk_bytes = request.param


@pytest.fixture
def pair(client):
    return client.pair("tiny/pair")


def test_a_jacobian(chunked, pair, server):
    found = pair.jacobian(["The sky", "The"], positions=[-1, 0], min_abs=0.125)
    request, metadata = server.last("GetJacobian")
    assert metadata["cupola-model"] == "tiny" and metadata["cupola-key"]
    assert request.dictionary == "tiny/pair:in"
    assert request.output_dictionary == "tiny/pair:out"
    assert request.min_abs == 0.125 and not request.HasField("all_inputs")
    assert request.mlp_input == protos.jacobian.ORIGINAL
    assert request.mask == protos.jacobian.SLOTS
    assert list(request.positions.every_prompt.values) == [-1, 0]
    assert len(found) == 4
    assert found.prompt.tolist() == [0, 0, 1, 1]
    assert found.position.tolist() == [2, 0, 1, 0]
    assert found.token_ids.tolist() == [2, 0, 1, 0]
    assert found.values.shape == (4, 2, 3) and found.values.dtype == np.float32
    for row, values in enumerate(found.values):
        np.testing.assert_array_equal(values, block(row).astype(np.float32))
    assert found.in_latents[0].tolist() == [5, 7, -1]
    assert found.out_latents[2].tolist() == [22, 3]
    assert found.csr is None and found.second_order is None
    assert found.mlp_output is None and found.gradients is None
    assert found.output_dictionary == "tiny/pair:out"
    assert found.output_dictionary_digest == "03" * 32
    assert "2 x 3" in repr(found) and "4 tokens" in repr(found)
    with pytest.raises(cupola.InvalidArgument, match='block="all"'):
        found.row(0, 0)


def test_a_jacobians_table(pair):
    found = pair.jacobian("The sky")
    frame = found.to_dataframe()
    assert list(frame.columns)[:2] == ["prompt", "position"]
    assert -1 not in frame["in_latent"].tolist()
    assert len(frame) == np.count_nonzero(found.values)
    top = found.top(2)
    assert top["value"].tolist() == [3.0, 2.0]
    assert top["in_latent"].tolist() == [5, 7]
    assert top["out_latent"].tolist() == [22, 3]


def test_rows_against_all_inputs(chunked, pair, server):
    found = pair.jacobian("The sky", block="all", min_abs=0.5, top=2)
    request, _ = server.last("GetJacobian")
    assert request.all_inputs.min_abs == 0.5 and request.all_inputs.top == 2
    assert found.values is None and found.csr.shape == (6, D_SAE)
    line = found.row(1, 1)
    assert line.shape == (D_SAE,)
    assert line[5] == 7 and line[40] == 8 and np.count_nonzero(line) == 2
    assert found.top(1)["in_latent"].tolist() == [40]
    assert "12 entries" in repr(found)
    assert "<table" in found.to_html() and "<table" in found._repr_html_()
    with pytest.raises(cupola.InvalidArgument, match='block="active"'):
        found.figure()


def test_everything_else_of_a_jacobian(chunked, pair, server):
    found = pair.jacobian(
        inputs=np.zeros((2, 4), np.float32),
        mlp_input="reconstruction",
        mask="positive",
        second_order=True,
        mlp_output=True,
        gradients=True,
    )
    request, _ = server.last("GetJacobian")
    assert request.mlp_input == protos.jacobian.RECONSTRUCTION
    assert request.mask == protos.jacobian.POSITIVE
    assert list(request.inputs.shape) == [2, 4]
    np.testing.assert_array_equal(found.second_order, 2 * found.values)
    assert found.mlp_output.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.gradients.shape == (2, 8)
    assert len(found.token_ids) == 0


def test_the_mlp_and_the_sandwich(pair, server):
    rows = np.zeros((2, 4), np.float32)
    assert pair.mlp(rows).shape == (2, 4)
    assert server.last("GetJacobian")[0].without_block
    features = pair.sandwich(rows)
    assert features.csr.shape == (2, D_SAE)
    assert features.csr[1, 21] == 1.5 and features.csr[1, 3] == 0.5


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"mlp_input": "clean"}, "mlp_input: .*'reconstruction', got 'clean'"),
        ({"mask": "all"}, "mask: .*'positive', got 'all'"),
        ({"block": "k"}, "block: expected 'active' or 'all', got 'k'"),
        ({"top": 3}, 'top: goes with block="all"'),
        ({"block": "all", "top": -1}, "top"),
        ({"inputs": [[0.0] * 4]}, "either prompts or inputs"),
    ],
)
def test_a_bad_jacobian_is_not_sent(pair, server, bad, message):
    with pytest.raises(cupola.InvalidArgument, match=message):
        pair.jacobian("The", **bad)
    assert not any(entry[0] == "GetJacobian" for entry in server.requests)


def test_dictionaries_that_do_not_go_together(client):
    raw = client.dictionary("tiny/pair:in", "raw")
    folded = client.dictionary("tiny/pair:out", "folded")
    with pytest.raises(cupola.InvalidArgument, match="'raw' and .* 'folded'"):
        client.pair(raw, folded).jacobian("The")
    folded.info = folded.info.__class__(
        **{**folded.info.__dict__, "model": "other"}
    )
    with pytest.raises(cupola.InvalidArgument, match="'tiny' and .* 'other'"):
        client.pair(raw, folded).jacobian("The")


def test_direction_ablations(chunked, pair, server):
    found = pair.ablate("The sky", draws=2, seed=9, step="strength", on_line=0.2)
    request, _ = server.last("AblateDirections")
    assert request.draw.per_token == 2 and request.draw.seed == 9
    assert request.strength
    assert request.on_line == pytest.approx(0.2)
    assert not request.HasField("cluster_drop")
    assert len(found) == 6 and found.row.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.position.tolist() == found.row.tolist()
    np.testing.assert_allclose(
        found.difference, -found.delta * found.jacobian, atol=1e-6
    )
    assert found.counts() == {"on line": 2, "cluster": 2, "outlier": 2}
    frame = found.to_dataframe()
    assert frame["class"].tolist()[:3] == ["on line", "cluster", "outlier"]
    assert "6 samples: 2 on line" in repr(found)


def test_given_samples_come_back_in_their_order(pair, server):
    # Rows 0-2 are of the first prompt, 3-4 of the second.
    table = [(4, 1, 2), (0, 5, 6), (3, 7, 8)]
    deltas = [0.5, 1.5, 2.5]
    found = pair.ablate(["The sky", "The"], samples=table, deltas=deltas)
    request, _ = server.last("AblateDirections")
    assert list(request.samples.rows) == [4, 0, 3]
    assert found.row.tolist() == [4, 0, 3]
    assert found.in_latent.tolist() == [1, 5, 7]
    assert found.out_latent.tolist() == [2, 6, 8]
    assert found.delta.tolist() == deltas
    assert found.prompt.tolist() == [1, 0, 1]
    assert found.position.tolist() == [1, 0, 0]
    swept = pair.sweep(["The sky", "The"], samples=table, curves=True)
    assert swept.strength.tolist() == [1, 5, 7]
    assert swept.curves[1, -1] == pytest.approx(2 * 6 + 1)


def test_sweeps(chunked, pair, server):
    found = pair.sweep("The sky", points=11, curves=True, tolerance=0.5)
    request, _ = server.last("Sweep")
    assert request.points == 11 and request.curves
    assert request.tolerance == 0.5 and not request.published_classes
    assert found.grid.shape == found.curves.shape == (3, 11)
    np.testing.assert_allclose(found.grid[:, -1], [6, 6, 6])
    assert found.counts() == {"linear": 1, "JumpReLU": 1, "other": 1}
    assert np.isnan(found.zero_first[0]) and found.zero_last[1] == 0.5
    given = pair.sweep("The", grid=[0, 0.25, 8], published_classes=True)
    request, _ = server.last("Sweep")
    assert list(request.grid) == [0, 0.25, 8] and request.published_classes
    assert given.curves is None
    assert given.grid.tolist() == [[0, 0.25, 8]] * 2
    with pytest.raises(cupola.InvalidArgument, match="curves=True"):
        given.figure()


@pytest.mark.parametrize(
    "call, bad, message",
    [
        ("ablate", {"samples": [(1, 2)]}, r"shape \[1, 2\]"),
        ("ablate", {"samples": [(0.5, 1, 2)]}, "float64"),
        ("ablate", {"samples": [(0, -1, 2)]}, "samples: in_latents"),
        ("ablate", {"deltas": [1.0]}, "deltas: goes with samples"),
        ("ablate", {"step": "twice"}, "'unit' or 'strength', got 'twice'"),
        ("ablate", {"draws": -1}, "draws"),
        ("sweep", {"grid": []}, "grid: expected at least one"),
        ("sweep", {"points": 0}, "points: expected at least 1"),
        ("sweep", {"points": 1.5}, "points"),
    ],
)
def test_bad_samples_are_not_sent(pair, server, call, bad, message):
    with pytest.raises(cupola.InvalidArgument, match=message):
        getattr(pair, call)("The", **bad)
    assert {entry[0] for entry in server.requests} <= {"Describe"}


# Figures.


def test_the_heat_map_has_a_slider_over_the_tokens(pair, server):
    server.words[3] = b" <i>is"
    found = pair.jacobian("The sky <i>is")
    figure = found.figure()
    (trace,) = figure.data
    assert list(map(list, trace.z)) == [[1, -0.5], [0, 2]]  # no padding
    assert trace.x == ("5 · 3", "7 · 2") and trace.y == ("20 · 1.5", "3 · 0.5")
    assert (trace.zmin, trace.zmax) == (-2, 2)
    steps = figure.layout.sliders[0].steps
    assert [step.label for step in steps][1:3] == ["1 'The'", "2 ' sky'"]
    changed, layout = steps[2].args
    assert changed["x"] == [["5 · 3", "7 · 2", "9 · 1"]]
    assert changed["z"] == [[[3, -0.5, 0.25], [0, 2, -2]]]
    assert "The<b> sky</b>" in layout["title.text"]
    assert "<i>" not in steps[3].label + steps[3].args[1]["title.text"]
    one = found.figure(-1)
    assert not one.layout.sliders and len(one.data[0].x) == 3
    with pytest.raises(cupola.InvalidArgument, match="token is 4; .* 4 rows"):
        found.figure(4)
    assert "plotly" in found.to_html(1) and "Jacobian of" in found._repr_html_()


def test_figures_of_inputs_have_rows(pair):
    found = pair.jacobian(inputs=np.zeros((2, 4), np.float32))
    labels = [step.label for step in found.figure().layout.sliders[0].steps]
    assert labels == ["row 0", "row 1"]


def test_figures_of_samples(pair):
    swept = pair.sweep("The sky", points=11, curves=True)
    figure = swept.figure(2)
    assert len(figure.data) == 4  # a curve and its line each
    np.testing.assert_allclose(figure.data[0].y, swept.curves[0])
    assert np.isnan(figure.data[3].y[0]) and not np.isnan(figure.data[3].y[-1])
    assert {t.name for t in figure.data if t.showlegend} == {
        "linear",
        "JumpReLU",
    }
    ablated = pair.ablate("The sky", draws=2)
    figure = ablated.figure()
    assert sum(len(t.x) for t in figure.data[:3]) == 6
    assert figure.data[0].name == "on line (2)"
    assert "plotly" in ablated._repr_html_() and "plotly" in swept._repr_html_()
    assert "6 samples" in ablated._repr_html_()


def test_without_plotly_there_are_tables(pair, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("plotly"):
            raise ImportError(f"No module named {name!r}")
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    answers = [
        pair.jacobian("The sky"),
        pair.ablate("The sky"),
        pair.sweep("The sky", curves=True),
    ]
    for answer in answers:
        with pytest.raises(ImportError, match="pip install plotly"):
            answer.figure()
        page = Page(answer._repr_html_())
        assert "pip install plotly" in page.text
        assert "table" in {tag for tag, _ in page.elements}


# Jobs.


def test_a_job_from_submission_to_result(pair, client, server):
    job = pair.accumulate(
        ["The sky", "The"], [1], block="all", dtype="float64", bins=3,
        histogram_end=1.0, chunk_tokens=500,
    )
    request, metadata = server.last("AccumulateJacobian")
    assert request.float64 and request.histogram_bins == 3
    assert request.chunk_tokens == 500 and request.histogram_end == 1.0
    assert request.jacobian.HasField("all_inputs")
    assert list(request.jacobian.positions.every_prompt.values) == [1]
    assert metadata["cupola-model"] == "tiny"
    assert job.id == JOB and job.info.state == "queued" and not job.info.ended
    assert job.info.seconds_left is None and job.info.tokens_per_second is None
    assert job.info.submitted == datetime.datetime(
        2023, 11, 14, 22, 13, 20, tzinfo=datetime.timezone.utc
    )
    server.jobs.watched = [([500, 1000, 2000], None)]
    told = list(job.watch())
    assert [info.tokens_done for info in told] == [500, 1000, 2000]
    assert told[0].state == "running" and told[0].seconds_left == 3
    assert "500 of 2,000 tokens (25%), 500 tokens/s, 3 s left" in str(told[0])
    assert job.info.state == "done"
    assert [other.id for other in client.jobs()] == [JOB]
    assert client.job(JOB).info == job.refresh()
    totals = job.result()
    assert totals.shape == (2, D_SAE) and totals.tokens == 2000
    assert totals.dtype == "float64" and "2,000 tokens" in repr(totals)
    job.delete()
    with pytest.raises(cupola.NotFound, match=JOB):
        job.refresh()


@pytest.fixture
def totals(pair):
    job = pair.accumulate("The sky")
    job.wait()
    return job.result()


def test_totals(totals, server):
    assert totals.count_above([10, 98.5, 99]).tolist() == [89, 1, 0]
    assert totals.share_above(49) == pytest.approx([0.5])
    request, _ = server.last("GetJacobianTotals")
    kinds = protos.jobs.JacobianTotalsRequest
    assert request.statistic == kinds.MEAN
    assert request.divisor == kinds.ALL_TOKENS
    top = totals.top(2, "max", per="active")
    request, _ = server.last("GetJacobianTotals")
    assert request.statistic == kinds.MAX
    assert request.divisor == kinds.OUTPUT_ACTIVE
    assert top["value"].tolist() == [99, 98]
    assert top["out_latent"].tolist() == [1, 1]
    assert top["in_latent"].tolist() == [49, 48]
    assert totals.rows(1)[:2].tolist() == [50, 51]
    assert totals.rows([1, 0]).shape == (2, D_SAE)
    assert totals.columns(3).tolist() == [3, 53]
    assert totals.active().tolist() == [7, 8]
    counts, edges = totals.histogram()
    assert counts.tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(edges[:-1], [0, 1 / 3, 2 / 3, 1])
    assert edges[-1] == np.inf
    for bad in ({"statistic": "median"}, {"per": "prompt"}):
        with pytest.raises(cupola.InvalidArgument, match="expected"):
            totals.top(1, **bad)
    with pytest.raises(cupola.InvalidArgument, match="rows"):
        totals.rows(-1)


def test_a_server_that_comes_back_is_watched_on(pair, server, monkeypatch):
    monkeypatch.setattr(cupola_jobs, "_LOOK", 0.01)
    job = pair.accumulate("The sky")
    gone = grpc.StatusCode.UNAVAILABLE
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    server.jobs.watched = [([500], gone), ([1000], late), ([1500, 2000], None)]
    told = [info.tokens_done for info in job.watch()]
    assert told == [500, 1000, 1500, 2000]


def test_jobs_that_do_not_get_done(pair, server):
    job = pair.accumulate("The sky")
    server.jobs.watched = [([500], grpc.StatusCode.INTERNAL)]
    with pytest.raises(cupola.CupolaError, match="failed: the disk is full"):
        job.wait()
    assert job.info.ended and "the disk is full" in str(job.info)
    assert job.resume().state == "queued"
    assert job.cancel().state == "cancelled"
    assert job.result().tokens == 2000  # what it got to
    with pytest.raises(cupola.InvalidArgument, match="dtype: .* got 'half'"):
        pair.accumulate("The sky", dtype="half")
    with pytest.raises(cupola.NotFound, match="job-9"):
        cupola_jobs.job(pair.input._client, "job-9")


def test_a_submission_sent_again_is_the_same_one(client, server):
    """A server that went away may have it: the request id tells."""
    pair = client.pair("tiny/pair")
    server.failures = [(grpc.StatusCode.UNAVAILABLE, "gone", ())]
    before = len(server.requests)
    assert pair.accumulate("The sky", name="mine", shard=(1, 3)).id == JOB
    sent = [
        request.options
        for method, request, _ in server.requests[before:]
        if method == "AccumulateJacobian"
    ]
    assert len(sent) == 2 and sent[0] == sent[1]
    assert sent[0].request_id and sent[0].name == "mine"
    assert (sent[0].shard.index, sent[0].shard.count) == (1, 3)
    pair.accumulate("The sky")
    assert server.last("AccumulateJacobian")[0].options.request_id != sent[0].request_id
    with pytest.raises(cupola.InvalidArgument, match="shard"):
        pair.accumulate("The sky", shard=3)
