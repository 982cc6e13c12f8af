"""Money goes back only where nothing can have been billed."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from budget_guard.errors import BudgetRevoked, LedgerUnavailable, ReservationConflict
from budget_guard.wire import never_billed, outcome_of_error, outcome_of_status

OWN = {"error": {"message": "secret prompt, sk-123", "type": "x", "code": None}}
HTML = b"<html>503 Service Unavailable</html>"
JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 429, 301, 307])
def test_what_is_refused_before_any_work_is_released(status: int) -> None:
    for body in (OWN, HTML, None, json.dumps(OWN).encode()):
        assert outcome_of_status(status, JSON, body).released


@pytest.mark.parametrize("status", [408, 424, 425, 451, 499, 500, 501, 502, 504, 520, 521, 524, 530, 598, 100, 418])
def test_what_may_have_been_worked_on_is_not(status: int) -> None:
    found = outcome_of_status(status, JSON, OWN)

    assert found.uncertain and str(status) in found.reason


@pytest.mark.parametrize("status", [503, 529])
@pytest.mark.parametrize(
    ("headers", "body", "released"),
    [
        (JSON, json.dumps(OWN).encode(), True),
        (None, OWN, True),
        (None, json.dumps(OWN), True),
        (JSON, json.dumps([OWN]).encode(), True),
        (None, {"type": "error", "error": {"type": "overloaded_error"}}, True),
        (None, {"message": "Too many", "__type": "ServiceUnavailableException"}, True),
        ({"content-type": "text/html"}, HTML, False),
        ({"content-type": "text/html"}, json.dumps(OWN).encode(), False),
        (None, HTML, False),
        (None, b"", False),
        (None, None, False),
        (None, {}, False),
        (None, {"error": None}, False),
        (JSON, b"[" * 100_000, False),
    ],
)
def test_an_overload_is_believed_in_the_provider_s_own_words(
    status: int, headers: Any, body: Any, released: bool
) -> None:
    assert outcome_of_status(status, headers, body).released is released


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "content_filter", "message": "x"}},
        {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"error": {"code": "x", "innererror": {"content_filter_result": {"hate": {}}}}},
        {"code": "content_filter"},
        [{"error": {"details": [{"code": "content_filter"}]}}],
        [{"error": {"code": "content_policy_violation"}}],
    ],
)
def test_a_content_filter_may_bill_for_its_refusal(body: Any) -> None:
    assert outcome_of_status(400, JSON, body).uncertain
    assert outcome_of_status(400, JSON, json.dumps(body).encode()).uncertain
    assert outcome_of_status(400, JSON, {"error": {"message": json.dumps(body)}}).released, "a text is nobody's word"


def test_one_of_several_requests_says_nothing_of_the_others() -> None:
    assert outcome_of_status(429, requests=2).uncertain
    assert outcome_of_error(Refused(status_code=429), requests=2).uncertain
    assert outcome_of_error(ConnectError(), requests=2).uncertain
    assert outcome_of_error(TypeError("create() got an unexpected keyword argument 'x'"), requests=2).uncertain


def test_nothing_is_released_after_an_attempt_of_unknown_outcome() -> None:
    assert outcome_of_status(429, unknown_before=1).uncertain
    assert outcome_of_error(ConnectError(), unknown_before=1).uncertain


def test_a_500_with_the_providers_own_words_is_told_apart() -> None:
    assert outcome_of_status(500, JSON, OWN).is_server_error
    assert not outcome_of_status(500, {}, HTML).is_server_error
    assert not outcome_of_status(502, JSON, OWN).is_server_error
    assert not outcome_of_status(500, JSON, OWN, unknown_before=1).is_server_error
    assert not outcome_of_status(500, JSON, OWN, requests=2).is_server_error
    assert outcome_of_error(Refused(status_code=500, body=OWN)).is_server_error


class ConnectError(Exception):
    """As HTTP clients name it."""


class Refused(Exception):
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class _Response:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class _Unread(_Response):
    @property
    def content(self) -> bytes:
        raise RuntimeError("not read")


def caused(error: BaseException) -> BaseException:
    outer = RuntimeError("the framework's own words")
    outer.__cause__ = error
    return outer


def beside(error: BaseException) -> BaseException:
    outer = RuntimeError("the framework's own words")
    outer.__context__ = error
    return outer


@pytest.mark.parametrize("wrap", [lambda e: e, caused, beside, lambda e: caused(beside(caused(e)))])
@pytest.mark.parametrize(
    ("error", "released"),
    [
        (Refused(status_code=429), True),
        (Refused(code=404), True),
        (Refused(code="rate_limited"), False),
        (Refused(code=True), False),
        (Refused(status_code=500), False),
        (Refused(status_code=503), False),
        (Refused(status_code=503, body=OWN), True),
        (Refused(status_code=529, body={"type": "error", "error": {"type": "overloaded_error"}}), True),
        (Refused(response=_Response(status_code=429)), True),
        (Refused(response=_Response(status=403)), True),
        (Refused(response=_Unread(status_code=503)), False),
        (Refused(response=_Response(status_code=503, content=json.dumps(OWN).encode(), headers=JSON)), True),
        (Refused(response=_Response(status_code=503, content=HTML, headers={"content-type": "text/html"})), False),
        (
            Refused(response={"ResponseMetadata": {"HTTPStatusCode": 429}, "Error": {"Code": "ThrottlingException"}}),
            True,
        ),
        (Refused(response={"ResponseMetadata": {"HTTPStatusCode": 503}, "Error": {"Code": "Unavailable"}}), True),
        (Refused(response={"ResponseMetadata": {"HTTPStatusCode": 500}, "Error": {"Code": "x"}}), False),
        (Refused(code=503, details=OWN), True),
        (Refused(status_code=400, body={"code": "content_filter"}), False),
        (ConnectError(), True),
        (ConnectionRefusedError(), True),
        (ConnectionResetError(), False),
        (TimeoutError(), False),
        (KeyboardInterrupt(), False),
        (GeneratorExit(), False),
        (LedgerUnavailable(detail="no answer"), True),
        (ReservationConflict(reservation_id="h", detail="its hold expired"), True),
    ],
    ids=repr,
)
def test_an_error_is_read_through_all_that_it_was_raised_from(wrap: Any, error: BaseException, released: bool) -> None:
    assert outcome_of_error(wrap(error)).released is released
    assert never_billed(wrap(error)) is released


@pytest.mark.parametrize(
    "name",
    [
        "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "ProxyError",
        "ClientConnectorError", "NewConnectionError", "EndpointConnectionError", "NoCredentialsError", "MissingSchema",
        "DefaultCredentialsError", "NameResolutionError", "gaierror",
    ],
)  # fmt: skip
def test_what_never_left_is_known_by_its_name(name: str) -> None:
    error: BaseException = type(name, (Exception,), {})()

    assert never_billed(error) and never_billed(caused(beside(error)))


def test_a_reason_that_an_error_names_comes_before_what_it_was_raised_beside() -> None:
    wrapped: Any = RuntimeError("too many retries")
    wrapped.reason = type("NewConnectionError", (Exception,), {})()
    assert never_billed(wrapped)
    wrapped.__context__ = type("ReadTimeout", (Exception,), {})()
    assert never_billed(wrapped)
    wrapped.reason = "given as a text"
    assert not never_billed(wrapped)


@pytest.mark.parametrize(
    "name", ["ReadTimeout", "ReadError", "RemoteProtocolError", "ServerDisconnectedError", "IncompleteRead"]
)
def test_what_broke_on_the_way_is_unknown_even_if_a_connection_failed_before(name: str) -> None:
    error: BaseException = type(name, (Exception,), {})()
    error.__context__ = ConnectError()

    assert not never_billed(error)


def test_a_client_that_knows_no_such_argument_sent_nothing() -> None:
    assert never_billed(TypeError("Completions.create() got an unexpected keyword argument 'foo'"))
    assert never_billed(TypeError("Missing required arguments; Expected either ('messages')"))
    assert not never_billed(TypeError("'NoneType' object is not subscriptable"))


def test_a_reason_holds_no_word_of_the_request_or_the_answer() -> None:
    for found in (
        outcome_of_status(400, JSON, OWN),
        outcome_of_status(503, JSON, OWN),
        outcome_of_error(Refused(status_code=500, body=OWN)),
        outcome_of_error(ValueError("secret prompt, sk-123")),
    ):
        assert "secret" not in found.reason and "sk-" not in found.reason


def test_a_circle_of_causes_ends() -> None:
    one, other = RuntimeError(), RuntimeError()
    one.__cause__, other.__cause__ = other, one

    assert not never_billed(one)


def test_the_real_clients_raise_what_is_known_here() -> None:
    httpx = pytest.importorskip("httpx")
    openai = pytest.importorskip("openai")

    with pytest.raises(httpx.ConnectError) as refused:
        httpx.Client(trust_env=False).get("http://127.0.0.1:9/")
    assert never_billed(refused.value)
    with pytest.raises(httpx.UnsupportedProtocol) as unsupported:
        httpx.get("nothing://x")
    assert never_billed(unsupported.value)
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(openai.APIConnectionError) as connection:
        client.chat.completions.create(model="m", messages=[])
    assert never_billed(connection.value)
    with pytest.raises(TypeError) as argument:
        client.chat.completions.create(model="m", messages=[], foo=1)
    assert never_billed(argument.value)
    with pytest.raises(TypeError) as missing:
        client.chat.completions.create(model="m")
    assert never_billed(missing.value)
    client.close()


def test_requests_raises_what_is_known_here() -> None:
    requests = pytest.importorskip("requests")

    for url in ("http://127.0.0.1:9/", "no-scheme", "http://"):
        with pytest.raises(requests.RequestException) as error:
            requests.get(url, timeout=1)
        assert never_billed(error.value), url


def test_a_stop_of_our_own_says_nothing_of_the_bill() -> None:
    stop = BudgetRevoked(scope="run:r1", reason="compromised", at=datetime.now(timezone.utc))
    assert stop.http_status == 402
    assert not never_billed(stop)


@pytest.mark.parametrize(
    "name", ["status_code", "response", "code", "status", "http_status", "body", "details", "reason"]
)
def test_what_cannot_be_read_of_an_error_tells_nothing(name: str) -> None:
    def unreadable(self: object) -> object:
        raise RuntimeError("not read yet")

    error = type("Odd", (Exception,), {name: property(unreadable)})()
    assert not never_billed(error)


def test_an_answer_that_aiohttp_cannot_read_is_no_400_of_the_provider() -> None:
    http_exceptions = pytest.importorskip("aiohttp.http_exceptions")
    aiohttp = pytest.importorskip("aiohttp")
    for kind in (http_exceptions.BadStatusLine, http_exceptions.InvalidHeader, http_exceptions.TransferEncodingError):
        unreadable = kind("SSH-2.0")
        assert unreadable.code == 400
        raised = aiohttp.ClientResponseError(None, (), status=400, message="Bad Request")
        raised.__cause__ = unreadable
        for error in (raised, unreadable):
            assert outcome_of_error(error).uncertain and "SSH" not in outcome_of_error(error).reason
    assert outcome_of_error(aiohttp.ClientResponseError(None, (), status=400, message="Bad Request")).released
