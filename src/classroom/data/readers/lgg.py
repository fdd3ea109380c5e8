"""LGG MRI segmentation in Kaggle's layout: kaggle_3m/<case>/<case>_<n>.tif next to <case>_<n>_mask.tif."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import File, Found, Sample
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ()


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every slice with its mask, sorted by case and slice number; groups are patients, there are no labels.

    Raises DataError for an image without mask, a mask without image, or a name of another form.
    """
    samples = []
    for case in sorted(path for path in _root(folders).iterdir() if path.is_dir()):
        files = {path.name for path in case.iterdir() if path.suffix == ".tif"}
        for name in sorted(files):
            if name.endswith("_mask.tif"):
                if name.replace("_mask.tif", ".tif") not in files:
                    raise DataError(f"{case / name}: a mask without its image. Expected the image next to it.")
                continue
            mask = name.replace(".tif", "_mask.tif")
            if mask not in files:
                raise DataError(f"{case / name}: an image without a mask. Expected {mask} next to it.")
            if not re.fullmatch(rf"{re.escape(case.name)}_\d+\.tif", name):
                raise DataError(f"{case / name}: expected a name of the form {case.name}_<number>.tif.")
            place = f"kaggle_3m/{case.name}"
            samples.append(
                Sample(
                    id=name.removesuffix(".tif"),
                    group=case.name,
                    label=None,
                    image=File(case / name, f"{place}/{name}"),
                    mask=File(case / mask, f"{place}/{mask}"),
                )
            )
    samples.sort(key=lambda sample: (sample.group, int(sample.id.rsplit("_", 1)[1])))
    return Found(samples, group="patient")


def _root(folders: Sequence[Path]) -> Path:
    """The folder of cases: one of `folders`, or kaggle_3m in it (Kaggle's archive holds a second, nested copy)."""
    for folder in folders:
        nested = sorted(folder.glob("*/kaggle_3m"))
        for candidate in (folder / "kaggle_3m", *nested, folder):
            if any(candidate.glob("*/*_mask.tif")):
                return candidate
    raise DataError(
        f"{', '.join(map(str, folders))}: no LGG dataset here. Expected kaggle_3m/<case>/<case>_<n>.tif next to "
        "<case>_<n>_mask.tif, as in the Kaggle download 'mateuszbuda/lgg-mri-segmentation'."
    )
