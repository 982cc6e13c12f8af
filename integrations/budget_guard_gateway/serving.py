"""Serves a gateway with uvicorn, in one process or in several."""

from __future__ import annotations

import functools
import gc
import ipaddress
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from budget_guard.estimate.tokens import count, encoding_of, is_installed
from budget_guard_gateway.app import Gateway
from budget_guard_gateway.services import keys_of, prices_of
from budget_guard_gateway.settings import GatewaySettings

MOST_HEAD = 64 * 1024
"""Bytes of a request's head."""


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT comes. Calls under way end then, within `GatewaySettings.grace_s`.

    Raises:
        ValueError, OSError, BudgetError: As `Gateway`; or if the address is taken.
    """
    keys_of(settings)  # here, where somebody sees it
    prices_of(settings)
    listener = _listener(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"budget_guard's gateway listens on http://{host}:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        functools.partial(_made, settings),
        factory=True,
        http=http_protocol(),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,  # it would show addresses
        server_header=False,
        date_header=False,
        proxy_headers=False,
        workers=settings.workers,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        h11_max_incomplete_event_size=MOST_HEAD,
    )
    for stopped_by in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(stopped_by, _ignore)
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
    else:
        Multiprocess(config, **_target(config), sockets=[listener]).run()


def _ignore(signal_number: int, frame: object) -> None:
    """Nothing: the server has seen it."""


def _made(settings: GatewaySettings) -> Gateway:
    """The gateway of one process, with what takes long done before the first request."""
    encoding = encoding_of("gpt-4o") if is_installed() else None
    if encoding is not None:
        count(encoding, "warm", None)
    made = Gateway(settings)
    gc.collect()
    gc.freeze()  # prices and vocabularies live as long as the process: no collection need look at them
    return made


def _target(config: uvicorn.Config) -> dict[str, Any]:
    """What older versions of uvicorn want to be told as well."""
    names = Multiprocess.__init__.__code__.co_varnames
    return {"target": uvicorn.Server(config).run} if "target" in names else {}


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET
    if host != "localhost" and ipaddress.ip_address(host.strip("[]")).version == 6:
        family = socket.AF_INET6
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def http_protocol() -> Any:
    """The HTTP server's protocol: the fast one, where it is installed, with a limit to the head of a request."""
    try:
        from budget_guard_gateway.bounded_head import BoundedHead
    except ImportError:
        return "h11"  # which has one
    return BoundedHead
