"""Estimates: the most tokens that a call may take, before it is made."""
