"""The classes of every dataset in canonical order, by reader."""

from __future__ import annotations

LABELS: dict[str, tuple[str, ...]] = {
    "histopathologic": ("negative", "positive"),
    "lgg": (),
    "ham10000": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    "isic2017": ("melanoma", "seborrheic_keratosis", "nevus"),
}
