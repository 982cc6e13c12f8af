"""A provider on this machine in the place of the real ones: the examples need no API key and no network.

This is all that an example needs to run offline. Your own code needs none of it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

from budget_guard.testing import LocalProvider, Rates, Script


@contextmanager
def local_provider(
    script: Script, *, prices: Mapping[str, Rates] | None = None
) -> Generator[LocalProvider, None, None]:
    """Send every call of the block to a local provider that answers by *script*, at its own prices and *prices*.

    The clients of OpenAI and Anthropic, and so LangChain's models, look into the environment for where to send it.
    """
    with LocalProvider(script, prices=prices) as provider:
        here = {
            "OPENAI_BASE_URL": provider.base_url,
            "ANTHROPIC_BASE_URL": provider.anthropic_base_url,
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_API_KEY": "none",
        }
        with patch.dict(os.environ, here):
            yield provider


@contextmanager
def local_openai(script: Script) -> Generator[LocalProvider, None, None]:
    """`local_provider` for the OpenAI Agents SDK."""
    from agents import set_default_openai_client, set_tracing_disabled
    from openai import AsyncOpenAI

    with local_provider(script) as provider:
        set_default_openai_client(AsyncOpenAI(max_retries=0), use_for_tracing=False)
        set_tracing_disabled(True)  # tracing would send data to OpenAI
        yield provider
