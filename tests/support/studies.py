"""The repository's root and its settings shrunk to tiny studies of both tasks, to train on in seconds."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from classroom.params import FOLDERS

ROOT = Path(__file__).parents[2]
REAL_IMAGES = ROOT.parent / "shared" / "data"
"""Small subsets of the original downloads, next to the repository where there are any; a clone on its own has none."""

STUDY = "lgg-resnet18"
"""Segmentation."""
CLASSES_STUDY = "ham10000-classification"
"""Classification, of seven classes of which some are rare."""

THIN = {
    "encoder": "tu-resnet18",
    "encoder_options": {"channels": [4, 4, 8, 8]},
    "decoder_channels": [8, 4, 4, 4, 4],
    "weights": "random",
}
THIN_CLASSIFIER = {"encoder": "resnet18", "encoder_options": {"channels": [4, 4, 8, 8]}, "weights": "random"}
THIN_TEACHER = {  # wider than its students, so that only Conv6 makes its features comparable
    "encoder": "resnet18",
    "encoder_options": {"channels": [4, 4, 8, 12]},
    "conv6_channels": 8,
    "weights": "random",
}
NETWORKS = {
    "segmentation": {"teacher": THIN, "student": THIN},
    "classification": {"teacher": THIN_TEACHER, "student": THIN_CLASSIFIER},
}
SYNTHETIC = {"histopathologic": (22, 3), "lgg": (22, 3), "ham10000": (60, 2)}
"""Of every dataset so many groups, with so many images each, that all classes and splits have some."""


def shrink(raw: dict[str, Any]) -> dict[str, Any]:
    """The same settings with the smallest images and networks that still go every way: seconds, not minutes."""
    raw = copy.deepcopy(raw)
    for name, (groups, images) in SYNTHETIC.items():
        raw["dataset"][name]["synthetic"] = {"groups": groups, "images_per_group": images, "size": 32, "seed": 0}
    for study in raw["study"].values():
        study["image_size"] = 32
        for role, network in NETWORKS[study["task"]].items():
            study[role] = copy.deepcopy(network)
    raw["training"] |= {"epochs": 2, "batch_size": 8}
    return raw


def copy_settings(root: Path) -> Path:
    """Copies the committed files of settings into the folder `root`; returns its params.yaml."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder)
    return Path(shutil.copy(ROOT / "params.yaml", root))


def put_settings(root: Path, raw: dict[str, Any]) -> Path:
    """Writes settings as `params.load` returns them, valid or not, into their files in `root`; returns params.yaml."""
    contents = {"params.yaml": {key: value for key, value in raw.items() if key not in FOLDERS.values()}}
    for folder, block in FOLDERS.items():
        (root / folder).mkdir(exist_ok=True)
        contents |= {f"{folder}/{name}.yaml": of for name, of in raw[block].items()}
    for path, content in contents.items():
        (root / path).write_text(json.dumps(content))  # JSON is YAML
    return root / "params.yaml"
