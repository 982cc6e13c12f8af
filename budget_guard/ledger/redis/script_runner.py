"""Bringing a verb to Redis, once in effect, whatever happens on the way."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable
from budget_guard.ledger.redis.connection import Address, Ask, Command, NoAnswer, NotSent, Place
from budget_guard.ledger.redis.script import script

T = TypeVar("T")

_log = logging.getLogger("budget_guard")

TRIES = 3
"""How often a verb is sent at most. Each is idempotent, so a repetition changes nothing."""
_PAUSE_S = 0.05
"""Seconds before the second repetition; the first comes at once."""
_REDIRECTIONS = 5


class Doze(NamedTuple):
    """Wait *seconds*, or until this process gave room more than *times* times."""

    seconds: float
    times: int


Flow: TypeAlias = Generator[Ask | Doze, Any, T]
"""A verb, written once for both kinds of links: it yields what to do, and gets the outcome."""


class _Seen(NamedTuple):
    """The furthest that the store was ever seen to be."""

    epoch: bytes = b""
    sequence: int = 0

    def generation(self) -> int:
        return int(self.epoch.partition(b"-")[0] or 0)


class ScriptRunner:
    """Sends scripts, repeats what got no answer, follows redirections, and remembers how far the store was.

    Args:
        place: Where the server is.
        tenant: The key of the tenant's record.
        wait_replicas: How many replicas must have a change before it counts as done.
        now: The time in microseconds for the server to use; empty for its own.
        times: How often this process gave room.
    """

    def __init__(
        self, place: Place, tenant: bytes, wait_replicas: int, now: Callable[[], bytes], times: Callable[[], int]
    ) -> None:
        self._errors = place.redis
        self._tenant = tenant
        self._now = now
        self._times = times
        self._wait: tuple[Command, ...] = ()
        if wait_replicas:
            self._wait = ((b"WAIT", b"%d" % wait_replicas, b"%d" % int(place.timeout_s * 500)),)
        self._wait_replicas = wait_replicas
        self._nonce = secrets.token_hex(6).encode()
        self._seen = _Seen()
        self._node: Address | None = None
        self._asked_about_memory = False

    def call(self, name: str, keys: Sequence[bytes], *args: bytes, changes: bool = True) -> Flow[list[Any]]:
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
                yield Doze(_PAUSE_S, self._times())
            try:
                answers = yield from self._exchange(name, keys, args, self._wait if changes else ())
            except NotSent as error:
                self._node, why = None, str(error)
            except NoAnswer as error:
                self._node, why, sent = None, str(error) or "the connection was lost", True
            else:
                answer = answers[0]
                if isinstance(answer, Exception):
                    why = str(answer)  # scripts check before they write, so nothing was changed
                    continue
                self._remember(answer)
                if len(answers) == 1 or answers[1] >= self._wait_replicas:
                    return list(answer[3:])
                why, sent = f"{answers[1]} of {self._wait_replicas} replicas have it", True
        if sent and changes:
            raise LedgerAmbiguous(detail=f"Redis was asked {TRIES} times: {why}")
        raise LedgerUnavailable(detail=f"Redis was asked {TRIES} times: {why}")

    def _exchange(
        self, name: str, keys: Sequence[bytes], args: Sequence[bytes], wait: Sequence[Command]
    ) -> Flow[list[Any]]:
        text, sha = script(name)
        seen = self._seen
        rest = (
            b"%d" % (len(keys) + 1),
            self._tenant,
            *keys,
            self._now(),
            seen.epoch,
            b"%d" % seen.sequence,
            self._nonce,
            *args,
        )
        run: Command = (b"EVALSHA", sha, *rest)
        asking: tuple[Command, ...] = ()
        node, answer = self._node, None
        for _ in range(_REDIRECTIONS):
            answers: list[Any] = yield Ask((*asking, run, *wait), node)
            answers = answers[len(asking) :]
            answer = answers[0]
            if isinstance(answer, self._errors.exceptions.NoScriptError):
                run = (b"EVAL", text, *rest)
                continue
            moved = _redirection(answer)
            if moved is None:
                return answers
            permanently, node = moved
            asking = () if permanently else ((b"ASKING",),)
            if permanently:
                self._node = node
        raise NotSent(f"the cluster redirects for ever: {answer}")

    def _remember(self, answer: Sequence[Any]) -> None:
        # two threads may do this at once, and the older be kept: then a little less of a lost tail is noticed
        seen = _Seen(answer[0], int(answer[1]))
        before = self._seen
        if seen.epoch == before.epoch:
            if seen.sequence > before.sequence:
                self._seen = seen
        elif seen.generation() > before.generation():
            self._seen = seen

    def _ask_about_memory(self) -> Flow[None]:
        try:
            answers = yield Ask(((b"INFO", b"memory"), (b"INFO", b"persistence")))
        except (NotSent, NoAnswer):
            return  # the verb itself will tell
        told = b"\n".join(answer for answer in answers if isinstance(answer, bytes))
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
    host, _, port = rest.split(" ")[1].rpartition(":")
    return name in ("MOVED", "MovedError"), (host, int(port))
