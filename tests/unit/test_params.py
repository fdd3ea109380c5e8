"""All settings: what is valid, and what is said of whatever is not, with its file and key."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import warnings
from collections.abc import Iterable
from functools import reduce
from itertools import product
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classroom import params
from classroom.errors import ParamsError
from classroom.methods import registry
from classroom.methods.grid.points import weights_at
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import (
    FOLDERS,
    STRATEGIES,
    TECHNIQUES,
    VARIANTS,
    Dataset,
    Params,
    Split,
    StudentWeights,
    Training,
    VariantWeights,
    select,
)
from classroom.settings.checks import check, check_all, check_source
from support.studies import ROOT, STUDY, copy_settings, put_settings

OF_STUDY = rf"studies/{STUDY}\.yaml: "
PRINTED_WEIGHTS = ROOT / "src/classroom/reporting/common/printed/weights.csv"


def printed_weights(table: int) -> dict[str, dict[str, dict[str, float]]]:
    """By variant and student, the weights as the paper's table prints them; 0 where it prints none."""
    with PRINTED_WEIGHTS.open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["table"]) == table]
    return {
        f"{row['technique']}-{row['strategy']}": {
            f"S{student}": {name: float(row[f"{name}_{student}"]) for name in ("alpha", "beta", "gamma")}
            for student in (1, 2)
        }
        for row in rows
    }


def place(raw: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the value at `path` (keys joined by '/'), and the last key."""
    *above, last = path.split("/")
    return reduce(getitem, above, raw), last


def where(path: str) -> str:
    """The file that holds the value at `path`, and the key there: how an error begins, as a pattern."""
    block, *rest = path.split("/")
    folders = {block: folder for folder, block in FOLDERS.items()}
    file, keys = (f"{folders[block]}/{rest[0]}.yaml", rest[1:]) if block in folders else ("params.yaml", [block, *rest])
    return re.escape(f"{file}: {'.'.join(keys)}")


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`raw` with the value at `path` replaced, in place."""
    inner, last = place(raw, path)
    inner[last] = value
    return raw


def accepted(raw: dict[str, Any], path: str, values: Iterable[Any], message: str) -> list[Any]:
    """Those of `values` that are not refused at `path` with `message`, a pattern; `raw` stays as it was."""
    inner, last = place(raw, path)
    before, wrongly = inner.get(last), []
    for value in values:
        inner[last] = value
        try:
            check(raw)
            wrongly.append(value)
        except ParamsError as error:
            if not re.search(message, str(error)):
                wrongly.append((value, str(error)))
    inner[last] = before
    return wrongly


# --- the committed files ---


TABLES = {
    "histopathologic-resnet18": 3, "lgg-resnet18": 4, "histopathologic-mobilenet": 8, "lgg-mobilenet": 9,
    "ham10000-classification": 14, "ham10000-segmentation": 15,
}  # fmt: skip


@pytest.fixture(scope="module")
def committed() -> Params:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return check(params.load(ROOT / "params.yaml"))


def test_the_committed_settings_hold_the_papers_six_studies_and_twelve_variants(committed):
    assert len(VARIANTS) == 12
    assert set(VARIANTS) == {f"{technique}-{strategy}" for technique in TECHNIQUES for strategy in STRATEGIES}
    assert set(committed.trained_variants) == set(VARIANTS)
    assert set(committed.studies) == set(committed.study) == set(TABLES)
    assert {name: study.reports.variants for name, study in committed.study.items()} == {
        name: f"table{number}" for name, number in TABLES.items()
    }


def test_the_committed_weights_are_those_that_the_studys_table_prints(committed):
    ours = {
        study: {variant: weights.model_dump() for variant, weights in of.weights.items()}
        for study, of in committed.study.items()
    }
    assert ours == {study: printed_weights(number) for study, number in TABLES.items()}


def test_the_committed_weights_name_only_what_the_technique_has(raw):
    """ML has no teacher, KD no peer: a weight there would train on nothing. Every sum is 1."""
    has = {
        "ml": {"alpha", "gamma"}, "kd_off": {"alpha", "beta"}, "kd_on": {"alpha", "beta"},
        "kd_ml": {"alpha", "beta", "gamma"},
    }  # fmt: skip
    for study, variant in product(TABLES, VARIANTS):
        for student, weights in raw["study"][study]["weights"][variant].items():
            assert set(weights) == has[variant.split("-")[0]], (study, variant, student)
            assert sum(weights.values()) == pytest.approx(1), (study, variant, student)


def test_weights_that_the_paper_does_not_print_are_marked(committed):
    """The cell of γ of Table 9's ML V3 is empty for S1; Table 8 has 0.9 there, and so has the sum."""
    with PRINTED_WEIGHTS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["inferred"]]
    assert {(row["table"], row["technique"], row["strategy"]): row["inferred"] for row in rows} == {
        ("4", "ml", "v3"): "alpha_2", ("8", "kd_ml", "v2"): "gamma_1 gamma_2", ("9", "ml", "v3"): "gamma_1",
    }  # fmt: skip
    assert committed.study["lgg-mobilenet"].weights["ml-v3"].S1.model_dump() == {
        "alpha": 0.1,
        "beta": 0.0,
        "gamma": 0.9,
    }


def test_weights_that_the_paper_balances_are_points_of_a_grid(committed):
    """Every printed KD+ML row shares 1 - alpha equally, so that a search with teacher_share 0.5 can find it again."""
    for study, variant in product(TABLES, VARIANTS):
        weights = committed.study[study].weights[variant]
        found = weights_at(EXCHANGE[variant], weights.S1.alpha, weights.S2.alpha, 0.5)
        for student in ("S1", "S2"):
            own = getattr(weights, student).model_dump()
            assert getattr(found, student).model_dump() == pytest.approx(own), (study, variant, student)


def test_the_committed_downloads_are_https_and_checked(committed):
    downloads = [download for dataset in committed.dataset.values() for download in dataset.download]
    assert downloads
    assert all(download.url.startswith("https://") for download in downloads)


# --- misspelt and missing keys ---


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("trainig", r"params\.yaml: unknown key 'trainig'\. Did you mean 'training'\?"),
        ("training/epoch", r"params\.yaml: unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("losses/prediction/xyz", r"params\.yaml: .*'losses\.prediction\.xyz'\. Known: temperature, direction, mult"),
        ("dataset/lgg/synthetic/patients", r"datasets/lgg\.yaml: unknown key 'synthetic\.patients'. Known: groups, im"),
        ("dataset/lgg/kagle", r"datasets/lgg\.yaml: unknown key 'kagle'\. Did you mean 'kaggle'\?"),
        (f"study/{STUDY}/tak", rf"{OF_STUDY}unknown key 'tak'\. Did you mean 'task'\?"),
        (f"study/{STUDY}/reports/variant", rf"{OF_STUDY}unknown key 'reports\.variant'\. Did you mean 'variants'\?"),
        (f"study/{STUDY}/teacher/weight", rf"{OF_STUDY}unknown key 'teacher\.weight'\. Did you mean 'weights'\?"),
        (f"study/{STUDY}/weights/ml-v1/S3", rf"{OF_STUDY}unknown key 'weights\.ml-v1\.S3'\. Known: S1, S2\."),
        (f"study/{STUDY}/weights/ml-v1/S1/alfa", rf"{OF_STUDY}.*'weights\.ml-v1\.S1\.alfa'\. Did you mean 'alpha'\?"),
        (f"study/{STUDY}/methods/at/wieghts", rf"{OF_STUDY}.*'methods\.at\.wieghts'\. Did you mean 'weights'\?"),
        (f"study/{STUDY}/methods/at/options/tap", rf"{OF_STUDY}.*'methods\.at\.options\.tap'\. Did you mean 'taps'\?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_likely_one(raw, path, message):
    with pytest.raises(ParamsError, match=rf"^{message}"):
        check(with_value(raw, path, 1))


def test_a_misspelt_key_in_an_entry_of_a_list_is_named_with_the_likely_one(raw):
    """It was a traceback: KeyError: 0."""
    raw["dataset"]["histopathologic"]["download"][1]["checksumm"] = "md5:0"
    with pytest.raises(
        ParamsError,
        match=r"^datasets/histopathologic\.yaml: unknown key 'download\.1\.checksumm'\. Did you mean 'checksum'\?",
    ):
        params.check(raw)


@pytest.mark.parametrize("path", ["training", "training/threads", "study/lgg-resnet18/split/by", "dataset/lgg/reader"])
def test_a_missing_key_is_named(raw, path):
    inner, last = place(raw, path)
    del inner[last]
    file, key = where(path).split(":\\ ")
    with pytest.raises(ParamsError, match=rf"^{file}: key '{key}' is missing$"):
        check(raw)


def test_all_mistakes_are_named_at_once(raw):
    """One run of `classroom check` must do for a file with several mistakes."""
    broken = with_value(with_value(raw, "training/epochs", 0), "training/precision", "fp16")
    with pytest.raises(ParamsError, match=r"^params\.yaml: training\.epochs: .*; training\.precision: "):
        check(broken)


def test_mistakes_in_several_files_are_named_with_their_files(raw):
    for path in (f"study/{STUDY}/image_size", "dataset/lgg/full_size", "training/epochs"):
        with_value(raw, path, 0)
    message = (
        rf"^params\.yaml: training\.epochs: [^;]*; {OF_STUDY}image_size: [^;]*; datasets/lgg\.yaml: full_size: [^;]*$"
    )
    with pytest.raises(ParamsError, match=message):
        check(raw)


# --- wrong values ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training/epochs", 0, r": should be greater than or equal to 1, not 0"),
        ("training/epochs", "six", r": should be a valid integer.*not 'six'"),
        ("training/batch_size", 1, r": should be greater than or equal to 2"),
        ("training/learning_rate", 0, r": should be greater than 0"),
        ("training/learning_rate", math.nan, r": should be a finite number, not nan"),
        ("training/precision", "fp16", r": should be 'fp32' or 'bf16', not 'fp16'"),
        ("training", None, r": should be a mapping, not None"),
        ("training/optimiser", "adma", r": should be 'adam', 'adamw' or 'sgd', not 'adma'"),
        ("training/weight_decay", -0.1, r": should be greater than or equal to 0"),
        ("training/schedule", "step", r": should be 'constant' or 'cosine', not 'step'"),
        ("training/clip_gradients", 0, r": should be greater than 0"),
        ("training/early_stopping", 0, r": should be greater than or equal to 1"),
        ("scale", "huge", r": should be 'demo', 'small' or 'paper', not 'huge'"),
        ("seeds", 0, r": should be a list, not 0"),
        ("seeds", [], r": should have at least 1 item\(s\), not \[\]$"),
        ("seeds", [-1], r"\.0: should be greater than or equal to 0, not -1"),
        ("seeds", [0, 1, 0], r": expected each value once, not \[0, 1, 0\]"),
        ("dataset/lgg/source", "kagle", r": should be 'synthetic', 'directory', 'kaggle' or 'download'"),
        ("dataset/lgg/reader", "lggg", r": unknown reader 'lggg'. Did you mean 'lgg'?"),
        ("dataset/lgg/subset", 1, r": should be greater than or equal to 2, not 1"),
        ("dataset/lgg/full_size", 0, r": should be greater than or equal to 1, not 0"),
        ("dataset/lgg/synthetic/groups", 0, r": should be greater than or equal to 1"),
        ("dataset/lgg/synthetic/size", 16, r": should be greater than or equal to 32"),
        ("study/lgg-resnet18/balance", "mena", r": should be 'none' or 'mean', not 'mena'"),
        ("grid/alpha_1", [0.1, 1.0], r"\.1: should be less than 1, not 1\.0"),
        ("grid/alpha_2", [0], r"\.0: should be greater than 0, not 0"),
        ("grid/teacher_share", [], r": .*at least 1 item"),
        ("study/lgg-resnet18/image_size", 48, r": should be a multiple of 32, not 48"),
        ("study/lgg-resnet18/image_size", 0, r": should be greater than or equal to 32"),
        ("study/lgg-resnet18/task", "detection", r": should be 'classification' or 'segmentation'"),
        ("study/lgg-resnet18/split/percent", [75, 10, 10], r": .*sum to 100, not \[75, 10, 10\]"),
        ("study/lgg-resnet18/split/percent", [90, 10, 0], r": .*at least 1.*not \[90, 10, 0\]"),
        ("study/lgg-resnet18/split/by", "patient", r": should be 'image', 'group' or 'given', not 'patient'"),
        (
            "study/lgg-resnet18/student/decoder_channels",
            [64, 32],
            r": should have at least 5 item\(s\), not \[64, 32\]$",
        ),
        ("study/lgg-resnet18/student/decoder_channels", [64, 32, 16, 8, 0], r"\.4: should be"),
        ("losses/prediction/temperature", 0, r": should be greater than 0"),
        ("losses/prediction/temperature", math.inf, r": should be a finite number"),
        ("losses/prediction/direction", "forward", r": should be 'student\|\|target' or"),
        ("augmentation/flip", 1.5, r": should be less than or equal to 1, not 1\.5"),
        ("augmentation/scale", [1.1, 0.9], r": expected the smallest and the largest .*not \[1\.1, 0\.9\]"),
        ("study/lgg-resnet18/weights/ml-v1/S1/alpha", -0.1, r": should be greater than or equal to 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(raw, path, value, message):
    with pytest.raises(ParamsError, match=rf"^{where(path)}{message}"):
        check(with_value(raw, path, value))


def test_a_warm_up_ends_before_the_training(raw):
    raw["training"] |= {"epochs": 6, "warmup_epochs": 6}
    with pytest.raises(ParamsError, match=r"params\.yaml: training: warmup_epochs should be fewer than epochs \(6\)"):
        params.check(raw)


def test_a_first_decoder_width_that_differs_between_teacher_and_student_is_refused(raw):
    """Their feature maps could not be compared; training would fail after minutes instead."""
    path = "study/lgg-resnet18/student/decoder_channels"
    with pytest.raises(
        ParamsError, match=rf"{OF_STUDY}.*decoder_channels must begin with the same number, not 64 and 32"
    ):
        check(with_value(raw, path, [32, 32, 16, 8, 4]))
    assert check(with_value(raw, path, [64, 8, 8, 8, 8])).study[STUDY].student.decoder_channels[1] == 8


# --- types: what one engine reads, the other reads ---

WHOLE = (
    "seeds/0", "training/epochs", "training/batch_size", "training/threads", "study/lgg-resnet18/image_size",
    "study/lgg-resnet18/split/seed", "study/lgg-resnet18/split/percent/0", "dataset/lgg/synthetic/groups",
    "dataset/histopathologic/subset", "dataset/histopathologic/subset_seed", "dataset/lgg/full_size",
    "study/lgg-resnet18/student/decoder_channels/4", "study/histopathologic-resnet18/teacher/conv6_channels",
    "study/lgg-resnet18/methods/skd/options/pool", "study/lgg-resnet18/methods/dsd/options/category_size",
    "study/histopathologic-resnet18/methods/simkd/options/reduction",
)  # fmt: skip
NUMBERS = (
    "training/learning_rate", "losses/prediction/temperature", "losses/task/focal_gamma", "augmentation/flip",
    "augmentation/scale/0", "study/lgg-resnet18/weights/ml-v1/S1/alpha", "grid/alpha_1/0", "tune/factors/0",
    "study/lgg-resnet18/methods/cwd/weights/logits", "study/histopathologic-resnet18/methods/at/options/power",
    "study/lgg-resnet18/methods/skd/options/adversary/weight",
)  # fmt: skip
SWITCHES = (
    "training/compile", "losses/prediction/multiply_by_squared_temperature", "study/lgg-resnet18/reports/samples",
    "study/lgg-resnet18/reports/deploy", "study/lgg-resnet18/methods/skd/options/adversarial",
    "study/histopathologic-resnet18/methods/fitnet/options/two_stage",
)  # fmt: skip
TEXTS = (
    "studies/0", "ours", "study/lgg-resnet18/dataset", "study/lgg-resnet18/reports/variants", "dataset/lgg/directory",
    "scale",
)  # fmt: skip


def refused(raw: dict[str, Any], path: str, value: Any) -> str:
    """What `check` says of `value` at `path`, where an item of a list is named by its place; empty if nothing."""
    inner: Any = raw
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in above:
        inner = inner[part]
    before, inner[last] = inner[last], value
    try:
        check(raw)
        return ""
    except ParamsError as error:
        return str(error)
    finally:
        inner[last] = before


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_number_is_written_as_one(raw, path):
    """Snakemake would get 2 where DVC puts 2.0 or true into commands and the names of folders."""
    for value in (64.0, True, "64", 2.0, 1e1):
        message = refused(raw, path, value)
        assert re.match(rf"{where(path)}: should be .*, not {re.escape(repr(value))}$", message), (value, message)
    assert "such as 1, not 64.0" in refused(raw, "training/epochs", 64.0)


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_is_no_text_and_no_switch(raw, path):
    for value in ("0.5", True):
        message = refused(raw, path, value)
        assert re.match(rf"{where(path)}[^:]*: should be .*, not {re.escape(repr(value))}", message), (value, message)


@pytest.mark.parametrize("path", SWITCHES)
def test_a_switch_is_true_or_false(raw, path):
    """YAML 1.1 takes yes and on for true, YAML 1.2 for texts."""
    for value in ("yes", "on", "true", 1, 0.0):
        message = refused(raw, path, value)
        assert re.fullmatch(rf"{where(path)}: should be true or false, not {re.escape(repr(value))}", message), message


@pytest.mark.parametrize("path", TEXTS)
def test_a_text_is_no_number(raw, path):
    for value in (3, 3.0, True):
        assert re.match(rf"{where(path)}: should be ", refused(raw, path, value))


def test_a_list_is_neither_a_text_nor_a_mapping(raw):
    for value in ("ml-v1", {"ml-v1": 1}, 1):
        assert "variants.joint: should be a list, not " in refused(raw, "variants/joint", value)
    assert "comparison.segmentation: should be a list, not 'at'" in refused(raw, "comparison/segmentation", "at")
    assert "comparison.segmentation.1: should be a valid string, not 1" in refused(
        raw, "comparison/segmentation", ["at", 1]
    )


def test_a_whole_number_will_do_for_a_float(raw):
    raw["losses"]["prediction"]["temperature"] = 2
    assert check(raw).losses.prediction.temperature == 2.0


def test_a_factor_stays_as_it_is_written(raw):
    """DVC names a folder by it: tune/…/10 for 10, so that Snakemake must not look for tune/…/10.0."""
    raw["tune"]["factors"] = [0.1, 10, 1.0]
    assert [str(factor) for factor in check(raw).tune.factors] == ["0.1", "10", "1.0"]
    with pytest.raises(ParamsError, match=r"tune\.factors: expected each value once, not \[10, 10\.0\]"):
        check(with_value(raw, "tune/factors", [10, 10.0]))


@pytest.mark.parametrize("value", ["1.0", "1e1", "true", "'1'"])
def test_a_seed_that_is_no_whole_number_is_refused_wherever_it_is_read(tmp_path, value):
    """`check` and the commands alike, as YAML has it."""
    file = copy_settings(tmp_path)
    file.write_text(file.read_text().replace("seeds: [0]", f"seeds: [{value}]"))
    raw = params.load(file)
    for read in (lambda: check(raw), lambda: select(raw, "seeds", list[int])):
        with pytest.raises(ParamsError, match=r"seeds\.0: should be a valid integer without .*, such as 1, not "):
            read()
    raw["training"]["epochs"] = 6.0
    with pytest.raises(ParamsError, match=r"training\.epochs: should be a valid integer"):
        select(raw, "training.epochs", int)


# --- what a task needs ---


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lgg-resnet18/{}/decoder_channels", None, r"a segmentation {} needs decoder_channels"),
        ("lgg-resnet18/{}/conv6_channels", 64, r"a segmentation {} needs .* and no conv6_channels"),
        ("histopathologic-resnet18/{}/decoder_channels", [64, 32, 16, 8, 4], r"a classification {} has no decoder"),
    ],
)
def test_a_network_of_the_other_task_is_refused(raw, role, path, value, message):
    """Ignored in silence, the setting would promise a network that is not trained."""
    study = path.split("/")[0]
    with pytest.raises(ParamsError, match=rf"^studies/{study}\.yaml: {message.format(role)}"):
        check(with_value(raw, f"study/{path.format(role)}", value))


def test_no_option_of_an_encoder_loads_weights(raw):
    """timm's checkpoints are pickles; the project may be someone else's. Only `weights` loads, as safetensors."""
    options = {"checkpoint_path": "evil.pth", "pretrained_cfg": {"file": "evil.pth"}, "channels": [8, 16, 32, 64]}
    with_value(raw, f"study/{STUDY}/teacher/encoder_options", options)
    with pytest.raises(
        ParamsError, match=rf"^{OF_STUDY}teacher\.encoder_options: checkpoint_path, pretrained_cfg: not allowed here"
    ):
        params.check(raw)


def test_only_classes_can_be_balanced(raw):
    assert check(with_value(raw, "study/histopathologic-resnet18/balance", "mean"))
    with pytest.raises(ParamsError, match=rf"{OF_STUDY}balance applies to classes: .*'none' in a segmentation study"):
        check(with_value(raw, "study/lgg-resnet18/balance", "mean"))


def test_a_classification_student_may_have_the_papers_block_too(raw):
    """The settings leave it free; that both widths agree is checked where the libraries can be asked."""
    path = "study/histopathologic-resnet18/student/conv6_channels"
    assert check(with_value(raw, path, 16)).study["histopathologic-resnet18"].student.conv6_channels == 16


# --- where data come from ---


@pytest.mark.parametrize(
    ("source", "nothing"), [("synthetic", None), ("directory", ""), ("kaggle", []), ("download", [])]
)
def test_a_dataset_needs_the_settings_of_its_source(raw, source, nothing):
    raw["dataset"]["lgg"] |= {"source": source, source: nothing}
    with pytest.raises(ParamsError, match=rf"^datasets/lgg\.yaml: source is '{source}', so '{source}' must be"):
        check(raw)


def test_a_dataset_needs_no_settings_of_other_sources(raw):
    """A user's own dataset has a folder and nothing else."""
    raw["dataset"]["lgg"] = {"reader": "lgg", "source": "directory", "directory": "mine", "full_size": 10}
    dataset = check(raw).dataset["lgg"]
    assert (dataset.synthetic, dataset.kaggle, dataset.download, dataset.subset) == (None, (), (), None)


def test_a_download_has_one_of_two_checksums(raw):
    """Without one, whatever the web sends would be taken for the dataset."""
    file = {"url": "https://example.org/a.zip"}
    wrong = [
        "", "md5:", "md5:" + "0" * 31, "md5:" + "g" * 32, "md5:" + "A" * 32, "sha1:" + "0" * 40, "sha256:" + "0" * 32,
        "0" * 32, "md5:" + "0" * 64, "md5:" + "0" * 32 + "\n",
    ]  # fmt: skip
    downloads = [[file | {"checksum": checksum}] for checksum in wrong]
    assert (
        accepted(raw, "dataset/lgg/download", downloads, r"datasets/lgg\.yaml: download\.0\.checksum: .*pattern") == []
    )
    for checksum in ("md5:" + "0a" * 16, "sha256:" + "0a" * 32):
        raw["dataset"]["lgg"] |= {"source": "download", "download": [file | {"checksum": checksum}]}
        assert check(raw).dataset["lgg"].download[0].checksum == checksum


# --- names that refer to one another ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("studies", ["lgg-resnet81"], r": 'lgg-resnet81' has no file studies/lgg-resnet81\.yaml\. .*'lgg-resnet18'\?"),
        ("studies", ["lgg-resnet18"] * 2, r": expected each value once, not \['lgg-resnet18', 'lgg-resnet18'\]"),
        ("studies", [], r": should have at least 1 item"),
        ("study/lgg-resnet18/dataset", "lgq", r": 'lgq' has no file datasets/lgq\.yaml\. Did you mean 'lgg'\?"),
        ("variants/joint", ["kd_mml-v1"], r": unknown variant 'kd_mml-v1'\. Did you mean 'kd_ml-v1'\?"),
        ("variants/offline", ["kdoff-v1"], r": unknown variant 'kdoff-v1'\. .*'kd_off-v1'\?"),
        ("variants/joint", ["ml-v1", "ml-v1"], r": expected each value once, not \['ml-v1', 'ml-v1'\]"),
        ("variants/joint", ["kd_off-v1"], r": 'kd_off-v1' needs the pretrained .*joint to offline"),
        ("variants/offline", ["kd_on-v1"], r": 'kd_on-v1' needs no pretrained .*offline to joint"),
        ("ours", "kd_ml-v9", r": 'kd_ml-v9' is not in variants\. .*'kd_ml-v3'"),
        ("grid/joint", ["kd_mll-v3"], r": unknown variant 'kd_mll-v3'\. Did you mean 'kd_ml-v3'\?$"),
        ("study/lgg-resnet18/weights/kd_mm-v1", {"S1": {}, "S2": {}}, "unknown variant 'kd_mm-v1'. Did you mean 'kd_"),
    ],
)
def test_a_name_that_refers_to_nothing_is_named_with_the_nearest(raw, path, value, message):
    start = where(path) if message.startswith(":") else rf"{OF_STUDY}weights: "
    with pytest.raises(ParamsError, match=rf"^{start}{message}"):
        check(with_value(raw, path, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("studies", ["lgg-resnet18"] * 2, r"studies: expected each value once, not \['lgg-resnet18', 'lgg-res"),
        ("alpha_1", [0.1, 0.1], r"alpha_1: expected each value once, not \[0\.1, 0\.1\]"),
        ("alpha_2", [0.1, 0.2, 0.1], r"alpha_2: expected each value once"),
        ("teacher_share", [0.5, 0.5], r"teacher_share: expected each value once"),
        ("joint", ["kd_off-v1"], r"joint: 'kd_off-v1' needs the pretrained teacher: move it from joint to off"),
        ("offline", ["ml-v1"], r"offline: 'ml-v1' needs no pretrained teacher: move it from offline to joint$"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(raw, key, value, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: grid\.{message}"):
        check(with_value(raw, f"grid/{key}", value))


def test_masks_are_shown_of_segmentation_only(raw):
    for reports in ({"samples": True}, {"pictures": {"x": "diverse"}}):
        of = raw["study"]["ham10000-classification"]
        before, of["reports"] = of["reports"], of["reports"] | reports
        with pytest.raises(
            ParamsError, match=r"^studies/ham10000-classification\.yaml: .*show masks.* segmentation study"
        ):
            check(raw)
        of["reports"] = before


KINDS = ("variants", "fidelity", "architecture", "baselines")


@pytest.mark.parametrize("kind", [*KINDS, "comparison"])
def test_two_reports_of_one_name_are_refused(raw, kind):
    """One would overwrite the other's file, and both engines would ask two rules for it."""
    message = rf"^{OF_STUDY}reports\.{kind}: '\w+' is taken \(.*\); each report has a name of its own"
    taken = ["table3", "table11", "table6", "table1", "table5", "cost", "figure6"]
    assert accepted(raw, f"study/lgg-resnet18/reports/{kind}", taken, message) == []


def test_the_studies_that_claim_one_name_are_both_named(raw):
    raw["studies"] = [STUDY, "lgg-mobilenet"]
    with_value(raw, "study/lgg-mobilenet/reports/variants", "table4")
    message = rf"^studies/lgg-mobilenet\.yaml: reports\.variants: 'table4' is taken \({OF_STUDY}reports\.variants\)"
    with pytest.raises(ParamsError, match=message):
        check(raw)


@pytest.mark.parametrize("path", ["fidelity", "pictures"])
def test_two_reports_of_one_study_need_two_names(raw, path):
    raw["study"][STUDY]["reports"][path] = {"fidelity": "table4", "pictures": {"table4": "diverse"}}[path]
    with pytest.raises(ParamsError, match=rf"^{OF_STUDY}reports\.{path}.*: 'table4' is taken \({OF_STUDY}reports\.var"):
        check(raw)


def test_figures_of_one_name_are_refused(raw):
    """`figure6` shows one study's layers."""
    raw["study"][STUDY]["reports"]["cka"] = ["figure6"]
    with pytest.raises(ParamsError, match=r"reports\.cka\.figure6: 'figure6' is taken \("):
        check(raw)
    raw["study"][STUDY]["reports"]["cka"] = []  # its table alone, called by the study
    check(raw)


@pytest.mark.parametrize("kind", ["baselines", "comparison"])
def test_several_studies_may_share_a_report(raw, kind):
    """Tables 2, 10 and 13 of the paper do."""
    for study in raw["study"].values():
        if kind in study["reports"]:
            study["reports"][kind] = "together"
    assert {getattr(study.reports, kind) for study in check(raw).study.values()} <= {"together", None}


@pytest.mark.parametrize("kind", [*KINDS, "comparison"])
def test_a_report_whose_name_could_not_be_a_file_is_refused(raw, kind):
    message = rf"^{OF_STUDY}reports\.{kind}: a name has lower-case letters"
    names = ["Table4", "table 4", "a/b", "../x", "", "table4.md"]
    assert accepted(raw, f"study/lgg-resnet18/reports/{kind}", names, message) == []
    names = [{name: "diverse"} for name in names]
    message = rf"^{OF_STUDY}reports\.pictures\..*: a name has lower-case letters"
    assert accepted(raw, "study/lgg-resnet18/reports/pictures", names, message) == []


@pytest.mark.parametrize(("folder", "block"), FOLDERS.items())
def test_a_name_that_could_not_be_a_folder_everywhere_is_refused(raw, folder, block):
    """Names of studies and datasets become folders and parts of dotted keys."""
    for name in ("LGG", "lgg study", "-lgg", "lgg.x", "", "n" * 101, "1e3", "1_000", "007", "no", "null", "2001-13-01"):
        raw[block][name] = raw[block][{"study": STUDY, "dataset": "lgg"}[block]]
        if block == "study":
            raw["studies"] = [name]
        else:
            raw["study"][STUDY]["dataset"] = name
        with pytest.raises(ParamsError, match=rf"^{folder}/{re.escape(name)}\.yaml: a name has lower-case letters"):
            check(raw)


def test_a_search_in_a_study_that_is_not_active_waits_for_it(raw):
    """Activating a study is one line; the lists of searches need not follow."""
    raw["studies"] = ["lgg-mobilenet"]
    settings = check(raw)
    assert settings.grid.joint == ("kd_ml-v3",)
    assert settings.searched_studies == ()
    assert [settings.tuned_studies(task) for task in ("classification", "segmentation")] == [(), ()]
    raw["studies"].append("histopathologic-resnet18")
    assert check(raw).searched_studies == ("histopathologic-resnet18",)


def test_only_what_is_active_is_read_and_named(raw):
    """One study may be edited while another runs."""
    for study in set(raw["study"]) - {STUDY}:
        raw["study"][study] = {"reports": {"variants": "table4"}, "nonsense": 1}
    raw["dataset"]["ham10000"] = {"reader": 5}
    raw |= {"studies": [STUDY]}
    settings = check(raw)
    assert (list(settings.study), list(settings.dataset)) == ([STUDY], ["lgg"])


@pytest.mark.parametrize("of", ["lgg-resnet81", STUDY])
def test_a_resplit_study_repeats_another_one_that_is_there(raw, of):
    raw["study"][STUDY]["resplit"] = {"of": of, "report": "splits"}
    message = rf"^{OF_STUDY}resplit\.of: expected another study, with a file in studies/, not '{of}'\."
    with pytest.raises(ParamsError, match=message):
        check(raw)


@pytest.mark.parametrize("name", ["table4", "cost", "table2", "A B"])
def test_the_report_of_a_resplit_study_needs_a_name_of_its_own(raw, name):
    raw["study"]["lgg-mobilenet"]["resplit"] = {"of": STUDY, "report": name}
    said = "a name has lower-case letters" if " " in name else f"'{name}' is taken"
    with pytest.raises(ParamsError, match=rf"^studies/lgg-mobilenet\.yaml: resplit\.report: {said}"):
        check(raw)


def test_a_variant_without_weights_is_named(raw):
    del raw["study"]["lgg-resnet18"]["weights"]["kd_off-v2"]
    with pytest.raises(ParamsError, match=rf"^{OF_STUDY}weights lacks 'kd_off-v2', which variants lists"):
        check(raw)


# --- reading ---


def test_a_missing_file_says_where_commands_run(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file\. Commands run in the project's root"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"scale: [demo\n", r"params\.yaml: not valid YAML: .*line"),
        (b"scale: demo\nscale: paper\n", r"params\.yaml: not valid YAML: .*duplicate key"),
        (b"", r"params\.yaml: expected a mapping of settings, found none\."),
        (b"- demo\n", r"params\.yaml: expected a mapping of settings, found a list\."),
        (b"scale: \xff\n", r"params\.yaml: not UTF-8 text"),
    ],
    ids=["unclosed", "key twice", "empty", "list", "bytes"],
)
def test_a_file_that_is_no_mapping_is_named_in_one_line(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message) as caught:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


# --- several files ---


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder of the committed files of settings, free to change."""
    copy_settings(tmp_path)
    return tmp_path


def test_every_file_of_a_folder_is_a_study_or_a_dataset(files, raw):
    assert params.load(files / "params.yaml") == raw
    shutil.copy(files / "datasets/lgg.yaml", files / "datasets/mine.yaml")
    assert params.load(files / "params.yaml")["dataset"]["mine"] == raw["dataset"]["lgg"]


@pytest.mark.parametrize("layout", ["study", "dataset"])
def test_params_of_the_older_layout_are_refused_with_what_to_do(files, layout):
    with (files / "params.yaml").open("a") as file:
        file.write(f"{layout}: {{lgg: {{}}}}\n")
    folder = {"study": "studies", "dataset": "datasets"}[layout]
    with pytest.raises(
        ParamsError, match=rf"'{layout}' is of an older layout\. Move each {layout} into .*{folder}/<name>"
    ):
        params.load(files / "params.yaml")


def test_an_active_study_without_its_file_is_named(files):
    (files / f"studies/{STUDY}.yaml").rename(files / "studies/lgg-resnet-18.yaml")
    message = (
        rf"params\.yaml: studies: '{STUDY}' has no file studies/{STUDY}\.yaml\. Did you mean 'lgg-resnet-18'\?"
        " The list is set by `classroom use STUDY…`"
    )
    with pytest.raises(ParamsError, match=message):
        check(params.load(files / "params.yaml"))


def test_a_study_whose_dataset_has_no_file_is_named(files):
    (files / "datasets/lgg.yaml").unlink()
    with pytest.raises(
        ParamsError, match=r"^studies/lgg-\w+\.yaml: dataset: 'lgg' has no file datasets/lgg\.yaml\. Known: ham"
    ):
        check(params.load(files / "params.yaml"))


@pytest.mark.parametrize("path", [f"studies/{STUDY}.yaml", "datasets/lgg.yaml"])
def test_unknown_keys_are_named_with_their_file(files, path):
    with (files / path).open("a") as file:
        file.write("nonsense: 1\n")
    with pytest.raises(ParamsError, match=rf"^{re.escape(path)}: unknown key 'nonsense'"):
        check(params.load(files / "params.yaml"), Path("params.yaml"))


@pytest.mark.parametrize("content", [b"dataset: [lgg\n", b"- lgg\n", b"", b"\xff", b"a: 1\na: 2\n"])
@pytest.mark.parametrize("path", [f"studies/{STUDY}.yaml", "datasets/lgg.yaml"])
def test_a_broken_file_disturbs_those_alone_who_need_it(files, path, content):
    """One study may be edited while another runs."""
    (files / path).write_bytes(content)
    raw = params.load(files / "params.yaml")
    for read in (lambda: check(raw), lambda: select(raw, f"{params.dotted(path)}.reader", str)):
        with pytest.raises(ParamsError, match=rf"{re.escape(path)}: (not|expected) "):
            read()
    raw["studies"] = ["ham10000-segmentation"]
    assert check(raw).studies == ("ham10000-segmentation",)
    assert select(raw, "study.ham10000-segmentation.dataset", str) == "ham10000"


def test_a_study_of_ones_own_alone_is_all_that_is_needed(files, raw):
    """No list but `studies` names it, and none of the others need be there."""
    for path in files.glob("studies/*.yaml"):
        path.rename(files / "mine") if path.stem == STUDY else path.unlink()
    (files / "mine").rename(files / "studies/mine.yaml")
    for path in files.glob("datasets/*.yaml"):
        if path.stem != "lgg":
            path.unlink()
    settings = params.load(files / "params.yaml")
    settings["studies"] = ["mine"]
    assert check(settings).study["mine"] == params.check(raw).study[STUDY]


def test_a_dotted_key_leads_to_its_file_and_back():
    assert params.dotted("studies/lgg.yaml", "split.by") == "study.lgg.split.by"
    assert params.dotted("datasets/lgg.yaml") == "dataset.lgg"
    assert params.dotted("params.yaml", "training") == "training"


# --- a command's share ---


def test_select_hands_out_a_validated_share(raw):
    assert select(raw, "study.lgg-resnet18.split", Split) == Split(percent=(75, 10, 15), by="group", seed=0)
    assert select(raw, "dataset.lgg", Dataset).synthetic.groups == raw["dataset"]["lgg"]["synthetic"]["groups"]
    assert select(raw, "seeds", list[int]) == [0]


def test_select_reads_nothing_but_its_share(raw):
    """A mistake in a key that a stage does not declare must not stop the stage: DVC would not rerun it either."""
    raw["augmentation"] = "nonsense"
    assert select(raw, "training", Training).epochs == raw["training"]["epochs"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trainin", r"^params\.yaml: key 'trainin' is missing\. Did you mean 'training'\?"),
        (
            "study.lgg-resnet81.split",
            r"^unknown study 'lgg-resnet81': no file studies/lgg-resnet81\.yaml\. .*resnet18'\?",
        ),
        ("dataset.lgq", r"^unknown dataset 'lgq': no file datasets/lgq\.yaml\. Did you mean 'lgg'\?"),
        ("training.epochs.x", r"^params\.yaml: key 'training\.epochs\.x' is missing in 'training\.epochs'\."),
        ("study.lgg-resnet18.splt", r"^studies/lgg-resnet18\.yaml: key 'splt' is missing\. Did you mean 'split'\?"),
        ("study.lgg-resnet18.split.b", rf"^{OF_STUDY}key 'split\.b' is missing in 'split'\. .*by"),
        ("seeds.0", r"key 'seeds\.0' is missing in 'seeds'\."),
    ],
)
def test_select_on_a_missing_key_says_where_and_what_is_near(raw, key, message):
    with pytest.raises(ParamsError, match=message):
        select(raw, key, Any)


def test_select_names_the_whole_key_of_a_wrong_value(raw):
    raw["study"]["lgg-resnet18"]["split"]["bye"] = raw["study"]["lgg-resnet18"]["split"].pop("by")
    with pytest.raises(
        ParamsError,
        match=rf"^{OF_STUDY}key 'split\.by' is missing; unknown key 'split\.bye'\. Did you mean 'by'\?",
    ):
        select(raw, "study.lgg-resnet18.split", Split)
    with pytest.raises(ParamsError, match=r"^params\.yaml: training\.epochs: should be .*, not 0$"):
        select(with_value(raw, "training/epochs", 0), "training", Training)


def test_settings_never_change_after_reading(committed):
    with pytest.raises(ValueError, match="frozen"):
        committed.training.epochs = 3


# --- weights that do not sum to 1 ---


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.sampled_from([(0.1, 0.9, 0.0), (0.2, 0.4, 0.4), (0.1, 0.45, 0.45), (1.0, 0.0, 0.0)]),
)
def test_exactly_the_students_whose_weights_do_not_sum_to_one_are_warned_of(any_weights, good_weights):
    names = ("alpha", "beta", "gamma")
    wrong, good = (StudentWeights(**dict(zip(names, weights, strict=True))) for weights in (any_weights, good_weights))
    for order, of in ((("S1", "S2"), (wrong, good)), (("S2", "S1"), (wrong, good))):
        weights = VariantWeights(**dict(zip(order, of, strict=True)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            params.warn_of_sum(weights, "here")
        expected = [order[0]] if abs(math.fsum(any_weights) - 1) > 1e-6 else []
        assert [re.search(r"here\.(S\d)", str(w.message)).group(1) for w in caught] == expected


# --- all that is checked before any job starts ---


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, list[str]]:
    """A project's root in which the committed settings were checked, what they are, and the warnings. Read only."""
    root = tmp_path_factory.mktemp("checked")
    copy_settings(root)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.chdir(root)
        settings = check_all()
    return root, settings, [str(warning.message) for warning in caught if warning.category is UserWarning]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root; the engines keep their notes in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def known(project: Path, checked: tuple[Path, Params, list[str]]) -> Path:
    """The notes on the networks and methods of the committed settings, in the project that is asked."""
    return Path(shutil.copytree(checked[0] / ".classroom", project / ".classroom")) / "cache"


def test_the_committed_settings_are_accepted_and_their_networks_remembered(checked, known, project, raw, monkeypatch):
    assert checked[1] == check(raw)
    # Asked again, it must not wait for the libraries.
    monkeypatch.setattr(
        "classroom.core.networks.build.feature_channels", lambda *asked: pytest.fail(f"asked for {asked}")
    )
    monkeypatch.setattr("classroom.training.make.try_on_meta", lambda *asked: pytest.fail(f"made {asked}"))
    put_settings(project, raw)
    assert check_all() == check(raw)


def test_the_committed_settings_give_no_warning(checked):
    """Said at every start, it would hide those that matter."""
    assert checked[2] == []


@pytest.mark.parametrize("key", ["grid", "tune/segmentation"])
def test_a_search_in_a_study_that_is_not_there_is_warned_of(known, project, raw, key):
    """A misspelt name would search nothing, and nobody would know; names of studies that were removed do no harm."""
    put_settings(project, with_value(raw, f"{key}/studies", ["lgg-resnet81"]))
    message = (
        rf"params\.yaml: {key.replace('/', '.')}\.studies: 'lgg-resnet81' has no file .*nothing is searched.*resnet18"
    )
    with pytest.warns(UserWarning, match=message):
        check_all()


def compared(raw: dict[str, Any], section: str, task: str, method: str) -> dict[str, Any]:
    """The same settings with one published method to make, which is in one study."""
    for other in params.TASKS:
        for kind, of in (("comparison", raw["comparison"]), ("tune", raw["tune"][other])):
            of[other if kind == "comparison" else "methods"] = [method] if (kind, other) == (section, task) else []
    for study in raw["study"].values():
        if not raw["comparison"][study["task"]]:
            study["reports"].pop("comparison", None)
    return raw


STUDY_OF = {"classification": "histopathologic-resnet18", "segmentation": STUDY}


@pytest.mark.parametrize(
    ("section", "path", "value", "message"),
    [
        ("comparison", "classification/fitnet/tap", "layer5", r"'layer5'.*layer1, layer2"),
        ("tune", "classification/fitnet/tap", "layer5", r"'layer5'.*layer1, layer2"),
        ("comparison", "segmentation/emkd/high", "decoder.block.0", r"'decoder\.block\.0'"),
        ("comparison", "segmentation/skd/tap", "encoder.nothing", r"does not exist"),
    ],
)
def test_a_published_method_that_cannot_be_made_is_said_before_its_teacher_trains(
    known, project, raw, section, path, value, message
):
    """Its job comes after the teacher's: hours later, at the paper's scale."""
    task, method, key = path.split("/")
    with_value(raw, f"study/{STUDY_OF[task]}/methods/{method}/options/{key}", value)
    put_settings(project, compared(raw, section, task, method))
    with pytest.raises(ParamsError, match=rf"^studies/{STUDY_OF[task]}\.yaml: methods\.{method}: .*{message}"):
        check_all()


def test_images_too_small_for_a_published_method_are_said_too(known, project, raw):
    put_settings(
        project, compared(with_value(raw, "study/lgg-resnet18/image_size", 32), "comparison", "segmentation", "skd")
    )
    with pytest.raises(ParamsError, match=rf"^{OF_STUDY}methods\.skd: .*64×64 pixels or more, not 32×32"):
        check_all()


def test_a_network_that_is_changed_is_asked_for_again(known, project, raw):
    """Other options of an encoder that is known can be wrong too."""
    options = "study/histopathologic-resnet18/student/encoder_options"
    put_settings(project, with_value(raw, options, {"chanels": [8, 8, 8, 8]}))
    with pytest.raises(ParamsError, match=r"^studies/histop.*\.yaml: student\.encoder_options: encoder .*'chanels'"):
        check_all()


@pytest.mark.parametrize(
    ("study", "by", "groups", "training"),
    [
        (STUDY, "image", 7, 7),
        (STUDY, "image", 8, None),
        (STUDY, "group", 6, 7),  # half of twelve, or one more: a group is two images
        (STUDY, "group", 7, None),
        (STUDY, "given", 4, 6),  # all but one for validation and one for test
        (STUDY, "given", 5, None),
        ("histopathologic-resnet18", "image", 6, 7),
        ("histopathologic-resnet18", "image", 7, None),  # balanced, seven images are four of each class
    ],
)
def test_fewer_training_images_than_a_batch_are_said_before_anything_is_fetched(
    project, raw, monkeypatch, study, by, groups, training
):
    """Not where more may come than the settings tell."""
    monkeypatch.setattr("classroom.settings.checks._check_training", lambda params: None)
    of = raw["study"][study]
    raw["studies"] = [study]
    raw["training"]["batch_size"] = 8
    raw["dataset"][of["dataset"]]["synthetic"] |= {"groups": groups, "images_per_group": 2}
    of |= {"split": {"percent": [50, 25, 25], "by": by, "seed": 0}, "balance": "none" if study == STUDY else "mean"}
    put_settings(project, raw)
    if training is None:
        check_all()
        return
    said = (
        f"studies/{study}.yaml: split leaves at most {training} images for training, of the {2 * groups} in datasets/"
        f"{of['dataset']}.yaml (synthetic), fewer than one batch: params.yaml has training.batch_size 8. Lower it"
    )
    with pytest.raises(ParamsError, match=rf"^{re.escape(said)}"):
        check_all()


def test_notes_that_are_damaged_or_of_other_versions_are_not_believed(known, project, raw):
    """Another version of a library may lack what the last one had."""
    encoder = raw["study"][STUDY]["teacher"]["encoder"]
    raw = compared(raw, "comparison", "segmentation", "at")
    raw["studies"] = [STUDY]
    put_settings(project, json.loads(json.dumps(raw).replace(encoder, "resnet81")))
    for path in known.iterdir():
        path.write_text(path.read_text().replace(encoder, "resnet81"))
    check_all()  # the notes are believed, so nobody finds that there is no such encoder
    notes = known / "trained.json"
    facts = json.loads(notes.read_text())
    of_other_versions = json.dumps({of: [["0"], fact] for of, (_, fact) in facts.items()})
    for content in (of_other_versions, "{", "[]", "{}", "null"):
        notes.write_text(content)
        with pytest.raises(ParamsError, match="unknown encoder 'resnet81'"):
            check_all()


@pytest.mark.parametrize(
    ("study", "encoder", "near"),
    [
        ("lgg-mobilenet", "resnet81", r"Did you mean 'resnet18'\?"),
        ("lgg-mobilenet", "tu-resnett50", r"Did you mean 'tu-resnet50'\?"),
        ("lgg-mobilenet", "tu-", ""),
        ("ham10000-classification", "mobilenet_v1_100", r"Did you mean 'mobilenetv1_100'\?"),
    ],
)
def test_the_key_of_an_unknown_encoder_is_named(known, project, raw, study, encoder, near):
    put_settings(project, with_value(raw, f"study/{study}/teacher/encoder", encoder))
    message = rf"^studies/{study}\.yaml: teacher\.encoder: unknown encoder '{encoder}'\. ?{near}"
    with pytest.raises(ParamsError, match=message):
        check_all()


@pytest.mark.parametrize("wrong", [None, 129])
def test_a_teacher_whose_features_have_another_width_is_refused(known, project, raw, wrong):
    """Its message names what helps; found in training, it would cost the time until the first batch of V2."""
    put_settings(project, with_value(raw, "study/histopathologic-resnet18/teacher/conv6_channels", wrong))
    width = wrong or 4 * 128  # a bottleneck's
    message = rf"^studies/histopathologic-.*\.yaml: .*{width} and 128 channels\. Set teacher\.conv6_channels to 128\."
    with pytest.raises(ParamsError, match=message):
        check_all()


def test_all_that_cannot_be_trained_is_said_at_once(known, project, raw):
    """Of several studies and methods, each with its key and what helps."""
    with_value(raw, "study/lgg-resnet18/methods/skd/options/tap", "encoder.nothing")
    with_value(raw, "study/lgg-resnet18/methods/emkd/options/high", "layer9")
    with_value(raw, "study/histopathologic-resnet18/teacher/conv6_channels", 129)
    with_value(raw, "study/ham10000-classification/teacher/encoder", "resnet81")
    with_value(raw, "study/ham10000-classification/student/encoder", "resnett18")
    put_settings(project, raw)
    with pytest.raises(ParamsError) as caught:
        check_all()
    for said in (
        "studies/lgg-resnet18.yaml: methods.skd: ",
        "studies/lgg-resnet18.yaml: methods.emkd: ",
        "studies/histopathologic-resnet18.yaml: teacher and student share",
        "studies/ham10000-classification.yaml: teacher.encoder: unknown encoder 'resnet81'",
        "studies/ham10000-classification.yaml: student.encoder: unknown encoder 'resnett18'",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (STUDY, {"teacher/weights": "hub", "teacher/encoder": "tu-test_vit"}, r"teacher: [^;]*test_vit[^;]*$"),
        ("ham10000-classification", {"student/encoder": "vit_tiny_patch16_224"}, r"student\.encoder: .*vit_tiny"),
        (
            STUDY,
            {"student/weights": "hub", "student/encoder": "tu-cspresnet50d"},
            r"no ImageNet weights of encoder 'tu-cspresnet50d'",
        ),
        (
            STUDY,
            {"student/weights": "downloads/none.safetensors"},
            r"student\.weights: there is no file downloads/none",
        ),
    ],
)
def test_networks_that_cannot_be_trained_are_named_with_what_helps(known, project, raw, study, changes, message):
    for key, value in changes.items():
        with_value(raw, f"study/{study}/{key}", value)
        if key.endswith("encoder"):  # others take other options
            with_value(raw, f"study/{study}/{key}_options", {})
    put_settings(project, raw)
    with pytest.raises(ParamsError, match=rf"studies/{study}\.yaml: .*{message}"):
        check_all()


@pytest.mark.parametrize("function", ["prediction_loss", "feature_loss"])
@pytest.mark.parametrize("joint", [["ml-v1", "ml-v2"], ["kd_ml-v3"], ["ml-v1", "kd_on-v2"]])
def test_a_batch_passes_through_the_losses_of_every_kind_of_variant(project, raw, monkeypatch, function, joint):
    """Whatever variants are asked for, and though only those are tried that have more than others."""

    def fail(*_: object) -> None:
        raise RuntimeError("sizes do not fit")

    monkeypatch.setattr(f"classroom.methods.learning_styles.method.{function}", fail)
    raw |= {"studies": [STUDY], "ours": joint[0], "variants": {"joint": joint, "offline": []}}
    raw["grid"]["studies"] = []
    put_settings(project, compared(raw, "comparison", "segmentation", "at"))
    with pytest.raises(ParamsError, match=r"learning_styles/method\.py, line \d+: RuntimeError: sizes do not fit"):
        check_all()


@pytest.mark.parametrize(
    ("term", "shape", "said"),
    [
        ("attentoin", (), r"returns the terms attentoin, and weights names attention, prediction: use the same names"),
        ("attention", (), r"returns the terms attention, and weights names attention, prediction: use the same names"),
        (
            "attention",
            (2, 3),
            r"returns the term attention with shape \(2, 3\), not a scalar: return its mean or sum\.$",
        ),
    ],
)
def test_a_method_whose_losses_are_not_those_of_its_weights_is_named(project, raw, monkeypatch, term, shape, said):
    """It was a traceback that ended in a KeyError and named neither the method nor its file."""
    kind = registry.load("at")["segmentation"]
    monkeypatch.setattr(kind, "losses", lambda *_: {term: torch.zeros(shape, device="meta")})
    raw |= {"studies": [STUDY]}
    raw["grid"]["studies"] = []
    put_settings(project, compared(raw, "comparison", "segmentation", "at"))
    where = rf"studies/{STUDY}\.yaml: methods\.at: {kind.__name__}\.losses in src/classroom/methods/at\.py "
    with pytest.raises(ParamsError, match=f"^{where}.*{said}"):
        check_all()


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (lambda *_: torch.zeros(2, 3) @ torch.zeros(2, 3), r"RuntimeError: .*2"),
        (lambda *_: {}["attention"], "KeyError: 'attention'"),
    ],
)
def test_what_fails_in_a_method_s_own_file_is_told_with_its_line_and_no_other_advice(
    project, raw, monkeypatch, failing, said
):
    """A matrix of the wrong shape was blamed on the size of the images; any other mistake was a traceback."""
    monkeypatch.setattr("classroom.methods.at.attention", failing)
    raw |= {"studies": [STUDY]}
    raw["grid"]["studies"] = []
    put_settings(project, compared(raw, "comparison", "segmentation", "at"))
    with pytest.raises(ParamsError) as caught:
        check_all()
    where = rf"studies/{STUDY}\.yaml: methods\.at: src/classroom/methods/at\.py, line (\d+): "
    found = re.match(f"{where}(?:{said})", str(caught.value))
    assert found, caught.value
    assert "attention(own" in (ROOT / "src/classroom/methods/at.py").read_text().splitlines()[int(found[1]) - 1]
    assert "image_size" not in str(caught.value)


def test_the_folder_of_a_dataset_is_asked_for_until_it_is_fetched(project, raw):
    dataset = select(raw, "dataset.lgg", Dataset).model_copy(
        update={"source": "directory", "directory": "downloads/lgg"}
    )
    with pytest.raises(ParamsError, match=r"^datasets/lgg\.yaml: directory: no such folder: downloads/lgg\. Expected"):
        check_source("lgg", dataset)
    (project / "downloads" / "lgg").mkdir(parents=True)
    check_source("lgg", dataset)
    (project / "downloads" / "lgg").rmdir()
    (project / "data" / "raw" / "lgg").mkdir(parents=True)
    check_source("lgg", dataset)


def test_a_segmentation_of_images_that_have_no_masks_is_refused(known, project, raw):
    """It was said by `prepare`, after the images were fetched. All such studies are named, and what would help."""
    for name in ("lgg-resnet18", "ham10000-segmentation"):
        raw["study"][name]["dataset"] = "histopathologic"
    folders = raw["dataset"]["lgg"]
    folders |= {"reader": "folders", "source": "directory", "directory": "x"}
    put_settings(project, raw)
    with pytest.raises(ParamsError) as caught:
        check_all()
    said = str(caught.value)
    for name, dataset in [("lgg-resnet18", "histopathologic"), ("ham10000-segmentation", "histopathologic"),
                          ("lgg-mobilenet", "lgg")]:  # fmt: skip
        assert f"studies/{name}.yaml: task: segmentation needs a dataset with masks, and '{dataset}'" in said
    assert "set task to classification" in said
