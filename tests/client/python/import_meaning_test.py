"""What a dictionary means must not change unsaid on its way: sources that are
nearly what a format's importer knows."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cupola import ImportFailed, import_dictionary  # noqa: E402
from harness import upstream  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


def imported(format, source, out, **options):
    """What import_dictionary gives, cfg.json and the tensors."""
    result = import_dictionary(format, source, out, overwrite=True, **options)
    config = json.loads((out / "cfg.json").read_text())
    return result, config, load_file(out / "sae_weights.safetensors")


def refused(message, format, source, out, **options):
    with pytest.raises(ImportFailed, match=message):
        import_dictionary(format, source, out, overwrite=True, **options)
    assert not out.exists() or not list(out.glob("*.new"))


def edit(path, *remove, **changes):
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: config[k] for k in config if k not in remove}))


def edit_trainer(path, **changes):
    config = json.loads(path.read_text())
    config["trainer"].update(changes)
    path.write_text(json.dumps(config))


def add(path, **tensors):
    save_file({**load_file(path), **tensors}, path)


class TestActivationOfATranscoderSet:
    @pytest.fixture
    def made(self, tmp_path):
        return upstream.make("mwhanna", tmp_path / "source")

    def say(self, made, text):
        file = made.source.parent / "config.yaml"
        file.write_text(file.read_text() + text)

    def test_top_k_by_the_configuration(self, made, tmp_path):
        self.say(made, "activation: topk\nk: 16  # of all\n")
        result, config, _ = imported("mwhanna", made.source, tmp_path / "out")
        assert result.architecture == config["architecture"] == "topk_transcoder"
        assert config["k"] == 16
        assert "negative ones" in result.notes[0]

    def test_top_k_by_a_tensor_with_a_skip(self, made, tmp_path):
        skip = torch.eye(upstream.D_IN)
        add(made.source, k=torch.tensor(9), W_skip=skip)
        result, config, w = imported("mwhanna", made.source, tmp_path / "out")
        assert result.architecture == "topk_skip_transcoder" and config["k"] == 9
        assert (w["W_skip"] == skip).all()

    @pytest.mark.parametrize(
        ("text", "tensors", "message"),
        [
            ("activation: topk\n", {}, "nothing says k"),
            ("activation: topk\nk: 8\n", {"k": 9}, "k is 8 in config.yaml and 9"),
            ("activation: topk\nk: 1.5\n", {}, "k is '1.5'"),
            ("activation: topk\nk: 500\n", {}, "k is 500, of 203"),
            ("activation: relu\n", {"k": 9}, "relu, and there is k"),
            ("activation: gelu\n", {}, "activation is 'gelu'"),
            ("activation: jump_relu\n", {}, "nothing says a threshold"),
            ("", {"threshold": 0.5}, "nothing is known of: 'threshold'"),
            ("", {"k": float("nan")}, "k is nan"),
        ],
    )
    def test_contradictions(self, text, tensors, message, made, tmp_path):
        self.say(made, text)
        add(made.source, **{n: torch.tensor(t) for n, t in tensors.items()})
        refused(message, "mwhanna", made.source, tmp_path / "out")

    def test_relu_has_no_threshold(self, tmp_path):
        made = upstream.make("mwhanna-jumprelu", tmp_path / "source")
        self.say(made, "activation: relu\n")
        result, _, w = imported("mwhanna", made.source, tmp_path / "out")
        assert result.architecture == "skip_transcoder"
        assert "threshold" not in w and "not used" in result.notes[0]

    def test_a_threshold_below_zero(self, made, tmp_path):
        threshold = torch.ones(upstream.D_SAE)
        threshold[5] = -0.1
        add(made.source, **{"activation_function.threshold": threshold})
        refused("negative values", "mwhanna", made.source, tmp_path / "out")

    def test_comments_of_the_configuration(self, made, tmp_path):
        (made.source.parent / "config.yaml").write_text(
            'model_name: "x"  # the model\n'
            'feature_input_hook: "hook_resid_mid" # in\nother: 3\n'
        )
        result, _, _ = imported("mwhanna", made.source, tmp_path / "out")
        assert result.hook == "blocks.1.hook_resid_mid" and result.model == "x"
        assert result.notes == ["not used of config.yaml: 'other'"]


@pytest.mark.parametrize(
    ("remove", "change", "message"),
    [
        ([], {"act_fn": "topk", "jump_relu_threshold": 0.0}, "act_fn is 'topk'"),
        (["act_fn"], {}, "act_fn is None"),
        (
            ["sparsity_include_decoder_norm"],
            {},
            "sparsity_include_decoder_norm is None",
        ),
    ],
)
def test_llama_scope_says_its_activation(remove, change, message, tmp_path):
    made = upstream.make("llama-scope", tmp_path / "source")
    edit(made.source / "hyperparams.json", *remove, **change)
    refused(message, "llama-scope", made.source, tmp_path / "out")


def test_llama_scope_that_subtracts(tmp_path):
    made = upstream.make("llama-scope", tmp_path / "a")
    edit(made.source / "hyperparams.json", apply_decoder_bias_to_pre_encoder=True)
    result, config, _ = imported("llama-scope", made.source, tmp_path / "out")
    assert config["apply_b_dec_to_input"] is True
    assert any("names no model" in note for note in result.notes)
    made = upstream.make("llama-scope-transcoder", tmp_path / "b")
    edit(made.source / "hyperparams.json", apply_decoder_bias_to_pre_encoder=True)
    refused("subtracts", "llama-scope", made.source, tmp_path / "out")


def test_embedding_is_a_folder_of_gemma_scope(tmp_path):
    made = upstream.make("gemma-res", tmp_path / "embedding" / "width_studies")
    result, _, _ = imported("gemma-scope", made.source, tmp_path / "out")
    assert result.hook == "blocks.1.hook_resid_post" and not result.notes
    made = upstream.make("gemma-embedding", tmp_path / "source")
    result, _, w = imported(
        *("gemma-scope", made.source, tmp_path / "out"), hook="hook_embed"
    )
    assert "sqrt(d)" in result.notes[0]
    result, _, other = imported(
        *("gemma-scope", made.source, tmp_path / "out"),
        hook="blocks.0.hook_resid_pre",
    )
    assert "are not scaled" in result.notes[0]
    assert (w["W_dec"] - other["W_dec"]).abs().max() > 0.1


def test_a_cache_of_links_says_the_place(tmp_path):
    made = upstream.make("gemma-res", tmp_path / "source")
    repository = tmp_path / "models--google--gemma-scope-2b-pt-res"
    blob = repository / "blobs" / "abc123"
    blob.parent.mkdir(parents=True)
    blob.write_bytes((made.source / "params.npz").read_bytes())
    folder = repository / "snapshots/x/layer_20/width_16k/average_l0_71"
    folder.mkdir(parents=True)
    (folder / "params.npz").symlink_to(blob)
    result, _, _ = imported("gemma-scope", folder, tmp_path / "out")
    assert result.hook == "blocks.20.hook_resid_post"
    assert result.model == "gemma-2-2b"


@pytest.mark.parametrize("site", ["mlp_out", "attn_out"])
def test_a_modules_output_before_a_post_norm(site, tmp_path):
    made = upstream.make("dl-topk", tmp_path / "source")
    file = made.source / "config.json"
    edit_trainer(file, submodule_name=f"{site}_layer_1", lm_name="google/gemma-2-2b")
    arguments = ("dictionary-learning", made.source, tmp_path / "out")
    refused("before a norm", *arguments)
    # Gemma 1 has no such norm, whatever its size.
    for model in ("google/gemma-2b", "google/gemma-7b", "EleutherAI/pythia-70m"):
        result, _, _ = imported(*arguments, model=model)
        assert result.hook == f"blocks.1.hook_{site}"
    edit_trainer(file, submodule_name="resid_post_layer_1")
    assert imported(*arguments)[0].hook == "blocks.1.hook_resid_post"
    edit_trainer(file, layer=7)
    refused("'resid_post_layer_1' and layer 7", *arguments)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("google/gemma-2-2b", "before a norm"),
        ("google/gemma-3-4b-it", "before a norm"),
        ("allenai/OLMo-2-1124-7B", "before a norm"),
        ("google/gemma-2b", None),
        ("Qwen/Qwen3-1.7B", None),
    ],
)
@pytest.mark.parametrize("name", ["mwhanna", "sparsify-transcoder"])
def test_transcoders_of_post_normed_models(name, model, message, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    arguments = (made.format, made.source, tmp_path / "out")
    if message:
        refused(message, *arguments, model=model)
    else:
        assert imported(*arguments, model=model)[0].hook_out == made.hook_out


@pytest.mark.parametrize(
    ("model", "root"),
    [
        ("google/gemma-2-2b", upstream.D_IN**0.5),
        ("google/gemma-7b", upstream.D_IN**0.5),
        ("google/gemma-3-4b-pt", 1.0),
        ("EleutherAI/pythia-70m", 1.0),
        (None, 1.0),
    ],
)
def test_an_embeddings_rows_in_sparsify(model, root, tmp_path):
    made = upstream.make("sparsify", tmp_path / "source")
    source = made.source.rename(made.source.parent / "embed_tokens")
    edit(source.parent / "config.json", *([] if model else ["model"]), model=model)
    result, config, w = imported("sparsify", source, tmp_path / "out")
    assert result.hook == "hook_embed"
    assert bool(result.notes) == (root != 1 or model is None)
    # Encoding and decoding of what hook_embed holds.
    rows = upstream.normal(3, 11, upstream.D_IN).double()
    w = {name: tensor.double() for name, tensor in w.items()}
    assert config["apply_b_dec_to_input"] is True
    acts = upstream.top_k(
        (rows * root - w["b_dec"]) @ w["W_enc"] + w["b_enc"], upstream.K
    )
    torch.testing.assert_close(acts, made.encode(rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        (acts @ w["W_dec"] + w["b_dec"]) / root,
        made.decode(acts, rows),
        **{"rtol": 0, "atol": 1e-5},
    )


def test_an_input_hook_makes_no_other_kind(tmp_path):
    out = tmp_path / "out"
    made = upstream.make("gemma-transcoder", tmp_path / "a")
    hook = "blocks.1.mlp.hook_in"
    result, _, _ = imported("gemma-scope", made.source, out, hook=hook)
    assert result.architecture == "jumprelu_transcoder"
    assert (result.hook, result.hook_out) == (hook, "blocks.1.hook_mlp_out")

    hook = "blocks.1.hook_resid_mid"
    for name in ("gemma-2-attention", "llama-scope"):
        made = upstream.make(name, tmp_path / name)
        result, _, _ = imported(made.format, made.source, out, hook=hook)
        assert (result.architecture, result.hook_out) == ("jumprelu", None)
        result, _, _ = imported(
            *(made.format, made.source, out), hook=hook, hook_out="blocks.1.hook_mlp_out"
        )
        assert result.architecture == "jumprelu_transcoder"
    for name in ("gemma-2-transcoder", "llama-scope-transcoder"):
        made = upstream.make(name, tmp_path / name)
        result, _, _ = imported(made.format, made.source, out, hook=made.hook_out)
        assert result.architecture.endswith("transcoder")
        assert result.hook == result.hook_out == made.hook_out


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sparsify", "sae.safetensors"),
        ("llama-scope", "checkpoints/final.safetensors"),
        ("gemma-2-attention", "params.safetensors"),
        ("jsae", "sae_weights.safetensors"),
        ("mwhanna", ""),
    ],
)
def test_unknown_tensors_are_refused(name, file, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    add(made.source / file if file else made.source, gain=torch.ones(3))
    refused("known of: 'gain'", made.format, made.source, tmp_path / "out")


@pytest.mark.parametrize("name", ["heindrich", "dl-standard", "dl-gated"])
def test_unknown_tensors_of_torch_are_refused(name, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    file = made.source / "ae.pt" if made.source.is_dir() else made.source
    torch.save({**torch.load(file), "gain": torch.ones(3)}, file)
    refused("known of: 'gain'", made.format, made.source, tmp_path / "out")


def test_unknown_arrays_are_refused(tmp_path):
    made = upstream.make("gemma-res", tmp_path / "source")
    file = made.source / "params.npz"
    np.savez(file, gain=np.ones(3), **np.load(file))
    refused("known of: 'gain'", made.format, made.source, tmp_path / "out")


@pytest.mark.parametrize("setting", ["embed_skip", "gram_lookup", "new_one"])
def test_unknown_settings_of_sparsify_are_refused(setting, tmp_path):
    made = upstream.make("sparsify-skip", tmp_path / "source")
    edit(made.source / "cfg.json", **{setting: False})
    imported(made.format, made.source, tmp_path / "out")
    edit(made.source / "cfg.json", **{setting: True})
    refused(f"known of: '{setting}'", made.format, made.source, tmp_path / "out")
