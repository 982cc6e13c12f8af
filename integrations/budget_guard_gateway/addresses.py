"""The addresses of operations of our own: which operation a request means, and the names in its path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar
from urllib.parse import unquote

from budget_guard.protocol import problem
from budget_guard.units.printable import printable
from budget_guard_gateway.messages import Refused

DESCRIPTION = "/budget/openapi.json"
"""Where each port describes its own."""


class Addressed(Protocol):
    """An operation of ours: a method and a path."""

    @property
    def method(self) -> str:
        """The method that it is asked for with."""
        ...

    @property
    def path(self) -> str:
        """Its path; a part in braces is a name, and stands for any."""
        ...


Meant = TypeVar("Meant", bound=Addressed)


def operation_at(operations: Iterable[Meant], method: str, path: str) -> tuple[Meant, dict[str, str]]:
    """The one of *operations* that a request means, and the names in its path.

    Raises:
        Refused: If there is none.
    """
    segments = [unquote(segment) for segment in path.split("/")]
    others: list[str] = []
    for operation in operations:
        names = _named(operation.path.split("/"), segments)
        if names is None:
            continue
        if operation.method == method:
            return operation, names
        others.append(operation.method)
    if others:
        words = f"{printable(method)} is not for this address, but {', '.join(others)}."
        raise Refused(problem("method_not_allowed", words), [("Allow", ", ".join(others))])
    raise Refused(problem("not_found", f"There is nothing here. {DESCRIPTION} describes what there is."))


def _named(pattern: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    """The names that *segments* give to *pattern*; None where they do not fit."""
    if len(pattern) != len(segments):
        return None
    names: dict[str, str] = {}
    for each, segment in zip(pattern, segments, strict=True):
        if each.startswith("{"):
            names[each[1:-1]] = segment
        elif each != segment:
            return None
    return names
