"""What README and the other documents promise is there."""

from __future__ import annotations

import re

import pandas as pd

from classroom.cli import app
from classroom.reporting.common.tables import TECHNIQUE_LABELS as TECHNIQUES
from support.documents import DOCS, GENERATED, pages
from support.studies import ROOT


def test_every_command_that_the_documents_type_exists() -> None:
    """`classroom …` in README, CONTRIBUTING and docs, in code or in a block of commands."""
    known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    for path in (*ROOT.glob("*.md"), *pages(), *(ROOT / "examples").glob("*.yaml")):
        for command in re.findall(r"(?:^|`)classroom ([a-z][a-z-]+)", path.read_text(), re.MULTILINE):
            assert command in known, f"{path.name}: classroom {command}"


def test_every_file_that_the_documents_link_to_exists() -> None:
    """In a fresh clone, too."""
    generated = {DOCS / page for page in GENERATED}
    for path in (*ROOT.glob("*.md"), *pages()):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            found = (path.parent / target).resolve()
            assert found.exists(), f"{path.name}: {target}"
            assert found not in generated, f"{path.name}: {target} is there only after `make docs`"


def test_the_results_are_those_of_the_table_that_came_out() -> None:
    """In README and on the page of results."""
    table = pd.read_csv(DOCS / "results/lgg-64/table4.csv").set_index(["technique", "strategy", "network", "metric"])
    for path in (ROOT / "README.md", DOCS / "results/index.md"):
        rows = re.findall(r"^\| (ML|KD[^|]*?) \| (.+) \| (.+) \| (.+) \|$", path.read_text(), re.MULTILINE)
        assert [name for name, *_ in rows] == list(TECHNIQUES.values())
        for (technique, label), (_, *cells) in zip(TECHNIQUES.items(), rows, strict=True):
            for strategy, cell in zip(("v1", "v2", "v3"), cells, strict=True):
                number = table.loc[(technique, strategy, "ensemble", "iou")]
                sd = "" if pd.isna(number.sd) else f" ± {number.sd:.2f}"
                assert cell == f"{number['mean']:.2f}{sd}", f"{path.name}: {label} {strategy}"


def test_every_mean_in_the_results_is_in_a_table_that_came_out() -> None:
    """In the text, too: of best epochs, of last ones, and of either split."""
    known = set[str]()
    for path in DOCS.glob("results/lgg-64/*.csv"):
        table = pd.read_csv(path)
        for mean in (name for name in table if name.endswith("mean")):
            pairs = table[[mean, f"{mean.removesuffix('mean')}sd"]].dropna()
            known |= {f"{value:.2f} ± {sd:.2f}" for value, sd in pairs.itertuples(index=False)}
    for path in (ROOT / "README.md", DOCS / "results/index.md"):
        told = re.findall(r"\d+\.\d\d ± \d+\.\d\d", path.read_text())
        assert len(told) > 12
        assert {*told} <= known, path.name
