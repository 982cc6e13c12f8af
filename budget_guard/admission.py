"""What to hold for a call: which model, which output cap, and how much at most."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from budget_guard.budget import Budget
from budget_guard.decision import Estimate, ModelCall
from budget_guard.dimension import NOTHING, Amounts
from budget_guard.downgrade import refuse_dearer, refuse_incapable, unknown_target
from budget_guard.errors import BudgetError, InvalidDowngradeError, UnboundedCallError, UnknownPriceError
from budget_guard.estimate import Anchors
from budget_guard.ledger.base import Balance
from budget_guard.pricing import ModelPrice, PriceTable
from budget_guard.usage import Usage

OUTPUT_FLOOR = 256
"""The guard never sends a lower output cap of its own: an answer cut shorter is worth less than a clear refusal."""
MOST_OUTPUT_FLOOR = 2_048
"""Nor one that is lower than this model's latest answers, up to this many tokens, for the same reason."""

_SOME = Amounts(cost=1, input_tokens=1, output_tokens=1, total_tokens=1, requests=1)
"""What must be left for a soft gate to open."""


class Rung(NamedTuple):
    """A model that may take the call."""

    model: str
    price: ModelPrice | None
    """None for an unpriced model that the budget allows."""


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
    """Works out plans. Holds no counters: what is left comes in as balances, what is decided goes out as values."""

    __slots__ = ("_checked", "anchors", "prices")

    def __init__(self, prices: PriceTable) -> None:
        self.prices = prices
        self.anchors = Anchors()
        self._checked: dict[tuple[str, str, frozenset[str]], BudgetError | None] = {}

    def rungs(self, budget: Budget, call: ModelCall, balances: Sequence[Balance], at: datetime) -> list[Rung]:
        """The models to try, first choice first.

        Raises:
            UnknownPriceError: If the model's price is not known and the budget denies that.
            InvalidDowngradeError: If no target of the policy can stand in for the model.
        """
        asked = Rung(call.model, self._price(budget, call, balances, at))
        policy = budget.downgrade
        ladder = () if policy is None else policy.ladder(call.model)
        if policy is None or not ladder:
            return [asked]
        targets: list[Rung] = []
        invalid: BudgetError | None = None
        for target in ladder:
            # Checked when the model is first seen, not at the threshold: a policy that cannot work says so early.
            error = self._check(asked, target, call, at)
            if error is None:
                targets.append(Rung(target, self._find(target, call, at)))
            invalid = invalid or error
        if not targets and invalid is not None:
            if budget.mode == "advisory_estimate":
                return [asked]
            raise invalid
        return targets if spent_fraction(balances) >= policy.at else [asked, *targets]

    def _price(self, budget: Budget, call: ModelCall, balances: Sequence[Balance], at: datetime) -> ModelPrice | None:
        try:
            return self._find(call.model, call, at)
        except UnknownPriceError:
            if budget.unpriced == "allow" or budget.mode == "advisory_estimate":
                return None
            if any(balance.limits.cost is not None for balance in balances):
                raise
            return None

    def price_called(self, call: ModelCall, model: str, planned: ModelPrice | None, at: datetime) -> ModelPrice | None:
        """The price of the model that was called in the end; the planned one's where that is not known."""
        try:
            return self._find(model, call, at)
        except UnknownPriceError:
            return planned

    def _find(self, model: str, call: ModelCall, at: datetime) -> ModelPrice:
        try:
            return self.prices.find(model, provider=call.provider, service_tier=call.service_tier, at=at)
        except UnknownPriceError:
            if model == call.model or call.provider is None:
                raise
            return self.prices.find(model, at=at)  # a target may be another provider's

    def _check(self, asked: Rung, target: str, call: ModelCall, at: datetime) -> BudgetError | None:
        key = (asked.model, target, call.needs)
        if key not in self._checked:
            found: BudgetError | None = None
            try:
                cheaper = self._find(target, call, at)
                if asked.price is not None:
                    refuse_dearer(asked.price, cheaper, asked.model, target)
                refuse_incapable(cheaper, call.needs, asked.model, target)
            except InvalidDowngradeError as error:
                found = error
            except UnknownPriceError as error:
                found = unknown_target(asked.model, target, error)
            self._checked[key] = found
        return self._checked[key]

    def plan(self, budget: Budget, call: ModelCall, rung: Rung, balances: Sequence[Balance]) -> Plan:
        """What *call* takes at most on *rung*.

        Raises:
            UnboundedCallError: If a hard gate can find no bound.
            UnknownPriceError: If a hosted tool's fee is not known.
        """
        if budget.mode == "actuals_only":
            return Plan(rung, Amounts(requests=1), call.max_output_tokens, False, False)
        model, price = rung
        prompt = call.prompt
        input_tokens, unweighed = self.anchors.bound(model, prompt)
        if unweighed is not None:
            if not budget.allowance.input_tokens and _is_gated(budget, balances, price):
                raise UnboundedCallError(
                    model=model,
                    reason=f"it carries {unweighed}",
                    remedy="Say what to reserve for it: Budget(..., allowance=Allowance(input_tokens=20_000)).",
                )
            input_tokens += budget.allowance.input_tokens
        fees = self._fees(budget, call, rung, balances) if call.hosted_tools else 0
        own, asked, cap = None if price is None else price.max_output, call.max_output_tokens, None
        # a cap of ours counts only where it can be sent
        for most in (asked, budget.call_max_output_tokens if call.can_cap or asked is None else None, own):
            if most is not None and (cap is None or most < cap):
                cap = most
        clamped = False
        cost = 0 if cap is None or price is None else price.worst(input_tokens, cap * call.choices) + fees
        if (asked is None and budget.clamp_output != "never") or (call.can_cap and budget.clamp_output == "always"):
            share = 1.0 if call.final else budget.hold_share
            kept = NOTHING if call.final else budget.kept_back
            if cap is None or not _is_small(balances, cost, cap * call.choices, input_tokens, share, kept):
                worth = affordable_output(balances, price, input_tokens, fees, share, kept)
                if worth is not None and (cap is None or worth // call.choices < cap):
                    floor = max(OUTPUT_FLOOR, min(self.anchors.usual_output(model), MOST_OUTPUT_FLOOR))
                    clamped = True
                    cap = max(worth // call.choices, floor if cap is None else min(cap, floor))
                    cost = 0 if price is None else price.worst(input_tokens, cap * call.choices) + fees
        by_itself = cap is not None and cap == own
        bounded = cap is not None and (call.can_cap or asked is not None or by_itself)
        if (cap is None or not (bounded or budget.unbounded == "allow")) and _is_gated(budget, balances, price):
            raise UnboundedCallError(
                model=model,
                reason="its output has no cap" if cap is None else "no output cap can be sent with it",
                remedy="Set the model's own maximum output tokens, give max_output in its pricing=, "
                'or Budget(..., clamp_output="when_unset", unbounded="allow").',
            )
        output_tokens = 0 if cap is None else cap * call.choices
        amounts = Amounts(cost, input_tokens, output_tokens, input_tokens + output_tokens, 1)
        # The model's own limit holds without being sent, and our record of it may be out of date.
        sent = cap if call.can_cap and (asked is not None or not by_itself) else None
        return Plan(rung, amounts, sent, clamped, bounded)

    def _fees(self, budget: Budget, call: ModelCall, rung: Rung, balances: Sequence[Balance]) -> int:
        uses = budget.allowance.hosted_tool_calls
        if not uses:
            if not _is_gated(budget, balances, rung.price):
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


def priced_part(price: ModelPrice, usage: Usage) -> tuple[int, str | None]:
    """What the units of *usage* that have a price cost, in nano-dollars, and which have none, in words."""
    unpriced: str | None = None
    while True:
        try:
            return price.cost(usage), unpriced
        except UnknownPriceError as error:
            unpriced = unpriced or str(error)
            if error.missing in Usage._fields:
                without: dict[str, Any] = {error.missing: 0}
                usage = usage._replace(**without)
            else:
                usage = usage._replace(other=tuple(unit for unit in usage.other if unit[0] != error.missing))


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


def _is_gated(budget: Budget, balances: Sequence[Balance], price: ModelPrice | None) -> bool:
    """Whether a call needs a bound: only if something is limited that depends on its tokens."""
    since = 1 if price is None else 0  # what has no price counts nothing against a dollar limit
    return budget.mode == "hard_gate" and any(limit is not None for b in balances for limit in b.limits[since:4])


def _is_small(
    balances: Sequence[Balance], cost: int, output_tokens: int, input_tokens: int, share: float, kept: Amounts
) -> bool:
    """Whether a hold is within *share* of what remains everywhere, its input included: then no cap is needed."""
    for _, (cost_limit, _, output_limit, total_limit, _, _), committed, reserved, _, _ in balances:
        if cost_limit is not None and cost > (cost_limit - committed[0] - reserved[0] - kept[0]) * share:
            return False
        if output_limit is not None and output_tokens > (output_limit - committed[2] - reserved[2]) * share:
            return False
        total = input_tokens + output_tokens
        if total_limit is not None and total > (total_limit - committed[3] - reserved[3]) * share:
            return False
    return True


def affordable_output(
    balances: Sequence[Balance], price: ModelPrice | None, input_tokens: int, fees: int, share: float, kept: Amounts
) -> int | None:
    """The most output tokens that are worth at most *share* of what remains, and fit; None if nothing limits them."""
    most: list[int] = []
    for balance in balances:
        limits, committed, reserved = balance.limits, balance.committed, balance.reserved
        if limits.cost is not None and price is not None:
            left = limits.cost - committed.cost - reserved.cost - kept.cost - fees
            worth = price.worst(input_tokens, 0) + int(left * share)
            most.append(price.affordable_output(min(worth, left), input_tokens))
        if limits.output_tokens is not None:
            most.append(int((limits.output_tokens - committed.output_tokens - reserved.output_tokens) * share))
        if limits.total_tokens is not None:
            left = limits.total_tokens - committed.total_tokens - reserved.total_tokens
            most.append(min(int(left * share), left - input_tokens))
    return min(most, default=None)
