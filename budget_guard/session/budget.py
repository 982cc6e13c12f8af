"""The budget that users write: limits and policies, and the way to open a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from budget_guard.calls.seen import OnCancel
from budget_guard.ledger.base import Ledger
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.policy.misspelt import refuses_unknown_keywords
from budget_guard.pricing.overlay import PriceLike
from budget_guard.session.session import Session
from budget_guard.session.told import OnThreshold, Told

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunStore


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Budget(BudgetPolicy):
    """An immutable set of limits and policies for one unit of work. At least one limit must be set.

    ``Budget("$5.00")`` is a ceiling of five dollars. None means no limit in that dimension.

    Args:
        max_cost_usd: Dollars for model calls and priced tools together: ``"$5.00"``, ``5``, ``1.5`` or a Decimal.
        max_total_tokens: Input plus output tokens, cached and reasoning ones included.
        max_input_tokens: Input tokens, cached ones included.
        max_output_tokens: Output tokens, reasoning ones included.
        max_requests: Model calls, each attempt of a retried call included.
        max_tool_calls: Tool calls; 0 allows none.
        max_duration_s: Seconds from the first call; a call that starts later is refused.
        window: When the limits begin anew, for a ceiling that many runs share: ``minute``, ``hour``, ``day``,
            ``week`` or ``month``, all in UTC.
        soft_limit: Warn once per limit at this fraction of it; None never warns.
        downgrade: A cheaper model to switch to, a mapping of models, or a `DowngradePolicy` that says when.
        mode: ``hard_gate``: no call without its worst case reserved. ``soft_gate``: calls pass as long as anything is
            left. ``advisory_estimate``: never refuses, says what it would have refused. ``actuals_only``: no
            estimates, refuses once a limit is reached. A ceiling may be ``advisory_estimate`` as well.
        soft_margin_usd: Dollars by which the estimate of a call may exceed what is left in a ``soft_gate``, whatever is
            left: the limit is passed by no more than that, as far as estimates hold. None to let calls pass as long as
            anything is left.
        unpriced: ``deny`` refuses a model without a known price wherever a dollar limit applies; ``allow`` counts its
            tokens and requests.
        unbounded: ``allow`` lets a call pass whose output cannot be capped, with a warning; ``deny`` refuses it.
        call_max_output_tokens: The most output tokens that any one call may have.
        clamp_output: Whether the guard sends an output cap of its own: ``when_unset`` where the caller sets none,
            ``always``, or ``never``. ``reject`` as ``never``, and a call is refused whose own cap is above
            *call_max_output_tokens*, or above the most that its model writes, in place of lowering that.
        hold_share: The fraction of what remains that such a cap may be worth.
        max_wait_s: Seconds that a call may wait for room that other calls in flight are holding.
        finalization_reserve: Dollars kept back for one final answer once everything else is spent.
        server_errors: What to do with a call that ended in a 500 with the provider's own body: ``book`` what was held,
            for it may be billed, or ``release`` it, if you trust the provider not to bill it.
        service_tier: The provider's price tier at which calls are held that ask for none, such as ``"flex"`` or
            ``"priority"`` where that is the default of your account. It is not sent: an answer says which tier served
            it, is billed by that, and a dearer one is held from then on.
        task: The kind of work, for records and advice: ``"summarise"``.
        allowance: What to reserve for calls whose cost the request does not tell: `Allowance(input_tokens=...)`.
        loop: When to warn of a run that repeats itself, and to stop it: ``LoopPolicy()``. None never looks.
        agents: What each agent may take of it by the calls that it makes itself, by its name:
            ``{"Researcher": Budget("$0.20")}``.
        max_runs: Distinct runs that a user, key, team or agent may begin in a window: of a ceiling alone. A run id
            counts once, whichever process opens it, and however often.
        max_usd_per_minute: Dollars that the session may take in any sixty seconds, from its tenth second on. It is a
            brake for what runs away: a single call is never too much.

    Raises:
        TypeError: If a keyword is not known, naming the one that was most likely meant.
        ValueError: If a value is senseless, naming the field, the value and the remedy.
    """

    @refuses_unknown_keywords("Budget.session")
    def session(
        self,
        *,
        ledger: Ledger | str | None = None,
        run_id: str | None = None,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
        on_cancel: OnCancel = "bound",
    ) -> Session:
        """Open a session that spends from this budget alone.

        Args:
            ledger: Where the counters live, or its URL as of `open_ledger`; a new one in memory by default. With one
                that lasts and a *run_id* the budget survives a restart: the run goes on where it stopped.
            run_id: The run's name; made up by default.
            user: Whom to name in the report, as the other four.
            key: As *user*. Not the secret: it is logged.
            team: As *user*.
            feature: As *user*.
            agent: As *user*: a handle of one agent, such as "research-agent-42". What names no agent itself is
                reported as its spend.
            pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.
            per_million: The same in dollars per million tokens: ``{"my-model": (2.5, 10)}``.
            run_log: Where a record of the run goes when the session is closed, such as `budget_guard.reporting.RunLog`.
            on_soft_limit: A function of the report, plain or async, that is called once for each limit that is nearly
                used up.
            on_hard_limit: The same for each limit that has refused a call.
            on_loop_detected: The same for each loop that is noticed, and when it is stopped.
            on_downgrade: The same for each model that another one stands in for.
            on_cancel: What to book for an answer that its caller gives up: ``bound``, all that was held, or ``seen``,
                the input and what was seen of the answer. As `Session` says.

        Raises:
            LedgerUnavailable: If the ledger cannot be reached.
            ValueError: If an argument makes no sense.
        """
        tags = {"user": user, "key": key, "team": team, "feature": feature, "agent": agent}
        return Session(
            self,
            ledger=ledger,
            run_id=run_id,
            tags={kind: tag for kind, tag in tags.items() if tag is not None},
            pricing=pricing,
            per_million=per_million,
            on_cancel=on_cancel,
            told=Told(run_log, on_soft_limit, on_hard_limit, on_loop_detected, on_downgrade),
        )
