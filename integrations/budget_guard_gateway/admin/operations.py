"""The operations of the admin API: what each is asked with, and what it does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timezone
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

from budget_guard import Budget
from budget_guard.calls.decision import Action
from budget_guard.protocol import problem
from budget_guard.session.usage import BY, By, When
from budget_guard.units.amounts import DIMENSIONS
from budget_guard.units.money import parse_usd
from budget_guard.units.printable import escaped, printable
from budget_guard_gateway.admin.documents import (
    ceiling_document,
    key_document,
    snapshot_document,
    usage_document,
)
from budget_guard_gateway.admin.run_report import report_of_run
from budget_guard_gateway.decisions import Wanted, is_decision_id
from budget_guard_gateway.keys import Principal, add_key, read_keys, revoke_key
from budget_guard_gateway.messages import Refused
from budget_guard_gateway.runs import check_principals
from budget_guard_gateway.state import GatewayState

_log = logging.getLogger("budget_guard")

T = TypeVar("T")
Answer: TypeAlias = "tuple[int, Any]"
"""The status, and the document."""

_CEILING_FIELDS = (*DIMENSIONS, "window", "mode", "max_runs")
_KEY_FIELDS = ("name", "user", "team", "feature", "models", "run_budget")
_MOST = 1_000
"""The most rows of one answer."""
LONGEST_NAME = 512
"""Characters of an id."""
_LONGEST_REASON = 1_000


class Field(NamedTuple):
    """One value that an operation is asked with, in the query or the body."""

    name: str
    schema: Mapping[str, Any]
    """What it may be, in JSON Schema."""
    words: str
    is_required: bool = False


class Asked(NamedTuple):
    """What an operation is asked with."""

    path: Mapping[str, str]
    """The names in the path."""
    query: Mapping[str, str]
    body: Mapping[str, Any]


class Operation(NamedTuple):
    """One thing that operators can ask for."""

    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    """A part in braces is a name, and stands for any."""
    run: Callable[[Operations, Asked], Awaitable[Answer]]
    words: str
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] = ()
    answers: str = ""
    """The schema of its answer, by name; empty for any object."""


class Operations:
    """Does what operators ask for, by the ledger and the records of decisions.

    Args:
        gateway: What it is done with.
    """

    def __init__(self, gateway: GatewayState) -> None:
        self._gateway = gateway
        self._settings = gateway.settings
        self._authority = gateway.authority

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that can be looked at and revoked."""
        return ("run", *self._authority.kinds)

    # Ceilings and plans

    async def ceilings(self, asked: Asked) -> Answer:
        """The ceilings of each kind."""
        return 200, {"ceilings": {kind: ceiling_document(each) for kind, each in self._settings.ceilings.items()}}

    async def ceiling(self, asked: Asked) -> Answer:
        """The ceiling of one principal."""
        return 200, await self._ceiling(*self._principal(asked))

    async def set_ceiling(self, asked: Asked) -> Answer:
        """Give one principal a ceiling of its own."""
        kind, id = self._principal(asked)
        budgets = ceilings_of(asked.body)
        try:
            await self._authority.aset_ceiling(kind, id, budgets)
        except ValueError as error:
            raise _refused(str(error)) from None
        _noted("the ceiling of %s is %s", f"{kind}:{id}", json.dumps(ceiling_document(budgets)))
        return 200, await self._ceiling(kind, id)

    async def take_ceiling(self, asked: Asked) -> Answer:
        """Take its own ceiling away."""
        kind, id = self._principal(asked)
        await self._authority.aset_ceiling(kind, id, None)
        _noted("%s has no ceiling of its own", f"{kind}:{id}")
        return 200, await self._ceiling(kind, id)

    async def _ceiling(self, kind: str, id: str) -> dict[str, Any]:
        own = await self._authority.aown_ceiling(kind, id)
        found = snapshot_document(await self._authority.asnapshot(kind, id))
        windows: list[dict[str, Any]] = found["windows"]
        return {
            "kind": kind,
            "id": id,
            "own": None if own is None else ceiling_document(own),
            "holds": [{**each["limits"], "window": each["window"]} for each in windows if each["limits"]],
            "plan": found["plan"],
        }

    async def plans(self, asked: Asked) -> Answer:
        """What each plan allows."""
        plans = self._settings.plans or {}
        return 200, {
            "plans": {
                name: {kind: ceiling_document(each) for kind, each in plan.items()} for name, plan in plans.items()
            }
        }

    async def plan(self, asked: Asked) -> Answer:
        """The plan of one principal."""
        kind, id = self._principal(asked)
        found = await self._authority.asnapshot(kind, id)
        return 200, {"kind": kind, "id": id, "plan": found.plan}

    async def assign(self, asked: Asked) -> Answer:
        """Give one principal a plan."""
        kind, id = self._principal(asked)
        name = asked.body["plan"]
        plans = self._settings.plans or {}
        if name is not None and not (isinstance(name, str) and kind in plans.get(name, ())):
            known = ", ".join(repr(each) for each, plan in plans.items() if kind in plan) or "none"
            raise _refused(f"plan={_shown(name)} is no plan for a {kind}: those are {known}")
        return await self._assign(kind, id, name)

    async def unassign(self, asked: Asked) -> Answer:
        """Take its plan away."""
        return await self._assign(*self._principal(asked), None)

    async def _assign(self, kind: str, id: str, plan: str | None) -> Answer:
        await self._authority.aassign(kind, id, plan)
        _noted("the plan of %s is %s", f"{kind}:{id}", plan)
        return 200, {"kind": kind, "id": id, "plan": plan}

    # One principal or run

    async def look(self, asked: Asked) -> Answer:
        """What one has spent, what limits it, and what is left."""
        kind, id = self._any(asked)
        window = _number(asked.query, "window", 0, -10_000, 0)
        try:
            found = await self._authority.asnapshot(kind, id, window=window)
        except ValueError as error:  # none of its windows begins anew
            raise _refused(str(error)) from None
        except KeyError:
            raise Refused(problem("not_found", f"There is no run {_shown(id)}.")) from None
        return 200, snapshot_document(found)

    async def revoke(self, asked: Asked) -> Answer:
        """Refuse every further call of one."""
        kind, id = self._any(asked)
        reason = _reason(asked.body)
        if not reason:
            raise _refused('reason="" says nothing: give one such as "compromised", it is in every refusal')
        await self._authority.arevoke(kind, id, reason=reason)
        found = await self._authority.asnapshot(kind, id)
        return 200, snapshot_document(found)

    async def restore(self, asked: Asked) -> Answer:
        """Take a revoke back."""
        kind, id = self._any(asked)
        reason = _reason(asked.body)
        was = await self._authority.arestore(kind, id)
        if was and reason:
            _noted("%s is restored: %s", f"{kind}:{id}", reason)
        return 200, {"kind": kind, "id": id, "restored": was}

    # Usage

    async def usage(self, asked: Asked) -> Answer:
        """What was spent, by what is asked for."""
        query = asked.query
        by = cast("tuple[By, ...]", tuple(filter(None, query.get("by", "day,model").split(","))))
        for name in by:
            if name not in BY:
                raise _refused(f"by={_shown(query['by'])}: {_shown(name)} is not known: use some of {','.join(BY)}")
        since, until = _times(query)
        rows = await self._authority.ausage(self._kind(query), query.get("id"), since=since, until=until, by=by)
        return 200, {"rows": [usage_document(row, by) for row in rows]}

    async def top(self, asked: Asked) -> Answer:
        """Who has spent most."""
        query = asked.query
        since, until = _times(query)
        n = _number(query, "n", 20, 1, _MOST)
        rows = await self._authority.atop(self._kind(query), n, since=since, until=until)
        return 200, {"rows": [usage_document(row, ("id",)) for row in rows]}

    async def ids(self, asked: Asked) -> Answer:
        """The ids of a kind that the ledger knows."""
        return 200, await self._ids(self._kind(asked.query), asked.query)

    async def runs(self, asked: Asked) -> Answer:
        """The runs that the ledger knows."""
        return 200, await self._ids("run", asked.query)

    async def _ids(self, kind: str, query: Mapping[str, str]) -> dict[str, Any]:
        most = _number(query, "n", 100, 1, _MOST)
        after = query.get("after", "")
        found = await self._authority.alist(kind, prefix=query.get("prefix", ""))
        rest = [id for id in found if id > after] if after else found
        return {"ids": rest[:most], "next": rest[most - 1] if len(rest) > most else None}

    async def run_report(self, asked: Asked) -> Answer:
        """The report of one run."""
        id = _name("id", asked.path["id"])
        try:
            report = await report_of_run(self._gateway, id)
        except KeyError:
            raise Refused(problem("not_found", f"There is no run {_shown(id)}.")) from None
        return 200, json.loads(report.model_dump_json())

    # Decisions

    async def decisions(self, asked: Asked) -> Answer:
        """The latest decisions."""
        query = asked.query
        action, kind, id, before = (query.get(name) for name in ("action", "kind", "id", "before"))
        if action is not None and action not in get_args(Action):
            raise _refused(f"action={_shown(action)} is not known: use one of {', '.join(get_args(Action))}")
        if kind is not None:
            self._kind(query)
        elif id is not None:
            raise _refused(f"id={_shown(id)} needs its kind: one of {', '.join(self.kinds)}")
        if before is not None and not is_decision_id(before):
            raise _refused(f"before={_shown(before)} is no decision's id: give the `next` of an answer")
        wanted = Wanted(_number(query, "n", 100, 1, _MOST), before, action, kind, id)
        found = await self._gateway.decisions.latest(wanted)
        return 200, {"decisions": found.records, "next": found.next}

    async def decision(self, asked: Asked) -> Answer:
        """The record of one decision."""
        id = asked.path["id"]
        record = await self._gateway.decisions.record(id) if is_decision_id(id) else None
        if record is None:
            raise Refused(problem("not_found", "There is no decision of that id, or it is no longer kept."))
        return 200, json.loads(record)

    # Keys

    async def keys(self, asked: Asked) -> Answer:
        """Who has a key."""
        entries = await self._with_keys(lambda: read_keys(self._file()))
        return 200, {"keys": [key_document(Principal.of(name, entry)) for name, entry in entries.items()]}

    async def add_key(self, asked: Asked) -> Answer:
        """Make a key, which is shown this once."""
        path, given = self._file(), dict(asked.body)
        models = given.get("models", [])
        if not isinstance(models, list) or not all(isinstance(each, str) for each in cast("list[object]", models)):
            raise _refused('models must be a list of patterns, such as ["gpt-4o*"]')
        for field in ("name", "user", "team", "feature", "run_budget"):
            if given.get(field) is not None and not isinstance(given[field], str):
                raise _refused(f"{field}={_shown(given[field])} must be a text")
        name = given.pop("name") or ""
        try:
            if given.get("run_budget") is not None:
                parse_usd(given["run_budget"], "run_budget")
            check_principals([Principal.of(name, given)], self._settings.ceiled_kinds)
        except ValueError as error:
            raise _refused(str(error)) from None
        key = await self._with_keys(lambda: add_key(path, name, **given))
        _noted("the key %s was made", name)
        return 201, {"name": name, "key": key}

    async def revoke_key(self, asked: Asked) -> Answer:
        """Take a key away, at once."""
        path, name = self._file(), asked.path["name"]
        if not await self._with_keys(lambda: revoke_key(path, name)):
            raise Refused(problem("not_found", f"There is no key {_shown(name)}."))
        _noted("the key %s was revoked", name)
        return 200, {"name": name, "revoked": True}

    async def _with_keys(self, act: Callable[[], T]) -> T:
        """Run *act*, which reads or changes the file of keys, in a thread, and return its result.

        Raises:
            Refused: If the file makes no sense, or cannot be read or written.
        """
        try:
            return await asyncio.to_thread(act)
        except ValueError as error:
            raise _refused(str(error)) from None
        except OSError as error:
            _log.error("budget_guard admin: the file of keys: %s", error)
            words = "The file of keys cannot be read or written. The log of the gateway says why."
            raise Refused(problem("internal", words)) from None

    def _file(self) -> str:
        if self._settings.keys is None:
            raise Refused(problem("not_found", "The gateway has no file of keys: start it with --keys keys.toml."))
        return self._settings.keys

    # What is asked for

    def _principal(self, asked: Asked) -> tuple[str, str]:
        """Whose ceiling or plan is meant."""
        kind = asked.path["kind"]
        if kind == "run":
            raise _refused("a run has the budget that it was started with, and neither a ceiling nor a plan")
        return self._any(asked)

    def _any(self, asked: Asked) -> tuple[str, str]:
        """Which principal or run is meant."""
        kind = asked.path["kind"]
        if kind not in self.kinds:
            words = f"There is nothing here, and no kind {_shown(kind)}: the kinds are {', '.join(self.kinds)}."
            raise Refused(problem("not_found", words))
        return kind, _name("id", asked.path["id"])

    def _kind(self, query: Mapping[str, str]) -> str:
        kind = query["kind"]
        if kind not in self.kinds:
            raise _refused(f"kind={_shown(kind)} is not known: use one of {', '.join(self.kinds)}")
        return kind


def ceilings_of(body: Mapping[str, Any]) -> list[Budget]:
    """The ceilings in a body: limits and a window, or a list of them in ``windows``.

    Raises:
        Refused: If it has none, or one makes no sense.
    """
    given: object = body.get("windows", [body])
    if "windows" in body and len(body) > 1:
        raise _refused("give limits and a window, or a list of them in windows, and not both")
    if not isinstance(given, list) or not given:
        raise _refused('windows must be a list of limits, such as [{"max_cost_usd": "20", "window": "day"}]')
    return [_ceiling_of(each) for each in cast("list[object]", given)]


def _ceiling_of(given: object) -> Budget:
    if not isinstance(given, dict):
        raise _refused('a ceiling must be an object, such as {"max_cost_usd": "20", "window": "day"}')
    limits = cast("dict[str, Any]", given)
    for name in limits:
        if name not in _CEILING_FIELDS:
            raise _refused(unknown(name, _CEILING_FIELDS))
    try:
        return Budget(**limits)
    except (TypeError, ValueError) as error:
        raise _refused(str(error)) from None


def unknown(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not known."""
    near = get_close_matches(name[:LONGEST_NAME], known, 1)
    meant = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}" if known else "nothing is taken here"
    return f"{_shown(name)} is not known: {meant}"


def _refused(words: str) -> Refused:
    return Refused(problem("invalid_request", printable(words)))


def _shown(value: object) -> str:
    return repr(printable(value)[:100])


def _noted(words: str, *named: object) -> None:
    """Log what an operator has changed."""
    _log.warning(f"budget_guard admin: {words}", *map(printable, named))


def _name(field: str, text: str) -> str:
    if not text or len(text) > LONGEST_NAME:
        raise _refused(f"{field} must have 1 to {LONGEST_NAME} characters")
    return text


def _reason(body: Mapping[str, Any]) -> str:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise _refused(f"reason must be a text of at most {_LONGEST_REASON} characters")
    return escaped(reason.strip())


def _number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    try:
        number = int(text[:12])
    except ValueError:
        number = most + 1
    if not least <= number <= most:
        raise _refused(f"{name}={_shown(text)} must be a whole number from {least} to {most}")
    return number


def _times(query: Mapping[str, str]) -> tuple[When | None, When | None]:
    since, until = (_when(query, name) for name in ("since", "until"))
    if since is not None and until is not None and _moment(until) < _moment(since):
        raise _refused(f"until={_shown(query['until'])} is before since={_shown(query['since'])}")
    return since, until


def _moment(when: When) -> datetime:
    return when if isinstance(when, datetime) else datetime(when.year, when.month, when.day, tzinfo=timezone.utc)


def _when(query: Mapping[str, str], name: str) -> When | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if len(text) == len("2026-11-01"):
            return date.fromisoformat(text)
        read = datetime.fromisoformat(text.replace("Z", "+00:00"))
        at = None if read.tzinfo is None else read.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # in UTC it may be before the first year
        at = None
    if at is None:
        raise _refused(
            f"{name}={_shown(text)} must be a day in UTC or a moment with its zone, such as 2026-11-01 or "
            "2026-11-01T09:00:00Z"
        )
    return at


_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
_MONEY: Mapping[str, Any] = {"type": ["string", "number"], "description": 'Dollars, such as "20.00"'}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_KIND = Field("kind", _TEXT, "user, key, team, agent, run, or a kind of your own", is_required=True)
_SINCE = Field("since", _TEXT, "From when on: a day in UTC, or a moment with its zone")
_UNTIL = Field("until", _TEXT, "Before when")
_N = Field("n", {"type": "integer", "minimum": 1, "maximum": _MOST}, "How many at most")
_PREFIX = Field("prefix", _TEXT, "Only ids that begin with it")
_AFTER = Field("after", _TEXT, "Only ids that come after it: the `next` of an answer, for the next part of a list")
_REASON = Field("reason", _TEXT, "Why: it is in every refusal", is_required=True)
_WHY_RESTORED = Field("reason", {"type": "string"}, "Why: it is logged")
_CEILING = (
    Field("max_cost_usd", _MONEY, "Dollars"),
    *(Field(name, _COUNT, name.removeprefix("max_").replace("_", " ")) for name in DIMENSIONS[1:]),
    Field("window", {"enum": ["none", "minute", "hour", "day", "week", "month"]}, "When the limits begin anew"),
    Field("mode", {"enum": ["hard_gate", "advisory_estimate"]}, "advisory_estimate refuses nothing, and marks"),
    Field("max_runs", {"type": "integer", "minimum": 1}, "Distinct runs that may be begun in a window"),
    Field("windows", {"type": "array", "items": {"type": "object"}}, "Several ceilings, each of another window"),
)
_KEY = (
    Field("name", _TEXT, "What the key is called", is_required=True),
    *(Field(name, _TEXT, f"Its {name}") for name in ("user", "team", "feature")),
    Field("models", {"type": "array", "items": {"type": "string"}}, "The models that it may use, as patterns"),
    Field("run_budget", _TEXT, "Dollars that each of its runs may spend"),
)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/budget/ceilings", Operations.ceilings, "The ceilings of each kind"),
    Operation("GET", "/budget/ceilings/{kind}/{id}", Operations.ceiling, "The ceiling of one", answers="Ceiling"),
    Operation(
        *("PUT", "/budget/ceilings/{kind}/{id}", Operations.set_ceiling, "Give one a ceiling of its own"),
        body=_CEILING,
        answers="Ceiling",
    ),
    Operation(
        *("DELETE", "/budget/ceilings/{kind}/{id}", Operations.take_ceiling, "Take its own ceiling away"),
        answers="Ceiling",
    ),
    Operation("GET", "/budget/plans", Operations.plans, "What each plan allows"),
    Operation("GET", "/budget/plans/{kind}/{id}", Operations.plan, "The plan of one", answers="Plan"),
    Operation(
        *("PUT", "/budget/plans/{kind}/{id}", Operations.assign, "Give one a plan"),
        body=(Field("plan", {"type": ["string", "null"]}, "Its name; null for none", is_required=True),),
        answers="Plan",
    ),
    Operation("DELETE", "/budget/plans/{kind}/{id}", Operations.unassign, "Take its plan away", answers="Plan"),
    Operation(
        *("GET", "/budget/usage", Operations.usage, "What was spent, by what is asked for"),
        query=(
            _KIND,
            Field("id", _TEXT, "Which one; without it all of that kind together"),
            Field("by", _TEXT, f"Some of {','.join(BY)}; day,model by default"),
            *(_SINCE, _UNTIL),
        ),
        answers="Usage",
    ),
    Operation(
        *("GET", "/budget/top", Operations.top, "Who has spent most"),
        query=(_KIND, _N, _SINCE, _UNTIL),
        answers="Usage",
    ),
    Operation(
        *("GET", "/budget/list", Operations.ids, "The ids of a kind that the ledger knows"),
        query=(_KIND, _PREFIX, _AFTER, _N),
        answers="Ids",
    ),
    Operation(
        *("GET", "/budget/decisions", Operations.decisions, "The latest decisions, of all processes"),
        query=(
            Field("kind", _TEXT, "Those of principals of this kind"),
            Field("id", _TEXT, "And of this one"),
            Field("action", {"enum": list(get_args(Action))}, "Those with this action"),
            Field("before", _TEXT, "Those before this id: the `next` of an answer, for the next part of the list"),
            _N,
        ),
        answers="Decisions",
    ),
    Operation(*("GET", "/budget/decisions/{id}", Operations.decision, "The record of a decision"), answers="Decision"),
    Operation(
        *("GET", "/budget/runs", Operations.runs, "The runs that the ledger knows"),
        query=(_PREFIX, _AFTER, _N),
        answers="Ids",
    ),
    Operation("GET", "/budget/runs/{id}", Operations.run_report, "The report of one run"),
    Operation("GET", "/budget/keys", Operations.keys, "Who has a key"),
    Operation("POST", "/budget/keys", Operations.add_key, "Make a key, which is shown this once", body=_KEY),
    Operation("DELETE", "/budget/keys/{name}", Operations.revoke_key, "Take a key away, at once"),
    Operation(
        *("POST", "/budget/{kind}/{id}/revoke", Operations.revoke, "Refuse every further call of one"),
        body=(_REASON,),
        answers="Snapshot",
    ),
    Operation(
        *("POST", "/budget/{kind}/{id}/restore", Operations.restore, "Take a revoke back"),
        body=(_WHY_RESTORED,),
    ),
    Operation(
        *("GET", "/budget/{kind}/{id}", Operations.look, "What one has spent, what limits it, and what is left"),
        query=(Field("window", {"type": "integer", "maximum": 0}, "-1 for the last window, and so on"),),
        answers="Snapshot",
    ),
)
"""Every operation. Where two paths fit, the first one is meant."""
