"""The page of a report: whole in one file, harmless, and looked at by a browser, which finds nothing to complain of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from budget_guard import Budget, BudgetReport, Usage
from budget_guard.reporting.html import chart, page
from budget_guard.reporting.html.markup import Markup, joined, tag
from tests.builders import call, session
from tests.reporting.runs import EVIL, run, stopped

REPORTS: dict[str, Callable[[], BudgetReport]] = {
    "no call": lambda: run(0).report(),
    "one call": lambda: run(1).report(),
    "300 calls": lambda: run(300).report(),
    "10,000 calls": lambda: run(10_000).report(),
    "tokens alone": lambda: run(40, Budget(max_total_tokens=4_000_000)).report(),
    "no limit": lambda: run(40, Budget.metered()).report(),
    "stopped": lambda: stopped().report(),
    "evil names": lambda: run(40, Budget("$5", task=EVIL), agent=EVIL, tags={"user": EVIL}).report(),
    "a sum": lambda: run(8, run_id="a").report() + run(40, run_id="b").report(),
}


class _Elements(HTMLParser):
    """The elements of a page, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest) -> BudgetReport:
    return REPORTS[request.param]()


# --- the text of it


def test_a_page_is_well_formed_and_loads_nothing(report: BudgetReport) -> None:
    text = page.page(report)
    elements = _Elements(text)

    assert elements.open == []
    assert elements.loads == ["data:,"]
    assert elements.tags.count("script") == 1
    assert not re.search(r"https?://(?!e\))|url\((?!#)|@import", text)


def test_a_page_is_small(report: BudgetReport) -> None:
    assert len(page.page(report)) < 400_000


def test_the_pictures_are_svg(report: BudgetReport) -> None:
    for picture in re.findall(r"<svg.*?</svg>", page.page(report), re.DOTALL):
        ElementTree.fromstring(picture)
        assert "nan" not in picture and "inf" not in picture


def test_a_notebook_shows_a_part_without_a_script(report: BudgetReport) -> None:
    elements = _Elements(report._repr_html_())
    assert elements.open == [] and elements.loads == [] and "script" not in elements.tags


def test_names_are_text_and_nothing_else() -> None:
    text = page.page(REPORTS["evil names"]())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in text
    assert "\x1b" not in text and "\u202e" not in text and "<script>alert" not in text


def test_a_page_says_what_it_shows_of_a_long_run() -> None:
    text = page.page(REPORTS["10,000 calls"]())
    assert re.search(r"the latest \d+ of 10,000", text)


def test_a_page_without_a_course_says_whether_there_is_none_or_it_is_not_known() -> None:
    for calls, is_known in ((0, True), (3, False)):
        text = page.page(run(calls).report().model_copy(update={"over_time": []}))
        assert ("No call was paid for yet." in text, "is not known here." in text) == (is_known, not is_known)


def test_a_page_is_written_to_a_path(tmp_path: Path) -> None:
    report = stopped().report()
    report.to_html(tmp_path / "spend.html")
    report.to_html(str(tmp_path / "again.html"))
    assert (tmp_path / "spend.html").read_text("utf-8") == (tmp_path / "again.html").read_text("utf-8")
    with pytest.raises(OSError):
        report.to_html(tmp_path / "nowhere" / "spend.html")


@pytest.mark.parametrize(
    ("end_s", "count", "second"),
    [
        *((0.5, 6, "0.1 s"), (4.9, 5, "1 s"), (5.0, 6, "1 s"), (5.5, 6, "1 s"), (7, 4, "2 s"), (59, 6, "10 s")),
        *((60, 7, "0:10"), (3_599, 6, "10:00"), (3_600, 7, "0:10 h"), (90_000, 5, "6:00 h"), (10**7, 6, "20 d")),
    ],
)
def test_an_axis_of_time_has_a_few_round_ticks(end_s: float, count: int, second: str) -> None:
    ticks = chart._time_ticks(end_s, 6)
    assert (len(ticks), chart._time(ticks[1], end_s)) == (count, second)


def test_what_happened_is_marked() -> None:
    report = stopped().report()
    marks, more = chart.marks_of(report)
    kinds = [mark.kind for mark in marks]
    text = page.page(report)

    assert set(kinds) == {"warn", "switch", "stop", "cut"}
    assert more > 0 and f"and {more} more" in text
    for words in ("Soft limit: ", "Switch from large to small", "Refused: max_cost_usd", "Answer cut off at"):
        assert words in text
    assert "limit $0.02" in text and "soft limit 90%" in text and "cheaper model 50%" in text
    assert "stopped by max_cost_usd" in text and "<em>cut off</em>" in text


def test_a_limit_that_was_raised_is_drawn_as_it_was() -> None:
    opened = session("$0.20")
    opened.authorize(call("dime")).require().commit(Usage())
    opened.raise_limits(max_cost_usd="$0.50")

    course = chart.course_of(opened.report())
    assert (course.limit, course.limit_before) == (5 * 10**8, [(0.0, 2 * 10**8)])


def test_the_quantity_shown_is_what_is_limited() -> None:
    def shown(budget: Budget) -> tuple[str, float | None, float]:
        course = chart.course_of(run(8, budget).report())
        return course.words, course.limit, course.points[-1][1]

    assert shown(Budget("$5", max_requests=50))[:2] == ("Dollars spent", 5 * 10**9)
    assert shown(Budget(max_total_tokens=9_000)) == ("Tokens spent", 9_000, 6 * 170)
    assert shown(Budget(max_output_tokens=9_000)) == ("Output tokens spent", 9_000, 6 * 70)
    assert shown(Budget(max_requests=50)) == ("Model calls", 50, 6)
    assert shown(Budget.metered())[1] is None


def test_markup_alone_is_not_escaped() -> None:
    assert tag("p", "<b>", Markup("<i></i>"), None, title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'
    assert tag("line", x1=1.25, x2=2.0, stroke_width=None, class_="a") == '<line x1="1.2" x2="2" class="a"></line>'
    assert joined("a", "<") == "a&lt;"


# --- what a browser makes of it

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr"),
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("NEEDS_CHROMIUM"),
    reason="no chromium is installed here: apt-get install chromium",
)


def browse(path: Path, scratch: Path, *flags: str) -> tuple[str, str, list[str]]:
    """The page as the browser has it in the end, what it complains of, and what it asked for."""
    assert CHROMIUM is not None, "NEEDS_CHROMIUM is set, and none is installed: apt-get install chromium"
    log = scratch / "net.json"
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    complaints = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, complaints, asked_for(log)


def asked_for(log: Path) -> list[str]:
    """The addresses that a page asked for, in the browser's log of its network; not those of its own errands."""
    text = log.read_text(encoding="utf-8")
    if not text.rstrip().endswith("}"):  # it was not closed
        text = text.rstrip().rstrip(",") + "]}"
    asked = [event["params"] for event in json.loads(text)["events"] if "initiator" in event.get("params", {})]
    return sorted({each["url"] for each in asked if each["initiator"] != "not an origin" and "url" in each})


def with_script(text: str, script: str) -> str:
    """A page in which *script* may run too."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    return text.replace("</body>", f"<script>{script}</script></body>")


def frames(folder: Path, widths: tuple[int, ...], script: str = "") -> Path:
    """A page that shows every report in every width, so that the browser is started once."""
    shown: list[str] = []
    for number, make in enumerate(REPORTS.values()):
        name = f"{number}.html"
        text = page.page(make())
        (folder / name).write_text(with_script(text, script) if script else text, encoding="utf-8")
        loaded = "document.body.append(`loaded` + `;`)"
        shown += [
            f'<iframe src="{name}" onload="{loaded}" style="width:{width}px;height:900px;border:0"></iframe>'
            for width in widths
        ]
    path = folder / "frames.html"
    hear = "<script>onmessage = (e) => document.body.append(`told ${e.data};`)</script>"
    path.write_text(f"<!doctype html><meta charset=utf-8>{hear}<body>{''.join(shown)}", encoding="utf-8")
    return path


@needs_chromium
@pytest.mark.parametrize("flags", [(), ("--blink-settings=preferredColorScheme=0",)], ids=["light", "dark"])
def test_a_browser_shows_every_page_without_a_complaint_and_asks_for_nothing(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    shown, complaints, addresses = browse(frames(tmp_path, (1200, 400)), tmp_path, "--window-size=1300,1000", *flags)

    assert complaints == ""
    assert {address for address in addresses if not address.startswith(tmp_path.as_uri())} <= {"data:,"}
    assert len(re.findall("loaded;", shown)) == 2 * len(REPORTS)


@needs_chromium
def test_a_page_that_asks_for_something_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "spend.html"
    path.write_text("<img src='http://127.0.0.1:9/a.png'>", encoding="utf-8")

    assert "http://127.0.0.1:9/a.png" in browse(path, tmp_path)[2]


@needs_chromium
def test_no_page_is_wider_than_its_window(tmp_path: Path) -> None:
    tell = "parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(), '*')"
    path = frames(tmp_path, (400, 1200), tell)

    shown, complaints, _ = browse(path, tmp_path, "--virtual-time-budget=10000", "--window-size=1300,1000")

    assert sorted(re.findall(r"told (\d+,\d+);", shown)) == ["1200,1200"] * len(REPORTS) + ["400,400"] * len(REPORTS)
    assert complaints == ""


@needs_chromium
def test_calls_are_sorted_by_a_click(tmp_path: Path) -> None:
    script = """
    const column = (i) => [...document.querySelectorAll('table.sortable tbody tr')].map((r) => r.cells[i].dataset.v);
    const click = (i) => document.querySelectorAll('table.sortable th button')[i].click();
    click(7); const most = column(7); click(7); const least = column(7); click(0);
    document.title = JSON.stringify([most, least, document.querySelectorAll('[aria-sort]').length]);
    """
    path = tmp_path / "spend.html"
    path.write_text(with_script(page.page(run(40).report()), script), encoding="utf-8")

    shown, complaints, _ = browse(path, tmp_path)
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None and complaints == ""
    most, least, sorted_by = json.loads(title[1])

    assert [int(value) for value in most] == sorted((int(value) for value in most), reverse=True)
    assert [int(value) for value in least] == sorted(int(value) for value in least)
    assert (len(most), sorted_by) == (40, 1)


@needs_chromium
def test_a_script_that_is_not_ours_does_not_run_in_a_page(tmp_path: Path) -> None:
    path = tmp_path / "spend.html"
    text = page.page(run(4).report())
    path.write_text(text.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8")

    shown, complaints, _ = browse(path, tmp_path)

    assert "<title>taken</title>" not in shown
    assert "Content Security Policy" in complaints
