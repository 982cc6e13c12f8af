"""What an adapter of any agent framework has to prove, against the framework itself and a provider that keeps a ledger.

A framework's tests subclass `FrameworkContract` and say how it is used: a few lines each. A check that a framework
cannot be put to is left out by name, with the reason, so that ``python scripts/framework_checks.py`` prints it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import os
import pickle
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from budget_guard import Budget, BudgetError, BudgetExceeded, DowngradePolicy, Session
from budget_guard.adapter import ModelGuard, versions
from budget_guard.testing import LocalProvider, ProviderRequest, Rates, Reply, ToolCall
from tests.adapter.test_stops import ERRORS

ROOT = Path(__file__).parents[2]
DEAR, CHEAP = "gpt-4o", "gpt-4o-mini"
RATES = {DEAR: Rates(input="0", output="10000"), CHEAP: Rates(input="0", output="1000")}
PRICES = {DEAR: (0, 0.01), CHEAP: (0, 0.001)}
"""A token of output costs a cent, so a call of ten tokens costs $0.10."""
TOKENS = 10

QUIET = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients that nobody closes, on loops that have ended
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what the frameworks use
]
"""For the module of a framework's tests, as its ``pytestmark``."""

Tool = Callable[[str], Awaitable[str]]


def session_of(limit: str | Budget, **options: Any) -> Session:
    return Session(Budget(limit, **options) if isinstance(limit, str) else limit, pricing=PRICES)


def stuck(request: ProviderRequest) -> Reply:
    """A model that calls its first tool again and again; without tools it says ten words."""
    if request.tools:
        return Reply(tool_calls=[ToolCall(request.tools[0], {"q": f"x{request.index}"})], output_tokens=TOKENS)
    return Reply(text="one two three four five six seven eight nine ten", output_tokens=TOKENS, chunks=5)


async def search(q: str) -> str:
    """Search the web."""
    return "nothing"


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(stuck, prices=RATES) as running:
        yield running
    gc.collect()  # while its warnings are still of this test


def example(name: str) -> str:
    """Run an example as a user would; return what it prints."""
    return _printed(ROOT / "examples" / "frameworks" / f"{name}.py")


def page(name: str) -> None:
    """Run the blocks of a page in ``docs/frameworks``, or of one by its path, and see that they print what it says."""
    path = Path(name) if name.endswith(".md") else ROOT / "docs" / "frameworks" / f"{name}.md"
    printed = _printed(ROOT / "tests" / "run_page.py", str(path)).splitlines()
    for promised in re.findall(r"^ *print\(.*\)  # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert promised in printed, promised


def _printed(script: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    environment["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, encoding="utf-8", timeout=180, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class FrameworkContract:
    """The checks. Each prints as one row of the table, under the first words of its docstring."""

    adapter: ClassVar[str]
    """Its package."""
    base: ClassVar[type[BaseException]]
    """The exception of the framework's that its stops derive from."""
    left_out: ClassVar[dict[str, str]] = {}
    """The checks that do not apply, with the reason."""
    leaves_open: ClassVar[tuple[str, ...]] = ()
    """The ways to leave a stream after which the framework itself leaves the connection open until it is collected."""

    # What a framework's tests say

    async def run(
        self, provider: LocalProvider, guard: Session | Budget, *, tool: Tool | None = None, **options: Any
    ) -> str:
        """Run an agent. Options: ``model``, ``stream``, ``retries`` of the client, ``guarded`` client below."""
        raise NotImplementedError

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        """Run an agent where that blocks."""
        raise NotImplementedError

    def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        """The pieces of a streamed answer, as they come."""
        raise NotImplementedError

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        """A model object, and a run on it that no budget steers: what a downgrade elsewhere must not change."""
        raise NotImplementedError

    # Helpers

    @pytest.fixture(autouse=True)
    def _left_out(self, request: pytest.FixtureRequest) -> None:
        reason = self.left_out.get(request.function.__name__)
        if reason is not None:
            pytest.skip(reason)

    async def settled(self, provider: LocalProvider, session: Session, *, exact: bool = True) -> None:
        await provider.await_idle()
        assert session.reserved_usd == 0
        if exact:
            assert session.spent_usd == provider.bill_usd
        else:
            assert session.spent_usd >= provider.bill_usd

    # 1. A hundred at once

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    @pytest.mark.parametrize("sees_the_wire", [True, False], ids=["wire", "blind"])
    async def test_a_hundred_at_once_make_ten_calls(
        self, provider: LocalProvider, stream: bool, sees_the_wire: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1 a hundred at once on $1.00, async"""
        if not sees_the_wire:
            monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        session = session_of("$1.00")
        done = await asyncio.gather(
            *(self.run(provider, session, stream=stream) for _ in range(100)), return_exceptions=True
        )
        refused = [each for each in done if isinstance(each, BudgetExceeded)]
        assert len(refused) == 90, [repr(each) for each in done if not isinstance(each, (str, BudgetExceeded))][:3]
        assert len(provider.calls) == 10
        assert provider.bill_usd == Decimal("1.00")
        await self.settled(provider, session)

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    def test_a_hundred_threads_make_ten_calls(self, provider: LocalProvider, stream: bool) -> None:
        """1 a hundred at once on $1.00, threads"""
        session = session_of("$1.00")

        def one(_: int) -> bool:
            try:
                self.run_blocking(provider, session, stream=stream)
            except BudgetExceeded:
                return False
            return True

        with ThreadPoolExecutor(20) as threads:
            assert sum(threads.map(one, range(100))) == 10
        assert len(provider.calls) == 10
        asyncio.run(self.settled(provider, session))

    # 2. Agents inside of agents

    async def test_an_agent_inside_with_a_smaller_budget_stops_the_outer_one(self, provider: LocalProvider) -> None:
        """2 a nested agent's stop ends the outer run"""
        inner, outer = session_of("$0.25"), session_of("$2.00")

        async def ask_inside(q: str) -> str:
            """Ask another agent."""
            return await self.run(provider, inner, tool=search)

        with pytest.raises(BudgetExceeded) as stop:
            await self.run(provider, outer, tool=ask_inside)
        assert stop.value.limit == Decimal("0.25")
        assert outer.report().breakdown.llm.calls == 1
        assert inner.report().breakdown.llm.calls == 2
        await provider.await_idle()
        assert inner.spent_usd + outer.spent_usd == provider.bill_usd

    async def test_a_stop_that_a_tool_swallows_is_raised_at_the_next_call(self, provider: LocalProvider) -> None:
        """2 swallowed by a tool's own `except Exception`"""
        session = session_of("$0.35")
        asked = 0

        async def ask_inside(q: str) -> str:
            """Ask another agent."""
            nonlocal asked
            asked += 1
            # the one inside is refused for its cap, the outer one's next call would still fit
            with contextlib.suppress(Exception):
                return await self.run(provider, session, cap=30)
            return "no answer"

        with pytest.raises(BudgetExceeded):
            await self.run(provider, session, tool=ask_inside)
        assert asked == 1
        assert len(provider.calls) == 1
        await self.settled(provider, session)

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    async def test_a_stop_of_another_budget_that_a_tool_swallows_ends_the_outer_run(
        self, provider: LocalProvider, stream: bool
    ) -> None:
        """2 swallowed by a tool, of an agent with a budget of its own"""
        inner, outer, beside = session_of("$0.05"), session_of("$2.00"), session_of("$2.00")
        asked = 0

        async def ask_inside(q: str) -> str:
            """Ask another agent."""
            nonlocal asked
            asked += 1
            with contextlib.suppress(Exception):
                return await self.run(provider, inner)
            return "no answer"

        await self.run(provider, beside)
        with pytest.raises(BudgetExceeded) as stop:
            await self.run(provider, outer, tool=ask_inside, stream=stream)
        assert stop.value.limit == Decimal("0.05")
        assert asked == 1 == outer.report().breakdown.llm.calls
        await self.run(provider, beside)  # a run that it is no part of goes on
        assert len(provider.calls) == 3
        assert outer.reserved_usd == inner.reserved_usd == beside.reserved_usd == 0

    async def test_limits_that_are_raised_lift_the_latch(self, provider: LocalProvider) -> None:
        """2 raised limits let it go on"""
        session = session_of("$0.05")
        with pytest.raises(BudgetExceeded):
            await self.run(provider, session)
        session.raise_limits(max_cost_usd="1.00")
        assert "ten" in await self.run(provider, session)
        await self.settled(provider, session)

    # 3. Retries

    async def test_every_attempt_of_the_client_is_held(self, provider: LocalProvider) -> None:
        """3 the client's own retries are attempts of their own"""
        provider.reset([Reply(status=500, headers={"retry-after-ms": "1"})] * 2 + [stuck(_PLAIN)])
        session = session_of("$1.00")
        assert "ten" in await self.run(provider, session, retries=2)
        await provider.await_idle()
        assert len(provider.calls) == 3
        assert session.reserved_usd == 0
        assert session.spent_usd == Decimal("0.30")  # a 500 may have been billed: as held

    async def test_a_stop_is_not_tried_again(self, provider: LocalProvider) -> None:
        """3 a stop is no failure to try again"""
        session = session_of("$0.05")
        with pytest.raises(BudgetExceeded):
            await self.run(provider, session, retries=2)
        assert not provider.calls
        assert len(session.decisions(action="block")) == 1

    # 4. Streams

    @pytest.mark.parametrize("sees_the_wire", [True, False], ids=["wire", "blind"])
    async def test_a_stream_that_is_broken_off_is_booked_as_held(
        self, provider: LocalProvider, sees_the_wire: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """4 a stream that its reader leaves"""
        if not sees_the_wire:
            monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        await self._leave(provider, "break")

    @pytest.mark.parametrize("sees_the_wire", [True, False], ids=["wire", "blind"])
    async def test_a_stream_that_is_cancelled_is_booked_as_held(
        self, provider: LocalProvider, sees_the_wire: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """4 a stream that is cancelled"""
        if not sees_the_wire:
            monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        await self._leave(provider, "cancel")

    @pytest.mark.parametrize("sees_the_wire", [True, False], ids=["wire", "blind"])
    async def test_a_stream_that_is_dropped_is_booked_as_held(
        self, provider: LocalProvider, sees_the_wire: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """4 a stream that is dropped and collected"""
        if not sees_the_wire:
            monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        await self._leave(provider, "drop")

    async def _leave(self, provider: LocalProvider, how: str) -> None:
        provider.reset(lambda request: Reply(text="word " * TOKENS, output_tokens=TOKENS, chunks=10, gate_chunks=True))
        session = session_of("$1.00")

        async def read() -> None:
            pieces = self.stream(provider, session)
            try:
                async for _ in pieces:
                    if how == "cancel":
                        await asyncio.Event().wait()
                    break
            finally:
                if how != "drop":
                    close = getattr(pieces, "aclose", None)
                    if close is not None:
                        await close()

        reading = asyncio.ensure_future(read())
        await provider.await_calls(1)
        for _ in range(3):
            with contextlib.suppress(RuntimeError):
                provider.release_chunk()
            await asyncio.sleep(0.02)
        if how == "cancel":
            reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        del reading
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0.02)  # generators that nobody has are closed by the loop
        await self._closed(provider, how)
        assert session.reserved_usd == 0
        assert session.spent_usd >= provider.bill_usd > 0
        assert session.report().uncertain > 0

    async def _closed(self, provider: LocalProvider, how: str) -> None:
        """The provider sees the stream closed."""
        for _ in range(50):
            if not provider.open_calls:
                break
            with contextlib.suppress(RuntimeError):
                provider.release_chunk()
            await asyncio.sleep(0.02)
        (call,) = provider.calls
        assert call.outcome == "aborted" or how in self.leaves_open

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    async def test_an_answer_without_usage_is_booked_as_held(self, provider: LocalProvider, stream: bool) -> None:
        """4 an answer without usage"""
        provider.reset(Reply(text="one", output_tokens=4, usage="off"))
        session = session_of("$1.00")
        await self.run(provider, session, stream=stream)
        await self.settled(provider, session, exact=False)
        assert session.spent_usd == Decimal("0.10")

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    async def test_an_answer_that_the_provider_drops_is_booked_as_held(
        self, provider: LocalProvider, stream: bool
    ) -> None:
        """4 an answer that the provider drops"""
        provider.reset(Reply(text="one two three", output_tokens=TOKENS, drop_after=2, chunks=4))
        session = session_of("$1.00")
        with contextlib.suppress(Exception):
            await self.run(provider, session, stream=stream)
        await self.settled(provider, session, exact=False)
        assert session.spent_usd >= Decimal("0.10")

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    @pytest.mark.parametrize("sees_the_wire", [True, False], ids=["wire", "blind"])
    async def test_an_error_that_was_not_billed_gives_the_hold_back(
        self, provider: LocalProvider, stream: bool, sees_the_wire: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """4 an error before the answer gives the hold back"""
        if not sees_the_wire:
            monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        provider.reset(Reply(status=400))
        session = session_of("$1.00")
        with pytest.raises(Exception, match="400"):
            await self.run(provider, session, stream=stream)
        assert session.spent_usd == 0 == session.reserved_usd

    # 5. Refused before it is sent

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    async def test_a_refused_call_is_never_sent(self, provider: LocalProvider, stream: bool) -> None:
        """5 refused before it is sent"""
        session = session_of("$0.05")
        with pytest.raises(BudgetExceeded):
            await self.run(provider, session, stream=stream)
        assert not provider.calls and not provider.open_calls
        await self.settled(provider, session)

    # 6. A cheaper model

    @pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
    async def test_the_cheaper_model_is_really_called_and_no_other_run_notices(
        self, provider: LocalProvider, stream: bool
    ) -> None:
        """6 a cheaper model, beside another run"""
        session = session_of("$1.00", downgrade=DowngradePolicy(to=CHEAP, at=0.5))
        other = session_of("$5.00")
        for _ in range(7):
            await self.run(provider, session, stream=stream)
            await self.run(provider, other, stream=stream)
        assert [call.model for call in provider.calls[::2]] == [DEAR] * 5 + [CHEAP] * 2
        assert {call.model for call in provider.calls[1::2]} == {DEAR}
        assert session.spent_usd + other.spent_usd == provider.bill_usd

    async def test_a_model_that_two_runs_share_keeps_its_name(self, provider: LocalProvider) -> None:
        """6 the model object keeps its name"""
        session = session_of("$0.10", downgrade=DowngradePolicy(to=CHEAP, at=0.01))
        model, unsteered = self.pair(provider, session)
        session.charge("tool", "0.05")
        await self.run(provider, session, on=model)
        await unsteered()
        assert [call.model for call in provider.calls] == [CHEAP, DEAR]

    # 7. What is raised

    async def test_the_stop_is_of_both_kinds_and_says_what_to_know(self, provider: LocalProvider) -> None:
        """7 `except BudgetExceeded`, and the framework's own base"""
        session = session_of("$0.25")
        with pytest.raises(BudgetExceeded) as raised:
            await self.run(provider, session, tool=search)
        stop = raised.value
        assert isinstance(stop, self.base)
        assert stop.dimension == "max_cost_usd"
        assert stop.decision_id is not None
        assert stop.report is not None and stop.report.total_spent == Decimal("0.20")
        assert len(provider.calls) == 2
        await self.settled(provider, session)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_each_stop_is_of_both_kinds_and_says_what_the_core_says(self, error: BudgetError) -> None:
        """7 every kind of stop"""
        errors = importlib.import_module(f"{self.adapter}.errors")
        stop = errors.stops.recast(error)
        assert isinstance(stop, (type(error),)) and isinstance(stop, self.base) and isinstance(stop, errors.BudgetStop)
        assert type(stop) is getattr(errors, type(error).__name__)
        for each in (stop, pickle.loads(pickle.dumps(stop))):
            assert str(each) == str(error) and each.fields() == error.fields()
            assert getattr(each, "message", str(error)) == str(error)

    # 8. Two layers

    async def test_over_a_guarded_client_a_call_counts_once(self, provider: LocalProvider) -> None:
        """8 over a guarded client of the same session"""
        session = session_of("$1.00")
        await self.run(provider, session, guarded=session)
        assert session.report().breakdown.llm.calls == 1
        await self.settled(provider, session)

    async def test_over_a_client_of_another_session_both_pay_once(self, provider: LocalProvider) -> None:
        """8 over a guarded client of another session"""
        session, other = session_of("$1.00"), session_of("$1.00")
        await self.run(provider, session, guarded=other)
        for each in (session, other):
            assert each.report().breakdown.llm.calls == 1
            await self.settled(provider, each)

    # 9. The check is what holds

    async def test_without_the_hold_the_budget_is_passed(
        self, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """9 delete the check: the bill passes the budget"""

        def unheld(self: ModelGuard, call: Any, **_: Any) -> Any:
            return self._unheld()

        async def aunheld(self: ModelGuard, call: Any) -> Any:
            return self._unheld()

        monkeypatch.setattr(ModelGuard, "hold", unheld)
        monkeypatch.setattr(ModelGuard, "ahold", aunheld)
        monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
        session = session_of("$0.05")
        await self.run(provider, session)
        assert provider.bill_usd > Decimal("0.05")

    # Bad input

    def test_a_guard_that_is_no_budget_is_refused_at_once(self, provider: LocalProvider) -> None:
        """- a guard that is none: TypeError"""
        for wrong in (Budget, "5.00", 5, None):
            with pytest.raises(TypeError, match="neither a Budget nor a Session"):
                done = self.run(provider, wrong)  # type: ignore[arg-type]
                if inspect.iscoroutine(done):
                    asyncio.run(done)

    def test_a_version_that_is_too_old_is_refused_with_the_pip_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """- a framework older than the floor: ImportError"""
        monkeypatch.setattr(versions, "version", lambda distribution: "0.0.1")
        adapter = importlib.import_module(self.adapter)
        with pytest.raises(ImportError, match=r'0\.0\.1 is older than .*: pip install --upgrade ".+>=\d'):
            importlib.reload(adapter)


class _Plain:
    tools = ()


_PLAIN: Any = _Plain()
