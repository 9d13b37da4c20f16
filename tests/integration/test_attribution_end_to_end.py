"""Attribution through gRPC against TransformerLens' ActivationCache."""

import json

import cupola
import numpy as np
import pytest
import tl_oracle
import torch
from harness.lens import FAMILIES, PROCESSINGS, hooked, prompts_for
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries

TOLERANCE = 5e-5
POST_NORM = {"gemma2", "gemma3"}  # TransformerLens leaves the post norms out
TOKENS, INCORRECT = [11, 3, 250], [2, 7, 9]

both_processings = pytest.mark.parametrize("processing", PROCESSINGS)
all_families = pytest.mark.parametrize("family", FAMILIES)


def close(actual, expected, scale=None):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = scale or max(np.abs(expected).max(), 1e-30)
    worst = np.abs(actual - expected).max()
    assert worst <= TOLERANCE * scale, (worst, scale)


def caches(family, processing):
    """(prompt, cache without its batch dimension) of each prompt."""
    lens = hooked(family, processing)
    for ids in prompts_for(family):
        _, cache = lens.run_with_cache(torch.tensor([ids]))
        yield lens, ids, cache


def stacked(family, processing, take):
    """`take(cache)` [components, 1, positions, ...] of all prompts, rows first."""
    parts = [
        take(cache)[:, 0].transpose(0, 1)
        for _, _, cache in caches(family, processing)
    ]
    return torch.cat(parts)


@both_processings
@all_families
def test_components_in_transformer_lens_row_order(client, family, processing):
    model = client.model(family, processing)
    prompts = prompts_for(family)
    lens = hooked(family, processing)
    layers = lens.cfg.n_layers
    parallel = lens.cfg.parallel_attn_mlp
    cases = [
        (dict(), {}),
        (dict(apply_norm=True), dict(apply_ln=True)),
        (dict(layer=1, apply_norm=True), dict(layer=1, apply_ln=True)),
    ]
    if not parallel:
        cases.append((dict(layer=1, mlp_input=True, apply_norm=True),
                      dict(layer=1, mlp_input=True, apply_ln=True)))
    for ours, theirs in cases:
        answer = model.attribute(prompts, **ours)
        _, _, cache = next(caches(family, processing))
        _, labels = cache.decompose_resid(return_labels=True, **theirs)
        assert answer.components == labels
        expected = stacked(family, processing, lambda c: c.decompose_resid(**theirs))
        close(answer.values, expected)
        if family in POST_NORM:
            continue
        for level, expand in (("heads", False), ("neurons", True)):
            answer = model.attribute(prompts, level=level, **ours)
            _, labels = cache.get_full_resid_decomposition(
                expand_neurons=expand, return_labels=True, **theirs
            )
            assert answer.components == labels
            close(answer.values, stacked(
                family, processing,
                lambda c: c.get_full_resid_decomposition(expand_neurons=expand, **theirs),
            ))
    assert layers > 1


@both_processings
@all_families
def test_logit_attributions(client, family, processing):
    """TransformerLens' logit_attrs, which knows no gain, and the identity: with
    the gain the components sum to the logit, or the difference of two."""
    model = client.model(family, processing)
    prompts = prompts_for(family)
    for level, expand in (("heads", False), ("neurons", True)):
        if family in POST_NORM:
            break
        for wrong in (None, INCORRECT):
            answer = model.attribute(prompts, TOKENS, wrong, level=level, gain=False)
            for i, token in enumerate(TOKENS):
                expected = stacked(family, processing, lambda c: c.logit_attrs(
                    c.get_full_resid_decomposition(expand_neurons=expand),
                    token, None if wrong is None else wrong[i],
                ))
                close(answer.values[:, :, i], expected)

    lens = hooked(family, processing)
    logits = torch.cat([
        lens.unembed(lens.ln_final(cache[f"blocks.{lens.cfg.n_layers - 1}.hook_resid_post"]))[0]
        for _, _, cache in caches(family, processing)
    ])
    scale = logits.abs().max().item()
    for level in ("layers", "heads", "neurons"):
        answer = model.attribute(prompts, TOKENS, level=level)
        close(answer.result, logits[:, TOKENS], scale)
        close(answer.values.sum(1) + answer.bias, logits[:, TOKENS], scale)
        answer = model.attribute(prompts, TOKENS, INCORRECT, level=level)
        difference = logits[:, TOKENS] - logits[:, INCORRECT]
        close(answer.values.sum(1) + answer.bias, difference, scale)


@both_processings
@pytest.mark.parametrize("family", sorted(tl_oracle.UNSUPPORTED))
def test_what_transformer_lens_lacks_sums_to_the_logit_as_well(client, family, processing):
    model = client.model(family, processing)
    prompts = prompts_for(family)
    lens = model.logit_lens(prompts, TOKENS)
    final = lens.logits[:, -1]
    for level in ("layers", "heads", "neurons"):
        answer = model.attribute(prompts, TOKENS, level=level)
        close(answer.result, final)
        close(answer.values.sum(1) + answer.bias, final)


def test_positions_means_and_tables(client):
    model = client.model("gpt2", "folded")
    prompts = prompts_for("gpt2")
    full = model.attribute(prompts, TOKENS, level="heads")
    last = model.attribute(prompts, TOKENS, level="heads", positions=-1)
    ends = np.cumsum([len(ids) for ids in prompts]) - 1
    close(last.values, full.values[ends])
    assert last.prompt.tolist() == [0, 1, 2]
    mean = model.attribute(prompts, TOKENS, level="heads", positions=-1, mean=True)
    assert len(mean) == 0 and mean.values.shape[0] == 1
    close(mean.values[0], last.values.mean(0))
    close(mean.total[0], last.total.mean(0))
    frame = last.to_dataframe()
    assert len(frame) == last.values.size
    close(frame["attribution"].to_numpy(), last.values.reshape(-1))
    strongest = mean.top(3, target=1)
    order = np.abs(mean.values[0, :, 1]).argsort()[::-1][:3]
    assert strongest["component"].tolist() == [mean.components[i] for i in order]
    close(last["L1H2"], last.values[:, last.components.index("L1H2")])
    again = model.attribute(prompts, TOKENS, level="heads", positions=-1)
    assert again.from_cache
    np.testing.assert_array_equal(again.values, last.values)
    # A prompt of its own is found too; another question is not.
    assert model.attribute([prompts[2]], TOKENS, level="heads", positions=-1).from_cache
    assert not model.attribute(prompts, TOKENS, level="layers", positions=-1).from_cache


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_each_prompt_may_have_its_own_tokens(client, family):
    """A list per prompt says what each prompt by itself says."""
    model = client.model(family, "raw")
    prompts = prompts_for(family)
    right, wrong = [[11, 3], [250, 0], [5, 5]], [[2, 7], [9, 1], [4, 8]]
    for level in ("layers", "heads", "neurons"):
        answer = model.attribute(prompts, right, wrong, level=level)
        apart = [
            model.attribute([ids], a, b, level=level)
            for ids, a, b in zip(prompts, right, wrong)
        ]
        scale = np.abs(answer.total).max()
        close(answer.values, np.concatenate([one.values for one in apart]), scale)
        close(answer.total, np.concatenate([one.total for one in apart]), scale)
        close(answer.bias, np.concatenate([one.bias for one in apart]), scale)
        close(answer.values.sum(1), answer.total, scale)
        assert answer.targets == ["0 - 0", "1 - 1"]
        mean = model.attribute(prompts, right, wrong, level=level, mean=True)
        close(mean.values[0], answer.values.mean(0), scale)
        close(mean.result[0], answer.result.mean(0), scale)
    # The incorrect tokens may be the same for all, and the correct ones too.
    shared = model.attribute(prompts, right, [2, 7])
    close(shared.values[-1], model.attribute([prompts[2]], right[2], [2, 7]).values[-1])
    known = model.attribute(prompts[:1], right[0], wrong[0], level="heads")
    assert known.from_cache  # whatever the other prompts ask


def test_a_mean_may_be_of_more_rows_than_an_answer_holds(client):
    model = client.model("gpt2")
    prompts = [[1 + i % 200] * 60 for i in range(800)]
    with pytest.raises(cupola.ResourceExhausted, match="bytes"):
        model.attribute(prompts, level="neurons")
    many = model.attribute(prompts, level="neurons", mean=True)
    assert many.values.shape == (1, len(many.components), D_MODEL)
    # Every text comes four times: the mean is that of the 200 different ones.
    few = model.attribute(prompts[:200], level="neurons", mean=True)
    close(many.values, few.values)
    layers = model.attribute(prompts[:200])
    close(many.values.sum(1)[0], layers.total.mean(0), np.abs(layers.total).max())


def test_command_line(zoo, server, client, tmp_path):
    from cupola.cli import app
    from typer.testing import CliRunner

    def run(*options):
        arguments = ["attribute", "gpt2", "the thin hat", "--server", server.grpc]
        return CliRunner().invoke(app, [*arguments, *options])

    shown = run("--token", "7", "--instead-of", "8", "--level", "heads", "--top", "3")
    assert shown.exit_code == 0, shown.output
    assert "others" in shown.output and "logit" in shown.output
    answer = client.model("gpt2").attribute("the thin hat", "a", positions=-1)
    told = json.loads(run("--token", "a", "--json").output)
    assert told["logit"] == pytest.approx(float(answer.result[0, 0]))
    assert list(told["components"]) == answer.components
    name = next(n for n in zoo.dictionaries if n.startswith("gpt2/"))
    told = json.loads(run("--latent", "3", "--dictionary", name, "--json").output)
    answer = client.model("gpt2").attribute(
        "the thin hat", latents=3, dictionary=name, positions=-1
    )
    assert told["pre_activation"] == pytest.approx(float(answer.result[0, 0]))
    assert run("--token", "a", "--latent", "3").exit_code == 2

    told = json.loads(run("--token", "a", "--position", "1,2", "--mean", "--json").output)
    answer = client.model("gpt2").attribute(
        "the thin hat", "a", positions=[1, 2], mean=True
    )
    assert told["logit"] == pytest.approx(float(answer.result[0, 0]))
    assert told["position"] is None
    assert run("--token", "a", "--position", "1,2").exit_code == 2
    vector = np.random.default_rng(1).normal(size=D_MODEL).astype(np.float32)
    np.save(tmp_path / "vector.npy", vector)
    told = json.loads(run("--vector", str(tmp_path / "vector.npy"), "--json").output)
    answer = client.model("gpt2").attribute("the thin hat", vectors=[vector], positions=-1)
    assert told["projection"] == pytest.approx(float(answer.result[0, 0]))
    (tmp_path / "none.npy").write_text("no array")
    wrong = run("--vector", str(tmp_path / "none.npy"))
    assert wrong.exit_code == 2 and "--vector: " in wrong.output
    wrong = run("--token", "the thin")
    assert wrong.exit_code == 2 and "not one" in wrong.output


def test_vectors_are_directions(client):
    model = client.model("llama", "raw")
    prompts = prompts_for("llama")
    vectors = np.random.default_rng(0).normal(size=(3, D_MODEL)).astype(np.float32)
    for level in ("layers", "heads", "neurons"):
        for norm in (False, True):
            stack = model.attribute(prompts, level=level, layer=2, apply_norm=norm)
            answer = model.attribute(
                prompts, vectors=vectors, level=level, layer=2, apply_norm=norm
            )
            close(answer.values, stack.values @ vectors.T)
            close(answer.total, stack.total @ vectors.T)


@both_processings
@all_families
def test_logit_lens(client, family, processing):
    lens = hooked(family, processing)
    mids = not lens.cfg.parallel_attn_mlp
    answer = client.model(family, processing).logit_lens(
        prompts_for(family), TOKENS, top=4, mids=mids
    )
    parts = []
    for _, _, cache in caches(family, processing):
        stack, labels = cache.accumulated_resid(
            incl_mid=mids, apply_ln=True, return_labels=True
        )
        logits = lens.unembed(stack[:, 0].transpose(0, 1))
        if lens.cfg.output_logits_soft_cap > 0:
            cap = lens.cfg.output_logits_soft_cap
            logits = cap * torch.tanh(logits / cap)
        parts.append(logits)
    assert answer.residuals == labels
    logits = torch.cat(parts)
    close(answer.logits, logits[:, :, TOKENS], logits.abs().max().item())
    logprobs = logits.log_softmax(-1)
    close(answer.logprobs, logprobs[:, :, TOKENS])
    chosen = logits[:, :, TOKENS].unsqueeze(-1)
    rank = (logits.unsqueeze(-2) > chosen).sum(-1)
    margin = (logits.unsqueeze(-2) - chosen).abs()
    margin.scatter_(-1, torch.tensor(TOKENS).expand_as(rank).unsqueeze(-1), torch.inf)
    decided = margin.min(-1).values > TOLERANCE * logits.abs().max()
    assert decided.float().mean() > 0.8
    assert (answer.ranks == rank.numpy())[decided.numpy()].all()
    values, _ = logits.topk(4)
    close(answer.top_logits, values, logits.abs().max().item())
    assert len(answer.top()) == len(answer.to_dataframe()) == rank.shape[0] * rank.shape[1]


POINTS = {
    "pre": "blocks.1.hook_resid_pre",
    "post": "blocks.1.hook_resid_post",
    "normalized": "blocks.1.ln2.hook_normalized",
    "mlp_out": "blocks.1.hook_mlp_out",
    "attn_out": "blocks.1.hook_attn_out",
    "neurons": "blocks.1.mlp.hook_post",
    "z": "blocks.1.attn.hook_z",
}
MODELS = ["gpt2", "llama", "gpt_neox", "gemma2"]


@pytest.fixture(scope="module")
def placed(zoo, tmp_path_factory):
    """Dictionaries on the points of layer 1 of several families."""
    folder = tmp_path_factory.mktemp("placed")
    entries = {}
    for family in MODELS:
        for i, (name, hook) in enumerate(POINTS.items()):
            width = D_MODEL
            if name == "neurons":
                width = 128 if family == "gpt2" else 48
            if name == "z" and family == "gemma2":
                width = 48
            path = make_dictionaries.make(
                "gated" if name == "pre" else "standard",
                folder / f"{family}-{name}",
                d_in=width,
                hook_name=hook,
                seed=i,
                apply_b_dec_to_input=True,
            )
            entries[f"{family}/{name}"] = (family, path)
    catalog = catalog_text({f: zoo.models[f] for f in MODELS}, entries)
    with Server(folder / "server", catalog) as server:
        with cupola.connect(server.grpc) as client:
            yield client, {name: path for name, (_, path) in entries.items()}


@both_processings
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", ["pre", "post", "normalized"])
def test_feature_attributions_sum_to_the_pre_activation(placed, family, name, processing):
    client, folders = placed
    prompts = prompts_for(family)
    sae = make_dictionaries.load(folders[f"{family}/{name}"])
    model = client.model(family, processing)
    latents = [0, 7, 100]
    x = torch.cat([cache[POINTS[name]][0] for _, _, cache in caches(family, processing)])
    z = (x - sae.b_dec) @ sae.W_enc[:, latents]
    if name == "pre":
        pre = torch.exp(sae.r_mag[latents]) * z + sae.b_mag[latents]
    else:
        pre = z + sae.b_enc[latents]
    scale = pre.abs().max().item()
    for level in ("layers", "heads", "neurons"):
        answer = model.attribute(
            prompts, latents=latents, dictionary=f"{family}/{name}", level=level
        )
        close(answer.result, pre, scale)
        close(answer.values.sum(1) + answer.bias, pre, scale)
    assert answer.components[-1] == "bias"


@both_processings
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", [n for n in POINTS if n != "normalized"])
def test_a_dictionary_and_its_error_as_components(placed, family, name, processing):
    client, folders = placed
    prompts = prompts_for(family)
    handle = f"{family}/{name}"
    sae = make_dictionaries.load(folders[handle])
    lens = hooked(family, processing)
    model = client.model(family, processing)
    whole = model.attribute(prompts, TOKENS)
    split = model.attribute(prompts, TOKENS, dictionary=handle, split_dictionary=True)
    scale = np.abs(whole.values).max()
    close(split.total, whole.total)
    close(split.values.sum(1), whole.total, np.abs(whole.total).max())
    label = {
        "pre": "1_pre", "post": "1_post", "mlp_out": "1_mlp_out", "neurons": "1_mlp_out",
        "attn_out": "1_attn_out", "z": "1_attn_out",
    }[name]
    pair = [f"{label}_reconstruction", f"{label}_error"]
    at = split.components.index(pair[0])
    assert split.components[at : at + 2] == pair
    if label in whole.components:
        expected = list(whole.components)
        expected[at : at + 1] = pair
        assert split.components == expected
        close(split[pair[0]] + split[pair[1]], whole[label], scale)
    else:
        assert at == 0
    # The reconstruction's row is the reconstruction.
    x = torch.cat([
        cache[POINTS[name]][0].flatten(1) for _, _, cache in caches(family, processing)
    ])
    rows = sae(x)
    if name == "neurons":
        rows = rows @ lens.blocks[1].mlp.W_out
    if name == "z":
        rows = rows @ lens.blocks[1].attn.W_O.flatten(0, 1)
    if family == "gemma2" and name in ("neurons", "z"):
        norm = lens.blocks[1].ln2_post if name == "neurons" else lens.blocks[1].ln1_post
        hook = f"blocks.1.ln{2 if name == 'neurons' else 1}_post.hook_scale"
        scales = torch.cat([cache[hook][0] for _, _, cache in caches(family, processing)])
        rows = rows * norm.w / scales
    if lens.cfg.normalization_type.startswith("LN"):
        rows = rows - rows.mean(-1, keepdim=True)
    if processing == "raw":
        rows = rows * lens.ln_final.w
    final = torch.cat([
        cache["ln_final.hook_scale"][0] for _, _, cache in caches(family, processing)
    ])
    close(split[pair[0]], (rows / final) @ lens.W_U[:, TOKENS], scale)


@both_processings
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("level", ["layers", "heads", "neurons"])
def test_several_dictionaries_at_every_level(placed, family, level, processing):
    """Each stands for its component, and all still sum to the logit."""
    client, _ = placed
    prompts = prompts_for(family)
    model = client.model(family, processing)
    whole = model.attribute(prompts, TOKENS, level=level)
    layers = model.attribute(prompts, TOKENS)
    scale = np.abs(whole.total).max()
    for names in (["z", "neurons"], ["mlp_out", "attn_out"], ["pre", "mlp_out"], ["post"]):
        split = model.attribute(
            prompts, TOKENS, level=level,
            split_dictionary=[f"{family}/{name}" for name in names],
        )
        close(split.total, whole.total)
        close(split.values.sum(1), whole.total, scale)
        left = [c for c in split.components if not c.endswith(("_reconstruction", "_error"))]
        assert len(split.components) - len(left) == 2 * len(names)
        # What is not split keeps its row; a bias loses what went into a component.
        for i, component in enumerate(split.components):
            if component in whole.components and component != "bias":
                close(split.values[:, i], whole[component], scale)
        for name, label in (("z", "1_attn_out"), ("attn_out", "1_attn_out"),
                            ("neurons", "1_mlp_out"), ("mlp_out", "1_mlp_out")):
            if name in names:
                both = split[f"{label}_reconstruction"] + split[f"{label}_error"]
                close(both, layers[label], scale)
        if level != "layers" and "pre" in names:
            assert not any(c.startswith(("L0", "0_")) for c in split.components)
            assert any(c.startswith("L1H") for c in split.components)


def test_latents_of_one_dictionary_and_the_error_of_another(placed):
    client, _ = placed
    model = client.model("gpt2", "raw")
    prompts = prompts_for("gpt2")
    asked = dict(latents=[0, 7], dictionary="gpt2/post")
    whole = model.attribute(prompts, **asked)
    split = model.attribute(prompts, split_dictionary="gpt2/mlp_out", **asked)
    close(split.result, whole.result)
    close(split.values.sum(1), whole.total, np.abs(whole.total).max())
    assert "1_mlp_out_error" in split.components
    assert whole.provenance.dictionary == split.provenance.dictionary == "gpt2/post"


@both_processings
@pytest.mark.parametrize("family", MODELS)
def test_attention_attributions_by_head(placed, family, processing):
    client, folders = placed
    prompts = prompts_for(family)
    sae = make_dictionaries.load(folders[f"{family}/z"])
    model = client.model(family, processing)
    asked = dict(latents=[3, 8], dictionary=f"{family}/z")
    answer = model.attribute(prompts, level="heads", **asked)
    parts = []
    for lens, _, cache in caches(family, processing):
        z = cache["blocks.1.attn.hook_z"][0]
        W = sae.W_enc[:, [3, 8]].reshape(lens.cfg.n_heads, lens.cfg.d_head, 2)
        parts.append(torch.einsum("she,hef->shf", z, W))
    assert answer.components == [f"L1H{i}" for i in range(parts[0].shape[1])]
    close(answer.values, torch.cat(parts))
    close(answer.values.sum(1), answer.total)
    by_source = model.attribute(prompts, **asked)
    close(answer.result, by_source.result)
    mean = model.attribute(prompts, level="heads", mean=True, **asked)
    close(mean.values[0], answer.values.mean(0))


@both_processings
@pytest.mark.parametrize("family", MODELS)
def test_attention_attributions(placed, family, processing):
    """By hand, in the naive order; they sum to the pre-activation."""
    client, folders = placed
    prompts = prompts_for(family)
    sae = make_dictionaries.load(folders[f"{family}/z"])
    answer = client.model(family, processing).attribute(
        prompts, latents=[3, 8], dictionary=f"{family}/z"
    )
    longest = max(map(len, prompts))
    assert answer.components == [str(i) for i in range(longest)]
    parts, pres = [], []
    for lens, ids, cache in caches(family, processing):
        heads, width = lens.cfg.n_heads, lens.cfg.d_head
        v = cache["blocks.1.attn.hook_v"][0]
        v = v.repeat_interleave(heads // v.shape[1], 1)
        pattern = cache["blocks.1.attn.hook_pattern"][0]
        W = sae.W_enc[:, [3, 8]].reshape(heads, width, 2)
        value = torch.einsum("hqs,she,hef->qsf", pattern, v, W)
        pad = torch.zeros(len(ids), longest - len(ids), 2)
        parts.append(torch.cat([value, pad], 1))
        z = cache["blocks.1.attn.hook_z"][0].flatten(1)
        pres.append((z - sae.b_dec) @ sae.W_enc[:, [3, 8]] + sae.b_enc[[3, 8]])
    close(answer.values, torch.cat(parts))
    pre = torch.cat(pres)
    close(answer.result, pre)
    close(answer.values.sum(1) + answer.bias, pre, pre.abs().max().item())


@both_processings
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("level", ["layers", "heads"])
def test_neuron_attributions(placed, family, level, processing):
    """Components through W_in onto firing neurons, with both policies for the
    others."""
    client, folders = placed
    prompts = prompts_for(family)
    sae = make_dictionaries.load(folders[f"{family}/neurons"])
    model = client.model(family, processing)
    lens = hooked(family, processing)
    W_in = lens.blocks[1].mlp.W_in
    if processing == "raw":
        W_in = W_in * lens.blocks[1].ln2.w.unsqueeze(-1)
    parallel = lens.cfg.parallel_attn_mlp
    latents, name = [3, 8], f"{family}/neurons"

    def stack(cache):
        layer = dict(layer=1, mlp_input=not parallel)
        parts = (
            cache.decompose_resid(**layer)
            if level == "layers"
            else cache.get_full_resid_decomposition(expand_neurons=False, **layer)
        )
        parts = parts - parts.mean(-1, keepdim=True)
        return parts / cache["blocks.1.ln2.hook_scale"]

    onto = stacked(family, processing, stack) @ W_in  # [rows, components, d_mlp]
    fires = torch.cat([
        cache["blocks.1.mlp.hook_post"][0] > 0 for _, _, cache in caches(family, processing)
    ]).unsqueeze(1)
    columns = sae.W_enc[:, latents]
    answer = model.attribute(prompts, latents=latents, dictionary=name, level=level)
    close(answer.values, torch.where(fires, onto, 0) @ columns)
    close(answer.total, torch.from_numpy(answer.values.sum(1)))
    # The mean over reference prompts, as a client would make it.
    reference = model.attribute(
        prompts[:2], vectors=W_in.T.numpy(), layer=1, mlp_input=True, level=level,
        apply_norm=True, mean=True,
    ).values[0]
    close(reference, onto[: len(prompts[0]) + len(prompts[1])].mean(0))
    answer = model.attribute(
        prompts, latents=latents, dictionary=name, level=level, inactive=reference
    )
    filled = torch.where(fires, onto, torch.from_numpy(reference))
    close(answer.values, filled @ columns)
    # By the server: over each reference prompt's positions, then over these.
    others = [ids[::-1] + [5] * 4 for ids in prompts[:2]]
    means = []
    for ids in others:
        _, cache = lens.run_with_cache(torch.tensor([ids]))
        means.append((stack(cache)[:, 0] @ W_in).mean(1))
    assert len({len(ids) for ids in others}) == 2
    answer = model.attribute(
        prompts, latents=latents, dictionary=name, level=level, reference=others
    )
    close(answer.values, torch.where(fires, onto, torch.stack(means).mean(0)) @ columns)
    last = model.attribute(
        prompts, latents=latents, dictionary=name, level=level, reference=others,
        reference_positions=-1,
    )
    assert np.abs(last.values - answer.values).max() > 1e-3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda m, p: m.attribute(p, [300]), ["tokens", "300", "299"]),
        (lambda m, p: m.attribute(p, [1, 2], [3]), ["incorrect", "1", "2"]),
        (lambda m, p: m.attribute(p, incorrect=[3]), ["incorrect"]),
        (lambda m, p: m.attribute(p, [1], latents=[2]), ["one of"]),
        (lambda m, p: m.attribute(p, [1], level="bits"), ["level", "bits"]),
        (lambda m, p: m.attribute(p, [1], layer=1), ["layer is 1"]),
        (lambda m, p: m.attribute(p, layer=9), ["layer is 9", "0 to 3"]),
        (lambda m, p: m.attribute(p, layer=3, mlp_input=True), ["mlp_input", "3"]),
        (lambda m, p: m.attribute(p, latents=[2]), ["dictionary"]),
        (lambda m, p: m.attribute(p, [1], split_dictionary=True), ["split_dictionary"]),
        (lambda m, p: m.attribute(p, latents=[999], dictionary="gpt2/pre"), ["999", "203"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/mlp_out"),
         ["hook_mlp_out", "hook_resid_pre"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/z", mean=True), ["mean", "HEADS"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/z", level="neurons"),
         ["level is NEURONS", "HEADS"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/z", split_dictionary="gpt2/pre"),
         ["split_dictionaries", "source positions"]),
        (lambda m, p: m.attribute(p, [[1], [2]]), ["tokens has 2 lists", "3"]),
        (lambda m, p: m.attribute(p, [[1], [2, 3], [4]]), ["tokens[1] has 2", "1"]),
        (lambda m, p: m.attribute(p, [[1], [2], [300]]), ["tokens[2]: 300", "299"]),
        (lambda m, p: m.attribute(p, [1], [[1], [2]]), ["incorrect has 2 lists", "3"]),
        (lambda m, p: m.attribute(p, [1, [2]]), ["tokens", "not both"]),
        (lambda m, p: m.attribute(p, []), ["logits.tokens"]),
        (lambda m, p: m.attribute(p, [1], mlp_input=True), ["mlp_input"]),
        (lambda m, p: m.attribute(p, [1], split_dictionary=["gpt2/pre", "gpt2/pre"]),
         ["split_dictionaries[1]", "hook_resid_pre"]),
        (lambda m, p: m.attribute(p, [1], split_dictionary=["gpt2/mlp_out", "gpt2/post"]),
         ["split_dictionaries[1]", "hook_resid_post"]),
        (lambda m, p: m.attribute(p, [1], split_dictionary=["gpt2/pre", "llama/pre"]),
         ["split_dictionaries[1]", "llama"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/pre", reference=p),
         ["latents.reference", "mlp.hook_post"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/neurons", reference=[[]]),
         ["latents.reference", "empty"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/neurons", reference=[[300]]),
         ["latents.reference", "300"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/neurons", reference=p,
                                  inactive=np.ones((5, 128))), ["latents.inactive", "contradict"]),
        (lambda m, p: m.attribute(p, [1], reference=p), ["reference", "latents"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/pre", inactive=np.ones((5, 128))),
         ["inactive", "mlp.hook_post"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/neurons", inactive=np.ones((4, 128))),
         ["inactive", "[4, 128]", "[5, 128]"]),
        (lambda m, p: m.attribute(p, [1], inactive=np.ones((5, 128))), ["inactive"]),
        (lambda m, p: m.attribute(p, [1], dictionary="llama/pre"), ["gpt2", "llama"]),
        (lambda m, p: m.attribute(p, latents=[1], dictionary="gpt2/pre", layer=1), ["layer"]),
        (lambda m, p: m.attribute(p, layer=1, dictionary="gpt2/post", split_dictionary=True),
         ["hook_resid_post", "hook_resid_pre"]),
        (lambda m, p: m.attribute(p, [1], dictionary="gpt2/normalized", split_dictionary=True),
         ["hook_normalized"]),
        (lambda m, p: m.attribute(p, vectors=np.ones((1, 5))), ["32"]),
        (lambda m, p: m.attribute(p, [1], apply_norm=True), ["apply_norm"]),
        (lambda m, p: m.attribute(p, [1], positions=[99]), ["99"]),
        (lambda m, p: m.logit_lens(p, top=0), ["tokens, top"]),
        (lambda m, p: m.logit_lens(p, top=301), ["top", "301", "300"]),
        (lambda m, p: m.logit_lens(p, [300]), ["tokens", "300"]),
    ],
)
def test_bad_requests_name_field_and_value(placed, request_, words):
    client, _ = placed
    with pytest.raises(cupola.InvalidArgument) as error:
        request_(client.model("gpt2"), prompts_for("gpt2"))
    for word in words:
        assert word in str(error.value), str(error.value)


def test_mids_of_parallel_blocks_are_refused(placed):
    client, _ = placed
    with pytest.raises(cupola.InvalidArgument, match="mids.*parallel"):
        client.model("gpt_neox").logit_lens([[1, 2]], mids=True)


def test_answers_beyond_the_limit_are_refused(client):
    with pytest.raises(cupola.ResourceExhausted, match="bytes"):
        client.model("gpt2").attribute([[1] * 60] * 2000, level="neurons")
