"""Events are the same whatever pieces their bytes come in."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard.wire.event_stream import BrokenFrame, FrameDecoder, encode_frame
from budget_guard.wire.sse import EventParser


def events(data: bytes, *cuts: int) -> list[tuple[str, bytes | None]]:
    parser = EventParser()
    found = []
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(edges):
        found += parser.feed(data[start:end])
    return [(event.name, event.data) for event in [*found, *parser.close()] if event.data is not None]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways(end: str) -> None:
    lines = [
        "event: a",
        "data: 1",
        "data:2",
        "id: x",
        ":comment",
        "",
        "data: [DONE]",
        "",
        ": only a comment",
        "",
        "data",
        "",
        "",
    ]
    data = end.join(lines).encode()

    assert events(data) == [("a", b"1\n2"), ("message", b"[DONE]"), ("message", b"")]


def test_a_byte_order_mark_and_a_missing_end_do_no_harm() -> None:
    assert events(b"\xef\xbb\xbfdata: 1\n\ndata: 2") == [("message", b"1"), ("message", b"2")]


def test_what_comes_after_the_end_of_a_stream_is_read_from_its_first_byte() -> None:
    parser = EventParser()
    parser.feed(b"data: a long text")
    assert [event.data for event in parser.close()] == [b"a long text"]
    assert [event.raw for event in parser.feed(b"\n\ndata: 2\n\n")] == [b"\n\n", b"data: 2\n\n"]


lines = st.sampled_from(
    [b"data: a", b"data:", b'data: {"x": 1}', b"event: e", b": c", b"", b"", b"id: 1", b"data:  b", b"\xff"]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(lines, ends), max_size=20), st.lists(st.integers(0, 200), max_size=30))
def test_pieces_do_not_matter(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    data = b"".join(line + end for line, end in parts)

    assert events(data, *cuts) == events(data, *range(len(data))) == events(data)


@given(st.lists(st.tuples(lines, ends), max_size=20), st.integers(1, 7))
def test_no_byte_is_lost(parts: list[tuple[bytes, bytes]], size: int) -> None:
    data = b"".join(line + end for line, end in parts)
    parser = EventParser()
    raw = [event.raw for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])]

    assert b"".join(raw) + parser.left == data


headers = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=30), max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=60)), max_size=5), st.integers(1, 50))
def test_frames_come_back_as_they_were_sent(frames: list[tuple[dict[str, str], bytes]], size: int) -> None:
    data = b"".join(encode_frame(*frame) for frame in frames)
    decoder = FrameDecoder()
    found: list[Any] = []
    for at in range(0, len(data), size):
        found += decoder.feed(data[at : at + size])

    assert [(dict(frame.headers), frame.payload) for frame in found] == frames
    assert b"".join(frame.raw for frame in found) == data
    assert decoder.left == b""


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_bit_is_never_read_as_something_else(at: int, flip: int) -> None:
    data = encode_frame({":event-type": "metadata"}, json.dumps({"usage": {"inputTokens": 1}}).encode())
    broken = bytearray(data)
    broken[at % len(data)] ^= flip
    decoder = FrameDecoder()

    with pytest.raises(BrokenFrame):
        if not decoder.feed(bytes(broken)):
            raise BrokenFrame("it waits for the rest of a longer frame")  # it never comes


def test_other_kinds_of_headers_are_skipped() -> None:
    packed = b"".join(
        bytes([1]) + name + value
        for name, value in (
            (b"a", b"\x00"),
            (b"b", b"\x01"),
            (b"c", b"\x02\x01"),
            (b"d", b"\x03\x00\x01"),
            (b"e", b"\x04\x00\x00\x00\x01"),
            (b"f", b"\x05" + bytes(8)),
            (b"g", b"\x06\x00\x02xy"),
            (b"h", b"\x08" + bytes(8)),
            (b"i", b"\x09" + bytes(16)),
            (b"j", b"\x07\x00\x01z"),
        )
    )
    (found,) = FrameDecoder().feed(frame_of(packed))

    assert found.headers == {"j": "z"}


def frame_of(headers: bytes) -> bytes:
    """A frame without a payload whose checksums are right, whatever its headers are."""
    lengths = (16 + len(headers)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    frame = lengths + zlib.crc32(lengths).to_bytes(4, "big") + headers
    return frame + zlib.crc32(frame).to_bytes(4, "big")


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01",  # no name
        b"\x01a",  # no kind
        b"\x05a\x00",
        b"\x01a\x0a",  # a kind that there is not
        b"\x01\xff\x00",  # no text
        b"\x01a\x07\x00\x01\xff",
        b"\x01a\x07\x00\x05xy",  # shorter than it says
        b"\x01a\x04\x00",
        b"\x01a\x02",
        b"\x01a\x00\x00",  # an end of the name that is none
    ],
)
def test_headers_that_are_none_are_refused(headers: bytes) -> None:
    with pytest.raises(BrokenFrame, match="the headers of a frame are wrong"):
        FrameDecoder().feed(frame_of(headers))


def test_a_length_that_no_frame_has_is_refused_at_once() -> None:
    lengths = (2**31).to_bytes(4, "big") + (0).to_bytes(4, "big")

    with pytest.raises(BrokenFrame, match="length"):
        FrameDecoder().feed(lengths + zlib.crc32(lengths).to_bytes(4, "big"))
