"""Serves a gateway with uvicorn, in one process or in several."""

from __future__ import annotations

import asyncio
import functools
import gc
import ipaddress
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from budget_guard.estimate.tokens import count, encoding_of, is_installed
from budget_guard_gateway.admin.app import Admin
from budget_guard_gateway.app import Gateway
from budget_guard_gateway.metrics import SharedNumbers
from budget_guard_gateway.settings import GatewaySettings, address_of
from budget_guard_gateway.state import GatewayState, keys_of, prices_of

_ADMIN_ENDS_WITHIN_S = 5.0
_MOST_YOUNG = 10_000
"""Objects that are made between two looks for cycles; Python's own 700 are a tenth of what some requests make."""
MOST_HEAD = 64 * 1024
"""Bytes of a request's head."""


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT comes. Calls under way end then, within `GatewaySettings.grace_s`.

    Raises:
        ValueError, OSError, BudgetError: As `Gateway`; or if the address is taken.
    """
    keys_of(settings)  # here, where somebody sees it
    prices_of(settings)
    listener = listener_at(settings.host, settings.port)
    print(f"budget_guard's gateway listens on {_url(listener)}", flush=True)
    admin_listener = listener_at(*address_of(settings.admin)) if settings.admin is not None else None
    if admin_listener is not None:
        needed = "" if settings.admin_token else ", and asks for no token: whoever is on this machine may look and act"
        print(f"budget_guard's admin port listens on {_url(admin_listener)}/budget/{needed}", flush=True)
    asked = _Asked()
    for stopped_by in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(stopped_by, asked)
    if settings.workers == 1:
        _stop_on_hangup()
        gateway = _made(settings, None)
        admin = None if admin_listener is None else _admin(gateway)
        server = _Beside(server_config(settings, gateway), asked, admin, admin_listener)
        server.run(sockets=[listener])
        return
    with _admin_in_a_thread(settings, admin_listener) as shared:
        config = server_config(settings, functools.partial(_made, settings, shared))
        processes = Multiprocess(config, **_target(config), sockets=[listener])
        if not asked.to_stop:
            processes.run()


def server_config(settings: GatewaySettings, app: Any, **options: Any) -> uvicorn.Config:
    """How uvicorn serves an application of the gateway's.

    Args:
        settings: What the gateway is started with.
        app: The application, or what makes it.
        **options: Options of uvicorn's, in place of the usual ones.
    """
    given: dict[str, Any] = {
        "factory": not isinstance(app, (Gateway, Admin)),
        "http": http_protocol(),
        "ws": "none",
        "lifespan": "on",
        "log_level": "warning",
        "access_log": False,  # it would show addresses
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "workers": settings.workers,
        "timeout_graceful_shutdown": max(1, round(settings.grace_s)),
        "h11_max_incomplete_event_size": MOST_HEAD,
    }
    return uvicorn.Config(app, **{**given, **options})


def _admin(gateway: GatewayState, shared: SharedNumbers | None = None) -> _Quiet:
    """The server of the admin port."""
    return _Quiet(server_config(gateway.settings, Admin(gateway, shared), workers=1, timeout_graceful_shutdown=1))


class _Quiet(uvicorn.Server):
    """A server that leaves signals to who runs it."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class _Beside(uvicorn.Server):
    """A server with the admin port beside it, on the same event loop: they share a ledger that may be in memory."""

    def __init__(
        self, config: uvicorn.Config, asked: _Asked, admin: _Quiet | None, admin_listener: socket.socket | None
    ) -> None:
        super().__init__(config)
        self._asked = asked
        self._admin = admin
        self._admin_listener = admin_listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and end at once where that was asked for meanwhile."""
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._asked.to_stop

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve both."""
        if self._admin is None or self._admin_listener is None:
            await super().serve(sockets)
            return
        beside = asyncio.ensure_future(self._admin.serve([self._admin_listener]))
        try:
            await super().serve(sockets)
        finally:
            self._admin.should_exit = True
            await beside


@contextmanager
def _admin_in_a_thread(
    settings: GatewaySettings, admin_listener: socket.socket | None
) -> Generator[SharedNumbers | None]:
    """Serve the admin port in the process that starts the others: it is there whichever of them ends.

    It goes by the ledger that they share, by the records beside it, and by the numbers that they write down.
    """
    if admin_listener is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="budget_guard-", ignore_cleanup_errors=True) as folder:
        shared = SharedNumbers(Path(folder))
        with _served_in_a_thread(_admin(GatewayState(settings), shared), admin_listener):
            yield shared


@contextmanager
def _served_in_a_thread(admin: _Quiet, admin_listener: socket.socket) -> Generator[None]:
    thread = threading.Thread(target=admin.run, args=([admin_listener],), name="budget_guard-admin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        admin.should_exit = True
        thread.join(_ADMIN_ENDS_WITHIN_S)


class _Asked:
    """Notes that one was asked to stop, while there is no server yet that sees it."""

    def __init__(self) -> None:
        self.to_stop = False

    def __call__(self, signal_number: int, frame: object) -> None:
        self.to_stop = True


def _stop_on_hangup() -> None:
    """Let SIGHUP stop this process as SIGTERM does: by default it is killed, and the calls under way with it."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def _ignore_hangup() -> None:
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _made(settings: GatewaySettings, shared: SharedNumbers | None) -> Gateway:
    """The gateway of one process, with what takes long done before the first request."""
    encoding = encoding_of("gpt-4o") if is_installed() else None
    if encoding is not None:
        count(encoding, "warm", None)
    if settings.workers > 1 and (parent := multiprocessing.parent_process()) is not None:
        _ignore_hangup()  # whoever started it has it stopped, and another one started
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="budget_guard-parent", daemon=True).start()
    made = Gateway(settings, shared=shared)
    gc.collect()
    gc.freeze()  # prices and vocabularies live as long as the process: no collection need look at them
    gc.set_threshold(_MOST_YOUNG)  # what a request leaves behind has few cycles in it
    return made


def _end_with(parent: int) -> None:
    """Stop this process, as SIGTERM does, once the one that started it is gone: nobody else would stop it then."""
    connection.wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)


def _target(config: uvicorn.Config) -> dict[str, Any]:
    """What older versions of uvicorn want to be told as well."""
    names = Multiprocess.__init__.__code__.co_varnames
    return {"target": uvicorn.Server(config).run} if "target" in names else {}


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listener_at(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address.

    Raises:
        OSError: If it is taken.
    """
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
