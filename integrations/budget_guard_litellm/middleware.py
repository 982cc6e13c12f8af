"""What stands around the proxy's application: it carries problems and headers out as they are.

LiteLLM answers what a hook raises in a form of its own, and knows no header of a refused request. So every request is
looked at once more on its way out, as an ASGI application around the proxy's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

from budget_guard import BudgetError
from budget_guard.protocol import Problem, problem
from budget_guard_gateway.messages import Client, Headers, Message, Receive, Refused, Scope, Send, encoded, headers_of
from budget_guard_litellm.exchange import Exchange, shielded
from budget_guard_litellm.refusals import Routes, not_metered

_OURS = (b"x-budget-", b"x-run-id")
_OF_PAGES = b"access-control-"
"""What a browser must see to show an answer to a page."""
NO_KEY = problem("unauthorized", "Send a key: Authorization: Bearer, or x-api-key.")
"""The problem of who is nobody to LiteLLM, which says why in its log."""
_DECISIONS = "/budget/decisions/"


class Carried:
    """What is known of one request between its way in and its way out."""

    __slots__ = ("error", "exchange", "is_free", "method", "path", "refusal", "run_id")

    def __init__(self, method: str, path: str, run_id: str | None, is_free: bool) -> None:
        self.method = method
        self.path = path
        self.run_id = run_id
        """The run that it names."""
        self.is_free = is_free
        self.exchange: Exchange | None = None
        self.refusal: Problem | None = None
        """Why it was refused before it belonged to a run."""
        self.error: BudgetError | None = None


carried: ContextVar[Carried | None] = ContextVar("budget_guard_litellm_carried", default=None)
"""The request that is being served."""


class Guard(Protocol):
    """The guard, as far as the middleware asks it."""

    routes: Routes

    def begin(self) -> None: ...
    async def leave(self, exchange: Exchange) -> None: ...
    async def look_up(self, scope: Scope, client: Client, decision_id: str) -> None: ...
    async def aheaders_of(self, exchange: Exchange, *, refused: bool = False) -> list[tuple[str, str]]: ...
    def headers_of(
        self,
        exchange: Exchange | None,
        *,
        error: BudgetError | None = None,
        run_id: str | None = None,
        refused: bool = False,
    ) -> list[tuple[str, str]]: ...


class ProblemMiddleware:
    """The application around the proxy's.

    Args:
        application: The proxy's.
        guard: The guard of its calls.
    """

    def __init__(self, application: Callable[[Scope, Receive, Send], Awaitable[None]], guard: Guard) -> None:
        self.application = application
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self.application(scope, receive, send)
            return
        guard = self._guard
        guard.begin()
        path = _path_of(scope)
        method: str = scope.get("method", "GET")
        if guard.routes.refused(method, path):
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await Client(receive, send).refuse(not_metered(method, path), guard.headers_of(None, refused=True))
            return
        if scope["type"] == "websocket":
            await self.application(scope, receive, send)
            return
        if path.startswith(_DECISIONS):
            await guard.look_up(scope, Client(receive, send), path.removeprefix(_DECISIONS))
            return
        try:
            named = headers_of(scope).get(b"x-run-id")
        except Refused as refused:
            await Client(receive, send).refuse(refused.problem, guard.headers_of(None, refused=True))
            return
        run_id = None if named is None else named.decode("latin-1")
        await self._serve(scope, receive, send, Carried(method, path, run_id, guard.routes.is_free(method, path)))

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request: Carried) -> None:
        token = carried.set(request)
        answer = _Answer(request, self._guard, receive, send)
        try:
            await self.application(scope, receive, answer)
        finally:
            carried.reset(token)
            if request.exchange is not None:
                await shielded(self._guard.leave(request.exchange))


class _Answer:
    """The way out of one request."""

    def __init__(self, request: Carried, guard: Guard, receive: Receive, send: Send) -> None:
        self._request = request
        self._guard = guard
        self._receive = receive
        self._send = send
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._replaced:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        request, guard = self._request, self._guard
        exchange = request.exchange
        refusal = request.refusal if exchange is None else exchange.refusal or request.refusal
        if exchange is None and message["status"] == 401 and guard.routes.is_held(request.method, request.path):
            refusal = refusal or NO_KEY
        if refusal is not None and message["status"] >= 400:
            self._replaced = True
            if exchange is None:
                headers = guard.headers_of(None, error=request.error, run_id=request.run_id, refused=True)
            else:
                headers = await guard.aheaders_of(exchange, refused=True)
            given: Headers = message.get("headers", [])
            kept = [(name.decode(), value.decode("latin-1")) for name, value in given if name.startswith(_OF_PAGES)]
            await Client(self._receive, self._send).refuse(refusal, [*headers, *kept])
            return
        if exchange is None:
            await self._send(message)
            return
        raw: Headers = [
            (name, value) for name, value in message.get("headers", ()) if not name.lower().startswith(_OURS)
        ]
        raw += encoded(await guard.aheaders_of(exchange))
        await self._send({**message, "headers": raw})


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) or "/" if root and path.startswith(root) else path


def put_around(application: Any, guard: Guard) -> bool:
    """Put a `ProblemMiddleware` around the proxy's *application*, also while it serves; return whether it could be.

    It leans on how Starlette keeps the stack of an application's middlewares.
    """
    if not hasattr(application, "middleware_stack"):
        return False
    stack = application.middleware_stack
    if stack is None:  # it is built with the first request
        add = getattr(application, "add_middleware", None)
        if not callable(add):
            return False
        add(ProblemMiddleware, guard=guard)
        return True
    if isinstance(stack, ProblemMiddleware):  # the configuration was read once more
        stack = stack.application
    if not callable(stack):
        return False
    inner: Any = stack
    application.middleware_stack = ProblemMiddleware(inner, guard)
    return True
