"""How many tokens an answer took, made of counts that a provider reports and that may contradict each other.

Providers disagree on what a total holds. Cached tokens stand inside the input (OpenAI, Google) or beside it (Anthropic,
Bedrock); reasoning stands inside the output (OpenAI) or beside it (xAI, and Gemini's OpenAI-compatible endpoint). Where
a dialect's own documentation is clear, that is its convention. Where many servers speak the dialect, the counts
themselves have to tell, and where they do not, the dearer reading counts: never below the bill, whichever convention is
true.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, cast

from budget_guard.units.amounts import MOST, unchecked
from budget_guard.units.usage import UNEXPLAINED, Usage
from budget_guard.wire.request import Request
from budget_guard.wire.values import Json

Convention: TypeAlias = Literal["inside", "beside", "unsure"]
"""Where the parts of a total stand: inside it, beside it, or either of them, as the counts themselves tell."""


class Counts(NamedTuple):
    """The counts of one answer as they are reported: any JSON value, and None for what is not reported."""

    input: Any = None
    output: Any = None
    total: Any = None
    """All tokens of the call together, where the provider says that."""
    cache_read: Any = None
    cache_write: Any = None
    """Tokens written to a cache, for however long."""
    cache_write_5m: Any = None
    cache_write_1h: Any = None
    input_audio: Any = None
    cache_audio: Any = None
    """Audio tokens among `cache_read` and `input_audio`."""
    input_image: Any = None
    reasoning: Any = None
    output_audio: Any = None
    output_image: Any = None


class Reading(NamedTuple):
    """What counts say."""

    usage: Usage | None
    """None where they make no sense."""
    problem: str | None = None
    """Why they make no sense. It names what is wrong, never a value."""


_NAMES = Counts._fields
_PLAIN = (None,) * (len(_NAMES) - 3)


def read_counts(
    counts: Counts,
    *,
    input_parts: Convention = "unsure",
    output_parts: Convention = "unsure",
    prompted: bool = True,
    answered: bool = True,
    hour_cache: bool = False,
) -> Reading:
    """The dearest consistent reading of *counts*; none where there is none.

    Args:
        counts: What the provider reports.
        input_parts: Where cached, audio and image tokens stand.
        output_parts: Where reasoning, audio and image tokens stand.
        prompted: Whether the prompt was not empty. Such a call took input.
        answered: Whether there is an output. Such a call took output.
        hour_cache: Whether the request asked for a one-hour cache, where it is not reported what was written to which.
    """
    taken, made, total, *parts = counts
    if (
        type(taken) is int
        and type(made) is int
        and 0 < taken
        and 0 < made
        and (total is None or (type(total) is int and total == taken + made))
        and tuple(parts) == _PLAIN
        and taken + made <= MOST
    ):  # most answers of many servers are no more than this
        return Reading(unchecked(Usage, (taken, 0, 0, 0, 0, 0, 0, made, 0, 0, 0, 0, 1, ())))
    problem = _first_problem(counts)
    if problem is not None:
        return Reading(None, problem)
    taken, made = _both_totals(taken, made, total)
    if taken is None or made is None:
        return Reading(None, "no usage is reported" if total in (None, 0) else "a part of the usage is not reported")
    read, wrote_5m, wrote_1h, heard, cached_heard, seen = _parts_of_input(parts, hour_cache)
    thought, said, drawn = [count or 0 for count in parts[-3:]]
    wrote, media = wrote_5m + wrote_1h, heard + cached_heard + seen
    in_parts, out_parts = read + wrote + media, thought + said + drawn
    whole = total if total is not None and total >= taken + made else None  # a total below its parts tells nothing
    if whole is not None and input_parts != "beside" and taken < in_parts and whole < taken + in_parts + made:
        # Each part fits, all together do not: what was read from the cache is the sound or the pictures themselves.
        if read + wrote <= taken and wrote + media <= taken:
            read = taken - wrote - media
            in_parts = taken
    outputs_beside = _stand_beside(output_parts, made, out_parts, whole)
    inputs_beside = _stand_beside(input_parts, taken, in_parts, whole)
    if whole is not None and input_parts == "unsure" and in_parts and not inputs_beside:
        # Where the total is just what it is with the parts beside the input, that is where they stand.
        rest = whole - taken - made - (out_parts if outputs_beside else 0)
        inputs_beside = rest == in_parts + out_parts or (rest == in_parts and (outputs_beside or rest != out_parts))
    plain_in = taken if inputs_beside else taken - in_parts
    plain_out = made if outputs_beside else made - out_parts
    rest = 0 if whole is None else max(0, whole - plain_in - in_parts - plain_out - out_parts)
    other: tuple[tuple[str, int], ...] = ()
    if input_parts == output_parts == "unsure" and in_parts == out_parts == rest > 0:
        other = ((UNEXPLAINED, rest),)  # cached tokens beside the input, or reasoning beside the output
    elif not outputs_beside and 0 < out_parts <= rest:  # reasoning beside the answer, and the total says so
        plain_out, rest = made, rest - out_parts
    if not other:
        plain_out += rest  # nobody says what the rest is, and nothing costs more than output
    all_in, all_out = plain_in + in_parts, plain_out + out_parts + (rest if other else 0)
    if prompted and not all_in:
        return Reading(None, "no input is reported for a prompt that is not empty")
    if answered and not all_out:
        return Reading(None, "no output is reported for an answer that is not empty")
    if all_in + all_out > MOST:
        return Reading(None, "more tokens are reported than any call takes")
    usage = (
        plain_in,
        read,
        wrote_5m,
        wrote_1h,
        heard,
        cached_heard,
        seen,
        plain_out,
        thought,
        said,
        drawn,
        0,
        1,
        other,
    )
    return Reading(unchecked(Usage, usage))


def _first_problem(counts: Counts) -> str | None:
    """What is no count among the *counts*. None of them is repaired: who reports one wrong may report all so."""
    for name, value in zip(_NAMES, counts, strict=True):
        if value is not None and (type(value) is not int or value < 0 or value > MOST):
            kind = "negative" if type(value) is int and value < 0 else "no count of tokens"
            return f"the reported {name} is {kind}"
    return None


def _both_totals(taken: Any, made: Any, total: Any) -> tuple[int | None, int | None]:
    """Input and output; the one that is missing is what is left of the total."""
    if taken is None and made is not None and total is not None and total >= made:
        return total - made, made
    if made is None and taken is not None and total is not None and total >= taken:
        return taken, total - taken
    return taken, made


def _parts_of_input(parts: list[Any], hour_cache: bool) -> tuple[int, int, int, int, int, int]:
    """The parts of the input that `Usage` has buckets for, disjoint."""
    read, wrote, wrote_5m, wrote_1h, heard, cached_heard, seen = [count or 0 for count in parts[:7]]
    if wrote > wrote_5m + wrote_1h:  # for how long is not said, or not of all
        if hour_cache:
            wrote_1h = wrote - wrote_5m
        else:
            wrote_5m = wrote - wrote_1h
    cached_heard = min(cached_heard, read, heard)  # it is counted in both
    return read - cached_heard, wrote_5m, wrote_1h, heard - cached_heard, cached_heard, seen


def _stand_beside(convention: Convention, whole: int, parts: int, total: int | None) -> bool:
    """Whether *parts* stand beside their *whole*."""
    if convention != "unsure":
        return convention == "beside" or parts > whole
    # A total that adds up without the parts says that they are inside. Where there is none, beside is the dearer.
    return parts > whole or (parts > 0 and total is None)


def later_report(before: Json, now: Json) -> Json:
    """The later of two reports in one stream, where it says less than the one *before* with that one's counts.

    Reports are cumulative, so nothing is added and no count falls. A server may leave out of the last one what it has
    told, or report zeros there.
    """
    if not before:
        return now
    merged = dict(before)
    for name, value in now.items():
        told = before.get(name)
        if type(value) is int and type(told) is int and 0 <= value < told:
            continue
        if isinstance(value, dict) and isinstance(told, dict):
            merged[name] = later_report(cast(Json, told), cast(Json, value))
        elif value or value == 0 or not told:  # an empty list or object, or null, says nothing
            merged[name] = value
    return merged


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two usages of one request."""
    sums = [a + b for a, b in zip(one[:-1], other[:-1], strict=True)]
    units = dict(one.other)
    for name, quantity in other.other:
        units[name] = units.get(name, 0) + quantity
    return Usage._make((*sums, tuple(units.items())))._replace(requests=max(one.requests, other.requests))


def with_long_writes(usage: Usage, details: Json) -> Usage:
    """*usage* with what OpenAI wrote to a twelve-hour cache as a unit of its own: what that costs is not published.

    Args:
        usage: What was read of the counts.
        details: ``cache_write_tokens_details``, which splits the tokens written by how long they are kept.
    """
    written = details.get("ttl_12h_tokens")
    if type(written) is not int or written <= 0:
        return usage
    written = min(written, usage.cache_write_5m)
    return usage._replace(
        cache_write_5m=usage.cache_write_5m - written, other=(*usage.other, ("cache_write_12h", written))
    )


def read_openai_counts(counts: Counts, request: Request | None, *, answered: bool) -> Reading:
    """As `read_counts`, of counts in OpenAI's shapes. Where the parts of a total stand goes by who answers.

    OpenAI itself says so, others vary. xAI's input holds what was cached, and its output holds no reasoning.

    Args:
        counts: What the provider reports.
        request: What was asked for, where that is known.
        answered: Whether there is an output.
    """
    provider = None if request is None else request.provider
    is_openai = provider in ("openai", "azure")
    return read_counts(
        counts,
        input_parts="inside" if is_openai or provider == "x-ai" else "unsure",
        output_parts="inside" if is_openai else "unsure",
        prompted=request is None or request.prompted,
        answered=answered,
        hour_cache=request is not None and request.hour_cache,
    )


def with_events(usage: Usage, events: dict[str, int]) -> Usage:
    """*usage* with the billed events of the answer, by the name of their unit."""
    if not events:
        return usage
    searches = events.pop("web_search", 0)
    return usage._replace(web_search=searches, other=(*usage.other, *events.items()))
