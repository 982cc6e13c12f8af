"""The provider's own ledger: what it served, and what that cost. The ground truth of a test."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Literal, TypeAlias

from budget_guard.testing.answer import Answer
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.waiting import Signal
from budget_guard.units.usage import Usage

Outcome: TypeAlias = Literal["completed", "refused", "failed", "dropped", "aborted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCall(ProviderRequest):
    """A request that is over: what was asked, and what became of it."""

    status: int
    """The HTTP status; 200 for a call that ended before any was sent."""
    outcome: Outcome
    """``completed``; ``refused`` (error status); ``failed`` (an error after status 200); ``dropped`` by the provider;
    ``aborted`` by the client."""
    served_model: str
    """The model that answered and is billed."""
    usage: Usage
    """What was used, whatever the client was told. Zeros if nothing was generated."""
    cost_nano: int | None
    """The cost in nano-dollars: by rates, or as `Reply.bill` told it. None if the provider has no rates for it."""
    started: int
    """When it arrived: starts and ends of all calls are numbered in one row."""
    finished: int
    """When it was over, numbered as `started` is."""


@dataclass(slots=True, eq=False)
class OpenCall:
    """A call that is under way."""

    request: ProviderRequest
    started: int
    answer: Answer | None = None
    """What is generated for it; None until that is known, and where nothing is."""
    bill_nano: int | None = None
    """What the script says that it costs; None for the cost by rates."""
    chunks_sent: int = 0
    chunks_released: int = 0
    """How many chunks the gate has let through."""

    def usage(self, outcome: Outcome) -> Usage:
        """What is to be billed if it ends now, with *outcome*."""
        if self.answer is None:
            return Usage()
        # Without streaming, the whole answer exists before its first byte is sent: the work is done.
        everything = outcome in ("completed", "refused") or not self.request.stream
        return self.answer.billed(None if everything else self.chunks_sent)


class CallLog:
    """Calls under way and calls that are over. Safe to use from several threads."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self.clear()

    def clear(self) -> None:
        """Forget every call, those under way included: they will leave no trace."""
        with self._signal.changing():
            self._open: list[OpenCall] = []
            self._served: list[ServedCall] = []
            self._arrived: Counter[str] = Counter()
            self._bodies: Counter[bytes] = Counter()
            self._moments = count()
            self._peak = 0

    @property
    def arrived(self) -> int:
        """How many calls have arrived, those under way included."""
        return self._arrived.total()

    @property
    def peak(self) -> int:
        """The most calls that were under way at once."""
        return self._peak

    def open_calls(self) -> list[OpenCall]:
        """Calls under way, in order of arrival."""
        with self._signal.reading():
            return list(self._open)

    def served_calls(self) -> list[ServedCall]:
        """Calls that are over, in order of arrival."""
        with self._signal.reading():
            return sorted(self._served, key=lambda call: call.index)

    def open(self, request: ProviderRequest, raw: bytes) -> OpenCall:
        """Note that *request* has arrived with body *raw*, and number it."""
        with self._signal.changing():
            digest = hashlib.sha256(raw).digest()
            told = request.headers.get("x-stainless-retry-count", "")
            numbered = replace(
                request,
                index=self.arrived,
                model_index=self._arrived[request.model],
                attempt=int(told) if told.isdecimal() else self._bodies[digest],
            )
            self._arrived[request.model] += 1
            self._bodies[digest] += 1
            call = OpenCall(numbered, started=next(self._moments))
            self._open.append(call)
            self._peak = max(self._peak, len(self._open))
            return call

    def close(self, call: OpenCall, outcome: Outcome, status: int, usage: Usage, cost_nano: int | None) -> None:
        """Note that *call* is over. Only the first time counts, and nothing does once it was forgotten."""
        with self._signal.changing():
            if call not in self._open:
                return
            self._open.remove(call)
            asked = {field.name: getattr(call.request, field.name) for field in fields(call.request)}
            self._served.append(
                ServedCall(
                    **asked,
                    status=status,
                    outcome=outcome,
                    served_model=call.answer.model if call.answer else call.request.model,
                    usage=usage,
                    cost_nano=cost_nano,
                    started=call.started,
                    finished=next(self._moments),
                )
            )
