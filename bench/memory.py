"""Peak memory of a training job by the number of its images: they are mapped, not loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bench import studies
from bench.timing import Point

SIDE = 256
FEW, LGG = 393, 3929
JOB = """
import json, os, sys
from pathlib import Path
from bench import studies
from classroom.training import run
class Silent:
    def __call__(self, *progress): pass
    def log(self, line): pass

folder, target = map(Path, sys.argv[1:])
raw = studies.settings("demo", epochs=1, threads=len(os.sched_getaffinity(0)))
run.train(studies.SEGMENTATION, [run.Request("student", target, target / "checkpoints", "")], 0, raw, folder,
          folder / "splits.parquet", folder, "cpu", 10, Silent(), lambda request, facts: None)
parts = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({name: int(parts[name].split()[0]) // 1024 for name in ("VmHWM", "RssAnon", "RssFile")}))
"""


def measure() -> Point:
    point = Point("Memory")
    peaks = {}
    for count in (FEW, LGG):
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), count)
            done = subprocess.run(
                [sys.executable, "-c", JOB, folder, f"{folder}/run"],
                cwd=studies.ROOT, capture_output=True, text=True, check=True, encoding="utf-8",
            )  # fmt: skip
        peaks[count] = json.loads(done.stdout.splitlines()[-1])
    rows = [[count, count * SIDE**2 * 4 // 2**20, *peaks[count].values()] for count in peaks]
    point.tables.append((("images", "arrays, MB", "peak, MB", "own at the end, MB", "of files at the end, MB"), rows))
    point.at_most(f"peak RSS with {LGG} images of {SIDE}² ÷ with {FEW}", peaks[LGG]["VmHWM"] / peaks[FEW]["VmHWM"], 1.1)
    return point


def prepare(folder: Path, count: int) -> None:
    """What `classroom prepare` and `split` leave, of synthetic content."""
    random = np.random.default_rng(0)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
    masks = np.lib.format.open_memmap(folder / "targets.npy", "w+", np.uint8, (count, SIDE, SIDE))
    for row in range(count):
        images[row] = random.integers(0, 256, 3, dtype=np.uint8)
        masks[row, 50:90, 60:120] = 1
    images.flush()
    masks.flush()
    names = [f"{row:05}" for row in range(count)]
    splits = np.repeat(["train", "val", "test"], [75, 10, 15])[np.arange(count) % 100]
    pd.DataFrame({"id": names}).to_parquet(folder / "index.parquet")
    table = pd.DataFrame({"id": names, "group": names, "label": "lesion", "split": splits})
    table.attrs = {"split": {"percent": [75, 10, 15], "by": "image", "seed": 0}}
    table.to_parquet(folder / "splits.parquet")
    about = {"task": "segmentation", "labels": ["background", "lesion"], "image_size": SIDE, "images": count}
    about |= {"dataset": "lgg", "source": "phantom", "synthetic": True, "group": "patient", "groups": count}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
