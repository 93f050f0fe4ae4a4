"""Excel files: a sheet as typed columns, and rows as a new file."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latente.data.delimited import as_text
from latente.data.dialects import unique_names
from latente.data.errors import DataError, first_line
from latente.data.files import readable, stamp
from latente.data.forms import Batches, Form, Table

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS, MOST_COLUMNS, LONGEST = 1_048_575, 16_384, 32_767
"""what a sheet holds below its header, and a cell"""
_MISSING = "Excel files need the openpyxl library: pip install 'latente[excel]'"
_LOOK, _CELLS = 30, 1 << 16
_MIDNIGHT = time()
_ERRORS = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"})


def open_spreadsheet(path: Path, sheet: str | None, empty: bool = False) -> Table:
    """A sheet of an Excel file, the first unless one is named. Raises DataError for what is none, and lists the sheets; for one with
    a header and no rows too, unless it may be `empty`."""
    import pyarrow as pa

    if path.suffix.lower() == ".xls":
        raise DataError(f"{path} is an old Excel file; open it in Excel or LibreOffice and save it as .xlsx")
    notes: list[str] = []
    with _sheet(path, sheet) as (name, all_names, rows):
        head = list(islice(rows, _LOOK))
        above = _above(head)
        header = head[above] if head else ()
        kinds, count = _kinds(chain(head[above + 1 :], rows), sum(cell is not None for cell in header))
    where = f"{path}, sheet {name!r}"
    if len(all_names) > 1:
        notes.append(f"sheet {name!r} of {', '.join(map(repr, all_names))}; another with --excel-sheet")
    if above:
        notes.append(f"{above} line{'s' * (above > 1)} above the header left out")
    if not count and not (empty and header):
        others = f"; name another with --excel-sheet: {', '.join(all_names)}" if len(all_names) > 1 else "; add rows"
        raise DataError(f"{where} has no rows under a header{others}")
    headless = count > 0 and all(isinstance(cell, int | float) for cell in header[: len(kinds)])
    if headless:
        notes.append(f"no header: the first row holds numbers; columns are called column_1 to column_{len(kinds)}")
        names = [f"column_{number}" for number in range(1, len(kinds) + 1)]
        kinds = [kind | {_kind(cell)} for kind, cell in zip(kinds, header)]
    else:
        cells = [*header, *([None] * len(kinds))][: len(kinds)]
        heads = ["" if cell is None else _word(cell).strip() for cell in cells]
        names = unique_names(heads, f"{where}, row {above + 1}", notes)
    schema = pa.schema([(column, _type(kind)) for column, kind in zip(names, kinds)])

    def batches() -> Iterator[pa.RecordBatch]:
        with _sheet(path, name) as (_, _, again):
            for _ in range(above + (not headless)):
                next(again)
            body = _body(again)
            while part := list(islice(body, 8192)):
                yield _batch(part, schema)

    return Table(path.stem, schema, batches, f"{stamp(path)}:{name}", Form("excel", sheet=name), notes=notes)


@contextmanager
def _sheet(path: Path, wanted: str | None) -> Iterator[tuple[str, list[str], Iterator[Sequence[Any]]]]:
    """(name, names of all sheets, rows of values) of a sheet. Raises DataError for a file that is no Excel, a name that is none."""
    try:
        import openpyxl
    except ImportError:
        raise DataError(_MISSING) from None
    with readable(path), path.open("rb") as file:
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except OSError:
            raise
        except Exception as error:  # zipfile, the XML parser and openpyxl raise their own
            raise DataError(f"{path} cannot be read as Excel: {first_line(error)[:200]}") from None
        try:
            names = [sheet.title for sheet in book.worksheets]
            if wanted is not None and wanted not in names:
                raise DataError(f"{path} has no sheet {wanted!r}; --excel-sheet is one of {', '.join(names)}")
            if not names:
                raise DataError(f"{path} holds no sheet of cells")
            sheet: Any = book[wanted or names[0]]
            sheet.reset_dimensions()  # what other programs write there is often wrong
            yield sheet.title, names, sheet.iter_rows(values_only=True)
        finally:
            book.close()


def _above(head: Sequence[Sequence[Any]]) -> int:
    """How many rows stand above the header: blank ones, and titles that fill little of the width."""
    filled = [sum(cell is not None for cell in cells) for cells in head]
    least = max(1, max(filled, default=0) // 3 + 1) if max(filled, default=0) > 2 else 1
    return next((at for at, count in enumerate(filled) if count >= least), 0)


def _body(rows: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The rows that are not blank, what Excel could not work out as missing."""
    for cells in rows:
        cells = [None if isinstance(cell, str) and cell in _ERRORS else cell for cell in cells]
        if any(cell is not None for cell in cells):
            yield cells


def _kinds(rows: Iterator[Sequence[Any]], width: int) -> tuple[list[set[type]], int]:
    """The kinds of value in each column, and how many rows there are."""
    kinds: list[set[type]] = [set() for _ in range(width)]
    count = 0
    for count, cells in enumerate(_body(rows), 1):  # noqa: B007
        for at, cell in enumerate(cells):
            if cell is not None:
                while at >= len(kinds):
                    kinds.append(set())
                kinds[at].add(_kind(cell))
    return kinds, count


def _kind(cell: Any) -> type:
    """int, float, bool, str, date (a moment at midnight too) or datetime."""
    if isinstance(cell, datetime):
        return date if cell.time() == _MIDNIGHT else datetime
    if isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) >= 1 << 63:
        return float
    return type(cell) if type(cell) in (int, float, bool, date) else str


def _type(kinds: set[type]) -> pa.DataType:
    import pyarrow as pa

    types = {
        frozenset({int}): pa.int64(), frozenset({float}): pa.float64(), frozenset({int, float}): pa.float64(),
        frozenset({bool}): pa.bool_(), frozenset({date}): pa.date32(), frozenset({datetime}): pa.timestamp("us"),
        frozenset({date, datetime}): pa.timestamp("us"),
    }  # fmt: skip
    return types.get(frozenset(kinds), pa.string())


def _batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = []
    for at, kind in enumerate(schema.types):
        cells = [row[at] if at < len(row) else None for row in rows]
        if pa.types.is_string(kind):
            cells = [None if cell is None else _word(cell) for cell in cells]
        elif pa.types.is_floating(kind):
            cells = [None if cell is None else float(cell) for cell in cells]
        elif pa.types.is_date(kind):
            cells = [cell.date() if isinstance(cell, datetime) else cell for cell in cells]
        arrays.append(pa.array(cells, kind))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _word(cell: Any) -> str:
    """A cell of a column of several kinds, as text."""
    if isinstance(cell, bool):
        return str(cell).upper()
    return str(cell)


# ---- writing -------------------------------------------------------------------------------------------------------


def write_spreadsheet(path: Path, schema: pa.Schema, batches: Batches, sheet: str | None) -> None:
    """Writes rows, which are read twice, as one sheet. Raises DataError for what a sheet cannot hold."""
    try:
        import openpyxl
        from openpyxl.cell import WriteOnlyCell
    except ImportError:
        raise DataError(_MISSING) from None
    names = [str(name) for name in schema.names]
    _check_cells(names, batches())
    book = openpyxl.Workbook(write_only=True)
    page = book.create_sheet(sheet or "Sheet1")

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return _storable(value)
        made = WriteOnlyCell(page, value)
        made.data_type = "s"  # else a text that begins with = would be a formula
        return made

    try:
        page.append([cell(name) for name in names])
        for columns in _columns(batches()):
            for values in zip(*(column.to_pylist() for column in columns)):
                page.append([cell(value) for value in values])
    except BaseException:
        page.close()
        raise
    book.save(path)


def check_sheet(rows: int, columns: int) -> None:
    """Raises DataError for more than a sheet holds."""
    if rows > MOST_ROWS or columns > MOST_COLUMNS:
        raise DataError(
            f"{rows:,} rows of {columns:,} columns are more than an Excel sheet holds "
            f"({MOST_ROWS:,} x {MOST_COLUMNS:,}); write a .csv or a .parquet"
        )


def _check_cells(names: Sequence[str], batches: Iterator[pa.RecordBatch]) -> None:
    """Raises DataError for what a sheet cannot hold."""
    import pyarrow as pa

    check_sheet(0, len(names))
    _check(pa.array(names), 0, "header")
    rows = 0
    for columns in _columns(batches):
        for name, column in zip(names, columns):
            if pa.types.is_string(column.type):
                _check(column, rows + 1, f"column {name!r}")
        rows += len(columns[0])
        check_sheet(rows, len(names))


def _columns(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.Array]]:
    """The columns of as many rows at a time as may be held as Python's own values, as Excel knows them."""
    for batch in batches:
        size = max(1, _CELLS // batch.num_columns)
        for start in range(0, len(batch), size):
            yield [_plain(column) for column in batch.slice(start, size).columns]


def _plain(column: pa.Array) -> pa.Array:
    """A column as strings, unless Excel knows its kind."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal, pa.types.is_decimal)
    return column.cast(kind) if any(is_kind(kind) for is_kind in known) else as_text(column)


def _check(column: pa.Array, first: int, name: str) -> None:
    """Raises DataError for the first text that no cell can hold."""
    import pyarrow.compute as pc

    control = pc.match_substring_regex(column, r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
    bad = pc.or_(control, pc.greater(pc.utf8_length(column), LONGEST))
    row = pc.index(bad, True).as_py()
    if row >= 0:
        text = column[row].as_py()
        what = "a control character" if control[row].as_py() else f"{len(text):,} characters"
        raise DataError(
            f"row {row + first}, {name}: {what}, and an Excel cell holds {LONGEST:,} characters, none of control; write a .csv"
        )


def _storable(value: Any) -> Any:
    """A value that is no text, as Excel can hold it."""
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat(" ") if value.tzinfo else value
    if value is None or isinstance(value, bool | int | float | date | Decimal):
        return value
    return str(value)
