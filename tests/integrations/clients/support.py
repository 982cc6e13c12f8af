"""Clients of every kind, and what guarded ones do in a line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anthropic
import openai

from budget_guard import Session
from budget_guard.testing import LocalProvider

MESSAGES: list[Any] = [{"role": "user", "content": "Hi"}]
OPENED: list[Any] = []
"""The blocking clients that a test has made, to be closed after it."""
GPT, CHEAP, CLAUDE = "gpt-4o", "gpt-4o-mini", "claude-haiku-4-5"


def open_ai(provider: LocalProvider, **options: Any) -> openai.OpenAI:
    client = openai.OpenAI(**{"base_url": provider.base_url, "api_key": "x", "max_retries": 0, **options})
    OPENED.append(client)
    return client


def async_open_ai(provider: LocalProvider, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**{"base_url": provider.base_url, "api_key": "x", "max_retries": 0, **options})


def claude(provider: LocalProvider, **options: Any) -> anthropic.Anthropic:
    client = anthropic.Anthropic(**{"base_url": provider.root_url, "api_key": "x", "max_retries": 0, **options})
    OPENED.append(client)
    return client


def async_claude(provider: LocalProvider, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"base_url": provider.root_url, "api_key": "x", "max_retries": 0, **options})


def ask(client: openai.OpenAI, model: str = GPT, **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=MESSAGES, **options)


def ask_claude(client: anthropic.Anthropic, **options: Any) -> Any:
    return client.messages.create(**{"model": CLAUDE, "messages": MESSAGES, "max_tokens": 1_000, **options})


def agree(provider: LocalProvider, *sessions: Session) -> None:
    """What was booked is what was billed, and nothing is held."""
    provider.wait_until_idle()
    for session in sessions:
        assert session.spent_usd == provider.bill_usd
        assert session.reserved_usd == 0


def settled(session: Session) -> None:
    """Nothing is held."""
    assert session.reserved_usd == Decimal(0)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def drained(stream: Any, read: Callable[[Any], Any] = lambda chunk: chunk) -> list[Any]:
    return [read(chunk) for chunk in stream]
