"""A chat service: each conversation has a cap of its own, and each customer one a day.

Two customers talk to an agent over HTTP. Ada's conversation comes to its cap, and her next one to her cap of the day:
both times she is told so, with the status that the stop names. Bob goes on. Prints what each is told, and the
provider's bill.
"""

from __future__ import annotations

# --8<-- [start:imports]
from typing import Annotated

from agents import Agent, Runner
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from budget_guard import Budget, BudgetAuthority, BudgetError, open_ledger
from budget_guard.integrations.openai_agents import BudgetGuard

# --8<-- [end:imports]
# isort: split
import tempfile
from pathlib import Path

from _provider import local_openai
from fastapi.testclient import TestClient

from budget_guard.testing import Reply

# --8<-- [start:service]
PER_CONVERSATION = Budget("$0.05")
PER_DAY = Budget("$0.08", window="day")

agent = Agent(name="Helper", instructions="Help the customer.", model="gpt-4o")


class Question(BaseModel):
    text: str


def service(ledger_url: str) -> FastAPI:
    """The service. All its workers, and a restart of it, count in one ledger."""
    app = FastAPI()
    authority = BudgetAuthority(open_ledger(ledger_url), ceilings={"user": PER_DAY})

    @app.post("/chat/{conversation}")
    async def chat(conversation: str, question: Question, customer: Annotated[str, Header()]) -> dict[str, str]:
        # The same run id is the same conversation: its budget goes on where the last request left it.
        async with await BudgetGuard.open(
            PER_CONVERSATION, authority=authority, user=customer, run_id=conversation
        ) as guard:
            result = await Runner.run(agent, question.text, hooks=guard)
            return {"answer": result.final_output, "left": f"${(await guard.areport()).remaining:.3f}"}

    @app.exception_handler(BudgetError)
    async def stopped(request: Request, stop: BudgetError) -> JSONResponse:
        headers = {} if stop.retry_after_s is None else {"Retry-After": str(int(stop.retry_after_s))}
        return JSONResponse({"error": stop.user_message}, status_code=stop.http_status, headers=headers)

    return app


# --8<-- [end:service]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with TestClient(service(f"sqlite:///{Path(folder, 'budget.db').as_posix()}")) as client:
            for customer, conversation in [("ada", "a1")] * 4 + [("ada", "a2")] * 3 + [("bob", "b1")]:
                reply = client.post(f"/chat/{conversation}", json={"text": "Help!"}, headers={"customer": customer})
                print(f"{customer} {conversation}: {reply.status_code} {reply.json()}")


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and run `uvicorn` with `service("sqlite:///budget.db")`.
    with local_openai(Reply(text="Turn it off and on.", output_tokens=1_500)) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
