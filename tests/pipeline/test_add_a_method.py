"""The page on adding a method, followed to the letter."""

from __future__ import annotations

import re
from collections import Counter

from ruamel.yaml import YAML

from support.project import Project
from support.studies import ROOT, STUDY


def test_the_page_on_adding_a_method_leads_to_a_row_of_the_table(finished: Project) -> None:
    """One file and two settings; nothing that was trained before is trained again."""
    page = (ROOT / "docs/how-to/add-a-method.md").read_text()
    blocks = dict(re.findall(r"^```(python|sh)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    listed, entry = (YAML(typ="safe").load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S))
    file = re.search(r"`(src/classroom/methods/\w+\.py)`\. The file's name", page)[1]
    (finished.root / file).write_text(blocks["python"])
    refused = finished.copy(finished.root.parent / "without its settings")
    finished.change(f"study.{STUDY}.methods", finished.settings()["study"][STUDY]["methods"] | entry)
    names = "".join(f"  - {name}\n" for name in listed["comparison"]["segmentation"])
    for project in (refused, finished):
        project.edit("params.yaml", "- emkd\n", f"- emkd\n{names}")
    assert "Add: logit_mse: {options: {}, weights: {logits: 1.0}}" in refused.run("classroom", "check", expect=1)

    assert finished.planned() == Counter(method=1, evaluate_methods=1, comparison=1, cost=1, site=1)
    for line in blocks["sh"].splitlines():
        printed = finished.run(*line.partition("#")[0].replace("--cores all", "--cores 2").split())
        if line.startswith("classroom methods"):
            assert "logit_mse: Logit MSE, Ba & Caruana" in printed
    row = next(line for line in (finished.root / "reports/table10.md").read_text().splitlines() if "Logit MSE" in line)
    assert re.search(r"\d\.\d\d ±", row)
    assert "defaults of its file" in row, "and of nobody else"
    assert finished.repro("comparison@table10") == []
