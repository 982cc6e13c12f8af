"""A ledger in an SQLite file: durable, and shared by the processes of one host."""

from budget_guard.ledger.sqlite.ledger import SqliteLedger

__all__ = ["SqliteLedger"]
