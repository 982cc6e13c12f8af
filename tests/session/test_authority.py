"""Ceilings that many runs share: they hold, they can be changed and cut off while runs are on, and they tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    DowngradePolicy,
    ForeignRun,
    InvalidDowngradeError,
    MemoryLedger,
    Scope,
    ScopeSnapshot,
    Session,
)
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Limits
from tests.builders import PRICES, Way, call

T = TypeVar("T")

DAILY = Budget("$0.30", window="day")


class Operator:
    """The verbs of an authority, performed in one of their two ways."""

    def __init__(self, awaits: bool) -> None:
        self._awaits = awaits

    def __call__(self, authority: BudgetAuthority, verb: str, *args: Any, **kwargs: Any) -> Any:
        if not self._awaits:
            return getattr(authority, verb)(*args, **kwargs)
        awaiting: Callable[..., Coroutine[Any, Any, Any]] = getattr(authority, f"a{verb}")
        return asyncio.run(awaiting(*args, **kwargs))

    def session(self, authority: BudgetAuthority, *args: Any, **kwargs: Any) -> Session:
        opened: Session = self(authority, "session", *args, **kwargs)
        return opened

    def snapshot(self, authority: BudgetAuthority, kind: str, id: str) -> ScopeSnapshot:
        taken: ScopeSnapshot = self(authority, "snapshot", kind, id)
        return taken

    def close(self, session: Session) -> None:
        asyncio.run(session.aclose()) if self._awaits else session.close()


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def do(request: pytest.FixtureRequest) -> Operator:
    return Operator(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def authority(ledger: MemoryLedger | None = None, **options: Any) -> BudgetAuthority:
    options.setdefault("ceilings", {"user": DAILY})
    return BudgetAuthority(ledger, pricing=PRICES, **options)


def refusal(way: Way, run: Session) -> tuple[str, str] | None:
    error = way.authorize(run, call()).error
    return (error.dimension, error.scope) if isinstance(error, BudgetExceeded) else None


def test_runs_of_one_user_share_its_ceiling_and_other_users_do_not(way: Way, do: Operator) -> None:
    ours = authority()
    mine = [do.session(ours, Budget("$5"), user="u1") for _ in range(2)]
    for run in (mine[0], mine[1], mine[0]):
        way.pay(run, call())
    assert refusal(way, mine[0]) == refusal(way, mine[1]) == ("max_cost_usd", "user:u1")
    assert refusal(way, do.session(ours, Budget("$5"), user="u2")) is None


@pytest.mark.parametrize("kind", ["user", "key", "team"])
def test_each_kind_of_principal_has_a_ceiling(way: Way, do: Operator, kind: str) -> None:
    run = do.session(authority(ceilings={kind: Budget(max_requests=1)}), Budget("$5"), **{kind: "x"})
    way.pay(run, call())
    assert refusal(way, run) == ("max_requests", f"{kind}:x")


def test_a_feature_is_named_in_the_report_and_limits_nothing(do: Operator) -> None:
    run = do.session(authority(), Budget("$5"), user="u1", key="k1", team="t1", feature="search")
    assert run.report().tags == {"user": "u1", "key": "k1", "team": "t1", "feature": "search"}
    decision = run.authorize(call())
    assert decision.scopes == (f"run:{run.id}", "user:u1", "key:k1", "team:t1")


def test_a_refusal_by_a_shared_ceiling_says_who_can_raise_it(do: Operator) -> None:
    run = do.session(authority(ceilings={"user": Budget("$0.05")}), Budget("$5"), user="u1")
    error = run.authorize(call()).error
    assert "set_ceiling" in str(error) and "raise_limits" not in str(error)


def test_a_window_gives_the_whole_ceiling_again(way: Way, do: Operator, clock: FakeClock) -> None:
    run = do.session(authority(clock=clock), Budget("$5"), user="u1")
    for _ in range(3):
        way.pay(run, call())
    assert refusal(way, run) == ("max_cost_usd", "user:u1")
    clock.advance(86_400)
    way.pay(run, call())
    assert do.snapshot(authority(run.ledger), "user", "u1").spent_usd == Decimal("0.10")  # type: ignore[arg-type]
    assert run.spent_usd == Decimal("0.40")


# Ceilings


def test_a_ceiling_of_its_own_wins_in_every_process_and_for_runs_that_are_on(way: Way, do: Operator) -> None:
    ledger = MemoryLedger()
    here, there = authority(ledger), authority(ledger)
    run = do.session(here, Budget("$5"), user="u1")
    for _ in range(3):
        way.pay(run, call())
    do(there, "set_ceiling", "user", "u1", Budget("$0.40", window="day"))
    way.pay(run, call())
    assert refusal(way, run) == ("max_cost_usd", "user:u1")
    do.session(here, Budget("$5"), user="u1")  # does not put the kind's own back
    assert do.snapshot(here, "user", "u1").limits == {"max_cost_usd": Decimal("0.40")}
    assert do.snapshot(here, "user", "u2").limits == {"max_cost_usd": Decimal("0.30")}
    do(there, "set_ceiling", "user", "u1", None)
    assert do.snapshot(here, "user", "u1").limits == {"max_cost_usd": Decimal("0.30")}


def test_a_ceiling_may_be_set_before_there_is_a_run_and_where_its_kind_has_none(way: Way, do: Operator) -> None:
    ours = authority(ceilings={})
    do(ours, "set_ceiling", "team", "t1", Budget(max_requests=1, window="hour"))
    run = do.session(ours, Budget("$5"), team="t1")
    way.pay(run, call())
    assert refusal(way, run) == ("max_requests", "team:t1")


def test_a_new_default_reaches_those_that_are_known_already(do: Operator) -> None:
    ledger = MemoryLedger()
    do.session(authority(ledger), Budget("$5"), user="u1")
    later = authority(ledger, ceilings={"user": Budget("$9", window="month")})
    do.session(later, Budget("$5"), user="u1")
    seen = do.snapshot(later, "user", "u1")
    assert (seen.limits, seen.window) == ({"max_cost_usd": Decimal(9)}, "month")


class Meddled(MemoryLedger):
    """A ledger in which somebody else does something just before a scope gets its ceiling."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] | None = None

    def set_limits(self, scope: Scope, *args: Any) -> None:
        if scope.kind == "user" and self.before is not None:
            before, self.before = self.before, None
            before()
        super().set_limits(scope, *args)


def test_a_ceiling_that_is_set_while_a_run_is_opened_is_not_overwritten(do: Operator) -> None:
    ledger = Meddled()
    ledger.before = lambda: authority(ledger).set_ceiling("user", "u1", Budget("$0.05"))
    ours = authority(ledger)
    do.session(ours, Budget("$5"), user="u1")
    assert ours.snapshot("user", "u1").limits == {"max_cost_usd": Decimal("0.05")}


# Revoking


def test_revoking_a_user_stops_its_runs_at_their_next_call_and_no_others(way: Way, do: Operator) -> None:
    ledger = MemoryLedger()
    here, there = authority(ledger), authority(ledger)
    mine = [do.session(here, Budget("$5"), user="u1", team="t") for _ in range(2)]
    other = do.session(here, Budget("$5"), user="u2", team="t")
    in_flight = way.reserve(mine[0], call())
    do(there, "revoke", "user", "u1", reason="compromised")
    for run in mine:
        decision = way.authorize(run, call())
        assert isinstance(decision.error, BudgetRevoked) and decision.error.reason == "compromised"
        assert decision.action == "block" and "compromised" in decision.reason
        assert decision.error.at.isoformat(timespec="seconds") in decision.reason
        assert run.terminated_by == "revoked"
    assert way.authorize(other, call()).action == "allow"
    way.commit(in_flight, None)
    assert mine[0].spent_usd == Decimal("0.10")
    seen = do.snapshot(there, "user", "u1")
    assert (seen.revoked, seen.revoked_reason) == (True, "compromised")
    assert seen.revoked_at is not None and seen.revoked_at.tzinfo is timezone.utc
    assert do(there, "restore", "user", "u1") is True
    assert do(there, "restore", "user", "u1") is False
    assert way.authorize(mine[0], call()).action == "allow"


@pytest.mark.parametrize("kind", ["run", "key", "team"])
def test_runs_keys_and_teams_are_cut_off_too(way: Way, do: Operator, kind: str) -> None:
    ours = authority(require=())
    run = do.session(ours, Budget("$5"), "r1", key="k1", team="t1")
    do(ours, "revoke", kind, {"run": "r1", "key": "k1", "team": "t1"}[kind], reason="leaked")
    assert isinstance(way.authorize(run, call()).error, BudgetRevoked)


def test_who_is_revoked_before_being_heard_of_is_refused_and_keeps_the_ceiling(way: Way, do: Operator) -> None:
    ours = authority()
    do(ours, "revoke", "user", "u1", reason="compromised")
    run = do.session(ours, Budget("$5"), user="u1")
    assert isinstance(way.authorize(run, call()).error, BudgetRevoked)
    do(ours, "restore", "user", "u1")
    for _ in range(3):
        way.pay(run, call())
    assert refusal(way, run) == ("max_cost_usd", "user:u1")


# Whose run it is


def test_a_run_belongs_to_the_principal_that_made_it(way: Way, do: Operator) -> None:
    ours = authority(require=())
    way.pay(do.session(ours, Budget("$5"), "r1", user="u1", key="k1"), call())
    for foreign in ({"user": "u2", "key": "k1"}, {"key": "k1"}, {}):
        with pytest.raises(ForeignRun, match="run:r1"):
            do.session(ours, Budget("$9"), "r1", **foreign)
    again = do.session(ours, Budget("$5"), "r1", user="u1", key="k2")
    assert (again.spent_usd, again.budget.max_cost_usd) == (Decimal("0.10"), Decimal(5))
    again.raise_limits(max_cost_usd="$6")


def test_a_run_of_a_user_is_not_that_of_a_key_of_the_same_name(do: Operator) -> None:
    ours = authority(require=())
    do.session(ours, Budget("$5"), "r1", user="x")
    with pytest.raises(ForeignRun):
        do.session(ours, Budget("$5"), "r1", key="x")


# Live runs


def live(clock: FakeClock, **options: Any) -> BudgetAuthority:
    return authority(clock=clock, max_live_runs={"user": 2}, run_ttl_s=300, **options)


def test_a_principal_has_no_more_live_runs_than_its_limit(do: Operator, clock: FakeClock) -> None:
    ours = live(clock)
    first, _ = (do.session(ours, Budget("$5"), user="u1") for _ in range(2))
    with pytest.raises(BudgetExceeded, match="max_live_runs=2 of user:u1") as caught:
        do.session(ours, Budget("$5"), user="u1")
    assert (caught.value.dimension, caught.value.limit, caught.value.actual) == ("max_live_runs", 2, 2)
    do.session(ours, Budget("$5"), user="u2")
    assert do.snapshot(ours, "user", "u1").live_runs == 2
    do.close(first)
    do.close(first)
    assert do.snapshot(ours, "user", "u1").live_runs == 1
    do.session(ours, Budget("$5"), user="u1")


def test_leaving_the_with_block_frees_the_place(clock: FakeClock) -> None:
    ours = live(clock)
    with ours.session(Budget("$5"), user="u1"):
        assert ours.snapshot("user", "u1").live_runs == 1
    assert ours.snapshot("user", "u1").live_runs == 0


async def test_leaving_the_async_with_block_frees_the_place(clock: FakeClock) -> None:
    ours = live(clock)
    async with await ours.asession(Budget("$5"), user="u1"):
        assert ours.snapshot("user", "u1").live_runs == 1
    assert ours.snapshot("user", "u1").live_runs == 0


def test_a_run_that_died_frees_its_place_in_time_and_one_that_calls_keeps_it(
    way: Way, do: Operator, clock: FakeClock
) -> None:
    ours = live(clock)
    alive, _dead = (do.session(ours, Budget("$5"), user="u1") for _ in range(2))
    for _ in range(4):
        clock.advance(150)
        way.authorize(alive, call("penny"))
    do.session(ours, Budget("$5"), user="u1")
    with pytest.raises(BudgetExceeded, match="max_live_runs"):
        do.session(ours, Budget("$5"), user="u1")


def test_a_run_that_slept_too_long_takes_a_place_again_or_is_refused(way: Way, do: Operator, clock: FakeClock) -> None:
    ours = live(clock)
    sleeper = do.session(ours, Budget("$5"), user="u1")
    clock.advance(301)
    others = [do.session(ours, Budget("$5"), user="u1") for _ in range(2)]
    assert refusal(way, sleeper) == ("max_live_runs", "user:u1")
    do.close(others[0])
    assert refusal(way, sleeper) is None
    assert do.snapshot(ours, "user", "u1").live_runs == 2


def test_a_run_whose_place_the_ledger_has_forgotten_takes_another(way: Way, do: Operator, clock: FakeClock) -> None:
    ledger = MemoryLedger(clock=clock, retain=1)
    ours = authority(ledger, clock=clock, max_live_runs={"user": 2}, run_ttl_s=300)
    run, other = (do.session(ours, Budget("$5"), user=user) for user in ("u1", "u2"))
    for _ in range(4):  # its place is freed, and the ledger keeps no more than one settled hold
        clock.advance(301)
        way.pay(other, call("penny"))
    assert refusal(way, run) is None
    assert do.snapshot(ours, "user", "u1").live_runs == 1


def test_a_run_that_could_not_be_opened_takes_no_place(do: Operator, clock: FakeClock) -> None:
    ours = live(clock)
    do.session(ours, Budget("$5"), "r1", user="u1")
    with pytest.raises(ForeignRun):
        do.session(ours, Budget("$5"), "r1", user="u2")
    with pytest.raises(InvalidDowngradeError):
        do.session(ours, Budget("$5", downgrade=DowngradePolicy(to={"small": "large"})), user="u2")
    assert do.snapshot(ours, "user", "u2").live_runs == 0


# Looking


def test_a_snapshot_tells_what_is_set_spent_held_and_left(way: Way, do: Operator, clock: FakeClock) -> None:
    ours = authority(clock=clock)
    assert do.snapshot(ours, "user", "u1").remaining_usd == Decimal("0.30")  # never heard of
    run = do.session(ours, Budget("$5"), user="u1")
    way.pay(run, call())
    way.reserve(run, call())
    seen = do.snapshot(ours, "user", "u1")
    assert (seen.kind, seen.id, seen.window) == ("user", "u1", "day")
    assert seen.window_start == datetime(2025, 1, 1, tzinfo=timezone.utc)
    assert (seen.spent_usd, seen.reserved_usd, seen.remaining_usd) == tuple(map(Decimal, ("0.10", "0.10", "0.10")))
    assert (seen.limits["max_cost_usd"], seen.committed["max_requests"]) == (Decimal("0.30"), 1)
    assert set(seen.remaining) == set(seen.limits) == {"max_cost_usd"}
    assert (seen.open_holds, seen.revoked, seen.live_runs) == (1, False, None)
    assert do.snapshot(ours, "run", run.id).spent_usd == Decimal("0.10")
    assert do.snapshot(ours, "key", "nobody").remaining_usd is None
    with pytest.raises(KeyError, match="nobody"):
        do.snapshot(ours, "run", "nobody")


def test_the_latest_decisions_of_all_runs_are_kept_and_can_be_asked_for(way: Way) -> None:
    ours = authority()
    runs = [ours.session(Budget("$5", max_wait_s=0), user=user, team="t") for user in ("u1", "u1", "u11")]
    for run in (*runs, runs[0], runs[0]):
        way.authorize(run, call())
    assert len(ours.decisions()) == len(ours.decisions("team", "t")) == 5
    assert [d.action for d in ours.decisions("user", "u1")] == ["allow", "allow", "allow", "block"]
    assert ours.decisions("user", action="block") == ours.decisions("run", runs[0].id)[-1:]
    assert ours.decisions("key") == []
    assert runs[0].decisions() == ours.decisions("run", runs[0].id)
    for _ in range(1_100):
        runs[0].authorize(call())
    assert len(ours.decisions()) == len(runs[0].decisions()) == 1_000


# What makes no sense


def test_a_closed_run_calls_only_with_a_place_that_it_takes_again(way: Way, do: Operator, clock: FakeClock) -> None:
    ours = live(clock, ceilings={"user": Budget("$9")})
    run = do.session(ours, Budget("$5"), user="u1")
    do.close(run)
    assert do.snapshot(ours, "user", "u1").live_runs == 0
    way.pay(run, call())
    assert do.snapshot(ours, "user", "u1").live_runs == 1
    do.close(run)
    others = [do.session(ours, Budget("$5"), user="u1") for _ in range(2)]
    for _ in range(2):
        assert refusal(way, run) == ("max_live_runs", "user:u1")
    assert do.snapshot(ours, "user", "u1").live_runs == 2
    do.close(others[0])
    way.pay(run, call())
    assert do.snapshot(ours, "user", "u1").live_runs == 2
    for _ in range(5):  # its calls keep the place, which those that do not call lose
        clock.advance(200)
        way.pay(run, call())
    ours.ledger.sweep()
    assert do.snapshot(ours, "user", "u1").live_runs == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ceilings": {"run": DAILY}}, "ceilings: the kind 'run' is not known"),
        ({"ceilings": {"feature": DAILY}}, "'feature' is what runs are attributed to"),
        ({"ceilings": {"user": Budget("$1", mode="soft_gate")}}, r"ceilings\['user'\] sets mode='soft_gate'"),
        ({"ceilings": {"user": Budget("$1", max_duration_s=5)}}, "max_duration_s=5"),
        ({"max_live_runs": {"users": 2}}, "max_live_runs: the kind 'users'"),
        ({"max_live_runs": {"user": 0}}, r"max_live_runs\['user'\]=0"),
        ({"max_live_runs": {"user": True}}, r"max_live_runs\['user'\]=True"),
        ({"max_live_runs": {"user": 2**53}}, r"max_live_runs\['user'\]=9007199254740992"),
        ({"run_ttl_s": 0}, "run_ttl_s=0"),
        ({"run_ttl_s": float("nan")}, "run_ttl_s=nan"),
        ({"on_ledger_error": "ajar"}, "on_ledger_error='ajar'"),
    ],
)
def test_an_authority_that_makes_no_sense_says_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        authority(**options)


@pytest.mark.parametrize(
    ("verb", "args", "kwargs", "message"),
    [
        ("session", (Budget("$1"),), {"user": ""}, "user=''"),
        ("session", (Budget("$1"),), {"team": 5}, "team=5"),
        ("session", (Budget("$1"), ""), {}, "run_id=''"),
        ("revoke", ("users", "u1"), {"reason": "x"}, "kind='users'"),
        ("revoke", ("feature", "f"), {"reason": "x"}, "kind='feature'"),
        ("revoke", ("user", ""), {"reason": "x"}, "id=''"),
        ("revoke", ("user", "u1"), {"reason": " "}, "reason=' '"),
        ("restore", ("users", "u1"), {}, "kind='users'"),
        ("snapshot", ("users", "u1"), {}, "kind='users'"),
        ("set_ceiling", ("run", "r1", DAILY), {}, "the kind 'run'"),
        ("set_ceiling", ("user", "u1", Budget("$1", max_wait_s=1)), {}, "budget sets max_wait_s=1"),
        ("decisions", ("users",), {}, "kind='users'"),
        ("decisions", (None, "u1"), {}, "id='u1' needs its kind"),
    ],
)
def test_a_verb_that_makes_no_sense_says_so(
    verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(authority(), verb)(*args, **kwargs)


@pytest.mark.parametrize("not_a_budget", ["$5", 5, Limits(cost=5)])
def test_what_is_no_budget_is_refused(not_a_budget: Any) -> None:
    with pytest.raises(TypeError, match="is not a Budget"):
        authority(ceilings={"user": not_a_budget})
    with pytest.raises(TypeError, match="is not a Budget"):
        authority().session(not_a_budget)
    with pytest.raises(TypeError, match="is not a Budget"):
        authority().set_ceiling("user", "u1", not_a_budget)


@pytest.mark.parametrize("hostile", ["a}{b", "u:1", "new\nline", "run:1", "é" * 5_000, " "])
def test_hostile_names_are_kept_apart(way: Way, hostile: str) -> None:
    ours = authority()
    run = ours.session(Budget("$5"), hostile, user=hostile, key=hostile)
    way.pay(run, call())
    assert ours.snapshot("user", hostile).spent_usd == ours.snapshot("run", hostile).spent_usd == Decimal("0.10")
    assert ours.snapshot("user", hostile[:-1] or "x").spent_usd == 0


def test_the_place_of_a_run_is_prolonged_once_and_not_at_each_call(
    way: Way, do: Operator, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = do.session(live(clock), Budget("$5"), user="u1")
    prolonged: list[str] = []
    extend = MemoryLedger.extend

    def noting(ledger: MemoryLedger, hold_id: str, ttl_s: float) -> bool:
        prolonged.append(hold_id)
        return extend(ledger, hold_id, ttl_s)

    monkeypatch.setattr(MemoryLedger, "extend", noting)
    for _ in range(2):
        clock.advance(101)
        for _ in range(3):
            way.pay(run, call("penny"))
    assert len(prolonged) == 2


@pytest.mark.parametrize("kind", ["run", "feature", "user", "agent", "plan", "budget", "Org", "my org", "", 3, None])
def test_a_kind_that_is_no_word_of_its_own_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="is no name for a kind, or is taken"):
        BudgetAuthority(kinds=(kind,))


def test_an_outbox_of_ones_own_is_taken_as_it_is_and_a_path_makes_one(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "a")
    assert BudgetAuthority(outbox=outbox).outbox is outbox
    assert isinstance(BudgetAuthority(outbox=tmp_path / "b").outbox, Outbox)
    assert BudgetAuthority().outbox is not BudgetAuthority().outbox
