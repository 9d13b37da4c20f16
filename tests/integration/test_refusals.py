"""Bad requests and bad files: a clear refusal, and everything else is served."""

import json
import shutil
import struct

import cupola
import pytest
from harness.server import Server, catalog_text

GOOD = [[1, 2, 3, 4]]


@pytest.fixture(scope="module")
def sae(zoo, client):
    return client.dictionary(next(iter(zoo.dictionaries)))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda sae: sae.features([[]]), ["empty"]),
        (lambda sae: sae.features([[1, 4_000_000]]), ["4000000"]),
        (lambda sae: sae.features([[1] * 100_000]), ["100000"]),
        (lambda sae: sae.features(GOOD, positions=[4]), ["4"]),
        (lambda sae: sae.features(GOOD, positions=[-5]), ["-5"]),
        (lambda sae: sae.features(GOOD, latents=[10_000_000]), ["10000000"]),
        (lambda sae: sae.features(GOOD, min_activation=float("nan")), ["min_activation"]),
        (lambda sae: sae.features(GOOD, min_activation=-1.0), ["min_activation"]),
        (lambda sae: sae.features(GOOD, prepend_bos=True), ["prepend_bos"]),
    ],
)
def test_a_bad_request_names_field_and_value(sae, request_, words):
    with pytest.raises((cupola.InvalidArgument, cupola.ResourceExhausted)) as error:
        request_(sae)
    for word in words:
        assert word in str(error.value)
    assert len(sae.features(GOOD)) == 4


def test_unknown_names_are_not_found(client, zoo):
    with pytest.raises(cupola.NotFound, match="no-such"):
        client.dictionary("no-such")
    with pytest.raises(cupola.NotFound, match="no-such"):
        client.model("no-such")
    model = client.model(next(iter(zoo.models)))
    with pytest.raises((cupola.NotFound, cupola.InvalidArgument), match="hook_nothing"):
        model.activations(GOOD, hooks=["blocks.0.hook_nothing"])


def weights_file(folder):
    return next(folder.glob("*.safetensors"))


def cut_short(folder):
    path = weights_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_header(folder, edit):
    path = weights_file(folder)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def tensor_of(header):
    return next(value for name, value in header.items() if name != "__metadata__")


def offsets_outside(folder):
    edit_header(folder, lambda h: tensor_of(h).update(data_offsets=[0, 1 << 50]))


def huge_shape(folder):
    edit_header(folder, lambda h: tensor_of(h).update(shape=[1 << 40, 1 << 40]))


def overlapping(folder):
    def edit(header):
        names = [name for name in header if name != "__metadata__"]
        for name in names[1:]:
            first, last = header[name]["data_offsets"]
            header[name]["data_offsets"] = [0, last - first]

    edit_header(folder, edit)


def header_length_absurd(folder):
    path = weights_file(folder)
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def deep_config(folder):
    (folder / "config.json").write_text("[" * 1_000_000)


def no_config(folder):
    (folder / "config.json").unlink()


def negative_layers(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ("n_layer", "num_layers", "num_hidden_layers"):
        if key in config:
            config[key] = -3
    path.write_text(json.dumps(config))


def tokenizer_garbage(folder):
    (folder / "tokenizer.json").write_bytes(b'{"model": \xff\xfe')


DAMAGES = [
    cut_short,
    offsets_outside,
    huge_shape,
    overlapping,
    header_length_absurd,
    deep_config,
    no_config,
    negative_layers,
    tokenizer_garbage,
]


def test_damaged_folders_fail_alone(zoo, tmp_path):
    """Each damaged model, and the dictionary on it, is failed with a reason; the
    intact one is served."""
    family = next(iter(zoo.models))
    name, (_, sae_folder) = next(iter(zoo.dictionaries.items()))
    models, dictionaries = {family: zoo.models[family]}, {name: (family, sae_folder)}
    for damage in DAMAGES:
        bad = damage.__name__
        shutil.copytree(zoo.models[family], tmp_path / bad)
        damage(tmp_path / bad)
        models[bad] = tmp_path / bad
        dictionaries[f"{bad}/sae"] = (bad, sae_folder)
    bad_sae = tmp_path / "bad_sae"
    shutil.copytree(sae_folder, bad_sae)
    cut_short(bad_sae)
    dictionaries["cut_sae"] = (family, bad_sae)

    catalog = catalog_text(models, dictionaries)
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            states = {m.name: m for m in client.models()}
            states |= {d.name: d for d in client.dictionaries()}
            for damage in DAMAGES:
                entry = states[damage.__name__]
                assert entry.state == "failed", (entry.name, entry.state)
                assert entry.failure
                with pytest.raises(cupola.FailedPrecondition):
                    client.dictionary(f"{entry.name}/sae").features(GOOD)
            assert states["cut_sae"].state == "failed"
            assert states[family].state == "resident"
            assert len(client.dictionary(name).features(GOOD)) == 4
        assert server.stop() == 0
