"""The names that a server is asked by."""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard_gateway.settings import is_loopback


class OwnNames:
    """The names that a server is asked by, in ``Host``.

    On the loopback interface it is asked by no other name: a page could have a browser ask it by one of its own.

    Args:
        host: The address that it listens at.
        allowed: Further names.
    """

    def __init__(self, host: str, allowed: Sequence[str]) -> None:
        self._names = {name.lower() for name in (*allowed, host, "127.0.0.1", "localhost", "::1")}
        self._any = not is_loopback(host) and not allowed

    def has(self, host: bytes) -> bool:
        """Whether *host*, as the header has it, is one of them."""
        if self._any:
            return True
        name = host.decode("latin-1").lower()
        bare = name.partition("]")[0].removeprefix("[") if name.startswith("[") else name.partition(":")[0]
        return bare in self._names
