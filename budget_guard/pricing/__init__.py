"""Prices: what a model's units cost, in integers."""

from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.overlay import PriceLike
from budget_guard.pricing.table import PriceTable

__all__ = ["ModelPrice", "PriceLike", "PriceTable"]
