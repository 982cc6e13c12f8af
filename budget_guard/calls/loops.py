"""Loop detection: whether a tool call would only repeat what was called before, with the same results.

The latest calls of each run are kept as three hashes: the tool with its arguments, and what came of it, without clocks,
ids and durations. *Before* a call is paid the detector asks whether it would go on with a cycle of one, two or three
calls whose results did not change, or be the same call with the same result once more between others. Any other result
starts anew. Calls that are still in flight have no result, so parallel ones count once they are done.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from budget_guard.policy.loops import LONGEST_CYCLE, SCATTERED_FACTOR, STOP_FACTOR, LoopPolicy

_KEPT = 32
"""Calls that are remembered of a run: enough for a cycle of the longest period at ten repeats of the policy's least."""
_MOST_RUNS = 1_000
"""Runs that are remembered; beyond that, the one that called nothing for longest is forgotten."""
_MOST_BLANKED = 4_096
"""Characters of a result in which clocks and ids are looked for."""
_MOST_READ = 100_000
"""Characters of a text that are read as JSON, to tell the same fields in another order."""
_CHANGING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"  # a time
    r"|\b\d\d:\d\d:\d\d\b"
    r"|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"  # a UUID
    r"|\b[0-9a-f]{16,}\b"  # a hash, an id
    r"|\b\d+(?:\.\d+)?\s?(?:ms|s|sec|seconds)\b"  # how long it took
    r"|\b1[6-9]\d{8}(?:\d{3})?\b",  # seconds, or milliseconds, since 1970
    re.IGNORECASE,
)

_Seen: TypeAlias = "tuple[bytes, bytes]"
"""A call and its result, as hashes."""


class FinishedCall(NamedTuple):
    """A tool call of a conversation, with its result."""

    tool: str
    arguments: object
    result: object


class Repetition(NamedTuple):
    """A loop that a call would go on with."""

    repeats: int
    """How often it was gone through."""
    period: int
    """How many calls it has; 0 where other calls come in between."""
    stops: bool
    """Whether it has gone on for long enough to be stopped."""
    is_new: bool
    """Whether it was not told of before."""


class LoopDetector:
    """The latest calls of the runs of one session. Safe to use from any thread.

    Args:
        policy: When to tell, and which tools are exempt.
    """

    def __init__(self, policy: LoopPolicy) -> None:
        self.policy = policy
        self._lock = threading.Lock()
        self._exempt = frozenset(policy.exempt)
        self._trails: OrderedDict[object, _Trail] = OrderedDict()

    def ask(self, run: object, tool: str, arguments: bytes, at_s: float) -> Repetition | None:
        """The loop that a call would go on with; None where there is none yet that has to be told of.

        Args:
            run: The run, by anything that can be hashed.
            tool: The tool.
            arguments: The `digest` of its arguments.
            at_s: When: seconds since any fixed moment.
        """
        if tool in self._exempt:
            return None
        call = _call(tool, arguments)
        with self._lock:
            trail = self._trail(run)
            seen = trail.since(None if self.policy.window_s is None else at_s - self.policy.window_s)
            return self._told(trail, call, _cycle(seen, call), _scattered(seen, call))

    def saw(self, run: object, tool: str, arguments: bytes, result: object, at_s: float) -> None:
        """Note that a call is over.

        Args:
            run: The run.
            tool: The tool.
            arguments: The `digest` of its arguments.
            result: What it returned, or the error that it raised.
            at_s: When.
        """
        if tool in self._exempt:
            return
        seen = (_call(tool, arguments), _steady(result))
        with self._lock:
            self._trail(run).calls.append((at_s, *seen))

    def judge(self, run: object, calls: Sequence[FinishedCall]) -> tuple[str, Repetition] | None:
        """The loop that a conversation is in, after all of its *calls*, and the tool that would be called next.

        Args:
            run: What the conversation is known by, to tell of each loop once.
            calls: Its finished calls, oldest first.
        """
        latest = [each for each in calls if each.tool not in self._exempt][-_KEPT:]
        if not latest:
            return None
        seen = [(_call(each.tool, digest(each.arguments)), _steady(each.result)) for each in latest]
        best, tool, call = (0, 0), latest[-1].tool, seen[-1][0]
        for period in range(1, min(LONGEST_CYCLE, len(seen)) + 1):
            found = _cycle(seen, seen[-period][0])
            if found[0] > best[0]:
                best, tool, call = found, latest[-period].tool, seen[-period][0]
        with self._lock:
            told = self._told(self._trail(run), call, best, _scattered(seen, call))
        return None if told is None else (tool, told)

    def _told(self, trail: _Trail, call: bytes, cycle: tuple[int, int], scattered: int) -> Repetition | None:
        most = self.policy.max_repeats
        repeats, period = cycle
        stops = repeats >= most * STOP_FACTOR or scattered >= most * SCATTERED_FACTOR
        if not stops and repeats < most and scattered < most * STOP_FACTOR:
            return None
        if repeats < most:
            repeats, period = scattered, 0
        is_new = call not in trail.told
        if is_new:
            cycle_calls = [each[1] for each in list(trail.calls)[-period:]] if period else []
            trail.told = frozenset((call, *cycle_calls, *(trail.told if len(trail.told) < _KEPT else ())))
        return Repetition(repeats, period, stops, is_new)

    def _trail(self, run: object) -> _Trail:
        trail = self._trails.get(run)
        if trail is None:
            trail = self._trails[run] = _Trail()
            if len(self._trails) > _MOST_RUNS:
                self._trails.popitem(last=False)
        else:
            self._trails.move_to_end(run)
        return trail


class _Trail:
    """The latest finished calls of one run."""

    __slots__ = ("calls", "told")

    def __init__(self) -> None:
        self.calls: deque[tuple[float, bytes, bytes]] = deque(maxlen=_KEPT)
        self.told: frozenset[bytes] = frozenset()
        """The calls whose loops were told of."""

    def since(self, at_s: float | None) -> list[_Seen]:
        return [(call, result) for then, call, result in self.calls if at_s is None or then >= at_s]


def _cycle(seen: Sequence[_Seen], call: bytes) -> tuple[int, int]:
    """How often the longest run of a cycle was gone through that *call* would go on with, and its period."""
    for period in range(1, LONGEST_CYCLE + 1):
        if len(seen) < 2 * period or seen[-period][0] != call:
            continue
        if len({each for each, _ in seen[-period:]}) < period:
            continue  # a shorter cycle
        times = 1
        last = seen[-period:]
        while seen[-(times + 1) * period : len(seen) - times * period] == last:
            times += 1
        if times > 1:
            return times, period  # the only one: all calls of a cycle differ, so that *call* is in it once
    return 0, 0


def _scattered(seen: Iterable[_Seen], call: bytes) -> int:
    """How often *call* came to its commonest result, whatever came in between."""
    return max(Counter(result for each, result in seen if each == call).values(), default=0)


def _call(tool: str, arguments: bytes) -> bytes:
    return hashlib.blake2b(tool.encode("utf-8", "surrogatepass") + b"\0" + arguments, digest_size=12).digest()


def digest(arguments: object) -> bytes:
    """A short value that is equal for equal arguments, in whatever order they are named. It tells nothing of them."""
    return _hash(_text(arguments))


def _steady(result: object) -> bytes:
    """A short value that is equal for results that differ in clocks, ids and durations alone."""
    text = _text(result)
    return _hash(_CHANGING.sub("~", text[:_MOST_BLANKED]) + text[_MOST_BLANKED:])


def _text(value: object) -> str:
    if isinstance(value, str):
        if value[:1] != "{" or len(value) > _MOST_READ:
            return value
        try:
            value = json.loads(value)  # as a model, or a tool, writes it
        except (ValueError, RecursionError):
            return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    dump = getattr(value, "model_dump", None)
    try:
        return json.dumps(dump() if callable(dump) else value, sort_keys=True, default=str)
    except Exception:  # keys of several types, a circle, a value that cannot be shown
        return _shown(value)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"{type(value).__name__} at {id(value)}"


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
