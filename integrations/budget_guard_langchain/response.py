"""A provider's answer as LangChain tells it, read by the provider's dialect.

Where LangChain hands on what the provider itself said of the usage, that is read. Else there is LangChain's own
`UsageMetadata`, in which the inputs and outputs are totals, and a zero may only mean that nothing was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Answer,
    Counts,
    Request,
)
from budget_guard.wire.answer import served_tier
from budget_guard.wire.counting import read_openai_counts
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.values import Json, fields, items, text

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.outputs import LLMResult

_CUT = frozenset({"length", "max_tokens", "MAX_TOKENS", "max_output_tokens"})
"""Reasons to finish, in the words of all providers, that are an output cap."""


def read_message(message: Any) -> Answer:
    """What a *message* that a model made says was used."""
    from langchain_core.outputs import ChatGeneration, LLMResult

    return Reply(LLMResult(generations=[[ChatGeneration(message=message)]])).read()


class Reply:
    """One answer to one call. Of several choices each carries the usage of all, so the first one is read."""

    __slots__ = ("_choices", "_message", "_output", "_run_id", "_said", "_usage")

    def __init__(self, result: LLMResult, run_id: UUID | None = None) -> None:
        self._run_id = run_id
        self._choices: Sequence[Any] = result.generations[0] if result.generations else ()
        self._output = fields(result.llm_output)
        self._message: Any = getattr(self._choices[0], "message", None) if self._choices else None
        """None of a text model."""
        self._usage = fields(getattr(self._message, "usage_metadata", None))
        self._said = fields(getattr(self._message, "response_metadata", None))

    @property
    def was_cached(self) -> bool:
        """Whether it came out of LangChain's cache, so that no provider was asked.

        LangChain marks it by a cost of nothing, as some providers do of their own. An answer of a provider has what
        else that said beside it, or an id of this very run.
        """
        cost = self._usage.get("total_cost")
        if type(cost) is not int or cost or self._output:
            return False
        return self._run_id is None or str(self._run_id) not in str(self._message.id)

    @property
    def says_no_usage_of_its_own(self) -> bool:
        """Whether the usage of several texts, which a text model sends in one request, is told with the first alone."""
        return self._message is None and self._output.get("token_usage") == {}

    @property
    def model(self) -> str | None:
        """The model that answered."""
        for found in (self._said, self._output):
            for key in ("model_name", "model", "model_id", "model_version"):
                name = found.get(key)
                if isinstance(name, str) and name:
                    return name
        return None

    @property
    def finish(self) -> str | None:
        """The provider's reason to end the answer, a cap where that ended any choice; None if it tells none."""
        reasons: list[str] = []
        for choice in self._choices:
            info = fields(getattr(choice, "generation_info", None))
            said = fields(getattr(getattr(choice, "message", None), "response_metadata", None))
            for found in (info, said, self._output):
                reason = found.get("finish_reason") or found.get("stop_reason") or found.get("stopReason")
                reason = reason or fields(found.get("incomplete_details")).get("reason")
                reason = reason or (found.get("status") if found.get("object") == "response" else None)
                if isinstance(reason, str):
                    reasons.append(reason)
                    break
        return next((reason for reason in reasons if reason in _CUT), reasons[0] if reasons else None)

    @property
    def is_cut_off(self) -> bool:
        """Whether an output cap ended it early, by what the provider says."""
        return self.finish in _CUT

    @property
    def text(self) -> str:
        """The text of the answer, of its first choice."""
        return str(getattr(self._choices[0], "text", "")) if self._choices else ""

    def read(self, request: Request | None = None, *, added_up: bool = False) -> Answer:
        """What it says was used, in the words of the dialect that *request* was made in.

        Args:
            request: What was asked for.
            added_up: Whether a stream told the usage so far in several chunks, which LangChain has added up: no usage.
        """
        answer = self._read(request, added_up)
        return answer if answer.id is not None else answer._replace(id=text(getattr(self._message, "id", None)))

    def _read(self, request: Request | None, added_up: bool) -> Answer:
        dialect = self._own_dialect if request is None else request.dialect
        if added_up:
            return Answer(dialect, problem=f"{dialect}: the stream told its usage more than once", model=self.model)
        usage = self._usage
        raw = self._raw()
        if "prompt_tokens" in raw or "completion_tokens" in raw:
            return self._openai(raw, request)
        if "input_tokens" in raw and (dialect == MESSAGES.name or self._provider == "anthropic"):
            return self._anthropic(raw, request)
        if not usage or (raw and not usage.get("input_tokens") and not usage.get("output_tokens")):
            return Answer(dialect, problem=f"{dialect}: no usage is reported", model=self.model)
        if dialect == RESPONSES.name:
            return self._responses(request)
        if dialect == MESSAGES.name:
            return self._anthropic(_as_anthropic(usage), request)
        if dialect == GENERATE_CONTENT.name:
            return self._google(request)
        return self._any(dialect, raw, request)

    @property
    def _own_dialect(self) -> str:
        """The dialect that it looks like, where it is not known what was asked."""
        if self._said.get("object") == "response":
            return RESPONSES.name
        provider = str(self._provider or "")
        if provider.startswith("google"):
            return GENERATE_CONTENT.name
        return MESSAGES.name if provider == "anthropic" else CHAT_COMPLETIONS.name

    @property
    def _provider(self) -> object:
        return self._said.get("model_provider") or self._output.get("model_provider")

    def _raw(self) -> Json:
        """The usage in the provider's own words, where it is handed on."""
        for found in (self._output, self._said):
            raw = found.get("token_usage") or found.get("usage")
            if raw:
                return fields(raw)
        return {}

    def _find(self, name: str) -> Any:
        found = self._output.get(name)
        return self._said.get(name) if found is None else found

    def _openai(self, raw: Json, request: Request | None) -> Answer:
        """The answer of Chat Completions, or of Completions."""
        if self._message is None:
            choices: list[Any] = [{"text": getattr(choice, "text", None)} for choice in self._choices]
        else:
            choices = [{"message": _as_chat(choice), "finish_reason": self.finish} for choice in self._choices]
        dialect = COMPLETIONS if self._message is None else CHAT_COMPLETIONS
        body = {
            "choices": choices,
            "usage": raw,
            "model": self.model,
            "id": self._find("id"),
            "service_tier": self._find("service_tier"),
        }
        return dialect.read_answer(body, request)

    def _responses(self, request: Request | None) -> Answer:
        usage = self._usage
        given, made = _details(usage.get("input_token_details")), _details(usage.get("output_token_details"))
        raw = {
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "total_tokens": usage.get("total_tokens"),
            "input_tokens_details": {
                "cached_tokens": given.get("cache_read"),
                "cache_write_tokens": given.get("cache_creation"),
            },
            "output_tokens_details": {"reasoning_tokens": made.get("reasoning")},
        }
        more = fields(getattr(self._message, "additional_kwargs", None))
        content = self._message.content
        output = [
            _as_item(block)
            for block in (*(() if isinstance(content, str) else content), *items(more.get("tool_outputs")))
        ]
        if isinstance(content, str) and content:
            output.append({"type": "message"})
        body = {**self._said, "usage": raw, "output": output, "model": self.model}
        return RESPONSES.read_answer(body, request)

    def _anthropic(self, raw: Json, request: Request | None) -> Answer:
        content: Any = getattr(self._message, "content", None)
        body = {
            "type": "message",
            "content": [{"type": "text"}] if isinstance(content, str) and content else content,
            "usage": raw,
            "model": self.model,
            "id": self._find("id"),
            "stop_reason": self.finish,
        }
        return MESSAGES.read_answer(body, request)

    def _google(self, request: Request | None) -> Answer:
        usage = self._usage
        given, made = _details(usage.get("input_token_details")), _details(usage.get("output_token_details"))
        written, thought = usage.get("output_tokens"), made.get("reasoning") or 0
        raw: dict[str, Any] = {
            "promptTokenCount": usage.get("input_tokens"),
            "candidatesTokenCount": inside if (inside := _less(written, thought)) is not None else written,
            "thoughtsTokenCount": thought,
            "totalTokenCount": usage.get("total_tokens"),
            "cachedContentTokenCount": given.get("cache_read"),
        }
        if heard := given.get("audio"):
            raw["promptTokensDetails"] = [{"modality": "AUDIO", "tokenCount": heard}]
        if said := made.get("audio"):
            raw["candidatesTokensDetails"] = [{"modality": "AUDIO", "tokenCount": said}]
        message = self._message
        candidate = {
            "content": {"parts": [{"text": "x"}] if message.content or message.tool_calls else []},
            "finishReason": self.finish,
            "groundingMetadata": self._said.get("grounding_metadata"),
        }
        body = {"candidates": [candidate], "usageMetadata": raw, "modelVersion": self.model}
        answer = GENERATE_CONTENT.read_answer(body, request)
        return answer._replace(tier=answer.tier or served_tier(self._find("service_tier")))

    def _any(self, dialect: str, raw: Json, request: Request | None) -> Answer:
        """The answer of a class that nobody knows, or that hands on no usage of the provider's own."""
        usage = self._usage
        given, made = usage.get("input_token_details"), usage.get("output_token_details")
        if given or made:
            counts = _counts(usage, _details(given), _details(made))
        else:
            counts = Counts(usage.get("input_tokens"), usage.get("output_tokens"), usage.get("total_tokens"))
        provider = None if request is None else request.provider
        message = self._message
        answered = bool(message is not None and (message.content or message.tool_calls))
        reading = read_openai_counts(counts, request, answered=answered)
        model, ident = self.model, text(self._find("id"))
        searches = {} if message is None or isinstance(message.content, str) else _events(message.content)
        found = reading.usage
        if found is not None and searches:
            found = found._replace(web_search=searches.pop("web_search", 0), other=(*found.other, *searches.items()))
        return Answer(
            dialect,
            found,
            None if reading.problem is None else f"{dialect}: {reading.problem}",
            model,
            served_tier(self._find("service_tier")),
            id=ident or text(getattr(message, "id", None)),
            cost=provider_cost(raw, provider=provider, model=model, answer_id=ident) if raw else None,
        )


def _counts(usage: Json, given: Mapping[str, Any], made: Mapping[str, Any]) -> Counts:
    """The counts of LangChain's own usage: the inputs and outputs are totals, and what is kept where is a part."""
    return Counts(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        usage.get("total_tokens"),
        given.get("cache_read"),
        given.get("cache_creation"),
        given.get("ephemeral_5m_input_tokens"),
        given.get("ephemeral_1h_input_tokens"),
        given.get("audio"),
        None,
        given.get("image"),
        made.get("reasoning"),
        made.get("audio"),
        made.get("image"),
    )


def _less(whole: object, part: object) -> int | None:
    """*whole* without a *part* that stands inside it; None where it cannot."""
    return whole - part if type(whole) is int and type(part) is int and 0 <= part <= whole else None


def _as_anthropic(usage: Json) -> Json:
    """LangChain's usage of a Claude in Anthropic's own words, whose inputs add up."""
    given, made = _details(usage.get("input_token_details")), _details(usage.get("output_token_details"))
    read, short, long = (
        given.get(name) or 0 for name in ("cache_read", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    )
    wrote: Any = given.get("cache_creation") or 0
    if all(type(part) is int for part in (read, short, long, wrote)):
        wrote = max(wrote, short + long)
    taken = usage.get("input_tokens")
    plain = _less(_less(taken, read), wrote)
    return {
        "input_tokens": taken if plain is None else plain,  # the parts may stand beside it already
        "output_tokens": usage.get("output_tokens"),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": wrote,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens_details": {"thinking_tokens": made.get("reasoning")},
    }


def _details(details: object) -> dict[str, Any]:
    """The counts by name, without the service tier that is put before the name at OpenAI."""
    counts: dict[str, Any] = {}
    for name, count in cast("dict[str, object]", details).items() if isinstance(details, dict) else ():
        if count is not None:
            name = name.removeprefix("flex_").removeprefix("priority_")
            counts[name] = counts[name] + count if type(count) is int and type(counts.get(name)) is int else count
    return counts


def _as_chat(choice: Any) -> Json:
    """A choice, as far as its bill goes."""
    message = getattr(choice, "message", None)
    if message is None:
        return {}
    content = message.content
    notes = fields(message.additional_kwargs).get("annotations")
    if not isinstance(content, str):
        notes = [note for block in content for note in items(fields(block).get("annotations"))]
        notes = [
            {**fields(note), "type": "url_citation"} if fields(note).get("type") == "citation" else note
            for note in notes
        ]
    return {
        "content": content,
        "tool_calls": message.tool_calls or message.invalid_tool_calls,
        "refusal": fields(message.additional_kwargs).get("refusal"),
        "annotations": notes,
    }


def _as_item(block: Any) -> Any:
    """A block of an answer of the Responses API as that itself has it."""
    given = fields(block)
    if given.get("type") == "non_standard":
        return given.get("value")
    if given.get("type") != "server_tool_call":  # LangChain's own word for all of them
        return block
    arguments = fields(given.get("args"))
    return {"type": f"{given.get('name')}_call", "action": {"type": arguments.get("type")}, "id": given.get("id")}


def _events(content: Sequence[Any]) -> dict[str, int]:
    """Billed events among the blocks of a message, by their unit."""
    from budget_guard.wire.openai_responses import billed_events

    return billed_events([_as_item(block) for block in content])
