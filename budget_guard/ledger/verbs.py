"""The verbs of a ledger as callers see them: to block on, to await, and passed on to another ledger.

Each signature of `Ledger` is spelled out here once for blocking and once for awaiting callers. A ledger says in
``_perform`` how a verb is performed, and inherits the rest; it overrides the few verbs that it performs otherwise.
What each verb promises is written in `budget_guard.ledger.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from budget_guard.ledger.base import AsyncLedger, Balance, Ledger, Refused, ReserveOutcome, Settled, Suspended
from budget_guard.ledger.flow import Flow, Verb, adrive, drive
from budget_guard.ledger.history import UsageLine, UsageQuery, UsageSum
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

P = ParamSpec("P")
R = TypeVar("R")


class BlockingVerbs(ABC):
    """The verbs of `Ledger`, each performed by `_perform`."""

    @abstractmethod
    def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        """Perform a verb.

        Args:
            verb: The verb as a function of `Ledger`, such as ``Ledger.reserve``: it says the types.
            arguments: Its arguments, all of them, in order.
            named: Nothing.
        """

    def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None:
        return self._perform(Ledger.set_limits, scope, limits, window, owner, note)

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return self._perform(Ledger.reserve, hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    def forward(self, hold_id: str) -> None:
        return self._perform(Ledger.forward, hold_id)

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        return self._perform(Ledger.extend, hold_id, ttl_s)

    def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled:
        return self._perform(Ledger.commit, hold_id, scopes, amounts, uncertain, lines)

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return self._perform(Ledger.release, hold_id, scopes)

    def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Refused | None:
        return self._perform(Ledger.charge, charge_id, scopes, amounts, lines)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return self._perform(Ledger.adjust, adjust_id, scope, change, reason)

    def await_room(self, version: int, timeout: float) -> bool:
        return self._perform(Ledger.await_room, version, timeout)

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._perform(Ledger.balances, scopes)

    def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        return self._perform(Ledger.usage, query)

    def names(self, kind: str, prefix: str = "") -> Sequence[str]:
        return self._perform(Ledger.names, kind, prefix)

    def revoke(self, scope: Scope, reason: str) -> None:
        return self._perform(Ledger.revoke, scope, reason)

    def restore(self, scope: Scope) -> bool:
        return self._perform(Ledger.restore, scope)

    def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        return self._perform(Ledger.swap, name, expected, text, ttl_s)

    def sweep(self, most: int = 1_000) -> int:
        return self._perform(Ledger.sweep, most)

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return self._perform(Ledger.suspended, most)

    def audit(self) -> Sequence[str]:
        return self._perform(Ledger.audit)

    def close(self) -> None:
        return self._perform(Ledger.close)


class AwaitableVerbs(ABC):
    """The verbs of `AsyncLedger`, each performed by `_perform`."""

    @abstractmethod
    def _perform(
        self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """As `BlockingVerbs._perform`, to await; *verb* is the blocking one here too."""

    async def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None:
        return await self._perform(Ledger.set_limits, scope, limits, window, owner, note)

    async def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return await self._perform(Ledger.reserve, hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    async def forward(self, hold_id: str) -> None:
        return await self._perform(Ledger.forward, hold_id)

    async def extend(self, hold_id: str, ttl_s: float) -> bool:
        return await self._perform(Ledger.extend, hold_id, ttl_s)

    async def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled:
        return await self._perform(Ledger.commit, hold_id, scopes, amounts, uncertain, lines)

    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return await self._perform(Ledger.release, hold_id, scopes)

    async def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Refused | None:
        return await self._perform(Ledger.charge, charge_id, scopes, amounts, lines)

    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return await self._perform(Ledger.adjust, adjust_id, scope, change, reason)

    async def await_room(self, version: int, timeout: float) -> bool:
        return await self._perform(Ledger.await_room, version, timeout)

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return await self._perform(Ledger.balances, scopes)

    async def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        return await self._perform(Ledger.usage, query)

    async def names(self, kind: str, prefix: str = "") -> Sequence[str]:
        return await self._perform(Ledger.names, kind, prefix)

    async def revoke(self, scope: Scope, reason: str) -> None:
        return await self._perform(Ledger.revoke, scope, reason)

    async def restore(self, scope: Scope) -> bool:
        return await self._perform(Ledger.restore, scope)

    async def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        return await self._perform(Ledger.swap, name, expected, text, ttl_s)

    async def sweep(self, most: int = 1_000) -> int:
        return await self._perform(Ledger.sweep, most)

    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return await self._perform(Ledger.suspended, most)

    async def audit(self) -> Sequence[str]:
        return await self._perform(Ledger.audit)

    async def close(self) -> None:
        return await self._perform(Ledger.close)


class InlineVerbs(AwaitableVerbs):
    """The verbs to await of a ledger whose blocking ones take no time: each is called where it is awaited.

    Args:
        ledger: The ledger.
        await_room: How to wait for room without blocking.
    """

    def __init__(self, ledger: Ledger, await_room: Callable[[int, float], Awaitable[bool]]) -> None:
        self._ledger = ledger
        self._await_room = await_room

    async def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        result: R = getattr(self._ledger, verb.__name__)(*arguments, **named)
        return result

    # Every call makes these three, so they take no detour.

    async def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return self._ledger.reserve(hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    async def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled:
        return self._ledger.commit(hold_id, scopes, amounts, uncertain, lines)

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._ledger.balances(scopes)

    async def await_room(self, version: int, timeout: float) -> bool:
        return await self._await_room(version, timeout)


class LedgerWrapper(BlockingVerbs):
    """A ledger on top of another one, which passes verbs on to it or performs them by flows over it.

    A subclass lists in `flows` what it performs itself.

    Args:
        inner: The ledger below.
    """

    def __init__(self, inner: Ledger) -> None:
        self.inner = inner
        """The ledger below."""
        self.flows: Mapping[Verb, Callable[..., Flow[Any]]] = {}
        """The verbs that are not simply passed on, each with the flow that takes its arguments."""
        self.aio: AsyncLedger = _AwaitableWrapper(self)

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        """The flow that performs *verb* on the inner ledger."""
        flow = self.flows.get(verb)
        return _passed_on(verb, arguments) if flow is None else flow(*arguments)

    def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        result: R = drive(self.flow(_name(verb), arguments), self.inner)
        return result


class _AwaitableWrapper(AwaitableVerbs):
    """The verbs to await of a `LedgerWrapper`."""

    def __init__(self, wrapper: LedgerWrapper) -> None:
        self._wrapper = wrapper

    def _perform(
        self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        return adrive(self._wrapper.flow(_name(verb), arguments), self._wrapper.inner.aio)


def _passed_on(verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
    return (yield verb, arguments)


def _name(verb: Callable[..., Any]) -> Verb:
    return cast("Verb", verb.__name__)
