"""What becomes of each trace, as a table: ``python -m tests.loops.table``."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tests.loops.traces import OWN_LOOPS, OWN_WORK, REPORTED_LOOPS, REPORTED_WORK, Trace
from tests.loops.ways import WAYS, Seen

SETS: Mapping[str, Mapping[str, Trace]] = {
    "LOOPS after public reports: a stop is right": REPORTED_LOOPS,
    "LOOPS of our own": OWN_LOOPS,
    "WORK after public reports: a stop is wrong": REPORTED_WORK,
    "WORK of our own": OWN_WORK,
}


def words(seen: Seen) -> str:
    told = f"stop {seen.stopped}" if seen.stopped else "-"
    return f"{told} (warn {seen.warned})" if seen.warned else told


def main() -> None:
    logging.disable()
    print(f"{'':52}", *(f"{way:>22}" for way in WAYS))
    totals: list[str] = []
    for title, traces in SETS.items():
        print(title)
        found: dict[str, list[Seen]] = {way: [] for way in WAYS}
        for name, trace in traces.items():
            for way, go in WAYS.items():
                found[way].append(go(trace))
            print(f"  {name:50}", *(f"{words(found[way][-1]):>22}" for way in WAYS))
        for way, each in found.items():
            stopped = sum(seen.stopped is not None for seen in each)
            warned = sum(seen.warned is not None for seen in each)
            totals.append(f"{title.partition(':')[0]:32} {way:20} stopped {stopped}/{len(each)}, warned {warned}")
    print(*totals, sep="\n")


if __name__ == "__main__":
    main()
