"""A Jacobian SAE pair as notebooks compute with it: the peer of the benchmarks
between two dictionaries. PyTorch alone, one token at a time."""

import numpy as np
import torch

import workload
from harness.server import Server, catalog_text
from harness.zoo import make_dictionaries

D_SAE = 16_384
HOOK = "blocks.3.ln2.hook_normalized"


class Peer:
    """encode_out(mlp(c + a W_dec)) at rows of a normalised activation."""

    def __init__(self, model, pair):
        layer = model.gpt_neox.layers[3]
        self.norm, self.mlp = layer.post_attention_layernorm, layer.mlp
        self.tensors = {
            name: torch.from_numpy(array) for name, array in pair.items()
        }

    def encode(self, x, suffix=""):
        t = self.tensors
        pre = x @ t[f"_W_enc{suffix}"] + t[f"_b_enc{suffix}"]
        values, indices = pre.topk(workload.K)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def outputs(self, x):
        """The output latents at rows x of the MLP's input."""
        return self.encode(self.mlp(x * self.norm.weight + self.norm.bias), "_out")

    def jacobian(self, x):
        """By autograd, one token: positive output latents, the input latents'
        activations, and the derivatives by all of these."""
        acts = self.encode(x)
        rest = x - acts @ self.tensors["_W_dec"]
        chosen = None

        def sandwich(a):
            nonlocal chosen
            out = self.outputs(rest + a @ self.tensors["_W_dec"])
            chosen = out.detach() > 0
            return out[chosen]

        whole = torch.autograd.functional.jacobian(sandwich, acts)
        return chosen.nonzero()[:, 0], acts > 0, whole

    @torch.no_grad()
    def run_sandwich(self, x):
        """The published closed form, which multiplies both pairs of weights out
        for every token. -> active latents, output activations, block."""
        t = self.tensors
        acts = self.encode(x)
        mlp = self.mlp
        gain = mlp.dense_h_to_4h.weight.T * self.norm.weight[:, None]
        pre = (x * self.norm.weight + self.norm.bias) @ mlp.dense_h_to_4h.weight.T
        pre = pre + mlp.dense_h_to_4h.bias
        with torch.enable_grad():
            leaf = pre.detach().requires_grad_()
            (slope,) = torch.autograd.grad(mlp.act(leaf).sum(), leaf)
        out = self.outputs(x)
        ins = acts.topk(workload.K).indices
        outs = out.topk(workload.K).indices
        wd1 = t["_W_dec"] @ gain
        w2e = mlp.dense_4h_to_h.weight.T @ t["_W_enc_out"]
        block = w2e[:, outs].T * slope @ wd1[ins].T
        return ins, outs, out, block

    @torch.no_grad()
    def ablate(self, x, latent, out, before):
        """How `out` changes when one unit of `latent`'s direction is taken away."""
        moved = x - self.tensors["_W_dec"][latent]
        return (self.outputs(moved)[out] - before[out]).item()

    @torch.no_grad()
    def sweep(self, x, latent, out, points):
        """The strengths, the curve, and whether it is a line outside a zero
        region, by least squares."""
        direction = self.tensors["_W_dec"][latent]
        strength = self.encode(x)[latent]
        grid = torch.linspace(0, max(5.0, strength.item() + 1), points)
        rows = x - strength * direction + grid[:, None] * direction
        curve = self.outputs(rows)[:, out]
        zeros = (curve == 0).nonzero()[:, 0]
        keep = torch.ones(points, dtype=torch.bool)
        if len(zeros):
            keep[zeros[0] : zeros[-1] + 1] = False
        design = torch.stack([grid[keep], torch.ones(int(keep.sum()))], 1)
        if not len(design):
            return grid, curve, "JumpReLU"
        fit = torch.linalg.lstsq(design, curve[keep]).solution
        residual = (design @ fit - curve[keep]).abs()
        if not bool((residual < 1e-2).all()):
            return grid, curve, "other"
        return grid, curve, "JumpReLU" if len(zeros) else "linear"


class Workbench:
    """A model of pythia-70m's shapes with a pair, its peer and a server of both.
    A context manager: the pair as a client has it, in `pair`."""

    def __init__(self, scratch, threads, *flags):
        from safetensors.numpy import load_file

        torch.set_num_threads(threads)
        (scratch / "model").mkdir()
        model = workload.write_model(workload.PYTHIA_70M, scratch / "model")
        folder = make_dictionaries.make_pair(
            scratch / "pair", d_in=512, d_sae=D_SAE, k=workload.K, hook_name=HOOK
        )
        self.peer = Peer(model, load_file(folder / "sae_weights.safetensors"))
        catalog = catalog_text(
            {"model": scratch / "model"}, {"pair": ("model", folder)}
        )
        self._server = Server(
            scratch / "server",
            catalog,
            "--no-self_check",
            f"--threads={threads}",
            *flags,
        )

    def __enter__(self):
        import cupola

        self._server.__enter__()
        self._server.wait_until_loaded()
        self.client = cupola.connect(self._server.grpc)
        self.client.__enter__()
        self.pair = self.client.pair("pair")
        return self

    def __exit__(self, *error):
        self.client.__exit__(*error)
        return self._server.__exit__(*error)

    def prompts(self, count, length, seed=0):
        random = np.random.default_rng(seed)
        return random.integers(0, 50_000, (count, length)).tolist()

    def rows(self, prompts):
        """The MLP's normalised inputs, [tokens, d_model]."""
        acts = self.client.model("model").activations(prompts, [HOOK])
        return np.concatenate(acts[HOOK])
