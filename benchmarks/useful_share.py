"""How much of a budget buys whole answers: one call after the other, and a storm of calls at once.

Every row is one budget with its defaults and a provider that bills what it writes. An answer is *whole* if it was not
cut off; *cut* ones are billed as well. ``python benchmarks/useful_share.py`` prints three tables:

1. the core on every ledger, driven by tasks and by threads, with answers that take 20 ms;
2. how long answers may take: the core in memory, on a clock that runs a hundred times as fast;
3. the adapters, with their real clients against a provider on this machine, where they are installed.

Name the tables that you want: ``core``, ``slow``, ``adapters``. Redis is left out where no server is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from budget_guard import Budget, ModelCall, Session, Usage, weigh
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger import Ledger, MemoryLedger
from budget_guard.ledger.sqlite import SqliteLedger

MODEL = "gpt-4o"
OWN_MOST = 16_384


class Load(NamedTuple):
    """A budget, and the calls that are made of it."""

    name: str
    budget: str
    calls: int
    at_once: bool
    input_tokens: int
    output_tokens: int
    cap: int | None = None
    goal: int = 0
    """Answers that must come whole."""


LOADS = (
    Load("$0.50, 16 in a row", "0.50", 16, False, 50, 4_000, goal=11),
    Load("$0.50, 40 at once", "0.50", 40, True, 50, 4_000, goal=11),
    Load("$1.00, 40 at once, 16,000 tokens", "1.00", 40, True, 50, 16_000, goal=5),
    Load("$1.00, 40 in a row, 4,000 in, 3,000 out, own cap", "1.00", 40, False, 4_000, 3_000, 4_000, goal=23),
    Load("$1.00, 40 at once, 4,000 in, 3,000 out, own cap", "1.00", 40, True, 4_000, 3_000, 4_000, goal=15),
)


class ScaledClock:
    """A clock that runs *scale* times as fast as the machine's."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()

    def now_ms(self) -> int:
        return SYSTEM_CLOCK.now_ms()

    def monotonic(self) -> float:
        return time.monotonic() * self._scale

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        return condition.wait_for(ready, timeout / self._scale)

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        done, _ = await asyncio.wait({future}, timeout=timeout / self._scale)
        return bool(done)


class Counts:
    """Whole, cut and refused answers, counted."""

    def __init__(self) -> None:
        self.whole = self.cut = self.refused = 0
        self._lock = threading.Lock()

    def answered(self, load: Load, output_tokens: int) -> None:
        """Count one answer."""
        with self._lock:
            if output_tokens < load.output_tokens:
                self.cut += 1
            else:
                self.whole += 1

    def not_made(self) -> None:
        """Count one refusal."""
        with self._lock:
            self.refused += 1


def model_call(load: Load, number: int) -> ModelCall:
    """One of the calls: English takes 3.8 bytes a token."""
    text = (f"Question {number}: " + "some words of it " * 1_200)[: int(load.input_tokens * 3.8)]
    return ModelCall(MODEL, weigh(messages=[{"role": "user", "content": text}]), max_output_tokens=load.cap)


def written(load: Load, cap: int | None) -> Usage:
    """The usage that the provider bills."""
    return Usage(input=load.input_tokens, output=min(load.output_tokens, cap or OWN_MOST))


async def by_tasks(load: Load, session: Session, seconds: float) -> Counts:
    """Make the calls from one event loop."""
    counts = Counts()

    async def one(number: int) -> None:
        decision = await session.aauthorize(model_call(load, number), sent=True)
        if decision.reservation is None:
            counts.not_made()
            return
        await asyncio.sleep(seconds)
        usage = written(load, decision.output_cap)
        await decision.reservation.acommit(usage)
        counts.answered(load, usage.output)

    if load.at_once:
        await asyncio.gather(*map(one, range(load.calls)))
    else:
        for number in range(load.calls):
            await one(number)
    return counts


def by_threads(load: Load, session: Session, seconds: float) -> Counts:
    """Make the calls from as many threads."""
    counts = Counts()

    def one(number: int) -> None:
        decision = session.authorize(model_call(load, number), sent=True)
        if decision.reservation is None:
            counts.not_made()
            return
        time.sleep(seconds)
        usage = written(load, decision.output_cap)
        decision.reservation.commit(usage)
        counts.answered(load, usage.output)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(load.calls)]
    for thread in threads:
        thread.start()
        if not load.at_once:
            thread.join()
    for thread in threads:
        thread.join()
    return counts


def line(load: Load, where: str, counts: Counts, spent: Any, seconds: float, unguarded: float, lost: int = 0) -> None:
    """Print one row."""
    made = counts.whole + counts.cut
    over = "" if float(spent) <= float(load.budget) else "   OVER"
    met = "" if counts.whole >= load.goal else f"   below {load.goal}"
    met += f"   {lost} paid and not returned" if lost else ""
    print(
        f"{load.name:<50} {where:<38} {counts.whole:>3} whole {counts.cut:>2} cut {load.calls - made:>2} refused   "
        f"${float(spent):.3f}   {seconds:6.2f} s ({unguarded:5.2f} s unguarded){over}{met}",
        flush=True,
    )


@contextlib.contextmanager
def ledgers() -> Iterator[dict[str, Callable[[], Ledger]]]:
    """Every ledger that there is here."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        numbers = iter(range(10_000))

        def sqlite() -> Ledger:
            ledger = SqliteLedger(Path(folder) / f"{next(numbers)}.db")
            stack.callback(ledger.close)
            return ledger

        made: dict[str, Callable[[], Ledger]] = {"memory": MemoryLedger, "SQLite": sqlite}
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is not None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            server = subprocess.Popen(
                [binary, "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
            )
            stack.callback(server.wait)
            stack.callback(server.terminate)
            made["Redis"] = lambda: redis_ledger(port, f"tenant-{next(numbers)}")
        yield made


def redis_ledger(port: int, tenant: str) -> Ledger:
    """A ledger of its own on the server."""
    from budget_guard.ledger.redis import RedisLedger

    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.02)
    return RedisLedger(f"redis://127.0.0.1:{port}/0", tenant=tenant)


def core() -> None:
    """The table of the core."""
    took = 0.02
    with ledgers() as made:
        for load in LOADS:
            unguarded = took if load.at_once else took * load.calls
            for name, ledger in made.items():
                for how, drive in (("tasks", lambda *a: asyncio.run(by_tasks(*a))), ("threads", by_threads)):
                    session = Session(Budget(load.budget), ledger=ledger())
                    start = time.monotonic()
                    counts = drive(load, session, took)
                    line(load, f"{name}, {how}", counts, session.spent_usd, time.monotonic() - start, unguarded)


def slow() -> None:
    """The table of answers that take their time."""
    scale = 100.0
    clock: Clock = ScaledClock(scale)
    for load in LOADS[1:3]:
        for seconds in (1.0, 5.0, 20.0, 40.0):
            session = Session(Budget(load.budget), ledger=MemoryLedger(clock=clock), clock=clock)
            start = time.monotonic()
            counts = asyncio.run(by_tasks(load, session, seconds / scale))
            where = f"answers of {seconds:.0f} s"
            line(load, where, counts, session.spent_usd, (time.monotonic() - start) * scale, seconds)


class Way(NamedTuple):
    """A way to call a model through an adapter."""

    name: str
    make: Callable[[str, Budget | None, Ledger | None], Callable[[int], Awaitable[Sequence[Any]]]]
    """From the provider's address, a budget and its ledger to what makes so many calls at once; it returns the answers,
    or what was raised in their place."""


def adapters() -> None:
    """The table of the adapters, on every ledger."""
    try:
        from budget_guard.testing import LocalProvider, Reply
    except ImportError as error:
        print(f"no adapters: {error}")
        return
    with ledgers() as made:
        for load in LOADS[:2]:
            for way in WAYS:
                for where, ledger in made.items():
                    reply = Reply(text="word " * 20, output_tokens=load.output_tokens)
                    with LocalProvider(reply) as provider:
                        try:
                            asyncio.run(through(load, way, where, provider, ledger()))
                        except ImportError as error:
                            print(f"no {way.name}: {error}")


async def through(load: Load, way: Way, where: str, provider: Any, ledger: Ledger) -> None:
    """Make the calls through an adapter, first without a guard."""
    rounds = [load.calls] if load.at_once else [1] * load.calls
    took: list[float] = []
    returned = bill = 0
    for budget in (None, Budget(load.budget)):
        ask = way.make(provider.base_url, budget, None if budget is None else ledger)
        bill, seen, returned = provider.bill_usd, len(provider.calls), 0
        start = time.monotonic()
        for at_once in rounds:
            returned += sum(map(has_answer, await ask(at_once)))
        took.append(time.monotonic() - start)
        await provider.await_idle()
    counts = Counts()
    for call in provider.calls[seen:]:
        counts.answered(load, call.usage.output)
    lost = counts.whole + counts.cut - returned
    line(load, f"{way.name}, {where}", counts, provider.bill_usd - bill, took[1], took[0], lost)


def has_answer(result: Any) -> bool:
    """Whether what was paid for came back: an answer, or a stop with what came of one."""
    return not isinstance(result, BaseException) or getattr(result, "partial_output", None) is not None


async def gathered(ask: Callable[[], Awaitable[Any]], times: int) -> Sequence[Any]:
    """The answers of so many calls, made by as many tasks."""
    return await asyncio.gather(*(ask() for _ in range(times)), return_exceptions=True)


def agents(chat: bool, streamed: bool) -> Callable[..., Callable[[int], Awaitable[Sequence[Any]]]]:
    """Runs of the OpenAI Agents SDK."""

    def make(base_url: str, budget: Budget | None, ledger: Ledger | None) -> Callable[[int], Awaitable[Sequence[Any]]]:
        from agents import (
            Agent,
            OpenAIChatCompletionsModel,
            OpenAIResponsesModel,
            Runner,
            set_tracing_disabled,
        )
        from openai import AsyncOpenAI

        from budget_guard.integrations.openai_agents import BudgetGuard

        set_tracing_disabled(True)
        client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
        model = OpenAIChatCompletionsModel(MODEL, client) if chat else OpenAIResponsesModel(MODEL, client)
        agent = Agent(name="A", model=model)
        guard = None if budget is None else BudgetGuard(budget, ledger=ledger)

        async def ask() -> Any:
            if not streamed:
                return await Runner.run(agent, QUESTION, hooks=guard)
            result = Runner.run_streamed(agent, QUESTION, hooks=guard)
            async for _ in result.stream_events():
                pass
            return result

        return lambda times: gathered(ask, times)

    return make


def langchain(kind: str, how: str) -> Callable[..., Callable[[int], Awaitable[Sequence[Any]]]]:
    """Calls through LangChain: of an agent with the middleware, or of a budgeted model alone."""

    def make(base_url: str, budget: Budget | None, ledger: Ledger | None) -> Callable[[int], Awaitable[Sequence[Any]]]:
        from langchain.agents import create_agent
        from langchain_openai import ChatOpenAI

        from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware, budgeted_model

        def chat(name: str) -> Any:
            return ChatOpenAI(model=name, base_url=base_url, api_key="none", max_retries=0)  # type: ignore[arg-type]  # a text, too

        handler = None if budget is None else BudgetCallbackHandler(budget, ledger=ledger)
        runnable: Any = chat(MODEL)
        question: Any = QUESTION
        if kind == "middleware":
            middleware = [] if handler is None else [BudgetMiddleware(handler, exit_behavior="error")]
            runnable = create_agent(runnable, [], middleware=middleware)
            question = {"messages": [("user", QUESTION)]}
        elif handler is not None:  # the two cost the same, so that one is never the way out
            runnable = budgeted_model(runnable, chat("gpt-4o-2024-08-06"), handler=handler, downgrade_at=1.0)

        async def ask(times: int) -> Sequence[Any]:
            if how == "batch":
                return await asyncio.to_thread(runnable.batch, [question] * times, return_exceptions=True)
            if how == "abatch":
                answers: Sequence[Any] = await runnable.abatch([question] * times, return_exceptions=True)
                return answers
            if how == "invoke":
                return await gathered(lambda: asyncio.to_thread(runnable.invoke, question), times)
            return await gathered(lambda: runnable.ainvoke(question), times)

        return ask

    return make


QUESTION = "Why is the sky blue?"
WAYS = (
    Way("Agents run, Chat", agents(True, False)),
    Way("Agents run, Responses", agents(False, False)),
    Way("Agents streamed, Chat", agents(True, True)),
    Way("Agents streamed, Responses", agents(False, True)),
    *(
        Way(f"LangChain {how}, {kind}", langchain(kind, how))
        for kind in ("middleware", "model")
        for how in ("invoke", "batch", "ainvoke", "abatch")
    ),
)


def main() -> None:
    """Print the tables that are named, or all."""
    tables = {"core": core, "slow": slow, "adapters": adapters}
    logging.getLogger("budget_guard").setLevel(logging.ERROR)  # that budgets are nearly spent is what is wanted here
    for name in sys.argv[1:] or tables:
        print(f"--- {name}")
        tables[name]()


if __name__ == "__main__":
    main()
