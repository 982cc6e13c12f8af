"""Loop policies: when an agent that repeats itself is warned of, and when it is stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

OnLoop: TypeAlias = Literal["raise", "warn"]
"""``raise`` stops the run with `LoopDetected`, ``warn`` never stops it."""

STOP_FACTOR = 2
"""A cycle stops the run at this many times `LoopPolicy.max_repeats`."""
SCATTERED_FACTOR = 3
"""A call with the same result between other calls stops it at this many times; it is warned of at `STOP_FACTOR`."""
LONGEST_CYCLE = 3
"""So many calls a cycle has at most."""


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """See an agent that calls the same tools again and again with the same results, warn once, then stop it.

    ``LoopPolicy()`` warns at the third repetition of one call, or of a cycle of two or three, and stops the run before
    the call that would go on with it after the sixth. What makes a repetition is the tool, its arguments and its result
    together, clocks and ids in the result aside: a poll that makes progress is none. Each run is looked at by itself.

    A loop guard saves money now and then; the budget is the guarantee.
    """

    max_repeats: int = 3
    """The repetition that is warned of: at least 2. At twice as many the run is stopped; where other calls come in
    between, it is warned of at twice, and stopped at three times as many."""
    window_s: float | None = None
    """Seconds after which a call is forgotten. None counts calls alone: a turn of an agent may take a minute."""
    exempt: Sequence[str] = ()
    """Tools that may repeat themselves, such as one that waits for a job."""
    on_loop: OnLoop = "raise"
    """``raise`` stops the run with `LoopDetected`; ``warn`` never stops it."""

    def __post_init__(self) -> None:
        repeats, window, exempt = self.max_repeats, self.window_s, self.exempt
        if isinstance(repeats, bool) or not isinstance(repeats, int) or not 2 <= repeats <= 10:
            raise ValueError(f"loop.max_repeats={repeats!r} must be a whole number from 2 to 10, for example 3")
        is_number = isinstance(window, (int, float)) and not isinstance(window, bool)
        if window is not None and not (is_number and 0 < window < 1e9):
            raise ValueError(f"loop.window_s={window!r} must be a number of seconds above zero, or None")
        if isinstance(exempt, str):
            raise ValueError(f"loop.exempt={exempt!r} is a text: give the names of tools, exempt=({exempt!r},)")
        names = tuple(exempt) if isinstance(exempt, Iterable) else None
        if names is None or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"loop.exempt={exempt!r} must be the names of tools, for example ('job_status',)")
        if self.on_loop not in get_args(OnLoop):
            raise ValueError(f"loop.on_loop={self.on_loop!r} is not known: use 'raise' or 'warn'")
        object.__setattr__(self, "exempt", names)
