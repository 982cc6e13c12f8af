"""``budget-guard run``: a command that is started on a budget, in whatever language it is written."""
