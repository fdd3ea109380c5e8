"""The twelve variants as one table, from which Tables 1 and 5 of the paper are rendered."""

from __future__ import annotations

from typing import Literal, NamedTuple

from classroom.params import STRATEGIES, TECHNIQUES

Kind = Literal["prediction", "feature"]


class Received(NamedTuple):
    """The kinds of knowledge that one student receives, or None."""

    from_teacher: Kind | None
    from_peer: Kind | None


class Variant(NamedTuple):
    """One technique with one strategy."""

    technique: str
    strategy: str
    S1: Received
    S2: Received

    @property
    def name(self) -> str:
        """As in settings and file names, such as `kd_ml-v3`."""
        return f"{self.technique}-{self.strategy}"

    @property
    def teacher(self) -> Literal["none", "frozen", "trained"]:
        """`frozen`: pre-trained, in eval mode; `trained`: in the same steps as the students."""
        return _TEACHER[self.technique]


_TEACHER: dict[str, Literal["none", "frozen", "trained"]] = {
    "ml": "none", "kd_off": "frozen", "kd_on": "trained", "kd_ml": "trained",
}  # fmt: skip
_P: Kind = "prediction"
_F: Kind = "feature"

# By technique, for V1, V2 and V3: what (S1, S2) receive from the teacher, and from each other.
_FROM_TEACHER = {
    "ml": ((None, None), (None, None), (None, None)),
    "kd_off": ((_P, _P), (_F, _F), (_P, _F)),
    "kd_on": ((_P, _P), (_F, _F), (_P, _F)),
    "kd_ml": ((_P, _P), (_F, _F), (_F, _P)),  # V3 swaps KD's V3: Eqs. 6, 7
}
_FROM_PEER = {
    "ml": ((_P, _P), (_F, _F), (_P, _F)),
    "kd_off": ((None, None), (None, None), (None, None)),
    "kd_on": ((None, None), (None, None), (None, None)),
    "kd_ml": ((_P, _P), (_F, _F), (_P, _F)),
}

EXCHANGE: dict[str, Variant] = {
    variant.name: variant
    for technique in TECHNIQUES
    for strategy, teacher, peer in zip(STRATEGIES, _FROM_TEACHER[technique], _FROM_PEER[technique], strict=True)
    for variant in [
        Variant(technique, strategy, *(Received(t, p) for t, p in zip(teacher, peer, strict=True))),
    ]
}
