"""Many checkpoints of one small GPT-NeoX model, each with an SAE."""

import pathlib

import torch
import transformers
from harness.zoo import make_dictionaries, make_models

HOOK = "blocks.1.hook_resid_pre"

# What pythia-70m is, and the same with everything narrow.
PYTHIA_70M = dict(
    vocab_size=50304,
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=6,
    num_attention_heads=8,
    max_position_embeddings=2048,
)
NARROW = dict(
    vocab_size=make_models.VOCABULARY,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
)


def make(folder, count, shape=NARROW, d_sae=1024):
    """(models, dictionaries) for catalog_text: m0, m1, ... and m0/sae, ..."""
    folder = pathlib.Path(folder)
    models, dictionaries = {}, {}
    for index in range(count):
        name = f"m{index}"
        torch.manual_seed(index)
        config = transformers.GPTNeoXConfig(
            **shape, rotary_pct=0.25, bos_token_id=0, eos_token_id=0
        )
        transformers.GPTNeoXForCausalLM(config).save_pretrained(folder / name)
        make_models.write_tokenizer(folder / name)
        models[name] = folder / name
        sae = make_dictionaries.make(
            "topk",
            folder / f"{name}-sae",
            d_in=shape["hidden_size"],
            d_sae=d_sae,
            hook_name=HOOK,
            seed=index,
        )
        dictionaries[f"{name}/sae"] = (name, sae)
    return models, dictionaries
