"""`budget-guard run`: programs of many kinds on a budget, each with 20 calls of a cent to make and a dime to spend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("openai")
pytest.importorskip("uvicorn")

from budget_guard.testing import LocalProvider, ProviderRequest, Reply

ROOT = Path(__file__).parents[2]
CENT = Reply(text="x", input_tokens=4, output_tokens=999)
"""gpt-4o takes a cent for it."""
BODY = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}'
POST = f"curl -s -XPOST -H 'content-type: application/json' -d '{BODY}'"


def provider() -> LocalProvider:
    """A provider that knows the key ``real`` alone, and what begins like it."""

    def answer(request: ProviderRequest) -> Reply:
        known = request.headers.get("authorization", "").startswith("Bearer real")
        return CENT if known else Reply(status=401)

    return LocalProvider(answer)


class Ended(NamedTuple):
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


def environment(upstream: str, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    return {
        **kept,
        "PYTHONPATH": paths,
        "OPENAI_API_KEY": "real",
        "OPENAI_BASE_URL": upstream,
        "PYTHONWARNINGS": "ignore",
        **more,
    }


@contextmanager
def started(*words: str, cwd: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "budget_guard", "run", *words],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*words: str, cwd: Path, environ: Mapping[str, str]) -> Ended:
    with started(*words, cwd=cwd, environ=environ) as process:
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)


# --- the twelve ways in which a program calls a model

_OPENAI = "import os, openai\nclient = openai.OpenAI(max_retries=0)\n"
_HI = "messages=[{'role': 'user', 'content': 'hi'}]"


class Case(NamedTuple):
    source: str
    code: int = 3
    spent: str = "0.1"
    """Dollars that the provider bills."""
    answered: int = 10
    refused: str = "1 request over the budget"
    language: str = "python"


CASES = {
    "chat": Case(f"{_OPENAI}for _ in range(20): client.chat.completions.create(model='gpt-4o', {_HI})"),
    "responses": Case(f"{_OPENAI}for _ in range(20): client.responses.create(model='gpt-4o', input='hi')"),
    "raw": Case(
        f"{_OPENAI}for _ in range(20): client.chat.completions.with_raw_response.create(model='gpt-4o', {_HI})"
    ),
    "swallowed": Case(
        "import asyncio, openai\n"
        "async def main():\n"
        "    client = openai.AsyncOpenAI()\n"
        "    for _ in range(20):\n"
        "        try: await client.responses.create(model='gpt-4o', input='hi')\n"
        "        except Exception: pass\n"
        "asyncio.run(main())",
        refused="10 requests over the budget",
    ),
    "threads": Case(
        f"{_OPENAI}from concurrent.futures import ThreadPoolExecutor\n"
        "def ask(_):\n"
        f"    try: client.chat.completions.create(model='gpt-4o', {_HI})\n"
        "    except openai.APIStatusError: pass\n"
        "with ThreadPoolExecutor(20) as pool: list(pool.map(ask, range(20)))",
        refused="10 requests over the budget",
    ),
    "urllib": Case(
        "import os, urllib.request\n"
        "headers = {'content-type': 'application/json', 'authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']}\n"
        f"request = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions', b'{BODY}', headers)\n"
        "for _ in range(20): urllib.request.urlopen(request).read()"
    ),
    "aiohttp": Case(
        "import aiohttp, asyncio, os\n"
        "async def main():\n"
        "    key = os.environ['OPENAI_API_KEY']\n"
        "    headers = {'content-type': 'application/json', 'authorization': f'Bearer {key}'}\n"
        "    url = os.environ['OPENAI_BASE_URL'] + '/chat/completions'\n"
        "    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:\n"
        f"        for _ in range(20): await (await session.post(url, data=b'{BODY}')).read()\n"
        "asyncio.run(main())"
    ),
    "curl in a subprocess": Case(
        "import subprocess\n"
        f"command = '''{POST} -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/chat/completions'''\n"
        "for _ in range(20): subprocess.run(command, shell=True, capture_output=True)",
        refused="10 requests over the budget",
    ),
    "the provider's own address": Case(
        "import openai, os\n"
        "client = openai.OpenAI(base_url=os.environ['REAL_URL'], max_retries=0)\n"
        f"client.chat.completions.create(model='gpt-4o', {_HI})",
        code=1,
        spent="0",
        answered=0,
        refused="none",
    ),
    "a grandchild": Case(
        "import subprocess, sys\n"
        f"source = '''{_OPENAI}for _ in range(20): client.chat.completions.create(model='gpt-4o', {_HI})'''\n"
        "middle = 'import subprocess, sys; sys.exit(subprocess.call([sys.executable, \"-c\", sys.argv[1]]))'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', middle, source]).returncode)"
    ),
    "another language": Case(
        "const headers = {'content-type': 'application/json', authorization: `Bearer ${process.env.OPENAI_API_KEY}`};\n"
        "(async () => { for (let i = 0; i < 20; i++) {\n"
        "  const url = process.env.OPENAI_BASE_URL + '/chat/completions';\n"
        f"  const answer = await fetch(url, {{method: 'POST', headers, body: `{BODY}`}});\n"
        "  if (!answer.ok) { console.error((await answer.json()).code); process.exit(7); }\n"
        "}})();",
        language="node",
    ),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[tuple[Ended, LocalProvider]]]]:
    """All of them at once, as most of what they take is the start of an interpreter."""
    folder = tmp_path_factory.mktemp("programs")

    def perform(name: str) -> tuple[Ended, LocalProvider]:
        case = CASES[name]
        file = folder / f"{list(CASES).index(name)}-program.{'py' if case.language == 'python' else 'js'}"
        file.write_text(case.source)
        interpreter = sys.executable if case.language == "python" else case.language
        with provider() as served:
            environ = environment(served.base_url, REAL_URL=served.base_url)
            return run("--budget", "$0.10", "--", interpreter, str(file), cwd=folder, environ=environ), served

    with ThreadPoolExecutor(3) as pool:
        yield {
            name: pool.submit(perform, name)
            for name, case in CASES.items()
            if case.language == "python" or shutil.which(case.language)
        }


@pytest.mark.parametrize("name", CASES)
def test_a_program_spends_its_budget_and_no_more_however_it_calls(
    name: str, ended: Mapping[str, Future[tuple[Ended, LocalProvider]]]
) -> None:
    if name not in ended:
        pytest.skip(f"{CASES[name].language} is not installed")
    case = CASES[name]
    found, served = ended[name].result()
    assert (found.code, served.bill_usd) == (case.code, Decimal(case.spent)), found.err
    assert len([call for call in served.calls if call.status == 200]) == case.answered
    covered = f"{case.answered} requests to openai" if case.answered else "no requests"
    spent = "$0.00" if case.spent == "0" else "$0.10"
    assert found.last == (
        f"covered: {covered}; refused: {case.refused}; not covered: none seen; spent {spent} of $0.10"
    )


def test_an_interrupt_reaches_the_program_once_and_what_it_has_called_is_booked(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"{_OPENAI}try:\n"
        f"    client.chat.completions.create(model='gpt-4o', {_HI})\n"
        "except KeyboardInterrupt:\n"
        "    print('once', flush=True)\n"
        "    import time; time.sleep(0.2)\n"
        "    raise\n"
    )
    with provider() as served:
        served.pause()
        words = ["--budget", "$1", "--", sys.executable, str(script)]
        with started(*words, cwd=tmp_path, environ=environment(served.base_url)) as process:
            served.wait_for_calls(1, timeout=30)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert process.stdout.readline() == "once\n"
            served.resume()
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out) == (130, "")
            assert "covered: 1 request to openai" in err.splitlines()[-1]
            assert "spent $0.01 of $1.00" in err.splitlines()[-1]
        assert served.bill_usd == Decimal("0.01")
