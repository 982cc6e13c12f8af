"""Which call a cheaper model takes over, where a fallback and not the adapter makes it do so."""

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
        self._asked: dict[tuple[object, ...], ModelCall] = {}

    def expect(self, target: str, parent_run_id: UUID | None, call: ModelCall) -> None:
        """Note that *target* is to take over *call*."""
        self._asked[(target, parent_run_id, call.prompt.parts)] = call
        if len(self._asked) > _KEPT:
            self._asked.pop(next(iter(self._asked)), None)

    def asked_for(self, parent_run_id: UUID | None, call: ModelCall) -> ModelCall:
        """*call* as the model that it takes the place of would make it; itself where it takes nobody's."""
        if not self._asked:
            return call
        asked = self._asked.get((call.model, parent_run_id, call.prompt.parts))
        if asked is None:
            return call
        return call._replace(model=asked.model, provider=asked.provider, service_tier=asked.service_tier)
