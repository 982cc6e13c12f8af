"""The connections that a guarded client shares with the client that it is a copy of."""

from __future__ import annotations

import weakref
from typing import Any


class Pool:
    """Keeps the original client while a guarded copy is open.

    An SDK's HTTP client closes its connections when it is collected, and with them every stream under way. Closing the
    copy lets go of the original; only where nobody else has it any more are its connections closed.

    Args:
        owner: The original HTTP client.
    """

    def __init__(self, owner: Any) -> None:
        self._owner: Any = owner
        self._ref: weakref.ref[Any] = weakref.ref(owner)

    @property
    def owner(self) -> Any:
        """The original; None once the copy is closed and nobody else has it."""
        return self._ref()

    def _is_last(self) -> bool:
        self._owner = None
        return self._ref() is None

    def close(self, inner: Any) -> None:
        """Close *inner*, a transport of the original, where nobody else has it."""
        if self._is_last():
            inner.close()

    async def aclose(self, inner: Any) -> None:
        """As `close`."""
        if self._is_last():
            await inner.aclose()
