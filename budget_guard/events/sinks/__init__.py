"""Sinks: subscribers that take events to files, to metrics, to traces, and to an address."""

from typing import TYPE_CHECKING

from budget_guard.events.sinks.files import CsvSink, JsonlSink

if TYPE_CHECKING:
    from budget_guard.events.sinks.otel import OTelSink
    from budget_guard.events.sinks.prometheus import PrometheusSink
    from budget_guard.events.sinks.webhook import WebhookSink

__all__ = ["CsvSink", "JsonlSink", "OTelSink", "PrometheusSink", "WebhookSink"]


def __getattr__(name: str) -> object:
    # loaded when they are first asked for: two need an extra, and the third an HTTP client
    if name == "OTelSink":
        from budget_guard.events.sinks.otel import OTelSink

        return OTelSink
    if name == "PrometheusSink":
        from budget_guard.events.sinks.prometheus import PrometheusSink

        return PrometheusSink
    if name == "WebhookSink":
        from budget_guard.events.sinks.webhook import WebhookSink

        return WebhookSink
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
