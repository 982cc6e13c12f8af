"""Made-up JSON, and requests and answers of all dialects that are mostly right."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COHERE_CHAT,
    COMPLETIONS,
    CONVERSE,
    EMBEDDINGS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Dialect,
    Endpoint,
    endpoint,
)

ENDPOINTS: dict[str, tuple[Dialect, Endpoint]] = {
    dialect.name: (dialect, endpoint("POST", host, path))
    for dialect, host, path in (
        (CHAT_COMPLETIONS, "api.openai.com", "/v1/chat/completions"),
        (RESPONSES, "api.openai.com", "/v1/responses"),
        (COMPLETIONS, "api.openai.com", "/v1/completions"),
        (EMBEDDINGS, "api.openai.com", "/v1/embeddings"),
        (MESSAGES, "api.anthropic.com", "/v1/messages"),
        (GENERATE_CONTENT, "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:generateContent"),
        (CONVERSE, "bedrock-runtime.us-east-1.amazonaws.com", "/model/anthropic.claude-sonnet-4-5/converse"),
        (COHERE_CHAT, "api.cohere.com", "/v2/chat"),
    )
}
DIALECTS = sorted(ENDPOINTS)

_WORDS = (
    "model messages content role type text input output usage prompt_tokens completion_tokens total_tokens tools "
    "name id prompt_tokens_details cached_tokens completion_tokens_details reasoning_tokens choices message "
    "finish_reason delta input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens "
    "cache_creation iterations system ephemeral_5m_input_tokens server_tool_use web_search_requests contents parts "
    "inlineData generationConfig usageMetadata promptTokenCount candidatesTokenCount thoughtsTokenCount "
    "totalTokenCount promptTokensDetails modality tokenCount candidates groundingMetadata webSearchQueries "
    "inputTokens outputTokens totalTokens cacheDetails ttl billed_units tokens meta stream stream_options n best_of "
    "max_tokens max_completion_tokens maxOutputTokens inferenceConfig maxTokens cost cost_in_usd_ticks cost_details "
    "is_byok error code status action functionDeclarations googleSearch image_url url source data media_type "
    "additionalModelRequestFields toolResult toolUse prompt suffix response message_start service_tier speed "
    "inference_geo fallbacks models plugins container cache_control format response_format annotations"
).split()
_VALUES = (
    "user function web_search image image_url input_image document text base64 message reasoning compaction "
    "item_reference web_search_call search completed AUDIO 5m 1h fast priority gpt-4o claude-sonnet-4-5 "
    "gemini-2.5-flash auto json_schema data:image/png;base64,AAAA length stop max_tokens MAX_TOKENS "
    "response.completed message_delta"
).split()

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.sampled_from([0, 1, 2**60, -1, 2**70])
    | st.floats(allow_nan=True)
    | st.sampled_from(_VALUES)
    | st.text(max_size=8)
)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=30,
)
json_objects = st.dictionaries(st.sampled_from(_WORDS), json_values, max_size=8)
