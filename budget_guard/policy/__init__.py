"""What the user allows: budgets and downgrades, as plain values."""
