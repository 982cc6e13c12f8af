"""Anthropic Messages: https://platform.claude.com/docs/en/api/messages.

Bedrock (InvokeModel) and Vertex (rawPredict) carry it too, with the model in the path.
"""

from __future__ import annotations

import re
from typing import Any

from budget_guard.estimate.prompt import Look, weigh
from budget_guard.units.usage import Usage
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import Counts, added, later_report, read_counts, with_events
from budget_guard.wire.dialect import (
    NO_ALIASES,
    Aliases,
    Dialect,
    Plain,
    Rewritten,
    put_field,
    put_model_field,
    unchanged,
)
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import MediaRules, document_tokens, media_rules, picture_tokens
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.tools import hosted_tools_of
from budget_guard.wire.values import Json, collect_texts, fields, items, listed, text, truth, whole
from budget_guard.wire.weighing import (
    A_FILE,
    AN_IMAGE,
    KEPT_FILES,
    KEPT_HISTORY,
    Medium,
    Texts,
    looker,
    media_of,
)

NAME = "messages"
_KNOWN = frozenset(
    "model messages max_tokens system metadata stop_sequences stream temperature top_k top_p tools "
    "tool_choice thinking "
    "service_tier inference_geo speed container context_management compaction mcp_servers output_config output_format "
    "cache_control anthropic_version anthropic_beta betas fallbacks fallback_credit_token thread diagnostics "
    "billing_policy "
    "user_profile_id".split()
)
MODEL_IN_PATH = re.compile(
    r"/model/(?P<bedrock>.+)/invoke(?P<stream>-with-response-stream)?$"
    r"|/publishers/anthropic/models/(?P<vertex>[^/:]+):(?P<streams>stream)?[rR]awPredict$"
)


def _kind(part: Json) -> object:
    kind = part.get("type")
    if kind == "document":
        source = fields(part.get("source")).get("type")
        return {"text": "text", "content": "document_content"}.get(str(source), kind)
    return kind


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    source = fields(part.get("source"))
    data = source.get("data") if source.get("type") == "base64" else None
    if kind == "image":
        return Medium(AN_IMAGE, picture_tokens(rules, data, None) if isinstance(data, str) else None)
    if kind == "document":
        return Medium(A_FILE, document_tokens(rules, data) if isinstance(data, str) else None)
    return Medium(KEPT_FILES) if kind == "container_upload" else None


_TEXTS = Texts(
    {
        "text": (),
        "tool_use": (),
        "tool_result": ("content",),
        "thinking": (),
        "redacted_thinking": (),
        "search_result": ("content",),
        "document_content": ("source.content",),
        "server_tool_use": (),
        "web_search_tool_result": (),
        "web_fetch_tool_result": ("content",),
        "web_fetch_result": ("content",),
        "web_fetch_tool_result_error": (),
        "code_execution_tool_result": (),
        "bash_code_execution_tool_result": (),
        "text_editor_code_execution_tool_result": (),
        "tool_search_tool_result": (),
        "advisor_tool_result": (),
        "mcp_tool_use": (),
        "mcp_tool_result": ("content",),
        "tool_reference": (),
        "compaction": (),
        "fallback": (),
    },
    _measure,
    _kind,
    kindless=frozenset({"role"}),
)


def model_in_path(endpoint: Endpoint) -> tuple[str | None, bool]:
    """The model that the path names, and whether it asks for a stream."""
    found = MODEL_IN_PATH.search(endpoint.path)
    if found is None:
        return None, False
    return found["bedrock"] or found["vertex"], bool(found["stream"] or found["streams"])


def _look_of(_: Endpoint, model: str) -> Look:
    return looker(_TEXTS, media_rules("anthropic", model))


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    in_path, streams = model_in_path(endpoint)
    name = in_path or text(body.get("model")) or ""
    model = aliases.get(name, name)
    messages, tools = listed(body.get("messages")), listed(body.get("tools"))
    rules = media_rules("anthropic", model)
    hosted = tuple(dict.fromkeys(hosted_tools_of(tools)))
    opaque = [f"what {tool} may bring in" for tool in hosted]
    if body.get("mcp_servers"):
        opaque.append("what MCP servers may bring in")
    if body.get("container"):
        opaque.append(KEPT_FILES)
    if body.get("thread"):
        opaque.append(KEPT_HISTORY)
    edits = [fields(edit).get("type") for edit in items(fields(body.get("context_management")).get("edits"))]
    if body.get("compaction") or not all(isinstance(edit, str) and edit.startswith("clear_") for edit in edits):
        opaque.append("compaction by the provider")  # each pass is billed: usage.iterations
    system: str | None = None
    if given := body.get("system"):
        texts: list[str] = []
        collect_texts(given, texts)
        system = "\x1f".join(texts)
        opaque += ["a system prompt of parts that are not text"] * any(
            fields(block).get("type") != "text" for block in listed(None if isinstance(given, str) else given)
        )
    schema = fields(body.get("output_config")).get("format") or body.get("output_format")
    weighed = weigh(
        system=system, messages=messages, tools=tools, schema=schema, opaque=opaque, look=looker(_TEXTS, rules)
    )
    media = media_of(_TEXTS, rules, messages)
    needs = set(media.needs)
    if tools:
        needs.add("tools")
    if schema:
        needs.add("json_schema")
    more = [field for field in body if field not in _KNOWN]
    cap = whole(body.get("max_tokens"))
    fallbacks = [fields(each).get("model") if fields(each) else each for each in items(body.get("fallbacks"))]
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider,
        cap,
        () if cap is None else ("max_tokens",),
        choices_of(body) if more else 1,
        text(body.get("service_tier")),
        text(body.get("speed")),
        text(body.get("inference_geo")),
        needs=frozenset(needs),
        hosted_tools=hosted,
        models=tuple(str(aliases.get(str(each), each)) for each in fallbacks),
        stream=streams or truth(body.get("stream")),
        hour_cache=_hour_cache(body),
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
    )


def _hour_cache(body: Json) -> bool:
    """Whether any part asks for a one-hour cache."""
    parts: list[Any] = [body, *items(body.get("system")), *items(body.get("tools"))]
    for message in items(body.get("messages")):
        for block in items(fields(message).get("content")):
            parts.append(block)
            parts += items(fields(block).get("content"))
    return any(fields(control).get("ttl") == "1h" for part in parts if (control := fields(part).get("cache_control")))


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap."""
    return put_field(body, "max_tokens", cap)


def put_model(endpoint: Endpoint, body: Json, model: str) -> Rewritten | None:
    """*body* with another model; None where the path names it."""
    return None if model_in_path(endpoint)[0] is not None else put_model_field(endpoint, body, model)


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object, or of one of its iterations. Unlike OpenAI's, its inputs add up."""
    split = fields(usage.get("cache_creation"))
    return Counts(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        cache_read=usage.get("cache_read_input_tokens"),
        cache_write=usage.get("cache_creation_input_tokens"),
        cache_write_5m=split.get("ephemeral_5m_input_tokens"),
        cache_write_1h=split.get("ephemeral_1h_input_tokens"),
        reasoning=fields(usage.get("output_tokens_details")).get("thinking_tokens"),
    )


_FREE_USES = ("web_fetch_requests", "tool_search_requests")
"""Uses of tools that cost tokens alone: https://platform.claude.com/docs/en/about-claude/pricing."""


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    if body.get("type") == "error" or ("error" in body and "usage" not in body):
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    usage, content = fields(body.get("usage")), items(body.get("content"))
    model = text(body.get("model"))
    hour = request is not None and request.hour_cache
    reading = read_counts(
        read_usage(usage),
        input_parts="beside",
        output_parts="inside",
        prompted=request is None or request.prompted,
        answered=bool(content),
        hour_cache=hour,
    )
    found, problem = reading
    others: tuple[tuple[str, Usage], ...] = ()
    if found is not None:
        found, others, problem = _iterations(found, items(usage.get("iterations")), model, hour)
    if found is not None:
        found = with_events(found, _events(usage, content))
    return Answer(
        NAME,
        found,
        None if problem is None else f"{NAME}: {problem}",
        model,
        served_tier(usage.get("service_tier"), usage.get("speed")),
        text(usage.get("inference_geo")),
        text(body.get("id")),
        None,
        body.get("stop_reason") == "max_tokens",
        others=others,
    )


def _iterations(
    top: Usage, iterations: Any, model: str | None, hour: bool
) -> tuple[Usage | None, tuple[tuple[str, Usage], ...], str | None]:
    """*top* with what the top level of a usage leaves out: compactions, and what other models did.

    `BetaUsage.iterations` of Anthropic's SDK: "A compaction entry's tokens are not included in the top-level usage
    fields".
    """
    sampled, left_out = Usage(), Usage()
    others: list[tuple[str, Usage]] = []
    for entry in iterations:
        given = fields(entry)
        counts = read_usage(given)
        if not any(counts):
            continue
        used, problem = read_counts(
            counts, input_parts="beside", output_parts="inside", prompted=False, answered=False, hour_cache=hour
        )
        if used is None:
            return None, (), problem
        kind, own = given.get("type"), text(given.get("model"))
        if kind == "advisor_message" or (own is not None and model is not None and own != model):
            others.append((own or "unknown", used))
        elif kind == "message" or kind == "fallback_message":
            sampled = added(sampled, used)
        else:
            left_out = added(left_out, used)
    # The top level is the sum of what was sampled. Where it is less, it is that of the last one.
    buckets = [max(a, b) for a, b in zip(top[:-1], sampled[:-1], strict=True)]
    if sampled.output_tokens:
        buckets[7] = max(top.output_tokens, sampled.output_tokens) - buckets[8]
    return added(Usage._make((*buckets, ())), left_out), tuple(others), None


def _events(usage: Json, content: Any) -> dict[str, int]:
    """Billed events besides tokens, by their unit."""
    events: dict[str, int] = {}
    told = fields(usage.get("server_tool_use"))
    for name, count in told.items():
        if type(count) is int and count > 0 and name not in _FREE_USES:
            events[name.removesuffix("_requests")] = count
    searched = code = 0
    for block in content:
        given = fields(block)
        if given.get("type") == "web_search_tool_result" and isinstance(given.get("content"), list):
            searched += 1  # a search that failed is not billed
        elif given.get("type") == "server_tool_use" and str(given.get("name")).endswith("code_execution"):
            code = 1  # billed by the container
    if searched and "web_search" not in events and not told:
        events["web_search"] = searched
    if code:
        events["code_execution"] = code
    return events


_STREAMED = ("text", "thinking", "partial_json")


class _Stream(EventReader):
    """Reads the events of one streamed answer. Counts are cumulative: the last ones count."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._message: dict[str, Any] = {}
        self._usage: Json = {}
        self._content: list[Json] = []
        self._told = False

    @property
    def is_told(self) -> bool:
        return self._told

    @property
    def is_final(self) -> bool:  # there may be more than one event with usage so far
        return self._told and (self.ended or self._message.get("stop_reason") is not None)

    def take(self, event: Json) -> None:
        kind = event.get("type")
        if kind == "message_start":
            self._message = dict(fields(event.get("message")))
            self._add_usage(self._message.get("usage"))
        elif kind == "content_block_start":
            block = fields(event.get("content_block"))
            self._content.append(block)
            # what it thinks is billed in full, and told in summary
            self.thinks = self.thinks or block.get("type") in ("thinking", "redacted_thinking")
            self.wrote(block.get("text"))
        elif kind == "content_block_delta":
            delta = fields(event.get("delta"))
            for name in _STREAMED:
                self.wrote(delta.get(name))
        elif kind == "message_delta":
            self._message |= {k: v for k, v in fields(event.get("delta")).items() if v is not None}
            self._add_usage(event.get("usage"))
            self._told = self._told or bool(fields(event.get("usage")))
            self.finished = True
        elif kind == "message_stop":
            self.finished = self.ended = True
        elif kind == "error" or event.get("error") is not None:
            self.failed = True

    def _add_usage(self, usage: object) -> None:
        self._usage = later_report(self._usage, fields(usage))

    def text_alone(self, event: Json) -> str | None:
        if event.get("type") != "content_block_delta":
            return None
        delta = fields(event.get("delta"))
        written = [value for name in _STREAMED if (value := delta.get(name))]
        return text(written[0]) if len(written) == 1 else None

    def whole(self) -> Answer:
        return read_answer({**self._message, "content": self._content, "usage": self._usage}, self._request)


MESSAGES = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
    plain=Plain("messages", frozenset({"role", "content"}), _look_of),
)
"""Anthropic Messages."""
