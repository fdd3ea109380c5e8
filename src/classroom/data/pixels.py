"""Decodes and validates image and mask files."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from classroom.errors import DataError

FORMATS = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""By a file name's ending, in lower case."""


def read_image(path: Path) -> np.ndarray:
    """An image (height, width, 3) uint8.

    Raises DataError naming the file if it cannot be decoded or is not 8-bit in three channels.
    """
    image, mode = _decode(path)
    if mode not in ("RGB", None) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{path}: expected 8-bit pixels in three channels, found {_kind(image, mode)}.")
    return image


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A mask (height, width) uint8 of {0, 1}; `shape`: height and width of its image.

    Raises DataError naming the file if it cannot be decoded or has another type, size or other values than 0 and 255.
    """
    mask, mode = _decode(path)
    if mode not in ("L", None) or mask.dtype != np.uint8 or mask.ndim != 2:
        raise DataError(f"{path}: expected an 8-bit mask in one channel, found {_kind(mask, mode)}.")
    if mask.shape != shape:
        raise DataError(
            f"{path}: the mask is {mask.shape[1]}×{mask.shape[0]} pixels, its image {shape[1]}×{shape[0]}. "
            "Expected the same size."
        )
    if not ((mask == 0) | (mask == 255)).all():
        raise DataError(f"{path}: expected mask values 0 and 255 only, found {np.unique(mask)[:5].tolist()}.")
    return mask // 255


def digest(image: np.ndarray) -> str:
    """SHA-256 of an image's shape and pixels, independent of the file's compression."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _decode(path: Path) -> tuple[np.ndarray, str | None]:
    """The file's pixels and, for PNG and JPEG, Pillow's mode: RGB, L (grey), P (palette), …"""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: expected an image file: {', '.join(FORMATS)}.")
    try:
        if kind == "TIFF":  # Pillow lacks some of the compressions
            with tifffile.TiffFile(path) as file:
                _check_size(file.series[0].shape)
                return file.asarray(), None
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit; no dataset comes near it.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[kind]) as image:
                return np.asarray(image), image.mode
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: too large for an image of this kind. {error}") from None
    except Exception as error:  # decoders raise anything for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as {kind} ({reason}). The file is damaged; fetch it again.") from None


def _check_size(shape: tuple[int, ...]) -> None:
    """Applies Pillow's limit to TIFF before memory is allocated: a small file can claim to be a huge image."""
    if Image.MAX_IMAGE_PIXELS is not None and math.prod(shape) > 3 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(
            f"It claims {math.prod(shape)} values, the limit is {3 * Image.MAX_IMAGE_PIXELS}; it may be an attack."
        )


def _kind(array: np.ndarray, mode: str | None) -> str:
    palette = " (colours from a palette)" if mode == "P" else ""
    return f"{array.dtype} of shape {array.shape}{palette}"
