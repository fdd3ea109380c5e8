"""`classroom new-study`: from a folder of one's own images to a study that is valid, or to nothing at all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classroom import params, state
from classroom.data.fetching import sources
from classroom.data.prepare import prepare
from classroom.data.split import write
from classroom.data.synthetic import GENERATORS
from classroom.errors import ClassroomError
from classroom.params import Params, Synthetic
from classroom.settings.new_study import Wanted, new_study, numbers, percentages
from support.studies import put_settings


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is known of the networks, which takes a second to find out."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(tmp_path: Path, tiny: dict[str, Any], remembered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml of a project with thin networks, in which the test runs."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setattr(state, "CACHE", remembered)
    return put_settings(root, tiny)


def picture(path: Path, sort: str = "rgb", side: int = 12) -> None:
    """Writes an image, whose pixels depend on its name, or a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(path.stem.removesuffix("_mask").encode()))
    if sort == "rgb":
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    elif sort == "grey16":
        pixels = random.integers(0, 65536, (side, side), dtype=np.uint16)
    else:
        pixels = np.zeros((side, side), np.uint8)
        pixels[:3, : side // 2] = {"mask": 255, "mask01": 1, "empty": 0}[sort]
    Image.fromarray(pixels).save(path)


def draw_pairs(root: Path, patients: int = 20, image: str = "rgb", mask: str = "mask", ending: str = ".png") -> None:
    for patient in range(patients):
        for number in range(2):
            picture(root / f"images/P{patient:02}_{number}{ending}", image)
            picture(root / f"masks/P{patient:02}_{number}_mask.png", mask if number else "empty")


def draw_classes(root: Path, classes: Sequence[str] = ("polyp", "none"), images: int = 24) -> None:
    for label in classes:
        for number in range(images):
            picture(root / label / f"{label}{number}.png")


def contents(settings: Path) -> dict[str, bytes]:
    root = settings.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.yaml")}


def made(settings: Path, **wanted: Any) -> tuple[Params, str]:
    """The settings afterwards, and what was said."""
    said = "\n".join(new_study(Wanted(**wanted), settings))
    return params.check(params.load(settings)), said


def refused(settings: Path, **wanted: Any) -> str:
    """The paragraph with which it is refused, after which every file is as before."""
    before = contents(settings)
    with pytest.raises(ClassroomError) as error:
        new_study(Wanted(**wanted), settings)
    assert contents(settings) == before, "something was written"
    assert "\n" not in str(error.value)
    return str(error.value)


def splits(settings: Path, name: str) -> pd.DataFrame:
    """What the pipeline's first three jobs make of a study."""
    of = params.check(params.load(settings))
    study = of.study[name]
    root = settings.parent
    sources.fetch(name, of.dataset[study.dataset], root / "raw")
    prepare(study.task, study.image_size, root / "raw", root / "prepared")
    write(root / "prepared", study.split, root / "splits.parquet")
    return pd.read_parquet(root / "splits.parquet")


# What it makes


def test_images_and_masks_become_an_active_study_of_segmentation(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path / "liver", image="grey16", mask="mask01")
    of, said = made(
        settings, name="liver", images=tmp_path / "liver/images", masks=tmp_path / "liver/masks", group=r"^P\d+"
    )
    assert of.studies == ("liver",)
    study, like = of.study["liver"], params.load(settings)["study"]["lgg-resnet18"]
    assert (study.task, study.split.by, study.reports.variants) == ("segmentation", "group", "liver")
    assert study.teacher.encoder == like["teacher"]["encoder"]
    assert set(study.weights) == set(params.VARIANTS), "twelve variants, whatever is trained today"
    for part in (
        "40 images, 40 with a mask",
        "12×12 (40)",
        "40 × 16 bits to the highest 8",
        "foreground is 1; 20 images have some, 20 none; 6.2 % of all pixels",
        "20 patients",
        "75:10:15 by patient",
    ):
        assert part in said, (part, said)
    assert "Warning" not in said
    table = splits(settings, "liver")
    assert table.groupby("group").split.nunique().max() == 1, "a patient is trained and tested on"
    assert len(table) == 40


def test_images_that_are_squeezed_to_a_square_are_counted(settings: Path, tmp_path: Path) -> None:
    """`converted: nothing` was said of images of 600×400 pixels that are trained on at 64×64."""
    draw_pairs(tmp_path / "liver")
    Image.new("RGB", (20, 12), "white").save(tmp_path / "liver/images/P00_0.png")
    Image.new("L", (20, 12)).save(tmp_path / "liver/masks/P00_0_mask.png")
    _, said = made(settings, name="liver", images=tmp_path / "liver/images", masks=tmp_path / "liver/masks")
    assert "1 × not square, squeezed to a square" in said


def test_a_folder_for_each_class_becomes_a_classification_and_warns_of_unknown_patients(
    settings: Path, tmp_path: Path
) -> None:
    draw_classes(tmp_path / "polyps", ("10", "9"))
    of, said = made(settings, name="polyps", images=tmp_path / "polyps", keep=True)
    assert of.study["polyps"].task == "classification"
    assert of.studies[-1] == "polyps"
    assert len(of.studies) > 1
    assert of.dataset["polyps"].classes == ("9", "10"), "numbers in their order"
    assert "classes: 9 (24), 10 (24)" in said
    assert "Warning: if several images show one patient" in said
    assert len(splits(settings, "polyps")) == 48


def test_a_table_s_groups_and_splits_are_taken(settings: Path, tmp_path: Path) -> None:
    rows = [
        {"image": f"scans/{number}.png", "label": "ab"[number % 2], "group": number // 4,
         "split": ["train", "train", "val", "test"][number // 4]}
        for number in range(16)
    ]  # fmt: skip
    for row in rows:
        picture(tmp_path / str(row["image"]))
    pd.DataFrame(rows).to_csv(tmp_path / "wounds.csv", index=False)
    of, said = made(settings, name="wounds", table=tmp_path / "wounds.csv")
    assert of.study["wounds"].split.by == "given"
    assert "as given by the table: 8 train, 4 val, 4 test" in said
    table = splits(settings, "wounds").set_index("id").split
    assert {name: table[name] for name in table.index} == {str(n): row["split"] for n, row in enumerate(rows)}


def test_columns_that_are_not_used_are_named_and_one_like_a_patient_is_not_passed_over(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table's column `patient` was ignored without a word, and its patients were trained and tested on."""
    draw_classes(tmp_path, ("a", "b"), images=20)
    rows = [
        {"image": f"{label}/{label}{n}.png", "label": label, "Patient": f"{label}{n % 10}", "lowercase": 50}
        for label in "ab"
        for n in range(20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "skin.csv", index=False)
    _, said = made(settings, name="skin", table=tmp_path / "skin.csv")
    assert "columns of the table not used: patient, lowercase" in said
    assert "of one 'patient' in one split, rename that column to 'group'" in said
    splits(settings, "skin")
    assert capsys.readouterr().err.count("not used: patient, lowercase") == 1, "said when fetched, once"
    pd.DataFrame(rows).rename(columns={"Patient": "group"}).to_csv(tmp_path / "renamed.csv", index=False)
    of, said = made(settings, name="renamed", table=tmp_path / "renamed.csv")
    assert of.study["renamed"].split.by == "group"
    assert "columns of the table not used: lowercase\n" in said


def test_known_patients_may_be_split_by_image(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path)
    of, said = made(
        settings, name="few", images=tmp_path / "images", masks=tmp_path / "masks", group=r"^P\d+", by_image=True
    )
    assert of.study["few"].split.by == "image"
    assert "split: 75:10:15 by image" in said


def test_a_download_in_a_known_layout_is_the_same_path(settings: Path, tmp_path: Path) -> None:
    GENERATORS["lgg"](tmp_path / "kaggle", Synthetic(groups=22, images_per_group=2, size=32, seed=0))
    of, said = made(settings, name="mine", images=tmp_path / "kaggle", reader="lgg")
    assert (of.study["mine"].task, of.study["mine"].split.by) == ("segmentation", "group")
    assert "22 patients" in said


def test_images_that_the_task_cannot_use_are_counted_and_not_split(settings: Path, tmp_path: Path) -> None:
    """HAM10000 has masks of some images only: splits and numbers are of these."""
    GENERATORS["ham10000"](tmp_path / "skin", Synthetic(groups=30, images_per_group=1, size=32, seed=0))
    for mask in sorted((tmp_path / "skin").rglob("*_segmentation.png"))[:7]:
        mask.unlink()
    of, said = made(
        settings, name="mine", images=tmp_path / "skin", reader="ham10000", task="segmentation", percent=(60, 20, 20)
    )
    assert "found: 23 images, 23 with a mask" in said
    assert "left out: 7 images without a mask, which segmentation needs" in said
    assert of.dataset["mine"].full_size == len(splits(settings, "mine")) == 23


def test_labels_and_masks_together_say_which_are_taken_and_what_takes_the_others(
    settings: Path, tmp_path: Path
) -> None:
    draw_pairs(tmp_path)
    rows = [
        {"image": f"images/P{n // 2:02}_{n % 2}.png", "mask": f"masks/P{n // 2:02}_{n % 2}_mask.png", "label": n % 2}
        for n in range(40)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "own.csv", index=False)
    of, said = made(settings, name="a", table=tmp_path / "own.csv")
    assert of.study["a"].task == "segmentation"
    assert "task: segmentation, from the masks; the labels are not used (--task classification uses them)" in said
    of, said = made(settings, name="b", table=tmp_path / "own.csv", task="classification")
    assert of.study["b"].task == "classification"
    assert "not used" not in said, "it was asked for"


def test_masks_without_any_foreground_are_refused(settings: Path, tmp_path: Path) -> None:
    """Also where labels let the images be fetched for another task."""
    draw_pairs(tmp_path, mask="empty")
    options = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
    text = refused(settings, name="liver", **options)
    assert "no pixel of the 40 masks is foreground" in text
    rows = [{"image": f"images/P{n:02}_0.png", "mask": f"masks/P{n:02}_0_mask.png", "label": n % 2} for n in range(20)]
    pd.DataFrame(rows).to_csv(tmp_path / "own.csv", index=False)
    assert "no pixel of the 20 masks" in refused(settings, name="own", table=tmp_path / "own.csv", task="segmentation")


def test_images_without_a_mask_may_be_background(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path)
    for number in range(4):
        (tmp_path / f"masks/P0{number}_0_mask.png").unlink()
    options = {"name": "liver", "images": tmp_path / "images", "masks": tmp_path / "masks"}
    assert "P00_0.png, images/P01_0.png" in refused(settings, **options)
    of, said = made(settings, **options, missing_masks="empty")
    assert "36 with a mask" in said
    assert of.dataset["liver"].missing_masks == "empty"
    assert len(splits(settings, "liver")) == 40


def test_networks_size_and_percentages_may_be_others(settings: Path, tmp_path: Path) -> None:
    draw_classes(tmp_path / "polyps")
    of, _ = made(
        settings, name="polyps", images=tmp_path / "polyps", teacher="resnet34", student="mobilenetv3_small_050",
        size=64, percent=percentages("50:25:25"),
    )  # fmt: skip
    study = of.study["polyps"]
    assert (study.teacher.encoder, study.student.encoder, study.image_size) == ("resnet34", "mobilenetv3_small_050", 64)
    assert study.teacher.conv6_channels == 576 // 2, "the teacher's features are brought to its student's width"
    assert study.split.percent == (50, 25, 25)


# What it refuses, before anything is written


def test_what_is_wrong_with_the_files_is_said_with_the_options_that_help(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path)
    (tmp_path / "images/notes.txt").write_text("")
    (tmp_path / "masks/P03_1_mask.png").unlink()
    text = refused(settings, name="liver", images=tmp_path / "images", masks=tmp_path / "masks")
    assert re.search(r"images/notes\.txt\. .*Images without a mask .*: images/P03_1\.png\. Nothing was written\.", text)
    assert text.endswith("As options: --ignore '*.txt', --missing-masks empty.")


def test_every_image_that_cannot_be_read_or_recurs_is_named(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path)
    (tmp_path / "images/P04_0.png").write_bytes(b"\x89PNG cut off")
    (tmp_path / "images/P07_0.png").write_bytes((tmp_path / "images/P05_0.png").read_bytes())
    picture(tmp_path / "masks/P06_0_mask.png", "mask", side=10)
    text = refused(settings, name="liver", images=tmp_path / "images", masks=tmp_path / "masks")
    assert [
        name in text for name in ("P04_0.png: cannot", "P07_0.png: the same image", "P06_0_mask.png: the mask is")
    ] == [True] * 3
    assert "3 such problems in total" in text


def test_masks_of_several_values_need_the_foreground(settings: Path, tmp_path: Path) -> None:
    draw_pairs(tmp_path)
    mask = tmp_path / "masks/P00_1_mask.png"
    pixels = np.array(Image.open(mask))
    pixels[-1] = 128
    Image.fromarray(pixels).save(mask)
    options = {"name": "liver", "images": tmp_path / "images", "masks": tmp_path / "masks"}
    text = refused(settings, **options)
    assert "the masks contain 3 values: 0 (in 40), 128 (in 1), 255 (in 20)" in text
    assert text.endswith("As options: --foreground 1,2.")
    _, said = made(settings, **options, foreground=numbers("128, 255"))
    assert "foreground is 128, 255" in said


def test_one_class_and_too_few_patients_are_named(settings: Path, tmp_path: Path) -> None:
    draw_classes(tmp_path / "one", ("polyp",))
    assert "all 24 images are of one class, polyp" in refused(settings, name="one", images=tmp_path / "one")
    draw_pairs(tmp_path, patients=8)
    few = {"name": "few", "images": tmp_path / "images", "masks": tmp_path / "masks", "group": r"^P\d+"}
    text = refused(settings, **few)
    assert "only 8 groups" in text
    assert "P00, P01, P02, P03, P04, P05, P06, P07" in text
    assert "[60, 20, 20] needs 5" in text
    assert "split by image (`by: image` below `split` in the study's file)" in text
    assert text.endswith("As options: --group REGEX, --split 60:20:20, --split image.")
    assert made(settings, **few, percent=(60, 20, 20))[0].studies == ("few",)


def test_splits_that_nothing_can_be_trained_on_are_refused(settings: Path, tmp_path: Path) -> None:
    """Before the first training finds out."""
    draw_classes(tmp_path, ("a", "b"), images=10)
    rows = [
        {"image": f"{label}/{label}{n}.png", "label": label, "split": "train" if n > 5 else ["val", "test"][n % 2]}
        for label in "ab"
        for n in range(10)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "few.csv", index=False)
    assert made(settings, name="few", table=tmp_path / "few.csv")[0].study["few"].split.percent == (40, 30, 30)
    pd.DataFrame(rows).query("label != 'b' or split != 'train'").to_csv(tmp_path / "none.csv", index=False)
    assert "no training image of b" in refused(settings, name="none", table=tmp_path / "none.csv")
    pd.DataFrame(rows[:-1]).to_csv(tmp_path / "seven.csv", index=False)
    text = refused(settings, name="seven", table=tmp_path / "seven.csv")
    assert "only 7 images for training, fewer than one batch: params.yaml has training.batch_size 8" in text


def test_a_name_that_is_taken_and_options_that_do_not_fit_are_refused(settings: Path, tmp_path: Path) -> None:
    draw_classes(tmp_path / "polyps")
    polyps = {"name": "polyps", "images": tmp_path / "polyps"}
    for options, said in (
        (polyps | {"name": "lgg"}, "datasets/lgg.yaml: exists already"),
        (polyps | {"name": "../x"}, "is not a valid name for a study"),
        (polyps | {"name": "table4"}, "is a report of the paper"),
        (polyps | {"name": "cost"}, "'cost' is taken"),
        ({"name": "x"}, "expected either --images DIR or --table FILE"),
        (polyps | {"images": tmp_path / "gone"}, "gone: no such folder"),
        (polyps | {"task": "segmentation"}, "needs masks"),
        (polyps | {"like": "lgg-resnet18"}, "is a study of another task than classification"),
        (polyps | {"like": "histo"}, "--like histo: unknown study"),
        (polyps | {"teacher": "resnet8000"}, "resnet8000"),
        (polyps | {"size": 33}, "image_size: should be a multiple of 32"),
        (polyps | {"group": "("}, "not a valid regular expression"),
        (polyps | {"reader": "lgg", "group": "P"}, "group: not used by the reader 'lgg'"),
    ):
        text = refused(settings, **options)
        assert said in text, (options, text)
        assert "/tmp/" not in text.replace(str(tmp_path), ""), "the folder in which settings are tried is named"


def test_a_study_to_follow_is_validated_before_it_is_followed(settings: Path, tmp_path: Path) -> None:
    """It need not be active, so nothing else has looked at it."""
    draw_classes(tmp_path / "polyps")
    followed = settings.parent / "studies/histopathologic-mobilenet.yaml"
    followed.write_text("dataset: histopathologic\ntask: classification\n")
    text = refused(settings, name="polyps", images=tmp_path / "polyps", like="histopathologic-mobilenet")
    for key in ("image_size", "teacher", "student"):
        assert f"key '{key}' is missing" in text, text
    assert text.startswith(f"{followed}: ")


def test_a_study_whose_files_were_removed_is_made_again(settings: Path, tmp_path: Path) -> None:
    """It was still active, and every `new-study` failed on its missing file."""
    draw_classes(tmp_path / "polyps")
    made(settings, name="polyps", images=tmp_path / "polyps")
    for folder in params.FOLDERS:
        (settings.parent / folder / "polyps.yaml").unlink()
    with pytest.raises(ClassroomError, match=r"'polyps' has no file studies/polyps\.yaml.*`classroom use STUDY…`"):
        params.check(params.load(settings))
    assert made(settings, name="polyps", images=tmp_path / "polyps")[0].studies == ("polyps",)


def test_a_full_disk_leaves_no_file_of_the_study(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset without its study would make the second attempt fail on a name that is taken."""
    draw_classes(tmp_path / "polyps")
    calls = iter(range(10))

    def fsync(handle: int) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert "No space left on device" in refused(settings, name="polyps", images=tmp_path / "polyps")
    monkeypatch.undo()


def test_samples_are_not_asked_of_a_variant_that_is_not_trained(settings: Path, tmp_path: Path, tiny: Any) -> None:
    for study in tiny["study"].values():
        study["reports"] = {key: study["reports"][key] for key in ("variants", "baselines", "fidelity", "architecture")}
    put_settings(settings.parent, tiny | {"variants": {"joint": ["ml-v3"], "offline": []}})
    draw_pairs(tmp_path)
    of, _ = made(settings, name="liver", images=tmp_path / "images", masks=tmp_path / "masks")
    assert not of.study["liver"].reports.samples


def test_percentages_are_three(settings: Path) -> None:
    assert percentages("70:10:20") == (70, 10, 20)
    for wrong in ("70:30", "70:10:10", "a:b:c", "100:0:0", "70:10:20:0"):
        with pytest.raises(ClassroomError, match=r"^--split .*: expected three percentages that sum to 100"):
            percentages(wrong)
