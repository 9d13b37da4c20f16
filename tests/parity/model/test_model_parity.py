"""The C++ model against TransformerLens and transformers, family by family.

Tolerance: both sides compute in float32, whose unit roundoff is 6e-8; a dozen
chained sums of up to a hundred terms and the conditioning of norms and softmax
lift that to a few 1e-6 of a tensor's scale. 5e-5 is what the server promises.
"""

import json

import numpy as np
import pytest
import torch

import tl_oracle
from make_models import FAMILIES, NESTED, build

TOLERANCE = 5e-5
# Rows longer than every window of make_models, two lengths.
TOKENS = np.random.default_rng(7).integers(1, 300, (2, 21)).tolist()
# Points that Cupola has and TransformerLens does not, under these names.
OWN_POINTS = {"ln_final.hook_out"}

TL_FAMILIES = [name for name in FAMILIES if name not in tl_oracle.UNSUPPORTED]
ALL = {"name": "all", "tokens": TOKENS, "hooks": "all", "logits": True}


def compare(actual, expected, error, names=None):
    worst = {
        name: error(actual[name], expected[name]) for name in names or sorted(actual)
    }
    bad = {name: value for name, value in worst.items() if value > TOLERANCE}
    assert not bad, bad


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", TL_FAMILIES)
def test_every_hook_point_equals_transformer_lens(
    family, processing, models, cupola, error
):
    oracle = tl_oracle.hooked(family, build(family), processing == "folded")
    expected = tl_oracle.activations(oracle, torch.tensor(TOKENS))
    results, _ = cupola.run(models(family), [ALL], processing)
    actual = results["all"]
    compare(actual, expected, error)
    # And nothing that TransformerLens has is missing.
    assert set(expected) - set(actual) <= OWN_POINTS


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", TL_FAMILIES)
def test_edits_equal_transformer_lens_hooks(family, processing, models, cupola, error):
    """An edit at each point of layer 1, and at each outside the layers, changes
    the logits as the same hook function does there."""
    oracle = tl_oracle.hooked(family, build(family), processing == "folded")
    tokens = torch.tensor(TOKENS)
    names = [
        name
        for name, _ in oracle.named_modules()
        if name in oracle.hook_dict
        and (name.startswith("blocks.1.") or not name.startswith("blocks."))
    ]
    available = set(cupola.run(models(family), [ALL], processing)[0]["all"])
    names = [name for name in names if name in available]
    cases = [
        {"name": name, "tokens": TOKENS, "logits": True, "edits": {name: [1.1, 0.05]}}
        for name in names
    ]
    actual, _ = cupola.run(models(family), cases, processing)
    for name in names:
        logits = oracle.run_with_hooks(
            tokens, fwd_hooks=[(name, lambda value, hook: value * 1.1 + 0.05)]
        )
        assert error(actual[name]["logits"], logits.numpy()) <= TOLERANCE, name


@pytest.mark.parametrize("family", [*FAMILIES, NESTED])
def test_hidden_states_and_logits_equal_transformers(family, models, cupola, error):
    hf = build("gemma3" if family == NESTED else family)
    out = hf(torch.tensor(TOKENS), output_hidden_states=True, use_cache=False)
    layers = hf.config.num_hidden_layers
    expected = {
        f"blocks.{layer}.hook_resid_pre": out.hidden_states[layer].numpy()
        for layer in range(layers)
    }
    # Hugging Face returns the last state normalised already.
    expected["unembed.hook_in"] = out.hidden_states[layers].numpy()
    expected["logits"] = out.logits.numpy()
    results, _ = cupola.run(models(family), [ALL])
    compare(results["all"], expected, error, expected)
    if family in FAMILIES and family not in tl_oracle.UNSUPPORTED:
        return
    # Log-probabilities do not depend on the processing.
    folded, _ = cupola.run(models(family), [ALL], "folded")
    logits = torch.from_numpy(folded["all"]["logits"]).log_softmax(-1)
    assert error(logits, out.logits.log_softmax(-1)) <= TOLERANCE


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_parts_of_a_pass_equal_the_whole(family, processing, models, cupola, error):
    """Single captures, early stops, late starts and single rows all repeat what
    one pass over everything gave."""
    names = list(cupola.run(models(family), [ALL], processing)[0]["all"])
    names.remove("logits")
    cases = [ALL]
    cases += [{"name": n, "tokens": TOKENS, "hooks": [n]} for n in names]
    layers = build(family).config.num_hidden_layers
    cases += [
        {"name": f"stop{n}", "tokens": TOKENS, "stop_at_layer": n}
        for n in range(layers + 1)
    ]
    cases += [
        {
            "name": f"start{n}",
            "tokens": TOKENS,
            "start_layer": n,
            "start_from": ["all", f"blocks.{n}.hook_resid_pre"],
            "hooks": [f"blocks.{layers - 1}.hook_resid_post"],
            "logits": True,
        }
        for n in range(layers)
    ]
    cases += [
        {"name": f"row{i}", "tokens": [row[: 21 - 6 * i]], "logits": True}
        for i, row in enumerate(TOKENS)
    ]
    cases.append(
        {"name": "ragged", "tokens": [TOKENS[0], TOKENS[1][:15]], "logits": True}
    )
    results, _ = cupola.run(models(family), cases, processing)
    whole = results["all"]
    for name in names:
        assert set(results[name]) == {name}
        compare(results[name], whole, error, [name])
    last = f"blocks.{layers - 1}.hook_resid_post"
    for n in range(layers + 1):
        expected = whole[f"blocks.{n}.hook_resid_pre"] if n < layers else whole[last]
        assert set(results[f"stop{n}"]) == {"residual"}
        assert error(results[f"stop{n}"]["residual"], expected) <= TOLERANCE
    for n in range(layers):
        compare(results[f"start{n}"], whole, error, [last, "logits"])
    ragged = results["ragged"]["logits"]
    assert error(results["row0"]["logits"][0], ragged[0]) <= TOLERANCE
    assert error(results["row1"]["logits"][0], ragged[1, :15]) <= TOLERANCE
    assert error(results["row1"]["logits"][0], whole["logits"][1, :15]) <= TOLERANCE


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2"])
def test_bfloat16_is_near_float32(family, processing, models, cupola, error):
    """bfloat16 has a unit roundoff of 2^-9. Weights, inputs and outputs of the
    four chained products of each of three layers are rounded, and the errors of
    36 such roundings add up like a random walk: 2^-9 * sqrt(36) = 1.2e-2 of a
    tensor's scale; the factor 3 is for the largest of thousands of entries."""
    bound = 3 * 2**-9 * 6
    wanted = dict(ALL, hooks=["blocks.2.hook_resid_post", "blocks.0.ln1.hook_scale"])
    wide, _ = cupola.run(models(family), [wanted], processing)
    narrow, about = cupola.run(models(family), [wanted], processing, "bfloat16")
    for name, value in wide["all"].items():
        assert error(narrow["all"][name], value) <= bound, name
    assert about["weight_bytes"] % 2 == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened(dtype, models, cupola, error, tmp_path):
    from make_models import make

    folder = make("llama", tmp_path / "half", dtype=dtype)
    hf = build("llama").to(dtype).float()
    results, _ = cupola.run(folder, [ALL])
    expected = hf(torch.tensor(TOKENS)).logits.numpy()
    assert error(results["all"]["logits"], expected) <= TOLERANCE


def test_a_sharded_checkpoint_is_the_same_model(models, cupola, tmp_path):
    from make_models import make

    folder = make("gpt2", tmp_path / "sharded", max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()
    whole, about = cupola.run(models("gpt2"), [ALL])
    parts, about_parts = cupola.run(folder, [ALL])
    np.testing.assert_array_equal(whole["all"]["logits"], parts["all"]["logits"])
    assert about["digest"] == about_parts["digest"]


def _old_style(config):
    """The words of transformers 4 for what transformers 5 writes."""
    old = {k: v for k, v in config.items() if k not in ("rope_parameters", "dtype")}
    rope = config.get("rope_parameters")
    if rope is None:
        return old
    if "full_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if config["model_type"] == "gpt_neox":
        old["rotary_emb_base"] = rope["rope_theta"]
        old["rotary_pct"] = rope["partial_rotary_factor"]
    else:
        old["rope_theta"] = rope["rope_theta"]
    if rope["rope_type"] != "default":
        old["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    if config["model_type"] == "gemma2":
        del old["layer_types"]  # the default, sliding first
    return old


@pytest.mark.parametrize("family", list(FAMILIES))
def test_configs_of_both_generations_say_the_same(family, models, cupola):
    folder = models(family)
    path = folder / "config.json"
    text = path.read_text()
    case = {"name": "tiny", "tokens": [[1]], "logits": True}
    _, new = cupola.run(folder, [case])
    try:
        path.write_text(json.dumps(_old_style(json.loads(text))))
        _, old = cupola.run(folder, [case])
    finally:
        path.write_text(text)
    assert new["fingerprint"] == old["fingerprint"]
    assert new["digest"] == old["digest"]


@pytest.mark.parametrize("processing", ["raw", "folded"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_weight_is_held_twice(family, processing, models, cupola):
    case = {"name": "tiny", "tokens": [[1]], "logits": True}
    _, about = cupola.run(models(family), [case], processing)
    # Packed layouts pad to blocks of 16 to 64, which these tiny widths feel: a
    # matrix held twice would add far more than a factor of 1.6.
    assert about["resident_bytes"] <= 1.6 * about["weight_bytes"]
