"""tokenizer.json and tokenizer_config.json from a GGUF's metadata."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

# tokenizer.ggml.token_type
_CONTROL, _USER_DEFINED = 3, 4

_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def _split_then_bytes(pattern: str) -> Dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "type": "Sequence",
        "pretokenizers": [split, {**_BYTE_LEVEL, "use_regex": False}],
    }


# tokenizer.ggml.pre names how text is split before merging.
_SPLITS: Dict[str, Dict[str, Any]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            _BYTE_LEVEL,
        ],
    },
    "gpt-2": _BYTE_LEVEL,
    # The pattern of Llama 3's tokenizer.json.
    "llama-bpe": _split_then_bytes(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def tokenizer_files(
    fields: Dict[str, Any],
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The contents of tokenizer.json and tokenizer_config.json.

    Raises ValueError for a tokenizer that is not byte-level BPE with a known
    way of splitting text.
    """
    kind = fields.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ValueError(
            f"the tokenizer is of kind {kind!r}; only byte-level BPE ('gpt2') "
            "can be imported"
        )
    split = fields.get("tokenizer.ggml.pre", "gpt-2")
    if split not in _SPLITS:
        raise ValueError(
            f"the tokenizer splits text as {split!r}; known are "
            + ", ".join(sorted(_SPLITS))
        )
    tokens: List[str] = fields.get("tokenizer.ggml.tokens", [])
    merges: List[str] = fields.get("tokenizer.ggml.merges", [])
    types: List[int] = fields.get("tokenizer.ggml.token_type", [])
    if not tokens or not merges or len(types) != len(tokens):
        raise ValueError("the file lacks its tokens, their types or its merges")

    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for index, (token, kind) in enumerate(zip(tokens, types))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    special = _special_tokens(fields, tokens)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _SPLITS[split],
        "post_processor": _prepend_bos(fields, special),
        "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Llama 3's vocabulary holds words that its merges do not reach.
            "ignore_merges": split == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    config: Dict[str, Any] = {
        # Takes tokenizer.json as it is; a model's own class would rebuild it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields.get("llama.context_length"),
        **special,
    }
    if fields.get("tokenizer.ggml.add_bos_token"):
        config["add_bos_token"] = True
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    return tokenizer, config


def _special_tokens(
    fields: Dict[str, Any], tokens: List[str]
) -> Dict[str, str]:
    special = {}
    for role, key in (
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise ValueError(f"{role} is {index}, of {len(tokens)} tokens")
        special[role] = tokens[index]
    return special


def _prepend_bos(fields: Dict[str, Any], special: Dict[str, str]) -> Any:
    """The post-processor: none, or one that puts BOS first if the file says."""
    if not fields.get("tokenizer.ggml.add_bos_token"):
        return None
    if "bos_token" not in special:
        raise ValueError("add_bos_token is set, but there is no BOS token")
    bos = special["bos_token"]
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    texts = [
        {"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")
    ]
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": [
            first,
            texts[0],
            {"SpecialToken": {"id": bos, "type_id": 1}},
            texts[1],
        ],
        "special_tokens": {
            bos: {
                "id": bos,
                "ids": [fields["tokenizer.ggml.bos_token_id"]],
                "tokens": [bos],
            }
        },
    }
