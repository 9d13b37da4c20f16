"""The C++ model against TransformerLens and transformers, family by family.

Tolerance: both sides compute in float32, whose unit roundoff is 6e-8; a dozen
chained sums of up to a hundred terms and the conditioning of norms and softmax
lift that to a few 1e-6 of a tensor's scale. 5e-5 is what the server promises.
"""

import functools
import json

import numpy as np
import pytest
import torch

import tl_oracle
from make_models import FAMILIES, NESTED, build, make

TOLERANCE = 5e-5
# Rows longer than every window of make_models.
TOKENS = np.random.default_rng(7).integers(1, 300, (2, 21)).tolist()
SHORT = [TOKENS[0][:12]]
# Points that Cupola has under a name of its own.
OWN_POINTS = {"ln_final.hook_out"}

TL_FAMILIES = [name for name in FAMILIES if name not in tl_oracle.UNSUPPORTED]
ALL = {"name": "all", "tokens": TOKENS, "hooks": "all", "logits": True}
TINY = {"name": "tiny", "tokens": [[1]], "logits": True}

both_processings = pytest.mark.parametrize("processing", ["raw", "folded"])


def layers_of(family):
    _, _, arguments = FAMILIES["gemma3" if family == NESTED else family]
    return next(
        arguments[key]
        for key in ("num_hidden_layers", "n_layer", "num_layers")
        if key in arguments
    )


def cases_of(family):
    """Everything that the tests ask a family's model, for one program run."""
    layers = layers_of(family)
    cases = [
        ALL,
        {"name": "captures", "tokens": TOKENS, "each": "capture"},
        {"name": "edits", "tokens": SHORT, "logits": True, "each": "edit"},
    ]
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
    ragged = [TOKENS[0], TOKENS[1][:15]]
    cases += [
        {"name": f"row{i}", "tokens": [row], "logits": True}
        for i, row in enumerate(ragged)
    ]
    cases.append({"name": "ragged", "tokens": ragged, "logits": True})
    return cases


@functools.lru_cache(maxsize=None)
def oracle(family, processing):
    return tl_oracle.hooked(family, build(family), processing == "folded")


def compare(actual, expected, error, names=None):
    worst = {
        name: error(actual[name], expected[name]) for name in names or sorted(actual)
    }
    bad = {name: value for name, value in worst.items() if value > TOLERANCE}
    assert not bad, bad


@both_processings
@pytest.mark.parametrize("family", TL_FAMILIES)
def test_every_hook_point_equals_transformer_lens(family, processing, once, error):
    expected = tl_oracle.activations(oracle(family, processing), torch.tensor(TOKENS))
    actual = once(family, processing)[0]["all"]
    compare(actual, expected, error)
    # And nothing that TransformerLens has is missing.
    assert set(expected) - set(actual) <= OWN_POINTS


@both_processings
@pytest.mark.parametrize("family", TL_FAMILIES)
def test_edits_equal_transformer_lens_hooks(family, processing, once, error):
    """An edit at each point of layer 1, and at each outside the layers, changes
    the logits as the same hook function does there."""
    model = oracle(family, processing)
    actual = once(family, processing)[0]["edits"]
    names = sorted(set(model.hook_dict) & set(actual))
    assert len(names) >= 20
    for name in names:
        logits = model.run_with_hooks(
            torch.tensor(SHORT),
            fwd_hooks=[(name, lambda value, hook: value * 1.1 + 0.05)],
        )
        assert error(actual[name], logits.numpy()) <= TOLERANCE, name


@pytest.mark.parametrize("family", [*FAMILIES, NESTED])
def test_hidden_states_and_logits_equal_transformers(family, once, error):
    hf = build("gemma3" if family == NESTED else family)
    out = hf(torch.tensor(TOKENS), output_hidden_states=True, use_cache=False)
    layers = layers_of(family)
    expected = {
        f"blocks.{layer}.hook_resid_pre": out.hidden_states[layer].numpy()
        for layer in range(layers)
    }
    # Hugging Face returns the last state normalised already.
    expected["unembed.hook_in"] = out.hidden_states[layers].numpy()
    expected["logits"] = out.logits.numpy()
    compare(once(family, "raw")[0]["all"], expected, error, expected)
    # Log-probabilities do not depend on the processing.
    folded = torch.from_numpy(once(family, "folded")[0]["all"]["logits"])
    assert error(folded.log_softmax(-1), out.logits.log_softmax(-1)) <= TOLERANCE


@both_processings
@pytest.mark.parametrize("family", list(FAMILIES))
def test_parts_of_a_pass_equal_the_whole(family, processing, once, error):
    """Single captures, early stops, late starts and single rows all repeat what
    one pass over everything gave."""
    results, _ = once(family, processing)
    whole = results["all"]
    compare(results["captures"], whole, error)
    layers = layers_of(family)
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


@both_processings
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2"])
def test_bfloat16_is_near_float32(family, processing, once, models, cupola):
    """bfloat16 has a unit roundoff of 2^-9. Weights, inputs and outputs of the
    four chained products of each of three layers are rounded, and the errors of
    36 such roundings add up like a random walk: 2^-9 * sqrt(36) = 1.2e-2 in the
    root mean square, relative to the tensor's; the factor 2 is for the gains
    above 1 on the way."""
    bound = 2 * 2**-9 * 6
    names = ["blocks.2.hook_resid_post", "blocks.0.ln1.hook_scale"]
    wide = once(family, processing)[0]["all"]
    narrow, about = cupola.run(
        models(family), [dict(ALL, hooks=names)], processing, "bfloat16"
    )
    for name in [*names, "logits"]:
        difference = narrow["all"][name] - wide[name]
        ratio = np.sqrt((difference**2).mean() / (wide[name] ** 2).mean())
        assert 0 < ratio <= bound, (name, ratio)
    assert about["weight_bytes"] * 2 == once(family, processing)[1]["weight_bytes"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened(dtype, cupola, error, tmp_path):
    folder = make("llama", tmp_path / "half", dtype=dtype)
    hf = build("llama")
    for parameter in hf.parameters():
        parameter.copy_(parameter.to(dtype).float())
    results, _ = cupola.run(folder, [ALL])
    expected = hf(torch.tensor(TOKENS)).logits.numpy()
    assert error(results["all"]["logits"], expected) <= TOLERANCE


def test_a_sharded_checkpoint_is_the_same_model(once, cupola, tmp_path):
    folder = make("gpt2", tmp_path / "sharded", max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()
    whole, about = once("gpt2", "raw")
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


@pytest.mark.parametrize("family", [f for f in FAMILIES if not f.startswith("gpt2")])
def test_configs_of_both_generations_say_the_same(
    family, once, models, cupola, tmp_path
):
    _, new = once(family, "raw")
    folder = tmp_path / "old"
    folder.mkdir()
    for file in models(family).iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(_old_style(config)))
    _, old = cupola.run(folder, [TINY])
    assert new["fingerprint"] == old["fingerprint"]
    assert new["digest"] == old["digest"]


@both_processings
@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_weight_is_held_twice(family, processing, once):
    _, about = once(family, processing)
    # Packed layouts pad to blocks of 16 to 64, which these tiny widths feel: a
    # matrix held twice would add far more than a factor of 1.6.
    assert about["resident_bytes"] <= 1.6 * about["weight_bytes"]
