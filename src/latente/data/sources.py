"""What kind of data a source is, and the one door to all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latente.data import named
from latente.data.cache import Progress
from latente.data.dataset import Dataset, ImageOptions
from latente.data.image_sources import open_images

OPTIONS: dict[str, type] = {"image": ImageOptions}
"""how each kind of source is read"""


def open_source(source: Any, options: ImageOptions | None = None, progress: Progress | None = None) -> Dataset:
    """The dataset a path, a name, `hf:NAME` or an array stands for, read as `options` say.

    Raises DataError, one line, when it cannot be used. `progress(what, done, total)` is called now and then.
    """
    if isinstance(source, Dataset):
        return source
    return open_images(source, options or ImageOptions(), progress or (lambda what, done, total: None))


def lasting(source: Any) -> str | None:
    """What a run writes down to open its source again from any folder; None for arrays in memory."""
    if not isinstance(source, str | Path):
        return None
    text = str(source)
    return text if text in named.NAMES or text.startswith("hf:") else str(Path(text).expanduser().resolve())
