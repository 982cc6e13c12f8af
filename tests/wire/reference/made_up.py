"""Requests and answers with a field more, with something else in the place of a value, and with several such at once.

`corpus.variants` changes one thing that is there. What is not there, and what counts only beside something else, is
tried here: fields that a dialect looks for, anywhere in the body, and changes together, made up by a number.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"

_OPENAI_FIELDS = """
    model stream n user store metadata seed temperature top_p tools tool_choice parallel_tool_calls service_tier
    moderation route session_id text type role content name input output usage id status error message
    reasoning_effort prompt_cache_key prompt_cache_retention prompt_cache_options cache_control ttl detail url file_id
"""
FIELDS: Mapping[str, str] = {
    "chat completions": f"""{_OPENAI_FIELDS} messages max_tokens max_completion_tokens max_new_tokens num_predict
        options functions modalities audio prediction response_format stream_options include_usage plugins
        web_search_options search_parameters search_mode disable_search mcp_servers enable_thinking
        chat_template_kwargs thinking extra_body audio_url input_audio video_url input_video image_url image
        file file_data data format refusal reasoning_content reasoning tool_calls function_call function
        arguments finish_reason choices delta index prompt_tokens completion_tokens total_tokens
        prompt_tokens_details completion_tokens_details cached_tokens cache_creation_tokens cache_creation
        cache_creation_token_details cache_write_tokens ttl_12h_tokens audio_tokens image_tokens
        reasoning_tokens accepted_prediction_tokens rejected_prediction_tokens prompt_cache_hit_tokens
        num_sources_used live_search_sources num_search_queries citation_tokens cost output_citation_tokens
        server_tool_use web_search_requests x_groq provider citations search_results return_images best_of
        models fallbacks""",
    "responses": f"""{_OPENAI_FIELDS} instructions max_output_tokens max_tool_calls previous_response_id conversation
        background truncation include reasoning context_management compact_threshold item delta response output_text
        input_tokens output_tokens total_tokens input_tokens_details output_tokens_details cached_tokens
        cache_write_tokens cache_write_tokens_details reasoning_tokens audio_tokens image_tokens incomplete_details
        reason action call_id arguments encrypted_content summary image_url file_data file_url file_ids filename
        server_side_tool_usage_details web_search_calls x_search_calls code_interpreter_calls image_generation_calls
        container container_id queries results size quality partial_images input_audio audio prompt""",
    "messages": """model system messages max_tokens tools tool_choice service_tier speed inference_geo thinking
        budget_tokens output_config output_format effort context_management edits fallbacks mcp_servers container
        betas anthropic_beta anthropic_version stream metadata temperature cache_control ttl type text content source
        data url file_id media_type tool_use_id id name input is_error citations title context role skills
        usage input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens cache_creation
        ephemeral_5m_input_tokens ephemeral_1h_input_tokens output_tokens_details thinking_tokens server_tool_use
        web_search_requests web_fetch_requests code_execution_requests tool_search_requests iterations stop_reason
        stop_details message delta content_block index partial_json thinking signature error billing_policy
        fallback_credit_token""",
    "generateContent": """model contents systemInstruction system_instruction tools toolConfig generationConfig
        generation_config maxOutputTokens max_output_tokens candidateCount candidate_count responseModalities
        responseMimeType responseSchema responseJsonSchema thinkingConfig thinkingBudget speechConfig mediaResolution
        media_resolution cachedContent cached_content serviceTier service_tier labels modelArmorConfig parts text
        inlineData inline_data fileData file_data fileUri mimeType mime_type data thought thoughtSignature
        thought_signature functionCall function_call functionResponse function_response executableCode
        codeExecutionResult partMetadata videoMetadata videoDuration role googleSearch google_search googleMaps
        urlContext url_context codeExecution fileSearch enterpriseWebSearch functionDeclarations
        function_declarations usageMetadata usage_metadata promptTokenCount prompt_token_count candidatesTokenCount
        thoughtsTokenCount toolUsePromptTokenCount cachedContentTokenCount totalTokenCount promptTokensDetails
        cacheTokensDetails candidatesTokensDetails toolUsePromptTokensDetails modality tokenCount trafficType
        candidates finishReason finish_reason groundingMetadata grounding_metadata webSearchQueries
        web_search_queries imageSearchQueries groundingChunks maps web promptFeedback blockReason modelVersion
        responseId error image_config""",
    "converse": """modelId system messages inferenceConfig maxTokens temperature toolConfig tools toolSpec
        systemTool cachePoint ttl type performanceConfig latency serviceTier guardrailConfig guardContent
        additionalModelRequestFields max_tokens max_tokens_to_sample max_gen_len maxTokenCount max_new_tokens
        reasoningConfig reasoning_effort thinking speed anthropic_beta outputConfig requestMetadata promptVariables
        content text image video audio document searchResult source bytes s3Location toolUse toolResult
        reasoningContent reasoningText signature redactedContent citationsContent json format name role usage
        inputTokens outputTokens totalTokens cacheReadInputTokens cacheWriteInputTokens cacheDetails serverToolUsage
        webSearchRequests stopReason trace promptRouter invokedModelId output message messageStart messageStop
        metadata delta contentBlockDelta contentBlockStart __type""",
    "cohere chat": """model messages message chat_history preamble documents connectors tools tool_results max_tokens
        max_input_tokens response_format search_queries_only force_single_step raw_prompting thinking token_budget
        safety_mode citation_options conversation_id stream logprobs k p seed stop_sequences temperature role content
        type text image_url url usage billed_units tokens input_tokens output_tokens search_units classifications
        cached_tokens meta finish_reason delta tool_plan tool_calls event_type response generation_id id num_generations
        return_prompt priority""",
    "completions": """model prompt max_tokens n best_of echo suffix stream stream_options include_usage logprobs
        temperature seed user service_tier usage prompt_tokens completion_tokens total_tokens choices text
        finish_reason id error use_beam_search min_tokens prompt_embeds""",
    "embeddings": """model input inputs texts images dimensions encoding_format input_type user truncation truncate
        task prompt_name usage prompt_tokens total_tokens completion_tokens data object id error image content type""",
}
"""Fields of each dialect, wherever they belong there, and some that belong to others."""
KINDS = """
    text input_text output_text refusal image image_url input_image file input_file document input_audio audio video
    video_url thinking redacted_thinking reasoning tool_use tool_result server_tool_use web_search_tool_result
    web_fetch_tool_result code_execution_tool_result bash_code_execution_tool_result mcp_tool_use mcp_tool_result
    container_upload search_result tool_reference tool_search_tool_result fallback function_call
    function_call_output custom_tool_call custom_tool_call_output item_reference compaction compaction_summary
    web_search_call file_search_call code_interpreter_call image_generation_call computer_call computer_call_output
    mcp_call mcp_list_tools mcp_approval_request mcp_approval_response local_shell_call shell_call
    apply_patch_call x_search_call collections_search_call message function custom web_search
    web_search_20260209 web_fetch_20250910 code_execution_20250825 mcp_toolset advisor_20260301 file_search
    code_interpreter image_generation mcp computer_use_preview namespace tool_search auto clear_thinking_20251015
    compact_20260112 json_schema json_object response.incomplete response.cancelled error advisor_message
    fallback_message compaction tool-call-start tool-call-delta base64 url content system developer assistant model
    priority flex standard batch on_demand provisioned_throughput PRIORITY ON_DEMAND_FLEX low medium high 5m 1h 24h
""".split()
"""Types, roles, tiers and the like."""
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 7, 250, 2.5, "", "x", "7", [], {}),
    *(["x"], [{}], [None], {"type": "text", "text": "word"}, [{"type": "text", "text": "word"}], {"x": {"y": [1]}}),
    *([{"type": "image", "source": {"type": "url", "url": "u"}}], {"url": "https://e.example/i"}, {"id": "1"}),
)
MADE_UP = 110
"""How many are made up of each body."""
_TRIED = 0.1
"""How much of all fields in all places is tried."""


def more_fields(dialect: str, body: Any) -> Iterator[tuple[str, Any]]:
    """*body* with fields of its *dialect* in places where they are not yet, and with other kinds of what has one."""
    for path, here in _places(body):
        where = ".".join(map(str, path))
        if isinstance(here, dict):
            for name in FIELDS[dialect].split():
                chance = random.Random(f"{where} {name}")
                if name not in here and chance.random() < _TRIED:
                    value = chance.choice(_VALUES)
                    yield f"{where} + {name} = {value!r}", _with(body, (*path, name), value)
        elif isinstance(here, str) and path and path[-1] in ("type", "role", "service_tier", "ttl", "stop_reason"):
            for kind in random.Random(where).sample(KINDS, len(KINDS) // 6):
                yield f"{where} = {kind}", _with(body, path, kind)


def other_shapes(body: Any) -> Iterator[tuple[str, Any]]:
    """*body* with each value in another shape: wrapped, unwrapped, nearly the same."""
    for path, here in _places(body):
        if path:
            where = ".".join(map(str, path))
            for name, value in _shapes(here):
                yield f"{where} {name}", _with(body, path, value)


def made_up(name: str, dialect: str, body: Any, many: int = MADE_UP) -> Iterator[tuple[str, Any]]:
    """*body* with two to five things changed at once."""
    fields = FIELDS[dialect].split()
    for number in range(many):
        chance = random.Random(f"{name} {number}")
        made = copy.deepcopy(body)
        for _ in range(chance.choice([2, 2, 3, 5])):
            places = _places(made)
            path, here = places[chance.randrange(len(places))]
            how = chance.random()
            if isinstance(here, dict) and how < 0.5:
                made = _with(made, (*path, chance.choice(fields)), chance.choice(_VALUES))
            elif path and how < 0.65:
                made = _without(made, path)
            elif path and how < 0.75 and isinstance(path[-1], int):
                made = _with(made, path[:-1], _once_more(made, path))
            elif path and how < 0.85:
                shapes = list(_shapes(here))
                made = _with(made, path, chance.choice(shapes)[1] if shapes else chance.choice(_VALUES))
            elif path:
                made = _with(made, path, chance.choice(KINDS if isinstance(here, str) else _VALUES))
        yield f"made up {number}", made


def _once_more(value: Any, path: Path) -> list[Any]:
    """The list in which the value at *path* is, with it twice."""
    for step in path[:-1]:
        value = value[step]
    at: Any = path[-1]
    return [*value[: at + 1], *value[at:]]


def _shapes(here: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(here, dict):
        yield "in a list", [here]
        for name, inner in here.items():
            yield f"is its {name}", inner
    elif isinstance(here, list):
        if here:
            yield "is its first", here[0]
            yield "its first alone", here[:1]
            yield "turned round", here[::-1]
        yield "with nothing", [*here, None]
        yield "with a word", ["word", *here]
    elif isinstance(here, str):
        yield "in capitals", here.upper()
        yield "and more", f"{here}-x"
        yield "with spaces", f" {here} "
        yield "without its last", here[:-1]
        yield "in a list", [here]
        for name in ("text", "url", "name", "type"):
            yield f"as a {name}", {name: here}
    elif type(here) is int:
        for name, other in (("and 1", here + 1), ("less 1", here - 1), ("doubled", here * 2), ("as a float", here / 1)):
            yield name, other
        yield "as text", str(here)
        yield "as one", 1


def _places(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Every value in *value*, itself first, and where it is."""
    found: list[tuple[Path, Any]] = [(path, value)]
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += _places(inner, (*path, step))
    return found


def _changed(value: Any, path: Path, change: Callable[[Any, Any], None]) -> Any:
    """*value* with the holder of *path* changed, and copied as far as that takes."""
    made = copy.copy(value)
    if len(path) == 1:
        change(made, path[0])
    else:
        made[path[0]] = _changed(made[path[0]], path[1:], change)
    return made


def _with(value: Any, path: Path, other: Any) -> Any:
    if not path:
        return copy.deepcopy(other)
    return _changed(value, path, lambda holder, step: holder.__setitem__(step, copy.deepcopy(other)))


def _without(value: Any, path: Path) -> Any:
    return _changed(value, path, lambda holder, step: holder.__delitem__(step))
