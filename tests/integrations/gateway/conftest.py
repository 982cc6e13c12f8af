"""A provider that takes a dime a call, and a gateway in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from budget_guard.testing import LocalProvider, Reply

if TYPE_CHECKING:
    from tests.integrations.gateway.support import Asking

_NEEDED = ("aiohttp", "anthropic", "httpx", "jsonschema", "openai", "redis", "uvicorn")
collect_ignore_glob = [] if all(map(find_spec, _NEEDED)) else ["test_*.py"]


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    from tests.integrations.gateway.support import RATES

    reply = Reply(text="x " * 16, input_tokens=5, output_tokens=16, chunks=4)
    with LocalProvider(lambda _: reply, prices=RATES) as running:
        yield running


@pytest.fixture
def asking(provider: LocalProvider) -> Iterator[Asking]:
    from tests.integrations.gateway.support import gateway

    with gateway(provider) as served:
        yield served
