"""The guard that a user passes as ``hooks=``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from agents import (
    Agent,
    AgentHookContext,
    AgentOutputSchema,
    AgentOutputSchemaBase,
    Handoff,
    ModelResponse,
    RunConfig,
    RunContextWrapper,
    Tool,
    TResponseInputItem,
    handoff,
)
from agents.models.default_models import get_default_model
from agents.models.interface import Model
from typing_extensions import Self

from budget_guard import Budget, BudgetAuthority, ModelCall, Session
from budget_guard.adapter.attempts import ADD_FIELDS, AddField, check_add_fields
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.handle import (
    OnCutOff,
    SessionSettings,
    check_budget,
    check_choice,
    check_principals,
    forked,
    opened,
)
from budget_guard.adapter.tool_costs import ToolCost, ToolCosts
from budget_guard.calls.call_estimate import CallEstimate
from budget_guard.calls.seen import OnCancel
from budget_guard.ledger.base import Ledger
from budget_guard.pricing.table import PriceLike
from budget_guard.session.told import OnThreshold
from budget_guard_openai_agents.errors import recast, stops
from budget_guard_openai_agents.guarded_run import (
    GuardedRun,
    OnExceeded,
    RunGuard,
    ToolHolds,
    current_run,
    enter,
    leave,
)
from budget_guard_openai_agents.hooks_only import HooksOnly
from budget_guard_openai_agents.model import guard_model
from budget_guard_openai_agents.request import read_request
from budget_guard_openai_agents.runner import guarded_config, install

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunStore


class BudgetGuard(RunGuard):
    """Holds a budget for every run that it is given to.

    ::

        guard = BudgetGuard(Budget(max_cost_usd=1.50), downgrade_to="gpt-4o-mini")
        result = await Runner.run(agent, "...", hooks=guard)
        print(guard.report())

    One guard is one budget: all its runs spend from it together. `fork` makes a fresh one. As a context manager,
    ``with guard:``, it also covers runs that take no hooks.

    Args:
        budget: What the runs may spend.
        downgrade_to: A cheaper model to switch to, or a mapping of models; short for ``Budget(downgrade=...)``.
        downgrade_at: The fraction of the budget at which to switch.
        pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.
        per_million: The same in dollars per million tokens: ``{"my-model": (2.5, 10)}``.
        tool_costs: What tools cost a call, by name: dollars, or a function of the tool's result.
        on_exceeded: ``raise`` stops the run with `BudgetExceeded`; ``finalize`` lets it make one last answer without
            tools, out of the budget's ``finalization_reserve``.
        on_cut_off: What becomes of an answer that the guard's own output cap cuts off, and of a stream that must not go
            on: ``raise`` a stop that has what came (``partial_output``), or ``keep`` it as the answer. Half a tool call
            is never kept.
        authority: Where the ceilings live that the runs share with others; none by default.
        user: The user whose ceiling holds as well, or, without an authority, whom to name in the report.
        key: The API key's name, likewise. Not the secret: it is logged.
        team: The team, likewise.
        feature: What to attribute the runs to, in the report.
        agent: The handle of one agent, such as "research-agent-42", whose ceiling holds as well: a name that you give
            it, and not the one that it shows. `Budget(agents=...)` caps agents by that.
        run_id: A name for the budget's scope; made up by default.
        ledger: Where the counters live, or its URL such as ``"sqlite:///budget.db"``: with a *run_id* the budget goes
            on where it stopped, also in another process. In memory by default, or where the authority has them.
        on_cancel: What to book for an answer that its caller gives up, say a stream whose reader closed the tab:
            ``bound``, all that was held, or ``seen``, the input and what was seen of the answer, and a margin, where
            that can be known.
        add_fields: What the guard may add to a request: ``output_cap`` where the settings have none, and ``usage``,
            which asks a stream for it. Leave out what an endpoint refuses.
        run_log: Where a record of each run goes, such as `budget_guard.reporting.RunLog`: of what that run took, and
            how it ended. A run that another one starts is a part of that.
        on_soft_limit: A function of the report, plain or async, that is called once for each limit that is nearly used
            up. What it raises is logged, and disturbs no run.
        on_hard_limit: The same for each limit that has refused a call.
        on_loop_detected: The same for each loop that is noticed, and when it is stopped.
        on_downgrade: The same for each model that another one stands in for.
        **principals: The principals of further kinds that the authority has ceilings for, by kind: ``org="acme"``.

    Raises:
        BudgetExceeded: If the authority limits how many runs may be live, and so many are. `close` frees a place.
        ForeignRun: If *run_id* is another principal's.
        LedgerUnavailable: If the authority's ledger cannot be reached.
        ValueError: If the arguments contradict each other, or a cost or price makes no sense.
        InvalidDowngradeError: If a downgrade target is unknown, or dearer than what it replaces.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        downgrade_to: str | Mapping[str, str] | None = None,
        downgrade_at: float = 0.8,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        tool_costs: Mapping[str, ToolCost] | None = None,
        on_exceeded: OnExceeded = "raise",
        on_cut_off: OnCutOff = "raise",
        authority: BudgetAuthority | None = None,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        run_id: str | None = None,
        ledger: Ledger | str | None = None,
        on_cancel: OnCancel = "bound",
        add_fields: Sequence[AddField] = ADD_FIELDS,
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
        **principals: str | None,
    ) -> None:
        check_budget(budget, "BudgetGuard")
        check_principals(principals, authority, BudgetGuard)
        given, budget = budget, budget.with_downgrade(downgrade_to, downgrade_at)
        check_choice("on_exceeded", on_exceeded, OnExceeded)
        check_choice("on_cancel", on_cancel, OnCancel)
        check_choice("on_cut_off", on_cut_off, OnCutOff)
        if on_exceeded == "finalize" and budget.finalization_reserve is None:
            raise ValueError(
                'on_exceeded="finalize" needs money kept back for the answer: Budget(..., finalization_reserve="$0.05")'
            )
        self._initial_budget = given
        self._settings = SessionSettings(
            authority=authority,
            user=user,
            key=key,
            team=team,
            feature=feature,
            agent=agent,
            pricing=pricing,
            per_million=per_million,
            ledger=ledger,
            on_cancel=on_cancel,
            run_log=run_log,
            on_soft_limit=on_soft_limit,
            on_hard_limit=on_hard_limit,
            on_loop_detected=on_loop_detected,
            on_downgrade=on_downgrade,
            principals=principals,
        )
        self._own_settings: dict[str, Any] = {
            "downgrade_to": downgrade_to,
            "downgrade_at": downgrade_at,
            "tool_costs": tool_costs,
            "on_exceeded": on_exceeded,
            "on_cut_off": on_cut_off,
            "add_fields": add_fields,
        }
        self.add_fields = cast("frozenset[AddField]", check_add_fields(add_fields))
        self.known_reasoning = {}
        self.tool_costs = ToolCosts(tool_costs)
        self.on_exceeded = on_exceeded
        self.on_cut_off = on_cut_off
        with stops.recasting():
            self._session = self._settings.open(budget, run_id)
        self.records = None if run_log is None else self._session.record_runs(run_log)
        self._hooks_only = HooksOnly(self._session)
        install()

    @classmethod
    async def open(cls, budget: Budget, **settings: Any) -> Self:
        """As ``BudgetGuard(budget, ...)``, without blocking an event loop where a ledger has to be asked."""
        return await opened(cls, budget, **settings)

    def fork(self, **changes: Any) -> BudgetGuard:
        """A guard with the same settings and a fresh budget; of a child, another child.

        Args:
            **changes: Other settings, under the names that the class takes: ``fork(budget=Budget("$1"), user="u2")``.

        Raises:
            TypeError: If a name is not known.
        """
        if self.parent is not None and isinstance(self.parent, BudgetGuard) and changes.keys() <= {"budget", "run_id"}:
            return self.parent.child(changes.get("budget", self._initial_budget), changes.get("run_id"))
        return BudgetGuard(**forked(self._initial_budget, self._settings, self._own_settings, changes, self.fork))

    def child(self, budget: Budget, run_id: str | None = None) -> BudgetGuard:
        """A guard that spends from a part of this one's budget, to be given to a run of its own.

        ::

            with guard.child(Budget("$0.20")) as part:
                await Runner.run(researcher, "...", hooks=part)

        All that *budget* allows is held here while the child is open. Closing it, best with ``with``, books what it
        spent and gives the rest back. As `Session.child`.

        Args:
            budget: What it may spend. Every limit that holds here must be set in it, too.
            run_id: Its own name, never used before; made up by default.

        Raises:
            BudgetExceeded: If that much is not left.
            ValueError: If the budget leaves out a limit that holds here.
        """
        with stops.recasting():
            return self._parent_of(self._session.child(_checked(budget), run_id))

    async def achild(self, budget: Budget, run_id: str | None = None) -> BudgetGuard:
        """As `child`."""
        with stops.recasting():
            return self._parent_of(await self._session.achild(_checked(budget), run_id))

    def _parent_of(self, session: Session) -> BudgetGuard:
        child = copy.copy(self)
        child.parent = self
        child.known_reasoning = {}
        child._initial_budget = cast("Budget", session.budget)
        child._session = session
        child._hooks_only = HooksOnly(session)
        return child

    @property
    def session(self) -> Session:  # type: ignore[override]  # never replaced
        """The core's session: decisions, events and the ledger's counters."""
        self._hooks_only.sweep()
        return super().session

    async def hand_over(self, items: object) -> None:
        if self._hooks_only.calls:
            await self._hooks_only.hand_over(items)

    def estimate(
        self, agent: Agent[Any], input: str | list[TResponseInputItem], *, run_config: RunConfig | None = None
    ) -> CallEstimate:
        """What would be held for the first call of a run, whether it would be made, and what such runs took.

        ::

            print(guard.estimate(agent, "..."))     # allow: gpt-4o would hold $0.0413. 20 such runs took ...

        Nothing is sent, held, or logged as a decision. Such runs are those in `run_log` whose task is the budget's.

        Args:
            agent: The agent that would begin.
            input: What it would be given.
            run_config: As the run would be given it.

        Raises:
            TypeError: If the agent's instructions or tools have to be awaited: use `aestimate`.
        """
        if _tools_are_plain(agent):
            asking = self._first_call(agent, input, run_config)
            try:
                asking.send(None)
            except StopIteration as done:
                return self._session.estimate(done.value, records=self._settings.past_runs())
            asking.close()
        raise TypeError(f"what {agent.name!r} asks for has to be awaited: write await guard.aestimate(agent, input)")

    async def aestimate(
        self, agent: Agent[Any], input: str | list[TResponseInputItem], *, run_config: RunConfig | None = None
    ) -> CallEstimate:
        """As `estimate`, for any agent."""
        call = await self._first_call(agent, input, run_config)
        return await self._session.aestimate(call, records=self._settings.past_runs())

    async def _first_call(
        self, agent: Agent[Any], input: str | list[TResponseInputItem], config: RunConfig | None
    ) -> ModelCall:
        config = config or RunConfig()
        context: RunContextWrapper[Any] = RunContextWrapper(None)
        given: Any = config.model or agent.model
        model = given if isinstance(given, Model) else config.model_provider.get_model(given)
        handoffs = [each if isinstance(each, Handoff) else handoff(each) for each in agent.handoffs]
        settings = agent.model_settings
        schema = None if agent.output_type in (None, str) else agent.output_type
        if schema is not None and not isinstance(schema, AgentOutputSchemaBase):
            schema = AgentOutputSchema(schema)
        asked = read_request(
            model=model,
            name=str(getattr(model, "model", None) or given or get_default_model()),
            system_instructions=await agent.get_system_prompt(context),
            input=input,
            settings=settings if config.model_settings is None else settings.resolve(config.model_settings),
            tools=agent.tools if _tools_are_plain(agent) else await agent.get_all_tools(context),
            output_schema=schema,
            handoffs=handoffs,
            prompt=await agent.get_prompt(context),
        )
        return asked.call(agent=agent.name, can_cap="output_cap" in self.add_fields, final=False)

    def run_config(self, base: RunConfig | Mapping[str, Any] | None = None) -> RunConfig:
        """A run config that brings the guard along, for those who would rather pass that than hooks.

        Args:
            base: What to start from, a config or its fields; it is not changed.
        """
        return guarded_config(base if isinstance(base, RunConfig) else RunConfig(**(base or {})), self)

    async def needs_approval(self, context: Any = None, arguments: Any = None, call_id: str = "") -> bool:
        """Whether a soft limit is reached, for ``function_tool(needs_approval=guard.needs_approval)``.

        The run then pauses at the tool instead of being stopped later; raise the limits and approve to go on.
        """
        return self.session.near_limit

    def __enter__(self) -> BudgetGuard:
        enter(GuardedRun((self,), current_run(), ambient=True))
        return self

    def __exit__(self, *_: object) -> None:
        leave()
        if self._ends_with_its_block:
            self.close()

    async def __aenter__(self) -> BudgetGuard:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        leave()
        if self._ends_with_its_block:
            await self.aclose()

    @property
    def _ends_with_its_block(self) -> bool:
        return self._settings.authority is not None or self.parent is not None

    # The SDK's hooks

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Any) -> None:
        if isinstance(getattr(agent, "model", None), Model):
            guard_model(agent.model)

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        run = current_run()
        if run is not None and run.covers(self) and (not run.ambient or isinstance(agent.model, Model)):
            run.note_agent(input_items, agent.name)  # the model, which comes next, accounts for the call
        else:
            await self._hooks_only.reserve(context, agent, system_prompt, input_items)

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        if self._hooks_only.calls:
            await self._hooks_only.commit(context, response)

    async def on_agent_end(self, context: AgentHookContext[Any], agent: Any, output: Any) -> None:
        run = self._run()
        stop = run.stopped_itself() if run is not None else None
        # A sub-agent's stop may have become this agent's output: the SDK turns it into text. A sub-agent that was in
        # flight meanwhile may end as usual: its answer is paid for.
        if stop is not None and run is not None and not run.finalized(stop.session):
            raise recast(stop.error)

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Any, tool: Tool) -> None:
        run = self._run()
        tools = self._tools(run)
        if tools.has(context, tool.name) or (run is None and self._has_child_in_charge()):
            return
        session = self.session
        call = GuardedCall((session,))
        asked = self.tool_costs.call(tool.name, agent.name)
        if run is not None and run.started_by:
            asked = asked._replace(started_by=run.started_by)
        if session.looks_for_loops:
            trail = self._hooks_only.trail_of(context) if run is None else run.trail
            asked = session.with_trail(asked, getattr(context, "tool_arguments", None), trail)
        stop = await call.ahold(asked)
        if stop is not None:
            if run is not None:
                run.stop(stop)
            raise recast(stop.error)
        if run is not None:
            tools.start(context, tool.name, call)
        else:  # nothing tells of the end of a run that another runner has started
            only_result_tells = self.tool_costs.depends_on_result(tool.name)
            if only_result_tells:
                await call.aestimate("only the tool's result tells, and it may never be heard of")
            else:
                await call.acommit_cost()
            if only_result_tells or session.looks_for_loops:
                tools.start(context, tool.name, call)

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Any, tool: Tool, result: Any) -> None:
        call = self._tools(self._run()).end(context, tool.name)
        if call is not None:
            await call.acommit_result(self.tool_costs, result)

    def _tools(self, run: GuardedRun | None) -> ToolHolds:
        return self._hooks_only.tools if run is None else run.tools_of(self)

    def _has_child_in_charge(self) -> bool:
        run = current_run()
        return run is not None and self not in run.guards and run.covers(self)

    def _run(self) -> GuardedRun | None:
        """The run that our own runner has prepared for this guard."""
        run = current_run()
        return run if run is not None and self in run.guards and not run.ambient else None


def _tools_are_plain(agent: Agent[Any]) -> bool:
    """Whether it is known without asking which tools an agent has."""
    return not agent.mcp_servers and all(getattr(tool, "is_enabled", True) is True for tool in agent.tools)


def _checked(budget: Budget) -> Budget:
    check_budget(budget, "guard.child")
    return budget
