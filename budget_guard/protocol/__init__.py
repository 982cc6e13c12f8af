"""The Agent Budget Protocol: headers, problems and decision records, as pure functions of decisions and errors.

What a service says that speaks it, a gateway or a hook of a proxy; docs/protocol.md is the page for its clients.
"""

from budget_guard.protocol.headers import PROTOCOL_HEADERS, budget_headers
from budget_guard.protocol.problems import PROBLEM_JSON, PROBLEM_TYPES, Problem, problem, problem_of
from budget_guard.protocol.records import decision_record
from budget_guard.protocol.schemas import decision_schema, problem_schema

__all__ = [
    "PROBLEM_JSON",
    "PROBLEM_TYPES",
    "PROTOCOL_HEADERS",
    "Problem",
    "budget_headers",
    "decision_record",
    "decision_schema",
    "problem",
    "problem_of",
    "problem_schema",
]
