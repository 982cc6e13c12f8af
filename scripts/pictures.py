"""Take the pictures of the pages: ``python scripts/pictures.py``. Needs `script` (util-linux), rich and Chromium.

The demo and the live line are what a terminal of 116 columns shows of them, as SVG that loads nothing. The report is a
screenshot of the page that it writes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

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


def report(name: str) -> None:
    """Write a screenshot of a report."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        program = REPORT + f"\nsession.report().to_html({str(page)!r})\n"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        options += "--disable-component-update --disable-sync --hide-scrollbars --window-size=1000,1010"
        target = [f"--user-data-dir={folder}/profile", f"--screenshot={PICTURES / name}", page.as_uri()]
        subprocess.run([chromium, *options.split(), *target], check=True, capture_output=True)


def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    demo = shown([sys.executable, "examples/overspend_demo.py"])
    picture([line for line in demo if "budget_guard run" not in line], "demo.svg")
    picture(shown([sys.executable, "-c", LIVE])[-1:], "live.svg")
    report("report.png")


if __name__ == "__main__":
    main()
