"""Ablations a second, Cupola beside TransformerLens + SAELens, in one run.

    ablation_vs_peer.py [--prompts 16] [--peer 12] [--turns 5] [--threads 2]

The peer ablates as notebooks do: one latent, one prompt, one forward pass with a
hook that subtracts its contribution. Cupola is asked through its Python client
and gRPC, with new prompts in every turn; its server is idle in the peer's turns.
Before anything is timed the answers are compared. Random weights of the models'
shapes; float32.
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

LOSS_TOLERANCE = 1e-4
HOOK = "blocks.3.hook_resid_pre"
LENGTH, LONG = 32, 128
SAMPLE = 64  # latents of the long prompt, each at its own position
MACHINE_GFLOPS = 400  # oneDNN's float32 products on the reference machine


class Ablator(workload.Peer):
    @torch.no_grad()
    def active(self, ids, position):
        _, cache = self.model.run_with_cache(
            torch.tensor([ids]), names_filter=HOOK, stop_at_layer=4
        )
        return self.sae.encode(cache[HOOK][0, position])

    @torch.no_grad()
    def loss(self, ids, latent=None, position=None):
        def subtract(value, hook):
            acts = self.sae.encode(value[0, position])
            value[0, position] -= acts[latent] * self.sae.W_dec[latent]
            return value

        hooks = [] if latent is None else [(HOOK, subtract)]
        return self.model.run_with_hooks(
            torch.tensor([ids]), return_type="loss", loss_per_token=True, fwd_hooks=hooks
        )[0]


def timed(call):
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def latent_ablations(peer, sae, prompts, options):
    """All active latents at position -2, reading the last token's loss."""
    ids = prompts.draw(1, LENGTH)
    found = sae.ablate(ids)
    active = peer.active(ids[0], -2).nonzero()[:, 0].tolist()
    if len(set(active) ^ set(found.latent.tolist())) > 2:
        raise SystemExit("the active latents differ")
    for row in range(0, len(found), 7):
        expected = peer.loss(ids[0], int(found.latent[row]), LENGTH - 2)[-1].item()
        if abs(expected - found.loss[row]) > LOSS_TOLERANCE:
            raise SystemExit(f"losses differ: {expected} and {found.loss[row]}")
    theirs, ours = [], []
    for _ in range(options.turns):
        (text,) = prompts.draw(1, LENGTH)
        latents = peer.active(text, -2).nonzero()[: options.peer, 0].tolist()
        spent, _ = timed(lambda: [peer.loss(text, d, LENGTH - 2) for d in latents])
        theirs.append(len(latents) / spent)
        batch = prompts.draw(options.prompts, LENGTH)
        spent, answer = timed(lambda batch=batch: sae.ablate(batch))
        assert not answer.from_cache
        ours.append(len(answer) / spent)
    return theirs, ours


def forward_with_loss(peer, model, prompts, options):
    theirs, ours = [], []
    for _ in range(4 * options.turns):
        (text,) = prompts.draw(1, LENGTH)
        spent, _ = timed(lambda: peer.loss(text))
        theirs.append(1 / spent)
        spent, _ = timed(lambda: model.run([text]))
        ours.append(1 / spent)
    return theirs, ours


def ablations_at_own_positions(peer, model, sae, prompts, options):
    """A sample of a long prompt's active latents; all later losses. -> rates
    and the arithmetic of one ablation: blocks and unembedding from its position
    on, in multiply-adds times two."""
    import cupola

    config = peer.model.cfg
    block = 12 * config.d_model**2
    rates, flops = [], []
    random = np.random.default_rng(1)
    for _ in range(options.turns):
        (text,) = prompts.draw(1, LONG)
        csr = sae.features([text]).csr
        rows = random.integers(1, LONG - 1, SAMPLE)
        picks = [(int(p), int(random.choice(csr[p].indices))) for p in rows]
        sets = [[cupola.SubtractLatents(sae, [d], [p])] for p, d in picks]
        spent, runs = timed(lambda: model.run([text], sets))
        rates.append(SAMPLE / spent)
        position, latent = picks[0]
        expected = peer.loss(text, latent, position).numpy()
        if np.abs(runs[0].loss[0] - expected).max() > LOSS_TOLERANCE:
            raise SystemExit("the losses after an ablation differ")
        positions = float(np.mean(LONG - rows))
        layers = config.n_layers - 3
        flops.append(
            2 * positions * (layers * block + config.d_model * config.d_vocab)
        )
    return rates, flops


def table(peer, sae, prompts):
    """Seconds, and what the peer would take at three passes for each prompt."""
    batch = prompts.draw(200, LENGTH)
    spent, answer = timed(
        # Random prompts share few latents: every threshold at its lowest.
        lambda: sae.ablation_table(
            batch, active_above=0.0, share_of_max=0.0, min_share=0.0, max_latents=500
        )
    )
    passes = 3 * int(answer.prompts.sum())
    one = statistics.median(timed(lambda: peer.loss(batch[0]))[0] for _ in range(9))
    return spent, passes, passes * one


def main():
    import cupola

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=16, help="of one request")
    parser.add_argument("--peer", type=int, default=12, help="the peer's ablations")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    median = statistics.median
    prompts = workload.Prompts(seed=3)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models, dictionaries, peers = {}, {}, {}
        for shape in (workload.PYTHIA_70M, workload.GPT2):
            folder, sae = scratch / shape.name, scratch / f"{shape.name}-sae"
            folder.mkdir()
            model = workload.write_model(shape, folder)
            workload.write_dictionary(shape, model.config.hidden_size, sae)
            models[shape.name] = folder
            override = f'hook_in: "{HOOK}"'
            dictionaries[f"{shape.name}/sae"] = (shape.name, sae, override)
            peers[shape] = Ablator(shape, folder, model, sae)
        with Server(
            scratch / "server",
            catalog_text(models, dictionaries),
            f"--threads={options.threads}",
        ) as server, cupola.connect(server.grpc) as client:
            server.wait_until_loaded()
            small, large = workload.PYTHIA_70M, workload.GPT2
            sae = client.dictionary(f"{small.name}/sae")
            theirs, ours = latent_ablations(peers[small], sae, prompts, options)
            print("| | peer, per s | cupola, per s | ratio | aim |")
            print("|---|---|---|---|---|")
            print(
                f"| ablate at -2, {small.name}, {options.prompts} x {LENGTH} | "
                f"{median(theirs):.1f} | {median(ours):.0f} | "
                f"{median(ours) / median(theirs):.0f} | 300 |"
            )
            theirs, ours = forward_with_loss(
                peers[small], client.model(small.name), prompts, options
            )
            print(
                f"| forward with loss, 1 x {LENGTH} | {median(theirs):.1f} | "
                f"{median(ours):.1f} | {median(ours) / median(theirs):.1f} | 8 |"
            )
            rates, flops = ablations_at_own_positions(
                peers[large],
                client.model(large.name),
                client.dictionary(f"{large.name}/sae"),
                prompts,
                options,
            )
            gflops = median(np.multiply(rates, flops)) / 1e9
            print(
                f"\n{large.name}, {SAMPLE} latents of {LONG} tokens, all later "
                f"losses: {median(rates):.1f} ablations/s, {gflops:.0f} GFLOP/s, "
                f"{gflops / MACHINE_GFLOPS:.0%} of {MACHINE_GFLOPS} (aim 50%)"
            )
            spent, passes, expected = table(peers[small], sae, prompts)
            print(
                f"table, 200 prompts x {LENGTH}: {spent:.2f} s; {passes} passes of "
                f"the peer take {expected:.0f} s, {expected / spent:.0f} times as long"
            )


if __name__ == "__main__":
    main()
