"""Jacobian blocks a second, Cupola beside torch.autograd, in one run.

    jacobian_vs_peer.py [--tokens 2048] [--peer_tokens 6] [--threads 2]

Pythia-70m's shapes with a Jacobian SAE pair of 16,384 latents and k = 32, random
weights. The peer differentiates the sandwich of each token by autograd, as the
published notebook does; Cupola answers through its Python client and gRPC, each
time other tokens, so that no answer comes from the cache. From given inputs both begin at the MLP's input; from
text Cupola also tokenizes and runs the model, and the peer's time is that of
given inputs. Before anything is timed the blocks are compared.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch

import workload
from harness.server import Server, catalog_text
from harness.zoo import make_dictionaries

TOLERANCE = 5e-5  # of the largest entry: the project's float32 promise
D_SAE = 16_384
HOOK = "blocks.3.ln2.hook_normalized"
TARGETS = {"given inputs": 1000, "text": 400}


class Peer:
    """encode_out(mlp(c + a W_dec)) in PyTorch, and its Jacobian by autograd."""

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

    def jacobian(self, x):
        """One token's block: positive output latents by active input ones."""
        acts = self.encode(x)
        rest = x - acts @ self.tensors["_W_dec"]
        outputs = None

        def sandwich(a):
            nonlocal outputs
            rows = rest + a @ self.tensors["_W_dec"]
            y = self.mlp(rows * self.norm.weight + self.norm.bias)
            out = self.encode(y, "_out")
            outputs = out.detach() > 0
            return out[outputs]

        whole = torch.autograd.functional.jacobian(sandwich, acts)
        return outputs.nonzero()[:, 0], acts > 0, whole[:, acts > 0]


def compare(peer, answer, rows):
    for token, x in enumerate(rows):
        outputs, active, block = peer.jacobian(torch.from_numpy(x))
        inputs = active.nonzero()[:, 0].numpy()
        by_in = np.argsort(answer.in_latents[token])
        by_out = np.argsort(answer.out_latents[token])
        ours = answer.values[token][by_out][:, by_in]
        keep_in = np.isin(answer.in_latents[token][by_in], inputs)
        keep_out = np.isin(answer.out_latents[token][by_out], outputs)
        worst = np.abs(ours[keep_out][:, keep_in] - block.numpy()).max()
        if worst > TOLERANCE * np.abs(ours).max():
            raise SystemExit(f"blocks differ by {worst} at token {token}")


def seconds(call, repeats):
    spent = []
    for turn in range(repeats):
        start = time.perf_counter()
        answer = call(turn)
        spent.append(time.perf_counter() - start)
        if answer.from_cache:
            raise SystemExit("a new question was answered from the cache")
    return statistics.median(spent)


def main():
    import cupola
    from safetensors.numpy import load_file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--peer_tokens", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "model").mkdir()
        model = workload.write_model(workload.PYTHIA_70M, scratch / "model")
        pair_folder = make_dictionaries.make_pair(
            scratch / "pair", d_in=512, d_sae=D_SAE, k=workload.K, hook_name=HOOK
        )
        peer = Peer(model, load_file(pair_folder / "sae_weights.safetensors"))
        catalog = catalog_text(
            {"model": scratch / "model"}, {"pair": ("model", pair_folder)}
        )
        flags = ["--no-self_check", f"--threads={options.threads}"]
        with Server(scratch / "server", catalog, *flags) as server:
            server.wait_until_loaded()
            with cupola.connect(server.grpc) as client:
                pair = client.pair("pair")
                generator = np.random.default_rng(0)
                prompts = generator.integers(
                    0, 50_000, (options.tokens // 128, 128)
                ).tolist()
                acts = client.model("model").activations(prompts, [HOOK])
                rows = np.concatenate(acts[HOOK])
                compare(peer, pair.jacobian(inputs=rows[:3]), rows[:3])
                sample = torch.from_numpy(rows[: options.peer_tokens])
                torch.set_grad_enabled(True)
                start = time.perf_counter()
                for x in sample:
                    peer.jacobian(x)
                theirs = len(sample) / (time.perf_counter() - start)
                calls = {
                    "given inputs": lambda turn: pair.jacobian(
                        inputs=rows * np.float32(1 + 0.01 * turn)
                    ),
                    "text": lambda turn: pair.jacobian(
                        [[turn + 1, *ids[1:]] for ids in prompts]
                    ),
                }
                print("| from | peer, tokens/s | cupola, tokens/s | ratio | target |")
                print("|---|---|---|---|---|")
                for name, call in calls.items():
                    ours = len(rows) / seconds(call, options.repeats)
                    print(
                        f"| {name} | {theirs:.2f} | {ours:.0f} | "
                        f"{ours / theirs:.0f} | {TARGETS[name]} |"
                    )


if __name__ == "__main__":
    main()
