"""Reads the activations around one layer's MLP from a Llama-family model."""

import contextlib
import gzip
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load_model(folder):
    """The model (float32, evaluation mode) and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def read_text(path):
    """A text file's content; `.gz` is unpacked."""
    opener = gzip.open if pathlib.Path(path).suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read()


def windows(tokenizer, texts, context):
    """Cuts texts into rows of `context` token ids, each beginning with BOS.

    A text's last, incomplete row is left out. Returns int64 [rows, context].
    """
    body = context - 1
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids[0]
        whole = len(ids) // body * body
        rows.append(ids[:whole].view(-1, body))
    rows = torch.cat(rows)
    bos = torch.full((len(rows), 1), tokenizer.bos_token_id)
    return torch.cat([bos, rows], dim=1)


@contextlib.contextmanager
def taps(block):
    """While open, every forward pass of `block` fills the dict that it yields.

    resid: the residual stream after the block (hook_resid_post)
    mlp_in: x / rms(x) in front of the MLP, before the norm's gain
        (ln2.hook_normalized)
    mlp_out: what the MLP adds (hook_mlp_out)
    Each is [batch, position, d_model].
    """
    norm, read = block.post_attention_layernorm, {}

    def before_norm(_, arguments):
        x = arguments[0]
        variance = x.pow(2).mean(-1, keepdim=True)
        read["mlp_in"] = x * torch.rsqrt(variance + norm.variance_epsilon)

    def after_mlp(_, __, output):
        read["mlp_out"] = output

    def after_block(_, __, output):
        read["resid"] = output[0] if isinstance(output, tuple) else output

    handles = [
        norm.register_forward_pre_hook(before_norm),
        block.mlp.register_forward_hook(after_mlp),
        block.register_forward_hook(after_block),
    ]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()
