"""Policies: the budgets and downgrades that a user allows, as plain values."""
