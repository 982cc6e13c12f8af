"""Prices that a user gives: per token, per million, or as the name of a known model, wherever a session is opened."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, ModelCall, Session, Usage
from budget_guard.adapter.handle import SessionSettings
from budget_guard.estimate.prompt import weigh

USED = Usage(input=1_000, output=100)
PER_MILLION: Any = {"my-model": (2.5, 10)}


def cost_of(session: Session, model: str) -> Decimal:
    """What a small call to *model* costs in *session*."""
    call = ModelCall(model, weigh(messages=["x" * 5_000]), max_output_tokens=200)
    session.authorize(call).require().commit(USED)
    return session.spent_usd


def of_authority(**prices: Any) -> Session:
    return BudgetAuthority(ceilings={"user": Budget("$5")}).session(Budget("$1"), user="u1", **prices)


def of_settings(**prices: Any) -> Session:
    nobody: Any = {**dict.fromkeys(("authority", "user", "key", "team", "feature", "pricing")), **prices}
    return SessionSettings(**nobody).open(Budget("$1"))


def of_budget(**prices: Any) -> Session:
    return Budget("$1").session(**prices)


def by_itself(**prices: Any) -> Session:
    return Session(Budget("$1"), **prices)


def of_parent(**prices: Any) -> Session:
    return Budget("$2").session(**prices).child(Budget("$1"))


def of_priced_authority(**prices: Any) -> Session:
    return BudgetAuthority(**prices).session(Budget("$1"))


OPENERS: dict[str, Callable[..., Session]] = {
    "a budget": of_budget,
    "a session": by_itself,
    "a child": of_parent,
    "an authority": of_authority,
    "an authority's own": of_priced_authority,
    "the settings of a guard": of_settings,
}


@pytest.mark.parametrize("opened_by", OPENERS)
def test_a_price_per_million_is_that_price_of_each_token(opened_by: str) -> None:
    assert cost_of(OPENERS[opened_by](per_million=PER_MILLION), "my-model") == Decimal("0.0035")


@pytest.mark.parametrize("opened_by", OPENERS)
def test_a_deployment_has_the_prices_of_the_model_behind_it(opened_by: str) -> None:
    session = OPENERS[opened_by](pricing={"prod-chat": "gpt-4o"})

    assert cost_of(session, "prod-chat") == cost_of(Budget("$1").session(), "gpt-4o")


@pytest.mark.parametrize("opened_by", OPENERS)
def test_a_price_per_million_given_per_token_is_refused_when_it_is_given(opened_by: str) -> None:
    with pytest.raises(ValueError, match=r"more than \$0\.01 a token.*per_million="):
        OPENERS[opened_by](pricing=PER_MILLION)


@pytest.mark.parametrize("opened_by", OPENERS)
def test_an_alias_to_an_unknown_model_is_refused_when_it_is_given(opened_by: str) -> None:
    with pytest.raises(ValueError, match=r"pricing\['prod-chat'\]='gpt-4oo'.*did you mean 'gpt-4o'"):
        OPENERS[opened_by](pricing={"prod-chat": "gpt-4oo"})


def test_a_session_has_its_own_price_before_that_of_its_authority() -> None:
    authority = BudgetAuthority(pricing={"my-model": (1e-6, 1e-6)})

    assert cost_of(authority.session(Budget("$1"), per_million=PER_MILLION), "my-model") == Decimal("0.0035")
    assert cost_of(authority.session(Budget("$1")), "my-model") == Decimal("0.0011")
