"""The chart of a run: what was spent over time against the limit, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from budget_guard.reporting import view
from budget_guard.reporting.course import SpentAt
from budget_guard.reporting.html.markup import Markup, tag
from budget_guard.reporting.spend import SpendValues
from budget_guard.units.money import NANO_PER_USD, cost_nano, format_usd

_MOST_PINS = 20
_PIN = 9
"""The radius of a pin."""
_SMALL_SHARE = 0.15
"""Where less of a limit is spent, the picture shows what is spent, and not the limit far above it."""


@dataclass(frozen=True)
class Course:
    """What the chart shows: one quantity over time, and its limit."""

    words: str
    """What the quantity is."""
    points: Sequence[tuple[float, float]]
    """Seconds and quantity."""
    limit: float | None
    """What it is now."""
    limit_before: Sequence[tuple[float, float]]
    """What it was, and until when, oldest first."""
    soft_limit: float | None
    """The fraction of the limit."""
    downgrade_at: float | None
    """The fraction of the limit."""
    end_s: float
    write: Callable[[float], str]
    """A quantity for people."""


class Mark(NamedTuple):
    """Something that happened, to be marked."""

    at_s: float
    kind: str
    """Its colour: ``warn``, ``switch``, ``stop``, ``cut`` or ``raise``."""
    words: str


def course_of(report: SpendValues) -> Course:
    """The course of *report*, in which something was spent: of dollars where they are limited, else of what is."""
    name, limit, spent = _limit(report)
    pick, write = _QUANTITIES[name]
    points = [(point.at_s, pick(point)) for point in report.over_time]
    before = max(0.0, spent - points[-1][1])  # by other sessions, or before this one
    points = [(at_s, value + before) for at_s, value in points]
    downgrade: Mapping[str, Any] = report.budget.get("downgrade") or {}
    at = downgrade.get("at")
    return Course(
        words=f"{view.limit_words(name)} spent" if name in _SPENT else view.limit_words(name),
        points=[(0.0, before), *points],
        limit=limit,
        limit_before=list(_limit_before(report, name)) if limit else [],
        soft_limit=report.budget.get("soft_limit") if limit else None,
        downgrade_at=at if limit else None,
        end_s=max(report.duration_seconds, *(at_s for at_s, _ in points)) or 1.0,
        write=write,
    )


def _limit(report: SpendValues) -> tuple[str, float | None, float]:
    """The quantity to show, its limit, and how much of it is spent."""
    if report.runs:
        if report.remaining is None:
            return "max_cost_usd", None, float(cost_nano(report.total_spent))
        whole = report.total_spent + report.reserved + report.remaining
        return "max_cost_usd", float(cost_nano(whole)), float(cost_nano(report.total_spent))
    limits = {each.name: each for each in report.own_limits}
    for name in _QUANTITIES:
        if name in limits:
            unit = NANO_PER_USD if name == "max_cost_usd" else 1
            return name, float(limits[name].limit * unit), float(limits[name].spent * unit)
    return "max_cost_usd", None, float(cost_nano(report.total_spent))


def _limit_before(report: SpendValues, name: str) -> Iterator[tuple[float, float]]:
    for event in report.marks:
        if event.get("event") == "LimitsRaised" and not report.runs:
            values = dict(zip(event.get("limits", ()), event.get("before", ()), strict=False))
            if name in values:
                unit = NANO_PER_USD if name == "max_cost_usd" else 1
                yield float(event["at_s"]), float(values[name]) * unit


def _dollars(value: float) -> str:
    return format_usd(round(value))


def _count(value: float) -> str:
    return view.compact(round(value))


_SPENT = ("max_cost_usd", "max_total_tokens", "max_input_tokens", "max_output_tokens")
_QUANTITIES: dict[str, tuple[Callable[[SpentAt], float], Callable[[float], str]]] = {
    "max_cost_usd": (lambda point: float(point.cost), _dollars),
    "max_total_tokens": (lambda point: float(point.input_tokens + point.output_tokens), _count),
    "max_input_tokens": (lambda point: float(point.input_tokens), _count),
    "max_output_tokens": (lambda point: float(point.output_tokens), _count),
    "max_requests": (lambda point: float(point.calls), _count),
    "max_tool_calls": (lambda point: float(point.tool_calls), _count),
}


def marks_of(report: SpendValues) -> tuple[list[Mark], int]:
    """What to mark of *report*, oldest first, and how many marks there is no room for: cut-offs are left out first."""
    marks = [mark for event in report.marks if (mark := _mark(event)) is not None]
    chosen = sorted(marks, key=lambda mark: mark.kind == "cut")[:_MOST_PINS]
    return sorted(chosen, key=lambda mark: mark.at_s), len(marks) - len(chosen)


def _mark(event: Mapping[str, Any]) -> Mark | None:
    at_s, kind = float(event.get("at_s", 0)), event.get("event")
    if kind == "SoftLimitReached":
        scope = str(event.get("scope", ""))
        whose = "" if scope.startswith("run:") else f" of {scope}"
        share = float(event.get("fraction", 0))
        return Mark(at_s, "warn", f"Soft limit: {share:.0%} of {event.get('dimension')}{whose}")
    if kind == "ModelDowngraded":
        return Mark(at_s, "switch", f"Switch from {event.get('model')} to {event.get('target')}")
    if kind == "CallBlocked":
        return Mark(at_s, "stop", f"Refused: {event.get('limit') or 'a call'}")
    if kind == "AnswerCutOff":
        return Mark(at_s, "cut", f"Answer cut off at {event.get('output_cap'):,} tokens")
    if kind == "LoopNoticed":
        return Mark(at_s, "stop" if event.get("stopped") else "warn", f"Loop of {event.get('tool')}")
    if kind == "LimitsRaised":
        return Mark(at_s, "raise", f"Raised: {', '.join(map(str, event.get('limits', ())))}")
    if kind == "SessionRevoked":
        return Mark(at_s, "stop", f"Revoked: {event.get('reason')}")
    return None


class _Frame(NamedTuple):
    """Where things are in the picture."""

    width: float
    height: float
    left: float
    top: float
    bottom: float
    end_s: float
    most: float

    def x(self, at_s: float) -> float:
        return self.left + (self.width - self.left - 12) * min(1.0, at_s / self.end_s)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / self.most


def draw(course: Course, marks: Sequence[Mark], *, width: int, height: int, id_: str) -> Markup:
    """The chart as one SVG element.

    Args:
        course: What is shown.
        marks: What is marked, each by a pin with its number.
        width: Of the picture, in dots.
        height: The same.
        id_: A name that nothing else on the page has.
    """
    spent = course.points[-1][1]
    limit = course.limit or 0.0
    is_far = bool(limit) and spent < limit * _SMALL_SHARE
    most = (spent * 1.35 if is_far else max(limit, spent) * 1.06) or limit or 1.0
    ticks = _ticks(most, 5 if height > 260 else 4)
    left = 14 + 6.6 * max(len(course.write(tick)) for tick in ticks)
    pins, rows = _pinned(marks, course.end_s, width - left - 12, left)
    top = 14 + rows * (2 * _PIN + 4)
    frame = _Frame(width, height, left, top, height - 26, course.end_s, most)
    children = [*_axes(frame, course, ticks)]
    texts: list[Markup] = []
    if limit and not is_far:
        levels, texts = _thresholds(frame, course, limit)
        children += levels
    elif limit:
        words = f"↑ limit {course.write(limit)}, {spent / limit:.1%} spent"
        texts.append(tag("text", words, class_="limit", x=width - 14.0, y=top + 4, text_anchor="end"))
    children += [*_line(frame, course, id_), *texts]
    children += [_pin(frame, course, mark, number, x, row) for number, (mark, x, row) in enumerate(pins, 1)]
    words = f"{course.words}: {course.write(spent)}" + (f" of {course.write(limit)}" if limit else "")
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"{words}, over {view.seconds(course.end_s)}",
    )


def _axes(frame: _Frame, course: Course, ticks: Sequence[float]) -> list[Markup]:
    drawn: list[Markup] = []
    for tick in ticks:
        y = frame.y(tick)
        drawn.append(tag("line", class_="grid", x1=frame.left, x2=frame.width - 12, y1=y, y2=y))
        drawn.append(tag("text", course.write(tick), x=frame.left - 8, y=y + 4, text_anchor="end"))
    for at_s in _time_ticks(course.end_s, 7 if frame.width > 600 else 4):
        x = frame.x(at_s)
        anchor = "middle" if x < frame.width - 30 else "end"
        drawn.append(tag("text", _time(at_s, course.end_s), x=x, y=frame.height - 6.0, text_anchor=anchor))
    return drawn


def _thresholds(frame: _Frame, course: Course, limit: float) -> tuple[list[Markup], list[Markup]]:
    """The limit, and the fractions of it at which something happens: the lines, and the words that do not meet."""
    lines = [
        (1.0, "limit", f"limit {course.write(limit)}"),
        (course.soft_limit or 0, "soft", f"soft limit {course.soft_limit or 0:.0%}"),
        (course.downgrade_at or 0, "switch", f"cheaper model {course.downgrade_at or 0:.0%}"),
    ]
    drawn: list[Markup] = []
    texts: list[Markup] = []
    last = -math.inf
    for fraction, kind, words in lines:
        if not fraction:
            continue
        steps = [*course.limit_before, (course.end_s, limit)]
        path, x = "", frame.left
        for until_s, value in steps:
            y = frame.y(value * fraction)
            path += f"V{y:.1f}" if path else f"M{x:.1f},{y:.1f}"
            x = frame.x(until_s)
            path += f"H{x:.1f}"
        drawn.append(tag("path", class_=f"level {kind}", d=Markup(path)))
        y = frame.y(limit * fraction)
        if abs(y - last) >= 14:
            # where the line of what is spent is not likely to be
            x, anchor = (frame.width - 16, "end") if course.limit_before else (frame.left + 6, None)
            texts.append(tag("text", words, class_=kind, x=x, y=y - 5, text_anchor=anchor))
            last = y
    return drawn, texts


def _line(frame: _Frame, course: Course, id_: str) -> list[Markup]:
    """What was spent, in steps: it changes when a call is booked."""
    steps: list[str] = []
    for at_s, value in course.points:
        x, y = f"{frame.x(at_s):.1f}", f"{frame.y(value):.1f}"
        steps.append(f"H{x}V{y}" if steps else f"M{x},{y}")
    end = f"H{frame.x(course.end_s):.1f}"
    path = "".join(steps) + end
    _, spent = course.points[-1]
    stops = (tag("stop", offset="0", class_="from"), tag("stop", offset="1", class_="to"))
    return [
        tag("defs", tag("linearGradient", *stops, id=id_, x1="0", y1="0", x2="0", y2="1")),
        tag("path", class_="area", d=Markup(f"{path}V{frame.bottom:.1f}H{frame.left:.1f}Z"), fill=f"url(#{id_})"),
        tag("path", class_="spent", d=Markup(path)),
        tag("circle", class_="now", cx=frame.x(course.end_s), cy=frame.y(spent), r=4),
    ]


def _pinned(
    marks: Sequence[Mark], end_s: float, width: float, left: float
) -> tuple[list[tuple[Mark, float, int]], int]:
    """Where the pins go: none upon another one, in as many rows as that takes, at most three."""
    ends = [-math.inf] * 3
    pins: list[tuple[Mark, float, int]] = []
    for mark in marks:
        x = left + width * min(1.0, mark.at_s / end_s)
        free = [row for row, end in enumerate(ends) if x - end >= 2 * _PIN + 2]
        row = free[0] if free else min(range(len(ends)), key=ends.__getitem__)
        ends[row] = x
        pins.append((mark, x, row))
    return pins, 1 + max((row for _, _, row in pins), default=-1)


def _pin(frame: _Frame, course: Course, mark: Mark, number: int, x: float, row: int) -> Markup:
    y = 2.0 + _PIN + row * (2 * _PIN + 4)
    return tag(
        "g",
        tag("title", f"{_time(mark.at_s, course.end_s)} {mark.words}"),
        tag("line", x1=x, x2=x, y1=y + _PIN, y2=frame.bottom),
        tag("circle", cx=x, cy=y, r=_PIN),
        tag("text", str(number), x=x, y=y + 4, text_anchor="middle"),
        class_=f"pin {mark.kind}",
    )


def legend(course: Course, marks: Sequence[Mark], more: int) -> Markup | None:
    """What the pins stand for, and how many there are *more*."""
    if not marks:
        return None
    items = [
        tag(
            "li",
            tag("b", str(number), class_=f"pin {mark.kind}"),
            tag("span", mark.words, title=mark.words),
            tag("time", _time(mark.at_s, course.end_s)),
        )
        for number, mark in enumerate(marks, 1)
    ]
    if more:
        items.append(tag("li", tag("span", f"and {more:,} more")))
    return tag("ol", *items, class_="marks")


def _ticks(most: float, about: int) -> list[float]:
    """Round numbers from 0 to *most*."""
    step = _round_step(most / about)
    return [step * n for n in range(int(most / step) + 1)]


def _round_step(least: float) -> float:
    size = 10.0 ** math.floor(math.log10(least))
    return next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= least * 0.999)


def _time_ticks(end_s: float, about: int) -> list[float]:
    least = end_s / about
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    step = next((float(step) for step in steps if step >= least), None) or 86400 * _round_step(least / 86400)
    if end_s < 5:
        step = _round_step(least)
    return [step * n for n in range(int(end_s / step) + 1)]


def _time(at_s: float, end_s: float) -> str:
    """A time since the start: seconds, minutes, hours or days, as the whole takes that long."""
    if end_s < 60:
        return f"{at_s:.3g} s"
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    if end_s < 3600:
        return f"{minutes}:{seconds:02}"
    if end_s < 2 * 86400:
        return f"{hours}:{minutes:02} h"
    return f"{at_s / 86400:.3g} d"
