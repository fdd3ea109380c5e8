"""The twelve variants as one table, from which Tables 1 and 5 of the paper are rendered."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["prediction", "feature"]


class Received(NamedTuple):
    """The kinds of knowledge that one student receives, or None."""

    from_teacher: Kind | None
    from_peer: Kind | None


class Variant(NamedTuple):
    """One technique with one strategy: what each student receives."""

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

EXCHANGE: dict[str, Variant] = {
    of.name: of
    for of in (
        Variant("ml", "v1", S1=Received(None, _P), S2=Received(None, _P)),
        Variant("ml", "v2", S1=Received(None, _F), S2=Received(None, _F)),
        Variant("ml", "v3", S1=Received(None, _P), S2=Received(None, _F)),
        Variant("kd_off", "v1", S1=Received(_P, None), S2=Received(_P, None)),
        Variant("kd_off", "v2", S1=Received(_F, None), S2=Received(_F, None)),
        Variant("kd_off", "v3", S1=Received(_P, None), S2=Received(_F, None)),
        Variant("kd_on", "v1", S1=Received(_P, None), S2=Received(_P, None)),
        Variant("kd_on", "v2", S1=Received(_F, None), S2=Received(_F, None)),
        Variant("kd_on", "v3", S1=Received(_P, None), S2=Received(_F, None)),
        Variant("kd_ml", "v1", S1=Received(_P, _P), S2=Received(_P, _P)),
        Variant("kd_ml", "v2", S1=Received(_F, _F), S2=Received(_F, _F)),
        Variant("kd_ml", "v3", S1=Received(_F, _P), S2=Received(_P, _F)),  # KD's V3 with the kinds swapped: Eqs. 6, 7
    )
}
"""Every variant by name: Tables 1 and 5 of the paper. A student receives (from the teacher, from its peer)."""
