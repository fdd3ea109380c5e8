"""Similarity (CKA) of the last stages of teacher and students."""

from __future__ import annotations

import pandas as pd

from classroom import places
from classroom.analysis.similarities import last_stages
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.methods.registry import run_folder
from classroom.reporting.cka import Tables, first_of, read_similarities, seeds_of
from classroom.reporting.common import heading, paper
from classroom.reporting.common.pages import Page
from classroom.reporting.common.provenance import Source
from classroom.reporting.common.tables import TECHNIQUE_LABELS, Cell, Part, labelled, number
from classroom.reporting.registry import Report, Request, of_studies

KEYS = ["technique", "strategy", "first", "second", "first_layer", "second_layer"]


def cka_table(name: str, scale: str, tables: Tables) -> Page:
    """The CKA of the last stages of the networks of every variant, mean ± sd over seeds.

    The output of the encoder's last stage is compared. Raises DataError as `first_of` does.
    """
    first = first_of(tables, name).attrs
    records = [
        {
            "technique": EXCHANGE[variant].technique,
            "strategy": EXCHANGE[variant].strategy,
            "run": run_folder(table.attrs["study"], variant, table.attrs["seed"]).as_posix(),
        }
        | row._asdict()
        for variant in EXCHANGE  # in the order of all tables
        for table in tables.get(variant, ())
        for row in last_stages(table).itertuples(index=False)
    ]
    by_cell = pd.DataFrame(records).groupby(KEYS, sort=False)
    # Not skipping NaN: a mean without one seed could not be compared with its neighbours.
    table = by_cell.cka.agg(mean=lambda of: of.mean(skipna=False), sd=lambda of: of.std(ddof=1, skipna=False))
    table = table.reset_index()

    rows: dict[tuple[str, str], list[str | Cell]] = {}
    for cell, (_, of) in zip(table.itertuples(), by_cell, strict=True):
        labels = TECHNIQUE_LABELS[cell.technique], cell.strategy.upper()
        text = "–" if pd.isna(cell.mean) else f"{number(cell.mean, '.3f')} ± {number(cell.sd, '.3f')}"
        values = dict(zip(of.run, of.cka, strict=True))
        source = Source(f"CKA of {cell.first} and {cell.second}", values, unit="")
        rows.setdefault(labels, [*labels]).append(Cell(text, cell.mean, sources=(source,)))
    pairs = dict.fromkeys(f"{of.first}–{of.second}" for of in table.itertuples())
    dropped = max(one.attrs["dropped"] for by_seed in tables.values() for one in by_seed)
    facts = [
        f"- scale: {scale}",
        f"- study: {first['study']}, {first['images']} test images"
        + (f" ({dropped} more were left out, as their batch was too small for HSIC)" if dropped else ""),
        f"- seeds: {', '.join(map(str, seeds_of(next(iter(tables.values())))))}",
        "- each cell: linear CKA (unbiased HSIC summed over minibatches) of the outputs of both encoders' last stages, "
        f"{', '.join(f'{layer} of {network}' for network, layer in first['last'].items())}; mean ± sample standard "
        "deviation over seeds; –: not defined, as the features of one network are the same for all images",
    ]
    if any(variant.startswith("ml-") for variant in tables) and "T" in first["last"]:
        facts.append("- ML students have no teacher, so T is the baseline teacher")
    return Page(
        f"{paper.title(name)}: similarity of the last stages on {first['study']}",
        heading.disclaimer(scale, [first["data"]], shows_paper=False),
        facts,
        [Part(["technique", "strategy", *pairs], list(rows.values()))],
        study=first["study"],
        table=labelled(table, study=first["study"], scale=scale, synthetic=first["data"]["synthetic"]),
    )


def draw(request: Request) -> Page:
    return cka_table(request.name, request.scale, read_similarities(request))


REPORT = Report(
    names=lambda params: of_studies(
        params, lambda study: f"cka-{study}" if params.study[study].reports.cka is not None else None
    ),
    inputs=lambda params, item: places.similarities_of(params, item["study"]),
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Diagnostics",
    shows="similarity of last stages",
    asked_by=("study.{study}.reports.cka",),
    suffixes=(".md", ".csv"),
)
