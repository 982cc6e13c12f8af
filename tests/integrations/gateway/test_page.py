"""The pages for operators: who may see them, what a form must carry, and what a browser makes of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

pytest.importorskip("aiohttp")

from budget_guard import Budget, LedgerUnavailable
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway.chromium import CHROMIUM, Page, browsing
from tests.integrations.gateway.support import RATES, Asking, administered, gateway
from tests.reporting.runs import EVIL
from tests.reporting.test_html import _Elements

SECRET = "a-token-of-operators"
SETTINGS: dict[str, Any] = {
    "admin": "127.0.0.1:0",
    "ceilings": {"user": [Budget("$2.00", window="day"), Budget("$40.00", window="month")]},
    "plans": {"pro": {"user": Budget("$9.00", window="day")}},
}
WHO = "token-bcb9333252569ce8"
"""Whom the token ``anybody`` is taken for."""
ONE = {"kind": "user", "id": WHO}
USER = f"/budget/view?kind=user&id={WHO}"
PAGES = (
    *("/budget/", "/budget/?kind=run&period=all", "/budget/?kind=team&period=month", "/budget/?find=token"),
    *("/budget/?find=nobody", USER, "/budget/view?kind=run&id=r1", "/budget/refusals"),
    *(f"/budget/view?kind=user&id={quote(EVIL, safe='')}", "/budget/view?kind=team&id=none"),
)


def spend(asking: Asking) -> None:
    """Let some spend, and some be refused."""
    for _ in range(12):
        asking.ask()
    authority = asking.gateway.authority
    with authority.session(Budget("$1"), EVIL, user=EVIL, key=EVIL, feature=EVIL) as session:
        session.track(None, cost="0.30", tool=EVIL, agent=EVIL)
    authority.assign("user", EVIL, "pro")
    authority.revoke("user", EVIL, reason=EVIL)
    asking.ask(run="r2", model="cheap", max_tokens=999)


@pytest.fixture(scope="module")
def asking() -> Iterator[Asking]:
    reply = Reply(text="x " * 16, input_tokens=5, output_tokens=16)
    with (
        LocalProvider(lambda _: reply, prices=RATES) as provider,
        gateway(provider, admin_token=SECRET, **SETTINGS) as served,
    ):
        spend(served)
        yield served


@pytest.fixture(scope="module")
def office(asking: Asking) -> Iterator[str]:
    """The address of the admin port."""
    with administered(asking) as http:
        yield str(http.base_url).rstrip("/")


@pytest.fixture
def http(office: str) -> Iterator[httpx.Client]:
    """A browser that nobody has logged in with."""
    with httpx.Client(base_url=office, headers={"origin": office}, timeout=20) as client:
        yield client


@pytest.fixture
def operator(http: httpx.Client) -> httpx.Client:
    """A browser that an operator has logged in with."""
    assert http.post("/budget/login", data={"token": SECRET}).status_code == 303
    return http


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


# Who may see them


@pytest.mark.parametrize("path", [*PAGES, "/", "/budget", "/budget/revoke"])
def test_who_is_not_logged_in_is_sent_to_the_door(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/budget/login", b"")
    for form in ("/budget/revoke", "/budget/restore", "/budget/logout"):
        answer = http.post(form, params=ONE, data={"reason": "x"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/budget/login")


def test_the_token_opens_the_door_and_nothing_else_does(http: httpx.Client) -> None:
    for wrong in ("", "x", SECRET + "x", f"{SECRET}\x00"):
        answer = http.post("/budget/login", data={"token": wrong})
        assert answer.status_code == 401 and "That is not the token." in answer.text
        assert "set-cookie" not in answer.headers and SECRET not in answer.text
    answer = http.post("/budget/login", data={"token": SECRET})
    assert (answer.status_code, answer.headers["location"]) == (303, "/budget/")
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; Path=/budget; Max-Age=43200; HttpOnly; SameSite=Strict") and SECRET not in cookie
    assert http.get("/budget/").status_code == 200
    assert http.get("/budget/login").headers["location"] == "/budget/"
    assert http.get("/budget/runs").status_code == 401  # which is for programs, with the token


def test_behind_tls_the_cookie_is_for_tls_alone(http: httpx.Client, office: str) -> None:
    origin = office.replace("http:", "https:")
    answer = http.post("/budget/login", data={"token": SECRET}, headers={"origin": origin})
    assert answer.headers["set-cookie"].endswith("; Secure")


def test_a_cookie_of_ones_own_making_opens_nothing(http: httpx.Client) -> None:
    for cookie in ("", "x", "99999999999.0", "99999999999." + "0" * 64):
        assert http.get("/budget/", headers={"cookie": f"budget_guard_admin={cookie}"}).status_code == 303


def test_leaving_takes_the_cookie_away(operator: httpx.Client) -> None:
    token = form_token(operator.get("/budget/").text)
    answer = operator.post("/budget/logout", data={"form_token": token})
    assert answer.headers["location"] == "/budget/login" and "Max-Age=0" in answer.headers["set-cookie"]
    assert operator.get("/budget/").status_code == 303


# What a form must carry


def test_a_form_counts_with_its_token_from_our_own_page_alone(
    operator: httpx.Client, asking: Asking, office: str
) -> None:
    token = form_token(operator.get(USER).text)
    whole = {"form_token": token, "reason": "leaked"}
    authority = asking.gateway.authority
    for form, headers in (
        ({**whole, "form_token": ""}, {}),
        ({**whole, "form_token": "0" * 64}, {}),
        (whole, {"origin": "http://evil.example"}),
        (whole, {"origin": "null"}),
        (whole, {"origin": office + ".evil.example"}),
    ):
        answer = operator.post("/budget/revoke", params=ONE, data=form, headers=headers)
        assert answer.status_code == 403 and not authority.snapshot("user", WHO).revoked
    del operator.headers["origin"]
    assert operator.post("/budget/revoke", params=ONE, data=whole).status_code == 403
    assert operator.get("/budget/revoke", params={**ONE, **whole}).headers["location"] == "/budget/"
    assert not authority.snapshot("user", WHO).revoked

    answer = operator.post("/budget/revoke", params=ONE, data=whole, headers={"origin": office})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{USER}&done=revoked")
    page = operator.get(answer.headers["location"]).text
    assert "Every further call is refused." in page and "leaked" in page and ">Restore</button>" in page
    assert asking.ask(run="r9").status_code == 403
    unsaid = {**whole, "reason": ""}
    answer = operator.post("/budget/restore", params=ONE, data=unsaid, headers={"origin": office})
    assert "It may call again." in operator.get(answer.headers["location"]).text
    assert not authority.snapshot("user", WHO).revoked


def test_a_form_that_makes_no_sense_is_refused_on_a_page(operator: httpx.Client) -> None:
    token = form_token(operator.get(USER).text)
    for whose, reason, status, words in (
        (ONE, " ", 400, "says nothing"),
        ({**ONE, "kind": "usr"}, "x", 404, "the kinds are"),
        ({**ONE, "id": ""}, "x", 400, "1 to 512"),
        ({}, "x", 404, "the kinds are"),
    ):
        answer = operator.post("/budget/revoke", params=whose, data={"form_token": token, "reason": reason})
        assert answer.status_code == status and words in answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert operator.post("/budget/revoke", content=b"x" * 10_001).status_code == 413
    assert operator.post("/budget/", data={"form_token": token}).status_code == 405
    assert operator.put("/budget/").status_code == 405


def test_without_a_token_whoever_is_on_this_machine_looks_and_forms_count_from_our_pages_alone() -> None:
    from budget_guard.integrations.gateway import Upstream

    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    with gateway(None, upstreams=upstreams, **SETTINGS) as served, administered(served) as http:
        page = http.get("/budget/view?kind=user&id=u1").text
        assert "Log out" not in page and http.get("/budget/login").headers["location"] == "/budget/"
        one, form = {"kind": "user", "id": "u1"}, {"reason": "x"}
        own = {"origin": str(http.base_url).rstrip("/")}
        assert http.post("/budget/revoke", params=one, data=form, headers=own).status_code == 403
        whole = {**form, "form_token": form_token(page)}
        assert http.post("/budget/revoke", params=one, data=whole).status_code == 403
        assert http.post("/budget/revoke", params=one, data=whole, headers=own).status_code == 303
        assert served.gateway.authority.snapshot("user", "u1").revoked


# What they are made of


@pytest.mark.parametrize("path", [*PAGES, "/budget/login", "/budget/view?kind=run&id=none", "/budget/view"])
def test_a_page_is_well_formed_loads_nothing_and_runs_nothing_but_its_own(operator: httpx.Client, path: str) -> None:
    if path == "/budget/login":
        operator.cookies.clear()
    answer = operator.get(path)
    nonce = re.search(r"script-src 'nonce-([\w-]{22})'", answer.headers["content-security-policy"])
    assert nonce is not None and answer.headers["content-security-policy"].startswith("default-src 'none'; ")
    for name, value in (
        *(("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("cache-control", "no-store")),
        *(("referrer-policy", "same-origin"), ("content-type", "text/html; charset=utf-8")),
    ):
        assert answer.headers[name] == value
    text = answer.text
    elements = _Elements(re.sub(r"<input[^>]*>", "", text))
    assert elements.open == []
    assert all(load == "data:," or load.startswith(("/budget/", "#")) for load in elements.loads), elements.loads
    assert re.findall(r"<(?:script|style)(?! nonce)", text) == []
    assert set(re.findall(r'nonce="([^"]*)"', text)) <= {nonce[1]}
    assert nonce[1] not in operator.get(path).text
    assert "<script>alert" not in text and "\u202e" not in text and "\x1b" not in text


def test_names_lead_to_their_own_pages(operator: httpx.Client) -> None:
    page = operator.get("/budget/?period=all").text
    for link in re.findall(r'href="(/budget/view[^"]*)"', page):
        assert operator.get(link.replace("&amp;", "&")).status_code == 200
    assert f"id={quote(EVIL, safe='')}" in page


def test_a_page_tells_what_is_asked_for(operator: httpx.Client) -> None:
    home = operator.get("/budget/").text
    assert "$0.99 of $2.00 today" in home and "hard_gate" in home and "The run&#x27;s limit" not in home
    assert "The run's limit of $1.00 has $0.00 left" in home
    assert "No team has spent in 30 days." in operator.get("/budget/?kind=team&period=month").text
    assert "No user is known whose name begins so." in operator.get("/budget/?find=nobody").text
    user = operator.get(USER).text
    assert "$1.01 of $40.00" in user and "By model" in user and "this month" in user
    run = operator.get("/budget/view?kind=run&id=r1").text
    assert "stopped by" not in run and "limit used up" in run and "Over time" in run and "<svg" in run
    evil = operator.get(f"/budget/view?kind=user&id={quote(EVIL, safe='')}").text
    assert "Every call is refused since" in evil and "plan pro" in evil and "$9.00" in evil
    assert operator.get("/budget/view?kind=run&id=none").status_code == 404
    for odd in ("?kind=x&period=x&page=x", "?page=0", "?page=99999999999999999999", "?page=7&find=%00"):
        assert operator.get(f"/budget/{odd}").status_code == 200


def test_a_ceiling_that_refuses_nothing_and_one_of_runs_are_told_as_such() -> None:
    from budget_guard.integrations.gateway import Upstream

    upstreams = [Upstream(name="openai", url="https://api.openai.com")]
    ceilings = {
        "user": [Budget("$1.00", window="day", mode="advisory_estimate"), Budget(max_runs=5, window="month")],
    }
    with (
        gateway(None, upstreams=upstreams, ceilings=ceilings, admin="127.0.0.1:0") as served,
        administered(served) as http,
    ):
        with served.gateway.authority.session(Budget("$9"), user="u1", key="k1") as session:
            session.track(None, cost="1.50", tool="t")
        assert "of $1.00 today" in http.get("/budget/").text
        user = http.get("/budget/view?kind=user&id=u1").text
        assert "today, refuses nothing" in user and "$1.50 of $1.00" in user and "Runs begun this month" in user
        assert "limit used up" not in user


def test_thousands_are_paged(operator: httpx.Client, asking: Asking) -> None:
    authority = asking.gateway.authority
    for n in range(1_010):
        with authority.session(Budget("$1"), user=f"many-{n:04}", team="many") as session:
            session.track(None, cost="0.0001", tool="t")
    for page, first, more in ((1, 0, True), (2, 25, True), (41, 1_000, False)):
        text = operator.get("/budget/", params={"find": "many-", "page": page}).text
        found = re.findall(r">(many-\d{4})</a>", text)
        assert found == [f"many-{n:04}" for n in range(first, min(first + 25, 1_010))]
        assert ('rel="next"' in text) == more and ('rel="prev"' in text) == (page > 1) and len(text) < 60_000
    assert operator.get("/budget/", params={"find": "many-", "page": 99}).text.count(">many-") == 10
    assert "Page 1 of 41, 1,012 users" in operator.get("/budget/").text


def test_a_ledger_that_is_down_is_a_page_that_tries_again(
    operator: httpx.Client, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: object, **__: object) -> Any:
        raise LedgerUnavailable(detail="down")

    monkeypatch.setattr(asking.gateway.authority, "ausage", down)
    answer = operator.get("/budget/")
    assert answer.status_code == 503 and 'http-equiv="refresh" content="5"' in answer.text
    assert "The ledger cannot be reached" in answer.text


# What a browser makes of them


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    if CHROMIUM is None and not os.environ.get("NEEDS_CHROMIUM"):
        pytest.skip("no chromium is installed here: apt-get install chromium")
    with browsing() as page:
        yield page


@pytest.fixture
def page(browser: Page, office: str) -> Iterator[Page]:
    """A page that nobody has logged in with."""
    browser.look(1100, 800)
    browser.tell("Network.clearBrowserCookies")
    browser.complaints.clear()
    browser.asked.clear()
    yield browser
    assert browser.complaints == []
    assert {url for url in browser.asked if not url.startswith((office, "data:,"))} == set()


def tab_to(page: Page, words: str, most: int = 80) -> None:
    """Press Tab until what is called *words* has the focus."""
    for _ in range(most):
        page.press("Tab")
        if page.focused() == words:
            return
    raise AssertionError(f"{words} is not to be reached by the keyboard")


def log_in(page: Page, office: str) -> None:
    page.open(f"{office}/budget/")
    assert page.run("location.pathname") == "/budget/login"
    for _ in range(200):  # the browser puts the focus into the field when it first paints the page
        if page.focused() == "token":
            break
    page.type(SECRET)
    page.press_and_wait("Enter")
    assert page.run("location.pathname") == "/budget/"


CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const dim = [];
  for (const e of document.querySelectorAll("body *:not(svg *):not(script)")) {
    const has = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!has || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) dim.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return dim;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_fits_its_window_can_be_read_and_asks_for_nothing(page: Page, office: str, dark: bool) -> None:
    log_in(page, office)
    for width in (400, 1100):
        page.look(width, 800, dark=dark)
        for path in PAGES if width == 400 else PAGES[::3]:
            page.open(office + path)
            assert page.run("[document.documentElement.scrollWidth, innerWidth].join()") == f"{width},{width}", path
            assert page.run(CONTRAST) == [], path
    page.tell("Network.clearBrowserCookies")
    page.open(f"{office}/budget/login")
    assert page.run(CONTRAST) == []
    grounds = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.run(grounds) == ("rgb(19, 19, 18)" if dark else "rgb(246, 246, 244)")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_user_is_revoked_and_restored_by_the_keyboard(page: Page, office: str, asking: Asking, scripts: bool) -> None:
    log_in(page, office)
    page.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        page.open(f"{office}/budget/?find=token")
        tab_to(page, WHO)
        page.press_and_wait("Enter")
        tab_to(page, "reason")
        page.type("lost at the airport")
        page.press("Tab")
        assert page.focused() == "Revoke"
        page.press_and_wait("Enter")
        found = asking.gateway.authority.snapshot("user", WHO)
        assert (found.revoked, found.revoked_reason) == (True, "lost at the airport")
        assert page.run("document.querySelector('[role=status]').innerText") == "Every further call is refused."
        assert page.run("document.querySelector('h1 + .state').innerText") == "revoked"
        tab_to(page, "Restore")
        page.press_and_wait("Enter")
        assert not asking.gateway.authority.snapshot("user", WHO).revoked
    finally:
        page.tell("Emulation.setScriptExecutionDisabled", value=False)


def test_the_keyboard_goes_through_a_page_in_its_order_and_one_sees_where(page: Page, office: str) -> None:
    log_in(page, office)
    page.open(f"{office}/budget/?find=token")
    order: list[str] = []
    for _ in range(60):
        page.press("Tab")
        if (at := page.focused()) == "":
            break
        order.append(at)
        seen = (
            "(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth))(getComputedStyle(document.activeElement))"
        )
        assert page.run(seen) >= 1, at
    kinds = ["Users", "Keys", "Teams", "Agents", "Runs"]
    assert order[:13] == [
        *("Skip to the content", "Log out", *kinds, "Today", "7 days", "30 days", "All time", "find", WHO)
    ]
    assert "all" in order and "r1" in order


def test_a_reason_must_be_given(page: Page, office: str, asking: Asking) -> None:
    log_in(page, office)
    page.open(office + USER)
    tab_to(page, "Revoke")
    page.press("Enter")
    assert page.focused() == "reason"  # the browser asks for it
    assert not asking.gateway.authority.snapshot("user", WHO).revoked


def test_figures_are_live_and_leave_the_focus_where_it_is(page: Page, office: str, asking: Asking) -> None:
    log_in(page, office)
    page.open(f"{office}/budget/?find=token")
    before = page.run("document.querySelector('#facts').innerText")
    tab_to(page, "find")
    page.type("ab")
    assert asking.ask(run="live", model="cheap").status_code == 200
    page.run("look()")
    assert page.run("document.querySelector('#facts').innerText") != before
    assert page.focused() == "find" and page.run("document.activeElement.value") == "ab"
    page.tell("Network.clearBrowserCookies")
    page.run("look()")
    for _ in range(100):
        if page.run("location.pathname") == "/budget/login":
            break
        page.run("new Promise((done) => setTimeout(done, 20))")
    assert page.run("location.pathname") == "/budget/login"


def test_a_script_that_is_not_ours_does_not_run(page: Page, office: str) -> None:
    log_in(page, office)
    page.open(office + USER)
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    page.run(
        "(s => { s.textContent = 'document.title = 2'; document.body.append(s) })(document.createElement('script'))"
    )
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert page.run("document.title") == f"user {WHO} - budget_guard"
    assert any("Content Security Policy" in each for each in page.complaints)
    page.complaints.clear()
