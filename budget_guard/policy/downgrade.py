"""Downgrade policies: which cheaper model takes the place of a dearer one, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

from budget_guard.errors import InvalidDowngradeError


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
        if not _names_models(self.to):
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

    def only(self, allowed: Callable[[str], bool]) -> DowngradePolicy | None:
        """The same without the models that are not *allowed*; None where none is left."""
        if isinstance(self.to, str):
            return self if allowed(self.to) else None
        nearest = {model: next(filter(allowed, self.ladder(model)), None) for model in self.to}
        kept = {model: rung for model, rung in nearest.items() if rung is not None}
        return replace(self, to=kept) if kept else None

    def threshold(self, limit: int) -> int:
        """The least that must be spent of *limit* for the switch, in the limit's unit.

        Exact: 0.8 is four fifths here, and not the float that is a little more than that.
        """
        return math.ceil(limit * Fraction(str(self.at)))

    def __hash__(self) -> int:
        return hash((self.to if isinstance(self.to, str) else frozenset(self.to.items()), self.at))


def _names_models(to: object) -> bool:
    if isinstance(to, Mapping):
        names = [name for rung in cast("Mapping[object, object]", to).items() for name in rung]
        return bool(names) and all(isinstance(name, str) and name for name in names)
    return isinstance(to, str) and bool(to)
