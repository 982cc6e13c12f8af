"""What type checkers make of the gateway. Checked, never run."""

from __future__ import annotations

from typing_extensions import assert_type

from budget_guard import Budget
from budget_guard.integrations.gateway import Gateway, GatewaySettings, Upstream, add_key, serve, upstream_of


def run() -> None:
    settings = GatewaySettings(
        run_budget=Budget("$5.00"),
        upstreams=[
            Upstream(name="openai", url="https://api.openai.com"),
            upstream_of("groq=https://api.groq.com/openai"),
        ],
        ceilings={"user": Budget("$20.00", window="day")},
        pricing={"prod-chat": "gpt-4o", "my-model": (2.5e-6, 10e-6)},
    )
    assert_type(Gateway(settings), Gateway)
    assert_type(add_key("keys.toml", "alice", user="u1", models=["gpt-4o*"]), str)
    assert_type(serve(settings), None)
