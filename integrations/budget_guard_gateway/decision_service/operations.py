"""The operations of the decision service: one table, which routes requests and describes itself."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel

from budget_guard import (
    Budget,
    BudgetError,
    BudgetReport,
    Decision,
    ForeignRun,
    IdempotencyKey,
    LedgerUnavailable,
    ModelCall,
    ReservationConflict,
    ReservationError,
    Scope,
    Session,
    ToolCall,
)
from budget_guard.calls.decision_json import decision_text
from budget_guard.protocol import Problem, decision_record, problem, problem_of
from budget_guard.protocol.words import usd
from budget_guard.units.amounts import DIMENSIONS
from budget_guard.units.money import nano_of, to_usd
from budget_guard.units.printable import printable
from budget_guard_gateway.alternatives import alternatives_to
from budget_guard_gateway.decision_service.bodies import (
    CommitRequest,
    DecisionRequest,
    DryRun,
    NoBody,
    OpenedRun,
    ReleaseRequest,
    RunRequest,
    Settlement,
)
from budget_guard_gateway.decisions import is_decision_id, owner_of
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.messages import Client, Refused
from budget_guard_gateway.runs import OpenRun, checked_run_id, is_run_id
from budget_guard_gateway.state import GatewayState

_DAY_S = 86_400
_HOLD_TTL_S = 900.0
"""Seconds after which a reservation expires that nobody settles."""


class Asked(NamedTuple):
    """What an operation is asked with."""

    who: Principal
    path: Mapping[str, str]
    """The names in the path."""
    headers: Mapping[bytes, bytes]
    body: Any
    client: Client


class Answer(NamedTuple):
    """What is answered."""

    status: int
    document: Mapping[str, Any]
    decision: Decision | None = None
    error: BudgetError | None = None
    run: Session | None = None
    action: str | None = None
    """What was, or would be, decided, where that is not what the rest says."""
    record: Mapping[str, Any] | None = None
    """The record that it is, where it is one of a decision that was made before."""
    refusal: Problem | None = None
    """The problem that is answered in the place of the document."""


Perform: TypeAlias = "Callable[[DecisionService, Asked], Awaitable[Answer]]"


class Operation(NamedTuple):
    """One thing that callers can ask for."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """A part in braces is a name, and stands for any."""
    perform: Perform
    words: str
    body: type[BaseModel] = NoBody
    answers: type[BaseModel] | Literal["Decision"] = "Decision"
    status: int = 200
    is_keyed: bool = False
    """Whether it takes an Idempotency-Key."""


class DecisionService:
    """Decides for callers who send by themselves, by the ledger: any process can settle what another has held.

    Args:
        gateway: What it goes by.
    """

    def __init__(self, gateway: GatewayState) -> None:
        self._gateway = gateway
        self._ledger = gateway.authority.ledger.aio
        self._kept_s = gateway.settings.decisions_kept_days * _DAY_S

    # Decisions

    async def decide(self, asked: Asked) -> Answer:
        """Decide on a call, and hold its worst case."""
        body: DecisionRequest = asked.body
        gateway, who = self._gateway, asked.who
        key, run_id = self._key(asked, body), self._run_id(asked, body)
        if run_id is None and key is not None:  # the second time it must be the same run
            run_id = f"run-{_digest([owner_of(who), key.key])[:32]}"
        elif run_id is None and body.dry_run:  # one run for all of them: where runs are counted, each would count
            run_id = f"dry-run-{_digest(owner_of(who))[:32]}"
        call = body.call(gateway.settings.models)
        if isinstance(call, ModelCall) and not who.may_use(call.model):  # what is behind a name, as of calls passed on
            asked_for = printable(body.model or "")
            words = f"model={asked_for!r:.100} may not be used with this key. Ask for one that it may use."
            raise Refused(problem("model_not_allowed", words))
        try:
            run = await gateway.runs.enter(who, run_id)
        except BudgetError as error:
            gateway.metrics.refused(error)
            raise
        try:
            if body.dry_run:
                return await self._foresee(run, call)
            asked.client.may_stop = key is None  # with a key, who asks again gets what is decided
            decision = await run.session.aauthorize(call, idempotency_key=key, hold_ttl_s=_HOLD_TTL_S)
            asked.client.may_stop = False
            if isinstance(decision.error, ReservationConflict):
                words = "Idempotency-Key was sent with another body before. Nothing is held: use a new key."
                return _refused(problem("conflict", words), decision, run)
            settled = await self._keep(decision, run, is_keyed=key is not None)
            return await self._decided(decision, run, settled, _prefers_record(asked.headers))
        finally:
            await gateway.runs.leave(run)

    async def _decided(
        self, decision: Decision, run: OpenRun, settled: Mapping[str, Any] | None, prefers_record: bool
    ) -> Answer:
        gateway = self._gateway
        if decision.error is None or prefers_record:
            record = decision_record(decision, mode=run.session.budget.mode, feature=run.who.feature)
            if settled is not None:  # it came before
                record |= {name: settled[name] for name in ("state", "cost_usd", "uncertain")}
            return Answer(200, record, decision, decision.error, run.session)
        instead = await alternatives_to(decision, run, gateway.settings)
        refusal = problem_of(
            decision.error,
            decision=decision,
            run_id=run.session.id,
            exceeded_status=gateway.settings.exceeded_status,
            alternatives=instead,
        )
        return _refused(refusal, decision, run)

    async def _keep(self, decision: Decision, run: OpenRun, *, is_keyed: bool) -> Mapping[str, Any] | None:
        """Keep what any process needs to settle it, before it is answered.

        Returns:
            What became of it, where it came before and is settled.
        """
        held, is_new = decision.reservation, True
        if held is not None:
            text = _held_text(run.who, run.session.id, decision)
            try:
                kept = await self._ledger.swap(_place(decision.id), None, text, self._kept_s)
            except LedgerUnavailable:
                if decision.action != "advisory_warn":  # else it passes without a hold
                    if not is_keyed:  # with a key the next one finds the hold again
                        await held.arelease("it could not be kept")
                    raise
            else:
                is_new = kept == text
                settled: Mapping[str, Any] | None = json.loads(kept or "{}").get("settled")
                if settled is not None:
                    return settled
                if not is_new and not await self._is_held_on(decision.id):
                    raise Refused(_not_held(decision.id))
        if is_new:
            self._gateway.metrics.decided(decision)
        await self._gateway.decisions.write(decision, run.who)
        return None

    async def _is_held_on(self, id: str) -> bool:
        """Extend a hold to the time of a new one; False if it is not there any more."""
        try:
            return await self._ledger.extend(id, _HOLD_TTL_S)
        except ReservationError:
            return False

    async def _foresee(self, run: OpenRun, call: ModelCall | ToolCall) -> Answer:
        estimate = await run.session.aestimate(call)
        stop = None if estimate.error is None else problem_of(estimate.error, run_id=run.session.id)
        told = DryRun(
            decision=estimate.action,
            requested=printable(estimate.requested),
            selected=None if estimate.action == "block" else printable(estimate.name),
            estimate_usd=usd(estimate.held_usd),
            effective_max_output_tokens=estimate.output_cap,
            waits=estimate.waits,
            code=None if stop is None else stop.code,
            reason="" if stop is None else stop.detail,
        )
        error = estimate.error if estimate.action == "block" else None
        return Answer(200, told.model_dump(mode="json"), None, error, run.session, action=estimate.action)

    async def look_up(self, asked: Asked) -> Answer:
        """The record of a decision."""
        id = asked.path["id"]
        found = await self._gateway.decisions.find(id, asked.who) if is_decision_id(id) else None
        if found is None:
            raise Refused(problem("not_found", "There is no decision of that id, or it is no longer kept."))
        record: dict[str, Any] = json.loads(found)
        return Answer(200, record, action=record["decision"], record=record)

    # Reservations

    async def forward(self, asked: Asked) -> Answer:
        """Note that the call is being sent: from now on it stays held until it is settled."""
        async with self._held(asked) as held:
            if held.settled is not None:
                return held.answer(held.settled)
            try:
                await self._ledger.forward(held.id)
            except ReservationConflict:
                raise Refused(_not_held(held.id)) from None
            return held.answer(_settlement(held.id, "forwarded"))

    async def commit(self, asked: Asked) -> Answer:
        """Book what the call took, and give the rest back."""
        body: CommitRequest = asked.body
        same = _digest(body.model_dump(mode="json"))
        async with self._held(asked) as held:
            before = held.settled
            if before is not None and before["state"] == "committed" and not before["uncertain"]:
                if held.of == same:
                    return held.answer(before)
                raise Refused(_other_amounts(held.id))
            try:
                cost = await _committed(held.decision, body)
            except ReservationConflict:
                raise Refused(_other_amounts(held.id)) from None
            except ValueError:  # of parts that are within bounds each, and together are not
                words = "usage is more than a ledger can hold for one call: say what the provider billed."
                raise Refused(problem("invalid_request", words)) from None
            posting = held.decision.require().posting
            uncertain = posting is not None and posting.uncertain
            settled = _settlement(held.id, "committed", usd(to_usd(cost)), uncertain)
            await self._note(held, settled, same)
            return held.answer(settled)

    async def release(self, asked: Asked) -> Answer:
        """Give the hold back: the call provably was not billed. After a commit it has no effect."""
        body: ReleaseRequest = asked.body
        async with self._held(asked) as held:
            if held.settled is not None:
                return held.answer(held.settled)
            await held.decision.require().arelease(printable(body.reason))
            settled = _settlement(held.id, "released")
            await self._note(held, settled, "")
            return held.answer(settled)

    async def _note(self, held: _Held, settled: Mapping[str, Any], of: str) -> None:
        """Keep what became of it. It is booked: if that cannot be kept now, the ledger is asked again the next time."""
        text = json.dumps({**held.document, "settled": settled, "of": of})
        self._gateway.metrics.settled(held.decision)
        with suppress(LedgerUnavailable):
            await self._ledger.swap(_place(held.id), held.text, text, self._kept_s)
        await self._gateway.decisions.write(held.decision, held.run.who)

    @asynccontextmanager
    async def _held(self, asked: Asked) -> AsyncGenerator[_Held]:
        """The reservation that is meant, in its run. What is another principal's is not there."""
        id, who, runs = asked.path["id"], asked.who, self._gateway.runs
        text = await self._ledger.swap(_place(id), None, None, 1) if is_decision_id(id) else None
        document: dict[str, Any] = json.loads(text) if text is not None else {}
        if text is None or document["owner"] != owner_of(who):
            words = "There is no reservation of that id, or it is no longer kept."
            raise Refused(problem("unknown_reservation", words))
        run = await runs.enter(who, document["run_id"])
        try:
            decision = run.session.take_up(document["decision"])
            yield _Held(id, text, document, run, decision, document.get("settled"), document.get("of"))
        finally:
            await runs.leave(run)

    # Runs

    async def open_run(self, asked: Asked) -> Answer:
        """Open a run, with limits of its own."""
        body: RunRequest = asked.body
        runs, who = self._gateway.runs, asked.who
        allowed = runs.budget_of(who)
        limits = {name: value for name, value in body.budget.model_dump().items() if value is not None}
        for name, value in limits.items():
            most = getattr(allowed, name)
            try:
                wanted = getattr(Budget(**{name: value}), name)
            except ValueError as error:
                raise Refused(problem("invalid_request", f"budget.{error}.")) from None
            if most is not None and wanted > most:
                words = f"budget.{name}={value} is more than a run may have here: ask for {most} at most."
                raise Refused(problem("invalid_request", words))
        run_id = body.run_id or runs.new_id()
        run = await runs.enter(who, run_id, limits={name: str(value) for name, value in limits.items()} or None)
        try:
            budget = run.session.budget
            told = OpenedRun(
                run_id=run.session.id,
                mode=budget.mode,
                limits={
                    name: usd(value) if isinstance(value, Decimal) else value
                    for name in DIMENSIONS
                    if (value := getattr(budget, name)) is not None
                },
                remaining_usd=_maybe_usd(await run.session.aleast_remaining_usd()),
            )
            return Answer(201, told.model_dump(mode="json"), None, None, run.session)
        finally:
            await runs.leave(run)

    async def report(self, asked: Asked) -> Answer:
        """The report of a run."""
        run = await self._own_run(asked)
        try:
            return await self._reported(run)
        finally:
            await self._gateway.runs.leave(run)

    async def end_run(self, asked: Asked) -> Answer:
        """End a run: every further call in it is refused. What is in flight is settled as usual."""
        run = await self._own_run(asked)
        try:
            await run.session.arevoke("it was ended by whoever runs it")
            return await self._reported(run)
        finally:
            await self._gateway.runs.leave(run)
            await self._gateway.runs.end(run)

    async def _reported(self, run: OpenRun) -> Answer:
        report = await run.session.areport()
        return Answer(200, _own_part(report, self._gateway.authority.kinds), None, None, run.session)

    async def _own_run(self, asked: Asked) -> OpenRun:
        """The run that is meant, which is there and the caller's own, until it is left."""
        id = asked.path["id"]
        try:
            if not is_run_id(id):
                raise KeyError(id)
            await self._ledger.balances((Scope("run", id),))
            return await self._gateway.runs.enter(asked.who, id)
        except (KeyError, ForeignRun):
            raise Refused(problem("not_found", "There is no run of that id.")) from None

    # What is asked for

    def _run_id(self, asked: Asked, body: DecisionRequest) -> str | None:
        header = asked.headers.get(b"x-run-id")
        named = checked_run_id(None if header is None else header.decode("latin-1"))
        if named is not None and body.run_id is not None and named != body.run_id:
            words = f"run_id={body.run_id!r} and X-Run-Id name two runs: send one of them."
            raise Refused(problem("invalid_request", words))
        return named or body.run_id

    def _key(self, asked: Asked, body: DecisionRequest) -> IdempotencyKey | None:
        header = asked.headers.get(b"idempotency-key")
        if header is None or body.dry_run:
            return None
        run_id = asked.headers.get(b"x-run-id", b"").decode("latin-1") or body.run_id
        digest = _digest({**body.model_dump(mode="json"), "run_id": run_id})
        key = header.decode("latin-1")
        if not 0 < len(key) <= 255:
            raise Refused(problem("invalid_request", "Idempotency-Key must have 1 to 255 characters."))
        return IdempotencyKey(key, digest)


class _Held(NamedTuple):
    """A reservation as it is kept."""

    id: str
    text: str
    document: Mapping[str, Any]
    run: OpenRun
    decision: Decision
    """The decision that made it."""
    settled: Mapping[str, Any] | None
    """What became of it; None while it is open."""
    of: str | None
    """The digest of the body that it was committed with."""

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """An answer about it."""
        return Answer(200, document, self.decision, None, self.run.session)


async def _committed(decision: Decision, body: CommitRequest) -> int:
    """Book what a call took; its cost in nano-dollars.

    Raises:
        ReservationConflict: If other amounts were booked before.
        Refused: If it says what such a call cannot take.
    """
    held, cost = decision.require(), body.cost_usd
    if body.usage is None and cost is None:
        return await held.acommit_estimate("the caller did not say what it took")
    if decision.kind == "tool":
        if body.usage is not None or cost is None:
            words = "usage is of a model's call, and this reservation is of a tool's: give cost_usd."
            raise Refused(problem("invalid_request", words))
        return await held.acommit_cost(str(cost))
    return await held.acommit(
        None if body.usage is None else body.usage.core(),
        model=body.model,
        service_tier=body.service_tier,
        cost=None if cost is None else nano_of(str(cost), "cost_usd"),
    )


def _refused(refusal: Problem, decision: Decision, run: OpenRun) -> Answer:
    return Answer(refusal.status, refusal.document, decision, decision.error, run.session, refusal=refusal)


def _other_amounts(id: str) -> Problem:
    return problem("conflict", f"The reservation {id} was committed with other amounts. Those are booked.")


def _not_held(id: str) -> Problem:
    words = f"Nothing is held any more by the reservation {id}: its time was up, or it was released."
    return problem("conflict", f"{words} Do not make the call: ask for another decision, with another Idempotency-Key.")


def _own_part(report: BudgetReport, shared_kinds: Collection[str]) -> dict[str, Any]:
    """A report without the names and amounts of scopes that others share, as in problems."""
    document: dict[str, Any] = json.loads(report.model_dump_json())
    shared = [each.scope for each in report.limits if each.scope.partition(":")[0] in shared_kinds]
    document["limits"] = [each for each in document["limits"] if each["scope"] not in shared]
    for name in ("events", "marks"):
        document[name] = [
            {field: _own_words(value, shared) for field, value in each.items()} for each in document[name]
        ]
    return document


def _own_words(value: object, shared: Sequence[str]) -> object:
    """*value*, or, where it is a text about one of the *shared* scopes, what a caller may know of it."""
    told = next((scope for scope in shared if isinstance(value, str) and scope in value), None)
    return value if told is None else f"It is about the limit of the {told.partition(':')[0]}."


def _held_text(who: Principal, run_id: str, decision: Decision) -> str:
    kept_by = uuid.uuid4().hex  # so that of many that keep it, each knows whether it was the first
    document = {"owner": owner_of(who), "run_id": run_id, "decision": decision_text(decision), "by": kept_by}
    return json.dumps(document)


def _settlement(id: str, state: Any, cost_usd: str | None = None, uncertain: bool | None = None) -> dict[str, Any]:
    return Settlement(reservation_id=id, state=state, cost_usd=cost_usd, uncertain=uncertain).model_dump(mode="json")


def _place(id: str) -> str:
    """Where the ledger keeps a reservation of this service."""
    return f"reservation:{id}"


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _maybe_usd(amount: Decimal | None) -> str | None:
    return None if amount is None else usd(amount)


def _prefers_record(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a record is preferred to a problem (RFC 7240): ``Prefer: decision``."""
    told = headers.get(b"prefer", b"").decode("latin-1").lower()
    return "decision" in [each.partition(";")[0].strip() for each in told.split(",")]


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        *("POST", "/budget/decisions", DecisionService.decide, "Decide on a call, and hold its worst case"),
        body=DecisionRequest,
        is_keyed=True,
    ),
    Operation("GET", "/budget/decisions/{id}", DecisionService.look_up, "The record of a decision"),
    Operation(
        *("POST", "/budget/reservations/{id}/forward", DecisionService.forward, "The call is being sent"),
        answers=Settlement,
    ),
    Operation(
        *("POST", "/budget/reservations/{id}/commit", DecisionService.commit, "The call was made: book what it took"),
        body=CommitRequest,
        answers=Settlement,
    ),
    Operation(
        *("POST", "/budget/reservations/{id}/release", DecisionService.release, "The call was not billed"),
        body=ReleaseRequest,
        answers=Settlement,
    ),
    Operation(
        *("POST", "/budget/runs", DecisionService.open_run, "Open a run"),
        body=RunRequest,
        answers=OpenedRun,
        status=201,
    ),
    Operation("GET", "/budget/runs/{id}", DecisionService.report, "The report of a run", answers=BudgetReport),
    Operation("DELETE", "/budget/runs/{id}", DecisionService.end_run, "End a run", answers=BudgetReport),
)
