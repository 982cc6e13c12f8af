"""Bedrock Converse and ConverseStream:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html."""

from __future__ import annotations

import re
from typing import Any

from budget_guard.estimate.prompt import weigh
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import Counts, later_report, read_counts
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Rewritten, put_field, unchanged
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import MediaRules, document_tokens, media_rules, picture_tokens
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.values import Json, collect_texts, fields, items, text, whole
from budget_guard.wire.weighing import A_FILE, A_VIDEO, AN_IMAGE, AUDIO, KEPT_PROMPT, Medium, Texts, looker, media_of

NAME = "converse"
MODEL_IN_PATH = re.compile(r"/model/(?P<model>.+)/converse(?P<stream>-stream)?$")
_KNOWN = frozenset(
    "messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields "
    "additionalModelResponseFieldPaths promptVariables requestMetadata performanceConfig serviceTier "
    "outputConfig modelId".split()
)
_CAPS_OF_MODELS = ("max_tokens", "maxTokens", "max_tokens_to_sample", "max_new_tokens", "max_gen_len", "maxTokenCount")
"""Names of the cap in the models' own parameters, which are merged into the request."""
_TEXT_FIELDS = frozenset("text toolUse reasoningContent cachePoint json citationsContent".split())
_PLAIN_EXTRA = frozenset(
    "thinking temperature top_k top_p anthropic_beta reasoning_effort reasoningConfig inferenceConfig".split()
)


def _kind(part: Json) -> object:
    if "role" in part:
        return "message"
    kinds = [name for name in part if name not in _TEXT_FIELDS]
    kind = kinds[0] if kinds else "text" if part else "an empty part"
    if kind == "guardContent" and "text" in fields(part.get(kind)):
        return "text"
    return kind


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    given = fields(part.get(kind))
    data = fields(given.get("source")).get("bytes")
    encoded = data if isinstance(data, str) else ""
    if kind == "image":
        return Medium(AN_IMAGE, picture_tokens(rules, encoded, None))
    if kind == "document":
        return Medium(A_FILE, document_tokens(rules, encoded) if given.get("format") == "pdf" else None)
    if kind == "video":
        return Medium(A_VIDEO)
    return Medium(AUDIO) if kind == "audio" else None


_TEXTS = Texts(
    {
        "message": ("content",),
        "text": (),
        "toolResult": ("toolResult.content",),
        "searchResult": (),
    },
    _measure,
    _kind,
)


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    found = MODEL_IN_PATH.search(endpoint.path)
    name = found["model"] if found else text(body.get("modelId")) or ""
    model = aliases.get(name, name)
    messages, system_blocks = items(body.get("messages")), items(body.get("system"))
    rules = media_rules("aws", model)
    tools: list[Any] = []
    hosted: list[str] = []
    for tool in items(fields(body.get("toolConfig")).get("tools")):
        given = fields(tool)
        if "toolSpec" in given:
            tools.append(given)
        elif "cachePoint" not in given:
            hosted.append(str(fields(given.get("systemTool")).get("name") or "an unknown tool")[:40])
    extra = fields(body.get("additionalModelRequestFields"))
    opaque = [f"what {tool} may bring in" for tool in hosted]
    if body.get("promptVariables") or ":prompt/" in name:
        opaque.append(KEPT_PROMPT)
    if body.get("guardrailConfig"):
        opaque.append("what a guardrail costs")
    odd = [
        name
        for name in extra
        if name not in (*_PLAIN_EXTRA, *_CAPS_OF_MODELS) and isinstance(extra[name], (dict, list))
    ]
    texts: list[str] = []
    collect_texts(system_blocks, texts)
    if any(_kind(fields(block)) != "text" for block in system_blocks):
        opaque.append("a system prompt of parts that are not text")
    schema = fields(body.get("outputConfig")).get("textFormat")
    weighed = weigh(
        system="\x1f".join(texts),
        messages=messages,
        tools=tools,
        schema=schema,
        opaque=opaque,
        look=looker(_TEXTS, rules),
    )
    media = media_of(_TEXTS, rules, messages)
    needs = set(media.needs)
    if tools or hosted:
        needs.add("tools")
    if schema:
        needs.add("json_schema")
    config = fields(body.get("inferenceConfig"))
    caps = {"inferenceConfig.maxTokens": whole(config.get("maxTokens"))}
    caps |= {f"additionalModelRequestFields.{cap}": whole(extra.get(cap)) for cap in _CAPS_OF_MODELS}
    nested = fields(extra.get("inferenceConfig"))
    caps |= {f"additionalModelRequestFields.inferenceConfig.{cap}": whole(nested.get(cap)) for cap in _CAPS_OF_MODELS}
    more = [field for field in body if field not in _KNOWN]
    fast = fields(body.get("performanceConfig")).get("latency")
    tier = text(fields(body.get("serviceTier")).get("type"))
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider or "aws",
        max([cap for cap in caps.values() if cap is not None], default=None),
        tuple(cap for cap, value in caps.items() if value is not None),
        choices_of(extra) if extra else 1,
        "optimized" if fast == "optimized" else tier or text(extra.get("service_tier")),
        text(extra.get("speed")),
        endpoint.region,
        needs=frozenset(needs),
        hosted_tools=tuple(dict.fromkeys(hosted)),
        stream=bool(found and found["stream"]),
        hour_cache=_hour_cache(body),
        sound_tokens=media.sound_tokens,
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(
            [field for field in more if isinstance(body[field], (dict, list)) and body[field]]
            + [str(name) for name in odd]
        ),
    )


def _hour_cache(body: Json) -> bool:
    parts: list[Any] = [*items(body.get("system")), *items(fields(body.get("toolConfig")).get("tools"))]
    for message in items(body.get("messages")):
        parts += items(fields(message).get("content"))
    return any(fields(fields(part).get("cachePoint")).get("ttl") == "1h" for part in parts)


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap, in place of any that is there."""
    put = put_field(fields(body.get("inferenceConfig")), "maxTokens", cap)
    new: dict[str, Any] = {**body, "inferenceConfig": put.body}
    extra = fields(body.get("additionalModelRequestFields"))
    nested = fields(extra.get("inferenceConfig"))
    if not (extra.keys() | nested.keys()).isdisjoint(_CAPS_OF_MODELS):
        kept = {k: v for k, v in extra.items() if k not in _CAPS_OF_MODELS}
        if nested:
            kept["inferenceConfig"] = {k: v for k, v in nested.items() if k not in _CAPS_OF_MODELS}
        new["additionalModelRequestFields"] = kept
    return Rewritten(new, tuple(f"inferenceConfig.{added}" for added in put.added))


def put_model(_: Endpoint, body: Json, model: str) -> Rewritten | None:
    """None: the path names the model."""
    return None


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object, whose inputs add up:
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html."""
    written = {"5m": 0, "1h": 0}
    for detail in items(usage.get("cacheDetails")):
        given = fields(detail)
        ttl, count = given.get("ttl"), given.get("inputTokens")
        if type(count) is int and count > 0 and ttl in ("5m", "1h"):
            written[ttl] += count
    return Counts(
        usage.get("inputTokens"),
        usage.get("outputTokens"),
        usage.get("totalTokens"),
        usage.get("cacheReadInputTokens"),
        usage.get("cacheWriteInputTokens"),
        written["5m"],
        written["1h"],
    )


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    usage = fields(body.get("usage"))
    if not usage and "output" not in body and ("message" in body or "__type" in body):
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    content = fields(fields(body.get("output")).get("message")).get("content")
    reading = read_counts(
        read_usage(usage),
        input_parts="beside",
        output_parts="inside",
        prompted=request is None or request.prompted,
        answered=bool(items(content)),
        hour_cache=request is not None and request.hour_cache,
    )
    latency = fields(body.get("performanceConfig")).get("latency")
    routed = fields(fields(fields(body.get("trace")).get("promptRouter"))).get("invokedModelId")
    return Answer(
        NAME,
        reading.usage,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        text(routed),
        "optimized" if latency == "optimized" else served_tier(fields(body.get("serviceTier")).get("type")),
        cut_off=body.get("stopReason") == "max_tokens",
    )


class _Stream(EventReader):
    """Reads the frames of one streamed answer. The last one carries its usage."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._seen: dict[str, Any] = {}
        self._told = False

    @property
    def is_told(self) -> bool:
        return self._told

    @property
    def is_final(self) -> bool:
        return self._told

    def take(self, event: Json) -> None:
        delta = fields(fields(event.get("contentBlockDelta")).get("delta"))
        if delta:
            self.wrote(delta.get("text"))
            self.wrote(fields(delta.get("toolUse")).get("input"))
            self.wrote(fields(delta.get("reasoningContent")).get("text"))
        if stop := fields(event.get("messageStop")):
            self._seen["stopReason"] = stop.get("stopReason")
            self.finished = True
        if metadata := fields(event.get("metadata")):
            usage = later_report(fields(self._seen.get("usage")), fields(metadata.get("usage")))
            self._seen |= {**metadata, "usage": usage}
            self._told = bool(usage)

    def whole(self) -> Answer:
        content = [{"text": "x"}] if self.output_bytes else []
        return read_answer({**self._seen, "output": {"message": {"content": content}}}, self._request)


CONVERSE = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
)
"""Bedrock Converse."""
