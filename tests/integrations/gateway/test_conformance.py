"""The conformance suite passes on the gateway, and catches each of many faults that are planted into it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("jsonschema")

import jsonschema

from budget_guard import Budget, MemoryLedger, Session
from budget_guard.calls import idempotency
from budget_guard.calls.reservation import Reservation
from budget_guard.integrations.gateway import Gateway, GatewaySettings, Upstream
from budget_guard.protocol import decision_schema, problem_schema
from budget_guard.testing import LocalProvider
from budget_guard.testing.protocol import Target, checks_for, new_provider, perform, run
from budget_guard.testing.protocol.__main__ import main
from budget_guard.testing.protocol.schema import wrong_with
from budget_guard_gateway import exchange, runs
from budget_guard_gateway.decision_service import operations
from budget_guard_gateway.decision_service.operations import DecisionService
from budget_guard_gateway.keys import Keys, add_key
from budget_guard_gateway.messages import to_send, token_of
from tests.integrations.gateway.support import PRICES, serving
from tests.integrations.gateway.test_processes import served

NAMES = ("secret-alice", "secret-bob", "secret-tight", "secret-team")


class Heard:
    """An answer that a fault may change."""

    def __init__(self, scope: Any, status: int, headers: dict[str, str], body: bytes) -> None:
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def document(self) -> Any:
        """The body as JSON; an empty object where it is none."""
        return json.loads(self.body) if "json" in self.headers.get("content-type", "") else {}

    def edit(self, **members: Any) -> None:
        """Set members of the document; None takes one away."""
        document = {name: value for name, value in {**self.document, **members}.items() if value is not None}
        self.body = json.dumps(document).encode()


Change = Callable[[Heard], None]
Receives = Callable[[dict[bytes, bytes], str], None]


class Faulty:
    """An ASGI application with a fault: it changes what is asked, or what is answered."""

    def __init__(self, app: Gateway, change: Change | None, receives: Receives | None) -> None:
        self._app = app
        self._change = change
        self._receives = receives

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "extensions": {}}
        if self._receives is not None:
            asked = dict(scope["headers"])
            self._receives(asked, scope["path"])
            scope["headers"] = list(asked.items())
        parts: list[bytes] = []
        start: dict[str, Any] = {}

        async def heard(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
            answer = Heard(scope, start["status"], headers, b"".join(parts))
            if self._change is not None:
                self._change(answer)
            answer.headers["content-length"] = str(len(answer.body))
            raw = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            await send({"type": "http.response.body", "body": answer.body})

        await self._app(scope, receive, heard)


@contextmanager
def service(
    folder: Path,
    provider_url: str,
    change: Change | None = None,
    receives: Receives | None = None,
    *,
    budget: Budget | None = None,
    **settings: Any,
) -> Iterator[Target]:
    """A gateway as the suite wants it started."""
    keys = folder / "keys.toml"
    if not keys.exists():
        made = [add_key(keys, name, user=f"secret-{name}") for name in ("alice", "bob")]
        made.append(add_key(keys, "tight", user="secret-tight", team="secret-team"))
        (folder / "made").write_text("\n".join(made))
    key, other, tight = (folder / "made").read_text().split("\n")
    options: dict[str, Any] = {
        "run_budget": budget or Budget("$1.00", max_wait_s=0),
        "upstreams": [Upstream(name="openai", url=provider_url)],
        "per_million": PRICES,
        "keys": str(keys),
        "ceilings": {"key": Budget("$100000"), "team": Budget("$0.15")},
        "alternatives": ["cheap"],
        **settings,
    }
    app: Any = Gateway(GatewaySettings(**options))
    with serving(app if change is None and receives is None else Faulty(app, change, receives)) as server:
        yield Target(url=server.url, key=key, other_key=other, tight_key=tight, secrets=NAMES)


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with new_provider() as running:
        yield running


def test_the_gateway_conforms(provider: LocalProvider, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with (
        service(tmp_path, provider.root_url, ledger=ledger) as target,
        service(tmp_path, provider.root_url, ledger=ledger) as second,
    ):
        whole = Target(
            url=target.url,
            key=target.key,
            other_key=target.other_key,
            tight_key=target.tight_key,
            second_url=second.url,
            secrets=NAMES,
        )
        outcomes = run(whole, provider)
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    assert len(outcomes) == len(checks_for(whole)) > 30


def test_its_processes_conform_together(provider: LocalProvider, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    alice, bob = (add_key(keys, name, user=f"secret-{name}") for name in ("alice", "bob"))
    more = [
        "--workers",
        "2",
        "--keys",
        str(keys),
        "--max-wait",
        "0",
        "--price",
        "cheap=0,625",
        "--alternative",
        "cheap",
    ]
    with served(provider, f"sqlite:///{tmp_path / 'budget.db'}", *more) as (_, url):
        outcomes = run(Target(url=url, key=alice, other_key=bob, second_url=url, secrets=NAMES), provider)
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []


def test_it_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with service(tmp_path, f"http://127.0.0.1:{port}", drop("x-run-id")) as target:
        named = ["--url", target.url, "--key", target.key, "--other-key", target.other_key]
        assert main([*named, "--provider-port", str(port)]) == 1
    told = capsys.readouterr().out
    assert f"the provider listens on http://127.0.0.1:{port}" in told
    failure = told[told.index("FAIL a_run_is_made_up_where_none_is_named") :]
    assert re.search(r"asked: POST /v1/chat/completions .*\n  expected: X-Run-Id: .*\n  came: 200; ", failure)
    assert "ok   what_is_not_held_is_not_passed_on" in told
    assert "checks passed" in told.splitlines()[-1]


def test_a_part_of_the_protocol_is_checked_by_itself(tmp_path: Path) -> None:
    with service(tmp_path, "http://127.0.0.1:9") as target:
        alone = Target(url=target.url, key=target.key, other_key=target.other_key, profiles=frozenset({"service"}))
        outcomes = run(alone)
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    assert {outcome.check.profiles for outcome in outcomes} == {frozenset({"service"})}


def test_a_service_without_look_up_is_checked_without_it(provider: LocalProvider, tmp_path: Path) -> None:
    with service(tmp_path, provider.root_url, at("/budget/", status(404))) as target:
        proxy = Target(url=target.url, key=target.key, other_key=target.other_key, profiles=frozenset({"proxy"}))
        outcomes = run(proxy, provider)
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    assert len(outcomes) > 15


def test_a_service_that_is_not_there_fails_each_check(provider: LocalProvider) -> None:
    outcomes = run(Target(url="http://127.0.0.1:9"), provider)
    assert outcomes and not any(outcome.passed for outcome in outcomes)
    assert "ConnectionRefusedError" in str(outcomes[0])


class Fault(NamedTuple):
    """A fault, and the check that must catch it."""

    words: str
    caught_by: str
    change: Change | None = None
    receives: Receives | None = None
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def drop(name: str) -> Change:
    return lambda heard: (heard.headers.pop(name, None), None)[1]


def of_refusals(change: Change) -> Change:
    return lambda heard: change(heard) if heard.headers.get("content-type") == "application/problem+json" else None


def with_budget(**amounts: Any) -> Change:
    def change(heard: Heard) -> None:
        if "budget" in heard.document:
            heard.edit(budget={**heard.document["budget"], **amounts})

    return of_refusals(change)


def at(path: str, change: Change, method: str | None = None) -> Change:
    return lambda heard: change(heard) if re.search(path, heard.path) and method in (None, heard.method) else None


def setting(**values: Any) -> Change:
    return lambda heard: (
        heard.headers.update({name.replace("_", "-"): value for name, value in values.items()}),
        None,
    )[1]


def status(given: int) -> Change:
    def change(heard: Heard) -> None:
        heard.status = given

    return change


def without_stream_headers(heard: Heard) -> None:
    if heard.headers.get("content-type", "").startswith("text/event-stream"):
        heard.headers = {name: value for name, value in heard.headers.items() if not name.startswith("x-budget")}


def with_usage_chunk(heard: Heard) -> None:
    if heard.headers.get("content-type", "").startswith("text/event-stream"):
        heard.body = b'data: {"choices": [], "usage": {"total_tokens": 21}}\n\n' + heard.body


def as_the_first(headers: dict[bytes, bytes], path: str) -> None:
    _FIRST.setdefault("key", headers.get(b"authorization", b""))
    headers[b"authorization"] = _FIRST["key"]


_FIRST: dict[str, bytes] = {}


def answering_again() -> tuple[Change, Receives]:
    """Merges calls that are passed on by their Idempotency-Key."""
    kept: dict[str, tuple[dict[str, str], bytes]] = {}
    asked: list[str] = []

    def receives(headers: dict[bytes, bytes], path: str) -> None:
        asked.append(headers.get(b"idempotency-key", b"").decode())

    def change(heard: Heard) -> None:
        if heard.path.startswith("/v1/") and asked[-1]:
            heard.headers, heard.body = kept.setdefault(asked[-1], (heard.headers, heard.body))

    return change, receives


def no_key(headers: dict[bytes, bytes], path: str) -> None:
    if path.startswith("/budget/"):
        headers.pop(b"idempotency-key", None)


def always_admits(patch: pytest.MonkeyPatch) -> None:
    reserve = MemoryLedger.reserve

    def reserving(self: MemoryLedger, hold_id: str, scopes: Any, amounts: Any, room: Any, *rest: Any) -> Any:
        return reserve(self, hold_id, scopes, amounts, None, *rest)

    patch.setattr(MemoryLedger, "reserve", reserving)


def books_refusals(patch: pytest.MonkeyPatch) -> None:
    async def releasing(self: Reservation, reason: str) -> None:
        await self.acommit_estimate(reason)

    patch.setattr(Reservation, "arelease", releasing)


def sends_runs_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exchange, "to_send", lambda *given: [*to_send(*given), (b"x-run-id", b"r1")])


def knows_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exchange, "token_of", lambda headers: token_of(headers) or "anything")
    patch.setattr(Keys, "principal", lambda self, token: self.all()[0])


def adding(heard: Heard) -> None:
    if heard.document:
        heard.edit(budget="x")


def dry_runs_hold(patch: pytest.MonkeyPatch) -> None:
    async def foreseeing(self: DecisionService, run: Any, call: Any) -> Any:
        decision = await run.session.aauthorize(call)
        return await self._decided(decision, run, None, False)  # pyright: ignore[reportPrivateUsage]

    patch.setattr(DecisionService, "_foresee", foreseeing)


def runs_never_end(patch: pytest.MonkeyPatch) -> None:
    async def revoking(self: Session, reason: str) -> None:
        pass

    patch.setattr(Session, "arevoke", revoking)


def shorter(heard: Heard) -> None:
    paths = heard.document["paths"]
    heard.edit(paths={path: told for path, told in paths.items() if "release" not in path})


AGAIN = answering_again()
FITS, REFUSED = (
    "a_call_that_fits_is_passed_on_with_what_was_decided",
    "a_call_that_does_not_fit_is_refused_and_not_sent",
)
LOOK_UP, SHARED = "a_decision_is_looked_up_by_its_principal_alone", "what_is_left_is_that_of_the_tightest_scope"
WAITING, KEYED = "what_waiting_helps_says_so", "the_same_key_gets_the_same_decision"
FAULTS = [
    Fault("says nothing of the decision's id", FITS, drop("x-budget-decision-id")),
    Fault("says nothing of the prices", FITS, drop("x-budget-price-table-version")),
    Fault("says nothing of the reservation", FITS, drop("x-budget-reservation-id")),
    Fault("has another decision than there are", FITS, setting(x_budget_decision="allowed")),
    Fault("does not name the run", "a_run_is_made_up_where_none_is_named", drop("x-run-id")),
    Fault("writes amounts with an exponent", FITS, setting(x_budget_remaining_usd="9E-1")),
    Fault("writes amounts as a float does", FITS, setting(x_budget_remaining_usd="0.90000000000000002")),
    Fault("leaves headers out of streams", "a_stream_carries_the_headers_too", without_stream_headers),
    Fault("refuses with 429", REFUSED, of_refusals(status(429))),
    Fault("lets SDKs send a refused call again", REFUSED, drop("x-should-retry")),
    Fault("has no error member", REFUSED, of_refusals(lambda heard: heard.edit(error=None))),
    Fault("has another status in the document", REFUSED, of_refusals(lambda heard: heard.edit(status=403))),
    Fault("answers problems as plain JSON", REFUSED, of_refusals(setting(content_type="application/json"))),
    Fault("asks x402 clients to pay", REFUSED, of_refusals(setting(payment_required="eyJ4NDAyVmVyc2lvbiI6Mn0="))),
    Fault("writes amounts as numbers", REFUSED, with_budget(limit_usd=1.0)),
    Fault("names the scope that is in the way", REFUSED, of_refusals(setting(x_budget_blocking_scope="run:r1"))),
    Fault(
        "has no alternatives",
        "a_refusal_names_models_that_pass",
        of_refusals(lambda heard: heard.edit(alternatives=None)),
    ),
    Fault(
        "names alternatives that do not pass",
        "a_refusal_names_models_that_pass",
        of_refusals(
            lambda heard: heard.edit(
                alternatives=[{"model": "dime", "estimate_usd": "0.1", "fits_budget": True}]
                if heard.document["code"].startswith("run")
                else []
            )
        ),
    ),
    Fault("has sums that do not add up", WAITING, with_budget(reserved_usd="0")),
    Fault("says not to try again what time helps", WAITING, of_refusals(setting(x_should_retry="false"))),
    Fault("does not say when to try again", WAITING, drop("retry-after")),
    Fault("tells the limits of others", SHARED, with_budget(limit_usd="0.15")),
    Fault("names others", SHARED, of_refusals(lambda heard: heard.edit(title="secret-team has spent it"))),
    Fault("tells what the run has left, and not the team", SHARED, setting(x_budget_remaining_usd="0.9")),
    Fault(
        "says that another's decision is there",
        LOOK_UP,
        at("/budget/decisions/", lambda heard: status(403)(heard) if heard.status == 404 else None),
    ),
    Fault(
        "keeps no record of blocks",
        LOOK_UP,
        at(
            "/budget/decisions/",
            lambda heard: status(404)(heard) if heard.document.get("decision") == "block" else None,
        ),
    ),
    Fault(
        "leaves prices out of records",
        LOOK_UP,
        at("/budget/decisions/", lambda heard: heard.edit(price=None), "GET"),
    ),
    Fault("takes everybody for the same", "a_run_is_its_principals", None, as_the_first),
    Fault("serves who has no key", "who_sends_no_key_is_refused", patch=knows_everybody),
    Fault(
        "shows the usage that it has asked for",
        "the_usage_of_a_stream_is_shown_to_who_asks_for_it_alone",
        with_usage_chunk,
    ),
    Fault("adds to answers", "answers_are_untouched", at("/v1/", adding)),
    Fault("holds nothing", "a_hundred_at_once_do_not_overspend", patch=always_admits),
    Fault("holds nothing of streams", "a_hundred_streams_at_once_do_not_overspend", patch=always_admits),
    Fault(
        "refuses what fits", "a_hundred_at_once_do_not_overspend", settings={"budget": Budget("$0.50", max_wait_s=0)}
    ),
    Fault(
        "passes on what is not held",
        "what_is_not_held_is_not_passed_on",
        settings={"passthrough": ["POST /v1/images/generations"]},
    ),
    Fault(
        "takes an unknown price for none",
        "a_price_that_is_not_known_is_refused",
        settings={"budget": Budget("$1.00", max_wait_s=0, unpriced="allow")},
    ),
    Fault(
        "books what the provider has refused",
        "an_error_of_the_provider_is_passed_on_and_a_refusal_is_not_booked",
        patch=books_refusals,
    ),
    Fault("merges attempts", "each_attempt_is_held_by_itself", *AGAIN),
    Fault("tells the provider of runs", "what_is_the_services_is_not_sent_on", patch=sends_runs_on),
    Fault("hides that it has capped", "an_output_cap_that_is_set_is_visible", drop("x-budget-output-clamped")),
    Fault("does not know keys", KEYED, None, no_key),
    Fault(
        "takes another body for the same",
        KEYED,
        patch=lambda patch: patch.setattr(idempotency, "_fingerprint", lambda *_: "same"),
    ),
    Fault(
        "takes other amounts for the same",
        "settling_is_idempotent",
        patch=lambda patch: patch.setattr(operations, "_digest", lambda _: "same"),
    ),
    Fault(
        "fails where something is released late",
        "settling_is_idempotent",
        at("/release", lambda heard: status(409)(heard) if heard.document["state"] == "committed" else None),
    ),
    Fault(
        "books the bound",
        "a_decision_is_made_forwarded_and_committed",
        at("/commit", lambda heard: heard.edit(cost_usd="0.1")),
    ),
    Fault(
        "lets others settle",
        "what_is_anothers_is_not_there",
        patch=lambda patch: patch.setattr(operations, "owner_of", lambda _: "anybody"),
    ),
    Fault("holds in dry runs", "a_dry_run_holds_nothing", patch=dry_runs_hold),
    Fault(
        "does not care what is preferred",
        "a_refusal_is_a_problem_or_a_record_as_is_preferred",
        patch=lambda patch: patch.setattr(operations, "_prefers_record", lambda _: False),
    ),
    Fault(
        "forgets the limits of a run",
        "a_run_has_limits_of_its_own_a_report_and_an_end",
        patch=lambda patch: patch.setattr(runs, "_held_to", lambda budget, _: budget),
    ),
    Fault("goes on after the end of a run", "a_run_has_limits_of_its_own_a_report_and_an_end", patch=runs_never_end),
    Fault("describes less than it does", "the_service_describes_itself", at("openapi", shorter)),
    Fault("holds nothing of decisions", "a_hundred_decisions_at_once_hold_what_fits", patch=always_admits),
    Fault(
        "does not say which field is wrong",
        "what_makes_no_sense_is_told_by_name",
        of_refusals(lambda heard: heard.edit(detail="no", error={**heard.document["error"], "message": "no"})),
    ),
]


def test_where_there_is_no_fault_none_is_caught(provider: LocalProvider, tmp_path: Path) -> None:
    with service(tmp_path, provider.root_url, lambda heard: None, lambda headers, path: None) as target:
        caught = [outcome.check.name for outcome in run(target, provider) if not outcome.passed]
    assert caught == []
    assert len({fault.words for fault in FAULTS}) == len(FAULTS) > 50
    every = {each.name for each in checks_for(target)}
    assert {fault.caught_by for fault in FAULTS} <= every


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.words)
def test_a_fault_is_caught(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    _FIRST.clear()
    if fault.patch is not None:
        fault.patch(monkeypatch)
    with service(tmp_path, provider.root_url, fault.change, fault.receives, **fault.settings) as target:
        (check,) = [each for each in checks_for(target) if each.name == fault.caught_by]
        outcome = perform(check, target, provider)
    assert not outcome.passed, f"{fault.words}: not caught by {fault.caught_by}"
    assert outcome.failure is not None and outcome.failure.expected and outcome.failure.came


@pytest.mark.parametrize("schema", [problem_schema(), decision_schema()], ids=["problem", "decision"])
def test_the_suites_reading_of_a_schema_is_that_of_the_standard(schema: Any, provider: LocalProvider) -> None:
    whole = {
        "decision_id": "01a228e4ba66-ddcf-1",
        "instance": "/budget/decisions/01a228e4ba66-ddcf-1",
        "type": "https://example.com/x",
        "title": "t",
        "status": 402,
        "detail": "d",
        "code": "run_ceiling_reached",
        "kind": "model",
        "budget": {"limit_usd": "1", "scope": "run"},
        "alternatives": [{"model": "m", "estimate_usd": "0.1", "fits_budget": True}],
        "error": {"message": "d", "type": "budget_exceeded", "param": None, "code": "run_ceiling_reached"},
        "time": "2026-01-01T00:00:00+00:00",
        "decision": "allow",
        "cost_usd": None,
        "price": {"table": "t", "currency": "USD"},
        "principals": {"user": "u"},
    }
    odd: tuple[Any, ...] = (None, True, 1, -1, 1.5, "", "x", "1E-9", [], {}, {"x": 1}, ["x"])
    standard = jsonschema.Draft202012Validator(schema)
    documents: list[Any] = [whole, {}, [], None]
    for name in whole:
        documents.append({each: value for each, value in whole.items() if each != name})
        documents += [{**whole, name: value} for value in odd]
    for document in documents:
        assert bool(wrong_with(document, schema)) == (not standard.is_valid(document)), document
