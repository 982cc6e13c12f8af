"""The ledger in a file keeps the contract, whatever happens to processes, files and disks."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budget_guard import Session, Usage
from budget_guard.clock import SYSTEM_CLOCK, Clock, SystemClock
from budget_guard.errors import (
    LedgerAmbiguous,
    LedgerUnavailable,
    ReservationConflict,
    StaleReservation,
    UnknownReservation,
)
from budget_guard.ledger import HELD, Ledger, MemoryLedger, Refused
from budget_guard.ledger.history import Kept, Labels, UsageLine, UsageQuery
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.sqlite import file as sqlite_file_module
from budget_guard.ledger.sqlite.file import APPLICATION_ID
from budget_guard.ledger.sqlite.transaction import Transaction
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import BOTH, RUN, USER, LedgerContract, cost, race
from budget_guard.units.amounts import MOST, NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope, Window
from tests.builders import call, session
from tests.ledger.alike import differences
from tests.ledger.machine import machine
from tests.ledger.sqlite_worker import SHARED, scopes_of
from tests.ledger.taken import paid_by_8_processes

ROOT = Path(__file__).parents[2]
RETAINED = 50
NEWEST = len(sqlite_file_module.scripts())
_numbers = itertools.count()


class TestSqliteLedger(LedgerContract):
    rounds = 20

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_ledger(self, clock: Clock) -> Ledger:
        return SqliteLedger(self.folder / f"{next(_numbers)}.db", clock=clock, retain=3_000)

    def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
        forget_settled(ledger, clock, 3_000)

    def close_ledger(self, ledger: Ledger) -> None:
        assert ledger.audit() == []
        ledger.close()


def forget_settled(ledger: Ledger, clock: FakeClock, retained: int = RETAINED) -> None:
    """Settle one more, wait for the tolerance to pass, and settle as many others as the ledger remembers."""
    others = Scope("team", "others")
    ledger.set_limits(others, Limits())
    clock.advance(0.001)
    ledger.charge(hold_id(clock.now_ms(), "the last"), (others,), cost(1))
    clock.advance(301)
    charge_all(ledger, [hold_id(clock.now_ms(), f"other-{number}") for number in range(retained)], (others,))
    ledger.set_limits(others, Limits())  # any verb that writes


def charge_all(ledger: Ledger, ids: Sequence[str], scopes: Sequence[Scope], nano: int = 1) -> None:
    async def charge() -> None:
        await asyncio.gather(*(ledger.aio.charge(each, scopes, cost(nano)) for each in ids))

    asyncio.run(charge())


def test_it_does_as_the_naive_ledger_does() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = machine(
            lambda clock: SqliteLedger(f"{folder}/{next(_numbers)}.db", clock=clock, durable=False, retain=RETAINED),
            forget_settled,
            examples=60,
        )
        made.TestCase().runTest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Every connection that a ledger has opened."""
    connections: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recording(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connections.append(connect(*args, **kwargs))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", recording)
    return connections


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    """A ledger in real time with a run and a user of 1,000 nano-dollars."""
    made = SqliteLedger(path)
    limit(made)
    yield made
    assert made.audit() == []
    made.close()


@pytest.fixture
def other_process(path: Path, ledger: SqliteLedger) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else to the same file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def limit(ledger: Ledger) -> None:
    for scope in BOTH:
        ledger.set_limits(scope, Limits(cost=1_000))


def new_id(clock: Clock = SYSTEM_CLOCK, ahead_s: int = 0) -> str:
    return hold_id(clock.now_ms() + 1_000 * ahead_s, f"{os.getpid()}-{next(_numbers)}")


def spend(ledger: Ledger, nano: int) -> str:
    made = new_id()
    assert ledger.reserve(made, BOTH, cost(nano), cost(nano)) == HELD
    ledger.commit(made, BOTH, cost(nano))
    return made


def committed(ledger: Ledger) -> list[int]:
    return [balance.committed.cost for balance in ledger.balances(BOTH)]


def test_a_commit_says_what_is_left_so_that_nobody_has_to_look(ledger: SqliteLedger) -> None:
    made = new_id()
    ledger.reserve(made, BOTH, cost(7), cost(7))
    assert ledger.commit(made, BOTH, cost(5)).cost_left == 995


# what is acknowledged stays


def test_what_was_booked_is_there_when_the_file_is_opened_again(path: Path) -> None:
    first = SqliteLedger(path)
    first.set_limits(RUN, Limits(cost=1_000, requests=3), owner="alice")
    first.set_limits(USER, Limits(), "day")
    spent = spend(first, 30)
    held = new_id()
    first.reserve(held, BOTH, Amounts(7, 1, 2, 3, 1, 0), None)
    first.forward(held)
    first.revoke(USER, "compromised")
    before = first.balances(BOTH)
    first.close()

    second = SqliteLedger(path)
    assert second.balances(BOTH) == before
    assert second.commit(spent, BOTH, cost(30)).committed == cost(30)
    assert second.release(held, BOTH) is True
    assert committed(second) == [30, 30]
    assert second.audit() == []
    second.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["budget.db"]


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_a_durable_ledger_waits_for_the_disk(
    path: Path, opened: list[sqlite3.Connection], durable: bool, synchronous: int
) -> None:
    ledger = SqliteLedger(path, durable=durable)
    assert opened[-1].execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert opened[-1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger.close()


def worker(verb: str, path: Path, name: str, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.ledger.sqlite_worker", verb, str(path), name, str(number)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_loses_nothing_that_was_acknowledged(path: Path) -> None:
    first = SqliteLedger(path)
    scopes = scopes_of("w")
    for scope in scopes:
        first.set_limits(scope, Limits())
    first.close()
    acknowledged: list[str] = []
    for life in range(6):
        process = worker("acknowledge", path, "w", 100_000)
        assert process.stdout is not None and process.stderr is not None
        for _ in range(40 + 17 * life):
            acknowledged.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        acknowledged.extend(rest[: rest.rfind("\n") + 1].split())  # the last line may be a part of one
        process.wait()
        process.stdout.close()
        process.stderr.close()

        ledger = SqliteLedger(path)
        assert ledger.audit() == []
        before = ledger.balances(scopes)
        for each in acknowledged:
            ledger.commit(each, scopes, cost(2))
        after = ledger.balances(scopes)
        assert after == before
        assert all(balance.committed.cost >= 2 * len(acknowledged) for balance in after)
        assert all(balance.open_holds <= 8 * (life + 1) for balance in after)
        ledger.close()
    assert len(acknowledged) == len(set(acknowledged)) > 6 * 40


# many at once


def test_8_processes_never_pass_a_ceiling_and_lose_nothing(path: Path) -> None:
    ceilings = {"user": 900, "key": 700, "team": 800, "run": 400}
    ledger = SqliteLedger(path)
    names = [str(number) for number in range(8)]
    for scope in {scope for name in names for scope in scopes_of(name)}:
        ledger.set_limits(scope, Limits(cost=ceilings[scope.kind]))
    processes = [worker("spend", path, name, 120) for name in names]
    reports = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        reports.append(json.loads(out))

    for name, report in zip(names, reports, strict=True):
        for scope, largest in zip(scopes_of(name), report["largest"], strict=True):
            assert largest <= ceilings[scope.kind]
        (run,) = ledger.balances(scopes_of(name)[:1])
        assert run.committed.cost == report["spent"]
    spent = sum(report["spent"] for report in reports)
    for balance in ledger.balances(SHARED):
        assert (balance.committed.cost, balance.reserved, balance.open_holds) == (spent, NOTHING, 0)
    assert spent > 700 - 9  # the key's ceiling was reached
    assert ledger.audit() == []
    ledger.close()


def test_tasks_of_several_loops_and_threads_share_one_ledger(ledger: SqliteLedger) -> None:
    ledger.set_limits(RUN, Limits(cost=300))

    async def call() -> int:
        made = new_id()
        if await ledger.aio.reserve(made, BOTH, cost(7), cost(7)) != HELD:
            return 0
        return (await ledger.aio.commit(made, BOTH, cost(5))).charged.cost

    async def many() -> int:
        return sum(await asyncio.gather(*(call() for _ in range(40))))

    def alone() -> int:
        return sum(ledger.commit(made, BOTH, cost(5)).charged.cost for made in held())

    def held() -> Iterator[str]:
        for _ in range(10):
            made = new_id()
            if ledger.reserve(made, BOTH, cost(7), cost(7)) == HELD:
                yield made

    spent = sum(race([lambda: asyncio.run(many())] * 3 + [alone] * 3))
    assert committed(ledger) == [spent, spent]
    assert 300 - 7 < spent <= 300


def test_of_a_hundred_calls_of_one_run_exactly_as_many_pass_as_fit(ledger: SqliteLedger, path: Path) -> None:
    elsewhere = SqliteLedger(path)
    team = Scope("team", "t")
    ledger.set_limits(team, Limits(cost=10**9))  # one dollar, for both runs together

    async def one_call(run: Session) -> bool:
        decision = await run.aauthorize(call())
        if decision.reservation is None:
            return False
        await decision.reservation.aforward()
        await decision.reservation.acommit(Usage())
        return True

    async def main() -> int:
        runs = [session("$5.00", ledger=each, scopes=[team]) for each in (ledger, elsewhere)]
        return sum(await asyncio.gather(*(one_call(runs[number % 2]) for number in range(100))))

    assert asyncio.run(main()) == 10
    (balance,) = ledger.balances((team,))
    assert (balance.committed.cost, balance.reserved, balance.open_holds) == (10**9, NOTHING, 0)
    elsewhere.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_both_sides_of_a_fork_use_the_ledger(ledger: SqliteLedger) -> None:
    stop = threading.Event()
    spent = 0

    def keep_spending() -> None:
        nonlocal spent
        while not stop.is_set():
            spend(ledger, 1)
            spent += 1

    def child() -> None:
        for _ in range(5):
            spend(ledger, 1)
        ledger.close()

    ledger.set_limits(RUN, Limits())
    ledger.set_limits(USER, Limits())
    thread = threading.Thread(target=keep_spending)
    thread.start()
    children = [multiprocessing.get_context("fork").Process(target=child) for _ in range(4)]
    for each in children:
        each.start()
    for each in children:
        each.join(60)
    stop.set()
    thread.join()
    spend(ledger, 1)
    assert [each.exitcode for each in children] == [0] * 4
    assert committed(ledger) == [spent + 4 * 5 + 1] * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_may_fork_again(ledger: SqliteLedger) -> None:
    def grandchild() -> None:
        spend(ledger, 1)
        ledger.close()

    def child() -> None:
        for uses_it_first in (False, True):
            if uses_it_first:
                spend(ledger, 1)
            each = multiprocessing.get_context("fork").Process(target=grandchild)
            each.start()
            each.join(60)
            assert each.exitcode == 0
        spend(ledger, 1)
        ledger.close()

    spend(ledger, 1)
    first = multiprocessing.get_context("fork").Process(target=child)
    first.start()
    first.join(120)
    assert first.exitcode == 0
    spend(ledger, 1)
    assert committed(ledger) == [6] * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_finds_no_file_open(ledger: SqliteLedger, path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no /proc here")
    read, write = os.pipe()
    spend(ledger, 1)
    child = os.fork()
    if child == 0:
        links = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        os.write(write, b"open" if any(link.startswith(str(path)) for link in links) else b"none")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 4) == b"none"
    os.close(read)
    os.close(write)
    spend(ledger, 1)


# the event loop is never stalled, and one request never spoils another


def test_the_event_loop_goes_on_while_another_process_has_the_file(
    ledger: SqliteLedger, other_process: sqlite3.Connection
) -> None:
    async def main() -> int:
        other_process.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(ledger.aio.reserve(new_id(), BOTH, cost(1), cost(1)))
        turns = 0
        while turns < 500:
            await asyncio.sleep(0)
            turns += 1
        assert not waiting.done()
        other_process.execute("ROLLBACK")  # were the loop stalled, nobody would ever get here
        assert await waiting == HELD
        return turns

    assert asyncio.run(main()) == 500


def test_balances_are_read_while_another_process_writes(
    ledger: SqliteLedger, other_process: sqlite3.Connection
) -> None:
    spend(ledger, 3)
    other_process.execute("BEGIN IMMEDIATE")
    assert committed(ledger) == [3, 3]
    assert ledger.audit() == []
    other_process.execute("ROLLBACK")


def in_one_batch(
    ledger: SqliteLedger, other_process: sqlite3.Connection, verbs: list[Callable[[], Awaitable[Any]]]
) -> list[Any]:
    """What *verbs* answer, all of them performed in one transaction."""

    async def main() -> list[Any]:
        other_process.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(ledger.aio.restore(RUN))
        await asyncio.to_thread(other_process.execute, "SELECT 1")  # the writer has taken the first one meanwhile
        rest = asyncio.gather(*(verb() for verb in verbs), return_exceptions=True)
        await asyncio.sleep(0)
        other_process.execute("ROLLBACK")
        await first
        return await rest

    return asyncio.run(main())


def test_a_verb_that_fails_leaves_the_rest_of_its_batch_alone(
    ledger: SqliteLedger, other_process: sqlite3.Connection
) -> None:
    spent, aio = spend(ledger, 10), ledger.aio
    stranger = Scope("user", "nobody")
    wrong: Any = object()
    verbs: list[Callable[[], Awaitable[Any]]] = [
        lambda: aio.reserve(new_id(), BOTH, cost(1), cost(1)),
        lambda: aio.reserve(new_id(), (RUN, stranger), cost(1), cost(1)),
        lambda: aio.reserve(new_id(), BOTH, cost(2_000), cost(2_000)),
        lambda: aio.commit(spent, BOTH, cost(11)),
        lambda: aio.forward(new_id()),
        lambda: aio.commit(new_id(), BOTH, cost(-1)),
        lambda: aio.reserve("no id", BOTH, cost(1), cost(1)),
        lambda: aio.reserve(new_id(), (Scope("run", wrong),), cost(1), cost(1)),
        lambda: aio.balances((Scope("user", 1),)),  # type: ignore[arg-type]  # what an untyped caller may do
        lambda: aio.sweep(wrong),
        lambda: aio.balances((Scope("user", "\ud800"),)),
        lambda: aio.revoke(USER, "\ud800"),
        lambda: aio.adjust(new_id(), RUN, cost(1), "\ud800"),
        lambda: aio.swap("\ud800", None, "x", 60),
        lambda: aio.swap("place", None, "\ud800", 60),
        lambda: aio.swap("place", None, "x", 0),
        lambda: aio.reserve(new_id(), BOTH, cost(1), cost(1)),
    ]
    answers = in_one_batch(ledger, other_process, verbs)
    kinds = [HELD if answer == HELD else type(answer) for answer in answers]
    assert kinds[:7] == [HELD, KeyError, Refused, ReservationConflict, UnknownReservation, ValueError, ValueError]
    assert kinds[7:16] == [ValueError] * 9
    blamed = [re.split(r"[=(]", str(answer))[0] for answer in answers[7:16]]
    assert blamed == ["scope", "scope", "sweep", "scope", "reason", "reason", "name", "text", "ttl_s"]
    assert kinds[16] is HELD
    assert [balance[2:5] for balance in ledger.balances(BOTH)] == [(cost(10), cost(2), 2)] * 2


def test_verbs_of_one_batch_see_each_other(ledger: SqliteLedger, other_process: sqlite3.Connection) -> None:
    aio, made, again = ledger.aio, new_id(), new_id()
    answers = in_one_batch(
        ledger,
        other_process,
        [
            lambda: aio.reserve(made, BOTH, cost(600), cost(600)),
            lambda: aio.reserve(again, BOTH, cost(600), cost(600)),
            lambda: aio.commit(made, BOTH, cost(100)),
            lambda: aio.reserve(again, BOTH, cost(600), cost(600)),
            lambda: aio.release(again, BOTH),
            lambda: aio.release(again, BOTH),
            lambda: aio.set_limits(Scope("team", "t"), Limits(cost=5)),
            lambda: aio.charge(new_id(), (Scope("team", "t"), RUN), cost(6)),
            lambda: aio.suspended(),
            lambda: aio.balances((*BOTH, Scope("team", "t"))),
        ],
    )
    assert answers[0] == HELD
    assert isinstance(answers[1], Refused)
    assert answers[2].committed == cost(100)
    assert answers[3:7] == [HELD, True, False, None]
    assert answers[7].scope == Scope("team", "t")
    assert [balance.committed.cost for balance in answers[9]] == [106, 100, 6]


def test_a_sweep_sees_what_its_batch_has_settled_and_extended(path: Path) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock)
    limit(ledger)
    extended, settled, due, sent = (new_id(clock) for _ in range(4))
    for each in (extended, settled, due, sent):
        ledger.reserve(each, BOTH, cost(1), None, 5)
    ledger.forward(sent)
    clock.advance(6)
    other_process = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    aio = ledger.aio
    verbs: list[Callable[[], Awaitable[Any]]] = [
        lambda: aio.extend(extended, 5),
        lambda: aio.release(settled, BOTH),
        aio.sweep,
        aio.sweep,
        aio.suspended,
    ]
    answers = in_one_batch(ledger, other_process, verbs)
    assert answers[:4] == [True, True, 2, 0]
    assert [each.hold_id for each in answers[4]] == [sent]
    other_process.close()
    assert [balance[2:5] for balance in ledger.balances(BOTH)] == [(NOTHING, cost(2), 2)] * 2
    assert ledger.audit() == []
    ledger.close()


def test_a_cancelled_caller_leaves_its_verb_to_be_performed(
    ledger: SqliteLedger, other_process: sqlite3.Connection
) -> None:
    made = new_id()

    async def main() -> None:
        other_process.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(ledger.aio.charge(made, BOTH, cost(4)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other_process.execute("ROLLBACK")
        await ledger.aio.balances(BOTH)

    asyncio.run(main())
    assert committed(ledger) == [4, 4]


class PatientClock(SystemClock):
    """Real time in which a pause ends only when somebody ends it."""

    def __init__(self) -> None:
        self.woken: list[bool] = []

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        self.woken.append(condition.wait_for(ready, 20))
        return self.woken[-1]

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        done, _ = await asyncio.wait({future}, timeout=20)
        self.woken.append(bool(done))
        return self.woken[-1]


def test_whoever_waits_is_woken_at_once_by_room_made_in_the_same_process(path: Path) -> None:
    clock = PatientClock()
    ledger = SqliteLedger(path, clock=clock)
    limit(ledger)
    made = new_id()
    ledger.reserve(made, BOTH, cost(1_000), None)
    refused = ledger.reserve(new_id(), BOTH, cost(1), cost(1))
    assert isinstance(refused, Refused)

    async def both() -> list[Any]:
        waiting = asyncio.create_task(ledger.aio.await_room(refused.version, 60))
        blocking = asyncio.create_task(asyncio.to_thread(ledger.await_room, refused.version, 60))
        await asyncio.sleep(0)
        await ledger.aio.balances(BOTH)  # both have looked, or will see the release
        await ledger.aio.release(made, BOTH)
        return [await waiting, await blocking]

    assert asyncio.run(both()) == [True, True]
    assert clock.woken and all(clock.woken)
    ledger.close()


def test_whoever_waits_hears_of_room_made_by_another_process(ledger: SqliteLedger, path: Path) -> None:
    elsewhere = SqliteLedger(path)
    made = new_id()
    elsewhere.reserve(made, BOTH, cost(1_000), None)
    refused = ledger.reserve(new_id(), BOTH, cost(1), cost(1))
    assert isinstance(refused, Refused)

    async def both() -> bool:
        waiting = asyncio.create_task(ledger.aio.await_room(refused.version, 60))
        await asyncio.sleep(0)
        await elsewhere.aio.release(made, BOTH)
        return await waiting

    assert asyncio.run(both()) is True
    assert ledger.await_room(refused.version, 60) is True
    elsewhere.close()


# files and disks that fail


def test_a_file_that_another_process_keeps_locked_is_unavailable_and_nothing_is_applied(path: Path) -> None:
    ledger = SqliteLedger(path, busy_timeout_s=0.02)
    limit(ledger)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    made = new_id()
    with pytest.raises(LedgerUnavailable, match="locked") as caught:
        ledger.reserve(made, BOTH, cost(5), cost(5))
    assert not isinstance(caught.value, LedgerAmbiguous)
    other.execute("ROLLBACK")
    other.close()
    assert ledger.balances(BOTH)[0].reserved == NOTHING
    assert ledger.reserve(made, BOTH, cost(5), cost(5)) == HELD
    ledger.close()


@pytest.mark.parametrize(
    ("pragma", "words"), [("max_page_count = 1", "full"), ("query_only = ON", "readonly")], ids=["full", "read-only"]
)
def test_a_disk_that_is_full_or_read_only_is_unavailable_and_nothing_is_applied(
    path: Path, opened: list[sqlite3.Connection], pragma: str, words: str
) -> None:
    ledger = SqliteLedger(path)
    limit(ledger)
    before = ledger.balances(BOTH)
    opened[-1].execute(f"PRAGMA {pragma}")
    huge = Scope("run", "x" * 100_000)

    async def several() -> list[Any]:
        verbs = [ledger.aio.charge(new_id(), BOTH, cost(1)), ledger.aio.set_limits(huge, Limits())]
        return await asyncio.gather(*verbs, return_exceptions=True)

    answers = asyncio.run(several())
    assert isinstance(answers[1], LedgerUnavailable)
    assert words in str(answers[1])
    assert isinstance(answers[1].__cause__, sqlite3.Error)
    assert str(path) in str(answers[1])
    failed = sum(isinstance(answer, LedgerUnavailable) for answer in answers)
    assert [balance.committed.cost for balance in ledger.balances(BOTH)] == [2 - failed] * 2
    assert failed == 2 or words == "full"  # a charge in a batch of its own still found a place
    spend(ledger, 3)  # a new connection, and the disk is well again
    assert ledger.audit() == []
    assert ledger.balances(BOTH)[0].committed.cost == before[0].committed.cost + 2 - failed + 3
    ledger.close()


@pytest.mark.parametrize("when", ["at the commit", "before"])
def test_a_write_that_the_disk_refuses_is_ambiguous_only_at_the_commit(
    path: Path, opened: list[sqlite3.Connection], when: str
) -> None:
    resource = pytest.importorskip("resource")
    ledger = SqliteLedger(path)
    limit(ledger)
    spend(ledger, 3)
    if when == "before":
        opened[-1].execute("PRAGMA cache_size = 1")  # pages go out as soon as they are written
    huge = Scope("run", "x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(LedgerUnavailable, match="I/O") as caught:
            ledger.set_limits(huge, Limits())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value, LedgerAmbiguous) is (when == "at the commit")
    with pytest.raises(KeyError):
        ledger.balances((huge,))
    spend(ledger, 5)
    assert committed(ledger) == [8, 8]
    assert ledger.audit() == []
    ledger.close()


def test_a_damaged_file_is_unavailable_and_the_audit_says_so(path: Path) -> None:
    ledger = SqliteLedger(path)
    limit(ledger)
    for _ in range(30):
        spend(ledger, 3)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4_096] + bytes(len(whole) - 4_096))
    with pytest.raises(LedgerUnavailable):
        SqliteLedger(path).balances(BOTH)


def test_counters_that_were_tampered_with_are_found(ledger: SqliteLedger, other_process: sqlite3.Connection) -> None:
    spend(ledger, 3)
    other_process.execute("UPDATE scope SET committed_cost = committed_cost - 1, open_holds = 2 WHERE kind = 'user'")
    wrong = ledger.audit()
    assert [line.split(" is ")[0] for line in wrong] == ["user:u1: committed", "user:u1: open_holds"]
    assert wrong == asyncio.run(_audit(ledger))
    other_process.execute("UPDATE scope SET committed_cost = committed_cost + 1, open_holds = 0 WHERE kind = 'user'")


@pytest.mark.parametrize(("window", "told"), [("none", True), ("hour", True), ("day", True), ("minute", False)])
def test_a_history_that_was_tampered_with_is_found(path: Path, window: Window, told: bool) -> None:
    clock, without = FakeClock(), Scope("live", "counted without a history")
    ledger = SqliteLedger(path, clock=clock)
    ledger.set_limits(USER, Limits(), window)
    ledger.set_limits(without, Limits())
    clock.advance(61)  # so that a minute begins in the middle of an hour
    for scope in (USER, without):
        ledger.charge(new_id(clock), (scope,), cost(3))
    assert ledger.audit() == []
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE usage SET cost = cost + 1")
    other.close()
    assert [line.split(" ")[0] for line in ledger.audit()] == ["user:u1:"] * told
    ledger.close()


async def _audit(ledger: SqliteLedger) -> Any:
    return await ledger.aio.audit()


def test_a_ledger_is_closed_by_who_awaits_it_as_well(path: Path) -> None:
    ledger = SqliteLedger(path, durable=False)
    asyncio.run(ledger.aio.close())
    with pytest.raises(LedgerUnavailable, match="was closed"):
        ledger.set_limits(USER, Limits())


@pytest.mark.parametrize("change", ["delete", "replace"])
def test_a_file_that_is_deleted_or_replaced_in_use_is_unavailable(path: Path, change: str) -> None:
    ledger = SqliteLedger(path)
    limit(ledger)
    path.unlink()
    if change == "replace":
        SqliteLedger(path).close()
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="gone" if change == "delete" else "replaced"):
            spend(ledger, 1)
    assert path.exists() is (change == "replace")
    ledger.close()


# what SQLite keeps beside the file


def run_of(ledger: Ledger, nano: int) -> int:
    """Open a user with a ceiling of 100 as an authority does, and spend up to *nano* in tens; what was let through."""
    try:
        ledger.balances((USER,))
    except KeyError:
        ledger.set_limits(USER, Limits(cost=100))
    ids = [new_id() for _ in range(nano // 10)]
    held = [each for each in ids if ledger.reserve(each, (USER,), cost(10), cost(10)) == HELD]
    for each in held:
        ledger.commit(each, (USER,), cost(10))
    return 10 * len(held)


@pytest.mark.parametrize("taken", [("-wal",), ("-shm",), ("-wal", "-shm")], ids="+".join)
def test_a_ledger_whose_latest_counts_were_taken_away_refuses_and_counts_nothing_anew(
    path: Path, taken: tuple[str, ...]
) -> None:
    ledger = SqliteLedger(path)
    assert run_of(ledger, 90) == 90
    for suffix in taken:
        Path(f"{path}{suffix}").unlink()
    with pytest.raises(LedgerUnavailable, match="is gone"):  # whoever comes new, in this process or another
        SqliteLedger(path, busy_timeout_s=0.05)
    with pytest.raises(LedgerUnavailable, match="was there and is gone"):
        run_of(ledger, 10)
    ledger.close()  # the last one to let go writes what was taken away to the file
    again = SqliteLedger(path)
    assert run_of(again, 100) == 10
    assert again.audit() == []
    again.close()


def test_what_was_counted_is_kept_by_one_that_lets_go_of_what_was_taken_away_before_another_does(path: Path) -> None:
    ledger = SqliteLedger(path)
    assert run_of(ledger, 90) == 90
    reads = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("SELECT 1 FROM ledger").fetchone(), flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", reads, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"(1,)\n"
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    ledger.close()  # SQLite leaves it to the other one, which is killed
    other.kill()
    other.communicate()
    again = SqliteLedger(path)
    assert run_of(again, 100) == 10
    again.close()


@pytest.mark.parametrize("ends", [True, False], ids=["it ends", "it does not end"])
def test_what_was_taken_away_is_written_out_when_a_read_ends_that_began_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    ledger = SqliteLedger(path)
    assert run_of(ledger, 10) == 10
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT 1 FROM ledger").fetchone()
    assert run_of(ledger, 80) == 80
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if ends and reader.in_transaction:
            reader.execute("COMMIT")

    monkeypatch.setattr(sqlite_file_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    ledger.close()
    assert now[0] == (0.001 if ends else pytest.approx(1, abs=0.0011))
    if not ends:
        reader.close()  # it is the last one then
    alone = sqlite3.connect(shutil.copy(path, path.with_name("alone.db")))
    assert alone.execute("SELECT committed_cost FROM scope WHERE kind = 'user'").fetchone() == (90,)
    alone.close()
    reader.close()


@pytest.mark.parametrize("replaced", ["-wal", "-shm"])
def test_a_ledger_whose_latest_counts_were_replaced_writes_nothing_over_what_others_count(
    path: Path, replaced: str
) -> None:
    ledger = SqliteLedger(path)
    run_of(ledger, 90)
    beside = Path(f"{path}{replaced}")
    theirs = beside.read_bytes()
    beside.unlink()
    beside.write_bytes(theirs)
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="replaced"):
        run_of(ledger, 10)
    ledger.close()
    assert (path.read_bytes(), beside.read_bytes()) == (before, theirs)


@pytest.mark.parametrize("version", [(3, 11), (3, 12)], ids=["never closed", "closed without a word"])
def test_a_file_that_others_count_in_is_let_go_of_without_a_last_word(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    told: list[Any] = []
    db: Any = SimpleNamespace(setconfig=told.append, close=lambda: told.append("closed"))
    before = sys.getrefcount(db)
    with monkeypatch.context() as newer:
        newer.setattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", 1_006, raising=False)
        newer.setattr(sys, "version_info", version)
        sqlite_file_module._abandon(db)
    kept = sys.getrefcount(db) - before
    assert (told, kept) == (([1_006, "closed"], 0) if version == (3, 12) else ([], 1))


def test_files_that_are_gone_by_the_time_of_the_commit_make_it_ambiguous(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SqliteLedger(path)
    limit(ledger)
    save = Transaction.save

    def and_take_away(self: Transaction) -> None:
        save(self)
        Path(f"{path}-shm").unlink(missing_ok=True)

    monkeypatch.setattr(Transaction, "save", and_take_away)
    with pytest.raises(LedgerAmbiguous, match="is gone"):
        spend(ledger, 1)
    monkeypatch.undo()
    ledger.close()


def test_what_a_crash_left_without_its_latest_counts_is_refused_and_says_what_to_do(path: Path) -> None:
    ledger = SqliteLedger(path)
    run_of(ledger, 90)
    shm = Path(f"{path}-shm").read_bytes()
    ledger.close()
    Path(f"{path}-shm").write_bytes(shm)  # as a killed process leaves it, and then ``-wal`` was deleted
    with pytest.raises(LedgerUnavailable, match=r"budget\.db-wal is gone.*delete budget\.db-shm"):
        SqliteLedger(path, busy_timeout_s=0)
    Path(f"{path}-shm").unlink()
    SqliteLedger(path).close()


def test_a_file_in_an_earlier_state_than_it_was_is_refused(path: Path) -> None:
    ledger = SqliteLedger(path)
    run_of(ledger, 10)
    ledger._writer.let_go()
    earlier = path.read_bytes()
    run_of(ledger, 80)
    ledger._writer.let_go()
    path.write_bytes(earlier)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="earlier state"):
            run_of(ledger, 10)
    ledger.close()


def test_8_processes_never_pass_a_ceiling_whatever_is_taken_away(tmp_path: Path) -> None:
    def take_away(path: Path, suffixes: Sequence[str]) -> None:
        for suffix in suffixes:
            Path(f"{path}{suffix}").unlink(missing_ok=True)

    taken = (("-wal",), ("-shm",), ("-wal", "-shm"))
    paths = [tmp_path / f"{number}.db" for number in range(len(taken))]
    paid = paid_by_8_processes(
        {f"sqlite:///{path}": partial(take_away, path, each) for path, each in zip(paths, taken, strict=True)}
    )
    assert all(40 <= calls <= 100 for calls in paid.values()), dict(zip(taken, paid.values(), strict=True))


@pytest.mark.skipif(os.name != "posix", reason="no permissions here")
@pytest.mark.parametrize(
    ("options", "mode"), [({}, 0o600), ({"mode": 0o660}, 0o660)], ids=["by default", "for the group"]
)
def test_what_was_spent_is_for_its_owner_to_read_unless_something_else_is_said(
    path: Path, options: dict[str, Any], mode: int
) -> None:
    ledger = SqliteLedger(path, **options)
    limit(ledger)
    for suffix in ("", "-wal", "-shm"):
        assert os.stat(f"{path}{suffix}").st_mode & 0o777 == mode
    ledger.close()


@pytest.mark.parametrize("mode", [0, 0o400, 0o1777, -1, True, "0600"])
def test_permissions_that_make_no_sense_are_refused(path: Path, mode: Any) -> None:
    with pytest.raises(ValueError, match="mode="):
        SqliteLedger(path, mode=mode)


# whose file, and of which version


@pytest.mark.parametrize(
    ("error", "locked"),
    [
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("database table is locked: usage"), True),
        (sqlite3.OperationalError("disk I/O error"), False),
        (sqlite3.DatabaseError("database is locked"), False),
        (LedgerUnavailable(detail="locked"), False),
    ],
)
def test_only_what_somebody_else_has_locked_is_tried_again(error: Exception, locked: bool) -> None:
    assert sqlite_file_module.is_locked(error) is locked


@pytest.mark.parametrize(
    ("error", "committing", "ambiguous"),
    [
        (sqlite3.OperationalError("disk I/O error"), True, True),
        (sqlite3.OperationalError("disk I/O error"), False, False),
        (sqlite3.OperationalError("database or disk is full"), True, False),
        (LedgerUnavailable(detail="I/O"), True, False),
        (LedgerAmbiguous(detail="gone"), False, True),
    ],
)
def test_an_error_of_the_file_says_whether_it_may_have_been_done(
    error: Exception, committing: bool, ambiguous: bool
) -> None:
    found = sqlite_file_module.unavailable(Path("b.db"), error, committing=committing)
    assert type(found) is (LedgerAmbiguous if ambiguous else LedgerUnavailable)
    assert found is not error and str(error) in str(found)
    assert isinstance(error, LedgerUnavailable) or (found.__cause__ is error and "b.db: " in str(found))


@pytest.mark.parametrize(
    ("version", "taken"), [((3, 36, 9), False), ((3, 37, 0), True), ((2, 99, 0), False)], ids=["older", "oldest", "old"]
)
def test_a_sqlite_without_strict_tables_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], taken: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    if not taken:
        with pytest.raises(LedgerUnavailable, match="too old"):
            SqliteLedger(path)
        assert not path.exists()
    else:
        SqliteLedger(path).close()


@pytest.mark.parametrize("mark", ["PRAGMA application_id = 7", "PRAGMA user_version = 1", "CREATE TABLE precious (x)"])
def test_a_file_that_says_anything_of_another_program_is_refused(path: Path, mark: str) -> None:
    with sqlite3.connect(path) as theirs:
        theirs.execute(mark)
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="another program"):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE precious (x)")
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="another program"):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("Dear diary, today I spent nothing. " * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        SqliteLedger(path)
    assert path.read_text().startswith("Dear diary")


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="nowhere"):
        SqliteLedger(tmp_path / "nowhere" / "budget.db")


@pytest.mark.parametrize("name", ["", ":memory:", "file:budget.db?mode=memory"])
def test_a_path_that_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="path="):
        SqliteLedger(name)


@pytest.mark.parametrize(("option", "value"), [("retain", 0), ("busy_timeout_s", 0), ("hold_ttl_s", 0.001)])
def test_nothing_kept_and_no_wait_are_settings_too(tmp_path: Path, option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    ledger = SqliteLedger(tmp_path / "b.db", **options)
    ledger.set_limits(RUN, Limits(cost=10))
    ledger.charge(hold_id(SYSTEM_CLOCK.now_ms(), "a"), (RUN,), cost(3))
    assert ledger.balances([RUN])[0].committed == cost(3)
    ledger.close()


@pytest.mark.parametrize("option", ["hold_ttl_s", "retain", "busy_timeout_s"])
@pytest.mark.parametrize("value", [-1, -0.001, float("nan")])
def test_an_option_that_is_out_of_range_is_named(path: Path, option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=option):
        SqliteLedger(path, **options)
    assert not path.exists()


def test_the_file_says_what_it_is(ledger: SqliteLedger, other_process: sqlite3.Connection) -> None:
    assert other_process.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert other_process.execute("PRAGMA user_version").fetchone() == (NEWEST,)


def test_a_newer_file_is_refused_with_the_remedy(ledger: SqliteLedger, other_process: sqlite3.Connection) -> None:
    other_process.execute("PRAGMA user_version = 7")
    with pytest.raises(LedgerUnavailable, match=rf"version 7.*knows {NEWEST}.*upgrade"):
        SqliteLedger(other_process.execute("PRAGMA database_list").fetchone()[2])
    other_process.execute(f"PRAGMA user_version = {NEWEST}")


def newer(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let the library know one more version, to which *script* leads."""
    known = sqlite_file_module.scripts()
    monkeypatch.setattr(sqlite_file_module, "scripts", lambda: (*known, script))


def test_a_file_that_had_no_history_yet_gains_one_in_place(path: Path) -> None:
    clock = FakeClock()
    before = SqliteLedger(path, clock=clock)
    before.set_limits(RUN, Limits(cost=100))
    before.set_limits(USER, Limits(cost=100), "day")
    before.charge(_at(clock, "yesterday"), BOTH, cost(7))
    late = _at(clock, "late")
    before.reserve(late, BOTH, cost(9), cost(9))
    clock.advance(86_400)
    before.charge(_at(clock, "today"), BOTH, cost(12))
    guessed = _at(clock, "guessed")
    before.commit(guessed, BOTH, cost(20), True, (UsageLine(Labels(model="gpt"), cost(20)),))
    before.close()
    with sqlite3.connect(path) as file:  # as the version before has left it
        for statement in (
            "DROP TABLE kept",
            *("DROP TABLE usage", "ALTER TABLE scope DROP COLUMN counted_from", "ALTER TABLE hold DROP COLUMN lines"),
            "PRAGMA user_version = 2",
        ):
            file.execute(statement)
    file.close()

    ledger = SqliteLedger(path, clock=clock)
    assert ledger.audit() == []
    ledger.commit(guessed, BOTH, cost(11), False, (UsageLine(Labels(model="gpt"), cost(11)),))
    ledger.commit(late, BOTH, cost(5), False, (UsageLine(Labels(model="gpt"), cost(5)),))
    assert ledger.audit() == []

    def spent(scope: Scope, since: int) -> dict[Any, int]:
        found = ledger.usage(UsageQuery(scope.kind, scope.id, since, None, ("model",)))
        return {each.names[0]: each.quantities[0] for each in found}

    assert spent(RUN, 0) == {"": 7 + 12, "gpt": 11 + 5}
    assert spent(USER, clock.now_ms() // 3_600_000 // 24 * 24) == {"": 12, "gpt": 11}
    ledger.close()


def _at(clock: FakeClock, name: str) -> str:
    return hold_id(clock.now_ms(), name)


def test_a_file_of_the_first_version_keeps_what_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(path) as file:
        file.executescript(sqlite_file_module.scripts()[0])
        columns = "'none', NULL, 0, NULL, NULL, 0, 100" + ", NULL" * 5 + ", 30" + ", 0" * 17
        file.execute(f"INSERT INTO scope VALUES (1, 'run', 'r1', '', {columns})")
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
    file.close()
    ledger = SqliteLedger(path)
    (balance,) = ledger.balances((RUN,))
    assert (balance.limits, balance.committed, balance.note) == (Limits(cost=100), cost(30), "")
    ledger.set_limits(RUN, Limits(cost=100), note="pro")
    assert ledger.balances((RUN,))[0].note == "pro"
    ledger.close()


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SqliteLedger(path)
    limit(old)
    spent = spend(old, 30)
    old.close()
    with monkeypatch.context() as patch:
        newer(patch, "CREATE TABLE note (x TEXT) STRICT;\n-- and\nINSERT INTO note VALUES ('a;b');\n")
        ledgers = race([lambda: SqliteLedger(path)] * 4)
        assert committed(ledgers[0]) == [30, 30]
        assert ledgers[1].commit(spent, BOTH, cost(30)).charged == cost(30)
        for each in ledgers:
            each.close()
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT x FROM note").fetchall() == [("a;b",)]
        assert file.execute("PRAGMA user_version").fetchone() == (NEWEST + 1,)
    file.close()
    with pytest.raises(LedgerUnavailable, match="upgrade"):
        SqliteLedger(path)


def test_a_step_to_a_newer_version_that_fails_leaves_the_older_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SqliteLedger(path)
    limit(old)
    spend(old, 30)
    old.close()
    with monkeypatch.context() as patch:
        newer(patch, "CREATE TABLE note (x TEXT) STRICT;\nINSERT INTO nowhere VALUES (1);\n")
        with pytest.raises(LedgerUnavailable, match="nowhere"):
            SqliteLedger(path)
    again = SqliteLedger(path)
    assert committed(again) == [30, 30]
    again.close()


def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    ledgers = race([lambda: SqliteLedger(path)] * 8)
    limit(ledgers[0])
    for each in ledgers:
        spend(each, 1)
    assert committed(ledgers[0]) == [8, 8]
    for each in ledgers:
        each.close()


# numbers and names


def test_sums_never_become_inexact(ledger: SqliteLedger, other_process: sqlite3.Connection) -> None:
    wide = Scope("team", "wide")
    ledger.set_limits(wide, Limits(cost=2**62))
    most = Amounts(cost=MOST, output_tokens=MOST)

    async def charge_all() -> list[Any]:
        charges = (ledger.aio.charge(new_id(), (wide,), most) for _ in range(1_030))
        return await asyncio.gather(*charges, return_exceptions=True)

    answers = asyncio.run(charge_all())
    assert [type(answer) for answer in answers[1_024:]] == [OverflowError] * 6
    assert not any(isinstance(answer, Exception) for answer in answers[:1_024])
    (balance,) = ledger.balances((wide,))
    assert balance.committed.cost == balance.committed.output_tokens == 1_024 * MOST
    for scopes in ((RUN, wide), (wide, RUN)):
        with pytest.raises(OverflowError):
            ledger.reserve(new_id(), scopes, most, None)
    assert ledger.balances((RUN,))[0].open_holds == 0
    ledger.charge(new_id(), (wide,), cost(1_023))  # which is the most that a row can keep
    with pytest.raises(OverflowError):
        ledger.charge(new_id(), (wide,), cost(1))
    ledger.adjust(new_id(), wide, cost(-1_023), "credit note")
    columns = ["committed_cost", "reserved_cost", "archived_cost", "limit_cost"]
    types = other_process.execute(f"SELECT {', '.join(f'typeof({each})' for each in columns)} FROM scope").fetchall()
    assert set(types) == {("integer",) * 4}


def test_what_is_held_counts_in_a_sum_that_must_stay_exact(ledger: SqliteLedger) -> None:
    wide, most = Scope("team", "wide"), Amounts(cost=MOST)
    ledger.set_limits(wide, Limits())

    async def hold_all() -> list[Any]:
        holds = (ledger.aio.reserve(new_id(), (wide,), most, None) for _ in range(1_030))
        return await asyncio.gather(*holds, return_exceptions=True)

    answers = asyncio.run(hold_all())
    assert [type(answer) for answer in answers[1_024:]] == [OverflowError] * 6
    assert not any(isinstance(answer, Exception) for answer in answers[:1_024])
    with pytest.raises(OverflowError):
        ledger.charge(new_id(), (wide,), most)
    (balance,) = ledger.balances((wide,))
    assert (balance.reserved.cost, balance.committed.cost, balance.open_holds) == (1_024 * MOST, 0, 1_024)


def test_the_file_itself_refuses_what_is_no_whole_number(
    ledger: SqliteLedger, other_process: sqlite3.Connection
) -> None:
    for column in ("committed_cost", "reserved_cost"):
        for value in ("0.5", "9223372036854775807 + 1", "'x'", "NULL", "-1"):
            if (column, value) != ("committed_cost", "-1"):
                with pytest.raises(sqlite3.IntegrityError):
                    other_process.execute(f"UPDATE scope SET {column} = {value}")


@pytest.mark.parametrize("name", ["a'b\"c", "ä{}\n", "nul\0nul", "x" * 10_000, "", "run:1", "🙂"])
def test_any_text_names_a_scope_of_its_own(ledger: SqliteLedger, name: str) -> None:
    scope = Scope("user", name)
    ledger.set_limits(scope, Limits(cost=10))
    ledger.charge(new_id(), (scope,), cost(3))
    assert [balance.committed.cost for balance in ledger.balances((scope, *BOTH))] == [3, 0, 0]
    assert ledger.balances((scope,))[0].scope == scope


@pytest.mark.parametrize("verb", ["reserve", "commit", "release", "charge", "forward", "extend"])
@pytest.mark.parametrize(
    "bad", ["", "h", "0" * 12, "zzzzzzzzzzzz-h", "000000000000-" + "x" * 200, "000000000000-\ud800"]
)
def test_an_id_that_is_none_is_refused(ledger: SqliteLedger, verb: str, bad: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "reserve": (BOTH, cost(1), None),
        "commit": (BOTH, cost(1)),
        "release": (BOTH,),
        "charge": (BOTH, cost(1)),
        "extend": (60,),
    }
    with pytest.raises(ValueError, match="hold_id"):
        getattr(ledger, verb)(bad, *arguments.get(verb, ()))


# time, and what is forgotten


def test_time_never_goes_back_for_anybody(path: Path) -> None:
    now = datetime(2025, 6, 1, 12, tzinfo=timezone.utc)
    right, behind = FakeClock(now), FakeClock(now - timedelta(hours=1))
    first, second = SqliteLedger(path, clock=right), SqliteLedger(path, clock=behind)
    limit(first)
    first.revoke(USER, "stop")
    second.revoke(RUN, "stop too")
    assert [balance.revoked.at for balance in second.balances(BOTH) if balance.revoked] == [now, now]
    first.close()
    second.close()


def test_an_id_from_the_future_is_refused_for_it_would_make_all_others_stale(path: Path) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock)
    limit(ledger)
    near, far = (hold_id(clock.now_ms() + seconds * 1_000, "h") for seconds in (299, 301))
    assert ledger.reserve(near, BOTH, cost(1), None) == HELD
    for verb in (lambda: ledger.reserve(far, BOTH, cost(1), None), lambda: ledger.charge(far, BOTH, cost(1))):
        with pytest.raises(ValueError, match="301 s ahead"):
            verb()
    assert ledger.balances(BOTH)[0].committed == NOTHING
    ledger.close()


def test_a_hold_expires_after_the_ledgers_own_time_if_none_is_given(path: Path) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, hold_ttl_s=60)
    limit(ledger)
    never_sent, sent = new_id(clock), new_id(clock)
    for each in (never_sent, sent):
        ledger.reserve(each, BOTH, cost(5), None)
    ledger.forward(sent)
    clock.advance(59.9)
    assert ledger.sweep() == 0
    clock.advance(0.1)
    ledger.reserve(new_id(clock), BOTH, cost(1), cost(1))  # clears them away by itself
    assert [each.hold_id for each in ledger.suspended()] == [sent]
    assert ledger.balances(BOTH)[0].reserved == cost(6)
    assert ledger.sweep() == 0
    ledger.close()


def test_settled_holds_beyond_the_retained_ones_are_forgotten_a_slice_at_a_time(path: Path) -> None:
    clock = FakeClock()
    generous = SqliteLedger(path, clock=clock)
    for scope in BOTH:
        generous.set_limits(scope, Limits())
    kept = new_id(clock)
    generous.reserve(kept, BOTH, cost(1), None)
    ids = [new_id(clock) for _ in range(1_300)]
    charge_all(generous, ids, BOTH, 2)
    generous.close()

    clock.advance(301)
    ledger = SqliteLedger(path, clock=clock, retain=10)
    rows = sqlite3.connect(path)
    left = []
    for _ in range(3):
        ledger.restore(RUN)
        left.append(rows.execute("SELECT count(*) FROM hold").fetchone()[0])
        assert ledger.audit() == []
    rows.close()
    assert left == [301, 11, 11]
    assert committed(ledger) == [2_600, 2_600]
    with pytest.raises(StaleReservation):
        ledger.commit(ids[0], BOTH, cost(2))
    assert ledger.charge(ids[-1], BOTH, cost(2)) is None
    assert ledger.commit(kept, BOTH, cost(1)).committed == cost(2_601)
    ledger.close()


def test_what_cost_nothing_is_forgotten_like_the_rest(path: Path) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, retain=1)
    limit(ledger)
    first, second = new_id(clock), new_id(clock)
    for each in (first, second):
        ledger.reserve(each, BOTH, cost(1), None)
        ledger.release(each, BOTH)
    clock.advance(301)
    for _ in range(2):
        with pytest.raises(StaleReservation):
            ledger.forward(first)
    ledger.close()


@pytest.mark.parametrize("ahead_s", [240, 300, -240, -300])
def test_a_client_whose_clock_is_off_makes_nobody_stale(path: Path, ahead_s: int) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, durable=False, retain=3)
    limit(ledger)
    for _ in range(80):  # what the one settles is old enough to be forgotten in the middle of it
        for ahead in (ahead_s, 0):
            made = new_id(clock, ahead)
            assert ledger.reserve(made, BOTH, cost(1), cost(1)) == HELD
            ledger.forward(made)
            ledger.commit(made, BOTH, cost(1))
        clock.advance(10)
    charge_all(ledger, [new_id(clock, ahead_s) for _ in range(100)], BOTH, 0)
    assert ledger.reserve(new_id(clock, -300), BOTH, cost(1), cost(1)) == HELD
    with pytest.raises(StaleReservation):
        ledger.reserve(new_id(clock, -720), BOTH, cost(1), cost(1))
    assert committed(ledger) == [160, 160]
    ledger.close()


@pytest.mark.parametrize(("seconds", "times"), [(10 * 86_400, 29), (240, 100)])
def test_a_clock_that_was_ahead_for_minutes_or_by_minutes_makes_nothing_stale(
    path: Path, seconds: int, times: int
) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, durable=False, retain=3)
    limit(ledger)
    clock.turn(seconds)
    for _ in range(times):
        ledger.charge(new_id(clock), BOTH, cost(1))
        clock.advance(10)
    clock.turn(-seconds)
    charge_all(ledger, [new_id(clock) for _ in range(20)], BOTH)
    assert ledger.reserve(new_id(clock), BOTH, cost(1), cost(1)) == HELD
    ledger.close()


def test_what_is_remembered_is_bounded_by_the_tolerance(path: Path) -> None:
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, durable=False, retain=3)
    ledger.set_limits(RUN, Limits())
    rows = sqlite3.connect(path)
    for _ in range(100):
        charge_all(ledger, [new_id(clock) for _ in range(5)], (RUN,))
        clock.advance(10)
        assert rows.execute("SELECT count(*) FROM hold").fetchone()[0] <= 31 * 5
    rows.close()
    assert ledger.audit() == []
    ledger.close()


# the end


def test_a_closed_ledger_is_unavailable_and_did_what_it_was_asked_before(path: Path) -> None:
    ledger = SqliteLedger(path)
    limit(ledger)

    async def close_behind() -> None:
        charges = [asyncio.create_task(ledger.aio.charge(new_id(), BOTH, cost(1))) for _ in range(20)]
        await asyncio.sleep(0)
        await ledger.aio.close()
        await asyncio.gather(*charges)

    asyncio.run(close_behind())
    ledger.close()
    for verb in (lambda: ledger.balances(BOTH), ledger.audit):
        with pytest.raises(LedgerUnavailable, match="closed"):
            verb()
    again = SqliteLedger(path)
    assert committed(again) == [20, 20]
    again.close()


def test_a_ledger_that_nobody_holds_any_more_ends_its_thread(path: Path) -> None:
    before = set(threading.enumerate())
    ledger = SqliteLedger(path)
    (thread,) = set(threading.enumerate()) - before
    aio = ledger.aio
    del ledger
    gc.collect()
    assert thread.is_alive()  # the verbs to await still need it
    del aio
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("group", range(5))
def test_it_answers_every_verb_as_the_ledger_in_memory_does(tmp_path: Path, group: int) -> None:
    for number in range(group, 50, 5):
        clock = FakeClock()
        ledgers = MemoryLedger(clock=clock), SqliteLedger(tmp_path / f"{number}.db", clock=clock)
        assert differences(number, ledgers, clock, awaits=number % 2 == 1) == []


def test_a_history_with_many_labels_or_old_rows_is_that_of_the_ledger_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("history", "memory_history", "sqlite.usage"):
        monkeypatch.setattr(f"budget_guard.ledger.{module}.MOST_LABELS", 3)
    kept = Kept(hours=30, days=32, run_days=2)
    for number in range(12):
        clock = FakeClock()
        ledgers = (
            MemoryLedger(clock=clock, history=kept),
            SqliteLedger(tmp_path / f"{number}.db", clock=clock, history=kept, durable=False),
        )
        assert differences(number, ledgers, clock, crowded=True) == []
