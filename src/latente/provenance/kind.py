"""What is to be known of a kind of things made, so that they are written, read back and compared: one subclass a kind."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Made = Mapping[str, Any]
"""What was made, N of each: an array or a list of str a name. "name" are the names they are written under, where they have any."""


class Unlike(Exception):
    """What was written cannot be compared one by one with what it should be; the message says why."""


class Kind(ABC):
    """A kind of things made. Where they are read back the files may come from a stranger: any exception then means Unlike."""

    name: ClassVar[str]
    """one of them in words; with an s, several"""
    options: ClassVar[dict[str, type]] = {}
    """what can be asked of sampling beside n and seed: str, list (of str), int (from 1) or float"""
    least: ClassVar[Mapping[str, int]] = {}
    """the least of those int options that need not be 1"""
    some: ClassVar[frozenset[str]] = frozenset()
    """those of the options that only some models take"""

    def whole(self, made: Made, options: Mapping[str, Any]) -> Made:
        """What is written of what was sampled with these options."""
        return made

    @abstractmethod
    def items(self, made: Made) -> Sequence[Any]:
        """The things one by one, as `read` gives them."""

    @abstractmethod
    def check_output(self, path: Path) -> None:
        """Raises DataError when they cannot be written to `path`: asked before the work, not after it."""

    @abstractmethod
    def write(self, path: Path, made: Made, spec: Any) -> None:
        """Writes them."""

    def sha256(self, made: Made) -> str:
        """SHA-256 of the values, whatever they are called and whatever file holds them."""
        digest = hashlib.sha256()
        for name, values in sorted((name, values) for name, values in made.items() if name != "name"):
            if isinstance(values, list):
                for text in values:
                    content = text.encode("utf-8", "surrogatepass")
                    digest.update(struct.pack("<Q", len(content)) + content)
                continue
            digest.update(json.dumps([name, values.shape]).encode())
            digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def fits(self, n: int, options: Mapping[str, Any], spec: Any) -> bool:
        """Whether sampling so many, as a stranger asks, stays within the memory of an ordinary machine."""
        return True

    @abstractmethod
    def check_count(self, path: Path, n: int) -> None:
        """Raises Unlike when `path` cannot hold `n`: read from the head of a file where it has one, before they are made again."""

    def places(self, made: Made, spec: Any) -> list[str]:
        """Of a folder: the relative path of the file each is written to."""
        raise Unlike(f"{self.name}s are not written to folders")

    @abstractmethod
    def read(self, path: Path, made: Made, spec: Any) -> Iterator[Any]:
        """The things `path` holds, one by one; None for one that is missing or damaged, or not called as in `made`."""

    @abstractmethod
    def distance(self, expected: Any, found: Any) -> float:
        """How far one is from what it should be: 0 for the same."""

    @abstractmethod
    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        """In words how far those are that differ (None: nothing to compare with), and the largest difference of a number."""


def check_count(found: int, n: int, name: str) -> None:
    """Raises Unlike when there are not `n`."""
    if found != n:
        raise Unlike(f"it holds {found:,} {name}s, not {n:,}")


def files(folder: Path) -> dict[str, Path]:
    """The regular files in a folder and below, by relative path; hidden ones, which systems strew about, left out."""
    found: dict[str, Path] = {}
    for place, subfolders, names in os.walk(folder, followlinks=False):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = [Path(place) / name for name in names if not name.startswith(".")]
        found |= {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return found
