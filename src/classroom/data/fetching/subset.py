"""Draws a random subset balanced over classes."""

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
    """Draws a subset with equal numbers of each class; the first classes get the remainder.

    Parameters
    ----------
    labels
        of all samples
    classes
        their names
    subset
        number of samples
    seed
        of the draw
    name
        of the dataset, for messages
    accept
        may reject a position, e.g. of a duplicate, which is then replaced by another one of its class

    Returns
    -------
    Sorted positions in `labels`.

    Raises
    ------
    DataError
        A class has too few samples.
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
            # Sorted, because sequential reads of the file are much faster.
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
        f"there are only {found}. Set subset {less}to null for all images."
    )
