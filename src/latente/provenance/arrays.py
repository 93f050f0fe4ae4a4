"""Array files, .npy and .npz, that may come from a stranger: what they say they hold is checked before it is read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from latente.provenance.kind import Unlike


def length(path: Path, name: str) -> int:
    """How many rows the array at `path`, or that by a name within a .npz, says it has. Raises Unlike when it is cut short."""
    with _member(path, name) as (file, size):
        shape, dtype = _header(file)
    if size < math.prod(shape) * dtype.itemsize:
        raise Unlike("it is cut short")
    return shape[0] if shape else 0


def array(path: Path, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array at `path`, or that by a name within a .npz. Raises Unlike when it is of another shape or type."""
    with _member(path, name) as (file, _):
        found = _header(file)
        if found != (shape, np.dtype(dtype)):
            raise Unlike(f"it holds {found[1]} numbers of shape {found[0]}, not {np.dtype(dtype)} of {shape}")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def holds(path: Path, name: str) -> bool:
    """Whether a .npz holds an array by that name."""
    with zipfile.ZipFile(path) as archive:
        return f"{name}.npy" in archive.namelist()


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """An array file open at its start, and how many bytes it says it is long."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file, archive.getinfo(f"{name}.npy").file_size
    else:
        with path.open("rb") as file:
            yield file, path.stat().st_size


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
