"""A dataset: images of one size, their classes, and three splits that share no image.

Splits go by content: distinct images are ordered by a hash of their pixels; the lowest tenth is the test split, the next
tenth validation (at most 10,000 each), so equal images are never on two sides and file order does not matter. Where a
source brings its own test set, that is the test split, and training images with the same pixels are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from latente.data.audit import Audit, describe, warnings
from latente.data.errors import DataError
from latente.data.images import SUFFIXES, contact_sheet
from latente.rng import permutation
from latente.spec import ImageSpec

if TYPE_CHECKING:
    import torch

CAP = 10_000
FEWEST = 10
SMALLEST, LARGEST = 8, 128


@dataclass(frozen=True)
class ImageOptions:
    """How a source of images is read."""

    image_size: str | None = None
    """64 or 48x64 (height x width): crop the centre and resize; unset: as they are if all alike and at most 128, else 64"""
    color: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if every image is"""
    max_bad: float = 0.05
    """share of unreadable files above which reading stops"""
    labels: bool = True
    """use class folders or label arrays as classes"""
    fewest: ClassVar[int] = FEWEST
    """images, below which reading stops"""


class Reading(ImageOptions):
    """How images are read that are not trained on: any number will do."""

    fewest = 0


@dataclass
class Dataset:
    """Images of one size with their splits. `batch` is what training calls; it copies, so the images may lie on disk."""

    name: str
    spec: ImageSpec
    fingerprint: str
    images: np.ndarray
    """(N,C,H,W) uint8, possibly memory-mapped"""
    labels: np.ndarray | None
    """(N,) int64"""
    items: np.ndarray
    """indices of the readable images"""
    splits: dict[str, np.ndarray]
    """train, validation, test: indices"""
    audit: Audit
    keys: list[str] | None = None
    """what the images are called, where they have names: paths, or numbers"""
    sole_class: str | None = None
    """what labels call all images alike: no class"""
    previewed: ClassVar[int] = 48
    """how many images `preview` is given"""

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """{"x": uint8 (B,C,H,W)}, and "label": int64 (B,) when there are classes, in the order of `indices`."""
        import torch

        batch = {"x": torch.from_numpy(np.ascontiguousarray(self.images[indices]))}
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[indices])
        return batch

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Indices of the training items in the order of one epoch, (N,) int64: a shuffle keyed by seed and epoch."""
        items = self.splits["train"]
        return items[permutation(len(items), seed, "epoch", epoch).numpy()]

    def warnings(self) -> list[str]:
        """What the user should know before training, a line each."""
        return warnings(self)

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) rows, for people."""
        return describe(self)

    def preview(self, drawn: dict[str, np.ndarray], path: Path) -> None:
        """Writes drawn images {"x": (n,C,H,W)} as one sheet, PATH.png."""
        contact_sheet([("", drawn["x"])], path.with_suffix(".png"))

    def names(self, indices: np.ndarray) -> list[str]:
        """What to call these images when they are written again: their relative path without the suffix of a picture, or their number.

        Where several would have one name (a.png and a.jpg), all but the first get a number behind it.
        """
        if self.keys is None:
            return [f"{i:06d}" for i in indices]
        found: dict[str, None] = {}
        for i in indices:
            path = Path(self.keys[i])
            name = unlike = str(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)
            number = 2
            while unlike in found:
                unlike, number = f"{name}-{number}", number + 1
            found[unlike] = None
        return list(found)


def make_dataset(name: str, images: np.ndarray, hashes: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...],
             items: np.ndarray, test: np.ndarray, audit: Audit, keys: list[str] | None, fewest: int) -> Dataset:  # fmt: skip
    height, width = images.shape[2:]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"{name}: images of {width}x{height} are too small; {SMALLEST}x{SMALLEST} is the least (--image-size {SMALLEST})"
        )
    sole = None
    if len(classes) < 2:
        sole, labels, classes = next(iter(classes), None), None, ()
    spec = ImageSpec(int(images.shape[1]), int(height), int(width), classes)
    mine = hashes[items]
    audit.duplicates = len(items) - len(np.unique(mine))
    if labels is not None:
        pairs = np.unique(np.stack([mine, labels[items].astype(np.uint64)], 1), axis=0)
        audit.conflicts = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    splits = split(hashes, items, test) if fewest else {"train": items, "validation": items[:0], "test": items[:0]}
    audit.leaks = len(items) - sum(map(len, splits.values()))
    fingerprint = hashlib.blake2b(np.sort(mine).tobytes() + repr(spec).encode(), digest_size=16).hexdigest()
    return Dataset(name, spec, fingerprint, images, labels, items, splits, audit, keys, sole)


def split(hashes: np.ndarray, items: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the train, validation and test splits by the rule on top of this file. Raises DataError for too few images."""
    official = items[test[items]]
    rest = items[~test[items]]
    if len(official):
        rest = rest[~np.isin(hashes[rest], hashes[official])]
    ranked = np.unique(hashes[rest])  # sorted; the hash is mixed, so its order is a fixed shuffle
    if len(ranked) < (2 if len(official) else 3):
        raise DataError(
            f"only {len(ranked)} different images: too few to train and to check; at least {FEWEST} are needed"
        )
    share = min(CAP, max(1, len(ranked) // 10))
    first = ranked[share - 1] if not len(official) else None
    last = ranked[2 * share - 1] if not len(official) else ranked[share - 1]
    mine = hashes[rest]
    held = official if first is None else rest[mine <= first]
    validation = rest[(mine <= last)] if first is None else rest[(mine > first) & (mine <= last)]
    return {"train": rest[mine > last], "validation": validation, "test": held}


def enough(count: int, name: str, fewest: int) -> None:
    if count < fewest:
        raise DataError(
            f"{name} holds {count} image{'s' * (count != 1)}: too few to train on; at least {fewest} are needed"
        )


def wanted_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) from "64" or "48x64". Raises DataError for anything else."""
    if text is None:
        return None
    parts = str(text).lower().split("x")
    if not (len(parts) <= 2 and all(p.isascii() and p.isdigit() for p in parts)):
        raise DataError(f"--image-size {text!r} is not a size; say 64, or 48x64 (height x width)")
    height, width = int(parts[0]), int(parts[-1])
    if not all(SMALLEST <= side <= LARGEST for side in (height, width)):
        raise DataError(f"--image-size {text}: sides go from {SMALLEST} to {LARGEST}")
    return height, width
