"""What is in a source and what is wrong with it, told before an hour is spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latente.data.dataset import Dataset

ENOUGH = 200  # distinct training images below which a model mostly learns to copy


@dataclass
class Audit:
    """Facts found while a source was read."""

    found: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of what could not be read"""
    sizes: dict[str, int] = field(default_factory=dict)
    """"WIDTHxHEIGHT" -> how many"""
    recoloured: int = 0
    """images that lost colours, transparency or depth when they were brought to grey or RGB of 8 bits"""
    renumbered: int = 0
    """images whose names are no different paths below a folder, so that numbers stand for them"""
    left_out: tuple[str, ...] = ()
    """what of the source is not read, in words"""
    duplicates: int = 0
    """images whose exact pixels occurred before"""
    conflicts: int = 0
    """distinct images that occur under more than one label"""
    leaks: int = 0
    """training images dropped because the official test set holds the same pixels"""


def warnings(dataset: Dataset) -> list[str]:
    """What the user should know before training; each one line with what to do."""
    found, said = dataset.audit, []
    train = len(dataset.splits["train"])
    if train < ENOUGH:
        said.append(
            f"only {train} training images: a model will mostly copy them; add images, or use the smallest --size"
        )
    if found.conflicts:
        said.append(
            f"{found.conflicts} images occur under more than one label: check the labels, or train with --no-labels"
        )
    if dataset.labels is not None:
        few = [c for c, n in class_counts(dataset).items() if n < 10]
        if few:
            said.append(
                f"{len(few)} classes have fewer than 10 images ({', '.join(few[:5])}): add images, or --no-labels"
            )
    if found.duplicates > 0.2 * max(1, found.found):
        said.append(
            f"{found.duplicates} of {found.found} images are exact duplicates: remove them to train on what is different"
        )
    return said


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Images per class, in class order."""
    import numpy as np

    if dataset.labels is None:
        return {}
    counts = np.bincount(dataset.labels[dataset.items], minlength=len(dataset.spec.classes))
    return dict(zip(dataset.spec.classes, counts.tolist()))


def describe(dataset: Dataset) -> list[tuple[str, str]]:
    """(what, value) rows, for people."""
    spec, found = dataset.spec, dataset.audit
    colour = "grey" if spec.channels == 1 else "RGB"
    sizes = sorted(found.sizes.items(), key=lambda item: -item[1])
    rows = [
        ("images", f"{len(dataset.items):,}"),
        ("trained as", f"{spec.width}x{spec.height} {colour}"),
        (
            "original sizes",
            ", ".join(f"{s} ({n:,})" for s, n in sizes[:5]) + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""),
        ),
        ("splits", ", ".join(f"{name} {len(part):,}" for name, part in dataset.splits.items())),
        ("exact duplicates", f"{found.duplicates:,}"),
        ("fingerprint", dataset.fingerprint[:16]),
    ]
    counts = class_counts(dataset)
    if counts:
        shown = ", ".join(f"{c} ({n:,})" for c, n in list(counts.items())[:12])
        rows.insert(2, ("classes", f"{len(counts)}: {shown}" + (" ..." if len(counts) > 12 else "")))
    if found.leaks:
        rows.append(("in the test set too", f"{found.leaks:,} (left out of training)"))
    for name, reason in found.skipped[:10]:
        rows.append(("unreadable", f"{name}: {reason}"))
    if len(found.skipped) > 10:
        rows.append(("unreadable", f"and {len(found.skipped) - 10} more"))
    rows += [("left out", what) for what in found.left_out]
    return rows + [("warning", line) for line in warnings(dataset)]
