"""The runner of the Lua scripts, one for each verb: it repeats what got no response, and follows redirections."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable
from budget_guard.ledger.flow import Steps
from budget_guard.ledger.redis.connection import Address, Command, NoResponse, NotConnected, Request, Server
from budget_guard.ledger.waiters import Waiters

_log = logging.getLogger("budget_guard")

TRIES = 3
"""How often a verb is sent at most. Each is idempotent, so a repetition changes nothing."""
_PAUSE_S = 0.05
"""Seconds before the second repetition; the first comes at once."""
_REDIRECTIONS = 5


_SETTLING = ("adjust", "charge", "commit", "release")
_READING_HISTORY = ("recount", "usage")


class Script(NamedTuple):
    """A Lua script, and the digest by which a server knows it once it has seen it."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """The script *name*, with what it begins with."""
    parts: tuple[str, ...] = ("common", name)
    if name in _SETTLING:
        parts = ("common", "history", "settle", name)
    elif name in _READING_HISTORY:
        parts = ("common", "history", name)
    folder = resources.files("budget_guard.ledger.redis") / "lua"
    text = b"\n".join((folder / f"{part}.lua").read_bytes() for part in parts)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


class _Seen(NamedTuple):
    """The furthest that the store was ever seen to be."""

    epoch: bytes = b""
    sequence: int = 0

    def generation(self) -> int:
        return int(self.epoch.partition(b"-")[0] or 0)


def _its_own() -> bytes:
    return b""


class ScriptRunner:
    """Runs scripts, repeats what got no response, follows redirections, and remembers how far the store was.

    Its steps are ``"send"`` and ``"pause"``, the methods of `Connections` and of `AsyncConnections`.

    Args:
        server: Where the server is.
        tenant: The key of the tenant's record.
        wait_replicas: How many replicas must have a change before it counts as done.
        waiters: What waits for room in this process.
    """

    def __init__(self, server: Server, tenant: bytes, wait_replicas: int, waiters: Waiters) -> None:
        self._redis = server.redis
        self._tenant = tenant
        self._waiters = waiters
        self.now: Callable[[], bytes] = _its_own
        """The time for the server to use, in microseconds since 1970; empty for its own."""
        self._wait: tuple[Command, ...] = ()
        if wait_replicas:
            self._wait = ((b"WAIT", b"%d" % wait_replicas, b"%d" % int(server.timeout_s * 500)),)
        self._wait_replicas = wait_replicas
        self._nonce = secrets.token_hex(6).encode()
        self._seen = _Seen()
        self._node: Address | None = None
        self._asked_about_memory = False

    def call(self, name: str, keys: Sequence[bytes], *args: bytes, changes: bool = True) -> Steps[list[Any]]:
        """Run the script *name*; return what it answered, its status first.

        Raises:
            LedgerUnavailable: If it could not be run: nothing was changed.
            LedgerAmbiguous: If it *changes* anything, and may have been run.
        """
        if not self._asked_about_memory:
            self._asked_about_memory = True
            yield from self._ask_about_memory()
        sent, why = False, ""
        for attempt in range(TRIES):
            if attempt == TRIES - 1:
                yield "pause", (self._waiters.times, _PAUSE_S)
            try:
                answer, *replicas = yield from self._exchange(name, keys, args, self._wait if changes else ())
            except NotConnected as error:
                self._node, why = None, str(error)
            except NoResponse as error:
                self._node, why, sent = None, str(error) or "the connection was lost", True
            else:
                if isinstance(answer, Exception):
                    why = str(answer)  # scripts check before they write, so nothing was changed
                    continue
                result: list[Any]
                epoch, sequence, _fenced, *result = answer
                self._remember(_Seen(epoch, int(sequence)))
                if not replicas or min(replicas) >= self._wait_replicas:
                    return result
                why, sent = f"{replicas[0]} of {self._wait_replicas} replicas have it", True
        if sent and changes:
            raise LedgerAmbiguous(detail=f"Redis was asked {TRIES} times: {why}")
        raise LedgerUnavailable(detail=f"Redis was asked {TRIES} times: {why}")

    def _exchange(
        self, name: str, keys: Sequence[bytes], args: Sequence[bytes], wait: Sequence[Command]
    ) -> Steps[list[Any]]:
        """The response to the script, and to *wait* where that is given."""
        text, sha = script(name)
        seen = self._seen
        rest = (
            b"%d" % (len(keys) + 1),
            self._tenant,
            *keys,
            self.now(),
            seen.epoch,
            b"%d" % seen.sequence,
            self._nonce,
            *args,
        )
        evaluate: Command = (b"EVALSHA", sha, *rest)
        asking: tuple[Command, ...] = ()
        node, answer = self._node, None
        for _ in range(_REDIRECTIONS):
            responses: list[Any] = yield "send", (Request((*asking, evaluate, *wait), node),)
            responses = responses[len(asking) :]
            answer = responses[0]
            if isinstance(answer, self._redis.exceptions.NoScriptError):
                evaluate = (b"EVAL", text, *rest)
                continue
            moved = _redirection(answer)
            if moved is None:
                return responses
            permanently, node = moved
            asking = () if permanently else ((b"ASKING",),)
            if permanently:
                self._node = node
        raise NotConnected(f"the cluster redirects for ever: {answer}")

    def _remember(self, seen: _Seen) -> None:
        # two threads may do this at once, and the older be kept: then a little less of a lost tail is noticed
        before = self._seen
        if seen.epoch == before.epoch:
            if seen.sequence > before.sequence:
                self._seen = seen
        elif seen.generation() > before.generation():
            self._seen = seen

    def _ask_about_memory(self) -> Steps[None]:
        try:
            responses = yield "send", (Request(((b"INFO", b"memory"), (b"INFO", b"persistence"))),)
        except (NotConnected, NoResponse):
            return  # the verb itself will tell
        told = b"\n".join(response for response in responses if isinstance(response, bytes))
        told_lines = dict(line.strip().split(b":", 1) for line in told.splitlines() if b":" in line)
        policy = told_lines.get(b"maxmemory_policy", b"noeviction").decode()
        if policy != "noeviction":
            _log.warning(
                "Redis drops counters when its memory is full (maxmemory-policy is %s), and a budget with them: "
                "set it to noeviction",
                policy,
            )
        if told_lines.get(b"aof_enabled") == b"0":
            _log.warning("Redis forgets what was spent when it dies (appendonly is no): set appendonly yes")


def _redirection(answer: Any) -> tuple[bool, Address] | None:
    """Whether for good and where to a node of a cluster redirects; None if it does not."""
    if not isinstance(answer, Exception):
        return None
    kind = type(answer).__name__
    name, _, rest = str(answer).partition(" ")
    if kind in ("MovedError", "AskError"):  # redis-py took the first word off
        name, rest = kind, str(answer)
    if name not in ("MOVED", "ASK", "MovedError", "AskError"):
        return None
    _slot, address, *_ = rest.split(" ")
    host, _, port = address.rpartition(":")
    return name in ("MOVED", "MovedError"), (host, int(port))
