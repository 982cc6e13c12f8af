"""The run that events come from, as a sink is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from budget_guard.clock import Clock
from budget_guard.events.model import Subscriber


class Origin(NamedTuple):
    """The run that events come from."""

    run_id: str
    principals: Mapping[str, str]
    """Whom it is attributed to, by kind: user, key, team, feature and kinds of one's own."""
    task: str | None
    """The kind of work, as `Budget.task` names it."""
    clock: Clock

    def now(self) -> datetime:
        """The time, with its zone."""
        return self.clock.now()


@runtime_checkable
class Sink(Protocol):
    """Takes the events of many runs to somewhere else. Give it to `subscribe` of a session or an authority."""

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""
        ...
