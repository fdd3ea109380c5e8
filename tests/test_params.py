"""params.yaml: what is valid, and what is said of whatever is not."""

from __future__ import annotations

import copy
import csv
import json
import math
import re
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, STUDY
from hypothesis import given
from hypothesis import strategies as st

from classroom import params
from classroom.engines.checks import check_all
from classroom.errors import ParamsError
from classroom.params import (
    STRATEGIES,
    TECHNIQUES,
    VARIANTS,
    Dataset,
    Split,
    StudentWeights,
    Training,
    VariantWeights,
    select,
)

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


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`raw` with the value at `path` (keys joined by '/') replaced."""
    changed = copy.deepcopy(raw)
    *above, last = path.split("/")
    inner = changed
    for part in above:
        inner = inner[part]
    inner[last] = value
    return changed


# --- the committed file ---


def test_the_committed_settings_are_valid_and_free_of_warnings(raw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = params.check(raw)
    assert settings.studies == (STUDY,)
    assert {*settings.variants.joint, *settings.variants.offline} == set(VARIANTS)


def test_there_are_twelve_variants():
    assert len(VARIANTS) == len(set(VARIANTS)) == 12
    assert set(VARIANTS) == {f"{technique}-{strategy}" for technique in TECHNIQUES for strategy in STRATEGIES}


def test_the_committed_weights_are_those_that_table_4_prints(raw):
    settings = params.check(raw)
    ours = {variant: weights.model_dump() for variant, weights in settings.weights["lgg-resnet18"].items()}
    assert ours == printed_weights(4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_committed_weights_sum_to_one_and_pull_only_on_what_the_technique_has(raw, variant):
    """ML has no teacher, KD no peer: a weight there would train on nothing."""
    technique = variant.split("-")[0]
    for student in raw["weights"]["lgg-resnet18"][variant].values():
        assert sum(student.values()) == pytest.approx(1)
        assert (
            set(student)
            == {
                "ml": {"alpha", "gamma"},
                "kd_off": {"alpha", "beta"},
                "kd_on": {"alpha", "beta"},
                "kd_ml": {"alpha", "beta", "gamma"},
            }[technique]
        )


# --- misspelt and missing keys ---


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("trainig", r"unknown key 'trainig'\. Did you mean 'training'\?"),
        ("seed", r"unknown key 'seed'\. Did you mean 'seeds'\?"),
        ("training/epoch", r"unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("augmentation/rotation", r"unknown key 'augmentation\.rotation'\. Did you mean 'rotation_degrees'\?"),
        ("dataset/lgg/phantom/patient", r"unknown key 'dataset\.lgg\.phantom\.patient'\. Did you mean 'patients'\?"),
        ("study/lgg-resnet18/imagesize", r"unknown key 'study\.lgg-resnet18\.imagesize'\. Did you mean 'image_size'\?"),
        ("study/lgg-resnet18/teacher/weight", r"'study\.lgg-resnet18\.teacher\.weight'\. Did you mean 'weights'\?"),
        ("weights/lgg-resnet18/ml-v1/S3", r"unknown key 'weights\.lgg-resnet18\.ml-v1\.S3'\. Known: S1, S2\."),
        ("weights/lgg-resnet18/ml-v1/S1/alfa", r"'weights\.lgg-resnet18\.ml-v1\.S1\.alfa'\. Did you mean 'alpha'\?"),
        (
            "losses/prediction/xyz",
            r"'losses\.prediction\.xyz'\. Known: temperature, direction, multiply_by_squared_temp",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_the_likely_one(raw, path, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: .*{message}"):
        params.check(with_value(raw, path, 1))


@pytest.mark.parametrize(
    "path", ["training", "seeds", "training/threads", "study/lgg-resnet18/split/by", "losses/task"]
)
def test_a_missing_key_is_named(raw, path):
    *above, last = path.split("/")
    inner = raw
    for part in above:
        inner = inner[part]
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
        ("training/epochs", 1.5, r"training\.epochs: should be a valid integer.*not 1\.5"),
        ("training/epochs", "six", r"training\.epochs: should be a valid integer.*not 'six'"),
        ("training/epochs", None, r"training\.epochs: should be a valid integer, not None"),
        ("training/batch_size", 1, r"training\.batch_size: should be greater than or equal to 2"),
        ("training/learning_rate", 0, r"training\.learning_rate: should be greater than 0"),
        ("training/learning_rate", math.inf, r"training\.learning_rate: should be a finite number, not inf"),
        ("losses/prediction/temperature", math.inf, r"losses\.prediction\.temperature: should be a finite number"),
        ("training/learning_rate", math.nan, r"training\.learning_rate: should be a finite number, not nan"),
        ("training/precision", "fp16", r"training\.precision: should be 'fp32' or 'bf16', not 'fp16'"),
        ("training", None, r"training: .*not None"),
        ("scale", "huge", r"scale: should be 'demo', 'small' or 'paper', not 'huge'"),
        ("seeds", 0, r"seeds: should be a valid tuple, not 0"),
        ("seeds", [], r"seeds: .*at least 1 item"),
        ("seeds", [-1], r"seeds\.0: should be greater than or equal to 0, not -1"),
        ("seeds", [0, 1, 0], r"seeds: each seed once, not \[0, 1, 0\]"),
        ("dataset/lgg/source", "kagle", r"dataset\.lgg\.source: should be 'phantom', 'directory' or 'kaggle'"),
        ("dataset/lgg/phantom/size", 16, r"dataset\.lgg\.phantom\.size: should be greater than or equal to 32"),
        ("study/lgg-resnet18/image_size", 48, r"study\.lgg-resnet18\.image_size: should be a multiple of 32, not 48"),
        ("study/lgg-resnet18/image_size", 0, r"study\.lgg-resnet18\.image_size: should be greater than or equal to 32"),
        ("study/lgg-resnet18/task", "detection", r"study\.lgg-resnet18\.task: should be 'segmentation'"),
        ("study/lgg-resnet18/split/percent", [75, 10, 10], r"split\.percent: .*sum to 100, not \[75, 10, 10\]"),
        ("study/lgg-resnet18/split/percent", [90, 10, 0], r"split\.percent: .*at least 1.*not \[90, 10, 0\]"),
        ("study/lgg-resnet18/split/percent", [120, -30, 10], r"split\.percent: .*not \[120, -30, 10\]"),
        ("study/lgg-resnet18/split/by", "patient", r"split\.by: should be 'image' or 'group', not 'patient'"),
        ("study/lgg-resnet18/student/decoder_channels", [64, 32], r"decoder_channels: .*at least 5 items"),
        ("study/lgg-resnet18/student/decoder_channels", [64, 32, 16, 8, 0], r"student\.decoder_channels\.4: should be"),
        ("losses/prediction/temperature", 0, r"losses\.prediction\.temperature: should be greater than 0"),
        ("losses/prediction/direction", "forward", r"losses\.prediction\.direction: should be 'student\|\|target' or"),
        ("augmentation/flip", 1.5, r"augmentation\.flip: should be less than or equal to 1, not 1\.5"),
        ("weights/lgg-resnet18/ml-v1/S1/alpha", 1.5, r"ml-v1\.S1\.alpha: should be less than or equal to 1"),
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


# --- names that refer to one another ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("studies", ["lgg-resnet81"], r"studies: unknown study 'lgg-resnet81'\. Did you mean 'lgg-resnet18'\?"),
        ("baseline_studies", ["lgg-mobile"], r"baseline_studies: unknown study 'lgg-mobile'\. Did .*'lgg-mobilenet'\?"),
        ("studies", ["lgg-resnet18"] * 2, r"studies: each study once, not \['lgg-resnet18', 'lgg-resnet18'\]"),
        ("tables", {"four": "lgg-resnet18"}, r"tables\.four: expected the name of one of the paper's tables"),
        ("tables", {"table2": "lgg-resnet18"}, r"tables\.table2: expected the name of one of the paper's tables"),
        ("study/lgg-resnet18/dataset", "lgq", r"study\.lgg-resnet18\.dataset: unknown dataset 'lgq'\. .*'lgg'\?"),
        ("variants/joint", ["kd_mml-v1"], r"variants\.joint: unknown variant 'kd_mml-v1'\. Did you mean 'kd_ml-v1'\?"),
        ("variants/offline", ["kdoff-v1"], r"variants\.offline: unknown variant 'kdoff-v1'\. .*'kd_off-v1'\?"),
        ("variants/joint", ["ml-v1", "ml-v1"], r"variants\.joint: a variant is listed twice"),
        ("variants/joint", ["kd_off-v1"], r"variants: 'kd_off-v1' needs the pre-trained teacher.*joint to offline"),
        ("variants/offline", ["kd_on-v1"], r"variants: 'kd_on-v1' needs no pre-trained teacher.*offline to joint"),
        ("tables/table9", "lgg-mobilenet", r"tables\.table9: 'lgg-mobilenet' is not in studies"),
        (
            "samples",
            {"lgg-resnet18": "kd_ml-v9"},
            r"samples\.lgg-resnet18: 'kd_ml-v9' is not in variants\. .*'kd_ml-v3'",
        ),
        ("samples", {"lgg-mobilenet": "ml-v1"}, r"samples: 'lgg-mobilenet' is not in studies"),
        ("baseline_studies", [], r"studies: kd_off of 'lgg-resnet18' needs its teacher.*baseline_studies"),
        ("studies", ["lgg-resnet18", "lgg-mobilenet"], r"weights\.lgg-mobilenet lacks 'ml-v1', which variants lists"),
        ("weights/lgg-resnet81", {}, r"weights: unknown study 'lgg-resnet81'\. Did you mean 'lgg-resnet18'\?"),
        ("weights/lgg-resnet18/kd_mm-v1", {"S1": {}, "S2": {}}, r"weights\.lgg-resnet18: unknown variant 'kd_mm-v1'"),
    ],
)
def test_a_name_that_refers_to_nothing_is_named_with_the_nearest(raw, path, value, message):
    with pytest.raises(ParamsError, match=rf"^params\.yaml: {message}"):
        params.check(with_value(raw, path, value))


def test_a_variant_without_weights_is_named(raw):
    del raw["weights"]["lgg-resnet18"]["kd_off-v2"]
    with pytest.raises(ParamsError, match=r"weights\.lgg-resnet18 lacks 'kd_off-v2', which variants lists"):
        params.check(raw)


@pytest.mark.parametrize("name", ["LGG", "lgg study", "lgg/x", "../lgg", "-lgg", "lgg.x", ""])
@pytest.mark.parametrize("kind", ["study", "dataset"])
def test_a_name_that_could_not_be_a_folder_everywhere_is_refused(raw, kind, name):
    """Names of studies and datasets become folders and parts of dotted keys."""
    raw[kind][name] = copy.deepcopy(next(iter(raw[kind].values())))
    with pytest.raises(ParamsError, match=rf"{kind}\.{re.escape(name)}: a name is lower-case letters"):
        params.check(raw)


# --- weights that do not sum to 1 ---


def test_the_papers_table_9_is_kept_as_printed_with_one_warning_that_names_the_student(raw):
    raw["studies"] = ["lgg-resnet18", "lgg-mobilenet"]
    raw["weights"]["lgg-mobilenet"] = printed_weights(9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = params.check(raw)
    # ML V3 prints α = 0.1 and γ = 0.8 for its first student.
    assert [str(warning.message) for warning in caught] == [
        "params.yaml: weights.lgg-mobilenet.ml-v3.S1: alpha + beta + gamma = 0.9, not 1; kept as it stands"
    ]
    student = settings.weights["lgg-mobilenet"]["ml-v3"].S1
    assert (student.alpha, student.beta, student.gamma) == (0.1, 0.0, 0.8)


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.sampled_from([(0.1, 0.9, 0.0), (0.2, 0.4, 0.4), (0.1, 0.45, 0.45), (1.0, 0.0, 0.0)]),
)
def test_exactly_the_students_whose_weights_do_not_sum_to_one_are_warned_of(any_weights, good_weights):
    names = ("alpha", "beta", "gamma")
    weights = VariantWeights(
        S1=StudentWeights(**dict(zip(names, any_weights, strict=True))),
        S2=StudentWeights(**dict(zip(names, good_weights, strict=True))),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params.warn_of_sum(weights, "here")
    assert [re.search(r"here\.(S\d)", str(w.message)).group(1) for w in caught] == (
        ["S1"] if abs(math.fsum(any_weights) - 1) > 1e-6 else []
    )


# --- reading ---


def test_a_missing_file_says_where_commands_run(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file\. Commands run in the project's root"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"scale: [demo\n", r"params\.yaml: not valid YAML: .*line"),
        (b"scale: demo\nscale: paper\n", r"params\.yaml: not valid YAML: .*duplicate key"),
        (b"", r"params\.yaml: expected a mapping of settings, found NoneType"),
        (b"- demo\n", r"params\.yaml: expected a mapping of settings, found list"),
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
    assert select(raw, "dataset.lgg", Dataset).phantom.patients == raw["dataset"]["lgg"]["phantom"]["patients"]
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
        ("tables.table9", r"key 'tables\.table9' is missing at tables\. Did you mean 'table4'\?"),
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


def test_settings_never_change_after_reading(raw):
    settings = params.check(raw)
    with pytest.raises(ValueError, match="frozen"):
        settings.training.epochs = 3


# --- all that is checked before any job starts ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root; the engines keep their notes in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(project: Path, raw: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(json.dumps(raw))  # JSON is YAML


def test_check_accepts_the_committed_settings_and_remembers_their_encoders(project, raw, monkeypatch):
    put(project, raw)
    assert check_all() == params.check(raw)
    # Asked again, it must not wait for the libraries.
    monkeypatch.setattr("classroom.networks.build.check_encoder", lambda name: pytest.fail(f"asked for {name} again"))
    assert check_all() == params.check(raw)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"versions": ["0", "0"], "encoders": ["tu-resnet81"]}'])
def test_notes_that_are_damaged_or_of_other_versions_are_not_believed(project, raw, content):
    put(project, with_value(raw, "study/lgg-resnet18/student/encoder", "tu-resnet81"))
    (project / ".classroom").mkdir()
    (project / ".classroom" / "encoders.json").write_text(content)
    with pytest.raises(ParamsError, match="unknown encoder 'tu-resnet81'"):
        check_all()


@pytest.mark.parametrize(
    ("encoder", "near"),
    [("resnet81", r"Did you mean 'resnet18'\?"), ("tu-resnett50", r"Did you mean 'tu-resnet50'\?"), ("tu-", "")],
)
def test_check_names_the_key_of_an_unknown_encoder(project, raw, encoder, near):
    put(project, with_value(raw, "study/lgg-mobilenet/teacher/encoder", encoder))
    message = rf"params\.yaml: study\.lgg-mobilenet\.teacher\.encoder: unknown encoder '{encoder}'\. ?{near}"
    with pytest.raises(ParamsError, match=message):
        check_all()


def test_check_asks_for_the_folder_of_a_dataset_until_it_is_fetched(project, raw):
    (project / ".classroom").mkdir()
    encoders = [raw["study"][study][role]["encoder"] for study in raw["study"] for role in ("teacher", "student")]
    versions = [version("timm"), version("segmentation-models-pytorch")]
    (project / ".classroom" / "encoders.json").write_text(json.dumps({"versions": versions, "encoders": encoders}))
    raw["dataset"]["lgg"] |= {"source": "directory", "directory": "downloads/lgg"}
    put(project, raw)
    with pytest.raises(ParamsError, match=r"dataset\.lgg\.directory: no such folder: downloads/lgg\. Expected"):
        check_all()
    (project / "downloads" / "lgg").mkdir(parents=True)
    assert check_all().dataset["lgg"].source == "directory"
    (project / "downloads" / "lgg").rmdir()
    (project / "data" / "raw" / "lgg").mkdir(parents=True)
    assert check_all().dataset["lgg"].source == "directory"
