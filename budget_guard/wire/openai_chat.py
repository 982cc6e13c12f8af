"""OpenAI Chat Completions, and all who speak it.

https://platform.openai.com/docs/api-reference/chat, spoken by Azure, xAI, Google's and Anthropic's compatible
endpoints, DeepSeek, Moonshot, Mistral, Perplexity, OpenRouter, Groq, Together, Fireworks, vLLM, Ollama and proxies.
"""

from __future__ import annotations

import re
from typing import Any

from budget_guard.estimate.prompt import Look, weigh
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import Counts, later_report, read_openai_counts, with_events
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Plain, Rewritten, put_field, put_model_field
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import MediaRules, document_tokens, media_rules, picture_tokens, split_data_url
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.tools import hosted_tools_of
from budget_guard.wire.values import Json, fields, items, listed, text, truth, whole
from budget_guard.wire.weighing import (
    A_FILE,
    A_VIDEO,
    AN_IMAGE,
    AUDIO,
    KEPT_HISTORY,
    LONG_CACHE,
    Medium,
    Texts,
    looker,
    media_of,
)

NAME = "chat completions"
CAPS = ("max_completion_tokens", "max_tokens")
_MORE_CAPS = ("max_output_tokens", "max_new_tokens", "maxTokens", "maxOutputTokens", "num_predict", "min_tokens")
"""Names of it elsewhere. A server may know one of them: then the largest of all is held, and ours replaces them."""

_KNOWN = frozenset(
    "messages model frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens metadata "
    "modalities audio n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention "
    "prompt_cache_options reasoning_effort reasoning response_format safety_identifier seed service_tier "
    "stop store stream "
    "stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options "
    "models route plugins "
    "top_k min_p top_a repetition_penalty thinking include_reasoning usage transforms chat_template_kwargs "
    "enable_thinking "
    "guided_json guided_regex guided_choice safe_prompt random_seed provider keep_alive options format "
    "return_images return_related_questions search_mode search_domain_filter search_recency_filter "
    "search_parameters disable_search cache_control deferred data_sources session_id trace moderation "
    "mcp_servers".split()
)
_MESSAGE_PARTS = ("content",)
_OTHER_COST = {
    "plugins": "what plugins may bring in",
    "data_sources": "what data sources may bring in",
    "search_parameters": "what live search may bring in",
    "mcp_servers": "what MCP servers may bring in",
    "prediction": "a prediction, whose refused part is billed as output",
    "moderation": "moderation by another model",
}
"""Fields that cost more than the text in them, in words."""
_SEARCHES_BY_ITSELF = re.compile(r".*-search-(?:preview|api)(?:-.*)?")
"""Models that search for every answer: https://platform.openai.com/docs/guides/tools-web-search (Chat Completions)."""


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    if kind in ("image_url", "input_image", "image"):
        image = part.get("image_url", part.get("image"))
        url = image if isinstance(image, str) else fields(image).get("url")
        data = split_data_url(url) if isinstance(url, str) else None
        detail = part.get("detail") or fields(image).get("detail")
        return Medium(AN_IMAGE, None if data is None else picture_tokens(rules, data[1], detail))
    if kind in ("file", "input_file", "document"):
        file = fields(part.get("file")) or part
        data = split_data_url(str(file.get("file_data")))
        return Medium(A_FILE, None if data is None else document_tokens(rules, data[1]))
    if kind in ("input_audio", "audio", "audio_url"):
        return Medium(AUDIO)
    if kind in ("video_url", "input_video", "video"):
        return Medium(A_VIDEO)
    return None


_TEXTS = Texts(
    {
        "message": ("content",),
        "text": (),
        "refusal": (),
        "input_text": (),
        "output_text": (),
        "function": (),
        "custom": (),
        "thinking": (),
        "reasoning_content": (),
    },
    _measure,
    kindless=frozenset({"role"}),
    parts_of_kindless=_MESSAGE_PARTS,
    kept={"audio": KEPT_HISTORY},
)


def _look_of(endpoint: Endpoint, model: str) -> Look:
    return looker(_TEXTS, media_rules(endpoint.provider, model))


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    name = text(body.get("model")) or endpoint.deployment or ""
    model = aliases.get(name, name)
    messages = listed(body.get("messages"))
    tools = (*listed(body.get("tools")), *listed(body.get("functions")))
    rules = media_rules(endpoint.provider, model)
    opaque = [words for field, words in _OTHER_COST.items() if body.get(field)]
    hosted = list(hosted_tools_of(tools))
    opaque += [f"what {tool} may bring in" for tool in hosted]
    if fields(body.get("prompt_cache_options")).get("ttl") not in (None, "30m"):
        opaque.append(LONG_CACHE)
    schema = body.get("response_format")
    if fields(schema).get("type") in ("text", "json_object") or schema is None:
        schema = None
    weighed = weigh(messages=messages, tools=tools, schema=schema, opaque=opaque, look=looker(_TEXTS, rules))
    plugins = {str(fields(plugin).get("id")) for plugin in items(body.get("plugins"))}
    if (
        body.get("web_search_options") is not None
        or _SEARCHES_BY_ITSELF.fullmatch(model)
        or name.endswith(":online")
        or "web" in plugins
        or body.get("search_parameters")
    ) and endpoint.provider != "perplexity":  # which searches for every answer, at a fee for the request
        hosted.append("web_search")
        if name.endswith(":online"):
            weighed = weighed._replace(opaque=(*weighed.opaque, "what web_search may bring in"), conversation=0)
    media = media_of(_TEXTS, rules, messages)
    needs = set(media.needs)
    if tools:
        needs.add("tools")
    if schema is not None:
        needs.add("json_schema")
    modalities = frozenset(str(each) for each in listed(body.get("modalities"))) - {"text"}
    if body.get("audio"):
        modalities |= {"audio"}
    if "audio" in modalities:
        needs.add("audio")
    caps = tuple(cap for cap in CAPS if whole(body.get(cap)) is not None)
    most = max([cap for cap in map(whole, map(body.get, CAPS)) if cap is not None], default=None)
    # of two caps one makes no sense: whoever answers may go by either, or take it for none
    is_unclear = bool(caps) and any(cap not in caps and body.get(cap) is not None for cap in CAPS)
    choices = max(1, whole(body.get("n")) or 1)
    stream = truth(body.get("stream"))
    more = [field for field in body if field not in _KNOWN]
    if more:
        choices = choices_of(body)
        if most is not None:
            most = max([most, *(cap for cap in map(whole, map(body.get, _MORE_CAPS)) if cap is not None)])
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider,
        most,
        caps,
        choices,
        text(body.get("service_tier")),
        text(body.get("speed")),
        endpoint.region if endpoint.provider == "openai" else None,
        modalities,
        frozenset(needs),
        tuple(dict.fromkeys(hosted)),
        tuple(str(aliases.get(str(each), each)) for each in items(body.get("models")) if each != name),
        stream,
        not stream or not endpoint.takes_usage_option or _asked(body),
        _hour_cache(body),
        media.reasoning_ids,
        media.sound_tokens,
        tuple(field for field in more if not isinstance(body[field], (dict, list))),
        tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
        truth(body.get("deferred")),  # xAI's: https://docs.x.ai/docs/guides/deferred-chat-completions
        search_context=_search_context(fields(body.get("web_search_options"))),
        unclear=("an output cap",) if is_unclear else (),
    )


def _search_context(options: Json) -> str | None:
    """How much Perplexity is asked to search: https://docs.perplexity.ai/getting-started/pricing."""
    size = text(options.get("search_context_size"))
    if options.get("search_type") in ("pro", "auto"):  # which may turn out to be pro
        return f"pro-{size or 'high'}"
    return size


def _asked(body: Json) -> bool:
    return fields(body.get("stream_options")).get("include_usage") is True


def _hour_cache(body: Json) -> bool:
    """Whether a part asks for a one-hour cache, as Claude behind such an endpoint can be asked."""
    if fields(body.get("cache_control")).get("ttl") == "1h":
        return True
    parts: list[Any] = [*items(body.get("messages")), *items(body.get("tools"))]
    for message in items(body.get("messages")):
        content = fields(message).get("content")
        parts += items(content)
    return any(fields(fields(part).get("cache_control")).get("ttl") == "1h" for part in parts)


def put_cap(endpoint: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap, in place of any that is there."""
    given = [name for name in CAPS if whole(body.get(name)) is not None]
    name = given[0] if given else endpoint.name_of_cap(text(body.get("model")) or endpoint.deployment or "")
    return put_field(body, name, cap, (*CAPS, *_MORE_CAPS))


def ask_for_usage(endpoint: Endpoint, body: Json) -> Rewritten:
    """*body* with its stream asked for usage, where that is needed and the endpoint takes it."""
    if not truth(body.get("stream")) or _asked(body) or not endpoint.takes_usage_option or body.get("data_sources"):
        return Rewritten(dict(body))
    options = {**fields(body.get("stream_options")), "include_usage": True}
    return Rewritten({**body, "stream_options": options}, ("stream_options.include_usage",))


_NAMES_OF_TOTALS = ("prompt_tokens", "completion_tokens", "total_tokens")
_TOTALS = frozenset(_NAMES_OF_TOTALS)


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object. Cached tokens have many places."""
    if usage.keys() <= _TOTALS:  # as many servers have it
        return Counts(*map(usage.get, _NAMES_OF_TOTALS))
    details_in = fields(usage.get("prompt_tokens_details"))
    details_out = fields(usage.get("completion_tokens_details"))
    read = details_in.get("cached_tokens")
    if read is None:
        # DeepSeek (https://api-docs.deepseek.com/guides/kv_cache), Moonshot
        # (https://platform.moonshot.ai/docs/api/chat), and Anthropic's own names, which some proxies hand on
        read = next(
            filter(None, map(usage.get, ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"))), None
        )
    # OpenAI, LiteLLM, Anthropic
    wrote = next(filter(None, map(details_in.get, ("cache_write_tokens", "cache_creation_tokens"))), None)
    if wrote is None:
        wrote = usage.get("cache_creation_input_tokens")
    split = fields(usage.get("cache_creation")) or fields(details_in.get("cache_creation_token_details"))
    reasoning = details_out.get("reasoning_tokens")
    return Counts(
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        usage.get("total_tokens"),
        read,
        wrote,
        split.get("ephemeral_5m_input_tokens"),
        split.get("ephemeral_1h_input_tokens"),
        details_in.get("audio_tokens"),
        fields(details_in.get("cached_tokens_details")).get("audio_tokens"),
        None,  # pictures are billed as text here
        usage.get("reasoning_tokens") if reasoning is None else reasoning,  # Perplexity
        details_out.get("audio_tokens"),
        details_out.get("image_tokens"),
    )


_SAID = ("content", "tool_calls", "function_call", "refusal")
_CUT_OFF = ("length", "max_tokens", "MAX_TOKENS")


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    choices = items(body.get("choices"))
    if not choices and body.get("error") is not None:
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    usage = fields(body.get("usage"))
    if not usage:  # Groq's streams tell it apart, Moonshot's in a choice
        usage = fields(fields(body.get("x_groq")).get("usage"))
        usage = usage or next(filter(None, (fields(fields(choice).get("usage")) for choice in choices)), usage)
    provider = None if request is None else request.provider
    model, ident = text(body.get("model")), text(body.get("id"))
    said: list[Json] = []
    answered = cut_off = False
    for choice in choices:
        given = fields(choice)
        message = fields(given.get("message"))
        said.append(message)
        if not answered and any(map(message.get, _SAID)):
            answered = True
        if given.get("finish_reason") in _CUT_OFF:
            cut_off = True
    reading = read_openai_counts(read_usage(usage), request, answered=answered)
    found = reading.usage
    if found is not None:
        events = _events(body, usage, said, request, provider)
        if events:
            found = with_events(found, events)
    asked = model if request is None else request.model
    return Answer(
        NAME,
        found,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        model,
        served_tier(body.get("service_tier") or usage.get("service_tier"), usage.get("speed")),
        text(usage.get("inference_geo")),
        ident,
        provider_cost(usage, provider=provider, model=asked, answer_id=ident),
        cut_off,
        text=(text(said[0].get("content")) or "") if cut_off else "",
        calls_tools=cut_off and any(s.get("tool_calls") or s.get("function_call") for s in said),
    )


def _events(body: Json, usage: Json, said: list[Json], request: Request | None, provider: str | None) -> dict[str, int]:
    """Billed events besides tokens, by their unit."""
    events: dict[str, int] = {}
    if provider == "perplexity" or "num_search_queries" in usage:
        # https://docs.perplexity.ai/getting-started/pricing: deep research bills these; the others a fee for the
        # request
        for name, unit in (("num_search_queries", "web_search"), ("citation_tokens", "output_citation_tokens")):
            count = usage.get(name)
            if type(count) is int and count > 0:
                events[unit] = count
        return events
    model = request.model if request is not None else text(body.get("model")) or ""
    searches = fields(usage.get("server_tool_use")).get("web_search_requests")
    if type(searches) is int and searches > 0:
        events["web_search"] = searches
    elif "-search-" in model and _SEARCHES_BY_ITSELF.fullmatch(model):
        events["web_search"] = 1  # a fee for each call, found or not: https://platform.openai.com/docs/pricing
    elif (request is not None and "web_search" in request.hosted_tools) and any(
        fields(note).get("type") == "url_citation" for message in said for note in items(message.get("annotations"))
    ):
        events["web_search"] = 1
    sources = usage.get("num_sources_used")
    if type(sources) is int and sources > 0 and provider == "x-ai":
        events["live_search_sources"] = sources  # https://docs.x.ai/docs/guides/live-search
    return events


_STREAMED = ("content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call")


class _Stream(EventReader):
    """Reads the chunks of one streamed answer. Usage may come once, at the end, or grow from chunk to chunk."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._seen: dict[str, Any] = {}
        self._usage: Json = {}
        self._finish: list[str] = []
        self._annotations: list[Any] = []

    def is_usage_alone(self, event: Json) -> bool:
        return event.get("choices") == [] and bool(event.get("usage"))

    def take(self, event: Json) -> None:
        seen = self._seen
        for name in ("id", "model", "service_tier"):
            if event.get(name):
                seen[name] = event[name]
        choices = items(event.get("choices"))
        if event.get("error") is not None and not choices:
            self.failed = True
        usage = fields(event.get("usage")) or fields(fields(event.get("x_groq")).get("usage"))
        for choice in choices:
            given = fields(choice)
            delta = fields(given.get("delta"))
            for name in _STREAMED:
                value = delta.get(name)
                if value:
                    self.wrote(value)
            if (reason := text(given.get("finish_reason"))) is not None:
                self._finish.append(reason)
                self.choice_ended(given.get("index"))
            if delta.get("annotations"):
                self._annotations += items(delta["annotations"])
            usage = usage or fields(given.get("usage"))
        if usage:
            self._usage = later_report(self._usage, usage)
            self.usage_came(self._request, alone=not choices)

    def text_alone(self, event: Json) -> str | None:
        choices = items(event.get("choices"))
        if len(choices) != 1 or event.get("usage") or event.get("x_groq"):
            return None
        given = fields(choices[0])
        delta = fields(given.get("delta"))
        if given.get("finish_reason") or given.get("usage") or delta.get("annotations"):
            return None
        written = [value for name in _STREAMED if (value := delta.get(name))]
        return text(written[0]) if len(written) == 1 else None

    def whole(self) -> Answer:
        message = {"content": "x" if self.output_bytes else None, "annotations": self._annotations}
        reasons = self._finish or [""]
        choices = [{"finish_reason": reason, "message": message} for reason in reasons]
        answer = read_answer({**self._seen, "choices": choices, "usage": self._usage}, self._request)
        return answer._replace(text="")


CHAT_COMPLETIONS = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model_field,
    ask_for_usage=ask_for_usage,
    read_answer=read_answer,
    stream=_Stream,
    plain=Plain("messages", frozenset({"role", "content", "name", "tool_calls", "tool_call_id"}), _look_of),
)
"""OpenAI Chat Completions."""
