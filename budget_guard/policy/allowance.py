"""Allowances: what a user says of calls whose cost cannot be told from the request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from budget_guard.units.money import UsdLike, nano_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What to reserve for calls whose cost cannot be told from the request.

    A hard gate refuses a call with an image, a file, audio, history kept by the provider or a hosted tool, unless an
    allowance says what such a call may take. A guarded client refuses a request to an endpoint that it cannot price,
    unless an allowance says what such a request costs.

    Raises:
        ValueError: If a value is not of its kind. It names the field.
    """

    input_tokens: int = 0
    """Input tokens to reserve for each call that carries such content."""
    hosted_tool_calls: int = 0
    """Uses of each hosted tool to reserve in each call that offers it."""
    requests: Mapping[str, UsdLike] = field(default_factory=dict[str, UsdLike], hash=False)
    """Dollars that one request costs at most, by the path after the client's base URL: ``{"/images/generations":
    "0.04"}``, ``{"/threads/{id}/runs": 1}``. It is held before the request is sent, and booked once it is answered, as
    the cost of a tool of that name."""
    parameters: tuple[str, ...] = ()
    """Parameters of requests that the guard does not know and that cost nothing more: calls with them are admitted."""

    def __post_init__(self) -> None:
        for name in ("input_tokens", "hosted_tool_calls"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"allowance.{name}={value!r} must be a whole number, zero or more")
        object.__setattr__(self, "requests", _prices(self.requests))
        for path, cost in self.requests.items():
            _check_path(path)
            nano_of(cost, f"allowance.requests[{path!r}]")
        object.__setattr__(self, "parameters", _names(self.parameters))


def _prices(given: object) -> dict[str, UsdLike]:
    if not isinstance(given, Mapping):
        raise ValueError(
            f'allowance.requests={given!r} is no mapping: write requests={{"/images/generations": "0.04"}}'
        )
    return dict(cast("Mapping[str, UsdLike]", given))


def _check_path(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/") or path == "/" or "?" in path or "://" in path:
        raise ValueError(
            f"allowance.requests has {path!r}, which is no path: give what follows the client's base URL, for example "
            '"/images/generations"'
        )


def _names(given: object) -> tuple[str, ...]:
    if isinstance(given, (list, tuple, set, frozenset)):
        names = tuple(cast("Iterable[object]", given))
        if all(isinstance(name, str) and name for name in names):
            return cast("tuple[str, ...]", names)
    raise ValueError(f'allowance.parameters={given!r} must be names of parameters: write parameters=("x",)')
