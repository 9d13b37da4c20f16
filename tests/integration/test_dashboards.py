"""Pages about latents: SAEDashboard's reader takes them, and their numbers are
those of the features themselves."""

import json
import os
import subprocess
import sys

import cupola
import numpy as np
import pytest
from harness.server import ROOT, Server, catalog_text
from harness.zoo import D_MODEL, HOOK, make_dictionaries, make_models

SAE = "tiny/sae"
DEAD = (4, 9)
TOP, INTERVALS, EACH, SKIP = 6, 4, 3, 1

# What SAEDashboard's classes for a batch, a feature and an activation take, by
# name, with the types that its Neuronpedia export makes columns of: numbers,
# lists of numbers or of texts. Nothing else may be there, as it is passed to
# their constructors by name.
NUMBER, NUMBERS, INTEGERS, TEXTS, TEXT = "number", [float], [int], [str], str
BATCH = {
    "model_id": TEXT,
    "layer": int,
    "sae_set": TEXT,
    "sae_id_suffix": None,
    "features": list,
}
FEATURE = {
    "feature_index": int,
    "neuron_alignment_indices": INTEGERS,
    "neuron_alignment_values": NUMBERS,
    "neuron_alignment_l1": NUMBERS,
    "correlated_neurons_indices": INTEGERS,
    "correlated_neurons_l1": NUMBERS,
    "correlated_neurons_pearson": NUMBERS,
    "correlated_features_indices": INTEGERS,
    "correlated_features_l1": NUMBERS,
    "correlated_features_pearson": NUMBERS,
    "neg_str": TEXTS,
    "neg_values": NUMBERS,
    "pos_str": TEXTS,
    "pos_values": NUMBERS,
    "frac_nonzero": NUMBER,
    "freq_hist_data_bar_values": NUMBERS,
    "freq_hist_data_bar_heights": NUMBERS,
    "logits_hist_data_bar_heights": NUMBERS,
    "logits_hist_data_bar_values": NUMBERS,
    "n_prompts_total": int,
    "n_tokens_in_prompt": int,
    "dataset": TEXT,
    "activations": list,
    "decoder_weights_dist": NUMBERS,
    "vector": NUMBERS,
}
ACTIVATION = {
    "bin_min": NUMBER,
    "bin_max": NUMBER,
    "bin_contains": NUMBER,
    "tokens": TEXTS,
    "values": NUMBERS,
    "qualifying_token_index": int,
}


def fits(value, kind):
    if kind is None:
        return value is None or isinstance(value, str)
    if kind == NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(kind, list):
        (one,) = kind
        return isinstance(value, list) and all(type(item) is one for item in value)
    return type(value) is kind


def taken(value, fields):
    assert set(value) == set(fields)
    for name, kind in fields.items():
        assert fits(value[name], kind), (name, value[name])


def read(folder):
    """All features of a folder, as SAEDashboard's export step reads them: files
    batch-*.json by name; a page's lists go in step, an activation's values have
    a maximum, and one for each token."""
    features = {}
    for path in sorted(folder.iterdir()):
        if not (path.name.startswith("batch-") and path.suffix == ".json"):
            continue
        batch = json.loads(path.read_text())
        taken(batch, BATCH)
        for feature in batch["features"]:
            taken(feature, FEATURE)
            for kind in (
                "neuron_alignment",
                "correlated_neurons",
                "correlated_features",
            ):
                lists = [v for k, v in feature.items() if k.startswith(kind)]
                assert len({len(one) for one in lists}) == 1
            for kind in ("neg", "pos"):
                assert len(feature[f"{kind}_str"]) == len(feature[f"{kind}_values"])
            for kind in ("freq", "logits"):
                heights = feature[f"{kind}_hist_data_bar_heights"]
                assert len(heights) == len(feature[f"{kind}_hist_data_bar_values"])
            for activation in feature["activations"]:
                taken(activation, ACTIVATION)
                assert len(activation["tokens"]) == len(activation["values"])
                assert max(activation["values"]) > 0
            features[feature["feature_index"]] = feature
    return features


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboards")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "standard", folder / "sae", d_in=D_MODEL, d_sae=40, hook_name=HOOK, seed=2
    )
    silence(sae)
    catalog = catalog_text({"tiny": model}, {SAE: ("tiny", sae)})
    with Server(folder / "server", catalog) as server:
        server.wait_until_loaded()
        yield server


def silence(folder):
    """Makes some latents that never fire."""
    from safetensors.torch import load_file, save_file

    path = folder / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors["b_enc"][list(DEAD)] = -1e6
    save_file(tensors, path)


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(11)
    return [random.integers(3, 90, size=n).tolist() for n in random.integers(4, 20, 30)]


@pytest.fixture(scope="module")
def job(client, rows):
    client.dataset("corpus", rows)
    selected = client.dataset("corpus").select("tiny", skip_positions=SKIP)
    job = client.dictionary(SAE).statistics(selected, top_k=TOP, bins_per_octave=256)
    job.wait(progress=False)
    return job


@pytest.fixture(scope="module")
def acts(client, rows):
    """By row: float64 [tokens, d_sae], 0 where the job did not look."""
    found = client.dictionary(SAE).features(rows)
    dense = found.csr.toarray().astype(np.float64)
    dense[found.position < SKIP] = 0
    ends = np.cumsum([len(row) for row in rows])[:-1]
    return np.split(dense, ends)


@pytest.fixture(scope="module")
def pages(job, client, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    seen = []
    selected = client.dataset("corpus").select("tiny", skip_positions=SKIP)
    together = client.dictionary(SAE).coactivation(selected, sample=0).result()
    written = job.result().export(
        folder,
        coactivation=together,
        intervals=INTERVALS,
        each=EACH,
        skip_positions=SKIP,
        vectors=True,
        latents_per_file=9,
        name="l1-tiny",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (written.latents, written.skipped) == (38, 2)
    assert [path.name for path in written.files] == [
        f"batch-{i}.json" for i in range(5)
    ]
    assert seen == [(9, 38), (18, 38), (27, 38), (36, 38), (38, 38)]
    return written.folder, read(folder)


def test_the_reader_takes_all_that_live(pages):
    folder, features = pages
    assert sorted(features) == [i for i in range(40) if i not in DEAD]
    skipped = json.loads((folder / "skipped_indexes.json").read_text())
    assert skipped["skipped_indexes"] == list(DEAD)
    assert skipped["sae_set"] == "l1-tiny" and skipped["layer"] == "1"
    for path in folder.glob("batch-*.json"):
        batch = json.loads(path.read_text())
        assert batch["model_id"] == "tiny" and batch["layer"] == 1


def test_examples(pages, acts, rows, client):
    texts = client.model("tiny").str_tokens(rows)
    looked_at = sum(len(row) - SKIP for row in rows)
    several = 0
    for latent, page in pages[1].items():
        columns = [part[:, latent] for part in acts]
        most = max(column.max() for column in columns)
        values = np.concatenate(columns)
        best = sorted(
            (-column.max(), i) for i, column in enumerate(columns) if column.any()
        )
        top = [one for one in page["activations"] if one["bin_min"] == -1]
        assert len(top) == min(TOP, len(best))
        assert page["activations"][: len(top)] == top
        for one, (_, row) in zip(top, best):
            assert one["tokens"] == texts[row]
            np.testing.assert_allclose(one["values"], columns[row], atol=5e-5 * most)
            assert one["qualifying_token_index"] == int(columns[row].argmax())
            assert one["bin_max"] == pytest.approx(most, abs=1e-3)
            assert one["bin_contains"] == -1
        low = [one["bin_min"] for one in page["activations"][len(top) :]]
        assert low == sorted(low, reverse=True)
        several += len(set(low)) > 1
        for one in page["activations"][len(top) :]:
            there = one["values"][one["qualifying_token_index"]]
            assert one["bin_min"] - 1e-3 <= there <= one["bin_max"] + 1e-3
            inside = (values >= one["bin_min"]) & (values <= one["bin_max"])
            # Positions that were not looked at count nowhere.
            zeros = sum(map(len, rows)) - looked_at if one["bin_min"] == 0 else 0
            share = (inside.sum() - zeros) / looked_at
            # One token may be on the other side of a rounded border.
            assert abs(one["bin_contains"] - share) <= 1.5 / looked_at
    assert several > 20


def test_numbers(pages, acts, client, rows):
    sae = client.dictionary(SAE)
    decoder = sae.weight("W_dec").astype(np.float64)
    all_acts = np.concatenate(acts)
    looked_at = sum(len(row) - SKIP for row in rows)
    for latent, page in pages[1].items():
        active = all_acts[all_acts[:, latent] > 0, latent]
        assert page["frac_nonzero"] == pytest.approx(len(active) / looked_at)
        heights = np.array(page["freq_hist_data_bar_heights"])
        assert heights.sum() == pytest.approx(len(active), abs=1e-3)
        counts, edges = np.histogram(active, bins=50, range=(0, active.max()))
        # 256 bins an octave are much finer than 50 bars.
        assert np.abs(np.cumsum(heights) - np.cumsum(counts)).max() <= 1.01
        middles = (edges[1:] + edges[:-1]) / 2
        np.testing.assert_allclose(
            page["freq_hist_data_bar_values"], middles, atol=1e-4
        )
        row = decoder[latent]
        best = np.argsort(-row)[:3]
        assert page["neuron_alignment_indices"] == best.tolist()
        np.testing.assert_allclose(
            page["neuron_alignment_values"], row[best], atol=1e-5
        )
        np.testing.assert_allclose(
            page["neuron_alignment_l1"],
            np.abs(row[best]) / np.abs(row).sum(),
            atol=1e-5,
        )
        np.testing.assert_allclose(page["vector"], row, atol=1e-6)
        assert page["n_prompts_total"] == len(rows)
        assert page["n_tokens_in_prompt"] == max(map(len, rows))
        assert page["dataset"] == "corpus"


def test_logits(pages, client):
    sae = client.dictionary(SAE)
    unembed = client.model("tiny").weight("W_U").astype(np.float64)
    # In raw processing the final norm stands between the two: it centres, and
    # has a gain.
    gain = client.model("tiny").weight("ln_final.w").astype(np.float64)
    decoder = sae.weight("W_dec").astype(np.float64)
    effects = (decoder - decoder.mean(1, keepdims=True)) * gain @ unembed
    for latent, page in pages[1].items():
        ordered = np.sort(effects[latent])
        scale = 5e-5 * np.abs(ordered).max() + 1e-5
        np.testing.assert_allclose(page["pos_values"], ordered[::-1][:10], atol=scale)
        np.testing.assert_allclose(page["neg_values"], ordered[:10], atol=scale)
        counts, edges = np.histogram(ordered, bins=50)
        heights = np.array(page["logits_hist_data_bar_heights"])
        # A logit may lie on a border.
        assert np.abs(np.cumsum(heights) - np.cumsum(counts)).max() <= 1
        np.testing.assert_allclose(
            page["logits_hist_data_bar_values"],
            (edges[1:] + edges[:-1]) / 2,
            atol=scale,
        )
        assert len(page["pos_str"]) == len(page["neg_str"]) == 10


def test_correlated_latents(pages, acts, rows):
    looked_at = np.concatenate([part[SKIP:] for part in acts])
    lengths = np.linalg.norm(looked_at, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = np.corrcoef(looked_at.T)
        cosine = looked_at.T @ looked_at / np.outer(lengths, lengths)
    several = 0
    for latent, page in pages[1].items():
        partners = page["correlated_features_indices"]
        both = ((looked_at > 0) & (looked_at[:, [latent]] > 0)).any(axis=0)
        both[latent] = False
        assert len(partners) == min(3, both.sum())
        assert both[partners].all()
        best = np.sort(pearson[latent][both])[::-1][: len(partners)]
        told = page["correlated_features_pearson"]
        np.testing.assert_allclose(told, best, atol=1e-4)
        np.testing.assert_allclose(told, pearson[latent, partners], atol=1e-4)
        told = page["correlated_features_l1"]
        np.testing.assert_allclose(told, cosine[latent, partners], atol=1e-4)
        several += len(partners) == 3
    assert several > 20


def test_a_job_over_prompts(client, rows, tmp_path, acts):
    job = client.dictionary(SAE).statistics(rows, top_k=2)
    statistics = job.result()
    with pytest.raises(cupola.InvalidArgument, match="prompts: the job went over"):
        statistics.export(tmp_path)
    statistics.export(tmp_path, [3, 17], prompts=rows, each=0)
    features = read(tmp_path)
    assert list(features) == [3, 17]
    assert len(features[3]["activations"]) == 2
    assert features[3]["dataset"] == "" and features[3]["vector"] == []
    with pytest.raises(cupola.InvalidArgument, match="holds batch-0.json already"):
        statistics.export(tmp_path, [3], prompts=rows)
    statistics.export(tmp_path, [5], prompts=rows, overwrite=True)
    assert list(read(tmp_path)) == [5]
    # One that is dead, asked for all the same.
    statistics.export(tmp_path / "dead", DEAD, prompts=rows)
    for page in read(tmp_path / "dead").values():
        assert page["frac_nonzero"] == 0 and page["activations"] == []
        assert page["freq_hist_data_bar_heights"] == []
        assert len(page["pos_str"]) == 10
    # Other prompts than the job's are noticed.
    swapped = [row[::-1] for row in rows]
    with pytest.raises(cupola.InvalidArgument, match="latent .* where the job looked"):
        statistics.export(tmp_path / "swapped", prompts=swapped, top=1)
    job.delete()


def test_bad_input(job, client, rows, tmp_path):
    statistics = job.result()
    sampled = client.dictionary(SAE).coactivation(rows, sample=4).result()
    for options, said in [
        (dict(latents=[40]), "latents: 40; the dictionary has 40"),
        (dict(latents=[-1]), "latents"),
        (dict(latents_per_file=0), "latents_per_file: expected at least 1, got 0"),
        (dict(logits=0), "logits: expected at least 1, got 0"),
        (dict(prompts=rows), "the job went over the dataset corpus"),
        (dict(coactivation=sampled), "a sample of tokens has no correlations"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            statistics.export(tmp_path / "none", **options)
    assert not list(tmp_path.rglob("batch-*"))


def test_command(server, job, tmp_path):
    def command(*arguments):
        environment = {**os.environ, "CUPOLA_SERVER": server.grpc}
        environment["PYTHONPATH"] = str(ROOT / "client/python")
        return subprocess.run(
            [sys.executable, "-m", "cupola", "export", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    out = tmp_path / "out"
    ran = command(job.id, str(out), "--latents", "3,5", f"--skip-positions={SKIP}")
    assert ran.returncode == 0, ran.stderr
    assert "wrote 2 latents to 1 files" in ran.stdout
    assert list(read(out)) == [3, 5]
    again = command(job.id, str(out), "--latents", "3")
    assert again.returncode == 2 and "holds batch-0.json already" in again.stderr
    assert command("job-unknown", str(out)).returncode == 3
