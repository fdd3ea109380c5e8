"""Pixels are read as an image viewer shows them, whatever the file's format, compression and colours."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from classroom.data.pixels import choose_foreground, read_image, read_mask, read_mask_values
from classroom.errors import DataError

GREY = "grey to three channels"
DEEP = "16 bits to the highest 8"
TURNED = "turned by the orientation tag"
OVER_BLACK = "alpha laid over black"


def scene() -> np.ndarray:
    """A smooth picture in colours, oblong and without symmetry."""
    corners = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((40, 30), Image.Resampling.BICUBIC))


RGB = scene()
L = RGB[..., 0].copy()
L3 = np.repeat(L[..., None], 3, axis=2)
ALPHA = np.random.default_rng(1).integers(0, 256, L.shape, dtype=np.uint8)
DEEP_RGB, DEEP_L = RGB.astype(np.uint16) * 257, L.astype(np.uint16) * 257
PALETTE = Image.fromarray(RGB).quantize(60)


def assert_shows(path: Path, expected: np.ndarray, done: list[str], tolerance: float = 0) -> None:
    converted: Counter[str] = Counter()
    image = read_image(path, converted)
    assert image.shape == (*L.shape, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(float) - expected).max() <= tolerance
    assert converted == Counter(done)


# --- compressions ---


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    "compression", ["lzw", "zlib", "packbits", "zstd", "lzma", "png", "jpeg2000", "jpegxl", "lerc"]
)
def test_every_lossless_compression_of_tiff_reads(tmp_path, compression, tile):
    """An LZW TIFF, as ImageJ and GIMP write it, was called damaged."""
    for name, pixels, expected, done in (
        ("rgb", RGB, RGB, []),
        ("grey", L, L3, [GREY]),
        ("rgb16", DEEP_RGB, RGB, [DEEP]),
        ("grey16", DEEP_L, L3, [DEEP, GREY]),
    ):
        path = tmp_path / f"{name}.tif"
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(path, pixels, compression=compression, photometric=photometric, tile=tile)
        assert_shows(path, expected, done)


@pytest.mark.parametrize("compression", ["group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate", "raw"])
def test_a_fax_of_one_bit_reads(tmp_path, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(L > 127).save(path, compression=compression)
    assert_shows(path, (L3 > 127) * 255, [GREY])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_jpeg_in_a_tiff_reads_as_libtiff_decodes_it(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).convert(mode).save(path, compression="jpeg")
    done = {"RGB": [], "L": [GREY], "CMYK": ["CMYK to RGB"], "YCbCr": []}[mode]
    assert_shows(path, np.asarray(Image.open(path).convert("RGB")).astype(float), done, tolerance=1)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: Image.fromarray(RGB).save(path, compression="tiff_lzw"),  # its tags follow the pixels
        lambda path: tifffile.imwrite(path, RGB, compression="lzw", photometric="rgb"),
        lambda path: tifffile.imwrite(path, RGB, photometric="rgb"),
        lambda path: Image.fromarray(L > 127).save(path, compression="group4"),
        lambda path: PALETTE.save(path),
    ],
)
def test_a_tiff_cut_off_anywhere_is_refused_or_shows_the_same(tmp_path, write: Callable[[Path], None]):
    """tifffile only logs that a tag is cut off, and goes on with wrong pixels."""
    path = tmp_path / "a.tif"
    write(path)
    content, whole = path.read_bytes(), read_image(path)
    for length in {*range(0, len(content), 97), *range(len(content) - 300, len(content))}:
        path.write_bytes(content[:length])
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(read_image(path), whole)


# --- colours ---


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_alpha_is_laid_over_black(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.dstack([RGB, ALPHA])).save(path)
    assert_shows(path, RGB * (ALPHA[..., None] / 255), [OVER_BLACK], tolerance=0.5)


def test_grey_with_alpha_of_8_and_16_bits(tmp_path):
    expected, path = L3 * (ALPHA[..., None] / 255), tmp_path / "a.png"
    Image.fromarray(np.dstack([L, ALPHA])).save(path)
    assert_shows(path, expected, [OVER_BLACK, GREY], tolerance=0.5)
    path.write_bytes(imagecodecs.png_encode(np.dstack([L, ALPHA]).astype(np.uint16) * 257))
    assert_shows(path, expected, [DEEP, OVER_BLACK, GREY], tolerance=0.5)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_a_palette_is_looked_up(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    PALETTE.save(path)
    assert_shows(path, np.asarray(PALETTE.convert("RGB")), ["palette to colours"])


def test_16_bits_keep_the_highest_8(tmp_path):
    values = np.arange(1200, dtype=np.uint16).reshape(L.shape) * 54
    expected = np.repeat(values[..., None] // 256, 3, axis=2)
    Image.fromarray(values).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    for name in ("a.png", "a.tif"):
        assert_shows(tmp_path / name, expected, [DEEP, GREY])
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(np.dstack([values] * 3)))
    assert_shows(tmp_path / "rgb.png", expected, [DEEP])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_scaled_to_black_and_white(tmp_path, bits):
    values, path = L >> (8 - bits), tmp_path / "a.tif"
    packed = imagecodecs.packints_encode(values, bits)
    tifffile.imwrite(
        path, iter([packed]), shape=L.shape, dtype=np.uint8 if bits > 1 else bool, bitspersample=bits, rowsperstrip=30,
        photometric="minisblack",
    )  # fmt: skip
    assert_shows(path, np.repeat(values[..., None], 3, axis=2) * (255 / (2**bits - 1)), [GREY])


def test_12_bits_are_scaled_like_16(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP_L >> 4, bitspersample=12, photometric="minisblack")
    assert_shows(tmp_path / "a.tif", L3, [DEEP, GREY])


@pytest.mark.parametrize("pixels", [L, DEEP_L])
def test_min_is_white_is_inverted(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", np.iinfo(pixels.dtype).max - pixels, photometric="miniswhite")
    deep = [DEEP] if pixels.dtype == np.uint16 else []
    assert_shows(tmp_path / "a.tif", L3, ["min-is-white inverted", *deep, GREY])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_colour_spaces_of_tiff_become_rgb(tmp_path, mode, compression):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tif", compression=compression)
    assert_shows(tmp_path / "a.tif", RGB, [f"{mode} to RGB"], tolerance=3)


def test_a_jpeg_in_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert_shows(tmp_path / "a.jpg", RGB, ["CMYK to RGB"], tolerance=3)


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_lab_becomes_srgb(tmp_path, photometric):
    """Against CIE's formulas: the values of five colours in L*a*b* under D50, and what they are in sRGB."""
    lab = np.array([[53, 0, 0], [54, 81, 70], [88, -79, 81], [98, -16, 93], [100, 0, 0]], float)
    rgb = [(127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 255, 255)]
    offset = 128 if photometric == "icclab" else 0
    encoded = np.stack([np.rint(lab[:, 0] * 2.55), lab[:, 1] + offset, lab[:, 2] + offset], axis=1)
    pixels = encoded.astype(np.int64).astype(np.uint8)[None]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    assert np.abs(read_image(tmp_path / "a.tif")[0].astype(int) - rgb).max() <= 15  # L*, a* and b* have 8 bits


@pytest.mark.parametrize(("name", "save"), [("a.png", "PNG"), ("a.tif", "TIFF"), ("a.tif", "TIFF of fax")])
def test_a_file_of_several_images_is_refused_with_their_number(tmp_path, name, save):
    """The first frame of an animation, or the first page, would be trained on in silence."""
    pages = [Image.fromarray(L + step) for step in range(3)]
    options = {}
    if save == "TIFF of fax":
        pages, options = [page.convert("1") for page in pages], {"compression": "group4"}
    pages[0].save(tmp_path / name, save.split()[0], save_all=True, append_images=pages[1:], **options)
    with pytest.raises(DataError, match=rf"/{name}: contains 3 images\. Expected one; save each in a separate file\.$"):
        read_image(tmp_path / name)


def test_a_volume_in_one_page_is_refused_with_its_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 16, 16), np.uint8), volumetric=True, photometric="minisblack")
    with pytest.raises(DataError, match=r"/a\.tif: contains 4 images\."):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "image", "limit", "shown"),
    [
        ("a.png", RGB, 1199, "1,199"),
        ("a.png", RGB, 400, "400"),  # Pillow only warns up to twice its limit
        ("a.tif", RGB, 1199, "1,199"),
        ("a.tif", L, 399, "1,197"),  # of one value each, so three times as many
    ],
)
def test_a_huge_image_is_named_with_its_pixels_and_the_limit(tmp_path, monkeypatch, name, image, limit, shown):
    """It is intact, and can be used when it is scaled down."""
    Image.fromarray(image).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=rf"/{name}: has 1,200 pixels; the limit is {shown}, .* Scale it down or cut"):
        read_image(tmp_path / name)


def test_the_content_decides_the_format_whatever_the_name_says(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.tif", format="PNG")
    assert_shows(tmp_path / "a.tif", RGB, [])


# --- orientation ---


def shown(pixels: np.ndarray, exif: Image.Exif, folder: Path) -> np.ndarray:
    Image.fromarray(pixels).save(folder / "shown.png", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(folder / "shown.png")))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied_to_image_and_mask_alike(tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = {"tiffinfo": {0x0112: orientation}} if ending == "tif" else {"exif": exif}
    fine = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    Image.fromarray(RGB).save(path, **fine, **tag)
    converted: Counter[str] = Counter()
    difference = read_image(path, converted).astype(int) - shown(RGB, exif, tmp_path)
    assert np.abs(difference).max() <= (12 if ending == "jpg" else 0)
    assert converted == Counter([TURNED] if orientation > 1 else [])
    if ending != "jpg":
        Image.fromarray(L).save(path, **tag)
        expected = shown(L, exif, tmp_path)
        np.testing.assert_array_equal(read_mask_values(path, expected.shape), expected)


# --- masks ---

LESION = L > 127


@pytest.mark.parametrize(
    "write",
    [
        lambda path: Image.fromarray(LESION.astype(np.uint8) * 255).save(path),
        lambda path: Image.fromarray(LESION.astype(np.uint8)).save(path),
        lambda path: Image.fromarray(LESION.astype(np.uint8) + 1).save(path),
        lambda path: Image.fromarray(LESION).save(path),
        lambda path: Image.fromarray(LESION.astype(np.uint16)).save(path),
        lambda path: Image.fromarray(LESION.astype(np.uint16) * 65535).save(path),
        lambda path: Image.fromarray(np.dstack([LESION.astype(np.uint8) * 255] * 3)).save(path),
        lambda path: Image.fromarray(np.dstack([LESION.astype(np.uint8) * 200, *[np.zeros_like(L)] * 2])).save(path),
        lambda path: Image.fromarray(np.dstack([L * 0 + 255] * 3 + [LESION.astype(np.uint8) * 255])).save(path),
        lambda path: tifffile.imwrite(path.with_suffix(".tif"), 255 - LESION.astype(np.uint8) * 255,
                                      photometric="miniswhite"),
        lambda path: tifffile.imwrite(path.with_suffix(".tif"), ~LESION, photometric="miniswhite"),
    ],
    ids=["0 and 255", "0 and 1", "1 and 2", "one bit", "16 bits of 0 and 1", "16 bits", "grey in three channels",
         "black and red", "transparent and white", "min-is-white", "min-is-white of one bit"],
)  # fmt: skip
def test_any_two_values_are_background_and_foreground(tmp_path, write: Callable[[Path], None]):
    write(tmp_path / "m.png")
    path = next(tmp_path.iterdir())
    values = Counter(np.unique(read_mask_values(path, L.shape)).tolist())
    assert len(values) == 2
    np.testing.assert_array_equal(read_mask(path, L.shape, choose_foreground(values, None)), LESION)


def test_a_palette_from_white_to_black_is_the_picture_that_it_shows(tmp_path):
    image = Image.fromarray(255 - LESION.astype(np.uint8) * 255)
    image.putpalette([255 - i // 3 for i in range(768)])
    for name in ("m.png", "m.tif"):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, L.shape, [255]), LESION)


@pytest.mark.parametrize(
    ("foreground", "inside"),
    [([1], [1]), ([1, 255], [1, 255]), (["100-200"], [128]), (["1-255"], [1, 128, 255]), (["#ff0000", 1], [1, "red"])],
)
def test_named_values_are_foreground_and_all_others_background(tmp_path, foreground, inside):
    colours = {0: (0, 0, 0), 1: (1, 1, 1), 128: (128, 128, 128), 255: (255, 255, 255), "red": (255, 0, 0)}
    Image.fromarray(np.array([list(colours.values())], np.uint8)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", (1, 5), foreground)
    assert mask.tolist() == [[int(name in inside) for name in colours]]


def test_masks_that_are_all_empty_name_all_else_foreground_and_a_single_other_value_is_foreground():
    assert choose_foreground(Counter({0: 3}), None) == ["1-65535"]
    assert choose_foreground(Counter({7: 3}), None) == [7]
    assert choose_foreground(Counter(), None) == []
