"""An internal workflow: what does a report cost, which step takes most of it, and what should its cap be?

Six documents go through a graph of two steps, a writer and a critic who may send it back. Each document is a run with a
budget, and leaves a record of what it took. The last one is never good enough, and is stopped. Prints each document
with its cost by step, and the cap that the records suggest.
"""

from __future__ import annotations

# --8<-- [start:imports]
from typing import Any, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from budget_guard import Budget, BudgetExceeded
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard.reporting import RunLog, advise

# --8<-- [end:imports]
# isort: split
import tempfile
from pathlib import Path

from _provider import local_provider

from budget_guard.testing import ProviderRequest, Reply, Script

# --8<-- [start:workflow]
CAP = Budget("$0.20", task="report")


class State(TypedDict):
    topic: str
    text: str
    verdict: str


def workflow() -> Any:
    """The graph. It knows nothing of budgets."""
    writer = ChatOpenAI(model="gpt-4o", max_completion_tokens=4_000)
    critic = ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=500)

    def write(state: State) -> dict[str, str]:
        return {"text": str(writer.invoke(f"Write a report on {state['topic']}. {state['verdict']}").content)}

    def review(state: State) -> dict[str, str]:
        return {"verdict": str(critic.invoke(f"Is this report on {state['topic']} good? {state['text']}").content)}

    graph = StateGraph(State)
    graph.add_node("writer", write)
    graph.add_node("critic", review)
    graph.add_edge(START, "writer")
    graph.add_edge("writer", "critic")
    graph.add_conditional_edges("critic", lambda state: END if "Good" in state["verdict"] else "writer")
    return graph.compile()


def run(app: Any, topic: str, log: RunLog) -> None:
    handler = BudgetCallbackHandler(CAP, run_log=log)
    try:
        app.invoke({"topic": topic, "text": "", "verdict": ""}, {"callbacks": [handler], "recursion_limit": 1_000})
        end = "done"
    except BudgetExceeded as stop:
        end = f"stopped by {stop.dimension}"
    steps = ", ".join(f"{step} ${cost.total:.3f}" for step, cost in handler.report().by_agent.items())
    print(f"{topic:<10} ${handler.spent_usd:.3f} ({steps}) {end}")


# --8<-- [end:workflow]


def script(request: ProviderRequest) -> Script:
    """What the local provider answers: "tides" needs a second draft, "ghosts" is never good enough."""
    asked = str(request.messages)
    if "Is this report" not in asked:
        return Reply(text="A draft.", output_tokens=2_500)
    bad = "ghosts" in asked or ("tides" in asked and not reviewed)
    reviewed.extend(topic for topic in ("tides",) if topic in asked)
    return Reply(text="Write it again." if bad else "Good.", output_tokens=300)


reviewed: list[str] = []


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder, "runs.db"))
        app = workflow()
        for topic in ("rain", "wind", "snow", "fog", "tides", "ghosts"):
            run(app, topic, log)
        print(advise(log, task="report"))


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(script):
        main()
