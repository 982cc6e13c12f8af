"""Whatever public method of an SDK is called: a guarded client sends nothing that is neither held nor free."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

import openai

from budget_guard import Budget, BudgetError
from tests.integrations.clients.walk import CLIENTS, Walk


@pytest.mark.parametrize("name", CLIENTS)
def test_every_public_method_is_held_free_or_refused(name: str) -> None:
    walk = Walk(name)
    walk.run()
    assert walk.wrong == []
    assert walk.session.reserved_usd == 0
    for what, least in {"held": 4, "free": 50, "refused": 30}.items():
        assert walk.sent_by[what] >= least
    assert walk.sent_by["nothing"] < 40


SOCKETS: dict[str, Callable[[Any], Any]] = {
    "realtime": lambda client: client.realtime.connect(model="m"),
    "realtime.translations": lambda client: client.realtime.translations.connect(model="m"),
    "beta.realtime": lambda client: client.beta.realtime.connect(model="m"),
    "responses": lambda client: client.responses.connect(),
    "beta.responses": lambda client: client.beta.responses.connect(),
    "live": lambda client: client.live.connect(),
    "live.sideband": lambda client: client.live.sideband.connect(session_id="x"),
    "live.forks": lambda client: client.live.forks.connect(session_id="x"),
}
AZURE = {"api_version": "2024-10-21", "azure_endpoint": "https://me.openai.azure.com"}


@pytest.mark.parametrize("clone", [False, True], ids=["itself", "clone"])
@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI", "AzureOpenAI", "AsyncAzureOpenAI"])
@pytest.mark.parametrize("socket_of", SOCKETS)
async def test_a_websocket_is_refused_before_anything_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, socket_of: str, kind: str, clone: bool
) -> None:
    touched: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: touched.append(asked))
    client: Any = getattr(openai, kind)(api_key="x", **(AZURE if "Azure" in kind else {}))
    client = Budget("$1").session().guard(client)
    if clone:
        client = client.with_options(timeout=3).copy()
    try:
        manager = SOCKETS[socket_of](client)
    except AttributeError:
        pytest.skip("this version has none")
    with pytest.raises(BudgetError, match="WebSocket"):
        if "Async" in kind:
            await manager.__aenter__()
        else:
            manager.__enter__()
    assert touched == []
