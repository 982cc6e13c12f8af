"""A ledger in a bad world, replayable from a seed.

The network loses, repeats and reorders, clients crash, clocks differ and jump, a sweeper and an operator come by, and
the provider's invoice is the truth. Each call is a little client: it reserves, notes that it sends, is billed or not,
and settles from an outbox that survives a crash. Some give up, some fail open, some vanish for good. In the end the
network heals, a reconciler settles what nobody came back for, and every scope must have committed what was billed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from random import Random
from typing import Any

from budget_guard.clock import Clock
from budget_guard.ledger import Held, Ledger
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope, Window
from tests.ledger.call import Call
from tests.ledger.observer import Observer

RUNS = (Scope("run", "r1"), Scope("run", "r2"))
USER, TEAM = Scope("user", "u"), Scope("team", "t")
SCOPES = (*RUNS, USER, TEAM)
PATIENCE_S = 12
"""How long a client waits for an answer before it asks again."""
ENDS = ("done", "refused", "gone")
"""The states of a client that does no more. A late copy of a refused reserve may be admitted, and expires."""


def live_through(
    make: Callable[[Clock], Ledger], seeds: Iterable[int], *, forgets: bool = False, steps: int = 150
) -> int:
    """Live through the histories of *seeds*, each with a ledger of its own; return how many verbs there were.

    Raises:
        AssertionError: If one breaks an invariant. It names the seed.
    """
    verbs = 0
    for seed in seeds:
        history = Simulation(make, seed, forgets=forgets)
        try:
            verbs += history.run(steps)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            history.ledger.close()
    return verbs


class Simulation:
    """One history, of less than ten minutes if it has no more than 150 steps.

    Args:
        make: Makes a new, empty ledger that reads the time from a clock.
        seed: Which history.
        forgets: Whether the ledger may forget what is settled meanwhile.
    """

    def __init__(self, make: Callable[[Clock], Ledger], seed: int, *, forgets: bool = False) -> None:
        self.random = Random(seed)
        self.clock = FakeClock(datetime(2025, 1, 1, 23, 57, tzinfo=timezone.utc))  # a day ends in every history
        self.ledger = make(self.clock)
        self.observer = Observer(self.ledger, self.clock, forgets=forgets)
        chance = self.random.random
        self.lost, self.unanswered, self.repeated = chance() * 0.3, chance() * 0.3, chance() * 0.3
        dice = chance()
        self.window: Window = "minute" if dice < 0.25 else "hour" if dice < 0.5 else "none"
        self.numbers = itertools.count()
        self.network: list[tuple[float, int, Call, str, tuple[Any, ...]]] = []
        self.calls: list[Call] = []
        for scope in SCOPES:
            self.set_limits(scope)

    def run(self, steps: int = 150) -> int:
        """Live through it; return how many verbs the ledger performed."""
        for _ in range(steps):
            self.happen()
            self.clock.advance(self.random.choice((0, 0.5, 1, 2, 4)))
            self.deliver(self.clock.monotonic())
            self.wake()
        self.heal()
        self.reconcile()
        return self.observer.verbs

    # What happens.

    def happen(self) -> None:
        dice, new_id = self.random.random(), f"{next(self.numbers)}"
        skew_ms = self.random.choice((-2_000, 0, 0, 2_000))  # the clocks of the clients differ
        made = hold_id(self.clock.now_ms() + skew_ms, new_id)
        scopes = tuple(scope for scope in (self.random.choice(RUNS), USER, TEAM) if self.random.random() < 0.75)
        cost = self.random.randint(0, 12)
        if dice < 0.30 and scopes:
            held = Amounts(cost=cost, requests=1)
            call = Call(made, scopes, held, self.random.random() < 0.8, self.random.random() < 0.1)
            self.calls.append(call)
            self.send(call, *self.reserving(call))
        elif dice < 0.33 and scopes:
            self.book(Call(made, scopes, NOTHING, billed=Amounts(cost=cost, tool_calls=1)), "charge")
        elif dice < 0.35 and scopes:
            change = Amounts(cost=self.random.choice((-2, 3)))
            self.book(Call(made, scopes[:1], NOTHING, billed=change), "adjust")
        elif dice < 0.42:
            self.observer.sweep()
        elif dice < 0.44:
            self.set_limits(self.random.choice(SCOPES))
        elif dice < 0.46:
            self.observer.revoke_or_restore(self.random.choice(SCOPES))
        elif dice < 0.47 and self.observer.turned_s < 120:
            seconds = self.random.choice((-30, -5, 5, 30))
            self.observer.turned_s += abs(seconds)
            self.clock.turn(seconds)

    def set_limits(self, scope: Scope) -> None:
        requests = self.random.choice((None, self.random.randint(5, 40)))
        limits = Limits(cost=self.random.randint(20, 200), requests=requests)
        self.observer.set_limits(scope, limits, self.window if scope == TEAM else "none")

    # What a client does.

    def reserving(self, call: Call) -> tuple[str, tuple[Any, ...]]:
        return "reserve", (call.id, call.scopes, call.held, call.held, call.ttl_s, call.suspend)

    def book(self, call: Call, verb: str) -> None:
        call.verb = verb
        self.calls.append(call)
        more: tuple[Any, ...] = (call.lines(call.billed),) if verb == "charge" else ("credit note",)
        call.outbox = [(verb, (call.id, call.scopes if verb == "charge" else call.scopes[0], call.billed, *more))]
        self.settle(call)

    def settle(self, call: Call) -> None:
        """Tell the ledger what is first in the outbox; or crash, and do it much later."""
        call.state = "settling"
        if self.random.random() < 0.1:
            call.deadline = self.clock.monotonic() + self.random.randint(20, 80)
        else:
            self.send(call, *call.outbox[0])

    def dispatch(self, call: Call) -> None:
        """The call reaches the provider."""
        self.observer.saw_dispatch(call)
        dice = self.random.random()
        if dice < 0.1:  # refused by the provider
            call.outbox = [("release", (call.id, call.scopes))]
        else:
            factor = self.random.choice((0, 0.2, 0.8, 1, 1, 1.4))
            call.billed = Amounts(cost=int(call.held.cost * factor), requests=1)
            call.outbox = [("commit", (call.id, call.scopes, call.billed, False, call.lines(call.billed)))]
            if dice < 0.25:  # timed out: the actual usage comes later
                call.outbox.insert(0, ("commit", (call.id, call.scopes, call.held, True, call.lines(call.held))))
            elif dice < 0.30:  # killed: nobody will ever tell
                call.state, call.outbox = "gone", []
                return
        self.settle(call)
        if call.billed.requests and self.random.random() < 0.1:  # two hooks fire, and one of them is wrong
            self.send(call, "release", (call.id, call.scopes))

    def wake(self) -> None:
        """Let every client act whose patience is at its end."""
        now = self.clock.monotonic()
        for call in self.calls:
            if call.deadline > now or call.state in ENDS:
                continue
            dice = self.random.random()
            if call.state == "reserving" and dice < 0.4 and call.fails_open:
                self.dispatch(call)
            elif call.state in ("reserving", "held", "forwarding") and dice < 0.2:
                call.outbox = [("release", (call.id, call.scopes))]
                self.settle(call)
            elif call.state == "reserving":
                self.send(call, *self.reserving(call))
            elif call.state == "held" and dice < 0.3:
                self.send(call, "extend", (call.id, call.ttl_s))
            elif call.state in ("held", "forwarding"):
                call.state = "forwarding" if dice < 0.95 else "gone"
                self.send(call, "forward", (call.id,))
            else:
                self.settle(call)

    def answered(self, call: Call, asked: tuple[str, tuple[Any, ...]], answer: Any) -> None:
        """A client hears from the ledger."""
        if call.state == "reserving" and asked[0] == "reserve":
            call.state = "held" if isinstance(answer, Held) else "refused"
            call.deadline = self.clock.monotonic() + self.random.choice((0, 0, 1, 10, 40))
        elif call.state == "forwarding" and asked[0] == "forward":
            if answer is None:
                self.dispatch(call)
            else:
                call.state = "done"
        elif call.state == "settling" and call.outbox[:1] == [asked]:
            del call.outbox[0]
            call.state = "settling" if call.outbox else "done"
            call.deadline = self.clock.monotonic() + self.random.randint(0, 20)

    # The network.

    def send(self, call: Call, verb: str, arguments: tuple[Any, ...]) -> None:
        now = self.clock.monotonic()
        call.deadline = now + PATIENCE_S
        if self.random.random() >= self.lost:
            self.carry(now + self.random.choice((0, 0, 1, 3, 8, 30)), call, verb, arguments)
        if self.random.random() < self.repeated:
            self.carry(now + self.random.choice((1, 5, 20, 60)), call, verb, arguments)

    def carry(self, at: float, *message: Any) -> None:
        heapq.heappush(self.network, (at, next(self.numbers), *message))

    def deliver(self, until: float) -> None:
        while self.network and self.network[0][0] <= until:
            _, _, call, verb, arguments = heapq.heappop(self.network)
            answer = self.observer.perform(call, verb, arguments)
            if self.random.random() >= self.unanswered:
                self.answered(call, (verb, arguments), answer)

    def heal(self) -> None:
        """The network works again, and everybody finishes who is still there."""
        self.lost = self.unanswered = self.repeated = 0
        while self.network or any(call.state not in ENDS for call in self.calls):
            self.clock.advance(1)
            self.deliver(self.clock.monotonic())
            self.wake()
        self.observer.check_leaks([call for call in self.calls if call.state != "done"])

    def reconcile(self) -> None:
        """What nobody settled is settled from the provider's export, and the books are closed."""
        self.clock.advance(Call.ttl_s + self.observer.turned_s)
        self.observer.sweep()
        lost = [call for call in self.calls if call.state == "gone" and not call.settled]
        suspended = {call.id for call in lost if call.forwarded and call.suspend}
        found = {each.hold_id for each in self.ledger.suspended()}
        self.observer.must(found == suspended, "what is suspended is not what was lost")
        for call in lost:
            if call.sent:
                self.observer.perform(
                    call, "commit", (call.id, call.scopes, call.billed, False, call.lines(call.billed))
                )
            else:
                self.observer.perform(call, "release", (call.id, call.scopes))
        self.observer.check_leaks([])
        self.observer.check_books()
        self.observer.check_invoice(self.calls)
        self.observer.check_history(self.calls)
