"""A ledger out of reach: calls are refused or pass, as the mode says, and what is spent is booked once in the end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import multiprocessing
import os
import random
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LedgerAmbiguous,
    LedgerUnavailable,
    MemoryLedger,
    Scope,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.history import Labels, UsageLine
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.outbox.ledger import areplay, replay
from budget_guard.ledger.outbox.store import Entry, Outbox, new_entry
from budget_guard.ledger.reconcile import areconcile, reconcile
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.policy.budget import Mode
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import MOST, NOTHING, Amounts, Limits
from tests.builders import PRICES, ZERO, Way, call

DIME = 100_000_000
USER = Scope("user", "u1")


class Network(LedgerWrapper):
    """The way to a ledger elsewhere, which may be down (nothing gets through) or lose what comes back."""

    def __init__(self, clock: FakeClock | None = None, **options: Any) -> None:
        self.memory = MemoryLedger(clock=clock or FakeClock(), **options)
        super().__init__(self.memory)
        self.down = False
        self.loses: tuple[Verb, type[BaseException]] | None = None
        """The verb whose next answer is lost, and what is raised instead."""
        self.stops: tuple[Verb, BaseException] | None = None
        """The verb that does not get through the next time, and what is raised instead."""
        self.tried: list[Verb] = []

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        self.tried.append(verb)
        if self.down:
            raise LedgerUnavailable(detail="no route to host")
        if self.stops is not None and self.stops[0] == verb:
            stopped, self.stops = self.stops[1], None
            raise stopped
        answer = yield verb, arguments
        if self.loses is not None and self.loses[0] == verb:
            error, self.loses = self.loses[1], None
            raise error(detail="timed out") if issubclass(error, LedgerAmbiguous) else error()
        return answer

    def committed(self, scope: Scope = USER) -> int:
        return self.memory.balances((scope,))[0].committed.cost

    def reserved(self, scope: Scope = USER) -> int:
        return self.memory.balances((scope,))[0].reserved.cost


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(clock: FakeClock) -> Network:
    return Network(clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


@pytest.fixture
def open_session(network: Network, clock: FakeClock, path: Path) -> Callable[..., Session]:
    def opened(
        mode: Mode = "hard_gate", run_id: str = "r1", max_duration_s: float | None = None, **options: Any
    ) -> Session:
        options.setdefault("ceilings", {"user": Budget("$9")})
        authority = BudgetAuthority(network, pricing=PRICES, clock=clock, outbox=path, **options)
        return authority.session(Budget("$5", mode=mode, max_duration_s=max_duration_s), run_id, user="u1")

    return opened


def error_of(way: Way, run: Session) -> Any:
    return way.authorize(run, call()).error


# The gate


def test_a_session_that_was_opened_without_its_ledger_tells_of_nothing_until_it_calls(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    network.down = True
    run = open_session("advisory_estimate")
    network.down = False
    reports = (run.report(), asyncio.run(run.areport()))
    five = Decimal(5)
    assert [(each.total_spent, each.reserved, each.remaining) for each in reports] == [(ZERO, ZERO, five)] * 2
    assert (run.spent_usd, asyncio.run(run.aspent_usd()), run.reserved_usd, run.remaining_usd) == (
        ZERO,
        ZERO,
        ZERO,
        five,
    )
    assert (run.near_limit, run.committed) == (False, NOTHING)
    run.close()
    way.pay(run, call())
    assert (run.spent_usd, run.report().total_spent) == (Decimal("0.1"), Decimal("0.1"))


def test_what_is_left_of_a_session_that_was_opened_without_its_ledger_is_looked_up_once_it_is_there(
    open_session: Callable[..., Session], network: Network
) -> None:
    asked: list[Callable[[Session], object]] = [
        lambda run: run.least_remaining_usd(),
        lambda run: asyncio.run(run.aleast_remaining_usd()),
        lambda run: 5 - int(run.spent_fraction),
    ]
    for number, ask in enumerate(asked):
        network.down = True
        run = open_session("advisory_estimate", f"run-{number}")
        with pytest.raises(LedgerUnavailable):
            ask(run)
        network.down = False
        assert ask(run) == 5


@pytest.mark.parametrize("mode", ["hard_gate", "soft_gate"])
def test_a_mode_that_blocks_refuses_calls_loudly(
    way: Way, open_session: Callable[..., Session], network: Network, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_session(mode)
    network.down = True
    for asked in (call(), ToolCall("search")):
        decision = way.authorize(run, asked)
        assert isinstance(decision.error, LedgerUnavailable)
        assert (decision.action, decision.reservation) == ("block", None)
        assert "no route to host" in decision.reason and run.decisions()[-1] is decision
    assert [r.levelname for r in caplog.records].count("ERROR") == 2
    assert run.report().terminated_by == "ledger"
    network.down = False
    assert error_of(way, run) is None


@pytest.mark.parametrize("mode", ["advisory_estimate", "actuals_only"])
def test_a_mode_that_promises_no_ceiling_lets_calls_pass_loudly_and_books_them_later(
    way: Way, open_session: Callable[..., Session], network: Network, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_session(mode)
    network.down = True
    decision = way.authorize(run, call())
    assert (decision.action, decision.error) == ("advisory_warn", None)
    assert "no route to host" in decision.reason
    assert "without a hold" in caplog.text
    hold = decision.require()
    way.forward(hold)
    assert way.commit(hold, Usage()) == DIME
    report = run.report()
    assert (report.total_spent, report.breakdown.llm.calls) == (Decimal("0.10"), 1)
    assert network.committed() == 0
    network.down = False
    way.pay(run, call("penny"))
    assert network.committed() == network.committed(run.scope) == DIME + DIME // 10
    assert run.report().total_spent == Decimal("0.11")


@pytest.mark.parametrize("mode", ["hard_gate", "soft_gate", "advisory_estimate", "actuals_only"])
@pytest.mark.parametrize("chosen", ["open", "closed"])
def test_what_is_chosen_wins_over_the_mode(
    way: Way, open_session: Callable[..., Session], network: Network, mode: Mode, chosen: str
) -> None:
    run = open_session(mode, on_ledger_error=chosen)
    network.down = True
    assert (error_of(way, run) is None) == (chosen == "open")


def test_a_run_that_passes_stops_where_its_own_spend_alone_reaches_the_limit(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session("actuals_only")
    network.down = True
    for _ in range(50):
        way.pay(run, call())
    error = error_of(way, run)
    assert isinstance(error, BudgetExceeded) and (error.limit, error.actual) == (Decimal(5), Decimal(5))
    assert error.report is not None and error.report.total_spent == 5


def test_a_run_that_was_revoked_here_stays_revoked(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session("advisory_estimate")
    run.revoke("enough")
    network.down = True
    assert isinstance(error_of(way, run), BudgetRevoked)


@pytest.mark.parametrize(("mode", "stops"), [("actuals_only", True), ("advisory_estimate", False)])
def test_a_run_that_passes_stops_when_its_time_is_up_unless_nothing_stops_it(
    way: Way, open_session: Callable[..., Session], network: Network, clock: FakeClock, mode: Mode, stops: bool
) -> None:
    run = open_session(mode, max_duration_s=60)
    network.down = True
    way.pay(run, call())
    clock.advance(61)
    error = error_of(way, run)
    assert (getattr(error, "dimension", None) == "max_duration_s") == stops


def test_a_session_cannot_be_opened_without_its_ledger_unless_calls_may_pass(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    network.down = True
    with pytest.raises(LedgerUnavailable):
        open_session()
    run = open_session("advisory_estimate")
    way.pay(run, call())
    network.down = False
    way.pay(run, call())
    assert network.committed() == network.committed(run.scope) == 2 * DIME
    assert network.memory.balances((USER,))[0].limits.cost == 9 * 10**9


def test_a_reply_that_is_lost_leaves_no_hold_behind(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session()
    network.loses = ("reserve", LedgerAmbiguous)
    assert isinstance(error_of(way, run), LedgerAmbiguous)
    assert network.reserved() == DIME
    way.pay(run, call())
    assert (network.committed(), network.reserved()) == (DIME, 0)


def test_a_hold_that_cannot_be_marked_as_sent_is_not_sent_by_a_hard_gate_and_is_by_an_open_one(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session()
    hold = way.reserve(run, call())
    network.down = True
    with pytest.raises(LedgerUnavailable):
        way.forward(hold)
    network.down = False
    passing = open_session("advisory_estimate", "r2")
    hold = way.reserve(passing, call())
    network.down = True
    way.forward(hold)


# Settling


@pytest.mark.parametrize("way_out", ["commit", "estimate", "release", "tool", "charge"])
def test_what_is_settled_while_it_is_down_is_settled_once_it_is_back(
    way: Way, open_session: Callable[..., Session], network: Network, way_out: str
) -> None:
    run = open_session()
    hold = way.reserve(run, ToolCall("search", DIME) if way_out == "tool" else call())
    way.forward(hold)
    network.down = True
    settle: dict[str, Callable[[], object]] = {
        "commit": lambda: way.commit(hold, Usage()),
        "estimate": lambda: way.commit_estimate(hold),
        "release": lambda: way.release(hold),
        "tool": lambda: way.commit_cost(hold, "$0.10"),
        "charge": lambda: way.charge(run, "serp", "$0.10"),
    }
    if way_out == "charge":
        way.release(hold)
    settle[way_out]()
    assert hold.settled
    spent = 0 if way_out == "release" else DIME
    assert run.report().total_spent == Decimal(spent) / 10**9
    network.down = False
    assert run.spent_usd == Decimal(spent) / 10**9  # as soon as anybody asks
    way.pay(run, call("penny"))
    assert (network.committed(), network.reserved()) == (spent + DIME // 10, 0)
    assert network.memory.audit() == []


@pytest.mark.parametrize("verb", ["commit", "charge"])
def test_a_lost_reply_charges_once(
    way: Way, open_session: Callable[..., Session], network: Network, verb: Verb
) -> None:
    run = open_session()
    network.loses = (verb, LedgerAmbiguous)
    way.pay(run, call()) if verb == "commit" else way.charge(run, "serp", "$0.10")
    way.authorize(run, call())
    assert network.committed() == DIME
    assert run.spent_usd == Decimal("0.10")


def test_an_estimate_and_then_the_actual_amounts_end_as_the_actual_ones(
    way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session()
    hold = way.reserve(run, call("large", tokens=100, cap=50))
    network.down = True
    way.commit_estimate(hold)
    way.commit(hold, Usage(input=10))
    network.down = False
    way.authorize(run, call())
    assert network.committed() == 10_000


@pytest.mark.parametrize("booked", [False, True])
async def test_spend_of_a_task_that_is_cancelled_while_it_books_is_not_lost(
    open_session: Callable[..., Session], network: Network, booked: bool
) -> None:
    run = open_session()
    hold = (await run.aauthorize(call())).require()
    if booked:
        network.loses = ("commit", asyncio.CancelledError)
    else:
        network.stops = ("commit", asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await hold.acommit(Usage())
    assert run.ledger.balances((run.scope,))[0].committed.cost == DIME
    other = (await run.aauthorize(call())).require()
    network.down = True
    await other.acommit(Usage())
    network.down = False
    await run.aauthorize(call())
    assert network.committed() == 2 * DIME


def test_while_it_is_down_nothing_is_tried_twice_for_one_call(
    way: Way, open_session: Callable[..., Session], network: Network, path: Path
) -> None:
    run = open_session("advisory_estimate")
    network.down = True
    way.pay(run, call())
    network.tried.clear()
    size = path.stat().st_size
    for _ in range(20):
        way.pay(run, call())
    assert len(network.tried) <= 3 * 20  # not one round for each entry that is waiting
    assert path.stat().st_size - size < 20 * 1_000


# Across processes


def test_a_process_that_died_leaves_its_spend_to_the_next_one(
    way: Way, open_session: Callable[..., Session], network: Network, path: Path
) -> None:
    run = open_session("advisory_estimate")
    network.down = True
    for _ in range(3):
        way.pay(run, call())
    del run
    assert len(Outbox(path).entries()) == 3
    network.down = False
    again = open_session("advisory_estimate", "r2")
    way.pay(again, call())
    assert network.committed() == 4 * DIME
    assert Outbox(path).entries() == [] and path.stat().st_size == 0


@pytest.mark.parametrize("awaits", [False, True])
def test_a_program_without_a_session_can_deliver_too(
    way: Way, open_session: Callable[..., Session], network: Network, path: Path, awaits: bool
) -> None:
    run = open_session("advisory_estimate")
    network.down = True
    for _ in range(100):
        way.charge(run, "serp", "$0.01")
    outbox = Outbox(path)
    with pytest.raises(LedgerUnavailable):
        replay(outbox, network)
    network.down = False
    assert (asyncio.run(areplay(outbox, network)) if awaits else replay(outbox, network)) == 100
    assert network.committed() == 10**9
    assert replay(outbox, network) == 0


def test_scopes_that_nobody_could_open_are_opened_and_keep_their_owner(
    way: Way, open_session: Callable[..., Session], network: Network, path: Path
) -> None:
    network.down = True
    way.pay(open_session("advisory_estimate"), call())
    network.down = False
    assert replay(Outbox(path), network) == 1
    again = open_session()  # the same principal: its own run
    assert again.spent_usd == Decimal("0.10")
    assert network.memory.balances((USER,))[0].limits.cost == 9 * 10**9


def test_a_crash_between_sending_and_noting_it_charges_once(network: Network, path: Path) -> None:
    network.set_limits(USER, Limits())
    outbox = Outbox(path)
    for n in range(5):
        outbox.add(new_entry("charge", hold_id(n, f"c{n}"), (USER,), Amounts(cost=DIME), fresh=True))
    network.loses = ("charge", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        replay(outbox, network)
    assert network.committed() == DIME
    assert replay(Outbox(path), network) == 5
    assert network.committed() == 5 * DIME


def test_one_delivers_at_a_time(path: Path, network: Network) -> None:
    network.set_limits(USER, Limits())
    mine, others = Outbox(path), Outbox(path)
    mine.add(new_entry("charge", hold_id(0, "c"), (USER,), Amounts(cost=DIME)))
    with others.claim() as claim:
        assert claim is not None
        assert replay(mine, network) == 0
    assert replay(mine, network) == 1


def _add(path: str, worker: int, count: int) -> None:
    outbox = Outbox(path)
    for n in range(count):
        outbox.add(new_entry("charge", hold_id(n, f"w{worker}-{n}"), (USER,), Amounts(cost=1)))


def test_processes_share_a_file(path: Path, network: Network) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(str(path), worker, 25)) for worker in range(3)]
    for worker in workers:
        worker.start()
    network.set_limits(USER, Limits())
    outbox = Outbox(path)
    delivered = replay(outbox, network)  # in between, while they write
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert delivered + replay(outbox, network) == network.committed() == 75
    assert path.stat().st_size == 0


@pytest.mark.parametrize("tail", [b'{"add":{"key":"x","ve', b"\x00\x00\x00", b'{"add":{}}'[:-1]])
def test_a_line_torn_by_a_crash_costs_nothing_but_itself(path: Path, tail: bytes) -> None:
    entry = new_entry("commit", hold_id(0, "a\nb"), (USER, Scope("run", "é\ud800")), Amounts(cost=5))
    Outbox(path).add(entry)
    with path.open("ab") as file:
        file.write(tail)
    outbox = Outbox(path)
    assert outbox.entries() == [entry]
    other = entry._replace(key="other")
    outbox.add(other)
    assert Outbox(path).entries() == [entry, other]


def entry_with(**changed: Any) -> bytes:
    """The line of an entry, some of whose fields are other ones; without those that are None."""
    entry = new_entry("charge", hold_id(0, "x"), (USER,), Amounts(cost=DIME))._asdict()
    fields = {**entry, "scopes": [["user", "u1"]], "amounts": [DIME, 0, 0, 0, 0, 0], **changed}
    return json.dumps({"add": {name: value for name, value in fields.items() if value is not None}}).encode()


UNREADABLE = {
    "no JSON": b"Dear diary",
    "a torn line": b'{"add":{"key":"x","ve',
    "no UTF-8": b"\xff\xfe\x00",
    "nested too deep": b"[" * 100_000,
    "a number": b"42",
    "a list": b'[{"add": 1}]',
    "null": b"null",
    "an entry that is none": b'{"add": 7}',
    "an empty entry": b'{"add": {}}',
    "a field less": entry_with(owner=None),
    "a field more": entry_with(currency="EUR"),
    "another verb": entry_with(verb="refund"),
    "an id that is none": entry_with(id=7),
    "scopes that are none": entry_with(scopes="user:u1"),
    "no scope": entry_with(scopes=[]),
    "a scope of three": entry_with(scopes=[["user", "u1", "x"]]),
    "a scope of numbers": entry_with(scopes=[[1, 2]]),
    "amounts that are none": entry_with(amounts=5),
    "five amounts": entry_with(amounts=[1] * 5),
    "a float among the amounts": entry_with(amounts=[0.1, 0, 0, 0, 0, 0]),
    "a negative amount": entry_with(amounts=[-1, 0, 0, 0, 0, 0]),
    "a mark of another version": b'{"refunded": "x"}',
    "a mark without its id": b'{"instead": "x"}',
    "a mark that is none": b'{"done": ["x"]}',
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_line_that_cannot_be_read_is_put_aside_counted_and_told_of_once(
    path: Path, network: Network, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    network.set_limits(USER, Limits())
    line = UNREADABLE[name]
    good = new_entry("charge", hold_id(1, "good"), (USER,), Amounts(cost=DIME))
    Outbox(path).add(good)
    path.write_bytes(line + b"\n" + path.read_bytes() + line)
    outbox = Outbox(path)  # which every process does that starts
    assert outbox.entries() == [good] and outbox.unread == 2
    assert replay(outbox, network) == 1
    assert network.committed() == DIME
    assert path.read_bytes() == b""
    assert path.with_name("outbox.jsonl.unread").read_bytes() == line + b"\n" + line + b"\n"
    assert outbox.unread == Outbox(path).unread == 2
    told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(told) == 1 and "outbox.jsonl.unread" in told[0]
    assert "diary" not in caplog.text  # whatever is in it


def test_what_cannot_be_read_stays_where_it_is_while_it_cannot_be_put_aside(path: Path, network: Network) -> None:
    network.set_limits(USER, Limits())
    path.with_name("outbox.jsonl.unread").mkdir()
    Outbox(path).add(new_entry("charge", hold_id(1, "good"), (USER,), Amounts(cost=DIME)))
    with path.open("ab") as file:
        file.write(b"Dear diary")
    outbox = Outbox(path)
    assert replay(outbox, network) == 1
    assert path.read_bytes().endswith(b"Dear diary") or b"Dear diary" in path.read_bytes()
    assert Outbox(path).entries() == [] and network.committed() == DIME


def test_a_disk_that_fails_leaves_the_spend_in_memory(
    path: Path, network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network.set_limits(USER, Limits())
    outbox = Outbox(path)
    with monkeypatch.context() as broken:
        broken.setattr("os.write", lambda file, data: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        outbox.add(new_entry("charge", hold_id(0, "c"), (USER,), Amounts(cost=DIME)))
    assert "No space left" in caplog.text and outbox.pending
    replay(outbox, network)
    assert network.committed() == DIME
    assert not outbox.pending and replay(outbox, network) == 0
    assert not outbox._spare.used  # what was delivered takes no memory any more


def test_an_outbox_without_a_file_keeps_it_in_memory(network: Network) -> None:
    network.set_limits(USER, Limits())
    outbox = Outbox()
    assert outbox.unread == 0
    outbox.add(new_entry("charge", hold_id(0, "c"), (USER,), Amounts(cost=DIME)))
    assert [entry.amounts.cost for entry in outbox.entries()] == [DIME]
    assert replay(outbox, network) == 1
    assert (network.committed(), outbox.entries()) == (DIME, [])


# What is too old, and what is refused


def forgetful(clock: FakeClock) -> Network:
    """A ledger that has forgotten everything up to now."""
    network = Network(clock, retain=1)
    network.set_limits(USER, Limits())
    for n in range(2):
        clock.advance(3_600)
        network.charge(hold_id(clock.now_ms(), f"forgotten-{n}"), (USER,), Amounts(tool_calls=1))
    clock.advance(1)
    return network


def late(verb: Any, **options: Any) -> Entry:
    return new_entry(verb, hold_id(0, "late"), (USER,), Amounts(cost=DIME), **options)


@pytest.mark.parametrize("verb", ["commit", "charge"])
def test_spend_of_a_long_outage_that_the_ledger_never_heard_of_is_booked_once(
    clock: FakeClock, path: Path, verb: str
) -> None:
    network = forgetful(clock)
    outbox = Outbox(path)
    outbox.add(late(verb, fresh=True))
    network.down = True
    with pytest.raises(LedgerUnavailable):
        replay(outbox, network, clock=clock)
    network.down = False
    network.loses = ("charge", LedgerAmbiguous)
    with pytest.raises(LedgerAmbiguous):
        replay(outbox, network, clock=clock)
    replay(Outbox(path), network, clock=clock)
    assert network.committed() == DIME


def test_spend_that_a_crash_left_in_doubt_for_too_long_is_not_booked_twice(clock: FakeClock, path: Path) -> None:
    network = forgetful(clock)
    Outbox(path).add(new_entry("charge", hold_id(clock.now_ms(), "c"), (USER,), Amounts(cost=DIME), fresh=True))
    network.loses = ("charge", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        replay(Outbox(path), network, clock=clock)
    for n in range(2):  # it is forgotten
        clock.advance(3_600)
        network.charge(hold_id(clock.now_ms(), f"other-{n}"), (USER,), Amounts(tool_calls=1))
    outbox = Outbox(path)
    assert replay(outbox, network, clock=clock) == 0
    assert (network.committed(), len(outbox.rejected)) == (DIME, 1)


@pytest.mark.parametrize("options", [{"fresh": False}, {"fresh": True, "ambiguous": True}])
def test_what_may_have_been_booked_is_put_aside_for_an_operator(
    clock: FakeClock, path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    network = forgetful(clock)
    outbox = Outbox(path)
    outbox.add(late("commit", **options))
    outbox.add(new_entry("charge", hold_id(clock.now_ms() + 1, "young"), (USER,), Amounts(cost=5)))
    replay(outbox, network, clock=clock)
    assert network.committed() == 5
    assert outbox.entries() == []
    aside = [json.loads(line) for line in (path.parent / f"{path.name}.rejected").read_text().splitlines()]
    assert [record["entry"]["amounts"][0] for record in aside] == [DIME]
    assert list(outbox.rejected) == aside and "not booked" in caplog.text


def test_a_commit_that_contradicts_another_is_put_aside(network: Network, path: Path) -> None:
    network.set_limits(USER, Limits())
    held = hold_id(0, "h")
    network.commit(held, (USER,), Amounts(cost=1))
    outbox = Outbox(path)
    outbox.add(new_entry("commit", held, (USER,), Amounts(cost=2)))
    replay(outbox, network)
    assert (network.committed(), len(outbox.rejected)) == (1, 1)


# All of it together


@pytest.mark.parametrize("seed", range(40))
def test_whatever_fails_the_ledger_ends_with_what_was_spent(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    clock = FakeClock()
    network = Network(clock)
    way = Way(seed % 2 == 1)
    spent = 0

    def new_process(n: int) -> Session:
        authority = BudgetAuthority(network, pricing=PRICES, clock=clock, outbox=tmp_path / "o.jsonl")
        return authority.session(Budget("$99", mode="advisory_estimate"), f"r{n}", user="u1")

    run = new_process(0)
    for n in range(1, 40):
        network.down = chance.random() < 0.4
        if chance.random() < 0.3 and not network.down:
            network.loses = (chance.choice(["reserve", "forward", "commit", "charge", "release"]), LedgerAmbiguous)
        clock.advance(chance.choice([0, 1, 400]))
        if chance.random() < 0.15:
            run = new_process(n)
            continue
        decision = way.authorize(run, call())
        if decision.reservation is None:
            continue
        hold = decision.reservation
        if chance.random() < 0.5:
            network.down = not network.down
        way.forward(hold)
        if chance.random() < 0.2:
            way.release(hold)
        else:
            spent += way.commit(hold, Usage())
        if chance.random() < 0.2:
            way.charge(run, "serp", "$0.01")
            spent += DIME // 10
    network.down, network.loses = False, None
    last = new_process(99)
    way.pay(last, call())
    assert network.committed() == spent + DIME
    assert network.memory.audit() == []


# Reconciling


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize(
    ("rule", "booked"),
    [("estimate", DIME), (lambda hold: Amounts(cost=7), 7), (lambda hold: Amounts(), 0), (lambda hold: None, None)],
)
def test_suspended_holds_are_settled_by_a_rule(clock: FakeClock, rule: Any, booked: int | None, awaits: bool) -> None:
    ledger = MemoryLedger(clock=clock)
    ledger.set_limits(USER, Limits())
    held = hold_id(clock.now_ms(), "h")
    ledger.reserve(held, (USER,), Amounts(cost=DIME), None, 60)
    ledger.forward(held)
    clock.advance(61)
    done = asyncio.run(areconcile(ledger, rule)) if awaits else reconcile(ledger, rule)
    assert [(r.hold.hold_id, None if r.charged is None else r.charged.cost) for r in done] == [(held, booked)]
    balance = ledger.balances((USER,))[0]
    assert (balance.committed.cost, balance.reserved.cost) == (booked or 0, DIME if booked is None else 0)
    assert len(ledger.suspended()) == (booked is None)
    ledger.commit(held, (USER,), Amounts(cost=3)) if rule == "estimate" else None
    assert ledger.balances((USER,))[0].committed.cost == (3 if rule == "estimate" else booked or 0)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule='free'"):
        reconcile(MemoryLedger(), "free")  # type: ignore[arg-type]


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("rule", ["estimate", lambda hold: Amounts(cost=7), lambda hold: Amounts()])
@pytest.mark.parametrize("other", [3, DIME, None], ids=["another cost", "the same cost", "a release"])
def test_what_somebody_else_settles_meanwhile_is_not_claimed(
    clock: FakeClock, rule: Any, other: int | None, awaits: bool
) -> None:
    network = Network(clock)
    network.set_limits(USER, Limits())
    held = hold_id(clock.now_ms(), "h")
    network.reserve(held, (USER,), Amounts(cost=DIME), None, 60, True, True)
    clock.advance(61)
    flow = network.flow

    def settled_in_between(verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if verb == "suspended":
            found = network.memory.suspended()
            if other is not None:
                network.memory.commit(held, (USER,), Amounts(cost=other))
            else:
                network.memory.release(held, (USER,))
            return _answer(found)
        return flow(verb, arguments)

    network.flow = settled_in_between  # type: ignore[method-assign]  # on purpose
    done = asyncio.run(areconcile(network, rule)) if awaits else reconcile(network, rule)
    nothing = callable(rule) and rule(done[0].hold) == Amounts()
    booked = network.committed()
    if other is not None:
        assert (done[0].charged, booked) == (None, other)
    else:  # what was billed is charged after a release as well; there is nothing to give back a second time
        assert (done[0].charged is None) is nothing
        assert booked == (0 if nothing else done[0].charged.cost if done[0].charged else None)


def _answer(found: Any) -> Flow[Any]:
    return found
    yield


# The claim


@pytest.mark.parametrize("where", ["in a file", "in memory"])
@pytest.mark.parametrize("ends", ["delivered", "still down", "cancelled"])
def test_spend_of_later_outages_is_delivered_too(path: Path, network: Network, where: str, ends: str) -> None:
    network.set_limits(USER, Limits())
    outbox = Outbox(path if where == "in a file" else None)
    for outage in range(1, 6):
        outbox.add(new_entry("charge", hold_id(outage, f"o{outage}"), (USER,), Amounts(cost=DIME)))
        if ends == "still down":
            network.down = True
            with pytest.raises(LedgerUnavailable):
                replay(outbox, network)
            network.down = False
        elif ends == "cancelled":
            network.stops = ("charge", asyncio.CancelledError())
            with pytest.raises(asyncio.CancelledError):
                replay(outbox, network)
        assert replay(outbox, network) == 1
        assert network.committed() == outage * DIME
        assert not outbox.pending
        with outbox.claim() as free:
            assert free is not None


def test_a_claim_is_given_back_to_other_processes_too(path: Path, network: Network) -> None:
    network.set_limits(USER, Limits())
    context = multiprocessing.get_context("spawn")
    for round in range(3):
        Outbox(path).add(new_entry("charge", hold_id(round, f"r{round}"), (USER,), Amounts(cost=DIME)))
        assert replay(Outbox(path), network) == 1
    other = context.Process(target=_claims, args=(str(path),))
    other.start()
    other.join(60)
    assert other.exitcode == 0


def _claims(path: str) -> None:
    with Outbox(path).claim() as claim:
        assert claim is not None


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("ambiguous", [True, False])
@pytest.mark.parametrize("verb", ["commit", "charge"])
def test_spend_of_an_outage_longer_than_ids_live_is_booked_once_or_put_aside(
    clock: FakeClock, path: Path, fresh: bool, ambiguous: bool, verb: Any
) -> None:
    network = Network(clock, retain=1)
    network.set_limits(USER, Limits())
    network.set_limits(Scope("user", "busy"), Limits())
    entry = new_entry(
        verb, hold_id(clock.now_ms(), "old"), (USER,), Amounts(cost=DIME), fresh=fresh, ambiguous=ambiguous
    )
    if not fresh:  # the ledger had acknowledged its hold
        network.reserve(entry.id, (USER,), Amounts(cost=DIME), None)
        network.release(entry.id, (USER,))
    Outbox(path).add(entry)
    clock.advance(86_400)
    for number in range(5):  # until its id is older than what the ledger remembers
        clock.advance(1)
        network.charge(hold_id(clock.now_ms(), f"b{number}"), (Scope("user", "busy"),), Amounts(cost=1))
    for _ in range(3):  # as processes do that start one after the other
        replay(Outbox(path), network)
    booked = DIME if fresh and not ambiguous else 0
    assert network.committed() == booked
    aside = path.with_name("outbox.jsonl.rejected")
    assert aside.exists() is (booked == 0)
    assert Outbox(path).entries() == [] and path.stat().st_size == 0


@pytest.mark.parametrize("error", [LedgerAmbiguous, KeyboardInterrupt])
def test_a_charge_that_is_sent_instead_of_an_id_that_is_too_old_is_booked_once_whoever_sends_it_again(
    clock: FakeClock, path: Path, error: type[BaseException]
) -> None:
    network = Network(clock, retain=1)
    for name in ("u1", "busy"):
        network.set_limits(Scope("user", name), Limits())
    Outbox(path).add(
        new_entry("commit", hold_id(clock.now_ms(), "old"), (USER,), Amounts(cost=DIME), fresh=True, ambiguous=False)
    )
    clock.advance(86_400)
    for number in range(5):
        clock.advance(1)
        network.charge(hold_id(clock.now_ms(), f"b{number}"), (Scope("user", "busy"),), Amounts(cost=1))
    network.loses = ("charge", error)
    with contextlib.suppress(error):
        replay(Outbox(path), network)
    assert (network.committed(), network.loses) == (DIME, None)
    clock.advance(1)
    replay(Outbox(path), network)  # as the next process
    assert network.committed() == DIME
    assert Outbox(path).entries() == [] and not path.with_name("outbox.jsonl.rejected").exists()


@pytest.mark.skipif(os.name != "posix", reason="there are no permissions here")
def test_its_files_are_its_owners_alone_and_none_of_them_stays_open(path: Path, network: Network) -> None:
    network.set_limits(USER, Limits())
    files = {path, *(path.with_name(f"outbox.jsonl.{each}") for each in ("lock", "rejected", "unread"))}

    def one_of_everything(number: int) -> None:
        outbox = Outbox(path)
        outbox.add(new_entry("charge", hold_id(number, "good"), (USER,), Amounts(cost=DIME)))
        outbox.add(new_entry("charge", hold_id(number, "good"), (USER,), Amounts(cost=1)))  # which contradicts it
        with path.open("ab") as file:
            file.write(b"torn")
        outbox.add(new_entry("charge", hold_id(number, "late"), (USER,), Amounts(cost=DIME)))
        replay(Outbox(path), network)

    before = os.umask(0)
    try:
        one_of_everything(1)
        assert {file: oct(file.stat().st_mode & 0o777) for file in files} == dict.fromkeys(files, "0o600")
        one_of_everything(2)
    finally:
        os.umask(before)
    assert network.committed() == 4 * DIME
    open_files = Path("/proc/self/fd")
    if open_files.exists():
        pointed_to = [os.path.realpath(each) for each in open_files.iterdir()]
        assert [each for each in pointed_to if each.startswith(str(path.parent))] == []


def test_a_machine_without_locks_of_files_and_folders_to_sync_has_one_all_the_same(
    path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.set_limits(USER, Limits())
    monkeypatch.setattr("budget_guard.ledger.outbox.store.fcntl", None)
    monkeypatch.setattr("budget_guard.ledger.outbox.store._fsync_folder", lambda path: pytest.fail(f"opened {path}"))
    outbox = Outbox(path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("os.name", "nt")
        outbox.add(new_entry("charge", hold_id(1, "c"), (USER,), Amounts(cost=DIME)))
        with outbox.claim() as first, Outbox(path).claim() as second:
            assert first is not None and second is not None  # a file is for one process alone there
    assert replay(outbox, network) == 1
    assert network.committed() == DIME


@pytest.mark.skipif(os.name != "posix", reason="there is no flock here")
def test_who_reads_shares_the_file_and_who_writes_has_it_alone(
    path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    network.set_limits(USER, Limits())
    locks: list[str] = []
    names = {fcntl.LOCK_SH: "shared", fcntl.LOCK_EX: "alone", fcntl.LOCK_EX | fcntl.LOCK_NB: "claimed"}
    flock = fcntl.flock

    def noted(file: int, how: int) -> None:
        locks.append(names[how])
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", noted)
    outbox = Outbox(path)
    outbox.add(new_entry("charge", hold_id(1, "c"), (USER,), Amounts(cost=DIME)))
    assert locks == ["alone"]
    outbox.entries()
    assert locks[1:] == ["shared"]
    replay(outbox, network)
    assert locks[2:] == ["claimed", "shared", "alone", "alone", "alone", "shared"]


@pytest.mark.skipif(os.name != "posix", reason="there is no flock here")
@pytest.mark.parametrize("verb", ["add", "empty"])
def test_nobody_writes_to_the_file_while_another_process_does(path: Path, network: Network, verb: str) -> None:
    import fcntl

    network.set_limits(USER, Limits())
    outbox = Outbox(path)
    outbox.add(new_entry("charge", hold_id(0, "first"), (USER,), Amounts(cost=1)))
    done = threading.Event()

    def write() -> None:
        if verb == "add":
            outbox.add(new_entry("charge", hold_id(1, "second"), (USER,), Amounts(cost=1)))
        else:
            replay(outbox, network)
        done.set()

    theirs = os.open(path, os.O_RDWR)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.2)
    os.close(theirs)
    thread.join(20)
    assert done.is_set()


@pytest.mark.parametrize("mode", ["hard_gate", "advisory_estimate"])
def test_a_hold_that_it_does_not_know_is_marked_as_sent_by_a_hard_gate(
    mode: Mode, way: Way, open_session: Callable[..., Session], network: Network
) -> None:
    run = open_session(mode)
    hold = way.reserve(run, call())
    other = open_session(mode)  # as another process has it, that goes on with the run
    network.tried.clear()
    for ledger in (run.ledger, other.ledger):
        ledger.forward(hold.id)
    assert network.tried.count("forward") == (2 if mode == "hard_gate" else 1)


def test_an_entry_of_a_version_without_lines_is_booked(path: Path, network: Network) -> None:
    network.set_limits(USER, Limits())
    Outbox(path).add(new_entry("charge", hold_id(1, "old"), (USER,), Amounts(cost=DIME)))
    record = json.loads(path.read_bytes())
    del record["add"]["lines"]
    path.write_text(json.dumps(record) + "\n", "utf-8")
    outbox = Outbox(path)
    assert outbox.unread == 0 and outbox.entries()[0].lines == ()


@pytest.mark.parametrize(
    "lines", [1, [1], [[["f"], [0] * 10]], [[["f"] * 5, [0] * 9]], [[["f"] * 5, [0.5] * 10]], [[1]]]
)
def test_an_entry_whose_lines_are_none_is_told_of(path: Path, lines: Any) -> None:
    Outbox(path).add(new_entry("charge", hold_id(1, "c"), (USER,), Amounts(cost=DIME)))
    record = json.loads(path.read_bytes())
    record["add"]["lines"] = lines
    path.write_text(json.dumps(record) + "\n", "utf-8")
    assert (Outbox(path).unread, Outbox(path).entries()) == (1, [])


class _Written(BaseModel):
    """An entry as the file has it, said in another way than the code that reads it says it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    key: str
    verb: Literal["commit", "charge"]
    id: str
    scopes: Annotated[list[tuple[str, str]], Field(min_length=1)]
    amounts: Annotated[list[Annotated[int, Field(ge=0, le=MOST)]], Field(min_length=6, max_length=6)]
    uncertain: bool
    owner: str
    fresh: bool
    ambiguous: bool
    lines: list[
        tuple[
            Annotated[list[str], Field(min_length=5, max_length=5)],
            Annotated[list[Annotated[int, Field(ge=-MOST, le=MOST)]], Field(min_length=10, max_length=10)],
        ]
    ] = []


def _changed(value: Any) -> Iterator[Any]:
    """*value* with any one part of it taken away, doubled, or replaced by anything else."""
    yield from (None, True, -1, 0, MOST, MOST + 1, -MOST - 1, 1.5, "charge", "", [], ["x", "y"], [[1, 2]], {}, {"x": 1})
    if isinstance(value, (list, dict)):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            less = copy.deepcopy(value)
            del less[key]
            yield less
            for other in _changed(value[key]):
                changed = copy.deepcopy(value)
                changed[key] = other
                yield changed
    if isinstance(value, list):
        yield [*value, *value[-1:]]
    elif isinstance(value, dict):
        yield {**value, "more": 1}


def test_an_entry_is_read_where_every_part_of_it_is_what_is_written_there_and_no_other_is(path: Path) -> None:
    line = UsageLine(Labels("f", "a", "t", "m", "w"), Amounts(cost=1), 2, 3, 4, 5)
    Outbox(path).add(new_entry("charge", hold_id(1, "c"), (USER,), Amounts(cost=DIME), lines=(line,)))
    good = json.loads(path.read_bytes())["add"]
    seen: dict[bool, int] = {True: 0, False: 0}
    for changed in _changed(good):
        text = json.dumps(changed)
        try:
            _Written.model_validate_json(text)
            expected = True
        except ValidationError:
            expected = False
        path.write_text(f'{{"add": {text}}}', "utf-8")
        outbox = Outbox(path)
        assert (outbox.unread == 0) is (len(outbox.entries()) == 1) is expected, text
        seen[expected] += 1
    assert seen[True] > 60 and seen[False] > 400


@pytest.mark.parametrize("mark", [{"instead": "k", "id": "i"}, {"id": "i", "instead": "k"}])
def test_a_charge_that_is_sent_instead_is_known_however_its_mark_is_written(path: Path, mark: dict[str, str]) -> None:
    Outbox(path).add(
        new_entry("commit", hold_id(1, "c"), (USER,), Amounts(cost=DIME), uncertain=True)._replace(key="k")
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(mark) + "\n" + json.dumps({"done": "unheard of"}) + "\n" + json.dumps({"tried": "k"}))
    (entry,) = Outbox(path).entries()
    assert (entry.verb, entry.id, entry.uncertain, entry.ambiguous) == ("charge", "i", False, True)
