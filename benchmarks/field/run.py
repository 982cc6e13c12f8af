"""A comparison with peers: what they let through, lose, and cost. ``python benchmarks/field/run.py``.

Each peer of `peers.txt` is installed in an environment of its own, and used there as its README recommends
(`peers/*.py`). It makes the calls of `scenarios.py`, each scenario in a process of its own, against a provider on this
machine, whose ledger says what was billed and answered. A peer that cannot be installed is a line in the table.

``--cache FOLDER`` keeps the environments for the next time, ``--only NAME`` takes some of the peers, ``--results FILE``
keeps what was measured there and takes from it what is there already, and ``--markdown docs/comparison.md`` writes the
table into the page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from scenarios import CAP_USD, OWN_WORK, SCENARIOS, WORD, Scenario

from budget_guard.testing import LocalProvider, ProviderRequest, Rates, Reply

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PRICES = {"acme-9": Rates(input="2.50", output="10")}
"""The provider knows what its own model costs; nobody else does."""
TIMEOUT_S = 240
OWN_WORK_RUNS = 3
"""One process alone is unlucky: it begins while the disk is busy, or shares a core."""
INSTALLING = "installing"
OVERSHOOT = ("threads", "tasks", "row", "ignored")
USEFUL = ("storm", "storm-capped", "row-free", "row-capped")
BEGIN, END = "<!-- begin of the measured tables -->", "<!-- end of the measured tables -->"


class Peer(NamedTuple):
    """A line of `peers.txt`."""

    module: str
    name: str
    requirements: tuple[str, ...]

    @property
    def pinned(self) -> str:
        """The packages that are installed beside the client, as they are read: ``floe-guard 0.25.2``."""
        return self.requirements[0].replace(str(REPOSITORY), "this checkout").replace("==", " ")


def peers() -> list[Peer]:
    """All that are compared, in the order of the table."""
    found = []
    for line in (HERE / "peers.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            module, name, requirements = (part.strip() for part in line.split("|"))
            pinned = tuple(part.format(repository=REPOSITORY) for part in requirements.split())
            found.append(Peer(module, name, pinned))
    return found


class NotInstalled(Exception):
    """A peer that pip could not install; says why, in one line."""


def environment(peer: Peer, folder: Path) -> Path:
    """The Python of *peer*'s environment below *folder*, made if it is not there. Equal requirements share one.

    Raises:
        NotInstalled: If pip fails.
    """
    home = folder / re.sub(r"[^\w.=-]+", "-", peer.requirements[0].replace(str(REPOSITORY), "checkout"))
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker, wanted = home / "installed.txt", "\n".join(peer.requirements)
    of_checkout = str(REPOSITORY) in wanted
    if not of_checkout and marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return python
    if not python.exists():
        venv.create(home, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise NotInstalled(errors[-1])
    marker.write_text(wanted, encoding="utf-8")
    return python


def answers(scenario: Scenario) -> Any:
    """The script of the provider: the scenario's answer, and a routing model's, which says how long it will be."""
    call = scenario.call
    reply = Reply(
        text=WORD * call.output_tokens,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cached_tokens=scenario.cached_tokens,
        delay_s=scenario.delay_s,
    )
    length = 500 if call.cap is None else call.output_tokens
    routed = json.dumps({"complexity": 0.95, "reason": "long", "domain": "general", "estimated_output_tokens": length})

    def answer(request: ProviderRequest) -> Reply:
        return Reply(text=routed) if is_routing(request.body) else reply

    return answer


def is_routing(body: Mapping[str, Any]) -> bool:
    """True for a request to a routing model, which is asked for JSON: it is not one of the scenario's calls."""
    return "response_format" in body


def measured(python: Path, peer: Peer, name: str) -> dict[str, Any]:
    """Run one scenario through *peer*; what it says of it, and what the provider does."""
    if name == OWN_WORK:
        return own_work([told_by(python, peer, name, "") for _ in range(OWN_WORK_RUNS)])
    scenario = SCENARIOS[name]
    with LocalProvider(answers(scenario), prices=PRICES) as provider:
        return {**told_by(python, peer, name, provider.base_url), **billed(provider)}


def own_work(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least that a plain call and a guarded one took in several processes; what went wrong if one failed."""
    if any("plain_us" not in run for run in runs):
        return next(run for run in runs if "plain_us" not in run)
    plain = min(run["plain_us"] for run in runs)
    return {"plain_us": plain, "added_us": min(run["plain_us"] + run["added_us"] for run in runs) - plain}


def billed(provider: LocalProvider) -> dict[str, Any]:
    """The provider's ledger, without calls of a routing model: in life that would be a far cheaper one."""
    provider.wait_until_idle(timeout=30)
    served = [call for call in provider.calls if not is_routing(call.body)]
    return {
        "sent": len(served),
        "answered": sum(call.status == 200 for call in served),
        "bill": sum(call.cost_nano or 0 for call in served) / 1e9,
        "at_once": provider.peak_concurrency,
    }


def told_by(python: Path, peer: Peer, name: str, base_url: str) -> dict[str, Any]:
    """The answer that the process of one scenario prints; ``{"error": ...}`` if it prints none."""
    surroundings = {key: value for key, value in os.environ.items() if not key.endswith(("_API_KEY", "_BASE_URL"))}
    surroundings |= {"OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as folder:  # for the files that a peer makes
        command = [str(python), str(HERE / "scenarios.py"), peer.module, name, base_url]
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, cwd=folder, env=surroundings
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not over after {TIMEOUT_S} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it failed"])[-1][:300]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result.get("failures"):
        result["error"] = "; ".join(result["failures"])[:300]
    return result


class Row(NamedTuple):
    """One peer's results, as the cells of the tables."""

    peer: Peer
    results: Mapping[str, Mapping[str, Any]]

    def cells(self, names: Sequence[str]) -> list[str]:
        """The cells of the columns *names*."""
        return [self.cell(name) for name in names]

    def cell(self, name: str) -> str:
        """One cell."""
        if name == "lost":
            return self._lost()
        if name == "answers":
            return str(self.results.get("threads", {}).get("whole", "-"))
        result = self.results.get(name)
        if result is None or result.get("unsupported"):
            return "-"
        if "error" in result:
            return "error"
        if name in OVERSHOOT:
            over = result["bill"] - CAP_USD
            return "0.00" if over <= 1e-9 else f"+{over:.2f}"
        if name in USEFUL:
            return _useful(result, SCENARIOS[name])
        if name == "unknown":
            return _unknown(result)
        if name == OWN_WORK:
            return f"{max(0.0, result['added_us']):.0f}"
        return _booked(result)

    def _lost(self) -> str:
        """Answers that were billed and never came back, over all runs but the one that ignores stops."""
        counted = [result for name in (*OVERSHOOT[:3], *USEFUL) if "answered" in (result := self.results.get(name, {}))]
        if not counted:
            return "-"
        return str(sum(result["answered"] - result.get("returned", 0) for result in counted))

    def errors(self) -> list[str]:
        """The errors, one line each."""
        return [
            f"{self.peer.name}, {name}: {result['error']}" for name, result in self.results.items() if "error" in result
        ]


def _useful(result: Mapping[str, Any], scenario: Scenario) -> str:
    """The worth of the whole answers that came back, as a share of the cap; and the bill, where it is above the cap."""
    call = scenario.call
    share = result["whole"] * (call.input_tokens * 2.5e-6 + call.output_tokens * 10e-6) / CAP_USD
    return f"{share:.2f}" if result["bill"] <= CAP_USD + 1e-9 else f"{share:.2f} (bill {result['bill']:.2f})"


def _unknown(result: Mapping[str, Any]) -> str:
    """The fate of a call whose price nobody knows."""
    if not result["sent"]:
        return "refused"
    if not result["returned"]:
        return "paid, then refused"
    spent = result["spent"] or 0.0
    return "free" if spent <= 1e-9 else f"guessed {spent / result['bill']:.1f}x"


def _booked(result: Mapping[str, Any]) -> str:
    """The amount that a peer booked for one call, against the bill."""
    if not result["sent"]:
        return "refused"
    spent = result["spent"] or 0.0
    return "exact" if abs(spent - result["bill"]) < 1e-6 else f"{spent / result['bill']:.2f}x"


TABLES: Mapping[str, Mapping[str, str]] = {
    "Dollars over a cap of $1: 100 calls of $0.10 at once, calls of $0.15 in a row": {
        "threads": "100 threads",
        "tasks": "100 tasks",
        "row": "in a row",
        "ignored": "stops ignored",
        "answers": "answers of 10",
        "lost": "answers lost",
    },
    "Share of the cap that came back as whole answers, calls of $0.04": {
        "storm": "40 at once",
        "storm-capped": "40 at once, capped",
        "row-free": "in a row",
        "row-capped": "in a row, capped",
    },
    "Prices and own work": {
        "unknown": "unknown model",
        "streamed": "streamed",
        "cached": "cached input",
        OWN_WORK: "own work, us",
    },
}
"""Titles of tables, and of their columns by what is measured."""


def as_text(rows: Sequence[Row]) -> Iterator[str]:
    """The tables for a terminal."""
    for title, columns in TABLES.items():
        lines = [["", *columns.values()], *([row.peer.name, *row.cells(list(columns))] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        yield f"\n{title}"
        for first, *others in lines:
            cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            yield "  ".join([first.ljust(widths[0]), *cells])
    yield from ("", *(error for row in rows for error in row.errors()))


def as_markdown(rows: Sequence[Row]) -> str:
    """The tables for the page."""
    system = f"CPython {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    parts = [f"Measured on {datetime.now(timezone.utc):%d %B %Y} with {system}."]
    for title, columns in TABLES.items():
        lines = [["", *columns.values()], ["---"] * (len(columns) + 1)]
        lines += ([row.peer.name, *row.cells(list(columns))] for row in rows)
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    pinned = dict.fromkeys(row.peer.pinned for row in rows)
    parts.append("Versions: " + ", ".join(pinned) + f"; {rows[0].peer.requirements[-1].replace('==', ' ')} everywhere.")
    return "\n\n".join(parts)


def written_into(page: Path, tables: str) -> None:
    """Put *tables* between the marks of *page*."""
    text = page.read_text(encoding="utf-8")
    fresh, count = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", text, flags=re.DOTALL)
    if not count:
        raise SystemExit(f"{page} has no line {BEGIN!r} and {END!r}")
    page.write_text(fresh, encoding="utf-8")


def compared(chosen: Sequence[Peer], folder: Path, kept: Path | None) -> list[Row]:
    """Put all peers through everything, one after the other."""
    results: dict[str, dict[str, Any]] = {}
    if kept is not None and kept.exists():
        results = json.loads(kept.read_text(encoding="utf-8"))
    for peer in chosen:
        of_peer = results.setdefault(peer.module, {})
        missing = [name for name in (*SCENARIOS, OWN_WORK) if name not in of_peer]
        of_peer.pop(INSTALLING, None)
        python = Path()
        try:
            if missing:
                python = environment(peer, folder)
        except NotInstalled as error:
            of_peer[INSTALLING] = {"error": str(error)}
            missing = []
        for name in missing:
            start = time.monotonic()
            of_peer[name] = measured(python, peer, name)
            seconds = time.monotonic() - start
            print(f"{peer.name}, {name}: {json.dumps(of_peer[name])} ({seconds:.1f} s)", file=sys.stderr, flush=True)
            if kept is not None:
                kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return [Row(peer, results[peer.module]) for peer in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare budget_guard with its peers.")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the environments here")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these peers, by their names in peers.txt")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep results here, and measure what is missing")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write the tables into this page")
    options = parser.parse_args()
    known = peers()
    unknown = set(options.only or ()) - {peer.module for peer in known}
    if unknown:
        parser.error(
            f"{', '.join(sorted(unknown))}: no such peer; there are {', '.join(peer.module for peer in known)}"
        )
    chosen = [peer for peer in known if options.only is None or peer.module in options.only]
    with contextlib.ExitStack() as stack:
        folder = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = compared(chosen, folder.resolve(), options.results)
    print("\n".join(as_text(rows)))
    if options.markdown is not None:
        written_into(options.markdown, as_markdown(rows))


if __name__ == "__main__":
    main()
