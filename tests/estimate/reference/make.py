"""Make ``counts.txt.gz``: how many tokens OpenAI's own tokenizer makes of each of the texts.

Needs ``tiktoken`` and its two vocabularies, which it downloads, or finds in ``$TIKTOKEN_CACHE_DIR``. Run it from the
root of the checkout: ``python -m tests.estimate.reference.make``.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from tests.estimate.reference.texts import ENCODINGS, texts

FILE = Path(__file__).with_name("counts.txt.gz")


def main() -> None:
    """Write the file: the hash of all texts, then a line with the count of each."""
    import tiktoken

    encoders = [tiktoken.get_encoding(name) for name in ENCODINGS]
    digest = hashlib.sha256()
    counts: list[int] = []
    for number, text in enumerate(texts()):
        digest.update(text.encode() + b"\0")
        counts.append(len(encoders[number % len(encoders)].encode_ordinary(text)))
    lines = "\n".join([digest.hexdigest(), *map(str, counts)])
    FILE.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
