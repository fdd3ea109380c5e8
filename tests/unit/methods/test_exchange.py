"""The twelve variants: who learns what from whom, written out a second time by hand from the paper."""

from __future__ import annotations

from classroom.methods.learning_styles.exchange import EXCHANGE
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
    "kd_ml-v3": (F, P, P, F),  # T gives the reverse of what it gives in KD's V3
}
TEACHER = {"ml": "none", "kd_off": "frozen", "kd_on": "trained", "kd_ml": "trained"}


def test_each_student_receives_what_the_paper_gives_it() -> None:
    """And there are no other variants: one that settings accept but the table lacks would fail in training only."""
    assert {
        name: (variant.S1.from_teacher, variant.S2.from_teacher, variant.S1.from_peer, variant.S2.from_peer)
        for name, variant in EXCHANGE.items()
    } == BY_HAND
    assert set(VARIANTS) == set(BY_HAND)


def test_the_technique_alone_decides_what_becomes_of_the_teacher() -> None:
    assert {name: variant.teacher for name, variant in EXCHANGE.items()} == {
        name: TEACHER[name.split("-")[0]] for name in BY_HAND
    }


def test_names_carry_technique_and_strategy() -> None:
    """Folders of runs and keys of params.yaml are these names."""
    for name, variant in EXCHANGE.items():
        assert variant.name == name == f"{variant.technique}-{variant.strategy}"
