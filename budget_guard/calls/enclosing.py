"""The open holds that the running task or thread is inside of: of its own streams and tools, and of child sessions.

A call that waits for room must not wait for one of these: it is given back only after the call is over. They are kept
in a context variable, so tasks, and threads that copy the context, inherit those of whom started them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TypeAlias

from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope


class OpenHold:
    """What others cannot spend until it is settled."""

    __slots__ = ("__weakref__", "amounts", "settled")

    amounts: Amounts
    """What is held."""
    settled: bool
    """Whether it was committed or released."""

    @property
    def scopes(self) -> Sequence[Scope]:
        """Where it is held."""
        raise NotImplementedError  # a reservation says it

    @property
    def outer(self) -> Sequence[OpenHold]:
        """The holds that its session as such is inside of: a child session of its hold on the parent's money."""
        return ()

    @property
    def is_call(self) -> bool:
        """Whether it is the hold of a call, and not one of a whole session."""
        return True


_Link: TypeAlias = "tuple[weakref.ref[OpenHold], _Link | None, int, int]"
"""A hold, the one before it, how many there are, and at how many to look for settled ones again."""

_FEW = 64
"""So many links are not looked through."""

_ref = weakref.ref
_inside: ContextVar[_Link | None] = ContextVar("budget_guard_inside", default=None)


def enter(hold: OpenHold) -> None:
    """Note that the running task is inside *hold* until that is settled."""
    link = _inside.get()
    while link is not None:  # calls mostly end in the reverse order
        last = link[0]()
        if last is None or last.settled:
            link = link[1]
            continue
        _, _, depth, most = link
        if depth >= most:
            link = _without_settled(link)
            depth = 0 if link is None else link[2]
            most = max(_FEW, 2 * depth)
        _inside.set((_ref(hold), link, depth + 1, most))
        return
    _inside.set((_ref(hold), None, 1, _FEW))


def _without_settled(link: _Link) -> _Link | None:
    kept: _Link | None = None
    for hold in reversed(_open(link)):
        kept = (weakref.ref(hold), kept, 1 if kept is None else kept[2] + 1, _FEW)
    return kept


def _open(link: _Link | None) -> list[OpenHold]:
    found: list[OpenHold] = []
    while link is not None:
        hold = link[0]()
        if hold is not None and not hold.settled:
            found.append(hold)
        link = link[1]
    return found


def holds_around(of_session: Iterable[OpenHold]) -> list[OpenHold]:
    """Every open hold that a call made here and now is inside of.

    Args:
        of_session: Those that its session is inside of.
    """
    found: dict[int, OpenHold] = {}
    for hold in _open(_inside.get()):
        found[id(hold)] = hold
        found.update((id(each), each) for each in hold.outer if not each.settled)
    found.update((id(each), each) for each in of_session if not each.settled)
    return list(found.values())


def total_in(scope: Scope, holds: Iterable[OpenHold]) -> Amounts:
    """What *holds* hold in *scope* together."""
    total = NOTHING
    for hold in holds:
        if scope in hold.scopes:
            total = total.plus(hold.amounts)
    return total
