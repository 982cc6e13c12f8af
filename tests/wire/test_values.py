"""JSON that is read without trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget_guard.wire.values import as_body, listed, read_json, truth, whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def by_the_standard_library(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@given(value=JSON, escaped=st.booleans())
def test_a_value_is_read_as_the_standard_library_reads_it(value: Any, escaped: bool) -> None:
    data = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    assert repr(read_json(data)) == repr(by_the_standard_library(data))  # 1 and 1.0, and the order of the fields


@given(value=JSON, at=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_broken_value_is_read_as_the_standard_library_reads_it(value: Any, at: int, byte: int) -> None:
    data = bytearray(json.dumps(value).encode())
    data[at % len(data)] = byte
    assert repr(read_json(bytes(data))) == repr(by_the_standard_library(bytes(data)))


def no_json(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@settings(max_examples=50)
@example(value={"n": 1e400, "m": [-1e400, {"k": 1e400}]})
@given(value=st.dictionaries(st.text(st.characters(codec=None), max_size=8), JSON, max_size=4))
def test_a_body_is_json_and_says_the_same_also_where_a_number_is_beyond_all_floats(value: Any) -> None:
    read = json.loads(as_body(value), parse_constant=no_json, parse_int=lambda n: int(n) if len(n) < 300 else float(n))
    assert read == value


def test_a_body_has_no_spaces_that_nobody_asked_for() -> None:
    assert as_body({"a": [1, "b c"], "d": "é"}) == '{"a":[1,"b c"],"d":"é"}'.encode()
    assert as_body({"a": [1, 1e400], "d": "é"}) == f'{{"a":[1,{10**309}],"d":"é"}}'.encode()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"half": "\\ud83d"}', {"half": "\ud83d"}),
        ('{"a": 1}'.encode("utf-16"), {"a": 1}),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"n": 1, "n": 2}', {"n": 2}),
        (b"[" * 500 + b"]" * 500, by_the_standard_library(b"[" * 500 + b"]" * 500)),
    ],
    ids=["half a pair", "utf-16", "a mark of the order", "a name twice", "deep"],
)
def test_what_one_parser_alone_reads_is_read(data: bytes, value: Any) -> None:
    assert read_json(data) == value


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 100_000, b"\xff\xff", b'{"a": 01}', b"[1" + b"0" * 5_000 + b"]"], ids=range(6)
)
def test_what_no_parser_reads_is_nothing(data: bytes) -> None:
    assert read_json(data) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (8, 8),
        (8.0, 8),
        (7.2, 8),
        ("8", 8),
        (2.0**53 - 1, 2**53 - 1),
        ("9" * 19, int("9" * 19)),
        (10**30, 10**30),
        (0, None),
        (-1, None),
        (0.0, None),
        (-0.5, None),
        (2.0**53, None),
        (float("nan"), None),
        (float("inf"), None),
        ("0", None),
        ("-8", None),
        ("8.0", 8),
        (" +7.5 ", 8),
        ("1_0", 10),
        ("0x8", None),
        ("nan", None),
        ("inf", None),
        ("٨", None),
        ("", None),
        ("9" * 20, None),
        (True, None),
        (None, None),
        ([8], None),
        ({}, None),
    ],
)
def test_a_whole_number_is_read_as_a_lenient_server_would(value: object, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", " yes ", "on", "1", "t", [0], -1])
def test_yes_is_read_as_a_lenient_server_would(value: object) -> None:
    assert truth(value) is True


@pytest.mark.parametrize("value", [False, None, 0, 0.0, "", "false", "False", " no ", "off", "0", "f", [], {}])
def test_no_is_read_as_a_lenient_server_would(value: object) -> None:
    assert truth(value) is False


def test_what_is_no_list_is_one_of_itself() -> None:
    assert list(listed({"a": 1})) == [{"a": 1}]
    assert list(listed("x")) == ["x"]
    assert listed([1, 2]) == [1, 2]
    nothing: tuple[object, ...] = (None, "", {}, [], 0, False)
    assert [list(listed(each)) for each in nothing] == [[]] * 6
