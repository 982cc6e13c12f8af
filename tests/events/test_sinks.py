"""Sinks write what happened to files and metrics: once a call, without an end to no label, harmless to who reads it."""

from __future__ import annotations

import csv
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from budget_guard import Budget, Session, ToolCall, Usage
from budget_guard.events.sinks import CsvSink, JsonlSink, OTelSink, PrometheusSink
from tests.builders import call, session


def pay(run: Session, model: str = "large", **options: Any) -> None:
    run.authorize(call(model, **options)).require().commit(Usage(input=60, cache_read=40, output=20, reasoning=5))


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
def test_files_are_made_for_their_owner_alone_and_added_to(tmp_path: Path, sink: type[JsonlSink | CsvSink]) -> None:
    path = tmp_path / "usage"
    for _ in range(2):  # as after a restart
        run = session("$5")
        run.subscribe(sink(path))
        pay(run)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().splitlines()) == (2 if sink is JsonlSink else 3)
    with pytest.raises(ValueError, match="must name a file"):
        sink(tmp_path)


def test_a_line_of_json_is_a_usage_event(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    run = session("$5", run_id="r1", tags={"user": 'u\n"1"'})
    run.subscribe(JsonlSink(path))
    pay(run, agent="writer")

    (line,) = path.read_text().splitlines()
    told = json.loads(line)
    assert told["principals"] == {"user": 'u\n"1"'}
    assert told["tokens"] == {
        **{"input_tokens": 100, "cached_tokens": 40, "cache_written_tokens": 0},
        **{"output_tokens": 25, "reasoning_tokens": 5},
    }
    assert (told["cost_usd"], told["name"], told["agent"], told["source"]) == ("0.00035", "large", "writer", "price")


def test_a_row_is_a_usage_event_and_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    run = session("$5", tags={"user": "=HYPERLINK(1)", "org": "o1"})
    run.subscribe(CsvSink(path, kinds=("org",)))
    pay(run)
    run.charge("a, b\n'c'", "0.25")

    first, second = csv.DictReader(path.read_text().splitlines(keepends=True))
    assert (first["user"], first["org"], first["cost_usd"]) == ("'=HYPERLINK(1)", "o1", "0.00035")
    assert (first["input_tokens"], first["reasoning_tokens"], first["team"]) == ("100", "5", "")
    assert (second["name"], second["kind"], second["cost_usd"]) == ("a, b\n'c'", "tool", "0.25")


def test_a_file_that_cannot_be_written_breaks_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    run = session("$5")
    run.subscribe(JsonlSink(folder / "usage.jsonl"))
    folder.rmdir()
    pay(run)

    assert run.committed.cost == 350_000
    assert "a budget_guard subscriber failed" in caplog.text


# --- Prometheus


def value(registry: CollectorRegistry, metric: str, /, **labels: str) -> float | None:
    return registry.get_sample_value(metric, labels)


def test_prometheus_counts_what_was_booked_and_shows_what_is_held() -> None:
    registry = CollectorRegistry()
    run = session("$5")
    run.subscribe(PrometheusSink(registry))
    pay(run)
    run.charge("search", "0.25")
    held = run.authorize(call("dime")).require()

    assert value(registry, "budget_guard_cost_usd_total", kind="model", name="large", source="price") == 0.00035
    assert value(registry, "budget_guard_cost_usd_total", kind="tool", name="search", source="price") == 0.25
    assert value(registry, "budget_guard_tokens_total", name="large", type="input") == 100
    assert value(registry, "budget_guard_tokens_total", name="large", type="reasoning") == 5
    assert value(registry, "budget_guard_calls_total", kind="model", name="large") == 1
    assert value(registry, "budget_guard_held_usd") == 0.1
    held.release("it was not sent")
    assert value(registry, "budget_guard_held_usd") == 0


def test_prometheus_counts_refusals_and_soft_limits() -> None:
    registry = CollectorRegistry()
    run = session("$0.10")
    run.subscribe(PrometheusSink(registry))
    run.authorize(call()).require().commit(Usage(input=1))
    run.authorize(call())

    assert value(registry, "budget_guard_refused_calls_total", name="dime") == 1
    assert value(registry, "budget_guard_soft_limits_total", scope="run", dimension="max_cost_usd") == 1


def test_an_estimate_that_is_replaced_counts_one_call_and_never_goes_down() -> None:
    registry = CollectorRegistry()
    run = session("$5")
    run.subscribe(PrometheusSink(registry))
    held = run.authorize(call("large", cap=1_000)).require()
    held.commit_estimate("the stream broke off")
    guessed = value(registry, "budget_guard_cost_usd_total", kind="model", name="large", source="estimate")
    held.commit(Usage(input=60, output=20))

    assert value(registry, "budget_guard_calls_total", kind="model", name="large") == 1
    assert value(registry, "budget_guard_cost_usd_total", kind="model", name="large", source="estimate") == guessed
    assert value(registry, "budget_guard_held_usd") == 0


def test_no_label_is_without_an_end() -> None:
    registry = CollectorRegistry()
    run = session(Budget("$500"), tags={"user": "a-user"}, run_id="a-run")
    run.subscribe(PrometheusSink(registry))
    for number in range(300):
        run.charge(f"tool {number}", "0.01")

    samples = [sample for metric in registry.collect() for sample in metric.samples]
    names = {sample.labels.get("name") for sample in samples}
    assert len(names - {None}) == 201 and "(others)" in names
    assert not any(word in str(sample.labels) for sample in samples for word in ("a-user", "a-run"))


# --- OpenTelemetry


@pytest.fixture(autouse=True)
def _enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)  # a framework that is tested beside it sets it


@pytest.fixture
def spans() -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


def metrics_of(reader: InMemoryMetricReader) -> dict[str, dict[Any, float]]:
    data: Any = reader.get_metrics_data()
    return {
        metric.name: {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }


def test_a_call_has_its_cost_on_its_own_span_once(spans: tuple[trace.Tracer, InMemorySpanExporter]) -> None:
    tracer, exporter = spans
    run = session("$5", run_id="r1")
    run.subscribe(OTelSink())
    for name in ("one", "two"):
        with tracer.start_as_current_span(name):
            pay(run)
    with tracer.start_as_current_span("both"):
        pay(run)
        pay(run)
    pay(run)  # within none

    one, two, both = exporter.get_finished_spans()

    def cost(span: ReadableSpan) -> object:
        return dict(span.attributes or {})["gen_ai.usage.cost.amount"]

    assert [cost(span) for span in (one, two, both)] == [0.00035, 0.00035, 0.0007]
    attributes = dict(one.attributes or {})
    assert attributes["gen_ai.usage.cost.currency"] == "USD" and attributes["gen_ai.usage.cost.source"] == "local"
    assert attributes["budget_guard.run_id"] == "r1"
    assert [event.name for event in one.events] == ["budget_guard.call.committed"]


def test_a_cost_may_stand_under_the_name_that_a_platform_reads(
    spans: tuple[trace.Tracer, InMemorySpanExporter],
) -> None:
    tracer, exporter = spans
    run = session("$5")
    run.subscribe(OTelSink(cost_attributes=("gen_ai.usage.cost",)))
    with tracer.start_as_current_span("work"):
        run.charge("search", "0.02")
        run.charge("search", "0.03")
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.cost"] == span.attributes["gen_ai.usage.cost.amount"] == 0.05
    with pytest.raises(TypeError, match=r"cost_attributes='x' is a text: write \('x',\)"):
        OTelSink(cost_attributes="x")


def test_refusals_downgrades_and_soft_limits_are_events_of_the_span(
    spans: tuple[trace.Tracer, InMemorySpanExporter],
) -> None:
    tracer, exporter = spans
    run = session(Budget("$0.10", max_requests=2, downgrade={"dime": "penny"}))
    run.subscribe(OTelSink())
    with tracer.start_as_current_span("agent"):
        run.authorize(call()).require().commit(Usage(input=1))
        run.authorize(call())

    (span,) = exporter.get_finished_spans()
    names = [event.name for event in span.events]
    assert names[:2] == ["budget_guard.soft_limit.reached", "budget_guard.call.committed"]
    assert "budget_guard.call.blocked" in names


def test_metrics_count_once_and_what_is_held_goes_up_and_down() -> None:
    reader = InMemoryMetricReader()
    sink = OTelSink(MeterProvider([reader]))
    runs = [session("$5", run_id=f"r{n}", tags={"user": f"u{n}"}) for n in range(3)]
    for run in runs:
        run.subscribe(sink)
        pay(run)
        run.authorize(ToolCall("search", 10_000_000))

    found = metrics_of(reader)
    labels = (("kind", "model"), ("name", "large"), ("source", "price"))
    assert found["budget_guard.cost"] == {labels: pytest.approx(0.00105)}
    assert found["budget_guard.reserved"] == {(): pytest.approx(0.03)}
    assert found["budget_guard.tokens"][("name", "large"), ("type", "input")] == 300
    assert not any("run" in str(key) or "u1" in str(key) for points in found.values() for key in points)


@pytest.mark.parametrize(
    ("package", "sink", "extra"),
    [("opentelemetry", "OTelSink", "otel"), ("prometheus_client", "PrometheusSink", "prometheus")],
)
def test_without_its_extra_a_sink_says_how_to_get_it(package: str, sink: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom budget_guard.events.sinks import {sink}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f'pip install "budget-guard-py[{extra}]"' in ran.stderr


def test_the_core_loads_none_of_them() -> None:
    code = (
        "import sys, budget_guard, budget_guard.events\n"
        "print(*{'sqlite3', 'opentelemetry', 'prometheus_client', 'http.client'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
