"""The commands that show: `data`, what is in a source; `demo`, what latente does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from latente.flags import flags, parsed


@dataclass
class Data:
    """Show what is in a source and what is wrong with it."""

    source: Annotated[str, "positional"]
    """what `latente train` takes"""
    pairs: bool = False
    """look at it as pairs of texts, as `latente train seq2seq` does"""
    sheet: Path | None = None
    """where the contact sheet of images goes (default: SOURCE-sheet.png in the current folder)"""


def data(words: list[str], started: float) -> int:
    from latente.data.sources import OPTIONS, kind, open_source

    if not words or words[0].startswith("-"):
        parsed(flags(Data), words, "latente data")  # says what is missing, or helps
    of = "pair" if "--pairs" in words else kind(words[0])
    known = {name: {f"--{f.name.replace('_', '-')}" for f in fields(owner)} for name, owner in OPTIONS.items()}
    for word in words[1:]:
        other = next((name for name, own in known.items() if word in own - known[of]), None)
        if other is not None:
            raise ValueError(f"{word} is for {other} sources; {words[0]} is {of}")
    given = parsed(flags(Data, OPTIONS[of]), words, "latente data")
    data = open_source(given.source, OPTIONS[of](**{f.name: getattr(given, f.name) for f in fields(OPTIONS[of])}))
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for what, value in data.describe():
        table.add_row(what, escape(value))
    Console().print(table)
    if of == "image":
        print(f"a contact sheet is in {_sheet(data, given.sheet)}")
    return 0


def _sheet(data: Any, sheet: Path | None) -> Path:
    from latente.data.images import contact_sheet

    sheet = sheet or Path(f"{data.name}-sheet.png")
    shown = data.splits["train"][:: max(1, len(data.splits["train"]) // 96)][:96]
    contact_sheet([(f"{data.name}: {len(data.items):,} images", data.images[shown])], sheet)
    return sheet


def demo(words: list[str], started: float) -> int:
    from latente import demo

    @dataclass
    class Demo:
        """Train every family on embedded data, sample from each, draw one page."""

        out: Path = Path("latente-demo")
        """folder for the runs and the page"""

    demo.run(parsed(Demo, words, "latente demo").out)
    return 0
