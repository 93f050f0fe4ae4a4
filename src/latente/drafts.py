"""Files and folders that appear under their name whole, or not at all, and never in the place of another.

with draft("out.png") as hidden: write to `hidden`      body ends: it is called out.png;  body fails: it is gone
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A free name beside `path`, which the body makes a file or a folder of. Raises ValueError when `path` is taken, before the
    body or after it; OSError when it cannot be written."""
    check_free(path)
    hidden = path.with_name(f".tmp-{path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield hidden
        _publish(hidden, path)
    finally:
        if hidden.is_dir():
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            hidden.unlink(missing_ok=True)


def check_free(path: Path) -> None:
    """Raises ValueError when there is something at `path`, be it a link to nothing."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    raise ValueError(f"{path} already exists; choose another --out")


def check_place(path: Path) -> None:
    """Raises ValueError when nothing can be written to `path`: it is taken, or what is to be around it is no folder, or not ours."""
    above = next(place for place in path.absolute().parents if place.exists())
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is no folder; choose another --out")
    check_free(path)
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"not allowed to write to {above}; choose another --out")


def _publish(hidden: Path, path: Path) -> None:
    try:
        if hidden.is_dir():
            hidden.rename(path)  # takes the place of nothing but an empty folder
        else:
            path.hardlink_to(hidden)  # refuses a taken name, as a rename does not
    except OSError:  # taken, or a file system without hard links
        check_free(path)
        hidden.rename(path)
