"""The TopK dictionary, its files, and the Jacobian through a gated MLP."""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize, silu


class TopK(torch.nn.Module):
    """Keeps the k largest latents of a row and rebuilds the row from them.

    activations = relu(top_k(x W_enc + b_enc)); x_hat = activations W_dec + b_dec.
    The decoder's bias is not subtracted from the input.
    """

    def __init__(self, k, w_enc, b_enc, w_dec, b_dec):
        super().__init__()
        self.k = k
        self.W_enc = torch.nn.Parameter(w_enc)  # [d_in, d_sae]
        self.b_enc = torch.nn.Parameter(b_enc)  # [d_sae]
        self.W_dec = torch.nn.Parameter(w_dec)  # [d_sae, d_in]
        self.b_dec = torch.nn.Parameter(b_dec)  # [d_in]

    @classmethod
    def random(cls, d_sae, k, mean):
        """Random unit decoder rows, the encoder their transpose, mean as bias."""
        decoder = normalize(torch.randn(d_sae, len(mean)), dim=-1)
        return cls(k, decoder.T.clone(), torch.zeros(d_sae), decoder, mean.clone())

    def encode(self, x):
        """Values and indices of the k largest latents: both [rows, k]."""
        before = (x @ self.W_enc + self.b_enc).float()
        values, indices = before.topk(self.k, dim=-1)
        return values.relu(), indices

    def decode(self, values, indices):
        dense = torch.zeros(len(values), len(self.W_dec))
        return dense.scatter(1, indices, values) @ self.W_dec + self.b_dec

    @torch.no_grad()
    def normalise_decoder(self):
        self.W_dec.copy_(normalize(self.W_dec, dim=-1))

    def tensors(self, scale, prefix="", suffix=""):
        """float16 tensors that take and give rows at their original scale.

        The dictionary was trained on rows times `scale`: the encoder takes the
        factor in, the decoder takes it back, activations keep the trained scale.
        """
        values = {
            "W_enc": self.W_enc * scale,
            "b_enc": self.b_enc,
            "W_dec": self.W_dec / scale,
            "b_dec": self.b_dec / scale,
        }
        return {
            f"{prefix}{name}{suffix}": value.detach().half().contiguous()
            for name, value in values.items()
        }

    @classmethod
    def load(cls, folder, k, prefix="", suffix=""):
        """Reads one dictionary of a folder, as float32."""
        stored = load_file(pathlib.Path(folder) / "sae_weights.safetensors")
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        return cls(k, *(stored[f"{prefix}{name}{suffix}"].float() for name in names))


class GatedMlp:
    """down(silu(gate(x)) * up(x)), from the row before the norm's gain.

    `x_scale` and `y_scale` tell that inputs come, and outputs go, multiplied by
    these factors.
    """

    def __init__(self, block, x_scale=1.0, y_scale=1.0):
        gain = block.post_attention_layernorm.weight.detach() / x_scale
        mlp = block.mlp
        self.gate = (mlp.gate_proj.weight.detach() * gain).T.contiguous()
        self.up = (mlp.up_proj.weight.detach() * gain).T.contiguous()
        self.down = (mlp.down_proj.weight.detach() * y_scale).T.contiguous()

    def jacobian(self, x, directions, readers):
        """d(reader . y) / d(step along direction), at each row of x.

        x [rows, d]; directions [rows, k_in, d], readers [rows, k_out, d].
        Returns [rows, k_out, k_in]. Both factors of the product move, hence two
        terms: silu'(g) up and silu(g).
        """
        g, up = x @ self.gate, x @ self.up  # [rows, d_mlp]
        sigmoid = g.sigmoid()
        slope = sigmoid * (1 + g * (1 - sigmoid))
        hidden = (directions @ self.gate) * (slope * up)[:, None]
        hidden = hidden + (directions @ self.up) * silu(g)[:, None]
        return readers @ (hidden @ self.down).transpose(1, 2)


def fraction_unexplained(x, x_hat):
    """Squared error over the variance around the mean row."""
    return ((x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item()


def save(folder, tensors, config):
    """Writes sae_weights.safetensors and cfg.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n")
