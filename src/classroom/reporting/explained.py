"""What `classroom explain` prints: plain text, one fact a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from classroom.errors import printable
from classroom.reporting.common.tables import number

VERDICTS = {True: "same value", False: "OTHER VALUE: not the one that these predictions give"}


def text(explained: Mapping[str, Any]) -> str:
    """`explained`: what `explain` in classroom.provenance returns. Texts from files cannot add lines or commands."""
    explained = {key: value if key == "commands" else _printable(value) for key, value in explained.items()}
    if "numbers" in explained:
        blocks = [_numbers(explained)]
    else:
        runs = [_run(run, source) for source in explained["sources"] for run in source["runs"]]
        blocks = [_number(explained), *runs, _changes(explained), _settings(explained), _commands(explained)]
    return "\n\n".join(blocks) + "\n"


def _numbers(explained: Mapping[str, Any]) -> str:
    rows = [
        [one["cell"], one["text"], "" if one["paper"] is None else f"paper {one['paper']:.2f}"]
        for one in explained["numbers"]
    ]
    grid = tabulate(rows, ["--cell", "here", ""], tablefmt="plain", disable_numparse=True)
    return f"{explained['report']}\n{grid}"


def _number(explained: Mapping[str, Any]) -> str:
    lines = [f"{explained['report']}  {explained['cell']}".rstrip(), explained["disclaimer"].replace("**", "")]
    lines += dict.fromkeys(source["what"] for source in explained["sources"])
    seeds = dict.fromkeys(run["run"].rsplit("-", 1)[1] for source in explained["sources"] for run in source["runs"])
    lines.append(f"  seeds  {', '.join(seeds)}")
    if explained["text"]:
        lines.append(f"  here   {explained['text']}")
    if explained["paper"] is not None:
        lines.append(f"  paper  {explained['paper']:.2f}  here minus paper {number(explained['difference'], '+.2f')}")
    return "\n".join(line for line in lines if line)


def _run(run: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """One run: its value and costs, and the digests of its inputs and outputs."""
    lines = [run["run"]]
    if run["value"] is not None:
        lines.append(f"  {source['what']}: {run['value']:.4f} {source['unit']}".rstrip())
    if run["reevaluated"] is not None:
        lines.append(f"  recomputed   {VERDICTS[run['reevaluated']]}")
    if "best_epoch" in run:
        lines.append("  best epochs  " + ", ".join(f"{name} {epoch}" for name, epoch in run["best_epoch"].items()))
    memory = ", ".join(f"{megabytes} MB ({where})" for where, megabytes in run["peak_memory_mb"].items())
    threads = f"{run['threads']} thread{'s' if run['threads'] != 1 else ''}"
    lines.append(f"  took         {run['seconds']} s on {run['device']}, {threads}; at most {memory}")
    if "code_version" in run:
        lines.append(f"  code         {run['code_version']}")
    if "identity" in run:
        lines.append(f"  spec         {run['identity']}  (of command, settings, code and data)")
    if "made" in run:
        lines += [f"  made from    {digest}  {path}" for path, digest in run["made_from"].items()]
        lines += [f"  made         {digest}  {path}" for path, digest in run["made"].items()]
    else:
        lines.append(f"  made         {run['predictions']}  its predictions; nothing else is recorded here")
    return "\n".join(lines)


def _changes(explained: Mapping[str, Any]) -> str:
    """What has changed since the jobs ran."""
    changes: dict[str, list[str]] = {}
    for job, of in explained["changed"].items():
        for what, (was, now) in of.items():
            changes.setdefault(f"{what}: was {_flow(was)}, is {_flow(now)}", []).append(job)
    absent, unknown, jobs = explained["absent"], explained["not_on_record"], len(explained["jobs"])
    lines = [f"  stale: {change}  ({', '.join(of)})" for change, of in changes.items()]
    if not lines and not unknown:
        lines = [
            f"  up to date: settings, code and files of {jobs} job{'s' if jobs != 1 else ''} have not changed since"
        ]
    if absent:
        lines.append(f"  not on this machine, so not compared: {', '.join(absent)} (`dvc pull` brings what was pushed)")
    if unknown:
        lines.append(f"  neither a manifest nor dvc.lock records the inputs of: {', '.join(unknown)}")
    return "\n".join(["TODAY", *lines])


def _settings(explained: Mapping[str, Any]) -> str:
    """The settings as they were; under TODAY is where they differ now."""
    lines = [f"  {key}: {_flow(value)}" for key, value in explained["settings"].items()]
    return "\n".join(["SETTINGS of these jobs", *lines])


def _commands(explained: Mapping[str, Any]) -> str:
    lines = ["REPRODUCE from scratch", *explained["commands"], *(f"# {note}" for note in explained["notes"])]
    return "\n".join([*lines, "", "or, to make the whole report", *explained["instead"]])


def _printable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(of) for of in value]
    return printable(value) if isinstance(value, str) else value


def _flow(value: Any) -> str:
    """As YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(of)}" for key, of in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
