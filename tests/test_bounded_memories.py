"""Whatever is remembered has an end: what comes from outside has none."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from budget_guard import Budget, LoopPolicy, MemoryLedger, Prompt, Scope, ToolCall, weigh
from budget_guard.calls.loops import LoopDetector
from budget_guard.estimate import prompt, tokens
from budget_guard.estimate.calibration import Calibration
from budget_guard.events.model import CallAdmitted
from budget_guard.events.sinks.metering import HeldNow, Names
from budget_guard.ledger.base import Held
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.ledger.sqlite.usage import KnownRows
from budget_guard.pricing.table import PriceTable
from budget_guard.session.answers import KnownAnswers
from budget_guard.session.run_records import RunRecords
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from tests.builders import call, session

MOST = 4
FED = 14
"""So many different things come from outside."""


class Memory(NamedTuple):
    """Something that remembers."""

    feed: Callable[[int], object]
    """Have it remember the thing of that number."""
    inside: Callable[[], Any]
    """The container in which it remembers."""
    has: Callable[[int], bool]
    """Whether it remembers the thing of that number."""


def labels() -> Memory:
    run = session()._run
    return Memory(lambda n: run.labels_of(f"m{n}", None, True), lambda: run.labels, lambda n: _any(run.labels, f"m{n}"))


def served() -> Memory:
    run = session(Budget("$900"))
    ladder: Any = run._run.planner.ladder

    def feed(n: int) -> None:
        named = f"named-{n}"
        run._run.planner.ladder.prices._overlays[named] = ladder.prices._overlays["small"]  # type: ignore[index]
        asked = call(named)
        assert ladder.note_served(asked, ladder.asked(run.budget, asked, {}), "large", None, None)

    return Memory(feed, lambda: ladder._served, lambda n: f"named-{n}" in ladder._served)


def plans() -> Memory:
    run = session(Budget("$900"))
    planner: Any = run._run.planner
    return Memory(
        lambda n: planner.ample(run.budget, call("large", cap=n + 1), 0.0),
        lambda: planner._ample,
        lambda n: call("large", cap=n + 1).kind in planner._ample,
    )


def counts() -> Memory:
    found = tokens.counts_of("made-up")
    found.clear()
    return Memory(lambda n: tokens.count("made-up", f"text {n}", n), lambda: found, lambda n: found.get(n) == 2)


def weights() -> Memory:
    prompt._weights.clear()
    made: dict[int, Any] = {}

    def feed(n: int) -> None:
        before = set(prompt._weights)
        weigh(messages=[{"role": "user", "content": f"é{n}"}])
        made[n] = next(iter(set(prompt._weights) - before), made.get(n))

    return Memory(feed, lambda: prompt._weights, lambda n: made[n] in prompt._weights)


def held_now() -> Memory:
    held = HeldNow()

    def feed(n: int) -> None:
        held.note(CallAdmitted(0.0, f"d{n}", "model", "m", 10))
        assert held.total == 10 * len(held._held)

    return Memory(feed, lambda: held._held, lambda n: f"d{n}" in held._held)


def trails() -> Memory:
    detector = LoopDetector(LoopPolicy())
    return Memory(
        lambda n: detector.ask(f"r{n}", "search", b"", 0.0),
        lambda: detector._trails,
        lambda n: f"r{n}" in detector._trails,
    )


def leased_holds() -> Memory:
    clock = FakeClock()
    ledger = LeasedLedger(MemoryLedger(clock=clock), clock=clock)
    scopes = (Scope("run", "r"),)
    ledger.set_limits(scopes[0], Limits(cost=1_000))
    one = Amounts(cost=1)
    return Memory(
        lambda n: ledger.reserve(hold_id(1, f"h{n}"), scopes, one, one),
        lambda: ledger._pool._lease_of,
        lambda n: ledger._pool.lease_of(hold_id(1, f"h{n}")) is not None,
    )


def rows() -> Memory:
    known = KnownRows()
    return Memory(lambda n: known.note(n, 1, set()), lambda: known._of, lambda n: known.of(n, 1) is not None)


def texts() -> Memory:
    ledger = MemoryLedger(clock=FakeClock())
    return Memory(
        lambda n: ledger.swap(f"n{n}", None, "x", 60), lambda: ledger._texts, lambda n: f"n{n}" in ledger._texts
    )


def answers() -> Memory:
    known = KnownAnswers()
    return Memory(lambda n: known.add(f"a{n}"), lambda: known._ids, lambda n: f"a{n}" in known._ids)


class Answer:
    """An answer that has no id."""


def objects() -> Memory:
    known, made = KnownAnswers(), [Answer() for _ in range(FED)]
    return Memory(lambda n: known.add_object(made[n]), lambda: known._objects, lambda n: id(made[n]) in known._objects)


def runs() -> Memory:
    ended: list[Any] = []

    class Store:
        def add(self, record: Any) -> None:
            ended.append(record)

    records, begun = RunRecords(Store(), session()._run), dict[int, Any]()

    def feed(n: int) -> None:
        begun[n] = records.begin()
        assert [each.outcome for each in ended] == ["abandoned"] * max(0, n + 1 - MOST)

    return Memory(feed, lambda: records._open, lambda n: begun[n] in records._open)


def prices(dearest: bool) -> Memory:
    table = PriceTable.bundled().overlaid({"m": (1e-6, 1e-6)})
    days = [datetime.datetime(2026, 1, 1 + n, tzinfo=datetime.timezone.utc) for n in range(FED)]

    def feed(n: int) -> None:
        if dearest:
            table.find_dearest(("m", "m"), at=days[n])
        else:
            table.find("m", at=days[n])

    return Memory(feed, lambda: table._found, lambda n: _any(table._found, days[n].toordinal()))


MEMORIES: dict[str, tuple[str, Callable[[], Memory], bool]] = {
    # what it is: the constant that says how much is remembered, and whether the latest ones alone are forgotten last
    "labels": ("calls.run._MOST_LABELS", labels, False),
    "models that serve others": ("calls.ladder._MOST_SERVED", served, False),
    "plans": ("calls.planner._MOST_PLANS", plans, False),
    "counts of tokens": ("estimate.tokens._MOST_COUNTS", counts, False),
    "weights": ("estimate.prompt._MOST_WEIGHED", weights, False),
    "what is held now": ("events.sinks.metering._MOST_HELD", held_now, True),
    "trails of runs": ("calls.loops._MOST_RUNS", trails, True),
    "holds of leases": ("ledger.leased.pool._MOST_KNOWN", leased_holds, True),
    "rows of a file": ("ledger.sqlite.usage._MOST_KNOWN", rows, False),
    "texts": ("ledger.memory._MOST_TEXTS", texts, True),
    "answers": ("session.answers._KEPT", answers, True),
    "answers without an id": ("session.answers._KEPT", objects, True),
    "runs under way": ("session.run_records._MOST_RUNS", runs, True),
    "prices": ("pricing.table._CACHED_PRICES", lambda: prices(dearest=False), False),
    "prices of several": ("pricing.table._CACHED_PRICES", lambda: prices(dearest=True), False),
}


def _any(container: Any, part: object) -> bool:
    return any(part in key for key in container)


@pytest.mark.parametrize("name", MEMORIES)
def test_what_is_remembered_has_an_end_and_the_latest_is_in_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    constant, make, in_turn = MEMORIES[name]
    monkeypatch.setattr(f"budget_guard.{constant}", MOST)
    monkeypatch.setattr(tokens, "_counter", lambda encoding: lambda text: len(text.split()))
    memory = make()
    for n in range(FED):
        memory.feed(n)
        if name in ("labels", "plans", "weights"):
            memory.feed(n)  # which is known, and takes no more room
        assert 1 <= len(memory.inside()) <= MOST
        assert memory.has(n)
        if in_turn:
            assert [each for each in range(n + 1) if memory.has(each)] == list(range(max(0, n + 1 - MOST), n + 1))
        else:
            assert len(memory.inside()) == n % MOST + 1


def test_loops_that_were_told_of_are_known_up_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard.calls.loops._KEPT", MOST)
    detector = LoopDetector(LoopPolicy(max_repeats=2))
    for n in range(FED):
        for _ in range(2):
            detector.saw("r", f"t{n}", b"", "same", 0.0)
        told = detector.ask("r", f"t{n}", b"", 0.0)
        assert told is not None and told.is_new
        again = detector.ask("r", f"t{n}", b"", 0.0)
        assert again is not None and not again.is_new
        assert len(detector._trails["r"].told) <= MOST + 1


def test_holds_to_give_back_are_known_up_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard.ledger.outbox.store._MOST_RELEASES", MOST)
    outbox = Outbox()
    for n in range(FED):
        outbox.releases.append((hold_id(1, f"h{n}"), ()))
    assert [id for id, _ in outbox.releases] == [hold_id(1, f"h{n}") for n in range(FED - MOST, FED)]


def test_tools_that_were_claimed_are_known_while_they_are_called() -> None:
    tools = session()
    run = tools._run
    for _ in range(FED):
        hold = tools.authorize(ToolCall("serp")).require()
        assert run.claim_tool("serp") and not run.claim_tool("serp")
        assert len(run.claimed_tools) == 1
        hold.commit_cost()


def test_models_and_names_beyond_an_end_have_no_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard.estimate.calibration._MOST_MODELS", MOST)
    monkeypatch.setattr("budget_guard.events.sinks.metering._MOST_NAMES", MOST)
    models, names = Calibration(), Names()
    for n in range(FED):
        models[f"m{n}"].bound(Prompt(1, 1, (), 0))
        for _ in range(2):
            assert names.bounded(f"n{n}") == (f"n{n}" if n < MOST else "(others)")
    assert list(models) == [f"m{n}" for n in range(MOST)]


def test_holds_that_are_never_settled_are_known_up_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard.ledger.outbox.ledger._MOST_HELD", MOST)
    clock, scopes, one = FakeClock(), (Scope("run", "r"),), Amounts(cost=1)
    ledger = OutboxLedger(MemoryLedger(clock=clock), Outbox(), clock=clock, forgiving=True, owner="")
    ledger.set_limits(scopes[0], Limits())
    for n in range(FED):
        assert isinstance(ledger.reserve(hold_id(1, f"h{n}"), scopes, one, None), Held)
    assert list(ledger._held) == [hold_id(1, f"h{n}") for n in range(MOST)]
    ledger.release(hold_id(1, "h0"), scopes)
    ledger.reserve(hold_id(1, "another"), scopes, one, None)
    assert len(ledger._held) == MOST
