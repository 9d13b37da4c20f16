"""Trains the small tokenizers of this folder and writes their goldens.

    python tests/data/tokenizers/make_tokenizers.py

Each folder imitates the files of one family: the same components in the same
order, over a vocabulary of a few hundred tokens. goldens.json holds texts with
the ids and the decoded text that the `tokenizers` package gives. The files are
kept in the repository; run this only to change them, and with the version of
`tokenizers` that tests/requirements.txt names.
"""

import json
import pathlib
import sys

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "parity" / "tokenizer"))
from nasty_text import nasty_texts  # noqa: E402

TEXT = """
A tokenizer cuts a text into pieces, and every piece has a number. The pieces
that are seen often become long; the rare ones stay short. When the model reads
"the cat sat on the mat", it sees seven numbers, maybe eight, and nothing else.
Don't be surprised: it's the same with you're, they've, we'll, I'm and he'd.
In 1969, 12 people and 3 dogs walked 4,567.89 miles; 100% of them were tired.
def main(arguments):
    for index, value in enumerate(arguments):
        if value is None or value == "":
            return index + 1
    print(f"{index}: {value!r}", end="\\n\\n")
Der Fluß fließt über die große Brücke. Le garçon a mangé des crêpes à Noël.
El niño soñó con una cigüeña. Привет, мир! Это простой текст. Γειά σου, κόσμε.
你好，世界。今天天气很好。こんにちは、世界。テキストを分割します。 안녕하세요 세계.
مرحبا بالعالم. שלום עולם. नमस्ते दुनिया। สวัสดีชาวโลก
The river, the bridge, the boy, the text and the world: these are the words
that this text repeats, so that these words, and the spaces before them, merge.
"""

GPT4_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(tokenizer, size, special, alphabet=(), bytes_too=False):
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special + ([f"<0x{b:02X}>" for b in range(256)] if bytes_too else []),
        initial_alphabet=list(alphabet),
        limit_alphabet=320,
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return json.loads(tokenizer.to_str())


def byte_level_base(pre_tokenizer, size, special, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    return trained(
        tokenizer, size, special, sorted(pre_tokenizers.ByteLevel.alphabet())
    )


def with_tokens(base, *tokens):
    tokenizer = Tokenizer.from_str(json.dumps(base))
    for token in tokens:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return json.loads(tokenizer.to_str())


def gpt2():
    return byte_level_base(
        pre_tokenizers.ByteLevel(add_prefix_space=False), 700, ["<|endoftext|>"]
    ), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def neox():
    base = byte_level_base(
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        600,
        ["<|endoftext|>", "<|padding|>"],
        normalizers.NFC(),
    )
    runs = [AddedToken(" " * n, normalized=True) for n in range(8, 1, -1)]
    return with_tokens(base, *runs), {
        "eos_token": {"__type": "AddedToken", "content": "<|endoftext|>"}
    }


def llama3():
    base = byte_level_base(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(GPT4_SPLIT % "1,3"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        700,
        [],
    )
    base["model"]["ignore_merges"] = True
    base = with_tokens(
        base,
        AddedToken("<|begin_of_text|>", special=True),
        AddedToken("<|end_of_text|>", special=True),
    )
    tokenizer = Tokenizer.from_str(json.dumps(base))
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", bos)],
            ),
        ]
    )
    return json.loads(tokenizer.to_str()), None


def qwen2():
    base = byte_level_base(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(GPT4_SPLIT.replace("{%s}", "")), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        600,
        [],
        normalizers.NFC(),
    )
    return with_tokens(
        base,
        AddedToken("<|endoftext|>", special=True),
        AddedToken("<|im_start|>", special=True),
        AddedToken("<tool_call>", normalized=False),
    ), {"bos_token": None, "eos_token": "<|endoftext|>"}


def smollm2():
    base = byte_level_base(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
        600,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    return base, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def sentencepiece_base(size, normalizer, pre_tokenizer, decoder):
    """Trained like SentencePiece: spaces are U+2581 and start a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    base = trained(tokenizer, size, ["<unk>", "<s>", "</s>"], bytes_too=True)
    base["model"]["byte_fallback"] = True
    base["added_tokens"] = base["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(base))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    base = json.loads(tokenizer.to_str())
    base["pre_tokenizer"] = pre_tokenizer
    tokenizer = Tokenizer.from_str(json.dumps(base))
    tokenizer.decoder = decoder
    return json.loads(tokenizer.to_str())


def llama2():
    base = sentencepiece_base(
        900,
        normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        ),
        None,
        decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    )
    # Old files give their merges as strings.
    base["model"]["merges"] = [" ".join(pair) for pair in base["model"]["merges"]]
    return base, {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}}


def gemma():
    base = sentencepiece_base(
        900,
        normalizers.Replace(" ", "▁"),
        {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        ),
    )
    extra = [AddedToken("\n" * n, normalized=False) for n in (2, 3, 4)]
    extra += [AddedToken("▁" * n, normalized=False) for n in (2, 3)]
    return with_tokens(base, *extra), {"bos_token": "<s>", "eos_token": "</s>"}


def mistral():
    return sentencepiece_base(
        900,
        None,
        {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        },
        decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    ), {"bos_token": "<s>", "eos_token": "</s>"}


def odd():
    """Components that no family above uses, and added tokens of every kind."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.Digits(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    base = trained(tokenizer, 500, ["[UNK]"])
    return with_tokens(
        base,
        AddedToken("[CLS]", special=True),
        AddedToken("[LEFT]", special=True, lstrip=True),
        AddedToken("[RIGHT]", special=True, rstrip=True),
        AddedToken("[MASK]", special=True, lstrip=True, rstrip=True),
        AddedToken("River", single_word=True),
        AddedToken("ÉTÉ", normalized=True),
        AddedToken("world", normalized=False, single_word=True),
    ), {}


def write(folder, base, config):
    folder.mkdir(exist_ok=True)
    with open(folder / "tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(base, file, ensure_ascii=False, separators=(",", ":"))
    if config is not None:
        with open(folder / "tokenizer_config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    texts = ["", " ", "Hello world", " the river", "the text\n\n  and the world"]
    goldens = []
    for text in texts + TEXT.split("\n") + list(nasty_texts(7, 120, sorted(tokens))):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        goldens.append({"text": text, "ids": ids, "decoded": decoded})
    with open(folder / "goldens.json", "w", encoding="utf-8") as file:
        json.dump(goldens, file, separators=(",", ":"))


def write_gpt2_files(base):
    """GPT-2's own two files, whose special token only their reader knows."""
    folder = HERE / "gpt2_files"
    write(folder, base, None)
    (folder / "tokenizer.json").unlink()
    with open(folder / "vocab.json", "w", encoding="utf-8") as file:
        json.dump(base["model"]["vocab"], file, separators=(",", ":"))
    with open(folder / "merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n")
        for left, right in base["model"]["merges"]:
            file.write(f"{left} {right}\n")


def main():
    for make in (gpt2, neox, llama3, qwen2, smollm2, llama2, gemma, mistral, odd):
        base, config = make()
        write(HERE / make.__name__, base, config)
    write_gpt2_files(gpt2()[0])


if __name__ == "__main__":
    main()
