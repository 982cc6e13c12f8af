"""The pages for operators: which is asked for, by whom, and what it shows.

Browsers log in with the token and have a cookie then, which no script can read and no other site's page can send. A
form counts that carries the token of its log-in, and comes from a page of ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from urllib.parse import parse_qsl, urlencode

from budget_guard import BudgetError, LedgerUnavailable, ScopeSnapshot
from budget_guard.protocol import problem
from budget_guard.session.usage import By, UsageRow
from budget_guard.units.money import to_usd
from budget_guard_gateway.admin import pages
from budget_guard_gateway.admin.access import COOKIE, SESSION_S, Access, cookie_of
from budget_guard_gateway.admin.operations import LONGEST_NAME, Asked, Operations
from budget_guard_gateway.admin.pages import HOME, Frame, One, Overview, Spender
from budget_guard_gateway.admin.run_report import report_of_run
from budget_guard_gateway.decisions import Wanted, is_decision_id
from budget_guard_gateway.messages import Client, Headers, Refused, Scope, encoded
from budget_guard_gateway.metrics import Snapshot
from budget_guard_gateway.state import GatewayState

_FORMS = ("/budget/login", "/budget/logout", "/budget/revoke", "/budget/restore")
PATHS = frozenset(("/", "/budget", HOME, "/budget/view", "/budget/refusals", *_FORMS))
"""The addresses of pages and of their forms."""
_MOST_FORM = 10_000
"""Bytes of a form."""
_A_PAGE = 25
"""Spenders on one page."""
_REFUSALS = 12
_REFUSALS_A_PAGE = 50
_DECISIONS = 20
_MOST_REFUSED = 200
"""Refusals of a day that are counted."""
_PANELS: tuple[tuple[str, By], ...] = (("By model", "model"), ("By feature", "feature"), ("By agent", "agent"))
_DAYS = {"today": 0, "week": 6, "month": 29}
"""How many days before today a period begins."""


class Browser:
    """Serves the pages.

    Args:
        gateway: What they show.
        operations: What their forms do.
        access: Who may look.
        numbers: The numbers of all processes.
    """

    def __init__(
        self, gateway: GatewayState, operations: Operations, access: Access, numbers: Callable[[], Sequence[Snapshot]]
    ) -> None:
        self._gateway = gateway
        self._authority = gateway.authority
        self._operations = operations
        self._access = access
        self._numbers = numbers

    async def serve(self, scope: Scope, headers: Mapping[bytes, bytes], client: Client) -> None:
        """Answer a request for one of `PATHS`."""
        path, method = scope["path"], scope["method"]
        cookie = cookie_of(headers.get(b"cookie"))
        frame = Frame(secrets.token_urlsafe(16), self._access.form_token(cookie), not self._access.is_open)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        try:
            if method in ("GET", "HEAD"):
                await self._get(path, query, cookie, frame, client)
            elif method == "POST":
                await self._post(path, query, headers, cookie, frame, client)
            else:
                raise Refused(problem("method_not_allowed", "Pages are had with GET."), [("Allow", "GET, POST")])
        except Refused as refused:
            if refused.problem.status == 413:
                raise
            words = refused.problem.detail
            await _show(client, frame, pages.trouble(frame, refused.problem.type.title, words), refused.problem.status)
        except LedgerUnavailable:
            words = "The ledger cannot be reached, so nothing can be shown. This page tries again by itself."
            await _show(client, frame, pages.trouble(frame, "One moment", words, refresh_s=5), 503)
        except BudgetError as error:
            await _show(client, frame, pages.trouble(frame, "That went wrong", str(error)), 500)

    async def _get(self, path: str, query: Mapping[str, str], cookie: str | None, frame: Frame, client: Client) -> None:
        if path == "/budget/login":
            if self._access.is_open or self._access.is_session(cookie):
                await _send_on(client, HOME)
            else:
                await _show(client, frame, pages.log_in(frame, wrong=False))
        elif not self._access.is_session(cookie):
            await _send_on(client, "/budget/login")
        elif path == HOME:
            await _show(client, frame, pages.overview(frame, await self._overview(query)))
        elif path == "/budget/view":
            await _show(client, frame, pages.one(frame, await self._one(query)))
        elif path == "/budget/refusals":
            before = query.get("before")
            wanted = Wanted(_REFUSALS_A_PAGE, before if before and is_decision_id(before) else None, "block")
            found = await self._gateway.decisions.latest(wanted)
            await _show(client, frame, pages.refusals(frame, found.records, found.next))
        else:  # what a form goes to, or an address that is nearly ours
            await _send_on(client, HOME)

    async def _post(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[bytes, bytes],
        cookie: str | None,
        frame: Frame,
        client: Client,
    ) -> None:
        origin = headers.get(b"origin")
        if origin is None:  # of another page it would have been refused before
            raise Refused(problem("browser_refused", "A form must come from a page of this site."))
        body = await client.body(_MOST_FORM, headers)
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        if path == "/budget/login":
            if not self._access.is_token(form.get("token")):
                await _show(client, frame, pages.log_in(frame, wrong=True), 401)
                return
            await _send_on(client, HOME, [_cookie(self._access.begin(), SESSION_S, origin)])
            return
        if not self._access.is_session(cookie):
            await _send_on(client, "/budget/login")
            return
        if not self._access.is_form_token(form.get("form_token", ""), cookie):
            raise Refused(problem("browser_refused", "This form is of an earlier log-in: go back, load it anew."))
        if path == "/budget/logout":
            await _send_on(client, "/budget/login", [_cookie("", 0, origin)])
        elif path in ("/budget/revoke", "/budget/restore"):
            kind, id = query.get("kind", ""), query.get("id", "")
            asked = Asked({"kind": kind, "id": id}, {}, {"reason": form.get("reason", "")})
            is_revoked = path == "/budget/revoke"
            await (self._operations.revoke if is_revoked else self._operations.restore)(asked)
            done = "revoked" if is_revoked else "restored"
            await _send_on(client, f"/budget/view?{urlencode({'kind': kind, 'id': id, 'done': done})}")
        else:
            raise Refused(problem("method_not_allowed", "Pages are had with GET."), [("Allow", "GET")])

    # What they show

    async def _overview(self, query: Mapping[str, str]) -> Overview:
        kinds = ("user", "key", *(kind for kind in self._authority.kinds if kind not in ("user", "key")), "run")
        kind = query.get("kind", "")
        kind = kind if kind in kinds else self._main_kind()
        period = query.get("period", "")
        period = period if period in pages.PERIODS else "today"
        find = query.get("find", "")[:LONGEST_NAME]
        spent = await self._spent(kind, period, find)
        last = max(1, -(-len(spent) // _A_PAGE))
        number = min(last, max(1, _number(query.get("page", "1"))))
        here = spent[(number - 1) * _A_PAGE : number * _A_PAGE]
        spenders = [Spender(id, cost, calls, await self._snapshot(kind, id)) for id, cost, calls in here]
        now = self._gateway.clock.now()
        snapshots = self._numbers()
        blocked = await self._gateway.decisions.latest(Wanted(_MOST_REFUSED, action="block"))
        today = [each for each in blocked.records if each["time"][:10] == now.date().isoformat()]
        return Overview(
            at=now,
            mode=self._gateway.settings.run_budget.mode,
            kinds=kinds,
            kind=kind,
            period=period,
            find=find,
            number=number,
            last=last,
            total=len(spent),
            spenders=spenders,
            today=await self._together("today"),
            month=await self._together("month"),
            held=to_usd(sum(each.gauges.get("budget_guard_reserved_usd", 0) for each in snapshots)),
            under_way=sum(each.gauges.get("budget_guard_open_calls", 0) for each in snapshots),
            refused_today=f"{len(today)}{'+' if len(today) == _MOST_REFUSED else ''}",
            refusals=blocked.records[:_REFUSALS],
        )

    def _main_kind(self) -> str:
        """The kind that is shown first: the first one that has a ceiling."""
        ceiled = self._gateway.settings.ceiled_kinds
        return next((kind for kind in ("user", "key", "team", "agent") if kind in ceiled), "user")

    async def _spent(self, kind: str, period: str, find: str) -> list[tuple[str, Decimal, int]]:
        """Who has spent how much by how many calls, the dearest first; with *find* all whose names begin so."""
        rows = await self._authority.ausage(kind, since=self._since(period), by=("id",))
        spent = {row.id: (row.cost_usd, row.calls) for row in rows if row.id is not None}
        if find:
            ids = await self._authority.alist(kind, prefix=find)
            spent = {id: spent.get(id, (Decimal(0), 0)) for id in ids}
        return sorted(((id, *each) for id, each in spent.items()), key=lambda each: (-each[1], each[0]))

    async def _together(self, period: str) -> UsageRow | None:
        """What all keys have spent together: every call of the gateway has one."""
        rows = await self._authority.ausage("key", since=self._since(period), by=())
        return rows[0] if rows else None

    def _since(self, period: str) -> date | None:
        days = _DAYS.get(period)
        return None if days is None else self._gateway.clock.now().date() - timedelta(days=days)

    async def _snapshot(self, kind: str, id: str) -> ScopeSnapshot:
        return await self._authority.asnapshot(kind, id)

    async def _one(self, query: Mapping[str, str]) -> One:
        kind, id = query.get("kind", ""), query.get("id", "")
        if kind not in self._operations.kinds or not id or len(id) > LONGEST_NAME:
            raise Refused(problem("not_found", "There is no such page."))
        try:
            snapshot = await self._snapshot(kind, id)
            report = await report_of_run(self._gateway, id) if kind == "run" else None
        except KeyError:
            raise Refused(problem("not_found", "There is no such run.")) from None
        found = await self._gateway.decisions.latest(Wanted(_DECISIONS, kind=kind, id=id))
        by: list[tuple[str, list[tuple[str, Decimal, int]]]] = []
        if report is None:
            for title, name in _PANELS:
                rows = await self._authority.ausage(kind, id, since=self._since("month"), by=(name,))
                named = [(getattr(row, name), row) for row in rows]
                if any(label is not None for label, _ in named):
                    by.append((title, [(label or "(none)", row.cost_usd, row.calls) for label, row in named]))
        return One(snapshot, by, found.records, report, query.get("done"))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _cookie(value: str, seconds: int, origin: bytes) -> tuple[str, str]:
    secure = "; Secure" if origin.startswith(b"https:") else ""
    return "Set-Cookie", f"{COOKIE}={value}; Path=/budget; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


async def _show(client: Client, frame: Frame, page: str, status: int = 200) -> None:
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", pages.security_policy(frame.nonce)),
        ("Referrer-Policy", "same-origin"),  # without one, a form would not say where it comes from
        *_EACH,
    ]
    await client.answer(status, encoded(headers), page.encode("utf-8", "backslashreplace"))


async def _send_on(client: Client, where: str, headers: list[tuple[str, str]] | None = None) -> None:
    """Send a browser to another page."""
    answer: Headers = encoded([("Location", where), *(headers or []), *_EACH])
    await client.answer(303, answer, b"")


_EACH = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""What each answer carries."""
