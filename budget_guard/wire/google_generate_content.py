"""Google's generateContent and streamGenerateContent: https://ai.google.dev/api/generate-content. Vertex speaks it
too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from budget_guard.estimate.prompt import weigh
from budget_guard.wire.answer import Answer, served_tier, unreadable
from budget_guard.wire.counting import Counts, later_report, read_counts, with_events
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Rewritten, put_field, unchanged
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import MediaRules, document_tokens, media_rules, picture_tokens
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request
from budget_guard.wire.tools import tool_name_of_type
from budget_guard.wire.values import Json, collect_texts, fields, items, text, whole
from budget_guard.wire.weighing import A_FILE, A_VIDEO, AN_IMAGE, AUDIO, KEPT_CONTENT, Medium, Texts, looker, media_of

NAME = "generateContent"
MODEL_IN_PATH = re.compile(
    r"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?P<stream>streamGenerate|generate)Content$"
)
_KNOWN = frozenset(
    "contents systemInstruction tools toolConfig generationConfig safetySettings cachedContent labels model "
    "serviceTier store "
    "modelArmorConfig".split()
)
_SNAKE = re.compile(r"(?<!^)(?=[A-Z])")
_TEXT_FIELDS = frozenset(
    "text thought thoughtSignature thought_signature functionCall function_call executableCode executable_code "
    "codeExecutionResult code_execution_result partMetadata part_metadata".split()
)


def _get(value: Json, name: str) -> Any:
    """A field in either way of writing it: the servers take both."""
    found = value.get(name)
    return value.get(_snake(name)) if found is None else found


_snakes: dict[str, str] = {}


def _snake(name: str) -> str:
    known = _snakes.get(name)
    if known is None:
        known = _snakes[name] = _SNAKE.sub("_", name).lower()
    return known


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.title, rest))


def _unclear(value: Json) -> list[str]:
    """The fields that are there in both ways of writing them, or in none: nobody knows which the server takes."""
    return [
        name for name in value if "_" in name and (value.get(_camel(name)) is not None or _snake(_camel(name)) != name)
    ]


def _kind(part: Json) -> object:
    if "parts" in part or "role" in part:
        return "content"
    for kind in ("inlineData", "fileData", "functionResponse"):
        snake = _snake(kind)
        if kind in part:
            return kind if snake not in part else snake  # both: which one is taken is not known
        if snake in part:
            return kind
    if _TEXT_FIELDS.issuperset(part):
        return "text"
    return next(name for name in part if name not in _TEXT_FIELDS)


def _measure(rules: MediaRules, kind: str, part: Json) -> Medium | None:
    if kind == "fileData":
        return Medium(A_FILE)
    if kind != "inlineData":
        return None
    inline = fields(_get(part, "inlineData"))
    mime, data = str(_get(inline, "mimeType")).lower(), inline.get("data")
    encoded = data if isinstance(data, str) else ""
    if mime.startswith("image/"):
        level = _get(part, "mediaResolution")
        detail = fields(level).get("level") or (level if isinstance(level, str) else None)
        return Medium(AN_IMAGE, picture_tokens(rules, encoded, detail))
    if mime == "application/pdf":
        return Medium(A_FILE, document_tokens(rules, encoded))
    if mime.startswith("audio/"):
        return Medium(AUDIO)
    return Medium(A_VIDEO if mime.startswith("video/") else A_FILE)


_TEXTS = Texts(
    {
        "content": ("parts",),
        "text": (),
        "functionResponse": ("functionResponse.parts", "function_response.parts"),
    },
    _measure,
    _kind,
)


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    found = MODEL_IN_PATH.search(endpoint.path)
    name = found["model"] if found else (text(body.get("model")) or "").removeprefix("models/")
    model = aliases.get(name, name)
    config = fields(_get(body, "generationConfig"))
    contents: Any = body.get("contents")
    messages = items(contents) or ([contents] if contents else [])
    rules = media_rules("google", model)
    functions: list[Any] = []
    hosted: list[str] = []
    tools = body.get("tools")
    for tool in items(tools) or [tools]:
        for kind, value in fields(tool).items():
            if kind in ("functionDeclarations", "function_declarations"):
                functions += items(value)
            elif kind not in ("computerUse", "computer_use"):  # which the client runs
                hosted.append(tool_name_of_type(_camel(kind)))
    hosted = list(dict.fromkeys(hosted))
    opaque = [f"what {tool} may bring in" for tool in hosted]
    if _get(body, "cachedContent"):
        opaque.append(KEPT_CONTENT)
    if _get(body, "modelArmorConfig"):
        opaque.append("what Model Armor costs")
    unclear = (*_unclear(body), *_unclear(config))
    opaque += [f"{name} in two spellings" for name in unclear]
    system: str | None = None
    if instruction := _get(body, "systemInstruction"):
        texts: list[str] = []
        collect_texts(instruction, texts)
        system = "\x1f".join(texts)
        if any(_kind(fields(part)) != "text" for part in items(fields(instruction).get("parts"))):
            opaque.append("a system prompt of parts that are not text")
    schema = _get(config, "responseSchema") or _get(config, "responseJsonSchema")
    weighed = weigh(
        system=system, messages=messages, tools=functions, schema=schema, opaque=opaque, look=looker(_TEXTS, rules)
    )
    media = media_of(_TEXTS, rules, messages)
    modalities = frozenset(str(each).lower() for each in items(_get(config, "responseModalities"))) - {"text"}
    if _get(config, "speechConfig"):
        modalities |= {"audio"}
    needs = set(media.needs)
    if functions or hosted:
        needs.add("tools")
    if schema:
        needs.add("json_schema")
    if "audio" in modalities:
        needs.add("audio")
    more = [field for field in body if _camel(field) not in _KNOWN]
    cap = whole(_get(config, "maxOutputTokens"))
    return Request(
        NAME,
        model,
        weighed,
        endpoint.provider,
        cap,
        () if cap is None else ("maxOutputTokens",),
        max(1, whole(_get(config, "candidateCount")) or 1),
        _tier(_get(body, "serviceTier")),
        None,
        endpoint.region,
        modalities,
        frozenset(needs),
        tuple(hosted),
        (),
        bool(found and found["stream"] == "streamGenerate"),
        sound_tokens=media.sound_tokens,
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
        unclear=unclear,
    )


def _tier(tier: object) -> str | None:
    name = (text(tier) or "").lower().removeprefix("service_tier_")
    return None if name in ("", "unspecified") else name


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* with an output cap."""
    where = "generation_config" if "generation_config" in body else "generationConfig"
    config = dict(fields(body.get(where)))
    name = "max_output_tokens" if "max_output_tokens" in config else "maxOutputTokens"
    put = put_field(config, name, cap, ("max_output_tokens", "maxOutputTokens"))
    return Rewritten({**body, where: put.body}, tuple(f"{where}.{added}" for added in put.added))


def put_model(_: Endpoint, body: Json, model: str) -> Rewritten | None:
    """None: the path names the model."""
    return None


def _by_modality(details: object, modality: str) -> int:
    """The tokens of one modality."""
    counts = [
        _get(fields(entry), "tokenCount") for entry in items(details) if fields(entry).get("modality") == modality
    ]
    return sum(count for count in counts if type(count) is int and count > 0)


def read_usage(usage: Json) -> Counts:
    """The counts of a usage object: https://ai.google.dev/api/generate-content#UsageMetadata.

    The prompt includes what was cached; what tools brought in and thoughts stand beside prompt and candidates, and the
    total is the sum of these four. A count of zero is left out.
    """
    prompt, brought = _get(usage, "promptTokenCount"), _get(usage, "toolUsePromptTokenCount")
    made, thought = _get(usage, "candidatesTokenCount"), _get(usage, "thoughtsTokenCount")
    if type(prompt) is int and type(brought) is int and brought > 0:
        prompt += brought
    if type(thought) is int and thought > 0 and (made is None or type(made) is int):
        made = (made or 0) + thought
    detail_in, detail_cached = _get(usage, "promptTokensDetails"), _get(usage, "cacheTokensDetails")
    detail_tool, detail_out = _get(usage, "toolUsePromptTokensDetails"), _get(usage, "candidatesTokensDetails")
    return Counts(
        prompt,
        made,
        _get(usage, "totalTokenCount"),
        _get(usage, "cachedContentTokenCount"),
        input_audio=_by_modality(detail_in, "AUDIO") + _by_modality(detail_tool, "AUDIO"),
        cache_audio=_by_modality(detail_cached, "AUDIO"),
        input_image=max(
            0,
            _by_modality(detail_in, "IMAGE")
            + _by_modality(detail_tool, "IMAGE")
            - _by_modality(detail_cached, "IMAGE"),
        ),
        reasoning=thought,
        output_audio=_by_modality(detail_out, "AUDIO"),
        output_image=_by_modality(detail_out, "IMAGE"),
    )


_PER_PROMPT = re.compile(r"(?:models/)?gemini-(?:1|2)(?:\.\d+)?-.*")
"""Models whose searches are billed by the prompt, however many there are; later ones bill each query:
https://ai.google.dev/gemini-api/docs/google-search#pricing."""


def _events(candidates: Iterable[Any], model: str) -> dict[str, int]:
    """Billed events besides tokens, by their unit."""
    queries: set[str] = set()
    grounded = mapped = False
    for candidate in candidates:
        grounding = fields(_get(fields(candidate), "groundingMetadata"))
        for name in ("webSearchQueries", "imageSearchQueries"):
            # empty ones are not billed, nor is one twice
            queries.update(query for query in items(_get(grounding, name)) if isinstance(query, str) and query.strip())
        chunks = [fields(chunk) for chunk in items(_get(grounding, "groundingChunks"))]
        mapped = mapped or any("maps" in chunk for chunk in chunks)
        grounded = grounded or bool(_get(grounding, "searchEntryPoint")) or any("web" in chunk for chunk in chunks)
    events: dict[str, int] = {}
    if queries or grounded:
        events["web_search"] = 1 if _PER_PROMPT.fullmatch(model) else max(1, len(queries))
    if mapped:
        events["google_maps"] = 1
    return events


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    candidates = items(body.get("candidates"))
    usage = fields(_get(body, "usageMetadata"))
    if not candidates and not usage and body.get("error") is not None:
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    reading = read_counts(
        read_usage(usage),
        input_parts="inside",
        output_parts="inside",
        prompted=request is None or request.prompted,
        answered=any(items(fields(fields(candidate).get("content")).get("parts")) for candidate in candidates),
    )
    model = text(_get(body, "modelVersion"))
    found = reading.usage
    if found is not None:
        found = with_events(found, _events(candidates, model or ("" if request is None else request.model)))
    traffic = (text(_get(usage, "trafficType")) or "").lower()
    tier = traffic.removeprefix("on_demand_")
    if tier in ("traffic_type_unspecified", "provisioned_throughput"):
        tier = ""  # the latter is paid by the hour, whatever is used: the price of the token is the bound
    return Answer(
        NAME,
        found,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        model,
        served_tier(_tier(_get(usage, "serviceTier")) or tier),
        None,
        text(_get(body, "responseId")),
        None,
        any(_get(fields(candidate), "finishReason") == "MAX_TOKENS" for candidate in candidates),
    )


class _Stream(EventReader):
    """Reads the chunks of one streamed answer. Each carries the counts so far."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)
        self._request = request
        self._seen: dict[str, Any] = {}
        self._candidates: list[Json] = []

    def take(self, event: Json) -> None:
        if event.get("error") is not None:
            self.failed = True
        for name in ("modelVersion", "responseId"):
            value = _get(event, name)
            if value:
                self._seen[name] = value
        for candidate in items(event.get("candidates")):
            given = fields(candidate)
            for part in items(fields(given.get("content")).get("parts")):
                inner = fields(part)
                self.wrote(inner.get("text"))
                self.wrote(fields(_get(inner, "functionCall")))
            kept = _kept(given)
            if kept not in self._candidates:  # most chunks are alike in what matters
                self._candidates.append(kept)
            if _get(given, "finishReason"):
                self.choice_ended(given.get("index") or 0)  # zeros are left out
        if blocked := bool(_get(fields(_get(event, "promptFeedback")), "blockReason")):
            self.finished = True
        if usage := fields(_get(event, "usageMetadata")):
            self._seen["usageMetadata"] = later_report(fields(self._seen.get("usageMetadata")), usage)
            self.usage_came(self._request, alone=blocked)

    def whole(self) -> Answer:
        return read_answer({**self._seen, "candidates": self._candidates}, self._request)


def _kept(candidate: Json) -> Json:
    """What of a candidate matters for its bill."""
    parts = items(fields(candidate.get("content")).get("parts"))
    said = any(fields(part).get("text") or _get(fields(part), "functionCall") for part in parts)
    return {
        "content": {"parts": ["x"] if said else []},
        "finishReason": _get(candidate, "finishReason"),
        "groundingMetadata": _get(candidate, "groundingMetadata"),
    }


GENERATE_CONTENT = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
)
"""Google's generateContent."""
