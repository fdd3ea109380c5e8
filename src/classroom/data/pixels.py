"""Decodes image and mask files as an image viewer shows them.

Every image becomes 8-bit RGB, by these rules: grey is repeated in three channels; palettes are looked up; transparent
pixels are laid over black; of more than 8 bits the highest 8 are kept, fewer are scaled to 0–255; CMYK, YCbCr and
L*a*b* become sRGB; min-is-white is inverted; the orientation tag is applied. A mask follows the same rules except that
its values keep their bits. What was converted is counted.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from classroom.errors import DataError

FORMATS = {
    ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"
}  # fmt: skip
"""By a file name's ending, in lower case. The content decides, whatever the name says."""

SIGNATURES = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP",
}  # fmt: skip
"""First bytes of a file."""

COLOUR = 1 << 24
"""Added to a mask's colour 0xRRGGBB, so that it differs from every grey value."""

Converted = Counter[str]
"""How many files were converted, by the kind of conversion."""

ORIENTATION = 0x0112
LIBTIFF_ALONE = {2, 3, 4, 6, 32771, 32809}
"""Compressions of TIFF that Pillow's libtiff decodes and imagecodecs does not: fax, old JPEG, ThunderScan."""


class _Raise(logging.Handler):
    """Makes an error of what tifffile only logs, such as a tag that was cut off: without it the pixels may be wrong."""

    def emit(self, record: logging.LogRecord) -> None:
        raise tifffile.TiffFileError(record.getMessage())


tifffile.logger().addHandler(_Raise(logging.ERROR))
tifffile.logger().propagate = False


class _Decoded(NamedTuple):
    pixels: np.ndarray
    """(H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGB and alpha; uint8 or uint16."""
    done: list[str]
    """The conversions so far."""


class _UnusableError(Exception):
    """The file can be read, but not used as an image; the text says why, and what to do."""


def read_image(path: Path, converted: Converted | None = None) -> np.ndarray:
    """An image (height, width, 3) uint8.

    Counts its conversions in `converted`. Raises DataError naming the file if it cannot be decoded.
    """
    pixels, done = _decode(path)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
        done.append("16 bits to the highest 8")
    pixels = _opaque(pixels, done)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
        done.append("grey to three channels")
    _count(done, converted)
    return np.ascontiguousarray(pixels)


def read_mask_values(path: Path, shape: tuple[int, int], converted: Converted | None = None) -> np.ndarray:
    """The values of a mask (height, width) int32: a grey value, or COLOUR + 0xRRGGBB where it has a colour.

    Parameters
    ----------
    path
        of the mask
    shape
        height and width of its image
    converted
        counts its conversions

    Raises
    ------
    DataError
        Names the file if it cannot be decoded or has another size than its image.
    """
    pixels, done = _decode(path)
    pixels = _opaque(pixels, done)
    if pixels.shape[:2] != shape:
        raise DataError(
            f"{path}: the mask is {pixels.shape[1]}×{pixels.shape[0]} pixels, its image {shape[1]}×{shape[0]}. "
            "Expected the same size."
        )
    values = pixels.astype(np.int32)
    if values.ndim == 3:
        red, green, blue = values[..., 0], values[..., 1], values[..., 2]
        grey = (red == green) & (green == blue)
        if not grey.all() and pixels.dtype == np.uint16:
            raise DataError(f"{path}: is a 16-bit colour mask. Save it with 8 bits per channel, or in greyscale.")
        values = np.where(grey, red, COLOUR + (red << 16) + (green << 8) + blue)
    _count(done, converted)
    return values


def read_mask(
    path: Path, shape: tuple[int, int], foreground: Sequence[int | str], converted: Converted | None = None
) -> np.ndarray:
    """A mask (height, width) uint8 of {0, 1}.

    Parameters
    ----------
    path
        of the mask
    shape
        height and width of its image
    foreground
        The values that become 1, all others 0: whole numbers, ranges such as `128-255`, colours such as `#ff0000`.
    converted
        counts its conversions

    Raises
    ------
    DataError
        Names the file if it cannot be decoded or has another size than its image.
    """
    return is_foreground(read_mask_values(path, shape, converted), foreground).astype(np.uint8)


def is_foreground(values: np.ndarray, foreground: Sequence[int | str]) -> np.ndarray:
    """Which of a mask's `values` are named by `foreground`."""
    inside = np.zeros(values.shape, bool)
    for entry in foreground:
        low, high = _limits(entry)
        inside |= (values >= low) & (values <= high)
    return inside


FOREGROUND = re.compile(r"(?P<low>\d{1,5})-(?P<high>\d{1,5})|#(?P<colour>[0-9a-fA-F]{6})")
"""A range of values, or a colour."""


def choose_foreground(masks: Counter[int], named: Sequence[int | str] | None) -> list[int | str]:
    """The foreground of a dataset's masks.

    Of two values the brighter one, unless the settings name others. Where all are 0, any other value would be.

    Parameters
    ----------
    masks
        number of masks that hold each value
    named
        the setting `foreground`

    Raises
    ------
    DataError
        There are more than two values and none is named, or no mask holds a named one. The text is to follow the
        name of the dataset's file.
    """
    values = sorted(masks, key=_brightness)
    counted = ", ".join(f"{value_name(value)} (in {masks[value]})" for value in values[:10])
    counted += f", … and {len(values) - 10} more" if len(values) > 10 else ""
    if named is not None:
        missing = [entry for entry in named if not is_foreground(np.array(values), [entry]).any()]
        if missing and values:
            raise DataError(
                f"foreground: no mask contains {', '.join(map(str, missing))}. The masks contain {counted}. Correct "
                "foreground."
            )
        return list(named)
    if len(values) > 2:
        example = ", ".join(_quoted(value) for value in values[1:4])
        raise DataError(
            f"the masks contain {len(values)} values: {counted}. Expected two, for background and foreground. List "
            f'those of the foreground, as in `foreground: [{example}]` or `foreground: ["128-255"]` (a range suits '
            "masks with soft edges, as JPEG makes them); all others are background."
        )
    if values == [0]:
        return ["1-65535"]
    return [value if value < COLOUR else value_name(value) for value in values[-1:]]


def value_name(value: int) -> str:
    """A mask's value as the settings write it: 255, or #ff0000."""
    return str(value) if value < COLOUR else f"#{value - COLOUR:06x}"


def digest(image: np.ndarray) -> str:
    """SHA-256 of an image's shape and pixels, independent of the file's compression."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _quoted(value: int) -> str:
    return str(value) if value < COLOUR else f'"{value_name(value)}"'


def _brightness(value: int) -> tuple[float, int]:
    if value < COLOUR:
        return float(value), value
    red, green, blue = (value >> 16) & 255, (value >> 8) & 255, value & 255
    return 0.299 * red + 0.587 * green + 0.114 * blue, value


def _limits(entry: int | str) -> tuple[int, int]:
    if isinstance(entry, int):
        return entry, entry
    matched = FOREGROUND.fullmatch(entry)
    assert matched is not None  # validated by the settings
    if colour := matched["colour"]:
        red, green, blue = bytes.fromhex(colour)
        value = red if red == green == blue else COLOUR + int(colour, 16)
        return value, value
    return int(matched["low"]), int(matched["high"])


def _count(done: Collection[str], converted: Converted | None) -> None:
    if converted is not None:
        converted.update(done)


def _decode(path: Path) -> _Decoded:
    """The pixels with colours resolved and upright, and what was done to them."""
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: expected an image file: {', '.join(FORMATS)}.")
    kind = _kind(path)
    try:
        if kind == "TIFF":
            return _decode_tiff(path)
        return _decode_with_pillow(path, kind)
    except _UnusableError as error:
        raise DataError(f"{path}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(re.findall(r"\d+", str(error))[0])  # Pillow opens no such file, and tells no more than this
        raise DataError(f"{path}: {_too_large(pixels, Image.MAX_IMAGE_PIXELS or 0)}") from None
    except Exception as error:  # decoders raise anything for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as {kind} ({reason}). If an image viewer opens it, save it there as PNG; "
            "otherwise fetch it again."
        ) from None


def _kind(path: Path) -> str:
    """The format by the file's first bytes. Raises DataError if it is none of ours, or no regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise DataError(f"{path}: is not a regular file. Expected an image.")
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            return kind
    what = "is empty" if not start else "does not begin as a TIFF, PNG, JPEG or BMP file does"
    raise DataError(f"{path}: {what}. Expected an image in one of these formats.")


def _decode_with_pillow(path: Path, kind: str) -> _Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a broken EXIF block, say: the pixels are decoded all the same
        # Pillow only warns up to twice its limit; no dataset comes near it.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=[kind]) as image:
            if kind == "PNG" and (frames := getattr(image, "n_frames", 1)) > 1:  # of a JPEG, a viewer shows the first
                raise _several(frames)
            encoded_as = image.tile[0].args if image.tile else ""  # gone as soon as the pixels are loaded
            orientation = image.getexif().get(ORIENTATION, 1)
            if encoded_as in ("RGB;16B", "RGBA;16B", "LA;16B"):  # of which Pillow keeps 8 bits
                return _upright(imagecodecs.png_decode(path.read_bytes()), orientation, [])
            done: list[str] = []
            pixels = _resolved(image, done)
    # Pillow turns a TIFF by itself.
    return _upright(pixels, 1 if kind == "TIFF" else orientation, done)


def _resolved(image: Image.Image, done: list[str]) -> np.ndarray:
    """The pixels of a Pillow image: grey or RGB, with or without alpha."""
    transparent = "transparency" in image.info
    mode = image.mode
    if mode in ("P", "PA"):
        done.append("palette to colours")
        return np.asarray(image.convert("RGBA" if transparent or mode == "PA" else "RGB"))
    if mode in ("1", "L", "RGB") and transparent:
        return np.asarray(image.convert("RGBA"))
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("CMYK", "YCbCr"):
        done.append(f"{mode} to RGB")
        return np.asarray(image.convert("RGB"))
    if mode == "LAB":
        return _from_lab(image, done)
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise _not_8_or_16(f"Pillow's mode {mode}")
    return np.asarray(image)


def _decode_tiff(path: Path) -> _Decoded:
    with tifffile.TiffFile(path) as file:
        page, others = cast(Any, file.pages.first), cast(list[Any], file.pages[1:])
        _check_size(page)
        pages = 1 + sum(not other.is_reduced and not other.is_mask for other in others)
        if file.is_imagej and file.imagej_metadata:  # it may describe many images with one page
            pages = max(pages, file.imagej_metadata.get("images", 1))
        if "Z" in page.axes:
            pages = max(pages, page.shape[page.axes.index("Z")])
        if pages > 1:
            raise _several(pages)
        jpeg = page.compression == tifffile.COMPRESSION.JPEG
        lab = page.photometric in (tifffile.PHOTOMETRIC.CIELAB, tifffile.PHOTOMETRIC.ICCLAB)
        if page.compression in LIBTIFF_ALONE or (page.is_subsampled and not jpeg) or (lab and jpeg):
            return _decode_with_pillow(path, "TIFF")
        size = os.stat(path).st_size
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + length > size:
                raise EOFError(f"the file ends at byte {size}, its pixels at {offset + length}")
        pixels = page.asarray()
        if "S" in page.axes:
            pixels = np.moveaxis(pixels, page.axes.index("S"), -1)
        orientation = page.tags.valueof(ORIENTATION, 1)
        done: list[str] = []
        pixels = _widened(pixels, page.bitspersample, palette=page.photometric == tifffile.PHOTOMETRIC.PALETTE)
        pixels = _tiff_colours(page, pixels, done)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (2, 3, 4)):
        raise _UnusableError(
            f"contains pixels of shape {pixels.shape}. Expected one (grey) or three (RGB) channels, optionally with "
            "alpha."
        )
    return _upright(pixels, orientation, done)


def _tiff_colours(page: Any, pixels: np.ndarray, done: list[str]) -> np.ndarray:
    """Grey or RGB from the samples of a TIFF, according to its photometric interpretation."""
    kind, known = page.photometric, tifffile.PHOTOMETRIC
    if kind == known.MINISWHITE:
        done.append("min-is-white inverted")
        return np.iinfo(pixels.dtype).max - pixels
    if kind == known.PALETTE:
        done.append("palette to colours")
        return np.moveaxis(page.colormap[:, pixels] >> 8, 0, -1).astype(np.uint8)
    if kind in (known.MINISBLACK, known.RGB) or (kind == known.YCBCR and page.compression == tifffile.COMPRESSION.JPEG):
        return pixels  # the decoder of JPEG returns RGB
    colours = 4 if kind == known.SEPARATED else 3
    if kind not in (known.SEPARATED, known.YCBCR, known.CIELAB, known.ICCLAB) or pixels.shape[2:] != (colours,):
        raise _UnusableError(
            f"contains pixels of photometric interpretation {getattr(kind, 'name', kind)} and shape {pixels.shape}, "
            "which has no known conversion to RGB. Save it as RGB."
        )
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    pixels = pixels.astype(np.uint8)
    if kind == known.ICCLAB:
        pixels = pixels ^ np.array([0, 128, 128], np.uint8)  # to the signed a* and b* of CIELAB
    mode = {known.SEPARATED: "CMYK", known.YCBCR: "YCbCr"}.get(kind, "LAB")
    image = Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    return _resolved(image, done)


def _from_lab(image: Image.Image, done: list[str]) -> np.ndarray:
    done.append("L*a*b* to RGB")
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    assert converted is not None  # only in place there is none
    return np.asarray(converted)


def _widened(pixels: np.ndarray, bits: Any, palette: bool) -> np.ndarray:
    """Samples of any number of bits as uint8 or uint16 over the whole range; indices into a palette as they are."""
    bits = bits if isinstance(bits, int) else max(bits)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _not_8_or_16(str(pixels.dtype))
    if palette or bits in (8, 16):
        return pixels
    if bits < 8:
        return np.rint(pixels.astype(float) * 255 / (2**bits - 1)).astype(np.uint8)
    return pixels << (16 - bits)


def _upright(pixels: np.ndarray, orientation: int, done: list[str]) -> _Decoded:
    """Turns and mirrors pixels as EXIF's orientation tag says."""
    if orientation in range(2, 9):
        done.append("turned by the orientation tag")
        if orientation >= 5:
            pixels = pixels.swapaxes(0, 1)
        if orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        if orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
    return _Decoded(pixels, done)


def _opaque(pixels: np.ndarray, done: list[str]) -> np.ndarray:
    """Lays pixels with alpha over black."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    done.append("alpha laid over black")
    most = np.iinfo(pixels.dtype).max
    colours, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    opaque = ((colours * alpha + most // 2) // most).astype(pixels.dtype)
    return opaque[..., 0] if opaque.shape[2] == 1 else opaque


def _not_8_or_16(found: str) -> _UnusableError:
    return _UnusableError(
        f"contains {found} values, for which black and white are not defined. Expected 8- or 16-bit integers; rescale "
        "them and save again."
    )


def _several(images: int) -> _UnusableError:
    return _UnusableError(f"contains {images} images. Expected one; save each in a separate file.")


def _too_large(pixels: int, limit: int) -> _UnusableError:
    return _UnusableError(
        f"has {pixels:,} pixels; the limit is {limit:,}, as a small file can claim to be a huge image. Scale it down "
        "or cut it into tiles, and do the same with its mask."
    )


def _check_size(page: Any) -> None:
    """Applies Pillow's limit, for pixels of three values, to TIFF before memory is allocated."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and (values := math.prod(page.shape)) > 3 * limit:
        samples = max(page.samplesperpixel, 1)
        raise _too_large(values // samples, 3 * limit // samples)
