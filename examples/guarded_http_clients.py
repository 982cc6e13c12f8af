"""Any SDK that takes an HTTP client is held: a chain that embeds a question, and LangChain asking a model over one.

Prints what was found and said, and the spend by model.
"""

from __future__ import annotations

import httpx2
from _provider import local_provider
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from budget_guard import Budget
from budget_guard.testing import Rates, Reply

NOTES = ["Money that is held cannot be spent twice.", "The sky is blue."]
PRICES = {"text-embedding-3-small": Rates(input="0.02", output="0")}


def main() -> None:
    with Budget("$0.10").session() as session, session.guard(httpx2.Client()) as http:
        embeddings = OpenAIEmbeddings(
            model="text-embedding-3-small", http_client=http, check_embedding_ctx_length=False
        )
        model = ChatOpenAI(model="gpt-4o-mini", http_client=http)
        notes = InMemoryVectorStore.from_texts(NOTES, embeddings)

        question = "Can it be spent twice?"
        found = notes.similarity_search(question, k=1)
        chain = ChatPromptTemplate.from_template("By these notes: {notes}\n\n{question}") | model
        print(chain.invoke({"notes": found[0].page_content, "question": question}).content)
        for name, spent in sorted(session.report().breakdown.llm.by_model.items()):
            print(f"{name:24s} ${spent.total:.8f}")
        print(session.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(Reply(text="No.", input_tokens=60, output_tokens=4), prices=PRICES) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
