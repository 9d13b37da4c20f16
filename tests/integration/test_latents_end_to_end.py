"""Changing and ablating latents, through gRPC, against TransformerLens hooks
that encode and decode with SAELens, for every family and architecture.

Tolerance: losses within 1e-4, in float64 on the oracle's side. A latent whose
on/off decision changes when the dictionary's input moves by 5e-5 of its scale is
decided by rounding: a prompt whose position has one is left out.
"""

import functools
import json
import subprocess
import sys

import cupola
import numpy as np
import pytest
import torch
from harness.zoo import HOOK, HOOK_OUT, combinations, make_dictionaries, make_models

import tl_oracle  # harness.zoo put its folder on the path

TOLERANCE = 5e-5
LOSS_TOLERANCE = 1e-4
GENERATOR = np.random.default_rng(5)
PROMPTS = [GENERATOR.integers(1, 300, n).tolist() for n in (12, 9, 12)]
COMBINATIONS = [c for c in combinations() if c[0] not in tl_oracle.UNSUPPORTED]


@functools.lru_cache(maxsize=2)
def model_of(family, processing):
    torch.set_grad_enabled(False)
    model = tl_oracle.hooked(family, make_models.build(family), processing == "folded")
    model.cfg.dtype = torch.float64
    return model.to(torch.float64)


class Oracle:
    """A prompt's losses with a change of the dictionary's latents by hand."""

    def __init__(self, family, processing, architecture, folder):
        self.model = model_of(family, processing)
        self.sae = make_dictionaries.load(folder).to(dtype=torch.float64)
        self.transcoder = make_dictionaries.is_transcoder(architecture)

    def activations(self, ids):
        _, cache = self.model.run_with_cache(torch.tensor([ids]), names_filter=HOOK)
        return self.sae.encode(cache[HOOK][0])

    def decided(self, ids, position):
        _, cache = self.model.run_with_cache(torch.tensor([ids]), names_filter=HOOK)
        x = cache[HOOK][0]
        generator = torch.Generator().manual_seed(0)
        on = self.sae.encode(x)[position] > 0
        for _ in range(8):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            moved = self.sae.encode(x + TOLERANCE * x.abs().max() * noise)
            if ((moved[position] > 0) != on).any():
                return False
        return True

    def log_probs(self, ids, position=None, change=None):
        """change: (activations, value, x) -> new value, all of one position."""
        seen = {}

        def read(value, hook):
            seen["x"] = value[0].clone()

        def edit(value, hook):
            x = seen["x"] if self.transcoder else value[0].clone()
            value = value.clone()
            index = range(value.shape[1]) if position is None else [position]
            for p in index:
                value[0, p] = change(x[p : p + 1], value[0, p : p + 1])[0]
            return value

        hooks = []
        if change is not None:
            if self.transcoder:
                hooks.append((HOOK, read))
            hooks.append((HOOK_OUT if self.transcoder else HOOK, edit))
        logits = self.model.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)
        return torch.log_softmax(logits[0].double(), -1)

    def loss(self, ids, *change):
        logprob = self.log_probs(ids, *change)[:-1]
        return -logprob.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()

    def with_error(self, changes):
        """{latent: value}; None takes the latent away."""

        def change(x, y):
            acts = self.sae.encode(x)
            new = acts.clone()
            for latent, value in changes.items():
                new[:, latent] = value
            return y + self.sae.decode(new) - self.sae.decode(acts)

        return change

    def without_error(self, changes):
        def change(x, y):
            full = self.sae(x)
            acts = self.sae.encode(x)
            new = acts.clone()
            for latent, value in changes.items():
                new[:, latent] = value
            return full + self.sae.decode(new) - self.sae.decode(acts)

        return change


@pytest.fixture(
    params=[(*c, p) for c in COMBINATIONS for p in ("raw", "folded")], ids="-".join
)
def subject(request, zoo, client):
    family, architecture, processing = request.param
    name = f"{family}/{architecture}"
    oracle = Oracle(family, processing, architecture, zoo.dictionaries[name][1])
    return oracle, client.dictionary(name, processing), client.model(family, processing)


def clear_prompts(oracle, position):
    found = [ids for ids in PROMPTS if oracle.decided(ids, position)]
    assert found
    return found


def test_changed_latents_equal_hooks(subject):
    oracle, sae, model = subject
    position = 4
    prompts = clear_prompts(oracle, position)
    acts = oracle.activations(prompts[0])[position]
    first, second = acts.topk(2).indices.tolist()
    off = int((acts == 0).nonzero()[0])
    changes = {first: 0.5, off: 1.5}
    sets = [
        (cupola.SubtractLatents(sae, [first, second, off], position),
         oracle.with_error({first: 0.0, second: 0.0, off: 0.0})),
        (cupola.SetLatents(sae.name, changes, positions=position),
         oracle.with_error(changes)),
        (cupola.SetLatents(sae, changes, keep_error=False, positions=[position]),
         oracle.without_error(changes)),
        (cupola.Reconstruct(sae, positions=position), oracle.without_error({})),
        (cupola.Reconstruct(sae, {first: 0.0}, [[position]] * len(prompts)),
         oracle.without_error({first: 0.0})),
    ]
    runs = model.run(prompts, [[intervention] for intervention, _ in sets])
    for run, (intervention, change) in zip(runs, sets):
        for i, ids in enumerate(prompts):
            expected = oracle.loss(ids, position, change)
            assert np.abs(run.loss[i] - expected).max() <= LOSS_TOLERANCE, intervention
            assert np.abs(run.loss.clean[i] - oracle.loss(ids)).max() <= LOSS_TOLERANCE
        assert np.abs(run.loss[0] - run.loss.clean[0]).max() > 1e-3


@pytest.mark.parametrize("mode", ["subtract", "reconstruct"])
def test_ablations_equal_hooks(subject, mode):
    oracle, sae, _ = subject
    prompts = clear_prompts(oracle, -2)
    found = sae.ablate(prompts, mode=mode, answers=[[3, 8]] * len(prompts))
    frame = found.to_dataframe()
    for i, ids in enumerate(prompts):
        position = len(ids) - 2
        acts = oracle.activations(ids)[position]
        rows = frame[frame.prompt == i]
        assert rows.latent.tolist() == acts.nonzero()[:, 0].tolist()
        assert (rows.position == position).all()
        scale = acts.abs().max().item()
        expected = acts[acts != 0].numpy()
        assert np.abs(rows.activation - expected).max() <= TOLERANCE * scale
        clean = oracle.log_probs(ids)[position]
        assert abs(rows.clean_loss.iloc[0] + clean[ids[-1]]) <= LOSS_TOLERANCE
        make = oracle.with_error if mode == "subtract" else oracle.without_error
        for row, latent in list(zip(rows.index, rows.latent))[::5]:
            logprob = oracle.log_probs(ids, position, make({latent: 0.0}))[position]
            assert abs(frame.loss[row] + logprob[ids[-1]]) <= LOSS_TOLERANCE
            expected = logprob[[3, 8]].numpy()
            assert np.abs(found.logprob[row] - expected).max() <= LOSS_TOLERANCE
            greater = (logprob[None] > logprob[[3, 8]][:, None] + 1e-3).sum(1)
            close = (logprob[None] > logprob[[3, 8]][:, None] - 1e-3).sum(1)
            rank = torch.tensor(found.rank[row])
            assert ((rank >= greater) & (rank <= close)).all()
        if mode == "reconstruct":
            full = oracle.log_probs(ids, position, oracle.without_error({}))[position]
            assert abs(rows.reconstructed_loss.iloc[0] + full[ids[-1]]) <= LOSS_TOLERANCE
    assert np.abs(found.loss_increase).max() > 1e-3


@pytest.mark.parametrize("mode", ["subtract", "reconstruct"])
def test_ablations_everywhere_and_all_later_losses(subject, mode):
    oracle, sae, _ = subject
    make = oracle.with_error if mode == "subtract" else oracle.without_error
    position = 3
    prompts = [
        ids for ids in PROMPTS if all(oracle.decided(ids, p) for p in range(len(ids)))
    ]
    if not prompts:
        pytest.skip("rounding decides a latent of every prompt")
    # Two prompts of different lengths, where there are.
    prompts = sorted(prompts, key=len)[:: max(1, len(prompts) - 1)]
    acts = oracle.activations(prompts[0])
    latents = sorted({int(acts[position].argmax()), 0})
    later = sae.ablate(prompts, latents, position, mode, later=True)
    every = sae.ablate(prompts, latents, None, mode, answers=5, later=True)
    assert later.latent.tolist() == latents * len(prompts) == every.latent.tolist()
    assert (every.position == -1).all() and (later.position == position).all()
    for row, (prompt, latent) in enumerate(zip(later.prompt, later.latent)):
        ids = prompts[prompt]
        clean, n = oracle.loss(ids), len(ids) - 1
        here = oracle.loss(ids, position, make({latent: 0.0}))
        found = later.losses[row]
        assert np.isnan(found[n:]).all()
        assert np.abs(found[:n] - here).max() <= LOSS_TOLERANCE
        assert abs(later.later_loss[row] - here[position:].mean()) <= LOSS_TOLERANCE
        assert abs(later.loss[row] - here[position]) <= LOSS_TOLERANCE
        assert np.abs(later.clean_losses[row][:n] - clean).max() <= LOSS_TOLERANCE
        logprob = oracle.log_probs(ids, None, make({latent: 0.0}))
        there = oracle.loss(ids, None, make({latent: 0.0}))
        assert abs(every.loss[row] - there.mean()) <= LOSS_TOLERANCE
        assert abs(every.later_loss[row] - there.mean()) <= LOSS_TOLERANCE
        assert abs(every.clean_loss[row] - clean.mean()) <= LOSS_TOLERANCE
        assert np.abs(every.losses[row][:n] - there).max() <= LOSS_TOLERANCE
        assert abs(every.logprob[row] - logprob[-2, 5]) <= LOSS_TOLERANCE
        largest = oracle.activations(ids)[:, latent].max().item()
        assert abs(every.activation[row] - largest) <= TOLERANCE * max(1, largest)
        if mode == "reconstruct":
            full = oracle.loss(ids, None, oracle.without_error({}))
            assert abs(every.reconstructed_loss[row] - full.mean()) <= LOSS_TOLERANCE
            full = oracle.loss(ids, position, oracle.without_error({}))
            assert np.abs(later.reconstructed_losses[row][:n] - full).max() <= LOSS_TOLERANCE
    assert np.abs(every.loss_increase).max() > 1e-4


def test_latents_at_their_own_positions(zoo, client):
    """Rows of a table of features, in any order, equal ablations one by one."""
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae = client.dictionary(name)
    table = sae.features(PROMPTS).to_dataframe()
    last = table.prompt.map(lambda p: len(PROMPTS[p]) - 1)
    chosen = table[table.position < last].sample(24, random_state=0)
    found = sae.ablate(PROMPTS, targets=chosen, later=True).to_dataframe()
    keys = ["prompt", "position", "latent"]
    expected = chosen.sort_values(keys).reset_index(drop=True)
    assert found[keys].astype(int).equals(expected[keys].astype(int))
    np.testing.assert_allclose(found.activation, expected.activation, rtol=1e-5)
    for _, row in found.iloc[::5].iterrows():
        one = sae.ablate(
            [PROMPTS[int(row.prompt)]], int(row.latent), int(row.position), later=True
        )
        assert abs(one.loss[0] - row.loss) <= 1e-5
        assert abs(one.later_loss[0] - row.later_loss) <= 1e-5
    assert np.abs(found.later_loss - found.clean_later_loss).max() > 1e-4
    # Without any in a prompt.
    some = sae.ablate(PROMPTS, targets=[[1, 2, 0], [1, 2, 5]], later=True)
    assert some.prompt.tolist() == [1, 1] and some.losses.shape == (2, 11)


def test_several_positions_and_some_together(zoo, client):
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae, model = client.dictionary(name), client.model(name.split("/")[0])
    both = sae.ablate(PROMPTS, position=[5, 2]).to_dataframe()
    for position in (2, 5):
        one = sae.ablate(PROMPTS, position=position).to_dataframe()
        mine = both[both.position == position].reset_index(drop=True)
        assert mine.latent.tolist() == one.latent.tolist()
        np.testing.assert_allclose(mine.loss, one.loss, rtol=0, atol=1e-5)
        np.testing.assert_allclose(mine.clean_loss, one.clean_loss, rtol=0, atol=1e-5)
    latent = int(both.latent[0])
    found = sae.ablate(PROMPTS, latent, position=[5, 2], together=True)
    run = model.run(
        PROMPTS, [cupola.SubtractLatents(sae, latent, [2, 5])], loss="mean"
    )
    np.testing.assert_allclose(found.loss, run.loss, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.clean_loss, run.loss.clean, rtol=0, atol=1e-5)


def test_a_table_ablates_with_a_bos_of_its_own(zoo, client):
    """Activations with BOS, ablations without, as a published table has it."""
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae = client.dictionary(name)
    words = "the thin hat of a big red cat sat on that mat and ran".split()
    texts = [" ".join(GENERATOR.permutation(words)[:8]) for _ in range(12)]
    bare = dict(prepend_bos=True, min_share=0.1, max_latents=4)
    table = sae.ablation_table(texts, ablate_with_bos=False, **bare)
    same = sae.ablation_table(texts, ablate_with_bos=True, **bare)
    plain = sae.ablation_table(texts, **bare)
    assert same.equals(plain) and len(table)
    assert set(table.latent) == set(plain.latent)
    features = sae.features(texts, prepend_bos=True, positions=-2).csr.toarray()
    for _, row in table.iterrows():
        latent = int(row.latent)
        some = [t for t, a in zip(texts, features[:, latent]) if a > 0.1]
        found = sae.ablate(some, latent, prepend_bos=False)
        assert row.prompts == len(some)
        assert abs(found.loss_increase.mean() - row.loss_increase) <= LOSS_TOLERANCE


def test_given_latents_and_positions(zoo, client):
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae = client.dictionary(name)
    every = sae.ablate(PROMPTS, position=[[3], [4], [5]]).to_dataframe()
    latents = every.latent[:3].tolist() + [client.load(name).d_sae - 1]
    some = sae.ablate(PROMPTS, latents, position=[[3], [4], [5]]).to_dataframe()
    assert some.latent.tolist() == sorted(set(latents)) * 3
    for _, row in some.iterrows():
        match = every[(every.prompt == row.prompt) & (every.latent == row.latent)]
        if len(match):
            assert abs(match.loss.iloc[0] - row.loss) <= 1e-5
        else:  # not active: nothing changes
            assert row.activation == 0 and row.loss == row.clean_loss


def test_answers_come_from_the_cache(zoo, client):
    name = next(iter(zoo.dictionaries))
    sae, model = client.dictionary(name), client.model(name.split("/")[0])
    first, again = (sae.ablate(PROMPTS, answers=7) for _ in range(2))
    assert again.from_cache and not first.from_cache
    assert first.to_dataframe().equals(again.to_dataframe())
    zero = cupola.Zero("blocks.1.hook_mlp_out", positions=-2)
    first, again = (model.run(PROMPTS, [zero], answers=9) for _ in range(2))
    assert again.from_cache and not first.from_cache
    assert all(map(np.array_equal, first.loss, again.loss))
    # Another place is another question.
    assert not model.run(
        PROMPTS, [cupola.Zero("blocks.1.hook_mlp_out", positions=-3)], answers=9
    ).from_cache


def test_the_table_equals_its_definition(zoo, client):
    """Every threshold at a value that matters, from single answers by hand."""
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae = client.dictionary(name)
    prompts = GENERATOR.integers(1, 300, (30, 10)).tolist()
    active_above, share, min_share, counted, most, per = 0.2, 0.4, 0.2, 25, 12, 6
    table = sae.ablation_table(
        prompts,
        active_above=active_above,
        share_of_max=share,
        min_share=min_share,
        mean_prompts=counted,
        max_latents=most,
        prompts_per_latent=per,
    ).set_index("latent")
    acts = sae.features(prompts).csr.toarray().reshape(30, 10, -1)
    a = acts[:, -2]
    above = a[:counted] > share * acts[:, :-1].max((0, 1))
    n = above.sum(0) + 1e-9
    mean = np.where(n < min_share * counted, 0, (a[:counted] * above).sum(0) / n)
    latents = [int(d) for d in np.argsort(-mean, kind="stable")[:most] if mean[d] > 0]
    assert (n < min_share * counted).any() and len(latents) == most
    assert set(table.index) == set(latents)
    assert (np.diff(table.loss_increase) <= 0).all()
    for latent in latents:
        row = table.loc[latent]
        chosen = np.flatnonzero(a[:, latent] > active_above)[:per]
        assert row.prompts == len(chosen) and per in table.prompts.values
        assert abs(row.mean_activation - mean[latent]) <= 1e-5 * mean.max()
        assert abs(row.share_active - n[latent] / counted) <= 1e-6
        some = [prompts[i] for i in chosen]
        for mode, column in [
            ("subtract", "loss_increase"),
            ("reconstruct", "loss_increase_encoded"),
        ]:
            found = sae.ablate(some, [latent], mode=mode)
            assert abs(found.loss_increase.mean() - row[column]) <= LOSS_TOLERANCE
    assert sae.ablation_table(
        prompts,
        active_above=active_above,
        share_of_max=share,
        min_share=min_share,
        mean_prompts=counted,
        max_latents=most,
        prompts_per_latent=per,
    ).attrs["provenance"].from_cache


def test_a_table_without_active_latents_is_empty(zoo, client):
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    table = client.dictionary(name).ablation_table(PROMPTS, active_above=1e9)
    assert len(table) == 0


def test_the_command_line_shows_the_largest_effects(zoo, server, client):
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    command = [sys.executable, "-m", "cupola", "ablate", name, "the thin hat"]
    shown = subprocess.run(
        [*command, "--server", server.grpc, "--json"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)
    expected = client.dictionary(name).ablate("the thin hat")
    assert [row["latent"] for row in rows] == expected.latent.tolist()
    table = subprocess.run(
        [*command, "--server", server.grpc, "--top", "1"], capture_output=True, text=True
    )
    assert str(expected.top(1).latent[0]) in table.stdout
    wrong = subprocess.run(
        [*command, "--server", server.grpc, "--mode", "zero"], capture_output=True
    )
    assert wrong.returncode == 2


def test_latents_are_read_clean_and_changed(zoo, client):
    name = next(n for n in zoo.dictionaries if n.endswith("/standard"))
    sae, model = client.dictionary(name, "raw"), client.model(name.split("/")[0])
    run = model.run(
        PROMPTS,
        [cupola.Zero("blocks.0.hook_mlp_out", positions=[2, 5])],
        positions=[1, 5, 3],
        dictionaries=[sae],
        hooks=[HOOK],
        loss=False,
    )
    found = run.features[name]
    for i, ids in enumerate(PROMPTS):
        clean = sae.features([ids], positions=[1, 5, 3]).csr.toarray()
        assert np.abs(found.clean[i].toarray() - clean).max() <= TOLERANCE * clean.max()
        changed = sae.encode(run.activations[HOOK][i]).csr.toarray()
        scale = TOLERANCE * changed.max()
        assert np.abs(found[i].toarray() - changed).max() <= scale
        # Position 1 lies before the change.
        assert (found[i][0] != found.clean[i][0]).nnz == 0
        assert np.abs(changed[1:] - clean[1:]).max() > 100 * scale
