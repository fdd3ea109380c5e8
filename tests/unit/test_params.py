"""params.yaml: what is valid, and what is said of whatever is not."""

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
from hypothesis import given
from hypothesis import strategies as st

from classroom import params
from classroom.distill.exchange import EXCHANGE
from classroom.distill.grid import weights_at
from classroom.engines.checks import check_all, check_source
from classroom.errors import ParamsError
from classroom.params import (
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
from support.studies import ROOT, STUDY

PRINTED_WEIGHTS = ROOT / "src/classroom/reporting/printed/weights.csv"


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
            params.check(raw)
            wrongly.append(value)
        except ParamsError as error:
            if not re.search(message, str(error)):
                wrongly.append((value, str(error)))
    inner[last] = before
    return wrongly


# --- the committed file ---


TABLES = {
    "histopathologic-resnet18": 3, "lgg-resnet18": 4, "histopathologic-mobilenet": 8, "lgg-mobilenet": 9,
    "ham10000-classification": 14, "ham10000-segmentation": 15,
}  # fmt: skip


@pytest.fixture(scope="module")
def committed() -> Params:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return params.check(params.load(ROOT / "params.yaml"))


def test_the_committed_settings_hold_the_papers_six_studies_and_twelve_variants(committed):
    assert len(VARIANTS) == 12
    assert set(VARIANTS) == {f"{technique}-{strategy}" for technique in TECHNIQUES for strategy in STRATEGIES}
    assert set(committed.trained_variants) == set(VARIANTS)
    assert set(committed.studies) == set(committed.study) == set(TABLES)
    assert {name: study.tables.variants for name, study in committed.study.items()} == {
        name: f"table{number}" for name, number in TABLES.items()
    }


def test_the_committed_weights_are_those_that_the_studys_table_prints(committed):
    ours = {
        study: {variant: weights.model_dump() for variant, weights in of.items()}
        for study, of in committed.weights.items()
    }
    assert ours == {study: printed_weights(number) for study, number in TABLES.items()}


def test_the_committed_weights_name_only_what_the_technique_has(raw):
    """ML has no teacher, KD no peer: a weight there would train on nothing. Every sum is 1."""
    has = {
        "ml": {"alpha", "gamma"}, "kd_off": {"alpha", "beta"}, "kd_on": {"alpha", "beta"},
        "kd_ml": {"alpha", "beta", "gamma"},
    }  # fmt: skip
    for study, variant in product(TABLES, VARIANTS):
        for student, weights in raw["weights"][study][variant].items():
            where = study, variant, student
            assert set(weights) == has[variant.split("-")[0]], where
            assert sum(weights.values()) == pytest.approx(1), where


def test_weights_that_the_paper_does_not_print_are_marked(committed):
    """The cell of γ of Table 9's ML V3 is empty for S1; Table 8 has 0.9 there, and so has the sum."""
    with PRINTED_WEIGHTS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["inferred"]]
    assert {(row["table"], row["technique"], row["strategy"]): row["inferred"] for row in rows} == {
        ("4", "ml", "v3"): "alpha_2", ("8", "kd_ml", "v2"): "gamma_1 gamma_2", ("9", "ml", "v3"): "gamma_1",
    }  # fmt: skip
    assert committed.weights["lgg-mobilenet"]["ml-v3"].S1.model_dump() == {"alpha": 0.1, "beta": 0.0, "gamma": 0.9}


def test_weights_that_the_paper_balances_are_points_of_a_grid(committed):
    """Every printed KD+ML row shares 1 - alpha equally, so that a search with teacher_share 0.5 can find it again."""
    for study, variant in product(TABLES, VARIANTS):
        weights = committed.weights[study][variant]
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
        ("trainig", r"unknown key 'trainig'\. Did you mean 'training'\?"),
        ("training/epoch", r"unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("dataset/lgg/phantom/patients", r"unknown key 'dataset\.lgg\.phantom\.patients'. Known: groups, images_per_"),
        ("dataset/lgg/kagle", r"unknown key 'dataset\.lgg\.kagle'\. Did you mean 'kaggle'\?"),
        ("study/lgg-resnet18/tables/variant", r"'study\.lgg-resnet18\.tables\.variant'\. Did you mean 'variants'\?"),
        ("study/lgg-resnet18/teacher/weight", r"'study\.lgg-resnet18\.teacher\.weight'\. Did you mean 'weights'\?"),
        ("weights/lgg-resnet18/ml-v1/S3", r"unknown key 'weights\.lgg-resnet18\.ml-v1\.S3'\. Known: S1, S2\."),
        ("weights/lgg-resnet18/ml-v1/S1/alfa", r"'weights\.lgg-resnet18\.ml-v1\.S1\.alfa'\. Did you mean 'alpha'\?"),
        ("losses/prediction/xyz", r"'losses\.prediction\.xyz'\. Known: temperature, direction, multiply_by_squared"),
    ],
)
def test_a_misspelt_key_is_named_with_the_likely_one(raw, path, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: .*{message}"):
        params.check(with_value(raw, path, 1))


@pytest.mark.parametrize("path", ["training", "training/threads", "study/lgg-resnet18/split/by"])
def test_a_missing_key_is_named(raw, path):
    inner, last = place(raw, path)
    del inner[last]
    with pytest.raises(ParamsError, match=rf"^params\.yaml: key '{re.escape(path.replace('/', '.'))}' is missing$"):
        params.check(raw)


def test_all_mistakes_are_named_at_once(raw):
    """One run of `classroom check` must do for a file with several mistakes."""
    broken = with_value(with_value(raw, "training/epochs", 0), "training/precision", "fp16")
    with pytest.raises(ParamsError, match=r"training\.epochs: .*; training\.precision: "):
        params.check(broken)


# --- wrong values ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training/epochs", 0, r"training\.epochs: should be greater than or equal to 1, not 0"),
        ("training/epochs", "six", r"training\.epochs: should be a valid integer.*not 'six'"),
        ("training/batch_size", 1, r"training\.batch_size: should be greater than or equal to 2"),
        ("training/learning_rate", 0, r"training\.learning_rate: should be greater than 0"),
        ("training/learning_rate", math.nan, r"training\.learning_rate: should be a finite number, not nan"),
        ("training/precision", "fp16", r"training\.precision: should be 'fp32' or 'bf16', not 'fp16'"),
        ("training", None, r"training: should be a mapping, not None"),
        ("scale", "huge", r"scale: should be 'demo', 'small' or 'paper', not 'huge'"),
        ("seeds", 0, r"seeds: should be a list, not 0"),
        ("seeds", [], r"seeds: should have at least 1 item\(s\), not \[\]$"),
        ("seeds", [-1], r"seeds\.0: should be greater than or equal to 0, not -1"),
        ("seeds", [0, 1, 0], r"seeds: each once, not \[0, 1, 0\]"),
        ("dataset/lgg/source", "kagle", r"lgg\.source: should be 'phantom', 'directory', 'kaggle' or 'download'"),
        ("dataset/lgg/reader", "lggg", r"dataset\.lgg\.reader: should be 'lgg', 'histopathologic'"),
        ("dataset/lgg/subset", 1, r"dataset\.lgg\.subset: should be greater than or equal to 2, not 1"),
        ("dataset/lgg/full_size", 0, r"dataset\.lgg\.full_size: should be greater than or equal to 1, not 0"),
        ("dataset/lgg/phantom/groups", 0, r"dataset\.lgg\.phantom\.groups: should be greater than or equal to 1"),
        ("dataset/lgg/phantom/size", 16, r"dataset\.lgg\.phantom\.size: should be greater than or equal to 32"),
        ("study/lgg-resnet18/balance", "mena", r"study\.lgg-resnet18\.balance: should be 'none' or 'mean', not 'mena'"),
        ("grid/alpha_1", [0.1, 1.0], r"grid\.alpha_1\.1: should be less than 1, not 1\.0"),
        ("grid/alpha_2", [0], r"grid\.alpha_2\.0: should be greater than 0, not 0"),
        ("grid/teacher_share", [], r"grid\.teacher_share: .*at least 1 item"),
        ("study/lgg-resnet18/image_size", 48, r"study\.lgg-resnet18\.image_size: should be a multiple of 32, not 48"),
        ("study/lgg-resnet18/image_size", 0, r"study\.lgg-resnet18\.image_size: should be greater than or equal to 32"),
        ("study/lgg-resnet18/task", "detection", r"lgg-resnet18\.task: should be 'classification' or 'segmentation'"),
        ("study/lgg-resnet18/split/percent", [75, 10, 10], r"split\.percent: .*sum to 100, not \[75, 10, 10\]"),
        ("study/lgg-resnet18/split/percent", [90, 10, 0], r"split\.percent: .*at least 1.*not \[90, 10, 0\]"),
        ("study/lgg-resnet18/split/by", "patient", r"split\.by: should be 'image' or 'group', not 'patient'"),
        (
            "study/lgg-resnet18/student/decoder_channels",
            [64, 32],
            r"decoder_channels: should have at least 5 item\(s\), not \[64, 32\]$",
        ),
        ("study/lgg-resnet18/student/decoder_channels", [64, 32, 16, 8, 0], r"student\.decoder_channels\.4: should be"),
        ("losses/prediction/temperature", 0, r"losses\.prediction\.temperature: should be greater than 0"),
        ("losses/prediction/temperature", math.inf, r"losses\.prediction\.temperature: should be a finite number"),
        ("losses/prediction/direction", "forward", r"losses\.prediction\.direction: should be 'student\|\|target' or"),
        ("augmentation/flip", 1.5, r"augmentation\.flip: should be less than or equal to 1, not 1\.5"),
        ("augmentation/scale", [1.1, 0.9], r"augmentation\.scale: the smallest and the largest .*not \[1\.1, 0\.9\]"),
        ("weights/lgg-resnet18/ml-v1/S1/alpha", -0.1, r"ml-v1\.S1\.alpha: should be greater than or equal to 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(raw, path, value, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: .*{message}"):
        params.check(with_value(raw, path, value))


def test_a_first_decoder_width_that_differs_between_teacher_and_student_is_refused(raw):
    """Their feature maps could not be compared; training would fail after minutes instead."""
    path = "study/lgg-resnet18/student/decoder_channels"
    with pytest.raises(ParamsError, match=r"study\.lgg-resnet18: .*decoder_channels must start alike: 64 and 32"):
        params.check(with_value(raw, path, [32, 32, 16, 8, 4]))
    assert params.check(with_value(raw, path, [64, 8, 8, 8, 8])).study[STUDY].student.decoder_channels[1] == 8


# --- types: what one engine reads, the other reads ---

WHOLE = (
    "seeds/0", "training/epochs", "training/batch_size", "training/threads", "study/lgg-resnet18/image_size",
    "study/lgg-resnet18/split/seed", "study/lgg-resnet18/split/percent/0", "dataset/lgg/phantom/groups",
    "dataset/histopathologic/subset", "dataset/histopathologic/subset_seed", "dataset/lgg/full_size",
    "study/lgg-resnet18/student/decoder_channels/4", "study/histopathologic-resnet18/teacher/conv6_channels",
    "methods/segmentation/skd/pool", "methods/segmentation/dsd/category_size", "methods/classification/simkd/reduction",
)  # fmt: skip
NUMBERS = (
    "training/learning_rate", "losses/prediction/temperature", "losses/task/focal_gamma", "augmentation/flip",
    "augmentation/scale/0", "weights/lgg-resnet18/ml-v1/S1/alpha", "grid/alpha_1/0", "tune/factors/0",
    "method_weights/lgg-resnet18/cwd/logits", "methods/classification/at/power",
    "methods/segmentation/skd/adversary/weight",
)  # fmt: skip
SWITCHES = (
    "training/compile", "losses/prediction/multiply_by_squared_temperature", "methods/segmentation/skd/adversarial",
    "methods/classification/fitnet/two_stage",
)  # fmt: skip
TEXTS = ("studies/0", "study/lgg-resnet18/dataset", "samples/lgg-resnet18", "dataset/lgg/directory", "scale")


def refused(raw: dict[str, Any], path: str, value: Any) -> str:
    """What `check` says of `value` at `path`, where an item of a list is named by its place; empty if nothing."""
    inner: Any = raw
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in above:
        inner = inner[part]
    before, inner[last] = inner[last], value
    try:
        params.check(raw)
        return ""
    except ParamsError as error:
        return str(error)
    finally:
        inner[last] = before


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_number_is_written_as_one(raw, path):
    """Snakemake would get 2 where DVC puts 2.0 or true into commands and the names of folders."""
    key = re.escape(path.replace("/", "."))
    for value in (64.0, True, "64", 2.0, 1e1):
        message = refused(raw, path, value)
        assert re.search(rf"{key}: should be .*, not {re.escape(repr(value))}$", message), (value, message)
    assert "such as 1, not 64.0" in refused(raw, "training/epochs", 64.0)


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_is_no_text_and_no_switch(raw, path):
    key = re.escape(path.replace("/", "."))
    for value in ("0.5", True):
        message = refused(raw, path, value)
        assert re.search(rf"{key}[^:]*: should be .*, not {re.escape(repr(value))}", message), (value, message)


@pytest.mark.parametrize("path", SWITCHES)
def test_a_switch_is_true_or_false(raw, path):
    """YAML 1.1 takes yes and on for true, YAML 1.2 for texts."""
    for value in ("yes", "on", "true", 1, 0.0):
        assert refused(raw, path, value).endswith(f"{path.replace('/', '.')}: should be true or false, not {value!r}")


@pytest.mark.parametrize("path", TEXTS)
def test_a_text_is_no_number(raw, path):
    for value in (3, 3.0, True):
        assert f"{path.replace('/', '.')}: should be " in refused(raw, path, value)


def test_a_list_is_neither_a_text_nor_a_mapping(raw):
    for value in ("ml-v1", {"ml-v1": 1}, 1):
        assert "variants.joint: should be a list, not " in refused(raw, "variants/joint", value)
    assert "twins.x: should be a list, not 'ab'" in refused(raw, "twins", {"x": "ab"})
    assert "twins.x.1: should be a valid string, not 1" in refused(raw, "twins", {"x": ["lgg-resnet18", 1]})


def test_a_whole_number_will_do_for_a_float(raw):
    raw["losses"]["prediction"]["temperature"] = 2
    assert params.check(raw).losses.prediction.temperature == 2.0


def test_a_factor_stays_as_it_is_written(raw):
    """DVC names a folder by it: tune/…/10 for 10, so that Snakemake must not look for tune/…/10.0."""
    raw["tune"]["factors"] = [0.1, 10, 1.0]
    assert [str(factor) for factor in params.check(raw).tune.factors] == ["0.1", "10", "1.0"]
    with pytest.raises(ParamsError, match=r"tune\.factors: each value once, not \[10, 10\.0\]"):
        params.check(with_value(raw, "tune/factors", [10, 10.0]))


@pytest.mark.parametrize("value", ["1.0", "1e1", "true", "'1'"])
def test_a_seed_that_is_no_whole_number_is_refused_wherever_it_is_read(tmp_path, value):
    """`check` and the commands alike, as YAML has it."""
    committed = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(committed.replace("seeds: [0]", f"seeds: [{value}]"))
    raw = params.load(tmp_path / "params.yaml")
    for read in (lambda: params.check(raw), lambda: select(raw, "seeds", list[int])):
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
    with pytest.raises(ParamsError, match=rf"^params\.yaml: study\.{study}: {message.format(role)}"):
        params.check(with_value(raw, f"study/{path.format(role)}", value))


def test_only_classes_can_be_balanced(raw):
    assert params.check(with_value(raw, "study/histopathologic-resnet18/balance", "mean"))
    with pytest.raises(ParamsError, match=r"study\.lgg-resnet18: balance is of classes, so a segmentation .* 'none'"):
        params.check(with_value(raw, "study/lgg-resnet18/balance", "mean"))


def test_a_classification_student_may_have_the_papers_block_too(raw):
    """The settings leave it free; that both widths agree is checked where the libraries can be asked."""
    path = "study/histopathologic-resnet18/student/conv6_channels"
    assert params.check(with_value(raw, path, 16)).study["histopathologic-resnet18"].student.conv6_channels == 16


# --- where data come from ---


@pytest.mark.parametrize(
    ("source", "nothing"), [("phantom", None), ("directory", ""), ("kaggle", []), ("download", [])]
)
def test_a_dataset_needs_the_settings_of_its_source(raw, source, nothing):
    raw["dataset"]["lgg"] |= {"source": source, source: nothing}
    with pytest.raises(ParamsError, match=rf"^params\.yaml: dataset\.lgg: source is '{source}', so '{source}' must be"):
        params.check(raw)


def test_a_dataset_needs_no_settings_of_other_sources(raw):
    """A user's own dataset has a folder and nothing else."""
    raw["dataset"]["lgg"] = {"reader": "lgg", "source": "directory", "directory": "mine", "full_size": 10}
    dataset = params.check(raw).dataset["lgg"]
    assert (dataset.phantom, dataset.kaggle, dataset.download, dataset.subset) == (None, (), (), None)


def test_a_download_has_one_of_two_checksums(raw):
    """Without one, whatever the web sends would be taken for the dataset."""
    file = {"url": "https://example.org/a.zip"}
    wrong = [
        "", "md5:", "md5:" + "0" * 31, "md5:" + "g" * 32, "md5:" + "A" * 32, "sha1:" + "0" * 40, "sha256:" + "0" * 32,
        "0" * 32, "md5:" + "0" * 64, "md5:" + "0" * 32 + "\n",
    ]  # fmt: skip
    downloads = [[file | {"checksum": checksum}] for checksum in wrong]
    assert accepted(raw, "dataset/lgg/download", downloads, r"dataset\.lgg\.download\.0\.checksum: .*pattern") == []
    for checksum in ("md5:" + "0a" * 16, "sha256:" + "0a" * 32):
        raw["dataset"]["lgg"] |= {"source": "download", "download": [file | {"checksum": checksum}]}
        assert params.check(raw).dataset["lgg"].download[0].checksum == checksum


# --- names that refer to one another ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("studies", ["lgg-resnet81"], r"studies: unknown study 'lgg-resnet81'\. Did you mean 'lgg-resnet18'\?"),
        ("studies", ["lgg-resnet18"], r"studies must list every block of study: 'histopathologic-resnet18' is missing"),
        ("studies", ["lgg-resnet18"] * 2, r"studies: each once, not \['lgg-resnet18', 'lgg-resnet18'\]"),
        ("baseline_tables", ["table2"] * 2, r"baseline_tables: each once, not \['table2', 'table2'\]"),
        ("baseline_tables", ["table2"], r"baseline_tables lacks 'table13', which study\.ham10000-.*tables\.baselines"),
        ("baseline_tables", ["table2", "table13", "x"], r"baseline_tables: no study names 'x' under tables\.baselines"),
        ("baseline_tables", ["table2", "table13", "table4"], r"baseline_tables: no study names 'table4' under"),
        ("study/lgg-resnet18/dataset", "lgq", r"study\.lgg-resnet18\.dataset: unknown dataset 'lgq'\. .*'lgg'\?"),
        ("variants/joint", ["kd_mml-v1"], r"variants\.joint: unknown variant 'kd_mml-v1'\. Did you mean 'kd_ml-v1'\?"),
        ("variants/offline", ["kdoff-v1"], r"variants\.offline: unknown variant 'kdoff-v1'\. .*'kd_off-v1'\?"),
        ("variants/joint", ["ml-v1", "ml-v1"], r"variants\.joint: a variant is listed twice"),
        ("variants/joint", ["kd_off-v1"], r"variants: 'kd_off-v1' needs the pre-trained teacher.*joint to offline"),
        ("variants/offline", ["kd_on-v1"], r"variants: 'kd_on-v1' needs no pre-trained teacher.*offline to joint"),
        ("samples", {STUDY: "kd_ml-v9"}, r"samples\.lgg-resnet18: 'kd_ml-v9' is not in variants\. .*'kd_ml-v3'"),
        ("samples", {"lgg-mobile": "ml-v1"}, r"samples\.lgg-mobile: unknown study 'lgg-mobile'\. .*'lgg-mobilenet'"),
        ("samples", {"ham10000-classification": "ml-v1"}, r"samples\.ham.*: pictures of masks need a segmentation"),
        ("grid/studies", ["lgg-resnet81"], r"grid\.studies: unknown study 'lgg-resnet81'\. .*'lgg-resnet18'"),
        ("grid/studies", ["lgg-resnet18"] * 2, r"grid: studies: each value once, not \['lgg-resnet18', 'lgg-res"),
        ("grid/alpha_1", [0.1, 0.1], r"grid: alpha_1: each value once, not \[0\.1, 0\.1\]"),
        ("grid/alpha_2", [0.1, 0.2, 0.1], r"grid: alpha_2: each value once"),
        ("grid/teacher_share", [0.5, 0.5], r"grid: teacher_share: each value once"),
        ("grid/joint", ["kd_mll-v3"], r"grid\.joint: unknown variant 'kd_mll-v3'\. Did you mean 'kd_ml-v3'\?$"),
        ("grid/joint", ["kd_off-v1"], r"grid: 'kd_off-v1' needs the pre-trained teacher: move it from joint to off"),
        ("grid/offline", ["ml-v1"], r"grid: 'ml-v1' needs no pre-trained teacher: move it from offline to joint$"),
        ("twins", {"x": ["lgg-resnet18", "lgg"]}, r"twins\.x: unknown study 'lgg'\. "),
        ("twins", {"x": ["lgg-resnet18"]}, r"key 'twins\.x\.1' is missing"),
        ("twins", {"x": ["lgg-resnet18"] * 2}, r"twins\.x: two different studies, not 'lgg-resnet18' twice"),
        ("twins", {"table4": ["lgg-resnet18", "lgg-mobilenet"]}, r"twins\.table4: the name is taken \(study\.lgg-res"),
        ("twins", {"cost": ["lgg-resnet18", "lgg-mobilenet"]}, r"twins\.cost: the name is taken \(a report of its own"),
        ("twins", {"table13": ["lgg-resnet18", "lgg-mobilenet"]}, r"twins\.table13: the name is taken \(baselines"),
        ("twins", {"A B": ["lgg-resnet18", "lgg-mobilenet"]}, r"twins\.A B: a name is lower-case letters"),
        ("weights/lgg-resnet81", {}, r"weights: unknown study 'lgg-resnet81'\. Did you mean 'lgg-resnet18'\?"),
        ("weights/lgg-resnet18/kd_mm-v1", {"S1": {}, "S2": {}}, r"weights\.lgg-resnet18: unknown variant 'kd_mm-v1'"),
    ],
)
def test_a_name_that_refers_to_nothing_is_named_with_the_nearest(raw, path, value, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: {message}"):
        params.check(with_value(raw, path, value))


KINDS = ("variants", "fidelity", "architecture", "baselines")


@pytest.mark.parametrize("kind", KINDS)
def test_two_reports_of_one_name_are_refused(raw, kind):
    """One would overwrite the other's file, and both engines would ask two rules for it."""
    message = rf"study\.lgg-resnet18\.tables\.{kind}: '\w+' is taken \(.*\); each report has a name of its own"
    taken = ["table3", "table11", "table6", "table1", "table5", "cost"]
    assert accepted(raw, f"study/lgg-resnet18/tables/{kind}", taken, message) == []


def test_two_reports_of_one_study_need_two_names(raw):
    with pytest.raises(
        ParamsError, match=r"tables\.fidelity: 'table4' is taken \(study\.lgg-resnet18\.tables\.variants"
    ):
        params.check(with_value(raw, "study/lgg-resnet18/tables/fidelity", "table4"))


def test_baselines_of_several_studies_may_share_a_report(raw):
    """Tables 2 and 13 of the paper do."""
    for study in raw["study"].values():
        study["tables"]["baselines"] = "alone"
    raw["baseline_tables"] = ["alone"]
    assert params.check(raw).baseline_tables == ("alone",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_whose_name_could_not_be_a_file_is_refused(raw, kind):
    message = rf"lgg-resnet18\.tables\.{kind}: a name is lower-case letters"
    names = ["Table4", "table 4", "a/b", "../x", "", "table4.md"]
    assert accepted(raw, f"study/lgg-resnet18/tables/{kind}", names, message) == []


@pytest.mark.parametrize("kind", ["study", "dataset"])
def test_a_name_that_could_not_be_a_folder_everywhere_is_refused(raw, kind):
    """Names of studies and datasets become folders and parts of dotted keys."""
    one = next(iter(raw[kind].values()))
    for name in ("LGG", "lgg study", "lgg/x", "../lgg", "-lgg", "lgg.x", ""):
        raw[kind][name] = one
        with pytest.raises(ParamsError, match=rf"{kind}\.{re.escape(name)}: a name is lower-case letters"):
            params.check(raw)
        del raw[kind][name]


def test_without_a_search_the_other_settings_of_the_grid_may_stay(raw):
    """Scale paper empties the list of studies and nothing else."""
    assert params.check(with_value(raw, "grid/studies", [])).grid.joint == ("kd_ml-v3",)


def test_a_study_that_is_removed_takes_its_weights_and_names_along(raw):
    """What `studies` must list, so nothing that was left behind is trained or waited for."""
    del raw["study"]["ham10000-segmentation"]
    for message, mend in (
        (r"studies: unknown study 'ham10000-segmentation'", lambda: raw["studies"].remove("ham10000-segmentation")),
        (r"weights: unknown study 'ham10000-segmentation'", lambda: raw["weights"].pop("ham10000-segmentation")),
        (r"samples\.ham10000-segmentation: unknown study", lambda: raw["samples"].pop("ham10000-segmentation")),
    ):
        with pytest.raises(ParamsError, match=message):
            params.check(raw)
        mend()
    params.check(raw)


def test_a_variant_without_weights_is_named(raw):
    del raw["weights"]["lgg-resnet18"]["kd_off-v2"]
    with pytest.raises(ParamsError, match=r"weights\.lgg-resnet18 lacks 'kd_off-v2', which variants lists"):
        params.check(raw)


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


def test_select_hands_out_a_validated_share(raw):
    assert select(raw, "study.lgg-resnet18.split", Split) == Split(percent=(75, 10, 15), by="group", seed=0)
    assert select(raw, "dataset.lgg", Dataset).phantom.groups == raw["dataset"]["lgg"]["phantom"]["groups"]
    assert select(raw, "seeds", list[int]) == [0]


def test_select_reads_nothing_but_its_share(raw):
    """A mistake in a key that a stage does not declare must not stop the stage: DVC would not rerun it either."""
    raw["augmentation"] = "nonsense"
    assert select(raw, "training", Training).epochs == raw["training"]["epochs"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trainin", r"params\.yaml: key 'trainin' is missing at the top level\. Did you mean 'training'\?"),
        ("study.lgg-resnet81.split", r"key 'study\.lgg-resnet81\.split' is missing at study\. .*'lgg-resnet18'\?"),
        ("training.epochs.x", r"key 'training\.epochs\.x' is missing at training\.epochs\."),
        ("seeds.0", r"key 'seeds\.0' is missing at seeds\."),
    ],
)
def test_select_on_a_missing_key_says_where_and_what_is_near(raw, key, message):
    with pytest.raises(ParamsError, match=message):
        select(raw, key, Any)


def test_select_names_the_whole_key_of_a_wrong_value(raw):
    raw["study"]["lgg-resnet18"]["split"]["bye"] = raw["study"]["lgg-resnet18"]["split"].pop("by")
    with pytest.raises(
        ParamsError,
        match=r"key 'study\.lgg-resnet18\.split\.by' is missing; "
        r"unknown key 'study\.lgg-resnet18\.split\.bye'\. Did you mean 'by'\?",
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
    shutil.copy(ROOT / "params.yaml", root)
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
    return Path(shutil.copytree(checked[0] / ".classroom", project / ".classroom"))


def put(project: Path, raw: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(json.dumps(raw))  # JSON is YAML


def test_the_committed_settings_are_accepted_and_their_networks_remembered(checked, known, project, raw, monkeypatch):
    assert checked[1] == params.check(raw)
    # Asked again, it must not wait for the libraries.
    monkeypatch.setattr("classroom.networks.build.feature_channels", lambda *asked: pytest.fail(f"asked for {asked}"))
    monkeypatch.setattr("classroom.methods.make.make_on_meta", lambda *asked: pytest.fail(f"made {asked}"))
    put(project, raw)
    assert check_all() == params.check(raw)


def test_the_committed_settings_give_no_warning(checked):
    """Said at every start, it would hide those that matter."""
    assert checked[2] == []


def compared(raw: dict[str, Any], section: str, task: str, method: str) -> dict[str, Any]:
    """The same settings with one published method to make, which is in one study."""
    for other, of in product(("comparison", "tune"), ("classification", "segmentation")):
        raw[other][of]["methods"] = [method] if (other, of) == (section, task) else []
    return raw


@pytest.mark.parametrize(
    ("section", "path", "value", "message"),
    [
        ("comparison", "classification/fitnet/tap", "layer5", r"on study histo.*'layer5'.*layer1, layer2"),
        ("tune", "classification/fitnet/tap", "layer5", r"on study histo.*'layer5'.*layer1, layer2"),
        ("comparison", "segmentation/emkd/high", "decoder.block.0", r"on study lgg.*'decoder\.block\.0'"),
        ("comparison", "segmentation/skd/tap", "encoder.nothing", r"on study lgg.*does not exist"),
    ],
)
def test_a_published_method_that_cannot_be_made_is_said_before_its_teacher_trains(
    known, project, raw, section, path, value, message
):
    """Its job comes after the teacher's: hours later, at the paper's scale."""
    task, method, _ = path.split("/")
    put(project, compared(with_value(raw, f"methods/{path}", value), section, task, method))
    with pytest.raises(ParamsError, match=rf"params\.yaml: methods\.{task}\.{method} {message}"):
        check_all()


def test_images_too_small_for_a_published_method_are_said_too(known, project, raw):
    put(project, compared(with_value(raw, "study/lgg-resnet18/image_size", 32), "comparison", "segmentation", "skd"))
    with pytest.raises(ParamsError, match=r"methods\.segmentation\.skd on study lgg.*64×64 pixels or more, not 32×32"):
        check_all()


def test_a_network_that_is_changed_is_asked_for_again(known, project, raw):
    """Other options of an encoder that is known can be wrong too."""
    options = "study/histopathologic-resnet18/student/encoder_options"
    put(project, with_value(raw, options, {"chanels": [8, 8, 8, 8]}))
    with pytest.raises(ParamsError, match=r"study\.histopathologic-resnet18\.student.*chanels.* cannot be built"):
        check_all()


@pytest.mark.parametrize("name", ["networks.json", "methods.json"])
def test_notes_that_are_damaged_or_of_other_versions_are_not_believed(known, project, raw, name):
    """Another version of a library may lack what the last one had."""
    encoder = raw["study"][STUDY]["teacher"]["encoder"]
    raw = compared(raw, "comparison", "segmentation", "at")
    raw["studies"].sort(key=lambda study: study != STUDY)  # asked for first
    (project / "params.yaml").write_text(json.dumps(raw).replace(encoder, "resnet81"))
    for path in known.iterdir():
        path.write_text(path.read_text().replace(encoder, "resnet81"))
    check_all()  # the notes are believed, so nobody finds that there is no such encoder
    of_other_versions = json.dumps(json.loads((known / name).read_text()) | {"versions": ["0"]})
    for content in (of_other_versions, "{", "[]", "{}", "null"):
        (known / name).write_text(content)
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
    put(project, with_value(raw, f"study/{study}/teacher/encoder", encoder))
    message = rf"params\.yaml: study\.{study}\.teacher\.encoder: unknown encoder '{encoder}'\. ?{near}"
    with pytest.raises(ParamsError, match=message):
        check_all()


@pytest.mark.parametrize("wrong", [None, 129])
def test_a_teacher_whose_features_have_another_width_is_refused(known, project, raw, wrong):
    """Its message names what helps; found in training, it would cost the time until the first batch of V2."""
    put(project, with_value(raw, "study/histopathologic-resnet18/teacher/conv6_channels", wrong))
    width = wrong or 4 * 128  # a bottleneck's
    message = rf"study\.histopathologic-resnet18: .*{width} and 128 channels\. Set teacher\.conv6_channels to 128\."
    with pytest.raises(ParamsError, match=message):
        check_all()


def test_the_folder_of_a_dataset_is_asked_for_until_it_is_fetched(project, raw):
    dataset = select(raw, "dataset.lgg", Dataset).model_copy(
        update={"source": "directory", "directory": "downloads/lgg"}
    )
    with pytest.raises(ParamsError, match=r"dataset\.lgg\.directory: no such folder: downloads/lgg\. Expected"):
        check_source("lgg", dataset)
    (project / "downloads" / "lgg").mkdir(parents=True)
    check_source("lgg", dataset)
    (project / "downloads" / "lgg").rmdir()
    (project / "data" / "raw" / "lgg").mkdir(parents=True)
    check_source("lgg", dataset)
