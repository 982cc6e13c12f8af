"""Anthropic Messages on Google's Vertex AI: https://platform.claude.com/docs/en/api/claude-on-vertex-ai."""

from __future__ import annotations

import re

from budget_guard.testing.wire import Incoming
from budget_guard.testing.wire_anthropic_messages import AnthropicMessagesWire


class AnthropicVertexWire(AnthropicMessagesWire):
    """The methods ``:rawPredict`` and ``:streamRawPredict``: the model is in the path, all else is as in Messages."""

    route = re.compile(r"/models/(?P<model>[^/:]+):(?P<verb>rawPredict|streamRawPredict)$")

    def streams(self, incoming: Incoming) -> bool:
        return incoming.named["verb"] == "streamRawPredict" or super().streams(incoming)
