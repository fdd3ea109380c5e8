"""Two commands from a folder of one's own images to a table."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from support.project import Project
from support.rendered import markdown_tables


def draw(root: Path, patients: int = 20) -> None:
    """Grey images of 16 bits and masks of 0 and 1, of other shapes than a square."""
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for patient in range(patients):
        for number in range(2):
            mask = np.zeros((40, 48), np.uint8)
            mask[8:24, 4 : 20 + patient] = number
            pixels = random.integers(0, 9000, mask.shape) + 40000 * mask.astype(int)
            Image.fromarray(pixels.astype(np.uint16)).save(root / f"images/P{patient:02}_{number}.png")
            Image.fromarray(mask).save(root / f"masks/P{patient:02}_{number}_seg.png")


def test_the_next_command_that_new_study_prints_makes_the_table(three_variants: Project, tmp_path: Path) -> None:
    project = three_variants.copy(tmp_path / "project")
    draw(tmp_path / "liver")
    printed = project.run(
        "classroom", "new-study", "liver", "--images", str(tmp_path / "liver/images"),
        "--masks", str(tmp_path / "liver/masks"), "--group", "^P[0-9]+",
    )  # fmt: skip
    assert printed.startswith(f"reading {tmp_path}/liver/images")
    assert "2 baseline, 2 train, 1 train_offline" in printed, "no forecast"
    last = printed.splitlines()[-1]
    assert last.startswith("next: snakemake ")
    target = shlex.split(last)[-1]
    project.snakemake(target)
    text = (project.root / target).read_text()
    for said in (
        "# liver: 3 of the twelve variants on liver",
        "**Your dataset liver.",
        "40 × 16 bits to the highest 8",
    ):
        assert said in text, said
    assert "stand-in" not in text
    header, *_ = markdown_tables(project.root / target)[0]
    assert header[2:] == [f"{strategy} {metric}" for strategy in ("V1", "V2", "V3") for metric in ("IoU", "F-score")]
    table = pd.read_csv((project.root / target).with_suffix(".csv"))
    assert len(table[table.network == "ensemble"]) == 6, "three variants, two metrics each"
    assert project.planned(target) == Counter()
    assert project.repro("variants@liver") == []
