"""Equations of the pages as MathML, made at build time, so that the site loads nothing to show them.

GitHub shows the same source: `$…$` in text, and a block fenced as `math`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

if TYPE_CHECKING:
    import re

    from markdown import Markdown

INLINE = r"\$(?=\S)([^$\n]+?)(?<=\S)\$"
AFTER_CODE_BEFORE_ESCAPES = 185


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        return self.md.htmlStash.store(convert(m[1])), m.start(0), m.end(0)


class _MathML(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Inline(INLINE, md), "mathml", AFTER_CODE_BEFORE_ESCAPES)


def block(source: str, *_: Any, **__: Any) -> str:
    """For `pymdownx.superfences`: a block of LaTeX."""
    return f'<div class="equation">{convert(source, display="block")}</div>'


def makeExtension(**_: Any) -> _MathML:
    return _MathML()
