"""`classroom predict`: every image gets its answer, of its own size, and nothing is lost or half done."""

from __future__ import annotations

import csv
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

from classroom.errors import ClassroomError, DataError, ExportError
from classroom.export.model import Model
from classroom.export.predict import Job, find, predict
from support.exported import SIZE, brightness, command, facts
from support.studies import ROOT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file whose answer for a pixel is how bright it is."""
    return brightness(tmp_path / "export" / "model.onnx")


def picture(path: Path, height: int = 50, width: int = 90, seed: int = 0) -> np.ndarray:
    """Writes coloured noise in large patches and returns it."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)
    return pixels


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def answer(model: Path, images: list[Path], out: Path, batch_size: int = 8) -> list[dict[str, str]]:
    predict(Model(model), find(images)[0], out, batch_size)
    return table(out)


# What is written


@pytest.mark.parametrize(("height", "width"), [(50, 90), (SIZE, SIZE), (7, 5), (200, 33)])
def test_masks_and_probabilities_have_the_image_s_size_and_the_model_s_answer(
    height: int, width: int, model: Path, tmp_path: Path
) -> None:
    """Squeezed as for training, asked, and brought back: here worked out with Pillow and numpy alone.

    Pixels whose middle falls between two of the model's may take either.
    """
    pixels = picture(tmp_path / "a.png", height, width)
    (row,) = answer(model, [tmp_path / "a.png"], tmp_path / "out")
    small = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    bright = small.astype(float).mean(axis=2) / 255
    rows, columns = ((2 * np.arange(n) + 1) * SIZE // (2 * n) for n in (height, width))
    clear = np.ix_(*((2 * np.arange(n) + 1) * SIZE % (2 * n) != 0 for n in (height, width)))
    expected = bright[rows][:, columns]
    probability = np.asarray(Image.open(tmp_path / "out" / row["probability"]))
    mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
    assert probability.shape == mask.shape == (height, width)
    assert probability.dtype == mask.dtype == np.uint8
    assert np.abs(probability / 256 - expected)[clear].max() <= 1 / 256 + 1e-6
    assert set(np.unique(mask)) <= {0, 255}
    assert np.array_equal(mask == 255, probability >= 128)
    assert float(row["foreground_share"]) == pytest.approx((mask == 255).mean(), abs=1e-6)
    assert 0 < (mask == 255).mean() < 1


def test_classes_have_a_row_with_every_probability_and_the_likeliest(tmp_path: Path) -> None:
    model = brightness(tmp_path / "model.onnx", "classification")
    for name, value in (("dark", 30), ("bright", 200)):
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    rows = answer(model, [tmp_path / "dark.png", tmp_path / "bright.png"], tmp_path / "out")
    assert list(rows[0]) == ["image", "label", "dark", "bright"]
    assert [row["label"] for row in rows] == ["dark", "bright"]
    assert [float(row["bright"]) for row in rows] == pytest.approx([30 / 255, 200 / 255], abs=2e-6)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_probabilities_that_are_not_finite_are_no_answer(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN would be an empty mask, or the first class."""
    model, healthy = Model(brightness(tmp_path / "model.onnx", task)), Model.probabilities
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")

    def diverged(self: Model, images: np.ndarray) -> np.ndarray:
        found = healthy(self, images)
        found[1].flat[0] = np.nan
        return found

    monkeypatch.setattr(Model, "probabilities", diverged)
    with pytest.raises(ExportError, match=r"b\.png: .*ensemble of lgg-resnet18 kd_ml-v3, seed 0.*learning_rate"):
        predict(model, find([tmp_path / "images"])[0], tmp_path / "out", 8)
    assert not (tmp_path / "out").exists()


def test_every_kind_of_file_is_read(model: Path, tmp_path: Path) -> None:
    for suffix in (".tif", ".png", ".jpg", ".JPEG"):
        picture(tmp_path / "images" / f"a{suffix}")
    assert len(answer(model, [tmp_path / "images"], tmp_path / "out")) == 4


def test_how_many_at_a_time_changes_nothing(model: Path, tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / "images" / f"{number}.png", 30 + number, 40, seed=number)
    contents = []
    for batch_size in (1, 2, 64):
        out = tmp_path / f"out-{batch_size}"
        answer(model, [tmp_path / "images"], out, batch_size)
        contents.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert len(contents[0]) == 11
    assert all(other == contents[0] for other in contents)


# Which images, and under which names


def test_images_of_one_name_in_several_folders_all_have_their_results(model: Path, tmp_path: Path) -> None:
    places = ["anna/1.png", "anna/1.jpg", "anna/deep/1.png", "bert/1.png", "bert/1-2.png", "bert/A.png", "cora/a.png"]
    for seed, place in enumerate(places):
        picture(tmp_path / place, seed=seed)
    rows = answer(model, [tmp_path / "anna", tmp_path / "bert", tmp_path / "cora"], tmp_path / "out")
    assert {row["image"] for row in rows} == {str(tmp_path / place) for place in places}
    written = [row[kind] for row in rows for kind in ("mask", "probability")]
    assert len({name.casefold() for name in written}) == 2 * len(places)
    assert all((tmp_path / "out" / name).is_file() for name in written)
    assert rows[0]["mask"] == "1_mask.png"
    assert "deep/1_mask.png" in written


@given(st.lists(st.sampled_from(["a", "A", "a-2", "a-3", "b", "b-2", "a-2-2"]), min_size=1, max_size=12))
def test_no_two_results_have_one_name(names: list[str]) -> None:
    from classroom.export.predict import _named

    jobs = _named((Path(f"{number}/{name}.png"), Path(f"{name}.png")) for number, name in enumerate(names))
    assert len({job.name.casefold() for job in jobs}) == len(names)
    assert [job.image for job in jobs] == [Path(f"{n}/{name}.png") for n, name in enumerate(names)]


def test_masks_in_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    """As the datasets have them next to the images, and as an earlier prediction left them."""
    for name in ("1.tif", "1_mask.tif", "2.png", "2_SEG.png", "3.png", "3_probability.png", "notes.txt", "4.dcm"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "predictions.csv").write_bytes(b"")
    jobs, left_out = find([tmp_path])
    assert [job.name for job in jobs] == ["1", "2", "3"]
    assert left_out == {"named as masks": 3, "of other formats": 2}
    assert find([tmp_path / "1_mask.tif"])[0] == [Job(tmp_path / "1_mask.tif", "1_mask")], "named, it is meant"


def test_an_image_that_is_named_twice_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    jobs, _ = find([tmp_path / "1.png", tmp_path, tmp_path / "." / "1.png", tmp_path / "link.png"])
    assert [job.image for job in jobs] == [tmp_path / "1.png"]


# What goes wrong


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pipe.png", None, "is not a regular file"),
        ("half.png", b"\x89PNG\r\n\x1a\n\0\0", "cannot be read as PNG"),
        ("empty.tif", b"", "is empty"),
        ("fake.jpg", b"this is text", "does not begin as a TIFF, PNG, JPEG or BMP file does"),
    ],
)
def test_an_image_that_cannot_be_read_stops_no_other(
    name: str, content: bytes | None, message: str, model: Path, tmp_path: Path
) -> None:
    """It is one of many: what can be predicted is kept, and what cannot is listed."""
    folder = tmp_path / "images"
    for number in (0, 5, 9):
        picture(folder / f"{number}.png")
    os.mkfifo(folder / name) if content is None else (folder / name).write_bytes(content)
    done = predict(Model(model), find([folder])[0], tmp_path / "out", 2)
    assert (done.count, len(done.failed)) == (3, 1)
    assert [Path(row["image"]).name for row in table(tmp_path / "out")] == ["0.png", "5.png", "9.png"]
    (failed,) = csv.DictReader((tmp_path / "out" / "failed.csv").read_text().splitlines())
    assert failed["image"] == str(folder / name)
    assert re.search(message, failed["problem"])
    assert failed["problem"] == done.failed[0]


def test_where_no_image_can_be_read_nothing_is_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.png: is empty\. .*Nothing was written\."):
        answer(model, [tmp_path / "empty.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


NAMES = {
    # name of the image: (in the table, the name of its results)
    "M\udcfcller.png": (r"M\udcfcller.png", "M_ller"),  # in Latin-1, as old archives have it
    "\x1b[31mred.png": (r"\x1b[31mred.png", "_[31mred"),
    "a\nb.png": (r"a\nb.png", "a_b"),
    "=HYPERLINK(1).png": ("./=HYPERLINK(1).png", "./=HYPERLINK(1)"),
    "+1.png": ("./+1.png", "./+1"),
    "-1.png": ("./-1.png", "./-1"),
    "@SUM(A1).png": ("./@SUM(A1).png", "./@SUM(A1)"),
    "Müller–中.png": ("Müller–中.png", "Müller–中"),
    f"{'n' * 245}.png": (f"{'n' * 245}.png", "n" * 231),
    f"{'n' * 246}.png": (f"{'n' * 246}.png", f"{'n' * 231}-2"),
}


def test_no_name_loses_results_or_is_run_by_a_terminal_or_spreadsheet(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path / "images")
    for name in NAMES:
        Path(name).write_bytes((tmp_path / "a.png").read_bytes())
    rows = answer(model, [Path(name) for name in NAMES], tmp_path / "out")
    assert [(row["image"], row["mask"].removesuffix("_mask.png")) for row in rows] == list(NAMES.values())
    assert all((tmp_path / "out" / row[kind]).is_file() for row in rows for kind in ("mask", "probability"))


def test_classes_of_a_model_of_others_are_run_by_no_spreadsheet(tmp_path: Path) -> None:
    model = Model(brightness(tmp_path / "model.onnx", "classification"))
    model.about["labels"] = ["=cmd()", "\x1b[2J"]
    picture(tmp_path / "a.png")
    predict(model, find([tmp_path / "a.png"])[0], tmp_path / "out", 8)
    (row,) = table(tmp_path / "out")
    assert list(row) == ["image", "label", "'=cmd()", r"\x1b[2J"]
    assert row["label"] in ("'=cmd()", r"\x1b[2J")


def test_an_image_is_predicted_as_a_viewer_shows_it(model: Path, tmp_path: Path) -> None:
    """Turned by its orientation tag, with three channels: as its mask for training was drawn."""
    upright = picture(tmp_path / "upright.png", 40, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(upright).convert("L").save(tmp_path / "grey.png")
    jobs = find([tmp_path / f"{name}.png" for name in ("upright", "turned", "grey")])[0]
    done = predict(Model(model), jobs, tmp_path / "out", 8)
    masks = [(tmp_path / "out" / f"{job.name}_mask.png").read_bytes() for job in jobs]
    assert masks[0] == masks[1]
    assert Image.open(tmp_path / "out" / "grey_mask.png").size == (90, 40)
    assert done.converted == {"turned by the orientation tag": 1, "grey to three channels": 1}


def test_where_no_images_are_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"empty: no images here. Expected files that end in \.tif, "):
        find([tmp_path / "empty"])
    (tmp_path / "empty" / "1_mask.png").write_bytes(b"")
    with pytest.raises(ExportError, match="no images here, only 1 named as masks"):
        find([tmp_path / "empty"])
    with pytest.raises(ExportError, match="nowhere: no such file or folder"):
        find([tmp_path / "nowhere"])


def test_a_second_run_into_the_same_folder_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "out-2").mkdir()
    answer(model, [tmp_path / "a.png"], tmp_path / "out")
    with pytest.raises(ExportError, match=r"out: holds the results of an earlier prediction\. .* `--out .*/out-3`, or"):
        answer(model, [tmp_path / "a.png"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_lies_in_the_results_place_is_not_touched(kind: str, model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    kept = out if kind == "file" else out / "precious.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(ExportError, match=r"out: is not an empty folder\. Name another one, such as `--out "):
        answer(model, [tmp_path / "a.png"], out)
    assert kept.read_text() == "years of work"


def test_an_empty_folder_takes_the_results(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    assert len(answer(model, [tmp_path / "a.png"], tmp_path / "out")) == 1


def test_a_full_disk_leaves_no_half_written_results(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
    healthy, saved = Image.Image.save, []

    def save(self: Image.Image, path: Path) -> None:
        saved.append(path)
        if len(saved) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        healthy(self, path)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(ClassroomError, match=r"out: cannot be written \(No space left on device\)"):
        answer(model, [tmp_path / "images"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "images"]


# The model


def test_the_folder_of_an_export_is_as_good_as_its_file(model: Path) -> None:
    assert Model(model.parent).about == Model(model).about == facts()


def test_a_truncated_model_is_named(model: Path) -> None:
    content = model.read_bytes()
    for kept in (0, 10, len(content) // 2, len(content) - 10):
        model.write_bytes(content[:kept])
        with pytest.raises(ExportError, match=r"model\.onnx: (cannot be read as an ONNX|is no model that)") as caught:
            Model(model)
        assert len(str(caught.value).splitlines()) == 1


def test_a_model_of_others_or_of_another_version_is_refused(model: Path) -> None:
    """It might take other images in another scale, and answer all the same."""
    loaded = onnx.load(model)
    for change in ({}, facts() | {"classroom": 2}, {k: v for k, v in facts().items() if k != "image_size"}):
        del loaded.metadata_props[:]
        helper.set_model_props(loaded, {key: str(value).lower() for key, value in change.items()})
        onnx.save(loaded, model)
        with pytest.raises(ExportError, match="was not exported by this version of Classroom"):
            Model(model)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(ExportError, match=r"onnx: no such file\. Expected a model that `classroom export` wrote"):
            Model(path)


# The command


def test_the_command_needs_no_torch_and_draws_no_bar_into_a_log(model: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", seed=number)
    (tmp_path / "images" / "0_mask.png").write_bytes(b"")
    (tmp_path / "images" / "bad.png").write_bytes(b"")
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['classroom', 'predict', *sys.argv[1:]]; "
        "from classroom.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "images", "--batch-size", "2"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == "predictions/predictions.csv: 3 images (files left out: 1 named as masks)\n"
    assert done.stderr == (
        "Research only.\nError: images/bad.png: is empty. Expected an image in one of these formats. They are listed "
        "in predictions/failed.csv. Fix them, then predict only these with another --out.\n"
    )
    assert len(table(tmp_path / "predictions")) == 3


def test_errors_are_one_paragraph(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    picture(tmp_path / "images/a.png")
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ("no.onnx images", "no.onnx: no such file."),
        ("export nowhere", "nowhere: no such file or folder."),
        ("images/a.png images", "images/a.png: cannot be read as an ONNX model"),
        ("export images --out images", "images: is not an empty folder."),
    ):
        code, out, err = command(monkeypatch, capsys, "predict", *arguments.split())
        assert (code, out) == (1, "")
        assert err.startswith(f"Error: {message}")
        assert len(err.splitlines()) == 1
