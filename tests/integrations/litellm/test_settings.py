"""What the proxy's guard is started with: the environment, and a file."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from budget_guard.adapter import versions
from budget_guard_litellm.settings import ProxySettings, read_settings

FILE = """
run_budget = "$5.00"
ledger = "redis://localhost:6379/0"
ceiling = ["user=$20/day", "user=$300/month", "team=$1000"]
price = ["mine=2.5,10"]
model = ["prod-chat=gpt-4o"]
downgrade = "gpt-4o=gpt-4o-mini"
max_live_runs = ["key=20"]
max_wait = 3
max_output_tokens = 1_000
max_requests = "50"
mode = "soft_gate"
decisions_kept = 7
untold_usage = ["hosted_vllm", "ollama"]
passthrough = ["POST /v1/moderations"]
alternative = ["gpt-4o-mini"]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "budget.toml"
    path.write_text(FILE, "utf-8")
    return str(path)


def test_a_file_has_the_words_of_serve(file: str) -> None:
    settings = read_settings({"BUDGET_GUARD_CONFIG": file})

    budget = settings.run_budget
    assert (budget.max_cost_usd, budget.max_requests, budget.max_wait_s) == (Decimal(5), 50, 3)
    assert (budget.mode, budget.call_max_output_tokens, budget.clamp_output) == ("soft_gate", 1_000, "never")
    assert [each.window for each in settings.ceilings["user"]] == ["day", "month"]
    assert settings.ceilings["team"].max_cost_usd == 1_000
    assert settings.per_million == {"mine": (2.5, 10.0)}
    assert (settings.models, settings.max_live_runs) == ({"prod-chat": "gpt-4o"}, {"key": 20})
    assert settings.untold_usage == ["hosted_vllm", "ollama"]
    assert settings.decisions_kept_days == 7


def test_the_environment_wins_over_the_file(file: str) -> None:
    more = {"BUDGET_GUARD_RUN_BUDGET": "$1", "BUDGET_GUARD_CEILING": "key=$2/hour; user=$3", "BUDGET_GUARD_LEDGER": " "}

    settings = read_settings({"BUDGET_GUARD_CONFIG": file, "PATH": "/bin", **more})

    assert settings.run_budget.max_cost_usd == 1
    assert set(settings.ceilings) == {"key", "user"}
    assert settings.ledger == "redis://localhost:6379/0"  # what is empty says nothing


def test_variables_of_other_parts_are_no_settings() -> None:
    given = {"BUDGET_GUARD_RUN_BUDGET": "1", "BUDGET_GUARD_PRICES": "prices.json", "BUDGET_GUARD_ADMIN_TOKEN": "x" * 20}

    assert read_settings(given).run_budget.max_cost_usd == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "BUDGET_GUARD_RUN_BUDGET"),
        ({"RUN_BUDGET": "1", "CEILINGS": "user=$1"}, "did you mean 'ceiling'"),
        ({"RUN_BUDGET": "1", "COLOUR": "red"}, "use one of"),
        ({"RUN_BUDGET": "1", "CEILING": "user"}, "BUDGET_GUARD_CEILING 'user' must be NAME=VALUE"),
        ({"RUN_BUDGET": "1", "CEILING": "user=$1/fortnight"}, "fortnight"),
        ({"RUN_BUDGET": "1", "PRICE": "m=free"}, "BUDGET_GUARD_PRICE m=free"),
        ({"RUN_BUDGET": "1", "MODE": "hard"}, "BUDGET_GUARD_MODE='hard' is not known: use one of hard_gate"),
        ({"RUN_BUDGET": "1", "MAX_WAIT": "soon"}, "BUDGET_GUARD_MAX_WAIT='soon' must be a number"),
        ({"RUN_BUDGET": "1", "MAX_REQUESTS": "1.5"}, "BUDGET_GUARD_MAX_REQUESTS"),
        ({"RUN_BUDGET": "1;2"}, "must be one value"),
        ({"RUN_BUDGET": "1", "STATUS": "200"}, "status=200"),
        ({"RUN_BUDGET": "1", "DECISIONS_KEPT": "0"}, "decisions_kept must be above zero"),
        ({"RUN_BUDGET": "-1"}, "max_cost_usd"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_remedy(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        read_settings({f"BUDGET_GUARD_{name}": value for name, value in given.items()})

    assert said in str(error.value)


@pytest.mark.parametrize("text", ["run_budget = ", "run_budget = true", 'run_budget = ["1", ["2"]]'])
def test_a_file_that_cannot_be_read_says_which(text: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(text, "utf-8")

    with pytest.raises(ValueError, match=r"budget\.toml"):
        read_settings({"BUDGET_GUARD_CONFIG": str(path)})


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        read_settings({"BUDGET_GUARD_CONFIG": "/nowhere/budget.toml"})


def test_a_budget_is_all_that_has_to_be_said() -> None:
    settings = read_settings({"BUDGET_GUARD_RUN_BUDGET": "$1.00"})

    assert (settings.ledger, settings.exceeded_status, settings.ceilings) == ("memory://", 402, {})
    assert isinstance(settings, ProxySettings) and not settings.untold_usage


@pytest.mark.parametrize(
    ("found", "fits"), [("1.99.4", False), ("1.100.0", True), ("1.110.2", True), ("1.111.0", False)]
)
def test_a_version_of_litellm_that_was_not_tried_is_refused_with_the_range(
    found: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(name: str) -> str:
        if name != "litellm":
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(versions, "version", of)
    if fits:
        versions.require("litellm", "1.100", below="1.111")
        return
    with pytest.raises(ImportError, match=r'"litellm>=1\.100,<1\.111"'):
        versions.require("litellm", "1.100", below="1.111")
