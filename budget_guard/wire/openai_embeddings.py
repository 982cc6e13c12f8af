"""OpenAI Embeddings: https://platform.openai.com/docs/api-reference/embeddings. They have no output to pay for."""

from __future__ import annotations

from budget_guard.estimate.prompt import weigh
from budget_guard.wire.answer import Answer, unreadable
from budget_guard.wire.counting import Counts, read_counts
from budget_guard.wire.dialect import NO_ALIASES, Aliases, Dialect, Rewritten, put_model_field, unchanged
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.media import media_rules
from budget_guard.wire.openai_completions import prompts_of
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.reader import EventReader
from budget_guard.wire.request import Request
from budget_guard.wire.values import Json, fields, items, text
from budget_guard.wire.weighing import Texts, looker, no_medium

NAME = "embeddings"
_KNOWN = frozenset("model input dimensions encoding_format user input_type truncation prompt_name task".split())


def _kind(part: Json) -> object:
    # pictures are given to some models beside texts, and without a type
    return part.get("type") or next((name for name in part if name != "text"), "text")


_TEXTS = Texts({"text": ()}, no_medium, _kind)


def read_request(endpoint: Endpoint, body: Json, aliases: Aliases = NO_ALIASES) -> Request:
    """What a request asks for."""
    name = text(body.get("model")) or endpoint.deployment or ""
    prompts = prompts_of(body.get("input"))
    more = [field for field in body if field not in _KNOWN]
    return Request(
        NAME,
        aliases.get(name, name),
        weigh(messages=prompts, look=looker(_TEXTS, media_rules(None, ""))),
        endpoint.provider,
        0,
        region=endpoint.region if endpoint.provider == "openai" else None,
        unknown=tuple(field for field in more if not isinstance(body[field], (dict, list))),
        unknown_structures=tuple(field for field in more if isinstance(body[field], (dict, list)) and body[field]),
        requests=max(1, len(prompts)),
    )


def put_cap(_: Endpoint, body: Json, cap: int) -> Rewritten:
    """*body* as it is: there is no output to cap."""
    return Rewritten(dict(body))


def read_answer(body: Json, request: Request | None = None) -> Answer:
    """What an answer says was used."""
    if not items(body.get("data")) and body.get("error") is not None:
        return unreadable(NAME, "the answer is an error")._replace(failed=True)
    usage = fields(body.get("usage"))
    taken, total = usage.get("prompt_tokens"), usage.get("total_tokens")
    if taken in (None, 0) and type(total) is int:  # Voyage and Jina give the total alone
        taken = total
    if type(taken) is int and type(total) is int:
        taken = max(taken, total)
    reading = read_counts(Counts(taken, 0), prompted=request is None or request.prompted, answered=False)
    provider = None if request is None else request.provider
    model, ident = text(body.get("model")), text(body.get("id"))
    return Answer(
        NAME,
        reading.usage,
        None if reading.problem is None else f"{NAME}: {reading.problem}",
        model,
        id=ident,
        cost=provider_cost(usage, provider=provider, model=model, answer_id=ident),
    )


class _Stream(EventReader):
    """Embeddings are not streamed; an event stream in place of an answer cannot be read."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(NAME)

    def take(self, event: Json) -> None:
        pass

    def whole(self) -> Answer:
        return unreadable(NAME, "the answer is a stream")


EMBEDDINGS = Dialect(
    name=NAME,
    read_request=read_request,
    put_cap=put_cap,
    put_model=put_model_field,
    ask_for_usage=unchanged,
    read_answer=read_answer,
    stream=_Stream,
)
"""OpenAI Embeddings."""
