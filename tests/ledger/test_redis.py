"""The ledger in Redis keeps the contract, on a real server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard.clock import SYSTEM_CLOCK, Clock, SystemClock
from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable, StaleReservation
from budget_guard.ledger import HELD, Ledger, MemoryLedger
from budget_guard.ledger.flow import run
from budget_guard.ledger.history import BY, By, Kept, Labels, UsageLine, UsageQuery
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.redis import RedisLedger, script_runner
from budget_guard.ledger.redis.connection import NoResponse, NotConnected, Server
from budget_guard.ledger.redis.keys import Keys
from budget_guard.ledger.redis.script_runner import Script, ScriptRunner, script
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import BOTH, OTHER, RUN, USER, LedgerContract, cost
from budget_guard.units.amounts import NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope, Window, window_start
from tests.ledger.alike import differences
from tests.ledger.machine import machine
from tests.ledger.redis_server import RedisServer, needs_redis_server
from tests.ledger.redis_worker import SHARED, scopes_of
from tests.ledger.simulation import live_through
from tests.ledger.taken import paid_by_8_processes

pytestmark = needs_redis_server

CHANGES = re.compile(r"fence\(\)|wrote\(\)|'(HSET|HDEL|DEL|ZADD|ZREM|HINCRBY)'")
"""What a script has that changes anything."""
RETAINED = 500
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class TimedRedisLedger(RedisLedger):
    """On a server that takes its time from a clock of ours."""

    def __init__(self, url: str, clock: Clock, **options: Any) -> None:
        self.clock = clock
        self.tenant = uuid.uuid4().hex
        super().__init__(url, **{"tenant": self.tenant, "clock": clock, "timeout_s": 5, **options})
        self._runner.now = self._clock_time

    def _clock_time(self) -> bytes:
        if isinstance(self.clock, SystemClock):
            return b""
        return b"%d" % ((self.clock.now() - EPOCH) // timedelta(microseconds=1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for the whole file. Every test has a tenant of its own there."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.stop()


class TestRedisLedger(LedgerContract):
    workers = 8
    rounds = 20

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.url = server.url

    def make_ledger(self, clock: Clock) -> Ledger:
        return TimedRedisLedger(self.url, clock, retain=RETAINED)

    def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
        forget_settled(ledger, clock)

    def close_ledger(self, ledger: Ledger) -> None:
        assert ledger.audit() == []
        ledger.close()


def forget_settled(ledger: Ledger, clock: FakeClock, remembered: int = RETAINED) -> None:
    """Settle one more, wait for the tolerance to pass, and settle as many others as the ledger lets gather."""
    others = Scope("team", "others")
    ledger.set_limits(others, Limits())
    clock.advance(0.001)
    ledger.charge(hold_id(clock.now_ms(), "the last"), (others,), cost(1))
    clock.advance(301)
    many = remembered + remembered // 10
    charge_all(ledger, [hold_id(clock.now_ms(), f"other-{number}") for number in range(many)], (others,))


def charge_all(ledger: Ledger, ids: Sequence[str], scopes: Sequence[Scope]) -> None:
    async def charge() -> None:
        await asyncio.gather(*(ledger.aio.charge(each, scopes, cost(1)) for each in ids))

    asyncio.run(charge())


def test_it_does_as_the_naive_ledger_does(server: RedisServer) -> None:
    def make(clock: Clock) -> Ledger:
        return TimedRedisLedger(server.url, clock, retain=50)

    machine(make, partial(forget_settled, remembered=50), examples=50).TestCase().runTest()


def test_it_lives_through_bad_histories(server: RedisServer) -> None:
    assert live_through(partial(TimedRedisLedger, server.url), range(20)) > 2_000


def test_every_key_is_named_beforehand(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may run a script only where all of its keys are."""
    strict = b"""
        local named, anything = {}, redis
        for _, key in ipairs(KEYS) do named[key] = true end
        local redis = {call = function(command, key, ...)
            if key and not named[key] then error('not named: ' .. key) end
            return anything.call(command, key, ...)
        end}
    """
    ran = set[str]()

    def watched(name: str) -> Script:
        ran.add(name)
        text = strict + script(name).text
        return Script(text, b"0" * 40)  # no server has seen it

    changing = dict[str, bool]()
    asked = ScriptRunner.call

    def call(runner: ScriptRunner, name: str, keys: Any, *args: bytes, changes: bool = True) -> Any:
        changing[name] = changes
        return asked(runner, name, keys, *args, changes=changes)

    monkeypatch.setattr(ScriptRunner, "call", call)
    monkeypatch.setattr(script_runner, "script", watched)
    live_through(partial(TimedRedisLedger, server.url), range(2))
    clock = FakeClock()
    ledger = opened(server.url, clock, retain=10)
    forget_settled(ledger, clock, 10)
    ledger.adjust(_id(ledger), RUN, cost(3), "late bill")
    ledger.revoke(RUN, "stop")
    ledger.restore(RUN)
    ledger.await_room(0, 0)
    ledger.suspended()
    ledger.swap("place", None, "text", 60)
    with pytest.raises(KeyError):
        ledger.balances((Scope("user", "nobody"),))
    assert ledger.names("user") == ["u1", "u2"]
    ledger.usage(UsageQuery("user", None, 0, None, ("id", "model")))
    ledger.reopen()
    assert ledger.audit() == []
    scripts = {
        path.stem: path.read_text("utf-8") for path in (Path(script_runner.__file__).parent / "lua").glob("*.lua")
    }
    assert ran == scripts.keys() - {"common", "history", "settle"}
    # one that only reads waits for no replica, and one that is cut off is known to have changed nothing
    assert changing == {name: CHANGES.search(scripts[name]) is not None for name in changing}


def opened(url: str, clock: Clock = SYSTEM_CLOCK, **options: Any) -> TimedRedisLedger:
    """A ledger with a run of 100 nano-dollars, and two users of 1,000."""
    ledger = TimedRedisLedger(url, clock, **options)
    ledger.set_limits(RUN, Limits(cost=100))
    for user in (USER, OTHER):
        ledger.set_limits(user, Limits(cost=1_000))
    return ledger


def _id(ledger: TimedRedisLedger, name: str = "h", ahead_s: int = 0) -> str:
    return hold_id(ledger.clock.now_ms() + 1_000 * ahead_s, name)


def test_a_commit_says_what_is_left_so_that_nobody_has_to_look(server: RedisServer) -> None:
    ledger = opened(server.url)
    ledger.set_limits(RUN, Limits(cost=2**62))  # exact, though a script's numbers are not
    ledger.set_limits(USER, Limits(requests=9))
    made = _id(ledger)
    ledger.reserve(made, BOTH, cost(7), cost(7))
    assert ledger.commit(made, BOTH, cost(5)).cost_left == 2**62 - 5
    ledger.set_limits(RUN, Limits())
    assert ledger.commit(made, BOTH, cost(5)).cost_left is None


def test_a_store_that_had_no_history_yet_gains_one(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    ledger.set_limits(USER, Limits(cost=1_000), "day")
    ledger.charge(_id(ledger, "yesterday"), BOTH, cost(7))
    late, lines = _id(ledger, "late"), (UsageLine(Labels(model="gpt"), cost(11)),)
    ledger.reserve(late, BOTH, cost(9), cost(9))
    clock.advance(86_400)
    ledger.charge(_id(ledger, "today"), BOTH, cost(12))
    guessed = _id(ledger, "guessed")
    ledger.commit(guessed, BOTH, cost(20), True, lines)
    idle = Scope("user", "idle")
    ledger.set_limits(idle, Limits(cost=99))
    client = server.client()
    for key in client.keys(f"*{ledger.tenant}*"):  # as the version before has left it
        if client.type(key) == b"hash":
            for field in client.hkeys(key):
                if field in (b"from", b"lines", b"hl", b"hm") or re.match(rb"h\d", field):
                    client.hdel(key, field)
    assert ledger.audit() == []
    assert ledger.usage(UsageQuery("run", "r1", 0, None, ())) == []
    ledger.commit(guessed, BOTH, cost(11), False, lines)
    ledger.commit(late, BOTH, cost(5), False, (UsageLine(Labels(model="gpt"), cost(5)),))
    assert ledger.audit() == []
    found = ledger.usage(UsageQuery("run", "r1", 0, None, ("model",)))
    assert {each.names[0]: each.quantities[0] for each in found} == {"": 7 + 12, "gpt": 11 + 5}
    ledger.charge(_id(ledger, "first"), (idle,), cost(3))  # nothing was booked in it before
    assert ledger.audit() == [] and ledger.balances([idle])[0].committed == cost(3)
    client.close()


def test_an_audit_looks_at_the_history_of_every_scope_a_few_at_once(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    users = [Scope("user", f"m{number:02}") for number in range(45)]
    for user in users:
        ledger.set_limits(user, Limits())
        ledger.charge(_id(ledger, user.id), (user,), cost(7), (UsageLine(Labels(model="gpt"), cost(7)),))
    assert ledger.audit() == []
    client, keys = server.client(), Keys(ledger.tenant)
    damaged = (users[0], users[20], users[44])
    for user in damaged:
        field = next(each for each in client.hkeys(keys.scope(user)) if re.match(rb"h\d", each))
        client.hdel(keys.scope(user), field)
    wrong = ledger.audit()
    assert len(wrong) == 3 and all(any(str(user) in said for said in wrong) for user in damaged)
    assert len({each.names[0] for each in ledger.usage(UsageQuery("user", None, 0, None, ("id",)))}) == 42
    client.close()


def test_a_hold_that_was_prolonged_since_somebody_saw_it_due_is_not_expired(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    due, prolonged, sent = (_id(ledger, name) for name in ("due", "prolonged", "sent"))
    for each in (due, prolonged, sent):
        assert ledger.reserve(each, BOTH, cost(5), cost(5), 60, True, each == sent) == HELD
    clock.advance(60)
    ledger.extend(prolonged, 60)
    seen_due = [each.encode() for each in (due, prolonged, sent, _id(ledger, "unheard of"))]
    verbs: Any = ledger._verbs
    assert run(verbs._expire(seen_due), ledger._connections) == 2
    assert [each.hold_id for each in ledger.suspended()] == [sent]
    assert [(each.reserved.cost, each.open_holds) for each in ledger.balances(BOTH)] == [(10, 2)] * 2
    assert run(verbs._expire(seen_due), ledger._connections) == 0
    assert ledger.audit() == []


# --- ids and keys

HOSTILE = (
    *(
        "a",
        "a}{b",
        "{a}",
        "}",
        ":",
        "a:b",
        "a:b:c",
        "%3A",
        "%",
        "%-",
        "~",
        "*",
        " ",
        "\n",
        "a\r\nb",
        "\x00",
        "'\"",
        "\ud800",
    ),
    *("\N{PILE OF POO}" * 3_000, "x" * 10_000, "x" * 9_999 + "y"),
)


def test_no_hostile_id_reaches_another_scope(server: RedisServer) -> None:
    ledger = opened(server.url)
    scopes = [Scope(kind, id) for id in dict.fromkeys(HOSTILE) for kind in ("user", "user:a", "us%3Aer")]
    for scope in scopes:
        ledger.set_limits(scope, Limits(cost=10))
    for number, scope in enumerate(scopes):
        assert ledger.reserve(_id(ledger, f"h{number}"), (scope,), cost(10), cost(10)) == HELD
        ledger.commit(_id(ledger, f"h{number}"), (scope,), cost(10))
    assert all(balance.committed == cost(10) for balance in ledger.balances(scopes))
    assert ledger.balances((RUN,))[0].committed == NOTHING
    assert ledger.audit() == []


@pytest.mark.parametrize("unique", [each for each in HOSTILE if len(each) < 100])
def test_no_hostile_hold_id_reaches_another_hold(server: RedisServer, unique: str) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    ledger.reserve(_id(ledger, "plain"), BOTH, cost(5), cost(5))
    ledger.reserve(_id(ledger, unique), BOTH, cost(7), cost(7), 10)
    ledger.forward(_id(ledger, unique))
    clock.advance(11)
    assert ledger.sweep() == 1
    assert [each.hold_id for each in ledger.suspended()] == [hold_id(clock.now_ms() - 11_000, unique)]
    assert ledger.balances((RUN,))[0].reserved == cost(12)
    assert ledger.audit() == []


def test_tenants_share_nothing(server: RedisServer) -> None:
    names = list(dict.fromkeys(HOSTILE))
    ledgers = [RedisLedger(server.url, tenant=f"{uuid.uuid4().hex[:4]}{name}") for name in names]
    for number, ledger in enumerate(ledgers):
        ledger.set_limits(RUN, Limits(cost=number))
        ledger.charge(hold_id(SYSTEM_CLOCK.now_ms(), "c"), (RUN,), cost(number))
    before = server.client().dbsize()
    for number, ledger in enumerate(ledgers):
        assert ledger.balances((RUN,))[0].committed == cost(number)
        ledger.close()
    ledgers[0].set_limits(USER, Limits())
    assert server.client().dbsize() == before + 1


def test_a_tag_keeps_the_keys_of_a_tenant_together() -> None:
    for name in HOSTILE:
        keys = Keys(name)
        all_keys = [keys.tenant, keys.open, keys.hold("{x}"), keys.scope(Scope("{y}", "}{"))]
        assert len({key[key.index(b"{") : key.index(b"}") + 1] for key in all_keys}) == 1
        assert b"{}" not in keys.tenant
    with pytest.raises(ValueError, match="tenant"):
        Keys("")


def test_keys_are_those_that_earlier_versions_wrote() -> None:
    keys = Keys("acme/eu")
    names = ("tenant", "scopes", "open", "suspended", "settled")
    assert [getattr(keys, name) for name in names] == [b"budget:{acme%%2Feu}:%s" % name.encode() for name in names]
    assert keys.hold("0-1") == b"budget:{acme%2Feu}:hold:0-1"
    assert keys.text("p") == b"budget:{acme%2Feu}:text:p"
    hashed = b"%-0c5042bba186442e4358664ebacfeccf8d1e9d35"
    assert keys.named((Scope("user", "a:b"), Scope("run", "x" * 100), Scope("run", "x" * 101))) == (
        (
            b"budget:{acme%2Feu}:scope:user:a%3Ab",
            b"budget:{acme%2Feu}:scope:run:" + b"x" * 100,
            b"budget:{acme%2Feu}:scope:run:" + hashed,
        ),
        b'[["user","a:b"],["run","%s"],["run","%s"]]' % (b"x" * 100, b"x" * 101),
    )
    assert Keys("\u00fc" * 60).tenant == b"budget:{%-02743ba3060c6d06bbd7fd86898616c0f5e4b2ad}:tenant"


def test_a_window_that_is_none_is_refused_and_of_no_scopes_there_are_no_counters(server: RedisServer) -> None:
    ledger = opened(server.url, FakeClock())
    odd: Any = "fortnight"
    with pytest.raises(ValueError, match="window='fortnight' of run:r1 must be one of none, minute"):
        ledger.set_limits(RUN, Limits(), odd)
    assert ledger.balances(()) == []


@pytest.mark.parametrize(
    ("by", "rows"), [((), 1), (("day",), 2), (("hour",), 30), (("hour", "model"), 30), (("id",), 1)]
)
def test_a_sum_of_usage_comes_in_as_few_rows_as_are_asked_for(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, by: tuple[By, ...], rows: int
) -> None:
    came: list[Any] = []
    asked = ScriptRunner.call

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = yield from asked(*args, **kwargs)
        came.append(answer)
        return answer

    monkeypatch.setattr(ScriptRunner, "call", call)
    clock = FakeClock(datetime(2026, 6, 15, tzinfo=timezone.utc))
    ledger = opened(server.url, clock)
    for number in range(30):
        ledger.charge(_id(ledger, f"c{number}"), (RUN,), cost(1), (UsageLine(Labels(model="m"), cost(1)),))
        clock.advance(3_600)
    found = ledger.usage(UsageQuery("run", RUN.id, 0, None, by))
    assert sum(each.quantities[0] for each in found) == 30
    _, (answer,) = came[-1]
    assert len(answer) == rows


@pytest.mark.parametrize("hold", ["h", "0123456789ab", "0123456789AB-h", "0123456789ab-" + "x" * 188])
def test_what_is_no_id_is_refused_before_anything_is_sent(hold: str) -> None:
    ledger = RedisLedger("redis://127.0.0.1:1")
    for verb, more in (("reserve", (BOTH, cost(1), cost(1))), ("commit", (BOTH, cost(1))), ("release", (BOTH,))):
        with pytest.raises(ValueError, match="hold_id"):
            getattr(ledger, verb)(hold, *more)


# --- time


@pytest.mark.parametrize(("minutes", "side"), [(-6, "before"), (6, "after")])
def test_an_id_from_a_clock_that_is_off_is_refused_by_name(server: RedisServer, minutes: int, side: str) -> None:
    ledger = opened(server.url)
    made = hold_id(SYSTEM_CLOCK.now_ms() + minutes * 60_000, "h")
    with pytest.raises(StaleReservation, match=rf"3(59|60|61) s {side} the ledger's own time.*clock"):
        ledger.reserve(made, BOTH, cost(1), cost(1))
    assert ledger.balances((RUN,))[0].open_holds == 0


def test_what_was_spent_is_charged_however_late_it_is_heard_of(server: RedisServer) -> None:
    ledger = opened(server.url)
    ledger.commit(hold_id(SYSTEM_CLOCK.now_ms() - 3_600_000, "lost"), BOTH, cost(7))
    assert ledger.balances((RUN,))[0].committed == cost(7)


def test_windows_begin_when_the_calendar_says_so(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    day = datetime(1970, 1, 1, tzinfo=timezone.utc)
    windows: list[Window] = ["minute", "hour", "day", "week", "month"]

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 200 * 366 * 86_400 - 1), st.sampled_from(windows))
    def check(seconds: int, window: Window) -> None:
        at = day + timedelta(seconds=seconds)
        ledger.clock = FakeClock(at)
        scope = Scope("team", uuid.uuid4().hex)
        ledger.set_limits(scope, Limits(), window)
        ledger.charge(_id(ledger, uuid.uuid4().hex), (scope,), cost(5))
        start = window_start(window, at)
        assert start is not None
        for later, spent in ((at, 5), (start + timedelta(days=40), 0)):
            ledger.clock = FakeClock(later)
            balance = ledger.balances((scope,))[0]
            assert (balance.since, balance.committed.cost) == (window_start(window, later), spent)

    check()


def test_a_hold_that_is_extended_waits_for_nobody_any_more(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    hold = _id(ledger)
    ledger.reserve(hold, BOTH, cost(5), cost(5), 10)
    ledger.forward(hold)
    clock.advance(11)
    ledger.sweep()
    assert ledger.extend(hold, 10)
    ledger.commit(hold, BOTH, cost(5))
    client, keys = server.client(), Keys(ledger.tenant)
    assert (client.zcard(keys.suspended), client.zcard(keys.open), client.llen(keys.settled)) == (0, 0, 1)


# --- many processes


def test_processes_never_hold_more_than_any_ceiling_and_lose_nothing(server: RedisServer) -> None:
    tenant, names = uuid.uuid4().hex, [f"w{number}" for number in range(8)]
    ledger = RedisLedger(server.url, tenant=tenant)
    ceilings = (60, 200, 10_000, 10_000)
    for name in names:
        for scope, ceiling in zip(scopes_of(name), ceilings, strict=True):
            ledger.set_limits(scope, Limits(cost=ceiling))
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.redis_worker", server.url, tenant, name, "60"],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for name in names
    ]
    told = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    for _, largest in told:
        assert all(most <= ceiling for most, ceiling in zip(largest, ceilings, strict=True))
    spent = sum(spent for spent, _ in told)
    assert spent > 150  # the users' ceiling stopped them, not something else
    for balance in ledger.balances(SHARED):
        assert (balance.committed.cost, balance.reserved, balance.open_holds) == (spent, NOTHING, 0)
    assert ledger.audit() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gets_its_own_answers(server: RedisServer) -> None:
    program = """
import asyncio, os, sys
from tests.ledger.redis_worker import *
ledger = RedisLedger(sys.argv[1], tenant=sys.argv[2], timeout_s=10)
for scope in (*scopes_of("p"), *scopes_of("c")):
    ledger.set_limits(scope, Limits())
asyncio.run(ledger.aio.balances(SHARED))
child = os.fork()
name = "p" if child else "c"
spent, _ = spend(ledger, name, 100)
assert ledger.balances(scopes_of(name))[0].committed.cost == spent
assert asyncio.run(ledger.aio.balances(scopes_of(name)))[0].committed.cost == spent
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.audit() == []
"""
    program = program.replace("\n\n", "\n", 1).replace(
        "import *", "import *\nfrom budget_guard.units.amounts import Limits", 1
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, server.url, uuid.uuid4().hex],
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_that_forks_again_gets_its_own_answers_too(server: RedisServer) -> None:
    program = """
import os, sys
from tests.ledger.redis_worker import *
from budget_guard.units.amounts import Limits
ledger = RedisLedger(sys.argv[1], tenant=sys.argv[2], timeout_s=10)
for name in "pcg":
    for scope in scopes_of(name):
        ledger.set_limits(scope, Limits())
def spend_all(name):
    spent, _ = spend(ledger, name, 100)
    assert ledger.balances(scopes_of(name))[0].committed.cost == spent
child = os.fork()
if child == 0:
    ledger.balances(SHARED)  # its connection is one of its own now, and the next process' must not be the same
    grandchild = os.fork()
    spend_all("c" if grandchild else "g")
    if grandchild:
        assert os.waitpid(grandchild, 0)[1] == 0
    os._exit(0)
spend_all("p")
assert os.waitpid(child, 0)[1] == 0
assert ledger.audit() == []
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, server.url, uuid.uuid4().hex],
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )


# --- the server


def test_a_server_that_drops_counters_is_warned_about_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client()
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with caplog.at_level(logging.WARNING, "budget_guard"):
            ledger = opened(server.url)
            asyncio.run(ledger.aio.balances(BOTH))
        assert [record.getMessage() for record in caplog.records if "noeviction" in record.getMessage()] == [
            "Redis drops counters when its memory is full (maxmemory-policy is allkeys-lru), and a budget with them: "
            "set it to noeviction"
        ]
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def wrong_type(client: Any, key: bytes) -> None:
    client.delete(key)
    client.set(key, "not a scope")


def no_number(client: Any, key: bytes) -> None:
    client.hset(key, "a0", "NaN?")


def beyond_64_bits(client: Any, key: bytes) -> None:
    client.hset(key, "a0", str(-(2**63) + 5))


@pytest.mark.parametrize("damage", [wrong_type, no_number, beyond_64_bits])
def test_damage_in_one_scope_changes_nothing_in_the_others(
    server: RedisServer, damage: Callable[[Any, bytes], None]
) -> None:
    ledger = opened(server.url)
    for name in ("open", "free"):
        ledger.reserve(_id(ledger, name), (RUN, USER, OTHER), cost(10), cost(10))
    ids = {name: _id(ledger, name) for name in ("new", "c", "lost")}
    before = ledger.balances(BOTH)
    damage(server.client(), Keys(ledger.tenant).scope(OTHER))
    everywhere = (RUN, USER, OTHER)
    for verb in (
        lambda: ledger.reserve(ids["new"], everywhere, cost(1), cost(1)),
        lambda: ledger.commit(ids["lost"], everywhere, cost(1)),
        lambda: ledger.release(ids["lost"], everywhere),
        lambda: ledger.charge(ids["c"], everywhere, cost(1)),
    ):
        with pytest.raises(LedgerUnavailable):
            verb()
    assert ledger.balances(BOTH) == before
    assert server.client().zcard(Keys(ledger.tenant).open) == 2


def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer) -> None:
    ledger = opened(server.url)
    client = server.client()
    for number in range(3):
        client.script_flush()
        assert ledger.reserve(_id(ledger, f"h{number}"), BOTH, cost(1), cost(1)) == HELD
        client.script_flush()
        asyncio.run(ledger.aio.charge(_id(ledger, f"c{number}"), BOTH, cost(1)))
    assert ledger.balances((RUN,))[0][2:5] == (cost(3), cost(3), 3)


@pytest.mark.parametrize("way", ["blocking", "asyncio"])
@pytest.mark.parametrize(
    ("url", "kind", "settings"),
    [
        (
            "redis://u:p@h:7/3?decode_responses=true&health_check_interval=9&client_name=x&socket_timeout=99",
            "Connection",
            {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p", "client_name": "x"},
        ),
        ("rediss://h/1?ssl_cert_reqs=none", "SSLConnection", {"host": "h", "port": 6_379, "db": 1, "password": None}),
        ("unix:///x.sock?db=4", "UnixDomainSocketConnection", {"path": "/x.sock", "db": 4}),
    ],
)
def test_a_connection_has_the_address_of_its_url_and_settings_of_its_own(
    way: Literal["blocking", "asyncio"], url: str, kind: str, settings: dict[str, Any]
) -> None:
    server = Server(url, 0.25)
    made = server.connection(None, way)
    assert (type(made).__name__, "asyncio" in type(made).__module__) == (kind, way == "asyncio")
    own = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25, "health_check_interval": 0, "protocol": 2}
    assert {name: getattr(made, name) for name in (*settings, *own)} == {**settings, **own}
    assert (made.retry._retries, made.encoder.decode_responses) == (0, False)
    if "port" in settings:
        other = server.connection(("other", 9), way)
        assert (other.host, other.port, other.db) == ("other", 9, settings["db"])


def test_a_client_is_taken_over_with_its_address(server: RedisServer) -> None:
    ledger = RedisLedger(redis.Redis(port=server.port, decode_responses=True), tenant=uuid.uuid4().hex)
    ledger.set_limits(RUN, Limits(cost=5))
    assert asyncio.run(ledger.aio.balances((RUN,))) == ledger.balances((RUN,))


def test_what_is_no_server_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="URL of any of its nodes"):
        RedisLedger(object())  # type: ignore[arg-type]  # on purpose
    for options in ({"hold_ttl_s": 0}, {"retain": 0}, {"wait_replicas": -1}, {"timeout_s": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RedisLedger("redis://localhost", **options)  # type: ignore[arg-type]  # their types are right


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r'pip install "budget-guard-py\[redis\]"'):
        RedisLedger("redis://localhost")


def test_what_is_remembered_is_bounded(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def watched(name: str) -> Script:
        ran.append(name)
        return script(name)

    monkeypatch.setattr(script_runner, "script", watched)
    clock = FakeClock()
    ledger = opened(server.url, clock, retain=100)
    others = Scope("team", "others")
    ledger.set_limits(others, Limits())
    charge_all(ledger, [_id(ledger, f"c{number}") for number in range(1_000)], (others,))
    client, keys = server.client(), Keys(ledger.tenant)
    assert client.llen(keys.settled) == 1_000
    assert "forget" not in ran  # nobody tries what is too early
    clock.advance(301)
    for number in range(50):  # what came all at once is forgotten little by little
        ledger.charge(_id(ledger, f"d{number}"), (others,), cost(1))
    assert client.llen(keys.settled) <= 120
    assert ran.count("forget") <= 300  # not every caller does what one can do for all
    assert ledger.balances((others,))[0].committed == cost(1_050)
    assert ledger.audit() == []


@pytest.mark.parametrize("ahead_s", [240, 300, -240, -300])
def test_a_client_whose_clock_is_off_makes_nobody_stale(server: RedisServer, ahead_s: int) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock, retain=3)
    ledger.set_limits(RUN, Limits(cost=1_000))
    for number in range(80):  # what the one settles is old enough to be forgotten in the middle of it
        for name, ahead in (("off", ahead_s), ("right", 0)):
            made = _id(ledger, f"{name}{number}", ahead)
            assert ledger.reserve(made, BOTH, cost(1), cost(1)) == HELD
            ledger.forward(made)
            ledger.commit(made, BOTH, cost(1))
        clock.advance(10)
    charge_all(ledger, [_id(ledger, f"c{number}", ahead_s) for number in range(20)], BOTH)
    assert ledger.reserve(_id(ledger, "slow", -300), BOTH, cost(1), cost(1)) == HELD
    with pytest.raises(StaleReservation):
        ledger.charge(_id(ledger, "old", -720), BOTH, cost(1))
    assert ledger.balances((RUN,))[0].committed == cost(180)
    assert ledger.audit() == []


# --- what is counted, so that it is missed if it is lost, and waited for

COUNTS: dict[str, tuple[Callable[[TimedRedisLedger, str], object], bool, bool]] = {
    # the verb, about a hold that is there; whether it gives room; and whether it does so again where it is repeated
    "reserve": (lambda ledger, held: ledger.reserve(held, BOTH, cost(9), cost(9), 60), False, False),
    "forward": (lambda ledger, held: ledger.forward(held), False, False),
    "extend": (lambda ledger, held: ledger.extend(held, 60), False, False),
    "commit": (lambda ledger, held: ledger.commit(held, BOTH, cost(4)), True, False),
    "release": (lambda ledger, held: ledger.release(held, BOTH), True, False),
    "release of what was never held": (lambda ledger, held: ledger.release(f"{held}-other", BOTH), False, False),
    "charge": (lambda ledger, held: ledger.charge(f"{held}-other", BOTH, cost(4)), False, False),
    "adjust": (lambda ledger, held: ledger.adjust(f"{held}-other", USER, cost(4), "late bill"), True, False),
    "set_limits": (lambda ledger, held: ledger.set_limits(USER, Limits(cost=500)), True, True),
    "revoke": (lambda ledger, held: ledger.revoke(USER, "stop"), True, True),
    "restore": (lambda ledger, held: ledger.restore(USER), False, False),
}


@pytest.mark.parametrize("verb", COUNTS)
def test_every_verb_that_writes_is_counted_and_tells_of_the_room_that_it_gives(server: RedisServer, verb: str) -> None:
    ledger, client = opened(server.url), server.client()
    held, tenant = _id(ledger), Keys(ledger.tenant).tenant
    ledger.reserve(held, BOTH, cost(9), cost(9), 60)
    do, *gives = COUNTS[verb]
    for room in gives:
        sequence, version = map(int, client.hmget(tenant, "sequence", "version"))
        do(ledger, held)
        assert list(map(int, client.hmget(tenant, "sequence", "version"))) == [sequence + 1, version + room]
    client.close()


def test_what_a_ledger_does_by_itself_is_counted_as_well(server: RedisServer) -> None:
    clock = FakeClock()
    ledger, client = opened(server.url, clock, retain=4), server.client()
    tenant = Keys(ledger.tenant).tenant

    def counted_in(do: Callable[[], object]) -> tuple[int, int]:
        sequence, version = map(int, client.hmget(tenant, "sequence", "version"))
        do()
        now = [int(each) for each in client.hmget(tenant, "sequence", "version")]
        return now[0] - sequence, now[1] - version

    ledger.reserve(_id(ledger, "due"), BOTH, cost(9), cost(9), 60)
    ledger.reserve(_id(ledger, "sent"), BOTH, cost(9), cost(9), 120, True, True)
    clock.advance(60)
    assert counted_in(ledger.sweep) == (1, 1)
    clock.advance(60)
    assert counted_in(ledger.sweep) == (1, 0)  # what is suspended stays held
    assert counted_in(lambda: ledger.swap("place", None, "text", 60)) == (1, 0)
    assert counted_in(lambda: ledger.swap("place", None, "other", 60)) == (0, 0)
    charge_all(ledger, [_id(ledger, f"c{number}") for number in range(3)], BOTH)
    clock.advance(301)
    assert counted_in(lambda: ledger.charge(_id(ledger, "last"), BOTH, cost(1))) == (2, 0)  # forgotten: what expired
    with pytest.raises(StaleReservation):
        TimedRedisLedger(server.url, clock, tenant=ledger.tenant).charge(_id(ledger, "old", -421), BOTH, cost(1))
    drop(server.url, ledger.tenant, "scope:user:*")
    assert counted_in(ledger.reopen) == (1, 0)
    client.close()


# --- keys that are gone


KINDS = ("tenant", "scopes", "open", "suspended", "settled", "hold:*", "scope:user:*", "scope:run:*")


def drop(url: str, tenant: str, kind: str) -> int:
    """Delete every key of one kind, as an eviction or a careless operator does; how many there were."""
    client = redis.Redis.from_url(url)
    keys = list(client.scan_iter(match=f"budget:{{{tenant}}}:{kind}", count=1_000))
    return int(client.delete(*keys)) if keys else 0


def test_as_many_as_it_is_told_to_are_remembered_however_old_they_are(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock, retain=20)
    ledger.set_limits(RUN, Limits())
    old = [hold_id(clock.now_ms(), f"old-{number}") for number in range(15)]
    charge_all(ledger, old, (RUN,))
    clock.advance(7 * 86_400)
    charge_all(ledger, [hold_id(clock.now_ms(), f"new-{number}") for number in range(5)], (RUN,))
    charge_all(ledger, old, (RUN,))  # none is charged twice, and none is refused as too old to be known
    assert ledger.balances((RUN,))[0].committed == cost(20)
    ledger.close()


def test_the_server_is_never_told_to_forget_anything_by_itself(server: RedisServer) -> None:
    tenant = uuid.uuid4().hex
    ledger = RedisLedger(server.url, tenant=tenant, hold_ttl_s=0.001)
    ledger.set_limits(RUN, Limits(cost=100))
    ids = [hold_id(SYSTEM_CLOCK.now_ms(), f"h{number}") for number in range(6)]
    for each in ids[:4]:
        ledger.reserve(each, (RUN,), cost(1), cost(1), 60)
    ledger.forward(ids[0])
    ledger.commit(ids[1], (RUN,), cost(1), uncertain=True)
    ledger.release(ids[2], (RUN,))
    ledger.charge(ids[4], (RUN,), cost(1))
    ledger.adjust(ids[5], RUN, cost(1), "late bill")
    ledger.revoke(RUN, "stolen")
    ledger.restore(RUN)
    ledger.sweep()
    client = server.client()
    keys = list(client.scan_iter(f"*{tenant}*"))
    assert len(keys) > 8
    assert {client.ttl(key) for key in keys} == {-1}
    client.close()
    ledger.close()


def test_8_processes_never_pass_a_ceiling_whichever_key_is_dropped(server: RedisServer) -> None:
    tenants = {kind: uuid.uuid4().hex for kind in KINDS}
    paid = paid_by_8_processes(
        {
            f"{server.url}?tenant={tenant}": partial(assert_dropped, server.url, tenant, kind)
            for kind, tenant in tenants.items()
        }
    )
    assert all(40 <= calls <= 100 for calls in paid.values()), dict(zip(KINDS, paid.values(), strict=True))


def assert_dropped(url: str, tenant: str, kind: str) -> None:
    assert drop(url, tenant, kind) or kind in ("open", "suspended")  # which may be empty at the moment


@pytest.mark.parametrize("new", [False, True], ids=["by the same client", "by a new one"])
def test_a_scope_that_was_known_is_never_made_anew(server: RedisServer, new: bool) -> None:
    ledger = opened(server.url)
    ledger.charge(_id(ledger), BOTH, cost(90))
    assert drop(server.url, ledger.tenant, "scope:user:*") == 2
    if new:
        ledger = TimedRedisLedger(server.url, SYSTEM_CLOCK, tenant=ledger.tenant)
    held = _id(ledger, "held")
    for verb in (
        lambda: ledger.set_limits(USER, Limits(cost=1_000)),
        lambda: ledger.revoke(USER, "stop"),
        lambda: ledger.balances((USER,)),
        lambda: ledger.reserve(held, (USER,), cost(1), cost(1)),
        lambda: ledger.charge(held, (USER,), cost(1)),
        lambda: ledger.commit(held, (USER,), cost(1)),
    ):
        with pytest.raises(LedgerUnavailable, match=rf"fenced.*{USER}.*reopen\(\)|fenced.*reopen\(\)"):
            verb()
    with pytest.raises(LedgerUnavailable, match="fenced"):  # the whole tenant, until somebody has looked
        ledger.reserve(held, (RUN,), cost(1), cost(1))
    assert f"{USER}: its counters are gone" in ledger.audit()

    ledger.reopen()
    ledger.set_limits(USER, Limits(cost=1_000))
    ledger.adjust(_id(ledger, "found out"), USER, cost(90), "the provider's usage page")
    assert ledger.reserve(held, (RUN, USER), cost(1), cost(1)) == HELD
    assert ledger.balances((USER,))[0].committed == cost(90)


FINDS_A_SCOPE_GONE: dict[str, Callable[[Ledger, str], object]] = {
    "reserve": lambda ledger, id: ledger.reserve(id, BOTH, cost(1), cost(1)),
    "commit": lambda ledger, id: ledger.commit(id, BOTH, cost(1)),
    "release": lambda ledger, id: ledger.release(id, BOTH),
    "charge": lambda ledger, id: ledger.charge(id, BOTH, cost(1)),
    "adjust": lambda ledger, id: ledger.adjust(id, USER, cost(1), "late bill"),
    "balances": lambda ledger, id: ledger.balances((USER,)),
    "set_limits": lambda ledger, id: ledger.set_limits(USER, Limits(cost=1_000)),
    "revoke": lambda ledger, id: ledger.revoke(USER, "stop"),
}


@pytest.mark.parametrize("verb", FINDS_A_SCOPE_GONE)
def test_the_first_verb_that_finds_a_scope_gone_names_it_and_admits_nothing_from_then_on(
    server: RedisServer, verb: str
) -> None:
    ledger = opened(server.url)
    drop(server.url, ledger.tenant, "scope:user:*")
    with pytest.raises(LedgerUnavailable, match=f"lost the counters of {USER}"):
        FINDS_A_SCOPE_GONE[verb](ledger, _id(ledger))
    other = TimedRedisLedger(server.url, SYSTEM_CLOCK, tenant=ledger.tenant)
    with pytest.raises(LedgerUnavailable, match="fenced"):
        other.reserve(_id(other, "held"), (RUN,), cost(1), cost(1))


def test_a_scope_that_was_never_opened_is_a_key_error_as_ever(server: RedisServer) -> None:
    ledger = opened(server.url)
    with pytest.raises(KeyError, match="nobody"):
        ledger.balances((Scope("user", "nobody"),))
    assert ledger.reserve(_id(ledger), BOTH, cost(1), cost(1)) == HELD  # and fences nothing


def test_a_store_that_an_older_version_began_is_gone_on_with(server: RedisServer) -> None:
    ledger = opened(server.url)
    server.client().hdel(Keys(ledger.tenant).tenant, "scopes")
    ledger.set_limits(Scope("user", "new"), Limits())
    ledger.revoke(Scope("user", "newer"), "stop")
    assert ledger.reserve(_id(ledger), BOTH, cost(1), cost(1)) == HELD


@pytest.mark.parametrize("group", range(5))
def test_it_answers_every_verb_as_the_ledger_in_memory_does(server: RedisServer, group: int) -> None:
    for number in range(group, 50, 5):
        clock = FakeClock()
        ledgers = MemoryLedger(clock=clock), TimedRedisLedger(server.url, clock)
        assert differences(number, ledgers, clock, awaits=number % 2 == 1, late=False) == []


@pytest.mark.parametrize(
    ("most", "kept", "by"),
    [
        (3, Kept(hours=24_000, days=1_000, run_days=1_000), BY),
        (200, Kept(hours=30, days=32, run_days=2), BY),
        (3, Kept(hours=30, days=32, run_days=2), ("id", "hour", "day")),  # of a day any three have rows of their own
    ],
    ids=["many labels", "old rows", "old rows with many labels"],
)
def test_a_history_with_many_labels_or_old_rows_is_that_of_the_ledger_in_memory(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, most: int, kept: Kept, by: tuple[By, ...]
) -> None:
    for module in ("history", "memory_history"):
        monkeypatch.setattr(f"budget_guard.ledger.{module}.MOST_LABELS", most)

    def with_most(name: str) -> Script:
        names = b"MOST_LABELS, MOST_ROWS, DAY = "
        text = script(name).text.replace(names + b"200,", names + b"%d," % most)
        return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())

    monkeypatch.setattr(script_runner, "script", with_most)
    for number in range(12):
        clock = FakeClock()
        ledgers = MemoryLedger(clock=clock, history=kept), TimedRedisLedger(server.url, clock, history=kept)
        assert differences(number, ledgers, clock, late=False, crowded=True, by=by) == []


@pytest.mark.parametrize("bad", ["", "h", "0" * 12, "zzzzzzzzzzzz-h", "000000000000-" + "x" * 200])
def test_an_id_that_is_none_is_refused(server: RedisServer, bad: str) -> None:
    ledger = opened(server.url)
    verbs: list[Callable[[], object]] = [
        lambda: ledger.reserve(bad, BOTH, cost(1), None),
        lambda: ledger.forward(bad),
        lambda: ledger.extend(bad, 60),
        lambda: ledger.commit(bad, BOTH, cost(1)),
        lambda: ledger.release(bad, BOTH),
        lambda: ledger.charge(bad, BOTH, cost(1)),
        lambda: ledger.adjust(bad, USER, cost(1), "late"),
    ]
    for verb in verbs:
        with pytest.raises(ValueError, match="hold_id"):
            verb()


def test_a_row_of_the_history_goes_as_far_as_the_store_can_count_and_no_further(server: RedisServer) -> None:
    ledger = opened(server.url)
    for sign, model in ((1, "up"), (-1, "down")):
        lines = (UsageLine(Labels(model=model), Amounts(cost=sign * (2**53 - 1))),) * 1_030
        for number in range(2):
            ledger.charge(_id(ledger, f"{model}{number}"), BOTH, Amounts(), lines)
    found = {each.names[0]: each.quantities[0] for each in ledger.usage(UsageQuery("user", "u1", 0, None, ("model",)))}
    assert (found["up"], found["down"]) == (1_021 * (2**53 - 1), -1_021 * (2**53 - 1))


def test_a_hold_makes_a_few_expire_that_are_due_and_leaves_the_rest(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budget_guard.ledger.redis.verbs._SWEPT_AT_ONCE", 2)
    clock = FakeClock()
    ledger = opened(server.url, clock)
    for number in range(5):
        ledger.reserve(_id(ledger, f"h{number}"), BOTH, cost(1), None, 5)
    clock.advance(5)
    assert ledger.reserve(_id(ledger, "new"), BOTH, cost(1), None, 60) == HELD
    assert ledger.sweep() == 3


def test_who_waits_in_this_process_is_woken_by_every_verb_that_may_give_room(server: RedisServer) -> None:
    clock = FakeClock()
    ledger = opened(server.url, clock)
    waiters = ledger._verbs._waiters
    holds = [_id(ledger, f"h{number}") for number in range(5)]
    for each in holds:
        assert ledger.reserve(each, BOTH, cost(9), cost(9), 60) == HELD
    for verb in (
        lambda: ledger.commit(holds[0], BOTH, cost(4)),
        lambda: ledger.release(holds[1], BOTH),
        lambda: ledger.set_limits(USER, Limits(cost=2_000)),
        lambda: ledger.adjust(_id(ledger, "credit"), USER, cost(-1), "credit note"),
        lambda: ledger.revoke(OTHER, "stop"),
        ledger.sweep,
    ):
        before = waiters.times
        if verb == ledger.sweep:
            clock.advance(61)
        verb()
        assert waiters.times > before
    before = waiters.times
    ledger.balances(BOTH)
    assert waiters.times == before


@pytest.mark.parametrize(
    ("fails", "changes", "raised"),
    [
        ([NotConnected("refused")] * 3, True, LedgerUnavailable),
        ([NoResponse("timed out")] * 3, True, LedgerAmbiguous),
        ([NoResponse("timed out"), NotConnected("refused"), NotConnected("refused")], True, LedgerAmbiguous),
        ([NoResponse("timed out")] * 3, False, LedgerUnavailable),
        ([NotConnected("refused")] * 2, True, None),
        ([NoResponse("timed out")], True, None),
        ([], True, None),
    ],
)
def test_a_script_is_sent_three_times_with_a_pause_before_the_last_one(
    server: RedisServer, fails: list[Exception], changes: bool, raised: type[Exception] | None
) -> None:
    ledger = opened(server.url)
    left, asked = list(fails), list[str]()

    class Failing:
        def pause(self, times: int, seconds: float) -> None:
            asked.append(f"pause {seconds}")

        def send(self, *arguments: Any) -> Any:
            asked.append("send")
            if left:
                raise left.pop(0)
            return ledger._connections.send(*arguments)

    runner, keys = ledger._runner, Keys(ledger.tenant)
    places = (keys.scopes, keys.open, keys.suspended, keys.settled)
    run(runner.call("names", places), ledger._connections)  # the server knows the script from now on
    steps = runner.call("names", places, changes=changes)
    if raised is None:
        assert run(steps, Failing())[0] == b"names"
    else:
        with pytest.raises(LedgerUnavailable, match="Redis was asked 3 times") as caught:
            run(steps, Failing())
        assert type(caught.value) is raised
    sends = min(3, len(fails) + 1)
    assert asked == ["send", "send", "pause 0.05", "send"][: sends + (sends == 3)]
