"""What `classroom methods` prints: everything that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classroom.data.readers import classes_of
from classroom.errors import ParamsError, TrainingError
from classroom.methods import registry
from classroom.methods.learning_styles.exchange import EXCHANGE, Received
from classroom.methods.shared.published import Published, in_words
from classroom.params import TASKS, MethodWeights, Params, check, load, select
from classroom.reporting.common import paper
from classroom.reporting.common.tables import TECHNIQUE_LABELS
from classroom.reporting.exchange import WORDS
from classroom.training.make import make_on_meta


def listing(path: Path) -> str:
    """Name, paper, formula, current settings and size of every method, as text.

    Raises ParamsError for settings in `path` that are not valid.
    """
    raw = load(path)
    params = check(raw, path)
    blocks = [
        f"Active studies: {', '.join(params.study)}. Each of them trains the baselines and the active variants.",
        "Baselines (Tables 2 and 13): teacher, student\n  L = task loss: focal + Dice (Eq. 8) or cross-entropy (Eq. 2)",
        "The paper's variants (Tables 1 and 5): L = α·task + β·from the teacher + γ·from the peer\n"
        + "\n".join(
            f"  {name}: {TECHNIQUE_LABELS[variant.technique]}; S1 {_received(variant.S1)}; S2 {_received(variant.S2)}; "
            f"{'active' if name in params.trained_variants else 'not active'}"
            for name, variant in EXCHANGE.items()
        ),
    ]
    for task in TASKS:
        studies, methods = params.compared_studies(task), registry.published(task)
        compared = getattr(params.comparison, task)
        in_order = dict.fromkeys((*compared, *methods))
        blocks.append(f"Published methods of {task} (Table 10): L = task + Σ weight · term")
        blocks += [
            _published(params, raw, methods[name], name, studies[0] if studies else None)
            + ("; active: " + ", ".join(studies) if studies and name in compared else "; not active")
            for name in in_order
            if name in methods
        ]
    return "\n\n".join(blocks) + "\n"


def _received(student: Received) -> str:
    sources = {"T": student.from_teacher, "its peer": student.from_peer}
    return "gets " + ", ".join(f"{WORDS[what]} from {giver}" for giver, what in sources.items() if what)


def _published(params: Params, raw: dict[str, Any], kind: type[Published], name: str, study: str | None) -> str:
    active = params.study[study].methods.get(name) if study else None
    method = select(raw, f"study.{study}.methods.{name}.options", kind) if active else kind()
    options = method.model_dump(mode="json")
    weights = active.weights if active else MethodWeights(**kind.weights)
    differs = method.differences(weights.terms)
    lines = [
        f"  {name}: {kind.label}, {kind.paper}",
        f"    {kind.formula}",
        "    weights " + ", ".join(f"{term} {value:g}" for term, value in weights.terms.items())
        + "; " + ", ".join(f"{key} {in_words(value)}" for key, value in options.items()),
        "    " + ("tuned on validation" if weights.tuned else f"own settings: {', '.join(differs)}" if differs else
                  "reference defaults" if paper.compares(name) else f"defaults of src/classroom/methods/{name}.py"),
    ]  # fmt: skip
    if study:
        lines[-1] += f"; {_extra_parameters(params, raw, study, name)} ({study})"
    return "\n".join(lines)


def _extra_parameters(params: Params, raw: dict[str, Any], study: str, name: str) -> str:
    settings = params.study[study]
    classes = max(len(classes_of(params.dataset[settings.dataset])), 2)
    try:
        method = make_on_meta(name, study, raw, settings.task, classes, settings.image_size)
    except (ParamsError, TrainingError) as error:
        return f"cannot be trained: {error}"
    return f"{method.extra_parameters:,} extra parameters in training"
