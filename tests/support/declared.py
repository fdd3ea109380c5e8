"""Runs commands in forks of one process and prints as JSON which modules of `classroom` each of them loaded.

`python tests/support/declared.py COMMANDS`, in a project: the file holds a list of pairs, the command's words and, by
file, the settings it may read. Other libraries are loaded once, for all forks, as that takes seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import matplotlib.figure  # noqa: F401
import segmentation_models_pytorch  # noqa: F401
import sklearn.metrics  # noqa: F401


def run(words: list[str], answer: multiprocessing.SimpleQueue) -> None:
    from classroom.cli import app

    sys.argv = words
    if words[1] == "measure":  # as often as it must: how fast the models are is of no interest
        from classroom.export import measure

        measure.SECONDS = 0.0
    app(standalone_mode=False)
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "classroom"]
    answer.put(sorted(module.__file__ for module in modules))


if __name__ == "__main__":
    loaded = []
    fork = multiprocessing.get_context("fork")
    for words, settings in json.loads(Path(sys.argv[1]).read_text()):
        for path in [*Path("studies").glob("*.yaml"), *Path("datasets").glob("*.yaml")]:
            path.unlink()
        for path, content in settings.items():
            Path(path).write_text(json.dumps(content))  # JSON is YAML
        answer = fork.SimpleQueue()
        child = fork.Process(target=run, args=(words, answer))
        child.start()
        child.join()
        loaded.append(answer.get() if child.exitcode == 0 else None)
    json.dump(loaded, sys.stdout)
