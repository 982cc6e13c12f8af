"""One call of LangChain's, and those of a handler that are under way."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from budget_guard.adapter.attempts import Attempts, counted_by, counting_nothing
from budget_guard.wire.reader import LONGEST_TOKEN
from budget_guard_langchain.calls import Call, Calls, _Watched
from budget_guard_langchain.request import read_call
from tests.builders import ZERO, call, session


class Refused(Exception):
    status_code = 400


@pytest.mark.parametrize(("requests", "booked"), [(1, False), (2, True)])
def test_a_refusal_of_one_of_several_requests_gives_nothing_back(requests: int, booked: bool) -> None:
    """Some of the others may have been answered, and billed."""
    run = session()
    made = Call((run,), uuid4(), None, called="dime", requests=requests)
    assert made.hold(call()) is None
    held = run.reserved_usd
    made.fail(Refused())
    assert (run.spent_usd, run.reserved_usd, run.report().uncertain) == ((held, ZERO, held) if booked else (ZERO,) * 3)


@pytest.mark.parametrize(
    ("told", "adds_up"),
    [
        ([100], False),
        ([100, 0, 0], False),
        ([0, 100], False),
        ([60, 40], False),
        ([100, 100], True),
        ([100, 120], True),
        ([100, 0, 100], True),
        ([100, None, "100"], False),
    ],
)
def test_a_stream_that_tells_its_whole_input_twice_is_known_to_have_added_it_up(told: list[Any], adds_up: bool) -> None:
    made = Call((session(),), uuid4(), None, called="dime")
    for number, taken in enumerate(told):
        made.note_chunk(f"chunk {number}", "word", {"input_tokens": taken}, is_text=True)
    assert made.adds_up is adds_up
    assert (made.text, made.output_floor) == ("word" * len(told), 4 * len(told) // LONGEST_TOKEN)


REQUEST = read_call({}, "hi", {}, {"model": "dime", "_type": "own"}).request


@pytest.mark.parametrize(
    ("any_hold", "options", "on_loop", "counts"),
    [
        (True, {"request": REQUEST}, False, True),
        (False, {"request": REQUEST}, False, False),
        (True, {}, False, False),
        (True, {"request": REQUEST, "batch": object()}, False, False),
        (True, {"request": REQUEST}, True, False),
    ],
    ids=["a model's call", "nothing holds below", "a tool's", "one of several", "made in a task that nobody knows"],
)
def test_a_guarded_client_below_is_told_of_a_call_that_is_made_here(
    monkeypatch: pytest.MonkeyPatch, any_hold: bool, options: dict[str, Any], on_loop: bool, counts: bool
) -> None:
    monkeypatch.setattr(Attempts, "any_hold", any_hold)
    loop = asyncio.new_event_loop() if on_loop else None
    calls, made = Calls(), Call((session(),), uuid4(), None, called="dime", **options)
    assert made.hold(call()) is None
    with counting_nothing():
        calls.begin(made, loop)
        assert (made in counted_by().calls) is counts
        assert calls.end(made.run_id) is made
        assert counted_by().calls == () and made.counted is None
    if loop is not None:
        loop.close()


def test_what_watches_a_call_is_text_to_everybody_else_and_its_copies_watch_nothing() -> None:
    class Ends:
        gone_calls: list[Any] = []  # noqa: RUF012

        def gone(self, made: object) -> None:
            self.gone_calls.append(made)

    watched, calls = _Watched("decision-1"), Ends()
    watched.calls.append((calls, "a call"))  # type: ignore[arg-type]
    for twin in (copy.copy(watched), copy.deepcopy(watched), pickle.loads(pickle.dumps(watched))):
        assert type(twin) is str and twin == watched == "decision-1"
    del twin
    assert calls.gone_calls == []
    del watched
    assert calls.gone_calls == ["a call"]
