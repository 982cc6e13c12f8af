"""One model or tool call, held by every budget that it spends from and settled in all of them.

::

    call = GuardedCall([session])
    stop = call.hold(ModelCall("gpt-4o", weigh(messages=messages)))
    if stop is not None:
        raise stops.recast(stop.error)
    try:
        answer = send(model=call.name, max_tokens=call.output_cap)
    except BaseException as error:
        call.fail(error)
        raise
    call.commit(usage_of(answer))

Each verb comes twice: ``hold`` blocks, ``ahold`` is awaited. The rules are flows (as in `budget_guard.ledger.flow`), so
that none is written twice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

from budget_guard.adapter.carried_answer import carried_answer
from budget_guard.adapter.stops import Stop, StopLatch
from budget_guard.adapter.tool_costs import ToolCosts
from budget_guard.calls.call import ModelCall, ToolCall, name_of
from budget_guard.calls.collected import is_collecting, settle_elsewhere
from budget_guard.calls.decision import Decision
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.seen import Seen
from budget_guard.errors import BudgetError
from budget_guard.session.session import Session
from budget_guard.units.money import UsdLike
from budget_guard.units.usage import Usage
from budget_guard.wire.answer import Answer
from budget_guard.wire.outcome import Outcome, outcome_of_error

T = TypeVar("T")

Steps: TypeAlias = Generator[tuple[Any, str, tuple[Any, ...], Mapping[str, Any]], Any, T]
"""A flow over any number of sessions and holds: yields each with the name of a verb of it, and its arguments and
options. `perform` and `aperform` perform it."""


class Settler(Protocol):
    """What settles the holds of a call from below: an attempt on the wire."""

    @property
    def settled(self) -> bool:
        """Whether it has."""
        ...

    def conclude(self, call: GuardedCall, otherwise: Steps[None], given_up: bool) -> Steps[None]:
        """Settle now what is known to be over, and do *otherwise* with *call* where that is not known.

        Where the answer is *given_up* by whom it is for, what was seen of it may be booked.
        """
        ...


class GuardedCall:
    """One call, or one attempt of it. Every way out of it is one verb, which settles the holds of all budgets.

    Whatever a budget's ledger raises while a call is settled is raised after all the others are settled, and so is a
    cancellation.

    Where an attempt on the wire below has taken the holds over (see `budget_guard.adapter.attempts`), it settles them,
    and the verbs here do nothing twice.

    Args:
        sessions: The budgets that it spends from, the outermost first.
        latch: Where the stops of the run are remembered. What it remembers stops the call before any budget is asked.
    """

    __slots__ = ("_latch", "_name", "answer", "below", "decision", "holds", "output_cap", "over", "sessions")

    never_sent: ClassVar[tuple[type[BaseException], ...]] = ()
    """Errors with which the framework itself refuses to send a call, so that it was not billed."""

    def __init__(self, sessions: Sequence[Session], *, latch: StopLatch | None = None) -> None:
        self.sessions = sessions
        self.holds: list[Reservation] = []
        """One for each session, in their order; none once they are released."""
        self.output_cap: int | None = None
        """The output cap to send, the smallest that any budget asks for; None to send none."""
        self.below: Settler | None = None
        """The attempt on the wire that settles the holds, the latest one; None where there is none."""
        self.answer: Answer | None = None
        """What the latest answer on the wire said was used, where an attempt below has settled it."""
        self.over = False
        """Whether the adapter has settled it, so that nothing that follows is a part of it."""
        self.decision: Decision | None = None
        """The latest decision on it: of the innermost budget, or of the one that refused it; None before there is one.
        """
        self._latch = latch
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        """The model to call, or the tool; None before it is held."""
        return self._name

    # For an adapter to override: what it has to say to each budget's decision

    def asked_of(self, session: Session, call: ModelCall | ToolCall) -> ModelCall | ToolCall:
        """What *session* is asked for: *call*, on the model that the sessions before it decided on."""
        if self._name is None or not isinstance(call, ModelCall) or self._name == call.model:
            return call
        return call._replace(model=self._name)

    def asks_again(self, session: Session, error: BudgetError) -> bool:
        """Whether *session*, which refuses the call with *error*, is to be asked again, say with its limits raised."""
        return False

    def admitted(self, decision: Decision) -> None:
        """Called with each session's *decision* to admit the call. Raise to give it up: all holds are given back."""

    # Before the call

    def hold(self, call: ModelCall | ToolCall, *, may_wait: bool = True) -> Stop | None:
        """Hold the worst case of *call* in every session, or in none.

        Args:
            call: What is about to be sent.
            may_wait: Whether it may block until there is room. False on an event loop's thread.

        Returns:
            None if it may be sent; else what stops it. Nothing is held then.
        """
        return perform(self.holding(call, may_wait=may_wait))

    async def ahold(self, call: ModelCall | ToolCall) -> Stop | None:
        """As `hold`, and waits without blocking."""
        return await aperform(self.holding(call))

    def holding(self, call: ModelCall | ToolCall, *, may_wait: bool | None = None) -> Steps[Stop | None]:
        """As `hold`, as steps for `perform` or `aperform`."""
        options = {"sent": True} if may_wait is None else {"sent": True, "may_wait": may_wait}
        self._name = self.output_cap = self.below = self.answer = None
        self.over = False
        stop = None if self._latch is None else self._latch.get()
        if stop is not None:
            return stop
        try:
            for session in self.sessions:
                while True:
                    decision: Decision = yield session, "authorize", (self.asked_of(session, call),), options
                    self.decision = decision
                    error = decision.error
                    if error is None:
                        break
                    if not self.asks_again(session, error):
                        yield from self.releasing("another budget refused the call")
                        stop = Stop(session, error)
                        if self._latch is not None:
                            self._latch.set(stop)
                        return stop
                hold = decision.require()
                self.holds.append(hold)
                self._name, cap = decision.name, hold.terms.output_cap
                if cap is not None and (self.output_cap is None or cap < self.output_cap):
                    self.output_cap = cap
                self.admitted(decision)
        except BaseException:  # a cancelled wait, or what an adapter raises to give the call up
            yield from self.releasing("the call could not be made")
            raise
        return None

    # While it is made

    def interruption(self, output_tokens: int) -> Stop | None:
        """Why a stream must not go on; None while it may.

        Args:
            output_tokens: How many output tokens have come, at least. A piece of a stream is at least one.
        """
        for session, hold in zip(self.sessions, self.holds, strict=False):
            error = hold.interruption(output_tokens)
            if error is not None:
                return Stop(session, error)
        return None

    def is_made_here(self) -> bool:
        """True where a request that is sent here and now may be one of this call: for a call that is not over.

        To be overridden by calls that may be left behind without being told.
        """
        return not self.over

    def cut_short(self, usage: Usage | None = None, *, known: bool = False) -> Stop | None:
        """The stop that an answer is when a budget's own output cap cut it off; None if none did.

        Half a final answer is better than none: it is no stop.

        Args:
            usage: What the answer took, which tells whether it ran into its cap.
            known: Whether the provider says that it did.
        """
        for session, hold in zip(self.sessions, self.holds, strict=False):
            if not hold.terms.clamped or (isinstance(hold.call, ModelCall) and hold.call.final):
                continue
            if known or (usage is not None and usage.output_tokens >= hold.amounts.output_tokens):
                error = hold.cut_short()
                if error is not None:
                    return Stop(session, error)
        return None

    # After it

    def commit(self, usage: Usage | None, *, service_tier: str | None = None) -> None:
        """Book what the provider billed.

        Args:
            usage: What it billed; None where it did not say, which books what was held, as uncertain.
            service_tier: The price tier that served the call, where it may not be the one asked for.

        Raises:
            Exception: What a session made of the usage. It has booked what was held, then.
        """
        perform(self._once(self._commit(usage, service_tier), given_up=usage is None))

    async def acommit(self, usage: Usage | None, *, service_tier: str | None = None) -> None:
        """As `commit`."""
        await aperform(self._once(self._commit(usage, service_tier), given_up=usage is None))

    def _commit(self, usage: Usage | None, service_tier: str | None) -> Steps[None]:
        options = {"model": self.name, "service_tier": service_tier}
        return self._settle("commit", (usage,), options, otherwise=_SENSELESS)

    def commit_answer(self, answer: Answer) -> None:
        """Book what an answer on the wire says: the model, tier and region that served it, or the provider's own
        figure; what was held where it does not say.

        Raises:
            Exception: As `commit`.
        """
        perform(self._once(self.answering(answer)))

    async def acommit_answer(self, answer: Answer) -> None:
        """As `commit_answer`."""
        await aperform(self._once(self.answering(answer)))

    def answering(self, answer: Answer) -> Steps[None]:
        """As `commit_answer`, as steps, whatever settles the call from below.

        Nothing is noted until they are performed: an attempt below has the better answer.
        """
        self.answer = answer
        if answer.id is not None:
            for session in self.sessions:
                session.note_answer(answer.id)
        if answer.usage is None and answer.cost is None:
            yield from self.estimating(answer.problem or "the provider sent no usage", answer.seen)
            return
        name = self.name
        untold = answer.model is None and bool(self.holds) and name == name_of(self.holds[0].call)
        options = {
            "model": None if untold else served_name(answer.model, name),
            "service_tier": answer.tier,
            "region": answer.region,
            "cost": answer.cost,
            "others": answer.others,
        }
        yield from self._settle("commit", (answer.usage,), options, otherwise=_SENSELESS)

    def commit_cost(self, cost: UsdLike | None = None) -> None:
        """Book what a tool call cost.

        Args:
            cost: Dollars; None for what was held.
        """
        perform(self._once(self._commit_cost(cost)))

    async def acommit_cost(self, cost: UsdLike | None = None) -> None:
        """As `commit_cost`."""
        await aperform(self._once(self._commit_cost(cost)))

    def _commit_cost(self, cost: UsdLike | None) -> Steps[None]:
        return self._settle("commit_cost", (cost,), otherwise=("commit_cost", ()))

    def commit_result(self, costs: ToolCosts, result: object) -> None:
        """Book what a tool call cost by its *result*.

        Raises:
            Exception: What the tool's cost function raised. What was held is booked, then.
        """
        perform(self._once(self._commit_result(costs, result)))

    async def acommit_result(self, costs: ToolCosts, result: object) -> None:
        """As `commit_result`."""
        await aperform(self._once(self._commit_result(costs, result)))

    def note_result(self, result: object) -> None:
        """Note what a tool returned, or the error that it raised, where loops are looked for."""
        for hold in self.holds:
            hold.note_result(result)

    def _commit_result(self, costs: ToolCosts, result: object) -> Steps[None]:
        self.note_result(result)
        try:
            cost = costs.of_result(self.name or "", result)
        except BaseException:
            yield from self._commit_cost(None)
            raise
        yield from self._commit_cost(cost)

    def fail(self, error: BaseException) -> None:
        """Settle a call that ended in *error*: given back only if it provably was not billed, booked by the answer that
        the error carries, if it carries one, else booked as held."""
        perform(self._once(self._fail(error), given_up=isinstance(error, GIVEN_UP)))

    async def afail(self, error: BaseException) -> None:
        """As `fail`."""
        await aperform(self._once(self._fail(error), given_up=isinstance(error, GIVEN_UP)))

    def _fail(self, error: BaseException) -> Steps[None]:
        reason = _kind_of(error)
        if isinstance(error, self.never_sent):
            return self.releasing(reason)
        outcome = outcome_of_error(error)._replace(reason=reason)
        answer = None if outcome.released else carried_answer(error)
        return self.settling(outcome) if answer is None else self.answering(answer)

    def settling(self, outcome: Outcome) -> Steps[None]:
        """Settle a call that failed by what that says about its bill, as steps."""
        if outcome.released or (outcome.is_server_error and all(hold.trusts_server_errors for hold in self.holds)):
            return self.releasing(outcome.reason)
        return self.estimating(outcome.reason)

    def estimate(self, reason: str, seen: Seen | None = None) -> None:
        """Book what was held, because nothing tells what the call used. A later `commit` replaces it.

        Args:
            reason: Why it is not known.
            seen: What was seen of the answer, where its caller gave it up: see ``on_cancel`` of `Session`.
        """
        perform(self._once(self.estimating(reason, seen), given_up=seen is not None))

    async def aestimate(self, reason: str, seen: Seen | None = None) -> None:
        """As `estimate`."""
        await aperform(self._once(self.estimating(reason, seen), given_up=seen is not None))

    def estimating(self, reason: str, seen: Seen | None = None) -> Steps[None]:
        """As `estimate`, as steps, whatever settles the call from below."""
        return self._settle("commit_estimate", (reason,) if seen is None else (reason, seen))

    def release(self, reason: str) -> None:
        """Give the holds back: the call provably was not billed."""
        perform(self._once(self.releasing(reason)))

    async def arelease(self, reason: str) -> None:
        """As `release`."""
        await aperform(self._once(self.releasing(reason)))

    def releasing(self, reason: str) -> Steps[None]:
        """As `release`, as steps, whatever settles the call from below."""
        yield from self._settle("release", (reason,))
        self.holds.clear()

    def _once(self, steps: Steps[None], *, given_up: bool = False) -> Steps[None]:
        """The *steps* of the adapter itself, where no attempt below has settled the holds."""
        self.over = True
        below = self.below
        return steps if below is None else below.conclude(self, steps, given_up)

    def _settle(
        self,
        verb: str,
        arguments: tuple[object, ...],
        options: Mapping[str, object] = {},
        *,
        otherwise: tuple[str, tuple[object, ...]] | None = None,
    ) -> Steps[None]:
        """Perform *verb* on every hold, and *otherwise* where it fails; only then raise what failed first."""
        failed: BaseException | None = None
        for hold in self.holds:
            try:
                yield hold, verb, arguments, options
            except BaseException as error:
                failed = failed or error
                if otherwise is not None:
                    with suppress(Exception):
                        yield hold, *otherwise, {}
        if failed is not None:
            raise failed


GIVEN_UP = (asyncio.CancelledError, GeneratorExit)
"""What ends a call whose answer nobody wants any more."""


def _kind_of(error: BaseException) -> str:
    """The type of *error* and its HTTP status. What it says may hold a key, or the prompt: it goes nowhere."""
    with suppress(Exception):
        for at in (error, getattr(error, "response", None)):
            status = getattr(at, "status_code", None)
            if isinstance(status, int):
                return f"{type(error).__name__} (HTTP {status:d})"
    return type(error).__name__


_SENSELESS = ("commit_estimate", ("its usage made no sense",))
_SNAPSHOT = re.compile(r"[-@:](?:\d{4}-?\d{2}-?\d{2}|\d{4}|\d{3}|latest)(?:-v\d+(?::\d+)?)?")
"""How a snapshot's name goes on after that of its model."""


def served_name(served: str | None, called: str | None) -> str | None:
    """The model to book an answer under: the one that was *called*, where a snapshot of it served the answer."""
    if served is None or called is None or served == called:
        return called
    bare = called.rsplit("/", 1)[-1]
    if served.startswith(bare) and (served == bare or _SNAPSHOT.fullmatch(served, len(bare))):
        return called
    return served


def perform(steps: Steps[T]) -> T:
    """Perform *steps* of a guarded call where that blocks."""
    if is_collecting():  # nobody waits for what comes of it
        settle_elsewhere(lambda: perform(steps))
        return cast("T", None)
    try:  # as `run` does, without a call in between
        of, verb, arguments, options = steps.send(None)
        while True:
            try:
                result = getattr(of, verb)(*arguments, **options)
            except BaseException as error:  # the steps decide
                of, verb, arguments, options = steps.throw(error)
            else:
                of, verb, arguments, options = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def aperform(steps: Steps[T]) -> T:
    """Perform *steps* of a guarded call, awaited. A cancellation is kept back until all that settles a hold is done."""
    if is_collecting():
        return perform(steps)
    cancelled: asyncio.CancelledError | None = None
    try:  # as `arun` does, in one coroutine: each of those around a verb would be entered again by every wait
        of, verb, arguments, options = steps.send(None)
        while True:
            method = getattr(of, f"a{verb}")
            try:
                try:
                    result = await method(*arguments, **options)
                except asyncio.CancelledError as error:
                    if verb == "authorize":  # which leaves nothing held when it is cancelled
                        raise
                    cancelled = cancelled or error
                    result = await _settled_again(method(*arguments, **options))
            except BaseException as error:  # the steps decide
                of, verb, arguments, options = steps.throw(error)
            else:
                of, verb, arguments, options = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        if cancelled is not None:
            raise cancelled


async def _settled_again(verb: Coroutine[Any, Any, Any]) -> Any:
    """What comes of a *verb* that was cancelled, asked for again: holds are settled once, by their ids."""
    settling = asyncio.ensure_future(verb)
    while not settling.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([settling])
    return settling.result()
