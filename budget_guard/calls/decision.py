"""What is asked of a session, and what it answers."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from budget_guard.errors import BudgetError
from budget_guard.estimate.prompt import Prompt
from budget_guard.units.amounts import NOTHING
from budget_guard.units.money import to_usd

if TYPE_CHECKING:
    from budget_guard.calls.reservation import Reservation
    from budget_guard.calls.worst_case import Plan, Terms
    from budget_guard.policy.downgrade import DowngradePolicy

Action: TypeAlias = Literal["allow", "downgrade", "advisory_warn", "block"]


class ModelCall(NamedTuple):
    """One model call that an adapter is about to make, in plain values."""

    model: str
    """The model as the provider knows it."""
    prompt: Prompt
    """What the input weighs."""
    provider: str | None = None
    """The provider's name, for example ``"openai"``; None to find it by the model's name."""
    max_output_tokens: int | None = None
    """The output cap that the caller set; None where it set none."""
    can_cap: bool = True
    """Whether the adapter can send an output cap that the session asks for."""
    needs: frozenset[str] = frozenset()
    """Capabilities that the call needs: ``tools``, ``vision``, ``json_schema``, ``audio``."""
    service_tier: str | None = None
    """The provider's price tier asked for, for example ``"flex"``; None for its standard one."""
    choices: int = 1
    """How many answers are asked for."""
    hosted_tools: tuple[str, ...] = ()
    """Tools that the provider runs and bills by use, as `Usage` names them."""
    agent: str | None = None
    """Whom to attribute the call to."""
    hour_cache: bool = True
    """Whether its input may be written to a one-hour cache, which costs more than a short one."""
    final: bool = False
    """Whether this is the final answer that `Budget.finalization_reserve` is kept for."""
    downgrade: DowngradePolicy | None = None
    """How the caller would switch this call to a cheaper model; None to go by `Budget.downgrade`."""


class ToolCall(NamedTuple):
    """One tool call that an adapter is about to make."""

    tool: str
    cost: int = 0
    """What it is known to cost, in nano-dollars; 0 where it is free or only the result tells."""
    agent: str | None = None


class Estimate(NamedTuple):
    """The most that a call may take."""

    input_tokens: int
    output_tokens: int
    cost: int
    """Nano-dollars."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.cost)


class Basis(NamedTuple):
    """What all decisions of a session rest on."""

    scopes: tuple[str, ...]
    """The scopes that its calls are held in, as ``kind:id``."""
    prices: str
    """Version and hash of the price table."""


class Decision(NamedTuple):
    """Whether and how a call may be made, with everything that it was decided on."""

    id: str
    at_s: float
    """Seconds since the session started."""
    action: Action
    call: ModelCall | ToolCall
    """What was asked for."""
    plan: Plan | None
    """How it is made, and what is held for it; None where it was refused before that was worked out."""
    basis: Basis
    reason: str
    error: BudgetError | None
    """Why it is refused, to be raised by the adapter; None unless *action* is ``block``."""
    reservation: Reservation | None
    """The hold to settle; None where nothing is held."""

    @property
    def terms(self) -> Terms | None:
        """How it is made; None as `plan`."""
        terms, _ = self.plan or (None, None)
        return terms

    @property
    def kind(self) -> Literal["model", "tool"]:
        """What kind of call it is."""
        return "model" if isinstance(self.call, ModelCall) else "tool"

    @property
    def requested(self) -> str:
        """The model asked for, or the tool."""
        return self.call[0]

    @property
    def name(self) -> str:
        """The model to call, or the tool; what was asked for where the call is refused."""
        return self.call[0] if self.terms is None or self.error is not None else self.terms.rung.model

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that the call is held in, as ``kind:id``."""
        return self.basis.scopes

    @property
    def prices(self) -> str:
        """Version and hash of the price table."""
        return self.basis.prices

    @property
    def estimate(self) -> Estimate:
        """The most that it may take."""
        _, held = self.plan or (None, NOTHING)
        return Estimate(held.input_tokens, held.output_tokens, held.cost)

    @property
    def output_cap(self) -> int | None:
        """The output cap that the adapter must send; None to send none."""
        return None if self.terms is None else self.terms.output_cap

    @property
    def output_clamped(self) -> bool:
        """Whether the session chose a lower cap than the caller and the model would have had."""
        return self.terms is not None and self.terms.clamped

    @property
    def bounded(self) -> bool:
        """Whether the estimate is a bound. False only where the adapter cannot send a cap, or the mode gives none."""
        return self.terms is not None and self.terms.bounded

    def require(self) -> Reservation:
        """The reservation, or the error.

        Raises:
            BudgetError: If the call is refused.
        """
        if self.error is not None:
            raise self.error
        reservation = self.reservation
        assert reservation is not None  # a decision that is no block holds one
        return reservation
