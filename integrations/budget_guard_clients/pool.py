"""The connections that a guarded client shares with the client that it is a copy of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_references: Callable[[Any], int] | None = getattr(sys, "getrefcount", None)
_OWN = 3
"""References to the original in `Pool._last` that are its own: the attribute, the local name, the argument."""


class Pool:
    """Keeps the original client while a guarded copy is open.

    An SDK's HTTP client closes its connections when it is collected, and with them every stream under way. Closing the
    copy closes the original where nobody else has it, as in ``with session.guard(OpenAI()) as client``; else it lets go
    of it, and leaves the connections open for who has.

    Args:
        owner: The original HTTP client.
    """

    def __init__(self, owner: Any) -> None:
        self.owner: Any = owner
        """The original; None once the copy is closed."""

    @property
    def is_unopened(self) -> bool:
        """Whether the original was not entered, so that its transports were not, either."""
        return self.owner is not None and self.owner._state.name == "UNOPENED"

    def _last(self) -> Any:
        """The original, where nobody else has it."""
        owner = self.owner
        is_last = owner is not None and _references is not None and _references(owner) <= _OWN
        self.owner = None
        return owner if is_last else None

    def close(self) -> None:
        """Let go of the original."""
        owner = self._last()
        if owner is not None:
            owner.close()

    async def aclose(self) -> None:
        """As `close`."""
        owner = self._last()
        if owner is not None:
            await owner.aclose()
