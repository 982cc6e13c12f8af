"""Made-up calls in every dialect at every known price, with the bill that a script of the provider's side tells.

``python -m tests.adapter.bills 50000`` makes so many, and prints how many there were of each dialect. Each is held and
booked as any transport does it. Of every one it is checked that no less is booked than the provider bills, that what is
booked was held where the report is not open to two readings, and that nothing stays held. Some reports make no sense:
then no less is booked than the bill of the call itself.

The bill is worked out here from the table's raw figures, in fractions, and not by the library's own arithmetic.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from budget_guard import Allowance, Budget, BudgetError, Session, UnknownPriceError
from budget_guard.adapter.attempts import Attempt, Attempts
from budget_guard.testing import FakeClock

PICO_PER_NANO = 1_000
CAP = 400
_LONG = ("", "x" * 60, "Why is the sky blue? " * 20, "naïve café 日本語 " * 100, "y" * 300_000)
_NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
_DAY = _NOW.date().isoformat()


class Model(NamedTuple):
    """One model of the table, and who sells it."""

    provider: str
    name: str
    raw: dict[str, Any]


class Truth(NamedTuple):
    """What one call really took: the disjoint parts that a provider bills."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    output_audio: int = 0
    web_search: int = 0

    @property
    def taken(self) -> int:
        """All input tokens."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def made(self) -> int:
        """All output tokens."""
        return self.output + self.reasoning + self.output_audio


class Call(NamedTuple):
    """One made-up call."""

    dialect: str
    model: Model
    host: str
    path: str
    body: dict[str, Any]
    answer: bytes
    content_type: str
    bill: int
    """What the provider bills, in nano-dollars."""
    sensible: bool
    """Whether the usage that is reported makes sense."""
    clear: bool
    """Whether it can be read in one way alone."""

    def __str__(self) -> str:
        sent = json.dumps({name: value for name, value in self.body.items() if len(str(value)) < 300})
        return f"{self.model.name} at {self.model.provider}, {self.dialect}: {sent} was answered {self.answer!r}"


# The provider's side: its prices


@cache
def models() -> list[Model]:
    """Every model that has a price for text."""
    table = json.loads(resources.files("budget_guard.pricing").joinpath("prices.json").read_bytes())
    found: list[Model] = []
    for provider, sold in table["providers"].items():
        for raw in sold["models"]:
            if {"input", "output"} <= rates(raw, None).keys() and not raw.get("own_tools"):
                found.append(Model(provider, raw["names"][0], {**raw, "regions": sold.get("regions", {})}))
    return found


def rates(raw: Mapping[str, Any], variant: str | None) -> dict[str, list[Any]]:
    """The prices of the moment."""
    base: dict[str, list[Any]] = {}
    hour: dict[str, list[Any]] = {}
    for start, prices in raw["prices"]:
        if isinstance(start, str):
            if start <= _DAY:
                base = prices
        else:
            opens, closes, days = start
            if opens <= _NOW.hour * 3600 < closes and _NOW.weekday() in days:
                hour = prices
    base = hour or base
    active = [prices for start, prices in raw.get("variants", {}).get(variant, ()) if start <= _DAY]
    return {**base, **(active[0] if active else {})}


def rate(card: Mapping[str, list[Any]], unit: str, taken: int) -> Fraction | None:
    """Nano-dollars for one *unit*; what has no price of its own is billed as the text that it is."""
    steps = card.get(unit)
    if steps is None:
        other = {"cache_read": "input", "reasoning": "output"}.get(unit)
        return None if other is None else rate(card, other, taken)
    first, *more = steps
    return Fraction(next((pico for above, pico in reversed(more) if taken > above), first), PICO_PER_NANO)


def bill(model: Model, truth: Truth, variant: str | None, region: str | None) -> int:
    """What the provider bills, rounded up to a nano-dollar."""
    card = rates(model.raw, variant)
    factor = Fraction(1)
    if region is not None and "uplift" in model.raw and model.raw["regions"].get(region, "") == "uplift":
        factor = Fraction(*model.raw["uplift"])
    total = rate(card, "requests", truth.taken) or Fraction(0)
    for unit, count in truth._asdict().items():
        if count:
            price = rate(card, unit, truth.taken)
            assert price is not None, unit
            total += count * price * (factor if unit != "web_search" else 1)
    return -(-total.numerator // total.denominator)


# What is sent, and what is reported


_HOSTS = {
    "anthropic": "api.anthropic.com",
    "aws": "bedrock-runtime.us-east-1.amazonaws.com",
    "azure": "x.openai.azure.com",
    "cohere": "api.cohere.com",
    "deepseek": "api.deepseek.com",
    "fireworks": "api.fireworks.ai",
    "google": "generativelanguage.googleapis.com",
    "groq": "api.groq.com",
    "mistral": "api.mistral.ai",
    "moonshotai": "api.moonshot.ai",
    "openai": "api.openai.com",
    "openrouter": "openrouter.ai",
    "perplexity": "api.perplexity.ai",
    "together": "api.together.xyz",
    "x-ai": "api.x.ai",
}


def _dialects(model: Model) -> tuple[str, ...]:
    provider = model.provider
    if provider == "openai":
        return ("chat", "responses", "completions", "embeddings")
    if provider == "google" and ("claude" in model.name or "/" in model.name):
        return ("messages",) if "claude" in model.name else ("chat",)
    own = {"anthropic": "messages", "google": "google", "aws": "converse", "cohere": "cohere"}.get(provider)
    return ("chat",) if own is None else (own, "chat") if provider in ("anthropic", "google") else (own,)


def _maybe(rng: random.Random, most: int) -> int:
    return rng.choice((0, 0, 1, most, rng.randint(0, most))) if most > 0 else 0


def _split(rng: random.Random, whole: int, parts: int) -> list[int]:
    """*whole* in so many parts at random, of which the first is never empty unless *whole* is."""
    found: list[int] = []
    for _ in range(parts - 1):
        part = _maybe(rng, whole - 1)
        found.append(part)
        whole -= part
    return [whole, *found]


class _Asked(NamedTuple):
    """What a request asks for that sets its price."""

    variant: str | None
    tier: str | None
    region: str | None
    hour_cache: bool
    audio: bool
    searches: bool
    choices: int
    text: str


@cache
def _by_dialect() -> dict[str, list[Model]]:
    found: dict[str, list[Model]] = {}
    for model in models():
        for kind in _dialects(model):
            found.setdefault(kind, []).append(model)
    return found


def make(rng: random.Random, number: int) -> Call:
    """A call: every other one to the next model of the table, the others in each dialect alike."""
    if number % 2:
        model = models()[number // 2 % len(models())]
        kind = rng.choice(_dialects(model))
    else:
        kind = rng.choice(sorted(_by_dialect()))
        model = rng.choice(_by_dialect()[kind])
    card = rates(model.raw, None)
    host = _HOSTS.get(model.provider, "llm.example.com")
    tiers = [name for name in model.raw.get("variants", ()) if name in ("flex", "priority", "fast")]
    tier: str | None = None
    if kind in ("chat", "responses") and model.provider == "openai" and tiers and rng.random() < 0.5:
        tier = rng.choice(tiers)
    if kind == "messages" and "fast" in tiers and rng.random() < 0.5:
        tier = "fast"
    served = None if tier != "flex" and rng.random() < 0.3 else tier  # nothing dearer than was asked for serves
    region = "us" if kind == "messages" and rng.random() < 0.3 and "uplift" in model.raw else None
    hour = kind in ("messages", "converse") and "cache_write_1h" in card and rng.random() < 0.5
    audio = kind == "chat" and model.provider == "openai" and "output_audio" in card and rng.random() < 0.5
    searches = kind in ("responses", "messages") and "web_search" in card and rng.random() < 0.2
    choices = rng.choice((1, 1, 3)) if kind == "chat" else 1
    asked = _Asked(served, tier, region, hour, audio, searches, choices, rng.choice(_LONG))
    if len(asked.text) > 100_000 and rng.random() < 0.8:
        asked = asked._replace(text="Why?")
    truth = _truth(rng, kind, card, asked, bool(_COUNTED.search(model.name)))
    path, body = _request(rng, kind, model, asked)
    usage, clear = _usage(rng, kind, model, truth)
    cost = bill(model, truth, served, region)
    if model.provider == "openrouter" and rng.random() < 0.5:
        usage["cost"] = cost / 10**9
        cost = min(cost, int(usage["cost"] * 10**9))
    sensible = rng.random() < 0.8
    if not sensible:
        usage = _spoilt(rng, usage)
    answer, content_type = _answer(rng, kind, model, asked, truth, usage, body)
    return Call(kind, model, host, path, body, answer, content_type, cost, sensible, clear)


_COUNTED = re.compile(r"gpt|(?<![a-z])o[134]|davinci|babbage|embedding")
"""Models whose tokens may be counted where the tokenizer is installed: far fewer than bytes."""


def _truth(rng: random.Random, kind: str, card: Mapping[str, list[Any]], asked: _Asked, counted: bool) -> Truth:
    """What a call may really take: no more input than its text has bytes, no more output than its caps."""
    words = len(asked.text.encode()) // (50 if counted else 1)
    taken = max(1, rng.choice((words, words // 2, words // 4, 1)))
    parts = ["input"]
    if kind not in ("completions", "embeddings", "cohere"):
        parts += [
            unit for unit in ("cache_read", "cache_write_5m", "cache_write_1h") if unit in card or unit == "cache_read"
        ]
    if "cache_write_5m" in parts and kind in ("google",):
        parts.remove("cache_write_5m")
    if not asked.hour_cache and "cache_write_1h" in parts:
        parts.remove("cache_write_1h")
    if kind == "chat" and "cache_write_5m" in parts and rng.random() < 0.5:
        parts.remove("cache_write_5m")
    inputs = dict(zip(parts, _split(rng, taken, len(parts)), strict=True))
    made = 0 if kind == "embeddings" else max(1, rng.choice((1, 17, CAP // 2, CAP)) * asked.choices)
    thinks = kind in ("chat", "responses", "google")
    parts = ["output", *(["reasoning"] if thinks else []), *(["output_audio"] if asked.audio else [])]
    outputs = dict(zip(parts, _split(rng, made, len(parts)), strict=True))
    return Truth(**inputs, **outputs, web_search=_maybe(rng, 3) if asked.searches else 0)


def _request(rng: random.Random, kind: str, model: Model, asked: _Asked) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request."""
    name, words = model.name, asked.text or "?"
    said: list[dict[str, Any]] = [{"role": "user", "content": words}]
    stream: dict[str, Any] = {"stream": True} if rng.random() < 0.4 else {}
    tier: dict[str, Any] = {} if asked.tier is None else {"service_tier": asked.tier}
    if kind == "embeddings":
        return "/v1/embeddings", {"model": name, "input": words}
    if kind == "completions":
        return "/v1/completions", {"model": name, "prompt": words, "max_tokens": CAP, **stream}
    if kind == "responses":
        tools = {"tools": [{"type": "web_search"}]} if asked.searches else {}
        return "/v1/responses", {"model": name, "input": words, "max_output_tokens": CAP, **stream, **tier, **tools}
    if kind == "messages":
        body: dict[str, Any] = {"model": name, "messages": said, "max_tokens": CAP, **stream}
        if asked.tier is not None:
            body["speed"] = asked.tier
        if asked.region is not None:
            body["inference_geo"] = asked.region
        if asked.hour_cache:
            body["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        if asked.searches:
            body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
        if model.provider == "google":
            verb = "streamRawPredict" if body.pop("stream", False) else "rawPredict"
            name = body.pop("model").rsplit("/", 1)[-1]
            return f"/v1/projects/p/locations/global/publishers/anthropic/models/{name}:{verb}", body
        return "/v1/messages", body
    if kind == "google":
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        contents = [{"role": "user", "parts": [{"text": words}]}]
        return (
            f"/v1beta/models/{name}:{verb}",
            {"contents": contents, "generationConfig": {"maxOutputTokens": CAP}},
        )
    if kind == "converse":
        block: list[dict[str, Any]] = [{"text": words}]
        if asked.hour_cache:
            block.append({"cachePoint": {"type": "default", "ttl": "1h"}})
        said = [{"role": "user", "content": block}]
        return f"/model/{name}/converse", {"messages": said, "inferenceConfig": {"maxTokens": CAP}}
    if kind == "cohere":
        return "/v2/chat", {"model": name, "messages": said, "max_tokens": CAP}
    body = {"model": name, "messages": said, **stream, **tier}
    body[rng.choice(("max_tokens", "max_completion_tokens"))] = CAP
    if asked.choices > 1:
        body["n"] = asked.choices
    if asked.audio:
        body |= {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    path = {"azure": f"/openai/deployments/{name}/chat/completions", "openrouter": "/api/v1/chat/completions"}
    return path.get(model.provider, "/v1/chat/completions"), body


def _usage(rng: random.Random, kind: str, model: Model, truth: Truth) -> tuple[dict[str, Any], bool]:
    """What is reported, and whether there is one reading of it alone."""
    taken, made, wrote = truth.taken, truth.made, truth.cache_write_5m + truth.cache_write_1h
    if kind == "embeddings":
        return {"prompt_tokens": taken, "total_tokens": taken}, True
    if kind == "completions":
        return {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}, True
    if kind == "cohere":
        return {"billed_units": {"input_tokens": float(taken), "output_tokens": float(made)}}, True
    if kind == "messages":
        usage: dict[str, Any] = {
            "input_tokens": truth.input,
            "output_tokens": made,
            "cache_read_input_tokens": truth.cache_read or rng.choice((0, None)),
            "cache_creation_input_tokens": wrote,
        }
        if wrote:
            usage["cache_creation"] = {
                "ephemeral_5m_input_tokens": truth.cache_write_5m,
                "ephemeral_1h_input_tokens": truth.cache_write_1h,
            }
        if truth.web_search:
            usage["server_tool_use"] = {"web_search_requests": truth.web_search}
        return usage, True
    if kind == "converse":
        details = [
            {"ttl": ttl, "inputTokens": count}
            for ttl, count in (("5m", truth.cache_write_5m), ("1h", truth.cache_write_1h))
            if count
        ]
        return {
            "inputTokens": truth.input,
            "outputTokens": made,
            "totalTokens": taken + made,
            "cacheReadInputTokens": truth.cache_read,
            "cacheWriteInputTokens": wrote,
            "cacheDetails": details,
        }, True
    if kind == "google":
        usage = {"promptTokenCount": taken, "candidatesTokenCount": truth.output, "totalTokenCount": taken + made}
        if truth.cache_read:
            usage["cachedContentTokenCount"] = truth.cache_read
        if truth.reasoning:
            usage["thoughtsTokenCount"] = truth.reasoning
        return usage, True
    first, second = ("input", "output") if kind == "responses" else ("prompt", "completion")
    known = model.provider in ("openai", "azure")
    beside_in = not known and model.provider != "x-ai" and rng.random() < 0.3
    beside_out = not known and rng.random() < 0.3
    has_total = known or rng.random() < 0.8
    usage = {
        f"{first}_tokens": truth.input if beside_in else taken,
        f"{second}_tokens": made - truth.reasoning if beside_out else made,
        f"{first}_tokens_details": {"cached_tokens": truth.cache_read, "cache_write_tokens": wrote},
        f"{second}_tokens_details": {"reasoning_tokens": truth.reasoning, "audio_tokens": truth.output_audio},
    }
    if has_total:
        usage["total_tokens"] = taken + made
    parts = truth.cache_read + wrote + truth.reasoning
    return usage, known or not parts or (has_total and not beside_in and not beside_out)


_WRONG: tuple[Any, ...] = (-1, 2**70, 10**18, "many", True, 1.5, None, [], {})


def _spoilt(rng: random.Random, usage: dict[str, Any]) -> dict[str, Any]:
    """*usage* with something that makes no sense: what the whole was cannot be told from it any more."""
    flat = [name for name, value in usage.items() if type(value) in (int, float) and name != "cost"]
    way = rng.randrange(4)
    if way == 0:
        return {}
    if way == 1:
        return dict.fromkeys(usage, rng.choice((None, 0)))
    totals = [name for name in flat if not name.startswith("total") and "cache" not in name.lower()] or flat
    spoilt = dict(usage) if rng.random() < 0.5 else {name: value for name, value in usage.items() if name in flat}
    spoilt.pop("cost", None)
    if not totals:  # Cohere's stand one level below
        return {name: rng.choice(_WRONG) for name in usage}
    value = rng.choice(_WRONG[:6])
    for name in totals if way == 2 else [rng.choice(totals)]:
        spoilt[name] = value
    return spoilt


def _answer(
    rng: random.Random,
    kind: str,
    model: Model,
    asked: _Asked,
    truth: Truth,
    usage: dict[str, Any],
    body: Mapping[str, Any],
) -> tuple[bytes, str]:
    """The answer's body, and its type."""
    served = {} if asked.tier is None else {"service_tier": asked.variant or "default"}
    name = model.name
    events: list[dict[str, Any]]
    if kind == "embeddings":
        whole: dict[str, Any] = {"object": "list", "data": [{"embedding": [0.5]}], "model": name, "usage": usage}
        return json.dumps(whole).encode(), "application/json"
    if kind == "completions":
        whole = {"id": "cmpl-1", "object": "text_completion", "model": name, "usage": usage}
        whole["choices"] = [{"text": "Air.", "index": 0, "finish_reason": "stop"}]
        events = [{**whole, "usage": None}, {**whole, "choices": []}]
    elif kind == "responses":
        done: list[Any] = [{"type": "web_search_call", "status": "completed"}] * truth.web_search
        done.append({"type": "message", "content": [{"type": "output_text", "text": "Air."}]})
        whole = {"id": "resp_1", "object": "response", "model": name, "status": "completed", "output": done}
        whole |= {"usage": usage, **served}
        events = [
            {"type": "response.output_text.delta", "delta": "Air."},
            {"type": "response.completed", "response": whole},
        ]
    elif kind == "messages":
        told = {**usage, **({} if asked.tier is None else {"speed": asked.variant or "standard"})}
        if asked.region is not None and usage:
            told["inference_geo"] = asked.region
        whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": name, "stop_reason": "end_turn"}
        whole |= {"content": [{"type": "text", "text": "Air."}], "usage": told}
        begun = {**told, "output_tokens": 1} if told.get("output_tokens") else told
        events = [
            {"type": "message_start", "message": {**whole, "content": [], "usage": begun}},
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Air."}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
            {"type": "message_stop"},
        ]
    elif kind == "google":
        part = [{"content": {"parts": [{"text": "Air."}], "role": "model"}, "finishReason": "STOP"}]
        whole = {"candidates": part, "usageMetadata": usage, "modelVersion": name, "responseId": "r"}
        if rng.random() < 0.4:
            return b"data: " + json.dumps(whole).encode() + b"\n\n", "text/event-stream"
        return json.dumps(whole).encode(), "application/json"
    elif kind == "converse":
        output = {"message": {"role": "assistant", "content": [{"text": "Air."}]}}
        return json.dumps({"output": output, "stopReason": "end_turn", "usage": usage}).encode(), "application/json"
    elif kind == "cohere":
        said = {"role": "assistant", "content": [{"type": "text", "text": "Air."}]}
        whole = {"id": "c", "finish_reason": "COMPLETE", "message": said, "usage": usage}
        return json.dumps(whole).encode(), "application/json"
    else:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Air."}}
        whole = {"id": "chatcmpl-1", "object": "chat.completion", "model": name, "choices": [choice], "usage": usage}
        whole |= served
        piece = {"index": 0, "finish_reason": "stop", "delta": {"content": "Air."}}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": name, **served}
        events = [{**head, "choices": [piece]}, {**head, "choices": [], "usage": usage}]
    if not body.get("stream"):
        return json.dumps(whole).encode(), "application/json"
    lines = [(f"event: {e['type']}\n" if "type" in e else "") + f"data: {json.dumps(e)}\n\n" for e in events]
    return "".join(lines).encode(), "text/event-stream"


# What the guard makes of it


class Booked(NamedTuple):
    """What became of one call, in nano-dollars."""

    call: Call
    held: int
    booked: int
    left: int
    """What is still held."""
    uncertain: bool
    refused: BudgetError | None = None
    """Why it was not sent."""


_BUDGET = Budget("$1000000", allowance=Allowance(input_tokens=500_000, hosted_tool_calls=3), downgrade=None)


def settle(call: Call) -> Booked:
    """Hold *call* and settle it by its answer, as a transport does."""
    session = Session(_BUDGET, clock=FakeClock(_NOW))
    attempts = Attempts([session], models={})
    dialect = attempts.dialect_of("POST", call.host, call.path)
    assert dialect is not None, call
    body = json.dumps(call.body).encode()
    attempt = attempts.begin(dialect, "POST", call.host, call.path, {}, body)
    if attempt.endpoint.provider != call.model.provider:  # who has no address that everybody knows
        where = attempt.endpoint._replace(provider=call.model.provider)
        asked = dialect.read_request(where, call.body, {})
        attempt = Attempt(attempts, where, dialect, asked, call.path, body, call.body, False)
    stop = attempt.hold()
    if stop is not None:  # the model sells what nobody knows the price of
        return Booked(call, 0, 0, session.ledger.balances((session.scope,))[0].reserved.cost, False, stop.error)
    held = session.ledger.balances((session.scope,))[0].reserved.cost
    assert attempt.answered(200, call.content_type)
    size = max(1, len(call.answer) // 3)
    for start in range(0, len(call.answer), size):
        attempt.feed(call.answer[start : start + size])
    attempt.end()
    (balance,) = session.ledger.balances((session.scope,))
    return Booked(call, held, balance.committed.cost, balance.reserved.cost, session.report().uncertain > 0)


def every(count: int, seed: int) -> Iterator[Booked]:
    """So many calls, settled, of which each model has its share."""
    rng = random.Random(seed)
    for number in range(count):
        yield settle(make(rng, number))


def fault_of(booked: Booked) -> str | None:
    """What is wrong with what became of a call; None if nothing is."""
    call, held, spent, left, _, refused = booked
    if left:
        return f"{left} nano-dollars stay held"
    if refused is not None:
        return None if isinstance(refused, UnknownPriceError) else str(refused)
    if spent < call.bill:
        return f"{spent} booked of a bill of {call.bill}"
    if held < call.bill:
        return f"{held} held for a bill of {call.bill}"
    if call.clear and spent > held:
        return f"{spent} booked of {held} held"
    return None


def main(count: int, seed: int) -> int:
    """Make *count* calls, print what there was, and return how many faults."""
    logging.getLogger("budget_guard").setLevel(logging.ERROR)  # each estimate is told otherwise
    start, faults = time.monotonic(), 0
    kinds: Counter[str] = Counter()
    names: set[tuple[str, str]] = set()
    for booked in every(count, seed):
        call = booked.call
        kinds[f"{call.dialect}{'' if call.sensible else ', senseless usage'}"] += 1
        kinds["booked as held, uncertain"] += booked.uncertain
        kinds["refused: a fee that nobody knows"] += booked.refused is not None
        names.add(call.model[:2])
        if (fault := fault_of(booked)) is not None:
            faults += 1
            if faults <= 10:
                print(f"{fault}: {call}")
    for kind, many in sorted(kinds.items()):
        print(f"{many:8,} {kind}")
    took = time.monotonic() - start
    priced = f"{len(names):,} of {len(models()):,} priced models"
    print(f"{count:,} calls, {priced}, {faults} faults, {took:.0f} s, seed {seed}")
    return faults


if __name__ == "__main__":
    arguments = [int(argument.replace("_", "")) for argument in sys.argv[1:]]
    sys.exit(main(*(arguments + [50_000, 1][len(arguments) :])) > 0)
