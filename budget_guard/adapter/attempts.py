"""Attempts: single requests on the wire, each held before it is sent and settled by its answer.

For a transport of any HTTP library, sync or async::

    attempts = Attempts([session])
    dialect = attempts.dialect_of("POST", host, path)
    if dialect is None:
        return send(request)                         # nothing to hold
    attempt = attempts.begin(dialect, "POST", host, path, headers, body)
    stop = attempt.hold()
    if stop is not None:
        raise stop.error
    try:
        with attempt.counting():
            response = send(attempt.path, attempt.body)
    except BaseException as error:
        attempt.fail(error)
        raise
    attempt.answered(response.status, response.headers)
    for data in response:
        pass_on(attempt.feed(data))
    pass_on(attempt.end())

**Two layers of ours count a call once.** An adapter that holds a call says so while its framework makes it, with
`counting`. The first attempt below *adopts* these holds: it checks them against what is really sent, and settles them
by the raw answer. Each further attempt, a client's retry, is held by itself, in the same sessions.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, cast, get_args
from urllib.parse import quote

from budget_guard.adapter.guarded_call import GIVEN_UP, GuardedCall, Steps, aperform, perform
from budget_guard.adapter.stops import Stop
from budget_guard.adapter.tool_costs import ToolCost
from budget_guard.calls.call import ModelCall
from budget_guard.calls.decision import Decision
from budget_guard.errors import BudgetError, UnboundedCallError, UnknownPriceError
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.session.session import Session
from budget_guard.units.money import nano_of
from budget_guard.wire import GENERATE_CONTENT, dialect_at
from budget_guard.wire.added_fields import explain_refusal
from budget_guard.wire.answer import Answer, unreadable
from budget_guard.wire.conversation import beginning, finished_calls
from budget_guard.wire.dialect import Dialect, StreamReader
from budget_guard.wire.hosts import Endpoint, endpoint
from budget_guard.wire.outcome import Outcome, outcome_of_error, outcome_of_status
from budget_guard.wire.price_headers import PRICE_HEADERS, with_headers
from budget_guard.wire.remembered import read_request
from budget_guard.wire.repeated import repeated_field
from budget_guard.wire.request import Request
from budget_guard.wire.tools import hosted_tool_named
from budget_guard.wire.values import as_body, fields, read_json, truth

AddField: TypeAlias = Literal["output_cap", "usage"]
ADD_FIELDS: tuple[AddField, ...] = get_args(AddField)
"""What may be added to a request: an output cap where the caller sets none, and the asking of a stream for usage."""
_EVERY_FIELD = frozenset(ADD_FIELDS)
_NO_HEADERS: Mapping[str, str] = {}

_STREAMS = ("event-stream", "eventstream", "ndjson", "jsonl", "stream+json")
_told_of: set[str] = set()
"""Parameters that nobody knows and that were warned of."""
_MOST_TOLD_OF = 1_000
_MOST_KEPT = 256 * 1024 * 1024
"""Bytes of an answer that are kept to be read; more than any model writes."""


# What is counted above


class Counted(NamedTuple):
    """The calls that the layers above this one have held, and that are being made now."""

    calls: tuple[GuardedCall, ...] = ()
    by: Attempt | None = None
    """The attempt of an outer transport that has adopted them, or holds them."""


_NOTHING = Counted()
_counted: ContextVar[Counted] = ContextVar("budget_guard_counted", default=_NOTHING)


def counted_by() -> Counted:
    """The calls that are held already by layers above, not settled there, and made here."""
    counted = _counted.get()
    if counted is not _NOTHING and not all(call.is_made_here() for call in counted.calls):
        return counted._replace(calls=tuple(call for call in counted.calls if call.is_made_here()))
    return counted


@contextmanager
def counting(call: GuardedCall) -> Generator[None]:
    """Say that *call* is held, while the block makes it: what is below holds nothing more in its sessions."""
    token = begin_counting(call)
    try:
        yield
    finally:
        end_counting(token)


@contextmanager
def counting_nothing() -> Generator[None]:
    """Run the block as if no call were being made: a tool that a model's own method runs makes calls of its own."""
    token = _counted.set(_NOTHING)
    try:
        yield
    finally:
        end_counting(token)


def begin_counting(call: GuardedCall) -> Token[Counted]:
    """As `counting`, for an adapter that is called before a call and after it. What is settled counts no more.

    A call inside another one that is held in all of that one's sessions is one more call of them, and no part of it.
    """
    counted = counted_by()
    around: list[GuardedCall] = []
    if counted.calls:
        own = set(map(id, call.sessions))
        around = [outer for outer in counted.calls if not own.issuperset(map(id, outer.sessions))]
    return _counted.set(Counted((*around, call), counted.by))


def end_counting(token: Token[Counted]) -> None:
    """End what `begin_counting` began. Does nothing in another context, which has a count of its own."""
    try:
        _counted.reset(token)
    except ValueError:
        return


class _Counting:
    """A block in which something is counted. As a generator it would take three times as long."""

    __slots__ = ("_counted", "_token")

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __enter__(self) -> None:
        self._token = _counted.set(self._counted)

    def __exit__(self, *_: object) -> None:
        end_counting(self._token)


# One request


def is_signature(authorization: str) -> bool:
    """True for an Authorization header that is AWS's signature (SigV4), which covers the body."""
    return authorization.lstrip().startswith("AWS4-")


def allowed_by_all(each: Iterable[Collection[AddField]]) -> frozenset[AddField]:
    """The fields that may be added to a request that several guards hold: those that all of them allow."""
    return _EVERY_FIELD.intersection(*each)


class Attempts:
    """The budgets that hold the requests of one client, and the changes that these requests may take.

    Args:
        sessions: The budgets that every request spends from, the outermost first. With none, requests are looked at
            only while a layer above counts a call.
        models: The models behind names of one's own, such as Azure deployments: ``{"prod-chat": "gpt-4o"}``.
        agent: Whom to attribute the calls to.
        add_fields: What may be added to a request.
        tool_costs: What one use of a tool costs that the provider runs, by its type: ``{"web_search": "0.01"}``. It
            wins over the price table.

    Raises:
        ValueError: If *add_fields* or *tool_costs* names what is not known, or a cost is no amount of money.
    """

    any_hold: ClassVar[bool] = False
    """True once any of them in this process has budgets of its own. Until then nobody above need say what it makes."""

    def __init__(
        self,
        sessions: Sequence[Session] = (),
        *,
        models: Mapping[str, str] | None = None,
        agent: str | None = None,
        add_fields: Sequence[AddField] = ADD_FIELDS,
        tool_costs: Mapping[str, ToolCost] | None = None,
    ) -> None:
        self.sessions = tuple(sessions)
        if self.sessions:
            Attempts.any_hold = True
        self.tool_fees = _fees_of(tool_costs or {})
        self.models = dict(models or {})
        self.agent = agent
        self.add_fields = check_add_fields(add_fields)
        self.names_of: dict[str, str] = {}
        """The names of one's own, by the model behind them."""
        for name, model in self.models.items():
            self.names_of.setdefault(model, name)

    def admitted(self, request: Request) -> Collection[str]:
        """The parameters that every budget admits, of those that *request* has and that nobody knows.

        Warns once of those that pass because they hold a plain value.
        """
        if not request.unknown and not request.unknown_structures:
            return ()
        asked = {*request.unknown, *request.unknown_structures} if self.sessions else set[str]()
        admitted = asked.intersection(*(session.budget.allowance.parameters for session in self.sessions))
        for name in request.unknown:
            if name not in admitted and name not in _told_of and len(_told_of) < _MOST_TOLD_OF:
                _told_of.add(name)
                warnings.warn(
                    f"the parameter {name!r} of {request.dialect} is not known: if it costs more than the text of the "
                    "request, what is held for it is too little. Budget(..., allowance=Allowance(parameters="
                    f"({name!r},))) says that it does not.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return admitted

    def dialect_of(self, method: str, host: str, path: str) -> Dialect | None:
        """The dialect in which a request is to be read and held; None where it is none of ours, or nothing counts it.

        Args:
            method: The HTTP method.
            host: The host, with or without a port.
            path: The path, with or without a query.
        """
        if not self.sessions and not counted_by().calls:
            return None
        return dialect_at(endpoint(method, host, path))

    def begin(
        self, dialect: Dialect, method: str, host: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Attempt:
        """The attempt that a request is. Nothing is held yet.

        Args:
            dialect: Its dialect.
            method: The HTTP method.
            host: The host, with or without a port.
            path: The path as it is sent, with or without a query.
            headers: The request's headers.
            body: Its body as it is sent.

        Raises:
            UnboundedCallError: If the body cannot be read, or what it asks for is billed where it cannot be seen.
        """
        signed = False
        priced: dict[str, str] = {}
        for given, value in headers.items():
            name = given.lower()
            if name == "authorization":
                signed = is_signature(value)
            elif name in PRICE_HEADERS:
                priced[name] = value
        return self.begin_at(endpoint(method, host, path), dialect, path, signed, body, priced)

    def begin_at(
        self,
        where: Endpoint,
        dialect: Dialect,
        path: str,
        signed: bool,
        body: bytes,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Attempt:
        """As `begin`, where more is known of the request already.

        Args:
            where: Where it goes to.
            dialect: Its dialect.
            path: The path as it is sent, with or without a query.
            signed: Whether a signature covers the body.
            body: Its body as it is sent.
            headers: Those of its headers that set its price, by their names in lower case: see `PRICE_HEADERS`.

        Raises:
            UnboundedCallError: As `begin`.
        """
        value = read_json(body)
        if not isinstance(value, dict):
            raise UnboundedCallError(
                model=f"{where.method} {where.path}",
                reason="the body of the request is no JSON object that can be read",
                remedy="Send plain JSON, without a content-encoding.",
            )
        asked = cast("dict[str, Any]", value)
        request = read_request(dialect, where, asked, self.models)
        if headers:
            request = with_headers(request, headers)
        if request.background or truth(asked.get("background")):
            raise UnboundedCallError(
                model=request.model,
                reason="it is answered later, under another address, where its usage cannot be seen",
                remedy="Leave out background=True (deferred=True at xAI), and stream long answers.",
            )
        twice = repeated_field(body, asked)
        if twice is not None and any(session.budget.mode == "hard_gate" for session in self.sessions):
            raise UnboundedCallError(
                model=request.model,
                reason=f"it has {twice} twice, and which one counts is not known",
                remedy="Send it once.",
            )
        return Attempt(self, where, dialect, request, path, body, asked, signed)


def _fees_of(tool_costs: Mapping[str, ToolCost]) -> tuple[tuple[str, int], ...]:
    fees: dict[str, int] = {}
    for name, cost in tool_costs.items():
        unit = hosted_tool_named(name)
        if unit is None:
            raise ValueError(
                f"tool_costs[{name!r}] is no tool that a provider runs, such as web_search or code_interpreter. What "
                "your own function costs is held where it runs: decorate it with @session.track_tool(cost=0.01)"
            )
        if callable(cost):
            raise ValueError(
                f"tool_costs[{name!r}] is a function, and the provider shows no result to give to it: give the dollars "
                "that one use costs"
            )
        fees[unit] = nano_of(cost, f"tool_costs[{name!r}]")
    return tuple(fees.items())


def check_add_fields(add_fields: Sequence[str]) -> frozenset[str]:
    """The fields that may be added to a request, checked.

    Raises:
        ValueError: If it names what is not known.
    """
    given = (add_fields,) if isinstance(add_fields, str) else tuple(add_fields)
    for name in given:
        if name not in ADD_FIELDS:
            raise ValueError(f"add_fields={add_fields!r}: {name!r} is not known: use any of {ADD_FIELDS!r}, or ()")
    return frozenset(given)


@lru_cache(maxsize=256)
def _is_stream(content_type: str) -> bool | None:
    """True where an answer of that type is a stream of events; None where the type does not say."""
    kind = content_type.lower()
    return any(name in kind for name in _STREAMS) or (False if "json" in kind else None)


def _nothing() -> Steps[None]:
    """No steps."""
    return
    yield


class _Settled:
    """Stands in for an attempt that is settled, so that nothing of it is kept."""

    settled = True

    def conclude(self, call: GuardedCall, otherwise: Steps[None], given_up: bool) -> Steps[None]:
        """Nothing: it is settled."""
        return
        yield


_SETTLED = _Settled()


class Attempt:
    """One request on the wire: what to send in its place, and how it is settled. Every way out of it is one verb.

    Verbs that may wait come twice: ``hold`` blocks, ``ahold`` is awaited. Each settles once; the first one counts.
    """

    __slots__ = (
        "_attempts",
        "_body",
        "_cap",
        "_dialect",
        "_headers",
        "_json",
        "_kept",
        "_may_be_whole",
        "_model",
        "_reader",
        "_size",
        "add_fields",
        "added",
        "answer",
        "body",
        "calls",
        "decision",
        "deployed_model",
        "endpoint",
        "hides_usage",
        "path",
        "request",
        "settled",
        "signed",
        "streams",
    )

    def __init__(
        self,
        attempts: Attempts,
        where: Endpoint,
        dialect: Dialect,
        request: Request,
        path: str,
        body: bytes,
        value: dict[str, Any],
        signed: bool,
    ) -> None:
        self._attempts = attempts
        deployment = where.deployment
        deployed = None if deployment is None else attempts.models.get(deployment, deployment)
        self.deployed_model = None if deployed == request.model else deployed
        """The model that the address names, as a deployment, where the body names another one: the address counts."""
        self._dialect = dialect
        self._json = value
        self._body = body
        self.endpoint = where
        self.request = request
        """The request that is asked for."""
        self.signed = signed
        """True if a signature covers the body, which cannot be changed then."""
        self.add_fields = attempts.add_fields
        """The fields that may be added to the request."""
        self.calls: list[GuardedCall] = []
        """What holds it: the calls of layers above that it has adopted, and one of its own for all other sessions."""
        self.decision: Decision | None = None
        """The latest decision that was made on it by itself, of the budget that refused it where one did."""
        self.path = path
        """The path to send it to."""
        self.body = body
        """The body to send: the caller's own bytes, where nothing is to be changed."""
        self.added: tuple[str, ...] = ()
        """The fields that were added to the body."""
        self.hides_usage = False
        """Whether the event that carries the usage is held back from the caller, who did not ask for it."""
        self.streams = False
        """Whether the answer is a stream of events."""
        self.settled = False
        """Whether the holds are settled."""
        self.answer: Answer | None = None
        """What the answer says was used, once it is over."""
        self._reader: StreamReader | None = None
        self._may_be_whole = False  # until its first byte tells, where its type does not
        self._headers: Mapping[str, str] | None = None
        self._kept: list[bytes] = []
        self._size = 0
        self._model = request.model  # as the budgets decided
        self._cap: int | None = None  # the lowest that they ask for

    @property
    def models_named(self) -> tuple[str, ...]:
        """All models that may serve it, by the names that its body and its address have for them."""
        named = (self.request.model, *self.request.models)
        deployed = self.deployed_model
        return named if deployed is None else (*named, deployed)

    @property
    def changed(self) -> bool:
        """Whether other bytes are to be sent than the caller's."""
        return self.body is not self._body

    # Before it is sent

    def hold(self, *, may_wait: bool = True) -> Stop | None:
        """Hold what the request takes at most, in every session, and put into it what the budgets decided.

        Returns:
            None if it may be sent; else what stops it. Nothing is held for it then.

        Raises:
            UnboundedCallError: If its body is signed and carries no output cap. Nothing is held then.
        """
        return perform(self._hold(may_wait))

    async def ahold(self) -> Stop | None:
        """As `hold`, and waits without blocking."""
        return await aperform(self._hold(None))

    def _hold(self, may_wait: bool | None) -> Steps[Stop | None]:
        left: Sequence[Session] = self._attempts.sessions
        asked = self._asked()
        counted = counted_by()
        try:
            if counted.calls:
                covered: set[int] = set()
                for above in counted.calls:
                    if any(not isinstance(hold.call, ModelCall) for hold in above.holds):
                        continue  # a tool's call: the calls that it makes are held by themselves
                    covered.update(map(id, above.sessions))
                    stop = yield from self._take_over(above, counted.by, asked, may_wait)
                    if stop is not None:
                        yield from self._give_back("another budget refused the call")
                        return stop
                left = [session for session in left if id(session) not in covered]
            stop = self._loops(left, asked)
            if stop is not None:
                yield from self._give_back("the conversation is in a loop")
                return stop
            if left:
                if self._model != asked.model:
                    asked = asked._replace(model=self._model)
                stop = yield from self._hold_by_itself(GuardedCall(left), asked, may_wait)
                if stop is not None:
                    yield from self._give_back("another budget refused the call")
                    return stop
            self._rewrite()
        except BaseException:
            yield from self._give_back("the call could not be made")
            raise
        return None

    def _loops(self, sessions: Sequence[Session], asked: ModelCall) -> Stop | None:
        """The stop of a conversation that is in a loop, where a budget looks for them: it holds calls and results."""
        for session in sessions:
            if session.looks_for_loops:
                error = session.loop_in(beginning(self._json), finished_calls(self._json), asked)
                if error is not None:
                    return Stop(session, error)
        return None

    def _asked(self) -> ModelCall:
        """The call to decide on."""
        attempts, request = self._attempts, self.request
        can_cap = not self.signed and "output_cap" in self.add_fields
        asked = request.call(can_cap=can_cap, agent=attempts.agent, admitted=attempts.admitted(request))
        deployed = self.deployed_model
        if deployed is not None and any(each.knows_price_of(deployed, request.provider) for each in attempts.sessions):
            asked = asked._replace(alternatives=(*asked.alternatives, deployed))
        if self.signed and request.max_output_tokens is None:
            self._refuse_where_gated(
                "its body is signed, so that no output cap can be put into it, and it carries none",
                "Set the cap yourself, for example max_tokens=1_000.",
            )
        if request.unclear:  # which no allowance bounds: the cap may be among it
            self._refuse_where_gated(
                f"it has {request.unclear[0]} in two spellings, and which one counts is not known", "Send one of them."
            )
        if attempts.tool_fees:
            asked = asked._replace(tool_fees=attempts.tool_fees)
        if self._model_is_fixed:
            asked = asked._replace(downgrade=DowngradePolicy(to=asked.model or "-"))  # which has no cheaper one for it
        return asked

    def _refuse_where_gated(self, reason: str, remedy: str) -> None:
        """Refuse the call if a budget is held to.

        Raises:
            UnboundedCallError: If one is.
        """
        if any(session.budget.mode == "hard_gate" for session in self._attempts.sessions):
            raise UnboundedCallError(model=self.request.model, reason=reason, remedy=remedy)

    @property
    def _model_is_fixed(self) -> bool:
        """Whether another model cannot be put into the request: a signature covers it, or it names a deployment."""
        if self.signed:
            return True
        return self.endpoint.deployment is not None and len(self._attempts.names_of) < 2

    def _take_over(
        self, above: GuardedCall, by: Attempt | None, asked: ModelCall, may_wait: bool | None
    ) -> Steps[Stop | None]:
        """Adopt the holds of a layer *above*, or hold a further attempt in its sessions."""
        below = above.below
        held = above.holds[0].call if above.holds else None
        real = self._as_held_above(asked, held) if isinstance(held, ModelCall) else asked
        hold_anew = real
        if above.holds and above.holds[0].terms.clamped and real.max_output_tokens == above.output_cap:
            hold_anew = real._replace(max_output_tokens=None)  # the cap is the budget's own: so is what it cuts off
        in_flight = below is not None and not below.settled
        if below is None or (in_flight and below is by):  # its first attempt
            if above.holds and all(hold.covers(real) for hold in above.holds):
                above.below = self
                self.calls.append(above)
                return None
            yield from above.releasing("more is sent than was held: it is held anew")
        elif in_flight:  # two attempts at once
            above = GuardedCall(above.sessions)
        above.holds.clear()  # settled, or released
        return (yield from self._hold_by_itself(above, hold_anew, may_wait))

    def _as_held_above(self, asked: ModelCall, held: ModelCall) -> ModelCall:
        """The call that is *asked* for, as the layer above attributes and steers it."""
        return asked._replace(
            agent=held.agent or asked.agent,
            started_by=held.started_by,
            final=held.final,
            downgrade=asked.downgrade or held.downgrade,
            provider=asked.provider or held.provider,
            tool_fees=asked.tool_fees or held.tool_fees,
        )

    def _hold_by_itself(self, call: GuardedCall, asked: ModelCall, may_wait: bool | None) -> Steps[Stop | None]:
        stop = yield from call.holding(asked, may_wait=may_wait)
        self.decision = call.decision
        if stop is not None:
            return Stop(stop.session, self._with_names(stop.error))
        call.below = self
        self.calls.append(call)
        name, cap = call.name, call.output_cap
        if name is not None and name != asked.model:
            self._model = name
        if cap is not None and (self._cap is None or cap < self._cap):
            self._cap = cap
        return None

    def _with_names(self, error: BudgetError) -> BudgetError:
        """*error*, which says how to name the model behind a deployment where it does not know that one."""
        if not isinstance(error, UnknownPriceError) or error.missing != "model" or error.model != self.request.model:
            return error
        name = json.dumps(error.model)
        told = UnknownPriceError(
            model=error.model,
            provider=error.provider,
            suggestions=lambda: error.suggestions,
            remedy=lambda: (
                f'name the model behind it, for example session.guard(client, models={{{name}: "gpt-4o"}}), or '
                + error.remedy
            ),
            decision_id=error.decision_id,
        )
        told.__cause__ = error.__cause__
        return told

    def _give_back(self, reason: str) -> Steps[None]:
        self.settled = True
        yield from self._each(lambda call: call.releasing(reason))

    def _rewrite(self) -> None:
        """Put into the request what the budgets decided."""
        if self.signed:
            return
        attempts, where, dialect = self._attempts, self.endpoint, self._dialect
        body = self._json
        added: tuple[str, ...] = ()
        if self._model != self.request.model:
            body = self._with_model(body, attempts.names_of.get(self._model, self._model))
        if self._cap is not None and "output_cap" in self.add_fields:
            own = self.request.max_output_tokens
            if own is None or self._cap < own:
                body, more = dialect.put_cap(where, body, self._cap)
                added += more
        if "usage" in self.add_fields and not self.request.asks_for_usage:
            body, more = dialect.ask_for_usage(where, body)
            self.hides_usage = bool(more)
            added += more
        self.added = added
        if body is not self._json:
            self._json = body
            self.body = as_body(body)

    def _with_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        where = self.endpoint
        put = self._dialect.put_model(where, body, model)
        in_path = where.deployment
        if put is not None and in_path is None:
            return without_foreign(put.body, self.request.model, model)
        path, question, query = self.path.partition("?")
        if in_path is not None:
            path = path.replace(f"/deployments/{quote(in_path, safe='')}/", f"/deployments/{quote(model, safe='')}/")
            body = {**body, "model": model} if "model" in body else body
        else:
            path = _MODEL_IN_PATH.sub(lambda found: found[1] + quote(model, safe="") + found[3], path)
        self.path = path + question + query
        return without_foreign(body, self.request.model, model)

    def counting(self) -> _Counting:
        """Say to transports of ours further below that the request is held, while the block sends it."""
        return _Counting(Counted(tuple(self.calls), self))

    # Its answer

    def answered(self, status: int, content_type: str = "", headers: Mapping[str, str] | None = None) -> bool:
        """Note that the head of the answer has come. Returns whether its body is an answer to bill, to be fed.

        Args:
            status: The HTTP status.
            content_type: The header of that name.
            headers: All of them, where known: an answer without an id is known by that of its request.
        """
        self._headers = headers
        if not 200 <= status < 300:
            return False
        is_stream = _is_stream(content_type)
        untold = is_stream is None and self.request.stream
        self.streams = bool(is_stream) or untold or (self.request.stream and self._dialect is GENERATE_CONTENT)
        if self.streams:
            self._reader = self._new_reader()
            self._may_be_whole = untold
        return True

    def _new_reader(self) -> StreamReader:
        reader = self._dialect.stream(self.request)
        if not self.request.modalities:
            reader.keeps_text = any(s.on_cancel == "seen" for call in self.calls for s in call.sessions)
        return reader

    def feed(self, data: bytes) -> bytes:
        """Take in *data*, decompressed, and return what to pass on to the caller."""
        reader = self._reader
        if reader is not None:
            if self._may_be_whole and (begin := data.lstrip()):
                self._may_be_whole = False
                if begin.startswith(b"{"):  # a stream was asked for, and a whole answer came
                    self._reader = None
                    return self.feed(data)
            return reader.feed(data, hide_usage=self.hides_usage)
        self._size += len(data)
        if self._size <= _MOST_KEPT:
            self._kept.append(data)
        return data

    @property
    def left(self) -> bytes:
        """What is still to be passed on at the end of a stream: an event that was not finished."""
        return self._reader.left if self._reader is not None and self.hides_usage else b""

    def interruption(self) -> Stop | None:
        """Why a stream must not go on; None while it may."""
        reader = self._reader
        if reader is None or self.settled:
            return None
        tokens = reader.output_floor
        for call in self.calls:
            stop = call.interruption(tokens)
            if stop is not None:
                return stop
        return None

    def read(self, *, complete: bool = True) -> Answer:
        """What the answer so far says was used.

        Args:
            complete: Whether it came to its end.
        """
        if self._reader is not None:
            return self._named(self._reader.close(complete=complete))
        if not complete or self._size > _MOST_KEPT:
            return unreadable(self._dialect.name, "the answer was not read to its end")
        whole = b"".join(self._kept)
        value = read_json(whole)
        if not isinstance(value, dict):
            if self.request.stream:  # it may be one all the same, whatever its type says
                reader = self._new_reader()
                reader.feed(whole)
                streamed = reader.close()
                if streamed.usage is not None or streamed.cost is not None:
                    return self._named(streamed)
            return unreadable(self._dialect.name, "the answer is no JSON object")
        return self._named(self._dialect.read_answer(cast("dict[str, Any]", value), self.request))

    def _named(self, answer: Answer) -> Answer:
        """*answer* with the model behind a name of one's own, and the id that it is known by."""
        if answer.id is None and self._headers is not None:
            answer = answer._replace(id=self._headers.get("x-request-id") or self._headers.get("request-id"))
        model = None if answer.model is None else self._attempts.models.get(answer.model)
        return answer if model is None else answer._replace(model=model)

    # The ways out

    def end(self, *, complete: bool = True) -> None:
        """Settle it by its answer, which is over.

        Args:
            complete: Whether the answer came to its end, and was not given up or cut off.
        """
        perform(self._end(complete))

    async def aend(self, *, complete: bool = True) -> None:
        """As `end`."""
        await aperform(self._end(complete))

    def give_up(self) -> None:
        """Settle it where its answer is closed before its end: nobody wants the rest of it."""
        perform(self._end(False, given_up=True))

    async def agive_up(self) -> None:
        """As `give_up`."""
        await aperform(self._end(False, given_up=True))

    def _end(self, complete: bool, *, given_up: bool = False) -> Steps[None]:
        if self.settled:
            return _nothing()
        self.settled = True
        answer = self.read(complete=complete)
        if answer.seen is not None and not given_up:
            answer = answer._replace(seen=None)
        self.answer = answer
        self._kept.clear()
        return self._each(lambda call: call.answering(answer))

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
        """Settle it by an answer that is no success.

        Args:
            status: The HTTP status.
            headers: The answer's headers.
            body: Its body, decompressed.

        Returns:
            Who added the field that the endpoint complains of, and how to leave it out; None where it does not.
        """
        return perform(self._refuse(status, headers, body))

    async def arefuse(self, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
        """As `refuse`."""
        return await aperform(self._refuse(status, headers, body))

    def _refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> Steps[str | None]:
        yield from self._outcome(outcome_of_status(status, headers, body))
        return explain_refusal(self.added, status, body)

    def fail(self, error: BaseException) -> None:
        """Settle it by what was raised in place of an answer, or in the middle of one."""
        perform(self._fail(error))

    async def afail(self, error: BaseException) -> None:
        """As `fail`."""
        await aperform(self._fail(error))

    def release(self, reason: str) -> None:
        """Give it back: nothing was sent.

        Args:
            reason: Why, for the timeline.
        """
        perform(self._outcome(Outcome(True, reason)))

    async def arelease(self, reason: str) -> None:
        """As `release`."""
        await aperform(self._outcome(Outcome(True, reason)))

    def _fail(self, error: BaseException) -> Steps[None]:
        if self._reader is not None or self._kept:  # it had begun to answer
            return self._end(complete=False, given_up=isinstance(error, GIVEN_UP))
        if isinstance(error, BudgetError):
            return self._outcome(Outcome(True, "another budget refused the call"))
        return self._outcome(outcome_of_error(error))

    def _outcome(self, outcome: Outcome) -> Steps[None]:
        if self.settled:
            return
        self.settled = True
        yield from self._each(lambda call: call.settling(outcome))

    def conclude(self, call: GuardedCall, otherwise: Steps[None], given_up: bool) -> Steps[None]:
        """Settle now what is known to be over, and do *otherwise* with *call* where that is not known.

        The layer above that made *call* is done with it. Where it has *given_up* the answer, what was seen of that may
        be booked.
        """
        if self.settled:
            return
        answer = self.read(complete=False)
        if answer.usage is not None or answer.cost is not None or (given_up and answer.seen is not None):
            self.settled = True
            self.answer = answer
            yield from self._each(lambda call: call.answering(answer))
            return
        self.settled = True
        yield from self._each(lambda each: otherwise if each is call else each.estimating("it was given up above"))

    def _each(self, steps_of: Callable[[GuardedCall], Steps[None]]) -> Steps[None]:
        """Settle every call, and only then raise what failed first."""
        failed: BaseException | None = None
        for call in self.calls:
            try:
                steps, below = steps_of(call), call.below
                if below is not None and below is not self:  # a transport further below has taken it over
                    steps = below.conclude(call, steps, False)
                yield from steps
            except BaseException as error:
                failed = failed or error
            if call.below is self:
                call.below = _SETTLED
        if failed is not None:
            raise failed


_MODEL_IN_PATH = re.compile(r"(/(?:models|tunedModels|endpoints|model)/)([^/:?]+)([:/])")
_REASONS = re.compile(r"(?:.*/)?(?:gpt-[5-9]|o[1-9]|codex)(?!.*chat-latest)")
_OF_REASONING = ("reasoning", "reasoning_effort", "verbosity")
_NOT_OF_REASONING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs")


def without_foreign(body: dict[str, Any], model: str, target: str) -> dict[str, Any]:
    """*body* without the parameters that *target* refuses, where it takes the place of *model*."""
    was, now = _REASONS.match(model) is not None, _REASONS.match(target) is not None
    drop = _OF_REASONING if was and not now else _NOT_OF_REASONING if now and not was else ()
    kept = {name: value for name, value in body.items() if name not in drop}
    if was and not now and "verbosity" in fields(kept.get("text")):
        kept["text"] = {name: value for name, value in fields(kept["text"]).items() if name != "verbosity"}
    return kept
