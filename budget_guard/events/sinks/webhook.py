"""A sink that posts events to an address, signed as Standard Webhooks (specification of 2026-08-17) has it.

A message is written to a file before the call that caused it goes on, and taken out of it once the receiver has said
that it has it: a process that is killed loses none, and a receiver may see one twice, with the same id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import os
import random
import socket
import sqlite3
import ssl
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.events.model import (
    CallBlocked,
    Event,
    ModelDowngraded,
    OverrunCharged,
    SessionRevoked,
    SoftLimitReached,
    Subscriber,
    UsageEvent,
)
from budget_guard.events.origin import Origin
from budget_guard.units.money import usd_text

_log = logging.getLogger("budget_guard")

_TYPE_OF: dict[type[Event], str] = {
    SoftLimitReached: "budget.soft_limit.reached",
    CallBlocked: "budget.call.blocked",
    OverrunCharged: "budget.call.overrun",
    SessionRevoked: "budget.run.revoked",
    ModelDowngraded: "budget.model.downgraded",
    UsageEvent: "budget.usage.recorded",
}
TYPES = tuple(_TYPE_OF.values())
"""The types of messages."""
_BY_DEFAULT = TYPES[:4]
_DELAYS_S = (5.0, 30.0, 120.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0)
"""How long to wait after each failure; the last one again and again."""
_MOST_DAYS = 3
"""A message that could not be delivered for so long is given up."""
_CLAIM_S = 60.0
"""For so long a message is left to the process that is posting it."""
_TIMEOUT_S = 15.0
_MOST_BODY = 20_000
_SLOWED = (429, 502, 503, 504)
_GONE = 410
_APPLICATION_ID = 0x62756477
"""What marks an SQLite file as a queue of webhooks ("budw"), in the header that SQLite keeps for it."""
_VERSION = 1

Post: TypeAlias = "Callable[[bytes, Mapping[str, str]], Answered]"
"""Posts a body with headers."""


class Answered(NamedTuple):
    """The answer of a receiver."""

    status: int
    retry_after_s: float | None = None


class WebhookSink:
    """Posts what happens to an address: signed, at least once, and without ever making a call wait for it.

    ::

        hook = WebhookSink("https://example.com/hooks", secret="whsec_...", path="hooks.db")
        authority.subscribe(hook)

    The body is ``{"type": "budget.call.blocked", "timestamp": ..., "data": {...}}`` and holds no prompt and no answer.
    A refusal is told once for each run and limit. 2xx is taken for delivered; 410 ends the deliveries; anything else is
    tried again, later each time, for three days. Redirects are not followed.

    Args:
        url: Where to post.
        secret: What to sign with: ``whsec_`` and base64, as receivers know it. Several sign each message, so that one
            can replace another.
        path: A file on a local disk to keep messages in until they are delivered; several processes may share it.
        types: Which messages to send, of `TYPES`: by default all but downgrades and the usage of each call.
        allow_private: Whether the address may be plain ``http``, or of this machine or of a private network.
        most_waiting: How many messages may wait; the oldest are dropped beyond that, and counted in `dropped`.
        clock: Where time comes from.

    Raises:
        ValueError: If an argument makes no sense, or the file is another program's.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | Sequence[str],
        path: str | os.PathLike[str],
        types: Iterable[str] = _BY_DEFAULT,
        allow_private: bool = False,
        most_waiting: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._types = frozenset(types)
        unknown = sorted(self._types.difference(TYPES))
        if unknown:
            raise ValueError(f"types={unknown} are not known: choose from {', '.join(TYPES)}")
        secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        self._keys = [_key(each) for each in secrets]
        if not self._keys:
            raise ValueError("secret=() signs nothing: give one, such as whsec_ and 32 random bytes in base64")
        self._receiver = _Receiver(url, allow_private=allow_private)
        self._queue = _Queue(Path(os.fspath(path)).absolute(), most_waiting)
        self._clock = clock
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._told_of_redirect = False
        self.is_disabled = False
        """Whether the receiver has said that it is gone."""
        _all.add(self)

    @property
    def dropped(self) -> int:
        """Messages that this process has dropped, because too many were waiting or nobody took them for days."""
        return self._queue.dropped

    @property
    def waiting(self) -> int:
        """Messages that are not delivered yet."""
        return self._queue.count()

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""
        refused: set[str] = set()

        def take(event: Event) -> None:
            kind = _TYPE_OF.get(type(event))
            if kind not in self._types or self.is_disabled:
                return
            data = _data(event)
            if kind == "budget.call.blocked":
                if data["limit"] in refused:
                    return
                refused.add(data["limit"])
            self._put(kind, {"run_id": origin.run_id, **origin.principals, **data}, origin)

        return take

    def _put(self, kind: str, data: Mapping[str, Any], origin: Origin) -> None:
        now = origin.now()
        body = json.dumps({"type": kind, "timestamp": now.isoformat(), "data": data}, default=str)
        if len(body) > _MOST_BODY:
            brief = {name: value for name, value in data.items() if len(str(value)) < 300}
            body = json.dumps({"type": kind, "timestamp": now.isoformat(), "data": brief}, default=str)
        self._queue.put(f"msg_{uuid.uuid4().hex}", body, self._clock.now().timestamp())
        self._start()
        self._wake.set()

    def deliver(self) -> float | None:
        """Post every message that is due, and say in how many seconds the next one is; None where none is waiting.

        A thread of the sink does this by itself; call it to have it done now.
        """
        while not self.is_disabled:
            now = self._clock.now().timestamp()
            message = self._queue.claim(now)
            if message is None:
                break
            ident, body, made, attempts = message
            if now - made > timedelta(days=_MOST_DAYS).total_seconds():
                self._queue.give_up(ident)
                continue
            answered = self._post(ident, body, now)
            if answered is not None and 200 <= answered.status < 300:
                self._queue.remove(ident)
            elif answered is not None and answered.status == _GONE:
                self.is_disabled = True
                self._queue.postpone(ident, now, attempts)
                _log.warning("budget_guard: %s says that it is gone: no more webhooks are sent", self._receiver.host)
            else:
                self._queue.postpone(ident, now + _delay(attempts, answered), attempts + 1)
        due = self._queue.next_due()
        return None if due is None else max(0.0, due - self._clock.now().timestamp())

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread, after what it is posting just now. What is not delivered stays in the file."""
        self._closed = True
        self._wake.set()
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout_s)
        self._queue.close()

    def _post(self, ident: str, body: str, now: float) -> Answered | None:
        stamp = str(int(now))
        signed = f"{ident}.{stamp}.{body}".encode()
        signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "budget_guard",
            "webhook-id": ident,
            "webhook-timestamp": stamp,
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }
        try:
            answered = self._receiver.post(body.encode(), headers)
            if 300 <= answered.status < 400 and not self._told_of_redirect:
                self._told_of_redirect = True
                _log.warning(
                    "budget_guard: %s answers %s, and a webhook follows no redirect: give the address that it leads to "
                    "as url=",
                    *(self._receiver.host, answered.status),
                )
            return answered
        except (OSError, http.client.HTTPException) as error:
            _log.info("budget_guard: a webhook was not taken, and is sent again later: %s", type(error).__name__)
            return None

    def _start(self) -> None:
        with self._lock:
            if self._worker is None and not self._closed:
                self._worker = threading.Thread(target=self._work, name="budget_guard webhooks", daemon=True)
                self._worker.start()

    def hold_still(self) -> None:
        """Before this process is forked: nobody is in the middle of anything."""
        self._lock.acquire()
        self._queue.lock.acquire()

    def go_on(self) -> None:
        """After it was forked, in the parent."""
        self._queue.lock.release()
        self._lock.release()

    def begin_anew(self) -> None:
        """After it was forked, in the child, which has none of the threads of its parent."""
        self._lock, self._worker, self._wake = threading.Lock(), None, threading.Event()
        self._queue.begin_anew()

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                wait_s = self.deliver()
            except Exception:
                _log.exception("budget_guard: webhooks could not be delivered just now")
                wait_s = _DELAYS_S[0]
            if self.is_disabled:
                return
            self._wake.wait(wait_s)


def _delay(attempts: int, answered: Answered | None) -> float:
    delay = _DELAYS_S[min(attempts, len(_DELAYS_S) - 1)] * random.uniform(1.0, 1.2)
    if answered is not None and answered.status in _SLOWED and answered.retry_after_s is not None:
        delay = max(delay, min(answered.retry_after_s, _DELAYS_S[-1]))
    return delay


def _data(event: Event) -> dict[str, Any]:
    """The data of the message that tells of *event*."""
    if isinstance(event, SoftLimitReached):
        return {"scope": event.scope, "limit": event.dimension, "fraction": event.fraction}
    if isinstance(event, CallBlocked):
        return {"decision_id": event.decision_id, "name": event.name, "limit": event.limit}
    if isinstance(event, OverrunCharged):
        overrun = usd_text(event.overrun)
        return {"decision_id": event.decision_id, "name": event.name, "overrun_usd": overrun}
    if isinstance(event, SessionRevoked):
        return {"reason": event.reason}
    if isinstance(event, ModelDowngraded):
        return {"decision_id": event.decision_id, "model": event.model, "target": event.target}
    return event.as_plain() if isinstance(event, UsageEvent) else {}


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < 16:  # never the secret itself in a message
        raise ValueError("secret= must be base64 of at least 16 bytes, after whsec_ as a rule")
    return key


_all: weakref.WeakSet[WebhookSink] = weakref.WeakSet()
_still: list[WebhookSink] = []
"""The sinks that hold still while the process is forked."""


def _before_fork() -> None:
    for sink in list(_all):
        sink.hold_still()
        _still.append(sink)


def _after_fork_in_parent() -> None:
    while _still:
        _still.pop().go_on()


def _after_fork_in_child() -> None:
    while _still:
        _still.pop().begin_anew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class _Receiver:
    """The address to post to. It is looked up for each message, and what is looked at is what is connected to."""

    def __init__(self, url: str, *, allow_private: bool) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self._is_plain = parts.scheme == "http"
        self._allow_private = allow_private
        shown = f"{parts.scheme}://{self.host}"
        if parts.scheme not in ("http", "https") or not self.host:
            raise ValueError(f"url={shown!r} is no address to post to: write https://example.com/hooks")
        if parts.username or parts.password:
            raise ValueError(f"url={shown!r} has a password in it: the signature tells the receiver who sends")
        if self._is_plain and not allow_private:
            raise ValueError(f"url={shown!r} is not encrypted: use https, or allow_private=True for a receiver nearby")
        self._port = parts.port or (80 if self._is_plain else 443)
        self._authority = parts.netloc
        """What a request says that it is sent to."""
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return  # a name, which is looked up when a message is sent
        self._check(address)

    def _check(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        if not self._allow_private and not _is_public(address):
            raise _PrivateAddress(
                f"url: {self.host} is not a public address: set allow_private=True if it is yours to post to"
            )

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answered:
        """Post *body*.

        Raises:
            OSError, http.client.HTTPException: If no answer came.
        """
        found = socket.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            self._check(ipaddress.ip_address(address.partition("%")[0]))
        sock = self._connect(addresses)
        connection = http.client.HTTPConnection(self.host, self._port, timeout=_TIMEOUT_S)
        try:
            if not self._is_plain:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
            connection.sock = sock
            connection.request("POST", self._target, body, {"Host": self._authority, **headers})
            answer = connection.getresponse()
            return Answered(answer.status, _seconds(answer.getheader("Retry-After")))
        finally:
            connection.close()
            sock.close()

    def _connect(self, addresses: Sequence[str]) -> socket.socket:
        """A connection to the first of *addresses* that takes one: this machine may have no way to some of them."""
        for address in addresses[:-1]:
            try:
                return socket.create_connection((address, self._port), timeout=_TIMEOUT_S)
            except OSError:
                continue
        return socket.create_connection((addresses[-1], self._port), timeout=_TIMEOUT_S)


_CARRIES_IPV4 = (
    (ipaddress.ip_network("::/96"), 12),  # compatible
    (ipaddress.ip_network("::ffff:0:0/96"), 12),  # mapped
    (ipaddress.ip_network("64:ff9b::/96"), 12),  # translated
    (ipaddress.ip_network("2002::/16"), 2),  # 6to4
)
"""The networks of IPv6 whose addresses lead to one of IPv4, and at which byte that stands."""


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether *address* is one of the internet, and leads to none of a network nearby."""
    for network, at in _CARRIES_IPV4:
        if address in network:
            return _is_public(ipaddress.IPv4Address(address.packed[at : at + 4]))
    return address.is_global and not address.is_multicast


class _PrivateAddress(OSError, ValueError):
    pass


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


_of_parents: list[sqlite3.Connection] = []
"""Connections that came with a fork. Collected, they would be closed, and SQLite take itself for the last one."""


class _Queue:
    """The messages that are not delivered yet, in an SQLite file."""

    def __init__(self, path: Path, most: int) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"most_waiting={most!r} must be a whole number above zero")
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"path={str(path)!r} must name a file in a folder that is there")
        self._path = path
        self._most = most
        self.lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self.dropped = 0
        with self.lock:
            self._open()

    def put(self, ident: str, body: str, now: float) -> None:
        with self.lock, self._open() as db:
            db.execute("INSERT INTO message VALUES (?, ?, ?, 0, ?)", (ident, body, now, now))
            (count,) = db.execute("SELECT count(*) FROM message").fetchone()
            if count > self._most:
                oldest = "DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY made LIMIT ?)"
                self._drop(db.execute(oldest, (count - self._most,)).rowcount)

    def claim(self, now: float) -> tuple[str, str, float, int] | None:
        """The oldest message that is due, left to this process for a while: id, body, when it was made, attempts."""
        with self.lock, self._open() as db:
            claimed: tuple[str, str, float, int] | None = db.execute(
                "UPDATE message SET due = ? WHERE id ="
                " (SELECT id FROM message WHERE due <= ? ORDER BY due, made LIMIT 1)"
                " RETURNING id, body, made, attempts",
                (now + _CLAIM_S, now),
            ).fetchone()
            return claimed

    def remove(self, ident: str) -> None:
        with self.lock, self._open() as db:
            db.execute("DELETE FROM message WHERE id = ?", (ident,))

    def give_up(self, ident: str) -> None:
        self.remove(ident)
        self._drop(1)

    def postpone(self, ident: str, due: float, attempts: int) -> None:
        with self.lock, self._open() as db:
            db.execute("UPDATE message SET due = ?, attempts = ? WHERE id = ?", (due, attempts, ident))

    def next_due(self) -> float | None:
        with self.lock, self._open() as db:
            due: float | None
            (due,) = db.execute("SELECT min(due) FROM message").fetchone()
            return due

    def count(self) -> int:
        with self.lock, self._open() as db:
            (count,) = db.execute("SELECT count(*) FROM message").fetchone()
            return int(count)

    def close(self) -> None:
        with self.lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def begin_anew(self) -> None:
        """After a fork, in the child: the connection is the parent's, and so is whoever held the lock."""
        self.lock = threading.Lock()
        if self._db is not None:
            _of_parents.append(self._db)
            self._db = None

    def _drop(self, count: int) -> None:
        if not self.dropped:
            _log.warning("budget_guard: webhooks are being dropped: too many wait, or nobody took them for days")
        self.dropped += count

    def _open(self) -> sqlite3.Connection:
        """The connection of this process."""
        if self._db is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            db = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
            try:
                self._make(db)
            except sqlite3.DatabaseError as error:
                db.close()
                raise ValueError(f"path={str(self._path)!r} is no file of webhooks: {error}") from error
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _make(self, db: sqlite3.Connection) -> None:
        with db:
            db.execute("BEGIN IMMEDIATE")
            (program,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if program != _APPLICATION_ID and (program or version or tables):
                raise ValueError(f"path={str(self._path)!r} is another program's database: give a file of its own")
            if version > _VERSION:
                raise ValueError(f"path={str(self._path)!r} was written by a newer budget_guard: upgrade this one")
            if not tables:
                db.execute(
                    "CREATE TABLE message (id TEXT PRIMARY KEY, body TEXT NOT NULL, made REAL NOT NULL,"
                    " attempts INTEGER NOT NULL, due REAL NOT NULL) STRICT"
                )
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
