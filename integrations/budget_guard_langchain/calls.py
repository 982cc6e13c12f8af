"""The calls of one handler that are under way, by run: each is held by all of its budgets, and settled at its end.

LangChain tells of most ends, and not of all: a cancelled ``ainvoke`` and an abandoned stream end without a word of
their own. So each call is watched from three sides: the end of the run that it is a part of, the end of its task, and
the end of the arguments that LangChain keeps while it makes the call. Whatever is found open then was perhaps billed:
its estimate is booked, and the real usage takes its place if it comes.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from types import FrameType
from typing import Any, cast
from uuid import UUID

from budget_guard import BudgetError, BudgetExceeded, Decision, ModelCall, Session, ToolCall
from budget_guard.adapter.attempts import Attempts, Counted, begin_counting, end_counting
from budget_guard.adapter.guarded_call import GIVEN_UP, GuardedCall
from budget_guard.calls.seen import Seen
from budget_guard.wire import Answer, Request, outcome_of_error
from budget_guard.wire.reader import LONGEST_TOKEN
from budget_guard.wire.values import fields
from budget_guard_langchain.approval import ask_human
from budget_guard_langchain.response import Reply
from budget_guard_langchain.steering import Steering

_REMEMBERED = 4_096
"""Calls that are over and still known, for an end that comes late, or twice."""
_PAID_BATCHES = 64
_ALL_LOCK = threading.Lock()
_ALL: weakref.WeakSet[Calls] = weakref.WeakSet()
_WATCHED = "budget_guard"
"""The key under which a call's arguments are watched. They are LangChain's own, for tracing alone."""


class Call(GuardedCall):
    """One model call or tool call."""

    __slots__ = (
        *("_bytes", "_called", "_writes_more", "_chunk", "_human", "_requests", "_text", "_usage_told"),
        *("adds_up", "batch", "has_streamed", "older", "parent_run_id", "request", "run_id", "steering", "told"),
        *("counted", "made_in", "started_by", "unwatch"),
    )

    def __init__(
        self,
        sessions: Sequence[Session],
        run_id: UUID,
        parent_run_id: UUID | None,
        *,
        called: str,
        steering: Steering | None = None,
        human: bool = False,
        batch: object = None,
        request: Request | None = None,
        requests: int = 1,
        told: tuple[object, ...] = (),
    ) -> None:
        """
        Args:
            sessions: The budgets that it spends from.
            run_id: Its run.
            parent_run_id: The run that it is a part of.
            called: The model that makes it, or the tool.
            steering: What can switch its model and cap its output; None where nothing can.
            human: Whether a human is asked before it is refused for want of budget.
            batch: The same object for calls that are all started before the first is sent; None for a single one.
            request: What it asks for; None of a tool.
            requests: In how many requests it may be sent, together with others that are started with it.
            told: The very objects that LangChain told of its start with. It hands them to all handlers.
        """
        super().__init__(sessions)
        self.run_id = run_id
        self.parent_run_id = parent_run_id
        self._called = called
        self.steering = steering
        self._human = human
        self.batch = batch
        self.request = request
        self.told = told
        self.older: Call | None = None
        """Another call under way of the same run id, which a config gives to each call it is used for."""
        self._requests = requests
        self.adds_up = False
        """Whether its stream told the usage so far in several chunks, which LangChain adds up."""
        self.has_streamed = False
        self._bytes = 0
        self._text: list[str] = []
        self._writes_more = False
        self._chunk: object = None
        self._usage_told = 0
        self.unwatch: Callable[[], object] | None = None
        self.counted: Token[Counted] | None = None
        """Says to a guarded client below that the call is held, until it is over or its answer begins."""
        self.made_in: object = None
        """The task that makes it, where that is the one that starts it; None where there is no event loop."""
        self.started_by: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """Of a tool of an agent: who starts what is started in it, and who started the tool."""

    @property
    def id(self) -> str:
        """The decision's id, of the first budget."""
        return self.holds[0].id

    @property
    def name(self) -> str:
        """The model that is called, where a hold may name another: each budget decides, and the cheaper one holds."""
        return (None if self.steering is None else self.steering.model) or self._called

    def asked_of(self, session: Session, call: ModelCall | ToolCall) -> ModelCall | ToolCall:
        return self.steering.ask(call) if self.steering is not None and isinstance(call, ModelCall) else call

    def asks_again(self, session: Session, error: BudgetError) -> bool:
        return self._human and isinstance(error, BudgetExceeded) and ask_human(session, error)

    def admitted(self, decision: Decision) -> None:
        name, steering = decision.name, self.steering
        if name not in (decision.requested, self._called) and (steering is None or not steering.takes(name)):
            from budget_guard_langchain.errors import BudgetDowngrade

            raise BudgetDowngrade(
                model=decision.requested, target=name, reason=decision.reason, decision_id=decision.id
            )
        if steering is not None:
            steering.answer(decision)

    def is_made_here(self) -> bool:
        """As of every call, also where nobody told that it is over.

        A task of LangChain's own may be cancelled without a word: what is sent outside of it, in the context in which
        the call was started, is another call.
        """
        made_in = self.made_in
        if self.over or made_in is None:
            return not self.over
        task = _current_task()
        if task is None or made_in is not _A_TASK_OF_ITS_OWN:
            return task is not None and task is made_in
        frame: FrameType | None = getattr(task.get_coro(), "cr_frame", None)
        manager = None if frame is None else frame.f_locals.get("run_manager")  # as LangChain's methods call it
        return getattr(manager, "run_id", None) == self.run_id

    def stop_counting(self) -> None:
        """Say no more to a guarded client below that the call is held: it was sent, or is over."""
        if self.counted is not None:
            end_counting(self.counted)
            self.counted = None

    def fail(self, error: BaseException) -> None:
        outcome = outcome_of_error(error, requests=self._requests)
        if self._requests > 1 and not outcome.released:
            self.estimate(outcome.reason)  # some of it may have been answered, and billed
        elif isinstance(error, GIVEN_UP) and self.has_streamed:
            self.estimate(type(error).__name__, self.seen())
        else:
            super().fail(error)

    def note_chunk(self, chunk: object, written: object, usage: object = None, *, is_text: bool = False) -> None:
        """Note a chunk of its stream, once where the handler is listed twice.

        Args:
            chunk: The chunk.
            written: What the model wrote in it.
            usage: The usage that it tells.
            is_text: Whether that is a part of the answer's text.
        """
        self.has_streamed = True
        if chunk is not None and chunk is self._chunk:
            return
        self._chunk = chunk
        if isinstance(written, str):
            self._bytes += len(written)
            if is_text:
                self._text.append(written)
        message = getattr(chunk, "message", None)
        if getattr(message, "tool_call_chunks", None) or not isinstance(getattr(message, "content", ""), str):
            self._writes_more = True
        if usage:
            taken = fields(usage).get("input_tokens")
            if isinstance(taken, int) and taken > 0:
                # Each part of a sum would tell of other tokens: the whole prompt is not taken in twice.
                self.adds_up = self.adds_up or 0 < self._usage_told <= taken
                self._usage_told = taken

    @property
    def text(self) -> str:
        """The text that has come in its stream."""
        return "".join(self._text)

    def seen(self) -> Seen | None:
        """What was seen of its answer; None where not all of it was."""
        text = self.text
        return Seen(text) if self.has_streamed and self._bytes == len(text) and not self._writes_more else None

    @property
    def output_floor(self) -> int:
        """Output tokens that have come for sure. Chunks do not tell: they may be empty, or single characters."""
        return self._bytes // LONGEST_TOKEN

    def cut_short_by(self, reply: Reply, answer: Answer) -> BudgetError | None:
        """The stop that the answer is, for the model to raise, if a budget's own output cap has cut it off.

        The provider's reason to finish tells; an answer of exactly the cap may be whole. Where it gives none, the
        length has to tell.
        """
        known = answer.cut_off or reply.is_cut_off
        stop = self.cut_short(answer.usage if reply.finish is None else None, known=known)
        if stop is None:
            return None
        stop.error.partial_output = reply.text or None
        return stop.error


class Calls:
    """The calls of one handler. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[UUID, Call] = {}
        self._parts: dict[UUID, dict[Call, None]] = {}
        """By the run that they are a part of."""
        self._over = OrderedDict[UUID, Call | None]()
        """The latest that are over; with the call itself where only an estimate is booked for it."""
        self._gone: deque[Call] = deque()
        self._of_loop: dict[weakref.ref[asyncio.AbstractEventLoop], set[Call]] = {}
        """Those that are made on an event loop: one that is closed never ends them."""
        self._paid: deque[object] = deque(maxlen=_PAID_BATCHES)
        with _ALL_LOCK:
            _ALL.add(self)

    def find(self, run_id: UUID, told: Sequence[object]) -> Call | None:
        """The call under way that was told of with these objects.

        A handler that is listed twice is told of a start twice, with the same ones. A config may also give one run id
        to many calls: each has objects of its own.
        """
        call = self._open.get(run_id)
        while call is not None and not all(one is other for one, other in zip(call.told, told, strict=True)):
            call = call.older
        return call

    def get(self, run_id: UUID) -> Call | None:
        """The call of that run, while it is under way."""
        return self._open.get(run_id)

    def begin(
        self,
        call: Call,
        loop: asyncio.AbstractEventLoop | None,
        task: asyncio.Task[Any] | None = None,
        options: object = None,
    ) -> None:
        """Note that *call* is being made.

        Args:
            call: The call.
            loop: The event loop that makes it, if one does.
            task: The task that makes it, if one does.
            options: What LangChain keeps while it makes the call.
        """
        if task is not None:
            self._watch_task(call, task)
        if Attempts.any_hold and call.request is not None and call.batch is None and (task is not None or loop is None):
            if task is not None:
                call.made_in = task if _is_made_where_it_is_started() else _A_TASK_OF_ITS_OWN
            call.counted = begin_counting(call)
        with self._lock:
            if loop is not None:
                self._of_loop.setdefault(weakref.ref(loop), set()).add(call)
            older = self._open.setdefault(call.run_id, call)
            if older is not call:
                call.older, self._open[call.run_id] = older, call
            if call.parent_run_id is not None:
                self._parts.setdefault(call.parent_run_id, {})[call] = None
        if isinstance(options, dict):
            watched = cast("dict[str, Any]", options).setdefault(_WATCHED, _Watched(call.id))
            if isinstance(watched, _Watched):
                watched.calls.append((self, call))

    def end(self, run_id: UUID) -> Call | None:
        """The call that is over, to be settled; also one that ended before and was only estimated."""
        call = self._pop(run_id)
        with self._lock:
            if call is None:
                call = self._over.get(run_id)
            if call is not None:
                self._remember(run_id, None)
        return call

    def is_new(self, run_id: UUID) -> bool:
        """Whether a call that was never held ended now for the first time."""
        with self._lock:
            if run_id in self._over:
                return False
            self._remember(run_id, None)
            return True

    def end_of_run(self, run_id: UUID) -> None:
        """Settle what was a part of a run that is over."""
        with self._lock:
            parts = self._parts.pop(run_id, ())
        for call in parts:
            self._abandon(call, "its run ended, and nobody said how the call did")
        self.sweep()

    def sweep(self) -> None:
        """Settle the calls that are not being made any more."""
        if self._open:
            for reference in list(self._of_loop):
                loop = reference()
                if loop is None or loop.is_closed():
                    for call in self._of_loop.pop(reference, ()):
                        self._abandon(call, "its event loop was closed")
        while self._gone:
            try:
                call = self._gone.popleft()
            except IndexError:  # another thread was faster
                return
            self._abandon(call, "it was abandoned")

    def release_batch(self, batch: object, reason: str) -> None:
        """Give back the holds of calls that were to be sent together with one that is refused."""
        with self._lock:
            calls = [call for call in self._open.values() if call.batch is batch]
        for call in calls:
            self.withdraw(call, reason)

    def note_paid(self, batch: object) -> None:
        """Note that the usage of a call of *batch* was booked."""
        self._paid.append(batch)

    def is_paid(self, batch: object) -> bool:
        """Whether the usage of a call of *batch* was booked."""
        return any(paid is batch for paid in tuple(self._paid))

    def withdraw(self, call: Call, reason: str) -> None:
        """Give back the holds of a call that is not made after all."""
        if self._pop(call.run_id, call) is not None:
            call.release(reason)

    def gone(self, call: Call) -> None:
        """Note that a call is not being made any more. Takes no lock: it is called while garbage is collected."""
        if not call.over:
            self._gone.append(call)

    def _abandon(self, call: Call, reason: str) -> None:
        if self._pop(call.run_id, call) is not None:
            with self._lock:
                self._remember(call.run_id, call)
            call.estimate(reason, call.seen())

    def _pop(self, run_id: UUID, wanted: Call | None = None) -> Call | None:
        """Take a call out of those that are under way: the *wanted* one, or the latest of that run."""
        with self._lock:
            call = self._open.get(run_id)
            if call is None:
                return None
            if wanted is None or wanted is call:
                if call.older is None:
                    del self._open[run_id]
                else:
                    self._open[run_id] = call.older
            else:
                while call.older is not None and call.older is not wanted:
                    call = call.older
                if call.older is None:
                    return None
                call.older = wanted.older
                call = wanted
            if call.parent_run_id is not None and (parts := self._parts.get(call.parent_run_id)) is not None:
                parts.pop(call, None)
                if not parts:
                    del self._parts[call.parent_run_id]
            for reference, calls in list(self._of_loop.items()):
                calls.discard(call)
                if not calls:
                    self._of_loop.pop(reference, None)
        call.older = None
        if call.unwatch is not None:
            call.unwatch()
        if call.counted is not None:
            call.stop_counting()
        return call

    def _remember(self, run_id: UUID, call: Call | None) -> None:
        self._over[run_id] = call
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)

    def _watch_task(self, call: Call, task: asyncio.Task[Any]) -> None:
        over = functools.partial(self._end_of_task, call)
        task.add_done_callback(over)
        call.unwatch = functools.partial(task.remove_done_callback, over)

    def _end_of_task(self, call: Call, _: object) -> None:
        self._abandon(call, "its task ended, and nobody said how the call did")


_A_TASK_OF_ITS_OWN = object()
"""Stands for the task that LangChain starts to make a call, by ``ainvoke`` and by ``astream_events`` version 3."""
_STARTS: Mapping[str, bool] = {"generate": True, "stream": True, "astream": True, "agenerate": False}
"""Whether the methods of LangChain that start a call make it in the same task, and tell of every end of it."""
_FRAMES = 16
"""Frames between such a method and here, at most."""


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None


def _is_made_where_it_is_started() -> bool:
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  # no other way to ask
    for _ in range(_FRAMES):
        if frame is None:
            break
        found = _STARTS.get(frame.f_code.co_name)
        if found is not None:
            return found
        frame = frame.f_back
    return False


class _Watched(str):
    """Laid into what LangChain keeps while it makes a call. Its own end says that the call is not made any more."""

    calls: list[tuple[Calls, Call]]

    def __new__(cls, decision_id: str) -> _Watched:
        watched = super().__new__(cls, decision_id)  # what a tracer shows of it
        watched.calls = []
        return watched

    def __del__(self) -> None:
        for calls, call in self.calls:
            calls.gone(call)

    def __reduce__(self) -> Any:
        return str, (str(self),)  # a copy watches nothing


def withdraw(refused: Call) -> None:
    """Give back what the other handlers hold for a call that one of them refuses."""
    with _ALL_LOCK:
        everywhere = list(_ALL)
    for calls in everywhere:
        call = calls.find(refused.run_id, refused.told)
        if call is not None:
            calls.withdraw(call, "another handler refused the call")
