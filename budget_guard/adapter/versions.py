"""The oldest version of a framework that its adapter works with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def require(distribution: str, floor: str) -> None:
    """Refuse a version of *distribution* that is older than *floor*. One that is not known passes.

    Args:
        distribution: The name on the package index.
        floor: The oldest version, for example ``"2.64"``.

    Raises:
        ImportError: If it is older. The message has the line that installs a later one.
    """
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return
    if _numbers(found) < _numbers(floor):
        raise ImportError(
            f"{distribution} {found} is older than this adapter works with: "
            f'pip install --upgrade "{distribution}>={floor}"'
        )


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in release[1].split(".")) if release else ()
