"""Binary event streams are written as AWS specifies them."""

from __future__ import annotations

from budget_guard.testing.event_stream import event_frame, exception_frame, frame
from tests.testing.frames import read_frames


def test_frames_are_those_of_the_published_test_vectors() -> None:
    assert frame({}, b"").hex() == "000000100000000005c248eb7d98c8ff"
    payload = "0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936"
    assert frame({}, b"{'foo':'bar'}").hex() == payload


def test_events_and_exceptions_name_their_type_in_a_header() -> None:
    data = event_frame("metadata", {"é": 1}) + exception_frame("throttlingException", {"message": "slow down"})
    (event, told), (exception, why) = read_frames(data)
    assert (event[":message-type"], event[":event-type"], told) == ("event", "metadata", {"é": 1})
    assert (exception[":message-type"], exception[":exception-type"]) == ("exception", "throttlingException")
    assert why == {"message": "slow down"}
