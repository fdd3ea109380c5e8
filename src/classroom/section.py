"""The base of every block of settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """A block of settings: unknown keys are errors, values never change after reading.

    Types are strict. DVC puts `[1.0]` or `[true]` as written into commands and names of folders, so a value that is
    converted here would differ there. An integer is accepted as a float.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: Any) -> Any:
        """YAML has lists only."""
        return tuple(value) if isinstance(value, list) else value
