"""How a source of rows is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latente.data.errors import DataError


@dataclass(frozen=True)
class TableOptions:
    """How a source of rows is read."""

    columns: str | Mapping[str, Any] | None = None
    """a JSON file of what columns are, as {"zip": "category", "note": "ignored"}: number, category, boolean, datetime,
    identifier (made anew, never learnt) or ignored; what it does not name is found out. Or the folder RUN/data: read as for that run"""
    rules: tuple[str, ...] = ()
    """what holds for all rows and shall hold for all samples: "start <= end", "unique(id)", "known(city, country)" """
    target: str | None = None
    """the column whose prediction says how useful samples are (default: the last boolean or small category)"""
    protect: int = 5
    """levels and extremes of fewer rows than this are never sampled; 0 and 1 protect nothing"""
    bins: int = 100
    """tokens of a number, at most; inside a bin values are drawn evenly"""
    encoding: str = "auto"
    """what a CSV is encoded in, as cp1252; auto: UTF-8, or what the bytes suggest"""
    delimiter: str = "auto"
    """what stands between the cells of a CSV; auto: , ; tab | or what fits"""
    decimal: str = "auto"
    """the decimal sign of a CSV, . or ,; auto: what fits"""
    excel_sheet: str | None = None
    """the sheet of an Excel file (default: the first)"""
    validation: float = 0.1
    """share of the rows that is held out to choose the best checkpoint and the stop"""
    test: float = 0.1
    """share of the rows that only evaluate reads; 0 where you have held out rows yourself"""

    def __post_init__(self) -> None:
        for name, least in (("validation", 1e-9), ("test", 0.0)):
            if not least <= getattr(self, name) < 0.5:
                raise DataError(f"--{name} {getattr(self, name)}: {'above 0' if least else 'at least 0'} and below 0.5")
        if self.bins < 2:
            raise DataError(f"--bins {self.bins}: at least 2")
        if self.protect < 0:
            raise DataError(f"--protect {self.protect}: at least 0")
