"""The price table: which model a name means, and what it costs.

The bundled table is compiled from genai-prices by ``make prices`` and holds integers only. Resolution is
strict: a name is known, is a snapshot of a known name, or is refused with the nearest names and the line that
would allow it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_names import (
    FIRST_PARTY,
    LOCAL,
    base_of_fine_tune,
    exact_names,
    provider_id,
    readings,
    region_of,
    routed,
    snapshots,
)
from budget_guard.pricing.model_price import UNLIMITED_OUTPUT, ModelPrice
from budget_guard.pricing.overlay import CAPABILITIES, Alias, Overlay, PriceLike, digest, parse_overlay
from budget_guard.pricing.rate_card import (
    ALWAYS,
    PricedModel,
    PriceHours,
    RateCard,
    dearest,
    dearest_of,
    is_per_token,
    raised,
    to_utc,
)
from budget_guard.pricing.serving import STANDARD_SPEEDS, STANDARD_TIERS, Serving, same_tier

__all__ = ["UNLIMITED_OUTPUT", "ModelPrice", "PriceData", "PriceLike", "PriceTable", "same_tier"]

_PICO_PER_NANO = 1000
_CACHED_PRICES = 4096
_SCHEMA = 1
_ENVIRONMENT = "BUDGET_GUARD_PRICES"
_ROUTES = frozenset(("beta", "exacto", "floor", "nitro", "thinking"))
"""OpenRouter's variants that choose among the providers of the same model."""
_FREE: dict[str, Any] = {"input": [0], "output": [0]}


_Names: TypeAlias = "dict[str, dict[str, Any]]"


class _Model(NamedTuple):
    """A model that a name was found to mean."""

    provider: str
    name: str  # the name or stem in the table
    raw: dict[str, Any]
    seller: str  # whose entry it is: another provider's where the asked one resells it at the same price

    @property
    def own(self) -> bool:
        """Whether it is the asked provider's own entry."""
        return self.provider == self.seller


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

    def __init__(self, bundle: PriceData, overlays: Mapping[str, Overlay | Alias]) -> None:
        self._bundle = bundle
        self._overlays = overlays
        self._found: dict[tuple[object, ...], ModelPrice] = {}
        self.basis = f"{bundle.basis}+overlay:{digest(overlays)}" if overlays else bundle.basis
        """The source's version and the hashes of the table and of the overlays, to explain a cost later."""
        self.as_of = bundle.as_of
        """The day on which the bundled prices were last reviewed."""

    @staticmethod
    def bundled() -> PriceTable:
        """The table that the library ships, or the one that ``BUDGET_GUARD_PRICES`` names. It is read once."""
        return _bundled()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PriceTable:
        """The table in a file that ``budget-guard prices --compile`` has made.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no such table, or of another version of the library.
        """
        content = Path(path).read_bytes()
        try:
            data = json.loads(content)
            schema = data["schema"]
            if schema == _SCHEMA:
                return _table(data, content)
        except (ValueError, LookupError, TypeError, AttributeError):
            schema = None
        found = "is no price table" if schema is None else f"is a price table of another form ({schema!r})"
        raise ValueError(f"{os.fspath(path)} {found}: make one with budget-guard prices --compile {os.fspath(path)}")

    def overlaid(
        self,
        pricing: Mapping[str, PriceLike] | None = None,
        *,
        per_million: Mapping[str, PriceLike] | None = None,
    ) -> PriceTable:
        """A table in which the given prices win for the names exactly as they are given.

        Limits that a price leaves out are those of the bundled model of that name, where there is one.

        Args:
            pricing: Dollars per token and per use, or the name of the model that a name stands for.
            per_million: The same with the prices of tokens in dollars per million.

        Raises:
            ValueError: If a price makes no sense, or a name stands for no known model; it names the model, the field,
                the value and the remedy.
        """
        given: dict[str, Overlay | Alias] = {}
        for argument, prices in (("pricing", pricing or {}), ("per_million", per_million or {})):
            for model, value in prices.items():
                if model in given:
                    raise ValueError(f"{model!r} is in pricing= and in per_million=: give its price once")
                given[model] = parse_overlay(model, value, self._bundle.units, argument=argument)
        table = PriceTable(self._bundle, {**self._overlays, **given})
        for model, overlay in table._overlays.items():
            if isinstance(overlay, Alias):
                table._check_alias(model, overlay.target)
        return table

    def _check_alias(self, name: str, target: str) -> None:
        """Refuse an alias that leads nowhere, or to another alias."""
        if isinstance(self._overlays.get(target), Alias):
            raise ValueError(
                f"pricing[{name!r}]={target!r}: {target!r} is an alias itself. Name the model that it stands for."
            )
        try:
            self.find(target)
        except UnknownPriceError as error:
            near = f"did you mean {', '.join(map(repr, error.suggestions))}? " if error.suggestions else ""
            raise ValueError(
                f"pricing[{name!r}]={target!r} is not a price, nor a model with a known price: {near}"
                "An alias names a model of the table or of pricing=; a price is (2.5e-6, 10e-6)."
            ) from None

    def find(
        self,
        model: str,
        *,
        provider: str | None = None,
        service_tier: str | None = None,
        speed: str | None = None,
        region: str | None = None,
        search_context: str | None = None,
        at: datetime | None = None,
    ) -> ModelPrice:
        """The price of *model*.

        Args:
            model: The name as it is asked for, with or without a provider's prefix.
            provider: Who is called, as any SDK or gateway writes it. None reads it from the name, or looks
                among the providers that make models. A provider that nobody knows takes the dearest price of that
                very name.
            service_tier: None, "auto", "default", "standard" and what else providers call it are the standard tier.
            speed: Anthropic's ``speed``, as `Serving.speed`.
            region: Where the answer is made, as `Serving.region`.
            search_context: How much is searched, as `Serving.search_context`.
            at: The day whose prices count, with a time zone; today if None.

        Raises:
            UnknownPriceError: If the name, the tier, the speed or the region has no known price.
            ValueError: If *at* has no time zone.
        """
        if at is None:
            at = SYSTEM_CLOCK.now()
        elif at.tzinfo is not timezone.utc:
            at = to_utc(at)
        key = (model, provider, service_tier, speed, region, search_context, at.toordinal())
        price = self._found.get(key)
        if price is None:
            serving = Serving(service_tier, speed, region, search_context)
            price = ModelPrice(self._resolve(model, provider, serving, at.date()))
            if len(self._found) >= _CACHED_PRICES:  # names come from outside, so there is no end to them
                self._found.clear()
            self._found[key] = price
        return price

    def is_own(self, model: str) -> bool:
        """True for a *model* whose price the user gave."""
        overlay = self._overlays.get(model)
        if isinstance(overlay, Alias):
            overlay = self._overlays.get(overlay.target)
        return isinstance(overlay, Overlay) and overlay.card is not None

    def find_dearest(
        self,
        models: tuple[str, ...],
        *,
        provider: str | None = None,
        service_tier: str | None = None,
        speed: str | None = None,
        region: str | None = None,
        search_context: str | None = None,
        at: datetime | None = None,
    ) -> ModelPrice:
        """A price that is never below that of any of *models*, of which any may answer a call.

        Args:
            models: The models, that which is asked for first.
            provider: As `find`, and so are all others.
            service_tier: As `find`.
            speed: As `find`.
            region: As `find`.
            search_context: As `find`.
            at: As `find`.

        Raises:
            UnknownPriceError: As `find`, of any of them.
            ValueError: As `find`.
        """
        at = SYSTEM_CLOCK.now() if at is None else to_utc(at)
        key = (models, provider, service_tier, speed, region, search_context, at.toordinal())
        price = self._found.get(key)
        if price is None:
            serving = Serving(service_tier, speed, region, search_context)
            every = [self._resolve(model, provider, serving, at.date()) for model in models]
            price = ModelPrice(dearest_of(every))
            if len(self._found) >= _CACHED_PRICES:
                self._found.clear()
            self._found[key] = price
        return price

    def _resolve(self, model: str, provider: str | None, serving: Serving, day: date) -> PricedModel:
        overlay = self._overlays.get(model)
        if isinstance(overlay, Alias):
            return self._resolve_target(overlay.target, provider, serving, day)._replace(model=model)
        found = self._look_up(model, provider)
        if overlay is not None and overlay.card is not None:
            if not serving.is_standard():
                what = _what(serving)
                remedy = f"leave the {what.partition(' ')[0]} out: a price in pricing= is that of the standard one"
                raise UnknownPriceError(model=model, provider=provider, missing=what, remedy=remedy)
            terms = PricedModel(model, found[0].provider if len(found) == 1 else None, overlay.card)
        elif found:
            terms = self._bundled_terms(model, found, serving, day)
        else:
            raise self._unknown(model, provider)
        terms = terms._replace(**_limits(found))
        return terms if overlay is None else terms._replace(**overlay.limits())

    def _resolve_target(self, target: str, provider: str | None, serving: Serving, day: date) -> PricedModel:
        """The price of an alias's target at the provider that is called, or wherever the name is known."""
        try:
            return self._resolve(target, provider, serving, day)
        except UnknownPriceError as error:
            if provider is None or error.missing != "model":
                raise
            return self._resolve(target, None, serving, day)

    def _bundled_terms(self, model: str, found: Sequence[_Model], serving: Serving, day: date) -> PricedModel:
        """The price of the model that was found; the dearest of several."""
        every: list[PricedModel] = []
        refusal: UnknownPriceError | None = None
        for each in found:
            try:
                every.append(self._terms(model, each, serving, day))
            except UnknownPriceError as error:
                refusal = refusal or error
        if not every and refusal is not None:
            raise refusal
        if len(found) == 1:
            return every[0]
        cards = [card for terms in every for card in (terms.card, *(window.card for window in terms.windows))]
        return PricedModel(
            model=model,
            provider=None,
            card=dearest(cards),
            next_day=[card for terms in every for card in terms.next_day],
        )

    def _terms(self, model: str, found: _Model, serving: Serving, day: date) -> PricedModel:
        variant = self._variant(model, found, serving)
        factor = self._uplift(model, found, serving.region)
        today = self._schedule(found, variant, serving.search_context, day)
        if today is None:
            others = ", ".join(found.raw.get("variants", ())) if found.own else ""
            remedy = "ask for the standard one" + (f" or one of {others}" if others else "")
            raise UnknownPriceError(model=model, provider=found.provider, missing=_what(serving), remedy=remedy)
        card, windows = today
        tomorrow = self._schedule(found, variant, serving.search_context, day + timedelta(days=1))
        next_card, next_windows = tomorrow or today
        return PricedModel(
            model=model,
            provider=found.provider,
            card=raised(card, factor),
            windows=[window._replace(card=raised(window.card, factor)) for window in windows],
            next_day=[raised(each, factor) for each in (next_card, *(window.card for window in next_windows))],
            per_prompt=frozenset(found.raw.get("per_prompt", ())),
            own_tools=tuple(found.raw.get("own_tools", ())),
        )

    def _variant(self, model: str, found: _Model, serving: Serving) -> str | None:
        """The variant of the price that tier and speed ask for; None for the standard one."""
        tier, speed, _, _ = serving
        alike = self._bundle.providers[found.provider].get("standard_tiers", ())
        tier = None if tier in STANDARD_TIERS or tier in alike else tier
        speed = None if speed in STANDARD_SPEEDS else speed
        if tier is not None and speed is not None:
            remedy = "ask for one of the two at a time"
            raise UnknownPriceError(model=model, provider=found.provider, missing=_what(serving), remedy=remedy)
        return speed if tier is None else tier

    def _uplift(self, model: str, found: _Model, region: str | None) -> Fraction:
        """How many times the list price a token costs in *region*."""
        region = region or region_of(model)
        rules: Mapping[str, str] | None = self._bundle.providers[found.provider].get("regions")
        if region is None or rules is None:
            return Fraction(1)
        rule = rules.get(region.lower(), rules.get("*", "refused"))
        if rule == "refused" and not found.raw.get("anywhere"):
            raise UnknownPriceError(
                model=model,
                provider=found.provider,
                missing=f"region {region!r}",
                remedy=lambda: self._remedy_there(model, found),
            )
        return Fraction(*found.raw["uplift"]) if rule == "uplift" and "uplift" in found.raw else Fraction(1)

    def _look_up(self, model: str, provider: str | None) -> list[_Model]:
        """The models that *model* may mean: one, or each that has this very name where its provider is not known."""
        asked_id = provider_id(provider)
        known = self._bundle.providers
        for asked, name in readings(model, asked_id, known):
            if asked is None:
                makers = [m for maker in FIRST_PARTY if (m := self._at(maker, name)) and not m.raw.get("hosted")]
                if len(makers) == 1:
                    return makers
            elif asked in known:
                for seller in (asked, *known[asked].get("fallback", ())):
                    if found := self._at(seller, name):
                        return [found._replace(provider=asked)]
                if asked == "openrouter" and (routes := self._routes(name)):
                    return routes
        if asked_id in known or asked_id in LOCAL:
            return []
        return self._sellers(exact_names(model, known))

    def _sellers(self, names: Sequence[str]) -> list[_Model]:
        """Every provider's model of one of these very names."""
        return [
            _Model(provider, name, raw, provider)
            for provider in self._bundle.providers
            for name in names
            if (raw := self._bundle.names(provider)[0].get(base_of_fine_tune(name))) is not None
        ]

    def _routes(self, name: str) -> list[_Model]:
        """What OpenRouter's variants of a known model cost.

        ":free" costs nothing. Variants that choose a provider may choose the dearest that has this model. ":online"
        adds searches whose number and price the name does not tell, so it has none.
        """
        base, variants = routed(name)
        found = self._at("openrouter", base)
        if found is None or not variants:
            return []
        if variants == ("free",):
            return [found._replace(raw={"limits": found.raw["limits"], "prices": [["", _FREE]]})]
        if not _ROUTES.issuperset(variants):
            return []
        return [found, *(m for m in self._sellers([base, base.rpartition("/")[2]]) if m.raw is not found.raw)]

    def _at(self, provider: str, name: str) -> _Model | None:
        """The model that *name* means at *provider*."""
        names, stems = self._bundle.names(provider)
        name = base_of_fine_tune(name)
        if raw := names.get(name):
            return _Model(provider, name, raw, provider)
        for stem, day, _ in snapshots(name, provider):
            raw = stems.get(stem)
            # The table cannot know the price of a snapshot that is younger than itself.
            if raw and (day is None or day <= self.as_of):
                return _Model(provider, stem, raw, provider)
        return None

    def _schedule(
        self, found: _Model, variant: str | None, search_context: str | None, day: date
    ) -> tuple[RateCard, list[PriceHours]] | None:
        """The rate card in force on *day* and the windows of that day; None if there is no such variant."""
        changes: dict[str, Any] = {}
        variants: dict[str, list[Any]] = found.raw.get("variants", {}) if found.own else {}
        if variant is not None:
            active: list[dict[str, Any]] = [r for start, r in variants.get(variant, ()) if start <= day.isoformat()]
            if not active:
                return None
            for rates in reversed(active):  # the first in force wins
                changes |= rates
        for _, rates in variants.get(f"search:{search_context}", ()):
            changes |= rates
        fees: dict[str, Any] = {}
        if found.own and "fees" in found.raw:
            fees = self._bundle.providers[found.seller]["fees"][found.raw["fees"]]
        base: dict[str, Any] = {}
        windows: list[PriceHours] = []
        for start, rates in found.raw["prices"]:  # the last day in force wins
            if not isinstance(start, str):
                opens, closes, days = start
                windows.append(PriceHours(opens, closes, frozenset(days), self._card(rates | fees | changes, found)))
            elif start <= day.isoformat():
                base = rates
        return self._card(base | fees | changes, found), windows

    def _card(self, rates: Mapping[str, Any], found: _Model) -> RateCard:
        per = self._bundle.per
        card: dict[str, list[tuple[int, Fraction]]] = {}
        for unit, (first, *more) in rates.items():
            if not found.own and not is_per_token(unit):
                continue  # who resells a model has tools of its own, at prices of its own
            scale = _PICO_PER_NANO * per.get(unit, 1)
            card[unit] = [(above, Fraction(pico, scale)) for above, pico in ((ALWAYS, first), *more)]
        return card

    def _unknown(self, model: str, provider: str | None) -> UnknownPriceError:
        return UnknownPriceError(
            model=model,
            provider=provider,
            suggestions=lambda: self._nearest(model, provider),
            remedy=lambda: self._remedy(model, provider),
        )

    def _nearest(self, model: str, provider: str | None) -> list[str]:
        if provider_id(provider) in LOCAL:
            return []  # a model of one's own is none of those that are sold
        known = self._bundle.providers
        asked, name = list(readings(model, provider_id(provider), known))[-1]
        pool: tuple[str, ...] = FIRST_PARTY
        if asked is not None and asked in known:
            pool = (asked, *known[asked].get("fallback", ()))
        names = {name for each in pool for name in self._bundle.names(each)[0]}
        return difflib.get_close_matches(base_of_fine_tune(name), sorted(names), n=3)

    def _remedy(self, model: str, provider: str | None) -> str:
        """The line that admits a model that nobody knows, with the price of the nearest one that is known."""
        key = json.dumps(model)
        if provider_id(provider) in LOCAL:
            return f"declare that it costs nothing: pricing={{{key}: (0, 0)}}"
        _, name = list(readings(model, provider_id(provider), self._bundle.providers))[-1]
        base, variants = routed(name)
        if "online" in variants:
            read, written = self._example(base, "openrouter")
            return (
                "give its price and what its searches cost each request, dollars per unit: "
                f'pricing={{{key}: {{"input": {read}, "output": {written}, "requests": 0.02}}}}'
            )
        near = [each for each in self._nearest(model, provider) if each.startswith("ft:") or not name.startswith("ft:")]
        price = f"({', '.join(self._example(near[0] if near else None, provider))})"
        told = f"give its price, dollars per token: pricing={{{key}: {price}}}"
        if name.startswith("ft:"):
            return f"{told}, which is more than its base's: tuned models cost more"
        if not near:
            return f'{told}, or name the model that it is: pricing={{{key}: "gpt-4o"}}'
        return f"{told} (that of {near[0]}), or name the model that it is: pricing={{{key}: {json.dumps(near[0])}}}"

    def _remedy_there(self, model: str, found: _Model) -> str:
        price = ", ".join(self._example(found.name, found.provider))
        given = f"pricing={{{json.dumps(model)}: ({price})}}"
        return f"give its price there, dollars per token (elsewhere it is this): {given}"

    def _example(self, model: str | None, provider: str | None) -> tuple[str, str]:
        """What an input and an output token of a model cost, as users type it."""
        for seller in (provider, None) if model is not None else ():
            try:
                price = self.find(model or "", provider=seller).text_price()
            except UnknownPriceError:
                continue
            if price is not None:
                return price
        return "2.5e-6", "10e-6"


def _limits(found: Sequence[_Model]) -> dict[str, Any]:
    """What a call may take on the model that was found, and what it can do; of several, the most of each."""
    known: list[tuple[int | None, int | None, str | None]] = [
        tuple(each.raw.get("except", {}).get(each.name, each.raw["limits"])) for each in found
    ]
    windows = [window for window, _, _ in known if window is not None]
    outputs = [output for _, output, _ in known if output is not None]
    able = [{CAPABILITIES[letter] for letter in letters} for _, _, letters in known if letters is not None]
    return {
        "context_window": max(windows, default=None),
        "max_output": max(outputs, default=None),
        "capabilities": frozenset[str]().union(*able) if able else None,
    }


def _what(serving: Serving) -> str:
    """What of a serving is not standard, in words."""
    tier, speed, _, _ = serving
    asked = [] if tier in STANDARD_TIERS else [f"service_tier {tier!r}"]
    return " with ".join(asked + ([] if speed in STANDARD_SPEEDS else [f"speed {speed!r}"]))


@cache
def _bundled() -> PriceTable:
    given = os.environ.get(_ENVIRONMENT)
    if given:
        try:
            return PriceTable.load(given)
        except (OSError, ValueError) as error:
            raise ValueError(f"{_ENVIRONMENT}={given!r} cannot be used: {error}") from None
    content = resources.files("budget_guard.pricing").joinpath("prices.json").read_bytes()
    return _table(json.loads(content), content)


def _table(data: Mapping[str, Any], content: bytes) -> PriceTable:
    version = data["sources"]["genai-prices"]
    basis = f"genai-prices=={version}+sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    return PriceTable(PriceData(data, basis), {})
