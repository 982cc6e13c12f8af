"""``budget-guard prices`` and ``estimate``: what models cost."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from budget_guard.cli.answer import Answer, Failure, columns
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.table import PriceTable
from budget_guard.units.money import format_usd, usd_text
from budget_guard.units.usage import Usage

_OLD_DAYS = 90
_MOST = 10**12
_PACKAGED = Path(__file__).parents[1] / "pricing" / "prices.json"
_UNITS = (
    *(("input", "Input"), ("cache_read", "Cached"), ("cache_write_5m", "Cache write"), ("output", "Output")),
    ("web_search", "A search"),
)


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands."""
    prices = command("prices", _prices, "what models cost, in dollars per million tokens")
    prices.add_argument("names", nargs="*", metavar="NAME", help="a model, such as gpt-4o")
    prices.add_argument("--provider", help="who is called, where that is not in the name")
    prices.add_argument("--tier", help="a service tier, such as flex or batch")
    prices.add_argument(
        "--compile", metavar="OUT", type=Path, help="make a table from the genai-prices that is installed"
    )
    estimate = command("estimate", _estimate, "what calls of a model would cost")
    estimate.add_argument("model", metavar="MODEL")
    for name, words in (
        ("input", "input tokens of a call, cached ones included"),
        ("output", "output tokens of a call"),
    ):
        estimate.add_argument(f"--{name}", type=_count, required=True, metavar="N", help=words)
    estimate.add_argument("--cached", type=_count, default=0, metavar="N", help="how many of the input are cached")
    estimate.add_argument("--calls", type=_count, default=1, metavar="N", help="how many calls (1)")
    estimate.add_argument("--provider", help="who is called, where that is not in the name")
    estimate.add_argument("--tier", help="a service tier, such as flex or batch")


def _count(text: str) -> int:
    digits = text.replace(",", "").replace("_", "")
    if not digits.isascii() or not digits.isdigit() or int(digits) > _MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from 0 to {_MOST:,}")
    return int(digits)


def _prices(given: argparse.Namespace) -> Answer:
    if given.compile is not None:
        return _compile(given.compile)
    table = PriceTable.bundled()
    if not given.names:
        raise Failure("name a model, such as: budget-guard prices gpt-4o claude-sonnet-4-5", 2)
    found = [(name, _find(table, name, given)) for name in given.names]
    rows: list[list[str]] = []
    data: list[dict[str, object]] = []
    for name, price in found:
        for above, rates in price.listed():
            rows.append([name if above == 0 else f"  above {above:,} in"])
            rows[-1] += [_dollars(rates.get(unit)) for unit, _ in _UNITS]
        data.append(
            {
                "model": name,
                "provider": price.provider,
                "max_output": price.max_output,
                "context_window": price.context_window,
                "tiers": [
                    {"above_input_tokens": above, "usd": {unit: usd_text(n) for unit, n in rates.items()}}
                    for above, rates in price.listed()
                ],
                "varies_by_hour": price.varies_by_hour,
            }
        )
    shown = [i for i, _ in enumerate(_UNITS, 1) if any(row[i] for row in rows)]
    heads = ["Model", *(_UNITS[i - 1][1] for i in shown)]
    text = columns(heads, [[row[0], *(row[i] for i in shown)] for row in rows], shutil.get_terminal_size().columns)
    lines = [text, f"Dollars per million tokens, as of {table.as_of}."]
    if any(price.varies_by_hour for _, price in found):
        lines.append("Prices of some of these depend on the hour; the ones shown are those outside of special hours.")
    return Answer(
        {"as_of": str(table.as_of), "basis": table.basis, "models": data}, "\n".join(lines), notes=old_prices(table)
    )


def _dollars(nano: int | None) -> str:
    if nano is None:
        return ""
    whole, _, part = usd_text(nano).partition(".")
    return f"${int(whole):,}.{part:0<2}"


def _find(table: PriceTable, name: str, given: argparse.Namespace) -> ModelPrice:
    try:
        return table.find(name, provider=given.provider, service_tier=given.tier)
    except UnknownPriceError as error:
        near = f"did you mean {', '.join(error.suggestions)}?" if error.suggestions else "give its price with pricing="
        tier = f" in the tier {given.tier!r}" if given.tier else ""
        raise Failure(f"no price is known for {name!r}{tier}: {near}") from None


def old_prices(table: PriceTable) -> tuple[str, ...]:
    """A warning where *table* is an old one."""
    days = (SYSTEM_CLOCK.now().date() - table.as_of).days
    if days <= _OLD_DAYS:
        return ()
    return (
        f"these prices are {days} days old: pip install --upgrade budget-guard-py, or compile newer ones with "
        "budget-guard prices --compile prices.json and set BUDGET_GUARD_PRICES=prices.json",
    )


def _estimate(given: argparse.Namespace) -> Answer:
    if given.cached > given.input:
        raise Failure(f"--cached {given.cached} is more than --input {given.input}: it is a part of it", 2)
    table = PriceTable.bundled()
    price = _find(table, given.model, given)
    each = price.cost(Usage(input=given.input - given.cached, cache_read=given.cached, output=given.output))
    whole = each * given.calls
    calls = "one call" if given.calls == 1 else f"{given.calls:,} calls at {format_usd(each)} each"
    notes: list[str] = list(old_prices(table))
    if price.max_output is not None and given.output > price.max_output:
        notes.append(f"{given.model} writes at most {price.max_output:,} tokens a call")
    data = {
        "model": given.model,
        "calls": given.calls,
        "usd_per_call": usd_text(each),
        "usd": usd_text(whole),
        "as_of": str(table.as_of),
    }
    text = f"{format_usd(whole)} for {calls} of {given.model}, prices as of {table.as_of}"
    return Answer(data, text, notes=tuple(notes))


def _compile(out: Path) -> Answer:
    try:
        from budget_guard.cli import compile_prices
    except ImportError:
        raise Failure('the source of prices is not installed: pip install "budget-guard-py[prices]"') from None
    bundled = _PACKAGED.read_text(encoding="utf-8")
    same = json.loads(bundled)["sources"]["genai-prices"] == version("genai-prices")
    is_ours = out.resolve() == _PACKAGED.resolve()  # its day is that on which it was reviewed
    told = compile_prices.compile_to(out, None if same or is_ours else SYSTEM_CLOCK.now().date().isoformat())
    table = PriceTable.load(out)
    text = f"{told}\nUse it with BUDGET_GUARD_PRICES={out}, or PriceTable.load({str(out)!r})."
    return Answer({"path": str(out), "as_of": str(table.as_of), "basis": table.basis}, text)
