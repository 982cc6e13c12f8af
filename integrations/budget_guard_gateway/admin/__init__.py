"""What operators look at and act with, on a port of its own: ceilings, plans, spend, decisions, runs and keys."""
