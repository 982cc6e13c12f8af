"""What to do while the ledger cannot be reached."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from budget_guard.policy.budget import Mode

OnLedgerError: TypeAlias = Literal["closed", "open"]
"""``closed`` refuses calls, ``open`` lets them pass without a hold and books them later."""


def fails_open(mode: Mode, chosen: OnLedgerError | None) -> bool:
    """Whether calls pass: as *chosen*, else where the mode promises no ceiling anyway.

    Raises:
        ValueError: If *chosen* is not known.
    """
    if chosen is None:
        return mode in ("advisory_estimate", "actuals_only")
    if chosen not in get_args(OnLedgerError):
        raise ValueError(f"on_ledger_error={chosen!r} is not known: use 'closed', 'open', or None to go by the mode")
    return chosen == "open"
