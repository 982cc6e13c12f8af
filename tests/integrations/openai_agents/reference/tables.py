"""Tables of what the functions under the adapter make of many values."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from agents import (
    AgentOutputSchema,
    FunctionTool,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    RunHooks,
)
from agents.models.interface import Model
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.responses import ResponseFunctionWebSearch, ResponseOutputMessage
from openai.types.shared import Reasoning
from pydantic import BaseModel

from budget_guard import Budget, LedgerUnavailable, Usage
from budget_guard.adapter.stops import Stop
from budget_guard.integrations.openai_agents import BudgetGuard, CompositeRunHooks
from budget_guard.wire import Answer
from budget_guard_openai_agents import translate
from budget_guard_openai_agents.answer import answer_of, text_of, text_only, usage_of
from budget_guard_openai_agents.call import explain
from budget_guard_openai_agents.guarded_run import GuardedRun
from budget_guard_openai_agents.model import GuardedProvider
from budget_guard_openai_agents.request import (
    Asked,
    endpoint_for,
    extra_fields,
    model_of_prompt,
    read_request,
    reasons,
    tool_as_sent,
)
from budget_guard_openai_agents.runner import guarded_config, guards_in
from tests.wire.reference.corpus import CHAT, RESPONSE

_OPENAI = AsyncOpenAI(api_key="none", base_url="https://api.openai.com/v1")
_ELSEWHERE = AsyncOpenAI(api_key="none", base_url="https://llm.example/v1/")
_AZURE = AsyncAzureOpenAI(api_key="none", azure_endpoint="https://me.openai.azure.com", api_version="2024-10-21")
_DEPLOYED = AsyncAzureOpenAI(
    api_key="none",
    azure_endpoint="https://me.openai.azure.com",
    azure_deployment="prod",
    api_version="2024-10-21",
)
_CLIENTS = {"openai": _OPENAI, "elsewhere": _ELSEWHERE, "azure": _AZURE, "a deployment": _DEPLOYED}
_NAMES = (
    "gpt-4o gpt-4o-mini gpt-5 gpt-5-mini gpt-5-chat-latest gpt-6 o1 o3-mini o4-mini openai/gpt-5 openai/gpt-4o a/b/o3 "
    "chat-latest omni"
).split()


def _models() -> Iterator[tuple[str, Model | None]]:
    yield "none", None
    for name, client in _CLIENTS.items():
        yield f"chat of {name}", OpenAIChatCompletionsModel("gpt-4o", client)
        yield f"responses of {name}", OpenAIResponsesModel("gpt-4o", client)


def _endpoints() -> Iterator[str]:
    for kind, model in _models():
        yield f"{kind}: {tuple(endpoint_for(model, 'gpt-4o'))}"
    for client in (None, SimpleNamespace(), SimpleNamespace(base_url=None, _api_version="1")):
        yield f"{client}: {tuple(endpoint_for(SimpleNamespace(_client=client), 'gpt-4o'))}"  # type: ignore[arg-type]
    for name in _NAMES:
        yield f"{name}: {reasons(name)}"
    for prompt in ({"id": "pmpt_1"}, {}, None, "pmpt_1", {"id": None}):
        yield f"prompt {prompt}: {model_of_prompt(prompt)}"


_EFFORT = Reasoning(effort="low")


def _defaults(model: str | None = None) -> ModelSettings:
    """What the SDK fills in for a model: another version does for others."""
    return ModelSettings(reasoning=_EFFORT, verbosity="low") if reasons(str(model)) else ModelSettings()


def _changed(before: ModelSettings, after: ModelSettings) -> dict[str, Any]:
    names = sorted(field.name for field in dataclasses.fields(before))
    return {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}


def _settings() -> Iterator[str]:
    """The settings to send, with each thing that they are made of changed by chance."""
    chance = random.Random(1)
    models = dict(_models())
    for _ in range(900):
        kind = chance.choice([each for each in models if each != "none"])
        name, called = chance.choice(_NAMES), chance.choice(_NAMES)
        if chance.random() < 0.4:
            called = name
        extra = {"max_completion_tokens": 70, "max_tokens": 60, "max_output_tokens": 50, "model": "x", "user": "u"}
        few = {key: value for key, value in extra.items() if chance.random() < 0.3}
        more = {key: value for key, value in extra.items() if chance.random() < 0.2}
        given = ModelSettings(
            max_tokens=chance.choice([None, None, 40, 300]),
            temperature=chance.choice([None, 0.5]),
            top_p=chance.choice([None, 0.5]),
            frequency_penalty=chance.choice([None, 0.5]),
            presence_penalty=chance.choice([None, 0.5]),
            reasoning=chance.choice([None, _EFFORT, Reasoning(effort="high")]),
            verbosity=chance.choice([None, "low", "high"]),
            include_usage=chance.choice([None, None, True, False]),
            tool_choice=chance.choice([None, "auto"]),
            extra_args=chance.choice([None, few]),
            extra_body=chance.choice([None, more]),
        )
        model: Any = models[kind]
        asked = read_request(
            model=model,
            name=name,
            system_instructions=None,
            input="hi",
            settings=given,
            tools=[],
            output_schema=None,
            handoffs=[],
        )
        how: dict[str, Any] = {
            "called": chance.choice([called, asked.request.model]),
            "cap": chance.choice([None, 40, 300, asked.request.max_output_tokens]),
            "ask_for_usage": chance.random() < 0.4,
            "final": chance.random() < 0.3,
        }
        with mock.patch.object(translate, "get_default_model_settings", _defaults):
            settings, added = translate.settings_for(model, given, asked=asked, **how)
        told = _shown(_changed(given, settings)), added, settings is given
        yield f"{kind} {name} {_shown(_changed(ModelSettings(), given))} {list(how.values())}: {told}"


_ODD: Sequence[Any] = (None, "", "text", 0, 1, 3, -1, 2.5, True, False, [], ["a"], [None], {}, {"a": 1}, {"text": "a"})
"""Values that stand anywhere at times."""
_EXTRA: Mapping[str, Sequence[Any]] = {
    "max_completion_tokens": [70],
    "max_output_tokens": [50],
    "max_tokens": [60],
    "n": [2],
    "model": ["gpt-4o-mini"],
    "service_tier": ["flex", "priority"],
    "tools": [[{"type": "web_search"}], [{"type": "function", "function": {"name": "f"}}]],
    "functions": [[{"name": "f"}]],
    "response_format": [{"type": "json_object"}],
    "text": [{"format": {"type": "json_schema", "name": "s", "schema": {}}}],
    "messages": [[{"role": "user", "content": "hi"}]],
    "input": ["else"],
    "instructions": ["Be brief."],
    "previous_response_id": ["resp_1"],
    "conversation": ["conv_1"],
    "prompt": [{"id": "p"}],
    "reasoning": [{"effort": "high"}],
    "reasoning_effort": ["high"],
    "stream_options": [{"include_usage": False}],
    "web_search_options": [{"search_context_size": "high"}],
    "modalities": [["audio"]],
    "nobody_knows": ["x"],
}


def _one_by_one() -> Iterator[str]:
    """Requests of every model that say one thing more than a plain one, and what is made of their settings."""
    named: Mapping[str, Sequence[Any]] = {
        "max_tokens": [0, 1, 40],
        "temperature": [0, 0.5],
        "top_p": [0, 0.5],
        "frequency_penalty": [0, 0.5],
        "presence_penalty": [0, 0.5],
        "reasoning": [Reasoning(), Reasoning(effort="low"), Reasoning(effort="high")],
        "verbosity": ["low"],
        "include_usage": [True, False],
        "tool_choice": ["auto", "none", "required"],
        "parallel_tool_calls": [True, False],
        "truncation": ["auto"],
        "store": [True, False],
        "extra_headers": [{"a": "b"}],
        "metadata": [{"a": "b"}],
    }
    given = [ModelSettings(), *(ModelSettings(**{name: value}) for name in named for value in named[name])]
    for name, values in _EXTRA.items():
        for value in values:
            given += [ModelSettings(extra_args={name: value}), ModelSettings(extra_body={name: value})]
    odd = [ModelSettings(extra_args={name: value}) for name in _EXTRA for value in _ODD]
    keeps: Sequence[dict[str, Any]] = (
        *({"previous_response_id": "r"}, {"conversation_id": "c"}, {"prompt": {"id": "p"}}, {"prompt": {}}),
        *({"previous_response_id": ""}, {"conversation_id": ""}),
    )
    asks: list[tuple[ModelSettings, dict[str, Any]]] = [(each, {}) for each in given]
    asks += [(ModelSettings(), each) for each in keeps]
    asks += [(ModelSettings(extra_body={"model": "o3"}), each) for each in keeps]
    for kind, model in _models():
        for name in ("gpt-4o", "gpt-5-mini"):
            plain_one = name == "gpt-4o" and kind in ("none", "chat of openai", "responses of openai")
            for settings, kept in (*asks, *((each, {}) for each in odd if plain_one)):
                made: dict[str, Any] = {
                    **{"model": model, "name": name, "system_instructions": None, "input": "hi", "settings": settings},
                    **{"tools": [], "output_schema": None, "handoffs": [], **kept},
                }
                asked = read_request(**made)
                call, request = asked.call(agent=None, can_cap=True, final=False), asked.request
                prompt = request.prompt
                told = (
                    *(asked.keeps_reasoning, sorted(call.needs), call.model, call.max_output_tokens, call.choices),
                    *(prompt.base, [weight for _, weight in prompt.parts], prompt.opaque, prompt.conversation != 0),
                    *(request.hosted_tools, request.tier, request.unknown, call.search_context, request.sound_tokens),
                )
                yield f"{kind} {name} {_shown(_changed(ModelSettings(), settings))} {kept}: {told}"
                if model is not None and (settings, kept) in asks:
                    yield f"  {_settings_told(model, settings, asked)}"


def _settings_told(model: Model, settings: ModelSettings, asked: Asked) -> list[str]:
    told: list[str] = []
    with mock.patch.object(translate, "get_default_model_settings", _defaults):
        for called in (asked.request.model, "gpt-4o-mini", "o3"):
            for cap, usage, final in ((None, False, False), (40, True, False), (None, True, True)):
                how: dict[str, Any] = {"called": called, "cap": cap, "ask_for_usage": usage, "final": final}
                after, added = translate.settings_for(model, settings, asked=asked, **how)
                told.append(f"{_shown(_changed(settings, after))} {added} {after is settings}")
    return told


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={getattr(value, 'effort', value)}" for name, value in values.items())


_ITEMS: tuple[Any, ...] = (
    "hi",
    [],
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": "hi", "id": "msg_1"}],
    [{"type": "reasoning", "id": "rs_1"}, {"role": "assistant", "content": "x", "id": "msg_1"}],
    [{"role": "user", "content": "hi", "id": "msg_1"}, {"type": "reasoning", "id": "rs_1"}],
)


def _inputs() -> Iterator[str]:
    for items in _ITEMS:
        for downgraded in (True, False):
            for note in (None, "Answer now."):
                sent = translate.input_for(items, downgraded=downgraded, note=note)
                yield f"{items} {downgraded} {note}: {sent} {sent is items}"


class _Schema(BaseModel):
    answer: str


async def _call(*_: Any) -> str:
    return ""


def _tools() -> Iterator[str]:
    """Tools by the names of their classes: not every version of the SDK has all of them."""
    names = (
        "WebSearchTool FileSearchTool CodeInterpreterTool ImageGenerationTool HostedMCPTool CustomTool ComputerTool "
        "LocalShellTool ShellTool ApplyPatchTool ToolSearchTool NobodyKnowsTool"
    ).split()
    for name in names:
        cls: Any = type(name, (), {})
        below: Any = type("Own", (cls,), {})
        for made in (cls, below):
            tool = made()
            yield f"{name}: {_sent(tool)}"
            config: Any
            for config in (None, {}, "odd"):
                tool.tool_config = config
                yield f"{name} set to {config}: {_sent(tool)}"
            tool.tool_config = {"type": "mcp", "server_url": "https://e"}
            tool.text, tool.number, tool.share, tool.entries = "x", 3, 0.5, [1]
            tool.place, tool.function, tool.nothing = {"a": 1}, print, None
            yield f"{name} with more: {_sent(tool)}"
    slotted: Any = type("Slotted", (), {"__slots__": ()})
    yield f"slotted: {_sent(slotted())}"


def _sent(tool: Any) -> Any:
    try:
        return dict(tool_as_sent(tool))
    except AttributeError:
        return "raises"


def _requests() -> Iterator[str]:
    """Requests with tools, handoffs and schemas in them."""
    chance = random.Random(2)
    parameters = {"type": "object", "properties": {"key": {"type": "string"}}}
    function = FunctionTool("lookup", "Look up.", dict(parameters), _call, strict_json_schema=False)
    hosted: Any = type("WebSearchTool", (), {})()
    other: Any = type("NobodyKnowsTool", (), {})()
    handoff: Any = SimpleNamespace(  # the SDK makes schemas strict in another way in each version
        tool_name="go", tool_description="Go on.", input_json_schema=parameters, strict_json_schema=True
    )
    for _ in range(260):
        kind, model = chance.choice(list(_models()))
        settings = ModelSettings(
            max_tokens=chance.choice([None, 40]),
            extra_args=chance.choice([None, {}, {"service_tier": "flex"}, {"max_completion_tokens": 70}]),
            extra_body=chance.choice(
                [None, None, {"tools": [{"type": "web_search"}]}, {"messages": []}, {"input": "else"}, {"text": {}}]
            ),
        )
        tools = chance.choice([[], [function], [function, function], [hosted], [other, function]])
        handoffs = chance.choice([[], [handoff], [handoff, handoff]])
        schema = chance.choice([None, AgentOutputSchema(str), AgentOutputSchema(_Schema)])
        items = chance.choice(_ITEMS)
        instructions = chance.choice([None, "", "Be brief."])
        kept: dict[str, Any] = chance.choice([{}, {}, {"conversation_id": "c"}, {"prompt": {"id": "p"}}])
        asked = read_request(
            model=model,
            name=chance.choice(_NAMES),
            system_instructions=instructions,
            input=items,
            settings=settings,
            tools=tools,
            output_schema=schema,
            handoffs=handoffs,
            **kept,
        )
        call = asked.call(agent="Named", can_cap=True, final=chance.random() < 0.3)
        request, prompt = asked.request, asked.request.prompt
        told = (
            *(asked.dialect.name, asked.keeps_reasoning, sorted(call.needs), call.model, call.max_output_tokens),
            *(prompt.base, [weight for _, weight in prompt.parts], prompt.opaque, list(prompt.unweighed.values())),
            *(prompt.conversation != 0, request.hosted_tools, request.tier, request.hour_cache, request.sound_tokens),
        )
        given = (len(tools), len(handoffs), schema is not None, _ITEMS.index(items), instructions, kept)
        yield f"{kind} {given} {_shown(_changed(ModelSettings(), settings))}: {told}"
    extras: tuple[dict[str, Any], ...] = ({}, {"seed": 1}, {"seed": Omit(), "user": NotGiven(), "n": 2})
    for extra in extras:
        for body in (None, {"n": 3, "stop": Omit()}):
            found = extra_fields(ModelSettings(extra_args=extra, extra_body=body))
            yield f"extra {sorted(extra)} {body and sorted(body)}: {found}"


class Omit:
    """As the client's, whose name tells."""


class NotGiven:
    """As the client's, too."""


def _message(*texts: Any) -> Any:
    return SimpleNamespace(type="message", content=[SimpleNamespace(text=text) for text in texts])


_OUTPUTS: tuple[Any, ...] = (
    (),
    (_message("a", "b"),),
    (_message("a", None), _message("c")),
    (_message(),),
    (SimpleNamespace(type="message", content=None),),
    (SimpleNamespace(type="reasoning", id="rs_1", content=[SimpleNamespace(text="thought")]), _message("a")),
    (SimpleNamespace(type="reasoning", id="", content=None), {"type": "reasoning", "id": "rs_2"}),
    (_message("a"), SimpleNamespace(type="function_call", name="f")),
    ({"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}},),
    (SimpleNamespace(type="web_search_call", id="ws_1", status="completed", action=SimpleNamespace(type="search")),),
    (SimpleNamespace(type="web_search_call", id="ws_1", status="completed", action={"type": "open_page"}),),
    (SimpleNamespace(type="web_search_call", id="ws_1", status="failed", action=None),),
    (SimpleNamespace(type="code_interpreter_call", id="ci_1", status="completed", container_id="c_1"),) * 2,
    (SimpleNamespace(type="file_search_call", id=None), SimpleNamespace()),
    (
        ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[]),
        ResponseFunctionWebSearch.model_construct(
            id="ws_2", type="web_search_call", status="completed", action=SimpleNamespace(type="search")
        ),
    ),
)
_USAGES: tuple[Any, ...] = (
    None,
    SimpleNamespace(),
    SimpleNamespace(input_tokens=10, output_tokens=0, total_tokens=0),
    SimpleNamespace(input_tokens=10, output_tokens=5, total_tokens=15),
    SimpleNamespace(input_tokens=10, output_tokens=5, total_tokens=99),
    SimpleNamespace(
        input_tokens=10,
        output_tokens=5,
        total_tokens=15,
        input_tokens_details=SimpleNamespace(cached_tokens=4, cache_write_tokens=3),
        output_tokens_details=SimpleNamespace(reasoning_tokens=2),
    ),
)
_RAW: tuple[Any, ...] = (
    None,
    {},
    {"prompt_tokens": 10},
    {"completion_tokens": 5},
    {"prompt_tokens": 10, "completion_tokens": 0},
    {"input_tokens": 10, "output_tokens": 5},
)


_PLAIN_USAGE: Mapping[str, Any] = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def _answers() -> Iterator[str]:
    requests = {"chat": CHAT.read(CHAT.body), "responses": RESPONSE.read(RESPONSE.body)}
    for at, output in enumerate(_OUTPUTS):
        yield f"{at}: {text_of(output)!r} {text_only(output)}"
        for number, usage in enumerate(_USAGES):
            for raw in _RAW if number < 3 else (None,):
                for kind, request in requests.items():
                    told: Any = SimpleNamespace(usage=usage, output=output, raw_usage=raw)
                    answer = answer_of(told, request)
                    used = None if answer.usage is None else tuple(answer.usage)
                    yield f"{at} {number} {raw} {kind}: {used} {answer.problem} {answer.reasoning_ids}"
    counts = ("input_tokens", "output_tokens", "total_tokens")
    details = {
        "input_tokens_details": ("cached_tokens", "cache_write_tokens"),
        "output_tokens_details": ("reasoning_tokens",),
    }
    for value in (*_ODD, 9, 10, 11, 4, 5, 6):
        odd: list[Any] = [SimpleNamespace(**{**_PLAIN_USAGE, name: value}) for name in (*counts, *details)]
        for side, names in details.items():
            odd += [SimpleNamespace(**{**_PLAIN_USAGE, side: SimpleNamespace(**{name: value})}) for name in names]
        for number, usage in enumerate(odd):
            for kind, request in requests.items():
                answer = answer_of(SimpleNamespace(usage=usage, output=_OUTPUTS[1], raw_usage=None), request)  # type: ignore[arg-type]
                used = None if answer.usage is None else tuple(answer.usage)
                yield f"{number} {value} {kind}: {used} {answer.problem}"
        for name in ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"):
            raw_told: Any = SimpleNamespace(usage=None, output=_OUTPUTS[1], raw_usage={name: value})
            yield f"{name} {value}: {answer_of(raw_told, requests['chat']).problem}"
    for found in (None, Usage(input=10, cache_read=3, output=5, reasoning=2)):
        usage = usage_of(Answer("agents", found, None))
        yield f"{found}: {usage.requests} {usage.input_tokens} {usage.output_tokens} {usage.total_tokens}"


def _refusals() -> Iterator[str]:
    """The errors of endpoints, with the words that say who added a field."""
    for added in ((), ("max_completion_tokens",), ("stream_options.include_usage", "max_tokens")):
        for status in (None, "400", 400, 422, 429, 500):
            for words in ("unknown field", "max_completion_tokens is unknown", "stream_options: no", "max_tokens?"):
                for more in ({}, {"body": {"error": {"message": words}}}, {"message": words}, {"message": 3}):
                    error = Exception("no" if "body" in more else words, "second")
                    for name, value in {"status_code": status, **more}.items():
                        setattr(error, name, value)
                    explain(error, added)
                    told = [str(each) for each in error.args] + [str(getattr(error, "message", None))]
                    yield f"{added} {status} {words} {sorted(more)}: {told}"


def _runs() -> Iterator[str]:
    """What is known of runs within runs, of their guards, their agents and the names of their models."""
    chance = random.Random(3)
    for number in range(120):
        guards = [_guard(chance) for _ in range(chance.choice([1, 2]))]
        parts = [each.child(Budget("$0.01", max_requests=1)) for each in guards if chance.random() < 0.3]
        top = GuardedRun(guards[:1], None, ambient=chance.random() < 0.3)
        inner = GuardedRun(chance.choice([(), guards[1:], parts]), top, ambient=chance.random() < 0.2)
        lowest = GuardedRun(guards[:1], inner)
        runs: tuple[GuardedRun, ...] = (top, inner, lowest)
        for run in runs:
            if chance.random() < 0.6:
                run.note_agent([], chance.choice(["Worker", "Helper"]))
        lowest = GuardedRun((), lowest)
        runs = (*runs, lowest)
        every: list[Any] = [*guards, *parts]
        for run in runs:
            known = [every.index(guard) for guard in run.guards]
            covers = [run.covers(guard) for guard in every]
            yield f"{number}: {known} {covers} {sorted(run.add_fields)} {run.started_by} {run.agent} {run.ambient}"
        for _ in range(4):
            run = chance.choice(runs)
            session = chance.choice(run.sessions)
            if chance.random() < 0.3:
                run.finalize(session)
            if chance.random() < 0.4:
                error = LedgerUnavailable(detail="away")
                run.stop(Stop(session, error))
            told = [(each.stopped() is not None, each.stopped_itself() is not None, _finals(each)) for each in runs]
            yield f"{number}: {runs.index(run)} {run.guards.index(run.guard_of(session))} {told}"
        ids = [f"rs_{chance.randrange(4)}" for _ in range(chance.choice([0, 1, 2]))]
        chance.choice(runs).note_reasoning(ids)
        unknown = [[each.unknown_reasoning(of, ["rs_1", "rs_2"]) for of in each.sessions] for each in runs]
        yield f"{number}: {ids} {unknown}"
        for guard in every:
            guard.close()
    run = GuardedRun((), None)
    items: Any = ["a"]
    provider: Any = chance
    for name in (None, "", "gpt-4o", 3, 0.5, object):
        model: Any = SimpleNamespace(model=name)
        before = run.name_of(model), run.provider_of(model)
        run.note_resolved(model, "asked", provider)
        yield f"{name}: {before} {run.name_of(model)} {run.provider_of(model) is provider}"
    for at in range(66):
        run.note_agent(items if at == 1 else [at], f"agent {at}")
        yield f"{at}: {run.agent_of(items)} {run.agent_of(['a'])} {run.agent}"
    for kind, resolved in _models():
        yield f"{kind}: {None if resolved is None else run.name_of(resolved)}"


def _guard(chance: random.Random) -> BudgetGuard:
    final = chance.random() < 0.5
    return BudgetGuard(
        Budget("$1", max_requests=9, finalization_reserve="0.1" if final else None),
        on_exceeded="finalize" if final else "raise",
        add_fields=chance.choice([("output_cap", "usage"), ("usage",), ()]),
    )


def _finals(run: GuardedRun) -> list[tuple[bool, bool]]:
    return [(run.may_finalize(session), run.finalized(session)) for session in run.sessions]


def _configs() -> Iterator[str]:
    """What is run with, by the config that is given and the guards that hold."""
    guard, other = BudgetGuard(Budget("$1")), BudgetGuard(Budget("$2"))
    provider = OpenAIProvider(openai_client=_OPENAI)
    given = RunConfig(model_provider=provider)
    once = guarded_config(given, guard)
    for name, config in {"plain": given, "guarded": once, "both": guarded_config(once, other)}.items():
        for which, added in {"none": None, "guard": guard, "other": other}.items():
            made = guarded_config(config, added)
            inner = made.model_provider
            held = [each is guard for each in inner.guards] if isinstance(inner, GuardedProvider) else None
            yield f"{name} {which}: {made is config} {held}"
    for hooks in (None, guard, RunHooks[Any](), CompositeRunHooks(guard, CompositeRunHooks(other, RunHooks[Any]()))):
        found = guards_in(hooks)
        yield f"{type(hooks).__name__}: {[each is guard for each in found]}"
    for number in range(12):
        yield f"{number}: {GuardedProvider(provider, guard if number % 2 else None).guards == (guard,)}"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "endpoints": _endpoints,
    "settings": _settings,
    "inputs": _inputs,
    "tools": _tools,
    "requests with tools": _requests,
    "requests one by one": _one_by_one,
    "what the SDK says of answers": _answers,
    "refusals": _refusals,
    "runs within runs": _runs,
    "configs": _configs,
}
