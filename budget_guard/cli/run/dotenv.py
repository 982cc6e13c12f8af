"""The keys in ``.env`` files that a program may load by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NAMES = (".env", ".env.local")
_LINE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"""
    r"""(?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<plain>[^\r\n#'"][^\r\n#]*)?)""",
    re.MULTILINE,
)
_LONGEST = 1_000_000


class Setting(NamedTuple):
    """The value of a variable in a file."""

    value: str
    file: Path


def settings_near(command: Sequence[str], folder: Path) -> dict[str, Setting]:
    """The settings in the files that a program would find: from *folder* upwards, and from its script's folder.

    Args:
        command: What is started.
        folder: The working directory.
    """
    found: dict[str, Setting] = {}
    for file in _files(command, folder):
        with suppress(OSError):
            for name, value in settings_in(file.read_bytes()[:_LONGEST].decode("utf-8", "replace")):
                found.setdefault(name, Setting(value, file))
    return found


def settings_in(text: str) -> Iterator[tuple[str, str]]:
    """The settings in the text of a file; the last one of a name counts, so it comes first."""
    for match in reversed(list(_LINE.finditer(text))):
        value = next((part for part in match.group("single", "double", "plain") if part is not None), "").strip()
        if value:
            yield match["name"], value


def _files(command: Sequence[str], folder: Path) -> Iterator[Path]:
    starts = [folder]
    with suppress(OSError):
        starts += [path.resolve().parent for word in command if (path := folder / word).is_file()][:2]
    seen: set[Path] = set()
    for start in starts:
        for name in _NAMES:
            for each in (start, *start.parents):
                file = each / name
                with suppress(OSError):
                    if file.is_file():
                        if file not in seen:
                            seen.add(file)
                            yield file
                        break
