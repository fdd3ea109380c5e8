"""What the reports of both searches share: results on validation, and the best weights as an overlay."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from classroom.artifacts import Searched
from classroom.reporting.common import heading
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.provenance import runs_of
from classroom.reporting.common.tables import Part, labelled

OF_SYNTHETIC = "**These weights mean nothing for other images.**"


def search_page(
    name: str, title: str, study: str, scale: str, seeds: Sequence[int], points: Sequence[Searched],
    facts: Sequence[str], parts: Sequence[Part], table: pd.DataFrame, winner: str, key: str,
    chosen: Sequence[str], drawing: Drawing | None = None,
) -> Page:  # fmt: skip
    """The page of a search of one study.

    Its .yaml is an overlay for `classroom overlay`: the lines `chosen`, in YAML, under `key` of the study. `winner`:
    the network that chose them.
    """
    every_seed = ", ".join(map(str, seeds))
    overlay = [
        f"# chosen by `classroom report {name}`: the best {winner} on validation, scale {scale}, mean over seeds "
        f"{every_seed}",
        "studies:",
        f"  {study}:",
        f"    {key}:",
        *(f"      {line}" for line in chosen),
    ]
    data = [point["data"] for point in points]
    disclaimers = [heading.disclaimer(scale, data, shows_paper=False)]
    if any(one["synthetic"] for one in data):
        disclaimers.append(OF_SYNTHETIC)
    head = [
        f"- scale: {scale}",
        f"- seeds: {every_seed}",
        *facts,
        f"- the best weights are in {name}.yaml: `classroom overlay reports/{name}.yaml` writes them into "
        f"studies/{study}.yaml",
    ]
    return Page(
        title, " ".join(filter(None, disclaimers)), head, parts, drawing, study, runs=runs_of(points),
        table=labelled(table, study=study, scale=scale), files={".yaml": "\n".join(overlay) + "\n"},
    )  # fmt: skip
