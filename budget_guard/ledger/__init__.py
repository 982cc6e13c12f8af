"""Where the counters live."""

from budget_guard.ledger.base import (
    HELD,
    AsyncLedger,
    Balance,
    Held,
    Ledger,
    Refused,
    ReserveOutcome,
    Revoked,
    Settled,
    Suspended,
)
from budget_guard.ledger.memory import MemoryLedger

__all__ = [
    "HELD",
    "AsyncLedger",
    "Balance",
    "Held",
    "Ledger",
    "MemoryLedger",
    "Refused",
    "ReserveOutcome",
    "Revoked",
    "Settled",
    "Suspended",
]
