"""Makes everything that the examples of notebooks D and E ask about, on the spot
and in about a minute of one core:

    python small_models.py small
    build/cupola_server --catalog small/catalog.textproto

A GPT-2 of three layers learns little stories (small_text.py, or the texts of
--text), and checkpoints of it are kept: the models small-0, small-8, ... Each
has an SAE of the residual stream entering layer 2, small-0/sae and so on, all
begun from the same weights and trained alike, so that features can be followed
from checkpoint to checkpoint. The last one also has a transcoder of layer 1's
MLP, small-400/transcoder, as Dunefsky et al. train them (ReLU, L1), and a
midcoder of it, small-400/midcoder: what the transcoder's features say of the
MLP's neurons. corpus.jsonl holds stories that none of them was trained on.

Needs torch, transformers, tokenizers and safetensors; the server and its
clients do not need this file.
"""

import argparse
import json
import pathlib
import time

import torch
import transformers
from safetensors.torch import save_file
from small_text import stories

STEPS = (0, 8, 32, 100, 200, 400)
CONTEXT = 64
VOCABULARY = 512
SAE_LAYER, MLP_LAYER = 2, 1
END = "<|endoftext|>"
# Of an activation, where a row of targets has as many times a square of 1 as it
# has values: some eight latents stay active, and a few never are.
PENALTY = 3.0


def make(
    folder,
    steps=STEPS,
    texts=None,
    corpus=None,
    width=64,
    latents=256,
    sae_steps=250,
):
    """Writes models, dictionaries, corpus.jsonl and catalog.textproto."""
    torch.set_num_threads(1)  # of matrices as small as these, more are slower
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = stories(8000) if texts is None else texts
    corpus = stories(400, seed=1) if corpus is None else corpus
    lines = "".join(json.dumps({"text": text}) + "\n" for text in corpus)
    (folder / "corpus.jsonl").write_text(lines, encoding="utf-8")

    tokenizer = train_tokenizer(texts)
    rows = packed(tokenizer, texts)
    catalog = []
    for step, model in checkpoints(rows, steps, width):
        name = f"small-{step}"
        save_model(model, tokenizer, folder / name)
        catalog.append(f'model {{ name: "{name}" path: "{name}" }}')
        acts = captured(model, rows)
        train = dict(latents=latents, steps=sae_steps)
        sae = train_dictionary(acts["resid"], acts["resid"], **train)
        hook = f"blocks.{SAE_LAYER}.hook_resid_pre"
        save_dictionary(sae, folder / f"{name}-sae", "standard", name, hook)
        catalog.append(dictionary_entry(name, "sae"))
    transcoder = train_dictionary(acts["mlp_in"], acts["mlp_out"], **train)
    midcoder = train_midcoder(model, transcoder, acts, sae_steps)
    hook = f"blocks.{MLP_LAYER}.ln2.hook_normalized"
    for kind, tensors, out in (
        ("transcoder", transcoder, f"blocks.{MLP_LAYER}.hook_mlp_out"),
        ("midcoder", midcoder, f"blocks.{MLP_LAYER}.mlp.hook_pre"),
    ):
        path = folder / f"{name}-{kind}"
        save_dictionary(tensors, path, "transcoder", name, hook, out)
        catalog.append(dictionary_entry(name, kind, "processing: FOLDED"))
    text = "\n".join(catalog) + "\n"
    (folder / "catalog.textproto").write_text(text, encoding="utf-8")
    return folder


def train_tokenizer(texts):
    """A byte-level BPE; id 0 begins and separates texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:1000], trainer)
    return tokenizer


def packed(tokenizer, texts):
    """[rows, CONTEXT]: texts one after another, each row beginning with END."""
    ids = [
        id for encoding in tokenizer.encode_batch(texts) for id in [*encoding.ids, 0]
    ]
    width = CONTEXT - 1
    rows = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
    return torch.cat([torch.zeros(len(rows), 1, dtype=rows.dtype), rows], 1)


def checkpoints(rows, steps, width):
    """(step, the model after so many steps of training), for each of `steps`."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=width,
        n_layer=3,
        n_head=4,
        n_positions=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    draw = torch.Generator().manual_seed(0)
    for step in range(max(steps) + 1):
        if step in steps:
            yield step, model.eval()
            model.train()
        batch = rows[torch.randint(len(rows), (20,), generator=draw)]
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def save_model(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": END,
                "eos_token": END,
            }
        )
    )


@torch.no_grad()
def captured(model, rows, count=600):
    """What the dictionaries see of some rows, without each row's END: "resid",
    and the MLP's input and output as TransformerLens' default processing has
    them: (x - mean) / std, without the norm's gain, and a centred output."""
    seen = {}
    block = model.transformer.h[MLP_LAYER]
    hooks = [
        block.ln_2.register_forward_pre_hook(
            lambda _, inputs: seen.update(before=inputs[0])
        ),
        block.mlp.register_forward_hook(
            lambda module, inputs, output: seen.update(out=output)
        ),
    ]
    hidden = model(rows[:count], output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    centred = seen["before"] - seen["before"].mean(-1, keepdim=True)
    std = (centred.pow(2).mean(-1, keepdim=True) + block.ln_2.eps).sqrt()
    acts = {
        "resid": hidden[SAE_LAYER],
        "mlp_in": centred / std,
        "mlp_out": seen["out"] - seen["out"].mean(-1, keepdim=True),
    }
    return {name: x[:, 1:].flatten(0, 1) for name, x in acts.items()}


def train_dictionary(inputs, targets, latents, steps):
    """relu((x - b_in) W_enc + b_enc) W_dec + b_dec with rows of W_dec of length
    one, by squared error and L1. b_in, the mean input, is folded into b_enc."""
    draw = torch.Generator().manual_seed(2)
    scale = inputs.pow(2).mean().sqrt()
    b_in = inputs.mean(0)
    out_scale = targets.pow(2).mean().sqrt()
    W_dec = torch.randn(latents, targets.shape[1], generator=draw)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    W_enc = W_dec.T.clone()
    b_enc, b_dec = torch.zeros(latents), targets.mean(0) / out_scale
    parts = [part.requires_grad_() for part in (W_enc, b_enc, W_dec, b_dec)]
    optimizer = torch.optim.Adam(parts, lr=1e-2)
    x, y = (inputs - b_in) / scale, targets / out_scale
    for _ in range(steps):
        some = torch.randint(len(x), (1024,), generator=draw)
        acts = (x[some] @ W_enc + b_enc).relu()
        error = (acts @ W_dec + b_dec - y[some]).pow(2).sum(-1)
        loss = (error + PENALTY * acts.sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    # In the model's own units.
    W_enc, b_enc, W_dec, b_dec = (part.detach() for part in parts)
    return {
        "W_enc": W_enc * out_scale / scale,
        "b_enc": (b_enc - b_in / scale @ W_enc) * out_scale,
        "W_dec": W_dec,
        "b_dec": b_dec * out_scale,
    }


def train_midcoder(model, transcoder, acts, steps):
    """W_mid and b_mid so that a W_mid + b_mid are the MLP's pre-activations, as
    a dictionary with the transcoder's encoder."""
    block = model.transformer.h[MLP_LAYER]
    with torch.no_grad():
        x = acts["mlp_in"]
        a = (x @ transcoder["W_enc"] + transcoder["b_enc"]).relu()
        # Conv1D's weight is [in, out].
        pre = block.mlp.c_fc(x * block.ln_2.weight + block.ln_2.bias)
    draw = torch.Generator().manual_seed(3)
    W_mid = torch.zeros(a.shape[1], pre.shape[1]).requires_grad_()
    b_mid = pre.mean(0).clone().requires_grad_()
    optimizer = torch.optim.AdamW([W_mid, b_mid], lr=3e-2)
    for _ in range(steps):
        some = torch.randint(len(a), (1024,), generator=draw)
        loss = (a[some] @ W_mid + b_mid - pre[some]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder = {name: transcoder[name] for name in ("W_enc", "b_enc")}
    return {**encoder, "W_dec": W_mid.detach(), "b_dec": b_mid.detach()}


def save_dictionary(tensors, folder, architecture, model, hook, hook_out=None):
    """A folder as SAELens 6 writes it."""
    folder.mkdir(exist_ok=True)
    config = {
        "architecture": architecture,
        "d_in": tensors["W_enc"].shape[0],
        "d_sae": tensors["W_enc"].shape[1],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": model,
            "hook_name": hook,
            "context_size": CONTEXT,
            "prepend_bos": True,
            "sae_lens_version": "6.0.0",
        },
    }
    if hook_out:
        config["d_out"] = tensors["W_dec"].shape[1]
        config["metadata"]["hook_name_out"] = hook_out
    (folder / "cfg.json").write_text(json.dumps(config, indent=2))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "sae_weights.safetensors",
    )


def dictionary_entry(model, kind, more=""):
    return (
        f'dictionary {{ name: "{model}/{kind}" model: "{model}" '
        f'path: "{model}-{kind}" {more} }}'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, help="a text a line")
    steps = ",".join(map(str, STEPS))
    parser.add_argument("--steps", default=steps, help=f"checkpoints ({steps})")
    given = parser.parse_args()
    texts = given.text and given.text.read_text(encoding="utf-8").splitlines()
    began = time.perf_counter()
    make(given.folder, [int(step) for step in given.steps.split(",")], texts)
    print(f"wrote {given.folder} in {time.perf_counter() - began:.0f} s:")
    print((given.folder / "catalog.textproto").read_text(), end="")


if __name__ == "__main__":
    main()
