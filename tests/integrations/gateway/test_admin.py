"""The admin API: who may ask, what it says, what it changes, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("aiohttp")

import jsonschema

from budget_guard import Budget, BudgetAuthority
from budget_guard.integrations.gateway import GatewaySettings, Upstream, add_key
from budget_guard.testing import FakeClock, LocalProvider, Reply
from budget_guard_gateway.admin.access import Access, cookie_of
from budget_guard_gateway.admin.app import Admin
from budget_guard_gateway.admin.openapi import openapi
from budget_guard_gateway.admin.operations import OPERATIONS
from budget_guard_gateway.command import main, settings_of
from budget_guard_gateway.decisions import Row, Wanted, open_store
from tests.integrations.gateway.support import RATES, Asking, administered, gateway
from tests.integrations.gateway.test_processes import ask_all, served
from tests.ledger.redis_server import BINARY, RedisServer

SECRET = "a-token-of-operators"
ADMIN: dict[str, Any] = {"admin": "127.0.0.1:0", "admin_token": SECRET}
DAY = Budget("$2.00", window="day")
PLANS = {"pro": {"user": Budget("$3.00", window="day")}, "team": {"team": Budget("$9.00")}}
WHO = "token-bcb9333252569ce8"
"""Whom the token ``anybody`` is taken for."""


@pytest.fixture
def asking(provider: LocalProvider) -> Iterator[Asking]:
    with gateway(provider, ceilings={"user": DAY}, plans=PLANS, **ADMIN) as served:
        yield served


@pytest.fixture
def admin(asking: Asking) -> Iterator[httpx.Client]:
    with administered(asking) as http:
        http.headers["authorization"] = f"Bearer {SECRET}"
        yield http


@pytest.fixture(scope="module")
def office() -> Iterator[httpx.Client]:
    """The admin port of a gateway that nobody calls."""
    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    with (
        gateway(None, upstreams=upstreams, ceilings={"user": DAY}, plans=PLANS, **ADMIN) as served,
        administered(served) as http,
    ):
        http.headers["authorization"] = f"Bearer {SECRET}"
        yield http


def told(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    assert answer.headers["content-type"] == "application/json" and answer.headers["cache-control"] == "no-store"
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"], answer.json()["detail"]


# Who may ask


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", f"Basic {SECRET}", f"Bearer {SECRET}x"])
def test_without_the_token_nothing_is_told(office: httpx.Client, given: str | None) -> None:
    for method, path in (("GET", "/budget/runs"), ("POST", f"/budget/user/{WHO}/revoke"), ("GET", "/nowhere")):
        answer = office.request(method, path, headers={"authorization": given or ""})
        assert refusal(answer)[:2] == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_pages_of_others_and_other_names_are_not_served(office: httpx.Client) -> None:
    assert refusal(office.get("/budget/runs", headers={"origin": "http://evil.example"}))[1] == "browser_refused"
    assert refusal(office.get("/budget/runs", headers={"origin": "null"}))[1] == "browser_refused"
    assert refusal(office.get("/budget/runs", headers={"host": "evil.example"}))[1] == "misdirected_request"
    own = str(office.base_url).rstrip("/")
    assert told(office.get("/budget/runs", headers={"origin": own})) == {"ids": [], "next": None}


def test_callers_keys_are_no_operators_and_operators_are_no_callers(asking: Asking, admin: httpx.Client) -> None:
    assert asking.http.get("/budget/keys", headers={"authorization": f"Bearer {SECRET}"}).status_code == 404
    assert refusal(admin.get("/budget/runs", headers={"authorization": "Bearer anybody"}))[0] == 401


def test_a_log_in_lasts_for_twelve_hours_and_is_of_one_token() -> None:
    clock = FakeClock()
    access = Access(SECRET, clock)
    cookie = access.begin()
    assert access.is_session(cookie) and access.is_token(SECRET) and not access.is_token(None)
    assert not Access("another-token", clock).is_session(cookie)
    for odd in (None, "", "1", "1.2", "x." + cookie, cookie + "0", "9" + cookie, "é.é"):
        assert not access.is_session(odd)
    form = access.form_token(cookie)
    assert access.is_form_token(form, cookie)
    assert not access.is_form_token(form, access.begin() + "0") and not access.is_form_token("é", cookie)
    clock.advance(12 * 3_600 + 1)
    assert not access.is_session(cookie)
    assert cookie_of(b"a=b; budget_guard_admin=x.y; c") == "x.y" and cookie_of(None) is None


# What the address and the token may be


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"admin": "0.0.0.0:1"}, "can be reached from elsewhere"),
        ({"admin": "4001"}, "must be an address and a port"),
        ({"admin": "127.0.0.1"}, "must be an address and a port"),
        ({"admin": "127.0.0.1:x"}, "must be an address and a port"),
        ({"admin": "127.0.0.1:70000"}, "must be an address and a port"),
        ({"admin": "nowhere.example:1"}, "must be an address and a port"),
        ({"admin": "127.0.0.1:1", "admin_token": "short"}, "8 characters"),
        ({"admin": "127.0.0.1:1", "admin_token": "with a space in it"}, "no space"),
    ],
)
def test_an_address_or_token_that_would_not_hold_is_refused(given: dict[str, Any], words: str) -> None:
    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    with pytest.raises(ValueError, match=words) as refused:
        GatewaySettings(run_budget=Budget(1), upstreams=upstreams, **given)
    assert given.get("admin_token", "?") not in str(refused.value)


def test_an_address_is_taken_with_a_token_or_on_this_machine() -> None:
    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    for given in ({"admin": "0.0.0.0:1", "admin_token": SECRET}, {"admin": "[::1]:1"}, {"admin": "localhost:1"}):
        settings = GatewaySettings(run_budget=Budget(1), upstreams=upstreams, **given)  # type: ignore[arg-type]  # texts
        assert SECRET not in repr(settings)
    with pytest.raises(ValueError, match="names no address"):
        Admin(_Services(GatewaySettings(run_budget=Budget(1), upstreams=upstreams)))  # type: ignore[arg-type]  # enough


class _Services:
    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings


def typed(*more: str) -> GatewaySettings:
    """The settings of a command line."""
    import argparse

    from budget_guard_gateway.command import add_commands

    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    start = ["serve", "--run-budget", "$1", "--upstream", "openai=https://api.openai.com", *more]
    return settings_of(parser.parse_args(start))


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    monkeypatch.setenv("BUDGET_GUARD_ADMIN_TOKEN", "of-the-environment")
    assert typed().admin_token is None
    assert typed("--admin", "127.0.0.1:1").admin_token == "of-the-environment"
    assert typed("--admin", "127.0.0.1:1", "--admin-token-file", str(file)).admin_token == "of-the-file"
    file.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        typed("--admin", "127.0.0.1:1", "--admin-token-file", str(file))
    monkeypatch.delenv("BUDGET_GUARD_ADMIN_TOKEN")
    assert typed("--admin", "127.0.0.1:1").admin_token is None


def test_plans_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    plans = typed("--plan", "pro:user=$50/day", "--plan", "pro:user=$500/month", "--plan", "free:key=$1").plans
    assert plans is not None and list(plans) == ["pro", "free"]
    assert [each.window for each in plans["pro"]["user"]] == ["day", "month"]
    assert plans["free"]["key"].max_cost_usd == 1
    assert main(["serve", "--run-budget", "$1", "--plan", "user=$1"]) == 2
    assert "must be NAME:KIND=DOLLARS" in capsys.readouterr().err


# What it says and changes


def test_a_ceiling_is_set_shown_and_taken_away_at_once(asking: Asking, admin: httpx.Client) -> None:
    path = f"/budget/ceilings/user/{WHO}"
    kind = [{"max_cost_usd": "2", "window": "day"}]
    assert told(admin.get("/budget/ceilings")) == {"ceilings": {"user": kind}}
    assert asking.ask().status_code == 200
    assert told(admin.get(path)) == {"kind": "user", "id": WHO, "own": None, "holds": kind, "plan": None}

    own = [{"max_cost_usd": "0.15", "max_requests": 9, "window": "day"}]
    given = {"max_cost_usd": 0.15, "max_requests": 9, "window": "day"}
    assert told(admin.put(path, json=given)) == {"kind": "user", "id": WHO, "own": own, "holds": own, "plan": None}
    assert asking.ask(run="r2").json()["code"] == "user_ceiling_reached"
    assert told(admin.get(f"/budget/user/{WHO}"))["remaining_usd"] == "0.05"

    assert told(admin.delete(path))["own"] is None
    assert asking.ask(run="r2").status_code == 200


def test_a_plan_is_assigned_and_taken_away(asking: Asking, admin: httpx.Client) -> None:
    path = f"/budget/plans/user/{WHO}"
    assert told(admin.get("/budget/plans"))["plans"]["pro"] == {"user": [{"max_cost_usd": "3", "window": "day"}]}
    assert told(admin.put(path, json={"plan": "pro"}))["plan"] == "pro"
    assert told(admin.get(path))["plan"] == "pro"
    assert asking.gateway.authority.snapshot("user", WHO).limits["max_cost_usd"] == 3
    for plan in ("free", "team", 3, ["pro"]):
        status, code, words = refusal(admin.put(path, json={"plan": plan}))
        assert (status, code) == (400, "invalid_request") and "those are 'pro'" in words
    assert told(admin.delete(path))["plan"] is None
    assert asking.gateway.authority.snapshot("user", WHO).limits["max_cost_usd"] == 2


def test_whoever_is_revoked_calls_no_more_until_restored(
    asking: Asking, admin: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, id in (("run", "r1"), ("user", WHO), ("key", WHO)):
        assert asking.ask().status_code == 200
        found = told(admin.post(f"/budget/{kind}/{id}/revoke", json={"reason": " leaked "}))
        assert (found["revoked"], found["revoked_reason"]) == (True, "leaked")
        refused = asking.ask()
        assert refused.status_code == 403 and "leaked" in refused.json()["detail"]
        restored = {"kind": kind, "id": id, "restored": True}
        assert told(admin.post(f"/budget/{kind}/{id}/restore", json={"reason": "a mistake"})) == restored
        assert told(admin.post(f"/budget/{kind}/{id}/restore")) == {**restored, "restored": False}
    assert asking.ask().status_code == 200
    words = [record.getMessage() for record in caplog.records]
    assert "budget_guard admin: run:r1 is restored: a mistake" in words
    for body in (None, {}, {"reason": ""}, {"reason": "  "}, {"reason": 3}, {"reason": "x" * 1_001}):
        assert refusal(admin.post(f"/budget/user/{WHO}/revoke", json=body))[1] == "invalid_request"


def test_a_reason_that_no_store_can_keep_is_kept_escaped(provider: LocalProvider, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with gateway(provider, ledger=ledger, ceilings={"user": DAY}, **ADMIN) as asking, administered(asking) as admin:
        headers = {"authorization": f"Bearer {SECRET}"}
        body = b'{"reason": "half of \\ud83d"}'
        found = told(admin.post(f"/budget/user/{WHO}/revoke", content=body, headers=headers))
    assert found["revoked_reason"] == "half of \\ud83d"


def test_usage_is_told_by_what_is_asked_for(asking: Asking, admin: httpx.Client) -> None:
    for run in ("a", "b"):
        asking.ask(run=run)
    asking.ask(run="b", token="somebody")
    (row,) = told(admin.get("/budget/usage", params={"kind": "user", "id": WHO, "by": "model"}))["rows"]
    assert (row["model"], row["cost_usd"], row["calls"], row["output_tokens"]) == ("dime", "0.2", 2, 32)
    (whole,) = told(admin.get("/budget/usage", params={"kind": "user", "since": "2020-01-01"}))["rows"]
    assert (len(whole["day"]), whole["cost_usd"]) == (10, "0.2")
    assert told(admin.get("/budget/usage", params={"kind": "user", "until": "2020-01-01T00:00:00Z"}))["rows"] == []
    (most,) = told(admin.get("/budget/top", params={"kind": "user", "n": 1}))["rows"]
    assert (most["id"], most["cost_usd"]) == (WHO, "0.2")
    assert told(admin.get("/budget/runs", params={"n": 1})) == {"ids": ["a"], "next": "a"}
    assert told(admin.get("/budget/runs", params={"after": "a"})) == {"ids": ["b"], "next": None}
    assert told(admin.get("/budget/list", params={"kind": "key", "prefix": "token-"}))["ids"] == [WHO]


def test_a_run_is_told_of_with_its_course(asking: Asking, admin: httpx.Client) -> None:
    for _ in range(12):
        asking.ask()
    report = told(admin.get("/budget/runs/r1"))
    assert (report["total_spent"], report["terminated_by"]) == ("1", "max_cost_usd")
    assert report["breakdown"]["llm"]["by_model"]["dime"]["calls"] == 10
    asyncio.run_coroutine_threadsafe(asking.gateway.runs.close(), asking.loop).result(5)  # as in another process
    told_later = told(admin.get("/budget/runs/r1"))
    assert (told_later["total_spent"], told_later["terminated_by"]) == ("1", "run_ceiling_reached")
    assert [point[1] for point in told_later["over_time"]] == [n * 10**8 for n in range(1, 11)]
    assert [mark["event"] for mark in told_later["marks"]] == ["CallBlocked"]
    assert told_later["tags"] == {"user": WHO, "key": WHO}
    assert refusal(admin.get("/budget/runs/r2"))[0] == 404
    assert told(admin.get("/budget/run/r1"))["spent_usd"] == "1"
    assert refusal(admin.get("/budget/run/r2"))[0] == 404


def test_keys_are_made_listed_and_revoked(provider: LocalProvider, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    add_key(file, "alice", user="u1", models=["dim*"])
    with gateway(provider, keys=str(file), ceilings={"user": DAY}, **ADMIN) as asking, administered(asking) as http:
        http.headers["authorization"] = f"Bearer {SECRET}"
        plain: dict[str, Any] = {"user": None, "team": None, "feature": None, "models": [], "run_budget": None}
        alice = {**plain, "name": "alice", "user": "u1", "models": ["dim*"]}
        assert told(http.get("/budget/keys")) == {"keys": [alice]}
        made = http.post("/budget/keys", json={"name": "bob", "user": "u2", "run_budget": "$0.25"})
        assert made.status_code == 201
        key = told(made)["key"]
        assert key.startswith("bg-") and key not in file.read_text()
        assert told(http.get("/budget/keys"))["keys"][1] == {
            **plain,
            "name": "bob",
            "user": "u2",
            "run_budget": "$0.25",
        }
        for given, words in (
            ({"name": "bob", "user": "u2"}, "there already"),
            ({"name": "carl"}, "under none of the ceilings"),
            ({"name": "../x", "user": "u2"}, "for a name"),
            ({"name": "carl", "user": 3}, "must be a text"),
            ({"name": "carl", "user": "u2", "models": "gpt"}, "list of patterns"),
            ({"name": "carl", "user": "u2", "run_budget": "much"}, "run_budget"),
            ({"name": "carl", "user": "u2", "sha256": "0"}, "is not known"),
            ({"name": 3, "user": "u2"}, "must be a text"),
        ):
            status, _, said = refusal(http.post("/budget/keys", json=given))
            assert status == 400 and words in said
        assert told(http.delete("/budget/keys/bob")) == {"name": "bob", "revoked": True}
        assert refusal(http.delete("/budget/keys/bob"))[0] == 404
        file.write_text("[keys", "utf-8")
        for method, path in (("GET", "/budget/keys"), ("DELETE", "/budget/keys/alice")):
            status, _, said = refusal(http.request(method, path))
            assert status == 400 and "is no TOML" in said
        file.unlink()
        status, _, said = refusal(http.get("/budget/keys"))
        assert status == 500 and "The file of keys cannot be read" in said


# What it refuses


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/nowhere", None, 404, "openapi.json"),
        ("GET", "/budget/usr/u1", None, 404, "the kinds are run, user, key, team, agent"),
        ("PATCH", "/budget/user/u1", None, 405, "GET"),
        ("GET", "/budget/usage", None, 400, "kind is missing"),
        ("GET", "/budget/usage?kind=usr", None, 400, "use one of run, user"),
        ("GET", "/budget/usage?kind=user&kind=key", None, 400, "more than once"),
        ("GET", "/budget/usage?kidn=user", None, 400, "did you mean kind"),
        ("GET", "/budget/usage?kind=user&by=week", None, 400, "'week' is not known"),
        ("GET", "/budget/usage?kind=user&id=", None, 400, "says nothing"),
        ("GET", "/budget/usage?kind=user&since=yesterday", None, 400, "such as 2026-11-01"),
        ("GET", "/budget/usage?kind=user&since=2026-11-01T00:00:00", None, 400, "with its zone"),
        ("GET", "/budget/usage?kind=user&since=2026-11-02&until=2026-11-01", None, 400, "is before since"),
        ("GET", "/budget/top?kind=user&n=0", None, 400, "from 1 to 1000"),
        ("GET", "/budget/decisions?action=deny", None, 400, "use one of allow"),
        ("GET", "/budget/decisions?id=u1", None, 400, "needs its kind"),
        ("GET", "/budget/decisions?before=x", None, 400, "no decision's id"),
        ("GET", "/budget/decisions/01a228e4ba66-ddcf2e1b497f-1", None, 404, "no longer kept"),
        ("GET", "/budget/user/u1?window=1", None, 400, "from -10000 to 0"),
        ("GET", "/budget/key/k1?window=-1", None, 400, "no window that begins anew"),
        ("GET", "/budget/usage?kind=user&since=0001-01-01T00:00:00%2B01:00", None, 400, "such as 2026-11-01"),
        ("GET", "/budget/top?kind=user&until=9999-12-31T23:59:59-01:00", None, 400, "such as 2026-11-01"),
        ("GET", "/budget/keys", None, 404, "no file of keys"),
        ("PUT", "/budget/ceilings/run/r1", {"max_cost_usd": 1}, 400, "budget that it was started with"),
        ("PUT", "/budget/ceilings/user/u1", {}, 400, "limit"),
        ("PUT", "/budget/ceilings/user/u1", {"max_cost_usd": "much"}, 400, "max_cost_usd='much'"),
        ("PUT", "/budget/ceilings/user/u1", {"max_cost_usd": -1}, 400, "max_cost_usd=-1"),
        ("PUT", "/budget/ceilings/user/u1", {"max_cost_usd": True}, 400, "max_cost_usd=True"),
        ("PUT", "/budget/ceilings/user/u1", {"max_cost": 1}, 400, "did you mean max_cost_usd"),
        ("PUT", "/budget/ceilings/user/u1", {"max_cost_usd": 1, "window": "year"}, 400, "window"),
        ("PUT", "/budget/ceilings/user/u1", {"windows": []}, 400, "must be a list"),
        ("PUT", "/budget/ceilings/user/u1", {"windows": [3]}, 400, "must be an object"),
        ("PUT", "/budget/ceilings/user/u1", {"windows": [{"max_cost_usd": 1}], "window": "day"}, 400, "not both"),
        ("PUT", "/budget/ceilings/user/" + "u" * 513, {"max_cost_usd": 1}, 400, "1 to 512"),
        ("PUT", "/budget/ceilings/user/", {"max_cost_usd": 1}, 400, "1 to 512"),
        ("PUT", "/budget/ceilings/user/u1", [1], 400, "no JSON object"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    office: httpx.Client, method: str, path: str, body: Any, status: int, words: str
) -> None:
    refused = refusal(office.request(method, path, json=body))
    assert refused[0] == status and words in refused[2]


def test_two_ceilings_of_one_window_and_windows_that_nobody_counts_are_refused(office: httpx.Client) -> None:
    for windows, words in (
        ([{"max_cost_usd": 1, "window": "day"}, {"max_cost_usd": 2, "window": "day"}], "two budgets"),
        ([{"max_cost_usd": 1, "window": "day"}, {"max_cost_usd": 2, "window": "month"}], "none in which"),
    ):
        assert words in refusal(office.put("/budget/ceilings/user/u1", json={"windows": windows}))[2]


def test_bodies_that_are_no_json_or_too_large_are_refused(office: httpx.Client) -> None:
    path = "/budget/ceilings/user/u1"
    for data in (b"{", b"\xff", b"[" * 20_000, b'{"max_cost_usd": NaN}', b'{"max_cost_usd": Infinity}'):
        assert refusal(office.put(path, content=data))[0] == 400
    assert refusal(office.put(path, content=b" " * 100_001))[0] == 413


def test_names_of_any_kind_are_names_and_nothing_else(office: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a%2Fb", "%2e%2e%2F%2e%2e", "a%0Ab", "%E2%80%AE", "a%00b", "%22%3Cscript%3E"):
        caplog.clear()
        path = f"/budget/ceilings/user/{name}"
        raw = office.build_request("PUT", path, json={"max_cost_usd": 1, "window": "day"})
        raw.url = raw.url.copy_with(raw_path=path.encode())
        answer = office.send(raw)
        found = told(answer)
        assert found["holds"] == [{"max_cost_usd": "1", "window": "day"}]
        assert all("\n" not in record.getMessage() for record in caplog.records)
    assert len(told(office.get("/budget/list?kind=user"))["ids"]) == 6


def test_a_ledger_that_is_down_is_a_503(
    asking: Asking, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from budget_guard import LedgerUnavailable

    async def down(*_: object, **__: object) -> Any:
        raise LedgerUnavailable(detail="down")

    monkeypatch.setattr(asking.gateway.authority, "asnapshot", down)
    assert refusal(admin.get(f"/budget/user/{WHO}"))[:2] == (503, "ledger_unavailable")

    async def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(asking.gateway.authority, "asnapshot", broken)
    with caplog.at_level(logging.ERROR):
        answer = admin.get(f"/budget/user/{WHO}")
    assert refusal(answer)[:2] == (500, "internal") and "secret" not in answer.text


# Its description

EXAMPLES: dict[str, tuple[str, Any]] = {
    "set_ceiling": ("/budget/ceilings/user/u1", {"max_cost_usd": "5", "window": "day"}),
    "ceiling": ("/budget/ceilings/user/u1", None),
    "take_ceiling": ("/budget/ceilings/user/u1", None),
    "ceilings": ("/budget/ceilings", None),
    "plans": ("/budget/plans", None),
    "assign": ("/budget/plans/user/u1", {"plan": "pro"}),
    "plan": ("/budget/plans/user/u1", None),
    "unassign": ("/budget/plans/user/u1", None),
    "usage": ("/budget/usage?kind=user&by=id,day,model,feature", None),
    "top": ("/budget/top?kind=user", None),
    "ids": ("/budget/list?kind=user", None),
    "decisions": ("/budget/decisions?n=5", None),
    "decision": ("/budget/decisions/{id}", None),
    "runs": ("/budget/runs", None),
    "run_report": ("/budget/runs/r1", None),
    "look": ("/budget/user/u1?window=-1", None),
    "revoke": ("/budget/user/u1/revoke", {"reason": "x"}),
    "restore": ("/budget/user/u1/restore", {"reason": "y"}),
    "add_key": ("/budget/keys", {"name": "bob", "user": "u2"}),
    "keys": ("/budget/keys", None),
    "revoke_key": ("/budget/keys/bob", None),
}
"""A request for each operation, in an order in which all of them succeed."""


def test_every_operation_is_described_and_answers_as_its_description_says(
    provider: LocalProvider, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    alice = add_key(file, "alice", user="u1", feature="search")
    with (
        gateway(provider, keys=str(file), ceilings={"user": DAY}, plans=PLANS, **ADMIN) as asking,
        administered(asking) as http,
    ):
        http.headers["authorization"] = f"Bearer {SECRET}"
        for _ in range(11):
            answer = asking.ask(token=alice)
        description = told(http.get("/budget/openapi.json"))
        assert description == json.loads(json.dumps(openapi()))
        by_id = {
            each["operationId"]: (method, path, each)
            for path, methods in description["paths"].items()
            for method, each in methods.items()
        }
        assert set(by_id) == set(EXAMPLES) and len(by_id) == len(OPERATIONS)
        for name, (path, body) in EXAMPLES.items():
            method, _, described = by_id[name]
            path = path.replace("{id}", answer.headers["x-budget-decision-id"])
            found = told(http.request(method, path, json=body))
            ((status, response),) = [each for each in described["responses"].items() if each[0] != "default"]
            assert int(status) in (200, 201)
            schema = response["content"]["application/json"]["schema"]
            jsonschema.Draft202012Validator({**schema, "components": description["components"]}).validate(found)
            if body is not None:
                taken = described["requestBody"]["content"]["application/json"]["schema"]
                jsonschema.Draft202012Validator(taken).validate(body)


# The list of decisions, in every store


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if BINARY is None:
        pytest.skip("no redis-server is installed: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{request.getfixturevalue('redis')}?tenant={tmp_path.name}"
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'budget.db'}"


async def test_decisions_are_listed_the_latest_first_in_parts_and_by_whom_they_concern(ledger: str) -> None:
    clock = FakeClock()
    store = open_store(ledger, 30, clock)
    rows: list[Row] = []
    for n in range(1_203):
        clock.advance(60)
        record = {
            "decision_id": f"{clock.now_ms():012x}-{n}",
            "decision": "block" if n % 100 == 0 else "allow",
            "run_id": f"r{n % 3}",
            "principals": {"user": f"u{n % 2}", **({"team": "t"} if n < 5 else {})},
            "n": n,
        }
        rows.append(Row(record["decision_id"], "user:u1", json.dumps(record)))  # type: ignore[arg-type]  # a text
    await store.put(rows)
    await store.put(rows[-2:])  # as what was booked since then

    async def listed(wanted: Wanted) -> list[int]:
        found: list[int] = []
        while True:
            part = await store.latest(wanted)
            assert len(part.records) <= wanted.most
            found += [record["n"] for record in part.records]
            if part.next is None:
                return found
            wanted = wanted._replace(before=part.next)

    newest = list(range(1_202, -1, -1))
    assert await listed(Wanted(500)) == newest
    assert (await store.latest(Wanted(3))).records[0]["n"] == 1_202
    assert await listed(Wanted(5, action="block")) == list(range(1_200, -1, -100))
    assert await listed(Wanted(kind="run", id="r1")) == [n for n in newest if n % 3 == 1]
    assert await listed(Wanted(kind="user", id="u0", action="block")) == list(range(1_200, -1, -100))
    assert await listed(Wanted(2, kind="team")) == [4, 3, 2, 1, 0]
    assert await listed(Wanted(kind="team", id="x")) == []
    if not ledger.startswith("redis"):
        clock.advance(30 * 86_400 - 60 * 100)
        assert len(await listed(Wanted())) == 101
    await store.close()


def test_a_decision_is_listed_as_soon_as_it_is_made(asking: Asking, admin: httpx.Client) -> None:
    made = asking.ask().headers["x-budget-decision-id"]
    found = told(admin.get("/budget/decisions", params={"kind": "user", "id": WHO, "n": 1}))
    assert [each["decision_id"] for each in found["decisions"]] == [made]
    assert found["decisions"][0]["state"] == "committed"
    assert told(admin.get(f"/budget/decisions/{made}")) == found["decisions"][0]


# As a command


@pytest.mark.parametrize("workers", [1, 2])
def test_the_port_is_served_once_and_tells_of_all_processes(tmp_path: Path, workers: int) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    options = ["--workers", str(workers), "--admin", "127.0.0.1:0", "--admin-token-file", str(token), "--grace", "1"]
    reply = Reply(output_tokens=16)
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with LocalProvider(lambda _: reply, prices=RATES) as provider, served(provider, ledger, *options) as started:
        process, url = started
        assert process.stdout is not None
        office = process.stdout.readline().split()[-1].removesuffix("/budget/")
        assert sorted(asyncio.run(ask_all(url, 12))) == [200] * 10 + [402] * 2
        with httpx.Client(base_url=office, headers={"authorization": f"Bearer {SECRET}"}, timeout=20) as http:
            assert told(http.get("/budget/run/r1"))["spent_usd"] == "1"
            wanted = (
                f"budget_guard_processes {workers}\n",
                'budget_guard_decisions_total{action="allow",scope="",dimension="",mode="hard_gate"} 10\n',
                '{action="block",scope="run",dimension="max_cost_usd",mode="hard_gate"} 2\n',
            )
            for _ in range(400):  # each process writes its records and its numbers within half a second of its start
                blocked = told(http.get("/budget/decisions?action=block"))["decisions"]
                numbers = http.get("/metrics").text
                if len(blocked) == 2 and all(each in numbers for each in wanted):
                    break
                signal.sigtimedwait([], 0.05)
            assert [each["code"] for each in blocked] == ["run_ceiling_reached"] * 2
            assert [each for each in wanted if each not in numbers] == []
            assert told(http.post("/budget/run/r2/revoke", json={"reason": "no more"}))["revoked"]
            assert asyncio.run(ask_all(url, 4, "r2")) == [403] * 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert BudgetAuthority(ledger).snapshot("run", "r1").spent_usd == 1
    assert os.stat(token)
