"""LiteLLM's proxy with the guard is an implementation of the Agent Budget Protocol, as far as calls are passed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from budget_guard.testing import LocalProvider
from budget_guard.testing.protocol import PRICES, Check, Target, checks_for, new_provider, perform
from tests.integrations.litellm.support import AUTHENTICATION, deployment, proxy

LITELLMS_OWN = {
    "answers_are_untouched": "LiteLLM reads every answer, and writes it anew: ids, and fields that nobody sent",
    "each_attempt_is_held_by_itself": "LiteLLM passes no Idempotency-Key on",
}
"""What its proxy does not do, guarded or not."""
CHECKS = [each for each in checks_for(Target(url="", profiles=frozenset({"proxy"}))) if each.name not in LITELLMS_OWN]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, LocalProvider]]:
    folder: Path = tmp_path_factory.mktemp("conformance")
    (folder / "who.py").write_text(AUTHENTICATION, "utf-8")
    with new_provider() as provider:
        told = ";".join(f"{model}={given},{made}" for model, (given, made) in PRICES.items())
        environment = {
            "BUDGET_GUARD_PRICE": told,
            "BUDGET_GUARD_LEDGER": f"sqlite:///{folder}/budget.db",
            "BUDGET_GUARD_ALTERNATIVE": "cheap",
        }
        models = [deployment(name, provider) for name in (*PRICES, "nobody-knows-its-price")]
        with proxy(folder, models, environment=environment, general={"custom_auth": "who.known"}) as running:
            yield (
                Target(
                    url=running.url,
                    key="sk-alice",
                    other_key="sk-bob",
                    secrets=["key-of-alice", "alice"],
                    profiles=frozenset({"proxy"}),
                ),
                provider,
            )


@pytest.mark.parametrize("check", CHECKS, ids=lambda each: each.name)
def test_a_check_of_the_protocol_is_passed(check: Check, service: tuple[Target, LocalProvider]) -> None:
    target, provider = service
    outcome = perform(check, target, provider)

    assert outcome.passed, str(outcome)
