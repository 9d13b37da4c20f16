"""Writes small dictionaries with random weights, in the layouts Cupola reads.

`make` writes what SAELens saves (SAE.save_model), of every per-token
architecture; `make_flat` the flat configuration of SAELens before 6.0;
`make_pair` a Jacobian SAE pair. The same arguments write the same bytes.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import sae_lens
from sae_lens.registry import get_sae_class

ARCHITECTURES = (
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "matching_pursuit",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
NORMALIZATIONS = (
    "none",
    "expected_average_only_in",
    "constant_norm_rescale",
    "layer_norm",
)
# The keys that SAELens 6 keeps in "metadata".
METADATA_KEYS = (
    "model_name",
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "context_size",
    "prepend_bos",
    "model_from_pretrained_kwargs",
    "sae_lens_version",
)


def is_transcoder(architecture):
    return architecture.endswith("transcoder")


def randomize(sae, seed):
    """Weights with the magnitudes of trained ones: rows of W_dec of several
    lengths, biases that leave a minority of the latents active."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, scale, offset=0.0):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = (noise * scale + offset).to(parameter.dtype)

    d_in = sae.cfg.d_in
    for name, parameter in sorted(sae.named_parameters()):
        if name in ("W_enc", "W_skip"):
            normal(parameter, d_in**-0.5)
        elif name == "W_dec":
            normal(parameter, parameter.shape[1] ** -0.5)
            if sae.cfg.architecture() == "matching_pursuit":
                parameter.data /= parameter.data.norm(dim=-1, keepdim=True)
            else:
                lengths = torch.rand(parameter.shape[0], generator=generator)
                parameter.data *= (0.5 + lengths).unsqueeze(-1)
        elif name == "b_dec":
            normal(parameter, 0.3)
        elif name == "threshold":
            normal(parameter, 0.2, 0.8)
            parameter.data.clamp_(min=0)
        elif name == "r_mag":
            normal(parameter, 0.2)
        elif name == "b_mag":
            normal(parameter, 0.2, 0.1)
        else:  # b_enc, b_gate
            normal(parameter, 0.2, -0.8)
    return sae


def make(
    architecture,
    folder,
    *,
    d_in=48,
    d_sae=203,
    d_out=None,
    k=16,
    hook_name="blocks.1.hook_resid_pre",
    hook_name_out=None,
    file_dtype=torch.float32,
    seed=0,
    model_name="random",
    prepend_bos=True,
    context_size=128,
    dead_latents=(),
    **config,
):
    """A folder as SAELens 6 saves it. `config` goes to the architecture's
    configuration (normalize_activations, apply_b_dec_to_input, ...). The rows of
    W_dec of `dead_latents` are zero."""
    sae_class, config_class = get_sae_class(architecture)
    if architecture == "topk":
        config["k"] = k
    if is_transcoder(architecture):
        config["d_out"] = d_out or d_in
        config["apply_b_dec_to_input"] = False
        hook_name_out = hook_name_out or "blocks.1.hook_mlp_out"
    cfg = config_class(
        d_in=d_in, d_sae=d_sae, dtype="float32", device="cpu", **config
    )
    cfg.metadata.model_name = model_name
    cfg.metadata.hook_name = hook_name
    cfg.metadata.prepend_bos = prepend_bos
    cfg.metadata.context_size = context_size
    if hook_name_out:
        cfg.metadata.hook_name_out = hook_name_out
    sae = randomize(sae_class(cfg), seed)
    for latent in dead_latents:
        sae.W_dec.data[latent] = 0
    sae.to(dtype=file_dtype)
    sae.save_model(folder)
    return Path(folder)


def make_flat(folder, *, drop=(), activation_fn=None, **kwargs):
    """The same dictionary with a configuration from before SAELens 6: one flat
    object, old names for some keys. `drop` removes keys, so that the defaults of
    that time apply."""
    folder = make(
        "topk" if activation_fn == "topk" else kwargs.pop("architecture", "standard"),
        folder,
        **kwargs,
    )
    path = folder / "cfg.json"
    cfg = json.loads(path.read_text())
    metadata = cfg.pop("metadata")
    flat = {**cfg, **{key: metadata[key] for key in METADATA_KEYS if key in metadata}}
    flat["sae_lens_version"] = "3.11.0"
    flat["hook_point"] = flat.pop("hook_name")
    flat["hook_point_head_index"] = None
    if activation_fn == "topk":
        flat["architecture"] = "standard"
        flat["activation_fn_str"] = "topk"
        flat["activation_fn_kwargs"] = {"k": flat.pop("k")}
        flat.pop("rescale_acts_by_decoder_norm")
    for key in drop:
        flat.pop(key, None)
    path.write_text(json.dumps(flat))
    return folder


def make_pair(
    folder,
    *,
    d_in=48,
    d_sae=203,
    d_mlp=None,
    k=16,
    hook_name="blocks.1.ln2.hook_normalized",
    file_dtype=torch.float32,
    seed=0,
    **config,
):
    """A Jacobian SAE pair: eight underscored tensors and, with `d_mlp`, the MLP it
    was trained on."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0, offset=0.0):
        noise = torch.randn(shape, generator=generator)
        return (noise * scale + offset).to(file_dtype).contiguous()

    tensors = {}
    for suffix in ("", "_out"):
        W_dec = torch.nn.functional.normalize(
            torch.randn(d_sae, d_in, generator=generator), dim=-1
        )
        tensors[f"_W_dec{suffix}"] = W_dec.to(file_dtype)
        tensors[f"_W_enc{suffix}"] = normal(d_in, d_sae, scale=d_in**-0.5)
        tensors[f"_b_enc{suffix}"] = normal(d_sae, scale=0.2)
        tensors[f"_b_dec{suffix}"] = normal(d_in, scale=0.3)
    if d_mlp:
        tensors["mlp.W_in"] = normal(d_in, d_mlp, scale=d_in**-0.5)
        tensors["mlp.b_in"] = normal(d_mlp, scale=0.1)
        tensors["mlp.W_out"] = normal(d_mlp, d_in, scale=d_mlp**-0.5)
        tensors["mlp.b_out"] = normal(d_in, scale=0.1)
    save_file(tensors, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": k},
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "model_name": "random",
        "hook_name": hook_name,
        "hook_head_index": None,
        "context_size": 128,
        "prepend_bos": True,
        "is_pair": True,
        "use_jacobian_loss": True,
        "model_from_pretrained_kwargs": {"center_writing_weights": False},
        **config,
    }
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def split_pair(folder, half, target):
    """One half of a pair as a folder that SAELens opens: its oracle."""
    folder, target = Path(folder), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    suffix = "_out" if half == "out" else ""
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file(
        {
            name: tensors[f"_{name}{suffix}"]
            for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        },
        target / "sae_weights.safetensors",
    )
    cfg = json.loads((folder / "cfg.json").read_text())
    (target / "cfg.json").write_text(json.dumps(cfg))
    return target


def load(folder, **kwargs):
    """The folder in SAELens, computing in float32."""
    return sae_lens.SAE.load_from_disk(folder, dtype="float32", **kwargs)
