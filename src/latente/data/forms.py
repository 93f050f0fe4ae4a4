"""A table on its way from a source, and the form in which its like is written again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 16
"""rows in a batch, at most"""
Batches = Callable[[], "Iterator[pa.RecordBatch]"]
"""rows that can be read again and again"""


@dataclass(frozen=True)
class Form:
    """What a source looked like, so that samples can look the same. JSON-friendly."""

    kind: str
    """csv, tsv, parquet, arrow, excel or frame"""
    delimiter: str = ","
    quote: str = '"'
    """what encloses a cell that holds a delimiter, a quote or a line end; empty: nothing does"""
    quoted: tuple[str, ...] = ()
    """columns whose every cell is quoted, need it or not"""
    header: bool = True
    header_quoted: bool = False
    padded: tuple[str, ...] = ()
    """columns whose cells have a space after the delimiter, which is no part of them"""
    spaced: bool = False
    """whether that space stands before the quote rather than inside"""
    trailing: str = ""
    """whether lines end with a delimiter: "", "rows" or "all" (the header too)"""
    encoding: str = "utf-8"
    bom: bool = False
    line_end: str = "\n"
    decimal: str = "."
    thousands: str = ""
    sheet: str | None = None
    """the sheet of an Excel file"""
    frame: str = ""
    """of what is in memory: pandas, polars, arrow, dict or rows"""
    dtypes: tuple[tuple[str, str], ...] = ()
    """of a pandas frame: (column, dtype)"""

    def __str__(self) -> str:
        """In words, as "CSV, cells between ;, decimal comma, cp1252"."""
        if self.kind not in ("csv", "tsv"):
            named = {"parquet": "Parquet", "arrow": "Arrow", "excel": "Excel", "frame": f"{self.frame} in memory"}
            return named[self.kind] + (f", sheet {self.sheet}" if self.sheet else "")
        words = [self.kind.upper(), f"cells between {NAMES_OF.get(self.delimiter, self.delimiter)}"]
        words += ["no quotes"] * (not self.quote) + ["no header"] * (not self.header)
        words += ["decimal comma"] * (self.decimal == ",")
        words += [f"thousands between {NAMES_OF.get(self.thousands, self.thousands)}"] * bool(self.thousands)
        return ", ".join([*words, self.encoding])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Form:
        lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list | tuple)}
        dtypes = tuple((name, dtype) for name, dtype in record.get("dtypes", ()))
        return cls(**{**record, **lists, "dtypes": dtypes})


NAMES_OF = {"\t": "tab", " ": "space", "\u00a0": "hard space", "\u202f": "narrow space", "\x1f": "nothing (one column)"}
"""what a sign is called where it cannot be seen"""


@dataclass
class Table:
    """Rows that can be read again and again, in the order of the source and in constant memory."""

    name: str
    schema: pa.Schema
    """of a CSV every column is a string: the cells as they are written, null where nothing stands, "" where "" does"""
    batches: Batches
    """at most 65,536 rows each; raises DataError naming the line of what is wrong"""
    stamp: str | None
    """what identifies the content without reading it; None: in memory, not cached"""
    form: Form
    test: int | None = None
    """the row at which an official test set begins"""
    notes: list[str] = field(default_factory=list)
    """what was done that the user should know, a line each"""

    def read(self) -> pa.Table:
        """All rows at once."""
        import pyarrow as pa

        return pa.Table.from_batches(self.batches(), self.schema)
