"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses. Azure, xAI and OpenRouter speak it
too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budget_guard.estimate.prompt import Look, weigh
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import (
    Counts,
    later_report,
    read_openai_counts,
    with_events,
    with_long_writes,
)
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
from budget_guard.wire.media import MediaRules, document_tokens, media_rules, picture_tokens, split_data_url
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.tools import hosted_tools_of, tool_name_of_type
from budget_guard.wire.values import Json, fields, items, listed, text, truth, whole
from budget_guard.wire.weighing import (
    A_FILE,
    AN_IMAGE,
    AUDIO,
    KEPT_FILES,
    KEPT_HISTORY,
    KEPT_PROMPT,
    LONG_CACHE,
    Medium,
    Texts,
    looker,
    media_of,
)

NAME = "responses"
CAPS = ("max_output_tokens",)
_KNOWN = frozenset(
    "background background_options context_management conversation include input instructions max_output_tokens "
    "max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options "
    "temperature text tool_choice tools top_logprobs top_p truncation user models plugins provider route "
    "access_programs "
    "image search_parameters generate".split()
)
_OTHER_COST = {
    "plugins": "what plugins may bring in",
    "context_management": "compaction by the provider",
    "moderation": "moderation by another model",
    "image": "a setting for pictures",
    "search_parameters": "what live search may bring in",
}
_KEPT = {
    "previous_response_id": KEPT_HISTORY,
    "conversation": KEPT_HISTORY,
    "prompt": KEPT_PROMPT,
}


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    if kind in ("input_image", "computer_screenshot", "image_generation_call"):
        url = part.get("image_url")
        data = split_data_url(url) if isinstance(url, str) else None
        return Medium(AN_IMAGE, None if data is None else picture_tokens(rules, data[1], part.get("detail")))
    if kind == "input_file":
        data = split_data_url(str(part.get("file_data")))
        return Medium(A_FILE, None if data is None else document_tokens(rules, data[1]))
    if kind in ("input_audio", "output_audio"):
        return Medium(AUDIO)
    return Medium(KEPT_HISTORY) if kind == "item_reference" else None


def _kind(part: Json) -> object:
    kind = part.get("type")
    # a compaction that carries its content is text, one that does not is kept by the provider
    if kind in ("compaction", "compaction_summary") and not part.get("encrypted_content"):
        return "item_reference"
    if kind is None and "id" in part and "role" not in part:
        return "item_reference"
    return kind


_TEXTS = Texts(
    {
        "message": ("content",),
        "input_text": (),
        "output_text": (),
        "text": (),
        "refusal": (),
        "summary_text": (),
        "reasoning_text": (),
        "reasoning": (),
        "function_call": (),
        "function_call_output": ("output",),
        "custom_tool_call": (),
        "custom_tool_call_output": ("output",),
        "web_search_call": (),
        "file_search_call": (),
        "code_interpreter_call": (),
        "computer_call": (),
        "computer_call_output": ("output",),
        "local_shell_call": (),
        "local_shell_call_output": (),
        "shell_call": (),
        "shell_call_output": (),
        "apply_patch_call": (),
        "apply_patch_call_output": (),
        "mcp_list_tools": (),
        "mcp_call": (),
        "mcp_approval_request": (),
        "mcp_approval_response": (),
        "compaction": (),
        "compaction_summary": (),
    },
    _measure,
    _kind,
    kindless=frozenset({"role"}),
)

_FLAT = frozenset({"message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"})
"""Items of agents that are text where all their fields are."""


def _look_of(endpoint: Endpoint, model: str) -> Look:
    return looker(_TEXTS, media_rules(endpoint.provider, model))


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    name = text(body.get("model")) or endpoint.deployment or ""
    model = aliases.get(name, name)
    given = body.get("input")
    messages: Any = listed(given) if not isinstance(given, str) else [{"role": "user", "content": given}]
    tools = listed(body.get("tools"))
    rules = media_rules(endpoint.provider, model)
    opaque = [words for field, words in _KEPT.items() if body.get(field)]
    opaque += [words for field, words in _OTHER_COST.items() if body.get(field)]
    hosted = tuple(dict.fromkeys(hosted_tools_of(tools)))
    opaque += [f"what {tool} may bring in" for tool in hosted]
    if any(fields(fields(tool).get("container")).get("file_ids") for tool in tools):
        opaque.append(KEPT_FILES)
    if fields(body.get("prompt_cache_options")).get("ttl") not in (None, "30m"):
        opaque.append(LONG_CACHE)
    form = fields(body.get("text")).get("format")
    schema = form if fields(form).get("type") == "json_schema" else None
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        messages = [*listed(instructions), *messages]
        instructions = None
    weighed = weigh(
        system=instructions,
        messages=messages,
        tools=tools,
        schema=schema,
        opaque=opaque,
        look=looker(_TEXTS, rules),
        flat_kinds=_FLAT,
    )
    media = media_of(_TEXTS, rules, messages)
    needs = set(media.needs)
    if tools:
        needs.add("tools")
    if schema is not None:
        needs.add("json_schema")
    more = [field for field in body if field not in _KNOWN]
    cap = whole(body.get("max_output_tokens"))
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider,
        cap,
        () if cap is None else CAPS,
        choices_of(body) if more else 1,
        text(body.get("service_tier")),
        region=endpoint.region if endpoint.provider == "openai" else None,
        needs=frozenset(needs),
        hosted_tools=hosted,
        models=tuple(str(aliases.get(str(each), each)) for each in items(body.get("models")) if each != name),
        stream=truth(body.get("stream")),
        reasoning_ids=media.reasoning_ids,
        sound_tokens=media.sound_tokens,
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
        background=truth(body.get("background")),
    )


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap."""
    return put_field(body, "max_output_tokens", cap)


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object."""
    details_in, details_out = fields(usage.get("input_tokens_details")), fields(usage.get("output_tokens_details"))
    return Counts(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        usage.get("total_tokens"),
        cache_read=details_in.get("cached_tokens"),
        cache_write=details_in.get("cache_write_tokens"),
        input_audio=details_in.get("audio_tokens"),
        reasoning=details_out.get("reasoning_tokens"),
        output_audio=details_out.get("audio_tokens"),
    )


_BILLED = {
    "file_search_call": "storage_searches",  # the price table's name for it
    "image_generation_call": "image_generation",
    "x_search_call": "x_search",
    "collections_search_call": "storage_searches",
}
"""Output items that are billed by use, and their units. A call of an MCP server is billed in tokens alone."""


def billed_events(output: Any) -> dict[str, int]:
    """Billed events among the *output* items of an answer, by their unit."""
    events: dict[str, int] = {}
    containers: set[str] = set()
    for item in items(output):
        given = fields(item)
        kind = given.get("type")
        if given.get("status") in ("failed", "incomplete", "in_progress"):
            continue
        if kind == "web_search_call":
            # Opening a page and finding in it are not billed: platform.openai.com/docs/guides/tools-web-search
            action = fields(given.get("action")).get("type")
            if action in (None, "search"):
                events["web_search"] = events.get("web_search", 0) + 1
        elif kind == "code_interpreter_call":
            containers.add(str(given.get("container_id")))  # billed by the container, not by the call
        elif isinstance(kind, str) and kind in _BILLED:
            unit = _BILLED[kind]
            events[unit] = events.get(unit, 0) + 1
    if containers:
        events["code_interpreter"] = len(containers)
    return events


_FREE_AT_XAI = ("mcp_calls",)


def _events_of_xai(usage: Json) -> dict[str, int]:
    """Billed events as xAI counts them itself: https://docs.x.ai/docs/guides/tools/overview."""
    events: dict[str, int] = {}
    for name, count in fields(usage.get("server_side_tool_usage_details")).items():
        if type(count) is int and count > 0 and name not in _FREE_AT_XAI:
            unit = tool_name_of_type(name.removesuffix("_calls"))
            events[unit] = events.get(unit, 0) + count
    return events


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    usage = fields(body.get("usage"))
    output = items(body.get("output"))
    status = body.get("status")
    if not usage and not output and (body.get("error") is not None or status == "failed"):
        return unreadable(NAME, "the answer is an error")._replace(failed=True, id=text(body.get("id")))
    provider = None if request is None else request.provider
    reading = read_openai_counts(read_usage(usage), request, answered=bool(output))
    found = reading.usage
    if found is not None:
        details = fields(usage.get("input_tokens_details"))
        found = with_long_writes(found, fields(details.get("cache_write_tokens_details")))
    if found is not None and (events := _events_of_xai(usage) or billed_events(output)):
        found = with_events(found, events)
    model, ident = text(body.get("model")), text(body.get("id"))
    asked = model if request is None else request.model
    cut_off = status == "incomplete" and fields(body.get("incomplete_details")).get("reason") == "max_output_tokens"
    return Answer(
        NAME,
        found,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        model,
        served_tier(body.get("service_tier")),
        None,
        ident,
        provider_cost(usage, provider=provider, model=asked, answer_id=ident),
        cut_off,
        status == "failed",
        reasoning_ids=tuple(
            str(given["id"]) for item in output if (given := fields(item)).get("type") == "reasoning" and "id" in given
        ),
        text=_written(output) if cut_off else "",
        calls_tools=cut_off and any(fields(item).get("type") not in ("message", "reasoning") for item in output),
    )


def _written(output: Sequence[Any]) -> str:
    parts = [
        part for item in output for part in items(fields(item).get("content")) if fields(item).get("type") == "message"
    ]
    return "".join([text(fields(part).get("text")) or "" for part in parts])


class _Stream(EventReader):
    """Reads the events of one streamed answer. The last one carries the whole answer."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._response: Json = {}
        self._items: list[Any] = []
        self._last = False

    @property
    def is_told(self) -> bool:
        return self._last

    @property
    def is_final(self) -> bool:
        return self._last

    def take(self, event: Json) -> None:
        kind = event.get("type")
        if kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
            before = fields(self._response.get("usage") if self._last else None)
            response = fields(event.get("response"))
            self._response = {**response, "usage": later_report(before, fields(response.get("usage")))}
            self._last = self.finished = True
        elif kind == "error":
            self.failed = True
        elif kind == "response.output_item.done":
            self._items.append(event.get("item"))
        elif isinstance(kind, str) and kind.endswith(".delta"):
            self.wrote(event.get("delta"))
        elif not self._last and isinstance(event.get("response"), dict):
            self._response = fields(event["response"])

    def text_alone(self, event: Json) -> str | None:
        kind = event.get("type")
        return text(event.get("delta")) if isinstance(kind, str) and kind.endswith(".delta") else None

    def whole(self) -> Answer:
        response = self._response
        if not items(response.get("output")):
            response = {**response, "output": self._items}
        return read_answer(response, self._request)


RESPONSES = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model_field,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
    plain=Plain("input", frozenset({"role", "content"}), _look_of, _FLAT, takes_text=True),
)
"""OpenAI Responses."""
