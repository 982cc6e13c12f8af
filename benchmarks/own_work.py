"""The guard's own work for one model call: estimate, reserve, price, commit, events, on the ledger in memory.

Prints CPU time of this thread, so that other work on the machine counts little, and ratios within one run: against the
least that any ledger could do (two locked updates of two counters, an insert and a delete), and of the 100,000th call
against the 1,000th. Run it on an idle machine: ``python benchmarks/own_work.py``.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

from budget_guard import Budget, ModelCall, Session, Usage, weigh

BATCH = 100
CALLS = 100_000

CONVERSATION = [{"role": "user" if i % 2 == 0 else "assistant", "content": "some words " * 40} for i in range(6)]
USAGE = Usage(input=700, cache_read=500, output=180, reasoning=20)


def guarded_call(session: Session) -> Callable[[], None]:
    """One call as an adapter makes it, but for the provider."""
    call = ModelCall("gpt-4o", weigh(system="You are a helpful assistant.", messages=CONVERSATION))

    def once() -> None:
        session.authorize(call).require().commit(USAGE)

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


def microseconds(once: Callable[[], None], calls: int) -> list[float]:
    """CPU microseconds of one call, for each batch of calls."""
    batches: list[float] = []
    for _ in range(calls // BATCH):
        start = time.thread_time_ns()
        for _ in range(BATCH):
            once()
        batches.append((time.thread_time_ns() - start) / BATCH / 1_000)
    return batches


def main() -> None:
    """Measure and print."""
    microseconds(guarded_call(Budget("$1000000").session()), 2_000)  # warm up
    least = statistics.median(microseconds(floor(), 20_000))
    whole = microseconds(guarded_call(Budget("$1000000").session()), CALLS)
    early, late = statistics.median(whole[:10]), statistics.median(whole[-10:])
    median = statistics.median(whole)
    message = CONVERSATION[0]
    weighing = statistics.median(microseconds(lambda: weigh(messages=[message]) and None, 20_000))

    print(f"own work per call        {median:6.2f} us median, {min(whole):.2f} us best of {len(whole)} batches")
    print(f"  to the ledger's floor  {median / least:6.1f} x   (floor {least:.2f} us)")
    print(f"  calls 99,001 to 100,000 against calls 1 to 1,000   {late / early:.2f} x   ({early:.2f} -> {late:.2f} us)")
    print(f"weighing a new message   {weighing:6.2f} us for {len(message['content'])} characters")


if __name__ == "__main__":
    main()
