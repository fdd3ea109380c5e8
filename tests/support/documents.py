"""The pages of docs/."""

from __future__ import annotations

from pathlib import Path

from support.studies import ROOT

DOCS = ROOT / "docs"
GENERATED = {f"reference/{name}.md" for name in ("params", "studies", "datasets", "commands", "reports", "methods")}
"""By path in docs/, those that `make docs` writes; not committed."""


def pages() -> list[Path]:
    """The committed ones."""
    return [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).as_posix() not in GENERATED]
