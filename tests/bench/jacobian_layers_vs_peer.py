"""Jacobian blocks across layers a second, Cupola beside torch.autograd through
TransformerLens, in one run.

    jacobian_layers_vs_peer.py [--tokens 1024] [--peer_tokens 8] [--threads 2]

Pythia-70m's shapes with random weights, TopK dictionaries of 16,384 latents and
k = 32 on the residual stream after layers 1 and 4. The peer runs TransformerLens
once for a prompt and then differentiates the 32 active output latents of each of
its tokens by autograd, stopped at the input's hook point, and multiplies with the
active decoder rows; Cupola answers from token ids through its Python client and
gRPC, each time other tokens, so that no answer comes from the cache. Blocks of
input latents at the output's own position, and of those at every earlier position
of a prompt's last token. Before anything is timed the blocks are compared.
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
from harness.zoo import make_dictionaries  # noqa: F401  (puts tl_oracle on the path)

TOLERANCE = 5e-5  # of the largest entry: the project's float32 promise
PROMPT_TOKENS = 128
FIRST, LAST = 1, 4


class Peer:
    """TransformerLens, with the dictionaries' tensors."""

    def __init__(self, model, first, last):
        import tl_oracle
        from safetensors.torch import load_file

        torch.set_grad_enabled(True)
        self.lens = tl_oracle.hooked("gpt_neox", model, False).requires_grad_(False)
        self.first = load_file(first / "sae_weights.safetensors")
        self.last = load_file(last / "sae_weights.safetensors")

    @staticmethod
    def active(tensors, rows):
        pre = rows @ tensors["W_enc"] + tensors["b_enc"]
        return pre.topk(workload.K).indices, pre

    def run(self, prompt):
        """The residuals after the two layers, connected by a graph."""
        kept = {}

        def start(value, hook):
            kept["x"] = value.detach().requires_grad_()
            return kept["x"]

        kept["y"] = self.lens.run_with_hooks(
            torch.tensor([prompt]),
            fwd_hooks=[(f"blocks.{FIRST}.hook_resid_post", start)],
            stop_at_layer=LAST + 1,
        )
        return kept["x"], kept["y"]

    def gradients(self, x, y, position):
        """Of the active output latents: [k, positions, d_model]."""
        latents, pre = self.active(self.last, y[0, position])
        rows = [
            torch.autograd.grad(pre[latent], x, retain_graph=True)[0][0]
            for latent in latents
        ]
        return latents, torch.stack(rows)

    def block(self, x, gradients, source):
        latents, _ = self.active(self.first, x[0, source].detach())
        return latents, gradients[:, source] @ self.first["W_dec"][latents].T


def compare(peer, prompt, answer):
    x, y = peer.run(prompt)
    for row, (position, source) in enumerate(
        zip(answer.position, answer.source_position)
    ):
        outputs, gradients = peer.gradients(x, y, position)
        inputs, block = peer.block(x, gradients, source)
        by_out = np.argsort(answer.out_latents[row])
        by_in = np.argsort(answer.in_latents[row])
        ours = answer.values[row][by_out][:, by_in]
        theirs = block.numpy()[np.argsort(outputs.numpy())]
        theirs = theirs[:, np.argsort(inputs.numpy())]
        worst = np.abs(ours - theirs).max()
        if worst > TOLERANCE * np.abs(theirs).max():
            raise SystemExit(f"blocks differ by {worst} in row {row}")


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

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--peer_tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "model").mkdir()
        model = workload.write_model(workload.PYTHIA_70M, scratch / "model")
        entries = {}
        for layer in (FIRST, LAST):
            shape = workload.Shape("pythia-70m", layer, workload.PYTHIA_70M.d_sae)
            workload.write_dictionary(shape, 512, scratch / f"l{layer}")
            entries[f"l{layer}"] = ("model", scratch / f"l{layer}")
        peer = Peer(model, scratch / f"l{FIRST}", scratch / f"l{LAST}")
        generator = np.random.default_rng(0)
        prompts = generator.integers(
            0, 50_000, (options.tokens // PROMPT_TOKENS, PROMPT_TOKENS)
        ).tolist()
        catalog = catalog_text({"model": scratch / "model"}, entries)
        flags = ["--no-self_check", f"--threads={options.threads}"]
        with Server(scratch / "server", catalog, *flags) as server:
            server.wait_until_loaded()
            with cupola.connect(server.grpc, deadline=600) as client:
                pair = client.pair(f"l{FIRST}", f"l{LAST}")
                compare(
                    peer,
                    prompts[0],
                    pair.jacobian(
                        prompts[:1], positions=[40, 100], source_positions=[3, 40]
                    ),
                )
                positions = range(0, PROMPT_TOKENS, PROMPT_TOKENS // options.peer_tokens)
                start = time.perf_counter()
                x, y = peer.run(prompts[0])
                for position in positions:
                    _, gradients = peer.gradients(x, y, position)
                    peer.block(x, gradients, position)
                own = len(positions) / (time.perf_counter() - start)
                start = time.perf_counter()
                x, y = peer.run(prompts[0])
                _, gradients = peer.gradients(x, y, PROMPT_TOKENS - 1)
                for source in range(PROMPT_TOKENS):
                    peer.block(x, gradients, source)
                earlier = PROMPT_TOKENS / (time.perf_counter() - start)

                def other(turn, shift):
                    return [[turn + shift, *ids[1:]] for ids in prompts]

                calls = {
                    "own position, full": (
                        own,
                        len(prompts) * PROMPT_TOKENS,
                        lambda turn: pair.jacobian(other(turn, 1)),
                    ),
                    "own position, frozen": (
                        own,
                        len(prompts) * PROMPT_TOKENS,
                        lambda turn: pair.jacobian(other(turn, 1), mode="frozen"),
                    ),
                    "all earlier positions of the last, full": (
                        earlier,
                        len(prompts) * PROMPT_TOKENS,
                        lambda turn: pair.jacobian(
                            other(turn, 20), positions=-1, source_positions="all"
                        ),
                    ),
                }
                print("| input latents at | peer, blocks/s | cupola, blocks/s | ratio |")
                print("|---|---|---|---|")
                for name, (theirs, blocks, call) in calls.items():
                    ours = blocks / seconds(call, options.repeats)
                    print(
                        f"| {name} | {theirs:.2f} | {ours:.0f} | {ours / theirs:.0f} |"
                    )


if __name__ == "__main__":
    main()
