"""The message between one call of a steered model and the handlers that decide on it.

A callback can refuse a call, but can neither change its model nor cap its output. A *steered* model does both for it:
it lays a `Steering` into the arguments of each call, the handler finds that in ``on_chat_model_start``, asks the
session in its terms and leaves the decision in it, and the model then calls what was decided. So a call is decided on
once, by its hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from budget_guard import BudgetError, Decision, DowngradePolicy, ModelCall


class LaterHold(NamedTuple):
    """The hold of a call that its model takes, just before it sends the call: in async code it can wait for room."""

    by: object
    """The handler that decides."""
    hold: Callable[[], None]
    """Holds it, blocking. Raises what refuses the call."""
    ahold: Callable[[], Awaitable[None]]
    """As `hold`, awaited."""


class Steering:
    """One call: what its caller leaves to the budget, and what the budget's handlers decided."""

    __slots__ = (
        "_can_cap",
        "_cap_set",
        "_downgrade",
        "_final",
        "_keeps_cut",
        "_later",
        "_stands_for",
        "_takes",
        "asks_for_usage",
        "awaits",
        "cap",
        "cut",
        "decided",
        "model",
    )

    def __init__(
        self,
        *,
        can_cap: bool,
        cap_set: int | None,
        downgrade: DowngradePolicy | None = None,
        takes: frozenset[str] = frozenset(),
        stands_for: tuple[str, bool] | None = None,
        final: bool = False,
        asks_for_usage: bool = True,
        keeps_cut: bool = False,
    ) -> None:
        """
        Args:
            can_cap: Whether an output cap can be sent.
            cap_set: The output cap that the caller set.
            downgrade: Which model to switch to, and when.
            takes: The models to which the call can be switched.
            stands_for: The model in whose place it is called already, and whether that is the same provider's.
            final: Whether it is the final answer that ``Budget.finalization_reserve`` is kept for.
            asks_for_usage: Whether a stream may be asked for its usage.
            keeps_cut: Whether an answer that a budget's own cap cuts off is kept as it is.
        """
        self.awaits: bool
        """Whether the model itself takes the holds, which it can await. A callback on an event loop must not wait."""
        self._later: list[LaterHold] = []
        self._keeps_cut = keeps_cut
        self.asks_for_usage = asks_for_usage
        self._can_cap, self._cap_set = can_cap, cap_set
        self._downgrade, self._takes, self._stands_for, self._final = downgrade, takes, stands_for, final
        self.decided = False
        """Whether any budget decided on it."""
        self.model: str | None = None
        """The model that was decided on, where it is not the one asked for."""
        self.cap: int | None = None
        """The output cap that was decided on."""
        self.cut: BudgetError | None = None
        """The stop that the answer is, where that cap has cut it off."""

    def hold_later(self, later: LaterHold) -> None:
        """Leave a hold to the model. A handler that is listed twice leaves one."""
        if all(each.by is not later.by for each in self._later):
            self._later.append(later)

    def hold(self) -> None:
        """Take the holds that were left to the model.

        Raises:
            BudgetError: In LangChain's terms, if a budget refuses. Nothing is held then.
        """
        while self._later:
            self._later.pop(0).hold()

    async def ahold(self) -> None:
        """As `hold`, and waits for room without blocking."""
        while self._later:
            await self._later.pop(0).ahold()

    def ask(self, call: ModelCall) -> ModelCall:
        """*call* in the terms of the model that is steered."""
        model, provider = call.model, call.provider
        if self.model is not None:  # another handler has switched already
            model = self.model
        elif self._stands_for is not None:
            model, same_provider = self._stands_for
            provider = provider if same_provider else None
        return call._replace(
            model=model,
            provider=provider,
            max_output_tokens=self._cap_set,
            can_cap=self._can_cap,
            downgrade=self._downgrade,
            final=self._final,
        )

    def raise_if_cut(self) -> None:
        """Stop where the answer was cut off by a budget's own cap.

        Raises:
            BudgetExceeded: In LangChain's terms. What the answer cost is booked.
        """
        if self.cut is not None and not self._keeps_cut:
            from budget_guard_langchain.errors import recast

            raise recast(self.cut)

    def takes(self, model: str) -> bool:
        """Whether the call can be switched to *model*."""
        return model in self._takes

    def answer(self, decision: Decision) -> None:
        """Note what a handler decided. Where several do, the cheaper model and the lower cap hold for the call."""
        self.decided = True
        if decision.name != decision.requested:
            self.model = decision.name
        cap = decision.output_cap
        if cap is not None and (self.cap is None or cap < self.cap):
            self.cap = cap


class SteeredParams(dict[str, Any]):
    """The invocation parameters of a steered call, as callbacks see them."""

    def __init__(self, params: dict[str, Any], steering: Steering) -> None:
        super().__init__(params)
        self.steering = steering

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy, as tracers make them, steers nothing


def steering_of(invocation_params: object) -> Steering | None:
    """The steering of the call with *invocation_params*; None for a call that is not steered."""
    return invocation_params.steering if isinstance(invocation_params, SteeredParams) else None
