"""A method's file that holds less than is needed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from classroom.errors import TrainingError
from classroom.methods import registry
from classroom.methods.shared.published import Published


class Half(Published):
    label = "Half"
    paper = "nobody"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (None, "expected METHOD = {task: class}"),
        ({"speech": Half}, "with classification or segmentation as the task"),
        ({"segmentation": dict}, "METHOD: expected a subclass of Published for segmentation"),
        ({"segmentation": Half}, "Half lacks formula, weights, losses."),
    ],
)
def test_what_the_file_of_a_method_lacks_is_named(method: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the settings are read, not by a KeyError after hours of training."""
    module = ModuleType("classroom.methods.half")
    module.METHOD = method  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(TrainingError) as caught:
        registry.load("half")
    assert str(caught.value).startswith("src/classroom/methods/half.py: ")
    assert said in str(caught.value)
