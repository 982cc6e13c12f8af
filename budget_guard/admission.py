"""What to hold for a call: which model, which output cap, and how much at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from budget_guard.budget import Budget
from budget_guard.clock import Clock
from budget_guard.decision import Estimate, ModelCall, ToolCall
from budget_guard.dimension import Amounts, Limits
from budget_guard.downgrade import DowngradePolicy, refuse_dearer, refuse_incapable, unknown_target
from budget_guard.errors import BudgetError, InvalidDowngradeError, UnboundedCallError, UnknownPriceError
from budget_guard.estimate import Anchors
from budget_guard.ledger.base import MOST, Balance
from budget_guard.pricing import ModelPrice, PriceTable
from budget_guard.rate_card import BUCKETS
from budget_guard.usage import Usage

OUTPUT_FLOOR = 256
"""The guard never sends a lower output cap of its own: an answer cut shorter is worth less than a clear refusal."""
MOST_OUTPUT_FLOOR = 2_048
"""Nor one that is lower than this model's latest answers, up to this many tokens, for the same reason."""

_PRICE_AGE_S = 60.0
"""Seconds for which a price that was looked up is used again."""
_MOST_ASKED = 1_000
"""Looked-up prices that are kept."""
_SOME = Amounts(cost=1, input_tokens=1, output_tokens=1, total_tokens=1, requests=1)
"""What must be left for a soft gate to open."""


_PLENTY = Limits(*[2**80] * 6)


class Rung(NamedTuple):
    """A model that may take the call."""

    model: str
    price: ModelPrice | None
    """None for an unpriced model that the budget allows."""
    why: str = ""
    """Why it takes the place of the model asked for, if it does."""


class Plan(NamedTuple):
    """What to hold for the call on one rung."""

    rung: Rung
    amounts: Amounts
    output_cap: int | None
    clamped: bool
    bounded: bool

    @property
    def estimate(self) -> Estimate:
        """The amounts as users see them."""
        return Estimate(self.amounts.input_tokens, self.amounts.output_tokens, self.amounts.cost)


class Admission:
    """Works out plans. Holds no counters: what is left comes in, what is decided goes out, both as values."""

    __slots__ = ("_asked", "_checked", "_clock", "anchors", "prices")

    def __init__(self, prices: PriceTable, clock: Clock) -> None:
        self.prices = prices
        self.anchors = Anchors()
        self._clock = clock
        self._asked: dict[tuple[str, str | None, str | None], tuple[Rung, float]] = {}
        self._checked: dict[tuple[str, str, frozenset[str]], BudgetError | None] = {}

    def asked(self, budget: Budget, call: ModelCall, left: Limits) -> Rung:
        """The model that *call* asks for.

        Raises:
            UnknownPriceError: If its price is not known and the budget denies that.
        """
        key = (call.model, call.provider, call.service_tier)
        known = self._asked.get(key)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        try:
            rung = Rung(call.model, self._find(call.model, call))
        except UnknownPriceError:
            if budget.unpriced == "deny" and budget.mode != "advisory_estimate" and left.cost is not None:
                raise
            return Rung(call.model, None)
        if len(self._asked) >= _MOST_ASKED:  # names come from outside, so there is no end to them
            self._asked.clear()
        self._asked[key] = (rung, self._clock.monotonic() + _PRICE_AGE_S)
        return rung

    def rungs(
        self, budget: Budget, policy: DowngradePolicy, call: ModelCall, asked: Rung, balances: Sequence[Balance]
    ) -> list[Rung]:
        """The models to try where *policy* has cheaper ones, first choice first.

        Raises:
            InvalidDowngradeError: If no target of the policy can stand in for the model.
        """
        reached = spent_fraction(balances) >= policy.at
        why = (
            f"{policy.at:.0%} of the budget is spent" if reached else f"{asked.model} no longer fits into what is left"
        )
        targets: list[Rung] = []
        invalid: BudgetError | None = None
        for target in policy.ladder(call.model):
            # Checked when the model is first seen, not at the threshold: a policy that cannot work says so early.
            error = self._check(asked, target, call)
            if error is None:
                targets.append(Rung(target, self._find(target, call), why))
            invalid = invalid or error
        if not targets and invalid is not None and budget.mode != "advisory_estimate":
            raise invalid
        return targets if targets and reached else [asked, *targets]

    def price_called(self, call: ModelCall, model: str, planned: ModelPrice | None) -> ModelPrice | None:
        """The price of the model that was called in the end; the planned one's where that is not known."""
        try:
            return self._find(model, call)
        except UnknownPriceError:
            return planned

    def _find(self, model: str, call: ModelCall) -> ModelPrice:
        at = self._clock.now()
        try:
            return self.prices.find(model, provider=call.provider, service_tier=call.service_tier, at=at)
        except UnknownPriceError:
            if model == call.model or call.provider is None:
                raise
            return self.prices.find(model, at=at)  # a target may be another provider's

    def _check(self, asked: Rung, target: str, call: ModelCall) -> BudgetError | None:
        key = (asked.model, target, call.needs)
        if key not in self._checked:
            found: BudgetError | None = None
            try:
                cheaper = self._find(target, call)
                if asked.price is not None:
                    refuse_dearer(asked.price, cheaper, asked.model, target)
                refuse_incapable(cheaper, call.needs, asked.model, target)
            except InvalidDowngradeError as error:
                found = error
            except UnknownPriceError as error:
                found = unknown_target(asked.model, target, error)
            self._checked[key] = found
        return self._checked[key]

    def plan_ample(self, budget: Budget, call: ModelCall) -> tuple[Plan, Amounts] | None:
        """The plan for *call* if ever so much is left, and the room that proves it; None if what is left matters.

        The room is so much that no output cap is needed. Where it is there, nobody need ask what is left.
        """
        if budget.mode != "hard_gate":
            return None
        try:
            plan = self.plan(budget, call, self.asked(budget, call, _PLENTY), _PLENTY)
        except (UnboundedCallError, UnknownPriceError):
            return None
        if plan.clamped:
            return None
        if not _may_clamp(budget, call) or call.final:
            return plan, room(budget, plan, call.final)
        share = budget.hold_share
        (cost, read, written, total, requests, _), kept = plan.amounts, budget.kept_back
        # one more than the quotient: a float may be too low, and what only just does not fit is asked again, exactly
        cost, written, total = int(cost / share) + 1 + kept.cost, int(written / share) + 1, int(total / share) + 1
        if cost > MOST or total > MOST:
            return None
        return plan, Amounts._make((cost, read, written, total, requests + kept.requests, 0))

    def plan(self, budget: Budget, call: ModelCall, rung: Rung, left: Limits) -> Plan:
        """What *call* takes at most on *rung*.

        Args:
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
            return Plan(rung, Amounts(requests=1), asked, False, False)
        model, price, _ = rung
        input_tokens, unweighed = self.anchors.bound(model, call.prompt)
        fees = self._fees(budget, call, rung, left) if call.hosted_tools else 0
        if unweighed is not None:
            if not budget.allowance.input_tokens and _is_gated(budget, left, price):
                raise UnboundedCallError(
                    model=model,
                    reason=f"it carries {unweighed}",
                    remedy="Say what to reserve for it: Budget(..., allowance=Allowance(input_tokens=20_000)).",
                )
            input_tokens += budget.allowance.input_tokens

        own, cap = None if price is None else price.max_output, asked
        if own is not None and (cap is None or own < cap):
            cap = own
        of_budget = budget.call_max_output_tokens
        if of_budget is not None and (cap is None or of_budget < cap) and (call.can_cap or asked is None):
            cap = of_budget  # a cap of ours counts only where it can be sent, or where there is no other
        clamped = False
        hourly = call.hour_cache
        cost = 0
        if cap is not None and price is not None:
            cost = price.worst(input_tokens, cap * choices, hour_cache=hourly) + fees
        if _may_clamp(budget, call):
            share = 1.0 if call.final else budget.hold_share
            if not call.final and budget.finalization_reserve is not None and left.cost is not None:
                left = left._replace(cost=left.cost - budget.kept_back.cost)
            if cap is None or not _is_small(left, cost, input_tokens, cap * choices, share):
                worth = affordable_output(left, price, input_tokens, fees, share, hourly)
                if worth is not None and (cap is None or worth // choices < cap):
                    usual = self.anchors.usual_output(model) * 5 // 4  # so that the next one like it is not cut
                    floor = max(OUTPUT_FLOOR, min(usual, MOST_OUTPUT_FLOOR))
                    clamped = True
                    cap = max(worth // choices, floor if cap is None else min(cap, floor))
                    cost = 0
                    if price is not None:
                        cost = price.worst(input_tokens, cap * choices, hour_cache=hourly) + fees

        by_itself = cap is not None and cap == own
        bounded = cap is not None and (call.can_cap or asked is not None or by_itself)
        if not bounded and (cap is None or budget.unbounded == "deny") and _is_gated(budget, left, price):
            raise UnboundedCallError(
                model=model,
                reason="its output has no cap" if cap is None else "no output cap can be sent with it",
                remedy="Set the model's own maximum output tokens, give max_output in its pricing=, "
                'or Budget(..., clamp_output="when_unset", unbounded="allow").',
            )
        output_tokens = 0 if cap is None else cap * choices
        amounts = Amounts._make((cost, input_tokens, output_tokens, input_tokens + output_tokens, 1, 0))
        if cost > MOST or amounts.total_tokens > MOST:
            raise UnboundedCallError(
                model=model,
                reason="it may take more than a ledger can hold for one call",
                remedy="Set a lower maximum of output tokens.",
            )
        if clamped and budget.mode != "hard_gate":
            # What a hard gate would have held; but only a hard gate makes the provider keep to it.
            return Plan(rung, amounts, asked, False, False)
        # The model's own limit holds without being sent, and our record of it may be out of date.
        sent = cap if call.can_cap and (asked is not None or not by_itself) else None
        return Plan._make((rung, amounts, sent, clamped, bounded))

    def _fees(self, budget: Budget, call: ModelCall, rung: Rung, left: Limits) -> int:
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
        return rung.price.cost(hosted_usage(dict.fromkeys(call.hosted_tools, uses)))


def plan_tool(call: ToolCall) -> Plan:
    """What a tool call takes: its known cost, and one call."""
    return Plan(Rung(call.tool, None), Amounts(cost=call.cost, tool_calls=1), None, False, True)


def priced_part(price: ModelPrice, usage: Usage) -> tuple[int, str | None]:
    """What the units of *usage* that have a price cost, in nano-dollars, and which have none, in words."""
    unpriced: str | None = None
    while True:
        try:
            return price.cost(usage), unpriced
        except UnknownPriceError as error:
            unpriced = unpriced or str(error)
            other = tuple(unit for unit in usage.other if unit[0] != error.missing)
            without: dict[str, Any] = {error.missing: 0} if error.missing in BUCKETS else {}
            usage = usage._replace(**without, other=other)


def hosted_usage(uses: dict[str, int]) -> Usage:
    """The usage of hosted tools alone."""
    other = tuple((name, count) for name, count in uses.items() if name != "web_search")
    return Usage(web_search=uses.get("web_search", 0), requests=0, other=other)


def room(budget: Budget, plan: Plan, final: bool) -> Amounts:
    """What must fit for the gate to open."""
    if budget.mode in ("soft_gate", "actuals_only"):
        return _SOME
    return plan.amounts if final or budget.finalization_reserve is None else plan.amounts.plus(budget.kept_back)


def spent_fraction(balances: Sequence[Balance]) -> float:
    """The largest spent share of any dollar or token limit."""
    fraction = 0.0
    for balance in balances:
        for i in range(4):  # cost, input, output, total: a cheaper model saves no requests
            limit = balance.limits[i]
            if limit is not None:
                fraction = max(fraction, balance.committed[i] / limit if limit else 1.0)
    return fraction


def _may_clamp(budget: Budget, call: ModelCall) -> bool:
    """Whether the session may choose an output cap of its own."""
    if call.max_output_tokens is None:
        return budget.clamp_output != "never"
    return call.can_cap and budget.clamp_output == "always"


def _is_gated(budget: Budget, left: Limits, price: ModelPrice | None) -> bool:
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


def affordable_output(
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
