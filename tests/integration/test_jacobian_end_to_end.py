"""Jacobians through gRPC against torch.autograd on an independent sandwich in
float64: TransformerLens' MLP between SAELens' dictionaries.

Tolerance: 5e-5 of the block's scale, the project's float32 promise.
"""

import cupola
import numpy as np
import pytest
import torch
from harness.lens import FAMILIES, PROCESSINGS, hooked, prompts_for
from harness.sandwich import (
    Sandwich,
    jacobian,
    second_derivatives,
    through_mlp,
)
from harness.server import MEMORY, Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

TOLERANCE = 5e-5
LAYER = 1
NORMALIZED = f"blocks.{LAYER}.ln2.hook_normalized"
GAINED = f"blocks.{LAYER}.mlp.hook_in"
RESID_MID = f"blocks.{LAYER}.hook_resid_mid"
MLP_OUT = f"blocks.{LAYER}.hook_mlp_out"
RESID_POST = f"blocks.{LAYER}.hook_resid_post"
PROMPT = [3, 41, 7, 200, 13]
POSITIONS = [0, 2, 4]
ENCODERS = ("standard", "gated", "jumprelu", "topk")


class Pairs:
    """A catalog of pairs and single dictionaries around layer 1's MLP."""

    def __init__(self, folder):
        self.folder = folder
        self.models, self.entries, self.saes = {}, {}, {}

    def model(self, family):
        if family not in self.models:
            self.models[family] = make_models.make(family, self.folder / family)

    def pair(self, family, name, fields="", **options):
        self.model(family)
        path = make_dictionaries.make_pair(
            self.folder / family / name,
            d_in=D_MODEL,
            d_sae=90,
            k=10,
            hook_name=NORMALIZED,
            seed=len(self.entries),
            **options,
        )
        self.entries[f"{family}/{name}"] = (family, path, fields)
        for half in ("in", "out"):
            self.saes[f"{family}/{name}:{half}"] = make_dictionaries.split_pair(
                path, half, f"{path}-{half}"
            )

    def sae(self, family, name, architecture, hook, **options):
        self.model(family)
        path = make_dictionaries.make(
            architecture,
            self.folder / family / name,
            d_in=D_MODEL,
            d_sae=70,
            k=10,
            hook_name=hook,
            seed=len(self.entries),
            **options,
        )
        self.entries[f"{family}/{name}"] = (family, path)
        self.saes[f"{family}/{name}"] = path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    made = Pairs(tmp_path_factory.mktemp("pairs"))
    for family in FAMILIES:
        made.pair(family, "pair")
    made.pair("gpt2", "file", "mlp_source: FILE tap: POST_AFFINE", d_mlp=128)
    made.pair("gpt2", "post", "tap: POST_AFFINE")
    for family in ("gpt2", "llama", "gemma2"):
        for architecture in ENCODERS:
            made.sae(family, f"in-{architecture}", architecture, NORMALIZED)
            made.sae(family, f"out-{architecture}", architecture, MLP_OUT)
        for normalize in ("layer_norm", "constant_norm_rescale"):
            made.sae(family, f"in-{normalize}", "standard", NORMALIZED,
                     normalize_activations=normalize)
            made.sae(family, f"out-{normalize}", "topk", MLP_OUT,
                     normalize_activations=normalize)
        made.sae(family, "mid", "standard", RESID_MID)
        made.sae(family, "end", "jumprelu", RESID_POST)
        made.sae(family, "end-norm", "standard", RESID_POST,
                 normalize_activations="layer_norm")
    made.sae("gpt2", "gained", "standard", GAINED)
    made.sae("gpt2", "pursuit", "matching_pursuit", MLP_OUT)
    made.sae("gpt_neox", "pre", "standard", f"blocks.{LAYER}.hook_resid_pre")
    made.sae("gpt_neox", "end", "standard", RESID_POST)
    return made


@pytest.fixture(scope="module")
def catalog(pairs):
    return catalog_text(pairs.models, pairs.entries)


@pytest.fixture(scope="module", params=MEMORY, ids=["products", "gathered"])
def client(request, catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, catalog, "--no-self_check", *request.param) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


def close(actual, expected, scale=None):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = scale or max(np.abs(expected).max(initial=0), 1e-30)
    worst = np.abs(actual - expected).max(initial=0)
    assert worst <= TOLERANCE * scale, f"{worst} of {scale}"


def rows_at(family, processing, hook):
    """TransformerLens' rows [positions, d_model] at a hook point."""
    lens = hooked(family, processing)
    name, gain = hook, None
    if hook == GAINED:
        name, gain = NORMALIZED, lens.blocks[LAYER].ln2
    _, cache = lens.run_with_cache(torch.tensor([PROMPT]))
    rows = cache[name][0]
    if gain is not None and hasattr(gain, "w"):
        rows = rows * gain.w + getattr(gain, "b", 0)
    return rows[POSITIONS]


def start_of(hook):
    if hook == NORMALIZED:
        return "normalized"
    return "out" if hook == GAINED else "resid"


def expected_for(pairs, family, processing, first, second, hook, end, reconstruction):
    mlp = through_mlp(hooked(family, processing), LAYER, start_of(hook), end)
    sandwich = Sandwich(
        pairs.saes[f"{family}/{first}"],
        mlp,
        pairs.saes[f"{family}/{second}"],
        reconstruction,
    )
    return [sandwich.at(row) for row in rows_at(family, processing, hook)], sandwich


def check(answer, points, sandwich, second_order=False):
    """Blocks against autograd, token by token."""
    assert len(answer) == len(points)
    largest = 0
    for token, (acts, point) in enumerate(points):
        inputs, outputs = answer.in_latents[token], answer.out_latents[token]
        inputs, outputs = inputs[inputs >= 0], outputs[outputs >= 0]
        active = sandwich.activations(point)(acts).numpy()
        close(answer.in_acts[token, : len(inputs)], acts.numpy()[inputs])
        close(answer.out_acts[token, : len(outputs)], active[outputs])
        # All that are clearly active are there.
        margin = TOLERANCE * max(np.abs(active).max(), 1)
        assert set(np.flatnonzero(active > margin)) <= set(outputs.tolist())
        assert set(np.flatnonzero(acts.numpy() > margin)) <= set(inputs.tolist())
        pre = sandwich.pre_activations(point)
        whole = jacobian(pre, acts).numpy()
        block = whole[np.ix_(outputs, inputs)]
        got = answer.values[token]
        close(got[: len(outputs), : len(inputs)], block)
        assert not got[len(outputs) :].any() and not got[:, len(inputs) :].any()
        # Where a latent is active, the selection is no part of the derivative.
        masked = jacobian(sandwich.activations(point), acts).numpy()
        clear = outputs[active[outputs] > margin]
        close(masked[clear], whole[clear], np.abs(whole).max() or 1)
        largest = max(largest, np.abs(block).max(initial=0))
        if second_order:
            expected = second_derivatives(pre, acts, inputs)[outputs].numpy()
            close(
                answer.second_order[token, : len(outputs), : len(inputs)], expected
            )
    assert largest > 1e-3  # the comparison means something


@pytest.mark.parametrize("reconstruction", [False, True])
@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_every_family(pairs, client, family, processing, reconstruction):
    pair = client.pair(
        client.dictionary(f"{family}/pair:in", processing),
        client.dictionary(f"{family}/pair:out", processing),
    )
    answer = pair.jacobian(
        [PROMPT],
        POSITIONS,
        mlp_input="reconstruction" if reconstruction else "original",
        second_order=True,
    )
    points, sandwich = expected_for(
        pairs, family, processing, "pair:in", "pair:out", NORMALIZED, "mlp_out",
        reconstruction,
    )
    assert answer.values.shape == (len(POSITIONS), 10, 10)
    check(answer, points, sandwich, second_order=True)
    assert answer.prompt.tolist() == [0] * 3
    assert answer.position.tolist() == POSITIONS


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("decoder", ENCODERS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_every_architecture(pairs, client, family, decoder, encoder):
    first, second = f"in-{decoder}", f"out-{encoder}"
    pair = client.pair(f"{family}/{first}", f"{family}/{second}")
    answer = pair.jacobian([PROMPT], POSITIONS)
    points, sandwich = expected_for(
        pairs, family, "raw", first, second, NORMALIZED, "mlp_out", False
    )
    check(answer, points, sandwich)


@pytest.mark.parametrize("reconstruction", [False, True])
@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_dictionarys_own_normalisation(
    pairs, client, family, normalize, reconstruction
):
    first, second = f"in-{normalize}", f"out-{normalize}"
    pair = client.pair(f"{family}/{first}", f"{family}/{second}")
    answer = pair.jacobian(
        [PROMPT],
        POSITIONS,
        "reconstruction" if reconstruction else "original",
        second_order=True,
    )
    points, sandwich = expected_for(
        pairs, family, "raw", first, second, NORMALIZED, "mlp_out", reconstruction
    )
    check(answer, points, sandwich, second_order=True)


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("second", ["out-topk", "out-layer_norm", "end", "end-norm"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_from_the_residual_through_the_norm(pairs, client, family, second, processing):
    pair = client.pair(
        client.dictionary(f"{family}/mid", processing),
        client.dictionary(f"{family}/{second}", processing),
    )
    answer = pair.jacobian([PROMPT], POSITIONS, second_order=True)
    end = "resid_post" if second.startswith("end") else "mlp_out"
    points, sandwich = expected_for(
        pairs, family, processing, "mid", second, RESID_MID, end, False
    )
    check(answer, points, sandwich, second_order=True)


def test_from_the_residual_of_a_parallel_block(pairs, client):
    pair = client.pair("gpt_neox/pre", "gpt_neox/pair:out")
    answer = pair.jacobian([PROMPT], POSITIONS, second_order=True)
    points, sandwich = expected_for(
        pairs, "gpt_neox", "raw", "pre", "pair:out",
        f"blocks.{LAYER}.hook_resid_pre", "mlp_out", False,
    )
    check(answer, points, sandwich, second_order=True)


@pytest.mark.parametrize(
    ("first", "second"), [("post:in", "post:out"), ("gained", "out-topk")]
)
def test_behind_the_gain(pairs, client, first, second):
    pair = client.pair(f"gpt2/{first}", f"gpt2/{second}")
    answer = pair.jacobian([PROMPT], POSITIONS)
    points, sandwich = expected_for(
        pairs, "gpt2", "raw", first, second, GAINED, "mlp_out", False
    )
    check(answer, points, sandwich)


def test_the_mlp_of_the_pairs_file(pairs, client):
    from safetensors.torch import load_file

    tensors = load_file(pairs.entries["gpt2/file"][1] / "sae_weights.safetensors")
    weights = {k[4:]: v.double() for k, v in tensors.items() if k.startswith("mlp.")}

    def mlp(x):
        pre = x @ weights["W_in"] + weights["b_in"]
        hidden = torch.nn.functional.gelu(pre, approximate="tanh")
        return hidden @ weights["W_out"] + weights["b_out"]

    sandwich = Sandwich(pairs.saes["gpt2/file:in"], mlp, pairs.saes["gpt2/file:out"])
    points = [sandwich.at(row) for row in rows_at("gpt2", "raw", GAINED)]
    answer = client.pair("gpt2/file").jacobian([PROMPT], POSITIONS, second_order=True)
    check(answer, points, sandwich, second_order=True)


@pytest.mark.parametrize(
    ("family", "first", "second", "hook", "end"),
    [
        ("gpt2", "pair:in", "pair:out", NORMALIZED, "mlp_out"),
        ("gemma2", "in-layer_norm", "out-layer_norm", NORMALIZED, "mlp_out"),
        ("llama", "mid", "end-norm", RESID_MID, "resid_post"),
    ],
)
def test_rows_against_all_input_latents(
    pairs, client, family, first, second, hook, end
):
    pair = client.pair(f"{family}/{first}", f"{family}/{second}")
    answer = pair.jacobian([PROMPT], POSITIONS, block="all")
    points, sandwich = expected_for(
        pairs, family, "raw", first, second, hook, end, False
    )
    for token, (acts, point) in enumerate(points):
        whole = jacobian(sandwich.pre_activations(point), acts).numpy()
        for slot, latent in enumerate(answer.out_latents[token]):
            if latent < 0:
                assert not answer.row(token, slot).any()
                continue
            close(answer.row(token, slot), whole[latent], np.abs(whole).max())
    dense = answer.csr.toarray()
    limit = float(np.median(np.abs(dense[dense != 0])))
    cut = pair.jacobian([PROMPT], POSITIONS, block="all", min_abs=limit).csr.toarray()
    np.testing.assert_array_equal(cut, np.where(np.abs(dense) >= np.float32(limit), dense, 0))
    top = pair.jacobian([PROMPT], POSITIONS, block="all", top=4).csr
    for row, full in zip(top.toarray(), dense):
        if full.any():
            assert np.count_nonzero(row) == 4
            assert np.abs(row).sum() == pytest.approx(np.sort(np.abs(full))[-4:].sum())


def test_masks_thresholds_and_optional_tensors(pairs, client):
    pair = client.pair("gpt2/pair")
    slots = pair.jacobian([PROMPT], POSITIONS, mlp_output=True, gradients=True)
    positive = pair.jacobian([PROMPT], POSITIONS, mask="positive")
    for token in range(len(POSITIONS)):
        on = slots.out_latents[token][slots.out_acts[token] > 0]
        held = positive.out_latents[token]
        assert held[held >= 0].tolist() == on.tolist()
        # Descending pre-activations: zero activations come last.
        assert (np.diff(slots.out_acts[token]) <= 0).all()
    assert slots.second_order is None and positive.mlp_output is None
    lens = hooked("gpt2", "raw")
    mlp = through_mlp(lens, LAYER, "normalized")
    rows = rows_at("gpt2", "raw", NORMALIZED).double()
    close(slots.mlp_output, mlp(rows))
    block = lens.blocks[LAYER]
    pre = (rows.float() * block.ln2.w + block.ln2.b) @ block.mlp.W_in + block.mlp.b_in
    with torch.enable_grad():
        pre = pre.double().requires_grad_()
        torch.nn.functional.gelu(pre, approximate="tanh").sum().backward()
    close(slots.gradients, pre.grad)
    limit = float(np.median(np.abs(slots.values)))
    cut = pair.jacobian([PROMPT], POSITIONS, min_abs=limit).values
    kept = np.abs(slots.values) >= np.float32(limit)
    np.testing.assert_array_equal(cut, np.where(kept, slots.values, 0))


def test_inputs_prompts_and_the_cache(pairs, client):
    pair = client.pair("gpt2/in-gated", "gpt2/out-jumprelu")
    prompts = prompts_for("gpt2")
    whole = pair.jacobian(prompts)
    again = pair.jacobian(prompts)
    assert again.from_cache
    np.testing.assert_array_equal(again.values, whole.values)
    acts = client.model("gpt2").activations(prompts, [NORMALIZED])
    rows = np.concatenate(acts[NORMALIZED])
    direct = pair.jacobian(inputs=rows)
    np.testing.assert_array_equal(direct.in_latents, whole.in_latents)
    close(direct.values, whole.values)
    assert direct.position.tolist() == list(range(len(rows)))
    # Each prompt alone: the same, with less padding.
    first = 0
    for prompt in prompts:
        alone = pair.jacobian([prompt])
        n, k_out, k_in = alone.values.shape
        part = whole.values[first : first + n]
        close(alone.values, part[:, :k_out, :k_in], np.abs(whole.values).max())
        assert not part[:, k_out:].any() and not part[:, :, k_in:].any()
        first += n
    features = pair.input.encode(rows)
    from_features = pair.jacobian(inputs=features)
    reconstructed = pair.input.decode(features)
    close(from_features.values, pair.jacobian(inputs=reconstructed).values)
    assert len(whole.to_dataframe()) == np.count_nonzero(whole.values)
    assert "plotly" in whole.to_html(2)


def test_finite_differences(pairs, client):
    """The answer against differences of the sandwich itself."""
    points, sandwich = expected_for(
        pairs, "llama", "raw", "pair:in", "pair:out", NORMALIZED, "mlp_out", False
    )
    answer = client.pair("llama/pair").jacobian([PROMPT], POSITIONS)
    step = 1e-4
    for token, (acts, point) in enumerate(points):
        pre = sandwich.pre_activations(point)
        outputs = answer.out_latents[token]
        for column, latent in enumerate(answer.in_latents[token]):
            move = torch.zeros_like(acts)
            move[latent] = step
            slope = (pre(acts + move) - pre(acts - move))[outputs] / (2 * step)
            close(
                answer.values[token, :, column],
                slope.numpy(),
                np.abs(answer.values[token]).max(),
            )


REFUSED = [
    ("gpt2/out-topk", "gpt2/in-topk", "input_dictionary decodes at", "not after"),
    ("gpt2/end", "gpt2/mid", "hook_resid_post, which comes after", "hook_resid_mid"),
    ("gpt2/in-topk", "gpt2/pursuit", "matching pursuit", "jumprelu"),
]


@pytest.mark.parametrize(("first", "second", "message", "accepted"), REFUSED)
def test_an_input_after_the_output_or_without_derivative(client, first, second, message, accepted):
    with pytest.raises(cupola.InvalidArgument, match=message) as refused:
        client.pair(first, second).jacobian([PROMPT])
    assert accepted in str(refused.value)


def test_bad_values(client):
    pair = client.pair("gpt2/pair")
    for bad, message in [
        (dict(min_abs=-1.0), "min_abs is -1"),
        (dict(min_abs=float("nan")), "min_abs is nan"),
        (dict(block="all", min_abs=float("inf")), "all_inputs.min_abs is inf"),
        (dict(mlp_input="nothing"), "mlp_input: expected"),
        (dict(mask="some"), "mask: expected"),
        (dict(block="none"), "block: expected"),
        (dict(top=3), "top: goes with"),
        (dict(inputs=np.zeros((1, D_MODEL))), "either prompts or inputs"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=message):
            pair.jacobian([PROMPT], **bad)
    with pytest.raises(cupola.InvalidArgument, match=r"inputs\[?.*"):
        pair.jacobian(inputs=np.full((1, D_MODEL), np.nan, np.float32))
    with pytest.raises(cupola.InvalidArgument):
        pair.jacobian(inputs=np.zeros((1, D_MODEL + 1), np.float32))
    with pytest.raises(cupola.InvalidArgument, match="model"):
        client.pair("gpt2/in-topk", "llama/out-topk").jacobian([PROMPT])


def test_the_mlp_and_the_sandwich_themselves(pairs, client):
    for family in ("gpt2", "gemma2"):
        pair = client.pair(f"{family}/pair")
        rows = rows_at(family, "raw", NORMALIZED)
        mlp = through_mlp(hooked(family, "raw"), LAYER, "normalized")
        close(pair.mlp(rows.numpy()), mlp(rows.double()))
        features = pair.input.encode(rows.numpy())
        out = pair.sandwich(features)
        points, sandwich = expected_for(
            pairs, family, "raw", "pair:in", "pair:out", NORMALIZED, "mlp_out", True
        )
        expected = [
            sandwich.activations(point)(acts).numpy() for acts, point in points
        ]
        close(out.csr.toarray(), np.stack(expected))
