"""Calls that a fallback of LangChain's, and not the adapter, hands over to a cheaper model."""

from __future__ import annotations

from uuid import UUID

from budget_guard import ModelCall

_KEPT = 1_000


class Fallbacks:
    """The calls that were given up for a cheaper model, until that makes them.

    A fallback begins a call of its own, with the same messages in the same run. It is decided on by the ladder of the
    model that was asked for: by its own it would have to go further down at once.
    """

    def __init__(self) -> None:
        self.expected: dict[tuple[object, ...], ModelCall] = {}
        """The calls that were given up, by what will make them: the model, its run, and the messages."""

    def expect(self, target: str, parent_run_id: UUID | None, call: ModelCall) -> None:
        """Note that *target* is to take over *call*."""
        self.expected[(target, parent_run_id, call.prompt.parts)] = call
        if len(self.expected) > _KEPT:
            self.expected.pop(next(iter(self.expected)), None)

    def asked_for(self, parent_run_id: UUID | None, call: ModelCall) -> ModelCall:
        """*call* as the model that it takes the place of would make it; itself where it takes the place of none."""
        asked = self.expected.get((call.model, parent_run_id, call.prompt.parts))
        if asked is None:
            return call
        return call._replace(model=asked.model, provider=asked.provider, service_tier=asked.service_tier)
