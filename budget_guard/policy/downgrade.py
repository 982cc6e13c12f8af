"""Which cheaper model stands in for a dearer one, and from when on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budget_guard.errors import InvalidDowngradeError, UnknownPriceError
from budget_guard.pricing.table import ModelPrice, PriceTable

_PROBE_TOKENS = 1_000
"""Tokens of input and of output at which two models are compared."""


@dataclass(frozen=True, slots=True)
class DowngradePolicy:
    """Switch to a cheaper model once a fraction of the budget is spent.

    ``DowngradePolicy(to="gpt-4o-mini")`` replaces every model. A mapping replaces those it names, and is a ladder:
    ``{"gpt-5": "gpt-5-mini", "gpt-5-mini": "gpt-5-nano"}`` goes one rung down at the threshold, and further down
    only where that rung no longer fits into what is left.
    """

    to: str | Mapping[str, str]
    """The cheaper model, or a mapping from each model to the next cheaper one."""
    at: float = 0.8
    """The fraction of a limit that must be spent first: above 0, at most 1."""

    def __post_init__(self) -> None:
        if isinstance(self.at, bool) or not isinstance(self.at, (int, float)) or not 0 < self.at <= 1:
            raise ValueError(f"downgrade.at={self.at!r} must be a fraction above 0 and at most 1, for example 0.8")
        if not self.to:
            raise ValueError(f"downgrade.to={self.to!r} names no model: give one, or a mapping of models")
        if not isinstance(self.to, str):
            object.__setattr__(self, "to", dict(self.to))  # the caller may change its own
            for model in self.to:
                self.ladder(model)  # follows the chain, and so finds a circle

    def ladder(self, model: str) -> tuple[str, ...]:
        """The models that may replace *model*, first choice first.

        Raises:
            InvalidDowngradeError: If the mapping leads back to a model it started from.
        """
        if isinstance(self.to, str):
            return () if self.to == model else (self.to,)
        rungs: list[str] = []
        rung = self.to.get(model)
        while rung is not None:
            if rung in rungs or rung == model:
                raise InvalidDowngradeError(
                    model=model, target=rung, reason="the mapping goes round in a circle", remedy="Remove one rung."
                )
            rungs.append(rung)
            rung = self.to.get(rung)
        return tuple(rungs)

    def check(self, prices: PriceTable) -> None:
        """Find what can be known to be wrong before any call.

        Raises:
            InvalidDowngradeError: If a target has no known price, or is dearer than the model it replaces.
        """
        pairs = [(None, self.to)] if isinstance(self.to, str) else list(self.to.items())
        for model, target in pairs:
            cheaper = _price(prices, model or "*", target)
            if model is not None:
                refuse_dearer(_price(prices, model, model), cheaper, model, target)


def _price(prices: PriceTable, model: str, target: str) -> ModelPrice:
    try:
        return prices.find(target)
    except UnknownPriceError as error:
        raise unknown_target(model, target, error) from error


def unknown_target(model: str, target: str, error: UnknownPriceError) -> InvalidDowngradeError:
    """The error for a *target* whose price is not known."""
    near = f" Nearest known: {', '.join(error.suggestions)}." if error.suggestions else ""
    return InvalidDowngradeError(
        model=model,
        target=target,
        reason="no price is known for it",
        remedy=f"{near} To use it, {error.remedy}.".strip(),
    )


def refuse_dearer(price: ModelPrice, cheaper: ModelPrice, model: str, target: str) -> None:
    """Refuse a *target* that costs more than *model*.

    Raises:
        InvalidDowngradeError: If it does, for a call of 1,000 tokens in and 1,000 out.
    """
    if cheaper.worst(_PROBE_TOKENS, _PROBE_TOKENS) > price.worst(_PROBE_TOKENS, _PROBE_TOKENS):
        raise InvalidDowngradeError(
            model=model,
            target=target,
            reason=f"{target!r} is dearer than {model!r}",
            remedy=f"Name a cheaper model, or give a mapping that leaves {model!r} out.",
        )


def refuse_incapable(cheaper: ModelPrice, needs: frozenset[str], model: str, target: str) -> None:
    """Refuse a *target* that is known to lack something that the call needs.

    Raises:
        InvalidDowngradeError: If it does. A model whose capabilities are not known is not refused.
    """
    if cheaper.capabilities is not None and (missing := needs - cheaper.capabilities):
        raise InvalidDowngradeError(
            model=model,
            target=target,
            reason=f"{target!r} lacks {', '.join(sorted(missing))}, which this call needs",
            remedy="Name a model that has it.",
        )
