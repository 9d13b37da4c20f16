"""Dictionaries of every format, made as their projects save them, imported and
compared with the projects' own equations."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cupola import ImportFailed, import_dictionary  # noqa: E402
from harness import upstream  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

TOLERANCE = 5e-5


def read(folder):
    config = json.loads((folder / "cfg.json").read_text())
    tensors = load_file(folder / "sae_weights.safetensors")
    assert {t.dtype for t in tensors.values()} == {np.dtype("float32")}
    if config.get("is_pair"):  # the input's half
        tensors = {
            name[1:]: t
            for name, t in tensors.items()
            if name.startswith("_") and not name.endswith("_out")
        }
        config.update(architecture="topk", k=config["activation_fn_kwargs"]["k"])
    return config, {n: t.astype(np.float64) for n, t in tensors.items()}


def layout_encode(config, w, x):
    """What SAELens' layout means, by its own definition."""
    sae_in = x - w["b_dec"] if config["apply_b_dec_to_input"] else x
    assert config["normalize_activations"] == "none"
    product = sae_in @ w["W_enc"]
    architecture = config["architecture"]
    if architecture == "gated":
        active = product + w["b_gate"] > 0
        magnitude = product * np.exp(w["r_mag"]) + w["b_mag"]
        return active * np.maximum(magnitude, 0)
    pre = product + w["b_enc"]
    if architecture.startswith("jumprelu"):
        return np.maximum(pre, 0) * (pre > w["threshold"])
    if architecture.startswith("topk"):
        kept = np.zeros_like(pre)
        largest = np.argsort(-pre, axis=-1)[:, : config["k"]]
        values = np.take_along_axis(pre, largest, -1)
        np.put_along_axis(kept, largest, np.maximum(values, 0), -1)
        return kept
    return np.maximum(pre, 0)


def layout_decode(config, w, acts, x):
    skip = x @ w["W_skip"].T if "W_skip" in w else 0
    return acts @ w["W_dec"] + w["b_dec"] + skip


def assert_close(actual, expected):
    worst = np.abs(actual - expected).max()
    assert worst <= TOLERANCE * np.abs(expected).max(), worst


@pytest.mark.parametrize("name", upstream.ALL)
def test_against_the_upstreams_equations(name, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    imported = import_dictionary(
        made.format, made.source, tmp_path / "out", **(made.options or {})
    )
    config, w = read(tmp_path / "out")
    where = {**config, **config["metadata"]}
    assert where["hook_name"] == made.hook == imported.hook
    if config.get("is_pair"):
        assert imported.architecture == "jacobian pair"
    else:
        assert imported.architecture == config["architecture"]
        assert where.get("hook_name_out") == made.hook_out == imported.hook_out
        assert where["sae_lens_version"] == "6.0.0"
    assert where["imported_from"]["format"] == made.format
    assert (config["d_in"], config["d_sae"]) == w["W_enc"].shape

    # Inputs of the size that the format expects.
    scale = {"llama-scope": 4.0}.get(made.format, 1.0)
    if made.hook == "hook_embed":
        scale = config["d_in"] ** 0.5
    x = upstream.normal(1, 37, config["d_in"], scale=scale).double()
    expected = made.encode(x)
    assert 20 < (expected > 0).sum() < 0.7 * expected.numel()
    acts = layout_encode(config, w, x.numpy())
    assert_close(acts, expected.numpy())
    assert_close(
        layout_decode(config, w, acts, x.numpy()),
        made.decode(expected, x).numpy(),
    )


def saelens_folder(folder, config, **tensors):
    folder.mkdir(parents=True, exist_ok=True)
    w = {n: t.numpy() for n, t in upstream.weights(7).items()}
    w.update(tensors)
    save_file(w, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return w


OLD = {
    "d_in": upstream.D_IN,
    "d_sae": upstream.D_SAE,
    "model_name": "tiny",
    "hook_point": "blocks.1.hook_resid_pre",
    "dtype": "float32",
}
NEW = {
    "architecture": "standard",
    "d_in": upstream.D_IN,
    "d_sae": upstream.D_SAE,
    "apply_b_dec_to_input": False,
    "metadata": {
        "model_name": "tiny",
        "hook_name": "blocks.1.hook_resid_pre",
        "prepend_bos": False,
        "sae_lens_version": "6.1.0",
    },
}


def test_the_old_generations_defaults_are_said(tmp_path):
    saelens_folder(
        tmp_path / "old",
        {
            **OLD,
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": 9},
            "normalize_activations": False,
        },
    )
    import_dictionary("saelens", tmp_path / "old", tmp_path / "out")
    config, _ = read(tmp_path / "out")
    assert config["architecture"] == "topk" and config["k"] == 9
    assert config["apply_b_dec_to_input"] is True
    assert config["normalize_activations"] == "none"
    assert config["metadata"]["prepend_bos"] is True
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_pre"
    assert config["metadata"]["model_name"] == "tiny"


def test_hook_z_is_flattened_in_the_old_generation(tmp_path):
    saelens_folder(tmp_path / "old", {**OLD, "hook_point": "blocks.0.attn.hook_z"})
    import_dictionary("saelens", tmp_path / "old", tmp_path / "out")
    config, _ = read(tmp_path / "out")
    assert config["reshape_activations"] == "hook_z"


def test_the_new_generation_and_what_overrides_it(tmp_path):
    density = np.linspace(-6, -1, upstream.D_SAE, dtype=np.float32)
    saelens_folder(tmp_path / "new", NEW)
    save_file({"sparsity": density}, tmp_path / "new" / "sparsity.safetensors")
    imported = import_dictionary(
        *("saelens", tmp_path / "new", tmp_path / "out"),
        model="other",
        hook="blocks.0.hook_mlp_out",
        prepend_bos=True,
    )
    config, _ = read(tmp_path / "out")
    metadata = config["metadata"]
    assert metadata["hook_name"] == imported.hook == "blocks.0.hook_mlp_out"
    assert metadata["model_name"] == imported.model == "other"
    assert metadata["prepend_bos"] is True
    assert config["apply_b_dec_to_input"] is False
    found = load_file(tmp_path / "out" / "sparsity.safetensors")
    assert (found["sparsity"] == density).all()


def test_a_known_factor_of_the_input_is_folded(tmp_path):
    w = saelens_folder(
        tmp_path / "new",
        {**NEW, "normalize_activations": "expected_average_only_in"},
    )
    unknown = import_dictionary("saelens", tmp_path / "new", tmp_path / "a")
    assert "as they are" in unknown.notes[0]
    _, same = read(tmp_path / "a")
    assert (same["W_enc"] == w["W_enc"]).all()
    known = import_dictionary(
        *("saelens", tmp_path / "new", tmp_path / "b"), norm_scaling_factor=0.5
    )
    assert "0.5 was folded in" in known.notes[0]
    config, folded = read(tmp_path / "b")
    assert config["normalize_activations"] == "none"
    assert (folded["W_enc"] == w["W_enc"] * 0.5).all()
    assert (folded["W_dec"] == w["W_dec"] / 0.5).all()
    assert (folded["b_dec"] == w["b_dec"] / 0.5).all()
    assert (folded["b_enc"] == w["b_enc"]).all()
    with pytest.raises(ImportFailed, match="norm_scaling_factor is -1"):
        import_dictionary(
            *("saelens", tmp_path / "new", tmp_path / "c"),
            norm_scaling_factor=-1.0,
        )
    with pytest.raises(ImportFailed, match="is of the format saelens"):
        import_dictionary(
            *("jsae", tmp_path / "new", tmp_path / "c"), norm_scaling_factor=2.0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "temporal"}, "architecture is 'temporal'"),
        ({"architecture": "jumprelu"}, "lacks threshold"),
        ({"architecture": 3}, "architecture is 3"),
        ({"hook_head_index": 2}, "one attention head"),
        ({"metadata": []}, "metadata is a list"),
        ({"metadata": {"sae_lens_version": "x"}}, "sae_lens_version is 'x'"),
        (
            {"metadata": {"activation_fn": "tanh"}},
            "activation_fn is 'tanh'",
        ),
        ({"architecture": "topk", "k": 500}, "k is 500, of 203 latents"),
    ],
)
def test_saelens_folders_that_are_refused(change, message, tmp_path):
    saelens_folder(tmp_path / "in", {**NEW, **change})
    with pytest.raises(ImportFailed, match=message):
        import_dictionary("saelens", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "cfg.json").exists()


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("sparsify", "cfg.json", {"activation": "groupmax"}, "one winner"),
        ("sparsify", "cfg.json", {"signed": True}, "signed activations"),
        ("sparsify", "cfg.json", {"num_latents": 64}, "48 values to 203"),
        ("sparsify", "cfg.json", {"skip_connection": True}, "disagree"),
        ("sparsify", "cfg.json", {"k": None}, "says k is None"),
        ("sparsify", "../config.json", {"model": "google/gemma-2-2b"}, None),
        ("llama-scope", "hyperparams.json", {"use_glu_encoder": True}, "gated linear"),
        (
            *("llama-scope", "hyperparams.json"),
            {"norm_activation": "token-wise"},
            "one by one",
        ),
        (
            *("llama-scope", "hyperparams.json"),
            {"dataset_average_activation_norm": {"in": 0}},
            "average norm is 0",
        ),
        ("llama-scope", "hyperparams.json", {"act_fn": "relu"}, "act_fn is 'relu'"),
        ("jsae", "cfg.json", {"randomize_llm_weights": True}, "random weights"),
        ("jsae", "cfg.json", {"d_sae": 7}, "d_sae is 7, not 203"),
        (
            "jsae",
            "cfg.json",
            {"architecture": "gated", "activation_fn_str": "relu"},
            "'gated'",
        ),
        ("dl-topk", "config.json", {"trainer": {"dict_class": "Other"}}, "'Other'"),
        (
            *("dl-standard", "config.json"),
            {"buffer": {"io": "in"}},
            "'in' was read",
        ),
        (
            *("dl-topk", "config.json"),
            {"trainer": {"dict_class": "AutoEncoderTopK", "k": 3, "layer": 1}},
            "k is 3 in config.json and 16 in ae.pt",
        ),
    ],
)
def test_what_cannot_be_represented_is_refused(name, file, change, message, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    edit_json(made.source / file, **change)
    options = made.options or {}
    if message is None:  # a block's output is no module of its own: it can
        import_dictionary(made.format, made.source, tmp_path / "out", **options)
        metadata = read(tmp_path / "out")[0]["metadata"]
        assert metadata["hook_name"] == "blocks.1.hook_resid_post"
        assert metadata["model_name"] == "google/gemma-2-2b"
        return
    with pytest.raises(ImportFailed, match=message):
        import_dictionary(made.format, made.source, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "cfg.json").exists()


def test_a_module_before_a_post_norm_is_refused(tmp_path):
    made = upstream.make("sparsify-transcoder", tmp_path / "source")
    with pytest.raises(ImportFailed, match="taken before a norm"):
        import_dictionary(
            *(made.format, made.source, tmp_path / "out"), model="gemma-2-2b"
        )
    import_dictionary(
        *(made.format, made.source, tmp_path / "out"),
        model="gemma-2-2b",
        hook="blocks.1.mlp.hook_in",
        hook_out="blocks.1.hook_mlp_out",
    )


def test_gemma_scope_needs_to_know_its_place(tmp_path):
    made = upstream.make("gemma-res", tmp_path / "source")
    bare = tmp_path / "bare.npz"
    bare.write_bytes((made.source / "params.npz").read_bytes())
    with pytest.raises(ImportFailed, match="give --hook"):
        import_dictionary("gemma-scope", bare, tmp_path / "out")
    imported = import_dictionary(
        *("gemma-scope", bare, tmp_path / "out"), hook="blocks.3.attn.hook_z"
    )
    config, _ = read(tmp_path / "out")
    assert imported.hook == "blocks.3.attn.hook_z"
    assert config["reshape_activations"] == "hook_z"


def test_hostile_and_damaged_arrays(tmp_path):
    def refused(message, **arrays):
        file = tmp_path / "params.npz"
        np.savez(file, **arrays)
        with pytest.raises(ImportFailed, match=message):
            import_dictionary(
                *("gemma-scope", file, tmp_path / "out"), hook="hook_embed"
            )

    good = {n.replace("W_", "w_"): t.numpy() for n, t in upstream.weights(1).items()}
    good["threshold"] = np.ones(upstream.D_SAE, np.float32)
    refused("no npz file", **{**good, "b_enc": np.array([{}], dtype=object)})
    refused("threshold has the shape", **{**good, "threshold": np.ones(3)})
    refused("no tensor threshold", **{k: good[k] for k in list(good)[:4]})
    refused("not finite", **{**good, "b_dec": good["b_dec"] * np.nan})
    refused("no matrix W_dec|shape", **{**good, "w_dec": np.ones(3)})
    refused("values of type", **{**good, "b_enc": np.array(["a"])})

    # A few kilobytes that claim, or inflate to, gigabytes.
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("w_enc.npy", "w", force_zip64=True) as member:
            header = {
                "descr": "<f4",
                "fortran_order": False,
                "shape": (1 << 15, 1 << 10),
            }
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(128):
                member.write(bytes(1 << 20))
    with pytest.raises(ImportFailed, match="inflates to"):
        import_dictionary("gemma-scope", file, tmp_path / "out", hook="hook_embed")
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open("w_enc.npy", "w") as member:
            header["shape"] = (1 << 20, 1 << 20)
            np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(ImportFailed, match="size of its shape"):
        import_dictionary("gemma-scope", file, tmp_path / "out", hook="hook_embed")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}',
        b"[" * 100000,
    ],
)
def test_damaged_safetensors(header, tmp_path):
    file = tmp_path / "layer_0.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ImportFailed, match="no safetensors file"):
        import_dictionary("mwhanna", file, tmp_path / "out")
    file.write_bytes((1 << 62).to_bytes(8, "little") + header)
    with pytest.raises(ImportFailed, match="no safetensors file"):
        import_dictionary("mwhanna", file, tmp_path / "out")


def test_every_truncation_is_an_error(tmp_path):
    made = upstream.make("mwhanna", tmp_path / "source")
    whole = made.source.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        made.source.write_bytes(whole[:size])
        with pytest.raises(ImportFailed):
            import_dictionary("mwhanna", made.source, tmp_path / "out")


def test_nothing_is_overwritten_unasked(tmp_path):
    made = upstream.make("mwhanna", tmp_path / "source")
    out = tmp_path / "out"
    import_dictionary("mwhanna", made.source, out)
    with pytest.raises(ImportFailed, match="already holds a dictionary"):
        import_dictionary("mwhanna", made.source, out)
    (out / "sparsity.safetensors").write_text("an older one's")
    import_dictionary("mwhanna", made.source, out, overwrite=True)
    assert not (out / "sparsity.safetensors").exists()
    with pytest.raises(ImportFailed, match="the source's own folder"):
        import_dictionary("mwhanna", made.source, made.source.parent, overwrite=True)
    with pytest.raises(ImportFailed, match="no such file"):
        import_dictionary("mwhanna", tmp_path / "none", out)
    with pytest.raises(ImportFailed, match="no format 'x': there are saelens"):
        import_dictionary("x", made.source, out)


def test_a_failed_import_leaves_what_was_there(tmp_path):
    made = upstream.make("dl-topk", tmp_path / "source")
    out = tmp_path / "out"
    import_dictionary("dictionary_learning", made.source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    state = torch.load(made.source / "ae.pt")
    state["b_dec"][3] = float("inf")
    torch.save(state, made.source / "ae.pt")
    with pytest.raises(ImportFailed, match="b_dec holds 1 of 48 values"):
        import_dictionary("dictionary-learning", made.source, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_command(tmp_path, capsys, monkeypatch):
    from cupola.cli import main

    made = upstream.make("llama-scope", tmp_path / "source")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cupola", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    out = tmp_path / "out"
    code, text = run("llama-scope", made.source, out, "--model", "tiny", "--no-bos")
    assert not code, text.err
    first, note, last = text.out.splitlines()
    assert first == f"wrote {out}: jumprelu, blocks.1.hook_resid_post"
    assert note.startswith("note: inputs' scale")
    assert last == (
        f'catalog: dictionary {{ name: "NAME" model: "tiny" path: "{out}" }}'
    )
    assert read(out)[0]["metadata"]["prepend_bos"] is False
    code, text = run("llama-scope", made.source, out)
    assert code == 1 and "already holds" in text.err and not text.out
    code, text = run("saelens", made.source, tmp_path / "other")
    assert code == 1 and "no such file" in text.err


def test_no_torch_is_needed(tmp_path):
    made = upstream.make("dunefsky", tmp_path / "source")
    import subprocess

    program = (
        "import sys; sys.modules['torch'] = None; import cupola; "
        f"cupola.import_dictionary('dunefsky', {str(made.source)!r}, "
        f"{str(tmp_path / 'out')!r})"
    )
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(root / "client" / "python"), "PATH": ""},
        check=True,
    )
    sparsity = load_file(tmp_path / "out" / "sparsity.safetensors")["sparsity"]
    assert sparsity.shape == (upstream.D_SAE,)
