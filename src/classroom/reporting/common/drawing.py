"""What all pictures share."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

GROUND_TRUTH_COLOUR, PREDICTION_COLOUR = "#0072B2", "#E69F00"
"""From Okabe and Ito's palette, which colour-blind readers can distinguish."""


def png(figure: Figure) -> bytes:
    """The same bytes for the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
