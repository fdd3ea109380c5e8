"""The twelve variants: who learns what from whom, written out a second time by hand from the paper."""

from __future__ import annotations

import pytest

from classroom.distill.exchange import EXCHANGE
from classroom.params import VARIANTS

P, F = "prediction", "feature"

# variant: S1 from T, S2 from T, S1 from S2, S2 from S1 (Tables 1 and 5, Eqs. 4-7, 9, 10)
BY_HAND = {
    "ml-v1": (None, None, P, P),
    "ml-v2": (None, None, F, F),
    "ml-v3": (None, None, P, F),
    "kd_off-v1": (P, P, None, None),
    "kd_off-v2": (F, F, None, None),
    "kd_off-v3": (P, F, None, None),
    "kd_on-v1": (P, P, None, None),
    "kd_on-v2": (F, F, None, None),
    "kd_on-v3": (P, F, None, None),
    "kd_ml-v1": (P, P, P, P),
    "kd_ml-v2": (F, F, F, F),
    "kd_ml-v3": (F, P, P, F),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_student_receives_what_the_paper_gives_it(name: str) -> None:
    variant = EXCHANGE[name]
    received = (variant.S1.from_teacher, variant.S2.from_teacher, variant.S1.from_peer, variant.S2.from_peer)
    assert received == BY_HAND[name]


def test_there_are_these_twelve_variants_and_no_others() -> None:
    """A variant that settings accept but the table lacks would fail only when its training starts."""
    assert set(EXCHANGE) == set(BY_HAND) == set(VARIANTS)


@pytest.mark.parametrize(
    ("technique", "teacher"), [("ml", "none"), ("kd_off", "frozen"), ("kd_on", "trained"), ("kd_ml", "trained")]
)
def test_the_technique_alone_decides_what_becomes_of_the_teacher(technique: str, teacher: str) -> None:
    assert [EXCHANGE[f"{technique}-{strategy}"].teacher for strategy in ("v1", "v2", "v3")] == [teacher] * 3


def test_whoever_has_no_teacher_receives_nothing_from_one() -> None:
    for variant in EXCHANGE.values():
        has_teacher = variant.teacher != "none"
        assert (variant.S1.from_teacher is not None) == has_teacher
        assert (variant.S2.from_teacher is not None) == has_teacher


def test_kd_ml_v3_turns_the_teachers_gifts_of_kd_v3_round() -> None:
    """Eqs. 6 and 7 against Table 1a: KD's V3 is not KD+ML's V3 with gamma 0, though it is easily taken for it."""
    for technique in ("kd_off", "kd_on"):
        alone, together = EXCHANGE[f"{technique}-v3"], EXCHANGE["kd_ml-v3"]
        assert (alone.S1.from_teacher, alone.S2.from_teacher) == (P, F)
        assert (together.S1.from_teacher, together.S2.from_teacher) == (F, P)


def test_only_v3_teaches_the_two_students_differently() -> None:
    for variant in EXCHANGE.values():
        assert (variant.S1 != variant.S2) == (variant.strategy == "v3")


def test_names_carry_technique_and_strategy() -> None:
    """Folders of runs and keys of params.yaml are these names."""
    for name, variant in EXCHANGE.items():
        assert variant.name == name == f"{variant.technique}-{variant.strategy}"
