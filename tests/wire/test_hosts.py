"""Who answers where, in which dialect, and what a region adds to a price."""

from __future__ import annotations

import subprocess
import sys

import pytest

from budget_guard.wire import dialect_for, dialect_of_answer, endpoint


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        ("api.openai.com", "/v1/chat/completions", "chat completions"),
        ("API.OPENAI.COM:443", "/v1/chat/completions/", "chat completions"),
        ("contoso.openai.azure.com", "/openai/deployments/x/chat/completions?api-version=1", "chat completions"),
        ("contoso.openai.azure.com", "/openai/v1/responses", "responses"),
        ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "chat completions"),
        ("openrouter.ai", "/api/v1/chat/completions", "chat completions"),
        ("api.groq.com", "/openai/v1/chat/completions", "chat completions"),
        ("api.deepseek.com", "/chat/completions", "chat completions"),
        ("api.cohere.ai", "/compatibility/v1/chat/completions", "chat completions"),
        ("aiplatform.googleapis.com", "/v1/projects/p/endpoints/openapi/chat/completions", "chat completions"),
        ("adb-1.azuredatabricks.net", "/serving-endpoints/chat/completions", None),
        ("", "/chat/completions", "chat completions"),
        ("api.openai.com", "/v1/responses", "responses"),
        ("api.openai.com", "/v1/completions", "completions"),
        ("api.openai.com", "/v1/embeddings", "embeddings"),
        ("api.anthropic.com", "/v1/messages", "messages"),
        ("api.anthropic.com", "/v1/messages?beta=true", "messages"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/anthropic.claude-sonnet-4-5-v1%3A0/invoke", "messages"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/arn%3Aaws%3Abedrock%3Aprofile%2Fab/invoke", "messages"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/meta.llama3/invoke", None),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/meta.llama3/converse-stream", "converse"),
        ("us-east5-aiplatform.googleapis.com", "/v1/projects/p/publishers/anthropic/models/c@1:rawPredict", "messages"),
        ("generativelanguage.googleapis.com", "/v1beta/models/g-2.5:streamGenerateContent?alt=sse", "generateContent"),
        ("api.cohere.com", "/v2/chat", "cohere chat"),
        ("api.cohere.com", "/v1/chat", "cohere chat"),
        ("p.example", "/v2/chat", None),
        ("api.openai.com", "/v1/threads/t/messages", None),
        ("api.openai.com", "/v1/images/generations", None),
        ("api.openai.com", "/v1/responses/compact", None),
        ("api.openai.com", "/v1/responses/resp_1/cancel", None),
        ("api.anthropic.com", "/v1/messages/count_tokens", None),
        ("api.anthropic.com", "/v1/messages/batches", None),
        ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:countTokens", None),
        ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:batchGenerateContent", None),
    ],
)  # fmt: skip
def test_a_dialect_is_found_by_the_whole_path(host: str, path: str, name: str | None) -> None:
    found = dialect_for("POST", host, path)

    assert (found and found.name) == name
    assert dialect_for("GET", host, path) is None


@pytest.mark.parametrize(
    ("host", "provider", "region"),
    [
        ("api.openai.com", "openai", None),
        ("eu.api.openai.com", "openai", "eu"),
        ("us.api.openai.com", "openai", "us"),
        ("evil-api.openai.com", None, None),
        ("api.openai.com.evil.example", None, None),
        ("contoso.services.ai.azure.com", "azure", None),
        ("us-east5-aiplatform.googleapis.com", "google", "us-east5"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws", "eu-west-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "aws", "us-gov-west-1"),
        ("api.perplexity.ai", "perplexity", None),
        ("api.moonshot.ai", "moonshotai", None),
        ("api.moonshot.cn", "moonshotai", None),
        ("api.cohere.com", "cohere", None),
        ("api.cohere.ai", "cohere", None),
        ("api.together.ai", "together", None),
        ("api.minimax.io", "minimax", None),
        ("api.voyageai.com", "voyageai", None),
        ("contoso.openai.azure.com", "azure", None),
        ("contoso.openai.azure.us", "azure", None),
        ("contoso.cognitiveservices.azure.com", "azure", None),
        ("aiplatform.googleapis.com", "google", None),
        ("[::1]:8080", None, None),
        ("", None, None),
    ],
)
def test_a_host_says_who_answers_and_where(host: str, provider: str | None, region: str | None) -> None:
    found = endpoint("post", host, "/x")

    assert (found.method, found.provider, found.region) == ("POST", provider, region)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"object": "chat.completion", "usage": {}}, "chat completions"),
        ({"object": "response", "usage": {}}, "responses"),
        ({"object": "text_completion", "usage": {}}, "completions"),
        ({"object": "list", "data": [], "usage": {}}, "embeddings"),
        ({"type": "message", "usage": {}}, "messages"),
        ({"usageMetadata": {}}, "generateContent"),
        ({"usage_metadata": {}}, "generateContent"),
        ({"stopReason": "x", "usage": {}}, "converse"),
        ({"usage": {"billed_units": {}}}, "cohere chat"),
        ({"meta": {"billed_units": {}}}, "cohere chat"),
        ({"choices": [], "usage": {}}, "chat completions"),
        ({"usage": {}}, None),
        ({"object": "response"}, None),
        ({"type": "message"}, None),
        ({"stopReason": "x"}, None),
        ({"choices": []}, None),
        ("x", None),
    ],
)
def test_an_answer_shows_its_dialect(body: object, name: str | None) -> None:
    found = dialect_of_answer(body)

    assert (found and found.name) == name


def test_no_framework_and_no_http_library_is_imported() -> None:
    unwanted = "httpx httpx2 openai anthropic agents langchain_core requests aiohttp botocore".split()
    code = f"import sys, budget_guard.wire; print(*set({unwanted}) & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == ""
