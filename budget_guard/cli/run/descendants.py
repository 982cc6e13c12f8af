"""The processes that a process has started, and those that they have."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def kill_all(pid: int) -> None:
    """Kill a process and its descendants.

    Each is stopped first, so that it starts no other one meanwhile.
    """
    stopped: set[int] = set()
    while found := descendants(pid) - stopped:
        for each in found:
            _send(each, signal.SIGSTOP)
        stopped |= found
    for each in stopped:
        _send(each, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """The process *pid*, its children, theirs, and so on, as far as this machine tells."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for child, parent in _parents().items():
        children[parent].append(child)
    found: set[int] = set()
    left = [pid]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += children[each]
    return found


def _parents() -> dict[int, int]:
    """The parent of each process."""
    if _PROC.joinpath("self", "stat").exists():
        found: dict[int, int] = {}
        for folder in _PROC.iterdir():
            if folder.name.isdigit():
                with suppress(OSError, ValueError, IndexError):  # it has just ended
                    # its name is in parentheses, and may be anything
                    found[int(folder.name)] = int((folder / "stat").read_text("latin-1").rpartition(")")[2].split()[1])
        return found
    try:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return {int(child): int(parent) for child, parent in pairs}


def _send(pid: int, number: int) -> None:
    with suppress(OSError):  # it has ended, or is another user's
        os.kill(pid, number)
