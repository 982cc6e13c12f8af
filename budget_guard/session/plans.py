"""Plans and ceilings: which a principal has, by its kind, its plan or its own, and the scopes that count for them.

Each window of a kind has a scope of its own, so a call is held in all of them at once, or in none. The longest window
is counted in the principal's own scope, which is the one that is cut off; so where several stand in the way, the one
that ends last is told. All windows that any plan or ceiling of a kind names are counted for each principal of that
kind: what is spent stays spent when its plan changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from budget_guard.ledger.base import Balance
from budget_guard.ledger.flow import Flow
from budget_guard.session.ceiling import NO_CEILING, Ceiling, ceiling_in
from budget_guard.units.amounts import NOTHING, Limits
from budget_guard.units.printable import printable
from budget_guard.units.scope import LONGEST_FIRST, Scope, Window

CeilingsByKind = Mapping[str, Sequence[Ceiling]]


class Ceilings:
    """The ceilings of an authority.

    Args:
        kinds: The kinds of principals.
        defaults: What principals without a plan may spend.
        plans: What those with one may spend, by the plan's name.
    """

    def __init__(self, kinds: Sequence[str], defaults: CeilingsByKind, plans: Mapping[str, CeilingsByKind]) -> None:
        self._defaults = defaults
        self._plans = plans
        self._windows: dict[str, tuple[Window, ...]] = {}
        for kind in kinds:
            used = {each.window for given in (defaults, *plans.values()) for each in given.get(kind, ())}
            self._windows[kind] = tuple(window for window in LONGEST_FIRST if window in used) or ("none",)

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds that have a ceiling by default or in a plan."""
        return list(dict.fromkeys(kind for given in (self._defaults, *self._plans.values()) for kind in given))

    @property
    def has_plans(self) -> bool:
        """Whether there are plans."""
        return bool(self._plans)

    @property
    def limit_runs(self) -> bool:
        """Whether one of them limits how many runs are begun, beside what is set for one principal itself."""
        given = (self._defaults, *self._plans.values())
        return any(each.max_runs is not None for by_kind in given for kind in by_kind.values() for each in kind)

    def scopes(self, principal: Scope) -> tuple[Scope, ...]:
        """The scopes that count for *principal*, its own first: that of the longest window."""
        return (principal, *(principal.in_window(window) for window in self._windows[principal.kind][1:]))

    def open(self, principal: Scope) -> Flow[Sequence[Ceiling]]:
        """Give the scopes of *principal* the ceilings that are meant for it; return these, one for each scope.

        Raises:
            ValueError: If its plan is not known here.
        """
        scopes = self.scopes(principal)
        meant = yield from self._meant(principal, scopes)
        while (yield from _set(scopes, meant)):
            # Another process may have set others meanwhile, and had them overwritten just now.
            again = yield from self._meant(principal, scopes)
            if again == meant:
                break
            meant = again
        return meant

    def set(self, principal: Scope, own: Sequence[Ceiling] | None) -> Flow[None]:
        """Give *principal* ceilings of its *own*, which win over its plan; None to go back to that.

        Raises:
            ValueError: If one has a window that the kind does not count in.
        """
        scopes = self.scopes(principal)
        ceilings = self._spread(principal.kind, own) if own is not None else [NO_CEILING] * len(scopes)
        pins = list(zip(map(_pin, scopes), ceilings, strict=True))
        for pin, ceiling in reversed(pins):  # that of its own scope last: it says that there are any
            limits, window, note = ceiling.written_down
            yield "set_limits", (pin, limits, window, "", note)
        yield from self.open(principal)

    def assign(self, principal: Scope, plan: str | None) -> Flow[None]:
        """Give *principal* a *plan*; None takes it away.

        Raises:
            ValueError: If the plan is not known, or says nothing of its kind.
        """
        if plan is not None:
            self._of_plan(plan, principal)
        yield "set_limits", (_plan_of(principal), Limits(), "none", "", plan or "")
        yield from self.open(principal)

    def own(self, principal: Scope) -> Flow[Sequence[Ceiling] | None]:
        """The ceilings that were set for *principal* itself; None for none."""
        return (yield from self._own(self.scopes(principal)))

    def plan(self, principal: Scope) -> Flow[str | None]:
        """The plan of *principal*; None if it has none."""
        if not self._plans:
            return None
        balance = yield from look(_plan_of(principal))
        return (balance.note or None) if balance is not None else None

    def balances(self, principal: Scope) -> Flow[list[Balance]]:
        """The counters of *principal* in each of its windows, the longest first."""
        scopes = self.scopes(principal)
        found = yield from _look_at(scopes)
        if None not in found:
            return [each for each in found if each is not None]
        meant = yield from self._meant(principal, scopes)
        return [each or _unopened(scope, ceiling) for each, scope, ceiling in zip(found, scopes, meant, strict=True)]

    def _meant(self, principal: Scope, scopes: Sequence[Scope]) -> Flow[Sequence[Ceiling]]:
        """The ceilings that *principal* is to have, one for each of its *scopes*."""
        own = yield from self._own(scopes)
        if own is not None:
            return own
        plan = yield from self.plan(principal)
        kind = principal.kind
        given = self._defaults.get(kind, ()) if plan is None else self._of_plan(plan, principal)
        return self._spread(kind, given)

    def _own(self, scopes: Sequence[Scope]) -> Flow[Sequence[Ceiling] | None]:
        """The ceilings that were set for one principal itself; they are written down in scopes of their own."""
        first = yield from look(_pin(scopes[0]))
        if first is None:
            return None
        found = [first, *(yield from _look_at([_pin(scope) for scope in scopes[1:]]))]
        own = [NO_CEILING if each is None else ceiling_in(each) for each in found]
        return own if any(each.limits_something for each in own) else None

    def _of_plan(self, plan: str, principal: Scope) -> Sequence[Ceiling]:
        """What *plan* gives to principals of that kind.

        Raises:
            ValueError: If it is not known, or gives nothing.
        """
        if not isinstance(plan, str) or plan not in self._plans:
            known = ", ".join(map(repr, self._plans)) or "none: BudgetAuthority(..., plans={...})"
            raise ValueError(f"plan={printable(repr(plan))} for {principal} is not known: the plans are {known}")
        kinds = self._plans[plan]
        if principal.kind not in kinds:
            raise ValueError(
                f"plan={plan!r} says nothing of {principal}: it has ceilings for {', '.join(map(repr, kinds))}"
            )
        return kinds[principal.kind]

    def _spread(self, kind: str, given: Sequence[Ceiling]) -> Sequence[Ceiling]:
        """One ceiling for each window of *kind*: those *given*, and no limit in the other ones.

        Raises:
            ValueError: If one has a window that the kind does not count in.
        """
        windows = self._windows[kind]
        if len(windows) == 1 and len(given) == 1:
            return given  # the scope counts in that window from now on
        by_window = {each.window: each for each in given}
        for window in by_window:
            if window not in windows:
                raise ValueError(
                    f"window={window!r} is none in which each {kind} is counted, and those are "
                    f"{', '.join(map(repr, windows))}: name it in ceilings= or plans= of the authority as well, for "
                    f'example ceilings={{{kind!r}: [..., Budget("$1000", window={window!r})]}}'
                )
        return [by_window.get(window, Ceiling(window=window)) for window in windows]


def look(scope: Scope) -> Flow[Balance | None]:
    """The counters of *scope*; None if it was never opened."""
    try:
        balances: list[Balance] = yield "balances", ((scope,),)
    except KeyError:
        return None
    return balances[0]


def _look_at(scopes: Sequence[Scope]) -> Flow[Sequence[Balance | None]]:
    """The counters of each of *scopes*, at once where they are all there."""
    if not scopes:
        return ()
    try:
        balances: Sequence[Balance] = yield "balances", (tuple(scopes),)
    except KeyError:
        found: list[Balance | None] = []
        for scope in scopes:
            found.append((yield from look(scope)) if len(scopes) > 1 else None)
        return found
    return balances


def _set(scopes: Sequence[Scope], ceilings: Sequence[Ceiling]) -> Flow[bool]:
    """Give each of *scopes* its ceiling; return whether that changed anything.

    Each is a step of its own, so what becomes tighter comes first: in between no more is allowed than before or after.
    """
    found = yield from _look_at(scopes)
    changes = [
        (balance is not None and _loosens(balance, ceiling), scope, ceiling)
        for balance, scope, ceiling in zip(found, scopes, ceilings, strict=True)
        if balance is None or (balance.limits, balance.window, balance.note) != ceiling.enforced
    ]
    for _, scope, ceiling in sorted(changes, key=lambda change: change[0]):
        limits, window, note = ceiling.enforced
        yield "set_limits", (scope, limits, window, "", note)
    return bool(changes)


def _unopened(scope: Scope, ceiling: Ceiling) -> Balance:
    limits, window, note = ceiling.enforced
    return Balance(scope, limits, NOTHING, NOTHING, 0, None, window, note=note)


def _loosens(before: Balance, ceiling: Ceiling) -> bool:
    """Whether *ceiling* allows more of anything than the limits *before*."""
    limits, _, _ = ceiling.enforced
    pairs = zip(before.limits, limits, strict=True)
    return any(was is not None and (limit is None or limit > was) for was, limit in pairs)


def _pin(scope: Scope) -> Scope:
    return Scope("ceiling", str(scope))


def _plan_of(principal: Scope) -> Scope:
    return Scope("plan", str(principal))
