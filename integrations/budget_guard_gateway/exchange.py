"""One request on its way through the gateway: authenticated, held, passed on, settled by its answer.

Every way out settles what is held, whatever happens: the answer, an error of the provider, a client that goes, the end
of the gateway. A request that cannot be held is answered with a problem, and never sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias

import aiohttp
from yarl import URL

from budget_guard import Alternative, BudgetError, Decision, UnboundedCallError
from budget_guard.adapter import Attempt
from budget_guard.protocol import Problem, budget_headers, problem, problem_of
from budget_guard.units.printable import printable
from budget_guard.wire.price_headers import PRICE_HEADERS
from budget_guard.wire.values import read_json
from budget_guard_gateway.alternatives import alternatives_to
from budget_guard_gateway.content_encoding import can_be_read
from budget_guard_gateway.cors import cors_headers, is_preflight, preflight_headers
from budget_guard_gateway.decision_service.endpoint import PREFIX, serve_decision
from budget_guard_gateway.direct_request import DirectResponse
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.messages import (
    Client,
    ClientGone,
    Headers,
    Refused,
    Scope,
    encoded,
    headers_of,
    shown,
    to_pass_on,
    to_send,
    token_of,
)
from budget_guard_gateway.network_proxy import network_proxy
from budget_guard_gateway.routes import Route
from budget_guard_gateway.runs import OpenRun, checked_run_id, least_remaining_usd
from budget_guard_gateway.state import GatewayState

_log = logging.getLogger("budget_guard")

_NOT_ADDED = ("user-agent", "accept", "content-type")
"""Headers that the HTTP client would add where a caller has left them out."""
_PRICE_HEADERS = frozenset(name.encode() for name in PRICE_HEADERS)
_TIMEOUTS = (aiohttp.ServerTimeoutError, asyncio.TimeoutError)
_Answer: TypeAlias = aiohttp.ClientResponse | DirectResponse
_NOT_REACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Exchange:
    """One request, and its answer.

    Args:
        gateway: What it goes through.
        scope: The request's head.
        client: The connection to who asks.
        task: What serves it.
    """

    def __init__(self, gateway: GatewayState, scope: Scope, client: Client, task: asyncio.Task[Any]) -> None:
        self._gateway = gateway
        self._scope = scope
        self._client = client
        self._task = task
        self._run: OpenRun | None = None
        self._sent_s: float | None = None  # when it was sent, while its answer has not come to its end
        self._guarded_s = 0.0  # what it waited for the guard

    async def serve(self) -> None:
        """Answer it."""
        client = self._client
        try:
            await self._serve()
        except Refused as refused:
            await client.refuse(refused.problem, [*refused.headers, *self._decided(refused=True)])
        except asyncio.CancelledError:
            if not client.gone and not client.started:  # the gateway is stopped, and this call was settled
                await client.refuse(problem("busy", "The gateway is stopping."), self._decided(refused=True))
        except ClientGone:
            raise
        except Exception as error:
            _log.error("budget_guard: a request failed: %s", type(error).__name__, exc_info=error)
            if client.started:  # the server cuts a connection whose answer has no end
                raise
            await client.refuse(
                problem("internal", "The gateway failed. Its log says why."), self._decided(refused=True)
            )
        finally:
            client.unwatch()
            metrics = self._gateway.metrics
            if client.gone:
                metrics.client_gone()
            if self._guarded_s:
                metrics.guard.took(self._guarded_s)
            if self._run is not None:
                await self._gateway.runs.leave(self._run)

    async def _serve(self) -> None:
        scope, gateway, client = self._scope, self._gateway, self._client
        headers = headers_of(scope)
        origin = self._page_of(headers)
        if origin is not None:
            client.cors = cors_headers(origin)
            if is_preflight(scope["method"], headers):
                client.cors += preflight_headers(headers)
                await client.answer(200, [], b"")
                return
        query: str = scope["query_string"].decode("latin-1")
        who = self._authenticated(headers, query)
        if scope["path"].startswith(PREFIX):
            await serve_decision(gateway, scope, headers, who, client)
            return
        route = gateway.router.route(scope["method"], scope["raw_path"].decode("latin-1"), query)
        if route.upstream is None or (route.dialect is None and not route.passes):
            raise Refused(_not_metered(scope["method"], route))
        body = await client.body(gateway.settings.max_body, headers)
        path = f"{route.path}?{query}" if query else route.path
        sent = to_send(scope["headers"], route.credential, gateway.keeps_credentials)
        client.watch(self._task)
        if route.dialect is None:
            await self._pass_through(route.origin, path, sent, body)
            return
        attempt = await self._hold(who, headers, route, path, body)
        if attempt is not None:
            await self._exchange(attempt, route.origin, sent)

    # Before it is held

    def _page_of(self, headers: dict[bytes, bytes]) -> bytes | None:
        """The page that a browser asks for, which may ask; None where no browser asks.

        Raises:
            Refused: If it may not, or another host than this one is asked.
        """
        gateway = self._gateway
        host = headers.get(b"host", b"")
        if not gateway.serves_host(host):
            raise Refused(problem("misdirected_request", f"The host '{shown(host)}' is not served here."))
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in gateway.settings.allowed_origins:
            raise Refused(problem("browser_refused", f"Pages of '{shown(origin)}' are not served."))
        return origin

    def _authenticated(self, headers: dict[bytes, bytes], query: str) -> Principal:
        token = token_of(headers)
        if token is None or (who := self._gateway.keys.principal(token)) is None:
            hint = " A key in the address is not taken: addresses are logged." if "key=" in query else ""
            raise Refused(problem("unauthorized", f"Send a key: Authorization: Bearer, or x-api-key.{hint}"))
        if "key=" in f"&{query}" and any(pair.startswith("key=") for pair in query.split("&")):
            raise Refused(problem("invalid_request", "A key in the address is not taken: addresses are logged."))
        return who

    async def _hold(
        self, who: Principal, headers: dict[bytes, bytes], route: Route, path: str, body: bytes
    ) -> Attempt | None:
        """The request, held; None where it was refused, and answered."""
        gateway, client = self._gateway, self._client
        run_id = headers.get(b"x-run-id")
        named = checked_run_id(None if run_id is None else run_id.decode("latin-1"))
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(problem("unsupported_encoding", "Send the body without a Content-Encoding."))
        assert route.dialect is not None  # `serve` passes on everything else
        began = gateway.clock.monotonic()
        client.may_stop = True  # nothing was sent yet
        try:
            run = self._run = await gateway.runs.enter(who, named)
            priced = {raw.decode(): headers[raw].decode("latin-1") for raw in _PRICE_HEADERS.intersection(headers)}
            attempt = run.attempts.begin_at(route.endpoint, route.dialect, path, False, body, priced)
            for model in attempt.models_named:
                if not who.may_use(model):
                    words = f"The key may not use the model '{printable(model)}'."
                    raise Refused(problem("model_not_allowed", words))
            stop = await attempt.ahold()
            if attempt.decision is not None:
                gateway.decisions.note(attempt.decision, who)
        except BudgetError as error:
            await self._refuse(error, None, named, body)
            return None
        finally:
            client.may_stop = False
            self._guarded_s += gateway.clock.monotonic() - began
        if stop is not None:
            await self._refuse(stop.error, attempt, run.session.id, body)
            return None
        return attempt

    async def _refuse(self, error: BudgetError, attempt: Attempt | None, run_id: str | None, body: bytes) -> None:
        gateway = self._gateway
        if attempt is None and isinstance(error, UnboundedCallError) and not isinstance(read_json(body), dict):
            raise Refused(problem("invalid_request", "The body is no JSON object."))
        run_id = self._run.session.id if self._run is not None else run_id
        decision = None if attempt is None else attempt.decision
        if decision is None:
            gateway.metrics.refused(error)
        instead: Sequence[Alternative] = ()
        if decision is not None and self._run is not None:
            instead = await alternatives_to(decision, self._run, gateway.settings)
        status = gateway.settings.exceeded_status
        refusal = problem_of(error, decision=decision, run_id=run_id, exceeded_status=status, alternatives=instead)
        names = self._decided(decision, error, run_id=run_id, remaining=await self._remaining())
        await self._client.refuse(refusal, names)

    async def _remaining(self, decision: Decision | None = None) -> Decimal | None:
        """Dollars left in the tightest scope; None where that cannot be known."""
        return None if self._run is None else await least_remaining_usd(self._run.session, decision)

    def _decided(
        self,
        decision: Decision | None = None,
        error: BudgetError | None = None,
        *,
        run_id: str | None = None,
        remaining: Decimal | None = None,
        refused: bool = False,
    ) -> list[tuple[str, str]]:
        """The headers of what was decided."""
        gateway = self._gateway
        return budget_headers(
            mode=gateway.settings.run_budget.mode,
            run_id=run_id if self._run is None else self._run.session.id,
            decision=decision,
            error=error,
            remaining_usd=remaining,
            prices=gateway.prices,
            refused=refused,
        )

    # While it is sent

    async def _exchange(self, attempt: Attempt, origin: str, sent: Headers) -> None:
        """Send it, and settle it by what comes back."""
        gateway, client = self._gateway, self._client
        client.may_stop = gateway.settings.on_disconnect == "abort"
        answer: _Answer | None = None
        try:
            if client.gone:
                raise asyncio.CancelledError
            self._sent_s = gateway.clock.monotonic()
            answer = await self._send(attempt.endpoint.method, _url(origin + attempt.path), sent, attempt.body)
            kind = answer.headers.get("content-type", "")
            is_read = can_be_read(answer)
            if attempt.answered(answer.status, kind, answer.headers) and attempt.streams and is_read:
                await self._stream(attempt, answer)
                return
            body = await answer.read()
        except BaseException as error:
            client.may_stop = False
            if answer is not None:
                answer.close()
            await self._failed(attempt, error)
            return
        client.may_stop = False
        if 200 <= answer.status < 300:
            if is_read:  # else nobody knows what it took, and what is held is booked
                attempt.feed(body)
            await self._settled(attempt.aend)
        else:
            await self._settled(lambda: attempt.arefuse(answer.status, answer.headers, body))
        head = await self._head(answer, attempt)
        if not is_read:
            head += _as_packed(answer)
        await client.answer(answer.status, head, body)

    async def _send(self, method: str, url: URL, sent: Headers, body: bytes) -> _Answer:
        answer = await self._sent(method, url, sent, body)
        if not 200 <= answer.status < 600:  # which no server can pass on
            answer.close()
            raise aiohttp.ClientPayloadError(f"status {answer.status}")
        return answer

    async def _sent(self, method: str, url: URL, sent: Headers, body: bytes) -> _Answer:
        """Send a request; whatever its status, the answer."""
        http = self._gateway.http
        direct = self._gateway.direct  # made together with that
        proxy = network_proxy(url.scheme, url.host or "")
        if proxy is None and direct is not None and (answer := await direct.send(method, url, sent, body)) is not None:
            return answer
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent]
        named = {name for name, _ in headers}
        return await http.request(
            method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            proxy=proxy,
            # to keep them out takes longer than all the rest of a request's headers, and most callers send them
            skip_auto_headers=None if named.issuperset(_NOT_ADDED) else _NOT_ADDED,
        )

    async def _head(self, answer: _Answer, attempt: Attempt) -> Headers:
        """The head of an answer: the provider's, and what was decided."""
        names = self._decided(attempt.decision, remaining=await self._remaining(attempt.decision))
        return to_pass_on(answer.raw_headers) + encoded(names)

    async def _stream(self, attempt: Attempt, answer: _Answer) -> None:
        """Pass a stream on at the pace of who reads it."""
        client = self._client
        feed, interruption, send, content = attempt.feed, attempt.interruption, client.send, answer.content
        data = b"" if content.exception() is not None else content.read_nowait()  # what came with the head goes with it
        await client.start(answer.status, await self._head(answer, attempt), feed(data) if data else b"")
        client.may_stop = True
        if client.gone:  # while the provider was thinking
            raise asyncio.CancelledError
        while True:
            stop = interruption()
            if stop is not None:
                client.may_stop = False
                await self._settled(attempt.agive_up)
                answer.close()
                await client.send(_event_of(problem_of(stop.error, run_id=stop.session.id)))
                return
            data = await content.readany()
            if not data:
                break
            passed = feed(data)
            if passed:
                await send(passed, more=True)
        client.may_stop = False
        left = attempt.left
        await self._settled(attempt.aend)
        await client.send(left)

    async def _failed(self, attempt: Attempt, error: BaseException) -> None:
        """Settle it by what was raised in place of its answer, or in the middle of one, and tell the client."""
        client = self._client
        await self._settled(lambda: attempt.afail(error))
        if isinstance(error, asyncio.CancelledError):
            raise error
        if not isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError, OSError)):
            _log.error("budget_guard: a request failed: %s", type(error).__name__, exc_info=error)
        if client.started:  # the server cuts a connection whose answer has no end
            return
        await client.refuse(
            _problem_of_upstream(error),
            self._decided(attempt.decision, remaining=await self._remaining(attempt.decision)),
        )

    async def _settled(self, settle: Callable[[], Any]) -> None:
        """Settle the attempt. What that raises is logged: the answer is paid for, and goes to who asked for it."""
        gateway = self._gateway
        began = gateway.clock.monotonic()
        if self._sent_s is not None:
            gateway.metrics.upstream.took(began - self._sent_s)
            self._sent_s = None
        try:
            await settle()
        except asyncio.CancelledError:
            if not self._client.gone:  # it is settled all the same
                raise
        except Exception as error:
            _log.error("budget_guard: a call is not settled as it should: %s", type(error).__name__, exc_info=error)
        finally:
            self._guarded_s += gateway.clock.monotonic() - began

    async def _pass_through(self, origin: str, path: str, sent: Headers, body: bytes) -> None:
        """Pass on a request that costs nothing."""
        client = self._client
        self._gateway.metrics.unmetered()
        client.may_stop = True
        try:
            answer = await self._send(self._scope["method"], _url(origin + path), sent, body)
            is_read = can_be_read(answer)
            try:
                data = await answer.read()
            finally:
                answer.close()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Refused(_problem_of_upstream(error)) from None
        finally:
            client.may_stop = False
        head = to_pass_on(answer.raw_headers)
        await client.answer(answer.status, head if is_read else head + _as_packed(answer), data)


def _as_packed(answer: _Answer) -> Headers:
    """The header that says how a body is packed which is passed on as it is."""
    return [header for header in answer.raw_headers if header[0].lower() == b"content-encoding"]


@lru_cache(maxsize=1_024)
def _url(text: str) -> URL:
    """An address that is sent as it is."""
    return URL(text, encoded=True)


def _not_metered(method: str, route: Route) -> Problem:
    where = f"{method} {printable(route.endpoint.path)}"
    if route.upstream is None and (route.dialect is not None or route.passes):
        return problem("not_found", f"{where}: no upstream here answers that. Its operator names one with --upstream.")
    return problem("not_metered", f"{where} is not held to a budget, so it is not passed on.")


def _problem_of_upstream(error: BaseException) -> Problem:
    if isinstance(error, _NOT_REACHED):
        return problem("upstream_unreachable", "The provider cannot be reached. Nothing was sent.", retry_after_s=1)
    if isinstance(error, _TIMEOUTS):
        return problem("upstream_timeout", "The provider did not answer in time.")
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return problem("upstream_failed", "The provider broke off its answer.")
    return problem("internal", "The gateway failed.")


def _event_of(refusal: Problem) -> bytes:
    """A problem as the last event of a stream, in the form in which SDKs raise it."""
    return b"event: error\ndata: " + refusal.body + b"\n\n"
