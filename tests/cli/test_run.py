"""`budget-guard run`: programs of many kinds on a budget, each with 20 calls of a cent to make and a dime to spend."""

from __future__ import annotations

import os
import re
import select
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
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from budget_guard.testing import LocalProvider, ProviderRequest, Reply

ROOT = Path(__file__).parents[2]
CENT = Reply(text="x", input_tokens=4, output_tokens=999)
"""gpt-4o takes a cent for it."""
BODY = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}'
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
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
    if name == "curl in a subprocess" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
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


# --- signals


_COUNTS = (
    "import os, signal, sys\n"
    "got = []\n"
    "signal.signal(signal.SIGINT, lambda *_: (got.append(1), os.write(1, b'got %d\\n' % len(got))))\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
    "os.write(1, b'ready %d\\n' % os.getppid())\n"
    "while True: signal.pause()\n"
)
"""A program that counts interrupts, and ends only when it is asked to."""
_TERMINAL = "import pty, os, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
"""Runs a command in a terminal, of which this program's standard input is the keyboard."""
_SIZED = ["sh", "-c", 'stty rows 24 cols 100; exec "$@"', "sh"]


class Terminal:
    """A run in a terminal."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.shown = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until the terminal has shown *pattern*."""
        while not (found := re.search(pattern, self.shown)):
            assert self._read(), f"it has ended without {pattern!r}: {self.shown}"
        return found

    def press(self, key: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(key.encode())
        self._process.stdin.flush()

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        while self._read():
            pass
        return self._process.wait(30)

    def _read(self) -> bool:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 30)
        assert ready, f"nothing more is shown: {self.shown}"
        more = os.read(self._process.stdout.fileno(), 65_536).decode("utf-8", "replace")
        self.shown += more
        return bool(more)


@contextmanager
def terminal(*words: str, cwd: Path, environ: Mapping[str, str]) -> Iterator[Terminal]:
    pytest.importorskip("pty")
    command = [sys.executable, "-c", _TERMINAL, *_SIZED, sys.executable, "-m", "budget_guard", "run", *words]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**environ, "TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Terminal(process)
    finally:
        process.kill()
        process.communicate()


def test_a_key_of_the_terminal_and_a_signal_each_reach_the_program_once(tmp_path: Path) -> None:
    with terminal(
        "--budget", "1", "--", sys.executable, "-c", _COUNTS, cwd=tmp_path, environ=environment("http://127.0.0.1:9")
    ) as run:
        parent = int(run.until(r"ready (\d+)")[1])
        run.press("\x03")
        run.until("got 1")
        os.kill(parent, signal.SIGTERM)
        assert run.end() == 9
        assert "got 2" not in run.shown
        assert "covered: no requests; refused: none; not covered: none seen" in run.shown
    with terminal(
        "--budget", "1", "--", sys.executable, "-c", _COUNTS, cwd=tmp_path, environ=environment("http://127.0.0.1:9")
    ) as run:
        parent = int(run.until(r"ready (\d+)")[1])
        if sys.platform == "linux":  # elsewhere it cannot be told who sends it
            os.kill(parent, signal.SIGINT)
            run.until("got 1")
        else:
            run.press("\x03")
        run.press("\x03")  # a second one kills it
        assert run.end() == 137
        assert "covered: no requests" in run.shown


@needs_curl
def test_a_second_interrupt_kills_what_the_program_has_started_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: print('got it', flush=True))\n"
        "ends = 'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.alarm(60);'\n"
        "ends += 'print(\"ready\", flush=True); signal.pause()'\n"
        "subprocess.run(['sh', '-c', '\"$@\"; true', 'sh', sys.executable, '-c', ends])\n"
    )
    words = ["--budget", "$1", "--", sys.executable, str(script)]
    with started(*words, cwd=tmp_path, environ=environment("http://127.0.0.1:9")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "got it\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)  # which ends when nobody has its output open any more
        assert process.returncode == 137


def test_a_program_that_goes_on_asking_is_ended_where_that_is_wanted(tmp_path: Path) -> None:
    call = f'{POST} -H "authorization: Bearer $OPENAI_API_KEY" $OPENAI_BASE_URL/chat/completions'
    command = f"trap 'echo ended; exit 7' TERM; while true; do {call} >/dev/null; done"
    with provider() as served:
        words = ["--budget", "0.02", "--end-when-stopped", "--quiet", "--", "sh", "-c", command]
        found = run(*words, cwd=tmp_path, environ=environment(served.base_url))
        assert (found.code, found.out, served.bill_usd) == (3, "ended\n", Decimal("0.02"))


def test_what_the_parent_ignores_the_program_ignores_too(tmp_path: Path) -> None:
    script = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    command = [sys.executable, "-m", "budget_guard", "run", "--budget", "1", "--", sys.executable, "-c", script]
    nohup = "trap '' HUP; exec \"$@\""
    done = subprocess.run(
        ["sh", "-c", nohup, "sh", *command],
        cwd=tmp_path,
        env=environment("http://127.0.0.1:9"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "True\n")


@needs_curl
def test_calls_that_outlive_the_program_are_waited_for_until_an_interrupt_books_them(tmp_path: Path) -> None:
    called = tmp_path / "called"
    call = f'{POST} -H "authorization: Bearer $OPENAI_API_KEY" $OPENAI_BASE_URL/chat/completions'
    command = f"{call} >/dev/null 2>&1 & until [ -e {called} ]; do sleep 0.05; done"
    with provider() as served:
        with served.paused():
            words = ["--budget", "1", "--quiet", "--grace", "60", "--", "sh", "-c", command]
            with started(*words, cwd=tmp_path, environ=environment(served.base_url)) as process:
                served.wait_for_calls(1, timeout=30)
                called.touch()
                assert process.stderr is not None
                assert process.stderr.readline().startswith("budget-guard: calls under way have 60 s to end")
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
                assert (process.returncode, out) == (0, "")
                covered, spent = err.splitlines()[-1].split("; spent ")
                assert covered == "covered: 1 request to openai; refused: none; not covered: none seen"
                assert float(spent.split()[0].removeprefix("$")) >= 0.04  # all that it was held at


def test_a_program_has_its_options_and_its_exit_code_though_nobody_reads_what_is_said_of_it(tmp_path: Path) -> None:
    program = "sh -c 'echo here \"$@\"; exit 5' sh --budget 2 -- x"
    command = f"{sys.executable} -m budget_guard run --budget 1 {program} 2>&-; echo $?"
    environ = environment("http://127.0.0.1:9")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("here --budget 2 -- x\n5\n", "")


# --- the terminal, the report


def test_the_line_of_spend_is_in_the_last_row_and_what_the_program_prints_is_untouched(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"{_OPENAI}client.chat.completions.create(model='gpt-4o', {_HI})\nprint('PRINTED')\ninput('go on? ')\n"
    )
    with provider() as served:
        environ = environment(served.base_url)
        with terminal("--budget", "1", "--", sys.executable, str(script), cwd=tmp_path, environ=environ) as run:
            run.until(r"\$0\.01 of \$1\.00")
            run.until("go on")
            run.press("\n")
            assert run.end() == 0
    assert "\x1b[1;" in run.shown  # rows above scroll alone
    assert run.shown.rindex("\x1b[r") < run.shown.index("By model")  # and all of them at the end
    assert re.search(r"PRINTED\r?\ngo on", run.shown)


@needs_curl
def test_where_it_is_no_terminal_nothing_is_drawn_and_output_is_the_programs(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with provider() as served:
        environ = environment(served.base_url, HF_TOKEN="h")
        call = f'{POST} -H "authorization: Bearer $OPENAI_API_KEY" $OPENAI_BASE_URL/chat/completions'
        command = f"{call} >/dev/null; env; cat; exit 5"
        ledger = f"sqlite:///{tmp_path / 'budget.db'}"
        words = [
            "--budget",
            "1",
            "--ledger",
            ledger,
            "--run-id",
            "nightly",
            "--html",
            str(page),
            "--",
            "sh",
            "-c",
            command,
        ]
        found = run(*words, cwd=tmp_path, environ=environ)
        again = run("--quiet", *words, cwd=tmp_path, environ=environ)
    assert found.code == again.code == 5
    made = dict(line.split("=", 1) for line in found.out.splitlines() if "=" in line)
    assert made["OPENAI_API_KEY"].startswith("sk-budget-guard-") and "real" not in made.values()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/openai/v1", made["OPENAI_BASE_URL"])
    assert "HF_TOKEN" not in made and "HF_TOKEN (--keep NAME leaves it one)" in found.err
    assert "\x1b" not in found.err
    assert found.err.startswith("budget-guard: $1.00 for this run, run nightly: calls to openai go through http://")
    assert "gpt-4o" in page.read_text(encoding="utf-8")
    assert again.err == ("covered: 1 request to openai; refused: none; not covered: none seen; spent $0.02 of $1.00\n")


# --- files of settings


def test_a_key_in_a_file_is_used_here_and_one_that_the_program_takes_from_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=real-in-the-file\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import os, openai\n"
        f"openai.OpenAI(max_retries=0).chat.completions.create(model='gpt-4o', {_HI})\n"
        "key = open('.env').read().strip().partition('=')[2]  # as load_dotenv(override=True) does\n"
        f"try: openai.OpenAI(api_key=key, max_retries=0).chat.completions.create(model='gpt-4o', {_HI})\n"
        "except openai.AuthenticationError as error: print(error.code)\n"
    )
    with provider() as served:
        environ = environment(served.base_url)
        del environ["OPENAI_API_KEY"]
        found = run("--budget", "1", "--", sys.executable, str(script), cwd=tmp_path, environ=environ)
        assert [call.headers["authorization"] for call in served.calls] == ["Bearer real-in-the-file"]
    assert (found.code, found.out) == (4, "unauthorized\n")
    assert found.err.count("override=True") == 1
    assert "it has a key that is not the dummy" in found.err
    assert found.last == (
        "covered: 1 request to openai; refused: none; not covered: what it sends with the key that 1 request to openai "
        "had; spent $0.01 of $1.00"
    )
