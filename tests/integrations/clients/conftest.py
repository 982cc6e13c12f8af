"""A provider for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

from budget_guard.testing import LocalProvider, Reply
from tests.integrations.clients.support import OPENED


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the clients that a test has made."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(Reply(text="Hello there", input_tokens=20, output_tokens=10)) as running:
        yield running
