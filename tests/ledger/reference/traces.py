"""Made-up histories of the ledgers in front of a shared one, and all that each verb asks of that one.

What such a ledger is for is what it asks below it, and when: how much it leases, when it looks again, what it books
late. Its answers tell little of that. So each step is written down with the verbs that reached the shared ledger, what
became of them, and what is kept meanwhile. `python -m tests.ledger.reference.make` writes them in ``traces.txt.gz``.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast
from unittest import mock

from budget_guard import BudgetError, LedgerAmbiguous, LedgerUnavailable, MemoryLedger, Scope
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.history import Labels, UsageLine
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Window
from tests.reference_text import plain
from tests.session.reference.stories import logged

STEPS = 50
RUN, OTHER, USER, TEAM = Scope("run", "r1"), Scope("run", "r2"), Scope("user", "u1"), Scope("team", "t1")
_RUNS = ((RUN, USER), (OTHER, USER), (Scope("run", "r3"), USER, TEAM))


class Below(LedgerWrapper):
    """The shared ledger, which notes what it is asked, and fails where it is told to."""

    def __init__(self, clock: FakeClock, told: list[str]) -> None:
        self.memory = MemoryLedger(clock=clock)
        super().__init__(self.memory)
        self._told = told
        self.faults: dict[int, str] = {}
        """What goes wrong with which of the next verbs."""
        self.asked = 0

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        fault = self.faults.get(self.asked, "")
        self.asked += 1
        asked = f"    {verb} {' '.join(map(_plain, arguments))}"
        if fault in ("down", "stopped"):
            self._told.append(f"{asked}: {fault}")
            raise LedgerUnavailable(detail="no route to host") if fault == "down" else asyncio.CancelledError
        try:
            answer = yield verb, arguments
        except (BudgetError, KeyError, ValueError) as error:
            self._told.append(f"{asked}: {_plain(error)}")
            raise
        if verb == "close":
            fault = ""
        self._told.append(f"{asked}: {_plain(answer)} {fault}")
        if fault:
            raise LedgerAmbiguous(detail="timed out") if fault == "lost" else asyncio.CancelledError
        return answer


_DAY = 86_400
_TO_MIDNIGHT = 0
"""A pause until then."""
_OF_OTHERS = ("reserve", "reserve", "charge", "charge", "reconcile", "reconcile", "revoke", "restore", "restore")


class Front:
    """A history of one ledger in front of a shared one, made up without looking at it."""

    def __init__(self, number: int, file: Path) -> None:
        self.chance = random.Random(number)
        self.awaits = number % 2 == 1
        self.clock = FakeClock()
        self.told: list[str] = []
        self.below = Below(self.clock, self.told)
        self.outbox = Outbox(None if number % 4 == 0 else file)
        self.file = file
        self.ids: list[str] = []
        self.scopes: dict[str, tuple[Scope, ...]] = {}
        self.held: dict[str, Amounts] = {}
        """What was to be held under each id."""
        self.charges: list[tuple[Any, ...]] = []
        """What was spent without a hold."""
        self.open: list[str] = []
        """Those that were not settled yet."""
        self.ledger = self.make()

    def make(self) -> LedgerWrapper:
        """Put the ledger in front of the shared one."""
        raise NotImplementedError

    faults: Mapping[str, float]
    """How often each thing goes wrong."""
    weights: Mapping[str, float]
    """How often each verb is chosen."""
    pauses: tuple[float, ...]
    """How many seconds may go by between two steps."""
    runs: tuple[tuple[Scope, ...], ...] = _RUNS
    """The scopes that calls are made in."""

    def steps(self) -> Iterator[str]:
        """What each step comes to."""
        chance = self.chance
        for scope in sorted({each for scopes in _RUNS for each in scopes}):
            self.below.memory.set_limits(scope, Limits())
        many = chance.choice([1, 1, 4])
        window: Window = "none" if chance.random() < 0.3 else "day"
        limits = Limits(cost=4_000 * many, total_tokens=3_000 * many, requests=12 * many, tool_calls=many)
        self.below.memory.set_limits(USER, limits, window)
        self.below.memory.set_limits(RUN, Limits(cost=9_000, output_tokens=400 * many))
        for number in range(STEPS):
            if chance.random() < 0.4:
                seconds = chance.choice(self.pauses)
                self.clock.advance(_DAY - self.clock.now().timestamp() % _DAY if seconds == _TO_MIDNIGHT else seconds)
            self.below.faults.clear()
            for name, often in self.faults.items():
                if chance.random() < often:
                    self.below.faults[self.below.asked + chance.choice([0, 0, 1, 2])] = name
            verb = chance.choices(list(self.weights), list(self.weights.values()))[0]
            arguments = self.arguments(verb)
            said = self.outcome(verb, arguments)
            yield f"{number} {verb} {' '.join(map(_plain, arguments))}: {said}"
            yield from self.told
            self.told.clear()
            yield from self.kept()
        self.below.faults.clear()
        yield f"balances: {self.outcome('balances', ((USER, TEAM),))}"
        yield f"close: {self.outcome('close', ())}"
        yield from self.told
        yield from self.kept()
        yield f"in the end: {_plain(self.below.memory.balances((USER, TEAM, RUN)))} {self.below.memory.audit()}"

    def kept(self) -> Iterator[str]:
        """What is to be delivered later."""
        outbox = self.outbox
        entries = outbox.entries()
        if entries or outbox.releases or outbox.rejected or outbox.pending:
            yield (
                f"  pending={outbox.pending} {_plain([each._replace(lines=()) for each in entries])} "
                f"{_plain(list(outbox.releases))} {len(outbox.rejected)} rejected"
            )

    def outcome(self, verb: str, arguments: tuple[Any, ...]) -> str:
        """What a verb answers, or which error it raises."""
        if verb == "settle" and self.awaits:
            verb = "asettle"
        try:
            if not self.awaits:
                return _plain(getattr(self.ledger, verb)(*arguments))
            on: Any = self.ledger if verb == "asettle" else self.ledger.aio
            verb_to_await = getattr(on, verb)

            async def main() -> Any:
                return await verb_to_await(*arguments)

            return _plain(asyncio.run(main()))
        except (BudgetError, KeyError, ValueError, asyncio.CancelledError) as error:
            return _plain(error)

    def arguments(self, verb: str) -> tuple[Any, ...]:
        """Those of the next call of *verb*."""
        chance = self.chance
        scopes = chance.choice(self.runs)
        if verb == "reserve":
            id, amounts = self._id(scopes), self._amounts()
            self.held[id] = amounts
            self.open.append(id)
            room = chance.choice([None, amounts, amounts.plus(Amounts(cost=400, requests=2))])
            own_time: tuple[Any, ...] = (chance.choice([20, 10**6]), chance.random() < 0.5, True)
            return id, self.scopes[id], amounts, room, *(own_time if chance.random() < 0.05 else ())
        if verb == "commit":
            id, own = self._open(scopes)
            held = self.held.get(id, self._amounts())
            more = chance.choice([self._amounts(), self._amounts(), Amounts(cost=3_000)])
            spent = chance.choice([held, held, Amounts(cost=held.cost // 2, requests=1), held.plus(more)])
            return id, own, spent, chance.random() < 0.25, self._lines()
        if verb == "release":
            return self._open(scopes)
        if verb == "charge":
            if self.charges and chance.random() < 0.2:
                id, own, *rest = chance.choice(self.charges)
                return id, chance.choice([own, scopes]), *rest
            id = self._id(scopes)
            spent = Amounts(cost=chance.choice([0, 30, 2_500]), tool_calls=1)
            self.charges.append((id, self.scopes[id], spent, self._lines()))
            return self.charges[-1]
        if verb == "adjust":
            return hold_id(self.clock.now_ms(), f"a{len(self.ids)}"), USER, Amounts(cost=-40), "credit note"
        if verb == "set_limits":
            return USER, Limits(cost=chance.choice([3_000, 30_000]), tool_calls=chance.choice([0, 4, None])), "day"
        arguments: dict[str, Callable[[], tuple[Any, ...]]] = {
            "forward": lambda: self._known(scopes)[:1],
            "extend": lambda: ((self.open or self._known(scopes))[0], chance.choice([5, 100])),
            "balances": lambda: (chance.choice([scopes, (USER,), (USER, TEAM)]),),
            "revoke": lambda: (chance.choice(scopes), "stolen"),
            "restore": lambda: (chance.choice(scopes),),
            "await_room": lambda: (0, 0.0),
        }
        return arguments[verb]() if verb in arguments else ()

    def _id(self, scopes: tuple[Scope, ...]) -> str:
        if self.ids and self.chance.random() < 0.08:
            return self._known(scopes)[0]
        self.ids.append(hold_id(self.clock.now_ms(), f"h{len(self.ids)}"))
        self.scopes[self.ids[-1]] = scopes
        return self.ids[-1]

    def _open(self, scopes: tuple[Scope, ...]) -> tuple[str, tuple[Scope, ...]]:
        """A hold to settle: mostly one that is not settled yet."""
        if not self.open or self.chance.random() < 0.15:
            return self._known(scopes)
        id = self.open.pop(self.chance.randrange(len(self.open)))
        return id, self.scopes[id]

    def _known(self, scopes: tuple[Scope, ...]) -> tuple[str, tuple[Scope, ...]]:
        if not self.ids:
            self._id(scopes)
        id = self.chance.choice(self.ids[-5:])
        return id, self.scopes[id] if self.chance.random() < 0.8 else scopes

    def _amounts(self) -> Amounts:
        read, written = self.chance.choice([0, 10, 30]), self.chance.choice([0, 5, 20])
        return Amounts(self.chance.choice([0, 7, 100, 400]), read, written, read + written, 1, 0)

    def _lines(self) -> tuple[UsageLine, ...]:
        labels = Labels("", self.chance.choice(["Writer", "Coder"]), "", self.chance.choice(["large", "small"]), "")
        return (UsageLine(labels, self._amounts(), *(self.chance.choice([0, 4]) for _ in range(4))),)


class Leased(Front):
    """A process that leases a part of the shared budget."""

    faults: Mapping[str, float] = {"down": 0.04, "lost": 0.03, "stopped": 0.02, "stopped behind it": 0.02}
    weights: Mapping[str, float] = {
        **{"reserve": 24, "commit": 14, "release": 5, "charge": 4, "forward": 1, "extend": 1, "adjust": 1},
        **{"balances": 4, "set_limits": 1, "revoke": 0.4, "restore": 2, "await_room": 0.5, "settle": 0.7},
        "elsewhere": 4,
    }
    runs: tuple[tuple[Scope, ...], ...] = (*_RUNS, _RUNS[0], _RUNS[0], _RUNS[0])
    pauses: tuple[float, ...] = (1, 1, 1, 25, 59, 60, 61, 130, 200, 400, 600, 601, 1_300, _TO_MIDNIGHT, _DAY)

    others = 0
    """How many calls another process has made."""

    def make(self) -> LedgerWrapper:
        return LeasedLedger(self.below, lease_ttl_s=600, heartbeat_s=60, outbox=self.outbox, clock=self.clock)

    def outcome(self, verb: str, arguments: tuple[Any, ...]) -> str:
        if verb == "elsewhere":
            return self._elsewhere()
        return super().outcome(verb, arguments)

    def _elsewhere(self) -> str:
        """What another process does with the same ceilings."""
        self.others += 1
        memory, id = self.below.memory, hold_id(self.clock.now_ms(), f"e{self.others}")
        verb = self.chance.choice(_OF_OTHERS)
        if verb == "reserve":
            return _plain(memory.reserve(id, (USER,), Amounts(cost=900, requests=3), None, 100))
        if verb == "charge":
            return _plain(memory.charge(id, (USER, TEAM), Amounts(cost=900, tool_calls=1)))
        if verb == "reconcile":
            return (
                f"{memory.sweep()} swept {[memory.release(each.hold_id, each.scopes) for each in memory.suspended()]}"
            )
        if verb == "revoke":
            memory.revoke(USER, "stolen")
            return "revoked"
        return f"restored: {memory.restore(USER)}"


class Crowded(Leased):
    """A process with several runs of several users that compete for little, in every dimension."""

    faults: Mapping[str, float] = {"down": 0.02, "lost": 0.02, "stopped behind it": 0.01}
    runs: tuple[tuple[Scope, ...], ...] = (
        *_RUNS,
        (Scope("run", "r1"), TEAM),
        (TEAM,),
        (USER,),
        (Scope("run", "r3"), USER),
    )
    pauses: tuple[float, ...] = (1, 1, 19, 30, 60, 120, 199, 200, 201, 400, 600, _TO_MIDNIGHT)

    def arguments(self, verb: str) -> tuple[Any, ...]:
        if verb != "set_limits":
            return super().arguments(verb)
        chance = self.chance
        limits = [chance.choice([None, None, each, 4 * each, 20 * each]) for each in (300, 40, 30, 60, 4, 2)]
        return chance.choice([RUN, OTHER, USER, TEAM]), Limits(*limits), chance.choice(["none", "hour", "day"])

    weights: Mapping[str, float] = {**Leased.weights, "set_limits": 4, "extend": 2, "await_room": 2, "restore": 1}


class Outboxed(Front):
    """A session whose ledger is often out of reach."""

    faults: Mapping[str, float] = {"down": 0.3, "lost": 0.15, "stopped": 0.05, "stopped behind it": 0.05}
    weights: Mapping[str, float] = {
        **{"reserve": 12, "commit": 12, "release": 4, "charge": 4, "forward": 4, "extend": 1, "balances": 3},
        **{"another process": 2, "a torn line": 1},
    }
    runs = (*_RUNS, _RUNS[0], (Scope("run", "r4"), USER))
    pauses = (1, 1, 400, 1_000, 90_000, 9 * _DAY)

    def make(self) -> LedgerWrapper:
        owner = self.chance.choice(["", "user:u1"])
        forgiving = self.chance.random() < 0.5
        return OutboxLedger(self.below, self.outbox, clock=self.clock, forgiving=forgiving, owner=owner)

    def outcome(self, verb: str, arguments: tuple[Any, ...]) -> str:
        if verb == "another process":
            if not self.file.exists():
                return "none"
            self.outbox = Outbox(self.file)
            self.ledger = self.make()
            return "started"
        if verb == "a torn line":
            if self.file.exists():
                with self.file.open("ab") as file:
                    file.write(self.chance.choice([b'{"done":', b'{"done":1}\n', b'{"unknown":"x"}\n', b"\n"]))
            return "torn"
        return super().outcome(verb, arguments)

    def kept(self) -> Iterator[str]:
        yield from super().kept()
        if self.file.exists():
            yield f"  {self.outbox.unread} unread"
            for line in self.file.read_text("utf-8").splitlines()[-4:]:
                yield f"  {_shortened(line)}"


def _shortened(line: str) -> str:
    """A line of the file, of an entry the key alone: what is in it is told already."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return f"add {record['add']['key']}" if "add" in record else line


def _plain(value: Any) -> str:
    """*value* in full, ids included: they are made of numbers that count up here."""
    if isinstance(value, str):
        return value
    if isinstance(value, Scope):
        return str(value)
    if isinstance(value, (Amounts, Limits, Labels)):
        return "/".join("" if each is None else str(each) for each in value)
    if isinstance(value, (tuple, list)):
        values = cast("Sequence[Any]", value)
        words = " ".join(map(_plain, values))
        return f"{type(values).__name__}({words})" if hasattr(values, "_fields") else f"[{words}]"
    return plain(value)


FRONTS: Mapping[str, tuple[type[Front], Iterable[int]]] = {
    "leased": (Leased, (*range(36), 71, 110)),
    "crowded": (Crowded, range(30)),
    "outbox": (Outboxed, range(32)),
}
"""Each kind of ledger, and which of its histories are told."""


def lines_of(name: str) -> Iterator[str]:
    """What all histories of a kind of ledger come to."""
    kind, numbers = FRONTS[name]
    for number in numbers:
        yield f"{name} {number}"
        yield from history(kind, number)


def history(kind: type[Front], number: int) -> Iterator[str]:
    """What one history comes to."""
    made = count(1)
    said: list[str] = []
    ids = mock.patch("uuid.uuid4", lambda: uuid.UUID(int=next(made) * ((1 << 80) + (1 << 96))))

    def synced(_: int) -> None:
        said.append("  on the disk")

    with tempfile.TemporaryDirectory() as folder, ids, mock.patch("os.fsync", synced), logged(said):
        for line in kind(number, Path(folder) / "outbox.jsonl").steps():
            yield line
            yield from said
            said.clear()
