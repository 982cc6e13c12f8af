"""The price table: which model a name means, and what it costs.

The bundled table is compiled from genai-prices by ``make prices`` and holds integers only. Resolution is
strict: a name is known, is a snapshot of a known name, or is refused with the nearest names and the line that
would allow it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, TypeAlias

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_names import FIRST_PARTY, base_of_fine_tune, provider_id, readings, snapshots
from budget_guard.pricing.model_price import UNLIMITED_OUTPUT, ModelPrice
from budget_guard.pricing.overlay import CAPABILITIES, Overlay, PriceLike, digest, parse_overlay
from budget_guard.pricing.rate_card import ALWAYS, PricedModel, PriceHours, RateCard, to_utc

__all__ = ["UNLIMITED_OUTPUT", "ModelPrice", "PriceData", "PriceLike", "PriceTable"]

_STANDARD = (None, "auto", "default", "standard")
_PICO_PER_NANO = 1000
_CACHED_PRICES = 4096


_Names: TypeAlias = "dict[str, dict[str, Any]]"


def same_tier(one: str | None, other: str | None) -> bool:
    """Whether two service tiers are priced alike: they are equal, or two names of the standard one."""
    return one == other or (one in _STANDARD and other in _STANDARD)


class _Model(NamedTuple):
    """A model that a name was found to mean."""

    provider: str
    name: str  # the name or stem in the table
    raw: dict[str, Any]
    own: bool  # whether it is the asked provider's own entry, and not one that it resells
    latest: bool


class PriceData:
    """The parsed ``prices.json``, shared by all tables that are overlaid on it."""

    def __init__(self, data: Mapping[str, Any], basis: str) -> None:
        self.providers: Mapping[str, Any] = data["providers"]
        self.units: list[str] = data["units"]
        self.per: Mapping[str, int] = data["per"]
        self.as_of = date.fromisoformat(data["as_of"])
        self.basis = basis
        self._names: dict[str, tuple[_Names, _Names]] = {}

    def names(self, provider: str) -> tuple[_Names, _Names]:
        """The exact names of a provider's models, and the stems that a snapshot suffix may follow."""
        index = self._names.get(provider)
        if index is None:
            models = self.providers[provider]["models"]
            names = {name: model for model in models for name in model["names"]}
            stems = {stem: model for model in models for stem in model.get("stems", ())}
            index = self._names[provider] = names, stems
        return index


class PriceTable:
    """Prices of models, bundled and given by the user. Make one with `bundled` and `overlaid`."""

    def __init__(self, bundle: PriceData, overlays: Mapping[str, Overlay]) -> None:
        self._bundle = bundle
        self._overlays = overlays
        self._found: dict[tuple[str, str | None, str | None, int], ModelPrice] = {}
        self.basis = f"{bundle.basis}+overlay:{digest(overlays)}" if overlays else bundle.basis
        """The source's version and the hashes of the table and of the overlays, to explain a cost later."""
        self.as_of = bundle.as_of
        """The day on which the bundled prices were last reviewed."""

    @staticmethod
    def bundled() -> PriceTable:
        """The table that the library ships. It is read once."""
        return _bundled()

    def overlaid(self, pricing: Mapping[str, PriceLike]) -> PriceTable:
        """A table in which the given prices win for the names exactly as they are given.

        Limits that a price leaves out are those of the bundled model of that name, where there is one.

        Raises:
            ValueError: If a price makes no sense; it names the model, the field, the value and the remedy.
        """
        given = {model: parse_overlay(model, value, self._bundle.units) for model, value in pricing.items()}
        return PriceTable(self._bundle, {**self._overlays, **given})

    def find(
        self,
        model: str,
        *,
        provider: str | None = None,
        service_tier: str | None = None,
        at: datetime | None = None,
    ) -> ModelPrice:
        """The price of *model*.

        Args:
            model: The name as it is asked for, with or without a provider's prefix.
            provider: Who is called, as any SDK or gateway writes it. None reads it from the name, or looks
                among the providers that make models.
            service_tier: None, "auto", "default" and "standard" are the standard tier.
            at: The day whose prices count, with a time zone; today if None.

        Raises:
            UnknownPriceError: If the name, the provider or the service tier is not known.
            ValueError: If *at* has no time zone.
        """
        if at is None:
            at = SYSTEM_CLOCK.now()
        elif at.tzinfo is not timezone.utc:
            at = to_utc(at)
        key = (model, provider, service_tier, at.toordinal())
        price = self._found.get(key)
        if price is None:
            price = ModelPrice(self._resolve(model, provider, service_tier, at.date()))
            if len(self._found) >= _CACHED_PRICES:  # names come from outside, so there is no end to them
                self._found.clear()
            self._found[key] = price
        return price

    def _resolve(self, model: str, provider: str | None, service_tier: str | None, day: date) -> PricedModel:
        tier = None if service_tier in _STANDARD else service_tier
        overlay = self._overlays.get(model)
        found = self._look_up(model, provider)
        if overlay is not None and overlay.card is not None:
            if tier is not None:
                remedy = "leave the service tier out: a price in pricing= is that of the standard tier"
                raise _no_tier(tier, model, provider, remedy)
            terms = PricedModel(model, None if found is None else found.provider, overlay.card)
        elif found is not None:
            terms = self._bundled_terms(model, found, tier, day)
        else:
            raise UnknownPriceError(model=model, provider=provider, suggestions=self._nearest(model, provider))
        if found is not None:
            context_window, max_output, letters = found.raw.get("except", {}).get(found.name, found.raw["limits"])
            able = None if letters is None else frozenset(CAPABILITIES[letter] for letter in letters)
            terms = terms._replace(context_window=context_window, max_output=max_output, capabilities=able)
        return terms if overlay is None else terms._replace(**overlay.limits())

    def _bundled_terms(self, model: str, found: _Model, tier: str | None, day: date) -> PricedModel:
        today = self._schedule(found, tier, day)
        if today is None:
            others = ", ".join(found.raw.get("variants", ())) if found.own else ""
            remedy = "ask for the standard tier" + (f" or one of {others}" if others else "")
            raise _no_tier(tier, model, found.provider, remedy)
        card, windows = today
        next_card, next_windows = self._schedule(found, tier, day + timedelta(days=1)) or today
        return PricedModel(
            model=model,
            provider=found.provider,
            card=card,
            windows=windows,
            next_day=[next_card, *(window.card for window in next_windows)],
            assumed_alias=found.latest or "latest" in found.name.split("-"),
        )

    def _look_up(self, model: str, provider: str | None) -> _Model | None:
        known = self._bundle.providers
        for asked, name in readings(model, provider_id(provider), known):
            if asked is None:
                makers = [m for maker in FIRST_PARTY if (m := self._at(maker, name)) and not m.raw.get("hosted")]
                if len(makers) == 1:
                    return makers[0]
            elif asked in known:
                for seller in (asked, *known[asked].get("fallback", ())):
                    if found := self._at(seller, name):
                        return found._replace(provider=asked, own=seller == asked)
        return None

    def _at(self, provider: str, name: str) -> _Model | None:
        """The model that *name* means at *provider*."""
        names, stems = self._bundle.names(provider)
        name = base_of_fine_tune(name)
        if raw := names.get(name):
            return _Model(provider, name, raw, own=True, latest=False)
        for stem, day, latest in snapshots(name, provider):
            raw = stems.get(stem)
            # The table cannot know the price of a snapshot that is younger than itself.
            if raw and (day is None or day <= self.as_of):
                return _Model(provider, stem, raw, own=True, latest=latest)
        return None

    def _schedule(self, found: _Model, tier: str | None, day: date) -> tuple[RateCard, list[PriceHours]] | None:
        """The rate card in force on *day* and the windows of that day; None if there is no such tier."""
        changes: dict[str, Any] = {}
        if tier is not None:
            entries: list[Any] = found.raw.get("variants", {}).get(tier, []) if found.own else []
            active: list[dict[str, Any]] = [rates for start, rates in entries if start <= day.isoformat()]
            if not active:
                return None
            for rates in reversed(active):  # the first in force wins
                changes |= rates
        base: dict[str, Any] = {}
        windows: list[PriceHours] = []
        for start, rates in found.raw["prices"]:  # the last day in force wins
            if not isinstance(start, str):
                opens, closes, days = start
                windows.append(PriceHours(opens, closes, frozenset(days), self._card(rates | changes)))
            elif start <= day.isoformat():
                base = rates
        return self._card(base | changes), windows

    def _card(self, rates: Mapping[str, Any]) -> RateCard:
        per = self._bundle.per
        card: dict[str, list[tuple[int, Fraction]]] = {}
        for unit, (first, *more) in rates.items():
            scale = _PICO_PER_NANO * per.get(unit, 1)
            card[unit] = [(above, Fraction(pico, scale)) for above, pico in ((ALWAYS, first), *more)]
        return card

    def _nearest(self, model: str, provider: str | None) -> list[str]:
        known = self._bundle.providers
        asked, name = list(readings(model, provider_id(provider), known))[-1]
        pool: tuple[str, ...] = FIRST_PARTY
        if asked is not None and asked in known:
            pool = (asked, *known[asked].get("fallback", ()))
        names = {name for each in pool for name in self._bundle.names(each)[0]}
        return difflib.get_close_matches(name, sorted(names), n=3)


def _no_tier(tier: str | None, model: str, provider: str | None, remedy: str) -> UnknownPriceError:
    return UnknownPriceError(model=model, provider=provider, missing=f"service_tier {tier!r}", remedy=remedy)


@cache
def _bundled() -> PriceTable:
    content = resources.files("budget_guard.pricing").joinpath("prices.json").read_bytes()
    data = json.loads(content)
    version = data["sources"]["genai-prices"]
    basis = f"genai-prices=={version}+sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    return PriceTable(PriceData(data, basis), {})
