"""The versions of a framework that its adapter works with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def require(distribution: str, floor: str, *, below: str | None = None) -> None:
    """Refuse a version of *distribution* that its adapter does not work with. One that is not known passes.

    Args:
        distribution: The name on the package index.
        floor: The oldest version, for example ``"2.64"``.
        below: The first version that is too new, where one is known to be: of a framework whose inside changes, what
            was not tried is refused.

    Raises:
        ImportError: If it is older, or too new. The message has the line that installs another one.
    """
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return
    wanted = f"{distribution}>={floor}" + (f",<{below}" if below is not None else "")
    if _numbers(found) < _numbers(floor):
        raise ImportError(
            f'{distribution} {found} is older than this adapter works with: pip install --upgrade "{wanted}"'
        )
    if below is not None and _numbers(found) >= _numbers(below):
        raise ImportError(
            f"{distribution} {found} is newer than this adapter was tried with, which leans on its inside: "
            f'pip install "{wanted}", or a newer budget-guard-py'
        )


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in release[1].split(".")) if release else ()
