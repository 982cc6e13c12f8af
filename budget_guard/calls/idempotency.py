"""Idempotency keys: the same key from the same principal gets the decision that was made the first time.

Who comes first claims the key in the ledger, with `Ledger.swap`, decides, and writes the decision in the place of the
claim; everybody else waits for that, in whatever process, and reads it. A claim lapses: where a process dies between
the two, the next one decides anew, and what the first may have held expires in the ledger. A decider that was so slow
that its claim has lapsed gives back what it holds, so that of many that come with one key exactly one hold is left.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Any, NamedTuple, TypeVar

from budget_guard.calls import settlement
from budget_guard.calls.authorizer import Authorizer
from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.decision import Decision
from budget_guard.calls.decision_json import read, written, written_call
from budget_guard.calls.queue import Steps, Ticket
from budget_guard.calls.run import Run
from budget_guard.errors import BudgetError, BudgetExceeded, LedgerUnavailable, ReservationConflict

T = TypeVar("T")

KEPT_S = 86_400.0
"""Seconds for which a key is remembered."""
HOLD_TTL_S = 900.0
"""Seconds after which a hold with a key expires that nobody settles: another process may have to."""
_MOST_LENGTH = 255
_CLAIMED_S = 30.0
"""Seconds that a decision takes at most, beside those that it may wait for room."""
_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.25
"""Between two looks at what another process decides."""
_MOST_AT_HAND = 1_000


class IdempotencyKey(NamedTuple):
    """The key of a call that may come more than once."""

    key: str
    """The caller's own name for this one call: at most 255 characters."""
    body: str = ""
    """A digest of the call's text, or the like: it tells calls apart that have the same model, terms and weight."""


def checked_key(key: str | IdempotencyKey) -> IdempotencyKey:
    """*key*, checked.

    Raises:
        ValueError: If it is empty or too long.
    """
    made = key if isinstance(key, IdempotencyKey) else IdempotencyKey(key)
    if not isinstance(made.key, str) or not 0 < len(made.key) <= _MOST_LENGTH:
        raise ValueError(f"idempotency_key={made.key!r:.60} must be a text of 1 to {_MOST_LENGTH} characters")
    return made


class KeyedDecisions:
    """The decisions of one session on calls that came with a key: those at hand, and those being made elsewhere."""

    def __init__(self) -> None:
        self._at_hand: OrderedDict[str, Decision] = OrderedDict()
        self._awaited: dict[str, Ticket] = {}

    def authorize(
        self, authorizer: Authorizer, call: ModelCall | ToolCall, key: IdempotencyKey, may_wait: bool, sent: bool
    ) -> Steps[Decision]:
        """Decide on *call*, or get what was decided on it.

        Args:
            authorizer: Who decides.
            call: The call.
            key: Its key.
            may_wait: As in `Authorizer.authorize`.
            sent: As in `Authorizer.authorize`.
        """
        run = authorizer.run
        at_s = run.recorder.timeline.start()
        place, print_ = _place(run, key), _fingerprint(run, call, key)
        patience = _CLAIMED_S + run.budget.max_wait_s
        ends, pause = run.clock.monotonic() + patience, _PAUSE_S
        while True:
            claim = json.dumps({"call": print_, "by": run.new_id()})
            try:
                kept: str = yield "swap", (place, None, claim, patience)
            except LedgerUnavailable as error:
                return (yield from authorizer.failed(run.new_id(), at_s, call, None, error))
            if kept == claim:
                decision = yield from self._decide(authorizer, call, place, print_, claim, may_wait, sent)
                if decision is not None:
                    return decision
                continue
            found: dict[str, Any] = json.loads(kept)
            if found.get("call") != print_:
                return _conflict(authorizer, at_s, call)
            if "decision" in found:
                return self._known(found["decision"], call, authorizer)
            if not may_wait or run.clock.monotonic() >= ends:
                unknown = LedgerUnavailable(detail="the call of this idempotency key is being decided on: try again")
                return authorizer.refusal(run.new_id(), at_s, call, None, unknown)
            if len(self._awaited) >= _MOST_AT_HAND:  # of those that other processes decide nobody takes them out
                self._awaited.clear()  # who waits looks again by itself
            ticket = self._awaited.setdefault(place, Ticket(run.clock, (), (), True))
            yield "await_turn", (ticket, ticket.turn.times, pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _decide(
        self,
        authorizer: Authorizer,
        call: ModelCall | ToolCall,
        place: str,
        print_: str,
        claim: str,
        may_wait: bool,
        sent: bool,
    ) -> Steps[Decision | None]:
        """Decide, and write it in the place of the *claim*; None where that was not ours any more."""
        at_s = authorizer.run.recorder.timeline.at()
        text: str | None = None
        decision: Decision | None = None
        try:
            decision = yield from with_own_time(authorizer.authorize(call, may_wait, sent), HOLD_TTL_S)
            kept_s = _kept_s(decision.error)
            if kept_s is not None:
                text = json.dumps({"call": print_, "decision": written(decision)})
            now: str | None = yield "swap", (place, claim, text, kept_s or KEPT_S)
        except BaseException as error:
            if decision is not None:
                yield from _take_back(authorizer.run, decision)
            yield from _clear(place, claim, text)
            if not isinstance(error, LedgerUnavailable):
                raise
            if decision is not None and decision.reservation is None:
                return decision
            return (yield from authorizer.failed(authorizer.run.new_id(), at_s, call, None, error))
        finally:
            awaited = self._awaited.pop(place, None)
            if awaited is not None:
                awaited.turn.give()
        if now == text:
            self._keep(decision)
            return decision
        yield from _take_back(authorizer.run, decision)
        return None

    def _known(self, text: dict[str, Any], call: ModelCall | ToolCall, authorizer: Authorizer) -> Decision:
        at_hand = self._at_hand.get(text["id"])
        if at_hand is None:
            at_hand = read(text, call, authorizer)
            self._keep(at_hand)
        return at_hand

    def _keep(self, decision: Decision) -> None:
        self._at_hand[decision.id] = decision
        if len(self._at_hand) > _MOST_AT_HAND:
            self._at_hand.popitem(last=False)


def with_own_time(deciding: Steps[T], ttl_s: float) -> Steps[T]:
    """*deciding*, but that what is held expires *ttl_s* seconds from then, if it is not prolonged.

    In a ledger of leases too such a hold is one of the shared ledger, which any process can settle.
    """
    try:
        verb, arguments = deciding.send(None)
        while True:
            if verb == "reserve":
                hold_id, scopes, amounts, room, _, *rest = arguments
                arguments = (hold_id, scopes, amounts, room, ttl_s, *rest)
            try:
                answer = yield verb, arguments
            except BaseException as error:  # what is decided on decides, a cancellation included
                verb, arguments = deciding.throw(error)
            else:
                verb, arguments = deciding.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def _place(run: Run, key: IdempotencyKey) -> str:
    """The place of its decision in the ledger: one for each principal and key."""
    named = json.dumps([run.owner, key.key]).encode()
    return f"key:{hashlib.blake2b(named, digest_size=20).hexdigest()}"


def _fingerprint(run: Run, call: ModelCall | ToolCall, key: IdempotencyKey) -> str:
    """A digest that is the same for equal calls, in every process."""
    weights: object = None
    policy = ""
    if isinstance(call, ModelCall):
        prompt = call.prompt
        kinds = sorted(prompt.unweighed.values())
        weights = [prompt.base, [weight for _, weight in prompt.parts], prompt.text, kinds, list(prompt.opaque)]
        policy = repr(call.downgrade)
    told = [[list(each) for each in run.scopes], key.body, written_call(call), weights, policy]
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=20).hexdigest()


def _kept_s(error: BudgetError | None) -> float | None:
    """For how many seconds a decision is kept; None for a refusal that asks to try again."""
    if isinstance(error, LedgerUnavailable):
        return None
    if isinstance(error, BudgetExceeded):
        if error.waiting_helps or error.dimension in ("max_live_runs", "max_runs"):
            return None
        if error.retry_after_s is not None:
            return min(max(error.retry_after_s, 0.001), KEPT_S)
    return KEPT_S


def _conflict(authorizer: Authorizer, at_s: float, call: ModelCall | ToolCall) -> Decision:
    decision_id = authorizer.run.new_id()
    error = ReservationConflict(
        reservation_id=decision_id,
        detail="the idempotency key came with another call before; nothing was held. Use another key for another call",
        decision_id=decision_id,
    )
    decision = authorizer.refusal(decision_id, at_s, call, None, error)
    authorizer.decisions.add(decision)
    return decision


def _take_back(run: Run, decision: Decision) -> Steps[None]:
    """Give back what a decision holds that nobody gets."""
    held = decision.reservation
    if held is None:
        return
    try:
        freed: bool = yield "release", (decision.id, run.scopes)
    except Exception:  # it expires
        return
    settlement.released(run, held, "its idempotency key was decided on elsewhere", freed)


def _clear(place: str, *texts: str | None) -> Steps[None]:
    """Take away what may be kept there of ours, so that the next one need not wait."""
    for text in texts:
        if text is not None:
            try:
                yield "swap", (place, text, None, KEPT_S)
            except Exception:
                return
