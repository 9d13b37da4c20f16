"""A dictionary's quality through gRPC against TransformerLens hooks and SAELens."""

import cupola
import numpy as np
import pytest
import torch
from harness.lens import FAMILIES, PROCESSINGS, hooked, prompts_for
from harness.zoo import HOOK, HOOK_OUT, make_dictionaries
from sae_lens.evals import ExplainedVarianceCalculator

TOLERANCE = 5e-5
LOSS_TOLERANCE = 1e-4


def entry(zoo, family, which=0):
    names = [n for n in zoo.dictionaries if n.startswith(f"{family}/")]
    return names[which], zoo.dictionaries[names[which]][1]


@torch.no_grad()
def expected(family, folder, processing, prompts, chosen):
    """Losses [tokens, 3] at every position, by prompt; x and its reconstruction
    at the chosen ones."""
    lens = hooked(family, processing)
    sae = make_dictionaries.load(folder)
    transcoder = make_dictionaries.is_transcoder(sae.cfg.architecture())
    out = HOOK_OUT if transcoder else HOOK
    losses, targets, outputs = [], [], []
    for ids, positions in zip(prompts, chosen):
        tokens = torch.tensor([ids])
        clean, cache = lens.run_with_cache(tokens, return_type="loss", loss_per_token=True)
        output = sae(cache[HOOK][0].float())
        changed = {"zero": torch.zeros_like(output), "reconstruction": output}
        rows = [clean[0]]
        for values in changed.values():
            def edit(value, hook, values=values):
                value[0, positions] = values[positions]
                return value

            rows.append(lens.run_with_hooks(
                tokens, return_type="loss", loss_per_token=True, fwd_hooks=[(out, edit)]
            )[0])
        losses.append(torch.stack(rows, -1))
        targets.append(cache[out][0][positions])
        outputs.append(output[positions])
    return losses, torch.cat(targets), torch.cat(outputs)


@pytest.mark.parametrize("processing", PROCESSINGS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", [0, 1])
def test_everywhere(zoo, client, family, processing, which):
    name, folder = entry(zoo, family, which)
    prompts = prompts_for(family, (9, 4, 14))
    everything = [list(range(len(ids))) for ids in prompts]
    losses, x, output = expected(family, folder, processing, prompts, everything)
    answer = client.dictionary(name, processing).quality(prompts)
    all_losses = torch.cat(losses).numpy()
    assert answer.losses.shape == all_losses.shape
    assert np.abs(answer.losses - all_losses).max() <= LOSS_TOLERANCE
    clean, zero, reconstruction = all_losses.mean(0)
    assert abs(answer.clean_loss - clean) <= LOSS_TOLERANCE
    assert abs(answer.zero_loss - zero) <= LOSS_TOLERANCE
    assert abs(answer.reconstruction_loss - reconstruction) <= LOSS_TOLERANCE
    recovered = (answer.zero_loss - answer.reconstruction_loss) / (
        answer.zero_loss - answer.clean_loss
    )
    assert answer.loss_recovered == pytest.approx(recovered, rel=1e-12)
    error = (x - output).double().square().sum(-1)
    close = TOLERANCE * error.max().item()
    assert np.abs(answer.squared_error - error.numpy()).max() <= 2 * close
    spread = (x - x.mean(0)).double().square().sum()
    assert answer.fvu == pytest.approx((error.sum() / spread).item(), rel=1e-4)
    saelens = ExplainedVarianceCalculator()
    saelens.add_batch(output, x)
    explained = saelens.compute()
    assert answer.explained_variance == pytest.approx(explained, rel=1e-4, abs=1e-5)
    assert answer.mean_squared_error == pytest.approx(error.mean().item() / x.shape[1], rel=1e-4)
    assert answer.loss_prompt.tolist() == [0] * 8 + [1] * 3 + [2] * 13
    assert answer.loss_position.tolist() == [*range(8), *range(3), *range(13)]


def test_at_one_position(zoo, client):
    name, folder = entry(zoo, "gpt2")
    prompts = prompts_for("gpt2", (9, 4, 14))
    at = [[len(ids) - 2] for ids in prompts]
    losses, x, output = expected("gpt2", folder, "raw", prompts, at)
    sae = client.dictionary(name, "raw")
    answer = sae.quality(prompts, positions=-2)
    wanted = torch.stack([rows[-1] for rows in losses]).numpy()
    assert np.abs(answer.losses - wanted).max() <= LOSS_TOLERANCE
    assert answer.position.tolist() == [7, 2, 12]
    later = sae.quality(prompts, positions=[1], score_every=True)
    losses, _, _ = expected("gpt2", folder, "raw", prompts, [[1]] * 3)
    assert np.abs(later.losses - torch.cat(losses).numpy()).max() <= LOSS_TOLERANCE
    # Before the change nothing changed.
    first = later.loss_position == 0
    assert (later.losses[first, 0] == pytest.approx(later.losses[first, 2], abs=1e-6))
    frame = later.to_dataframe()
    assert list(frame) == ["prompt", "position", "clean", "zero", "reconstruction"]
    assert sae.quality(prompts, positions=-2).from_cache
    assert sae.quality(prompts[1:], positions=-2).from_cache
    assert not sae.quality(prompts, positions=-3).from_cache


def test_l0_is_that_of_the_features(zoo, client):
    name, _ = entry(zoo, "llama")
    prompts = prompts_for("llama", (9, 4))
    sae = client.dictionary(name)
    features = sae.features(prompts)
    answer = sae.quality(prompts)
    np.testing.assert_array_equal(answer.token_l0, np.diff(features.csr.indptr))
    assert answer.l0 == pytest.approx(answer.token_l0.mean())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda s: s.quality([[1]]), ["prompts[0]", "1 tokens", "next token"]),
        (lambda s: s.quality([[1, 2, 3]], positions=[2]), ["next token", "before 2"]),
        (lambda s: s.quality([[1, 2, 3]], positions=[3]), ["3"]),
        (lambda s: s.quality([[1, 2, 3]], positions=[[]]), ["positions", "prompts[0]"]),
    ],
)
def test_bad_requests(zoo, client, request_, words):
    with pytest.raises(cupola.InvalidArgument) as error:
        request_(client.dictionary(entry(zoo, "gpt2")[0]))
    for word in words:
        assert word in str(error.value)
