"""Calls every public method of an SDK's client, and sees what a guarded one sends.

By itself it prints the counts for the SDKs that are installed: ``python tests/integrations/clients/walk.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import openai

from budget_guard import Budget, BudgetError, Session
from budget_guard_clients.allow_list import is_free

MOST_REQUESTS = 3
ANSWER = {
    "id": "x",
    "object": "list",
    "data": [],
    "status": "completed",
    "processing_status": "ended",
    "has_more": False,
}
CLIENTS = ("OpenAI", "AsyncOpenAI", "AzureOpenAI", "Anthropic", "AsyncAnthropic")

GIVEN: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 10,
    "input": "Hi",
    "prompt": "Hi",
    "file": b"x",
    "files": [b"x"],
    "image": b"x",
    "data": b"x",
    "requests": [],
    "tools": [],
    "bytes": 1,
    "part_size": 1,
    "poll_interval": 0.0,
    "poll_interval_ms": 1,
    "texts": ["x"],
    "file_ids": ["x"],
}
"""Arguments that are more than a text."""
ALWAYS = ("max_tokens", "model", "messages", "input", "poll_interval")
"""Arguments that are given even where they may be left out."""


class TooMany(Exception):
    """A method goes on sending."""


class Walk:
    """One client, and what became of each request of its methods."""

    def __init__(self, name: str) -> None:
        self.session = Budget("$1000").session()
        self.sent_by: Counter[str] = Counter()
        """Methods by what they did: ``held``, ``free``, ``refused``, ``nothing``."""
        self.wrong: list[str] = []
        """What was sent and neither held nor free."""
        self.refused: set[str] = set()
        self.unsent: dict[str, str] = {}
        """Methods that sent nothing, and why."""
        self._requests = 0
        self._seen: set[str] = set()
        self.is_async = name.startswith("Async")
        sdk: Any = openai if "OpenAI" in name else anthropic
        self.model = "gpt-4o" if sdk is openai else "claude-haiku-4-5"
        self.speaks = sdk.__name__
        options: dict[str, Any] = {"api_key": "x", "max_retries": 0}
        if name.endswith("OpenAI") and "admin_api_key" in inspect.signature(sdk.OpenAI).parameters:
            options["admin_api_key"] = "x"
        if name == "AzureOpenAI":
            options |= {"api_version": "2024-10-21", "azure_endpoint": "https://me.openai.azure.com"}
        library = http_of(sdk)
        transport = library.MockTransport(self.answer)
        http = (library.AsyncClient if self.is_async else library.Client)(transport=transport)
        self.client = guarded(self.session, getattr(sdk, name)(**options, http_client=http))
        self.library = library

    def answer(self, request: Any) -> Any:
        """What the provider says. Notes what the guard made of the request."""
        self._requests += 1
        if self._requests > MOST_REQUESTS:
            raise TooMany
        url = request.url
        if self.session.reserved_usd > 0:
            self._seen.add("held")
        elif is_free(request.method, url.host, url.path, self.speaks):
            self._seen.add("free")
        else:
            self.wrong.append(f"{request.method} {url.path}")
        return self.library.Response(200, json=ANSWER)

    def run(self) -> None:
        """Call every method."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for path, method in methods_of(self.client):
                self._requests = 0
                self._seen = set()
                try:
                    self._call(method)
                except BudgetError:
                    self._seen.add("refused")
                    self.refused.add(path)
                except Exception as error:  # the answer is not what it expects, or an argument is not
                    if not self._seen:
                        self.unsent[path] = f"{type(error).__name__}: {error}"[:120]
                self.sent_by.update(self._seen or {"nothing"})

    def _call(self, method: Callable[..., Any]) -> None:
        arguments: dict[str, Any] = {}
        for name, parameter in inspect.signature(method).parameters.items():
            is_needed = parameter.default is inspect.Parameter.empty and parameter.kind in (
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                inspect.Parameter.KEYWORD_ONLY,
            )
            if is_needed or name in ALWAYS:
                arguments[name] = self._given(name)
        if self.is_async:
            asyncio.run(self._finish_async(method(**arguments)))
            return
        self._finish(method(**arguments))

    def _given(self, name: str) -> Any:
        return self.model if name == "model" else GIVEN.get(name, "x")

    def _finish(self, result: Any) -> None:
        if hasattr(result, "__enter__") and not hasattr(result, "http_response"):
            with result:
                return
        if inspect.isgenerator(result):
            next(result)

    async def _finish_async(self, result: Any) -> None:
        if hasattr(result, "__aenter__"):
            async with result:
                return
        if hasattr(result, "__await__"):
            await asyncio.wait_for(result, 10)


def guarded(session: Session, client: Any) -> Any:
    """A guarded copy."""
    return session.guard(client)


def http_of(sdk: Any) -> Any:
    """The HTTP library of an SDK."""
    client = sdk.OpenAI if sdk is openai else sdk.Anthropic
    http = client(api_key="x")._client
    return next(
        sys.modules[cls.__module__.partition(".")[0]]
        for cls in type(http).__mro__
        if cls.__module__.partition(".")[0] in ("httpx", "httpx2")
    )


def methods_of(client: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods of a client's resources, with the names that lead to them."""
    seen: set[type] = set()

    def walk(path: str, resource: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
        if type(resource) in seen:
            return
        seen.add(type(resource))
        for name in sorted(dir(type(resource))):
            if name.startswith("_") or name in ("with_streaming_response", "copy", "with_options", "close"):
                continue
            found: Any = None
            with suppress(Exception):
                found = getattr(resource, name)
            if found is None or isinstance(found, type):
                continue
            module = type(found).__module__
            if inspect.ismethod(found) or (callable(found) and path.endswith("with_raw_response")):
                if resource is not client:
                    yield f"{path}.{name}", found
            elif ".resources." in module or name == "with_raw_response":
                yield from walk(f"{path}.{name}", found)

    yield from walk(type(client).__name__, client)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for name in CLIENTS:
        one = Walk(name)
        one.run()
        version = openai.__version__ if "OpenAI" in name else anthropic.__version__
        print(f"{name} {version}: {dict(sorted(one.sent_by.items()))}; sent and not held: {one.wrong or 'nothing'}")
