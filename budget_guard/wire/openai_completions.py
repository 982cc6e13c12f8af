"""OpenAI Completions, the older API of text models: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from typing import Any

from budget_guard.estimate.prompt import weigh
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import later_report, read_openai_counts
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Rewritten, put_field, put_model_field
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import media_rules
from budget_guard.wire.openai_chat import ask_for_usage, read_usage
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request, choices_of
from budget_guard.wire.values import Json, fields, items, text, truth, whole
from budget_guard.wire.weighing import Texts, looker, no_medium

NAME = "completions"
_KNOWN = frozenset(
    "model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream "
    "stream_options suffix temperature top_p user top_k min_p repetition_penalty service_tier".split()
)
_TEXTS = Texts({}, no_medium)


def prompts_of(value: object) -> list[Any]:
    """The prompts of a request: one text, texts, one list of tokens, or several of these."""
    given = items(value)
    if not given:
        return [] if value in (None, "", []) else [value]
    return [list(given)] if all(type(each) is int for each in given) else list(given)


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    name = text(body.get("model")) or endpoint.deployment or ""
    model = aliases.get(name, name)
    prompts = prompts_of(body.get("prompt"))
    if body.get("suffix"):
        prompts.append(body["suffix"])
    many = max(1, len(prompts) - bool(body.get("suffix")))
    look = looker(_TEXTS, media_rules(None, ""))
    cap, stream = whole(body.get("max_tokens")), truth(body.get("stream"))
    asked = fields(body.get("stream_options")).get("include_usage") is True
    more = [field for field in body if field not in _KNOWN]
    return Request(
        NAME,
        model,
        weigh(messages=prompts, look=look),
        endpoint.provider,
        cap,
        () if cap is None else ("max_tokens",),
        choices_of(body) * many,
        text(body.get("service_tier")),
        region=endpoint.region if endpoint.provider == "openai" else None,
        stream=stream,
        asks_for_usage=not stream or asked or not endpoint.takes_usage_option,
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
        requests=many,
    )


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap."""
    return put_field(body, "max_tokens", cap)


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    choices = items(body.get("choices"))
    if not choices and body.get("error") is not None:
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    usage = fields(body.get("usage"))
    provider = None if request is None else request.provider
    answered = any(fields(choice).get("text") for choice in choices)
    reading = read_openai_counts(read_usage(usage), request, answered=answered)
    model, ident = text(body.get("model")), text(body.get("id"))
    return Answer(
        NAME,
        reading.usage,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        model,
        served_tier(body.get("service_tier")),
        None,
        ident,
        provider_cost(usage, provider=provider, model=model, answer_id=ident),
        any(fields(choice).get("finish_reason") == "length" for choice in choices),
    )


class _Stream(EventReader):
    """Reads the chunks of one streamed answer."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._seen: dict[str, Any] = {}
        self._reasons: list[str] = []

    def is_usage_alone(self, event: Json) -> bool:
        return event.get("choices") == [] and bool(event.get("usage"))

    def take(self, event: Json) -> None:
        for name in ("id", "model", "service_tier"):
            if event.get(name):
                self._seen[name] = event[name]
        if event.get("error") is not None:
            self.failed = True
        for choice in items(event.get("choices")):
            given = fields(choice)
            self.wrote(given.get("text"))
            if (reason := text(given.get("finish_reason"))) is not None:
                self._reasons.append(reason)
                self.choice_ended(given.get("index"))
        if usage := fields(event.get("usage")):
            self._seen["usage"] = later_report(fields(self._seen.get("usage")), usage)
            self.usage_came(self._request, alone=self.is_usage_alone(event))

    def whole(self) -> Answer:
        written = "x" if self.output_bytes else ""
        choices = [{"finish_reason": reason, "text": written} for reason in self._reasons or [""]]
        return read_answer({**self._seen, "choices": choices}, self._request)


COMPLETIONS = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model_field,
    ask_for_usage=ask_for_usage,
    read_answer=read_answer,
    stream=_Stream,
)
"""OpenAI Completions."""
