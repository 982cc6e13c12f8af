"""A provider that takes a dime a call, and a gateway in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway.support import RATES, Asking, gateway


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    reply = Reply(text="x " * 16, input_tokens=5, output_tokens=16, chunks=4)
    with LocalProvider(lambda _: reply, prices=RATES) as running:
        yield running


@pytest.fixture
def asking(provider: LocalProvider) -> Iterator[Asking]:
    with gateway(provider) as served:
        yield served
