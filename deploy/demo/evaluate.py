"""Measures the demo dictionaries, and prints the figures of README.md.

    evaluate.py MODEL_FOLDER TEXT [--dictionaries FOLDER] [--contexts 8]

The first 8 x 255 tokens of TEXT (plain or .gz) become contexts of 256 with BOS.
The loss is the mean over what positions 1 and later predict; position 0, BOS,
keeps its activation in every run. "zeroed" and "reconstructed" replace the
residual stream after the layer at the other positions.
"""

import argparse
import pathlib

import torch
from torch.nn.functional import cross_entropy

from layer_taps import load_model, read_text, taps, windows
from topk import GatedMlp, TopK, fraction_unexplained

LAYER, K, CONTEXT = 12, 32, 256


def loss(model, ids, replace=None):
    """Mean loss of predicting positions 2.. from positions 1..; `replace` turns
    the layer's output at positions 1.. into another."""

    def hook(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = torch.cat([hidden[:, :1], replace(hidden[:, 1:])], dim=1)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[LAYER].register_forward_hook(hook) if replace else None
    logits = model(ids, use_cache=False).logits[:, 1:-1]
    if handle:
        handle.remove()
    return cross_entropy(logits.flatten(0, 1), ids[:, 2:].flatten()).item()


def evaluate_resid(folder, model, ids, x):
    sae = TopK.load(folder, K)
    values, indices = sae.encode(x)
    unexplained = fraction_unexplained(x, sae.decode(values, indices))
    active = (values > 0).sum(-1).float().mean().item()
    clean = loss(model, ids)
    zeroed = loss(model, ids, torch.zeros_like)
    spliced = loss(
        model,
        ids,
        lambda h: sae.decode(*sae.encode(h.flatten(0, 1))).view_as(h),
    )
    print(f"l12-resid: FVU {unexplained:.3f}, L0 {active:.1f}")
    print(
        f"  loss {clean:.3f} clean, {spliced:.3f} reconstructed, {zeroed:.3f} "
        f"zeroed: {(zeroed - spliced) / (zeroed - clean):.1%} recovered"
    )


def evaluate_pair(folder, block, x, y):
    one, two = TopK.load(folder, K, "_"), TopK.load(folder, K, "_", "_out")
    x_values, x_latents = one.encode(x)
    y_values, y_latents = two.encode(y)
    x_unexplained = fraction_unexplained(x, one.decode(x_values, x_latents))
    y_unexplained = fraction_unexplained(y, two.decode(y_values, y_latents))
    # Between activations, whose scale is that of the training: no factors.
    mlp, readers = GatedMlp(block), two.W_enc.T
    entries = torch.cat([
        mlp.jacobian(x[i], one.W_dec[x_latents[i]], readers[y_latents[i]]).abs()
        for i in torch.arange(len(x)).split(256)
    ])
    print(f"l12-mlp: FVU {x_unexplained:.3f} in, {y_unexplained:.3f} out")
    counts = ", ".join(
        f"{(entries > bound).float().mean() * K * K:.0f} above {bound}"
        for bound in (0.005, 0.01, 0.02)
    )
    print(f"  mean |J| {entries.mean():.4f}; of {K * K} entries a token {counts}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("text")
    here = pathlib.Path(__file__).parent
    parser.add_argument("--dictionaries", type=pathlib.Path, default=here)
    parser.add_argument("--contexts", type=int, default=8)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    # A token has 20 characters at most on average, whatever the prose.
    text = read_text(options.text)[: 20 * CONTEXT * options.contexts]
    ids = windows(tokenizer, [text], CONTEXT)[: options.contexts]
    block = model.model.layers[LAYER]
    with torch.no_grad():
        with taps(block) as read:
            model(ids, use_cache=False)
        rows = {name: value[:, 1:].flatten(0, 1) for name, value in read.items()}
        evaluate_resid(options.dictionaries / "l12-resid", model, ids, rows["resid"])
        evaluate_pair(
            options.dictionaries / "l12-mlp", block, rows["mlp_in"], rows["mlp_out"]
        )


if __name__ == "__main__":
    main()
