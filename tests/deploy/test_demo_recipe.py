"""The demo's training program, at a size where it takes seconds."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from harness.server import ROOT
from safetensors.torch import load_file

sys.path.append(str(ROOT / "tests" / "parity" / "model"))
import make_models  # noqa: E402  (found through the line above)

DEMO = ROOT / "deploy" / "demo"
D_MODEL, LATENTS = 32, 64


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_models.make("llama", tmp_path_factory.mktemp("llama"))


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_writes_both_dictionaries(model_folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of some prose. " for i in range(400)))
    out = tmp_path / "out"
    options = ["--layer", 1, "--tokens", 4096, "--steps", 3, "--latents", LATENTS]
    said = run(DEMO / "train.py", model_folder, text, "--out", out, *options)
    assert "step 3/3" in said

    resid = load_file(out / "l12-resid" / "sae_weights.safetensors")
    assert resid["W_enc"].shape == (D_MODEL, LATENTS)
    assert json.loads((out / "l12-resid" / "cfg.json").read_text())["k"] == 32
    pair = load_file(out / "l12-mlp" / "sae_weights.safetensors")
    assert len(pair) == 8
    assert pair["_W_dec_out"].shape == (LATENTS // 2, D_MODEL)
    for tensors in (resid, pair):
        for name, tensor in tensors.items():
            assert tensor.dtype == torch.float16
            assert tensor.isfinite().all(), name


def test_the_jacobian_is_autograds(model_folder):
    sys.path.insert(0, str(DEMO))
    from topk import GatedMlp

    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    block = model.model.layers[1]
    gain = block.post_attention_layernorm.weight
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, D_MODEL, generator=generator)
    directions = torch.randn(1, 5, D_MODEL, generator=generator)
    readers = torch.randn(1, 7, D_MODEL, generator=generator)

    def output(row):
        return block.mlp(row * gain)

    with torch.enable_grad():
        full = torch.autograd.functional.jacobian(output, x[0])  # [d_out, d_in]
    expected = readers[0] @ full @ directions[0].T
    actual = GatedMlp(block).jacobian(x, directions, readers)[0].detach()
    # float32 products of 96 and 48 terms.
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
