"""The estimate of one call: what would become of it if it were made now, by the authorizer's rules. Nothing is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from budget_guard.calls.decision import Action
from budget_guard.errors import BudgetError
from budget_guard.ledger.base import HELD, Balance, Refused, ReserveOutcome
from budget_guard.ledger.counters import first_refusal
from budget_guard.units.amounts import Amounts, Sums
from budget_guard.units.money import format_usd, to_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRuns:
    """What runs of the same task took, by their records."""

    runs: int
    """Runs that were looked at: successes, and those that their dollar limit stopped."""
    median: int | None
    """Nano-dollars; None without any run, as the next one."""
    p95: int | None

    @property
    def median_usd(self) -> Decimal | None:
        """Dollars."""
        return None if self.median is None else to_usd(self.median)

    @property
    def p95_usd(self) -> Decimal | None:
        """Dollars."""
        return None if self.p95 is None else to_usd(self.p95)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEstimate:
    """What would be held for a call, and whether it would be made. What others take meanwhile may change that."""

    requested: str
    """The model that the call asks for, or the tool."""
    name: str
    """The model that would be called: a cheaper one where the budget switches."""
    action: Action
    """``allow``, ``downgrade``, ``advisory_warn`` or ``block``, as the decision would say."""
    held: Amounts
    """The most that it may take, which would be held."""
    output_cap: int | None
    """The output cap that would be sent; None where none would be."""
    waits: bool
    """Whether it would wait first, for what other calls hold."""
    error: BudgetError | None
    """What refuses it, or what advisory mode would warn of: it names the limit and the scope."""
    past: PastRuns | None
    """What runs of the same task took; None where no records are kept."""

    @property
    def admitted(self) -> bool:
        """Whether it would be made at once."""
        return self.action != "block"

    @property
    def held_usd(self) -> Decimal:
        """Dollars that would be held."""
        return to_usd(self.held.cost)

    def __str__(self) -> str:
        past = ""
        if self.past is not None and self.past.median is not None and self.past.p95 is not None:
            median, p95 = format_usd(self.past.median), format_usd(self.past.p95)
            past = f" {self.past.runs} such runs took {median} (median), 95% less than {p95}."
        why = "" if self.error is None else f": {str(self.error).rstrip('.')}"
        return f"{self.action}: {self.name} would hold {format_usd(self.held.cost)}{why}.{past}"


def would_hold(balances: Sequence[Balance], room: Sums | None) -> ReserveOutcome:
    """What a ledger with *balances* would answer to a reserve, which holds *room* if it fits."""
    for balance in balances:
        if balance.revoked is not None:
            return balance.revoked
    refused: Refused | None = None if room is None else first_refusal(balances, room, 0)
    return refused or HELD
