"""What type checkers make of guarded clients. Checked, never run."""

from __future__ import annotations

import anthropic
import httpx
import httpx2
import openai
from openai import Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from typing_extensions import assert_type

from budget_guard import Budget


async def run() -> None:
    with Budget("$5.00").session() as session:
        client = session.guard(openai.OpenAI())
        assert_type(client, openai.OpenAI)
        assert_type(client.chat.completions.create(model="gpt-4o", messages=[]), ChatCompletion)
        assert_type(
            client.chat.completions.create(model="gpt-4o", messages=[], stream=True), Stream[ChatCompletionChunk]
        )
        assert_type(session.guard(openai.AsyncOpenAI(), models={"prod-chat": "gpt-4o"}), openai.AsyncOpenAI)
        assert_type(session.guard(anthropic.Anthropic(), add_fields=("usage",)), anthropic.Anthropic)
        assert_type(session.guard(anthropic.AsyncAnthropic(), agent="Researcher"), anthropic.AsyncAnthropic)
        assert_type(session.guard(httpx.Client()), httpx.Client)
        assert_type(session.guard(httpx2.AsyncClient()), httpx2.AsyncClient)
