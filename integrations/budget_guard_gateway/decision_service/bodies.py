"""The bodies of requests to the decision service, and of its answers: what is checked, and what is published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from budget_guard import ModelCall, ToolCall, weigh
from budget_guard import Usage as CoreUsage
from budget_guard.calls.decision_json import prompt_of_tokens
from budget_guard.protocol import problem
from budget_guard.units.money import nano_of, usd_text
from budget_guard.units.printable import printable
from budget_guard_gateway.messages import Refused
from budget_guard_gateway.runs import is_run_id

if TYPE_CHECKING:
    from typing_extensions import LiteralString

B = TypeVar("B", bound=BaseModel)

_MOST = 2**40
"""Tokens."""
_SHOWN = 60
_KINDS_OF_USD = (".str", ".int", ".decimal")
"""How Pydantic names the three kinds of `Usd` where a value is of none."""
_NO_USD: LiteralString = "should be dollars such as '0.25', with at most nine places"
_USD_PATTERN = r"\d+(\.\d{1,9})?"


def _usd(value: str | int | Decimal) -> str:
    if isinstance(value, str) and not re.fullmatch(_USD_PATTERN, value, re.ASCII):
        raise PydanticCustomError("usd", _NO_USD)
    return usd_text(nano_of(str(value), "amount"))  # the same for 0.1 and "0.10", which are the same to their caller


def _run_id(value: str) -> str:
    if not is_run_id(value):
        raise PydanticCustomError("run_id", "should be letters, digits and ._:-, at most 128 of them")
    return value


_USD_SCHEMA = {"type": "string", "pattern": f"^{_USD_PATTERN}$", "description": "Dollars."}
Usd: TypeAlias = Annotated[str | int | Decimal, AfterValidator(_usd), WithJsonSchema(_USD_SCHEMA)]
"""Dollars: a decimal text, or a number."""
RunId: TypeAlias = Annotated[str, AfterValidator(_run_id)]
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=_MOST)]
Capability: TypeAlias = Literal["tools", "vision", "json_schema", "audio", "reasoning"]
Json: TypeAlias = dict[str, Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DecisionRequest(_Body):
    """May this call be made? A model's call, or with `tool` a tool's."""

    run_id: RunId | None = Field(None, description="The run that it belongs to. None for a new one.")
    model: str | None = Field(None, min_length=1, max_length=512, description="The model that is to be called.")
    messages: list[Json] | None = Field(None, description="What is to be sent, to be weighed. It is not kept.")
    input: str | list[Json] | None = Field(None, description="The same in the form of Responses.")
    input_tokens: Tokens | None = Field(None, description="In place of both: the most tokens that the input takes.")
    tools: list[Json] | None = Field(None, description="The definitions of tools, as they are sent.")
    max_output_tokens: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(
        None, description="The caller's own output cap."
    )
    needs: list[Capability] | None = Field(None, description="What the model must be able to do.")
    provider: str | None = Field(None, max_length=100, description="The provider; by the model's name if left out.")
    service_tier: str | None = Field(None, max_length=100, description="The provider's price tier.")
    tool: str | None = Field(None, min_length=1, max_length=512, description="The tool that is to be called.")
    cost_usd: Usd | None = Field(None, description="What the tool's call costs at most. Nothing if left out.")
    dry_run: bool = Field(False, description="Whether to say what would be decided, and hold nothing.")

    @model_validator(mode="after")
    def _is_one_call(self) -> DecisionRequest:
        inputs = [name for name in ("messages", "input", "input_tokens") if getattr(self, name) is not None]
        if (self.model is None) == (self.tool is None):
            raise _wrong("model", "or tool must be given, one of the two")
        if self.tool is not None:
            given = sorted(self.model_fields_set - {"tool", "cost_usd", "run_id", "dry_run"})
            if given:
                raise _wrong(given[0], "is of a model's call: leave it out, or leave out tool")
        elif self.cost_usd is not None:
            raise _wrong("cost_usd", "is of a tool's call: what a model's costs goes by its price")
        elif len(inputs) != 1:
            raise _wrong("messages", "input or input_tokens must be given, one of the three")
        return self

    def call(self, models: Mapping[str, str]) -> ModelCall | ToolCall:
        """The call.

        Args:
            models: The models behind names of one's own.
        """
        if self.tool is not None:
            return ToolCall(self.tool, 0 if self.cost_usd is None else nano_of(str(self.cost_usd), "cost_usd"))
        model = self.model or ""
        tools: Sequence[Json] = self.tools or ()
        if self.input_tokens is not None:
            prompt = prompt_of_tokens(self.input_tokens)
        else:
            prompt = weigh(messages=self.messages if self.messages is not None else self.input or (), tools=tools)
        needs = prompt.needs(tools=bool(tools), schema=False) | frozenset[str](self.needs or ())
        return ModelCall(
            models.get(model, model),
            prompt,
            provider=self.provider,
            max_output_tokens=self.max_output_tokens,
            needs=needs,
            service_tier=self.service_tier,
        )


class Usage(_Body):
    """What the provider billed. The parts are disjoint: a cached token is not also in `input`."""

    input: Tokens = 0
    cache_read: Tokens = 0
    cache_write_5m: Tokens = 0
    cache_write_1h: Tokens = 0
    input_audio: Tokens = 0
    cache_audio: Tokens = 0
    input_image: Tokens = 0
    output: Tokens = 0
    reasoning: Tokens = 0
    output_audio: Tokens = 0
    output_image: Tokens = 0
    web_search: Tokens = 0
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    def core(self) -> CoreUsage:
        """It as the library has it."""
        return CoreUsage(**self.model_dump())


class CommitRequest(_Body):
    """The call was made. Without `usage` and `cost_usd` all that is held is booked, as uncertain."""

    usage: Usage | None = Field(None, description="What a model's call used.")
    cost_usd: Usd | None = Field(None, description="What it cost: a tool's call, or the provider's own figure.")
    model: str | None = Field(None, min_length=1, max_length=512, description="The model that answered, if another.")
    service_tier: str | None = Field(None, max_length=100, description="The price tier that served it, if another.")


class ReleaseRequest(_Body):
    """The call provably was not billed."""

    reason: str = Field("released by the caller", max_length=1_000)


class RunLimits(_Body):
    """Limits of one run, none of them above what the gateway allows."""

    max_cost_usd: Usd | None = None
    max_total_tokens: Tokens | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    max_requests: Tokens | None = None
    max_tool_calls: Tokens | None = None


class RunRequest(_Body):
    """Open a run, with limits of its own."""

    run_id: RunId | None = Field(None, description="Its name; made up if left out.")
    budget: RunLimits = Field(default_factory=RunLimits)


class NoBody(_Body):
    """Nothing."""


class DryRun(BaseModel):
    """What would be decided now. Nothing is held, and nothing was logged."""

    dry_run: Literal[True] = True
    decision: Literal["allow", "downgrade", "advisory_warn", "block"]
    requested: str
    selected: str | None
    estimate_usd: Annotated[str, WithJsonSchema(_USD_SCHEMA)]
    effective_max_output_tokens: int | None
    waits: bool = Field(description="Whether it would wait first, for what other calls hold.")
    code: str | None = Field(description="As of a problem, where it would be refused.")
    reason: str


class Settlement(BaseModel):
    """What became of a reservation."""

    reservation_id: str
    state: Literal["reserved", "forwarded", "committed", "released"]
    cost_usd: Annotated[str, WithJsonSchema(_USD_SCHEMA)] | None = Field(description="What is booked.")
    uncertain: bool | None = Field(description="Whether that is an estimate.")


class OpenedRun(BaseModel):
    """A run that is open."""

    run_id: str
    mode: str
    limits: dict[str, str | int] = Field(description="By name: dollars as text, everything else as a whole number.")
    remaining_usd: str | None = Field(description="Dollars left in the tightest scope; null where nothing limits them.")


def _wrong(field: str, words: str) -> PydanticCustomError:
    return PydanticCustomError("call", "{field} {words}", {"field": field, "words": words})


def body_of(kind: type[B], data: bytes) -> B:
    """The body of a request.

    Raises:
        Refused: If it is none of that kind. It names the field, its value, and what would be right.
    """
    try:
        read: object = json.loads(data, parse_float=Decimal) if data.strip() else {}
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise Refused(problem("invalid_request", "The body is no JSON object."))
    try:
        return kind.model_validate(read)
    except ValidationError as error:
        raise Refused(problem("invalid_request", _words(kind, error))) from None


def _words(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part[:1].islower())
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "extra_forbidden":
        unknown = ".".join(map(str, first["loc"]))
        return f"{_shown(unknown)} is not known here: use some of {', '.join(kind.model_fields)}."
    if field.endswith(_KINDS_OF_USD):
        field, message = field.rpartition(".")[0], _NO_USD
    if first["type"] == "call":
        return f"{message}."
    return f"{_shown(field)}={_value(first['input'])} {message[:1].lower()}{message[1:]}."


def _value(value: object) -> str:
    text = json.dumps(value, default=str)
    return printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _shown(name: str) -> str:
    return printable(name[:_SHOWN])
