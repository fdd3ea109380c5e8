"""Writes docs/reference/ and workflow/schemas/ from the code that defines settings, commands, reports and methods.

`make docs` runs it before the site is built. The pages are not in git, so they cannot contradict the code; the schemas
are, for editors, and a test compares them.
"""

from __future__ import annotations

import ast
import html
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from classroom.cli import GROUPS, app
from classroom.data.readers import __path__ as readers_folder
from classroom.methods import registry as methods
from classroom.methods.learning_styles.exchange import EXCHANGE, Received
from classroom.methods.shared.published import Published
from classroom.params import BASELINES, FOLDERS, TASKS, VARIANTS, Common, Dataset, Params, Study, check, load, readers
from classroom.reporting import registry as reports
from classroom.reporting.exchange import WORDS
from classroom.section import Section

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/reference"


class Key(NamedTuple):
    """One setting."""

    name: str
    """Dotted; upper-case parts stand for names that the user chooses, `[]` for the items of a list."""
    kind: str
    allowed: str
    default: str
    meaning: str
    is_block: bool
    """Whether it holds other keys."""


def keys(section: type[Section]) -> list[Key]:
    """Every key of a settings file, in the order of its type, from the schema that editors read, too."""
    schema = section.model_json_schema()
    return list(_keys(schema, schema.get("$defs", {}), ""))


NAMES = {"weights": "VARIANT", "methods": "METHOD", "pictures": "REPORT"}
"""By key of a mapping, what the names in it are."""


def _keys(block: Mapping[str, Any], types: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    for name, written in block.get("properties", {}).items():
        field = _resolved(written, types)
        optional = name not in block.get("required", ())
        default = _default(field.get("default")) if optional else "required"
        of, path = _without_null(field, types), f"{prefix}{name}"
        items = _resolved(of["items"], types) if "items" in of else {}
        values = (
            _resolved(of["additionalProperties"], types) if isinstance(of.get("additionalProperties"), dict) else {}
        )
        is_block = "properties" in of or "properties" in values
        yield Key(path, _kind(field, types), _allowed(of, types), default, field.get("description", ""), is_block)
        yield from _keys(of, types, f"{path}.")
        yield from _keys(items, types, f"{path}[].")
        if "properties" in values:
            yield from _keys(values, types, f"{path}.{NAMES[name]}.")
    if isinstance(more := block.get("additionalProperties"), dict) and "properties" in block:
        yield Key(
            f"{prefix}TERM", _kind(more, types), _allowed(more, types), "required",
            "Weight of this loss term. Every term of the method is required.", False,
        )  # fmt: skip


def _resolved(field: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """A field with what its type says; a description of the field itself wins."""
    if "$ref" in field:
        return {**types[field["$ref"].rsplit("/", 1)[-1]], **field}
    return dict(field)


def _without_null(field: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The one type next to null in `X | None`; anything else as it is."""
    options = [_resolved(option, types) for option in field.get("anyOf", ()) if option.get("type") != "null"]
    return options[0] if len(options) == 1 else dict(field)


def _kind(field: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """The type in plain words; of a choice, the choices."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(_resolved(option, types), types) for option in field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field.get("type") == "array":
        items = field["prefixItems"][0] if "prefixItems" in field else field["items"]
        count = f"{len(field['prefixItems'])} " if "prefixItems" in field else ""
        return f"list of {count}{_plural(_kind(_resolved(items, types), types))}"
    if field.get("type") == "object":
        if "properties" in field or not isinstance(values := field.get("additionalProperties"), dict):
            return "block"
        each = _resolved(values, types)
        return "a block for each name" if "properties" in each else f"for each name: {_kind(each, types)}"
    plain = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true`, `false`", "null": "`null`"}
    return plain.get(field.get("type", ""), "any value")


def _plural(kind: str) -> str:
    """Of a type; the choices of a list stay as they are."""
    if "`" in kind:
        return kind
    return " or ".join("values" if one == "any value" else f"{one}s" for one in kind.split(" or "))


BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _allowed(field: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """Bounds and pattern of a value, and of a list its length."""
    said = [f"{sign} {field[bound]:,}".replace(",", "\u2009") for bound, sign in BOUNDS.items() if bound in field]
    if "multipleOf" in field:
        said.append(f"a multiple of {field['multipleOf']}")
    if "pattern" in field:
        said.append(f"matching `{field['pattern']}`")
    low, high = field.get("minItems"), field.get("maxItems")
    if "prefixItems" not in field and (low or high):
        said.append(f"{low} of them" if low == high else f"at least {low}" if low else f"at most {high}")
    inner = [field.get("items"), field.get("additionalProperties"), *field.get("prefixItems", ())[:1]]
    for part in [*filter(lambda one: isinstance(one, dict), inner), *field.get("anyOf", ())]:
        of = _resolved(part, types)
        if "properties" not in of and (within := _allowed(of, types)):
            said.append(within)
    return ", ".join(said)


def _default(value: Any) -> str:
    """As YAML. Of a block that has keys of its own, their defaults are those."""
    if isinstance(value, dict) and value:
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value == "" else _as_yaml(value)


def _as_yaml(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "")


def text(words: str) -> str:
    """Plain text with `code` as Markdown: nothing else in it is markup."""
    parts = re.split(r"(`[^`]*`)", words)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(part, quote=False))
        for part in parts
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _key_tables(section: type[Section]) -> str:
    """A table of the keys at the top of the file, then one for each block."""
    found = keys(section)
    blocks: dict[str, list[Key]] = {"": []}
    for key in found:
        above = max((block for block in blocks if key.name.startswith(f"{block}.")), key=len, default="")
        if key.is_block and "." not in key.name:
            blocks[key.name] = []
        blocks[above].append(key)
    parts = []
    for block, members in blocks.items():
        about = next((text(key.meaning) for key in found if key.name == block), "")
        if block:
            parts.append(f"## {block}\n\n{about}\n")
        rows = [_row(key, linked=key.name in blocks) for key in members if key.name != block]
        parts.append(table(("key", "value", "default", "meaning"), rows))
    return "\n".join(parts)


def _row(key: Key, linked: bool = False) -> list[str]:
    name = f"[`{key.name}`](#{key.name})" if linked else f"`{key.name}`"
    return [name, ", ".join(filter(None, (key.kind, key.allowed))), key.default, text(key.meaning)]


HEAD = "<!-- written by docs/reference.py -->\n\n"

DOTS = (
    "A dotted key is nested: `training.epochs` is `epochs` in the block `training`. Words in capitals stand for names, "
    "and `[]` for each item of a list. Unknown keys are errors: `classroom check` lists them all and suggests the "
    "nearest known key. Editors show the same descriptions, from workflow/schemas/.\n"
)


def params_page() -> str:
    return (
        f"{HEAD}# params.yaml\n\nSettings that all studies share. After an edit, run `classroom check`; both engines "
        f"then rerun only the jobs that read the changed keys.\n\n{DOTS}\n{_key_tables(Common)}"
    )


def studies_page() -> str:
    return (
        f"{HEAD}# studies/STUDY.yaml\n\nOne file for each study: a dataset, a task, and a pair of teacher and student. "
        "The active studies are listed under `studies` in [params.yaml](params.md); `classroom use STUDY` sets the "
        f"list.\n\n{DOTS}\n{_key_tables(Study)}\nThe options and terms of each published method are in "
        "[Methods](methods.md).\n"
    )


def datasets_page() -> str:
    rows = []
    for name in readers():
        text = (Path(readers_folder[0]) / f"{name}.py").read_text(encoding="utf-8")
        rows.append([f"`{name}`", _docstring(text)])
    return (
        f"{HEAD}# datasets/DATASET.yaml\n\nOne file for each dataset: where its images come from, and the layout of "
        f"its folder. `classroom new-study` writes one for your own images.\n\n{DOTS}\n{_key_tables(Dataset)}\n"
        f"## Readers\n\nThe values of `reader`.\n\n{table(('reader', 'layout'), rows)}"
    )


def _docstring(source: str) -> str:
    """The first paragraph of a module's docstring."""
    return _paragraph(ast.get_docstring(ast.parse(source)))


def _paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring as Markdown."""
    return text(" ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split()))


def commands_page() -> str:
    group = typer.main.get_command(app)
    context = group.make_context("classroom", [], resilient_parsing=True)
    parts = [
        f"{HEAD}# Commands\n\n{text(group.help)}\n\n`classroom --version` prints the version and, in a "
        "git checkout, the commit.\n\n`classroom --install-completion` sets up completion of commands, options, "
        "studies, methods and reports in bash, zsh and fish; then open a new terminal.\n"
    ]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            command = group.commands[name]
            within = command.make_context(name, [], parent=context, resilient_parsing=True)
            usage = " ".join([f"classroom {name}", *command.collect_usage_pieces(within)])
            parts.append(f"### {name}\n\n{text(command.help)}\n\n```sh\n{usage}\n```\n")
            records = [one.get_help_record(within) for one in command.params]
            if rows := [[f"`{name}`", text(about)] for name, about in filter(None, records)]:
                parts.append(table(("argument or option", "meaning"), rows))
            parts.append(f"Example:\n\n```sh\n{example(command)}\n```\n")
    return "\n".join(parts)


def example(command: Any) -> str:
    """The example at the end of a command's help."""
    return command.epilog.removeprefix("Example: ")


def reports_page() -> str:
    params = _everything_active()
    names = reports.asked_for(params)
    parts = [
        f"{HEAD}# Reports\n\n`snakemake --cores all reports/NAME.md` makes a report and everything that it needs; "
        "`classroom explain NAME` shows where its numbers come from. The names below assume that every study in "
        "`studies/` is active, and LGG is split both ways. `reports/index.html` shows all reports on one page.\n"
    ]
    for kind in reports.KINDS:
        of = reports.report(kind)
        about = _docstring((ROOT / f"src/classroom/reporting/{kind}.py").read_text(encoding="utf-8"))
        parts.append(f"## {kind}\n\n{about}\n")
        inputs = sorted({_pattern(path, params) for item in names[kind].values() for path in of.inputs(params, item)})
        rows = [
            ["names", ", ".join(f"`{name}`" for name in names[kind])],
            ["requested by", ", ".join(map(_setting, of.asked_by)) or "nothing; always made"],
            ["files", ", ".join(f"`{path}`" for path in of.outputs("NAME")[:-1])],
            ["made from", ", ".join(f"`{path}`" for path in inputs) or "settings and code alone"],
            ["settings it reads", ", ".join(map(_setting, of.settings)) or "none"],
        ]
        parts.append(table(("", ""), rows))
    return "\n".join(parts)


def _setting(key: str) -> str:
    """A dotted key of all settings as a file and the key in it."""
    block, _, within = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), key).partition(".")
    folders = {of: folder for folder, of in FOLDERS.items()}
    if block not in folders:
        return f"`{block}{within and '.'}{within}`"
    name, _, within = within.partition(".")
    file = f"`{folders[block]}/{name}.yaml`"
    return f"`{within}` of {file}" if within else file


def _everything_active() -> Params:
    """The settings with all studies, and one study split both ways, which no file asks for."""
    raw = load(ROOT / "params.yaml")
    again = dict(raw["study"]["lgg-resnet18"])
    table = again["reports"]["variants"]
    again["reports"] = {
        key: f"{again['reports'][key]}-resplit" for key in ("variants", "baselines", "fidelity", "architecture")
    }
    again["resplit"] = {"of": "lgg-resnet18", "report": f"{table}-splits"}
    studies = sorted(raw["study"])
    raw["study"]["lgg-resnet18-resplit"] = again
    return check(raw | {"studies": [*studies, "lgg-resnet18-resplit"]}, ROOT / "params.yaml")


def _pattern(path: str, params: Params) -> str:
    """A path with the names of study, method and seed in capitals."""
    stands_for = {
        **dict.fromkeys(VARIANTS, "VARIANT"),
        **dict.fromkeys(BASELINES, "BASELINE"),
        **dict.fromkeys(methods.PUBLISHED, "METHOD"),
        **dict.fromkeys(params.study, "STUDY"),
        **dict.fromkeys((study.reports.baselines for study in params.study.values()), "REPORT"),
        **dict.fromkeys((study.reports.comparison or "" for study in params.study.values()), "REPORT"),
    }
    parts = []
    for part in Path(path).parts:
        stem, suffix = Path(part).stem, Path(part).suffix
        is_point = re.fullmatch(r"[\d.]+(-[\d.]+)*", part)
        parts.append("POINT" if is_point else re.sub(r"^seed-\d+", "seed-N", stands_for.get(stem, stem)) + suffix)
    return "/".join(parts)


def methods_page() -> str:
    parts = [f"{HEAD}# Methods\n\n`classroom methods` prints the same list with the current settings.\n"]
    parts.append(
        "## Baselines\n\n`teacher` and `student`: one network, trained with the task loss alone: focal + Dice (Eq. 8) "
        "or cross-entropy (Eq. 2).\n\n## The paper's variants\n\n`L = α·task + β·from the teacher + γ·from the peer`, "
        "for each student. The weights are `weights.VARIANT` in [the study's file](studies.md).\n"
    )
    teacher = {"none": "none", "frozen": "pretrained, frozen", "trained": "trained with the students"}
    parts.append(
        table(
            ("variant", "teacher", "S1 receives", "S2 receives"),
            [[f"`{name}`", teacher[of.teacher], _received(of.S1), _received(of.S2)] for name, of in EXCHANGE.items()],
        )
    )
    parts.append(
        "## Published methods\n\n`L = task + Σ weight · term`. Weights and options are `methods.METHOD.weights` and "
        "`methods.METHOD.options` in [the study's file](studies.md); an option that a study leaves out has the "
        "default below.\n"
    )
    for name in methods.PUBLISHED:
        kinds = methods.load(name)
        first = next(iter(kinds.values()))
        source = (ROOT / f"src/classroom/methods/{name}.py").read_text(encoding="utf-8")
        parts.append(f"### {first.label}\n\n{_docstring(source)}\n\n{text(first.paper)}. Name: `{name}`.\n")
        for task in TASKS:
            if task in kinds:
                parts.append(_method_of(kinds[task], task))
    return "\n".join(parts)


def _method_of(kind: type[Published], task: str) -> str:
    weights = ", ".join(f"`{term}` {value:g}" for term, value in kind.weights.items())
    about = _paragraph(kind.__doc__) if kind.__doc__ and kind.__doc__ != Published.__doc__ else ""
    rows = [_row(key) for key in keys(kind) if not key.is_block]
    return (
        f"**{task.capitalize()}.** {about}\n\n`{kind.formula}`; reference weights: {weights}.\n\n"
        + table(("option", "value", "default", "meaning"), rows)
    )  # fmt: skip


def _received(student: Received) -> str:
    return ", ".join(
        f"{WORDS[what]} from {giver}"
        for giver, what in (("T", student.from_teacher), ("its peer", student.from_peer))
        if what
    )


PAGES = {
    "params": params_page, "datasets": datasets_page, "studies": studies_page, "commands": commands_page,
    "reports": reports_page, "methods": methods_page,
}  # fmt: skip


SCHEMAS = {"params": Common, "study": Study, "dataset": Dataset}
"""By name, what workflow/schemas/ explains to editors."""


def schema(name: str) -> str:
    """The JSON schema of a settings file."""
    return json.dumps(SCHEMAS[name].model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes every page of docs/reference, and every schema."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (ROOT / f"workflow/schemas/{name}.schema.json").write_text(schema(name), encoding="utf-8")
    for name, page in PAGES.items():
        (FOLDER / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
