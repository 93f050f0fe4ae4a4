"""Finding files, and telling without reading them whether they have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from latente.data import named
from latente.data.errors import DataError, first_line


def located(source: str | Path) -> Path:
    """The existing file or folder a user's words stand for. Raises DataError when there is none."""
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # ~name of somebody who is not on this machine
        path = Path(source)
    with readable(path):
        if not path.exists():
            names = ", ".join(name for group in named.NAMES.values() for name in group)
            raise DataError(f"no file, folder or named source called {str(source)!r}; names: {names}")
    return path


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the system says about a file that cannot be read into DataError, one line."""
    try:
        yield
    except PermissionError as error:
        raise DataError(f"not allowed to read {error.filename or path}") from None
    except OSError as error:
        raise DataError(f"{str(path)[:200]} cannot be read: {error.strerror or first_line(error)}") from None


def below(folder: Path, suffixes: Collection[str]) -> list[tuple[str, Path]]:
    """(relative path, path) of the files with one of these suffixes in a folder and its sub-folders, hidden ones left out. Raises
    OSError for a sub-folder that cannot be read."""
    files = (path for path, linked in _walk(folder) if not linked and path.suffix.lower() in suffixes)
    return [(path.relative_to(folder).as_posix(), path) for path in files]


def besides(folder: Path, suffixes: Collection[str]) -> tuple[list[str], list[str]]:
    """What `below` leaves out: other files, and links to folders; hidden ones are not named."""
    found: tuple[list[str], list[str]] = [], []
    for path, linked in _walk(folder):
        if linked or path.suffix.lower() not in suffixes:
            found[linked].append(path.relative_to(folder).as_posix())
    return found


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Files of a folder and its sub-folders in order, and links to folders, which are not followed; whether it is such a link."""

    def failed(error: OSError) -> None:
        raise error

    for place, subfolders, files in os.walk(folder, onerror=failed, followlinks=False):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith("."))
        yield from ((path, True) for path in map(Path(place).joinpath, subfolders) if path.is_symlink())
        yield from ((Path(place) / file, False) for file in sorted(files) if not file.startswith("."))


def stamp(path: Path) -> str:
    """What identifies the content of a file without reading it."""
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def stamps(folder: Path, found: list[tuple[str, Path]]) -> str:
    """What identifies the content of many files without reading them."""
    listing = []
    for key, path in found:
        try:
            status = path.stat()
            listing.append((key, status.st_size, status.st_mtime_ns))
        except OSError:
            listing.append((key, -1, -1))
    return json.dumps([str(folder.resolve()), listing])
