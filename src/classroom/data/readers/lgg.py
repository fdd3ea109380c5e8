"""LGG MRI segmentation in Kaggle's layout: kaggle_3m/<case>/<case>_<n>.tif next to <case>_<n>_mask.tif."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import File, Found, Problems, Sample, by_name, check_all_used, list_files
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ()
EXPECTED = "<case>/<case>_<n>.tif and <case>/<case>_<n>_mask.tif"
SLICE = re.compile(r"(?P<case>.+)_(?P<number>\d+)(?P<mask>_mask)?", re.IGNORECASE | re.DOTALL)
PATIENT = re.compile(r"(TCGA[_-][^_-]+[_-][^_-]+)[_-]\d{8}", re.IGNORECASE)
"""A case of The Cancer Genome Atlas: site, patient and the date of the examination."""
OTHERS = r"data\.csv"


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every slice with its mask, sorted by case and slice number; groups are patients, there are no labels.

    Kaggle's archive holds everything twice; a second copy of a file counts as the same. Raises DataError naming images
    without mask, masks without image, and files of another form.
    """
    problems = Problems()
    listing = list_files(folders, settings.ignore, problems)
    slices = {path: found for path in listing.images() if (found := _slice(path))}
    masks = by_name((path for path, found in slices.items() if found["mask"]), listing, problems, "mask")
    images = by_name((path for path, found in slices.items() if not found["mask"]), listing, problems, "image")
    if not images or not masks:
        raise DataError(
            f"{', '.join(map(str, folders))}: no LGG dataset here. Expected kaggle_3m/<case>/<case>_<n>.tif next to "
            "<case>_<n>_mask.tif, as in the Kaggle download 'mateuszbuda/lgg-mri-segmentation'."
        )
    for lone, of, problem in (
        (images.keys() - masks.keys(), images, "Images without a mask (expected <case>_<n>_mask.tif next to them)"),
        (masks.keys() - images.keys(), masks, "Masks without an image (expected <case>_<n>.tif next to them)"),
    ):
        problems.add(problem, *(listing.files[of[name][0]] for name in sorted(lone)))
    check_all_used(listing, slices, problems, EXPECTED, OTHERS)
    problems.raise_any(", ".join(map(str, folders)))
    samples = []
    for name, (image, *_) in images.items():
        case = slices[image]["case"]
        patient = PATIENT.fullmatch(case)
        place, mask = f"kaggle_3m/{image.parent.name}", masks[name][0]
        samples.append(
            Sample(
                id=name,
                group=patient[1].upper() if patient else case,
                label=None,
                image=File(image, f"{place}/{image.name}"),
                mask=File(mask, f"{place}/{mask.name}"),
            )
        )
    samples.sort(key=lambda sample: (slices[sample.image.path]["case"], int(slices[sample.image.path]["number"])))
    return Found(
        samples,
        group="patient",
        grouping="patients by the folders' names, TCGA_<site>_<patient>_<date>; any other name is a patient of its own",
    )


def _slice(path: Path) -> re.Match[str] | None:
    """Case, number and `_mask` from the name of a file that lies in its case's folder."""
    found = SLICE.fullmatch(path.stem)
    return found if found and found["case"] == path.parent.name else None
