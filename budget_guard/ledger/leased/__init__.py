"""Quota leases: a process takes a part of a shared budget at a time, and spends it without asking for each call."""

from budget_guard.ledger.leased.ledger import LeasedLedger

__all__ = ["LeasedLedger"]
