"""Which networks of a study's runs learn the very same: a function of the settings alone.

A network's weights are decided by how it begins, by its loss, and by the networks that it hears. In KD (on) and KD + ML
the teacher learns from its task alone, so it is the baseline teacher; in KD (off) and KD (on) the students do not hear
each other, so S1 of V3 is S1 of V1 or V2 where their weights agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from classroom.methods.grid.points import weights_at
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import BASELINES, VARIANTS, VariantWeights, select

PEER = {"S1": "S2", "S2": "S1"}


class Lesson(NamedTuple):
    """What one network of a method learns from."""

    role: str
    """teacher or student: the settings by which it is built."""
    terms: Mapping[str, Any]
    """Weights by term; a published method also has its options here. Empty for a frozen network."""
    heard: Sequence[str] = ()
    """The method's networks whose outputs are in its loss."""


def waits_for_teacher(method: str) -> bool:
    """Whether the method learns from the study's trained teacher, which has to be finished before it begins."""
    return method not in BASELINES and (method not in VARIANTS or EXCHANGE[method].teacher == "frozen")


def lessons(method: str, study: str, raw: Mapping[str, Any], point: Sequence[float] | None = None) -> dict[str, Lesson]:
    """What every network of a method learns from.

    Parameters
    ----------
    method, study
        names
    raw
        all settings, as `classroom.params.load` returns them
    point
        of a search, replaces the weights of the losses
    """
    if method in BASELINES:
        return {"T" if method == "teacher" else "S1": Lesson(method, {"task": 1.0})}
    teacher = Lesson("teacher", {})
    if method not in VARIANTS:
        of_study = raw["study"][study].get("methods", {}).get(method)
        return {"T": teacher, "S1": Lesson("student", {method: [of_study, point]}, ["T"])}
    variant = EXCHANGE[method]
    key = f"study.{study}.weights.{method}"
    weights = weights_at(variant, *point) if point else select(dict(raw), key, VariantWeights)
    found = {} if variant.teacher == "none" else {"T": teacher}
    if variant.teacher == "trained":
        found["T"] = Lesson("teacher", {"task": 1.0})
    for name in PEER:
        received, of = getattr(variant, name), getattr(weights, name)
        terms, heard = {"task": of.alpha}, []
        for source, kind, weight in (
            ("T", received.from_teacher, of.beta),
            (PEER[name], received.from_peer, of.gamma),
        ):
            if kind:
                terms[f"{kind}_from_{source}"] = weight
                heard.append(source)
        found[name] = Lesson("student", terms, heard)
    return found


def keys(method: str, study: str, raw: Mapping[str, Any], point: Sequence[float] | None = None) -> dict[str, str]:
    """By network of a method a key: networks of one study and seed with equal keys have the same weights, bit for bit.

    The key holds what the network learns from, and the same of every network that it hears, directly or not. The name
    is part of it, as it decides the random weights at the start.

    Parameters
    ----------
    method, study, raw, point
        as in `lessons`
    """
    all_lessons = lessons(method, study, raw, point)
    common = [study, raw["training"], raw["losses"], raw["augmentation"], raw["study"][study]["balance"]]

    def key(name: str) -> str:
        met = [name]
        for other in met:
            met += [heard for heard in all_lessons[other].heard if heard not in met]
        networks = {other: raw["study"][study][all_lessons[other].role] for other in met}
        parts = [name, common, networks, {other: all_lessons[other] for other in met}]
        return json.dumps(parts, sort_keys=True, default=str)

    return {name: key(name) for name in all_lessons}
