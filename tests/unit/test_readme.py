"""What README and the other documents promise is there."""

from __future__ import annotations

import re
from fnmatch import fnmatch

from classroom import params
from classroom.cli import app
from classroom.reporting import registry
from support.documents import DOCS, GENERATED, pages
from support.studies import ROOT

README = (ROOT / "README.md").read_text()


def reports() -> list[str]:
    """The names of everything that `snakemake reports/all` makes with the committed settings."""
    by_kind = registry.asked_for(params.check(params.load(ROOT / "params.yaml")))
    return ["index", *(name for of_kind in by_kind.values() for name in of_kind)]


def test_the_list_of_reports_names_every_report_and_no_other() -> None:
    """A user finds a table by what it shows, and no report is a secret."""
    listed = README.split("<!-- reports:begin -->")[1].split("<!-- reports:end -->")[0]
    patterns, made = [pattern.replace("…", "*") for pattern in re.findall(r"`([^`]+)`", listed)], reports()
    assert [name for name in made if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in made)] == []


def test_every_command_that_the_documents_type_exists() -> None:
    """`classroom …` in README, CONTRIBUTING and docs, in code or in a block of commands."""
    known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    for path in (*ROOT.glob("*.md"), *pages(), *(ROOT / "examples").glob("*.yaml")):
        for command in re.findall(r"(?:^|`)classroom ([a-z][a-z-]+)", path.read_text(), re.MULTILINE):
            assert command in known, f"{path.name}: classroom {command}"


def test_every_file_that_the_documents_link_to_exists() -> None:
    """In a fresh clone, too."""
    generated = {DOCS / page for page in GENERATED}
    for path in (*ROOT.glob("*.md"), *pages()):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            found = (path.parent / target).resolve()
            assert found.exists(), f"{path.name}: {target}"
            assert found not in generated, f"{path.name}: {target} is there only after `make docs`"
