"""Synthetic stand-ins for the datasets, one module per layout, so that the whole pipeline runs without any download.

They are drawn for running and testing. A result on phantoms says nothing about patients.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from classroom.data.phantoms import ham10000, histopathologic, lgg
from classroom.params import Synthetic

PHANTOMS: dict[str, Callable[[Path, Synthetic], None]] = {
    "histopathologic": histopathologic.write,
    "lgg": lgg.write,
    "ham10000": ham10000.write,
}
"""By reader: writes phantoms below a folder, in the layout of the original download."""
