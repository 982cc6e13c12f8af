"""What `report()` takes once the session's log is full: 1,000 events of model calls and of tools.

Prints milliseconds of CPU time, so that other work on the machine counts little: the median of many reports, and the
slowest, which is one during which Python collects all garbage. ``python benchmarks/report.py``
"""

from __future__ import annotations

import statistics
import time

from budget_guard import Budget, ModelCall, Session, Usage, weigh

EVENTS = 1_000
REPORTS = 200
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")
USAGE = Usage(input=700, cache_read=500, output=180, reasoning=20)


def busy_session() -> Session:
    """A session with a full log: several models, agents and tools."""
    session = Budget("$1000000").session()
    for number in range(EVENTS):
        agent = f"agent {number % 5}"
        prompt = weigh(messages=f"Question {number}")
        model = MODELS[number % len(MODELS)]
        session.authorize(ModelCall(model, prompt, agent=agent)).require().commit(USAGE)
        if number % 4 == 0:
            session.charge("search", "0.01", agent=agent)
    assert len(session.report().events) == EVENTS
    return session


def main() -> None:
    """Measure and print."""
    session = busy_session()
    taken: list[float] = []
    for _ in range(REPORTS):
        start = time.thread_time_ns()
        session.report()
        taken.append((time.thread_time_ns() - start) / 1e6)
    median, most = statistics.median(taken), max(taken)
    print(f"report() after {EVENTS:,} events   {median:.2f} ms median, {most:.2f} ms at most   goal 2 ms")


if __name__ == "__main__":
    main()
