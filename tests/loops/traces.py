"""What agents were seen to call: loops, which should be stopped, and work, which never should.

The first two dozen were made after public reports, which are named; the others are our own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

_dice = random.Random(7)


class Step(NamedTuple):
    """One tool call, and what came of it."""

    at_s: float
    run: str
    tool: str
    arguments: dict[str, Any]
    result: Any


Trace: TypeAlias = "list[Step]"
Called: TypeAlias = "tuple[str, dict[str, Any], Any]"


def _each(count: int, call: Callable[[int], Called], every_s: float = 3, run: str = "r") -> Trace:
    return [Step(i * every_s, run, *call(i)) for i in range(count)]


def _round(*calls: Called) -> Callable[[int], Called]:
    return lambda i: calls[i % len(calls)]


def _or(every: int, stuck: Called, other: Callable[[int], Called]) -> Callable[[int], Called]:
    return lambda i: stuck if i % every == 0 else other(i)


def _poll(done_at: int, waiting: Callable[[int], Any]) -> Callable[[int], Called]:
    return lambda i: ("job_status", {"id": 7}, waiting(i) if i < done_at else {"state": "done"})


def _read(i: int) -> Called:
    return ("read", {"f": f"{i}.py"}, f"text {i}")


def _edit(i: int) -> Called:
    return ("edit", {"f": "a.py", "n": i}, "ok")


REPORTED_LOOPS: dict[str, Trace] = {
    "same call, same result": _each(60, _round(("search", {"q": "x"}, "nothing found"))),
    "same error (SWE-agent)": _each(60, _round(("edit", {"f": "a.py"}, "Error: no match"))),
    "ping-pong (openclaw #64500)": _each(
        60, _round(("memory_search", {"q": "x"}, "m1"), ("memory_get", {"id": 1}, "text"))
    ),
    "period 3": _each(60, _round(("a", {}, "1"), ("b", {}, "2"), ("c", {}, "3"))),
    "stuck, with other calls between (zeroclaw #7143)": _each(90, _or(3, ("shell", {"c": "ls"}, "x"), _read)),
    "a clock read again (Cogtrix #473)": _each(
        33, lambda i: ("get_current_datetime", {}, f"2026-05-01T10:{i // 2:02d}:{(i * 7) % 60:02d}Z")
    ),
    "a busy poll, 1,535 times (openclaw #16808)": _each(
        200, _round(("process", {"action": "log", "sessionId": "X"}, "no new output")), 5
    ),
    "a slow drip, one call in 90 s": _each(60, _round(("search", {"q": "x"}, "nothing found")), 90),
    "jitter in one field (hermes #85323)": _each(
        60, lambda i: ("todo", {"merge": bool(i % 2), "items": ["a", "b"]}, "ok")
    ),
    "paraphrased queries (illospace #506)": _each(
        60, lambda i: ("search", {"q": f"how to fix it, variant {i}"}, "nothing found")
    ),
}

REPORTED_WORK: dict[str, Trace] = {
    "a poll whose progress changes": _each(25, _poll(24, lambda i: {"state": "running", "percent": i * 4}), 10),
    "a poll, 'running' 5 times, then done": _each(6, _poll(5, lambda i: "running"), 10),
    "a poll, 'running' 20 times, then done (exempt it)": _each(21, _poll(20, lambda i: "running"), 30),
    "pages": _each(40, lambda i: ("list", {"page": i}, f"page {i}")),
    "pages, all of them empty": _each(12, lambda i: ("list", {"page": i}, "[]")),
    "edit and test, with other failures": _each(
        40, lambda i: _edit(i) if i % 2 == 0 else ("test", {}, f"failed: test_{i}")
    ),
    "edit and test, the same failure 5 times": _each(
        10, lambda i: _edit(i) if i % 2 == 0 else ("test", {}, "failed: test_1")
    ),
    "a retry after two time-outs": _each(4, lambda i: ("fetch", {"u": 1}, "timeout" if i < 2 else "page")),
    "100 runs on one guard ask for the time once": [
        Step(i * 0.5, f"run{i}", "now", {}, f"2026-11-29T10:00:{i % 60:02d}Z") for i in range(100)
    ],
    "100 runs, the same two calls each": [
        Step(i * 0.2, f"run{i // 2}", "now" if i % 2 else "weather", {"c": "Rome"}, "sunny") for i in range(200)
    ],
    "fan-out: one tool, 30 customers": _each(30, lambda i: ("lookup", {"id": i}, "active"), 0.1),
    "5 equal calls in one turn": [Step(0, "r", "roll", {}, str(_dice.randrange(6))) for _ in range(5)],
    "the same file read before each of 6 edits": _each(
        12, lambda i: ("read", {"f": "a.py"}, f"version {i // 2}") if i % 2 == 0 else _edit(i)
    ),
    "60 calls of varied work": _each(
        60, lambda i: (_dice.choice("abcdef"), {"x": _dice.randrange(9)}, str(_dice.random()))
    ),
}

_ORDER = ({"a": 1, "b": 2}, {"b": 2, "a": 1})

OWN_LOOPS: dict[str, Trace] = {
    "arguments in another order": _each(40, lambda i: ("get", _ORDER[i % 2], "none")),
    "the same file written again": _each(40, _round(("write", {"f": "a.py", "text": "x = 1\n"}, "ok"))),
    "an error with an id in it": _each(
        40, lambda i: ("pay", {"order": 1}, f"Error 500, request {_dice.getrandbits(128):032x}")
    ),
    "a rate limit that counts down": _each(40, lambda i: ("fetch", {"u": 1}, f"429: try again in {40 - i} seconds")),
    "ping-pong with clocks": _each(
        60,
        lambda i: (("begin", "end")[i % 2], {"job": 1}, {"at": f"2026-05-01 10:{i:02d}:00", "state": "locked"}),
    ),
    "a cycle of four": _each(80, _round(("a", {}, "1"), ("b", {}, "2"), ("c", {}, "3"), ("d", {}, "4"))),
    "an error whose fields change places": _each(
        40,
        lambda i: ("call", {"x": 1}, {"code": 7, "why": "locked"} if i % 2 else {"why": "locked", "code": 7}),
    ),
    "nothing found, again and again": _each(40, _round(("list_orders", {"user": 9}, []))),
    "a loop after 40 calls of work": [*_each(40, _read), *_each(40, _round(("shell", {"c": "make"}, "Error 2")))],
    "a job that hangs at 40 percent": _each(60, _poll(60, lambda i: {"state": "running", "percent": 40}), 20),
    "a login that fails, with the time": _each(
        40, lambda i: ("login", {"user": "u"}, f"denied at 2026-05-01T10:{i:02d}:30.123Z")
    ),
    "a sub-agent that is asked the same": _each(
        30, _round(("researcher", {"input": "Find the price"}, "I could not find the price.")), 40
    ),
}

OWN_WORK: dict[str, Trace] = {
    "12 edits under tests that stay green (exempt them)": _each(
        24, lambda i: _edit(i) if i % 2 == 0 else ("test", {}, "42 passed")
    ),
    "a poll that tells the time it took, 5 times": _each(6, _poll(5, lambda i: f"running for {i * 10} s"), 10),
    "pages by a cursor": _each(
        30, lambda i: ("list", {"cursor": f"{_dice.getrandbits(64):016x}"}, {"items": [i], "more": True})
    ),
    "a service that is back after 4 errors": _each(
        5, lambda i: ("fetch", {"u": 1}, "503 unavailable" if i < 4 else "page")
    ),
    "the configuration read at each of 8 steps": _each(
        24, _or(3, ("read", {"f": "config.toml"}, "debug = false"), _read)
    ),
    "20 rows inserted": _each(20, lambda i: ("insert", {"row": i}, "ok")),
    "30 throws of a die with 20 sides": _each(30, lambda i: ("roll", {"sides": 20}, _dice.randrange(1, 21))),
    "the time read at every tenth of 100 calls": _each(
        100, _or(10, ("now", {}, "2026-05-01T10:00:00Z"), lambda i: ("work", {"n": i}, f"done {i}"))
    ),
    "a list of things to do that is written anew": _each(
        20, lambda i: ("todo", {"done": list(range(i))}, f"{20 - i} left")
    ),
    "10 runs that read one file each": [Step(i, f"run{i % 10}", "read", {"f": "a.py"}, "text") for i in range(10)],
    "a migration in 15 steps, each looked at": _each(
        30,
        lambda i: ("apply", {"n": i // 2}, "ok") if i % 2 == 0 else ("pending", {}, f"{15 - i // 2} to apply"),
    ),
    "the state of a repository between edits": _each(
        30, lambda i: _edit(i) if i % 2 == 0 else ("git_status", {}, f"modified: {i // 2 + 1} lines")
    ),
    "search, then open, for 10 results": _each(
        20, lambda i: ("search", {"q": "x", "skip": i}, f"hit {i}") if i % 2 == 0 else ("open", {"hit": i}, f"page {i}")
    ),
    "20 messages sent": _each(20, lambda i: ("send", {"to": "u1", "text": f"message {i}"}, "sent")),
    "50 runs with the same 5 polls each": [
        Step(i, f"run{i // 5}", "job_status", {"id": 7}, "running") for i in range(250)
    ],
    "the weather asked for 4 times": _each(4, _round(("weather", {"c": "Rome"}, "sunny"))),
}

LOOPS = {**REPORTED_LOOPS, **OWN_LOOPS}
WORK = {**REPORTED_WORK, **OWN_WORK}


def as_text(result: Any) -> str:
    """*result* as a framework hands it to the model."""
    return result if isinstance(result, str) else json.dumps(result)
