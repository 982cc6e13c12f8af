"""Where the counters live."""

from budget_guard.ledger.base import AsyncLedger, Balance, Held, Ledger, Refused, ReserveOutcome, Revoked, Settled
from budget_guard.ledger.memory import MemoryLedger

__all__ = [
    "AsyncLedger",
    "Balance",
    "Held",
    "Ledger",
    "MemoryLedger",
    "Refused",
    "ReserveOutcome",
    "Revoked",
    "Settled",
]
