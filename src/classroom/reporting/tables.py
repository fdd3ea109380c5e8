"""The paper's tables beside ours: Markdown to read, CSV to compute with, LaTeX to print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from tabulate import tabulate

from classroom.distill.exchange import EXCHANGE
from classroom.errors import DataError
from classroom.evaluation.metrics import LABELS, METRICS
from classroom.files import content_hash, written_whole
from classroom.params import STRATEGIES, TECHNIQUES
from classroom.reporting import heading, paper

TECHNIQUE_LABELS = {"ml": "ML", "kd_off": "KD (off)", "kd_on": "KD (on)", "kd_ml": "KD + ML"}
NETWORKS = ("T", "S1", "S2", "ensemble")
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
TEX = str.maketrans(
    {
        "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$",
        "_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "{": r"\{", "}": r"\}",
    }
)  # fmt: skip


def read_results(paths: Sequence[Path], runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """The results in `paths`.

    Raises DataError if a file is missing or damaged, or was made from other predictions than those that lie
    below `runs` today; a run that is not here (results pulled alone) cannot be compared and passes.
    """
    results = []
    for path in paths:
        try:
            result = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}). Run `classroom evaluate` for it again.") from None
        study, method = result["study"], result["method"]
        for seed, of_seed in result["seeds"].items():
            predicted = runs / study / method / f"seed-{seed}" / "predictions.parquet"
            if predicted.exists() and content_hash(predicted) != of_seed["predictions"]:
                raise DataError(
                    f"{path}: was not made from {predicted} as it is now. "
                    f"Run `classroom evaluate {study} {method}` again."
                )
        results.append(result)
    return results


def variants_table(number: int, scale: str, seeds: Sequence[int], results: list[dict[str, Any]], target: Path) -> None:
    """A table of twelve variants (3, 4, 8, 9, 14, 15): writes `target`.md, .csv, .tex and .json.

    One row per technique and network, for each strategy the metrics in percent: mean ± sample standard
    deviation over seeds, the best strategy of each row in bold, the paper's value and the difference below.
    """
    _check_alike(results)
    cells = _cells(results, seeds).merge(
        paper.variants(number).rename(columns={"mean": "paper", "sd": "paper_sd"}),
        how="left",
        on=["technique", "strategy", "network", "metric"],
    )
    cells["difference"] = cells["mean"] - cells["paper"]
    cells["best"] = cells["mean"] == cells.groupby(["technique", "network", "metric"])["mean"].transform("max")
    columns = [(strategy, metric) for strategy in STRATEGIES for metric in METRICS]
    header = ["technique", "network", *(f"{s.upper()} {LABELS[m]}" for s, m in columns)]
    by_key = {(c.technique, c.strategy, c.network, c.metric): c for c in cells.itertuples()}
    rows, tex_rows = [], []
    for technique in TECHNIQUES:
        done = [r for r in results if EXCHANGE[r["method"]].technique == technique]
        if not done:
            continue
        weights = {EXCHANGE[r["method"]].strategy: _weights(r["settings"]["weights"]) for r in done}
        rows.append([f"**{TECHNIQUE_LABELS[technique]}**", "weights", *_spread(weights)])
        tex_rows.append([TECHNIQUE_LABELS[technique], "weights", *(cell.translate(TEX) for cell in _spread(weights))])
        for network in NETWORKS:
            found = [by_key.get((technique, strategy, network, metric)) for strategy, metric in columns]
            if any(found):
                label = network if network != "ensemble" else "**Ensemble**"
                rows.append(["", label, *(_markdown(cell) for cell in found)])
                tex_rows.append(["", label.strip("*"), *(_latex(cell) for cell in found)])

    study = results[0]["study"]
    title = f"Table {number}: the twelve variants on {study}"
    facts = [
        *heading.lines(scale, seeds, results),
        heading.networks(results),
        "- each cell: IoU or F-score in percent, mean ± sample standard deviation over seeds, best strategy of "
        "the row in bold; below it the paper's mean and ours minus the paper's.",
        "- T learns from its task alone in every technique and starts from the same seed, so its rows agree "
        "wherever arithmetic is deterministic; KD (off) takes the baseline teacher of Table 2.",
    ]
    cells.insert(0, "study", study)
    cells.insert(1, "scale", scale)
    cells.insert(2, "synthetic", results[0]["data"]["synthetic"])
    summary = {
        metric: {
            f"{c.technique}-{c.strategy}": round(c.mean, 4)
            for c in cells.itertuples()
            if c.network == "ensemble" and c.metric == metric
        }
        for metric in METRICS[:1]
    }
    _write(target, title, facts, _caution(scale, results), header, rows, tex_rows, cells, summary)


def baselines_table(number: int, scale: str, seeds: Sequence[int], results: list[dict[str, Any]], target: Path) -> None:
    """Networks trained alone (Tables 2, 13): writes `target`.md, .csv and .tex, a row per network."""
    printed = paper.baselines(number)
    records, rows, tex_rows, seen = [], [], [], set()
    for result in sorted(results, key=lambda r: -next(iter(r["networks"].values()))["parameters"]):
        _check_seeds(result, seeds)
        ((network, facts),) = result["networks"].items()
        dataset, name = result["data"]["dataset"], printed_name(facts["encoder"])
        if (identity := json.dumps([result["data"], facts])) in seen:
            continue  # two studies share this teacher
        seen.add(identity)
        cells = []
        for metric in METRICS:
            mean, sd = _mean_sd([result["seeds"][str(seed)]["test"][network][metric] for seed in seeds])
            row = printed[(printed.dataset == dataset) & (printed.name == name) & (printed.metric == metric)]
            theirs = float(row["mean"].iloc[0]) if len(row) else float("nan")
            cell = {"mean": mean, "sd": sd, "paper": theirs, "difference": mean - theirs, "best": False}
            cells.append(SimpleNamespace(**cell))
            records.append({"dataset": dataset, "network": name, "study": result["study"], "metric": metric, **cell})
        rows.append([dataset, name, heading.describe(facts), *(_markdown(cell) for cell in cells)])
        described = heading.describe(facts).translate(TEX)
        tex_rows.append([dataset.translate(TEX), name.translate(TEX), described, *(_latex(cell) for cell in cells)])
    table = pd.DataFrame(records).drop(columns="best")
    table.insert(0, "scale", scale)
    table.insert(1, "synthetic", results[0]["data"]["synthetic"])
    facts = [
        *heading.lines(scale, seeds, results),
        "- each cell: IoU or F-score in percent, mean ± sample standard deviation over seeds; below it the paper's "
        "mean and ours minus the paper's.",
    ]
    header = ["dataset", "network", "here", *(LABELS[metric] for metric in METRICS)]
    title = f"Table {number}: teacher and students trained alone"
    _write(target, title, facts, _caution(scale, results), header, rows, tex_rows, table, None)


def printed_name(encoder: str) -> str:
    """The paper's name of an encoder: `tu-mobilenetv1_100` is its `mobilenet`."""
    name = encoder.removeprefix("tu-")
    return "mobilenet" if name.startswith("mobilenet") else name


def _check_alike(results: list[dict[str, Any]]) -> None:
    """One heading describes all rows, so they must come from the same data and training."""
    first = results[0]
    for result in results[1:]:
        if result["data"] != first["data"] or result["settings"]["training"] != first["settings"]["training"]:
            raise DataError(
                f"results of {result['method']} and {first['method']} come from other data or training settings. "
                f"Train and evaluate both again: `classroom evaluate {result['study']} {result['method']}`."
            )


def _check_seeds(result: dict[str, Any], seeds: Sequence[int]) -> None:
    if set(result["seeds"]) != {str(seed) for seed in seeds}:
        raise DataError(
            f"results of {result['method']} are of seeds {', '.join(result['seeds'])}, not "
            f"{', '.join(map(str, seeds))}. Run `classroom evaluate {result['study']} {result['method']}` again."
        )


def _cells(results: list[dict[str, Any]], seeds: Sequence[int]) -> pd.DataFrame:
    records = []
    for result in results:
        variant = EXCHANGE[result["method"]]
        _check_seeds(result, seeds)
        tested = [result["seeds"][str(seed)]["test"] for seed in seeds]
        last = [result["seeds"][str(seed)]["last_epoch_test"] for seed in seeds]
        for network in tested[0]:
            for metric in METRICS:
                mean, sd = _mean_sd([run[network][metric] for run in tested])
                last_mean, last_sd = _mean_sd([run[network][metric] for run in last])
                records.append(
                    {
                        "technique": variant.technique, "strategy": variant.strategy, "network": network,
                        "metric": metric, "mean": mean, "sd": sd, "last_epoch_mean": last_mean,
                        "last_epoch_sd": last_sd, "seeds": len(seeds),
                    }
                )  # fmt: skip
    return pd.DataFrame(records)


def _mean_sd(fractions: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1; not a number for one value), in percent."""
    values = pd.Series(fractions) * 100
    return float(values.mean()), float(values.std(ddof=1))


def _weights(weights: dict[str, dict[str, float]]) -> dict[str, str]:
    return {
        student: ", ".join(f"{GREEK[name]} {value:g}" for name, value in weights[student].items() if value)
        for student in ("S1", "S2")
    }


def _spread(weights: dict[str, dict[str, str]]) -> list[str]:
    """Two cells a strategy: S1's weights under the first metric, S2's under the second."""
    cells = []
    for strategy in STRATEGIES:
        for student in ("S1", "S2"):
            cells.append(f"{student}: {weights[strategy][student]}" if strategy in weights else "–")
    return cells


def _markdown(cell: Any) -> str:
    if cell is None:
        return "–"
    ours = f"{cell.mean:.2f} ± {_number(cell.sd, '.3f')}"
    return f"{f'**{ours}**' if cell.best else ours}<br>{_beside(cell)}"


def _latex(cell: Any) -> str:
    if cell is None:
        return "--"
    ours = f"{cell.mean:.2f} ± {_number(cell.sd, '.3f')}"
    ours = ours.translate(TEX)
    return (rf"\textbf{{{ours}}}" if cell.best else ours) + f" ({_beside(cell)})".translate(TEX)


def _beside(cell: Any) -> str:
    return f"paper {_number(cell.paper, '.2f')}, {_number(cell.difference, '+.2f').replace('-', '−')}"


def _number(value: float, form: str) -> str:
    return "–" if pd.isna(value) else format(value, form)


def _caution(scale: str, results: list[dict[str, Any]]) -> str:
    return heading.caution(scale, any(result["data"]["synthetic"] for result in results))


def _write(
    target: Path, title: str, facts: list[str], caution: str, header: list[str],
    rows: list[list[str]], tex_rows: list[list[str]], table: pd.DataFrame, summary: dict[str, Any] | None,
) -> None:  # fmt: skip
    markdown = tabulate(rows, header, tablefmt="pipe", disable_numparse=True)
    tex = tabulate(tex_rows, header, tablefmt="latex_raw", disable_numparse=True)
    notes = [caution.replace("**", ""), *(fact.replace("**", "") for fact in facts)]
    suffixes = [".md", ".csv", ".tex", *([".json"] if summary is not None else [])]
    with written_whole(*(target.with_suffix(suffix) for suffix in suffixes)) as temporary:
        temporary[0].write_text("\n\n".join(filter(None, [f"# {title}", caution, "\n".join(facts), markdown])) + "\n")
        table.round(6).to_csv(temporary[1], index=False)
        temporary[2].write_text("".join(f"% {line}\n" for line in [title, *filter(None, notes)]) + tex + "\n")
        if summary is not None:
            temporary[3].write_text(json.dumps(summary, indent=1) + "\n")
