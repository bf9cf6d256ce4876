"""Label names of a data set matched against the labels of a model."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import InputError, nearest


def match_label(name: str, labels: Sequence[str]) -> int:
    """Return the index of `name` in a model's `labels`, without regard to case.

    A name that is no label but a whole number is taken as the index itself.
    Raises InputError with the nearest label when there is none.
    """
    folded = [label.strip().casefold() for label in labels]
    wanted = name.strip().casefold()
    if wanted in folded:
        return folded.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    raise InputError(
        f"label {name!r} is not a label of the model ({', '.join(labels)}){nearest(name, labels)}"
    )


def align_labels(classes: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the model's `labels` in the words of a task whose classes are called `classes`.

    By name, in any order, where the model has a label for every class: the class itself or its
    beginning, three letters at least (``POS``); further labels (``neutral``) stay as they are.
    Else one by one, where there are as many labels as classes (``LABEL_0``).
    Raises InputError when neither fits.
    """
    own = [label.strip().casefold() for label in labels]
    named = [
        next((c for c in classes if label == c or (len(label) > 2 and c.startswith(label))), label)
        for label in own
    ]
    if sorted(name for name in named if name in classes) == sorted(classes):
        return tuple(named)
    if len(labels) == len(classes):
        return tuple(classes)
    raise InputError(
        f"the model has the labels {', '.join(labels)}, the task {', '.join(classes)}; "
        "use a model with these labels"
    )
