"""Spending limits for AI agents that hold before the call is made, not after the bill."""

import logging as _logging

from budget_guard.calls.alternatives import Alternative
from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.call_estimate import CallEstimate
from budget_guard.calls.decision import Decision, Estimate
from budget_guard.calls.idempotency import IdempotencyKey
from budget_guard.calls.reservation import Reservation
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerAmbiguous,
    LedgerUnavailable,
    LoopDetected,
    ReservationConflict,
    ReservationError,
    StaleReservation,
    UnboundedCallError,
    UnknownPriceError,
    UnknownReservation,
)
from budget_guard.estimate.prompt import Prompt, token_bound, weigh
from budget_guard.ledger import Ledger, MemoryLedger
from budget_guard.ledger.url import open_ledger
from budget_guard.policy.allowance import Allowance
from budget_guard.policy.downgrade import DowngradePolicy
from budget_guard.policy.loops import LoopPolicy
from budget_guard.pricing.table import PriceTable
from budget_guard.reporting.report import BudgetReport
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.ceiling import ScopeSnapshot
from budget_guard.session.functions import budgeted, track_tool
from budget_guard.session.session import Session, current_session
from budget_guard.units.printable import EscapingFilter as _EscapingFilter
from budget_guard.units.scope import Scope
from budget_guard.units.usage import Usage

__version__ = "0.1.0"

_logging.getLogger("budget_guard").addFilter(_EscapingFilter())

__all__ = [
    "Allowance",
    "Alternative",
    "Budget",
    "BudgetAuthority",
    "BudgetError",
    "BudgetExceeded",
    "BudgetReport",
    "BudgetRevoked",
    "CallEstimate",
    "Decision",
    "DowngradePolicy",
    "Estimate",
    "ForeignRun",
    "IdempotencyKey",
    "InvalidDowngradeError",
    "Ledger",
    "LedgerAmbiguous",
    "LedgerUnavailable",
    "LoopDetected",
    "LoopPolicy",
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
    "budgeted",
    "current_session",
    "open_ledger",
    "token_bound",
    "track_tool",
    "weigh",
]
