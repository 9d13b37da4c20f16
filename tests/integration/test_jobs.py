"""accumulate_jacobian from end to end: against sums of pair.jacobian's blocks,
through cancellation and a killed server."""

import cupola
import numpy as np
import pytest
from harness.server import MEMORY, Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

PAIR = "tiny/pair"
HOOK = "blocks.1.ln2.hook_normalized"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    pair = make_dictionaries.make_pair(
        folder / "pair", d_in=D_MODEL, d_sae=90, k=10, hook_name=HOOK, seed=3
    )
    return catalog_text({"tiny": model}, {PAIR: ("tiny", pair)})


@pytest.fixture(scope="module", params=MEMORY, ids=["products", "gathered"])
def client(request, catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    with Server(folder, catalog, *request.param) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


@pytest.fixture(scope="module")
def pair(client):
    return client.pair(PAIR)


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(5)
    return [random.integers(3, 90, size=n).tolist() for n in (9, 14, 5, 11, 12, 7)]


def dense(pair, prompts, **options):
    """Sums, maxima, counts [d_out, d_in] and output counts, in float64."""
    answer = pair.jacobian(prompts, **options)
    d_out, d_in = pair.output.info.d_sae, pair.input.info.d_sae
    total, largest, count = (np.zeros((d_out, d_in)) for _ in range(3))
    active = np.zeros(d_out, np.int64)
    k_out = answer.out_latents.shape[1]
    for token in range(len(answer)):
        for slot in range(k_out):
            out = answer.out_latents[token, slot]
            if out < 0:
                continue
            active[out] += 1
            row = np.zeros(d_in)
            if answer.csr is not None:
                row = np.abs(answer.row(token, slot)).astype(np.float64)
            else:
                real = answer.in_latents[token] >= 0
                row[answer.in_latents[token][real]] = np.abs(
                    answer.values[token, slot][real]
                )
            total[out] += row
            largest[out] = np.maximum(largest[out], row)
            count[out] += row > 0
    return len(answer), total, largest, count, active


def check(totals, expected):
    tokens, total, largest, count, active = expected
    tolerance = 5e-5 * largest.max()
    assert totals.tokens == tokens
    assert totals.shape == total.shape
    np.testing.assert_array_equal(totals.active(), active)
    outs = np.flatnonzero(active)[:5].tolist()
    ins = np.flatnonzero(total.sum(0))[:5].tolist()
    np.testing.assert_allclose(
        totals.rows(outs, "sum"), total[outs], atol=tolerance * tokens
    )
    np.testing.assert_allclose(totals.rows(outs, "max"), largest[outs], atol=tolerance)
    np.testing.assert_array_equal(totals.rows(outs, "count"), count[outs])
    np.testing.assert_allclose(
        totals.columns(ins), total[:, ins].T / tokens, atol=tolerance
    )
    np.testing.assert_allclose(
        totals.columns(ins, per="active"),
        (total[:, ins] / np.maximum(active, 1)[:, None]).T,
        atol=tolerance,
    )
    thresholds = [0.0, *np.quantile(total[total > 0] / tokens, [0.3, 0.7])]
    mean = total / tokens
    slack = np.abs(mean[..., None] - thresholds) < 1e-6 * mean.max()
    above = totals.count_above(thresholds)
    exact = (mean[..., None] > thresholds).sum((0, 1))
    assert np.all(np.abs(above - exact) <= slack.sum((0, 1)) * (np.array(thresholds) > 0))
    np.testing.assert_allclose(
        totals.share_above(thresholds), above / total.size
    )
    top = totals.top(7, "sum")
    np.testing.assert_allclose(
        top["value"], np.sort(total.ravel())[::-1][:7], rtol=1e-4
    )
    np.testing.assert_allclose(
        total[top["out_latent"], top["in_latent"]], top["value"], rtol=1e-4
    )
    counts, edges = totals.histogram()
    assert counts.sum() == count.sum()
    assert len(edges) == len(counts) + 1


@pytest.mark.parametrize("block", ["active", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_totals_are_the_sums_of_blocks(pair, prompts, block, dtype):
    job = pair.accumulate(prompts, block=block, dtype=dtype, chunk_tokens=7)
    assert job.info.chunks == -(-sum(map(len, prompts)) // 7)
    seen = [info.tokens_done for info in job.watch()]
    assert seen == sorted(seen)
    assert job.info.state == "done"
    totals = job.result()
    assert totals.dtype == dtype
    check(totals, dense(pair, prompts, block=block))
    job.delete()
    with pytest.raises(cupola.NotFound, match=job.id):
        job.refresh()


def test_positions_and_mlp_input(pair, prompts):
    job = pair.accumulate(
        prompts, positions=[1, -1], mlp_input="reconstruction", chunk_tokens=3
    )
    job.wait()
    check(
        job.result(),
        dense(pair, prompts, positions=[1, -1], mlp_input="reconstruction"),
    )


def test_chunks_are_bounded_by_what_their_passes_take_in(pair):
    random = np.random.default_rng(8)
    many = [random.integers(3, 90, size=40).tolist() for _ in range(700)]
    job = pair.accumulate(many, positions=-1, chunk_tokens=8192)
    assert job.info.tokens == 700
    assert job.info.chunks == 2  # of at most 16,384 tokens
    assert job.wait().tokens_done == 700
    with pytest.raises(cupola.InvalidArgument, match="accepted: 0 .* to 256"):
        pair.accumulate(many, block="all", chunk_tokens=8192)


def test_jobs_are_listed(client, pair, prompts):
    job = pair.accumulate(prompts[:1])
    assert job.id in [listed.id for listed in client.jobs()]
    assert client.job(job.id).wait().state == "done"
    assert PAIR in client.job(job.id).info.title


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dtype": "float16"}, "dtype: expected 'float32' or 'float64'"),
        ({"bins": -1}, "histogram_bins is -1; accepted: 1 to"),
        ({"histogram_end": float("nan")}, "histogram_end is"),
        ({"positions": [100]}, "100"),
        ({"chunk_tokens": -2}, "chunk_tokens is -2; accepted: 0"),
    ],
)
def test_refusals(pair, prompts, options, message):
    with pytest.raises(cupola.InvalidArgument, match=message):
        pair.accumulate(prompts, **options)


def test_refused_queries(pair, prompts):
    totals = pair.accumulate(prompts[:1]).result()
    with pytest.raises(cupola.InvalidArgument, match="rows: 100000; accepted: 0 to"):
        totals.rows(100000)
    with pytest.raises(cupola.InvalidArgument, match="thresholds: -1"):
        totals.count_above([-1.0])
    with pytest.raises(cupola.InvalidArgument, match="statistic: expected"):
        totals.top(3, "median")


def test_a_killed_server_goes_on(catalog, tmp_path, prompts):
    """To the same bits as a straight run."""
    many = prompts * 40
    flags = ("--job_checkpoint_seconds=0",)
    server = Server(tmp_path, catalog, *flags)
    server.wait_until_loaded()
    with cupola.connect(server.grpc) as client:
        job = client.pair(PAIR).accumulate(many, chunk_tokens=8)
        for info in job.watch():
            if info.chunks_saved >= 2:
                break
        server.kill()
    assert not info.ended, "too short to be interrupted"
    with Server(tmp_path, catalog, *flags) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            resumed = client.job(job.id)
            assert resumed.refresh().chunks_saved >= 2
            resumed.wait()
            straight = client.pair(PAIR).accumulate(many, chunk_tokens=8)
            one, other = resumed.result(), straight.result()
            assert one.tokens == other.tokens == 40 * sum(map(len, prompts))
            latents = np.flatnonzero(other.active()).tolist()
            for statistic in ("sum", "max", "count"):
                np.testing.assert_array_equal(
                    one.rows(latents, statistic), other.rows(latents, statistic)
                )
            np.testing.assert_array_equal(one.histogram()[0], other.histogram()[0])


def test_a_server_in_good_order_ends_while_a_job_runs(catalog, tmp_path, prompts):
    many = prompts * 40
    with Server(tmp_path, catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            job = client.pair(PAIR).accumulate(many, chunk_tokens=8)
            for info in job.watch():
                if info.chunks_done >= 2:
                    break
            assert server.stop() == 0
    with Server(tmp_path, catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            again = client.job(job.id)
            assert again.refresh().chunks_saved >= 2
            assert again.wait().tokens_done == 40 * sum(map(len, prompts))


def test_a_cancelled_job_has_what_it_got_to(client, pair, prompts):
    job = pair.accumulate(prompts * 40, chunk_tokens=8)
    for info in job.watch():
        if info.chunks_done >= 2:
            break
    # While it runs, people are served.
    assert len(pair.jacobian(prompts[0])) == len(prompts[0])
    assert job.cancel().state == "cancelled"
    part = job.result()
    assert part.tokens == job.info.tokens_done < job.info.tokens
    with pytest.raises(cupola.CupolaError, match="cancelled"):
        job.wait()
    job.resume()
    assert job.wait().tokens_done == 40 * sum(map(len, prompts))
    assert job.result().tokens == 40 * sum(map(len, prompts))
