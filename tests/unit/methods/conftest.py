"""What tests of the published methods share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def thin_discriminators() -> Iterator[None]:
    """Of 8 or 16 channels instead of up to 512, which are most of what a test of SKD would wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classroom.methods.adversarial.discriminator.WIDTHS", (8, 8, 16, 16))
        yield
