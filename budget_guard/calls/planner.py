"""Which models may take a call, at what prices, and what to hold for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budget_guard.calls.decision import ModelCall
from budget_guard.calls.worst_case import AmplePlan, Plan, Rung, outline, plan_model
from budget_guard.clock import Clock
from budget_guard.errors import BudgetError, InvalidDowngradeError, UnknownPriceError
from budget_guard.estimate.calibration import Calibration
from budget_guard.ledger.base import Balance
from budget_guard.policy.budget import Budget
from budget_guard.policy.downgrade import DowngradePolicy, refuse_dearer, refuse_incapable, unknown_target
from budget_guard.pricing.table import ModelPrice, PriceTable
from budget_guard.units.amounts import Limits, Sums

_OUTLINE_AGE_S = 60.0
"""Seconds for which an outline, and so a price that was looked up, is used again."""
_MOST_OUTLINES = 1_000
"""Names come from outside, so there is no end to them."""
_PLENTY = Limits(*[2**80] * 6)


class Planner:
    """Works out plans. Holds no counters: what is left comes in, what is decided goes out, both as values."""

    __slots__ = ("_checked", "_clock", "_outlines", "calibration", "prices")

    def __init__(self, prices: PriceTable, clock: Clock) -> None:
        self.prices = prices
        self.calibration = Calibration()
        self._clock = clock
        self._checked: dict[tuple[str, str, frozenset[str]], BudgetError | None] = {}
        self._outlines: tuple[Budget | None, float, dict[Any, AmplePlan | None]] = (None, 0.0, {})
        """The budget that the outlines are for, until when they hold, and they, by all that calls are alike in. One
        value: whoever is late with an outline for another budget puts it where nobody looks any more."""

    def asked(self, budget: Budget, call: ModelCall, left: Limits) -> Rung:
        """The model that *call* asks for.

        Raises:
            UnknownPriceError: If its price is not known and the budget denies that.
        """
        try:
            return Rung(call.model, self._find(call.model, call))
        except UnknownPriceError:
            if budget.unpriced == "deny" and budget.mode != "advisory_estimate" and left.cost is not None:
                raise
            return Rung(call.model, None)

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

    def plan_ample(self, budget: Budget, call: ModelCall, at_s: float) -> tuple[Plan, Sums] | None:
        """The plan for *call* if ever so much is left, and the room that proves it; None if what is left matters.

        The room is so much that no output cap is needed. Where it is there, nobody need ask what is left.

        Args:
            budget: The limits and policies.
            call: The call.
            at_s: When it is made: seconds since any fixed moment.
        """
        known_for, until_s, outlines = self._outlines
        if known_for is not budget or at_s >= until_s:
            outlines = {}
            self._outlines = budget, at_s + _OUTLINE_AGE_S, outlines
        alike = call[0], call[2:-1]  # all but the prompt, and the policy that is for others to look at
        found = outlines.get(alike, ...)
        if found is ...:
            try:
                found = outline(self.calibration[call.model], budget, call, self.asked(budget, call, _PLENTY))
            except UnknownPriceError:
                found = None
            if len(outlines) >= _MOST_OUTLINES:
                outlines.clear()
            outlines[alike] = found
        return None if found is None else found.fill(call[1])

    def plan(self, budget: Budget, call: ModelCall, rung: Rung, left: Limits) -> Plan:
        """What *call* takes at most on *rung*. As `plan_model`."""
        return plan_model(self.calibration[rung.model], budget, call, rung, left)


def spent_fraction(balances: Sequence[Balance]) -> float:
    """The largest spent share of any dollar or token limit."""
    fraction = 0.0
    for balance in balances:
        for i in range(4):  # cost, input, output, total: a cheaper model saves no requests
            limit = balance.limits[i]
            if limit is not None:
                fraction = max(fraction, balance.committed[i] / limit if limit else 1.0)
    return fraction
