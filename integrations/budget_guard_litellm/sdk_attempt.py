"""One attempt of LiteLLM's SDK, from its hold to its settlement, blocking or awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from litellm.litellm_core_utils.streaming_handler import (  # pyright: ignore[reportMissingTypeStubs]  # it has few types
    CustomStreamWrapper,
)

from budget_guard import BudgetError
from budget_guard.adapter import Attempts, Stop, latch_of
from budget_guard_litellm.answer import CACHED, StreamedPieces, answer_bytes, from_cache, is_usage_alone
from budget_guard_litellm.errors import stops
from budget_guard_litellm.provider_error import asettle_failed, settle_failed
from budget_guard_litellm.request import AskedCall, asked_call


class SdkAttempt:
    """One attempt, which is held, made, and settled by what comes of it.

    Args:
        attempts: The budgets that it spends from.
        call_type: Its type, as LiteLLM names it.
        arguments: What LiteLLM is called with, into which is put what the budgets decide.

    Raises:
        BudgetError: In LiteLLM's terms, if it cannot be read, or nothing bounds what it costs.
    """

    def __init__(self, attempts: Attempts, call_type: str, arguments: MutableMapping[str, Any]) -> None:
        self._attempts = attempts
        self._arguments = arguments
        with stops.recasting():
            self._asked: AskedCall = asked_call(attempts, call_type, arguments)
        self.attempt = self._asked.attempt

    def hold(self) -> None:
        """Hold it.

        Raises:
            BudgetError: In LiteLLM's terms, if it may not be made. Nothing is held then.
        """
        with stops.recasting():
            self._held(self.attempt.hold())

    async def ahold(self) -> None:
        """As `hold`, and waits without blocking."""
        with stops.recasting():
            self._held(await self.attempt.ahold())

    def _held(self, stop: Stop | None) -> None:
        if stop is not None:
            raise stopped(stop)
        self._asked.put_into(self._arguments)

    def fail(self, error: BaseException) -> None:
        """Settle it where it ended in *error*."""
        settle_failed(self.attempt, error)

    async def afail(self, error: BaseException) -> None:
        """As `fail`."""
        await asettle_failed(self.attempt, error)

    def answered(self, answer: Any) -> Any:
        """Settle it by its *answer*, or, of a stream, give the one in its place that is settled as it is read."""
        if isinstance(answer, CustomStreamWrapper):
            return GuardedStream(self, answer)
        if from_cache(answer):
            self.attempt.release(CACHED)
        else:
            self._read(answer)
            self.attempt.end()
        return answer

    async def aanswered(self, answer: Any) -> Any:
        """As `answered`."""
        if isinstance(answer, CustomStreamWrapper):
            return GuardedStream(self, answer)
        if from_cache(answer):
            await self.attempt.arelease(CACHED)
        else:
            self._read(answer)
            await self.attempt.aend()
        return answer

    def _read(self, answer: Any) -> None:
        if self.attempt.answered(200, "application/json"):
            self.attempt.feed(answer_bytes(answer))


def stopped(stop: Stop) -> BudgetError:
    """*stop* as the error to raise, latched."""
    latch_of(stop.session).set(stop)
    return stops.recast(stop.error)


class GuardedStream(CustomStreamWrapper):
    """LiteLLM's stream of an answer, which is settled when it ends, however that is.

    Everything else of it is that of the stream that it stands for.
    """

    def __init__(self, held: SdkAttempt, stream: CustomStreamWrapper) -> None:
        own: dict[str, Any] = self.__dict__
        own["_sdk_attempt"] = held
        own["_stream"] = stream
        own["_read"] = StreamedPieces(stream)
        own["_blocking"] = None
        own["_awaited"] = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["_stream"], name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.__dict__["_stream"], name, value)

        def __del__(self) -> None:
            """Settle it where nobody has read it. One that was begun to be read is settled by its generator."""
            own = self.__dict__
            if own.get("_sdk_attempt") is not None and own["_blocking"] is None and own["_awaited"] is None:
                with suppress(Exception):  # nobody would hear of it
                    own["_sdk_attempt"].attempt.give_up()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        own: dict[str, Any] = self.__dict__
        if own["_blocking"] is None:
            own["_blocking"] = self._pieces()
        return next(own["_blocking"])

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        own: dict[str, Any] = self.__dict__
        if own["_awaited"] is None:
            own["_awaited"] = self._apieces()
        return await anext(own["_awaited"])

    def close(self) -> None:
        """Close it: nobody wants the rest."""
        own: dict[str, Any] = self.__dict__
        if own["_blocking"] is not None:
            own["_blocking"].close()
        close: Any = getattr(own["_stream"], "close", None)
        if callable(close):
            close()
        own["_sdk_attempt"].attempt.give_up()

    async def aclose(self) -> None:
        """As `close`."""
        own: dict[str, Any] = self.__dict__
        try:
            if own["_awaited"] is not None:
                await own["_awaited"].aclose()
            await own["_stream"].aclose()
        finally:
            await own["_sdk_attempt"].attempt.agive_up()

    def _pieces(self) -> Generator[Any]:
        own: dict[str, Any] = self.__dict__
        held: SdkAttempt = own["_sdk_attempt"]
        attempt, pieces = held.attempt, own["_read"]
        iterator = iter(own["_stream"])
        try:
            if from_cache(own["_stream"]):
                attempt.release(CACHED)
            attempt.answered(200, "text/event-stream")
            while True:
                with attempt.counting():  # one step: whoever reads runs between the steps
                    piece = next(iterator, None)
                if piece is None:
                    break
                if self._passes(attempt, pieces, piece):
                    yield piece
            attempt.feed(pieces.end())
            attempt.end()
        except BaseException as error:
            held.fail(error)
            raise

    async def _apieces(self) -> AsyncGenerator[Any]:
        own: dict[str, Any] = self.__dict__
        held: SdkAttempt = own["_sdk_attempt"]
        attempt, pieces = held.attempt, own["_read"]
        iterator = aiter(own["_stream"])
        try:
            if from_cache(own["_stream"]):
                await attempt.arelease(CACHED)
            attempt.answered(200, "text/event-stream")
            while True:
                with attempt.counting():
                    piece = await anext(iterator, None)
                if piece is None:
                    break
                if self._passes(attempt, pieces, piece):
                    yield piece
            attempt.feed(pieces.end())
            await attempt.aend()
        except BaseException as error:
            await held.afail(error)
            raise

    def _passes(self, attempt: Any, pieces: StreamedPieces, piece: Any) -> bool:
        """Whether *piece* goes on to the caller.

        Raises:
            BudgetError: In LiteLLM's terms, if the stream must not go on.
        """
        attempt.feed(pieces.event(piece))
        stop = attempt.interruption()
        if stop is not None:
            raise stopped(stop)
        return not (attempt.hides_usage and is_usage_alone(piece))
