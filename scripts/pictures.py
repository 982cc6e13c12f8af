"""Take the pictures of the pages: ``python scripts/pictures.py``. Needs `script` (util-linux), rich and Chromium.

The demo and the live line are what a terminal of 116 columns shows of them, as SVG that loads nothing. The report and
the gateway's page for operators are screenshots.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from budget_guard.integrations.gateway import add_key
from budget_guard.testing import LocalProvider, Reply

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 116
# Rich's own format without its web font.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }} {styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
<rect fill="#1b1f24" x="0" y="0" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""
LIVE = """
from openai import OpenAI
from budget_guard import Budget
from budget_guard.live import spend_line
from budget_guard.testing import LocalProvider, Reply
with LocalProvider(Reply(text="Four stars.", output_tokens=900)) as provider:
    session = Budget("$0.20", downgrade={"gpt-4o": "gpt-4o-mini"}, max_requests=60).session()
    client = session.guard(OpenAI(base_url=provider.base_url, api_key="none"))
    with spend_line(session, leave=True):
        for number in range(17):
            client.responses.create(model="gpt-4o", input=f"Rate review {number}.", max_output_tokens=1_000)
"""
REPORT = """
import random
from budget_guard import Budget, ModelCall, Session, Usage, weigh
from budget_guard.testing import FakeClock
random.seed(3)
clock = FakeClock()
session = Session(Budget("$1.00", downgrade={"gpt-4o": "gpt-4o-mini"}, max_requests=900, task="research"), clock=clock)
while True:
    clock.advance(random.uniform(1, 6))
    agent = random.choice(["Researcher", "Researcher", "Writer", "Critic"])
    call = ModelCall("gpt-4o", weigh(messages="x" * 3_000), max_output_tokens=900, agent=agent)
    decision = session.authorize(call, sent=True)
    if decision.error is not None:
        break
    clock.advance(random.uniform(0.5, 3))
    used = Usage(input=random.randint(50, 900), cache_read=random.randint(0, 900), output=random.randint(30, 600))
    decision.require().commit(used)
    if random.random() < 0.08:
        session.track(None, cost="0.005", tool="serp_api", agent="Researcher")
"""

GATEWAY = """
import sys
from budget_guard import Budget
from budget_guard.integrations.gateway import GatewaySettings, Upstream, serve
folder, provider = sys.argv[1:]
serve(GatewaySettings(
    run_budget=Budget("$2.00", downgrade={"gpt-4o": "gpt-4o-mini"}),
    ceilings={"user": [Budget("$0.30", window="day"), Budget("$4.00", window="month")]},
    ledger=f"sqlite:///{folder}/budget.db", keys=f"{folder}/keys.toml", port=0, admin="127.0.0.1:0",
    upstreams=[Upstream(name="openai", url=provider, key="sk-none")],
))
"""


def shown(command: list[str]) -> list[str]:
    """The lines that a terminal shows once *command* is over, with their colours."""
    environment = {
        **os.environ,
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    inner = f"stty cols {COLUMNS}; {shlex.join(command)}"
    done = subprocess.run(
        ["script", "-qec", inner, "/dev/null"], capture_output=True, env=environment, check=True, cwd=ROOT
    )
    lines: list[str] = []
    for line in done.stdout.decode("utf-8", "replace").split("\n"):
        drawn = [
            part for part in re.split(r"\r|\x1b\[2K|\x1b\[\d*A", line) if re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", part)
        ]
        if drawn:
            lines.append(drawn[-1])
    return lines


def picture(lines: list[str], name: str) -> None:
    """Write *lines* as an SVG."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), overflow="crop", no_wrap=True)
    (PICTURES / name).write_text(console.export_svg(title="", code_format=SVG), encoding="utf-8")


def screenshot(address: str, name: str, height: int) -> None:
    """Write what a browser shows of a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += "--disable-component-update --disable-sync --hide-scrollbars"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = [f"--user-data-dir={folder}", f"--window-size=1000,{height}", f"--screenshot={PICTURES / name}"]
        subprocess.run([chromium, *options.split(), *target, address], check=True, capture_output=True)


def report(name: str) -> None:
    """Write a screenshot of a report."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        program = REPORT + f"\nsession.report().to_html({str(page)!r})\n"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        screenshot(page.as_uri(), name, 1010)


def admin(name: str) -> None:
    """Write a screenshot of the gateway's page for operators, after a morning's calls."""
    random.seed(3)
    people = {
        person: number for number, person in enumerate(("ada", "grace", "linus", "margaret", "edsger", "barbara"))
    }

    def script(_: object) -> Reply:
        return Reply(input_tokens=random.randint(200, 6_000), output_tokens=random.randint(30, 900))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, LocalProvider(script) as provider:
        keys = {person: add_key(f"{folder}/keys.toml", f"{person}-laptop", user=person) for person in people}
        command = [sys.executable, "-c", GATEWAY, folder, provider.root_url]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert served.stdout is not None
            url, office = (re.findall(r"http://\S+/?", served.stdout.readline())[0].rstrip(",") for _ in range(2))
            for _ in range(200):  # until it serves
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/health/ready").close()
                    break
                time.sleep(0.1)
            for number in range(190):
                person = min(people, key=lambda each: random.expovariate(1) * (1 + people[each]))
                ask(url, keys[person], f"{person}-{number // 12}", random.choice(("gpt-4o", "gpt-4o", "gpt-4o-mini")))
            form = json.dumps({"reason": "the key was in a public repository"}).encode()
            revoke = urllib.request.Request(f"{office.removesuffix('/')}/user/margaret/revoke", form, method="POST")
            urllib.request.urlopen(revoke).close()
            ask(url, keys["margaret"], "margaret-13", "gpt-4o")
            screenshot(office, name, 940)
        finally:
            served.terminate()
            served.wait()


def ask(url: str, key: str, run: str, model: str) -> None:
    """Make a call through the gateway; it may be refused."""
    body = {"model": model, "messages": [{"role": "user", "content": "x" * 9_000}], "max_tokens": 900}
    headers = {"authorization": f"Bearer {key}", "x-run-id": run, "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as refused:
        refused.close()


def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    demo = shown([sys.executable, "examples/overspend_demo.py"])
    picture([line for line in demo if "budget_guard run" not in line], "demo.svg")
    picture(shown([sys.executable, "-c", LIVE])[-1:], "live.svg")
    report("report.png")
    admin("admin.png")


if __name__ == "__main__":
    main()
