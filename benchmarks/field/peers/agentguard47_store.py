"""agentguard47 with a state store, where sync calls reserve before they are sent; the rest as in `agentguard47`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agentguard import BudgetGuard, JsonFileStateStore
from agentguard._reservation_contract import MissingBound
from scenarios import Guard, Place, module


def guard_of(cap: float) -> BudgetGuard:
    return BudgetGuard(max_cost_usd=cap, store=JsonFileStateStore(Path("budget.json")), key="field")


_plain = module("agentguard47")
_plain.guard_of = guard_of
STOPS = (*_plain.STOPS, MissingBound)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    with _plain.opened(cap, place) as guard:
        yield replace(guard, holds_in="threads")
