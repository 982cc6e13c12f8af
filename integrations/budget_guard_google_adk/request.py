"""What a request of Google ADK asks for, and what its answer used, in the core's terms."""

from __future__ import annotations

from typing import Any

from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

from budget_guard import ModelCall, Usage, weigh
from budget_guard.adapter import Answered, hosted_tool, medium, opaque_parts
from budget_guard.wire import GENERATE_CONTENT

_TOOLS_OF_OURS = "function_declarations"


def model_call(request: LlmRequest, model: str, *, agent: str | None) -> ModelCall:
    """The call that *request* is.

    Args:
        request: The request.
        model: The model that is asked.
        agent: Whom to attribute it to.
    """
    config = request.config
    opaque: list[str] = []
    hosted: list[str] = []
    declared: list[Any] = []
    for tool in config.tools or ():
        for name, value in _plain(tool).items():
            if name == _TOOLS_OF_OURS:
                declared += value
            else:  # one that the provider runs
                hosted.append(hosted_tool(name) or name)
    if config.cached_content or request.previous_interaction_id:
        opaque.append("content kept by the provider")
    opaque += opaque_parts({}, hosted)
    messages = [_message(content, opaque) for content in request.contents]
    schema = config.response_schema or config.response_json_schema
    prompt = weigh(
        system=_text(config.system_instruction),
        messages=messages,
        tools=declared,
        schema=None if schema is None else str(schema),
        opaque=tuple(dict.fromkeys(opaque)),
    )
    return ModelCall(
        model,
        prompt,
        max_output_tokens=config.max_output_tokens,
        needs=prompt.needs(tools=bool(declared), schema=schema is not None),
        choices=config.candidate_count or 1,
        hosted_tools=tuple(dict.fromkeys(hosted)),
        agent=agent,
    )


def _message(content: types.Content, opaque: list[str]) -> dict[str, Any]:
    """*content* as texts. What in it is more is added to *opaque*."""
    parts: list[Any] = []
    for part in content.parts or ():
        given = _plain(part)
        for media in ("inline_data", "file_data"):
            found = given.pop(media, None)
            if found is not None:
                opaque.append(medium(found.get("mime_type")))
        parts.append(given)
    return {"role": content.role or "", "parts": parts}


def _text(instruction: Any) -> str:
    return instruction if isinstance(instruction, str) else "" if instruction is None else str(instruction)


def _plain(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
    return found


class Reader:
    """What the responses say that an answer comes in: one, or those of a stream."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._written = 0
        self._told: LlmResponse | None = None
        self._has_content = False
        self._finish: object = None

    def read(self, response: LlmResponse) -> int:
        """Take note of a *response*. Returns how many bytes of text have come."""
        self._has_content = self._has_content or response.content is not None
        self._finish = response.finish_reason or self._finish
        if response.usage_metadata is not None:
            self._told = response
        if response.partial or not self._said:  # the last one repeats all
            text = text_of(response)
            self._said.append(text)
            self._written += len(text.encode("utf-8", "surrogatepass"))
        return self._written

    async def answered(self) -> Answered:
        """What the whole answer says."""
        cut_off = self._finish == types.FinishReason.MAX_TOKENS
        return Answered(usage_of(self._told, self._has_content), cut_off, "".join(self._said) or None)


def usage_of(response: LlmResponse | None, candidates: bool) -> Usage | None:
    """What an answer used; None where it does not say, or makes no sense.

    Args:
        response: The last response that told its usage.
        candidates: Whether there was an answer.
    """
    usage = None if response is None else response.usage_metadata
    if response is None or usage is None:
        return None
    body = {
        "usageMetadata": usage.model_dump(mode="json", by_alias=True, exclude_none=True),
        "candidates": [{"content": {"parts": [{"text": "x"}] if candidates else []}}],
    }
    if response.grounding_metadata is not None:
        grounding = response.grounding_metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
        body["candidates"][0]["groundingMetadata"] = grounding  # type: ignore[index]  # a dict of ours
    return GENERATE_CONTENT.read_answer(body, None).usage


def text_of(response: LlmResponse) -> str:
    """What a response says."""
    parts = response.content.parts if response.content is not None else None
    return "".join(part.text for part in parts or () if part.text and not part.thought)
