"""LangChain's own unit tests for chat models, on `budgeted_model`."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import SecretStr

from budget_guard_langchain.budgeted_model import BudgetedChatModel


class TestBudgetedModel(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return BudgetedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "primary": ChatOpenAI(model="gpt-4o", api_key=SecretStr("none")),
            "cheaper": ChatOpenAI(model="gpt-4o-mini", api_key=SecretStr("none")),
        }
