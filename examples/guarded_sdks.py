"""Other SDKs over a guarded HTTP client, in one budget: google-genai, mistralai and instructor.

Prints what each of them that is installed said, and the provider's bill, which is what was booked.
"""

from __future__ import annotations

from importlib.util import find_spec

import httpx
from _provider import local_provider

from budget_guard import Budget, Session
from budget_guard.testing import Rates, Reply


def ask_gemini(session: Session, url: str | None) -> str:
    from google import genai
    from google.genai.types import HttpOptions

    # its async calls go over aiohttp unless httpx_async_client= is given as well
    with session.guard(httpx.Client()) as http:
        client = genai.Client(api_key="none", http_options=HttpOptions(base_url=url, httpx_client=http))
        answer = client.models.generate_content(model="gemini-2.5-flash", contents="Why is the sky blue?")
    return answer.text or ""


def ask_mistral(session: Session, url: str | None) -> str:
    import httpx2
    from mistralai.client import Mistral

    with session.guard(httpx2.Client()) as http:
        client = Mistral(api_key="none", server_url=url, client=http)
        question = {"role": "user", "content": "Why is the sky blue?"}
        answer = client.chat.complete(model="mistral-large-latest", messages=[question])
    return str(answer.choices[0].message.content)


def ask_instructor(session: Session, url: str | None) -> str:
    import instructor
    from openai import OpenAI
    from pydantic import BaseModel

    class Answer(BaseModel):
        reason: str

    with session.guard(OpenAI()) as openai:
        client = instructor.from_openai(openai, mode=instructor.Mode.JSON)
        question = {"role": "user", "content": "Why is the sky blue?"}
        answer = client.chat.completions.create(model="gpt-4o", messages=[question], response_model=Answer)
    return str(answer.reason)


PRICES = {"mistral-large-latest": Rates(input="1.36", output="4.18")}
SDKS = {"google.genai": ask_gemini, "mistralai": ask_mistral, "instructor": ask_instructor}


def main(url: str | None = None) -> None:
    with Budget("$0.10").session() as session:
        for name, ask in SDKS.items():
            if find_spec(name.partition(".")[0]) and find_spec(name):
                print(f"{name}: {ask(session, url)}")
        print(f"Spent: ${session.spent_usd}")


if __name__ == "__main__":
    # To call the real APIs, give their keys and keep only `main()`.
    reply = Reply(text='{"reason": "the air scatters blue light"}', output_tokens=20)
    with local_provider(reply, prices=PRICES) as provider:
        main(provider.root_url)
        print(f"The provider's bill: ${provider.bill_usd}")
