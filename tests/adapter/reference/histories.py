"""Made-up requests on the wire under budgets and layers above, and all that is told of each.

Each is held, changed, sent once or again, and settled in one of its ways, by verbs that block or are awaited.
Run ``python -m tests.adapter.reference.make`` to write them down in `histories.txt.gz`.
"""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from contextvars import Context
from datetime import datetime, timezone
from typing import Any
from unittest import mock

from budget_guard import (
    Allowance,
    Budget,
    BudgetError,
    BudgetRevoked,
    DowngradePolicy,
    LoopPolicy,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.adapter import Attempt, Attempts, GuardedCall, attempts, counting, counting_nothing, priced_request
from budget_guard.adapter.priced_request import PricedRequest
from budget_guard.testing import FakeClock
from budget_guard.wire import endpoint
from tests.adapter.reference.guards import guards, parts
from tests.builders import call, session
from tests.reference_text import plain, without_ids

HISTORIES = 450
GROUPS = 6
"""So many tests tell them."""
_MODELS = ("large", "large", "large", "small", "endless", "searcher", "dime", "unheard-of", "prod")
_PLACES = (
    *("/v1/chat/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"),
    *("/openai/deployments/large/chat/completions?api-version=1", "/openai/deployments/prod/chat/completions"),
    "/v1beta/models/large:generateContent",
)
_STOP = BudgetRevoked(scope="user:u1", reason="leaked", at=datetime(2026, 11, 1, tzinfo=timezone.utc))
_ERRORS = (
    ValueError("odd"),
    TimeoutError("late"),
    ConnectionRefusedError("no"),
    GeneratorExit(),
    asyncio.CancelledError(),
)


class _History:
    """One request, the budgets that hold it, and a layer above."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.awaits = number % 2 == 1
        self.clock = FakeClock()
        self.told: list[str] = []
        self.sessions = [self._session(f"s{at}") for at in range(self.chance.choice([1, 1, 2]))]

    def _maybe(self, likely: float, value: Any) -> Any:
        return value if self.chance.random() < likely else None

    def _session(self, name: str) -> Session:
        chance = self.chance
        share = chance.random() < 0.2
        budget = Budget(
            max_cost_usd=chance.choice(["0.02", "0.05", "0.5", "5", "5"]),
            max_requests=self._maybe(0.1, 1),
            max_total_tokens=self._maybe(0.1, chance.choice([50, 5_000])),
            soft_limit=chance.choice([None, 0.5]),
            downgrade=self._maybe(0.35, DowngradePolicy(to={"large": "small"}, at=chance.choice([0.0001, 0.3]))),
            mode=chance.choice(["hard_gate", "hard_gate", "hard_gate", "soft_gate", "advisory_estimate"]),
            unpriced=chance.choice(["deny", "deny", "allow"]),
            call_max_output_tokens=self._maybe(0.2, chance.choice([20, 700])),
            hold_share=0.3 if share else 0.5,
            max_wait_s=0,
            loop=self._maybe(0.2, LoopPolicy(max_repeats=2, on_loop=chance.choice(["raise", "warn"]))),
            allowance=self._maybe(0.2, Allowance(parameters=("vendor",), input_tokens=500)),
        )
        on_cancel: Any = chance.choice(["bound", "seen"])
        made = session(budget, clock=self.clock, run_id=name, on_cancel=on_cancel)
        made.subscribe(lambda event: self.told.append(f"{name} {plain(event)}"))
        if chance.random() < 0.3:
            made.charge("earlier", "0.01")
        return made

    def attempts(self, sessions: Sequence[Session]) -> Attempts:
        chance = self.chance
        return Attempts(
            sessions,
            models=chance.choice([None, {"prod": "large"}, {"prod": "large", "cheap": "small"}]),
            agent=self._maybe(0.3, "writer"),
            add_fields=chance.choice([("output_cap", "usage"), ("output_cap", "usage"), ("usage",), ()]),
            tool_costs=self._maybe(0.2, {"web_search": "0.02"}),
        )

    def body(self, path: str) -> dict[str, Any]:
        chance = self.chance
        turns: list[Any] = [{"role": "user", "content": "Hi " * chance.choice([1, 200])}]
        if chance.random() < 0.2:
            asked = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            turn: list[Any] = [
                {"role": "assistant", "tool_calls": [asked]},
                {"role": "tool", "tool_call_id": "c", "content": "no"},
            ]
            turns += turn * chance.choice([1, 2, 5])
        body: dict[str, Any] = {"model": chance.choice(_MODELS)}
        if "generateContent" in path:
            body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
        elif "responses" in path:
            body["input"] = "Hi"
        elif path.endswith("/completions") and "chat" not in path:
            body["prompt"] = "Hi"
        else:
            body["messages"] = turns
        more: dict[str, Any] = {
            "stream": True,
            "max_tokens": chance.choice([30, 4_000]),
            "max_completion_tokens": 60,
            "n": 2,
            "temperature": 0.5,
            "reasoning_effort": "low",
            "vendor": chance.choice([1, {"deep": 1}]),
            "background": True,
            "tools": [{"type": "web_search"}],
            "stream_options": {"include_usage": True},
            "service_tier": chance.choice(["auto", "flex"]),
            "maxTokens": 5,
        }
        likely = {"stream": 0.35, "max_tokens": 0.3, "background": 0.02, "service_tier": 0.04, "maxTokens": 0.03}
        return body | {name: value for name, value in more.items() if chance.random() < likely.get(name, 0.1)}

    def do(self, of: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Perform a verb in one of its two ways."""
        if not self.awaits:
            return getattr(of, verb)(*args, **kwargs)
        kwargs.pop("may_wait", None)
        return asyncio.run(getattr(of, f"a{verb}")(*args, **kwargs))

    # What happens

    def lines(self) -> Iterator[str]:
        chance = self.chance
        with ExitStack() as stack:
            above = self._above(stack)
            if above is not None:
                yield f"above: {plain(above.holds and above.holds[0].amounts)} {above.name} {above.output_cap}"
            yield from self._heard()
            below = [] if above is not None and chance.random() < 0.3 else self.sessions
            kit = self.attempts(below)
            path = chance.choice(_PLACES)
            body = self.body(path)
            yield f"{path} {json.dumps(body)[:400]} {sorted(kit.add_fields)} {kit.models}"
            first = yield from self._one(kit, path, body, above)
            if chance.random() < 0.3:
                yield "again"
                yield from self._one(kit, path, body, above)
            if first is not None and chance.random() < 0.3:
                yield from self._settle(first)
            if above is not None and chance.random() < 0.8:
                yield from self._end_above(above)
        for made in self.sessions:
            told = (made.spent_usd, made.reserved_usd, made.remaining_usd)
            made.close()
            yield f"{made.id}: {told} {plain(made.report(), frozenset({'over_time', 'marks', 'started_at'}))}"
        yield from self._heard()

    def _heard(self) -> Iterator[str]:
        yield from (f"  {line}" for line in self.told)
        self.told.clear()

    def _above(self, stack: ExitStack) -> GuardedCall | None:
        chance = self.chance
        if chance.random() < 0.5:
            return None
        above = GuardedCall(chance.choice([self.sessions, self.sessions[:1]]))
        tokens, cap = chance.choice([40, 40, 900, 5_000]), chance.choice([None, None, 30, 900])
        asked: Any = ToolCall("search", 10_000_000)
        if chance.random() < 0.85:
            more = {"agent": chance.choice([None, "above"]), "started_by": chance.choice([(), ("top",)])}
            asked = call(chance.choice(["large", "large", "small"]), tokens=tokens, cap=cap, **more)
        if self.do(above, "hold", asked, may_wait=False) is not None:
            return None
        stack.enter_context(counting(above) if chance.random() < 0.9 else counting_nothing())
        return above

    def _one(self, kit: Attempts, path: str, body: dict[str, Any], above: GuardedCall | None) -> Any:
        chance = self.chance
        host = "generativelanguage.googleapis.com" if "v1beta" in path else "api.example.com"
        dialect = kit.dialect_of("POST", host, path)
        if dialect is None:
            yield "nothing counts it"
            return None
        headers = {"Authorization": "AWS4-HMAC x"} if chance.random() < 0.08 else {"X-A": "b"}
        sent = json.dumps(body).encode()
        if chance.random() < 0.04:
            sent = chance.choice([b"[]", b"{", b'{"model": "small", ' + sent[1:], b""])
        attempt: Attempt | None = None
        try:
            attempt = kit.begin(dialect, "POST", host, path, headers, sent)
            stop = self.do(attempt, "hold", may_wait=False)
        except BudgetError as error:
            yield f"raises {plain(error)}"
            yield from self._heard()
            return attempt
        yield f"{attempt.models_named} {attempt.deployed_model} {attempt.signed} {attempt.settled} {len(attempt.calls)}"
        body_sent = attempt.changed and attempt.body.decode()[:400]
        yield f"sends {attempt.path} {attempt.added} {attempt.hides_usage} {body_sent}"
        decision = attempt.decision
        yield f"decided {decision and (decision.name, decision.output_cap, decision.requested)}"
        if stop is not None:
            yield f"stopped {stop.session.id} {plain(stop.error)}"
        yield from self._heard()
        if stop is None and chance.random() < 0.1:
            with attempt.counting():
                yield "below:"
                yield from self._one(self.attempts(self.sessions[:1]), path, body, None)
        yield from self._settle(attempt)
        return attempt

    def _settle(self, attempt: Attempt) -> Iterator[str]:
        """One of the ways out, or none."""
        chance = self.chance
        way = chance.choice(["answer", "answer", "answer", "answer", "refuse", "fail", "release", "give up", "none"])
        said: Any = way
        if way == "answer":
            said = yield from self._answer(attempt)
        elif way == "refuse":
            status = chance.choice([302, 400, 401, 404, 429, 500, 503])
            words = chance.choice([b"", b'{"error": {"message": "max_completion_tokens is unknown"}}', b"<html>"])
            said = status, attempt.answered(status), self.do(attempt, "refuse", status, {}, words)
        elif way == "fail":
            error = chance.choice([*_ERRORS, _STOP])
            said = type(error).__name__
            self.do(attempt, "fail", error)
        elif way == "release":
            self.do(attempt, "release", "it was not sent")
        elif way == "give up":
            self.do(attempt, "give_up")
        answer = attempt.answer
        yield f"{said}: {attempt.settled} {answer and answer._replace(seen=None)} {answer and answer.seen is not None}"
        yield from self._heard()

    def _answer(self, attempt: Attempt) -> Any:
        chance = self.chance
        request = attempt.request
        kind = chance.choice(
            ["application/json", "text/event-stream" if request.stream else "application/json", "", "x"]
        )
        headers = chance.choice([None, {}, {"x-request-id": "req_1"}, {"request-id": "req_2"}])
        attempt.answered(chance.choice([200, 200, 200, 201, 299]), kind, headers)
        pieces = [b"data: " + each + b"\n\n" for each in self._events()] if attempt.streams else []
        if not pieces or chance.random() < 0.15:
            pieces = [self._whole()]
        if chance.random() < 0.1:
            pieces = [b"  ", *pieces]
        passed = b""
        for piece in pieces:
            cut = chance.choice([None, len(piece) // 2])
            for part in (piece,) if cut is None else (piece[:cut], piece[cut:]):
                passed += attempt.feed(part)
                stop = attempt.interruption()
                if stop is not None:
                    yield f"interrupted {plain(stop.error)}"
            self.clock.advance(1)
            if chance.random() < 0.05:
                self.sessions[0].revoke("enough")
        yield f"passes {passed.decode()[:300]!r} {attempt.left!r} {attempt.streams}"
        way = chance.choice(["end", "end", "end", "cut", "give up", "fail"])
        if way in ("end", "cut"):
            self.do(attempt, "end", complete=way == "end")
        elif way == "give up":
            self.do(attempt, "give_up")
        else:
            self.do(attempt, "fail", chance.choice(_ERRORS))
        return way

    def _usage(self) -> Any:
        chance = self.chance
        taken, made = chance.choice([0, 5, 90, 9_000]), chance.choice([0, 5, 90, 900])
        usage = {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}
        usage |= {"input_tokens": taken, "output_tokens": made} if chance.random() < 0.4 else {}
        return chance.choice([usage, usage, usage, None, {}])

    def _whole(self) -> bytes:
        chance = self.chance
        choice = {"index": 0, "finish_reason": chance.choice(["stop", "length"]), "message": {"content": "Hello"}}
        body: dict[str, Any] = {"object": "chat.completion", "choices": [choice], "usage": self._usage()}
        body |= {name: value for name, value in (("id", "a1"), ("model", self._served())) if chance.random() < 0.7}
        return chance.choice(
            [json.dumps(body).encode()] * 5 + [b"[]", b"oops", b"data: " + json.dumps(body).encode() + b"\n\n"]
        )

    def _served(self) -> str:
        return self.chance.choice(["large", "small", "prod", "large-2026", "odd"])

    def _events(self) -> Iterator[bytes]:
        chance = self.chance
        model = self._served()
        for text in ("Hel", "lo " * chance.choice([1, 300]), "!"):
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            yield json.dumps({"id": "a1", "model": model, "choices": [choice]}).encode()
        if chance.random() < 0.7:
            yield json.dumps({"id": "a1", "model": model, "choices": [], "usage": self._usage()}).encode()
        if chance.random() < 0.7:
            yield b"[DONE]"

    def _end_above(self, above: GuardedCall) -> Iterator[str]:
        chance = self.chance
        way = chance.choice(["commit", "commit", "estimate", "release", "fail"])
        if way == "commit" and isinstance(above.holds[0].call if above.holds else None, ToolCall):
            self.do(above, "commit_cost", chance.choice([None, "0.003"]))
        elif way == "commit":
            self.do(above, "commit", chance.choice([None, Usage(input=30, output=20)]))
        elif way == "fail":
            self.do(above, "fail", chance.choice(_ERRORS))
        else:
            self.do(above, way, "the layer above is done")
        told = above.interruption(chance.choice([0, 50, 5_000])), above.cut_short(Usage(output=30), known=False)
        yield f"above {way}: {[stop and plain(stop.error) for stop in told]} {above.answer and above.answer.id}"
        yield from self._heard()


def _of_history(number: int) -> Iterator[str]:
    with warnings.catch_warnings(record=True) as warned, mock.patch.object(attempts, "_told_of", set()):
        warnings.simplefilter("always")
        lines = Context().run(lambda: list(_History(number).lines()))  # inside of no hold of others
    for line in lines:
        yield without_ids(line)
    yield from (f"warns {type(each.message).__name__} {str(each.message)[:60]}" for each in warned)


def _priced() -> Iterator[str]:
    """Requests of which each costs what an allowance says."""
    for number in range(80):
        history = _History(number)
        chance = history.chance
        allowed = Allowance(requests={"/v1/images/generations": "0.01", "/images/edits": "0.02"})
        run = session(Budget(chance.choice(["0.015", "5"]), allowance=allowed, max_wait_s=0), clock=history.clock)
        run.subscribe(lambda event, told=history.told: told.append(plain(event)))
        path = chance.choice(["/v1/images/generations", "/v1/images/edits", "/v1/models", "/v1/chat/completions"])
        made: PricedRequest | None = priced_request(
            [run], endpoint("POST", "api.openai.com", path), chance.choice([None, "a"])
        )
        if made is None:
            yield f"{number} {path}: none"
            continue
        stop = history.do(made, "hold", may_wait=False)
        way = chance.choice(["answered", "refuse", "fail", "sending", "none"])
        if stop is None:
            status, error = (
                chance.choice([400, 429, 500, 503]),
                chance.choice([*_ERRORS, _STOP]),
            )
            arguments: dict[str, tuple[Any, ...]] = {"refuse": (status, {}, b""), "fail": (error,)}
            if way == "sending":
                with made.sending():
                    pass
            elif way != "none":
                history.do(made, way, *arguments.get(way, ()))
        yield f"{number} {path} {way}: {stop and plain(stop.error)} {run.spent_usd} {run.reserved_usd} {history.told}"


_TABLES = {"priced requests": _priced, "guarded models": guards, "parts": parts}
NAMES = (*(f"histories {group}" for group in range(GROUPS)), *_TABLES)


def lines_of(name: str) -> Iterator[str]:
    """Every line of that group."""
    if name in _TABLES:
        yield from (f"{name}: {without_ids(line)}" for line in _TABLES[name]())
        return
    for number in range(int(name.split()[1]), HISTORIES, GROUPS):
        yield from (f"{name}: {number}: {line}" for line in _of_history(number))
