"""One request on its way through LiteLLM's proxy: every attempt that comes of it, held by itself.

A retry, a fallback, another deployment are attempts of their own. Where LiteLLM translates a call into another type of
call, Messages into Responses say, that is one attempt: the second look adopts what the first one holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from budget_guard import BudgetError, Decision
from budget_guard.adapter import Attempt
from budget_guard.protocol import Problem
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.runs import OpenRun
from budget_guard_litellm.answer import answer_bytes
from budget_guard_litellm.provider_error import asettle_failed
from budget_guard_litellm.request import AskedCall, asked_call, family_of

_TRANSLATED = frozenset({"completion", "responses", "anthropic_messages", "text_completion"})
"""Types of calls that LiteLLM makes of one another."""


class HeldCall:
    """One attempt, from its hold to its settlement."""

    __slots__ = ("around", "asked", "began", "streams")

    def __init__(self, asked: AskedCall, around: HeldCall | None, streams: bool) -> None:
        self.asked = asked
        self.around = around
        """The attempt of another type that it was translated from."""
        self.streams = streams
        self.began = False
        """Whether a part of its streamed answer was read."""

    def read(self, event: bytes) -> None:
        """Read the next event of its streamed answer."""
        if not self.began:
            self.began = self.attempt.answered(200, "text/event-stream")
        if event:
            self.attempt.feed(event)

    @property
    def attempt(self) -> Attempt:
        return self.asked.attempt

    @property
    def open(self) -> bool:
        """Whether it is not settled yet."""
        return not self.attempt.settled


class Exchange:
    """One request through the proxy, and all that is held for it.

    Args:
        who: Who asks.
        run: The run that it belongs to.
        note: What to do with each decision.
        problem_of: The problem that an error is, with the decision that it is of, where there is one.
    """

    def __init__(
        self,
        who: Principal,
        run: OpenRun,
        note: Callable[[Decision, Principal], None],
        problem_of: Callable[[BudgetError, Decision | None, OpenRun], Awaitable[Problem]],
    ) -> None:
        self.who = who
        self.run = run
        self._note = note
        self._problem_of = problem_of
        self._calls: list[HeldCall] = []
        self.refusal: Problem | None = None
        """The problem to answer with, as long as no attempt was admitted after it."""
        self.error: BudgetError | None = None
        """The error that it was made of."""
        self.decision: Decision | None = None
        """The latest decision; None before there is one."""
        self.call_ids: list[str] = []
        """What LiteLLM knows it by."""
        self.by_itself = False
        """Whether LiteLLM asks by itself, and no request."""
        self.left = False
        """Whether it is over."""

    async def hold(self, call_type: object, arguments: MutableMapping[str, Any]) -> BudgetError | None:
        """Hold an attempt, and put into its *arguments* what was decided.

        Args:
            call_type: Its type, as LiteLLM names it.
            arguments: What LiteLLM calls itself with.

        Returns:
            None if it may be sent; else what stops it. Nothing is held for it then.
        """
        family = family_of(call_type)
        around = self._translated_from(family)
        if around is None:
            await self._give_up_streams(family)
        asked: AskedCall | None = None
        try:
            asked = asked_call(self.run.attempts, call_type, arguments)
            error = await self._held(asked.attempt, around)
        except BudgetError as raised:
            error = raised
        decision = None if asked is None else asked.attempt.decision
        if decision is not None:
            self.decision = decision
            self._note(decision, self.who)
        if error is not None or asked is None:
            return await self._refused(error, decision)
        self.refusal = self.error = None
        asked.put_into(arguments)
        self._calls.append(HeldCall(asked, around, arguments.get("stream") is True))
        return None

    async def _held(self, attempt: Attempt, around: HeldCall | None) -> BudgetError | None:
        if around is None:
            stop = await attempt.ahold()
        else:
            with around.attempt.counting():  # it is held already: what is really sent may need more
                stop = await attempt.ahold()
        return None if stop is None else stop.error

    async def _refused(self, error: BudgetError | None, decision: Decision | None) -> BudgetError | None:
        if error is not None:
            self.error = error
            self.refusal = await self._problem_of(error, decision, self.run)
        return error

    def _translated_from(self, family: str) -> HeldCall | None:
        """The open attempt that a call of that *family* is a translation of; None where it is one of its own."""
        if family not in _TRANSLATED:
            return None
        latest = self.latest()
        if latest is None or latest.asked.family == family or latest.asked.family not in _TRANSLATED:
            return None
        return latest

    async def _give_up_streams(self, family: str) -> None:
        """Settle streams that broke, and that this attempt goes on with."""
        for call in self._calls:
            if call.open and call.streams and call.asked.family == family:
                await call.attempt.agive_up()

    def has(self, call: HeldCall) -> bool:
        """Whether *call* is one of its attempts."""
        return call in self._calls

    def latest(self, family: str | None = None) -> HeldCall | None:
        """The open attempt that was made last, of that *family*."""
        for call in reversed(self._calls):
            if call.open and (family is None or call.asked.family == family):
                return call
        return None

    def outermost(self) -> HeldCall | None:
        """The open attempt made last that is no translation of another one: what the caller reads is its answer."""
        call = self.latest()
        while call is not None and call.around is not None and call.around.open:
            call = call.around
        return call

    # Its ends

    async def answered(self, call: HeldCall, answer: object, *, told: bool = True) -> None:
        """Settle an attempt by its *answer*, which is no stream."""
        attempt = call.attempt
        if attempt.answered(200, "application/json"):
            attempt.feed(answer_bytes(answer, told=told))
        await attempt.aend()

    async def failed(self, call: HeldCall, error: BaseException) -> None:
        """Settle an attempt that ended in *error*."""
        await asettle_failed(call.attempt, error)

    async def release(self, reason: str) -> None:
        """Give back what is held for the attempt that is open, with its translations: nothing was sent.

        Of several at once it is not known which one was not sent: they stay, until they are given up.
        """
        open_ones = self._open_ones()
        if sum(call.around is None or not call.around.open for call in open_ones) == 1:
            for call in open_ones:
                await call.attempt.arelease(reason)

    async def give_up(self) -> None:
        """Settle whatever is open at what was held: nobody told what came of it."""
        for call in self._open_ones():
            await call.attempt.agive_up()

    def _open_ones(self) -> list[HeldCall]:
        """The open attempts, a translation before what it was made of."""
        return [call for call in reversed(self._calls) if call.open]


async def shielded(steps: Awaitable[object]) -> None:
    """Perform *steps* to their end, also where who waits for them is cancelled meanwhile."""
    task = asyncio.ensure_future(steps)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # it is settled all the same, and who is cancelled reads no other error
        raise cancelled
    task.result()
