"""Settlement: the bill of a call that is over, and the records that are made once it is booked.

Functions over a run and a held call. They perform no ledger verb of a call by themselves, so that blocking and awaiting
callers share them: `Reservation` books what `bill`, `bill_tool` or `estimate` says, and hands the ledger's answer to
`settled`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.held import HeldCall
from budget_guard.calls.plan import Plan, Rung, Terms
from budget_guard.calls.refusals import OUTPUT_CAP, cause, exceeded, remedy_of, revoked
from budget_guard.calls.run import Run
from budget_guard.calls.seen import Seen, is_all_seen, seen_tokens
from budget_guard.calls.worst_case import plan_tool
from budget_guard.errors import BudgetError, BudgetExceeded, BudgetRevoked, LedgerUnavailable, UnknownPriceError
from budget_guard.events.model import AnswerCutOff, CallReleased, Tokens, UsageEvent
from budget_guard.ledger.base import Balance, Refused, ScopeSpend, Settled
from budget_guard.ledger.checks import checked_amounts
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import NO_LINES, CheckedLines, UsageLine
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.rate_card import BUCKETS
from budget_guard.pricing.table import same_tier
from budget_guard.reporting.posting import Posting, Source
from budget_guard.units.amounts import DIMENSIONS, MOST, Amounts, Limits, in_unit, unchecked
from budget_guard.units.money import UsdLike, format_usd, nano_of
from budget_guard.units.usage import Usage

_NO_USAGE = "the provider sent no usage"
_NOTHING = "the provider reports nothing for a call that it answered"
_FAR_MORE = "the provider reports far more than such a call can take"
_BY_FAR = 2
"""A report is wrong where both of its totals are above this many times what was held for them.

The bound of the input holds by proof for all that is in the request, and an output cap is kept by the provider. Either
may be passed honestly: the input by what a hosted tool brings in or by a second pass over it (twice, for a compaction),
the output by reasoning that the provider counts beside the cap. Both at once, and by more than twice, is a report that
was added up from cumulative counts, or that is of another call.
"""


class Bill(NamedTuple):
    """The amounts to book for a call."""

    amounts: Amounts
    name: str
    """The model that was called, or the tool."""
    uncertain: bool = False
    """Whether the amounts are an estimate."""
    note: str | None = None
    """Why they are no exact price, if they are none."""
    source: Source = "price"
    """Where the cost comes from."""
    usage: Usage | None = None
    """What they were made of, where it is known."""


def bill(
    run: Run,
    held: HeldCall,
    usage: Usage | None,
    model: str | None,
    service_tier: str | None,
    region: str | None = None,
    cost: int | None = None,
    others: Sequence[tuple[str, Usage]] = (),
) -> Bill:
    """The bill for *usage*. Money that was spent is never refused here, and never booked as nothing.

    Args:
        run: The run.
        held: The call.
        usage: What the provider billed; None where it did not say.
        model: The model that was called, where it is not the planned one.
        service_tier: The price tier that served the call, where it may not be the one asked for.
        region: Where the answer was made, where it may not be what was asked for.
        cost: The provider's own figure for the call, in nano-dollars. It is the best there is.
        others: What other models used for the same answer, to be billed besides.

    Raises:
        TypeError: If it is a tool call.
        ValueError: If a quantity is negative, or no whole number.
    """
    call, rung = held.call, held.terms.rung
    if not isinstance(call, ModelCall):
        raise TypeError(f"{call.tool!r} is a tool call: settle it with commit_cost")
    if usage is None:
        unknown = estimate(held, _NO_USAGE)
        return unknown if not cost else unknown._replace(amounts=held.amounts._replace(cost=cost))
    name, price, unpriced = model or rung.model, rung.price, None
    tier_differs = service_tier is not None and not same_tier(service_tier, run.planner.ladder.tier_of(call))
    if name != rung.model or tier_differs or not (region is None or region == call.region) or not rung.exact:
        price, unpriced = run.planner.ladder.price_served(call, rung, model, service_tier, region)
        run.planner.note_served(call, rung, name, service_tier, region)
    if price is not None and cost is None and not others and unpriced is None:
        amounts = price.bill_text(usage)
        # one between nothing and all that is held makes sense: not both of its totals are above twice what is held
        if amounts is not None and (
            0 < amounts.total_tokens <= held.amounts.total_tokens or _makes_sense(held, amounts)
        ):
            return unchecked(Bill, (amounts, name, False, None, "price", usage))
    return _look_closer(run, held, price, unpriced, usage, name, cost, others)


def _look_closer(
    run: Run,
    held: HeldCall,
    price: ModelPrice | None,
    unpriced: str | None,
    usage: Usage,
    name: str,
    provider_cost: int | None,
    others: Sequence[tuple[str, Usage]],
) -> Bill:
    """The bill of a call that is more than text at a known price, or whose report makes no sense.

    Where it has no price as it was served, which *unpriced* says, it is booked at what was held, or at the planned
    price if that is more.
    """
    call = held.call
    fees, rest = _named_fees(call, usage)
    cost, note = _cost(run, price, rest, name, held.amounts.cost)
    if unpriced is not None:
        cost, note = max(cost, held.amounts.cost), unpriced
    cost += fees
    read, written = usage.input_tokens, usage.output_tokens
    source: Source = "price"
    reported = checked_amounts(Amounts(cost, read, written, read + written, usage.requests or 1))
    if not _makes_sense(held, reported if cost else reported._replace(cost=provider_cost or 0)):
        return estimate(held, _FAR_MORE if read or written else _NOTHING)
    for other, used in others:
        of_other = run.planner.ladder.price_called(call, other, None) if isinstance(call, ModelCall) else None
        more, unpriced = _cost(run, of_other, used, other, 0)
        cost, note = cost + more, note or unpriced
        read, written = read + used.input_tokens, written + used.output_tokens
    if provider_cost is not None and (provider_cost or not cost):  # a figure of nothing is no figure where text costs
        cost, note, source = provider_cost, None, "provider"
    amounts = Amounts(cost, read, written, read + written, usage.requests or 1)
    return Bill(amounts, name, False, note, source, usage)


def _named_fees(call: ModelCall | ToolCall, usage: Usage) -> tuple[int, Usage]:
    """What the uses of hosted tools cost whose fee the caller named, and *usage* without them."""
    if not isinstance(call, ModelCall) or not call.tool_fees:
        return 0, usage
    named = dict(call.tool_fees)
    fees = sum(named[unit] * quantity for unit, quantity in usage.other if unit in named)
    other = tuple(each for each in usage.other if each[0] not in named)
    if "web_search" not in named:
        return fees, usage._replace(other=other)
    return fees + named["web_search"] * usage.web_search, usage._replace(other=other, web_search=0)


def _makes_sense(held: HeldCall, amounts: Amounts) -> bool:
    """Whether a report can be that of the call: not nothing for what was answered, not far more than it can take."""
    cost, read, written, total, _, _ = amounts
    most_cost, most_read, most_written, most, _, _ = held.amounts
    if not total and not cost:
        return not most and not most_cost
    return read <= _BY_FAR * most_read or written <= _BY_FAR * most_written or not held.terms.bounded


def bill_tool(held: HeldCall, cost: UsdLike | None) -> Bill:
    """The bill for a tool call that cost *cost* dollars, or what was held.

    Raises:
        ValueError: If *cost* is no amount of money.
        TypeError: If it is a model call.
    """
    if not isinstance(held.call, ToolCall):
        raise TypeError(f"{held.call.model!r} is a model call: settle it with commit(usage)")
    amounts = held.amounts if cost is None else Amounts(cost=nano_of(cost, "cost"), tool_calls=held.amounts.tool_calls)
    return Bill(amounts, held.call.tool)


def estimate(held: HeldCall, reason: str) -> Bill:
    """The bill for a call of which it is not known what it used, for *reason*: all that is held."""
    return Bill(held.amounts, held.terms.rung.model, True, reason, "estimate")


def given_up(run: Run, held: HeldCall, reason: str, seen: Seen | None) -> Bill:
    """The bill for a call that its caller gave up, for *reason*, once *seen* of its answer had come.

    All that is held, unless the run wants what was seen booked, and that is all there is to bill.
    """
    call, terms = held.call, held.terms
    price = terms.rung.price
    all_held = estimate(held, reason)
    if seen is None or run.on_cancel == "bound" or not isinstance(call, ModelCall) or price is None:
        return all_held
    if not terms.bounded or call.hosted_tools or price.own_tools or not is_all_seen(seen, price):
        return all_held
    told = seen.usage
    written = seen_tokens(terms.rung.model, seen.text)
    if told is None:
        likely = run.planner.calibration[terms.rung.model].likely(call.prompt)
        read = min(held.amounts.input_tokens, likely or held.amounts.input_tokens)
        cost = price.worst(read, written, hour_cache=call.hour_cache, kinds=call.kinds)
    else:
        told = told._replace(output=max(written, told.output))
        read, written = told.input_tokens, told.output_tokens
        cost, note = _cost(run, price, told, terms.rung.model, held.amounts.cost)
        if note is not None:
            return all_held
    if written >= held.amounts.output_tokens or cost >= held.amounts.cost:
        return all_held
    amounts = checked_amounts(Amounts(cost, read, written, read + written, 1))
    return all_held._replace(amounts=amounts, note=f"{reason}, and what was seen of it is booked")


def lines(run: Run, call: ModelCall | ToolCall, bill: Bill) -> Sequence[UsageLine]:
    """What the ledger's usage history is told of a call, where it has one."""
    if not run.keeps_history:
        return NO_LINES
    amounts, name, _, _, _, usage = bill
    agent, is_model = call.agent, isinstance(call, ModelCall)
    labels = run.labels.get((name, agent, is_model)) or run.labels_of(name, agent, is_model)
    if usage is None:
        return CheckedLines((UsageLine(labels, amounts),))
    _, read, w5, w1, _, heard, _, _, thought, _, _, _, _, _ = usage
    read, written = read + heard, w5 + w1
    line = unchecked(UsageLine, (labels, amounts, 0, read, written, thought))
    return CheckedLines((line,)) if 0 <= read | written | thought <= MOST else (line,)


def settled(run: Run, held: HeldCall, bill: Bill, settled: Settled) -> int:
    """Record what the ledger has booked for a call; return its cost in nano-dollars."""
    held.settled = True
    if run.open_tools:
        run.open_tools.pop(held.id, None)
    if run.is_watched:
        run.rate.settle(held.id, settled.charged.cost, run.recorder.timeline.at())
    committed, charged, uncertain, above, held.cost_left = settled
    cost, read, written, total, _, _ = charged
    _, name, _, note, source, usage = bill
    terms = held.terms
    most_cost, most_read, most_written, _, _, _ = held.amounts
    call, violated, is_unpriced = held.call, False, False
    if uncertain:  # not known what it cost: where nothing was estimated either, it has no price
        source = "estimate"
        is_unpriced = note is not None and (terms.rung.price is None or not total) and isinstance(call, ModelCall)
    else:
        is_unpriced = note is not None
        if isinstance(call, ModelCall):
            calibration = run.planner.calibration[name]
            if terms.bounded and (read > most_read or written > most_written):
                violated = True
                calibration.distrust()
            else:
                calibration.learn(call.prompt, read, written)
    over = cost - most_cost if cost > most_cost else 0
    recorder = run.recorder
    agent = call.agent or recorder.agent
    if uncertain:
        usage = None
    at_s = recorder.timeline.at()
    posting = unchecked(
        Posting, (at_s, held.id, name, charged, over, uncertain, is_unpriced, violated, source, agent, usage)
    )
    before = held.posting
    if recorder.record(held, posting, note):
        run.warn(committed, above)
        if recorder.timeline.is_watched:
            _tell(run, held, posting, before)
    return cost


def returned(run: Run, held: HeldCall, result: object) -> None:
    """Note what a tool returned, or the error that it raised, where loops are looked for."""
    call, loops = held.call, run.loops
    if loops is not None and isinstance(call, ToolCall) and call.arguments is not None:
        loops.saw(call.run, call.tool, call.arguments, result, run.recorder.timeline.at())


def _tell(run: Run, held: HeldCall, posting: Posting, before: Posting | None) -> None:
    """Tell who subscribes what a call used."""
    call = held.call
    run.recorder.timeline.tell(
        UsageEvent(
            at_s=posting.at_s,
            id=held.id if before is None else f"{held.id}.actual",  # an estimate is replaced once
            at=run.clock.now(),
            run_id=run.scope.id,
            principals=run.tags,
            agent=call.agent,
            task=run.budget.task,
            kind="model" if isinstance(call, ModelCall) else "tool",
            name=posting.name,
            asked=call.model if isinstance(call, ModelCall) else call.tool,
            tokens=_tokens_of(posting),
            cost=posting.amounts.cost,
            source=posting.source,
            uncertain=posting.uncertain,
            unpriced=posting.unpriced,
            decision_id=held.id,
            cost_before=0 if before is None else before.amounts.cost,
            tokens_before=Tokens() if before is None else _tokens_of(before),
        )
    )


def _tokens_of(posting: Posting) -> Tokens:
    amounts, usage = posting.amounts, posting.usage
    if usage is None:
        return Tokens(input=amounts.input_tokens, output=amounts.output_tokens)
    return Tokens(
        input=amounts.input_tokens,
        cached=usage.cached,
        cache_written=usage.cache_written,
        output=amounts.output_tokens,
        reasoning=usage.reasoning,
    )


def released(run: Run, held: HeldCall, reason: str, freed: bool) -> None:
    """Record that the ledger gave a hold back."""
    held.settled = True
    if run.open_tools:
        run.open_tools.pop(held.id, None)
    if run.is_watched:
        run.rate.settle(held.id, 0, run.recorder.timeline.at())
    if freed:
        timeline = run.recorder.timeline
        timeline.emit(CallReleased(timeline.at(), held.id, held.terms.rung.model, reason))


def charge(run: Run, call: ToolCall, *, even_if_revoked: bool = True) -> Flow[None]:
    """Book money that was spent on a tool without asking.

    Args:
        run: The run.
        call: The tool's call.
        even_if_revoked: Whether a run that was cut off goes on silently: what was in flight is still booked. Else
            `BudgetRevoked` is raised, after it is booked.
    """
    plan, _ = plan_tool(call, run.budget)
    yield from _charge(run, call, plan, None, even_if_revoked)


def charge_call(
    run: Run,
    call: ModelCall,
    usage: Usage | None,
    *,
    cost: int | None = None,
    others: Sequence[tuple[str, Usage]] = (),
    strict: bool = False,
) -> Flow[None]:
    """Book a model call that was made without asking.

    Args:
        run: The run.
        call: The call.
        usage: What the provider billed; None where it did not say.
        cost: The provider's own figure, in nano-dollars.
        others: What other models used for the same answer.
        strict: Whether to raise as well, after it is booked, where the run was cut off, or where a hard gate would have
            refused the call because its price is not known.
    """
    price = run.planner.ladder.price_called(call, call.model, None)
    terms, amounts = Terms(Rung(call.model, price), None, False, False), Amounts(requests=1)
    note: str | None = _NO_USAGE
    source: Source = "price"
    if usage is not None or cost:
        held = HeldCall("", call, (terms, amounts))
        amounts, _, _, note, source, _ = bill(run, held, usage or Usage(), None, None, cost=cost, others=others)
    yield from _charge(
        run, call, (terms, amounts), note, even_if_revoked=not strict, strict=strict, source=source, usage=usage
    )


def _charge(
    run: Run,
    call: ModelCall | ToolCall,
    plan: Plan,
    note: str | None,
    even_if_revoked: bool,
    *,
    strict: bool = False,
    source: Source = "price",
    usage: Usage | None = None,
) -> Flow[None]:
    recorder = run.recorder
    at_s = recorder.timeline.start()
    if run.whole is not None:
        run = yield from _opened(run, run.whole)
    held = HeldCall(run.new_id(), call, plan)
    spent_on = lines(run, call, Bill(held.amounts, held.terms.rung.model, usage=usage))
    passed: Refused | None = yield "charge", (held.id, run.scopes, held.amounts, spent_on)
    posting = Posting(
        *(at_s, held.id, held.terms.rung.model, held.amounts, 0, False, note is not None, False, source),
        agent=call.agent or recorder.agent,
        usage=usage,
    )
    recorder.record(held, posting, note)
    if run.is_watched:
        run.rate.add(held.amounts.cost, at_s)
    if recorder.timeline.is_watched:
        _tell(run, held, posting, None)
    balances: Sequence[Balance]
    try:
        balances = yield "balances", (run.scopes,)
        own, *others = balances
        run.warn(own.committed, [ScopeSpend(balance.committed, balance.limits) for balance in others])
    except LedgerUnavailable:
        balances = ()  # it is booked, or kept to be booked
    stop: BudgetExceeded | BudgetRevoked | UnknownPriceError | None = None
    if strict and note is not None and isinstance(call, ModelCall):
        stop = _unpriced(run, call, note, balances)
    if passed is not None:
        stop = exceeded(passed, None, now=run.clock.now())
    if not even_if_revoked:
        cut_off = next((revoked(balance.revoked) for balance in balances if balance.revoked is not None), run.revoked)
        stop = cut_off or (yield from _revoked_above(run)) or stop
    if stop is not None:
        if not isinstance(stop, UnknownPriceError):
            stop.report = run.report_for_error()
        recorder.terminated_by = cause(stop)
        raise stop


def _unpriced(run: Run, call: ModelCall, note: str, balances: Sequence[Balance]) -> UnknownPriceError | None:
    """The error for a call of which it is not known what it cost, where a hard gate would have refused it."""
    budget = run.budget
    limits = [run.limits, *(balance.limits for balance in balances)]
    if budget.mode != "hard_gate" or budget.unpriced == "allow" or not any(any(each) for each in limits):
        return None
    try:
        dollars = any(each.cost is not None for each in limits)
        run.planner.ladder.asked(budget, call, Limits(cost=0) if dollars else Limits())
    except UnknownPriceError as error:
        return error
    if note != _NO_USAGE and not dollars:
        return None
    missing = "the usage" if note == _NO_USAGE else "a part of the usage"
    remedy = 'guard the client, or book it with session.charge("tool", "0.01")'
    return UnknownPriceError(model=call.model, missing=missing, remedy=remedy)


def _opened(part: Run, whole: Run) -> Flow[Run]:
    """The *part* of a run that one agent's calls are booked in, opened; the *whole* one where it cannot be."""
    try:
        for each in part.keepalives:
            if each.due():
                yield from each.keep()
    except BudgetError:
        return whole  # it is spent, and booked in what there is
    return part


def _revoked_above(run: Run) -> Flow[BudgetRevoked | None]:
    """The error where what the run depends on was cut off: the parent of a child session."""
    try:
        for each in run.keepalives:
            yield from each.keep()
    except BudgetRevoked as error:
        return error
    except BudgetError:
        return None  # told by the next call
    return None


def interruption(run: Run, held: HeldCall, output_tokens: int) -> BudgetError | None:
    """Why a call that has begun must not go on. Asks no ledger: it is called for every piece of a stream."""
    if run.revoked is not None:
        return run.revoked
    late = run.too_late(run.recorder.timeline.at())
    if late is not None:
        return late
    most = held.amounts.output_tokens
    if held.terms.bounded and run.budget.mode == "hard_gate" and output_tokens > most > 0:
        return BudgetExceeded(
            dimension="call_max_output_tokens",
            limit=most,
            actual=output_tokens,
            scope=str(run.scope),
            decision_id=held.id,
            detail="the provider does not keep to the output cap that it was sent",
        )
    return None


def cut_short(run: Run, held: HeldCall) -> BudgetExceeded | None:
    """The error for an answer that the guard's own output cap cut off. It names the limit that is the nearest now."""
    terms, cap = held.terms, held.terms.output_cap
    if not terms.clamped or cap is None:  # one that could not be sent has cut nothing off
        return None
    recorder = run.recorder
    recorder.terminated_by = OUTPUT_CAP
    recorder.timeline.mark(AnswerCutOff(recorder.timeline.at(), held.id, terms.rung.model, cap))
    try:
        balances = run.ledger.balances(run.scopes)
    except LedgerUnavailable:
        return None  # it cannot be told any more what cut it off: half an answer is better than none
    price = terms.rung.price
    tokens, i, tightest = min(
        ((_output_left(balance, i, price), i, balance) for balance in balances for i in (0, 2, 3)),
        key=lambda each: each[:2],
    )
    limit = tightest.limits[i]
    what = f"the guard's cap of {cap} output tokens cut the answer off"
    if limit is None:
        error = BudgetExceeded(
            dimension="call_max_output_tokens",
            limit=cap,
            actual=cap,
            scope=str(run.scope),
            decision_id=held.id,
            report=run.report_for_error(),
            detail=f"{what}, and the limit that it was for is there no more",
            remedy="Ask again, or go on from it: the next answer may be longer.",
        )
    else:
        left = limit - tightest.committed[i] - tightest.reserved[i]
        words = format_usd(left) if i == 0 else f"{left} tokens"
        remedy = remedy_of(tightest.scope, DIMENSIONS[i], tightest.ends)
        if tokens > cap:
            more = "That pays for more: set the model's own maximum output tokens, which the guard keeps to."
            remedy = f"{more} {remedy}"
        error = BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, limit),
            actual=in_unit(i, tightest.committed[i] + tightest.reserved[i]),
            scope=tightest.scope.principal,
            decision_id=held.id,
            report=run.report_for_error(),
            detail=f"{what}, and {words} of it is left",
            remedy=remedy,
        )
    error.user_message = "The budget for this did not last to the end of the answer."
    return error


def _cost(run: Run, price: ModelPrice | None, usage: Usage, model: str, held: int) -> tuple[int, str | None]:
    """The cost of *usage*, by every bucket of it, and why that is no exact price, if it is none."""
    if price is None:
        return 0, f"no price is known for {model!r}"
    try:
        return price.cost(usage, run.clock.now() if price.varies_by_hour else None), None
    except UnknownPriceError:
        # It is spent, whatever it was: at least what was held, and at least the part that has a price.
        cost, note = _priced_part(price, usage)
        return max(cost, held), note


def _output_left(balance: Balance, i: int, price: ModelPrice | None) -> float:
    """How many output tokens are left of the limit *i* of one scope."""
    limit = balance.limits[i]
    if limit is None or (i == 0 and price is None):
        return math.inf
    left = limit - balance.committed[i] - balance.reserved[i]
    return left if i or price is None else price.affordable_output(left, 0)


def _priced_part(price: ModelPrice, usage: Usage) -> tuple[int, str | None]:
    """The cost of the units of *usage* that have a price, in nano-dollars, and which have none, in words."""
    unpriced: str | None = None
    while True:
        try:
            return price.cost(usage), unpriced
        except UnknownPriceError as error:
            unpriced = unpriced or str(error)
            other = tuple(unit for unit in usage.other if unit[0] != error.missing)
            without: dict[str, Any] = {error.missing: 0} if error.missing in BUCKETS else {}
            usage = usage._replace(**without, other=other)
