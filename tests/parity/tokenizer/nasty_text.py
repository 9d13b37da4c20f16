"""Seeded random texts that tokenizers tend to disagree on."""

import random

_WORDS = (
    "the quick brown Fox jumps over lazy dogs don't I'LL we've they'RE it's "
    "naïve café Straße İstanbul ﬁne ŉ ſharp K 12345 3.14 0x1F 1st ½ ² Ⅷ "
    "https://example.org/?q=1&r=%20 foo_bar __init__ snake_case camelCase "
    "привет мир γειά σου שלום مرحبا ١٢٣ नमस्ते क्षेत्र ที่นี่ สวัสดี 你好世界 "
    "日本語テキスト 한국어 텍스트 ཨོཾ ไม่ đường Ångström Å é é n̈ "
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 ☺️ ✅ ᾳ ǆ ㎏ ﷺ ½ … — “quoted” ‘s ’s 'S 'd 'm "
).split(" ")
_SPACES = [
    " ", "  ", "   ", " " * 17, "\n", "\n\n", "\r\n", "\r", "\t", "\t\t ",
    " \n ", "\u00a0", "\u2003", "\u2028", "\u3000", "\u200b", "\u180e",
    "\x85", "\x0b", "\x0c", "\x1c", "\u202f", "\ufeff",
]  # fmt: skip
_MARKS = "\u0300\u0301\u0323\u0327\u0338\u05b0\u0651\u093c\u0e34\u20dd\u3099"
_CONTROLS = "\x00\x01\x08\x1b\x7f\x80\x9f\u00ad\u200d\u200e\ufe0f\ufffd\uffff"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»؟।、。！「」‽⁇"


def _character(rng):
    # Every plane, the first two far more often; never a surrogate.
    plane = rng.choice((0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 14, 15, 16, rng.randrange(17)))
    while True:
        code = plane * 0x10000 + rng.randrange(0x10000)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def _token_part(rng, tokens):
    token = rng.choice(tokens)
    cut = rng.randrange(len(token) + 1)
    return rng.choice((token, token, token[:cut], token[cut:], token.upper()))


def _part(rng, tokens):
    kind = rng.randrange(12)
    if kind < 4:
        return rng.choice(_WORDS)
    if kind < 6:
        return rng.choice(_SPACES)
    if kind == 6:
        return rng.choice(_PUNCTUATION) * rng.choice((1, 1, 2, 5))
    if kind == 7:
        return "".join(rng.choice(_MARKS) for _ in range(rng.randint(1, 4)))
    if kind == 8:
        return rng.choice(_CONTROLS)
    if kind == 9 and tokens:
        return _token_part(rng, tokens)
    if kind == 10:
        return str(rng.randrange(10 ** rng.randint(1, 12)))
    return "".join(_character(rng) for _ in range(rng.randint(1, 3)))


def nasty_texts(seed, count, tokens=()):
    """`count` texts; `tokens` are added tokens to mix in, whole and broken."""
    rng = random.Random(seed)
    tokens = list(tokens)
    for _ in range(count):
        separator = rng.choice(("", "", " "))
        parts = [_part(rng, tokens) for _ in range(rng.randint(1, 14))]
        yield separator.join(parts)
