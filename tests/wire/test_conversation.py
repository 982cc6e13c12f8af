"""A conversation is known by how it begins: by its system prompt and its first entry, wherever a dialect has them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from budget_guard.wire.conversation import beginning

FIRST, OTHER = {"role": "user", "content": "go"}, {"role": "user", "content": "stop"}


@pytest.mark.parametrize("messages", ["messages", "input", "contents"])
@pytest.mark.parametrize("system", ["system", "instructions", "systemInstruction"])
def test_it_is_another_one_where_the_system_prompt_or_the_first_entry_is(messages: str, system: str) -> None:
    bodies: list[dict[str, Any]] = [
        {messages: [FIRST]},
        {messages: [OTHER]},
        {messages: [FIRST], system: "Be brief."},
        {messages: [FIRST], system: "Be long."},
        {messages: [OTHER], system: "Be brief."},
        {system: "Be brief."},
        {},
    ]
    for one, other in combinations(bodies, 2):
        assert beginning(one) != beginning(other)
    for body in bodies[:5]:
        assert beginning({**body, messages: [*body[messages], OTHER], "model": "m"}) == beginning(body)
