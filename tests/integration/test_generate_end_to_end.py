"""Generation, through gRPC, against transformers' `generate` and, with
interventions, against TransformerLens hooks over all that was written so far.

The oracle runs in float64 over the tokens that Cupola chose, so that one
near-tie does not make all later tokens another text: each token must be the
oracle's largest but for its own margin below the tolerance.
"""

import functools
import gc
import re
import time

import cupola
import numpy as np
import pytest
import torch
from harness.zoo import D_MODEL, make_models
from scipy import stats

import tl_oracle  # harness.zoo put its folder on the path

LOGPROB_TOLERANCE = 1e-4
MARGIN = 5e-5
FAMILIES = list(make_models.FAMILIES)
GENERATOR = np.random.default_rng(5)
PROMPTS = [GENERATOR.integers(1, 300, n).tolist() for n in (6, 11, 1)]
VECTOR = GENERATOR.standard_normal(D_MODEL).astype(np.float32)
RESID, PATTERN = "blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern"
LENGTH = 14


@functools.lru_cache(maxsize=2)
def transformer(family):
    torch.set_grad_enabled(False)
    return make_models.build(family).double().eval()


@functools.lru_cache(maxsize=2)
def lens(family):
    torch.set_grad_enabled(False)
    model = tl_oracle.hooked(family, make_models.build(family), False)
    model.cfg.dtype = torch.float64
    return model.to(torch.float64)


def check_text(prompt, text, logits):
    """`logits`: the oracle's for the prompt and the text, [positions, vocab]."""
    steps = logits[len(prompt) - 1 : -1].double()
    chosen = torch.tensor(text.token_ids)[:, None]
    expected = torch.log_softmax(steps, -1).gather(1, chosen)[:, 0].numpy()
    assert np.abs(np.array(text.logprobs) - expected).max() <= LOGPROB_TOLERANCE
    lost = steps.max(-1).values - steps.gather(1, chosen)[:, 0]
    assert (lost <= MARGIN * steps.abs().max()).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers(client, family):
    answer = client.model(family).generate(PROMPTS, LENGTH, stop=[])
    assert answer.prompt_token_ids == PROMPTS
    model = transformer(family)
    same = 0
    for prompt, (text,) in zip(PROMPTS, answer.samples):
        assert text.finish == "length" and len(text.token_ids) == LENGTH
        theirs = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=LENGTH,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0].tolist()
        same += theirs == prompt + text.token_ids
        logits = model(torch.tensor([prompt + text.token_ids])).logits[0]
        check_text(prompt, text, logits)
    assert same >= 2  # a near-tie is rare


def add(value, hook, positions):
    value = value.clone()
    value[:, positions] += 3 * torch.tensor(VECTOR).double()
    return value


@pytest.mark.parametrize("scope", [None, "prompt", "generated"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_steered_texts_equal_hooks(client, family, scope):
    if family not in make_models.FAMILIES or family in tl_oracle.UNSUPPORTED:
        pytest.skip("not in the zoo")
    steer = cupola.Add(RESID, VECTOR, 3.0, scope=scope)
    model = client.model(family)
    answer = model.generate(PROMPTS, LENGTH, [steer], stop=[])
    plain = model.generate(PROMPTS, LENGTH, stop=[])
    for prompt, (text,) in zip(PROMPTS, answer.samples):
        n = len(prompt)
        positions = {
            None: slice(None), "prompt": slice(0, n), "generated": slice(n, None)
        }[scope]
        logits = lens(family).run_with_hooks(
            torch.tensor([prompt + text.token_ids]),
            fwd_hooks=[(RESID, functools.partial(add, positions=positions))],
        )[0]
        check_text(prompt, text, logits)
    assert answer.logprobs != plain.logprobs


def zero_head(value, hook):  # [batch, head, query, key]
    value = value.clone()
    value[:, 1] = 0
    return value


def test_patterns_logits_and_single_positions(client):
    """Heads, generated positions by number, logits themselves, and a patch that
    acts on the prompt; one after the other and together."""
    prompt, source = PROMPTS[1], PROMPTS[0]
    n = len(prompt)
    model, oracle = client.model("llama"), lens("llama")
    boost = cupola.Add("unembed.hook_out", 4.0, neurons=[7, 20])
    z = "blocks.2.attn.hook_z"
    _, cache = oracle.run_with_cache(torch.tensor([source]), names_filter=RESID)

    def raised(value, hook):
        value = value.clone()
        value[..., [7, 20]] += 4
        return value

    def second(value, hook):
        value = value.clone()
        value[:, [n + 1, n + 3]] = 0
        return value

    def patched(value, hook):
        value = value.clone()
        value[:, 4] = cache[RESID][:, 2]
        return value

    cases = [
        ([cupola.Zero(PATTERN, heads=[1])], [(PATTERN, zero_head)]),
        ([boost], [("unembed.hook_out", raised)]),
        ([cupola.Zero(z, [1, 3], scope="generated")], [(z, second)]),
        ([cupola.Patch(RESID, source, [2], positions=[4])], [(RESID, patched)]),
    ]
    cases.append((sum((c[0] for c in cases), []), sum((c[1] for c in cases), [])))
    for interventions, hooks in cases:
        answer = model.generate([prompt], LENGTH, interventions, stop=[])
        text = answer.samples[0][0]
        tokens = torch.tensor([prompt + text.token_ids])
        hooks = [(name, h) for name, h in hooks if name != "unembed.hook_out"]
        logits = oracle.run_with_hooks(tokens, fwd_hooks=hooks)[0].clone()
        if any(i is boost for i in interventions):
            logits[..., [7, 20]] += 4
        check_text(prompt, text, logits)


def test_latents_are_changed_at_every_step(client, zoo):
    """Equal to running the whole text again with the same intervention."""
    name = next(n for n in zoo.dictionaries if n.startswith("llama/"))
    model, sae = client.model("llama"), client.dictionary(name)
    change = cupola.SetLatents(sae, {3: 6.0, 5: 4.0})
    prompt = PROMPTS[1]
    text = model.generate([prompt], LENGTH, [change], stop=[]).samples[0][0]
    run = model.run([prompt + text.token_ids], [change])
    loss = np.array(run.loss[0][len(prompt) - 1 :])
    assert np.abs(loss + np.array(text.logprobs)).max() <= LOGPROB_TOLERANCE


def test_stop_tokens(client):
    model = client.model("gpt2")
    free = model.generate(PROMPTS[:1], LENGTH, stop=[]).samples[0][0]
    stop = free.token_ids[4]
    first = free.token_ids.index(stop)
    text = model.generate(PROMPTS[:1], LENGTH, stop=stop).samples[0][0]
    assert text.finish == "stop"
    assert text.token_ids == free.token_ids[: first + 1]
    # The model's own end of text is a stop token by default: here, made likely.
    end = cupola.Add("unembed.hook_out", 100.0, neurons=[0], scope="generated")
    text = model.generate(PROMPTS[:1], LENGTH, [end]).samples[0][0]
    assert text.finish == "stop" and text.token_ids[1:] == [0]
    assert len(model.generate(PROMPTS[:1], LENGTH, [end], stop=[]).token_ids[0]) == LENGTH


def test_top_logprobs(client):
    answer = client.model("gpt2").generate(PROMPTS, 5, stop=[], top_logprobs=4)
    for (text,) in answer.samples:
        for token, logprob, top in zip(text.token_ids, text.logprobs, text.top):
            values = [choice.logprob for choice in top]
            assert len(top) == 4 and values == sorted(values, reverse=True)
            assert top[0].id == token
            assert abs(top[0].logprob - logprob) < 1e-5


def test_sampled_tokens_follow_the_distribution(client):
    """First tokens of many samples against the model's probabilities."""
    model = client.model("llama")
    prompt = PROMPTS[1]
    logits = transformer("llama")(torch.tensor([prompt])).logits[0, -1].numpy()
    count = 2000
    for options in (
        dict(temperature=1.0),
        dict(temperature=0.5, top_k=20),
        dict(temperature=1.5, top_p=0.7),
    ):
        answer = model.generate(
            [prompt], 1, stop=[], samples=count, seed=3, **options
        )
        drawn = np.bincount(
            [text.token_ids[0] for text in answer.samples[0]], minlength=300
        )
        expected = warped(logits, **options) * count
        assert drawn[expected == 0].sum() == 0
        # Tokens that are expected fewer than five times count together.
        often = expected >= 5
        observed = np.append(drawn[often], drawn[~often].sum())
        wanted = np.append(expected[often], expected[~often].sum())
        if wanted[-1] == 0:
            observed, wanted = observed[:-1], wanted[:-1]
        assert stats.chisquare(observed, wanted).pvalue > 1e-3


def warped(logits, temperature, top_k=None, top_p=None):
    """transformers' own warpers."""
    from transformers import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    scores = torch.tensor(logits)[None]
    steps = [TemperatureLogitsWarper(temperature)]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    steps += [TopPLogitsWarper(top_p)] if top_p else []
    for step in steps:
        scores = step(None, scores)
    return torch.softmax(scores, -1)[0].numpy()


def test_a_sample_depends_on_nothing_beside_it(client):
    model = client.model("gpt_neox")
    options = dict(temperature=1.0, stop=[])
    many = model.generate(PROMPTS, LENGTH, samples=3, seed=9, **options)
    for i, prompt in enumerate(PROMPTS):
        alone = model.generate([prompt], LENGTH, samples=2, seed=9, **options)
        assert alone.token_ids[0] == many.token_ids[i][:2]
    assert many.token_ids[0][0] != many.token_ids[0][1]
    other = model.generate(PROMPTS[:1], LENGTH, seed=10, **options)
    assert other.token_ids[0] != many.token_ids[0][0]


def test_the_cache_streams_the_same(client):
    model = client.model("gpt2")
    ask = functools.partial(
        model.generate, PROMPTS, 7, temperature=0.8, samples=2, seed=77, top_logprobs=2
    )
    computed, cached = ask(), ask()
    assert not computed.from_cache and cached.from_cache
    assert computed.samples == cached.samples
    streamed = list(ask(stream=True))
    assert len(streamed) == sum(len(t.token_ids) for p in cached.samples for t in p)
    # Greedy texts are the same under every seed.
    model.generate(PROMPTS, 7, seed=1)
    assert model.generate(PROMPTS, 7, seed=2).from_cache
    # A prompt that was continued before is not continued again.
    assert model.generate(PROMPTS[:1], 7).from_cache


def steps_done(server):
    page = server.get("/metrics")
    return sum(
        float(value)
        for value in re.findall(r"^cupola_batch_seconds_count.* (\S+)$", page, re.M)
    )


def test_leaving_the_loop_stops_the_server(server, client):
    """The steps that the device has done stop growing long before the text's
    length; other requests are served between them."""
    model = client.model("llama")
    before = steps_done(server)
    started = 0
    for seed in range(20):
        stream = model.generate(
            PROMPTS[2:], 60, temperature=2.0, seed=1000 + seed, stop=[],
            samples=30, stream=True,
        )
        for _ in stream:
            started += 1
            break
    assert started == 20
    gc.collect()
    while (now := steps_done(server)) != before:
        before = now
        time.sleep(0.2)
    with pytest.raises(RuntimeError):
        stream.result  # noqa: B018
    assert model.generate(PROMPTS[:1], 3, stop=[]).finish == ["length"]


def test_numbers_that_are_none_end_a_text(client):
    broken = cupola.Scale("ln_final.hook_scale", 0.0, scope="generated")
    (text,) = client.model("gpt2").generate(PROMPTS[:1], 5, [broken], stop=[]).samples[0]
    assert text.finish in ("no_numbers", "length")
    if text.finish == "no_numbers":
        assert len(text.token_ids) == 1


def test_texts_and_frames(client):
    answer = client.model("gpt2").generate(["one two", "three"], 6, stop=[])
    assert [len(ids) for ids in answer.token_ids] == [6, 6]
    frame = answer.to_dataframe()
    assert len(frame) == 12
    n = len(answer.prompt_token_ids[0])
    assert frame.position[:6].tolist() == list(range(n, n + 6))
    assert all(isinstance(text, str) for text in answer.text)
    assert "cupola" in answer._repr_html_()


REFUSED = [
    (dict(max_new_tokens=0), ["max_new_tokens", "at least 1"]),
    (dict(max_new_tokens=60), ["max_new_tokens is 60", "prompts[0]", "64"]),
    (dict(temperature=-1.0), ["temperature is -1"]),
    (dict(temperature=float("nan")), ["temperature"]),
    (dict(temperature=1.0, top_p=0.0), ["top_p is 0"]),
    (dict(temperature=1.0, top_p=1.5), ["top_p is 1.5"]),
    (dict(top_k=3), ["top_k", "temperature"]),
    (dict(top_p=0.5), ["top_p", "temperature"]),
    (dict(samples=2), ["samples", "temperature"]),
    (dict(samples=0), ["samples is 0"]),
    (dict(stop=[300]), ["stop", "300"]),
    (dict(top_logprobs=301), ["top_logprobs", "301"]),
    (dict(interventions=[cupola.Zero("blocks.9.hook_resid_pre")]), ["interventions[0].hook"]),
    (dict(interventions=[cupola.Zero(RESID, [6])]), ["interventions[0]", "6"]),
    (
        dict(interventions=[cupola.Zero(RESID, [5], scope="generated")]),
        ["interventions[0].positions", "5", "0 to 4"],
    ),
    (
        dict(interventions=[cupola.Patch(RESID, PROMPTS[0], scope="generated")]),
        ["interventions[0].scope", "PROMPT"],
    ),
    (
        dict(interventions=[cupola.Zero(RESID), cupola.Set(RESID, 1.0, scope="generated")]),
        ["interventions[1]", "interventions[0]", "generated"],
    ),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_bad_requests_are_refused_by_field(client, options, words):
    ask = dict(max_new_tokens=5, **{}) | options
    with pytest.raises(cupola.InvalidArgument) as error:
        client.model("gpt2").generate(PROMPTS[:1], **ask)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_too_much_is_refused_with_both_numbers(client):
    with pytest.raises(cupola.ResourceExhausted, match="262144"):
        client.model("gpt2").generate(
            PROMPTS[:1], 50, temperature=1.0, samples=10_000
        )


def test_run_knows_no_generated_positions(client):
    with pytest.raises(cupola.InvalidArgument, match="scope"):
        client.model("gpt2").run(PROMPTS, [cupola.Zero(RESID, scope="generated")])
