"""The worked examples on small models, which are trained here: each from its
first cell to the last, and its numbers against NumPy and SciPy."""

import re
import sys

import cupola
import numpy as np
import pandas
import pytest
import torch
from harness.examples import EXAMPLES, figures, run
from harness.server import Server
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from transformers import GPT2LMHeadModel

STEPS = (0, 30, 90)
SKIP = 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder that small_models.py writes, smaller still."""
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(EXAMPLES))
    try:
        import small_models
    finally:
        sys.path.remove(str(EXAMPLES))
    texts = small_models.stories(1000)
    # Other modules turn gradients off, for all of the process.
    with torch.enable_grad():
        return small_models.make(
            tmp_path_factory.mktemp("small"),
            steps=STEPS,
            texts=texts,
            corpus=small_models.stories(60, seed=1),
            width=48,
            latents=80,
            sae_steps=120,
        )


@pytest.fixture(scope="module")
def server(small, tmp_path_factory):
    catalog = (small / "catalog.textproto").read_text()
    catalog = catalog.replace('path: "', f'path: "{small}/')
    with Server(tmp_path_factory.mktemp("server"), catalog) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture
def ran(server, small, tmp_path):
    """Runs an example; what it prints."""
    return lambda name: run(
        name, server, CUPOLA_SMALL=str(small), CUPOLA_FIGURES=str(tmp_path)
    )


def test_small_models_learn_and_load(client):
    loss = []
    texts = ["Tom and Mia went to the river. There they met a red cat."]
    for step in STEPS:
        found = client.model(f"small-{step}").run(texts, loss="mean")
        loss.append(float(found.loss[0]))
    assert loss[0] > 6 and loss[1] < 5 and loss[2] < 3
    assert {one.state for one in client.dictionaries()} == {"resident"}
    last = f"small-{STEPS[-1]}"
    for name in ("sae", "transcoder", "midcoder"):
        found = client.dictionary(f"{last}/{name}").reconstruct(texts, [*range(1, 10)])
        assert found.fvu < 0.6 and 1 < found.l0 < 60, name


def activations(client, step):
    """float64 [tokens, d_sae], over the corpus, without each row's first token."""
    corpus = client.dataset("stories")
    how = corpus.tokenize(f"small-{STEPS[-1]}").tokenization
    rows = corpus.tokens(how, 0, len(corpus))
    found = client.dictionary(f"small-{step}/sae").features(rows)
    return found.csr.toarray().astype(np.float64)[found.position >= SKIP]


def test_growing_features(ran, client, tmp_path):
    said = ran("growing_features.py")
    names = "losses fractions cosines decoders unmatched appearing"
    figures(tmp_path, [f"e-{name}" for name in names.split()])
    assert "3 checkpoints, steps [0, 30, 90]; 60 texts" in said

    acts = {step: activations(client, step) for step in STEPS}
    last = acts[STEPS[-1]]
    tokens = len(last)
    assert f"distances of shape (80, 3), over {tokens:,} tokens" in said
    table, pairs = (
        pandas.read_csv(tmp_path / f"e-{kind}.csv", index_col="latent")
        for kind in ("distances", "pairs")
    )
    fractions = pandas.read_csv(tmp_path / "e-fractions.csv", index_col="step")
    dead = ~(last > 0).any(axis=0)

    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=0), 1e-30)

    below, gone = {}, {}
    for step in STEPS:
        cosines = unit(last).T @ unit(acts[step])
        told, other = (frame[str(step)].to_numpy() for frame in (table, pairs))
        assert sorted(other) == list(range(80))
        own = cosines[np.arange(80), other]
        # As good as SciPy's: pairs with a dead feature are worth nothing.
        best = cosines[linear_sum_assignment(cosines, maximize=True)]
        assert own.sum() == pytest.approx(best.sum(), abs=1e-3)
        lost = dead | ~(acts[step] > 0).any(axis=0)[other]
        np.testing.assert_array_equal(np.isnan(told), lost)
        np.testing.assert_allclose(told[~lost], 1 - own[~lost], atol=5e-5)
        for name, fraction in fractions.loc[step].items():
            share = (told < float(name.lstrip("< "))).sum() / (~dead).sum()
            assert fraction == pytest.approx(share)
        below[step] = told < 0.5
        gone[step] = (~dead).sum() - (told < 0.9).sum()
    assert fractions.loc[STEPS[-1]].eq(1).all()
    assert fractions["< 0.5"].is_monotonic_increasing
    late = below[90] & ~below[0] & ~below[30]
    early = below[90] & below[30] & ~below[0]
    assert f"appear at {{30: {early.sum()}, 90: {late.sum()}}}" in said
    assert f"live features: {list(map(int, gone.values()))}" in said

    table = re.findall(r"^ *(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +(\d+)$", said, re.M)
    assert [int(line[0]) for line in table] == list(STEPS)
    for step, (_, _, l1, l0, silent) in zip(STEPS, table):
        assert float(l1) == pytest.approx(acts[step].sum() / tokens, abs=2e-3)
        assert float(l0) == pytest.approx((acts[step] > 0).sum() / tokens, abs=2e-3)
        assert int(silent) == (~(acts[step] > 0).any(axis=0)).sum()
    assert re.search(r"small-30/sae-in-order: .* cosine of 0\.\d+", said)


class Mlp:
    """Layer 1's MLP of the last small model on the corpus, and what its
    dictionaries make of it, by transformers and PyTorch in float64."""

    @torch.no_grad()
    def __init__(self, client, folder):
        name = f"small-{STEPS[-1]}"
        self.model = GPT2LMHeadModel.from_pretrained(folder / name).double().eval()
        self.block = self.model.transformer.h[1]
        corpus = client.dataset("stories")
        how = corpus.tokenize(name).tokenization
        self.rows = corpus.tokens(how, 0, len(corpus))
        seen = []
        handle = self.block.mlp.register_forward_hook(
            lambda _, inputs, output: seen.append((inputs[0][0], output[0]))
        )
        for row in self.rows:
            self.model(torch.tensor([row]))
        handle.remove()
        inputs, out = (torch.cat([one[SKIP:] for one in part]) for part in zip(*seen))
        self.pre = self.block.mlp.c_fc(inputs)
        # Folded processing: no gain, and what is written is centred.
        x = (inputs - self.block.ln_2.bias) / self.block.ln_2.weight
        self.out = centred(out)
        self.w_out = centred(self.block.mlp.c_proj.weight)
        self.b_out = centred(self.block.mlp.c_proj.bias)
        self.transcoder, self.midcoder = (
            {
                part: tensor.double()
                for part, tensor in load_file(
                    folder / f"{name}-{kind}" / "sae_weights.safetensors"
                ).items()
            }
            for kind in ("transcoder", "midcoder")
        )
        w = self.transcoder
        self.acts = (x @ w["W_enc"] + w["b_enc"]).relu()
        self.by_transcoder = self.acts @ w["W_dec"] + w["b_dec"]
        self.mid = self.acts @ self.midcoder["W_dec"] + self.midcoder["b_dec"]
        self.by_midcoder = self.mid.relu() @ self.w_out + self.b_out

    @torch.no_grad()
    def loss(self, replaced=None, rows=40):
        """The mean over some rows, with the MLP's output replaced behind the
        first token."""
        losses, begin = [], 0
        for row in self.rows[:rows]:
            count = len(row) - SKIP

            def put(_, inputs, output, begin=begin, count=count):
                if replaced is not None:
                    output = output.clone()
                    output[0, SKIP:] = replaced[begin : begin + count]
                return output

            handle = self.block.mlp.register_forward_hook(put)
            logits = self.model(torch.tensor([row])).logits[0].log_softmax(-1)
            handle.remove()
            places = range(SKIP, len(row) - 1)
            losses += [-float(logits[place, row[place + 1]]) for place in places]
            begin += count
        return np.mean(losses)


def centred(x):
    return x - x.mean(dim=-1, keepdim=True)


def test_transcoder_neurons(ran, client, small, tmp_path):
    said = ran("transcoder_neurons.py")
    names = "frequencies cosines cosines-by-frequency together noise eigenvalues"
    figures(tmp_path, [f"d-{name}" for name in names.split()])
    mlp = Mlp(client, small)
    acts, decoder = mlp.acts, mlp.transcoder["W_dec"]

    def told(pattern):
        return float(re.search(pattern + r" (-?[\d.]+\d)", said)[1])

    for pattern, difference in (
        ("transcoder", mlp.by_transcoder - mlp.out),
        ("midcoder", mlp.by_midcoder - mlp.out),
        ("its pre-activations", mlp.mid - mlp.pre),
        ("the output itself", mlp.out),
    ):
        error = float(difference.pow(2).mean())
        assert told(pattern) == pytest.approx(error, rel=1e-4, abs=1e-5)
    for pattern, replaced in (
        ("loss: clean", None),
        ("with the transcoder", mlp.by_transcoder),
        ("with the midcoder", mlp.by_midcoder),
    ):
        assert told(pattern) == pytest.approx(mlp.loss(replaced), abs=2e-4)

    table = pandas.read_csv(tmp_path / "d-features.csv")
    live = int((acts > 0).any(dim=0).sum())
    assert len(table) == min(64, live)
    gate = (mlp.mid > 0).double()
    for one in table.itertuples():
        on = acts[:, one.latent] > 0
        own = acts[on, one.latent]
        assert one.count == int(on.sum())
        assert one.frequency == pytest.approx(float(on.double().mean()))
        assert one.mean == pytest.approx(float(own.mean()), rel=1e-4)
        gated = (own[:, None] * gate[on]).mean(dim=0)
        foretold = (gated * mlp.midcoder["W_dec"][one.latent]) @ mlp.w_out
        cosine = torch.cosine_similarity(foretold, decoder[one.latent], dim=0)
        # A neuron on its border may be open here and not there.
        assert one.predicted_cosine == pytest.approx(float(cosine), abs=2e-3)

    chosen = table["latent"].tolist()
    on = (acts[:, chosen] > 0).double()
    share = on.mean(dim=0)
    both = on.T @ on / len(on) - torch.outer(share, share)
    phi = both / torch.outer(*[(share * (1 - share)).sqrt()] * 2)
    published = both / torch.outer((share * (1 - share)).sqrt(), share.sqrt())
    assert told("symmetric one at most") == pytest.approx(
        float((published - phi).abs().max()), abs=2e-4
    )
    phi.fill_diagonal_(-1)
    assert told(r"of tokens, correlation") == pytest.approx(float(phi.max()), abs=1e-3)

    density = (acts > 0).double().mean(dim=0).numpy()
    common = np.argsort(-density, kind="stable")[:128].tolist()
    unit = torch.nn.functional.normalize(decoder[common], dim=1)
    cosines = unit @ unit.T
    large = torch.linalg.eigvalsh(cosines * (cosines >= 0.5))[-1]
    assert told("eigenvalues from") == pytest.approx(float(large), abs=1e-3)
