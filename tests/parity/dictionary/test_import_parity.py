"""Imported folders against SAELens' own loaders of the same files.

Where SAELens reads a format, both must encode alike; and SAELens itself must
read the folders that an import writes. Its loaders ask the Hugging Face hub for
each file: here they get the files that were made on the disk.
"""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch

from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "client" / "python"))
from cupola import import_dictionary  # noqa: E402
from harness import upstream  # noqa: E402

TOLERANCE = 5e-5


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The files below tmp_path / "source", whatever the repository."""

    def download(repo_id, filename, subfolder=None, **_):
        path = tmp_path / "source" / (subfolder or "") / filename
        if not path.exists():
            raise loaders.EntryNotFoundError("", response=_Response())
        return str(path)

    class _Response:
        headers, request = {}, None

    def shapes(repo_id, filename):
        tensors = load_file(download(repo_id, filename))
        return {name: list(tensor.shape) for name, tensor in tensors.items()}

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path / "source"


def build(config, state):
    """An SAE as SAE.from_pretrained makes it of a loader's answer."""
    config = loaders.handle_config_defaulting(config)
    sae_class, config_class = get_sae_class(config["architecture"])
    config["dtype"] = "float32"
    sae = sae_class(config_class.from_dict(config))
    state = {n: t.float() for n, t in state.items()}
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    return sae


def load(name, made, hub):
    relative = str(made.source.relative_to(hub)) if made.source != hub else "."
    if name.startswith("gemma-transcoder"):
        return build(
            *loaders.gemma_2_transcoder_huggingface_loader(
                "google/gemma-scope-2b-pt-transcoders",
                relative,
                cfg_overrides={"d_in": 48, "d_out": 48, "d_sae": upstream.D_SAE},
            )[:2]
        )
    if name.startswith("gemma-2"):
        return build(*loaders.gemma_3_sae_huggingface_loader("", relative)[:2])
    if name.startswith("gemma"):
        return build(
            *loaders.gemma_2_sae_huggingface_loader(
                relative.split("/")[0],
                relative,
                cfg_overrides={"d_in": 48, "d_sae": upstream.D_SAE},
            )[:2]
        )
    if name.startswith("llama-scope"):
        config, state, _ = loaders.llama_scope_sae_huggingface_loader("", relative)
        sae = build(config, state)
        # What pretrained_saes.yaml holds for each: sqrt(d) / norm.
        sae.fold_activation_norm_scaling_factor(48**0.5 / 20.0)
        return sae
    if name.startswith("dl"):
        sae = build(
            *loaders.dictionary_learning_sae_huggingface_loader_1("", relative)[:2]
        )
        if name in ("dl-gated", "dl-jumprelu"):
            # The factor of their activations, which its loader leaves out.
            sae.fold_W_dec_norm()
        return sae
    return build(*loaders.mwhanna_transcoder_huggingface_loader("", relative)[:2])


@pytest.mark.parametrize(
    "name",
    [
        *("gemma-res", "gemma-mlp", "gemma-transcoder", "gemma-embedding"),
        *("llama-scope", "mwhanna"),
        *("dl-standard", "dl-gated", "dl-topk", "dl-batchtopk"),
        *("dl-matryoshka", "dl-jumprelu"),
    ],
)
def test_encodes_as_saelens_loads_it(name, hub, tmp_path):
    made = upstream.make(name, hub)
    out = tmp_path / "out"
    import_dictionary(made.format, made.source, out, **(made.options or {}))
    ours = SAE.load_from_disk(str(out))
    theirs = load(name, made, hub)
    assert ours.cfg.architecture() == theirs.cfg.architecture()
    assert ours.cfg.metadata.hook_name == theirs.cfg.metadata.hook_name
    scale = 4.0 if name == "llama-scope" else 7.0 if name == "gemma-embedding" else 1.0
    x = upstream.normal(1, 37, 48, scale=scale).double()
    mine, their = (
        copy.deepcopy(sae).to(dtype=torch.float64).encode(x) for sae in (ours, theirs)
    )
    # SAELens holds Llama Scope's threshold in bfloat16.
    undecided = (mine > 0) != (their > 0)
    assert undecided.double().mean() <= (0.001 if name == "llama-scope" else 0)
    assert (mine > 0).sum() > 20
    difference = (mine - their).abs().masked_fill(undecided, 0)
    assert difference.max() <= TOLERANCE * their.max()


OLD = {"hook_name": "blocks.1.hook_resid_pre", "model_name": "tiny"}
HEADS = {**OLD, "hook_name": "blocks.1.attn.hook_z"}
OUT = {"hook_name_out": "blocks.1.hook_mlp_out"}
PURSUIT = {"residual_threshold": 0.3, "max_iterations": 5}
FOLDED = {"normalize_activations": "expected_average_only_in"}
# cfg.json of folders of SAELens; of version 6 where a key is capital.
FOLDERS = {
    "old": OLD,
    "old-heads": {**HEADS, "apply_b_dec_to_input": False},
    "old-topk": {**OLD, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 9}},
    "old-topk-by-name": {
        **OLD,
        "architecture": "topk",
        "activation_fn_kwargs": {"k": 9},
        "sae_lens_version": "5.1.0",
    },
    "old-gated": {**OLD, "architecture": "gated"},
    "old-jumprelu": {**OLD, "architecture": "jumprelu"},
    "old-factor": {**OLD, "normalize_activations": True},
    "standard": {"METADATA": OLD},
    "layer-norm": {"METADATA": OLD, "normalize_activations": "layer_norm"},
    "factor": {"METADATA": OLD, "architecture": "jumprelu", **FOLDED},
    "factor-gated": {"METADATA": OLD, "architecture": "gated", **FOLDED},
    "gated": {"METADATA": OLD, "architecture": "gated", "apply_b_dec_to_input": False},
    "topk": {
        "METADATA": OLD,
        "architecture": "topk",
        "k": 9,
        "rescale_acts_by_decoder_norm": True,
    },
    "matching-pursuit": {"METADATA": OLD, "architecture": "matching_pursuit", **PURSUIT},
    "transcoder": {"METADATA": {**OLD, **OUT}, "architecture": "transcoder"},
    "skip": {"METADATA": {**OLD, **OUT}, "architecture": "skip_transcoder"},
    "jump-skip": {
        "METADATA": {**OLD, **OUT},
        "architecture": "jumprelu_skip_transcoder",
    },
}
BY_ARCHITECTURE = {
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "jumprelu": ("threshold",),
    "jumprelu_skip_transcoder": ("threshold", "W_skip"),
    "skip_transcoder": ("W_skip",),
    "matching_pursuit": ("W_dec", "b_dec"),
}


def saelens_folder(folder, config):
    config = {**config, "d_in": 48, "d_sae": upstream.D_SAE, "dtype": "float32"}
    kind = config.setdefault("architecture", "standard")
    if kind.endswith("transcoder"):
        config.update(d_out=48, apply_b_dec_to_input=False)
    if "METADATA" in config:
        metadata = {**config.pop("METADATA"), "sae_lens_version": "6.3.0"}
        config["metadata"] = metadata
    tensors = {
        **upstream.weights(7),
        "b_gate": upstream.normal(20, upstream.D_SAE, scale=0.2, offset=-0.4),
        "b_mag": upstream.normal(21, upstream.D_SAE, scale=0.2),
        "r_mag": upstream.normal(22, upstream.D_SAE, scale=0.2),
        "threshold": upstream.normal(23, upstream.D_SAE, scale=0.1, offset=0.4),
        "W_skip": upstream.normal(24, 48, 48, scale=0.1),
    }
    plain = ("W_enc", "b_enc", "W_dec", "b_dec")
    names = BY_ARCHITECTURE.get(kind, ())
    names = names if "W_dec" in names else (*plain, *names)
    folder.mkdir()
    save_file({n: tensors[n] for n in names}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))


# Gemma Scope 2's folders say their site above them.
@pytest.mark.parametrize(
    ("name", "site"),
    [("gemma-2-transcoder", "transcoder"), ("gemma-2-attention", "attn_out")],
)
def test_gemma_scope_2_computes_as_saelens_loads_it(name, site, hub, tmp_path):
    made = upstream.make(name, hub / site)
    import_dictionary(made.format, made.source, tmp_path / "out")
    ours = SAE.load_from_disk(str(tmp_path / "out"))
    theirs = load(name, made, hub)
    assert ours.cfg.architecture() == theirs.cfg.architecture()
    assert (theirs.cfg.architecture() == "jumprelu_skip_transcoder") == (
        site == "transcoder"
    )
    if site == "attn_out":  # its loader takes heads as one row
        ours.turn_off_forward_pass_hook_z_reshaping()
    x = upstream.normal(1, 37, 48).double()
    mine, their = (sae.to(dtype=torch.float64) for sae in (ours, theirs))
    expected = their.encode(x)
    assert (expected > 0).sum() > 20
    assert (mine.encode(x) - expected).abs().max() <= TOLERANCE * expected.max()
    expected = their(x)
    assert (mine(x) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_saelens_stay_what_they_are(name, tmp_path):
    saelens_folder(tmp_path / "in", FOLDERS[name])
    factor = 0.4 if "factor" in name else None
    import_dictionary(
        *("saelens", tmp_path / "in", tmp_path / "out"), norm_scaling_factor=factor
    )
    before, after = (
        SAE.load_from_disk(str(tmp_path / side)).to(dtype=torch.float64)
        for side in ("in", "out")
    )
    assert before.cfg.architecture() == after.cfg.architecture()
    assert before.cfg.metadata.hook_name == after.cfg.metadata.hook_name
    if factor:
        before.fold_activation_norm_scaling_factor(factor)
    x = upstream.normal(2, 11, 48).double()
    if name == "old-heads":
        x = x.reshape(11, 6, 8)
    expected = before.encode(x)
    active = (expected > 0).double().mean()
    assert 0.01 < active < 0.7
    actual = after.encode(x)
    assert (actual - expected).abs().max() <= TOLERANCE * expected.max()
    expected, actual = before.decode(expected), after.decode(actual)
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()
    if "skip" in name:
        expected, actual = before(x), after(x)
        assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


# SAELens has no TopK transcoder and reads no pairs; heads are no rows to it.
READABLE = [name for name in upstream.ALL if not name.startswith(("jsae", "sparsify-", "gemma-2-attention"))]


@pytest.mark.parametrize("name", READABLE)
def test_saelens_reads_what_an_import_writes(name, tmp_path):
    made = upstream.make(name, tmp_path / "source")
    out = tmp_path / "out"
    import_dictionary(made.format, made.source, out, **(made.options or {}))
    sae = SAE.load_from_disk(str(out)).to(dtype=torch.float64)
    x = upstream.normal(2, 11, sae.cfg.d_in).double()
    if made.hook == "hook_embed":
        x *= sae.cfg.d_in**0.5
    expected = made.encode(x)
    scale = expected.abs().max()
    assert (sae.encode(x) - expected).abs().max() <= TOLERANCE * scale
