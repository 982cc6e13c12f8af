"""OpenAI Embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator

from budget_guard.testing.answer import Answer
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import weigh_prompts
from budget_guard.testing.wire import (
    Incoming,
    Json,
    Step,
    Wire,
    dressed,
    model_of,
    openai_error,
    optional_int,
    required,
    told_usage,
)
from budget_guard.testing.wire_openai_completions import prompts_in

_DIMENSIONS = 4


class OpenAIEmbeddingsWire(Wire):
    """The endpoint ``/v1/embeddings``, also of Azure's deployments. It has no output and no stream."""

    route = re.compile(r"(?:/deployments/(?P<model>[^/]+))?/embeddings$")

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        inputs = prompts_in(required(body, "input", (str, list)))
        return ProviderRequest(
            endpoint="embeddings",
            model=model_of(incoming),
            messages=inputs,
            choices=len(inputs),
            samples=0,
            input_tokens=weigh_prompts(inputs),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        vector = [0.5] * (optional_int(request.body, "dimensions") or _DIMENSIONS)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        embedding = packed if request.body.get("encoding_format") == "base64" else vector
        data = [{"object": "embedding", "index": index, "embedding": embedding} for index in range(answer.choices)]
        true = {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens}
        return dressed(answer, {"object": "list", "data": data, "model": answer.model, **told_usage(answer, true)})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        raise NotImplementedError("embeddings are never streamed")

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)
