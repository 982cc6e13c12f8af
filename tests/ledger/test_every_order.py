"""Every order in which three calls can reach the ledger, tried out to the end.

Small enough to be exhaustive: whatever state the naive ledger can get into, the real one gets into the same way, and
every further verb does the same in both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from budget_guard.ledger import Held, MemoryLedger
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import cost
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.ledger.machine import outcome
from tests.ledger.naive import NaiveLedger, Record

A, B = Scope("run", "a"), Scope("user", "b")
LIMITS = {A: Limits(cost=3), B: Limits(cost=2)}
CALLS: list[tuple[str, tuple[Scope, ...], Amounts, bool, tuple[int, ...]]] = [
    (hold_id(1, "x"), (A, B), cost(2), True, (0, 3)),
    (hold_id(1, "y"), (A,), cost(1), False, (2,)),
    (hold_id(1, "z"), (B, A), cost(1), True, (1,)),
]
"""An id, its scopes, what it holds, whether it is suspended when it expires, and what it may really cost."""
TTL_S = 10

Verb = tuple[str, int, int]
"""What is done, by which call, and what it costs."""
VERBS: list[Verb] = [
    ("time is up", 0, 0),
    *((name, 0, 0) for name in ("reserve", "forward", "estimate", "release")),
    *((name, 1, 0) for name in ("reserve", "forward", "release")),
    ("reserve", 2, 0),
    *(("commit", i, actual) for i, call in enumerate(CALLS) for actual in call[4]),
]


def perform(ledger: MemoryLedger | NaiveLedger, clock: FakeClock, verb: Verb) -> Any:
    """Perform *verb*; return what both ledgers must answer alike."""
    name, number, actual = verb
    made, scopes, held, suspend, _ = CALLS[number]
    if name == "time is up":
        clock.advance(TTL_S)
        return ledger.sweep()
    if name == "reserve":
        answer = outcome(lambda: ledger.reserve(made, scopes, held, held, TTL_S, suspend))
        return answer if answer == "conflict" else answer == "held" or isinstance(answer, Held)
    if name == "forward":
        return outcome(lambda: ledger.forward(made))
    if name == "release":
        return outcome(lambda: ledger.release(made, scopes))
    estimate = name == "estimate"
    answer = outcome(lambda: ledger.commit(made, scopes, held if estimate else cost(actual), estimate))
    if isinstance(answer, Record):
        return answer.charged, not answer.certain
    return answer if answer == "conflict" else (answer.charged, answer.uncertain)


def replayed(path: tuple[Verb, ...]) -> tuple[MemoryLedger, FakeClock]:
    """The real ledger after *path*."""
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    for scope, limits in LIMITS.items():
        ledger.set_limits(scope, limits)
    for verb in path:
        perform(ledger, clock, verb)
    return ledger, clock


def copied(records: dict[str, Record], seconds: float) -> tuple[NaiveLedger, FakeClock]:
    """A naive ledger with *records*, *seconds* after the beginning."""
    clock = FakeClock()
    clock.advance(seconds)
    ledger = NaiveLedger(clock)
    for scope, limits in LIMITS.items():
        ledger.set_limits(scope, limits)
    ledger.records = {made: replace(record) for made, record in records.items()}
    return ledger, clock


def state(records: dict[str, Record]) -> tuple[Any, ...]:
    """All that later verbs can depend on."""
    found = (records.get(call[0]) for call in CALLS)
    return tuple(each and (each.verb, each.state, each.charged, each.certain) for each in found)


def test_every_order_of_three_calls_does_as_the_naive_ledger_does() -> None:
    seen = {state({})}
    todo: deque[tuple[dict[str, Record], float, tuple[Verb, ...]]] = deque([({}, 0, ())])
    while todo:
        records, seconds, path = todo.popleft()
        for verb in VERBS:
            (real, real_clock), (naive, naive_clock) = replayed(path), copied(records, seconds)
            steps = (*path, verb)
            assert perform(real, real_clock, verb) == perform(naive, naive_clock, verb), steps
            for balance in real.balances(tuple(LIMITS)):
                counted = (balance.committed, balance.reserved, balance.open_holds)
                scope = balance.scope
                assert counted == (naive.committed(scope), naive.reserved(scope), naive.open_holds(scope)), steps
            assert (real.audit(), len(real.suspended())) == ([], len(naive.suspended())), steps
            after = state(naive.records)
            if after not in seen:
                seen.add(after)
                todo.append((naive.records, naive_clock.monotonic(), steps))
    assert len(seen) > 300
