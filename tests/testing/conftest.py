"""One real client for all tests: making one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openai import OpenAI

from budget_guard.testing import LocalProvider, Script


@pytest.fixture(scope="session")
def openai_client() -> Iterator[OpenAI]:
    with OpenAI(base_url="http://127.0.0.1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def serve(openai_client: OpenAI) -> Iterator[Callable[..., tuple[LocalProvider, OpenAI]]]:
    """Start a provider and give it with a client of it; stop it after the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None, **options: Any) -> tuple[LocalProvider, OpenAI]:
            provider = stack.enter_context(LocalProvider(script, **options))
            return provider, openai_client.with_options(base_url=provider.base_url)

        yield start
