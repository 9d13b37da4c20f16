"""Encode and decode against SAELens, for every architecture and option.

Cupola's results come from the program cupola_dump_features (tests/dictionary), found in
the build folder that CUPOLA_BUILD names.

Tolerance: 5e-5 of the tensor's scale (its largest magnitude), the project's
promise for float32. An architecture that switches latents on and off (TopK's
competition, thresholds, gates) may decide differently where float64 says that the
margin is below that tolerance; those entries are not compared.
"""

import copy
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import make_dictionaries as md

TOLERANCE = 5e-5
REPOSITORY = Path(__file__).resolve().parents[3]
GPT2 = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 48,
    "n_positions": 128,
    "vocab_size": 64,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture(scope="session")
def dump():
    build = Path(os.environ.get("CUPOLA_BUILD", REPOSITORY / "build"))
    program = build / "cupola_dump_features"
    if not program.exists():
        pytest.fail(f"{program} is missing: build the target cupola_dump_features")
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(job):
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(GPT2))
    return path


class Dumped:
    """What cupola_dump_features wrote for one job."""

    def __init__(self, answer, prefix):
        assert "error" not in answer, answer["error"]
        self.answer = answer
        rows, d_sae = answer["rows"], answer["d_sae"]

        def raw(name, dtype):
            return np.fromfile(f"{prefix}.{name}", dtype)

        self.indptr = raw("indptr", np.int64)
        self.indices = raw("indices", np.int32)
        self.values = raw("values", np.float32)
        self.dense = raw("dense", np.float32).reshape(rows, d_sae)
        self.reconstruction = raw("reconstruction", np.float32).reshape(
            rows, answer["d_out"]
        )

    def features(self):
        result = np.zeros_like(self.dense)
        for row in range(len(self.indptr) - 1):
            span = slice(self.indptr[row], self.indptr[row + 1])
            assert (np.diff(self.indices[span]) > 0).all()
            result[row, self.indices[span]] = self.values[span]
        assert (self.values > 0).all()
        return result


@pytest.fixture
def encode(dump, config, tmp_path):
    def run(folder, x, **job):
        x.numpy().astype(np.float32).tofile(tmp_path / "input")
        prefix = tmp_path / "output"
        answer = dump(
            {
                "folder": str(folder),
                "model_config": str(config),
                "input": str(tmp_path / "input"),
                "output": str(prefix),
                **job,
            }
        )
        return Dumped(answer, prefix)

    return run


def inputs(rows=37, d_in=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(rows, 1, generator=generator) * 3 + 0.5
    return torch.randn(rows, d_in, generator=generator) * scale + 0.4


def assert_close(actual, expected, ignore=None):
    scale = np.abs(expected).max()
    difference = np.abs(actual - expected)
    if ignore is not None:
        difference = np.where(ignore, 0, difference)
    worst = difference.max()
    assert worst <= TOLERANCE * scale, f"{worst} of {scale}"


def undecided(sae, x):
    """Entries whose switch float64 leaves open at the tolerance: [rows, d_sae].
    A threshold's margin is judged on its latent's scale, a competition's on all."""
    wide = x.double()
    sae64 = copy.deepcopy(sae).to(dtype=torch.float64)
    sae_in = sae64.process_sae_in(wide)
    architecture = sae64.cfg.architecture()
    if architecture == "gated":
        margin = sae_in @ sae64.W_enc + sae64.b_gate
    elif architecture.startswith("jumprelu"):
        margin = sae_in @ sae64.W_enc + sae64.b_enc - sae64.threshold
    elif architecture == "topk":
        pre = sae_in @ sae64.W_enc + sae64.b_enc
        if sae64.cfg.rescale_acts_by_decoder_norm:
            pre = pre * sae64.W_dec.norm(dim=-1)
        margin = pre - pre.topk(sae64.cfg.k, dim=-1).values[:, -1:]
        # The k-th itself is at distance 0: what counts is the next one's.
        next_value = pre.topk(sae64.cfg.k + 1, dim=-1).values
        gap = next_value[:, -2:-1] - next_value[:, -1:]
        margin = torch.where(margin >= 0, margin + gap, margin)
    else:
        return np.zeros((len(x), sae64.cfg.d_sae), bool)
    scale = margin.abs().amax(None if architecture == "topk" else 0)
    return (margin.abs() <= TOLERANCE * scale).numpy()


def check(sae, dumped, x):
    """Compares encode, its dense form, and decode of Cupola's own features."""
    with torch.no_grad():
        x_shaped = x
        if sae.cfg.reshape_activations == "hook_z":
            x_shaped = x.reshape(len(x), GPT2["n_head"], -1)
        acts = sae.encode(x_shaped)
        features = dumped.features()
        ignore = undecided(sae, x_shaped)
        assert ignore.mean() < 0.01
        assert 0 < (features > 0).mean() < 0.6
        assert_close(features, acts.numpy(), ignore)
        np.testing.assert_array_equal(dumped.dense, features)
        sae.encode(x_shaped)  # stores what the output's normalisation reads
        expected = sae.decode(torch.from_numpy(features))
        if hasattr(sae, "W_skip"):
            expected = expected + x @ sae.W_skip.T
        assert_close(dumped.reconstruction, expected.reshape(len(x), -1).numpy())


PLAIN = [a for a in md.ARCHITECTURES if not md.is_transcoder(a)]
TRANSCODERS = [a for a in md.ARCHITECTURES if md.is_transcoder(a)]


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("apply_b_dec", [False, True])
@pytest.mark.parametrize("normalize", md.NORMALIZATIONS)
@pytest.mark.parametrize("architecture", PLAIN)
def test_sae(architecture, normalize, apply_b_dec, file_dtype, encode, tmp_path):
    folder = md.make(
        architecture,
        tmp_path / "sae",
        normalize_activations=normalize,
        apply_b_dec_to_input=apply_b_dec,
        file_dtype=file_dtype,
        seed=3,
    )
    x = inputs()
    check(md.load(folder), encode(folder, x), x)


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("normalize", md.NORMALIZATIONS)
@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_transcoder(architecture, normalize, file_dtype, encode, tmp_path):
    folder = md.make(
        architecture,
        tmp_path / "sae",
        normalize_activations=normalize,
        file_dtype=file_dtype,
        hook_name="blocks.1.ln2.hook_normalized",
        seed=4,
    )
    x = inputs(seed=2)
    dumped = encode(folder, x)
    assert dumped.answer["hook_out"] == "blocks.1.hook_mlp_out"
    check(md.load(folder), dumped, x)


def test_transcoder_with_another_output_width(encode, tmp_path):
    folder = md.make(
        "skip_transcoder",
        tmp_path / "sae",
        d_out=4 * GPT2["n_embd"],
        hook_name_out="blocks.1.mlp.hook_post",
    )
    x = inputs()
    check(md.load(folder), encode(folder, x), x)


@pytest.mark.parametrize("normalize", md.NORMALIZATIONS)
def test_topk_rescaled_by_decoder_norm(normalize, encode, tmp_path):
    folder = md.make(
        "topk",
        tmp_path / "sae",
        normalize_activations=normalize,
        rescale_acts_by_decoder_norm=True,
        seed=5,
    )
    x = inputs()
    check(md.load(folder), encode(folder, x), x)


FOLDABLE = [a for a in md.ARCHITECTURES if a not in ("matching_pursuit", "topk")]


@pytest.mark.parametrize("architecture", FOLDABLE + ["topk"])
def test_fold_w_dec_norm(architecture, encode, tmp_path):
    extra = {"rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    folder = md.make(architecture, tmp_path / "sae", seed=6, **extra)
    x = inputs()
    plain = encode(folder, x)
    folded = encode(folder, x, fold=True)
    assert plain.answer["digest"] != folded.answer["digest"]
    check(md.load(folder, fold_W_dec_norm=True), folded, x)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_fold_with_dead_latents(architecture, encode, tmp_path):
    folder = md.make(architecture, tmp_path / "sae", dead_latents=(0, 7, 202))
    x = inputs()
    check(md.load(folder, fold_W_dec_norm=True), encode(folder, x, fold=True), x)


@pytest.mark.parametrize("architecture", ["topk", "matching_pursuit"])
def test_fold_is_refused_where_it_changes_the_selection(
    architecture, dump, config, tmp_path
):
    folder = md.make(architecture, tmp_path / "sae")
    with pytest.raises(NotImplementedError):
        md.load(folder, fold_W_dec_norm=True)
    answer = dump({"folder": str(folder), "model_config": str(config), "fold": True})
    assert "fold_w_dec_norm" in answer["error"]


def test_expected_average_factor_is_folded(encode, tmp_path):
    factor = 0.37
    for architecture in ("standard", "jumprelu", "gated", "topk", "matching_pursuit"):
        folder = md.make(
            architecture,
            tmp_path / architecture,
            normalize_activations="expected_average_only_in",
            seed=7,
        )
        sae = md.load(folder)
        sae.fold_activation_norm_scaling_factor(factor)
        cfg = json.loads((folder / "cfg.json").read_text())
        cfg["norm_scaling_factor"] = factor
        (folder / "cfg.json").write_text(json.dumps(cfg))
        x = inputs() / factor
        check(sae, encode(folder, x), x)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_hook_z_is_flattened_head_major(architecture, encode, tmp_path):
    folder = md.make(
        architecture,
        tmp_path / "sae",
        hook_name="blocks.1.attn.hook_z",
        reshape_activations="hook_z",
    )
    x = inputs()
    check(md.load(folder), encode(folder, x), x)


@pytest.mark.parametrize("drop", [(), ("apply_b_dec_to_input", "prepend_bos")])
@pytest.mark.parametrize("normalize", [False, True, None, "layer_norm"])
@pytest.mark.parametrize("activation_fn", [None, "topk"])
def test_flat_configuration(activation_fn, normalize, drop, encode, tmp_path):
    folder = md.make_flat(
        tmp_path / "sae",
        activation_fn=activation_fn,
        apply_b_dec_to_input=bool(drop),
        drop=drop + ("reshape_activations",),
    )
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["normalize_activations"] = normalize
    (folder / "cfg.json").write_text(json.dumps(cfg))
    x = inputs()
    sae = md.load(folder)
    assert sae.cfg.architecture() == ("topk" if activation_fn else "standard")
    dumped = encode(folder, x)
    assert dumped.answer["prepend_bos"] is True
    check(sae, dumped, x)


@pytest.mark.parametrize("ones", [True, False])
def test_scaling_factor_tensor(ones, dump, config, encode, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = md.make_flat(tmp_path / "sae")
    path = folder / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors["scaling_factor"] = torch.ones(203) * (1.0 if ones else 1.5)
    save_file(tensors, path)
    x = inputs()
    if ones:
        check(md.load(folder), encode(folder, x), x)
        return
    answer = dump(
        {"folder": str(folder), "model_config": str(config), "input": "", "output": ""}
    )
    assert "finetuning_scaling_factor" in answer["error"]


@pytest.mark.parametrize("half", ["in", "out"])
@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float16])
def test_pair(half, file_dtype, encode, tmp_path):
    folder = md.make_pair(
        tmp_path / "pair", file_dtype=file_dtype, d_mlp=4 * GPT2["n_embd"]
    )
    x = inputs()
    dumped = encode(folder, x, half=half)
    assert dumped.answer["hook_in"] == "blocks.1.ln2.hook_normalized"
    assert dumped.answer["hook_out"] == "blocks.1.hook_mlp_out"
    assert dumped.answer["has_mlp"]
    check(md.load(md.split_pair(folder, half, tmp_path / "half")), dumped, x)


def test_pair_behind_the_gain(encode, tmp_path):
    folder = md.make_pair(tmp_path / "pair")
    dumped = encode(folder, inputs(), tap="POST_AFFINE")
    assert dumped.answer["hook_in"] == "blocks.1.mlp.hook_in"


@pytest.mark.parametrize("architecture", md.ARCHITECTURES)
def test_bfloat16_is_close(architecture, encode, tmp_path):
    """bfloat16 has 8 bits: the reconstruction of the same features agrees within a
    few of its roundings, 2^-8 each."""
    folder = md.make(architecture, tmp_path / "sae", seed=9)
    x = inputs()
    dumped = encode(folder, x, dtype="bfloat16")
    features = torch.from_numpy(dumped.features())
    sae = md.load(folder)
    with torch.no_grad():
        sae.encode(x)
        expected = sae.decode(features)
        if hasattr(sae, "W_skip"):
            expected = expected + x @ sae.W_skip.T
    error = np.abs(dumped.reconstruction - expected.numpy()).max()
    assert error <= 4 * 2**-8 * expected.abs().max().item()


@pytest.mark.parametrize("architecture", md.ARCHITECTURES)
def test_options_narrow_the_full_answer(architecture, encode, tmp_path):
    folder = md.make(architecture, tmp_path / "sae", seed=10)
    x = inputs()
    full = encode(folder, x).features()
    scale = np.abs(full).max()

    few = [0, 5, 41, 200, 202]
    for latents in (few, list(range(0, 203, 2))):
        expected = np.zeros_like(full)
        expected[:, latents] = full[:, latents]
        narrow = encode(folder, x, latents=latents).features()
        assert np.abs(narrow - expected).max() <= TOLERANCE * scale

    floor = float(np.quantile(full[full > 0], 0.4))
    above = encode(folder, x, min_activation=floor).features()
    np.testing.assert_array_equal(above, np.where(full > np.float32(floor), full, 0))

    best = encode(folder, x, top_k=3).features()
    order = np.argsort(-full, axis=1, kind="stable")[:, :3]
    expected = np.zeros_like(full)
    np.put_along_axis(expected, order, np.take_along_axis(full, order, 1), 1)
    np.testing.assert_array_equal(best, expected)
