"""Spending limits for AI agents that hold before the call is made, not after the bill."""

from budget_guard.authority import BudgetAuthority
from budget_guard.budget import Budget
from budget_guard.ceiling import ScopeSnapshot
from budget_guard.decision import Decision, Estimate, ModelCall, ToolCall
from budget_guard.downgrade import DowngradePolicy
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerAmbiguous,
    LedgerUnavailable,
    ReservationConflict,
    ReservationError,
    StaleReservation,
    UnboundedCallError,
    UnknownPriceError,
    UnknownReservation,
)
from budget_guard.estimate import Allowance, Prompt, token_bound, weigh
from budget_guard.ledger import Ledger, MemoryLedger
from budget_guard.ledger.url import open_ledger
from budget_guard.pricing import PriceTable
from budget_guard.report import BudgetReport
from budget_guard.reservation import Reservation
from budget_guard.scope import Scope
from budget_guard.session import Session
from budget_guard.usage import Usage

__all__ = [
    "Allowance",
    "Budget",
    "BudgetAuthority",
    "BudgetError",
    "BudgetExceeded",
    "BudgetReport",
    "BudgetRevoked",
    "Decision",
    "DowngradePolicy",
    "Estimate",
    "ForeignRun",
    "InvalidDowngradeError",
    "Ledger",
    "LedgerAmbiguous",
    "LedgerUnavailable",
    "MemoryLedger",
    "ModelCall",
    "PriceTable",
    "Prompt",
    "Reservation",
    "ReservationConflict",
    "ReservationError",
    "Scope",
    "ScopeSnapshot",
    "Session",
    "StaleReservation",
    "ToolCall",
    "UnboundedCallError",
    "UnknownPriceError",
    "UnknownReservation",
    "Usage",
    "open_ledger",
    "token_bound",
    "weigh",
]
