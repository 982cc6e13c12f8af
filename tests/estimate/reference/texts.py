"""50,000 texts of every kind that a tokenizer may stumble over, the same ones each time they are made."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator

MANY = 50_000
ENCODINGS = ("o200k_base", "cl100k_base")
"""Each text is counted in one of them, in turn."""

_WORDS = (
    "the of and to in is you that it he was for on are as with his they I at be this have from or one had by word "
    "Budget guard tokens reservation ceiling overspend agent retry streaming asyncio don't we'll they're I'd"
).split()
_SCRIPTS = (
    (0x20, 0x7E),  # ASCII
    (0xA0, 0x24F),  # Latin
    (0x370, 0x3FF),  # Greek
    (0x400, 0x4FF),  # Cyrillic
    (0x590, 0x5FF),  # Hebrew
    (0x600, 0x6FF),  # Arabic
    (0x900, 0x97F),  # Devanagari
    (0xE00, 0xE7F),  # Thai
    (0xB80, 0xBFF),  # Tamil
    (0x3040, 0x30FF),  # Kana
    (0x4E00, 0x9FFF),  # Han
    (0xAC00, 0xD7A3),  # Hangul
    (0x1100, 0x11FF),  # Jamo
    (0xFB00, 0xFDFF),  # ligatures and presentation forms
    (0x1D400, 0x1D7FF),  # mathematical letters
    (0x20000, 0x2A6DF),  # rare Han
    (0xE000, 0xF8FF),  # private use
)
_EMOJI = "😀😂🥹👍🏽👩‍👩‍👧‍👦🇩🇪🏴‍☠️❤️‍🔥🧑🏿‍🚀✨🫠"
_MARKS = "\u0300\u0301\u0323\u200d\u200b\ufeff\ufe0f\u202e\u00ad"
_SPACES = " \t\n\r\u00a0\u2003\u3000\u2028"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|fim_prefix|>", "<|endofprompt|>", "\x00", "\x1f", "\\n", "'s", "'LL")


def texts() -> Iterator[str]:
    """The texts, in order."""
    dice = random.Random(20_261_129)
    kinds = (_prose, _scripts, _mixed, _emoji, _base64, _json, _code, _numbers, _spaces, _repeated, _any, _special)
    for number in range(MANY):
        yield kinds[number % len(kinds)](dice)


def _length(dice: random.Random) -> int:
    return int(2 ** (dice.random() * 8))


def _prose(dice: random.Random) -> str:
    return " ".join(dice.choice(_WORDS) for _ in range(_length(dice)))


def _of(dice: random.Random, first: int, last: int) -> str:
    return chr(first + int(dice.random() * (last - first + 1)))


def _scripts(dice: random.Random) -> str:
    script = dice.choice(_SCRIPTS)
    return "".join(_of(dice, *script) if dice.random() < 0.9 else " " for _ in range(_length(dice)))


def _mixed(dice: random.Random) -> str:
    return "".join(_of(dice, *dice.choice(_SCRIPTS)) for _ in range(_length(dice)))


def _emoji(dice: random.Random) -> str:
    return "".join(dice.choice(_EMOJI) for _ in range(_length(dice)))


def _base64(dice: random.Random) -> str:
    return base64.b64encode(bytes(int(dice.random() * 256) for _ in range(_length(dice)))).decode()


def _json(dice: random.Random) -> str:
    fields = {dice.choice(_WORDS): [dice.random(), _mixed(dice)[:9], None, True] for _ in range(_length(dice) % 20)}
    return json.dumps(fields, ensure_ascii=dice.random() < 0.5, indent=dice.choice([None, 2, 4]))


def _code(dice: random.Random) -> str:
    lines = [
        f"{'    ' * int(dice.random() * 5)}{dice.choice(_WORDS)}_{dice.choice(_WORDS)}"
        f"({dice.choice(_WORDS)}={int(dice.random() * 1e6)}){dice.choice(['', ';', ' {', ':  # ' + _prose(dice)[:20]])}"
        for _ in range(_length(dice) % 30)
    ]
    return "\n".join(lines)


def _numbers(dice: random.Random) -> str:
    return dice.choice([",", " ", ""]).join(str(int(dice.random() * 10 ** (dice.random() * 12))) for _ in range(20))


def _spaces(dice: random.Random) -> str:
    return "".join(dice.choice(_SPACES) for _ in range(_length(dice)))


def _repeated(dice: random.Random) -> str:
    return _of(dice, *dice.choice(_SCRIPTS)) * _length(dice) * 2


def _any(dice: random.Random) -> str:
    pieces = (_of(dice, 0, 0xD7FF), _of(dice, 0xE000, 0x10FFFF), dice.choice(_MARKS))
    return "".join(dice.choice(pieces) if dice.random() < 0.5 else _of(dice, 0, 0x7F) for _ in range(_length(dice)))


def _special(dice: random.Random) -> str:
    return "".join(dice.choice([*_SPECIAL, " ", dice.choice(_WORDS)]) for _ in range(_length(dice) % 40))
