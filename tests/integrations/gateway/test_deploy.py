"""The Dockerfile and the compose file say what the gateway understands, and what the images hold."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from budget_guard.integrations.gateway import add_key
from budget_guard.testing import LocalProvider
from budget_guard_gateway.command import add_commands, settings_of
from tests.integrations.gateway.support import RATES, gateway

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml: Any = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE: Any = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
GATEWAY: Any = COMPOSE["services"]["gateway"]


def instructions(name: str) -> list[str]:
    """The arguments of each *name* in the Dockerfile, in its last stage alone."""
    joined = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def command_line() -> list[str]:
    """What the container runs, as compose reads it."""
    entry: list[str] = json.loads(instructions("ENTRYPOINT")[0])
    return entry + [each.replace("$$", "$") for each in GATEWAY["command"]]


def test_the_gateway_takes_the_command_that_the_container_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    add_key(tmp_path / "keys.toml", "alice", user="u1")
    program, *arguments = command_line()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    settings = settings_of(parser.parse_args([each.replace("/data", str(tmp_path)) for each in arguments]))
    assert (settings.host, settings.port, settings.workers) == ("0.0.0.0", 4000, 2)
    assert settings.run_budget.max_cost_usd == 5 and set(settings.ceilings) == {"user"}
    assert settings.ledger == "redis://redis:6379/0" and "redis" in COMPOSE["services"]
    assert {each.name for each in settings.upstreams} == {"openai", "anthropic"}
    assert settings.upstreams[0].key == "sk-1"
    assert int(GATEWAY["stop_grace_period"].removesuffix("s")) > settings.grace_s + 5


def test_it_runs_as_nobody_special_and_can_write_where_its_keys_are() -> None:
    assert instructions("USER") == ["10001"] and instructions("WORKDIR") == instructions("VOLUME") == ["/data"]
    assert "--uid 10001 --home-dir /data --create-home" in instructions("RUN")[0]
    assert GATEWAY["read_only"] and GATEWAY["cap_drop"] == ["ALL"] and GATEWAY["volumes"] == ["keys:/data"]
    published = [each.split(":")[0] for each in GATEWAY["ports"]]
    assert published == ["127.0.0.1"] and "ports" not in COMPOSE["services"]["redis"]
    redis = COMPOSE["services"]["redis"]["command"]
    assert (
        redis[redis.index("--appendonly") + 1] == "yes" and redis[redis.index("--maxmemory-policy") + 1] == "noeviction"
    )


def test_the_image_is_made_of_files_that_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = [each for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.M) for each in line.split()]
    assert {"pyproject.toml", project["readme"], "LICENSE", "budget_guard", "integrations"} == set(copied)
    assert all((ROOT / each).exists() for each in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{each}" for each in copied} <= set(ignored)
    (extras,) = re.findall(r'pip install .*"\.\[(.*)\]"', DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert (ROOT / GATEWAY["build"]["dockerfile"]).exists() and GATEWAY["build"]["context"] == ".."


def test_its_health_is_asked_of_the_gateway() -> None:
    (told,) = instructions("HEALTHCHECK")
    _, flag, code = json.loads(told[told.index("[") :])
    with LocalProvider(prices=RATES) as provider, gateway(provider) as asking:
        for url, status in ((asking.url, 0), ("http://127.0.0.1:1", 1)):
            assert "http://127.0.0.1:4000/health/ready" in code
            asked = code.replace("http://127.0.0.1:4000", url)
            assert subprocess.run([sys.executable, flag, asked], capture_output=True, check=False).returncode == status
