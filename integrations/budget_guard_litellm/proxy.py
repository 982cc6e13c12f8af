"""`proxy_guard`: the callback of LiteLLM's proxy that holds every attempt before it is sent.

::

    litellm_settings:
      callbacks: ["budget_guard.integrations.litellm.proxy_guard"]
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from litellm.integrations.custom_logger import CustomLogger
from starlette.requests import Request

from budget_guard import Alternative, BudgetAuthority, BudgetError, Decision, LedgerUnavailable
from budget_guard.calls.ladder import check_policy
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.outbox.ledger import areplay
from budget_guard.pricing import PriceTable
from budget_guard.protocol import Problem, budget_headers, problem, problem_of
from budget_guard.wire.values import fields
from budget_guard_gateway.decisions import WRITTEN_AFTER_S, Decisions, is_decision_id, open_store
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.messages import Client, Message, Refused, Scope
from budget_guard_gateway.runs import LOOKED_AFTER_S, OpenRun, Runs, checked_run_id, least_remaining_usd
from budget_guard_litellm.answer import (
    CACHED,
    StreamedPieces,
    from_cache,
    is_cache_hit,
    is_made_up,
    is_usage_alone,
    whole_answer,
)
from budget_guard_litellm.exchange import Exchange, HeldCall, shielded
from budget_guard_litellm.middleware import NO_KEY, Carried, carried, put_around
from budget_guard_litellm.refusals import BudgetRefusal, PlainRefusal, Refusal, Routes, not_metered
from budget_guard_litellm.request import HELD, family_of
from budget_guard_litellm.settings import ProxySettings, read_settings

_log = logging.getLogger("budget_guard")

_MOST_REMEMBERED = 10_000
"""Requests that are remembered by LiteLLM's id of them."""
_FREE_PATH = "/v1/models"
"""A path that every key may ask for."""
_HEADERS_OF_KEYS = (
    "api_key",
    "azure_api_key_header",
    "anthropic_api_key_header",
    "google_ai_studio_api_key_header",
    "azure_apim_header",
    "custom_litellm_key_header",
)
"""The arguments of LiteLLM's authentication, each the value of a header."""
_NOBODY = Principal("litellm")
"""Who asks where LiteLLM asks by itself, for its health checks say."""
_NOT_READ = problem("not_metered", "A stream that LiteLLM makes for itself is not held to a budget, so it is not made.")
"""The problem of such a stream: nothing would tell what it used."""
_making: ContextVar[HeldCall | None] = ContextVar("budget_guard_litellm_making", default=None)
"""The attempt that this task is making."""


class ProxyGuard(CustomLogger):
    """Holds each attempt of LiteLLM's proxy in its run's budget and its principals' ceilings.

    Args:
        settings: What it is started with.
        clock: Where time comes from.

    Raises:
        ValueError: If a price makes no sense.
        BudgetError: If a cheaper model has no price.
    """

    def __init__(self, settings: ProxySettings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # LiteLLM has few types
        prices = PriceTable.bundled()
        if settings.per_million:
            prices = prices.overlaid(None, per_million=settings.per_million)
        if settings.run_budget.downgrade is not None:
            check_policy(settings.run_budget.downgrade, prices)
        self.settings = settings
        self.clock = clock
        self.routes = Routes(settings.passthrough)
        self.authority = BudgetAuthority(
            settings.ledger,
            settings.ceilings,
            per_million=settings.per_million,
            clock=clock,
            max_live_runs=settings.max_live_runs,
            run_ttl_s=settings.run_ttl_s,
            outbox=settings.outbox,
            on_ledger_error=settings.on_ledger_error,
            require=(),
        )
        self.runs = Runs(self.authority, settings, clock)
        store = open_store(settings.ledger, settings.decisions_kept_days, clock)
        self.decisions = Decisions(store, settings.run_budget.mode, _not_counted)
        self._prices = prices.basis
        self._requests: OrderedDict[str, Exchange] = OrderedDict()
        self._timers: list[asyncio.Task[None]] = []
        self._untold = frozenset(settings.untold_usage)
        self._replaces = False
        """Whether answers can be replaced on their way out."""

    def attach(self, application: Any) -> None:
        """Stand around the proxy's *application*."""
        self._replaces = put_around(application, self)
        if not self._replaces:
            _log.warning(
                "budget_guard: this version of LiteLLM's proxy has no stack of middlewares that is known. Refusals are "
                "in LiteLLM's own form, answers have no X-Budget headers, and routes that are not held are not refused"
            )

    # LiteLLM's hooks

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> None:
        """Open the run that a request belongs to, before a deployment is chosen."""
        request = carried.get()
        if request is not None and request.exchange is not None:
            self._remember(data, request.exchange)
            return
        kind = str(getattr(call_type, "value", call_type))
        if kind not in HELD:
            method, path = _asked_of(data) if request is None else (request.method, request.path)
            if (request is not None and request.is_free) or self.routes.is_free(method, path):
                return
            raise self._refuse(request, not_metered(method, path))
        who = principal_of(user_api_key_dict)
        named = _run_id_of(data) if request is None else request.run_id
        try:
            checked_run_id(named)
        except Refused as refused:
            if request is not None:
                request.run_id = None  # what is no name is not said again
            raise self._refuse(request, refused.problem) from None
        exchange = await self._enter(request, who, named)
        self._remember(data, exchange)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        """Hold an attempt before it is sent; of a retry and of a fallback as well."""
        request = carried.get()
        if request is not None and request.is_free and not self._costs(request, call_type):
            return None
        exchange = self._exchange_of(kwargs)
        if exchange is None or exchange.left:
            who = _NOBODY if exchange is None else exchange.who
            exchange = await self._enter(None, who, None)
            exchange.by_itself = True
            self._remember(kwargs, exchange)
        if kwargs.get("stream") is True and (exchange.by_itself or _is_experiment(kwargs)):
            raise self._raised(_NOT_READ)
        error = await exchange.hold(call_type, kwargs)
        if error is not None:
            refusal = exchange.refusal
            if exchange.by_itself:
                await shielded(self.leave(exchange))
            raise self._raised(refusal or problem_of(error))
        _making.set(exchange.latest(family_of(call_type)))
        return kwargs

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """Settle an attempt by its answer, where that is no stream."""
        exchange = self._exchange_of(request_data)
        call = None if exchange is None else _made(exchange, call_type)
        if exchange is None or call is None or call.began or isinstance(response, AsyncIterable):
            return
        if from_cache(response):
            await shielded(call.attempt.arelease(CACHED))
        else:
            answer = whole_answer(response)
            told = self._tells(call) and not (call.streams and answer is not response and is_made_up(answer))
            await shielded(exchange.answered(call, answer, told=told))
        if exchange.by_itself:
            await shielded(self.leave(exchange))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """Settle an attempt that failed."""
        exchange = self._exchange_of(request_data)
        call = None if exchange is None else _made(exchange, call_type)
        if exchange is None or call is None or isinstance(exception, (BudgetRefusal, PlainRefusal)):
            return
        await shielded(exchange.failed(call, exception))
        if exchange.by_itself:
            await shielded(self.leave(exchange))

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> None:
        """Settle what an answer leaves open that came out of LiteLLM's cache."""
        exchange = self._exchange_of(data)
        if exchange is None:
            return
        if from_cache(response) or is_cache_hit(data):
            await shielded(exchange.release(CACHED))
        if carried.get() is None:
            await shielded(self.leave(exchange))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Settle what a request that failed leaves open, where nothing else tells its end."""
        exchange = self._exchange_of(request_data)
        if exchange is not None and carried.get() is None:
            await shielded(self.leave(exchange))

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Read a stream on its way to the client, and settle it however it ends."""
        exchange = self._exchange_of(request_data)
        call = None if exchange is None else exchange.outermost()
        if exchange is None or call is None:
            async for piece in response:
                yield piece
            return
        if from_cache(response):
            await shielded(exchange.release(CACHED))
        pieces = StreamedPieces(response, told=self._tells(call))
        try:
            async for piece in response:
                call = exchange.outermost() or call  # another one goes on where the first one broke
                call.read(pieces.event(piece))
                if call.attempt.hides_usage and is_usage_alone(piece):
                    continue
                stop = call.attempt.interruption()
                if stop is not None:
                    await shielded(call.attempt.agive_up())
                    raise PlainRefusal(problem_of(stop.error, run_id=stop.session.id))
                yield piece
            call.read(pieces.end())
            await shielded(call.attempt.aend())
        finally:
            try:
                await shielded(exchange.give_up())
            finally:  # a client that goes cancels this task, which is raised by what is shielded as well
                if carried.get() is None:
                    await shielded(self.leave(exchange))

    # Around a request

    def begin(self) -> None:
        """Begin to look after what is left behind, with the first request."""
        if not self._timers:
            self._timers = [asyncio.ensure_future(each) for each in (self._look_after(), self._write_decisions())]

    async def _enter(self, request: Carried | None, who: Principal, run_id: str | None) -> Exchange:
        """The exchange that a request is.

        Raises:
            BudgetRefusal, PlainRefusal: If its run cannot be opened.
        """
        self.begin()
        if who is not _NOBODY and self.settings.ceilings and who.kinds.isdisjoint(self.settings.ceilings):
            kinds = " or ".join(sorted(self.settings.ceilings))
            words = (
                f"The key is under none of the ceilings: its operator gives it a {kinds}, or a ceiling to every key."
            )
            raise self._refuse(request, problem("unauthorized", words))
        try:
            run = await self.runs.enter(who, run_id)
        except BudgetError as error:
            status = self.settings.exceeded_status
            raise self._refuse(request, problem_of(error, run_id=run_id, exceeded_status=status), error) from None
        exchange = Exchange(who, run, self.decisions.note, self._problem_of)
        if request is not None:
            request.exchange = exchange
        return exchange

    async def leave(self, exchange: Exchange) -> None:
        """Note that a request is over, and settle what it leaves open."""
        if exchange.left:
            return
        exchange.left = True
        try:
            await exchange.give_up()
        finally:
            for call_id in exchange.call_ids:
                self._requests.pop(call_id, None)
            await self.runs.leave(exchange.run)

    def _remember(self, data: Mapping[str, Any], exchange: Exchange) -> None:
        call_id = data.get("litellm_call_id")
        if not isinstance(call_id, str) or call_id in exchange.call_ids:
            return
        exchange.call_ids.append(call_id)
        self._requests[call_id] = exchange
        while len(self._requests) > _MOST_REMEMBERED:
            _, oldest = self._requests.popitem(last=False)
            self._settling = asyncio.ensure_future(self.leave(oldest))

    def _exchange_of(self, data: Mapping[str, Any]) -> Exchange | None:
        request = carried.get()
        if request is not None and request.exchange is not None:
            return request.exchange  # whatever it is called: a caller may choose the id of its call, also another's
        call_id = data.get("litellm_call_id")
        return self._requests.get(call_id) if isinstance(call_id, str) else None

    def _costs(self, request: Carried, call_type: object) -> bool:
        """Whether a model is asked on the way of a *request* that is free by itself: by a guardrail, or over MCP."""
        return family_of(call_type) in HELD and not self.routes.is_named(request.method, request.path)

    def _tells(self, call: HeldCall) -> bool:
        """Whether who answers it tells what was used."""
        asked = call.asked
        return self._untold.isdisjoint((asked.provider, asked.model, asked.attempt.request.model))

    # Refusals and headers

    def _refuse(self, request: Carried | None, refusal: Problem, error: BudgetError | None = None) -> Refusal:
        if request is not None:
            request.refusal = refusal
            request.error = error
        return self._raised(refusal, routed=False)

    def _raised(self, refusal: Problem, *, routed: bool = True) -> Refusal:
        return BudgetRefusal(refusal) if self._replaces else PlainRefusal(refusal, routed=routed)

    async def _problem_of(self, error: BudgetError, decision: Decision | None, run: OpenRun) -> Problem:
        """The problem that *error* is to whom it stops, as the gateway tells it."""
        instead: Sequence[Alternative] = ()
        if decision is not None:
            with suppress(LedgerUnavailable):
                instead = await self._alternatives_to(decision, run)
        return problem_of(
            error,
            decision=decision,
            run_id=run.session.id,
            exceeded_status=self.settings.exceeded_status,
            alternatives=instead,
        )

    async def _alternatives_to(self, decision: Decision, run: OpenRun) -> Sequence[Alternative]:
        """The cheaper models that the proxy knows, by the names that it would be asked for."""
        models = self.settings.models
        found = await run.session.aalternatives(decision, models=[models.get(n, n) for n in self.settings.alternatives])
        names = public_names(models)
        return [replace(each, model=names[each.model]) for each in found if each.model in names]

    def headers_of(
        self,
        exchange: Exchange | None,
        *,
        error: BudgetError | None = None,
        run_id: str | None = None,
        remaining: Decimal | None = None,
        refused: bool = False,
    ) -> list[tuple[str, str]]:
        """The headers of what was decided for a request; None for one that is in no run."""
        return budget_headers(
            mode=self.settings.run_budget.mode,
            run_id=run_id if exchange is None else exchange.run.session.id,
            decision=None if exchange is None else exchange.decision,
            error=error if exchange is None else exchange.error,
            remaining_usd=remaining,
            prices=self._prices,
            refused=refused,
        )

    async def aheaders_of(self, exchange: Exchange, *, refused: bool = False) -> list[tuple[str, str]]:
        """As `headers_of`, with what is left."""
        remaining = await least_remaining_usd(exchange.run.session)
        return self.headers_of(exchange, remaining=remaining, refused=refused)

    async def look_up(self, scope: Scope, client: Client, decision_id: str) -> None:
        """Answer with the record of a decision. What is another principal's is not there."""
        if scope["method"] != "GET" or not is_decision_id(decision_id):
            refusal = problem("not_found", "A record is had with GET, by the id of its decision.")
            await client.refuse(refusal, self.headers_of(None, refused=True))
            return
        who = await authenticated(scope)
        if who is None:
            await client.refuse(NO_KEY, self.headers_of(None, refused=True))
            return
        record = await self.decisions.find(decision_id, who)
        if record is None:
            refusal = problem("not_found", "There is no decision of that id, or it is no longer kept.")
            await client.refuse(refusal, self.headers_of(None, refused=True))
            return
        await client.answer(200, [(b"content-type", b"application/json")], record.encode())

    # What is left behind

    async def _write_decisions(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self.clock.wait_async(loop.create_future(), WRITTEN_AFTER_S)
                await self.decisions.flush()
        finally:  # the proxy is stopped
            await self.decisions.close()

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self.clock.wait_async(loop.create_future(), LOOKED_AFTER_S)
                await self.runs.look_after()
        finally:
            await self.runs.close()
            with suppress(BudgetError):
                await areplay(self.authority.outbox, self.authority.ledger)
            await self.authority.ledger.aio.close()


def _not_counted(_: Decision) -> None:
    """Nothing: LiteLLM has numbers of its own."""


def principal_of(auth: Any) -> Principal:
    """Who asks, as LiteLLM has authenticated it.

    Args:
        auth: Its ``UserAPIKeyAuth``.
    """
    token = auth.token or auth.api_key or ""
    if token.startswith("sk-"):  # one that is not hashed
        token = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return Principal(auth.key_alias or token or "anonymous", auth.user_id or None, auth.team_id or None)


async def authenticated(scope: Scope) -> Principal | None:
    """Who asks by themselves, not through LiteLLM's own routes; None for nobody that LiteLLM knows."""
    from litellm.proxy.auth import user_api_key_auth as auth

    there = {"path": _FREE_PATH, "raw_path": _FREE_PATH.encode(), "root_path": "", "query_string": b""}
    asked = Request({**scope, **there}, _no_body)
    given: dict[str, Any] = {
        name: asked.headers.get(getattr(auth, "api_key_header" if name == "api_key" else name).model.name)
        for name in _HEADERS_OF_KEYS
    }
    given["api_key"] = given["api_key"] or ""
    try:
        return principal_of(await auth.user_api_key_auth(request=asked, **given))
    except Exception:  # whatever LiteLLM says of it
        return None


def public_names(models: Mapping[str, str]) -> dict[str, str]:
    """The names that the proxy's router is asked for, by the models behind them.

    Args:
        models: The models behind names of one's own.
    """
    from litellm.proxy import proxy_server

    found: dict[str, str] = {}
    entries: Any = getattr(proxy_server.llm_router, "model_list", None) or ()
    for entry in entries:
        public = str(fields(entry).get("model_name"))
        full = str(fields(fields(entry).get("litellm_params")).get("model"))
        found.setdefault(models.get(public) or models.get(full) or full.rpartition("/")[2], public)
    return found


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _run_id_of(data: Mapping[str, Any]) -> str | None:
    headers = fields(fields(data.get("proxy_server_request")).get("headers"))
    return next((str(value) for name, value in headers.items() if name.lower() == "x-run-id"), None)


def _asked_of(data: Mapping[str, Any]) -> tuple[str, str]:
    asked = fields(data.get("proxy_server_request"))
    return str(asked.get("method") or "POST"), urlsplit(str(asked.get("url") or "")).path


def _made(exchange: Exchange, call_type: object) -> HeldCall | None:
    """The attempt that this task has made."""
    family = family_of(call_type)
    call = _making.get()
    if call is not None and call.open and call.asked.family == family and exchange.has(call):
        return call
    return exchange.latest(family)


def _is_experiment(arguments: Mapping[str, Any]) -> bool:
    """Whether LiteLLM makes it beside the caller's, to try another model: nobody reads its stream."""
    return fields(arguments.get("metadata")).get("is_silent_experiment") is True


def made_guard() -> ProxyGuard:
    """The guard that the environment configures, around the proxy of this process.

    Raises:
        ValueError, OSError, BudgetError: If what it is configured with makes no sense.
    """
    from litellm.proxy.proxy_server import app

    guard = ProxyGuard(read_settings(os.environ))
    guard.attach(app)
    return guard
