"""The guard's own work for one model call: estimate, reserve, price, commit, events, on the ledger in memory.

Every call is timed by itself, so that the slowest of a hundred shows. The time is CPU time of this thread, without what
the clock itself takes, so that other programs count little. Garbage is collected meanwhile, as in any program. The ways
are measured in turn within one run: the same prompt again, and each time a new one of 2,000 characters to weigh. A
tokenizer that is installed counts a new text in place of that, which takes as long as it takes: ``--counted`` lets it.

Then the weighing of such a new prompt alone, and two ratios: the 100,000th call against the first ones, and a call
against the least that any ledger could do (two locked updates of two counters, an insert and a delete). Run it on an
idle machine: ``python benchmarks/own_work.py``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

from budget_guard import Budget, BudgetAuthority, DowngradePolicy, ModelCall, Session, Usage, weigh

BATCH = 100
ROUNDS = 100
CALLS = 100_000
PROMPT_CHARACTERS = 2_000
PLENTY = "$1000000"
WORDS = "some words " * 200

CONVERSATION = [{"role": "user" if i % 2 == 0 else "assistant", "content": "some words " * 40} for i in range(6)]
USAGE = Usage(input=200, cache_read=300, output=180, reasoning=20)
"""Less than what is held: a report above that is an exception, after which a model's calls are bounded otherwise."""
_numbers = itertools.count()


def sessions() -> dict[str, tuple[Session, str]]:
    """The sessions that are compared, with the goal for the median in microseconds."""
    ceilings = {kind: Budget(PLENTY) for kind in ("user", "key", "team")}
    authority = BudgetAuthority(ceilings=ceilings)
    downgrade = DowngradePolicy(to="gpt-4o-mini", at=0.8)
    return {
        "a plain budget": (Budget(PLENTY).session(), "10"),
        "with a downgrade policy": (Budget(PLENTY, downgrade=downgrade).session(), "10"),
        "under three ceilings": (authority.session(Budget(PLENTY), user="u", key="k", team="t"), "14"),
    }


def same_prompt(session: Session) -> Callable[[], Callable[[], None]]:
    """One call as an adapter makes it, but for the provider, with a prompt that was weighed before."""
    call = ModelCall("gpt-4o", weigh(system="You are a helpful assistant.", messages=CONVERSATION))

    def once() -> None:
        session.authorize(call).require().commit(USAGE)

    return lambda: once


def new_prompt(session: Session) -> Callable[[], Callable[[], None]]:
    """The same with a prompt that was never seen. It is made before the call is timed, and weighed in it."""

    def made() -> Callable[[], None]:
        text = (f"{next(_numbers):08} " + WORDS)[:PROMPT_CHARACTERS]

        def once() -> None:
            call = ModelCall("gpt-4o", weigh(messages=[{"role": "user", "content": text}]))
            session.authorize(call).require().commit(USAGE)

        return once

    return made


def weighing() -> Callable[[], None]:
    """The weighing of a prompt of 2,000 characters that was never seen."""
    text = (f"{next(_numbers):08} " + WORDS)[:PROMPT_CHARACTERS]

    def once() -> None:
        weigh(messages=[{"role": "user", "content": text}])

    return once


def floor() -> Callable[[], None]:
    """The least that a ledger with the same promise could do."""
    lock, counters, holds = threading.Lock(), {"committed": 0, "reserved": 0}, dict[int, int]()

    def once() -> None:
        with lock:
            counters["reserved"] += 5
            holds[1] = 5
        with lock:
            counters["reserved"] -= holds.pop(1)
            counters["committed"] += 3

    return once


def clock_ns() -> float:
    """Nanoseconds that the clock itself takes, between two looks at it."""
    taken: list[int] = []
    for _ in range(10_000):
        start = time.thread_time_ns()
        taken.append(time.thread_time_ns() - start)
    return statistics.median(taken)


def single_us(made: Callable[[], Callable[[], None]], calls: int, off_ns: float) -> list[float]:
    """CPU microseconds of each call."""
    taken: list[float] = []
    for _ in range(calls):
        once = made()
        start = time.thread_time_ns()
        once()
        taken.append((time.thread_time_ns() - start - off_ns) / 1_000)
    return taken


def batch_us(once: Callable[[], None], calls: int) -> list[float]:
    """CPU microseconds of one call, for each batch of calls."""
    batches: list[float] = []
    for _ in range(calls // BATCH):
        start = time.thread_time_ns()
        for _ in range(BATCH):
            once()
        batches.append((time.thread_time_ns() - start) / BATCH / 1_000)
    return batches


def show_single_calls() -> None:
    """Print the table of medians and of the slowest in a hundred."""
    off_ns = clock_ns()
    compared = sessions()
    ways = {
        (name, prompt): make(session)
        for name, (session, _) in compared.items()
        for prompt, make in (("the same prompt", same_prompt), ("a new prompt", new_prompt))
    }
    for made in ways.values():
        single_us(made, 2_000, off_ns)  # warm up
    taken: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, made in ways.items():  # in turn, so that a change of the machine's speed meets them all
            taken[way] += single_us(made, BATCH, off_ns)
    for name, (session, _) in compared.items():
        if session.report().bound_violations:
            raise RuntimeError(f"{name}: the usage is more than what is held, so this is no usual call")
    for (name, prompt), times in taken.items():
        median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[-1]
        goal = f"goal {compared[name][1]}" if prompt == "the same prompt" else "goal 5 more"
        print(
            f"{name:<24} {prompt:<16} {median:6.2f} us median   {p99:6.2f} us p99   {p99 / median:4.1f} x   "
            f"{goal}, p99 3 x"
        )


def measure() -> None:
    """Measure and print."""
    show_single_calls()
    weighed = statistics.median(single_us(weighing, 10_000, clock_ns()))
    print(f"a new prompt of {PROMPT_CHARACTERS:,} characters is weighed in {weighed:.2f} us (goal: 10)")
    batch_us(same_prompt(Budget(PLENTY).session())(), 2_000)  # warm up
    least = statistics.median(batch_us(floor(), 20_000))
    whole = batch_us(same_prompt(Budget(PLENTY).session())(), CALLS)
    early, late = statistics.median(whole[:10]), statistics.median(whole[-10:])
    median = statistics.median(whole)

    print(f"calls 99,001 to 100,000 against calls 1 to 1,000   {late / early:.2f} x   ({early:.2f} -> {late:.2f} us)")
    print(
        f"a call in a loop against the ledger's floor        {median / least:.1f} x   ({median:.2f} to {least:.2f} us)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counted", action="store_true", help="let a tokenizer count, where one is installed")
    counted = bool(parser.parse_args().counted)
    with nullcontext() if counted else mock.patch("budget_guard.estimate.tokens.is_installed", lambda: False):
        measure()


if __name__ == "__main__":
    main()
