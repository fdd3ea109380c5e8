"""Tables 1 and 5: what teacher and students share in each variant, generated from the code that trains it."""

from __future__ import annotations

from itertools import product

import pandas as pd

from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import STRATEGIES, TECHNIQUES
from classroom.reporting.common.pages import Page
from classroom.reporting.common.tables import TECHNIQUE_LABELS, Part
from classroom.reporting.registry import Report

WORDS = {"prediction": "predictions", "feature": "features", None: "–"}
CHANNELS = {
    "T → S1": ("S1", "from_teacher"), "T → S2": ("S2", "from_teacher"),
    "S2 → S1": ("S1", "from_peer"), "S1 → S2": ("S2", "from_peer"),
}  # fmt: skip
TERMS = {
    "L_task": lambda received: True,
    "L_KD_p": lambda received: received.from_teacher == "prediction",
    "L_KD_f": lambda received: received.from_teacher == "feature",
    "L_ML_p": lambda received: received.from_peer == "prediction",
    "L_ML_f": lambda received: received.from_peer == "feature",
}
"""The loss terms of a student, and whether it has them; weights α, β, β, γ, γ."""
FACTS = ["- generated from the code that trains the variants"]


def combinations() -> Page:
    """Table 1: per technique, what each of its channels carries."""
    groups: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for technique in TECHNIQUES:
        rows = [(channel, *(_flows(technique, strategy, channel) for strategy in STRATEGIES)) for channel in CHANNELS]
        used = tuple(row for row in rows if set(row[1:]) != {WORDS[None]})
        groups.setdefault(used, []).append(technique)
    # In the paper's order: from the teacher only, from the peer only, from both.
    ordered = sorted(groups.items(), key=lambda item: (len(item[0]), item[0][0][0] != "T → S1"))
    parts, records = [], []
    for letter, (rows, techniques) in zip("abcd", ordered, strict=False):
        title = f"({letter}) " + ", ".join(TECHNIQUE_LABELS[technique] for technique in techniques)
        parts.append(Part(["", *map(str.upper, STRATEGIES)], rows, title))
        for technique, (channel, *flows) in product(techniques, rows):
            ends = dict(zip(("from", "to"), channel.split(" → "), strict=True))
            records += [
                {"part": letter, "technique": technique, "strategy": strategy, **ends, "what": what}
                for strategy, what in zip(STRATEGIES, flows, strict=True)
            ]
    parts[-1] = parts[-1]._replace(
        below=[
            "V1 shares predictions only, V2 features only, V3 both. In the paper's Table 1 (b), S1 and S2 of ML V3 "
            "are swapped compared with its Table 5 and part (c). Both students have the same architecture, so only "
            "their names differ; this table follows Table 5."
        ]
    )
    title = "Table 1: combinations of distillation techniques and learning strategies"
    return Page(title, "", FACTS, parts, table=pd.DataFrame(records))


def _flows(technique: str, strategy: str, channel: str) -> str:
    student, source = CHANNELS[channel]
    return WORDS[getattr(getattr(EXCHANGE[f"{technique}-{strategy}"], student), source)]


def loss_terms() -> Page:
    """Table 5: which terms make up each student's loss."""
    columns = list(product(("S1", "S2"), TERMS))
    rows, records = [], []
    for technique, strategy in product(TECHNIQUES, STRATEGIES):
        variant = EXCHANGE[f"{technique}-{strategy}"]
        has = [TERMS[term](getattr(variant, student)) for student, term in columns]
        rows.append([f"**{TECHNIQUE_LABELS[technique]}**", strategy.upper(), *("✓" if on else "×" for on in has)])
        records += [
            {"technique": technique, "strategy": strategy, "student": student, "term": term, "on": on}
            for (student, term), on in zip(columns, has, strict=True)
        ]
    header = ["technique", "strategy", *(f"{student}: {term}" for student, term in columns)]
    below = (
        "KD comes from the teacher, ML from the other student; p are predictions, f features. A student's loss is "
        "α·L_task + β·L_KD + γ·L_ML. The teacher learns from L_task alone: before the students in KD (off), with "
        "them in KD (on) and KD + ML. The paper writes L′ for S2's terms."
    )
    part = Part(header, rows, below=[below], grouped=True)
    title = "Table 5: the loss terms of each variant"
    return Page(title, "", FACTS, [part], table=pd.DataFrame(records))


TABLES = {"table1": combinations, "table5": loss_terms}

REPORT = Report(
    names=lambda params: {name: {} for name in TABLES},
    inputs=lambda params, item: [],
    settings=(),
    draw=lambda request: TABLES[request.name](),
    category="Tables",
    shows="what each variant shares",
)
