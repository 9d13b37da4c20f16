"""The C++ tokenizer against the `tokenizers` package, id for id.

The tokenizers and texts of ../shared/data are used where they exist, and so is
SmolLM2's tokenizer: in the folder CUPOLA_SMOLLM2, else in tests/.data.
"""

import gzip
import json
import os
import pathlib
import random
import unicodedata

import pytest
import tokenizers

from nasty_text import nasty_texts
from tokenizer_pipe import ROOT, TOOL, TokenizerError, TokenizerPipe

SHIPPED = ROOT / "tests/data/tokenizers"
SHARED = ROOT.parent / "shared/data"

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")


def _reference(folder):
    if (folder / "tokenizer.json").exists():
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2TokenizerFast.from_pretrained(str(folder)).backend_tokenizer


def _folders():
    folders = sorted(p.parent for p in SHIPPED.glob("*/goldens.json"))
    if (SHARED / "tokenizers").is_dir():
        folders += sorted(p for p in (SHARED / "tokenizers").iterdir() if p.is_dir())
    smollm2 = os.environ.get("CUPOLA_SMOLLM2", ROOT / "tests/.data/smollm2-135m")
    if (pathlib.Path(smollm2) / "tokenizer.json").exists():
        folders.append(pathlib.Path(smollm2))
    return folders


def _differences(pipe, reference, texts):
    """Texts that the two do not agree on, with both answers."""
    texts = list(texts)
    different = []
    expected = reference.encode_batch_fast(texts, add_special_tokens=False)
    for i, (text, encoding) in enumerate(zip(texts, expected)):
        try:
            ids = pipe.encode(text)
        except TokenizerError as error:
            ids = str(error)
        if ids != encoding.ids:
            different.append((text, encoding.ids, ids))
        elif i % 5 == 0:
            decoded = reference.decode(ids, skip_special_tokens=False)
            if pipe.decode(ids) != decoded:
                different.append((text, decoded, pipe.decode(ids)))
    return different[:3]


@pytest.fixture(scope="module", params=_folders(), ids=lambda p: f"{p.parent.parent.name}-{p.name}")
def both(request):
    with TokenizerPipe(request.param) as pipe:
        yield pipe, _reference(request.param)


def test_random_texts(both):
    pipe, reference = both
    tokens = sorted(t.content for t in reference.get_added_tokens_decoder().values())
    assert _differences(pipe, reference, nasty_texts(11, 1500, tokens)) == []


def test_characters(both):
    pipe, reference = both
    assert _differences(pipe, reference, list(_all_characters())[::3]) == []


def test_vocabulary(both):
    pipe, reference = both
    ids = sorted(reference.get_vocab().values())
    assert pipe.ids()[2] == ids[-1] + 1
    for token_id in ids[:: max(1, len(ids) // 2000)]:
        decoded = reference.decode([token_id], skip_special_tokens=False)
        assert pipe.decode([token_id]) == decoded, token_id
        pipe.piece(token_id)


@pytest.mark.parametrize(
    "name", ["moby-dick", "wikitext-2-test", "wikitext-2-valid", "state-of-the-union"]
)
def test_long_texts(both, name):
    pipe, reference = both
    path = SHARED / f"text/{name}.txt.gz"
    if not path.exists():
        pytest.skip("../shared/data/text is absent")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        text = file.read(400_000)
    # The peer is slow where a tokenizer has no pre-tokenizer and the text is one
    # word: most of the text in slices.
    slices = [text[i : i + 20_000] for i in range(0, len(text), 20_000)]
    assert _differences(pipe, reference, [text[:100_000], *slices]) == []


# Components one by one, over a vocabulary of bytes. A Metaspace at the end puts
# a mark before every word, so that the ids tell where the words were cut.
MARK = {
    "type": "Metaspace",
    "replacement": "▁",
    "prepend_scheme": "always",
    "split": False,
}


def _bytes_tokenizer(**parts):
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary["▁"] = 256
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": [],
    }
    whole = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    return {"version": "1.0", **whole, "added_tokens": [], "model": model, **parts}


def _compare(folder, whole, texts):
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    with TokenizerPipe(folder) as pipe:
        assert _differences(pipe, reference, texts) == []


def _split(regex, behavior="Isolated", invert=False):
    return {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": behavior,
        "invert": invert,
    }


def _all_characters():
    # Unicode 16 ends its letters before U+32400; then the tags and private use.
    codes = [c for c in range(0x32400) if not 0xD800 <= c <= 0xDFFF]
    codes += list(range(0xE0000, 0xE0200)) + list(range(0x10FF00, 0x110000))
    for i in range(0, len(codes), 128):
        characters = [chr(c) for c in codes[i : i + 128]]
        yield "a".join(characters)
        yield "".join(characters)


# Published pre-tokenizers, and what Oniguruma and PCRE2 read differently.
REGEXES = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    " ?[^(\\s|[.,!?…。，、।۔،])]+",
    r"[\p{Lu}\p{Lm}\p{M}&&[^\p{Han}]]+|\p{Han}+|[^\W_]+|[\W\d]+",
    r"\w+",
    r"[\w]+|\h",
    r"\b|\p{P}|\p{S}",
    r"^a?|a?$|\s+$",
    r"a(?i)b|C|é|ſ",
    r"a{2}+b|a{,2}|a{2}?",
    r"[]a-]+|[^a-z\s]|a*",
    r"\p{Hiragana}+|\p{Katakana}+|\p{Thai}+|\p{Greek}+|\p{Latin}+|\p{Hebrew}|\p{Hangul}",
]
SHORT = ["aab", "aaaab", "ab\n", "a\nb\na\n", "\n\n", "abC aBc ABC", "   ", "a  \n", "]a-"]


@pytest.mark.parametrize("regex", REGEXES)
def test_regexes(tmp_path, regex):
    whole = _bytes_tokenizer(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [_split(regex), MARK]}
    )
    _compare(tmp_path, whole, [*SHORT, *nasty_texts(5, 500), *_all_characters()])


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    "behavior",
    ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"],
)
def test_split_behaviors(tmp_path, behavior, invert):
    for regex in (r"\s|-|a", r"\p{L}*"):
        steps = [_split(regex, behavior, invert), MARK]
        whole = _bytes_tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
        _compare(tmp_path, whole, ["a--b", "--a", " a b  c ", *nasty_texts(6, 500)])


PRE_TOKENIZERS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "Digits", "individual_digits": False},
    {"type": "Whitespace"},
    {"type": "WhitespaceSplit"},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False},
    {**MARK, "prepend_scheme": "first", "split": True},
    {**MARK, "prepend_scheme": "always", "split": True},
    {**MARK, "prepend_scheme": "never", "split": True},
    {**_split("x"), "pattern": {"String": " "}, "behavior": "MergedWithPrevious"},
]


@pytest.mark.parametrize("step", PRE_TOKENIZERS, ids=lambda step: step["type"])
def test_pre_tokenizers(tmp_path, step):
    whole = _bytes_tokenizer(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [step, MARK]}
    )
    _compare(tmp_path, whole, [*SHORT, *nasty_texts(8, 500), *_all_characters()])


NORMALIZERS = [
    *({"type": form} for form in ("NFC", "NFD", "NFKC", "NFKD")),
    {"type": "Lowercase"},
    {"type": "StripAccents"},
    {"type": "ByteLevel"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Prepend", "prepend": "_x"},
    {"type": "Replace", "pattern": {"Regex": r"\s+|b*"}, "content": "_x"},
]


@pytest.mark.parametrize("step", NORMALIZERS, ids=lambda step: step["type"])
def test_normalizers(tmp_path, step):
    _compare(
        tmp_path,
        _bytes_tokenizer(normalizer=step),
        [*SHORT, *nasty_texts(9, 1000), *_combining_texts(2000), *_all_characters()],
    )


def _combining_texts(count):
    rng = random.Random(12)
    every = [chr(c) for c in range(0x20000) if not 0xD800 <= c <= 0xDFFF]
    marks = [c for c in every if unicodedata.category(c)[0] == "M"]
    composed = [c for c in every if unicodedata.decomposition(c)]
    hangul = [chr(c) for c in (*range(0x1100, 0x1200), *range(0xAC00, 0xAC80))]
    kinds = (marks, composed, hangul, list("abcxyz"))
    for _ in range(count):
        parts = [rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 12))]
        yield "".join(parts)


def test_metaspace_first_knows_the_start(tmp_path):
    first = {**MARK, "prepend_scheme": "first"}
    token = {
        "id": 257,
        "content": "<s>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    for normalizer in (None, {"type": "Strip", "strip_left": True, "strip_right": False}):
        whole = _bytes_tokenizer(
            normalizer=normalizer,
            added_tokens=[token],
            pre_tokenizer={"type": "Sequence", "pretokenizers": [_split("a"), first]},
        )
        texts = ["<s>b a", "b<s>b", " b", "  <s>a", "", "ab", *nasty_texts(10, 500, ["<s>"])]
        _compare(tmp_path, whole, texts)
