"""The command ``budget-guard``, one module for each group of its commands."""
