"""Where what was made of a source is kept, so that it is made once.

An entry is a file or a folder that appears whole or not at all: it is written under another name and renamed. It is found
again by a digest of what identifies the source without reading it: paths, sizes, times of change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latente.data.errors import DataError

Progress = Callable[[str, int, int], None]
"""progress(what, done, total), called now and then"""


def cache_folder() -> Path:
    """$LATENTE_CACHE, or latente in the user's cache folder; made if missing. Raises DataError when it cannot be."""
    place = (
        os.environ.get("LATENTE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latente"
    )
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make the cache {place}: {error.strerror}; set LATENTE_CACHE to another folder"
        ) from None
    return Path(place)


def digest(*parts: Any) -> str:
    """A name for anything whose `repr` tells it apart."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


@contextmanager
def entry(folder: Path, ready: Callable[[], bool]) -> Iterator[Path]:
    """A new folder to write into, which becomes the cache entry `folder` when the block ends; removed after any error.

    Raises DataError when the disk refuses, unless `ready()` says that another process finished the same entry first.
    """
    try:
        draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            yield draft
            shutil.rmtree(folder, ignore_errors=True)  # a damaged entry of the same source
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        if not ready():
            raise DataError(
                f"cannot write the cache {folder.parent}: {error.strerror}; set LATENTE_CACHE to another folder"
            ) from None
