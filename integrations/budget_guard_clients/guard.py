"""`guard(session, client)`: a copy of a client whose every request is held in the session's budget."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from budget_guard.adapter import ADD_FIELDS, AddField, Attempts
from budget_guard.errors import UnboundedCallError
from budget_guard.session.session import Session
from budget_guard.wire.hosts import provider_of_host
from budget_guard_clients.allow_list import check_allowances
from budget_guard_clients.errors import stops_of
from budget_guard_clients.pool import Pool
from budget_guard_clients.transport import AsyncGuardedTransport, Guard, GuardedTransport

T = TypeVar("T")

_HTTP_LIBRARIES = ("httpx", "httpx2")
_FLOORS = {"openai": (2, 33), "anthropic": (0, 100)}
"""The first versions that let their own errors through from a transport, without a retry."""
_TAKES = (
    "guard takes OpenAI, AsyncOpenAI, AzureOpenAI, Anthropic and AsyncAnthropic clients (Bedrock and Vertex too), and "
    "any httpx or httpx2 client, to give to an SDK that takes one"
)
_ELSEWHERE = {
    "google": "google-genai talks over aiohttp unless it is given HTTP clients: genai.Client(http_options="
    "HttpOptions(httpx_client=session.guard(httpx.Client()), httpx_async_client=session.guard(httpx.AsyncClient())))",
    "aiohttp": "aiohttp has no transport that can be guarded: give the SDK session.guard(httpx2.AsyncClient())",
    "mistralai": "Mistral(client=session.guard(httpx2.Client()), async_client=session.guard(httpx2.AsyncClient()))",
    "cohere": "ClientV2(httpx_client=session.guard(httpx.Client()))",
    "groq": "Groq(http_client=session.guard(httpx.Client()))",
    "together": "Together(http_client=session.guard(httpx.Client()))",
    "langchain_openai": "ChatOpenAI(http_client=session.guard(httpx.Client()), http_async_client=...)",
    "requests": "requests has no transport that can be guarded: use session.guard(httpx.Client())",
    "botocore": "boto3 has no transport that can be guarded: use AnthropicBedrock, or an httpx client",
}
"""What to do with clients of other packages."""


def guard(
    session: Session,
    client: T,
    *,
    models: Mapping[str, str] | None = None,
    agent: str | None = None,
    tool_costs: Mapping[str, Any] | None = None,
    add_fields: Sequence[AddField] = ADD_FIELDS,
) -> T:
    """A copy of *client* whose every request is held in *session* before it is sent.

    Args:
        session: The budget that the requests spend from.
        client: The client. It is not changed.
        models: The models behind names of one's own, such as Azure deployments.
        agent: Whom to attribute the calls to.
        tool_costs: What one use of a tool costs that the provider runs, by its type: ``{"web_search": "0.01"}``. It
            wins over the price table.
        add_fields: What may be added to a request.

    Raises:
        TypeError: If it is no client that can be guarded.
        ValueError: If its SDK is too old, its address tells nothing about prices and *models* is not given, a name in
            *tool_costs* or *add_fields* is not known, or an allowance prices what is held by its tokens.
    """
    package = _package_of(client)
    attempts = Attempts([session], models=models, agent=agent, add_fields=add_fields, tool_costs=tool_costs)
    check_allowances(attempts)
    if package in _HTTP_LIBRARIES:
        return cast(T, _guarded_http(client, attempts, None))
    _check_version(package)
    _check_address(client, models)
    return cast(T, _guarded_sdk(client, attempts, package))


def _package_of(client: object) -> str:
    if isinstance(client, type):
        raise TypeError(f"{client.__name__} is a class: give guard an instance, {client.__name__}(...). {_TAKES}.")
    roots = [cls.__module__.partition(".")[0] for cls in type(client).__mro__]
    is_http = any(
        cls.__module__.partition(".")[0] in _HTTP_LIBRARIES and cls.__name__ in ("Client", "AsyncClient")
        for cls in type(client).__mro__
    )
    for root in roots:
        if root in _HTTP_LIBRARIES and is_http:
            return root
        if root in _FLOORS and hasattr(client, "_client") and hasattr(client, "copy"):
            return root
    remedy = next((_ELSEWHERE[root] for root in roots if root in _ELSEWHERE), None)
    raise TypeError(
        f"{type(client).__module__}.{type(client).__qualname__} is no client that can be guarded: {_TAKES}."
        + (f" For this one: {remedy}." if remedy else "")
    )


def _check_version(package: str) -> None:
    version = str(getattr(sys.modules[package], "__version__", ""))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    floor = _FLOORS[package]
    if numbers and numbers < floor:
        least = ".".join(map(str, floor))
        raise ValueError(
            f"{package} {version} retries a stop and hides it in a connection error. The guard needs a later one: "
            f'pip install -U "{package}>={least}"'
        )


def _check_address(client: Any, models: Mapping[str, str] | None) -> None:
    """Refuse an address that tells nothing about prices."""
    url = client.base_url
    host = str(url.host)
    if models or _is_here(host) or provider_of_host(host) is not None:
        return
    raise ValueError(
        f"base_url={str(url)!r} is an address that nothing is known of, so the names of its models say nothing about "
        'prices. Name them: session.guard(client, models={"name-at-that-server": "gpt-4o"})'
    )


def _is_here(host: str) -> bool:
    """Whether *host* is this machine, where one tries things out."""
    return host in ("", "localhost", "::1") or host.startswith("127.")


# HTTP clients


def _guarded_http(http: Any, attempts: Attempts, package: str | None) -> Any:
    """A copy of an HTTP client over guarded transports: the same connections, proxies, hooks and cookies."""
    root = next(
        name
        for cls in type(http).__mro__
        if (name := cls.__module__.partition(".")[0]) in _HTTP_LIBRARIES and cls.__name__ in ("Client", "AsyncClient")
    )
    library = sys.modules[root]
    found = getattr(http, "_transport", None)
    owner: Any = http
    if isinstance(found, (GuardedTransport, AsyncGuardedTransport)):  # guarded before: one accountant for all
        before = found.guard
        sessions = [*before.attempts.sessions]
        sessions += [session for session in attempts.sessions if session not in sessions]
        fees = {**dict(before.attempts.tool_fees), **dict(attempts.tool_fees)}
        attempts = Attempts(
            sessions,
            models={**before.attempts.models, **attempts.models},
            agent=attempts.agent or before.attempts.agent,
            add_fields=[name for name in ADD_FIELDS if name in attempts.add_fields & before.attempts.add_fields],
        )
        attempts.tool_fees = tuple(fees.items())
        owner, package = before.pool.owner or http, package or before.package
    cls = _http_class(http.__class__)
    clone = cast(Any, object.__new__(cls))
    clone.__dict__.update(http.__dict__)
    state = clone._state
    if state.name == "OPENED":
        clone._state = state.__class__.UNOPENED  # the copy may be entered as well
    shared = Guard(library, attempts, package, Pool(owner))
    kind = AsyncGuardedTransport if hasattr(http, "aclose") else GuardedTransport
    clone._transport = kind(_bare(http._transport), shared)
    clone._mounts = {
        pattern: None if mounted is None else kind(_bare(mounted), shared) for pattern, mounted in http._mounts.items()
    }
    return clone


def _bare(transport: Any) -> Any:
    return transport.inner if isinstance(transport, (GuardedTransport, AsyncGuardedTransport)) else transport


_http_classes: dict[type, type] = {}


def _http_class(cls: type) -> type:
    """*cls* without the `__del__` of an SDK, which would close the connections that the original shares."""
    if not hasattr(cls, "__del__"):
        return cls
    found = _http_classes.get(cls)
    if found is None:

        def __del__(self: object) -> None:
            """Nothing: the original closes its connections."""

        found = _named_like(cls, {"__del__": __del__})
        _http_classes[cls] = _http_classes[found] = found
    return found


def _named_like(cls: type, more: dict[str, Any]) -> type:
    said = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**said, **more})


# SDKs


def _guarded_sdk(client: Any, attempts: Attempts, package: str) -> Any:
    http = _guarded_http(client._client, attempts, package)
    token = _copying.set(True)
    try:
        copied = client.copy(http_client=http)
    finally:
        _copying.reset(token)
    _stay_guarded(copied, package)
    return copied


_copying: ContextVar[bool] = ContextVar("budget_guard_copying", default=False)
_sdk_classes: dict[type, type] = {}
_GUARDED = "_is_guarded_by_budget_guard"
_ADDRESS = "_websocket_base_url_of_guarded"


def _stay_guarded(client: Any, package: str) -> None:
    """Make clones of a guarded client guarded, whatever they are given, and every WebSocket of OpenAI's refuse.

    All of these read the public attribute ``websocket_base_url`` first, before anything is looked up; on Azure they ask
    `_configure_realtime`.
    """
    cls: Any = client.__class__
    if getattr(cls, _GUARDED, None) is None:
        cls = _sdk_classes.get(cls) or _sdk_classes.setdefault(cls, _sdk_class(cls, package))
        if package == "openai":
            client.__dict__[_ADDRESS] = client.__dict__.pop("websocket_base_url", None)
        client.__class__ = cls


def _sdk_class(cls: Any, package: str) -> type:
    def copy(self: Any, *args: Any, **options: Any) -> Any:
        attempts: Attempts = self._client._transport.guard.attempts
        http = options.get("http_client")
        if http and not _is_guarded_in(http, attempts.sessions):
            options["http_client"] = _guarded_http(http, attempts, package)
        token = _copying.set(True)
        try:
            copied = cls.copy(self, *args, **options)
        finally:
            _copying.reset(token)
        if options.get("base_url"):
            _check_address(copied, attempts.models)
        return copied

    copy.__doc__ = cls.copy.__doc__
    more: dict[str, Any] = {"copy": copy, "with_options": copy, _GUARDED: True}
    if package == "openai":
        more |= _no_sockets_of(cls)
    return _named_like(cls, more)


def _is_guarded_in(http: Any, sessions: Sequence[Session]) -> bool:
    transport = getattr(http, "_transport", None)
    if not isinstance(transport, (GuardedTransport, AsyncGuardedTransport)):
        return False
    return set(map(id, sessions)) <= set(map(id, transport.guard.attempts.sessions))


def _no_sockets_of(cls: Any) -> dict[str, Any]:
    """The attributes of a class like *cls* whose WebSockets refuse to connect: what goes over them cannot be held."""

    def address(self: Any) -> Any:
        if _copying.get():
            return self.__dict__.get(_ADDRESS)
        raise _no_sockets()

    def set_address(self: Any, value: Any) -> None:
        self.__dict__[_ADDRESS] = value

    def configure(self: Any, *_: Any, **__: Any) -> Any:
        raise _no_sockets()

    more: dict[str, Any] = {"websocket_base_url": property(address, set_address)}
    for name in ("_configure_realtime", "_configure_realtime_with_api_key"):
        if hasattr(cls, name):
            more[name] = configure
    return more


def _no_sockets() -> Exception:
    error = UnboundedCallError(
        model="a WebSocket (realtime, live, responses.connect)",
        reason="what goes over it cannot be held, so it is not opened",
        remedy="Open it with the client that is not guarded, and book what it cost with session.charge.",
    )
    return stops_of("openai").recast(error)
