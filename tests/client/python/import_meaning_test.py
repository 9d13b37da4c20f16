"""What a dictionary means must not change unsaid on its way: sources that are
nearly what a format's importer knows."""

import json
import struct
import zipfile

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


def saelens(folder, change, **tensors):
    config = {
        "architecture": "standard",
        "d_in": upstream.D_IN,
        "d_sae": upstream.D_SAE,
        "metadata": {
            "model_name": "tiny",
            "hook_name": "blocks.1.attn.hook_z",
            "hook_name_out": "blocks.1.hook_mlp_out",
            "sae_lens_version": "6.1.0",
        },
        **change,
    }
    folder.mkdir(exist_ok=True)
    save_file({**upstream.weights(7), **tensors}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


TRANSCODER = {"architecture": "transcoder", "apply_b_dec_to_input": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "topk"}, "does not say k"),
        ({"architecture": "topk", "k": "32"}, "k is '32'"),
        ({"architecture": "topk", "k": [3]}, "k is a list"),
        ({"architecture": "topk", "k": 3.5}, "k is 3.5"),
        ({"architecture": "topk", "k": True}, "k is True"),
        ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input is 'yes'"),
        ({"reshape_activations": 3}, "reshape_activations is 3"),
        ({"reshape_activations": "all"}, "reshape_activations is 'all'"),
        ({"normalize_activations": "whitening"}, "normalize_activations is 'whit"),
        (TRANSCODER, "apply_b_dec_to_input is true"),
        ({"metadata": {"sae_lens_version": "9" * 5000}}, "sae_lens_version is '999"),
        ({"metadata": {"hook_name": "a b"}}, "'a b' is no hook point"),
        ({"metadata": {"hook_name": "a\n"}}, "is no hook point"),
    ],
)
def test_settings_of_saelens_that_no_server_takes(change, message, tmp_path):
    source = saelens(tmp_path / "in", change)
    if change.get("metadata"):
        edit(source / "cfg.json", metadata={"sae_lens_version": "6.1.0", **change["metadata"]})
    refused(message, "saelens", source, tmp_path / "out")


def test_an_old_transcoder_subtracts_nothing(tmp_path):
    source = saelens(tmp_path / "in", {"architecture": "transcoder"})
    edit(source / "cfg.json", "metadata", hook_name="a", hook_name_out="b")
    _, config, _ = imported("saelens", source, tmp_path / "out")
    assert config["apply_b_dec_to_input"] is False


def test_a_hook_that_is_no_heads_output_is_not_reshaped(tmp_path):
    source = saelens(tmp_path / "in", {"reshape_activations": "hook_z"})
    arguments = ("saelens", source, tmp_path / "out")
    assert imported(*arguments)[1]["reshape_activations"] == "hook_z"
    _, config, _ = imported(*arguments, hook="blocks.1.hook_resid_pre")
    assert config["reshape_activations"] == "none"


def test_factors_of_fine_tuning(tmp_path):
    factors = torch.linspace(1, 2, upstream.D_SAE)
    source = saelens(tmp_path / "in", {}, scaling_factor=factors)
    arguments = ("saelens", source, tmp_path / "out")
    refused("does not say finetuning_scaling_factor", *arguments)
    edit(source / "cfg.json", finetuning_scaling_factor=True)
    assert (imported(*arguments)[2]["scaling_factor"] == factors).all()
    source = saelens(tmp_path / "in", {}, scaling_factor=torch.ones_like(factors))
    assert "scaling_factor" not in imported(*arguments)[2]


def test_pairs_that_are_refused(tmp_path):
    made = upstream.make("jsae", tmp_path / "a", d_mlp=5)
    imported("jsae", made.source, tmp_path / "out")
    edit(made.source / "cfg.json", hook_head_index=3)
    refused("one attention head", "jsae", made.source, tmp_path / "out")
    edit(made.source / "cfg.json", hook_head_index=None)
    add(made.source / "sparsity.safetensors", sparsity2=torch.ones(5))
    refused("sparsity2 has the shape", "jsae", made.source, tmp_path / "out")
    (made.source / "sparsity.safetensors").unlink()
    add(made.source / "sae_weights.safetensors", **{"mlp.W_in": torch.ones(5, 48)})
    refused("mlp.W_in has the shape", "jsae", made.source, tmp_path / "out")


@pytest.mark.parametrize("factor", [float("inf"), float("nan"), 1e308, -4, 0])
def test_a_factor_that_is_none(factor, tmp_path, monkeypatch):
    made = upstream.make("heindrich", tmp_path / "source")
    edit(made.source.with_suffix(".json"), expansion_factor=factor)
    refused("expansion_factor", "heindrich", made.source, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    refused("NAME.pt is asked for", "heindrich", ".", tmp_path / "out")


@pytest.mark.parametrize("k", [float("nan"), float("inf"), 2.5, 0.0])
def test_a_k_that_is_none(k, tmp_path):
    made = upstream.make("dl-topk", tmp_path / "source")
    file = made.source / "ae.pt"
    torch.save({**torch.load(file), "k": torch.tensor(k)}, file)
    refused("k is", "dictionary-learning", made.source, tmp_path / "out")


def test_matrices_that_are_numbers(tmp_path):
    made = upstream.make("sparsify", tmp_path / "source")
    add(made.source / "sae.safetensors", W_dec=torch.tensor(1.0))
    refused("W_dec has the shape", "sparsify", made.source, tmp_path / "out")
    file = tmp_path / "params.npz"
    names = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
    np.savez(file, **{name: np.float32(1) for name in names})
    refused("no matrix", "gemma-scope", file, tmp_path / "out", hook="hook_embed")


def test_names_in_files_do_not_reach_the_terminal(tmp_path):
    made = upstream.make("mwhanna", tmp_path / "a")
    save_file({"\x1b[2J" + "x" * 5000: torch.ones(1)}, made.source)
    with pytest.raises(ImportFailed) as failed:
        import_dictionary("mwhanna", made.source, tmp_path / "out")
    assert str(failed.value).isprintable() and len(str(failed.value)) < 1100
    made = upstream.make("heindrich", tmp_path / "b")
    edit(made.source.with_suffix(".json"), act="mlp\x1b[2J")
    refused("is no hook point", "heindrich", made.source, tmp_path / "out")


def test_a_refused_sparsity_leaves_what_was_there(tmp_path):
    made = upstream.make("dunefsky", tmp_path / "source")
    out = tmp_path / "out"
    import_dictionary("dunefsky", made.source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 3
    file = next(made.source.parent.glob("*_log_feature_sparsity.pt"))
    densities = torch.load(file)
    densities[0] = float("-inf")
    torch.save(densities, file)
    refused("sparsity holds 1 of", "dunefsky", made.source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': (",
        b"{[1]: 2}",
        b"{'descr':',','fortran_order':False,'shape':(1,)}",
        b"{'descr':'<f4','fortran_order':False,'shape':(-2,-2)}",
        b"{'descr':'<f4','fortran_order':False,'shape':(0,%d)}" % (1 << 80),
        b"(" * 200,
        b"-" * 3000 + b"1",
    ],
)
def test_hostile_headers_of_arrays(header, tmp_path):
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    file = tmp_path / "file.npz"
    with zipfile.ZipFile(file, "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("w_enc.npy", magic + header)
    refused("no npz file", "gemma-scope", file, tmp_path / "out", hook="a")


@pytest.mark.parametrize("name", ["gemma-compressed", "gemma-res", "mwhanna"])
def test_flipped_bytes_of_headers(name, tmp_path):
    """Of the first and last ones, where files describe themselves."""
    made = upstream.make(name, tmp_path / "source")
    file = made.source / "params.npz" if made.source.is_dir() else made.source
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    failures = 0
    for _ in range(60):
        data = bytearray(whole)
        at = int(random.integers(-500, 500))
        data[at] ^= int(random.integers(1, 256))
        file.write_bytes(data)
        try:
            import_dictionary(
                *(made.format, made.source, tmp_path / "out"), overwrite=True
            )
        except ImportFailed as error:
            assert not str(error).startswith("the source is damaged")
            failures += 1
    assert failures > 5


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_methods_that_numpy_does_not_write(method, tmp_path):
    made = upstream.make("gemma-res", tmp_path / "source")
    file = made.source / "params.npz"
    arrays = dict(np.load(file))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w") as member:
                np.save(member, array)
    refused("compressed in an unknown way", "gemma-scope", made.source, tmp_path / "out")


def test_a_bias_in_other_units_than_the_input(tmp_path):
    made = upstream.make("llama-scope", tmp_path / "source")
    edit(
        made.source / "hyperparams.json",
        apply_decoder_bias_to_pre_encoder=True,
        dataset_average_activation_norm={"in": 20.0, "out": 12.0},
    )
    refused("two scales", "llama-scope", made.source, tmp_path / "out")


@pytest.mark.parametrize("missing", ["encoder.bias", "b_dec"])
def test_sparsify_without_a_bias(missing, tmp_path):
    made = upstream.make("sparsify", tmp_path / "source")
    file = made.source / "sae.safetensors"
    tensors = load_file(file)
    del tensors[missing]
    save_file(tensors, file)
    _, _, w = imported("sparsify", made.source, tmp_path / "out")
    assert not w[{"encoder.bias": "b_enc"}.get(missing, missing)].any()


def test_a_seeds_folder_and_a_transposed_decoder(tmp_path):
    made = upstream.make("sparsify", tmp_path / "source")
    _, _, expected = imported("sparsify", made.source, tmp_path / "out")
    file = made.source / "sae.safetensors"
    add(file, W_dec=load_file(file)["W_dec"].T.contiguous())
    seed = made.source / "seed1"
    seed.mkdir()
    for name in ("sae.safetensors", "cfg.json"):
        (made.source / name).rename(seed / name)
    result, _, w = imported("sparsify", seed, tmp_path / "out")
    assert result.hook == "blocks.1.hook_resid_post"
    assert result.notes == ["W_dec was stored transposed"]
    assert all((w[name] == expected[name]).all() for name in w)


def test_transcoders_that_write_to_several_layers(tmp_path):
    made = upstream.make("mwhanna", tmp_path / "source")
    config = made.source.parent / "config.yaml"
    config.write_text("model_kind: cross_layer_transcoder\n")
    refused("several layers", "mwhanna", made.source, tmp_path / "out")
    config.unlink()
    result, _, _ = imported("mwhanna", made.source, tmp_path / "out")
    assert (result.hook, result.hook_out) == (made.hook, made.hook_out)
    assert "those of an MLP were taken" in result.notes[0]
    add(made.source, log_thresholds=torch.ones(3))
    refused("log_thresholds", "mwhanna", made.source, tmp_path / "out")
    save_file({"W_enc_0": torch.ones(3, 3)}, made.source)
    refused("several layers", "mwhanna", made.source, tmp_path / "out")
    made = upstream.make("gemma-2-transcoder", tmp_path / "other")
    add(made.source / "params.safetensors", w_dec=torch.ones(203, 2, 48))
    refused("several layers", "gemma-scope-2", made.source, tmp_path / "out")


def test_gemma_scope_of_heads(tmp_path):
    made = upstream.gemma_scope(tmp_path / "source", site="att")
    result, config, _ = imported("gemma-scope", made.source, tmp_path / "out")
    assert result.hook == made.hook == "blocks.1.attn.hook_z"
    assert config["reshape_activations"] == "hook_z"
