"""What each sink tells of made-up events, and when a webhook is sent to a receiver that answers this and that.

Run ``python -m tests.events.reference.make`` to write them down in `told.txt.gz`.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from budget_guard.events import Event
from budget_guard.events.model import (
    AnswerCutOff,
    BoundViolated,
    CallAdmitted,
    CallBlocked,
    CallCommitted,
    CallReleased,
    ChildClosed,
    ChildOpened,
    LimitsRaised,
    LoopNoticed,
    ModelDowngraded,
    OverrunCharged,
    SessionRevoked,
    SoftLimitReached,
    Tokens,
    UsageEvent,
)
from budget_guard.events.origin import Origin
from budget_guard.events.sinks import (
    CsvSink,
    JsonlSink,
    OTelSink,
    PrometheusSink,
    WebhookSink,
    metering,
    prometheus,
)
from budget_guard.events.sinks import webhook as its_module
from budget_guard.events.timeline import Timeline, describe
from budget_guard.reporting.posting import Posting
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts
from budget_guard.units.usage import Usage
from tests.reference_text import lines_under

webhook: Any = its_module  # also what it imports, which is replaced here
_START = datetime(2026, 11, 1, 9, 30, tzinfo=timezone.utc)
_SECRETS = tuple("whsec_" + base64.b64encode(bytes([each]) * 32).decode() for each in (1, 2))


class _Made:
    """Made-up events, of a few calls that are told of again and again."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)

    def event(self) -> Event:
        chance = self.chance
        at_s, ident = float(chance.randrange(100)), f"d{chance.randrange(4)}"
        name, amount = chance.choice(["large", "small", "=1+1"]), chance.choice([0, 1, 10_000_000, 250_000_000])
        made: Sequence[Callable[[], Event]] = (
            lambda: CallAdmitted(at_s, ident, "model", name, amount),
            lambda: CallAdmitted(at_s, ident, "tool", name, amount),
            lambda: CallCommitted(at_s, ident, "model", name, amount, chance.random() < 0.5, agent="a", input_tokens=3),
            lambda: CallReleased(at_s, ident, name, "a cache"),
            lambda: CallBlocked(at_s, ident, name, "no room", chance.choice(["max_cost_usd", "max_requests", ""])),
            lambda: ModelDowngraded(at_s, ident, name, chance.choice(["small", "tiny"]), "near"),
            lambda: SoftLimitReached(at_s, chance.choice(["run:r1", "user:u1"]), "max_cost_usd", 0.9),
            lambda: BoundViolated(at_s, ident, name, 10, 20),
            lambda: OverrunCharged(at_s, ident, name, amount),
            lambda: AnswerCutOff(at_s, ident, name, 90),
            lambda: LoopNoticed(at_s, "search", 3, 1, chance.random() < 0.5),
            lambda: LimitsRaised(at_s, ("max_cost_usd",), ("1",)),
            lambda: SessionRevoked(at_s, chance.choice(["leaked", "x" * 400, "y" * 30_000])),
            lambda: ChildOpened(at_s, "child", amount),
            lambda: ChildClosed(at_s, "child", amount, False),
            self.usage,
            self.usage,
            self.usage,
        )
        return chance.choice(made)()

    def usage(self) -> UsageEvent:
        chance = self.chance
        ident = f"d{chance.randrange(4)}"
        is_model = chance.random() < 0.7
        return UsageEvent(
            at_s=float(chance.randrange(100)),
            id=chance.choice([ident, f"{ident}+"]),
            at=_START,
            run_id="r1",
            principals=chance.choice([{}, {"user": "u1"}, {"user": "=u", "customer": "c"}]),
            agent=chance.choice([None, "@writer"]),
            task=chance.choice([None, "write"]),
            kind="model" if is_model else "tool",
            name=chance.choice(["large", "small"]) if is_model else "search",
            asked=chance.choice(["large", ""]),
            tokens=Tokens(*(chance.choice([0, 7, 100]) for _ in range(5))),
            cost=chance.choice([0, 1, 10_000_000, 250_000_000]),
            source=chance.choice(["price", "provider"]),
            uncertain=chance.random() < 0.3,
            unpriced=chance.random() < 0.1,
            decision_id=ident,
            cost_before=chance.choice([0, 0, 10_000_000]),
            tokens_before=chance.choice([Tokens(), Tokens(7, 7, 7, 7, 7)]),
        )

    def events(self, count: int) -> list[Event]:
        return [self.event() for _ in range(count)]


def _origin(clock: FakeClock) -> Origin:
    return Origin("r1", {"user": "u1"}, "write", clock)


def _files() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(6):
            sinks: list[Any] = [
                JsonlSink(folder / "a.jsonl"),
                CsvSink(folder / "a.csv"),
                CsvSink(folder / "b.csv", kinds=("customer",)),
            ]
            takers = [sink.of_run(_origin(FakeClock(_START))) for sink in sinks]
            for event in _Made(number).events(25):
                for take in takers:
                    take(event)
        for file in sorted(folder.iterdir()):
            yield from (f"{file.name}: {line}" for line in file.read_text().split("\n"))


def _metrics() -> Iterator[str]:
    for number in range(12):
        registry = CollectorRegistry()
        sink = PrometheusSink(registry)
        take = sink.of_run(_origin(FakeClock(_START)))
        names = mock.patch.object(metering, "_MOST_NAMES", 1 if number % 3 == 0 else 200)
        held = mock.patch.object(metering, "_MOST_HELD", 2 if number % 4 == 0 else 100_000)
        with names, held:
            for event in _Made(number).events(30):
                take(event)
        lines = generate_latest(registry).decode().split("\n")
        yield from (f"{number}: {line}" for line in lines if "_created" not in line)
    with mock.patch.object(prometheus, "REGISTRY", CollectorRegistry()) as ours:
        PrometheusSink()
        yield from generate_latest(ours).decode().split("\n")[:3]


class _Meter:
    """Takes what is counted."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def get_meter(self, *args: Any, **kwargs: Any) -> _Meter:
        self.told.append(f"{args} {kwargs}")
        return self

    def create_counter(self, name: str, unit: str, words: str) -> Any:
        self.told.append(f"{name} {unit} {words}")
        return mock.Mock(add=lambda amount, labels=None: self.told.append(f"{name} {amount} {labels}"))

    create_up_down_counter = create_counter


def _traces() -> Iterator[str]:
    for number in range(8):
        meter, spans = _Meter(), InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(spans))
        tracer = provider.get_tracer("test")
        with mock.patch("opentelemetry.metrics.get_meter", meter.get_meter):
            sink = OTelSink(cost_attributes=("gen_ai.usage.cost",) if number % 2 else ())
        take = sink.of_run(_origin(FakeClock(_START)))
        for event in _Made(number).events(12):
            take(event)
            with tracer.start_as_current_span("outer"):
                take(event)
                take(_Made(number).usage())
                with trace.use_span(trace.NonRecordingSpan(trace.get_current_span().get_span_context())):
                    take(event)
        yield from (f"{number}: {line}" for line in meter.told)
        for span in spans.get_finished_spans():
            told = [(each.name, dict(each.attributes or {})) for each in span.events]
            yield f"{number}: {dict(span.attributes or {})} {told}"


def _webhooks() -> Iterator[str]:
    """Messages to a receiver that takes some, is slow, away, elsewhere or gone."""
    for number in range(70):
        chance = random.Random(number)
        clock = FakeClock(_START)
        made = _Made(number)
        yield f"{number}:"
        with tempfile.TemporaryDirectory() as folder:
            ids = iter(range(1_000))
            with (
                mock.patch.object(webhook.WebhookSink, "_start"),
                mock.patch.object(webhook.uuid, "uuid4", lambda ids=ids: mock.Mock(hex=f"{next(ids):03}")),
                mock.patch.object(webhook.random, "uniform", lambda low, high: (low + high) / 2),
                mock.patch.object(webhook, "_log") as log,
            ):
                sink: Any = WebhookSink(
                    "https://hooks.example/in?x=1",
                    secret=_SECRETS if number % 3 == 0 else _SECRETS[0],
                    path=Path(folder) / "hooks.db",
                    clock=clock,
                    **_options(chance),
                )
                answer = _Answers(chance)
                sink._receiver.post = answer
                takers = [sink.of_run(_origin(clock)), sink.of_run(Origin("r2", {}, None, clock))]
                for _ in range(12):
                    for event in made.events(chance.choice([0, 1, 3])):
                        chance.choice(takers)(event)
                    yield f"  {sink.waiting} wait, {sink.dropped} dropped, next in {sink.deliver()}"
                    yield from answer.told
                    answer.told.clear()
                    clock.advance(chance.choice([0, 4.9, 5.1, 6, 60, 400, 9_000, 100_000]))
                yield f"  {sink.is_disabled} {[[str(each) for each in call.args] for call in log.method_calls]}"
                sink.close()


def _options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if chance.random() < 0.7:
        options["types"] = chance.sample(webhook.TYPES, chance.choice([1, 3, 6]))
    if chance.random() < 0.3:
        options["most_waiting"] = chance.choice([1, 2])
    return options


class _Answers:
    """A receiver that answers by chance, mostly as it did before."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.told: list[str] = []
        self.last: Any = webhook.Answered(204)

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> Any:
        shown = json.dumps(json.loads(body), sort_keys=True)
        self.told.append(f"  {shown[:700]} {len(shown)} {dict(headers)}")
        if self.chance.random() < 0.4:
            self.last = self.chance.choice(_ANSWERS)
        if isinstance(self.last, Exception):
            raise self.last
        self.told.append(f"  {self.last}")
        return self.last


_ANSWERS: tuple[Any, ...] = (
    *(webhook.Answered(status) for status in (199, 200, 204, 299, 300, 301, 308, 399, 400, 404, 500)),
    *(webhook.Answered(status, after) for status in (429, 500, 502, 503, 504) for after in (None, 0.0, 90.0, 10**6)),
    webhook.Answered(410),
    OSError("away"),
    webhook.http.client.BadStatusLine("odd"),
)

_ADDRESSES = (
    *("93.184.216.34", "10.0.0.1", "127.0.0.1", "169.254.1.1", "192.168.1.1", "172.32.0.1", "100.64.0.1", "224.0.0.1"),
    *("0.0.0.0", "255.255.255.255", "8.8.8.8", "::1", "::", "2606:4700::1111", "fe80::1", "fc00::1", "ff02::1"),
    *("::ffff:10.0.0.1", "::ffff:8.8.8.8", "::10.0.0.1", "::8.8.8.8", "64:ff9b::a00:1", "64:ff9b::808:808"),
    *("2002:a00:1::", "2002:808:808::", "2001:db8::1"),
)
_URLS = (
    *("https://hooks.example", "https://hooks.example/", "https://hooks.example:8443/a?b=c", "http://hooks.example/a"),
    *(
        "ftp://hooks.example",
        "https://",
        "https://u@hooks.example",
        "https://:p@hooks.example",
        "https://10.0.0.1/a",
        "",
    ),
    *(
        "https://8.8.8.8",
        "https://[::1]/",
        "https://[2606:4700::1111]:9/",
        "http://127.0.0.1:80/x?y#z",
        "hooks.example",
    ),
)


def _receivers() -> Iterator[str]:
    for address in _ADDRESSES:
        yield f"{address}: {webhook._is_public(ipaddress.ip_address(address))}"
    for url in _URLS:
        for allow in (True, False):
            try:
                made = webhook._Receiver(url, allow_private=allow)
                told: Any = (made.host, made._port, made._authority, made._target, made._is_plain)
            except (ValueError, OSError) as error:
                told = f"{type(error).__name__}: {error}"
            yield f"{url} {allow}: {told}"
    for text in (None, "", "5", "-3", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "inf"):
        yield f"{text}: {webhook._seconds(text)}"
    for secret in (_SECRETS[0], _SECRETS[0].removeprefix("whsec_"), "whsec_", "whsec_!", "", "whsec_" + "QUFB" * 5):
        try:
            yield f"{secret}: {len(webhook._key(secret))}"
        except ValueError as error:
            yield f"{secret}: {error}"
    for addresses in (["8.8.8.8"], ["8.8.8.8", "10.0.0.1"], ["fe80::1%eth0"], ["1.1.1.1", "8.8.4.4"]):
        for url in ("https://hooks.example/a?b", "http://hooks.example:81"):
            yield f"{addresses} {url}: {_posted(addresses, url)}"


def _posted(addresses: Sequence[str], url: str) -> str:
    """How a message is sent to an address that a name stands for."""
    found = [(0, 0, 0, "", (each, 1)) for each in addresses]
    told: list[object] = []

    def noting(result: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            told.append((args, kwargs))
            return result

        return noted

    sock = mock.MagicMock(close=noting(None))
    connect = mock.Mock(side_effect=[OSError("no way there"), sock] if len(addresses) > 1 else [sock])
    answer = mock.Mock(status=429, getheader=lambda name: {"Retry-After": "7"}.get(name))
    connection = mock.Mock(getresponse=lambda: answer, close=noting(None))
    context = mock.Mock(wrap_socket=mock.Mock(return_value=sock))
    with (
        mock.patch.object(webhook.socket, "getaddrinfo", noting(found)),
        mock.patch.object(webhook.socket, "create_connection", connect),
        mock.patch.object(webhook.ssl, "create_default_context", lambda: context),
        mock.patch.object(webhook.http.client, "HTTPConnection", noting(connection)),
    ):
        try:
            receiver = webhook._Receiver(url, allow_private=url.startswith("http:"))
            told.append(receiver.post(b"{}", {"A": "b"}))
        except (ValueError, OSError) as error:
            told.append(f"{type(error).__name__}: {error}")
    return f"{told} {connect.mock_calls} {connection.request.call_args} {context.wrap_socket.call_args is None}"


def _timelines() -> Iterator[str]:
    """What is kept of many events, and what is marked."""
    for number in range(12):
        made, chance = _Made(number), random.Random(number)
        clock = FakeClock(_START)
        line = Timeline(clock)
        heard: list[Event] = []
        stop = line.subscribe(heard.append) if number % 2 else None
        yield f"{number}: {line.at()} {line.duration()} {line.is_watched} {line.ended_s}"
        for at in range(60):
            clock.advance(1)
            event = made.event()
            (line.mark if chance.random() < 0.6 else line.emit)(event)
            line.emit(_posting(chance, at))
            if at == 5:
                line.start()
            if at == 50 and stop is not None:
                stop()
        line.end()
        clock.advance(9)
        yield f"{number}: {line.start()} {line.at()} {line.duration()} {line.is_watched} {line.ended_s} {len(heard)}"
        yield from (f"{number}: {event}" for event in (*line.events(25), *line.marks()))
        yield from (f"{number}: {told}" for told in line.described(40))
        yield from (f"{number}: {describe(event)}" for event in made.events(20))
    yield f"{[kind.__name__ for kind in get_args(Event)]}"
    line = Timeline(FakeClock(_START))
    for at in range(203):
        line.mark(SessionRevoked(float(at), "x"))
    yield f"{len(line.marks())} {line.marks()[-1]}"


def _posting(chance: random.Random, at: int) -> Posting:
    usage = chance.choice([None, Usage(cache_read=3, reasoning=2)])
    amounts = Amounts(at, 5, 6, 11, *chance.choice([(1, 0), (0, 1)]))
    return Posting(float(at), f"p{at}", "large", amounts, 0, at % 2 == 0, at % 5 == 0, False, agent="a", usage=usage)


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "files": _files,
    "metrics": _metrics,
    "traces": _traces,
    "webhooks": _webhooks,
    "receivers": _receivers,
    "timelines": _timelines,
}
NAMES: Sequence[str] = tuple(TABLES)


def lines_of(name: str) -> Iterator[str]:
    """The lines of that table."""
    yield from lines_under(name, TABLES[name]())
