"""Cells of tables, and rendering as Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from classroom.artifacts import MEAN_ENSEMBLE, Data, Result
from classroom.core.metrics import METRICS
from classroom.reporting.common.provenance import Kind, Source

TECHNIQUE_LABELS = {"ml": "ML", "kd_off": "KD (off)", "kd_on": "KD (on)", "kd_ml": "KD + ML"}
BASELINE_LABELS = {"teacher": "teacher alone", "student": "student alone"}
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
NETWORKS = {"T": "T", "S1": "S1", "S2": "S2", "ensemble": "**Ensemble**", MEAN_ENSEMBLE: "**Ensemble (mean)**"}
ENSEMBLES = (
    "- ensemble: the maximum of both students' probabilities, as in the paper (for masks their union); ensemble "
    "(mean): the mean of both"
)
TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "$": r"\$", "_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "{": r"\{", "}": r"\}",
        "^": r"\^{}", "~": r"\textasciitilde{}", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "±": r"$\pm$",
        "–": "--", "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
        "✓": r"$\checkmark$", "†": r"$\dagger$", "≥": r"$\geq$", "≤": r"$\leq$", "·": r"$\cdot$",
    }
)  # fmt: skip

MARKUP = re.compile(
    r"(^```.*?^```$|(?P<run>`+)(?!`)[^\n]+?(?<!`)(?P=run)(?!`)|\*\*|<br>)"
    r"|([\\`*]|~(?=~)|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|<(?=[A-Za-z/!?])|\[(?=\^)|\](?=[(\[:]))",
    re.MULTILINE | re.DOTALL,
)
"""What reports use of Markdown: code, bold, new lines; and what would be markup besides, as in names of files."""
ENTITIES = {"<": "&lt;", "&": "&amp;", "~": "&#126;"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Cell:
    """A number of a table as it is read, as it is sorted, and where it is from."""

    text: str
    """Markdown, as of any other cell."""
    value: float
    paper: float = float("nan")
    """The paper's value."""
    difference: float = float("nan")
    sources: tuple[Source, ...] = ()

    def __str__(self) -> str:
        return self.text


class Part(NamedTuple):
    """One grid of cells in a report, with the text above and below it.

    Cells are Markdown of `**bold**` and `<br>` only; other markup is escaped.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    grouped: bool = False
    """The first column names groups of rows; in print a name is in the first row of its group only."""


def variant_label(variant: str) -> str:
    """`KD + ML V3` of `kd_ml-v3`; a baseline's label as it is."""
    if variant in BASELINE_LABELS:
        return BASELINE_LABELS[variant]
    technique, strategy = variant.split("-")
    return f"{TECHNIQUE_LABELS[technique]} {strategy.upper()}"


def in_greek(weights: Mapping[str, float]) -> str:
    """`α 0.1, γ 0.9`: the weights of a student that are not 0."""
    return ", ".join(f"{GREEK.get(name, name)} {value:g}" for name, value in weights.items() if value)


def mean_sd(fractions: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1; not a number for one value), in percent."""
    values = pd.Series(fractions, dtype=float) * 100
    return float(values.mean()), float(values.std(ddof=1))


def measured(
    result: Result, network: str, seeds: Sequence[int], kind: Kind = "test", paper: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """By metric of the task, in percent: mean and sd over seeds, and each seed's value as `seed_N`.

    Of `kind` test also mean and sd of the last epoch, in place of the best on validation; if `paper` is given, its
    value and ours minus it.
    """
    of_seed = {seed: result["seeds"][str(seed)] for seed in seeds}
    has_last = kind == "test" and all(network in one["last_epoch_test"] for one in of_seed.values())
    records = []
    for metric in METRICS[result["data"]["task"]]:
        values = {seed: one[kind][network][metric] for seed, one in of_seed.items()}
        mean, sd = mean_sd([*values.values()])
        record = {"metric": metric, "mean": mean, "sd": sd}
        if has_last:
            ended = mean_sd([one["last_epoch_test"][network][metric] for one in of_seed.values()])
            record |= dict(zip(("last_epoch_mean", "last_epoch_sd"), ended, strict=True))
        record |= {f"seed_{seed}": 100 * value for seed, value in values.items()}
        if paper is not None:
            theirs = paper.get(metric, float("nan"))
            record |= {"paper": theirs, "difference": mean - theirs}
        records.append(record)
    return records


def shown_metrics(data: Data, printed: pd.DataFrame) -> list[str]:
    """The metrics of a table to read: those that the paper prints, in its order; else all of the task.

    Of two classes the accuracy is enough: precision and recall are for many (Sec. A.6.1).
    """
    if len(printed):
        return list(dict.fromkeys(printed.metric))
    metrics = METRICS[data["task"]]
    return list(metrics[:1] if data["task"] == "classification" and len(data["labels"]) == 2 else metrics)


def number(value: float, form: str) -> str:
    """`value` formatted, with a true minus sign; a dash for NaN."""
    return "–" if pd.isna(value) else format(value, form).replace("-", "−")


def percent_cell(record: Mapping[str, Any], *sources: Source, best: bool = False, mark: str = "") -> Cell:
    """`84.00 ± 5.292`, bold for the best, a dash for NaN; then the paper's mean, with a `mark`, and ours minus it.

    `record`: mean and sd in percent, and paper and difference where the paper has them.
    """
    mean = record["mean"]
    text = "–" if pd.isna(mean) else f"{mean:.2f} ± {number(record['sd'], '.3f')}"
    text = f"**{text}**" if best else text
    if pd.isna(record.get("paper")):
        return Cell(text, mean, sources=sources)
    paper, difference = record["paper"], record["difference"]
    text += f"<br>paper {number(paper, '.2f')}{mark}, {number(difference, '+.2f')}"
    return Cell(text, mean, paper, difference, sources)


def labelled(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """`table` with constant columns in front of its own."""
    return table.assign(**columns)[[*columns, *table.columns]]


def markdown(title: str, disclaimer: str, facts: Sequence[str], parts: Sequence[Part]) -> str:
    """The whole page."""
    blocks = [f"# {escaped(title)}", escaped(disclaimer), "\n".join(map(escaped, facts))]
    for part in parts:
        header, *rows = [[_inline(cell) for cell in row] for row in (part.header, *_printed(part))]
        grid = tabulate(rows, header, tablefmt="pipe", disable_numparse=True) if rows else ""
        heading = f"## {escaped(part.title)}" if part.title else ""
        blocks += [heading, *map(escaped, part.above), grid, *map(escaped, part.below)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escaped(text: str) -> str:
    """Markdown that shows `text` as it is, apart from code, bold and new lines."""
    return MARKUP.sub(lambda found: found[1] or ENTITIES.get(found[3], f"\\{found[3]}"), text)


def latex(title: str, disclaimer: str, facts: Sequence[str], parts: Sequence[Part]) -> str:
    r"""Every part as a tabular, everything else as comments. \checkmark needs amssymb."""
    blocks = [_comments([title, disclaimer, *facts])]
    for part in parts:
        rows = [[_tex(cell) for cell in row] for row in _printed(part)]
        header = [_tex(cell) for cell in part.header]
        grid = tabulate(rows, header, tablefmt="latex_raw", disable_numparse=True) + "\n" if rows else ""
        blocks += [_comments([part.title, *part.above]), grid, _comments(part.below)]
    return "".join(blocks)


def csv(table: pd.DataFrame) -> str:
    """`table` as CSV; text that a spreadsheet would run as a formula gets an apostrophe."""
    plain = table.map(lambda value: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value)
    return plain.round(6).to_csv(index=False)


def _printed(part: Part) -> list[list[str]]:
    rows = [[str(cell) for cell in row] for row in part.rows]
    if part.grouped:
        names = [row[0] for row in rows]
        for row, name, above in zip(rows[1:], names[1:], names, strict=False):
            row[0] = "" if name == above else name
    return rows


def _inline(text: str) -> str:
    """A cell's text, with nothing in it that would end the cell or the row."""
    return escaped(" ".join(text.splitlines())).replace("|", r"\|")


def _tex(cell: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", "\x02\\1\x03", " ".join(cell.splitlines())).translate(TEX)
    return text.replace("\x02", r"\textbf{").replace("\x03", "}").replace("<br>", "; ")


def _comments(lines: Iterable[str]) -> str:
    kept = [line for text in lines for line in text.replace("**", "").splitlines() if line]
    return "".join(f"% {line}\n" for line in kept)
