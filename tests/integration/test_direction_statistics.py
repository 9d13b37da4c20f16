"""The job "direction_statistics" against what the same questions about prompts
answer, put together by hand: the table, rows where a latent is active, five
losses, mean attribution, boosts; whatever the chunks and shards."""

import cupola
import numpy as np
import pandas as pd
import pytest
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, HOOK, make_dictionaries, make_models

SAE = "tiny/sae"
DIRECTIONS = [3, 40, 77]
TABLE = dict(min_share=0.1, max_latents=12)


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(21)
    return [random.integers(3, 90, size=int(n)).tolist() for n in random.integers(4, 15, size=30)]


@pytest.fixture(scope="module")
def client(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "standard", folder / "sae", d_in=D_MODEL, hook_name=HOOK, seed=1
    )
    catalog = catalog_text({"tiny": model}, {SAE: ("tiny", sae)})
    with Server(tmp_path_factory.mktemp("directions"), catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            client.dataset("corpus", rows)
            yield client


@pytest.fixture(scope="module")
def corpus(client):
    return client.dataset("corpus").select("tiny")


def result(job):
    job.wait(progress=False)
    return job.result()


@pytest.fixture(scope="module")
def statistics(client, corpus):
    sae = client.dictionary(SAE)
    job = sae.direction_statistics(
        corpus,
        top_k=4,
        rows_per_latent=6,
        mean_rows=25,
        directions=DIRECTIONS,
        attribution="heads",
        boost_rows=17,
        chunk_rows=7,
        name="all of it",
    )
    assert (job.info.kind, job.info.chunks) == ("direction_statistics", 5)
    assert job.info.tokens == sum(len(row) for row in client.dataset("corpus").tokens(
        corpus_tokenization(client), 0, 30
    ))
    return result(job)


def corpus_tokenization(client):
    return client.dataset("corpus").tokenize("tiny").tokenization


def check_table(found, wanted):
    assert found["latent"].tolist() == wanted["latent"].tolist()
    assert found["prompts"].tolist() == wanted["prompts"].tolist()
    for name in ("loss_increase", "loss_increase_encoded"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)
    for name in ("mean_activation", "share_active"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=5e-5)


def test_the_table_is_that_of_prompts(client, rows, statistics):
    wanted = client.dictionary(SAE).ablation_table(
        rows, mean_prompts=25, prompts_per_latent=6, **TABLE
    )
    assert len(wanted) > 5 and (wanted["prompts"] == 6).any()
    check_table(statistics.table(**TABLE), wanted)
    # Other thresholds are asked of the same result.
    other = dict(share_of_max=0.5, min_share=0.2, max_latents=5)
    wanted = client.dictionary(SAE).ablation_table(
        rows, mean_prompts=25, prompts_per_latent=6, **other
    )
    check_table(statistics.table(**other), wanted)


def test_rows_where_latents_are_active(client, rows, statistics):
    sae = client.dictionary(SAE)
    features = sae.features(rows)
    acts, row, position = features.csr.toarray(), features.prompt, features.position
    last = np.array([len(rows[r]) for r in row]) - 1
    ablated = sae.ablate(rows, position=-2).to_dataframe()
    everything = statistics.active(list(range(statistics.d_sae)))
    looked_at = 0
    for latent in range(0, statistics.d_sae, 5):
        scored = (position == last - 1) & (acts[:, latent] > np.float32(0.1))
        found = everything[everything["latent"] == latent]
        assert found["row"].tolist() == row[scored][:6].tolist()
        np.testing.assert_allclose(found["activation"], acts[scored, latent][:6], rtol=5e-5)
        assert found["position"].tolist() == position[scored][:6].tolist()
        mine = ablated[ablated["latent"] == latent].set_index("prompt")
        increase = mine["loss_increase"].reindex(found["row"])
        np.testing.assert_allclose(found["loss_increase"], increase, atol=1e-4)
        seen = np.where(position < last, acts[:, latent], 0)
        counts = statistics.counts(latent)
        assert counts["count"].tolist() == [scored.sum()]
        np.testing.assert_allclose(counts["max"], [seen.max()], rtol=5e-5)
        best = sorted(((-seen[row == r].max(), r) for r in range(len(rows))))
        best = [(r, -value) for value, r in best if value < 0][:4]
        top = statistics.top(latent)
        assert top["row"].tolist() == [r for r, _ in best]
        np.testing.assert_allclose(top["value"], [v for _, v in best], rtol=5e-5)
        looked_at += len(found)
    assert looked_at > 20


def test_five_losses(client, rows, statistics):
    sae, model = client.dictionary(SAE), client.model("tiny")
    at = [[len(row) - 2] for row in rows]
    hook = sae.info.hook_out or HOOK
    runs = {
        "zero": cupola.Zero(hook, positions=at),
        "reconstruction": cupola.Reconstruct(SAE, positions=at),
        "ablated": cupola.SubtractLatents(SAE, DIRECTIONS, positions=at),
        "reconstruction_ablated": cupola.Reconstruct(
            SAE, {latent: 0.0 for latent in DIRECTIONS}, positions=at
        ),
    }
    found = statistics.losses()
    assert found.rows == len(rows)
    for name, change in runs.items():
        run = model.run(rows, [change], positions=at)
        losses = np.concatenate([loss for loss in run.loss])
        clean = np.concatenate([loss for loss in run.loss.clean])
        assert abs(found.losses[name] - losses.mean()) < 1e-4
        assert abs(found.increases[name] - (losses - clean).mean()) < 1e-4
        assert abs(found.deviations[name] - (losses - clean).std()) < 1e-4
        assert abs(found.losses["clean"] - clean.mean()) < 1e-4
    assert found.increases["clean"] == found.deviations["clean"] == 0
    quality = sae.quality(rows, positions=at)
    assert found.recovered() == pytest.approx(quality.loss_recovered, rel=1e-3)


def test_mean_attribution_and_boosts(client, rows, statistics):
    model = client.model("tiny")
    at = [[len(row) - 2] for row in rows]
    wanted = model.attribute(rows, [[row[-1]] for row in rows], level="heads", positions=at)
    found = statistics.attribution()
    assert list(found.index) == wanted.components
    mean = wanted.values[:, :, 0].mean(0)
    np.testing.assert_allclose(found, mean, atol=5e-5 * np.abs(wanted.values).max())
    change = cupola.SubtractLatents(SAE, DIRECTIONS, positions=at[:17])
    counts = np.bincount(np.concatenate(rows), minlength=300)
    for min_count, tokens in [(0, np.flatnonzero(counts > 0)), (4, np.flatnonzero(counts > 4))]:
        run = model.run(
            rows[:17],
            [change],
            positions=at[:17],
            boosts=5,
            min_logprob=-7.0,
            boost_tokens=tokens.tolist(),
        )
        table = statistics.boosts(5, min_logprob=-7.0, min_count=min_count)
        values = np.concatenate([run.boosts.boost, run.boosts.bottom_boost])
        np.testing.assert_allclose(table["boost"], values, atol=1e-5)
        assert table["token_id"].tolist()[:3] == run.boosts.tokens.tolist()[:3]
        assert table["token_id"].tolist()[5:8] == run.boosts.bottom_tokens.tolist()[:3]
        assert table["token"].map(type).eq(str).all()


def test_prompts_candidates_and_chosen_latents(client, rows):
    sae = client.dictionary(SAE)
    bare = dict(losses=False, mean_rows=25, rows_per_latent=6)
    scan = result(sae.direction_statistics(rows, ablate=False, chunk_rows=3, **bare))
    candidates = scan.table(**TABLE)
    assert candidates["loss_increase"].isna().all() and (candidates["prompts"] == 0).all()
    assert candidates["mean_activation"].is_monotonic_decreasing
    chosen = candidates["latent"].tolist()[:4]
    some = result(sae.direction_statistics(rows, ablate=chosen, **bare))
    wanted = sae.ablation_table(rows, mean_prompts=25, prompts_per_latent=6, **TABLE)
    check_table(
        some.table(**TABLE), wanted[wanted["latent"].isin(chosen)].reset_index(drop=True)
    )
    earlier = result(sae.direction_statistics(rows, position=1, **bare))
    at_one = sae.ablation_table(
        [row[:3] for row in rows], 1, mean_prompts=25, prompts_per_latent=6, **TABLE
    )
    check_table(earlier.table(**TABLE), at_one)
    for missing in (scan.losses, scan.attribution):
        with pytest.raises(cupola.InvalidArgument, match="submitted with"):
            missing()
    with pytest.raises(cupola.InvalidArgument, match="submitted without boost_rows"):
        scan.boosts()


def test_shards_merge_into_what_one_job_is(client, corpus, statistics, tmp_path):
    paths = []
    for index in range(2):
        job = client.submit(
            "direction_statistics",
            SAE,
            corpus,
            top_k=4,
            rows_per_latent=6,
            mean_rows=25,
            directions=DIRECTIONS,
            attribution="heads",
            boost_rows=17,
            chunk_rows=7,
            shard=(index, 2),
        )
        job.wait(progress=False)
        paths.append(tmp_path / str(index))
        job.save_shard(paths[-1])
    merged = client.merge_shards(paths).result()
    assert merged.rows == statistics.rows
    check_table(merged.table(**TABLE), statistics.table(**TABLE))
    everyone = list(range(merged.d_sae))
    # Which rows are kept does not hang on the shards; nor do bits but the losses'.
    exact = ["latent", "row", "position", "activation"]
    pd.testing.assert_frame_equal(
        merged.active(everyone)[exact], statistics.active(everyone)[exact]
    )
    pd.testing.assert_frame_equal(merged.top(everyone), statistics.top(everyone))
    pd.testing.assert_series_equal(merged.attribution(), statistics.attribution(), rtol=1e-6)
    for name, loss in statistics.losses().losses.items():
        assert merged.losses().losses[name] == pytest.approx(loss, rel=1e-6)
    pd.testing.assert_frame_equal(
        merged.boosts(4, min_count=0), statistics.boosts(4, min_count=0), rtol=1e-6
    )


def test_bad_input(client, corpus, statistics):
    sae = client.dictionary(SAE)
    for options, said in [
        (dict(position=-1), "position is -1, which no token follows; accepted"),
        (dict(position=2**62), "position is 4611686018427387904; accepted"),
        (dict(position=-9), r"positions: -9 is outside row \d+ of the dataset, which has"),
        (dict(position=9), "positions: 9 is outside|positions: 10 is outside"),
        (dict(active_above=-1.0), "active_above is -1; accepted"),
        (dict(active_above=float("nan")), "active_above is nan; accepted"),
        (dict(mean_rows=0), "mean_rows is 0; accepted: 1 to"),
        (dict(rows_per_latent=-1), "rows_per_latent is -1; accepted"),
        (dict(chunk_rows=10**6), "chunk_rows is 1000000; accepted"),
        (dict(boost_rows=5), "directions is empty; accepted with boost_rows"),
        (dict(directions=[10**6]), "directions: 1000000; accepted: 0 to"),
        (dict(ablate=[10**6]), "ablate_latents: 1000000; accepted: 0 to"),
        (dict(attribution="bits"), "attribution: expected 'layers'"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            sae.direction_statistics(corpus, **options)
    with pytest.raises(cupola.ResourceExhausted, match="mean_rows 16000000.*accepted"):
        sae.direction_statistics(corpus, mean_rows=16_000_000)
    for ask, said in [
        (lambda: statistics.table(share_of_max=-1.0), "share_of_max is -1; accepted"),
        (lambda: statistics.table(min_share=float("inf")), "min_share is inf; accepted"),
        (lambda: statistics.table(max_latents=0), "max_latents is 0; accepted"),
        (lambda: statistics.top(statistics.d_sae), "latents: .*; accepted: 0 to"),
        (lambda: statistics.boosts(10**6), "boosts is 1000000; accepted: 0 to"),
        (lambda: statistics.boosts(3, float("nan")), "min_logprob is no number"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            ask()
