"""All that can be checked before any job starts."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classroom import params as settings
from classroom.data.readers import check_options, classes_of
from classroom.errors import ParamsError, TrainingError, suggestion
from classroom.files import content_hash
from classroom.methods import registry
from classroom.params import MAX_MISTAKES, TASKS, Dataset, Network, Params, Tuned, load, select, warn_of_sum
from classroom.state import Cache


def check_all(path: Path = Path("params.yaml")) -> Params:
    """Validates all settings, and that the networks can be built, and trained by the published methods.

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
    _check_classes(params)
    _check_networks(params)
    _check_methods(params)
    for study in params.studies:
        for variant in params.trained_variants:
            warn_of_sum(params.study[study].weights[variant], f"study.{study}.weights.{variant}", path)
    return params


def check(raw: Mapping[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Validates all settings (`classroom.params.load`) of the studies in force.

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
                yield f"{file}: methods: '{method}' is no method of {study.task}.{suggestion(method, known)}"
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
                if missing := [f"'{of}'" for of in methods if of in known and of not in params.study[name].methods]:
                    file = path.parent / "studies" / f"{name}.yaml"
                    yield f"{file}: methods lacks {', '.join(missing)}, which {key} lists"
            for method in methods:
                if method not in known:
                    elsewhere = " It is one of the other task." if registry.is_published(method) else ""
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


def check_source(name: str, dataset: Dataset) -> None:
    """Raises ParamsError if the folder of a dataset that is still to be fetched is not there."""
    fetched = Path("data/raw", name).exists()
    if dataset.source == "directory" and not fetched and not Path(dataset.directory).expanduser().is_dir():
        raise ParamsError(
            f"datasets/{name}.yaml: directory: no such folder: {dataset.directory}. Expected the folder of the "
            "download, or set source to 'synthetic', 'kaggle' or 'download'."
        )


def _check_classes(params: Params) -> None:
    """Raises ParamsError for classification of a dataset without classes."""
    for name, study in params.study.items():
        if study.task == "classification" and len(classes := classes_of(params.dataset[study.dataset])) < 2:
            raise ParamsError(
                f"studies/{name}.yaml: task: classification needs a dataset with two classes or more, and "
                f"'{study.dataset}' has {len(classes)}. Name them under classes in datasets/{study.dataset}.yaml, or "
                "set task to segmentation."
            )


def _check_networks(params: Params) -> None:
    """Asks the libraries about each new network; known ones are remembered, as asking takes seconds."""
    versions = [version("timm"), version("segmentation-models-pytorch")]
    remembered = Cache("networks")
    for name in params.studies:
        study = params.study[name]
        channels = {}
        for role in ("teacher", "student"):
            network: Network = getattr(study, role)
            key = json.dumps(
                [study.task, study.image_size, network.model_dump(mode="json", exclude={"weights"})], sort_keys=True
            )
            if (known := remembered.get(key, versions)) is None:
                from classroom.core.networks.build import feature_channels

                try:
                    known = feature_channels(network, study.task, study.image_size)
                except ParamsError as error:
                    raise ParamsError(f"studies/{name}.yaml: {role}.encoder: {error}") from None
                remembered.put(key, versions, known)
            channels[role] = known
        if channels["teacher"] != channels["student"]:
            raise ParamsError(
                f"studies/{name}.yaml: teacher and student share feature maps, which have {channels['teacher']} and "
                f"{channels['student']} channels. Set teacher.conv6_channels to {channels['student']}."
            )
    remembered.save()


def _check_methods(params: Params) -> None:
    """Makes each published method without its tensors; those that could be made are remembered.

    A misspelt tap is said here, not after hours of training the teacher.
    """
    versions = [version("timm"), version("segmentation-models-pytorch"), version("torch")]
    remembered = Cache("methods")
    raw = params.model_dump(mode="json", by_alias=True)
    for task in TASKS:
        tuned: Tuned = getattr(params.tune, task)
        for studies, methods in (
            (params.compared_studies(task), getattr(params.comparison, task)),
            (params.tuned_studies(task), tuned.methods),
        ):
            for study, method in itertools.product(studies, methods):
                about = raw["study"][study]
                networks = {role: about[role] | {"weights": None} for role in ("teacher", "student")}
                training = [params.training.batch_size, params.training.epochs]
                code = content_hash(registry.FOLDER / f"{method}.py")
                options = about["methods"][method]["options"]
                facts = [task, method, code, about["image_size"], networks, options, training]
                key = json.dumps(facts, sort_keys=True)
                if not remembered.get(key, versions):
                    from classroom.training.make import make_on_meta

                    classes = max(len(classes_of(params.dataset[about["dataset"]])), 2)
                    try:
                        make_on_meta(method, study, raw, task, classes, about["image_size"])
                    except (ParamsError, TrainingError) as error:
                        raise ParamsError(f"studies/{study}.yaml: methods.{method}: {error}") from None
                    remembered.put(key, versions, True)
    remembered.save()
