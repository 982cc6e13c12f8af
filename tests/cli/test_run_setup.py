"""What `budget-guard run` gives a program in place of keys and addresses, and what it refuses before it starts one."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from budget_guard.cli.answer import Failure
from budget_guard.cli.main import main
from budget_guard.cli.run.child import KeptSignals
from budget_guard.cli.run.dotenv import Setting, settings_in, settings_near
from budget_guard.cli.run.environment import Plan, Target

PROXY = "http://127.0.0.1:7"
ADMIN = "sk-proj-" + "a" * 40


def plan(
    environ: Mapping[str, str],
    *,
    settings: Mapping[str, str] | None = None,
    upstreams: Sequence[str] = (),
    kept: Sequence[str] = (),
) -> Plan:
    in_file = {name: Setting(value, Path(".env")) for name, value in (settings or {}).items()}
    return Plan(environ, in_file, upstreams, kept)


def given(environ: Mapping[str, str], **more: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """The environment that a program is given."""
    return plan(environ, **more).environment(PROXY, "dummy")  # type: ignore[arg-type]  # the names of `plan`


# --- the environment


def test_a_program_is_given_the_proxys_address_and_a_dummy_and_all_else_as_it_is() -> None:
    made = given({"OPENAI_API_KEY": "real", "HOME": "/home/me", "OPENAI_ORG_ID": "o"})
    assert made["OPENAI_API_KEY"] == "dummy"
    assert made["OPENAI_BASE_URL"] == made["OPENAI_API_BASE"] == f"{PROXY}/openai/v1"
    assert (made["HOME"], made["OPENAI_ORG_ID"]) == ("/home/me", "o")
    assert "real" not in made.values()
    assert plan({"OPENAI_API_KEY": "real"}).targets == [Target("openai", "https://api.openai.com", "real")]


@pytest.mark.parametrize(
    ("key", "target", "variable", "address"),
    [
        ("ANTHROPIC_API_KEY", "https://api.anthropic.com", "ANTHROPIC_BASE_URL", "/anthropic"),
        ("GEMINI_API_KEY", "https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL", "/google"),
        ("GOOGLE_API_KEY", "https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL", "/google"),
        ("GROQ_API_KEY", "https://api.groq.com", "GROQ_BASE_URL", "/groq"),
        ("GROQ_API_KEY", "https://api.groq.com", "GROQ_API_BASE", "/groq/openai/v1"),
        ("MISTRAL_API_KEY", "https://api.mistral.ai", "MISTRAL_BASE_URL", "/mistral/v1"),
        ("OPENROUTER_API_KEY", "https://openrouter.ai/api", "OPENROUTER_API_BASE", "/openrouter/v1"),
        ("FIREWORKS_API_KEY", "https://api.fireworks.ai/inference", "FIREWORKS_API_BASE", "/fireworks/v1"),
        ("CO_API_KEY", "https://api.cohere.com", "CO_API_URL", "/cohere"),
    ],
)
def test_each_client_finds_its_address_where_it_looks(key: str, target: str, variable: str, address: str) -> None:
    made = given({key: "real"})
    assert (made[key], made[variable]) == ("dummy", PROXY + address)
    assert [each.url for each in plan({key: "real"}).targets] == [target]


@pytest.mark.parametrize(
    ("address", "target", "api"),
    [
        ("http://localhost:11434/v1", "http://localhost:11434", "/v1"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api", "/v1"),
        ("https://api.groq.com/openai/v1", "https://api.groq.com", "/openai/v1"),
        ("https://me.openai.azure.com/openai/v1", "https://me.openai.azure.com", "/openai/v1"),
        ("https://api.perplexity.ai", "https://api.perplexity.ai", ""),
        ("http://localhost\n/v1", "http://localhost\n/v1", ""),
    ],
)
def test_an_address_that_is_set_is_where_calls_go_and_its_path_stays_with_the_program(
    address: str, target: str, api: str
) -> None:
    environ = {"OPENAI_API_KEY": "real", "OPENAI_BASE_URL": address}
    assert plan(environ).targets == [Target("openai", target, "real")]
    made = given(environ)
    assert made["OPENAI_BASE_URL"] == made["OPENAI_API_BASE"] == f"{PROXY}/openai{api}"


def test_an_upstream_that_is_typed_wins_over_one_that_is_set_and_takes_its_key_by_its_name() -> None:
    environ = {"OPENAI_API_KEY": "real", "OPENAI_BASE_URL": "https://elsewhere.example/v1"}
    typed = ["openai=https://mine.example/v1", "gemini=http://localhost:1", "local=http://localhost:8000/v1"]
    made = plan(environ, upstreams=typed)
    assert made.targets == [
        Target("openai", "https://mine.example", "real"),
        Target("google", "http://localhost:1", None),
        Target("local", "http://localhost:8000", None),
    ]
    environment = made.environment(PROXY, "dummy")
    assert environment["OPENAI_BASE_URL"] == f"{PROXY}/openai/v1"
    assert (environment["LOCAL_BASE_URL"], environment["LOCAL_API_KEY"]) == (f"{PROXY}/local/v1", "dummy")
    assert environment["GOOGLE_API_KEY"] == "dummy"
    assert plan({"GROQ_API_KEY": "g"}, upstreams=["groq"]).targets == [Target("groq", "https://api.groq.com", "g")]


def test_calls_to_providers_without_a_key_come_here_too_and_are_told_so() -> None:
    made = plan({"OPENAI_API_KEY": "real"})
    environment = made.environment(PROXY, "dummy")
    assert environment["ANTHROPIC_BASE_URL"] == f"{PROXY}/anthropic"
    assert environment["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == f"{PROXY}/aws"
    assert "ANTHROPIC_API_KEY" not in environment  # a program may choose its provider by the key that is there
    assert "AZURE_OPENAI_ENDPOINT" not in environment  # and openai's module by the address
    assert made.absent["anthropic"].endswith("set ANTHROPIC_API_KEY there.")
    assert "signed" in made.absent["vertex"]


def test_azure_and_bedrock_are_called_at_the_address_that_is_set() -> None:
    environ = {
        "AZURE_OPENAI_API_KEY": "a",
        "AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com/",
        "AWS_BEARER_TOKEN_BEDROCK": "b",
        "AWS_REGION": "eu-west-1",
    }
    assert plan(environ).targets == [
        Target("azure", "https://me.openai.azure.com", "a"),
        Target("aws", "https://bedrock-runtime.eu-west-1.amazonaws.com", "b"),
    ]
    assert given(environ)["AZURE_OPENAI_ENDPOINT"] == f"{PROXY}/azure"


def test_no_key_of_a_provider_stays_under_whatever_name() -> None:
    environ = {
        "OPENAI_API_KEY": "real",
        "MY_KEY": "real",  # the same
        "HF_TOKEN": "h",
        "SOMETHING": ADMIN,
        "REPLICATE_API_TOKEN": "r",
        "AZURE_OPENAI_API_KEY": "without an endpoint",
        "SECRET": "of another kind",
    }
    made = plan(environ)
    environment = made.environment(PROXY, "dummy")
    assert environment["MY_KEY"] == environment["AZURE_OPENAI_API_KEY"] == "dummy"
    assert made.taken_out == ["HF_TOKEN", "REPLICATE_API_TOKEN", "SOMETHING"]
    assert environment.keys().isdisjoint(made.taken_out)
    assert environment["SECRET"] == "of another kind"
    assert given(environ, kept=["HF_TOKEN", "NOT_THERE"])["HF_TOKEN"] == "h"
    assert plan(environ, kept=["HF_TOKEN", "NOT_THERE"]).kept == ["HF_TOKEN"]


def test_a_key_within_another_value_is_the_dummy_too() -> None:
    environ = {
        "ANTHROPIC_API_KEY": "real-key-1",
        "OPENAI_API_KEY": "real-key-12",
        "ANTHROPIC_CUSTOM_HEADERS": "x-api-key: real-key-1\nx-other: real-key-12",
        "SETTINGS": '{"key": "real-key-1"}',
        "LEFT": "Bearer real-key-1",
        "ELSEWHERE": f"Bearer {ADMIN}",
    }
    made = given(environ, kept=["LEFT"])
    assert made["ANTHROPIC_CUSTOM_HEADERS"] == "x-api-key: dummy\nx-other: dummy"
    assert made["SETTINGS"] == '{"key": "dummy"}'
    assert made["LEFT"] == "Bearer real-key-1"
    assert "ELSEWHERE" not in made and plan(environ).taken_out == ["ELSEWHERE"]
    assert plan(environ).carries_key("--header=x-api-key: real-key-1")
    assert given({"OPENAI_API_KEY": "x", "PATH": "/x/bin"})["PATH"] == "/x/bin"  # too short to be looked for


def test_a_proxy_of_the_network_is_not_asked_for_this_machine() -> None:
    made = given({"OPENAI_API_KEY": "real", "HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"})
    assert made["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert made["no_proxy"] == "127.0.0.1,localhost"


def test_keys_in_a_file_are_used_here_and_the_program_gets_dummies() -> None:
    settings = {"OPENAI_API_KEY": "in the file", "HF_TOKEN": "h", "OPENAI_BASE_URL": "http://localhost:1/v1", "X": "y"}
    made = plan({"GROQ_API_KEY": "g"}, settings=settings)
    assert made.targets[0] == Target("openai", "http://localhost:1", "in the file")
    assert sorted(made.in_files) == ["HF_TOKEN", "OPENAI_API_KEY"]
    environment = made.environment(PROXY, "dummy")  # what is set is not overridden by who loads the file
    assert environment["OPENAI_API_KEY"] == environment["HF_TOKEN"] == "dummy"
    assert "X" not in environment
    made = plan({"OPENAI_API_KEY": "set\n"}, settings=settings)
    assert made.targets[0].key == "set"
    assert "OPENAI_API_KEY" in made.in_files  # where the program may find the real one all the same


# --- files of settings


def test_a_file_of_settings_is_read_as_others_read_it() -> None:
    text = (
        "# a comment\n"
        "OPENAI_API_KEY=plain # and why\n"
        " export ANTHROPIC_API_KEY = 'si#ngle'\r\n"
        'GROQ_API_KEY="dou#ble"\n'
        "EMPTY=\nnot a setting\nOPENAI_API_KEY=later\n"
    )
    found: dict[str, str] = {}
    for name, value in settings_in(text):
        found.setdefault(name, value)
    assert found == {"OPENAI_API_KEY": "later", "ANTHROPIC_API_KEY": "si#ngle", "GROQ_API_KEY": "dou#ble"}


def test_settings_are_found_from_here_upwards_and_beside_the_script(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "below", tmp_path / "there"
    here.mkdir(parents=True)
    there.mkdir()
    (there / "script.py").touch()
    (tmp_path / "here" / ".env").write_text("A_KEY=above\nB_KEY=above\n")
    (here / ".env.local").write_text("C_KEY=local\n")
    (there / ".env").write_text("A_KEY=beside\nD_KEY=beside\n")
    found = settings_near(["python", "../../there/script.py"], here)
    assert {name: setting.value for name, setting in found.items()} == {
        "A_KEY": "above",
        "B_KEY": "above",
        "C_KEY": "local",
        "D_KEY": "beside",
    }
    assert found["D_KEY"].file == there / ".env"


# --- what is refused before anything is started

Wrong = Callable[..., str]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Wrong:
    """Types a command line that is wrong; gives what is said."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("uvicorn")
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_API_BASE", "_TOKEN")):
            monkeypatch.delenv(name)

    def typed(*words: str, status: int = 2, **environ: str) -> str:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert main(["run", *words]) == status
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("budget-guard: ")
        assert not list(tmp_path.glob("started"))
        return err

    return typed


def test_without_a_budget_there_is_an_example(wrong: Wrong) -> None:
    assert "a budget is missing: budget-guard run --budget '$1.00' -- python script.py" in wrong("touch", "started")


@pytest.mark.parametrize("words", [["--budget", ""], ["--budget", ".00"], ["--budget"], ["--budget", "$0"]])
def test_a_dollar_that_the_shell_took_is_said_to_be_one(wrong: Wrong, words: list[str]) -> None:
    assert "in double quotes a shell takes $1 for a variable" in wrong(*words, "--", "touch", "started")


@pytest.mark.parametrize("budget", ["a dollar", "-1", "nan"])
def test_a_budget_that_is_none_is_refused(wrong: Wrong, budget: str) -> None:
    assert f"--budget={budget!r}" in wrong(f"--budget={budget}", "--", "touch", "started", OPENAI_API_KEY="k")


def test_without_a_command_there_is_an_example(wrong: Wrong) -> None:
    assert "a command is missing: budget-guard run" in wrong("--budget", "1", OPENAI_API_KEY="k")


def test_without_a_key_it_says_where_it_looked(wrong: Wrong) -> None:
    said = wrong("--budget", "1", "--", "touch", "started")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GROQ_API_KEY", ".env", "--upstream"):
        assert name in said
    said = wrong("--budget", "1", "--upstream", "together", "--", "touch", "started")
    assert "no key for together" in said and "TOGETHER_API_KEY" in said


def test_an_upstream_without_an_address_is_refused(wrong: Wrong) -> None:
    said = wrong("--budget", "1", "--upstream", "together=", "--", "touch", "started")
    assert "no key for together" in said


def test_an_upstream_that_is_not_known_is_refused(wrong: Wrong) -> None:
    said = wrong("--budget", "1", "--upstream", "unheard-of", "--", "touch", "started", OPENAI_API_KEY="k")
    assert "--upstream unheard-of: no address is known for that: write NAME=URL" in said
    said = wrong("--budget", "1", "--upstream", "openai=ftp://x", "--", "touch", "started", OPENAI_API_KEY="k")
    assert "no key for openai" in said or "must be http:// or https://" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run-id", "../x", "--ledger", "sqlite:///budget.db"], "--run-id '../x' must be letters"),
        (["--run-id", "nightly"], "--run-id goes on with a run that is in a ledger: --ledger sqlite:///"),
        (["--run-id", "nightly", "--ledger", "sqlite:////not/there/budget.db"], "nothing was started"),
        (["--ceiling", "user"], "--ceiling 'user' must be NAME=VALUE"),
        (["--ceiling", "team=$1"], "give it a team"),
        (["--price", "m=1"], "must be MODEL=IN,OUT"),
        (["--downgrade", "gpt-4o=unheard-of"], "unheard-of"),
        (["--ledger", "nowhere://x"], "names no ledger"),
        (["--ledger", "sqlite:////not/there/budget.db"], "nothing was started"),
        (["--html", "not/there/report.html"], "there is no such folder"),
        (["--max-requests", "x"], "--max-requests"),
        (["--unheard-of"], "--unheard-of"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(wrong: Wrong, words: list[str], said: str) -> None:
    assert said in wrong("--budget", "1", *words, "--", "touch", "started", OPENAI_API_KEY="k")


def test_a_command_that_is_not_there_or_not_executable_starts_nothing(wrong: Wrong, tmp_path: Path) -> None:
    assert "unheard-of: there is no such command" in wrong("--budget", "1", "--", "unheard-of", status=127)
    (tmp_path / "script.py").touch(0o600)
    assert "chmod +x" in wrong("--budget", "1", "--", "./script.py", status=126)
    assert "is a folder" in wrong("--budget", "1", "--", f"{tmp_path}", status=126)
    (tmp_path / "script.py").chmod(0o700)
    (tmp_path / "script.py").write_text("import openai\n")
    said = wrong("--budget", "1", "--quiet", "--", "./script.py", status=126, OPENAI_API_KEY="k")
    assert "script.py cannot be executed: its first line does not say by what, such as #!/bin/sh" in said


def test_where_the_gateway_is_not_installed_it_says_what_installs_it(
    wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "budget_guard.integrations.gateway", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    said = wrong("--budget", "1", "--", "touch", "started")
    assert 'pip install "budget-guard-py[gateway]"' in said


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system keeps no signals")
def test_an_interrupt_before_there_is_a_program_ends_it_all_and_none_is_left_for_later() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with KeptSignals() as signals:
        signals.check()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signals.check()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system keeps no signals")
def test_a_signal_that_comes_while_a_program_is_started_is_kept_too() -> None:
    with KeptSignals() as signals:
        with signals.let_through():
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        number, from_keyboard = signals.next()
        assert (number, from_keyboard) == (signal.SIGTERM, False)


def test_a_plan_without_a_key_fails_as_a_value() -> None:
    with pytest.raises(Failure, match="no key of a provider is in the environment"):
        plan({})
