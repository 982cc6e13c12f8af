"""Anthropic Messages on Amazon Bedrock: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-claude.html."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from budget_guard.testing.bedrock import exception_event, exception_headers, exception_in
from budget_guard.testing.event_stream import CONTENT_TYPE, event_frame, exception_frame
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.wire import Incoming, Json, mapping
from budget_guard.testing.wire_anthropic_messages import AnthropicMessagesWire


class AnthropicBedrockWire(AnthropicMessagesWire):
    """InvokeModel: the model is in the path, a stream's events are in binary frames, all else is as in Messages."""

    route = re.compile(r"/model/(?P<model>[^/]+)/(?P<verb>invoke|invoke-with-response-stream)$")

    def streams(self, incoming: Incoming) -> bool:
        return incoming.named["verb"] == "invoke-with-response-stream"

    def event(self, request: ProviderRequest, data: Any) -> bytes:
        exception = exception_in(data)
        if exception is not None:
            return exception_frame(*exception)
        if mapping(data).get("type") == "message_stop":
            data = {
                **mapping(data),
                "amazon-bedrock-invocationMetrics": {"invocationLatency": 1, "firstByteLatency": 1},
            }
        written = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        return event_frame("chunk", {"bytes": base64.b64encode(written.encode()).decode(), "p": "abcdefgh"})

    def stream_type(self, request: ProviderRequest) -> str:
        return CONTENT_TYPE

    def error(self, status: int, message: str) -> Json:
        return {"message": message}

    def error_headers(self, status: int) -> Mapping[str, str]:
        return exception_headers(status)

    def error_event(self, status: int, message: str) -> Json:
        return exception_event(status, message)
