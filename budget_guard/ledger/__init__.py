"""Ledgers: the counters of what is spent and held, and the verbs that move them."""

from budget_guard.ledger.base import (
    HELD,
    AsyncLedger,
    Balance,
    Held,
    Ledger,
    Refused,
    ReserveOutcome,
    Revoked,
    ScopeSpend,
    Settled,
    Suspended,
)
from budget_guard.ledger.memory import MemoryLedger
from budget_guard.units.amounts import DIMENSIONS

__all__ = [
    "DIMENSIONS",
    "HELD",
    "AsyncLedger",
    "Balance",
    "Held",
    "Ledger",
    "MemoryLedger",
    "Refused",
    "ReserveOutcome",
    "Revoked",
    "ScopeSpend",
    "Settled",
    "Suspended",
]
