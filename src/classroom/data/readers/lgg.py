"""LGG MRI segmentation, as on Kaggle: kaggle_3m/<case>/<case>_<n>.tif beside <case>_<n>_mask.tif."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tifffile

from classroom.data.readers import Sample
from classroom.errors import DataError


def root(folder: Path) -> Path:
    """The folder of cases: `folder` itself, or kaggle_3m in it (Kaggle's archive holds a second, nested copy)."""
    for candidate in (folder / "kaggle_3m", folder / "lgg-mri-segmentation" / "kaggle_3m", folder):
        if any(candidate.glob("*/*_mask.tif")):
            return candidate
    raise DataError(
        f"{folder}: no LGG dataset here. Expected kaggle_3m/<case>/<case>_<n>.tif beside <case>_<n>_mask.tif, "
        "as in the Kaggle download 'mateuszbuda/lgg-mri-segmentation'."
    )


def find(folder: Path) -> list[Sample]:
    """Every slice with its mask, sorted by case and slice number.

    Raises DataError for an image without mask, a mask without image, or a name of another form.
    """
    samples = []
    for case in sorted(path for path in root(folder).iterdir() if path.is_dir()):
        files = {path.name for path in case.glob("*.tif")}
        for name in sorted(files):
            if name.endswith("_mask.tif"):
                if name.replace("_mask.tif", ".tif") not in files:
                    raise DataError(f"{case / name}: a mask without its image. Expected the image beside it.")
                continue
            mask = name.replace(".tif", "_mask.tif")
            if mask not in files:
                raise DataError(f"{case / name}: an image without a mask. Expected {mask} beside it.")
            if not re.fullmatch(rf"{re.escape(case.name)}_\d+\.tif", name):
                raise DataError(f"{case / name}: expected a name of the form {case.name}_<number>.tif.")
            samples.append(Sample(name.removesuffix(".tif"), case.name, case / name, case / mask))
    samples.sort(key=lambda sample: (sample.group, int(sample.id.rsplit("_", 1)[1])))
    return samples


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Image (height, width, 3) uint8 and mask (height, width) uint8 of {0, 1}.

    Raises DataError naming the file if it cannot be decoded or has another type, size or other values.
    """
    image, mask = _decode(sample.image), _decode(sample.mask)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{sample.image}: expected 8-bit pixels in three channels, found {_kind(image)}.")
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise DataError(f"{sample.mask}: expected an 8-bit mask in one channel, found {_kind(mask)}.")
    if mask.shape != image.shape[:2]:
        raise DataError(
            f"{sample.mask}: the mask is {mask.shape[1]}×{mask.shape[0]} pixels, its image "
            f"{image.shape[1]}×{image.shape[0]}. Expected the same size."
        )
    values = np.unique(mask)
    if not np.isin(values, (0, 255)).all():
        raise DataError(f"{sample.mask}: expected mask values 0 and 255 only, found {values[:5].tolist()}.")
    return image, mask // 255


def _decode(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except Exception as error:  # tifffile raises whatever its decoders raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as TIFF ({reason}). The file is damaged; fetch it again.") from None


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
