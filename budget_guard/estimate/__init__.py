"""How many tokens a call may take at most, before it is made."""
