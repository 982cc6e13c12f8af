"""The worst case of a call on one model: its input, its output cap and its fees, and what must be left for it."""

from __future__ import annotations

from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.plan import Plan, Rung, Terms
from budget_guard.errors import UnboundedCallError
from budget_guard.estimate.calibration import ModelCalibration
from budget_guard.ledger.checks import checked_amounts
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.units.amounts import MOST, Amounts, Limits, unchecked
from budget_guard.units.usage import Usage

OUTPUT_FLOOR = 256
"""The guard never sends a lower output cap of its own: an answer cut shorter is worth less than a clear refusal."""
MOST_OUTPUT_FLOOR = 2_048
"""Nor one that is lower than this model's latest answers, up to this many tokens, for the same reason."""

_SOME = Amounts(cost=1, input_tokens=1, output_tokens=1, total_tokens=1, requests=1)
"""The room that must be left for a soft gate to open."""


def plan_model(calibration: ModelCalibration, budget: BudgetPolicy, call: ModelCall, rung: Rung, left: Limits) -> Plan:
    """The most that *call* takes on *rung*.

    Args:
        calibration: What past calls to the rung's model were billed for.
        budget: The limits and policies.
        call: The call.
        rung: The model to plan for.
        left: What is left in every dimension.

    Raises:
        UnboundedCallError: If a hard gate can find no bound.
        UnknownPriceError: If a hosted tool's fee is not known.
    """
    asked, choices = call.max_output_tokens, call.choices
    if budget.mode == "actuals_only":
        return Terms(rung, asked, False, False), Amounts(requests=1)
    model, price = rung.model, rung.price
    input_tokens, unweighed = calibration.bound(call.prompt)
    fees = _fees(budget, call, rung, left) if call.hosted_tools else 0
    if unweighed is not None:
        if not budget.allowance.input_tokens and _is_gated(budget, left, price):
            raise UnboundedCallError(
                model=model,
                reason=f"it carries {unweighed}",
                remedy="Say what to reserve for it: Budget(..., allowance=Allowance(input_tokens=20_000)).",
            )
        input_tokens += budget.allowance.input_tokens

    own, cap = output_caps(budget, call, price)
    clamped = False
    hourly = call.hour_cache
    cost = 0
    if cap is not None and price is not None:
        cost = price.worst(input_tokens, cap * choices, hour_cache=hourly) + fees
    if may_clamp(budget, call):
        share = 1.0 if call.final else budget.hold_share
        if not call.final and budget.finalization_reserve is not None and left.cost is not None:
            left = left._replace(cost=left.cost - budget.kept_back.cost)
        if cap is None or not _is_small(left, cost, input_tokens, cap * choices, share):
            worth = _affordable_output(left, price, input_tokens, fees, share, hourly)
            if worth is not None and (cap is None or worth // choices < cap):
                usual = calibration.usual_output * 5 // 4  # so that the next one like it is not cut
                floor = max(OUTPUT_FLOOR, min(usual, MOST_OUTPUT_FLOOR))
                clamped = True
                cap = max(worth // choices, floor if cap is None else min(cap, floor))
                cost = 0
                if price is not None:
                    cost = price.worst(input_tokens, cap * choices, hour_cache=hourly) + fees

    sent, bounded = cap_to_send(call, cap, own)
    if not bounded and (cap is None or budget.unbounded == "deny") and _is_gated(budget, left, price):
        raise UnboundedCallError(
            model=model,
            reason="its output has no cap" if cap is None else "no output cap can be sent with it",
            remedy="Set the model's own maximum output tokens, give max_output in its pricing=, "
            'or Budget(..., clamp_output="when_unset", unbounded="allow").',
        )
    output_tokens = 0 if cap is None else cap * choices
    amounts = Amounts(cost, input_tokens, output_tokens, input_tokens + output_tokens, 1, 0)
    if cost > MOST or amounts.total_tokens > MOST:
        raise UnboundedCallError(
            model=model,
            reason="it may take more than a ledger can hold for one call",
            remedy="Set a lower maximum of output tokens.",
        )
    if clamped and budget.mode != "hard_gate":
        # What a hard gate would have held; but only a hard gate makes the provider keep to it.
        return Terms(rung, asked, False, False), amounts
    return Terms(rung, sent, clamped, bounded), amounts


def plan_tool(call: ToolCall, budget: BudgetPolicy) -> tuple[Plan, Amounts]:
    """The plan of a tool call, its known cost and one call; and the room that must be left for it."""
    tool, cost, _ = call
    amounts = needed = checked_amounts(unchecked(Amounts, (cost, 0, 0, 0, 0, 1)))
    if budget.finalization_reserve is not None:  # a request is kept back as well, and a tool call takes none
        needed = checked_amounts(amounts.plus(Amounts(cost=budget.kept_back.cost)))
    return (Terms(Rung(tool, None), None, False, True), amounts), needed


def room(budget: BudgetPolicy, amounts: Amounts, final: bool) -> Amounts:
    """The room that must be left for the gate to open."""
    if budget.mode in ("soft_gate", "actuals_only"):
        return _SOME
    return amounts if final or budget.finalization_reserve is None else amounts.plus(budget.kept_back)


def output_caps(budget: BudgetPolicy, call: ModelCall, price: ModelPrice | None) -> tuple[int | None, int | None]:
    """The model's own output cap, and the lowest that holds whatever is left."""
    asked = call.max_output_tokens
    own, cap = None if price is None else price.max_output, asked
    if own is not None and (cap is None or own < cap):
        cap = own
    of_budget = budget.call_max_output_tokens
    if of_budget is not None and (cap is None or of_budget < cap) and (call.can_cap or asked is None):
        cap = of_budget  # a cap of ours counts only where it can be sent, or where there is no other
    return own, cap


def cap_to_send(call: ModelCall, cap: int | None, own: int | None) -> tuple[int | None, bool]:
    """The output cap to send, and whether the output is sure to keep to *cap*."""
    asked = call.max_output_tokens is not None
    by_itself = cap is not None and cap == own
    # The model's own limit holds without being sent, and our record of it may be out of date.
    sent = cap if call.can_cap and (asked or not by_itself) else None
    return sent, cap is not None and (call.can_cap or asked or by_itself)


def _fees(budget: BudgetPolicy, call: ModelCall, rung: Rung, left: Limits) -> int:
    uses = budget.allowance.hosted_tool_calls
    if not uses:
        if not _is_gated(budget, left, rung.price):
            return 0
        raise UnboundedCallError(
            model=call.model,
            reason=f"the provider may run {', '.join(call.hosted_tools)} any number of times",
            remedy="Say what to reserve for such a call: "
            "Budget(..., allowance=Allowance(input_tokens=20_000, hosted_tool_calls=5)).",
        )
    if rung.price is None:
        return 0
    other = tuple((name, uses) for name in call.hosted_tools if name != "web_search")
    searches = uses if "web_search" in call.hosted_tools else 0
    return rung.price.cost(Usage(web_search=searches, requests=0, other=other))


def may_clamp(budget: BudgetPolicy, call: ModelCall) -> bool:
    """Whether the session may choose an output cap of its own."""
    if call.max_output_tokens is None:
        return budget.clamp_output != "never"
    return call.can_cap and budget.clamp_output == "always"


def _is_gated(budget: BudgetPolicy, left: Limits, price: ModelPrice | None) -> bool:
    """Whether a call needs a bound: only if something is limited that depends on its tokens."""
    since = 1 if price is None else 0  # what has no price counts nothing against a dollar limit
    return budget.mode == "hard_gate" and any(limited is not None for limited in left[since:4])


def _is_small(left: Limits, cost: int, input_tokens: int, output_tokens: int, share: float) -> bool:
    """Whether a hold is within *share* of what remains, its input included: then no cap is needed."""
    left_cost, _, left_output, left_total, _, _ = left
    return (
        (left_cost is None or cost <= left_cost * share)
        and (left_output is None or output_tokens <= left_output * share)
        and (left_total is None or input_tokens + output_tokens <= left_total * share)
    )


def _affordable_output(
    left: Limits, price: ModelPrice | None, input_tokens: int, fees: int, share: float, hourly: bool
) -> int | None:
    """The most output tokens that are worth at most *share* of what is left, and fit; None if nothing limits them."""
    most: list[int] = []
    if left.cost is not None and price is not None:
        worth = price.worst(input_tokens, 0, hour_cache=hourly) + int((left.cost - fees) * share)
        most.append(price.affordable_output(min(worth, left.cost - fees), input_tokens, hour_cache=hourly))
    if left.output_tokens is not None:
        most.append(int(left.output_tokens * share))
    if left.total_tokens is not None:
        most.append(min(int(left.total_tokens * share), left.total_tokens - input_tokens))
    return min(most, default=None)
