"""Whatever is wrong with a user's data, settings or folders is said in one paragraph that names it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import Image

from classroom.data import phantom, sources
from classroom.errors import DataError
from classroom.params import Dataset, Phantom

TINY = Phantom(patients=2, slices=3, size=32, seed=0)
CASE = "kaggle_3m/PHANTOM_0001"
IMAGE = f"{CASE}/PHANTOM_0001_2.tif"
MASK = f"{CASE}/PHANTOM_0001_2_mask.tif"


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """A valid folder of the user's, in the layout of the Kaggle download."""
    folder = tmp_path / "my downloads"
    phantom.write(folder, TINY)
    return folder


def fetch(directory: Path, target: Path) -> int:
    settings = Dataset(reader="lgg", source="directory", directory=str(directory), kaggle="x/y", phantom=TINY)
    return sources.fetch("lgg", settings, target)


# --- a folder of the user's that does not fit ---


def without(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def rename(before: str, after: str) -> Callable[[Path], None]:
    return lambda folder: (folder / before).rename(folder / after)


def repixel(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Writes the file at `path` anew, with other pixels."""

    def damage(folder: Path) -> None:
        pixels = change(tifffile.imread(folder / path))
        photometric = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(folder / path, pixels, photometric=photometric)

    return damage


def cut(path: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: int(len(content) * share)])

    return damage


def as_png(path: str) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(tifffile.imread(folder / path)).save(folder / path, format="PNG")


def add_pair(name: str, like: str = "PHANTOM_0000_1", case: str = "PHANTOM_0001") -> Callable[[Path], None]:
    """Copies an image with its mask to another name."""

    def damage(folder: Path) -> None:
        origin, target = folder / "kaggle_3m" / like.rsplit("_", 1)[0], folder / "kaggle_3m" / case
        for ending in (".tif", "_mask.tif"):
            shutil.copy(origin / f"{like}{ending}", target / f"{name}{ending}")

    return damage


def both_misnamed(folder: Path) -> None:
    rename(IMAGE, f"{CASE}/PHANTOM_0001_two.tif")(folder)
    rename(MASK, f"{CASE}/PHANTOM_0001_two_mask.tif")(folder)


def with_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(mask: np.ndarray) -> np.ndarray:
        mask[3, 4] = value
        return mask

    return change


CASES = {
    # name: (damage, the file that is named, what is said of it)
    "image without mask": (without(MASK), IMAGE, r"an image without a mask\. Expected PHANTOM_0001_2_mask\.tif beside"),
    "mask without image": (without(IMAGE), MASK, r"a mask without its image\. Expected the image beside it"),
    "mask of another size": (
        repixel(MASK, lambda mask: np.kron(mask, np.ones((1, 2), np.uint8))),
        MASK,
        r"the mask is 64×32 pixels, its image 32×32\. Expected the same size",
    ),
    "mask turned": (
        lambda folder: (repixel(IMAGE, lambda a: a[:20])(folder), repixel(MASK, lambda a: a[:, :20])(folder)),
        MASK,
        r"the mask is 20×32 pixels, its image 32×20\. Expected the same size",
    ),
    "image truncated within its header": (cut(IMAGE, 0.02), IMAGE, r"cannot be read as TIFF .*damaged; fetch it again"),
    "image truncated within its pixels": (cut(IMAGE, 0.7), IMAGE, r"cannot be read as TIFF .*damaged; fetch it again"),
    "mask truncated": (cut(MASK, 0.9), MASK, r"cannot be read as TIFF .*damaged; fetch it again"),
    "image of no bytes": (cut(IMAGE, 0), IMAGE, r"cannot be read as TIFF .*damaged; fetch it again"),
    "image that is a PNG": (as_png(IMAGE), IMAGE, r"cannot be read as TIFF .*not a TIFF"),
    "image that is text": (
        lambda folder: (folder / IMAGE).write_text("<html>Please log in</html>"),
        IMAGE,
        r"cannot be read as TIFF .*not a TIFF",
    ),
    "grey image": (
        repixel(IMAGE, lambda image: image[..., 1]),
        IMAGE,
        r"expected 8-bit pixels in three channels, found uint8 of shape \(32, 32\)",
    ),
    "image with transparency": (
        repixel(IMAGE, lambda image: np.concatenate([image, image[..., :1]], axis=2)),
        IMAGE,
        r"expected 8-bit pixels in three channels, found uint8 of shape \(32, 32, 4\)",
    ),
    "16-bit image": (
        repixel(IMAGE, lambda image: image.astype(np.uint16) * 257),
        IMAGE,
        r"expected 8-bit pixels in three channels, found uint16 of shape \(32, 32, 3\)",
    ),
    "colour mask": (
        repixel(MASK, lambda mask: np.stack([mask] * 3, axis=2)),
        MASK,
        r"expected an 8-bit mask in one channel, found uint8 of shape \(32, 32, 3\)",
    ),
    "16-bit mask": (
        repixel(MASK, lambda mask: mask.astype(np.uint16)),
        MASK,
        r"expected an 8-bit mask in one channel, found uint16 of shape \(32, 32\)",
    ),
    "mask of ones": (
        repixel(MASK, with_value(1)),
        MASK,
        r"expected mask values 0 and 255 only, found \[0, 1(, 255)?\]",
    ),
    "mask with soft edges": (
        repixel(MASK, with_value(127)),
        MASK,
        r"expected mask values 0 and 255 only, found \[0, 127(, 255)?\]",
    ),
    "duplicate in another patient": (
        add_pair("PHANTOM_0001_9"),
        f"{CASE}/PHANTOM_0001_9.tif",
        r"the same image as .*my downloads/kaggle_3m/PHANTOM_0000/PHANTOM_0000_1\.tif\. Each image must occur once",
    ),
    "duplicate in the same patient": (
        add_pair("PHANTOM_0001_9", like="PHANTOM_0001_2"),
        f"{CASE}/PHANTOM_0001_9.tif",
        r"the same image as .*my downloads/kaggle_3m/PHANTOM_0001/PHANTOM_0001_2\.tif\. Each image must occur once",
    ),
    "name without a number": (
        both_misnamed,
        f"{CASE}/PHANTOM_0001_two.tif",
        r"expected a name of the form PHANTOM_0001_<number>\.tif",
    ),
    "name of another patient": (
        add_pair("PHANTOM_0000_1"),
        f"{CASE}/PHANTOM_0000_1.tif",
        r"expected a name of the form PHANTOM_0001_<number>\.tif",
    ),
    "link to nowhere": (
        lambda folder: ((folder / IMAGE).unlink(), (folder / IMAGE).symlink_to("annex/objects/gone")),
        IMAGE,
        r"cannot be copied \(No such file or directory\)",
    ),
    "mask misnamed": (
        rename(MASK, f"{CASE}/PHANTOM_0001_2-mask.tif"),
        f"{CASE}/PHANTOM_0001_2(-mask)?.tif",
        r"an image without a mask",
    ),
}


def test_the_undamaged_folder_is_accepted(download, tmp_path):
    assert fetch(download, tmp_path / "data" / "raw" / "lgg") == 6


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_folder_is_refused_by_the_name_of_the_users_file(download, tmp_path, case):
    """The user must find the file: a path of our temporary copy would be gone by then."""
    damage, named, said = CASES[case]
    damage(download)
    target = tmp_path / "data" / "raw" / "lgg"
    named = named.replace(".tif", r"\.tif")
    with pytest.raises(DataError, match=rf"^{re.escape(str(download))}/{named}: {said}") as caught:
        fetch(download, target)
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_damaged_folder_leaves_what_was_fetched_before(download, tmp_path):
    target = tmp_path / "data" / "raw" / "lgg"
    fetch(download, target)
    before = {path: path.read_bytes() for path in target.rglob("*.tif")}
    cut(IMAGE, 0.5)(download)
    with pytest.raises(DataError, match="cannot be read as TIFF"):
        fetch(download, target)
    assert {path: path.read_bytes() for path in target.rglob("*.tif")} == before
    assert [path.name for path in target.parent.iterdir()] == ["lgg"]


@pytest.mark.parametrize("inside", [[], ["kaggle_3m"], ["kaggle_3m/PHANTOM_0000"], ["images", "masks"]])
def test_a_folder_without_the_dataset_is_named_with_the_layout_that_was_expected(tmp_path, inside):
    folder = tmp_path / "empty"
    folder.mkdir()
    for name in inside:
        (folder / name).mkdir(parents=True)
    target = tmp_path / "data" / "lgg"
    message = rf"^{re.escape(str(folder))}: no LGG dataset here\. Expected kaggle_3m/<case>/<case>_<n>\.tif beside"
    with pytest.raises(DataError, match=message):
        fetch(folder, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_missing_folder_is_named_with_its_key(tmp_path, kind):
    folder = tmp_path / "downloads"
    if kind == "a file":
        folder.write_text("an archive, perhaps")
    target = tmp_path / "data" / "lgg"
    message = rf"^params\.yaml: dataset\.lgg\.directory: no such folder: {re.escape(str(folder))}\. Expected the folder"
    with pytest.raises(DataError, match=message):
        fetch(folder, target)
    assert list(target.parent.iterdir()) == []


# --- the command line ---


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's root with nothing but the committed settings, free to edit."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    return root


def edit(project: Path, before: str, after: str) -> None:
    text = (project / "params.yaml").read_text()
    assert before in text  # or the case would test nothing
    (project / "params.yaml").write_text(text.replace(before, after, 1))


def classroom(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, as a user runs it."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "classroom"), *arguments],
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def misspelt_key(project: Path) -> None:
    edit(project, "patients: 60", "patient: 60")


def unknown_source(project: Path) -> None:
    edit(project, "source: phantom", "source: phantoms")


def missing_directory(project: Path) -> None:
    edit(project, "source: phantom", "source: directory")


def damaged_image(project: Path) -> None:
    missing_directory(project)
    phantom.write(project / "data" / "downloads" / "lgg", TINY)
    cut(IMAGE, 0.5)(project / "data" / "downloads" / "lgg")


def unknown_variant(project: Path) -> None:
    edit(project, "joint: [ml-v1,", "joint: [ml-v11,")


def encoder_in_brackets(project: Path) -> None:
    edit(project, "encoder: tu-resnet50", "encoder: [tu-resnet50]")


def file_for_a_folder(project: Path) -> None:
    (project / "data").write_text("permissions would not stop the superuser")


def file_for_the_output(project: Path) -> None:
    (project / "data" / "raw").mkdir(parents=True)
    (project / "data" / "raw" / "lgg").write_text("a download that went astray")


def no_settings(project: Path) -> None:
    (project / "params.yaml").unlink()


def nothing(project: Path) -> None:
    pass


COMMANDS = {
    # name: (command, what is done to the project before, what the command says)
    "misspelt key": (
        "fetch lgg",
        misspelt_key,
        r"params\.yaml: key 'dataset\.lgg\.phantom\.patients' is missing; "
        r"unknown key 'dataset\.lgg\.phantom\.patient'\. Did you mean 'patients'\?",
    ),
    "unknown source": (
        "fetch lgg",
        unknown_source,
        r"params\.yaml: dataset\.lgg\.source: should be 'phantom', 'directory' or 'kaggle', not 'phantoms'",
    ),
    "unknown dataset": (
        "fetch lgq",
        nothing,
        r"params\.yaml: key 'dataset\.lgq' is missing at dataset\. Did you mean 'lgg'\?",
    ),
    "no params.yaml": (
        "fetch lgg",
        no_settings,
        r"params\.yaml: no such file\. Commands run in the project's root, where params\.yaml lies\.",
    ),
    "no such directory": (
        "fetch lgg",
        missing_directory,
        r"params\.yaml: dataset\.lgg\.directory: no such folder: data/downloads/lgg\. Expected .*",
    ),
    "damaged image": (
        "fetch lgg",
        damaged_image,
        r"data/downloads/lgg/kaggle_3m/PHANTOM_0001/PHANTOM_0001_2\.tif: cannot be read as TIFF .*",
    ),
    "output cannot be written": (
        "fetch lgg",
        file_for_a_folder,
        r"data/raw/lgg: cannot be written \(.*\)\. Mend the folder's permissions or free space\.",
    ),
    "nothing fetched": ("prepare lgg-resnet18", nothing, r"data/raw/lgg: no LGG dataset here\. .*"),
    "file where the output belongs": (
        "fetch lgg",
        file_for_the_output,
        r"data/raw/lgg: a file lies where a folder is needed\. Move it away and run again\.",
    ),
    "nothing prepared": (
        "train lgg-resnet18 ml-v1 --seed 0",
        nothing,
        r"data/prepared/lgg-resnet18, data/splits/lgg-resnet18\.parquet: cannot be read .*"
        r"Run `classroom prepare` and `classroom split` for this study again\.",
    ),
    "unknown study": (
        "prepare lgg-resnet81",
        nothing,
        r"params\.yaml: key 'study\.lgg-resnet81\.dataset' is missing at study\. Did you mean 'lgg-resnet18'\?",
    ),
    "unknown method": (
        "train lgg-resnet18 kd_mll-v3 --seed 0",
        nothing,
        r"unknown method 'kd_mll-v3'\. Did you mean 'kd_ml-v3'\?",
    ),
    "unknown variant": (
        "check",
        unknown_variant,
        r"params\.yaml: variants\.joint: unknown variant 'ml-v11'\. Did you mean 'ml-v1'\?",
    ),
    "value of another type": (
        "check",
        encoder_in_brackets,
        r"params\.yaml: study\.lgg-resnet18\.teacher\.encoder: should be a valid string, not \['tu-resnet50'\]",
    ),
    "nothing to split": (
        "split lgg-resnet18",
        nothing,
        r"data/prepared/lgg-resnet18/index\.parquet: cannot be read .*Run `classroom prepare` for this study again\.",
    ),
    "unknown table": (
        "table tables4",
        nothing,
        r"params\.yaml: key 'tables\.tables4' is missing at tables\. Did you mean 'table4'\?",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_run_says_why_in_one_paragraph(project, case):
    """No traceback, and an exit code by which Snakemake and DVC know that the job failed."""
    command, spoil, said = COMMANDS[case]
    spoil(project)
    done = classroom(project, *command.split())
    assert re.fullmatch(rf"Error: {said}\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (1, "")


def test_a_command_that_can_run_says_what_it_made(project):
    edit(project, "patients: 60, slices: 5", "patients: 2, slices: 1")
    done = classroom(project, "fetch", "lgg")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "data/raw/lgg: 2 images with masks, all valid (phantom)\n"
    assert len(list((project / "data" / "raw" / "lgg").rglob("*.tif"))) == 4
