"""What is counted: money, usage, amounts and scopes."""
