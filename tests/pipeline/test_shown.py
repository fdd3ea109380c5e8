"""What people look at: Snakemake's report, DVC's plots."""

from __future__ import annotations

import csv
import json
import re

from support.project import Project
from support.studies import STUDY


def test_the_report_is_one_page_with_tables_figures_and_labels(finished: Project) -> None:
    """`snakemake --report`: sorted by dataset, technique, strategy and architecture, captions filled in."""
    finished.snakemake("--report", "reports/report.html", "all")
    page = (finished.root / "reports/report.html").read_text()
    for shown in ("Tables", "Figures", "Diagnostics", "resnet18 to resnet18", '"technique": "kd_ml", "strategy": "v3"'):
        assert shown in page, shown
    tables = ("table4.csv", "table10.csv", "cost.csv", "deploy.csv")
    for name in (*tables, "figure6.png", "figure9.png", f"curves-{STUDY}.png"):
        assert name in page, name
    assert f"The variants on study {STUDY}" in page
    assert "{{" not in re.findall(r"The variants on study[^<]*", page)[0]


def test_dvc_plots_the_same_curves_as_the_picture(finished: Project) -> None:
    shown = json.loads(finished.run("dvc", "plots", "show", "--json"))
    (plots,) = [of for name, of in shown["data"].items() if f"curves-{STUDY}" in name]
    points = plots[0]["content"]["data"]["values"]
    drawn = list(csv.DictReader((finished.root / f"reports/curves-{STUDY}.csv").open()))
    assert {(p["variant"], p["epoch"], p["ensemble"]) for p in points} == {
        (row["variant"], row["epoch"], row["ensemble"]) for row in drawn
    }
