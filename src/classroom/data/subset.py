"""A random subset with as many images of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from classroom.errors import DataError


def draw(
    labels: Sequence[str | None],
    classes: Sequence[str],
    subset: int,
    seed: int,
    name: str,
    accept: Callable[[int], bool] = lambda _: True,
) -> list[int]:
    """The positions of `subset` of `labels`, in order, evenly shared out to `classes`; the first get what remains.

    `accept` may refuse a position, e.g. of a duplicate, which is then replaced by another of its class. Raises
    DataError naming the dataset `name` and the class if one has too few.
    """
    label_of = np.asarray(labels)
    share, rest = divmod(subset, len(classes))
    drawn = []
    for number, label in enumerate(classes):
        members = np.random.default_rng([seed, number]).permutation(np.flatnonzero(label_of == label))
        wanted, found, tried = share + (number < rest), 0, 0
        if len(members) < wanted:
            raise _too_few(name, subset, len(classes), label, len(members), wanted)
        while found < wanted:
            # In the order of the file: reading here and there takes far longer.
            batch = sorted(members[tried : tried + wanted - found].tolist())
            if not batch:
                raise _too_few(name, subset, len(classes), label, found, wanted)
            tried += len(batch)
            accepted = [position for position in batch if accept(position)]
            drawn += accepted
            found += len(accepted)
    return sorted(drawn)


def _too_few(name: str, subset: int, classes: int, label: str, found: int, wanted: int) -> DataError:
    less = f"to {found * classes} or less, or " if found else ""
    return DataError(
        f"datasets/{name}.yaml: subset: {subset} images of {classes} classes need {wanted} of '{label}', and "
        f"there are {found}. Set subset {less}to null for all images."
    )
