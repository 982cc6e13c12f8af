"""What many names cost by a table that stays as it is, served in every way, and what calls of them come to.

`table.json` is a part of the table that was bundled on the day it tells: models with everything that prices have.
Run ``python -m tests.pricing.reference.make`` to write them down in `prices.txt.gz`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from budget_guard import BudgetError, Usage
from budget_guard.pricing import PriceTable
from budget_guard.pricing.model_names import (
    base_of_fine_tune,
    exact_names,
    provider_at,
    provider_id,
    readings,
    region_of,
    snapshots,
)
from budget_guard.pricing.model_price import KINDS, TEXT_ONLY, ModelPrice
from budget_guard.pricing.rate_card import PriceHours
from budget_guard.pricing.serving import Serving, region_at
from budget_guard.units.amounts import MOST
from budget_guard.units.usage import UNEXPLAINED
from tests.reference_text import lines_under

_PATH = Path(__file__).with_name("table.json")
_NOW = datetime(2026, 11, 24, 9, 30, tzinfo=timezone.utc)
_OWN: Mapping[str, Any] = {
    "mine": (2.5e-6, "10e-6"),
    "gpt-4o": {"max_output": 99, "capabilities": ["tools"]},
    "prod": "gpt-4o-mini",
    "dear": {
        "input": 5e-6,
        "cache_read": 1e-6,
        "output": 9e-6,
        "reasoning": 0.00002,
        "web_search": 0.01,
        "requests": 0.1,
    },
    "odd": {"other": {"code_runs": 0.03, "hosted_shell": 0.02}, "input": 0, "output": 0, "context_window": 5_000},
}


@cache
def _tables() -> tuple[PriceTable, PriceTable]:
    table = PriceTable.load(_PATH)
    return table, table.overlaid(_OWN, per_million={"of many": (2.5, 10)})


@cache
def _names() -> list[str]:
    """Every name and stem of the table, by whom it is sold too, and names near to them."""
    models = [(provider, model) for provider, each in _known().items() for model in each["models"]]
    names = {name for _, model in models for name in (*model["names"], *model.get("stems", ()))}
    names |= {f"{provider}/{name}" for provider, model in models for name in model["names"][:1]}
    names |= {f"{provider}:{model['names'][0]}" for provider, model in models[::4]}
    names |= {f"{stem}{end}" for _, model in models for stem in model.get("stems", ())[:1] for end in _ENDS}
    return sorted((*names, *_ODD, *_OWN))


_ENDS = ("-20250101", "@20251201", "-2026-11-22", "-2026-11-23", "-latest", "-001", "-2407", "-01-2025", "-v1:0", "-v2")
_ODD = (
    *(
        "ft:gpt-4o-2024-08-06:me::id",
        "ft:gpt-4o:me",
        "ft:nobody:me",
        "gpt-4o-mini-foo",
        "gpt-4",
        "nobody",
        "",
        "/",
        "a/b/c",
    ),
    *("openai/gpt-4o:free", "openai/gpt-4o:nitro", "openai/gpt-4o:online", "openrouter/openai/gpt-4o:floor:thinking"),
    *("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "eu.anthropic.claude-sonnet-4-5", "anthropic.claude-sonnet-4-5"),
    "arn:aws:bedrock:us-east-1:1234:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-sonnet-4-5",
    "projects/p/locations/europe-west1/publishers/google/models/gemini-2.5-flash",
    *("models/gemini-2.5-flash", "publishers/google/models/gemini-2.5-pro", "litellm/openai/gpt-4o", "ollama/llama3"),
    *("azure/gpt-4o", "azure_ai/gpt-4o", "vertex_ai/claude-sonnet-4-5", "GPT-4o", "gpt-4o ", "of many"),
)
_PROVIDERS = (
    *(None, None, None, "openai", "anthropic", "google", "azure", "aws", "openrouter", "groq", "perplexity", "mistral"),
    *("vertex_ai", "bedrock", "ollama", "nobody", "https://api.openai.com/v1", "me.openai.azure.com", "github-copilot"),
    *(
        "OpenAI",
        "openai.chat",
        "x-ai",
        "deepseek",
        "api.groq.com",
        "https://eu.api.openai.com",
        "http://localhost:11434",
    ),
)
_TIERS = (None, None, None, "auto", "default", "standard_only", "flex", "priority", "batch", "on_demand", "odd")
_SPEEDS = (None, None, None, None, "fast", "standard", "odd")
_REGIONS = (None, None, None, None, "us", "eu", "global", "EU", "europe-west1", "us-east-1", "not_available", "mars")
_CONTEXTS = (None, None, None, "low", "medium", "high", "pro-low", "odd")


def _known() -> Mapping[str, Any]:
    return dict(json.loads(_PATH.read_text("utf-8"))["providers"])


def _moment(chance: random.Random) -> datetime:
    return _NOW + timedelta(days=chance.choice([-900, -400, -200, -30, -1, 0, 1, 300]), minutes=chance.randrange(1_440))


def _asked(chance: random.Random) -> dict[str, Any]:
    served = chance.random()
    return {
        "provider": chance.choice(_PROVIDERS),
        "service_tier": chance.choice(_TIERS),
        "speed": chance.choice(_SPEEDS) if served < 0.3 else None,
        "region": chance.choice(_REGIONS) if served > 0.6 else None,
        "search_context": chance.choice(_CONTEXTS) if served > 0.8 else None,
        "at": _moment(chance),
    }


def _of_names() -> Iterator[str]:
    """Every name at its standard price, and each a few times as it is seldom asked for."""
    chance = random.Random(1)
    plain, own = _tables()
    for name in _names():
        yield f"{name!r}: {_told(plain.find, name, at=_NOW)}"
        for _ in range(2):
            given = _asked(chance)
            table = chance.choice([plain, own])
            shown = [str(each) for each in given.values() if each is not None]
            yield f"{name!r} {table is own} {shown}: {_told(table.find, name, **given)}"


def _of_days() -> Iterator[str]:
    """Names whose price is another one from some day on, around each of these days."""
    plain, own = _tables()
    for model in (model for each in _known().values() for model in each["models"]):
        schedules = {None: model["prices"], **model.get("variants", {})}
        for tier, schedule in schedules.items():
            for start in sorted({str(start) for start, _ in schedule if isinstance(start, str) and start}):
                for days in (-2, -1, 0):
                    at = datetime.fromisoformat(start).replace(tzinfo=timezone.utc) + timedelta(days=days, hours=3)
                    name = model["names"][0]
                    told = _told(plain.find, name, service_tier=tier, at=at)
                    dearest = _told(own.find_dearest, (name, "gpt-4o-mini"), service_tier=tier, at=at)
                    yield f"{name} {tier} {at.date()}: {told} {dearest}"


def _of_several() -> Iterator[str]:
    """The dearest of several models."""
    chance = random.Random(2)
    plain, own = _tables()
    likely = [name for name in _names() if _told(plain.find, name, at=_NOW).startswith("[")]
    for _ in range(150):
        names = tuple(chance.choice(likely) for _ in range(chance.choice([1, 2, 2, 3])))
        given = {**_asked(chance), "provider": None, "region": None}
        table = chance.choice([plain, own])
        yield f"{names} {given['service_tier']}: {_told(table.find_dearest, names, **given)}"


def _told(find: Callable[..., ModelPrice], *args: Any, **kwargs: Any) -> str:
    try:
        price = find(*args, **kwargs)
    except (ValueError, BudgetError) as error:
        return f"{type(error).__name__}: {error}"
    able = None if price.capabilities is None else sorted(price.capabilities)
    limits = (price.model, price.provider, price.max_output, price.context_window, able, price.own_tools)
    tries = (
        _or_raises(price.worst, 1_000, 200),
        _or_raises(price.worst, 300_000, 20, 2, hour_cache=False, kinds=TEXT_ONLY),
        _or_raises(price.worst, 0, 7, kinds=frozenset({"input_image"})),
        _or_raises(price.worst_line, 50),
        _or_raises(price.affordable_output, 5_000_000, 1_000),
        _or_raises(price.cost, _FULL),
        _or_raises(price.cost, Usage(input=400_000, cache_read=30, output=9, reasoning=3), _NOW),
    )
    return f"[{limits} {price.varies_by_hour} {price.text_price()} {price.listed()} {tries}]"


def _or_raises(made: Callable[..., object], *args: Any, **kwargs: Any) -> object:
    try:
        return made(*args, **kwargs)
    except (ValueError, BudgetError) as error:
        return str(error)


_FULL = Usage(input=900, cache_read=70, cache_write_5m=6, output=55, reasoning=4, web_search=3)


def _of_usages() -> Iterator[str]:
    """Bills of many usages, and bounds and fits of calls."""
    chance = random.Random(3)
    plain, own = _tables()
    prices = [
        *(own.find(name, at=_NOW) for name in _OWN),
        *(plain.find(name, at=_NOW) for name in _names() if _told(plain.find, name, at=_NOW).startswith("[")),
    ]
    units = ("code_runs", "file_search", "google_search", "collections_search", "code_interpreter", "unknown", "input")
    for price in prices:
        for _ in range(6):
            counts = [chance.choice([0, 0, 0, 0, 1, 3, 250, 130_000, 300_000]) for _ in range(13)]
            if chance.random() < 0.5:
                counts = [n if at in (0, 1, 7, 8, 12) else 0 for at, n in enumerate(counts)]
            if chance.random() < 0.05:
                counts[chance.randrange(13)] = -1
            if chance.random() < 0.03:
                counts[0] = 2**53
            other = tuple(
                (chance.choice(units), chance.choice([0, 1, 5, -1])) for _ in range(chance.choice([0, 0, 0, 2]))
            )
            usage = Usage._make((*counts, other))
            at = chance.choice([None, _moment(chance)])
            bill = _or_raises(price.bill_text, usage)
            yield f"{price.model} {counts} {other}: {_or_raises(price.cost, usage, at)} {bill}"
        for _ in range(4):
            taken, made = chance.choice([0, 1, 127_999, 128_000, 200_001]), chance.choice([0, 1, 400])
            how: dict[str, Any] = {
                "hour_cache": chance.random() < 0.5,
                "kinds": chance.choice([None, TEXT_ONLY, frozenset({chance.choice([*KINDS, "odd"])})]),
            }
            n, nano = chance.choice([0, 1, 3]), chance.choice([0, 1, 10**6, 10**9])
            told = (
                _or_raises(price.worst, taken, made, n, **how),
                _or_raises(price.worst_line, made, **how),
                _or_raises(price.affordable_output, nano, taken, n, **how),
            )
            kinds = None if how["kinds"] is None else sorted(how["kinds"])
            yield f"{price.model} {taken} {made} {n} {nano} {how['hour_cache']} {kinds}: {told}"


def _own_price(table: PriceTable, given: Mapping[str, Any], name: str) -> ModelPrice:
    return table.overlaid(**given).find(name, at=_NOW)


_PRICES: tuple[Any, ...] = (
    *(
        (1e-6, 2e-6),
        (1, 2),
        ("0.000001", "2e-6"),
        [1e-6, 2e-6],
        (1e-6,),
        5,
        None,
        "gpt-4o",
        "nobody",
        {},
        {"input": 1e-6},
    ),
    *({"inputs": 1e-6}, {"input": -1}, {"input": float("nan")}, {"input": "x"}, {"input": True}, {"output": 0.011}),
    *({"output": 0.01}, {"max_output": 0}, {"max_output": 9}, {"max_output": True}, {"context_window": "9"}),
    *({"capabilities": "tools"}, {"capabilities": ["vision", "odd"]}, {"capabilities": []}, {"other": 3}),
    *(
        {"other": {"web_search": 0.5}},
        {"google_search": 0.5},
        {"x_search": 0.5, "input": 0},
        {"input": 1e-9},
        {"input": 20_000},
    ),
    *({"input": 10_000}, {"input": 0.0001}, {"input": 0.00009}, {"requests": 3, "web_search": 2}, (0, 0), "prod"),
)


def _of_own() -> Iterator[str]:
    """Prices that users type."""
    table, _ = _tables()
    for value in _PRICES:
        for argument in ("pricing", "per_million"):
            for name in ("mine", "gpt-4o"):
                given: dict[str, Any] = {argument: {name: value}}
                yield f"{argument} {name} {value}: {_told(_own_price, table, given, name)}"
        try:
            more = table.overlaid({"mine": value})
            yield f"{value}: {more.basis.partition('+overlay')[2]} {more.is_own('mine')} {more.is_own('gpt-4o')}"
        except ValueError:
            continue


_ADDRESSES = (
    *("https://api.openai.com/v1", "https://eu.api.openai.com/v1", "https://EU.api.openai.com", "https://api.x.ai", ""),
    *(
        "https://europe-west1-aiplatform.googleapis.com/v1",
        "https://aiplatform.googleapis.com/v1/projects/p/locations/us-c1/x",
    ),
    *(
        "https://aiplatform.us.rep.googleapis.com",
        "https://bedrock-runtime.eu-west-1.amazonaws.com/model",
        "no address",
    ),
    *("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "https://bedrock.cn-north-1.amazonaws.com.cn"),
    *(
        "https://bedrock-mantle.us-east-1.api.aws",
        "http://localhost:11434/v1",
        "http://127.0.0.1:8000",
        "http://host:1/v1",
    ),
)


_NEAR = (
    *("https://bedrock.example.com", "https://files.us-east-1.amazonaws.com", "https://bedrock.api.aws", "bedrock"),
    *("https://my-bedrock.eu-west-1.amazonaws.com", "https://api.openai.com.example", "https://xapi.openai.com"),
    *("https://me.services.ai.azure.com", "https://openai.azure.com", "https://api.moonshot.cn/v1", "api.together.xyz"),
    *(
        "litellm",
        "LiteLLM",
        "lite llm",
        "google genai",
        "Vertex_AI",
        " ",
        "-",
        "openrouter.ai",
        "https://openrouter.ai",
    ),
    *("https://eu.api.x.ai", "https://user@api.x.ai:8443/v1", "//api.x.ai", "https:///v1", "https://[::1]:1/v1"),
)
"""Names and addresses that are nearly known."""


def _of_edges() -> Iterator[str]:
    """Bills of one thing alone, of none and of less than none; sizes at the ends of tiers; and fits to the last one."""
    _, own = _tables()
    names = (*_OWN, *(model["names"][0] for each in _known().values() for model in each["models"]))
    units = (UNEXPLAINED, "cache_image_read_tokens", "input_video_tokens", "output_video_tokens", "code_interpreter")
    for name in names:
        try:
            price = own.find(name, at=_NOW)
        except BudgetError:
            continue
        for bucket in Usage._fields[:-1]:
            for count in (1, 0, -1, MOST, MOST + 1):
                counts: dict[str, Any] = {bucket: count}
                usage = Usage(**counts)
                yield f"{name} {bucket} {count}: {_or_raises(price.bill_text, usage)} {_or_raises(price.cost, usage)}"
        for unit in units:
            for count in (1, 0, -1):
                usage = Usage(other=((unit, count), ("nobody_knows", 0)))
                yield f"{name} {unit} {count}: {_or_raises(price.bill_text, usage)} {_or_raises(price.cost, usage)}"
        for above, _ in price.listed():
            for size in (max(above - 1, 0), above, above + 1):
                for kinds in (None, TEXT_ONLY, frozenset({"input_image", "output_image"})):
                    worst = _or_raises(price.worst, size, 7, kinds=kinds)
                    line = _or_raises(price.worst_line, 7, kinds=kinds)
                    shown = None if kinds is None else sorted(kinds)
                    yield f"{name} at {size} {shown}: {worst} {line} {_or_raises(price.cost, Usage(input=size))}"
                    if isinstance(worst, int):
                        left = (worst - 1, worst, worst + 1)
                        fits = [_or_raises(price.affordable_output, each, size, kinds=kinds) for each in left]
                        yield f"{name} at {size} {shown} fits {fits}"


def _of_words() -> Iterator[str]:
    """How names, providers and addresses are read, and which servings are priced alike."""
    known = _known()
    for name in _names():
        asked = (None, "openai", "google", "aws", "openrouter", "groq", "azure", "nobody")
        read = [list(readings(name, each, known)) for each in asked]
        parts = [[tuple(each) for each in snapshots(name, provider)] for provider in ("openai", "aws", "google")]
        yield f"{name!r}: {read} {exact_names(name, known)} {region_of(name)} {base_of_fine_tune(name)} {parts}"
    for word in (*_PROVIDERS, *_ADDRESSES, *_NEAR):
        told = word and (region_at(word), provider_at(word), provider_at(word.upper()), provider_at(f"https://{word}"))
        yield f"{word!r}: {provider_id(word)} {told}"
    chance = random.Random(4)
    for _ in range(250):
        one, other = (
            Serving(*(chance.choice(each) for each in (_TIERS, _SPEEDS, _REGIONS, _CONTEXTS))) for _ in range(2)
        )
        if chance.random() < 0.7:
            changed = chance.choice(Serving._fields)
            other = one._replace(**{changed: getattr(other, changed)})
        yield f"{tuple(one)} {tuple(other)}: {one.is_standard()} {one.is_priced_like(other)}"
    for start, end in ((0, 3_600), (3_600, 0), (82_800, 3_600), (3_600, 3_600), (0, 86_400)):
        hours = PriceHours(start, end, frozenset({0, 4}), {})
        seconds = (0, 1, 3_599, 3_600, 3_601, 82_799, 82_800, 86_399)
        midnight = _NOW.replace(hour=0, minute=0)
        moments = [midnight + timedelta(days=day, seconds=second) for day in range(7) for second in seconds]
        yield f"{start} {end}: {''.join(str(int(hours.is_open(moment))) for moment in moments)}"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "names": _of_names,
    "days": _of_days,
    "several": _of_several,
    "usages": _of_usages,
    "prices of one's own": _of_own,
    "words": _of_words,
    "edges": _of_edges,
}
NAMES: Sequence[str] = tuple(TABLES)


def lines_of(name: str) -> Iterator[str]:
    """The lines of that table."""
    yield from lines_under(name, TABLES[name]())
