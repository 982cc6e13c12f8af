"""How many tokens an answer took, made of counts that a provider reports and that may contradict each other.

Providers disagree on what a total holds. Cached tokens stand inside the input (OpenAI, Google) or beside it (Anthropic,
Bedrock); reasoning stands inside the output (OpenAI) or beside it (xAI, and Gemini's OpenAI-compatible endpoint). Where
a dialect's own documentation is clear, that is its convention. Where many servers speak the dialect, the counts
themselves have to tell, and where they do not, the dearer reading counts: never below the bill, whichever convention is
true.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from budget_guard.units.amounts import MOST, unchecked
from budget_guard.units.usage import Usage

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
        and (total is None or total == taken + made)
        and tuple(parts) == _PLAIN
        and taken + made <= MOST
    ):  # most answers of many servers are no more than this
        return Reading(unchecked(Usage, (taken, 0, 0, 0, 0, 0, 0, made, 0, 0, 0, 0, 1, ())))
    known: list[int | None] = []
    for name, value in zip(_NAMES, counts, strict=True):
        if value is not None and (type(value) is not int or value < 0 or value > MOST):
            kind = "negative" if type(value) is int and value < 0 else "no count of tokens"
            return Reading(None, f"the reported {name} is {kind}")
        known.append(value)
    taken, made, total = known[:3]
    if taken is None or made is None:
        named = taken if made is None else made
        if total is None or named is None or total < named:
            return Reading(None, "no usage is reported" if named is None else "a part of the usage is not reported")
        taken, made = (named, total - named) if made is None else (total - named, named)
    zeros = [0 if count is None else count for count in known[3:]]
    read, wrote, wrote_5m, wrote_1h, heard, cached_heard, seen, thought, said, drawn = zeros
    if wrote > wrote_5m + wrote_1h:  # for how long is not said, or not of all
        if hour_cache:
            wrote_1h = wrote - wrote_5m
        else:
            wrote_5m = wrote - wrote_1h
    cached_heard = min(cached_heard, read, heard)
    read -= cached_heard
    heard -= cached_heard
    wrote = wrote_5m + wrote_1h
    in_parts, out_parts = read + wrote + cached_heard + heard + seen, thought + said + drawn
    adds_up = None if total is None or total < taken + made else total
    inputs_beside = _stand_beside(input_parts, taken, in_parts, adds_up)
    if inputs_beside and input_parts != "beside" and max(read + wrote, heard + seen + cached_heard) <= taken:
        # Each fits, all together do not: what was read from the cache may be the sound or the pictures themselves.
        if adds_up is not None and adds_up < taken + in_parts + made:
            read, inputs_beside = max(0, taken - wrote - cached_heard - heard - seen), False
            in_parts = read + wrote + cached_heard + heard + seen
            inputs_beside = in_parts > taken
    outputs_beside = _stand_beside(output_parts, made, out_parts, adds_up)
    if adds_up is not None and not inputs_beside and input_parts == "unsure":
        # Where the total is exactly what it would be with the cached tokens beside the input, that is where they stand.
        rest = adds_up - taken - made - (out_parts if outputs_beside else 0)
        if in_parts and (rest == in_parts or rest == in_parts + out_parts) and (outputs_beside or rest != out_parts):
            inputs_beside = True
    plain_in = taken if inputs_beside else taken - in_parts
    plain_out = made if outputs_beside else made - out_parts
    all_in, all_out = plain_in + in_parts, plain_out + out_parts
    if adds_up is not None and adds_up > all_in + all_out:
        rest = adds_up - all_in - all_out
        if not outputs_beside and 0 < out_parts <= rest:  # reasoning beside the answer, and the total says so
            plain_out, rest = made, rest - out_parts
        plain_out += rest  # nobody says what the rest is, and nothing costs more than output
        all_out = plain_out + out_parts
    if prompted and not all_in:
        return Reading(None, "no input is reported for a prompt that is not empty")
    if answered and not all_out:
        return Reading(None, "no output is reported for an answer that is not empty")
    if all_in + all_out > MOST:
        return Reading(None, "more tokens are reported than any call takes")
    usage = (plain_in, read, wrote_5m, wrote_1h, heard, cached_heard, seen, plain_out, thought, said, drawn, 0, 1, ())
    return Reading(unchecked(Usage, usage))


def _stand_beside(convention: Convention, whole: int, parts: int, total: int | None) -> bool:
    """Whether *parts* stand beside their *whole*."""
    if convention != "unsure":
        return convention == "beside" or parts > whole
    # A total that adds up without the parts says that they are inside. Where there is none, beside is the dearer.
    return parts > whole or (parts > 0 and total is None)


_BY_FAR = 2
"""A report is wrong where both of its totals are above this many times their bounds.

The input bound holds by proof for all that is in the request, and an output cap is kept by the provider. Either may be
passed honestly: the input by what a hosted tool brings in or by a second pass over it (twice, for a compaction), the
output by reasoning that the provider counts beside the cap. Both at once, and by more than twice, is a report that was
added up from cumulative counts, or that is of another call.
"""


def wrong_report(usage: Usage, *, input_bound: int, output_bound: int) -> str | None:
    """Why *usage* cannot be that of a call with these bounds; None where it can.

    Args:
        usage: What was reported.
        input_bound: The most input tokens that were held. Give none of a call that may bring in more than it carries.
        output_bound: The most output tokens that were held, of all choices together.
    """
    if usage.input_tokens > _BY_FAR * input_bound and usage.output_tokens > _BY_FAR * output_bound:
        return "input and output are both reported at more than twice what the call could take"
    return None


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two usages of one request."""
    sums = [a + b for a, b in zip(one[:-1], other[:-1], strict=True)]
    units = dict(one.other)
    for name, quantity in other.other:
        units[name] = units.get(name, 0) + quantity
    return Usage._make((*sums, tuple(units.items())))._replace(requests=max(one.requests, other.requests))


def convention_of(provider: str | None) -> Convention:
    """Where the parts of a total stand in OpenAI's shapes, by who answers: OpenAI itself says so, others vary."""
    return "inside" if provider in ("openai", "azure") else "unsure"


def with_events(usage: Usage, events: dict[str, int]) -> Usage:
    """*usage* with the billed events of the answer, by the name of their unit."""
    if not events:
        return usage
    searches = events.pop("web_search", 0)
    return usage._replace(web_search=searches, other=(*usage.other, *events.items()))
