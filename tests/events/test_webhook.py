"""A webhook arrives at least once with the same id and a signature that holds, and no call ever waits for it."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from budget_guard import Budget, BudgetAuthority, Session, Usage
from budget_guard.events import Event
from budget_guard.events.sinks import WebhookSink, webhook
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock
from tests.builders import call, session

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, no" * 1).decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of 32 bytes, okay").decode()


class Receiver:
    """A server on this machine that takes webhooks, and says what it is told to."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        """What to say to the next requests; 204 to those after."""
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.hangs = threading.Event()
        self.hangs.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.taken.append(({k.lower(): v for k, v in self.headers.items()}, body))
                receiver.hangs.wait(30)
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks?x=1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hangs.set()
        self._server.shutdown()
        self._server.server_close()

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.taken]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@contextmanager
def sink(receiver: Receiver, path: Path, *, works: bool = False, **options: Any) -> Iterator[WebhookSink]:
    """A sink for *receiver*. Unless it *works* by itself, messages go out when the test calls `deliver`."""
    made = WebhookSink(receiver.url, **{"secret": SECRET, "path": path / "hooks.db", "allow_private": True, **options})
    if not works:
        made._closed = True  # no thread is started
    yield made
    made.close()


def stopped(hook: WebhookSink, **options: Any) -> Session:
    """A run that reached its soft limit, and had two calls refused."""
    run = session("$0.10", **options)
    run.subscribe(hook)
    run.authorize(call()).require().commit(Usage(input=1))
    run.authorize(call())
    run.authorize(call())
    return run


def test_a_sink_has_one_thread_and_starts_none_once_it_is_closed(tmp_path: Path) -> None:
    run = session("$5")
    sinks = [WebhookSink("https://hooks.example", secret=SECRET, path=tmp_path / f"{n}.db") for n in range(2)]
    sinks[1].close()
    with mock.patch.object(threading, "Thread") as started:
        for each in sinks:
            run.subscribe(each)
        for reason in ("once", "twice"):
            run.revoke(reason)
            run.raise_limits(max_cost_usd=6)
    assert len(started.call_args_list) == 1
    assert [each.waiting for each in sinks] == [2, 2]
    sinks[0]._worker = None  # none was started
    for each in sinks:
        each.close()


def test_the_file_of_messages_is_shared_and_written_without_waiting_for_the_disk(tmp_path: Path) -> None:
    with closing(WebhookSink("https://hooks.example", secret=SECRET, path=tmp_path / "hooks.db")) as hook:
        db = hook._queue._open()
        told = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "user_version")]
    assert told == ["wal", 1, 1]  # 1 is NORMAL: a message is lost with the machine's power at most


def test_a_message_is_signed_so_that_the_reference_library_takes_it(receiver: Receiver, tmp_path: Path) -> None:
    with sink(receiver, tmp_path, secret=[SECRET, OTHER]) as hook:
        stopped(hook, run_id="r1", tags={"user": "u1"})
        assert hook.waiting == 2
        assert hook.deliver() is None and hook.waiting == 0

    told = [json.loads(body) for _, body in receiver.taken]
    assert [each["type"] for each in told] == ["budget.soft_limit.reached", "budget.call.blocked"]
    assert told[1]["data"]["run_id"] == "r1" and told[1]["data"]["user"] == "u1"
    assert told[1]["data"]["limit"] == "max_cost_usd"
    for headers, body in receiver.taken:
        for secret in (SECRET, OTHER):
            assert Webhook(secret).verify(body, headers) == json.loads(body)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body + b" ", headers)


def test_a_receiver_that_is_down_gets_every_message_later_with_the_same_id(receiver: Receiver, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    with sink(receiver, tmp_path, clock=clock) as hook:
        receiver.answers = [(500, {})] * 8
        stopped(hook)
        spent = 0.0
        while (wait := hook.deliver()) is not None:
            assert wait > 0
            clock.advance(wait)
            spent += wait
        assert len(receiver.ids()) == 10 and len(set(receiver.ids())) == 2
        assert 450 < spent < 600, "the pauses grow: 5, 30, 120 and 300 seconds, and a fifth more at most"
        assert hook.dropped == 0


def test_one_who_asks_for_time_is_given_it(receiver: Receiver, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    with sink(receiver, tmp_path, clock=clock, types=["budget.call.blocked"]) as hook:
        receiver.answers = [(429, {"Retry-After": "900"})]
        stopped(hook)
        assert hook.deliver() == pytest.approx(900, abs=1)
        clock.advance(899)
        hook.deliver()
        assert len(receiver.taken) == 1
        clock.advance(2)
        hook.deliver()
        assert len(receiver.taken) == 2 and hook.waiting == 0


def test_one_who_is_gone_is_left_alone(receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sink(receiver, tmp_path) as hook:
        receiver.answers = [(410, {})]
        stopped(hook)
        hook.deliver()
        stopped(hook)
        hook.deliver()
        assert len(receiver.taken) == 1 and hook.is_disabled
        assert "is gone" in caplog.text


def test_a_redirect_is_not_followed(receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Receiver()
    with sink(receiver, tmp_path) as hook:
        receiver.answers = [(307, {"Location": elsewhere.url})]
        stopped(hook)
        hook.deliver()
        assert len(receiver.taken) == 2 and not elsewhere.taken and hook.waiting == 1
        assert "answers 307, and a webhook follows no redirect: give the address" in caplog.text
    elsewhere.close()


def test_a_message_that_nobody_takes_for_days_is_given_up(receiver: Receiver, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    with sink(receiver, tmp_path, clock=clock) as hook:
        receiver.answers = [(500, {})] * 99
        stopped(hook)
        while (wait := hook.deliver()) is not None:
            clock.advance(wait)
        assert hook.dropped == 2 and hook.waiting == 0


def test_the_oldest_are_dropped_where_too_many_wait(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sink(receiver, tmp_path, most_waiting=3, types=["budget.usage.recorded"]) as hook:
        run = session("$5")
        run.subscribe(hook)
        for number in range(5):
            run.charge(f"tool {number}", "0.01")
        assert (hook.waiting, hook.dropped) == (3, 2)
        hook.deliver()
    assert [json.loads(body)["data"]["name"] for _, body in receiver.taken] == ["tool 2", "tool 3", "tool 4"]
    assert caplog.text.count("webhooks are being dropped") == 1


def test_a_refusal_is_told_once_for_each_run_and_limit(receiver: Receiver, tmp_path: Path) -> None:
    with sink(receiver, tmp_path, types=["budget.call.blocked"]) as hook:
        stopped(hook)
        stopped(hook)
        assert hook.waiting == 2


def test_a_thread_delivers_by_itself(receiver: Receiver, tmp_path: Path) -> None:
    with sink(receiver, tmp_path, works=True) as hook:
        stopped(hook)
        _wait_until(lambda: len(receiver.taken) == 2 and hook.waiting == 0)


def test_a_receiver_that_hangs_holds_no_call_up(receiver: Receiver, tmp_path: Path) -> None:
    receiver.hangs.clear()
    with sink(receiver, tmp_path, works=True) as hook:
        run = stopped(hook)  # comes back though nobody answers
        _wait_until(lambda: bool(receiver.taken))
        for _ in range(50):
            run.authorize(call())
        receiver.hangs.set()
        _wait_until(lambda: hook.waiting == 0)


def _wait_until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never happened")


_KILLED = """
import os, signal, sys
from tests.events.test_webhook import SECRET, stopped
from budget_guard.events import Event
from budget_guard.events.sinks import WebhookSink
from budget_guard.ledger.sqlite import SqliteLedger
hook = WebhookSink(sys.argv[1], secret=SECRET, path=sys.argv[2], allow_private=True)
hook._closed = True
stopped(hook)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_loses_no_message(receiver: Receiver, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _KILLED, receiver.url, str(tmp_path / "hooks.db")]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL

    with sink(receiver, tmp_path) as hook:
        hook.deliver()
    assert len(set(receiver.ids())) == 2


def test_a_kill_between_the_post_and_the_note_of_it_sends_the_same_id_again(receiver: Receiver, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    with sink(receiver, tmp_path, clock=clock, types=["budget.call.blocked"]) as hook:
        stopped(hook)
        claimed = hook._queue.claim(clock.now().timestamp())  # and killed after posting
        assert claimed is not None
        assert hook.deliver() == pytest.approx(60), "it is left to the one that took it, for a while"
        clock.advance(61)
        hook.deliver()
        assert receiver.ids() == [claimed[0]]


_DOWN_AND_KILLED = """
import os, signal, sys
from datetime import datetime
from tests.builders import session
from budget_guard.events import Event
from budget_guard.events.sinks import WebhookSink
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock
from tests.events.test_webhook import SECRET

clock = FakeClock(datetime.fromisoformat(sys.argv[3]))
hook = WebhookSink(
    sys.argv[1], secret=SECRET, path=sys.argv[2], allow_private=True, clock=clock, types=["budget.usage.recorded"]
)
hook._closed = True
run = session("$5", clock=clock)
run.subscribe(hook)
for number in range(20):
    run.charge(f"tool {number}", "0.01")
    hook.deliver()
    clock.advance(10)
claimed = hook._queue.claim(clock.now().timestamp())  # it is posting one when it is killed
assert claimed is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_receiver_that_is_down_for_ten_minutes_and_a_kill_lose_no_event(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime.now(timezone.utc)
    receiver.answers = [(503, {})] * 10_000
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _DOWN_AND_KILLED, receiver.url, str(tmp_path / "hooks.db"), began.isoformat()]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL

    clock = FakeClock(began + timedelta(seconds=200))
    with sink(receiver, tmp_path, clock=clock) as hook:
        assert hook.waiting == 20
        while clock.now() < began + timedelta(minutes=10):
            clock.advance(min(hook.deliver() or 0.0, 60) + 1)
        refused = set(receiver.ids())
        assert len(refused) == 20 and hook.waiting == 20 and hook.dropped == 0
        receiver.answers.clear()
        receiver.taken.clear()

        class Simulated(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return clock.now()

        monkeypatch.setattr("standardwebhooks.webhooks.datetime", Simulated)
        told: list[Any] = []
        while (wait := hook.deliver()) is not None:
            told += [Webhook(SECRET).verify(body, headers) for headers, body in receiver.taken[len(told) :]]
            clock.advance(wait)
        told += [Webhook(SECRET).verify(body, headers) for headers, body in receiver.taken[len(told) :]]
    assert set(receiver.ids()) == refused, "each arrives, with the id that it had before the kill"
    assert sorted(each["data"]["name"] for each in told) == sorted(f"tool {number}" for number in range(20))


def test_an_address_that_cannot_be_reached_is_passed_over_for_the_next(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, look_up = socket.create_connection, socket.getaddrinfo

    def create(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        if address[0] == "::1":
            raise OSError("no route to host")
        return connect(address, *args, **kwargs)

    def look(host: Any, *args: Any, **kwargs: Any) -> Any:
        both = [(socket.AF_INET6, 1, 6, "", ("::1", 1, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 1))]
        return both if host == "two.example" else look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(socket, "create_connection", create)
    receiver.url = receiver.url.replace("127.0.0.1", "two.example")
    with sink(receiver, tmp_path) as hook:
        stopped(hook)
        hook.deliver()
        assert hook.waiting == 0
    assert {headers["host"] for headers, _ in receiver.taken} == {receiver.url.split("/")[2]}


def test_a_forked_child_delivers_with_a_connection_of_its_own(receiver: Receiver, tmp_path: Path) -> None:
    with sink(receiver, tmp_path, works=True) as hook:
        stopped(hook)
        pid = os.fork()
        if pid == 0:
            try:
                stopped(hook)
                _wait_until(lambda: hook.waiting == 0)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        _wait_until(lambda: hook.waiting == 0)
    assert len(set(receiver.ids())) == 4


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "is not encrypted"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://169.254.169.254/latest", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
        ("https://[::10.0.0.1]/", "not a public address"),
        ("https://[64:ff9b::10.0.0.1]/", "not a public address"),
        ("https://[2002:a00:1::1]/", "not a public address"),
        ("https://[fd00::1]/", "not a public address"),
        ("https://224.0.0.1/", "not a public address"),
        ("https://[ff02::1]/", "not a public address"),
        ("https://0.0.0.0/", "not a public address"),
        ("https://100.64.0.1/", "not a public address"),
        ("https://user:hunter2@example.com/", "has a password in it"),
        ("ftp://example.com/", "is no address to post to"),
        ("example.com", "is no address to post to"),
    ],
)
def test_an_address_that_is_not_to_be_posted_to_is_refused(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        WebhookSink(url, secret=SECRET, path=tmp_path / "hooks.db")
    assert "hunter2" not in str(caught.value)


def test_a_name_that_leads_to_a_private_address_is_not_posted_to(receiver: Receiver, tmp_path: Path) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    hook = WebhookSink(f"https://localhost:{port}/", secret=SECRET, path=tmp_path / "hooks.db")
    hook._closed = True
    stopped(hook)
    hook.deliver()
    assert not receiver.taken and hook.waiting == 2
    hook.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"secret": "whsec_short"}, "secret= must be base64"),
        ({"secret": "whsec_!!!!"}, "secret= must be base64"),
        ({"secret": []}, "signs nothing"),
        ({"types": ["budget.everything"]}, "budget.everything.*budget.call.blocked"),
        ({"most_waiting": 0}, "most_waiting=0"),
        ({"path": "nowhere/hooks.db"}, "must name a file"),
    ],
)
def test_senseless_settings_are_errors_that_name_no_secret(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        WebhookSink("https://example.com/", **{"secret": SECRET, "path": tmp_path / "hooks.db", **wrong})
    assert "whsec_short" not in str(caught.value) and SECRET not in str(caught.value)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ValueError, match="another program's"):
        WebhookSink("https://example.com/", secret=SECRET, path=path)
    path.write_bytes(b"no database " * 200)
    with pytest.raises(ValueError, match="no file of webhooks"):
        WebhookSink("https://example.com/", secret=SECRET, path=path)


def test_an_authority_tells_of_every_user(receiver: Receiver, tmp_path: Path) -> None:
    authority = BudgetAuthority()
    with sink(receiver, tmp_path, types=["budget.run.revoked"]) as hook:
        authority.subscribe(hook)
        for user in ("u1", "u2"):
            authority.session(Budget("$1"), user=user).revoke("leaked")
        hook.deliver()
    assert [json.loads(body)["data"]["user"] for _, body in receiver.taken] == ["u1", "u2"]


def test_no_thread_of_ours_keeps_a_program_from_ending(receiver: Receiver, tmp_path: Path) -> None:
    async def hear(event: Event) -> None:
        pass

    async def look(ledger: SqliteLedger) -> None:
        await ledger.aio.balances(())

    ledger = SqliteLedger(tmp_path / "ledger.db")
    with sink(receiver, tmp_path, works=True) as hook:
        run = stopped(hook)
        run.subscribe(hear)
        run.charge("search", "0")
        asyncio.run(look(ledger))
        ours = [each for each in threading.enumerate() if each.name.startswith(("budget_guard", "ledger"))]
        assert {"budget_guard webhooks", "budget_guard subscribers", "ledger"} <= {each.name for each in ours}
        assert [each.name for each in ours if not each.daemon] == []
    ledger.close()


@pytest.mark.parametrize("carries", ["{}", "::ffff:{}", "64:ff9b::{}", "2002:{:hex}::1"])
@pytest.mark.parametrize(
    ("inner", "is_public"),
    [("8.8.8.8", True), ("8.10.0.1", True), ("10.0.0.1", False), ("10.8.8.8", False), ("127.0.0.1", False)],
)
def test_an_address_that_leads_to_another_one_is_as_public_as_that(carries: str, inner: str, is_public: bool) -> None:
    packed = ipaddress.IPv4Address(inner).packed.hex()
    text = carries.replace("{:hex}", f"{packed[:4]}:{packed[4:]}").format(inner)
    assert webhook._is_public(ipaddress.ip_address(text)) is is_public


@pytest.mark.parametrize(
    ("url", "port"), [("http://h/x", 80), ("https://h/x", 443), ("http://h:8080/x", 8080), ("https://h:8443", 8443)]
)
def test_a_message_goes_to_the_port_that_the_address_names_or_means(url: str, port: int) -> None:
    assert webhook._Receiver(url, allow_private=True)._port == port
