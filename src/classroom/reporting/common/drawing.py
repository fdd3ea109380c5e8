"""What all pictures share."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

TRUTH_COLOUR, PREDICTION_COLOUR = "#0072B2", "#E69F00"
"""Okabe and Ito's: told apart by the colour-blind."""


def png(figure: Figure) -> bytes:
    """The same bytes for the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
