"""The worst case of a call on one model: its input, its output cap and its fees, and what must be left for it.

**The output cap.** A cap that the client sets is kept: it fits, waits, or is refused. Where it sets none, the guard
*wants* the model's own maximum, which holds without being sent, where that is worth at most `hold_share` of what is
left. Else it wants room for an answer that is about four times as long as recent ones of the model, or twice as long
while others wait, and for at least 4,096 tokens; or for `hold_share` of what is left before any answer is known, a
quarter of that later, whichever is more.

If that is not left, the call takes what is left where it is alone; else it waits until its want fits or it is alone;
where it cannot wait, it takes what is left if recent answers would fit into it, and is refused if not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.plan import Fit, Plan, Rung, Space, Terms
from budget_guard.errors import UnboundedCallError, UnknownPriceError
from budget_guard.estimate.calibration import ModelCalibration
from budget_guard.ledger.checks import checked_amounts
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.units.amounts import MOST, Amounts, Limits, unchecked
from budget_guard.units.usage import Usage

USUAL_TIMES = 4
"""How many times as long as recent answers of the model an answer may become."""
CROWDED_TIMES = 2
"""The same while others wait: so that more of them are served before their patience ends."""
WANTED_TOKENS = 4_096
"""The least that a call wants for its answer, however short recent ones were."""
LATER_SHARE = 4
"""Once a model's answers are known, a call has no more than this part of `Budget.hold_share` beyond what they tell."""
UNKNOWN_MOST = 8_192
"""The longest answer of a model of which no source has the most that it writes: many APIs refuse a higher cap."""
A_PARAMETER = "the parameter "
"""What `Prompt.opaque` calls a parameter of a request that nobody knows, before its name."""
OUTPUT_FLOOR = 256
"""The guard never sends a lower output cap of its own: an answer cut shorter is worth less than a clear refusal."""

_SOME = Amounts(cost=1, input_tokens=1, output_tokens=1, total_tokens=1, requests=1)
"""The room that must be left for a soft gate to open."""


def plan_model(
    calibration: ModelCalibration, budget: BudgetPolicy, call: ModelCall, rung: Rung, space: Space
) -> Fit | None:
    """The most that *call* takes on *rung*, as much of it as it should have in *space*.

    Args:
        calibration: What past calls to the rung's model were billed for.
        budget: The limits and policies.
        call: The call.
        rung: The model to plan for.
        space: The room that there is.

    Returns:
        None where that takes a look at what will be left later.

    Raises:
        UnboundedCallError: If a hard gate can find no bound.
        UnknownPriceError: If a hosted tool's fee is not known.
    """
    asked, choices = call.max_output_tokens, call.choices
    if budget.mode == "actuals_only":
        return Fit((Terms(rung, asked, False, False), Amounts(requests=1)), False)
    model, price = rung.model, rung.price
    left = space.left
    input_tokens, unweighed = calibration.bound(call.prompt)
    tools = call.hosted_tools if price is None else (*call.hosted_tools, *price.own_tools)
    fees = _fees(budget, call, rung, left, tools) if tools else 0
    if unweighed is not None:
        if not budget.allowance.input_tokens and _is_gated(budget, left, price):
            raise UnboundedCallError(
                model=model,
                reason=f"it carries {unweighed}",
                remedy=_remedy_for(unweighed),
            )
        input_tokens += budget.allowance.input_tokens

    kinds = call.kinds and _kinds(budget, call, price, left)
    own, cap = output_caps(budget, call, price)
    clamped = waits = False
    hourly = call.hour_cache
    if may_clamp(budget, call):
        kept = 0 if call.final else budget.kept_back.cost
        payable = _Payable(price, input_tokens, fees, choices, hourly, kept, kinds)
        chosen = _chosen_cap(calibration, budget, call, cap, payable, space)
        if chosen is None:
            return None
        chosen_cap, waits = chosen
        clamped, cap = chosen_cap != cap, chosen_cap
    cost = 0
    if cap is not None and price is not None:
        cost = price.worst(input_tokens, cap * choices, hour_cache=hourly, kinds=kinds) + fees

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
        return Fit((Terms(rung, asked, False, False), amounts), False)
    return Fit((Terms(rung, sent, clamped, bounded), amounts), waits)


class _Payable(NamedTuple):
    """How long an answer limits can pay for."""

    price: ModelPrice | None
    input_tokens: int
    fees: int
    choices: int
    hourly: bool
    kept_cost: int
    kinds: frozenset[str] | None

    def tokens(self, left: Limits, share: float = 1.0) -> int | None:
        """The longest answer that is worth at most *share* of *left*, and fits; None if nothing limits it."""
        cost = left.cost
        most: list[int] = []
        if cost is not None and self.price is not None:
            cost -= self.kept_cost + self.fees
            worth = cost
            if share < 1:
                worth = self.price.worst(self.input_tokens, 0, hour_cache=self.hourly, kinds=self.kinds)
                worth += int(cost * share)
            most.append(
                self.price.affordable_output(
                    min(worth, cost), self.input_tokens, hour_cache=self.hourly, kinds=self.kinds
                )
            )
        if left.output_tokens is not None:
            most.append(int(left.output_tokens * share))
        if left.total_tokens is not None:
            most.append(min(int(left.total_tokens * share), left.total_tokens - self.input_tokens))
        return min(most) // self.choices if most else None


def _chosen_cap(
    calibration: ModelCalibration,
    budget: BudgetPolicy,
    call: ModelCall,
    most: int | None,
    payable: _Payable,
    space: Space,
) -> tuple[int | None, bool] | None:
    """The output cap of a call that may have one of the guard's own, and whether it should wait for it.

    Args:
        calibration: What past calls to the model were billed for.
        budget: The limits and policies.
        call: The call.
        most: The highest cap that there can be, if any is known.
        payable: How long an answer limits can pay for.
        space: The room that there is.

    Returns:
        None where that takes a look at what will be left later.
    """
    now = payable.tokens(space.left)
    if now is None:  # nothing limits it
        return most, False
    if most is None:
        most = UNKNOWN_MOST
    usual = calibration.usual_output
    likely = min(most, usual or WANTED_TOKENS)
    least = min(most, max(OUTPUT_FLOOR, min(usual, WANTED_TOKENS)))
    if not call.can_cap and call.max_output_tokens is None:
        want = likely = most  # nothing keeps it shorter
    elif call.final:
        want = min(most, max(now, least))
    else:
        part = payable.tokens(space.left, budget.hold_share) or 0
        if usual and (part < most or space.crowded):
            part = payable.tokens(space.left, budget.hold_share / LATER_SHARE) or 0
        times = CROWDED_TIMES if space.crowded else USUAL_TIMES
        want = min(most, max(usual * times, WANTED_TOKENS, part))
    if want <= now:
        return want, False
    if budget.soft_margin_usd is not None:
        return max(now, likely), False  # what may pass by a margin is not fitted into what is left
    if budget.mode != "hard_gate":
        return max(now, least), False
    if space.later is None:
        return None
    later = payable.tokens(space.later)
    if later is None or later <= now:  # it is alone
        return max(now, least), False
    if later < least:  # it will never be had
        return least, False
    if space.may_wait:
        return want, True
    return max(now, likely, least), True


def plan_tool(call: ToolCall, budget: BudgetPolicy) -> tuple[Plan, Amounts]:
    """The plan of a tool call, its known cost and one call; and the room that must be left for it."""
    tool, cost, _, counts, *_ = call
    amounts = checked_amounts(unchecked(Amounts, (cost, 0, 0, 0, 0, 1 if counts else 0)))
    needed: Amounts = amounts
    if budget.finalization_reserve is not None:  # a request is kept back as well, and a tool call takes none
        needed = checked_amounts(amounts.plus(Amounts(cost=budget.kept_back.cost)))
    if budget.soft_margin_usd is not None:
        needed = needed.plus(Amounts(cost=-budget.soft_margin))
    return (_terms_of_tool(tool), amounts), needed


@lru_cache(maxsize=1_024)
def _terms_of_tool(tool: str) -> Terms:
    return Terms(Rung(tool, None), None, False, True)


def room(budget: BudgetPolicy, amounts: Amounts, final: bool) -> Amounts:
    """The room that must be left for the gate to open."""
    if budget.soft_margin_usd is not None:
        return _SOME._replace(cost=amounts.cost - budget.soft_margin)
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
    lowers = asked is None or (call.can_cap and budget.clamp_output != "reject")
    if of_budget is not None and (cap is None or of_budget < cap) and lowers:
        cap = of_budget  # a cap of ours counts only where it can be sent, or where there is no other
    return own, cap


def rejected_cap(budget: BudgetPolicy, call: ModelCall, price: ModelPrice | None) -> int | None:
    """The highest output cap that *call* may set, where it sets a higher one and the budget does not lower but refuse
    it; else None."""
    asked = call.max_output_tokens
    if budget.clamp_output != "reject" or asked is None:
        return None
    most = [each for each in (budget.call_max_output_tokens, None if price is None else price.max_output) if each]
    return min(most) if most and asked > min(most) else None


def cap_to_send(call: ModelCall, cap: int | None, own: int | None) -> tuple[int | None, bool]:
    """The output cap to send, and whether the output is sure to keep to *cap*."""
    asked = call.max_output_tokens is not None
    by_itself = cap is not None and cap == own
    # The model's own limit holds without being sent, and our record of it may be out of date.
    sent = cap if call.can_cap and (asked or not by_itself) else None
    return sent, cap is not None and (call.can_cap or asked or by_itself)


def _fees(budget: BudgetPolicy, call: ModelCall, rung: Rung, left: Limits, tools: tuple[str, ...]) -> int:
    uses = budget.allowance.hosted_tool_calls
    if not uses:
        if not _is_gated(budget, left, rung.price):
            return 0
        raise UnboundedCallError(
            model=call.model,
            reason=f"the provider may run {', '.join(tools)} any number of times",
            remedy="Say what to reserve for such a call: "
            "Budget(..., allowance=Allowance(input_tokens=20_000, hosted_tool_calls=5)).",
        )
    named = dict(call.tool_fees)
    fees = sum(named[name] * uses for name in tools if name in named)
    if rung.price is None:
        return fees
    for name in tools:
        if name in named:
            continue
        try:
            fees += rung.price.cost(Usage(requests=0, other=((name, uses),)))
        except UnknownPriceError:
            if budget.refuses_unpriced(left.cost is not None):
                raise
    return fees


def _kinds(budget: BudgetPolicy, call: ModelCall, price: ModelPrice | None, left: Limits) -> frozenset[str] | None:
    """What the call carries beside text, as `ModelPrice.worst` takes it: where that has no price, but may be let in,
    the dearest that has one."""
    try:
        if price is not None:
            price.worst(1, 1, kinds=call.kinds)
    except UnknownPriceError:
        if budget.refuses_unpriced(left.cost is not None):
            raise
        return None
    return call.kinds


def _remedy_for(unweighed: str) -> str:
    reserve = "Budget(..., allowance=Allowance(input_tokens=20_000))"
    name = unweighed.removeprefix(A_PARAMETER)
    if name == unweighed:
        return f"Say what to reserve for it: {reserve}."
    return (
        f"If it costs nothing more, name it: Budget(..., allowance=Allowance(parameters=({name!r},))). "
        f"Else say what to reserve for it: {reserve}."
    )


def may_clamp(budget: BudgetPolicy, call: ModelCall) -> bool:
    """Whether the session may choose an output cap of its own."""
    if call.max_output_tokens is None:
        return budget.clamp_output in ("when_unset", "always")
    return call.can_cap and budget.clamp_output == "always"


def _is_gated(budget: BudgetPolicy, left: Limits, price: ModelPrice | None) -> bool:
    """Whether a call needs a bound: only if something is limited that depends on its tokens."""
    since = 1 if price is None else 0  # what has no price counts nothing against a dollar limit
    return budget.mode == "hard_gate" and any(limited is not None for limited in left[since:4])
