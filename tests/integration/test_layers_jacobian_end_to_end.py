"""Jacobians across layers and positions through gRPC, against torch.autograd
through TransformerLens in float64.

Tolerance: 5e-5 of the largest entry of a question's blocks, the project's
float32 promise.
"""

import copy
import functools

import cupola
import numpy as np
import pytest
import torch
from harness.lens import FAMILIES, PROCESSINGS, hooked
from harness.sandwich import jacobian
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

TOLERANCE = 5e-5
PROMPT = [3, 41, 7, 200, 13, 99, 5, 250, 17, 60]  # longer than the windows
FROZEN = ("attn.hook_pattern", "ln1.hook_scale", "ln2.hook_scale",
          "ln1_post.hook_scale", "ln2_post.hook_scale")
# name: (architecture, hook point, further options)
DICTIONARIES = {
    "pre0": ("standard", "blocks.0.hook_resid_pre", {}),
    "attn0": ("standard", "blocks.0.hook_attn_out", {}),
    "z0": ("standard", "blocks.0.attn.hook_z", {}),
    "normal0": ("topk", "blocks.0.ln2.hook_normalized", {}),
    "out0": ("topk", "blocks.0.hook_mlp_out", {}),
    "post0": ("jumprelu", "blocks.0.hook_resid_post", {}),
    "scaled0": ("standard", "blocks.0.hook_resid_post",
                {"normalize_activations": "layer_norm"}),
    "pre2": ("topk", "blocks.2.hook_resid_pre", {}),
    "z2": ("topk", "blocks.2.attn.hook_z", {}),
    "attn2": ("jumprelu", "blocks.2.hook_attn_out", {}),
    "in2": ("topk", "blocks.2.hook_mlp_in", {}),
    "normal2": ("gated", "blocks.2.ln2.hook_normalized", {}),
    "out2": ("topk", "blocks.2.hook_mlp_out", {}),
    "post2": ("topk", "blocks.2.hook_resid_post", {}),
    "scaled2": ("topk", "blocks.2.hook_resid_post",
                {"normalize_activations": "constant_norm_rescale"}),
}
# Of two families only: every kind of hook point.
MORE = {
    "ln1": ("standard", "blocks.1.ln1.hook_normalized", {}),
    "q1": ("standard", "blocks.1.attn.hook_q", {}),
    "k1": ("standard", "blocks.1.attn.hook_k", {}),
    "v1": ("standard", "blocks.1.attn.hook_v", {}),
    "mid1": ("standard", "blocks.1.hook_resid_mid", {}),
    "mlp1": ("standard", "blocks.1.mlp.hook_pre", {}),
    "hidden1": ("standard", "blocks.1.mlp.hook_post", {}),
    "pursuit2": ("matching_pursuit", "blocks.2.hook_resid_post", {}),
}
MORE_OF = ("gpt2", "gemma3")


def width(family, hook):
    cfg = hooked(family, "raw").cfg
    leaf = hook.rpartition(".")[2]
    if leaf in ("hook_k", "hook_v"):
        return (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
    if leaf in ("hook_z", "hook_q"):
        return cfg.n_heads * cfg.d_head
    if leaf in ("hook_pre", "hook_post"):
        return cfg.d_mlp
    return D_MODEL


@functools.lru_cache(maxsize=None)
def hook_of(name):
    return {**DICTIONARIES, **MORE}[name][1]


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """Folders of models and of dictionaries, by name."""
    folder = tmp_path_factory.mktemp("layers")
    models, entries = {}, {}
    for family in FAMILIES:
        models[family] = make_models.make(family, folder / family)
        names = {**DICTIONARIES, **(MORE if family in MORE_OF else {})}
        for seed, (name, (architecture, hook, more)) in enumerate(names.items()):
            path = make_dictionaries.make(
                architecture, folder / f"{family}-{name}",
                d_in=width(family, hook), d_sae=40, k=6, hook_name=hook,
                seed=seed, **more,
            )
            entries[f"{family}/{name}"] = (family, path)
    path = make_dictionaries.make_pair(
        folder / "file", d_in=D_MODEL, d_sae=40, k=6, d_mlp=128,
        hook_name="blocks.1.ln2.hook_normalized", seed=9,
    )
    entries["gpt2/file"] = ("gpt2", path, "mlp_source: FILE tap: POST_AFFINE")
    return models, entries


@pytest.fixture(scope="module")
def server(saes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers-server")
    with Server(folder, catalog_text(*saes), "--no-self_check") as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


def close(actual, expected, scale=None):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = scale or max(np.abs(expected).max(initial=0), 1e-30)
    worst = np.abs(actual - expected).max(initial=0)
    assert worst <= TOLERANCE * scale, f"{worst} of {scale}"


@functools.lru_cache(maxsize=None)
def doubled(family, processing):
    lens = copy.deepcopy(hooked(family, processing)).double()
    lens.cfg.dtype = torch.float64
    for module in lens.modules():
        if hasattr(module, "cfg"):
            module.cfg.dtype = torch.float64
    return lens


class Oracle:
    """out(position) as a function of the input latents at `sources`."""

    def __init__(self, saes, family, processing, first, second, frozen, prompt):
        load = make_dictionaries.load
        entries = saes[1]
        self.sae_in = load(entries[f"{family}/{first}"][1]).to(dtype=torch.float64)
        self.sae_out = load(entries[f"{family}/{second}"][1]).to(dtype=torch.float64)
        self.lens = doubled(family, processing)
        self.tokens = torch.tensor([prompt])
        self.x, self.y = hook_of(first), hook_of(second)
        _, self.clean = self.lens.run_with_cache(self.tokens)
        self.hooks = []
        if frozen:
            self.hooks = [
                (name, lambda value, hook: self.clean[hook.name])
                for name in self.clean.keys()
                if name.endswith(FROZEN)
            ]

    def rows(self, name):
        return self.clean[name][0].flatten(1)

    def acts(self):
        return self.sae_in.encode(self.rows(self.x))

    def pre(self, y):
        sae = self.sae_out
        sae_in = sae.process_sae_in(y)
        if hasattr(sae, "r_mag"):
            return sae_in @ (sae.W_enc * sae.r_mag.exp()) + sae.b_mag
        out = sae_in @ sae.W_enc + sae.b_enc
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            out = out * sae.W_dec.norm(dim=-1)
        return out

    def run(self, moved, positions):
        """Pre-activations [positions, d_sae] with x moved by `moved`."""

        def move(value, hook):
            return value + moved.view_as(value)

        seen = {}

        def see(value, hook):
            seen["y"] = value

        hooks = [*self.hooks, (self.x, move), (self.y, see)]
        last = int(self.y.split(".")[1]) + 1
        self.lens.run_with_hooks(
            self.tokens, fwd_hooks=hooks, stop_at_layer=last
        )
        return self.pre(seen["y"][0].flatten(1)[positions])

    def decoded(self, delta):
        """What changed activations [positions, d_sae] change at x, with every
        token's statistics held."""
        # Encoding leaves the statistics behind, for one decoding.
        moved = self.sae_in.decode(self.acts() + delta)
        return moved - self.sae_in.decode(self.acts())

    def jacobian(self, positions):
        """[positions, d_out, sources, d_in]"""
        acts = self.acts()
        return jacobian(
            lambda delta: self.run(self.decoded(delta), positions),
            torch.zeros_like(acts),
        ).numpy()


def check(answer, oracle, rows, active=True):
    """`rows`: (position, source) of each row. Every block against autograd.
    `active`: some latents are; returns whether."""
    assert list(zip(answer.position, answer.source_position)) == rows
    positions = sorted({position for position, _ in rows})
    whole = oracle.jacobian(positions)
    acts = oracle.acts().numpy()
    clean = oracle.sae_out.encode(oracle.rows(oracle.y)).numpy()
    scale = np.abs(whole).max()
    assert scale > 1e-3  # the comparison means something
    entries = 0
    for row, (position, source) in enumerate(rows):
        inputs, outputs = answer.in_latents[row], answer.out_latents[row]
        inputs, outputs = inputs[inputs >= 0], outputs[outputs >= 0]
        close(answer.in_acts[row, : len(inputs)], acts[source, inputs])
        close(answer.out_acts[row, : len(outputs)], clean[position, outputs])
        margin = TOLERANCE * max(np.abs(clean).max(), 1)
        assert set(np.flatnonzero(clean[position] > margin)) <= set(outputs)
        block = whole[positions.index(position)][outputs][:, source][:, inputs]
        got = answer.values[row]
        close(got[: len(outputs), : len(inputs)], block, scale)
        assert not got[len(outputs) :].any() and not got[:, len(inputs) :].any()
        if source > position:
            assert not got.any()
        entries += block.size
    assert entries > 0 or not active
    return entries > 0


def ask(client, family, processing, first, second, **options):
    pair = client.pair(
        client.dictionary(f"{family}/{first}", processing),
        client.dictionary(f"{family}/{second}", processing),
    )
    return pair.jacobian([PROMPT], **options)


@pytest.mark.parametrize("mode", ["full", "frozen"])
@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(saes, client, family, processing, mode):
    # A JumpReLU may be silent at all of a few positions.
    active = []
    for first, second in [
        ("post0", "post2"), ("pre0", "out2"), ("out0", "z2"), ("z0", "in2"),
        ("attn0", "normal2"), ("normal0", "attn2"),
    ]:
        oracle = Oracle(
            saes, family, processing, first, second, mode == "frozen", PROMPT
        )
        answer = ask(client, family, processing, first, second,
                     positions=[9, 4], source_positions=[1, 4, 9], mode=mode)
        rows = [(p, s) for p in (9, 4) for s in (1, 4, 9)]
        active.append(check(answer, oracle, rows, False))
        own = ask(client, family, processing, first, second,
                  positions=[9, 0, 5], mode=mode)
        active.append(check(own, oracle, [(p, p) for p in (9, 0, 5)], False))
    assert sum(active) >= 8, active


@pytest.mark.parametrize("mode", ["full", "frozen"])
@pytest.mark.parametrize("family", MORE_OF)
def test_every_hook_point(saes, client, family, mode):
    pairs = [(first, "post2") for first in MORE if first != "pursuit2"]
    pairs += [("pre0", second) for second in MORE if second != "pursuit2"]
    pairs += [("mid1", "mid1"), ("post0", "ln1"), ("v1", "v1"), ("k1", "mid1"),
              ("scaled0", "scaled2"), ("post0", "pre2"), ("pre0", "pre0")]
    for first, second in pairs:
        oracle = Oracle(
            saes, family, "raw", first, second, mode == "frozen", PROMPT
        )
        if np.abs(oracle.jacobian([9])).max() == 0:
            # Keys and queries act through patterns alone.
            assert mode == "frozen" and first in ("q1", "k1")
            answer = ask(client, family, "raw", first, second, positions=9,
                         source_positions=[3, 9], mode=mode)
            assert not answer.values.any()
            continue
        answer = ask(client, family, "raw", first, second, positions=9,
                     source_positions=[9, 3], mode=mode)
        check(answer, oracle, [(9, 9), (9, 3)], first != "post0")


def test_all_sources(saes, client):
    oracle = Oracle(saes, "llama", "raw", "post0", "post2", False, PROMPT)
    answer = ask(client, "llama", "raw", "post0", "post2", positions=[2, 6],
                 source_positions="all")
    check(answer, oracle, [(p, s) for p in (2, 6) for s in range(p + 1)])


def test_prompts_of_different_lengths(saes, client):
    prompts = [PROMPT, PROMPT[:1], PROMPT[2:8]]
    pair = client.pair("gemma2/post0", "gemma2/post2")
    answer = pair.jacobian(prompts, source_positions=[[0, -1], [0], [2]])
    assert len(answer) == 10 * 2 + 1 + 6
    for index, prompt in enumerate(prompts):
        alone = pair.jacobian([prompt], source_positions=[[0, -1], [0], [2]][index])
        mine = answer.prompt == index
        assert (answer.source_position[mine] == alone.source_position).all()
        width_in, width_out = alone.in_latents.shape[1], alone.out_latents.shape[1]
        close(answer.values[mine][:, :width_out, :width_in], alone.values)
    oracle = Oracle(saes, "gemma2", "raw", "post0", "post2", False, PROMPT)
    everything = pair.jacobian([PROMPT], source_positions=[0, -1])
    check(everything, oracle, [(p, s) for p in range(10) for s in (0, 9)])


def test_rows_against_all_latents(saes, client):
    oracle = Oracle(saes, "gpt2", "raw", "post0", "post2", False, PROMPT)
    whole = oracle.jacobian([8])[0]
    answer = ask(client, "gpt2", "raw", "post0", "post2", positions=8,
                 source_positions=[8, 2], block="all")
    for row, source in enumerate((8, 2)):
        for slot, latent in enumerate(answer.out_latents[row]):
            close(answer.row(row, slot), whole[latent, source], np.abs(whole).max())
    top = ask(client, "gpt2", "raw", "post0", "post2", positions=8, block="all", top=3)
    assert top.csr.nnz == 3 * top.out_latents.shape[1]
    assert set(top.to_dataframe()["source_position"]) == {8}


def test_thresholds(client):
    answer = ask(client, "gpt2", "raw", "post0", "post2")
    limit = float(np.median(np.abs(answer.values)))
    less = ask(client, "gpt2", "raw", "post0", "post2", min_abs=limit)
    kept = np.abs(answer.values) >= limit
    assert (less.values == np.where(kept, answer.values, 0)).all() and kept.any()


def test_the_same_dictionary(saes, client):
    """The identity path alone: W_dec W_enc."""
    answer = ask(client, "llama", "raw", "post2", "post2", positions=[3])
    sae = make_dictionaries.load(saes[1]["llama/post2"][1])
    product = (sae.W_dec @ sae.W_enc).numpy()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        product = product * sae.W_dec.norm(dim=-1).numpy()
    expected = product.T[np.ix_(answer.out_latents[0], answer.in_latents[0])]
    close(answer.values[0], expected)


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_finite_differences(saes, client, mode):
    """Moving x at a source by a decoder row, in float64."""
    oracle = Oracle(saes, "gemma3", "raw", "post0", "post2", mode == "frozen", PROMPT)
    answer = ask(client, "gemma3", "raw", "post0", "post2", positions=9,
                 source_positions=[4], mode=mode)
    step = 1e-5
    for column, latent in enumerate(answer.in_latents[0]):
        if latent < 0:
            continue
        delta = torch.zeros_like(oracle.acts())
        delta[4, latent] = step
        move = oracle.decoded(delta)
        slope = (oracle.run(move, [9]) - oracle.run(-move, [9]))[0] / (2 * step)
        close(answer.values[0, :, column],
              slope.numpy()[answer.out_latents[0]], np.abs(answer.values).max())


def test_frozen_and_full_around_one_mlp(client):
    """Nothing is frozen between a norm's output and the MLP's."""
    pair = client.pair("llama/normal0", "llama/out0")
    full = pair.jacobian([PROMPT])
    frozen = pair.jacobian([PROMPT], mode="frozen")
    close(frozen.values, full.values)
    assert (frozen.in_latents == full.in_latents).all()
    at = pair.jacobian([PROMPT], positions=6, source_positions=[5, 6])
    assert not at.values[0].any()
    close(at.values[1], full.values[6], np.abs(full.values).max())


def test_the_cache_knows_mode_and_sources(client):
    options = [{}, {"mode": "frozen"}, {"source_positions": [2]},
               {"source_positions": "all"}, {"source_positions": [2], "mode": "frozen"}]
    answers = []
    for option in options:
        first = ask(client, "qwen3", "raw", "post0", "post2", positions=7, **option)
        again = ask(client, "qwen3", "raw", "post0", "post2", positions=7, **option)
        assert not first.from_cache and again.from_cache
        assert (first.values == again.values).all()
        assert (first.source_position == again.source_position).all()
        answers.append(first)
    assert not np.array_equal(answers[0].values, answers[1].values)
    assert not np.array_equal(answers[2].values, answers[4].values)


def test_accumulation_takes_layers_too(client):
    pair = client.pair("gpt2/post0", "gpt2/post2")
    answer = pair.jacobian([PROMPT])
    totals = pair.accumulate([PROMPT]).result()
    assert totals is not None
    assert len(answer) == len(PROMPT)


REFUSED = [
    ("post2", "post0", {}, "blocks.2.hook_resid_post, which comes after blocks.0"),
    ("post0", "pursuit2", {}, "matching pursuit"),
    ("post0", "post2", {"mlp_input": "reconstruction"}, "mlp_input RECONSTRUCTION"),
    ("post0", "post2", {"second_order": True}, "second_order"),
    ("post0", "post2", {"mlp_output": True}, "mlp_output"),
    ("post0", "post2", {"gradients": True}, "gradients"),
    ("post0", "post2", {"mode": "thawed"}, "mode: expected"),
    ("post0", "post2", {"source_positions": "none"}, "source_positions: expected"),
    ("post0", "post2", {"source_positions": [10]}, "source_positions: 10 is outside"),
    ("post0", "post2", {"source_positions": [-11]}, "source_positions: -11 is"),
    ("post0", "post2", {"source_positions": []}, "source_positions"),
    ("post0", "post2", {"source_positions": [[1], [2]]}, "source_positions"),
    ("post0", "post2", {"source_positions": 0.5}, "source_positions: expected"),
    ("file:in", "file:out", {"mode": "frozen"}, "whose MLP is its file's"),
    ("file:in", "file:out", {"source_positions": [0]}, "whose MLP is its file's"),
]


@pytest.mark.parametrize(("first", "second", "options", "message"), REFUSED)
def test_refusals(client, first, second, options, message):
    with pytest.raises(cupola.InvalidArgument) as refused:
        client.pair(f"gpt2/{first}", f"gpt2/{second}").jacobian([PROMPT], **options)
    assert message in str(refused.value)


def test_inputs_say_nothing_of_other_layers(client):
    pair = client.pair("gpt2/post0", "gpt2/post2")
    with pytest.raises(cupola.InvalidArgument, match="inputs"):
        pair.jacobian(inputs=np.zeros((1, D_MODEL), np.float32))
    with pytest.raises(cupola.InvalidArgument, match="inputs"):
        client.pair("gpt2/normal0", "gpt2/out0").jacobian(
            inputs=np.zeros((1, D_MODEL), np.float32), source_positions="all"
        )
    with pytest.raises(cupola.InvalidArgument, match="model"):
        client.pair("gpt2/post0", "llama/post2").jacobian([PROMPT])


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """So many active output latents that they go back in several parts."""
    folder = tmp_path_factory.mktemp("wide")
    models = {"llama": make_models.make("llama", folder / "llama")}
    entries = {}
    for name, d_sae in [("post0", 40), ("post2", 8000)]:
        path = make_dictionaries.make(
            "standard", folder / name, d_in=D_MODEL, d_sae=d_sae,
            hook_name=hook_of(name), seed=d_sae,
        )
        entries[f"llama/{name}"] = ("llama", path)
    with Server(folder / "server", catalog_text(models, entries)) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client, (models, entries)


def test_parts_give_the_numbers_of_the_whole(wide):
    client, saes = wide
    prompt = [(7 * i) % 290 for i in range(make_models.CONTEXT)]
    pair = client.pair("llama/post0", "llama/post2")
    answer = pair.jacobian([prompt], positions=63, source_positions=[0, 40, 63])
    assert answer.out_latents.shape[1] > 1500
    oracle = Oracle(saes, "llama", "raw", "post0", "post2", False, prompt)
    # A few columns by finite differences, of all output latents.
    step = 1e-5
    for row, source in enumerate((0, 40, 63)):
        for column, latent in enumerate(answer.in_latents[row][:3]):
            delta = torch.zeros_like(oracle.acts())
            delta[source, latent] = step
            move = oracle.decoded(delta)
            slope = (oracle.run(move, [63]) - oracle.run(-move, [63]))[0] / (2 * step)
            close(answer.values[row, :, column],
                  slope.numpy()[answer.out_latents[row]],
                  np.abs(answer.values).max())
    own = pair.jacobian([prompt])
    close(own.values[63][: answer.values.shape[1], : answer.values.shape[2]],
          answer.values[2][: own.values.shape[1], : own.values.shape[2]])
