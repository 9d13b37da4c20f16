"""The classes of ten thousand sweeps and ten thousand direction ablations against
the published definitions in float64: equal, except where float64 itself is nearer
to another class than float32 answers are promised to be."""

import cupola
import numpy as np
import pytest
import torch
from harness.lens import hooked
from harness.published import ablation_class, ablation_margin, sweep_class
from harness.sandwich import Sandwich, through_mlp
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

TOLERANCE = 5e-5
LAYER = 1
NORMALIZED = f"blocks.{LAYER}.ln2.hook_normalized"
FAMILIES = ["gpt2", "llama"]  # a plain MLP and a gated one
K = 10
SAMPLES = 5_000  # of each family
PER_TOKEN = 20
POINTS = 100
LENGTH = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The pair of each family, and its halves as SAELens opens them."""
    root = tmp_path_factory.mktemp("pairs")
    made = {}
    for seed, family in enumerate(FAMILIES):
        path = make_dictionaries.make_pair(
            root / family, d_in=D_MODEL, d_sae=90, k=K, hook_name=NORMALIZED, seed=seed
        )
        halves = [
            make_dictionaries.split_pair(path, half, root / f"{family}-{half}")
            for half in ("in", "out")
        ]
        model = make_models.make(family, root / f"{family}-model")
        made[family] = (model, path, *halves)
    return made


@pytest.fixture(scope="module")
def client(folders, tmp_path_factory):
    catalog = catalog_text(
        {family: made[0] for family, made in folders.items()},
        {f"{family}/pair": (family, made[1]) for family, made in folders.items()},
    )
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, catalog, "--no-self_check") as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


def prompts():
    generator = torch.Generator().manual_seed(5)
    count = SAMPLES // PER_TOKEN // LENGTH
    ids = torch.randint(0, make_models.VOCABULARY, (count, LENGTH), generator=generator)
    return ids.tolist()


class Oracle:
    """A family's pair in float64, for many rows at once."""

    def __init__(self, made, family):
        lens = hooked(family, "raw")
        _, _, first, second = made
        self.sandwich = Sandwich(first, through_mlp(lens, LAYER, "normalized"), second)
        _, cache = lens.run_with_cache(torch.tensor(prompts()))
        self.x = cache[NORMALIZED].double().flatten(0, 1)
        self.strengths = self.sandwich.sae_in.encode(self.x)
        self.directions = self.sandwich.sae_in.W_dec

    def look(self, rows, out):
        """Of each row the output latent: its activation; how far it is from
        being on or off; its pre-activation."""
        sae = self.sandwich.sae_out
        y = self.sandwich.mlp(rows)
        place = torch.arange(len(rows))
        value = sae.encode(y)[place, out]
        pre = sae.process_sae_in(y) @ sae.W_enc + sae.b_enc
        own = pre[place, out]
        largest = pre.topk(K + 1).values
        inside = own >= largest[:, K - 1]
        on = torch.minimum(own - largest[:, K], own)
        off = torch.maximum(largest[:, K - 1] - own, -own)
        return value, torch.where(inside & (own > 0), on, off), own


def take(found, name):
    return torch.as_tensor(np.asarray(getattr(found, name), np.int64))


def report(record_property, title, kinds, differing):
    counts = np.bincount(kinds, minlength=3).tolist()
    line = (
        f"{title}: {len(kinds)} compared, classes {counts}, {differing} differ, "
        "each within the float64 margin"
    )
    record_property(title, line)
    print(line)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_sweeps(folders, client, family, record_property):
    oracle = Oracle(folders[family], family)
    pair = client.pair(f"{family}/pair")
    found = pair.sweep(prompts(), points=POINTS, draws=PER_TOKEN, seed=1)
    published = pair.sweep(
        prompts(), points=POINTS, draws=PER_TOKEN, seed=1, published_classes=True
    )
    assert len(found) == len(published) == SAMPLES
    row, latent, out = (take(found, n) for n in ("row", "in_latent", "out_latent"))
    strength = oracle.strengths[row, latent]
    last = torch.clamp(strength + 1, min=5)
    kinds, differing = [], 0
    for start in range(0, SAMPLES, 100):
        some = slice(start, start + 100)
        grid = torch.linspace(0, 1, POINTS, dtype=torch.float64) * last[some, None]
        moved = oracle.x[row[some], None] + (grid - strength[some, None])[
            ..., None
        ] * oracle.directions[latent[some], None]
        each = out[some].repeat_interleave(POINTS)
        value, edge, _ = oracle.look(moved.flatten(0, 1), each)
        curves, edges = value.view(-1, POINTS), edge.view(-1, POINTS)
        for i, (t, y) in enumerate(zip(grid, curves), start):
            kind, *_, margin = sweep_class(t, y)
            kinds.append(kind)
            quirk = sweep_class(t, y, published=True)[0]
            if found.kind[i] == kind and published.kind[i] == quirk:
                continue
            differing += 1
            scale = max(1.0, float(y.max()))
            nearest = float(edges[i - start].min())
            assert min(margin, nearest) <= TOLERANCE * scale, (i, kind, margin, nearest)
    report(record_property, f"sweeps of {family}", kinds, differing)
    assert differing < 0.005 * SAMPLES
    assert min(np.bincount(kinds, minlength=3)) > 0.005 * SAMPLES
    assert published.kind.tolist() == [max(kind, 1) for kind in found.kind]
    assert 0 not in published.kind


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_ablations(folders, client, family, record_property):
    oracle = Oracle(folders[family], family)
    pair = client.pair(f"{family}/pair")
    found = pair.ablate(prompts(), draws=PER_TOKEN, seed=2, step="strength")
    assert len(found) == SAMPLES
    row, latent, out = (take(found, n) for n in ("row", "in_latent", "out_latent"))
    x, direction = oracle.x[row], oracle.directions[latent]
    delta = oracle.strengths[row, latent]
    before, first_edge, _ = oracle.look(x, out)
    after, second_edge, _ = oracle.look(x - delta[:, None] * direction, out)
    # Central differences of the pre-activation, in float64.
    step = 1e-4
    _, _, higher = oracle.look(x + step * direction, out)
    _, _, lower = oracle.look(x - step * direction, out)
    slope = (higher - lower) / (2 * step)
    scale = max(1.0, float(torch.maximum(before, after).max()))
    kinds, differing = [], 0
    for i in range(SAMPLES):
        sample = (float(slope[i]), float(delta[i]), float(after[i] - before[i]))
        kinds.append(ablation_class(*sample))
        if found.kind[i] == kinds[-1]:
            continue
        differing += 1
        margin = min(
            ablation_margin(*sample), float(first_edge[i]), float(second_edge[i])
        )
        assert margin <= TOLERANCE * scale, (i, sample, found.kind[i], margin)
    report(record_property, f"ablations of {family}", kinds, differing)
    assert differing < 0.005 * SAMPLES
    assert min(np.bincount(kinds, minlength=3)) > 0.005 * SAMPLES
    assert abs(found.jacobian - slope.numpy()).max() <= TOLERANCE * float(
        slope.abs().max().clamp_min(1)
    )
