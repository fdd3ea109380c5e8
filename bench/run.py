"""The benchmark: `make bench`, or `python -m bench.run [POINT …]`, writes bench/results.md and says if limits hold.

With names of points only these are measured again; the others stay in bench/results.json as they were.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tabulate import tabulate

HERE = Path(__file__).parent
POINTS = ("step", "together", "throughput", "cka", "startup", "engines", "memory", "threads")


def main(names: list[str]) -> int:
    if unknown := set(names) - set(POINTS):
        print(f"unknown: {', '.join(sorted(unknown))}. Points: {', '.join(POINTS)}", file=sys.stderr)
        return 2
    kept = HERE / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in names or POINTS:
        started = time.monotonic()
        point = importlib.import_module(f"bench.{name}").measure()
        results[name] = asdict(point) | {"on": _machine(), "seconds": round(time.monotonic() - started)}
        print(_section(results[name]), flush=True)
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(_page(results), encoding="utf-8")
    missed = [finding for result in results.values() for finding in result["findings"] if finding[3] is False]
    return 1 if missed else 0


def _page(results: dict[str, Any]) -> str:
    head = (
        "# How fast it is\n\nWritten by `make bench`. What is compared was measured in turns within one run; a ratio "
        "is the median of the turns' own ratios, with quartiles in brackets.\n"
    )
    return head + "".join("\n" + _section(results[name]) for name in POINTS if name in results)


def _section(result: dict[str, Any]) -> str:
    findings = [
        [what, value, limit, {True: "holds", False: "**missed**", None: ""}[holds]]
        for what, value, limit, holds in result["findings"]
    ]
    parts = [f"## {result['title']}", f"On {result['on']}; took {result['seconds']} s."]
    parts.append(tabulate(findings, ["", "measured", "limit", ""], "github", disable_numparse=True))
    parts += [tabulate(rows, columns, "github", floatfmt=".3g") for columns, rows in result["tables"]]
    return "\n\n".join(parts + result["notes"]) + "\n"


def _machine() -> str:
    clock = ", CPU seconds, as the machine had other work" if "BENCH_CPU_TIME" in os.environ else ""
    cores = len(os.sched_getaffinity(0))
    started = time.perf_counter()
    sum(range(10_000_000))
    speed = f"{time.perf_counter() - started:.2f} s for ten million additions in Python"  # machines differ, and days
    return f"{cores} cores ({platform.machine()}; {speed}), torch {version('torch')}{clock}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
