"""An independent sandwich in float64, for torch.autograd: the map from an input
dictionary's activations through an MLP to an output dictionary."""

import copy

import harness.zoo  # noqa: F401  (puts tests/parity/dictionary on the path)
import make_dictionaries
import torch

torch.set_grad_enabled(False)


class Sandwich:
    """a -> encode_out(mlp(c + decode_in(a))) at one token.

    `mlp` maps a row where the input dictionary decodes to one where the output
    dictionary encodes; dictionaries are folders that SAELens opens.
    """

    def __init__(self, sae_in, mlp, sae_out, reconstruction=False):
        self.sae_in = make_dictionaries.load(sae_in).to(dtype=torch.float64)
        self.sae_out = make_dictionaries.load(sae_out).to(dtype=torch.float64)
        self.mlp = mlp
        self.reconstruction = reconstruction

    def at(self, read, x=None):
        """The clean activations and the map around them. `read` is the input
        dictionary's row, `x` (None: the same) the MLP's."""
        read = torch.as_tensor(read).double()[None]
        x = read if x is None else torch.as_tensor(x).double()[None]
        # Encoding leaves the token's statistics behind, for decoding.
        acts = self.sae_in.encode(read)
        decode = self.sae_in.decode
        if self.reconstruction:
            base = torch.zeros_like(x)
        else:
            base = x - decode(acts)

        def point(a):
            self.sae_in.encode(read)
            return self.mlp(base + decode(a[None]))

        return acts[0], point

    def activations(self, point):
        return lambda a: self.sae_out.encode(point(a))[0]

    def pre_activations(self, point):
        """Before the selection: what a TopK's slots without activation have."""
        sae = self.sae_out

        def pre(a):
            y = point(a)
            sae_in = sae.process_sae_in(y)
            if hasattr(sae, "r_mag"):
                return (sae_in @ (sae.W_enc * sae.r_mag.exp()) + sae.b_mag)[0]
            out = sae_in @ sae.W_enc + sae.b_enc
            if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
                out = out * sae.W_dec.norm(dim=-1)
            return out[0]

        return pre


def jacobian(function, at):
    """[outputs, inputs]"""
    with torch.enable_grad():
        return torch.autograd.functional.jacobian(function, at, vectorize=True)


def second_derivatives(function, at, latents):
    """d^2 f / d at_j^2 for j in latents: [outputs, latents]."""
    jvp = torch.autograd.functional.jvp  # by reverse mode, twice
    columns = []
    for j in latents:
        direction = torch.zeros_like(at)
        direction[j] = 1

        def first(a):
            return jvp(function, a, direction, create_graph=True)[1]

        with torch.enable_grad():
            columns.append(jvp(first, at, direction)[1].detach())
    return torch.stack(columns, -1)


def through_mlp(lens, layer, start, end="mlp_out"):
    """The map between two points of a TransformerLens block, in float64: from
    "normalized", "out" (behind the gain) or "resid" to "mlp_out" or
    "resid_post"."""
    block = copy.deepcopy(lens.blocks[layer]).double()
    for module in block.modules():
        if hasattr(module, "cfg"):
            module.cfg.dtype = torch.float64  # norms return this
    norm = block.ln2

    def run(x):
        rows = x
        if start == "resid":
            rows = norm(x[None])[0]
        elif start == "normalized":
            if hasattr(norm, "w"):
                rows = rows * norm.w
            if hasattr(norm, "b"):
                rows = rows + norm.b
        y = block.mlp(rows[None])
        if lens.cfg.use_normalization_before_and_after:
            y = block.ln2_post(y)
        return y[0] + x if end == "resid_post" else y[0]

    return run
