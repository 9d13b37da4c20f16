"""Ablations and sweeps of latent directions through gRPC against an independent
sandwich in float64, with the published definitions written anew."""

import cupola
import numpy as np
import pytest
import torch
from harness.lens import hooked
from harness.published import ablation_class, sweep_class
from harness.sandwich import Sandwich, jacobian, through_mlp
from harness.server import MEMORY, Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

TOLERANCE = 5e-5
LAYER = 1
NORMALIZED = f"blocks.{LAYER}.ln2.hook_normalized"
MLP_OUT = f"blocks.{LAYER}.hook_mlp_out"
PROMPTS = [[3, 41, 7, 200, 13], [9, 8, 7]]
POSITIONS = [0, 2]
# Pairs as (family, input dictionary, output dictionary).
CASES = [
    ("gpt2", "pair:in", "pair:out"),
    ("gemma2", "in-gated", "out-jumprelu"),
    ("llama", "in-layer_norm", "out-topk"),
]


class Entries:
    def __init__(self, folder):
        self.models, self.entries, self.folders = {}, {}, {}
        for family, first, second in CASES:
            self.models[family] = make_models.make(family, folder / family)
            if first == "pair:in":
                path = make_dictionaries.make_pair(
                    folder / "pair", d_in=D_MODEL, d_sae=90, k=10,
                    hook_name=NORMALIZED,
                )
                self.entries[f"{family}/pair"] = (family, path)
                for half in ("in", "out"):
                    self.folders[f"{family}/pair:{half}"] = (
                        make_dictionaries.split_pair(path, half, folder / half)
                    )
                continue
            for name, hook in ((first, NORMALIZED), (second, MLP_OUT)):
                kind = name.partition("-")[2]
                options = {}
                if kind == "layer_norm":
                    kind, options = "standard", {"normalize_activations": kind}
                path = make_dictionaries.make(
                    kind, folder / family / name, d_in=D_MODEL, d_sae=70, k=10,
                    hook_name=hook, seed=len(self.entries), **options,
                )
                self.entries[f"{family}/{name}"] = (family, path)
                self.folders[f"{family}/{name}"] = path


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return Entries(tmp_path_factory.mktemp("entries"))


@pytest.fixture(scope="module", params=MEMORY, ids=["products", "gathered"])
def client(request, entries, tmp_path_factory):
    catalog = catalog_text(entries.models, entries.entries)
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, catalog, "--no-self_check", *request.param) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


class Oracle:
    def __init__(self, entries, family, first, second):
        lens = hooked(family, "raw")
        self.sandwich = Sandwich(
            entries.folders[f"{family}/{first}"],
            through_mlp(lens, LAYER, "normalized"),
            entries.folders[f"{family}/{second}"],
        )
        self.tokens = []
        for prompt in PROMPTS:
            _, cache = lens.run_with_cache(torch.tensor([prompt]))
            for position in POSITIONS:
                self.tokens.append(self.sandwich.at(cache[NORMALIZED][0, position]))

    def strength(self, row, latent):
        return self.tokens[row][0][latent].item()

    def value(self, row, latent, by, out):
        """The output latent with the input latent moved by `by`."""
        acts, point = self.tokens[row]
        moved = acts.clone()
        moved[latent] += by
        return self.sandwich.activations(point)(moved)[out].item()

    def slope(self, row, latent, out):
        acts, point = self.tokens[row]
        whole = jacobian(self.sandwich.pre_activations(point), acts)
        return whole[out, latent].item()


@pytest.mark.parametrize("step", ["unit", "strength"])
@pytest.mark.parametrize(("family", "first", "second"), CASES)
def test_ablations(entries, client, family, first, second, step):
    oracle = Oracle(entries, family, first, second)
    pair = client.pair(f"{family}/{first}", f"{family}/{second}")
    found = pair.ablate(PROMPTS, POSITIONS, draws=6, seed=3, step=step)
    assert len(found) == 6 * len(oracle.tokens)
    # Only a TopK's competition is skipped.
    assert 0 <= found.skipped_share < 1
    assert found.skipped_share == 0 or family != "gemma2"
    assert found.row.tolist() == sorted(found.row.tolist())
    assert found.prompt.tolist() == [r // 2 for r in found.row]
    assert found.position.tolist() == [POSITIONS[r % 2] for r in found.row]
    scale = max(np.abs(found.before).max(), np.abs(found.after).max(), 1)
    compared = 0
    for i, (row, latent, out) in enumerate(
        zip(found.row, found.in_latent, found.out_latent)
    ):
        delta = 1.0 if step == "unit" else oracle.strength(row, latent)
        before = oracle.value(row, latent, 0.0, out)
        after = oracle.value(row, latent, -delta, out)
        assert abs(found.delta[i] - delta) <= TOLERANCE * scale
        assert abs(found.before[i] - before) <= TOLERANCE * scale
        # A latent at the edge of its selection may be on or off.
        edge = [oracle.value(row, latent, -delta + e, out) for e in (-1e-3, 1e-3)]
        if min(edge) == 0 < max(edge):
            continue
        compared += 1
        assert abs(found.after[i] - after) <= TOLERANCE * scale
        slope = oracle.slope(row, latent, out)
        assert abs(found.jacobian[i] - slope) <= TOLERANCE * max(1, abs(slope))
        error = abs(delta * slope + after - before)
        if abs(error - 0.1) > 1e-3:
            assert found.kind[i] == ablation_class(slope, delta, after - before)
    assert compared > 0.8 * len(found)
    assert sum(found.counts().values()) == len(found)
    assert len(found.to_dataframe()) == len(found)
    again = pair.ablate(PROMPTS, POSITIONS, draws=6, seed=3, step=step)
    assert again.from_cache and again.in_latent.tolist() == found.in_latent.tolist()
    other = pair.ablate(PROMPTS, POSITIONS, draws=6, seed=4, step=step)
    assert other.in_latent.tolist() != found.in_latent.tolist()


def test_given_samples_and_deltas(client):
    pair = client.pair("gpt2/pair")
    drawn = pair.ablate(PROMPTS, POSITIONS, draws=3)
    order = np.random.default_rng(0).permutation(len(drawn))
    table = np.stack([drawn.row, drawn.in_latent, drawn.out_latent], 1)[order]
    given = pair.ablate(PROMPTS, POSITIONS, table)
    for name in ("row", "in_latent", "out_latent", "kind"):
        assert getattr(given, name).tolist() == getattr(drawn, name)[order].tolist()
    np.testing.assert_allclose(given.after, drawn.after[order], atol=1e-5)
    nothing = pair.ablate(PROMPTS, POSITIONS, table, deltas=np.zeros(len(table)))
    np.testing.assert_allclose(nothing.difference, 0, atol=1e-5)
    assert nothing.counts()["on line"] == len(table)
    small = pair.ablate(PROMPTS, POSITIONS, table, deltas=np.full(len(table), 1e-2))
    on = (small.before > 0.05) & (small.after > 0)
    np.testing.assert_allclose(
        small.difference[on], -1e-2 * small.jacobian[on], atol=1e-4
    )


@pytest.mark.parametrize(("family", "first", "second"), CASES)
def test_sweeps(entries, client, family, first, second):
    oracle = Oracle(entries, family, first, second)
    pair = client.pair(f"{family}/{first}", f"{family}/{second}")
    found = pair.sweep(PROMPTS, POSITIONS, points=40, draws=4, curves=True)
    assert found.curves.shape == (len(found), 40) == found.grid.shape
    scale = max(np.abs(found.curves).max(), 1)
    compared = points = 0
    for i, (row, latent, out) in enumerate(
        zip(found.row, found.in_latent, found.out_latent)
    ):
        strength = oracle.strength(row, latent)
        assert abs(found.strength[i] - strength) <= TOLERANCE * scale
        last = max(5, strength + 1)
        grid = np.linspace(0, last, 40)
        np.testing.assert_allclose(found.grid[i], grid, atol=TOLERANCE * last)
        curve = np.array([oracle.value(row, latent, t - strength, out) for t in grid])
        same = (curve > 0) == (found.curves[i] > 0)
        points += same.sum()
        assert np.abs(curve - found.curves[i])[same].max() <= 4 * TOLERANCE * scale
        kind, slope, intercept, margin = sweep_class(grid, curve)
        if same.all() and margin > 1e-3:
            compared += 1
            assert found.kind[i] == kind
            assert found.slope[i] == pytest.approx(slope, abs=1e-3)
            assert found.intercept[i] == pytest.approx(intercept, abs=1e-3)
            zeros = np.flatnonzero(curve == 0)
            if len(zeros):
                assert found.zero_first[i] == pytest.approx(grid[zeros[0]], abs=1e-4)
                assert found.zero_last[i] == pytest.approx(grid[zeros[-1]], abs=1e-4)
            else:
                assert np.isnan(found.zero_first[i])
    assert points > 0.98 * found.curves.size
    assert compared > 0.7 * len(found)
    published = pair.sweep(
        PROMPTS, POSITIONS, points=40, draws=4, published_classes=True
    )
    assert published.curves is None
    assert published.kind.tolist() == [max(k, 1) for k in found.kind]


def test_sweeps_over_a_grid_share_their_points(client):
    pair = client.pair("gpt2/pair")
    drawn = pair.ablate(PROMPTS, POSITIONS, draws=1)
    grid = [0.0, 0.5, 2.5]
    table = [
        (row, latent, out)
        for row, latent in zip(drawn.row, drawn.in_latent)
        for out in drawn.out_latent[:3]
    ]
    found = pair.sweep(PROMPTS, POSITIONS, table, grid=grid, curves=True)
    assert found.grid.tolist() == [grid] * len(table)
    for i, sample in enumerate(table):
        alone = pair.sweep(PROMPTS, POSITIONS, [sample], grid=grid, curves=True)
        np.testing.assert_allclose(alone.curves[0], found.curves[i], atol=1e-5)


def test_bad_values(client):
    pair = client.pair("gpt2/pair")
    sample = [(0, 1, 2)]
    for ask, bad, message in [
        (pair.ablate, dict(samples=[(9, 1, 2)]), r"samples.rows\[0\] is 9"),
        (pair.ablate, dict(samples=[(0, 90, 2)]), r"samples.in_latents\[0\] is 90"),
        (pair.ablate, dict(samples=[(0, 1, 90)]), r"samples.out_latents\[0\] is 90"),
        (pair.ablate, dict(samples=[(0, 1)]), "samples: expected"),
        (pair.ablate, dict(samples=sample, deltas=[1, 2]), "samples.deltas has 2"),
        (pair.ablate, dict(samples=sample, deltas=[np.inf]), "samples.deltas"),
        (pair.ablate, dict(draws=0), "draw.per_token is 0"),
        (pair.ablate, dict(step="twice"), "step: expected"),
        (pair.ablate, dict(on_line=-1.0), "on_line is -1"),
        (pair.sweep, dict(samples=sample, grid=[]), "grid: expected"),
        (pair.sweep, dict(samples=sample, grid=[0, np.nan]), r"grid\[1\] is nan"),
        (pair.sweep, dict(samples=sample, points=10**6), "points is 1000000"),
        (pair.sweep, dict(samples=sample, tolerance=0.0), "tolerance is 0"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=message):
            ask(PROMPTS, POSITIONS, **bad)
    jacobian = pair.jacobian(PROMPTS, POSITIONS)
    idle = next(i for i in range(90) if i not in jacobian.in_latents[0])
    out = int(jacobian.out_latents[0, 0])
    with pytest.raises(cupola.InvalidArgument, match="not active at row 0"):
        pair.ablate(PROMPTS, POSITIONS, [(0, idle, out)], step="strength")
