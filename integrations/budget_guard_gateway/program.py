"""The gateway of one program: its requests are one run, it has a key of its own, and what becomes of them is counted.

``budget-guard run`` starts one beside the program that it starts.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn

from budget_guard import BudgetError, Session
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.events.model import CallAdmitted, Event
from budget_guard.protocol import PROBLEM_TYPES, Problem, budget_headers, problem
from budget_guard.reporting.report import BudgetReport
from budget_guard.units.printable import printable
from budget_guard_gateway.app import Gateway
from budget_guard_gateway.keys import OneKey, Principal
from budget_guard_gateway.messages import Client, Message, Receive, Scope, Send
from budget_guard_gateway.serving import listener_at, server_config
from budget_guard_gateway.settings import GatewaySettings

_CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"))
_STOPS = frozenset(("ceiling_reached", "limit_reached", "reserved", "too_many_runs", "loop_detected", "revoked"))
"""The problems that say that a budget stops the program."""
_FAILURES = frozenset(("upstream_unreachable", "upstream_failed", "upstream_timeout", "busy", "internal"))
"""Those that say nothing of what is covered."""
_HARMLESS = frozenset(("HEAD", "OPTIONS"))
"""Methods that no model answers to."""
_TYPE_OF = {each.uri: each.name for each in PROBLEM_TYPES.values()}
_asked_of: ContextVar[str] = ContextVar("upstream", default="a provider")
"""The upstream of the request that is served in this task."""
_BROKEN_OFF = b'event: error\ndata: {"type": "' + PROBLEM_TYPES["internal"].uri.partition("#")[0].encode()
"""How the event begins that ends a stream which a budget stops."""
_MOST_NAMES = 20
_MOST_LEFT_S = 10.0
"""Seconds that calls have to settle in once they are cancelled."""


class Coverage:
    """What became of a program's requests.

    Args:
        left: The variables with keys that it was left.
    """

    def __init__(self, left: Sequence[str] = ()) -> None:
        self._left = left
        self._when_stopped: Callable[[], object] | None = None
        self._is_over = False
        self.covered: Counter[str] = Counter()
        """Those that were held and passed on, by upstream."""
        self.stopped = 0
        """Those that the budget refused."""
        self.stop = ""
        """Why it refused the first of them."""
        self.refused: Counter[str] = Counter()
        """Those that cannot be held, so that they were not passed on: what was asked for, and why."""
        self.refusal = ""
        """Why the first of them cannot."""
        self.own_keys: Counter[str] = Counter()
        """Those with a key that is not the run's, by whom they were for. They were not passed on; what the program
        sends with such a key to a provider itself is not seen."""

    def refuse(self, asked: str, code: str, detail: str) -> None:
        """Note a request that cannot be held.

        Args:
            asked: What was asked for.
            code: Why it cannot, in a word.
            detail: The same for people.
        """
        words = asked if code == "not_metered" else f"{asked} ({code.replace('_', ' ')})"
        self.refusal = self.refusal or detail
        many = len(self.refused) >= _MOST_NAMES and words not in self.refused
        self.refused["other requests" if many else words] += 1

    def when_stopped(self, act: Callable[[], object]) -> None:
        """Call *act* once a budget has stopped the program: it is of no use to wait, or to ask again."""
        self._when_stopped = act
        if self._is_over:
            act()

    def note_stop(self, detail: str, *, for_good: bool) -> None:
        """Note a request that a budget refuses.

        Args:
            detail: Why.
            for_good: Whether it is of no use to ask again.
        """
        self.stopped += 1
        self.stop = self.stop or detail
        if for_good and not self._is_over:
            self._is_over = True
            if self._when_stopped is not None:
                self._when_stopped()

    @property
    def is_complete(self) -> bool:
        """Whether all that was seen could be held."""
        return not self.refused and not self.own_keys

    def __str__(self) -> str:
        covered = [f"{_requests(count)} to {printable(name)}" for name, count in self.covered.items()]
        refused = [f"{_requests(self.stopped)} over the budget"] if self.stopped else []
        refused += [name if count == 1 else f"{name} ({count:,} times)" for name, count in self.refused.items()]
        seen = [f"{_requests(count)} to {printable(name)}" for name, count in self.own_keys.items()]
        missed = [f"what it sends with the key that {' and '.join(seen)} had"] if seen else []
        missed += [f"what it sends with {name}" for name in self._left]
        return (
            f"covered: {', '.join(covered) or 'no requests'}; refused: {', '.join(refused) or 'none'}; "
            f"not covered: {', '.join(missed) or 'none seen'}"
        )


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


class ProgramGateway(Gateway):
    """A gateway for one program, whose requests are one run whatever they say.

    Args:
        settings: What it is started with.
        token: The key that the program is given.
        who: Whose the run is.
        run_id: The run.
        absent: What to say to requests for upstreams that there are none of, by their names.
        left: The variables with keys that the program was left.
        clock: Where time comes from.

    Raises:
        ValueError, OSError, BudgetError: As `Gateway`.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        token: str,
        who: Principal,
        run_id: str,
        absent: Mapping[str, str],
        left: Sequence[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(settings, clock=clock, keys=OneKey(token, who))
        self.coverage = Coverage(left)
        self.report: BudgetReport | None = None
        """What the run has spent, once it is over."""
        self._token = token
        self._who = who
        self._run_id = run_id
        self._absent = absent

    async def open(self) -> Session:
        """Open the run, and keep it open until `close`.

        Raises:
            BudgetError: If it is another's, or cannot be opened.
        """
        session = (await self.runs.enter(self._who, self._run_id)).session
        session.subscribe(self._note)
        return session

    def _note(self, event: Event) -> None:
        """Count a call that is held, by the upstream that the request at hand is for."""
        if isinstance(event, CallAdmitted) and event.kind == "model":
            self.coverage.covered[_asked_of.get()] += 1

    async def close(self) -> None:
        """Settle what is under way, take the report, and let go of connections and of the ledger."""
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=_MOST_LEFT_S)
        for run in self.runs.all():
            with suppress(BudgetError):
                self.report = await run.session.areport()
        await super().close()

    def cancel(self) -> None:
        """End the requests that are under way. They are booked at their bound."""
        for task in self.under_way:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path: str = scope["raw_path"].decode("latin-1")
        name, slash, rest = path.removeprefix("/").partition("/")
        asked = f"{scope['method']} {printable(path)}"
        known = name in self._absent or any(each.name == name for each in self.settings.upstreams)
        if slash and known:
            asked = f"{scope['method']} /{printable(rest)}"
        query: str = scope["query_string"].decode("latin-1")
        fields = parse_qsl(query, keep_blank_values=True)
        in_query = [value.encode("latin-1", "replace") for field, value in fields if field == "key"]
        sent = [value for header, value in scope["headers"] if header in _CREDENTIALS] + in_query
        ours = self._token.encode()
        if sent and not any(compare_digest(value.removeprefix(b"Bearer "), ours) for value in sent):
            self.coverage.own_keys[name if slash and known else self._named(scope, query) or "a provider"] += 1
            await _refuse(receive, send, self._own_key())
            return
        if path.startswith("/budget/"):  # what services hold by themselves is no program's to change
            refusal = problem("not_found", "What is decided of a program is not for the program to ask.")
            self.coverage.refuse(asked, refusal.code, refusal.detail)
            await _refuse(receive, send, refusal)
            return
        if slash and name in self._absent:
            self.coverage.refuse(asked, f"no key for {name}", self._absent[name])
            await _refuse(receive, send, problem("unauthorized", self._absent[name]))
            return
        headers = [(header, value) for header, value in scope["headers"] if header not in _CREDENTIALS]
        headers = [each for each in headers if each[0] != b"x-run-id"]
        headers.append((b"x-run-id", self._run_id.encode()))
        if sent:
            headers.append((b"authorization", b"Bearer " + ours))
        if in_query:
            query = urlencode([each for each in fields if each[0] != "key"])
        # Without extensions, as an answer that is written past `send` would not be seen.
        scope = {**scope, "headers": headers, "query_string": query.encode("latin-1"), "extensions": {}}
        _asked_of.set(self._named(scope, query) or "a provider")
        watched = _Watched(send, self.coverage, asked)
        await super().__call__(scope, receive, watched)

    def _named(self, scope: Scope, query: str) -> str | None:
        """The upstream that a request goes to."""
        route = self.router.route(scope["method"], scope["raw_path"].decode("latin-1"), query)
        return None if route.upstream is None else route.upstream.name

    def _own_key(self) -> Problem:
        return problem(
            "unauthorized",
            "This program runs on a budget, with a key that is in its environment in place of the provider's. The "
            "request has another one, so it is not passed on: take the key out of the program or its settings.",
        )


async def _refuse(receive: Receive, send: Send, refusal: Problem) -> None:
    await Client(receive, send).refuse(refusal, budget_headers(mode="hard_gate", run_id=None, refused=True))


class _Watched:
    """Passes an answer on, and notes whether it is a refusal."""

    def __init__(self, send: Send, coverage: Coverage, asked: str) -> None:
        self._send = send
        self._coverage = coverage
        self._asked = asked
        self._is_refusal = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_refusal = dict(message["headers"]).get(b"x-budget-decision") == b"block"
        else:
            body: bytes = message.get("body", b"")
            if self._is_refusal:
                self._is_refusal = False  # it has one part
                self._note(body)
            elif body.startswith(_BROKEN_OFF):
                self._note(body.partition(b"data: ")[2])
        await self._send(message)

    def _note(self, body: bytes) -> None:
        document: dict[str, Any] = json.loads(body)
        name = _TYPE_OF[document["type"]]
        coverage = self._coverage
        if name in _STOPS:
            coverage.note_stop(str(document["detail"]), for_good=not PROBLEM_TYPES[name].retry)
        elif name not in _FAILURES and not self._asked.startswith(tuple(_HARMLESS)):
            coverage.refuse(self._asked, str(document["code"]), str(document["detail"]))


class ProgramProxy:
    """Serves a `ProgramGateway` on a free port of this machine, in a thread.

    Args:
        gateway: The gateway.
    """

    def __init__(self, gateway: ProgramGateway) -> None:
        self._gateway = gateway
        settings = gateway.settings
        self._listener = listener_at(settings.host, settings.port)
        self._server = _Server(server_config(settings, gateway, log_config=None, log_level="critical"))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="budget-guard", daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Session:
        """Serve; return the session of the run.

        Raises:
            BudgetError: If the run cannot be opened.
            RuntimeError: If it does not start.
        """
        self._port = self._listener.getsockname()[1]
        self._thread.start()
        self._server.is_up.wait()
        if not self._server.started:
            raise RuntimeError("the local proxy does not start")
        opening = asyncio.run_coroutine_threadsafe(self._gateway.open(), self._server.loop)
        try:
            return opening.result()
        except BaseException:
            self.stop()
            self.join()
            raise

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call *function* in its thread."""
        with suppress(RuntimeError):  # it has ended
            self._server.loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        """Take no further requests; those that are under way have `GatewaySettings.grace_s` to end in."""
        self.call_soon(self._server.stopping.set)

    def cancel(self) -> None:
        """End what is under way at once."""
        self.call_soon(self._gateway.cancel)

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, or some seconds; return whether it has. It may be interrupted, and called again."""
        return self._ended.wait(seconds)  # a thread that was joined until an interrupt counts as ended

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._server.is_up.set()
            self._ended.set()


class _Server(uvicorn.Server):
    """Says when it is up, and stops without a look each tenth of a second."""

    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.stopping.wait()
