"""The stops of guarded clients: the core's errors, which are errors of the client's SDK as well.

The SDKs let their own errors through, and retry, or wrap into a connection error, whatever else a transport raises.
`budget_guard_clients.errors.OpenAIStop`, `AnthropicStop` and `OpenAIAnthropicStop` are their bases, made when they are
asked for: no SDK is imported here.
"""

from __future__ import annotations

import sys
from typing import Any

from budget_guard.adapter import Stops, stops_for

_ROOTS = {"openai": ("OpenAI", "OpenAIError"), "anthropic": ("Anthropic", "AnthropicError")}
"""For each SDK, its name in the names of stops, and its root error."""


class ClientStop(Exception):
    """The base of stops in a program that uses no SDK: of a bare HTTP client."""


_bases: dict[str, type[Exception]] = {}


def stops_of(package: str | None) -> Stops:
    """The stops of the clients of an SDK.

    Args:
        package: The SDK; None for a bare HTTP client, whose stops are errors of every SDK that is loaded.
    """
    packages = [package] if package is not None else [name for name in _ROOTS if name in sys.modules]
    return stops_for(_base("".join(_ROOTS[name][0] for name in packages) + "Stop"))


def _base(name: str) -> type[Exception]:
    if name == "Stop":
        return ClientStop
    found = _bases.get(name)
    if found is None:
        roots: list[Any] = []
        for package, (short, root) in _ROOTS.items():
            if short in name:
                __import__(package)
                roots.append(getattr(sys.modules[package], root))
        said = {"__doc__": "The base of stops, which the SDK lets through.", "__module__": __name__}
        found = _bases.setdefault(name, type(name, tuple(roots), said))
    return found


def __getattr__(name: str) -> Any:
    """The bases, so that a stop can be unpickled in another process."""
    if name not in ("OpenAIStop", "AnthropicStop", "OpenAIAnthropicStop"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _base(name)
