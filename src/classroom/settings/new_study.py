"""`classroom new-study`: the files of a dataset and a study from a folder or table of images."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from classroom.artifacts import SPLIT_NAMES, conversions
from classroom.data.fetching.sources import Pixels, check_foreground, check_pixels, look
from classroom.data.prepare import FOREGROUND
from classroom.data.readers import Found, check_options, for_task, reader
from classroom.data.split import BY_IMAGE, assign, check_given
from classroom.errors import ClassroomError, DataError, ParamsError, counted, listed, suggestion
from classroom.params import FOLDERS, NAME_RULE, Dataset, Network, Split, is_name, load, select
from classroom.settings.checks import check, check_all
from classroom.settings.overlays import add_study

OPTIONS = {
    "ignore": "--ignore '*.txt'",
    "foreground": "--foreground 1,2",
    "missing_masks": "--missing-masks empty",
    "group": "--group REGEX",
}
"""By setting, as messages name it, the option of `classroom new-study`."""

LIKE = {"segmentation": "lgg-resnet18", "classification": "histopathologic-resnet18"}
"""By task, the study whose networks and weights are taken unless another one is named."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    name: str
    images: Path | None = None
    masks: Path | None = None
    table: Path | None = None
    reader: str = ""
    task: str = ""
    group: str = ""
    foreground: tuple[int | str, ...] = ()
    missing_masks: str = "refuse"
    ignore: tuple[str, ...] = ()
    like: str = ""
    teacher: str = ""
    student: str = ""
    size: int | None = None
    percent: tuple[int, int, int] = (75, 10, 15)
    by_image: bool = False
    """Whether to split by image although groups are known."""
    keep: bool = False
    """Whether the active studies stay active."""


def numbers(text: str) -> tuple[int | str, ...]:
    """`1,2,128-255,#ff0000` as a list of `foreground`."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def percentages(text: str) -> tuple[int, int, int]:
    """`75:10:15` as three numbers. Raises ParamsError for anything else."""
    parts = [int(part) for part in text.split(":") if part.isdecimal()]
    if len(parts) != 3 or sum(parts) != 100 or min(parts) < 1:
        raise ParamsError(
            f"--split {text}: expected three percentages that sum to 100, such as 75:10:15, or the word image."
        )
    return parts[0], parts[1], parts[2]


def new_study(wanted: Wanted, params: Path = Path("params.yaml")) -> list[str]:
    """Writes datasets/NAME.yaml and studies/NAME.yaml and activates the study, after reading every image.

    Returns what was found and what was written, a line each. Raises ClassroomError if the images, or the settings that
    follow from them, cannot be used; no file was changed then.
    """
    raw = load(params)
    _check_name(wanted.name, raw)
    content = _dataset(wanted)
    with _options_named():
        dataset = _valid(wanted, content, params)
        check_options(wanted.name, dataset)
        found = look(wanted.name, dataset)
        task = _task(wanted, found)
        samples = for_task(found.samples, task, dataset.missing_masks)
        found, without = replace(found, samples=samples), len(found.samples) - len(samples)
        if not hasattr(reader(dataset.reader), "CLASSES") and (labels := _labels(found)):
            content["classes"] = _flow(labels)
        content["full_size"] = len(found.samples)
        dataset = _valid(wanted, content, params)
        if task == "classification":
            _check_labels(wanted, found)
        like, of = _like(wanted, task, raw, params)
        study = _study(wanted, task, of, shown=raw["ours"] in (*raw["variants"]["joint"], *raw["variants"]["offline"]))
        _try(wanted, content, study, params)  # networks are refused before minutes of reading
        pixels = check_pixels(wanted.name, dataset, found.samples)
        if task == "segmentation":
            check_foreground(wanted.table or wanted.images, found.samples, pixels)
        split = _split(wanted, found, pixels, task, raw["training"]["batch_size"])
    study["split"] = _flow(split.model_dump(mode="json"))
    add_study(wanted.name, content, study, wanted.keep, params)
    active = ", ".join(load(params)["studies"])
    return [
        *_described(wanted, dataset, found, pixels, task, without),
        _split_line(split, found),
        f"networks: those of studies/{like}.yaml, scale {raw['scale']}: teacher {study['teacher']['encoder']}, "
        f"student {study['student']['encoder']}, {study['image_size']} pixels",
        f"written: datasets/{wanted.name}.yaml, studies/{wanted.name}.yaml; active studies: {active}",
    ]


@contextmanager
def _options_named() -> Iterator[None]:
    """Adds to an error which option gives the setting that it speaks of."""
    try:
        yield
    except ClassroomError as error:
        text = str(error)
        options = [option for setting, option in OPTIONS.items() if re.search(rf"\b{setting}\b", text)]
        if percent := re.search(r"\[(\d+), (\d+), (\d+)\] needs", text):
            options.append(f"--split {':'.join(percent.groups())}")
        if BY_IMAGE in text:
            options.append("--split image")
        here = f" As options: {', '.join(options)}." if options else ""
        raise type(error)(f"{text.rstrip('.')}. Nothing was written.{here}") from None


def _check_name(name: str, raw: Mapping[str, Any]) -> None:
    if not is_name(name):
        raise ParamsError(f"'{name}' is not a valid name for a study: {NAME_RULE}.")
    if re.fullmatch(r"(table|figure)\d+", name):
        raise ParamsError(
            f"'{name}' is a report of the paper, whose values would be shown next to yours. Choose another name."
        )
    if taken := [f"{folder}/{name}.yaml" for folder, block in FOLDERS.items() if name in raw[block]]:
        raise ParamsError(f"{' and '.join(taken)}: exists already. Choose another name, or remove the file first.")


def _dataset(wanted: Wanted) -> CommentedMap:
    """The content of the dataset's file, without what only the images tell."""
    ways = [option for option in ("images", "table") if getattr(wanted, option)]
    if len(ways) != 1:
        raise ParamsError("expected either --images DIR or --table FILE.")
    if wanted.masks and not wanted.images:
        raise ParamsError("--masks needs --images; in a table, the column mask lists the masks.")
    for option in ("images", "masks"):
        if (path := getattr(wanted, option)) and not path.is_dir():
            raise ParamsError(f"--{option} {path}: no such folder.")
    if wanted.table and not wanted.table.is_file():
        raise ParamsError(f"--table {wanted.table}: no such file.")
    content = CommentedMap(reader=wanted.reader or ("table" if wanted.table else "folders"), source="directory")
    if wanted.table:
        content |= {"directory": str(wanted.table.parent), "table": wanted.table.name}
    elif wanted.masks:
        both = [str(wanted.images), str(wanted.masks)]
        common = os.path.commonpath(
            both if len({Path(path).is_absolute() for path in both}) == 1 else map(os.path.abspath, both)
        )
        content["directory"] = common or "."
        for option, path in zip(("images", "masks"), both, strict=True):
            content[option] = Path(os.path.relpath(path, common or ".")).as_posix()
    else:
        content["directory"] = str(wanted.images)
    if wanted.group:
        content["group"] = wanted.group
    if wanted.missing_masks != "refuse":
        content["missing_masks"] = wanted.missing_masks
    if wanted.foreground:
        content["foreground"] = _flow(wanted.foreground)
    if wanted.ignore:
        content["ignore"] = _flow(wanted.ignore)
    content |= {"full_size": 1, "origin": "", "licence": "", "citation": ""}
    content.yaml_set_comment_before_after_key("origin", before="shown in the cards of exported models")
    return content


def _valid(wanted: Wanted, content: CommentedMap, params: Path) -> Dataset:
    return select({"dataset": {wanted.name: content}}, f"dataset.{wanted.name}", Dataset, params)


def _task(wanted: Wanted, found: Found) -> str:
    masks = sum(sample.mask is not None for sample in found.samples)
    labels = sum(sample.label is not None for sample in found.samples)
    possible = [task for task, count in (("segmentation", masks), ("classification", labels)) if count]
    if wanted.task:
        if wanted.task not in LIKE:
            raise ParamsError(f"--task {wanted.task}: expected {' or '.join(LIKE)}.")
        if wanted.task not in possible:
            needed = {"segmentation": "masks (--masks, or a table's column mask)", "classification": "labels"}
            raise ParamsError(f"--task {wanted.task}: needs {needed[wanted.task]}, and the images have none.")
        return wanted.task
    if not possible:
        raise ParamsError(f"{wanted.table or wanted.images}: no image has a mask or a label. Expected some with one.")
    return "classification" if labels == len(found.samples) and masks < labels else possible[0]


def _labels(found: Found) -> list[str]:
    return sorted({sample.label for sample in found.samples if sample.label is not None}, key=_naturally)


def _naturally(label: str) -> tuple[bool, float, str]:
    """Numbers by value, before words."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _check_labels(wanted: Wanted, found: Found) -> None:
    if len(labels := _labels(found)) < 2:
        where = wanted.table or wanted.images
        raise ParamsError(
            f"{where}: all {len(found.samples)} images are of one class, {listed(labels)}. Classification needs two or "
            "more: expected a folder for each, or different values in the column label. To use masks, name their "
            "folder with --masks."
        )


def _split(wanted: Wanted, found: Found, pixels: Pixels, task: str, batch: int) -> Split:
    """How the images are split.

    Raises DataError if they cannot be, or training gets fewer than a `batch` of them.
    """
    labels = [sample.label for sample in found.samples]
    if task == "segmentation":
        labels = [FOREGROUND[not some] for some in pixels.has_foreground]
    index = pd.DataFrame({"id": "", "group": [sample.group for sample in found.samples], "label": labels})
    if any(sample.split for sample in found.samples):
        index["split"] = [sample.split for sample in found.samples]
        check_given(index)
        share = 100 * index.split.value_counts(normalize=True)  # what `percent` says then matters to nobody
        val = min(98, max(1, round(share["val"])))
        test = min(99 - val, max(1, round(share["test"])))
        split = Split(percent=(100 - val - test, val, test), by="given", seed=0)
    else:
        by_image = wanted.by_image or found.group == "image"
        split = Split(percent=wanted.percent, by="image" if by_image else "group", seed=0)
        index["split"] = assign(index, split)
    if (training := int((index.split == "train").sum())) < batch:
        raise DataError(
            f"only {counted(training, 'image')} for training, fewer than one batch: params.yaml has "
            f"training.batch_size {batch}. Lower it, or use more images."
        )
    return split


def _like(wanted: Wanted, task: str, raw: Mapping[str, Any], params: Path) -> tuple[str, Mapping[str, Any]]:
    """The study to follow: the one named, else the paper's, else the first of the task."""
    studies = {name: of for name, of in raw["study"].items() if isinstance(of, Mapping)}
    of_task = [name for name, of in studies.items() if of.get("task") == task]
    if wanted.like and wanted.like not in studies:
        raise ParamsError(f"--like {wanted.like}: unknown study.{suggestion(wanted.like, of_task)}")
    if wanted.like and wanted.like not in of_task:
        raise ParamsError(f"--like {wanted.like}: is a study of another task than {task}.{suggestion('', of_task)}")
    name = wanted.like or next((name for name in (LIKE[task], *of_task) if name in of_task), "")
    if not name:
        raise ParamsError(
            f"studies/: no study of {task} to take networks and weights from. Restore one, such as {LIKE[task]}."
        )
    check({**raw, "studies": [name]}, params)
    return name, studies[name]


def _study(wanted: Wanted, task: str, like: Mapping[str, Any], shown: bool) -> CommentedMap:
    """The content of the study's file, split by group, of which nothing is known, until the images are.

    `shown`: the variant whose masks samples show is trained.
    """
    size = wanted.size or like["image_size"]
    networks = {role: dict(like[role]) for role in ("teacher", "student")}
    for role, encoder in (("teacher", wanted.teacher), ("student", wanted.student)):
        if encoder:
            networks[role] |= {"encoder": encoder, "encoder_options": {}}
    if task == "classification" and (wanted.teacher or wanted.student):
        _join(networks, task, size)
    name = wanted.name
    reports: dict[str, Any] = {
        "variants": name,
        **{kind: f"{kind}-{name}" for kind in ("baselines", "fidelity", "architecture")},
    }
    if task == "segmentation" and shown:
        reports["samples"] = True
    study = CommentedMap(
        dataset=name,
        task=task,
        image_size=size,
        split=_flow(Split(percent=wanted.percent, by="group", seed=0).model_dump(mode="json")),
        balance=like["balance"] if task == "classification" else "none",
        reports=CommentedMap(reports),
    )
    for role, network in networks.items():
        study[role] = CommentedMap({key: _flow(value) for key, value in network.items()})
    study["weights"] = CommentedMap({variant: _flow(of) for variant, of in like["weights"].items()})
    return study


def _join(networks: dict[str, dict[str, Any]], task: str, size: int) -> None:
    """Gives the teacher a Conv6 to its student's width, if their last feature maps differ."""
    from classroom.core.networks.build import feature_channels

    networks["teacher"].pop("conv6_channels", None)
    widths = {role: feature_channels(Network.model_validate(of), task, size) for role, of in networks.items()}
    if widths["teacher"] != widths["student"]:
        networks["teacher"]["conv6_channels"] = widths["student"]


def _try(wanted: Wanted, dataset: CommentedMap, study: CommentedMap, params: Path) -> None:
    """Adds the study to a copy of all settings and checks them as `classroom check` does."""
    with tempfile.TemporaryDirectory() as folder:
        for name in FOLDERS:
            shutil.copytree(params.parent / name, Path(folder, name))
        copy = Path(shutil.copy(params, folder))
        try:
            add_study(wanted.name, dataset, study, False, copy)
            check_all(copy)
        except ParamsError as error:
            raise ParamsError(f"{wanted.name}: {str(error).replace(f'{folder}/', '')}") from None


def _described(wanted: Wanted, dataset: Dataset, found: Found, pixels: Pixels, task: str, without: int) -> list[str]:
    """What was found, a line for each kind of fact; `without`: images that lack what the task needs."""
    samples = found.samples
    masks = sum(sample.mask is not None for sample in samples)
    where = wanted.table or wanted.images
    lines = [f"found: {counted(len(samples), 'image')}" + (f", {masks} with a mask," if masks else "") + f" in {where}"]
    if not wanted.task and masks and any(sample.label is not None for sample in samples):
        used, other = ("masks", "labels") if task == "segmentation" else ("labels", "masks")
        instead = next(one for one in LIKE if one != task)
        lines.append(f"task: {task}, from the {used}; the {other} are not used (--task {instead} uses them)")
    if unused := found.unused_columns():
        lines.append(unused)
    if without:
        lacking = "mask" if task == "segmentation" else "label"
        lines.append(f"left out: {counted(without, 'image')} without a {lacking}, which {task} needs")
    sizes = [f"{width}×{height} ({count})" for (width, height), count in pixels.sizes.most_common()]
    lines.append(f"sizes: {listed(sizes, 3)}")
    kinds_of = {what: dict(kinds) for what, kinds in pixels.converted.items()}
    if squeezed := sum(count for (width, height), count in pixels.sizes.items() if width != height):
        kinds_of["images"]["not square, squeezed to a square"] = squeezed
    converted = conversions({what: kinds for what, kinds in kinds_of.items() if kinds})
    lines.append(f"converted: {converted}" if converted else "converted: nothing, all images are 8-bit RGB")
    if task == "segmentation":
        marked = sum(pixels.has_foreground)
        foreground = ", ".join(map(str, pixels.foreground)) or "nothing"
        lines.append(
            f"masks: foreground is {foreground}; {counted(marked, 'image')} {'has' if marked == 1 else 'have'} some, "
            f"{len(samples) - marked} none; "
            f"{100 * pixels.foreground_share:.1f} % of all pixels"
        )
    else:
        count = Counter(sample.label for sample in samples)
        lines.append(f"classes: {listed((f'{label} ({count[label]})' for label in dataset.classes or count), 20)}")
    groups = {sample.group for sample in samples}
    if found.group == "image":
        lines.append(
            "groups: none known. Warning: if several images show one patient, they may be in both training and test, "
            "and the results look better than they are. Name the patients with --group REGEX, or in a table's column "
            "group"
        )
    else:
        lines.append(f"groups: {counted(len(groups), found.group)}, such as {listed(sorted(groups), 3)}")
    return lines


def _split_line(split: Split, found: Found) -> str:
    if split.by == "given":
        count = Counter(sample.split for sample in found.samples)
        return "split: as given by the table: " + ", ".join(f"{count[name]} {name}" for name in SPLIT_NAMES)
    by = found.group if split.by == "group" else "image"
    return f"split: {':'.join(map(str, split.percent))} by {by}, stratified"


def _flow(value: Any) -> Any:
    """The same value, which YAML will write in one line."""
    if isinstance(value, Mapping):
        node: Any = CommentedMap({key: _flow(of) for key, of in value.items()})
    elif isinstance(value, (list, tuple)):
        node = CommentedSeq(map(_flow, value))
    else:
        return value
    node.fa.set_flow_style()
    return node
