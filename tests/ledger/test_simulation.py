"""A thousand bad histories, and not one violation."""

from __future__ import annotations

import pytest

from budget_guard.clock import Clock
from budget_guard.ledger import Ledger, MemoryLedger
from tests.ledger.simulation import Simulation

SEEDS = 1_000
BATCHES = 10


def remembering(clock: Clock) -> Ledger:
    """The ledger as it is."""
    return MemoryLedger(clock=clock)


def forgetful(clock: Clock) -> Ledger:
    """A ledger that remembers no more than eight settled holds."""
    return MemoryLedger(clock=clock, retain=8)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_breaks_an_invariant(batch: int) -> None:
    verbs = 0
    for seed in range(batch, SEEDS, BATCHES):
        forgets = seed % 4 == 0
        try:
            verbs += Simulation(forgetful if forgets else remembering, seed, forgets=forgets).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}, forgets={forgets}") from error
    assert verbs > 100 * SEEDS / BATCHES


def test_a_history_is_the_same_whenever_it_is_told() -> None:
    first, second = (Simulation(remembering, 7) for _ in range(2))
    assert first.run() == second.run()
    assert [vars(call) for call in first.calls] == [vars(call) for call in second.calls]


def test_memory_is_bounded_by_what_is_open_and_what_is_retained() -> None:
    """I12."""
    for seed in range(0, 40, 4):
        ledger = MemoryLedger(retain=8)
        history = Simulation(lambda clock, ledger=ledger: _on(ledger, clock), seed, forgets=True)  # type: ignore[misc]  # no type for its default
        for _ in range(100):
            history.happen()
            history.clock.advance(1)
            history.deliver(history.clock.monotonic())
            history.wake()
            open_holds = sum(hold.open for hold in ledger._holds.values())
            assert len(ledger._holds) <= open_holds + 8


def _on(ledger: MemoryLedger, clock: Clock) -> Ledger:
    ledger._clock = clock
    return ledger
