"""The cheaper models that a refusal names: each of them passes if it is asked for next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from budget_guard import Budget, UnknownPriceError
from budget_guard.integrations.gateway import GatewaySettings, Upstream, add_key
from budget_guard.protocol import problem_schema
from budget_guard.testing import LocalProvider, Reply
from budget_guard_gateway.state import prices_of
from tests.integrations.gateway.support import MESSAGES, PRICES, RATES, WIRES, Asking, asked, gateway

# dollars a million tokens of output: what is asked for costs 6,250
_OUTPUT = {"cheap": 625, "mute": 600, "dearer": 7_000}
_CAPABLE = {"dime": ["tools", "json_schema"], "cheap": ["tools"], "mute": [], "dearer": ["tools", "json_schema"]}
PRICING: Any = {
    name: {"input": 0, "output": _OUTPUT.get(name, 6_250) / 1e6, "capabilities": able, "context_window": 8_000}
    for name, able in _CAPABLE.items()
}
OTHERS = ("dearer", "mute", "cheap", "dime")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def any_model() -> Iterator[LocalProvider]:
    """A provider that serves all of them."""
    rates = RATES | dict.fromkeys(("mute", "dearer", "prod-mini"), RATES["cheap"])
    with LocalProvider(lambda _: Reply(input_tokens=5, output_tokens=16), prices=rates) as provider:
        yield provider


def refused(asking: Asking, wire: str = "chat", **options: Any) -> tuple[Any, list[str]]:
    answer = asking.ask(wire, **options)
    document = answer.json()
    assert answer.status_code == 402, document
    jsonschema.Draft202012Validator(problem_schema()).validate(document)
    return document, [each["model"] for each in document["alternatives"]]


@pytest.mark.parametrize("wire", WIRES)
def test_each_that_fits_passes_if_it_is_asked_for_next(any_model: LocalProvider, wire: str) -> None:
    with gateway(any_model, "$0.25", pricing=PRICING, per_million=None, alternatives=OTHERS) as asking:
        for _ in range(2):
            asking.ask(wire)
        document, models = refused(asking, wire)
        assert document["code"] == "run_ceiling_reached" and models == ["mute", "cheap"]
        assert document["alternatives"][1] == {
            "model": "cheap",
            "estimate_usd": "0.01",
            "fits_budget": True,
            "supports_tools": True,
            "supports_json_schema": False,
            "context_window_tokens": 8_000,
        }
        for each in document["alternatives"]:
            path, body = asked(wire)
            path = path.replace("dime", each["model"])
            body = body | ({"model": each["model"]} if "model" in body else {})
            answer = asking.http.post(path, json=body, headers={"authorization": "Bearer anybody", "x-run-id": "r1"})
            assert answer.status_code == 200 and answer.headers["x-budget-decision"] == "allow"
        assert len(any_model.calls) == 4


def test_what_a_call_needs_each_of_them_has_and_an_empty_list_is_there_too(any_model: LocalProvider) -> None:
    with gateway(any_model, "$0.05", pricing=PRICING, per_million=None, alternatives=OTHERS) as asking:
        assert refused(asking, tools=[TOOL])[1] == ["cheap"]
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        document, models = refused(asking, response_format=schema)
        assert models == [] and document["alternatives"] == []
        assert refused(asking)[1] == ["mute", "cheap"] and not any_model.calls
        # one that does not fit either is named as such
        document, models = refused(asking, max_tokens=100)
        assert [each["fits_budget"] for each in document["alternatives"]] == [False, False]


def test_other_refusals_than_those_of_money_name_none(any_model: LocalProvider) -> None:
    budget = Budget("$1.00", max_requests=1)
    with gateway(any_model, budget, pricing=PRICING, per_million=None, alternatives=OTHERS) as asking:
        asking.ask()
        document, models = refused(asking)
        assert (document["code"], models) == ("run_max_requests_reached", [])


def test_a_key_is_named_only_what_it_may_ask_for(any_model: LocalProvider, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    some = add_key(keys, "some", user="u1", models=["dime", "m*", "cheap"])
    other = add_key(keys, "other", user="u2", models=["d*"])
    settings = {"pricing": PRICING, "per_million": None, "keys": str(keys)}
    with gateway(any_model, "$0.05", **settings) as asking:
        assert refused(asking, token=some)[1] == ["cheap"]  # by its whole name
        assert refused(asking, token=other, run="r2")[1] == []
    with gateway(any_model, "$0.05", alternatives=["mute"], **settings) as asking:
        assert refused(asking, token=some)[1] == ["mute", "cheap"]
        assert refused(asking, token=other, run="r2")[1] == []


def test_the_targets_of_a_downgrade_come_first(any_model: LocalProvider) -> None:
    budget = Budget("$0.0099", downgrade={"dime": "cheap"})
    with gateway(any_model, budget, pricing=PRICING, per_million=None, alternatives=["mute"]) as asking:
        document, models = refused(asking)
        assert models == ["cheap", "mute"]
        assert [each["fits_budget"] for each in document["alternatives"]] == [False, True]


def test_a_model_behind_a_name_of_ones_own_is_named_by_it(any_model: LocalProvider) -> None:
    models = {"prod-mini": "cheap"}
    with gateway(any_model, "$0.05", models=models, alternatives=["prod-mini"]) as asking:
        assert refused(asking)[1] == ["prod-mini"]
        assert asking.ask(model="prod-mini").status_code == 200
    with gateway(any_model, Budget("$0.05", downgrade={"dime": "cheap"}, max_requests=1), models=models) as asking:
        assert refused(asking, max_tokens=999)[1] == ["prod-mini"]


def test_openais_client_can_go_on_with_one_of_them(any_model: LocalProvider) -> None:
    with gateway(any_model, "$0.05", alternatives=["cheap"]) as asking:
        client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="bg-1", default_headers={"X-Run-Id": "sdk"})
        ask: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 16}
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="dime", **ask)
        fitting = [each["model"] for each in caught.value.response.json()["alternatives"] if each["fits_budget"]]
        assert client.chat.completions.create(model=fitting[0], **ask).choices
        client.close()


def test_one_without_a_price_is_refused_at_the_start() -> None:
    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    settings = GatewaySettings(run_budget=Budget("$1"), upstreams=upstreams, alternatives=["nope-9"])
    with pytest.raises(UnknownPriceError, match="nope-9"):
        prices_of(settings)
    aliased = GatewaySettings(
        run_budget=Budget("$1"), upstreams=upstreams, alternatives=["x"], models={"x": "cheap"}, per_million=PRICES
    )
    assert prices_of(aliased).find("cheap")
