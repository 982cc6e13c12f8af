"""The models that may take a call, first choice first, and their prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from budget_guard.calls.call import ModelCall
from budget_guard.calls.plan import Rung
from budget_guard.clock import Clock
from budget_guard.errors import BudgetError, InvalidDowngradeError, UnknownPriceError
from budget_guard.ledger.base import Balance
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.pricing.model_price import TEXT_ONLY, ModelPrice
from budget_guard.pricing.table import PriceTable, same_tier
from budget_guard.units.amounts import Limits

_PROBE_TOKENS = 1_000
"""Tokens of input and of output at which two models are compared."""
SAVED_BY_A_CHEAPER_MODEL = ("cost", "input_tokens", "output_tokens", "total_tokens")
"""The dimensions whose limits a switch can be due to: a cheaper model saves no requests."""


class _Served(NamedTuple):
    """How calls to one model were served although nobody asked for it."""

    models: tuple[str, ...] = ()
    """Dearer models that answered in its place."""
    tier: str | None = None
    """The dearer tier that the latest answer names."""
    region: str | None = None
    """The dearer region, likewise."""


_NOT_ELSE = _Served()
_ASKS_FOR_NONE = (None, "auto")
"""What a call says of its tier that leaves it to the account's settings."""
_MOST_SERVED = 256
"""Names come from outside, so there is no end to them."""
_MOST_IN_PLACE = 8
"""Models that may be known to answer in the place of one."""


class Ladder:
    """Finds the models for a call. Holds no counters: what is left comes in as a value.

    Args:
        prices: The price table.
        clock: Where the day comes from whose prices count.
        tier: The price tier of calls that ask for none, as `Budget.service_tier`.
    """

    __slots__ = ("_checked", "_clock", "_served", "_tier", "prices")

    def __init__(self, prices: PriceTable, clock: Clock, tier: str | None = None) -> None:
        self.prices = prices
        self._clock = clock
        self._tier = tier
        self._checked: dict[tuple[str, str, frozenset[str]], BudgetError | None] = {}
        self._served: dict[str, _Served] = {}

    def asked(self, budget: BudgetPolicy, call: ModelCall, left: Limits) -> Rung:
        """The model that *call* asks for.

        Raises:
            UnknownPriceError: If its price is not known and the budget denies that.
        """
        try:
            return self._rung(call.model, call)
        except UnknownPriceError:
            if budget.refuses_unpriced(left.cost is not None):
                raise
            return Rung(call.model, None)

    def cheaper(self, policy: DowngradePolicy, call: ModelCall, asked: Rung, why: str = "") -> list[Rung]:
        """The models that *policy* has for *call* in the place of *asked*, first choice first.

        Raises:
            InvalidDowngradeError: If it has some, and none can stand in: said when the model is first seen, not at the
                threshold.
        """
        if call.alternatives:
            return []
        targets: list[Rung] = []
        invalid: BudgetError | None = None
        for target in policy.ladder(call.model):
            error = self._check(asked, target, call)
            if error is None:
                targets.append(self._rung(target, call, why))
            invalid = invalid or error
        if not targets and invalid is not None:
            raise invalid
        return targets

    def cheaper_price(self, call: ModelCall, model: str) -> ModelPrice | None:
        """The price of *model*, if it is cheaper than the model that *call* asks for and has all that the call needs.

        None also where any of that is not known: of *model* with the call's own provider, for it is sent there.
        """
        try:
            price, asked = (self._find(name, call._replace(model=name)) for name in (model, call.model))
            is_cheaper = price.worst(_PROBE_TOKENS, _PROBE_TOKENS) < asked.worst(_PROBE_TOKENS, _PROBE_TOKENS)
            if not is_cheaper or _is_dearer(price, asked):
                return None
        except UnknownPriceError:
            return None
        return price if call.needs <= (price.capabilities or frozenset()) else None

    def rungs(
        self, budget: BudgetPolicy, policy: DowngradePolicy, call: ModelCall, asked: Rung, balances: Sequence[Balance]
    ) -> list[Rung]:
        """The models to try where *policy* may have cheaper ones, first choice first.

        Raises:
            InvalidDowngradeError: If no target of the policy can stand in for the model.
        """
        reached = is_reached(policy, balances)
        why = (
            f"{policy.at:.0%} of the budget is spent" if reached else f"{asked.model} no longer fits into what is left"
        )
        try:
            targets = self.cheaper(policy, call, asked, why)
        except InvalidDowngradeError:
            if budget.mode != "advisory_estimate":
                raise
            targets = []
        return targets if targets and reached else [asked, *targets]

    def _rung(self, model: str, call: ModelCall, why: str = "") -> Rung:
        """*model* as it may be served: by the dearest of its alternatives, and of what has served such calls before."""
        served = self._served.get(model, _NOT_ELSE)
        if served is not _NOT_ELSE:
            asked = _as_served(call, served)
            try:
                return Rung(model, self._dearest((model, *call.alternatives, *served.models), asked), why, exact=False)
            except UnknownPriceError:
                pass  # what has no price teaches nothing
        if call.alternatives:
            return Rung(model, self._dearest((model, *call.alternatives), call), why, exact=False)
        return Rung(model, self._find(model, call), why)

    def note_served(self, call: ModelCall, rung: Rung, model: str, tier: str | None, region: str | None) -> bool:
        """Learn from an answer that another model, tier or region serves such calls than they name.

        Args:
            call: The call.
            rung: The model that it was made to.
            model: The model that served it.
            tier: The price tier that served it; None where the answer does not say.
            region: Where it was made; None where the answer does not say.

        Returns:
            Whether that changes what is to be held for the next one.
        """
        before = self._served.get(rung.model, _NOT_ELSE)
        now = before
        if call.service_tier in _ASKS_FOR_NONE and tier is not None:
            now = now._replace(tier=None if same_tier(tier, self._tier) else tier)
        if call.region is None and region is not None:
            now = now._replace(region=region)
        if model != rung.model and model not in before.models and len(before.models) < _MOST_IN_PLACE:
            now = now._replace(models=(*before.models, model))
        if now == before:
            return False
        if now == _NOT_ELSE:
            del self._served[rung.model]
            return True
        asked = _as_served(call, now)
        try:
            dearest = self._dearest((rung.model, *now.models), asked)
            if rung.price is None or not _is_dearer(dearest, rung.price):
                return False
        except UnknownPriceError:
            return False
        if len(self._served) >= _MOST_SERVED:
            self._served.clear()
        self._served[rung.model] = now
        return True

    def price_served(
        self, call: ModelCall, rung: Rung, model: str | None, tier: str | None, region: str | None
    ) -> tuple[ModelPrice | None, str | None]:
        """The price of a call as an answer says that it was served. What it does not say is as it was before.

        Where the model has a price, but not as it was served, that is the planned one's, with a note that says so.

        Args:
            call: The call.
            rung: The model that it was made to.
            model: The model that served it; None where the answer does not say.
            tier: The price tier that served it, likewise.
            region: Where it was made, likewise.
        """
        before = self._served.get(rung.model, _NOT_ELSE)
        if model is None and (call.alternatives or before.models):
            return rung.price, None  # any of them may have answered
        served = _as_served(call, before)
        served = served._replace(service_tier=tier or served.service_tier, region=region or served.region)
        name = model or rung.model
        try:
            return self._find(name, served), None
        except UnknownPriceError as error:
            if error.missing == "model" or self.prices.is_own(name):  # which is for however it is served
                return rung.price, None
            return rung.price, str(error)

    def price_called(self, call: ModelCall, model: str, planned: ModelPrice | None) -> ModelPrice | None:
        """The price of the model that was called in the end; the planned one's where that is not known."""
        try:
            return self._find(model, call)
        except UnknownPriceError:
            return planned

    def _dearest(self, models: tuple[str, ...], call: ModelCall) -> ModelPrice:
        """The price that is never below that of any of *models*."""
        if len(models) == 1:
            return self._find(models[0], call)
        tier, speed = self._tier_and_speed(call)
        return self.prices.find_dearest(
            models,
            provider=call.provider,
            service_tier=tier,
            speed=speed,
            region=call.region,
            search_context=call.search_context,
            at=self._clock.now(),
        )

    def _find(self, model: str, call: ModelCall) -> ModelPrice:
        at = self._clock.now()
        tier, speed = self._tier_and_speed(call)
        try:
            return self.prices.find(
                model,
                provider=call.provider,
                service_tier=tier,
                speed=speed,
                region=call.region,
                search_context=call.search_context,
                at=at,
            )
        except UnknownPriceError as error:
            if model == call.model or call.provider is None or error.missing != "model":
                raise
            return self.prices.find(model, at=at)  # a target may be another provider's

    def tier_of(self, call: ModelCall) -> str | None:
        """The price tier of *call*: the one that it asks for, else that of calls which ask for none."""
        tier = call.service_tier
        return self._tier or tier if tier in _ASKS_FOR_NONE else tier

    def _tier_and_speed(self, call: ModelCall) -> tuple[str | None, str | None]:
        tier = self.tier_of(call)
        return (None, "fast") if tier == "fast" else (tier, None)

    def _check(self, asked: Rung, target: str, call: ModelCall) -> BudgetError | None:
        key = (asked.model, target, call.needs)
        if key not in self._checked:
            found: BudgetError | None = None
            try:
                cheaper = self._find(target, call)
                if asked.price is not None:
                    _refuse_dearer(asked.price, cheaper, asked.model, target)
                _refuse_incapable(cheaper, call.needs, asked.model, target)
            except InvalidDowngradeError as error:
                found = error
            except UnknownPriceError as error:
                found = _unknown_target(asked.model, target, error)
            self._checked[key] = found
        return self._checked[key]


def check_policy(policy: DowngradePolicy, prices: PriceTable) -> None:
    """Find what can be known to be wrong with *policy* before any call.

    Raises:
        InvalidDowngradeError: If a target has no known price, or is dearer than the model it replaces.
    """
    pairs = [(None, policy.to)] if isinstance(policy.to, str) else list(policy.to.items())
    for model, target in pairs:
        cheaper = _price(prices, model or "*", target)
        if model is not None:
            _refuse_dearer(_price(prices, model, model), cheaper, model, target)


def is_reached(policy: DowngradePolicy, balances: Sequence[Balance]) -> bool:
    """Whether so much of a dollar or token limit is spent that *policy* switches."""
    return any(committed >= policy.threshold(limit) for limit, committed in _spending(balances))


def spent_fraction(balances: Sequence[Balance]) -> float:
    """The largest spent share of any dollar or token limit."""
    return max((committed / limit if limit else 1.0 for limit, committed in _spending(balances)), default=0.0)


def _spending(balances: Sequence[Balance]) -> list[tuple[int, int]]:
    """Each limit that counts towards a switch, with what is spent of it."""
    return [
        (limit, getattr(balance.committed, name))
        for balance in balances
        for name in SAVED_BY_A_CHEAPER_MODEL
        if (limit := getattr(balance.limits, name)) is not None
    ]


def _as_served(call: ModelCall, served: _Served) -> ModelCall:
    """*call* as if it had asked for what serves such calls, where it leaves that open."""
    tier = call.service_tier
    return call._replace(
        service_tier=served.tier or tier if tier in _ASKS_FOR_NONE else tier, region=call.region or served.region
    )


def _is_dearer(one: ModelPrice, other: ModelPrice) -> bool:
    """Whether *one* costs more than *other*, for calls that are mostly read or mostly written."""
    sizes = ((_PROBE_TOKENS, 0), (0, _PROBE_TOKENS))
    return any(one.worst(*size, kinds=TEXT_ONLY) > other.worst(*size, kinds=TEXT_ONLY) for size in sizes)


def _price(prices: PriceTable, model: str, target: str) -> ModelPrice:
    try:
        return prices.find(target)
    except UnknownPriceError as error:
        raise _unknown_target(model, target, error) from error


def _unknown_target(model: str, target: str, error: UnknownPriceError) -> InvalidDowngradeError:
    near = f" Nearest known: {', '.join(error.suggestions)}." if error.suggestions else ""
    return InvalidDowngradeError(
        model=model,
        target=target,
        reason="no price is known for it",
        remedy=f"{near} To use it, {error.remedy}.".strip(),
    )


def _refuse_dearer(price: ModelPrice, cheaper: ModelPrice, model: str, target: str) -> None:
    if cheaper.worst(_PROBE_TOKENS, _PROBE_TOKENS) > price.worst(_PROBE_TOKENS, _PROBE_TOKENS):
        raise InvalidDowngradeError(
            model=model,
            target=target,
            reason=f"{target!r} is dearer than {model!r}",
            remedy=f"Name a cheaper model, or give a mapping that leaves {model!r} out.",
        )


def _refuse_incapable(cheaper: ModelPrice, needs: frozenset[str], model: str, target: str) -> None:
    # a model whose capabilities are not known is not refused
    if cheaper.capabilities is not None and (missing := needs - cheaper.capabilities):
        raise InvalidDowngradeError(
            model=model,
            target=target,
            reason=f"{target!r} lacks {', '.join(sorted(missing))}, which this call needs",
            remedy="Name a model that has it.",
        )
