"""The worked examples, from the first cell to the last on the demo, and their
numbers against transformers and PyTorch in float64."""

import re
import sys

import cupola
import pandas
import pytest
import torch
from harness.examples import EXAMPLES, figures, run
from harness.published import ablation_class, ablation_margin, sweep_class
from harness.server import ROOT
from harness.smollm2 import model_folder
from safetensors.torch import load_file

TOLERANCE = 5e-5
LAYER = 12


class Demo:
    """Layer 12's MLP and the demo pair around it, in float64."""

    def __init__(self, client):
        from transformers import AutoModelForCausalLM

        self.passages = _passages()
        self.model = AutoModelForCausalLM.from_pretrained(
            model_folder(), dtype=torch.float32
        )
        self.client = client
        layer = self.model.model.layers[LAYER]
        self.norm = layer.post_attention_layernorm
        self.gain = self.norm.weight.double()
        self.gate, self.up, self.down = (
            part.weight.double().T
            for part in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
        )
        stored = load_file(ROOT / "deploy/demo/l12-mlp/sae_weights.safetensors")
        self.pair = {name: value.double() for name, value in stored.items()}

    @torch.no_grad()
    def rows(self, ids):
        """x / rms(x) of every token before the MLP: [tokens, d_model]."""
        seen = []
        handle = self.norm.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0][0].double())
        )
        self.model(torch.tensor([ids]))
        handle.remove()
        (x,) = seen
        epsilon = self.norm.variance_epsilon
        return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()

    def encode(self, rows, half="", k=32):
        pre = rows @ self.pair[f"_W_enc{half}"] + self.pair[f"_b_enc{half}"]
        kept = pre.topk(k)
        acts = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())
        return pre, acts

    def reconstruct(self, rows):
        return self.encode(rows)[1] @ self.pair["_W_dec"] + self.pair["_b_dec"]

    def mlp(self, rows):
        x = rows * self.gain
        return (torch.nn.functional.silu(x @ self.gate) * (x @ self.up)) @ self.down

    def output(self, rows, latent):
        """Its pre-activation, its activation, and how far from on or off."""
        pre, acts = self.encode(self.mlp(rows), "_out")
        largest = pre.topk(33).values
        own = pre[:, latent]
        edge = torch.where(
            own >= largest[:, 31], own - largest[:, 32], largest[:, 31] - own
        )
        return own, acts[:, latent], edge

    def slope(self, row, source, target, step=1e-4):
        """d out / d in, by central differences."""
        move = step * self.pair["_W_dec"][source]
        own, _, _ = self.output(torch.stack([row + move, row - move]), target)
        return float(own[0] - own[1]) / (2 * step)


def _passages():
    sys.path.insert(0, str(EXAMPLES))
    try:
        from passages import PASSAGES
    finally:
        sys.path.remove(str(EXAMPLES))
    return PASSAGES


@pytest.fixture(scope="module")
def demo(smollm2_server):
    with cupola.connect(smollm2_server.grpc) as client:
        yield Demo(client)


@pytest.fixture(scope="module")
def drawing():
    """Pictures need matplotlib."""
    pytest.importorskip("matplotlib")


def test_quotation_marks(smollm2_server):
    """The notebook's questions get the answers it talks about."""
    said = run("quotation_marks.py", smollm2_server)
    assert "48 of 48 prompts" in said
    recovered = re.search(r"([\d.]+)% recovered", said)
    assert 80 < float(recovered[1]) < 120
    # The latents make the answer likelier; its logit is told whole.
    assert re.search(r"likelier with them: '\.\"' \+0\.\d+", said)
    assert "302 components sum to the mean logit" in said
    increase = re.search(r"loss increase ([-\d.]+)", said)
    assert float(increase[1]) > 0.1


def test_ablated_directions(smollm2_server, demo, drawing, tmp_path):
    settings = {"CUPOLA_FIGURES": str(tmp_path), "CUPOLA_SAMPLES": "160"}
    said = run("ablated_directions.py", smollm2_server, **settings)
    names = "jacobian ablations strengths three-curves curves slopes"
    figures(tmp_path, [f"a-{name}" for name in names.split()])
    assert "5 tokens of 1 texts" in said
    ids = demo.client.model("smollm2-135m").tokenize(demo.passages[0])[0]
    rows = demo.rows(ids)

    frame = pandas.read_csv(tmp_path / "a-ablations.csv")
    assert len(frame) == 160 and set(frame["position"]) == set(range(2, 7))
    kinds = ["on line", "cluster", "outlier"]
    for sample in frame.itertuples():
        row = rows[sample.position]
        gone = row - demo.pair["_W_dec"][sample.in_latent]
        _, acts, edges = demo.output(torch.stack([row, gone]), sample.out_latent)
        slope = demo.slope(row, sample.in_latent, sample.out_latent)
        scale = max(1.0, float(acts.max()))
        assert abs(sample.jacobian - slope) <= TOLERANCE * max(1.0, abs(slope))
        assert abs(sample.before - acts[0]) <= TOLERANCE * scale
        values = (slope, 1.0, float(acts[1] - acts[0]))
        if min(ablation_margin(*values), float(edges.min())) > TOLERANCE * scale:
            assert abs(sample.after - acts[1]) <= TOLERANCE * scale
            # pandas calls the column "class" by its place.
            assert frame["class"][sample.Index] == kinds[ablation_class(*values)]
    for kind in kinds:
        assert f"{kind}: {(frame['class'] == kind).sum()} of 160" in said
    assert (frame["class"] == "on line").mean() > 0.9

    frame = pandas.read_csv(tmp_path / "a-sweeps.csv")
    assert len(frame) == 160
    kinds = ["linear", "JumpReLU", "other"]
    for sample in frame.iloc[::2].itertuples():
        row, direction = rows[sample.position], demo.pair["_W_dec"][sample.in_latent]
        strength = float(demo.encode(row[None])[1][0, sample.in_latent])
        grid = torch.linspace(0, max(5.0, strength + 1), 100, dtype=torch.float64)
        moved = row + (grid - strength)[:, None] * direction
        _, curve, edges = demo.output(moved, sample.out_latent)
        kind, slope, _, margin = sweep_class(grid, curve)
        scale = max(1.0, float(curve.max()))
        if min(margin, float(edges.min())) > TOLERANCE * scale:
            assert frame["class"][sample.Index] == kinds[kind]
            assert abs(sample.slope - slope) <= 1e-3 * scale
    linear = (frame["class"] == "linear").sum()
    jumps = (frame["class"] == "JumpReLU").sum()
    assert f"linear: {linear} of 160" in said
    assert f"as published: {linear + jumps} of 160 are jump ReLUs" in said


def test_causal_links(smollm2_server, demo, drawing, tmp_path):
    settings = {"CUPOLA_FIGURES": str(tmp_path), "CUPOLA_TOKENS": "24"}
    said = run("causal_links.py", smollm2_server, **settings)
    names = (
        "first-token magnitudes blocks second-derivatives histogram averages"
    )
    figures(tmp_path, [f"b-{name}" for name in names.split()])
    assert "25 tokens, 24 without BOS" in said
    text = " ".join(demo.passages)
    ids = demo.client.model("smollm2-135m").tokenize(text)[0][:25]
    rows = demo.reconstruct(demo.rows(ids))

    frame = pandas.read_csv(tmp_path / "b-first-token.csv")
    _, acts = demo.encode(demo.mlp(rows[1:2]), "_out")
    assert set(frame["out_latent"]) == set(torch.nonzero(acts[0]).flatten().tolist())
    scale = frame["value"].abs().max()
    for link in frame.itertuples():
        slope = demo.slope(rows[1], link.in_latent, link.out_latent)
        assert abs(link.value - slope) <= TOLERANCE * scale
    off = re.search(r"finite differences: off by at most ([\d.]+)", said)
    assert float(off[1]) < 0.01 * scale
    alike = re.search(r"active columns are the block, to ([\d.e-]+)", said)
    assert float(alike[1]) <= TOLERANCE * scale

    means = pandas.read_csv(tmp_path / "b-means.csv")
    assert len(means) == 10 and means["value"].is_monotonic_decreasing
    outputs = demo.encode(demo.mlp(rows), "_out")[1]
    for link in means.itertuples():
        active = [t for t in range(1, 25) if outputs[t, link.out_latent] > 0]
        total = sum(
            abs(demo.slope(rows[t], link.in_latent, link.out_latent)) for t in active
        )
        assert link.value == pytest.approx(total / 24, rel=1e-3)
    assert "2304 x 2304 pairs over 24 tokens, float64" in said
    assert f"row {means['out_latent'][0]}: 2,304 input latents move it" in said
