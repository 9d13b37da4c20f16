"""Trains the demo dictionaries on SmolLM2-135M.

    train.py MODEL_FOLDER TEXT... --out FOLDER

MODEL_FOLDER is a Hugging Face folder (`cupola import gguf` makes one), TEXT are
files of prose, plain or .gz. Below --out it writes

    l12-resid  a TopK SAE on the residual stream after layer 12, SAELens layout
    l12-mlp    a Jacobian SAE pair around layer 12's MLP: the normalized input
               before the norm's gain, and the MLP's output

as float16. About two hours on two cores. A run that only shows that everything
works takes seconds: --tokens 4096 --steps 3 --latents 64.
"""

import argparse
import math
import pathlib
import time

import torch

from layer_taps import load_model, read_text, taps, windows
from topk import GatedMlp, TopK, fraction_unexplained, save

MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
K = 32  # active latents a token
CONTEXT = 256
BATCH = 2048  # tokens a step
RATE = 8e-4
HELD_OUT = 8192  # tokens that only judge
JACOBIAN_ROWS = 96  # tokens of a batch whose Jacobian is penalised
JACOBIAN_PENALTY = 6.0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="Hugging Face folder")
    parser.add_argument("text", nargs="+", help="prose, plain or .gz")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=["l12-resid", "l12-mlp"])
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=1_400_000)
    parser.add_argument(
        "--latents", type=int, default=4608, help="of the SAE; a pair's halves have half"
    )
    parser.add_argument("--steps", type=int, help="instead of 3 (SAE) or 5 (pair) passes")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def collect(model, tokenizer, texts, layer, tokens):
    """Activations of about `tokens` tokens: {tap: float16 [tokens, d_model]}.

    Position 0 is left out: its norm is two orders of magnitude above that of all
    others, and a dictionary would spend itself on it.
    """
    rows = windows(tokenizer, texts, CONTEXT)
    rows = rows[torch.randperm(len(rows))[: max(1, tokens // (CONTEXT - 1))]]
    kept = {}
    del model.model.layers[layer + 1 :]
    block = model.model.layers[layer]
    start = time.monotonic()
    with taps(block) as read, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for first in range(0, len(rows), 16):
            model.model(rows[first : first + 16], use_cache=False)
            for name, value in read.items():
                flat = value[:, 1:].reshape(-1, value.shape[-1]).half()
                kept.setdefault(name, []).append(flat)
            if first % 800 == 0:
                rate = first * CONTEXT / (time.monotonic() - start)
                print(f"collecting: {first * CONTEXT} tokens, {rate:.0f}/s", flush=True)
    return {name: torch.cat(parts) for name, parts in kept.items()}, block


class Rows:
    """One tap's rows: training and held out, at unit mean square per entry."""

    def __init__(self, values):
        held = min(HELD_OUT, len(values) // 4)
        self.train = values[held:]
        norm = values[:held].float().norm(dim=-1).mean().item()
        self.scale = math.sqrt(values.shape[1]) / norm
        self.held = values[:held].float() * self.scale

    def __len__(self):
        return len(self.train)

    def batch(self, indices):
        return self.train[indices].float() * self.scale


def learning_rate(step, steps):
    """Rises over 50 steps, falls to nothing over the last fifth."""
    return RATE * min(1, (step + 1) / 50, (steps - step) / (0.2 * steps))


def train(dictionaries, count, passes, limit, low_precision, loss, report):
    """Adam over shuffled batches; decoder rows keep unit norm.

    loss(indices, warm) is called with the rows of a batch and a factor that
    rises from 0 to 1 over the first twentieth of the steps.
    """
    batch = min(BATCH, count)
    steps = limit or passes * (count // batch)
    parameters = [p for d in dictionaries for p in d.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    start, order = time.monotonic(), torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(count)
        indices, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            value = loss(indices, min(1.0, step / (0.05 * steps)))
        value.backward()
        optimizer.step()
        for dictionary in dictionaries:
            dictionary.normalise_decoder()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.monotonic() - start
            print(f"step {step + 1}/{steps} {seconds:.0f} s: {report()}", flush=True)


def mean_square(x, dictionary):
    values, indices = dictionary.encode(x)
    return (x - dictionary.decode(values, indices)).pow(2).mean(), indices


def judge(x, dictionary):
    with torch.no_grad():
        values, indices = dictionary.encode(x)
        unexplained = fraction_unexplained(x, dictionary.decode(values, indices))
    return f"fvu {unexplained:.4f}, {len(indices.unique())} latents used"


def train_resid(rows, options):
    """The TopK SAE on the residual stream; returns tensors and cfg.json."""
    sae = TopK.random(options.latents, K, rows.held.mean(0))
    train(
        [sae],
        len(rows),
        passes=3,
        limit=options.steps,
        low_precision=False,
        loss=lambda indices, warm: mean_square(rows.batch(indices), sae)[0],
        report=lambda: judge(rows.held[:2048], sae),
    )
    hook = f"blocks.{options.layer}.hook_resid_post"
    return sae.tensors(rows.scale), {
        "architecture": "topk",
        "d_in": rows.train.shape[1],
        "d_sae": options.latents,
        "k": K,
        "dtype": "float16",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "reshape_activations": "none",
        "metadata": {
            "model_name": MODEL_NAME,
            "hook_name": hook,
            "context_size": CONTEXT,
            "prepend_bos": True,
            "sae_lens_version": "6.54.12",
        },
    }


def train_pair(x_rows, y_rows, block, options):
    """The pair: both reconstruct, and their k x k Jacobian through the MLP is
    pushed towards few large entries by an L1 penalty on some rows of a batch."""
    latents = options.latents // 2
    one = TopK.random(latents, K, x_rows.held.mean(0))
    two = TopK.random(latents, K, y_rows.held.mean(0))
    mlp = GatedMlp(block, x_rows.scale, y_rows.scale)

    def jacobian(x, in_latents, out_latents):
        return mlp.jacobian(x, one.W_dec[in_latents], two.W_enc.T[out_latents])

    def loss(indices, warm):
        x, y = x_rows.batch(indices), y_rows.batch(indices)
        x_error, in_latents = mean_square(x, one)
        y_error, out_latents = mean_square(y, two)
        some = slice(0, JACOBIAN_ROWS)
        entries = jacobian(x[some], in_latents[some], out_latents[some])
        return x_error + y_error + warm * JACOBIAN_PENALTY * entries.abs().mean()

    def report():
        return f"in {judge(x_rows.held[:2048], one)}; out {judge(y_rows.held[:2048], two)}"

    train([one, two], len(x_rows), 5, options.steps, True, loss, report)
    tensors = one.tensors(x_rows.scale, "_")
    tensors |= two.tensors(y_rows.scale, "_", "_out")
    return tensors, {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "d_in": x_rows.train.shape[1],
        "d_sae": latents,
        "dtype": "float16",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "model_name": MODEL_NAME,
        "hook_name": f"blocks.{options.layer}.ln2.hook_normalized",
        "hook_layer": options.layer,
        "hook_head_index": None,
        "context_size": CONTEXT,
        "prepend_bos": True,
        "is_pair": True,
        "use_jacobian_loss": True,
        "jacobian_coefficient": JACOBIAN_PENALTY,
    }


def main():
    options = arguments()
    torch.manual_seed(options.seed)
    model, tokenizer = load_model(options.model)
    texts = [read_text(path) for path in options.text]
    values, block = collect(model, tokenizer, texts, options.layer, options.tokens)
    rows = {name: Rows(value) for name, value in values.items()}
    if options.only != "l12-mlp":
        save(options.out / "l12-resid", *train_resid(rows["resid"], options))
    if options.only != "l12-resid":
        pair = train_pair(rows["mlp_in"], rows["mlp_out"], block, options)
        save(options.out / "l12-mlp", *pair)


if __name__ == "__main__":
    main()
