"""What becomes of verbs when the network, the server or its files fail."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable, StaleReservation
from budget_guard.ledger import HELD
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.redis import RedisLedger
from budget_guard.testing.ledger_contract import BOTH, RUN, USER, cost
from budget_guard.units.amounts import Limits
from budget_guard.units.scope import Scope
from tests.ledger.fault_proxy import Fault, FaultProxy
from tests.ledger.redis_server import RedisServer, needs_redis_server

pytestmark = needs_redis_server

AOF = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), *AOF).start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers for one test."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        started.append(RedisServer(tmp_path / str(len(started)), *options).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


def opened(url: str, **options: Any) -> RedisLedger:
    ledger = RedisLedger(url, **{"tenant": uuid.uuid4().hex, "timeout_s": 2, **options})
    ledger.set_limits(RUN, Limits(cost=100))
    ledger.set_limits(USER, Limits(cost=1_000))
    return ledger


def made(name: str, ago_s: int = 0) -> str:
    return hold_id(SYSTEM_CLOCK.now_ms() - 1_000 * ago_s, name)


def figures(ledger: RedisLedger) -> tuple[int, int, int]:
    """What is committed and reserved in both scopes, and the number of open holds."""
    run, user = ledger.balances(BOTH)
    assert run[2:5] == user[2:5]
    return run.committed.cost, run.reserved.cost, run.open_holds


# --- the network

Verb = tuple[str, tuple[Any, ...], tuple[int, int, int]]


def verbs() -> list[Verb]:
    """Verbs after a hold of 10 called "open", and what is committed, reserved and open after each."""
    return [
        ("reserve", (BOTH, cost(7), cost(7)), (0, 17, 2)),
        ("commit", (BOTH, cost(7)), (7, 0, 0)),
        ("release", (BOTH,), (0, 0, 0)),
        ("charge", (BOTH, cost(7)), (7, 10, 1)),
    ]


def perform(ledger: RedisLedger, awaits: bool, verb: str, *arguments: Any) -> Any:
    if not awaits:
        return getattr(ledger, verb)(*arguments)

    async def once() -> Any:
        return await getattr(ledger.aio, verb)(*arguments)

    return asyncio.run(once())


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize(("verb", "arguments", "then"), verbs(), ids=[verb for verb, *_ in verbs()])
@pytest.mark.parametrize("faults", [["lose"], ["reset"], ["reset", "lose"], ["delay"]], ids="-".join)
def test_a_verb_whose_answer_is_lost_is_repeated_and_counts_once(
    server: RedisServer,
    faults: list[Fault],
    verb: str,
    arguments: tuple[Any, ...],
    then: tuple[int, int, int],
    awaits: bool,
) -> None:
    with FaultProxy(server.port) as proxy:
        ledger = opened(proxy.url, timeout_s=0.15)
        opening, other = made("open"), made("other")
        ledger.reserve(opening, BOTH, cost(10), cost(10))
        asyncio.run(ledger.aio.balances(BOTH))
        proxy.faults, proxy.delayed_s = list(faults), 0.3
        perform(ledger, awaits, verb, opening if verb in ("commit", "release") else other, *arguments)
        assert proxy.faults == []
        assert figures(ledger) == then
        assert ledger.audit() == []


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize("fault", ["lose", "reset"])
def test_a_verb_that_gets_no_answer_at_all_is_ambiguous_and_may_be_asked_again(
    server: RedisServer, fault: Fault, awaits: bool
) -> None:
    with FaultProxy(server.port) as proxy:
        ledger = opened(proxy.url, timeout_s=0.15)
        hold = made("h")
        for verb, arguments, then in (
            ("reserve", (BOTH, cost(10), cost(10)), (0, 10, 1)),
            ("commit", (BOTH, cost(7)), (7, 0, 0)),
        ):
            proxy.faults, proxy.scripts = [fault] * 3, 0
            with pytest.raises(LedgerAmbiguous, match="asked 3 times"):
                perform(ledger, awaits, verb, hold, *arguments)
            assert proxy.scripts == 3  # and no more
            perform(ledger, awaits, verb, hold, *arguments)
            assert figures(ledger) == then


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
def test_a_server_that_cannot_be_reached_changed_nothing(server: RedisServer, awaits: bool) -> None:
    with FaultProxy(server.port) as proxy:
        ledger = opened(proxy.url, timeout_s=0.3)
        ledger.close()
        proxy.down, proxy.scripts = True, 0
        with pytest.raises(LedgerUnavailable) as caught:
            perform(ledger, awaits, "reserve", made("h"), BOTH, cost(10), cost(10))
        assert type(caught.value) is LedgerUnavailable
        assert proxy.scripts == 0
        proxy.down = False
        assert figures(ledger) == (0, 0, 0)


@pytest.mark.parametrize(
    ("question", "arguments", "at"),
    [
        ("balances", (BOTH,), 0),
        ("await_room", (0, 1.0), 0),
        ("sweep", (), 0),
        ("sweep", (), 1),
        ("suspended", (), 0),
        ("suspended", (), 1),
        ("audit", (), 0),
        ("audit", (), 1),
    ],
)
def test_a_question_without_an_answer_is_not_ambiguous(
    server: RedisServer, question: str, arguments: tuple[Any, ...], at: int
) -> None:
    with FaultProxy(server.port) as proxy:
        ledger = opened(proxy.url, hold_ttl_s=0.001)
        hold = made("due")
        ledger.reserve(hold, BOTH, cost(1), cost(1))
        ledger.forward(hold)
        ends = SYSTEM_CLOCK.now_ms() + 10
        wait_for(lambda: SYSTEM_CLOCK.now_ms() > ends)
        if question == "suspended":
            assert ledger.sweep() == 1
        proxy.faults.extend(["delay"] * at)  # it is asked in several scripts
        proxy.faults.extend(["reset"] * 3)
        with pytest.raises(LedgerUnavailable) as caught:
            getattr(ledger, question)(*arguments)
        assert type(caught.value) is LedgerUnavailable
        assert proxy.faults == []


def test_answers_that_come_byte_by_byte_are_whole(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:
        proxy.split = True
        ledger = opened(proxy.url)
        for awaits in (False, True):
            hold = made(str(awaits))
            assert perform(ledger, awaits, "reserve", hold, BOTH, cost(10), cost(10)) == HELD
            assert perform(ledger, awaits, "commit", hold, BOTH, cost(5)).charged == cost(5)
        assert figures(ledger) == (10, 0, 0)


def test_tasks_that_ask_at_the_same_time_share_their_way(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:
        ledger = opened(proxy.url)
        proxy.scripts = 0

        async def all_at_once() -> list[Any]:
            await ledger.aio.balances(BOTH)
            return await asyncio.gather(
                *(ledger.aio.reserve(made(f"h{n}"), BOTH, cost(2), cost(2)) for n in range(100))
            )

        assert asyncio.run(all_at_once()).count(HELD) == 50
        assert proxy.scripts <= 20
        assert figures(ledger) == (0, 100, 50)


# --- the server and its files


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(own_server: Callable[..., RedisServer]) -> None:
    server = own_server(*AOF)
    ledger = opened(server.url, timeout_s=0.5)
    free = Scope("team", "free")
    ledger.set_limits(free, Limits())
    acknowledged: list[int] = []
    unclear: list[int] = []
    for attempt in range(4):
        enough = threading.Event()

        def spend(worker: int, attempt: int = attempt, enough: threading.Event = enough) -> None:
            for number in range(100_000):
                try:
                    ledger.charge(made(f"{attempt}-{worker}-{number}"), (free,), cost(1))
                except LedgerUnavailable as error:
                    unclear.append(isinstance(error, LedgerAmbiguous))
                    return
                acknowledged.append(1)
                if number == 25:
                    enough.set()

        workers = [threading.Thread(target=spend, args=(worker,)) for worker in range(3)]
        for worker in workers:
            worker.start()
        assert enough.wait(20)
        server.kill()
        for worker in workers:
            worker.join(20)
        server.start()
        committed = ledger.balances((free,))[0].committed.cost
        assert len(acknowledged) <= committed <= len(acknowledged) + sum(unclear)
        assert ledger.audit() == []
    assert ledger.reserve(made("after"), BOTH, cost(1), cost(1)) == HELD  # not fenced: nothing went back


def save(server: RedisServer) -> None:
    client = server.client()
    client.save()
    client.close()


def test_a_restart_from_an_older_file_admits_nothing_until_somebody_looked(
    own_server: Callable[..., RedisServer],
) -> None:
    server = own_server()
    tenant = uuid.uuid4().hex
    ledger, other = opened(server.url, tenant=tenant), RedisLedger(server.url, tenant=tenant)
    hold, late = made("h"), made("late")
    ledger.reserve(hold, BOTH, cost(60), cost(60))
    other.balances(BOTH)
    save(server)
    ledger.commit(hold, BOTH, cost(60))
    ledger.charge(made("c"), BOTH, cost(40))  # the run is spent to the last
    server.kill()
    server.start()
    assert figures(ledger) == (0, 60, 1)

    for client in (ledger, other, RedisLedger(server.url, tenant=tenant)):
        with pytest.raises(LedgerUnavailable, match=r"fenced.*reopen\(\)") as caught:
            client.reserve(made("again"), BOTH, cost(1), cost(1))
        assert type(caught.value) is LedgerUnavailable
    assert ledger.commit(hold, BOTH, cost(60)).committed == cost(60)  # what was spent is booked all the same
    other.commit(late, BOTH, cost(5))
    other.adjust(made("lost"), RUN, cost(35), "from the provider's invoice")
    with pytest.raises(LedgerUnavailable, match="fenced"):
        other.reserve(made("again"), BOTH, cost(1), cost(1))

    RedisLedger(server.url, tenant=tenant).reopen()
    for client in (other, ledger):
        assert not isinstance(client.reserve(made("again"), BOTH, cost(1), cost(1)), type(HELD))  # spent is spent
        assert client.reserve(made("free"), (USER,), cost(1), cost(1)) == HELD
        assert client.audit() == []


def test_an_empty_store_is_no_new_ledger_for_who_knew_the_old_one(own_server: Callable[..., RedisServer]) -> None:
    server = own_server()
    tenant = uuid.uuid4().hex
    ledger = opened(server.url, tenant=tenant)
    hold = made("h")
    ledger.reserve(hold, BOTH, cost(60), cost(60))
    server.kill()
    server.start()
    for verb, arguments in (("reserve", (BOTH, cost(1), cost(1))), ("commit", (BOTH, cost(1)))):
        with pytest.raises(LedgerUnavailable, match="fenced"):
            getattr(ledger, verb)(hold, *arguments)
    ledger.reopen()
    for scope in BOTH:
        ledger.set_limits(scope, Limits(cost=100))
    assert ledger.commit(hold, BOTH, cost(60)).committed == cost(60)
    assert ledger.reserve(made("next"), BOTH, cost(40), cost(40)) == HELD


def test_a_store_made_anew_by_others_is_noticed_too(own_server: Callable[..., RedisServer]) -> None:
    server = own_server()
    tenant = uuid.uuid4().hex
    ledger = opened(server.url, tenant=tenant)
    server.client().flushall()
    newcomer = opened(server.url, tenant=tenant)
    for number in range(50):  # further on than the old one ever was
        newcomer.charge(made(f"c{number}"), BOTH, cost(1))
    with pytest.raises(LedgerUnavailable, match="fenced"):
        ledger.reserve(made("h"), BOTH, cost(1), cost(1))
    with pytest.raises(LedgerUnavailable, match="fenced"):
        newcomer.reserve(made("h"), BOTH, cost(1), cost(1))


def test_a_failover_that_lost_nothing_goes_unnoticed_and_one_that_did_does_not(
    own_server: Callable[..., RedisServer],
) -> None:
    master = own_server("--repl-diskless-sync-delay", "0")
    replica = own_server("--replicaof", "127.0.0.1", str(master.port))
    follows(replica, master)
    with FaultProxy(master.port) as proxy:
        tenant = uuid.uuid4().hex
        ledger = opened(proxy.url, tenant=tenant, wait_replicas=1)
        ledger.reserve(made("h"), BOTH, cost(60), cost(60))
        ledger.close()
        replica.client().replicaof("NO", "ONE")
        proxy.upstream = replica.port
        assert figures(ledger) == (0, 60, 1)

        ledger.close()
        proxy.upstream = master.port  # which goes on alone
        impatient = RedisLedger(proxy.url, tenant=tenant)
        impatient.charge(made("c"), BOTH, cost(40))
        impatient.close()
        proxy.upstream = replica.port
        with pytest.raises(LedgerUnavailable, match="fenced"):
            impatient.reserve(made("h3"), BOTH, cost(1), cost(1))


def test_a_change_that_too_few_replicas_have_is_ambiguous(own_server: Callable[..., RedisServer]) -> None:
    master = own_server("--repl-diskless-sync-delay", "0")
    tenant = uuid.uuid4().hex
    alone = opened(master.url, tenant=tenant)
    ledger = RedisLedger(master.url, tenant=tenant, wait_replicas=1, timeout_s=0.4)
    hold = made("h")
    for awaits in (False, True):
        with pytest.raises(LedgerAmbiguous, match="0 of 1 replicas"):
            perform(ledger, awaits, "reserve", hold, BOTH, cost(60), cost(60))
    assert figures(alone) == (0, 60, 1)
    follows(own_server("--replicaof", "127.0.0.1", str(master.port)), master)
    assert ledger.reserve(hold, BOTH, cost(60), cost(60)) == HELD


def follows(replica: RedisServer, master: RedisServer) -> None:
    """Wait until *replica* has what *master* has, and the master knows."""
    client = replica.client()
    wait_for(lambda: client.info("replication")["master_link_status"] == "up")
    written = master.client()
    wait_for(lambda: bool(written.set("something", "new")) and written.wait(1, 500) == 1)


def wait_for(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.02)  # other processes: nothing tells when they are ready


def test_a_server_that_takes_no_writes_changed_nothing(server: RedisServer) -> None:
    client = server.client()
    ledger = opened(server.url)
    client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(LedgerUnavailable, match="NOREPLICAS") as caught:
            ledger.reserve(made("h"), BOTH, cost(1), cost(1))
        assert type(caught.value) is LedgerUnavailable
    finally:
        client.config_set("min-replicas-to-write", "0")
    assert figures(ledger) == (0, 0, 0)


# --- a cluster


def test_a_cluster_of_two_masters_keeps_each_tenant_in_one_place(own_server: Callable[..., RedisServer]) -> None:
    first, second = (own_server("--cluster-enabled", "yes", "--cluster-node-timeout", "2000") for _ in range(2))
    one, two = first.client(), second.client()
    one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    two.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    one.execute_command("CLUSTER", "MEET", "127.0.0.1", second.port)
    for client in (one, two):
        wait_for(lambda client=client: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))  # type: ignore[misc]  # no type for its default
    for number in range(6):
        ledger = opened(first.url, tenant=f"{number}}}{{", retain=2)
        for awaits in (False, True):
            charges = [made(f"{awaits}{charge}", ago_s=302 - awaits) for charge in range(3)]
            for charge in charges:
                perform(ledger, awaits, "charge", charge, BOTH, cost(1))
            with pytest.raises(StaleReservation):
                perform(ledger, awaits, "forward", charges[0])  # it is forgotten
        for awaits in (False, True):
            hold = made(str(awaits))
            perform(ledger, awaits, "reserve", hold, BOTH, cost(10), cost(10), 0.001)
            perform(ledger, awaits, "forward", hold)
            wait_for(lambda awaits=awaits, ledger=ledger: perform(ledger, awaits, "sweep") == 1)  # type: ignore[misc]  # no types for its defaults
            assert [each.hold_id for each in perform(ledger, awaits, "suspended")] == [hold]
            perform(ledger, awaits, "commit", hold, BOTH, cost(5))
        assert figures(ledger) == (16, 0, 0)
        assert ledger.audit() == []
    assert one.dbsize() > 0 and two.dbsize() > 0
    with pytest.raises(LedgerUnavailable, match="cluster is down"):
        second.kill()
        wait_for(lambda: b"cluster_state:fail" in one.execute_command("CLUSTER", "INFO"))
        for number in range(6):
            RedisLedger(first.url, tenant=f"{number}}}{{").charge(made("c"), BOTH, cost(1))
