"""A template and values become a page, written in one step. Every string is escaped, and spelled out where it would not be seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from latente import __version__
from latente.reports import words

SIGNS = {
    "good": "M3 8.6l3.3 3.2L13 4.6", "unsure": "M5.4 5.9a2.6 2.6 0 1 1 4 2.2c-1 .6-1.4 1.1-1.4 2.2M8 13.3v.1", "bad": "M4 4l8 8M12 4l-8 8",
    "none": "M4 8h8", "informs": "M8 7.4v5.2M8 3.6v.1",
}  # fmt: skip
"""what is drawn beside an answer, in a box of 16: a tick, a question mark, a cross, a dash, an i"""


def written(path: Path, template: str, **values: Any) -> Path:
    """Replaces the file at `path` by the template filled with `values`; gives the path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: words.shown(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {"number": words.number, "interval": words.interval, "duration": words.duration}
    text = environment.get_template(template).render(version=__version__, signs=SIGNS, **values)
    draft = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
