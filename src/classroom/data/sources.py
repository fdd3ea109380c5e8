"""Fetching a dataset into data/raw/<dataset>: phantoms, a folder of the user's, or Kaggle."""

from __future__ import annotations

import shutil
from pathlib import Path

from classroom.data import phantom
from classroom.data.readers import read_all, reader
from classroom.errors import DataError
from classroom.files import folder_written_whole
from classroom.params import Dataset


def fetch(name: str, dataset: Dataset, target: Path) -> int:
    """Brings the dataset called `name` to `target`, completely validated; returns the number of images.

    The files are copied as they are, so that DVC versions the originals. Raises DataError if the source is
    missing or a file does not fit; `target` then stays as it was.
    """
    with folder_written_whole(target) as folder:
        if dataset.source == "phantom":
            phantom.write(folder, dataset.phantom)
        else:
            origin = _directory(name, dataset) if dataset.source == "directory" else _kaggle(name, dataset)
            _copy(reader(dataset.reader).find(origin), reader(dataset.reader).root(origin), folder / "kaggle_3m")
        try:
            return sum(1 for _ in read_all(dataset.reader, folder))
        except DataError as error:  # name the user's file, not our temporary copy
            origin = target if dataset.source == "phantom" else reader(dataset.reader).root(origin)
            raise DataError(str(error).replace(str(folder / "kaggle_3m"), str(origin))) from None


def _copy(samples: list, origin: Path, target: Path) -> None:
    for sample in samples:
        for path in (sample.image, sample.mask):
            copy = target / path.relative_to(origin)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, copy)
            except OSError as error:  # a dangling link, no permission, a full disk
                raise DataError(f"{path}: cannot be copied ({error.strerror}).") from None


def _directory(name: str, dataset: Dataset) -> Path:
    folder = Path(dataset.directory).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"params.yaml: dataset.{name}.directory: no such folder: {folder}. Expected the folder of the "
            "download, or set source to 'phantom' or 'kaggle'."
        )
    return folder


def _kaggle(name: str, dataset: Dataset) -> Path:
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(dataset.kaggle))
    except Exception as error:  # kagglehub raises whatever requests and its own client raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"params.yaml: dataset.{name}.kaggle: '{dataset.kaggle}' could not be fetched from Kaggle ({reason}). "
            "Check the network and your Kaggle token, or download it by hand and set source to 'directory'."
        ) from None
