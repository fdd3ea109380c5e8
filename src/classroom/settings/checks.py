"""All that can be checked before any job starts."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classroom import params as settings
from classroom.data.readers import check_options, classes_of, folder_of, has_masks
from classroom.errors import ParamsError, TrainingError, counted, suggestion
from classroom.files import content_hash
from classroom.methods import registry
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import BASELINES, MAX_MISTAKES, TASKS, Dataset, Network, Params, Study, load, select, warn_of_sum
from classroom.state import Cache

log = logging.getLogger(__name__)


def check_all(path: Path = Path("params.yaml")) -> Params:
    """Validates all settings, and that every method asked for can train its networks.

    Raises ParamsError. Warns of students' weights that do not sum to 1, and of searches in an unknown study.
    """
    raw = load(path)
    params = check(raw, path)
    for key, names in [
        ("grid.studies", params.grid.studies),
        *((f"tune.{task}.studies", getattr(params.tune, task).studies) for task in TASKS),
    ]:
        for name in names:
            if name not in raw["study"]:
                warnings.warn(
                    f"{path}: {key}: '{name}' has no file studies/{name}.yaml, so nothing is searched there."
                    f"{suggestion(name, raw['study'])}",
                    stacklevel=2,
                )
    for name, dataset in params.dataset.items():
        check_options(name, dataset)
    _check_ground_truth(params)
    _check_batches(params)
    _check_training(params)
    for study in params.studies:
        for variant in params.trained_variants:
            warn_of_sum(params.study[study].weights[variant], f"study.{study}.weights.{variant}", path)
    return params


def check(raw: Mapping[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Validates all settings (`classroom.params.load`) of the active studies.

    Raises ParamsError naming the file and key of each mistake, and what was expected.
    """
    params = settings.check(raw, path)
    if mistakes := list(_mistakes_in_methods(params, raw, path)):
        more = len(mistakes) - MAX_MISTAKES
        shown = [*mistakes[:MAX_MISTAKES], *([f"and {more} more mistake{'s' if more > 1 else ''}"] if more > 0 else [])]
        raise ParamsError("; ".join(shown))
    return params


def _mistakes_in_methods(params: Params, raw: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Published methods that there are not, and settings that they do not have."""
    for name, study in params.study.items():
        known = registry.published(study.task)
        file = path.parent / "studies" / f"{name}.yaml"
        for method, of in study.methods.items():
            if method not in known:
                yield f"{file}: methods: '{method}' is not a method for {study.task}.{suggestion(method, known)}"
                continue
            if wrong := known[method].wrong_terms(of.weights.terms):
                yield f"{file}: methods.{method}.weights: {wrong}"
            try:
                select(raw, f"study.{name}.methods.{method}.options", known[method], path)
            except ParamsError as error:
                yield str(error)
    for task in TASKS:
        known, tuned = registry.published(task), getattr(params.tune, task)
        for key, methods, studies in (
            (f"comparison.{task}", getattr(params.comparison, task), params.compared_studies(task)),
            (f"tune.{task}.methods", tuned.methods, params.tuned_studies(task)),
        ):
            for name in studies:
                if missing := [of for of in methods if of in known and of not in params.study[name].methods]:
                    file = path.parent / "studies" / f"{name}.yaml"
                    entries = ", ".join(
                        f"{of}: {{options: {{}}, weights: {_flow(known[of].weights)}}}" for of in missing
                    )
                    yield f"{file}: methods lacks an entry for methods that {key} lists. Add: {entries}"
            for method in methods:
                if method not in known:
                    elsewhere = " It belongs to the other task." if registry.is_published(method) else ""
                    yield (
                        f"{path}: {key}: unknown method '{method}'.{elsewhere or suggestion(method, known)} "
                        f"Known: {', '.join(known)}."
                    )
                    continue
                if studies and params.training.batch_size < known[method].min_batch:
                    yield (
                        f"{path}: training.batch_size: {params.training.batch_size} is too small for {method} ({key}), "
                        f"which compares the images of a batch. Set it to {known[method].min_batch} or more, or leave "
                        f"{method} out."
                    )


def _flow(weights: Mapping[str, float]) -> str:
    """As YAML in one line."""
    return "{" + ", ".join(f"{term}: {value}" for term, value in weights.items()) + "}"


def check_source(name: str, dataset: Dataset) -> None:
    """Raises ParamsError if the folder of a dataset that is still to be fetched is not there."""
    if dataset.source == "directory" and not Path("data/raw", name).exists():
        folder_of(name, dataset)


def _check_ground_truth(params: Params) -> None:
    """Raises ParamsError for classification of datasets without classes, and segmentation of some without masks."""
    mistakes = []
    for name, study in params.study.items():
        dataset = params.dataset[study.dataset]
        if study.task == "classification" and len(classes := classes_of(dataset)) < 2:
            mistakes.append(
                f"studies/{name}.yaml: task: classification needs a dataset with two classes or more, and "
                f"'{study.dataset}' has {len(classes)}. Name them under classes in datasets/{study.dataset}.yaml, or "
                "set task to segmentation."
            )
        if study.task == "segmentation" and not has_masks(dataset):
            mistakes.append(
                f"studies/{name}.yaml: task: segmentation needs a dataset with masks, and '{study.dataset}' (reader "
                f"{dataset.reader}) has none. Name their folder under masks in a dataset with the reader folders, use "
                "another dataset, or set task to classification."
            )
    if mistakes:
        raise ParamsError(" ".join(mistakes))


def _check_batches(params: Params) -> None:
    """Raises ParamsError for studies whose images, as far as the settings tell, cannot fill a batch of training.

    A training drops an incomplete batch, and would refuse to start once the images are fetched and split.
    """
    batch, mistakes = params.training.batch_size, []
    for name in params.studies:
        study = params.study[name]
        dataset = params.dataset[study.dataset]
        images, key = dataset.size
        images = min(images, dataset.subset or images)
        training = math.ceil(images * study.split.percent[0] / 100)
        if study.split.by == "group" and dataset.source == "synthetic":  # each split is its percentage, within a group
            assert dataset.synthetic is not None  # validated by Dataset
            training += dataset.synthetic.images_per_group - 1
        elif study.split.by != "image":
            training = images
        training = min(training, max(images - 2, 0))  # one image each is for validation and test
        if study.balance != "none":  # rounds the images of each class
            training += len(classes_of(dataset)) // 2
        if training < batch:
            mistakes.append(
                f"studies/{name}.yaml: split leaves at most {counted(training, 'image')} for training, of the {images} "
                f"in datasets/{study.dataset}.yaml ({'subset' if images == dataset.subset else key}), fewer than one "
                f"batch: params.yaml has training.batch_size {batch}. Lower it, or use more images."
            )
    if mistakes:
        raise ParamsError(" ".join(mistakes))


def _check_training(params: Params) -> None:
    """Builds the networks of every study and passes a batch through all its methods, on torch's meta device.

    What could be trained is remembered, as asking takes seconds. Raises ParamsError with all that cannot, before
    anything is trained: a method's job comes after the teacher's, hours later at the paper's scale.
    """
    remembered = Cache("trained")
    versions = [version(library) for library in ("timm", "segmentation-models-pytorch", "torch")]
    if not remembered.facts:
        log.info("Checking that every method fits its networks. This takes a few seconds; the result is remembered.")
    raw = params.model_dump(mode="json", by_alias=True)
    mistakes = []
    for name in params.studies:
        networks = _mistakes_in_networks(params.study[name], Path("runs", name).exists(), remembered, versions)
        wrong = [f"studies/{name}.yaml: {mistake}" for mistake in networks]
        if not wrong:
            wrong = _untrainable(params, raw, name, remembered, versions)
        mistakes += wrong
    remembered.save()
    if mistakes:
        raise ParamsError("; ".join(mistakes))


def _mistakes_in_networks(study: Study, trained: bool, remembered: Cache, versions: list[str]) -> Iterator[str]:
    """`trained`: whether the study has runs, whose networks do not need the weights that they started from."""
    channels = {}
    for role in ("teacher", "student"):
        network: Network = getattr(study, role)
        if network.file and not network.file.exists() and not trained:
            yield f"{role}.weights: there is no file {network.weights}. Expected a .safetensors file of the encoder."
        key = json.dumps([study.task, study.image_size, network.model_dump(mode="json")], sort_keys=True)
        if (known := remembered.get(key, versions)) is None:
            from classroom.core.networks.build import feature_channels
            from classroom.core.networks.weights import check_hub

            try:
                known = feature_channels(network, study.task, study.image_size)
                check_hub(network, study.task)
            except ParamsError as error:
                where = "" if str(error).startswith("encoder_options: ") else "encoder: "
                yield f"{role}.{where}{error}"
                continue
            remembered.put(key, versions, known)
        channels[role] = known
    if len(set(channels.values())) > 1:
        yield (
            f"teacher and student share feature maps, which have {channels['teacher']} and {channels['student']} "
            f"channels. Set teacher.conv6_channels to {channels['student']}."
        )


def _untrainable(params: Params, raw: dict[str, Any], study: str, remembered: Cache, versions: list[str]) -> list[str]:
    """What is wrong with the methods of a study that cannot be trained; with its networks alone, if they cannot."""
    about, task = raw["study"][study], params.study[study].task
    networks = {role: about[role] | {"weights": None} for role in ("teacher", "student")}
    classes = max(len(classes_of(params.dataset[about["dataset"]])), 2)
    published = [
        *(getattr(params.comparison, task) if study in params.compared_studies(task) else ()),
        *(getattr(params.tune, task).methods if study in params.tuned_studies(task) else ()),
    ]

    def mistakes_in(*methods: str) -> Iterator[str]:
        for method in methods:
            of = about["methods"][method]["options"] if method in published else {}
            code = content_hash(registry.FOLDER / f"{method}.py") if method in published else ""
            batch, epochs = params.training.batch_size, params.training.epochs
            facts = [task, method, code, about["image_size"], classes, networks, of, batch, epochs]
            key = json.dumps(facts, sort_keys=True)
            if not remembered.get(key, versions):
                from classroom.training.make import try_on_meta

                try:
                    try_on_meta(method, study, raw, task, classes, about["image_size"], batch)
                except (ParamsError, TrainingError) as error:
                    where = f"methods.{method}" if method in published else method
                    yield f"studies/{study}.yaml: {where}: {error}"
                else:
                    remembered.put(key, versions, True)

    alone = list(mistakes_in(*BASELINES))
    return alone or list(mistakes_in(*_telling(params.trained_variants), *dict.fromkeys(published)))


def _telling(variants: Sequence[str]) -> Iterator[str]:
    """Of `variants` so many that each network and distance of the others is in one of them: KD + ML V3 has them all."""
    parts = {
        name: {("teacher", EXCHANGE[name].teacher != "none")}
        | {part for of in EXCHANGE[name][2:] for part in of._asdict().items() if part[1]}
        for name in variants
    }
    seen: set[object] = set()
    for name in sorted(variants, key=lambda name: -len(parts[name])):
        if not parts[name] <= seen:
            seen |= parts[name]
            yield name
