"""Synthetic datasets, one module per layout, so that the whole pipeline runs without any download.

They serve for running and testing. Results on synthetic images say nothing about patients.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from classroom.data.synthetic import ham10000, histopathologic, lgg
from classroom.params import Synthetic

GENERATORS: dict[str, Callable[[Path, Synthetic], None]] = {
    "histopathologic": histopathologic.write,
    "lgg": lgg.write,
    "ham10000": ham10000.write,
}
"""By reader: writes synthetic images to a folder, in the layout of the original download."""
