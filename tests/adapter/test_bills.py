"""For any request in any dialect at any known price: what is booked is no less than the bill, and was held."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.adapter import bills

SAMPLE = 2_400


@pytest.fixture(scope="module")
def sample() -> list[bills.Booked]:
    """More than one call to each model of the table, and some hundred in each dialect."""
    return list(bills.every(SAMPLE, seed=20_261_129))


def test_no_less_is_booked_than_the_bill_and_no_less_held_than_is_booked(sample: list[bills.Booked]) -> None:
    faults = [f"{fault}: {booked.call}" for booked in sample if (fault := bills.fault_of(booked)) is not None]

    assert not faults, "\n".join(faults[:5])


def test_the_sample_is_of_all_dialects_and_of_every_kind_of_report(sample: list[bills.Booked]) -> None:
    kinds = Counter(booked.call.dialect for booked in sample)
    assert kinds.keys() == {
        *("chat", "responses", "completions", "embeddings", "messages", "google", "converse", "cohere")
    }
    assert min(kinds.values()) >= SAMPLE // 32
    sensible = Counter(booked.call.sensible for booked in sample)
    assert sensible[False] > SAMPLE // 10 and sensible[True] > SAMPLE // 2
    assert sum(booked.refused is not None for booked in sample) < SAMPLE // 100
    assert sum(booked.uncertain for booked in sample) > SAMPLE // 10


def test_what_makes_sense_is_booked_as_it_is(sample: list[bills.Booked]) -> None:
    clear = [each for each in sample if each.call.sensible and each.call.clear and each.refused is None]
    exact = [each for each in clear if each.booked == each.call.bill]

    assert len(exact) > len(clear) * 0.9, "a bound in place of the bill would be as safe, and of no use"


@pytest.mark.parametrize("kind", ["messages", "chat"])
def test_the_bill_of_the_script_is_made_of_every_part(kind: str) -> None:
    rng = random.Random(3)
    calls = [bills.make(rng, 2 * n) for n in range(400)]

    bodies = [call.body for call in calls if call.dialect == kind]
    assert any(body.get("stream") for body in bodies) and not all(body.get("stream") for body in bodies)
    assert len({call.bill for call in calls}) > 300
