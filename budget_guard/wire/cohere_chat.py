"""Cohere chat, versions 1 and 2: https://docs.cohere.com/reference/chat."""

from __future__ import annotations

from typing import Any

from budget_guard.estimate.prompt import weigh
from budget_guard.wire.answer import Answer, unreadable
from budget_guard.wire.counting import Counts, read_counts, with_events
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Rewritten, put_field, put_model_field, unchanged
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import MediaRules, media_rules
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.tools import hosted_tools_of
from budget_guard.wire.values import Json, collect_texts, fields, listed, text, truth, whole
from budget_guard.wire.weighing import AN_IMAGE, KEPT_HISTORY, Medium, Texts, looker, media_of

NAME = "cohere chat"
_KNOWN = frozenset(
    "model messages message chat_history preamble tools tool_results documents citation_options citation_quality "
    "response_format safety_mode max_tokens max_input_tokens stop_sequences temperature seed frequency_penalty "
    "presence_penalty k p logprobs stream strict_tools tool_choice thinking prompt_truncation connectors "
    "conversation_id "
    "search_queries_only force_single_step raw_prompting priority".split()
)


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    return Medium(AN_IMAGE) if kind in ("image_url", "image") else None


_TEXTS = Texts(
    {"text": (), "thinking": (), "document": (), "function": ()},
    _measure,
    kindless=frozenset({"role"}),
)


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    name = text(body.get("model")) or ""
    model = aliases.get(name, name)
    messages: list[Any] = [*listed(body.get("messages")), *listed(body.get("chat_history"))]
    if message := text(body.get("message")):
        messages.append({"role": "user", "content": message})
    for field in ("documents", "tool_results"):
        texts: list[str] = []
        if body.get(field):
            collect_texts(body[field], texts)
            messages.append({"role": "tool", "content": "\x1f".join(texts)})
    tools = listed(body.get("tools"))
    typed = [tool for tool in tools if "parameter_definitions" not in fields(tool)]  # as version 1 defines functions
    hosted = list(dict.fromkeys(hosted_tools_of(typed)))
    opaque = [f"what {tool} may bring in" for tool in hosted]
    if body.get("connectors"):
        hosted.append("connectors")
        opaque.append("what connectors may bring in")
    if body.get("conversation_id"):
        opaque.append(KEPT_HISTORY)
    form = fields(body.get("response_format"))
    schema = form.get("json_schema") or form.get("schema")
    rules = media_rules("cohere", model)
    weighed = weigh(
        system=text(body.get("preamble")),
        messages=messages,
        tools=tools,
        schema=schema,
        opaque=opaque,
        look=looker(_TEXTS, rules),
    )
    needs = set(media_of(_TEXTS, rules, messages).needs)
    if tools:
        needs.add("tools")
    if schema:
        needs.add("json_schema")
    cap = whole(body.get("max_tokens"))
    more = [field for field in body if field not in _KNOWN]
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider,
        cap,
        () if cap is None else ("max_tokens",),
        choices_of(body) if more else 1,
        needs=frozenset(needs),
        hosted_tools=tuple(hosted),
        stream=truth(body.get("stream")),
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
    )


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap."""
    return put_field(body, "max_tokens", cap)


def _count(value: object) -> object:
    """A count; Cohere's schema has them as floating point numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object: what is billed, or else all that was processed, which is never less.

    https://docs.cohere.com/docs/how-does-cohere-pricing-work: only billed units are charged.
    """
    billed, processed = fields(usage.get("billed_units")), fields(usage.get("tokens"))
    source = billed if "input_tokens" in billed or "output_tokens" in billed else processed
    return Counts(_count(source.get("input_tokens")), _count(source.get("output_tokens", 0 if source else None)))


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    usage = fields(body.get("usage")) or fields(body.get("meta"))
    message = body.get("message")
    if not usage and isinstance(message, str) and "text" not in body:
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    said = fields(message)
    reading = read_counts(
        read_usage(usage),
        prompted=request is None or request.prompted,
        answered=bool(said.get("content") or said.get("tool_calls") or body.get("text") or body.get("tool_calls")),
    )
    found = reading.usage
    units = _count(fields(usage.get("billed_units")).get("search_units"))
    if found is not None and type(units) is int and units > 0:
        found = with_events(found, {"search_units": units})
    return Answer(
        NAME,
        found,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        text(body.get("model")),
        id=text(body.get("id")) or text(body.get("generation_id")),
        cut_off=body.get("finish_reason") == "MAX_TOKENS",
    )


class _Stream(EventReader):
    """Reads the events of one streamed answer. The last one carries its usage."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._seen: dict[str, Any] = {}

    def take(self, event: Json) -> None:
        kind = event.get("type") or event.get("event_type")
        if kind == "message-start" and text(event.get("id")):
            self._seen["id"] = event["id"]
        elif kind == "message-end":
            self.ended = True
            delta = fields(event.get("delta"))
            self._seen |= {"finish_reason": delta.get("finish_reason"), "usage": delta.get("usage")}
            self.failed = self.failed or delta.get("error") is not None
            self.finished = True
        elif kind == "stream-end":
            self._seen |= {k: v for k, v in fields(event.get("response")).items() if k != "text"}
            self._seen.setdefault("finish_reason", event.get("finish_reason"))
            self.finished = self.ended = True
        elif kind in ("content-delta", "tool-call-delta", "tool-call-start", "tool-plan-delta"):
            message = fields(fields(event.get("delta")).get("message"))
            self.wrote(message.get("content"))
            self.wrote(message.get("tool_plan"))
            self.wrote(message.get("tool_calls"))
        elif kind == "text-generation":
            self.wrote(event.get("text"))

    def whole(self) -> Answer:
        message = {"content": "x"} if self.output_bytes else {}
        return read_answer({**self._seen, "message": message}, self._request)


COHERE_CHAT = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model_field,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
)
"""Cohere chat."""
