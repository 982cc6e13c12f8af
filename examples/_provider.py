"""A provider on this machine in the place of api.openai.com: the examples need no API key and no network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from agents import set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

from budget_guard.testing import LocalProvider, Script


@contextmanager
def local_openai(script: Script) -> Generator[LocalProvider, None, None]:
    """Send every call of the block to a local provider that answers by *script*.

    This is all that an example needs to run offline. Your own code needs none of it.
    """
    with LocalProvider(script) as provider:
        client = AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0)
        set_default_openai_client(client, use_for_tracing=False)
        set_tracing_disabled(True)  # tracing would send data to OpenAI
        yield provider
