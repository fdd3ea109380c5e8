"""What README and the other documents promise is there."""

from __future__ import annotations

import re

from classroom.cli import app
from support.documents import DOCS, GENERATED, pages
from support.studies import ROOT


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
