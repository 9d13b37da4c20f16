"""Models and dictionaries with the shapes of published ones, and the peer."""

import json
import pathlib
import shutil
import sys
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.server import ROOT  # noqa: E402  (needs the line above)

K = 32  # latents that a dictionary keeps for a token
TOKENIZER = ROOT / "tests" / "data" / "tokenizers" / "gpt2" / "tokenizer.json"


class Shape(NamedTuple):
    name: str
    layer: int  # the dictionary reads the residual stream after it
    d_sae: int

    @property
    def hook(self):
        return f"blocks.{self.layer}.hook_resid_post"


PYTHIA_70M = Shape("pythia-70m", layer=3, d_sae=16_384)
GPT2 = Shape("gpt2", layer=6, d_sae=24_576)


def random_model(shape):
    """A transformers model with random weights: float32, evaluation mode."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
    )

    torch.manual_seed(0)
    if shape is GPT2:
        return GPT2LMHeadModel(GPT2Config(n_ctx=1024)).eval()
    config = GPTNeoXConfig(
        vocab_size=50_304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.25,
        },
    )
    return GPTNeoXForCausalLM(config).eval()


def write_model(shape, folder):
    """Saves the model with a tokenizer, as a Hugging Face folder."""
    model = random_model(shape)
    model.save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)
    return model


def write_dictionary(shape, d_model, folder):
    """A TopK dictionary in SAELens' layout: unit random decoder rows, the encoder
    their transpose, small random biases."""
    generator = torch.Generator().manual_seed(1)
    decoder = torch.randn(shape.d_sae, d_model, generator=generator)
    decoder = torch.nn.functional.normalize(decoder, dim=-1)
    folder.mkdir(parents=True)
    tensors = {
        "W_dec": decoder,
        "W_enc": decoder.T.contiguous(),
        "b_enc": 0.01 * torch.randn(shape.d_sae, generator=generator),
        "b_dec": 0.01 * torch.randn(d_model, generator=generator),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {
        "architecture": "topk",
        "d_in": d_model,
        "d_sae": shape.d_sae,
        "k": K,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "reshape_activations": "none",
        "metadata": {"model_name": shape.name, "hook_name": shape.hook},
    }
    (folder / "cfg.json").write_text(json.dumps(config))


def hooked_transformer(folder, hf_model):
    """The HookedTransformer that from_pretrained_no_processing would make, from
    a local folder instead of the model hub."""
    from transformer_lens import HookedTransformer
    from transformer_lens import loading_from_pretrained as loading

    name = str(folder)
    config = loading.get_pretrained_model_config(name, device="cpu")
    state = loading.get_pretrained_state_dict(name, config, hf_model)
    model = HookedTransformer(config, move_to_device=False)
    model.load_and_process_state_dict(
        state,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


class Peer:
    """TransformerLens and SAELens, used as their documentation says: run to the
    layer, read one activation from the cache, encode it."""

    def __init__(self, shape, model_folder, model, dictionary_folder):
        from sae_lens import SAE

        self.shape = shape
        self.model = hooked_transformer(model_folder, model)
        self.sae = SAE.load_from_disk(str(dictionary_folder), device="cpu")

    @torch.no_grad()
    def features(self, prompts):
        """Dense activations [prompts * positions, d_sae]."""
        tokens = torch.tensor(prompts)
        _, cache = self.model.run_with_cache(
            tokens,
            names_filter=self.shape.hook,
            stop_at_layer=self.shape.layer + 1,
        )
        return self.sae.encode(cache[self.shape.hook]).flatten(0, 1)


class Prompts:
    """Token ids that no two requests share, so that no answer is cached."""

    def __init__(self, seed=0):
        self._random = np.random.default_rng(seed)

    def draw(self, count, length):
        # Below the vocabularies of both shapes and of the tokenizer.
        return self._random.integers(0, 50_000, (count, length)).tolist()
