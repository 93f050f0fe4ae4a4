"""Files of delimited cells (CSV, TSV): read in constant memory, and written as their like.

bytes --charsets.py--> UTF-8 --dialects.py--> Layout --Arrow's streaming reader--> batches of strings
                                                    `--Python's reader, where Arrow's cannot, and to name a bad line
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import csv
import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latente.data.charsets import CHUNK, BadByte, Charset, charset_of, utf8_of
from latente.data.dialects import COMMON, UNQUOTED, Layout, layout, reader_of
from latente.data.errors import DataError, first_line
from latente.data.files import readable, stamp
from latente.data.forms import ROWS, Batches, Form, Table
from latente.data.table import TableOptions

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_SAMPLE = 1 << 20
_CELLS, _PIECE = 1 << 20, 1 << 23  # cells and bytes that become lines at once
_MAGIC = {
    b"PK\x03\x04": "a zip archive, as Excel files are: give it the suffix .xlsx",
    b"PAR1": "a Parquet file: give it the suffix .parquet",
    b"ARROW1": "an Arrow file: give it the suffix .arrow",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as .xlsx",
    b"\x1f\x8b": "compressed: unpack it with gunzip",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite data base: export its table",
    b"<!doctype": "a web page: get the file it offers",
    b"<html": "a web page: get the file it offers",
    b"<?xml": "XML: save it as CSV",
    b'{"': "JSON: save its rows as CSV",
    b"[{": "JSON: save its rows as CSV",
    b"version https://git-lfs": "a pointer of Git LFS: git lfs pull gets the file",
}


def open_delimited(path: Path, options: TableOptions, name: str | None = None, empty: bool = False) -> Table:
    """The table in a CSV or TSV; it may have a header and no rows where told that it may be `empty`. Raises DataError for what its
    beginning shows; later rows are checked as they are read."""
    import pyarrow as pa

    with readable(path):
        charset = _charset(path, options.encoding)
        sample, complete = _sample(path, charset)
        kind = SUFFIXES.get(path.suffix.lower(), "csv")
        form = Form(kind, encoding=charset.codec, bom=charset.skip > 0)
        found = layout(path, sample, complete, options, form, empty)
        schema = pa.schema([(column, pa.string()) for column in found.names])
        rows = _Rows(path, charset, found, schema)
        return Table(name or path.stem, schema, rows.batches, stamp(path), found.form, notes=found.notes)


def _charset(path: Path, encoding: str) -> Charset:
    """What the bytes are. Raises DataError for a file that is none of text, and for a byte that is not of its encoding."""
    with path.open("rb") as file:
        head = file.read(32)
    for magic, what in _MAGIC.items():
        if head.startswith(magic) or head.lstrip().lower().startswith(magic):
            raise DataError(f"{path} is not a CSV but {what}")
    try:
        return charset_of(path, encoding, "stop")
    except BadByte as error:
        raise _bad_line(path, error) from None


def _utf8(path: Path, charset: Charset) -> Iterator[bytes]:
    """The text of a file in chunks of UTF-8. Raises DataError naming the line of a byte that is none of text."""
    lines = 1
    try:
        for chunk in utf8_of(path, charset, "stop"):
            if (zero := chunk.find(0)) >= 0:
                lines += chunk.count(b"\n", 0, zero)
                raise DataError(
                    f"{path}, line {lines} holds a zero byte (NUL); remove it, or name the file's --encoding"
                )
            lines += chunk.count(b"\n")
            yield chunk
    except BadByte as error:
        raise _bad_line(path, error) from None


def _bad_line(path: Path, error: BadByte) -> DataError:
    lines, left = 1, error.offset
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, CHUNK))):
            lines += chunk.count(b"\n")
            left -= len(chunk)
    return DataError(
        f"{path}, line {lines}: byte {error.offset:,} is {error.what}; mend it, or name the file's --encoding"
    )


def _sample(path: Path, charset: Charset) -> tuple[str, bool]:
    """The beginning of a file, and whether that is all of it."""
    data = b""
    for chunk in _utf8(path, charset):
        data += chunk
        if len(data) > _SAMPLE and (data.count(b"\n", 0, _SAMPLE) > 2 or len(data) > 4 * CHUNK):
            break
    enough = data[:_SAMPLE] if data.count(b"\n", 0, _SAMPLE) > 2 else data
    return enough.decode("utf-8", "ignore"), len(enough) == len(data) <= 4 * CHUNK


# ---- reading -------------------------------------------------------------------------------------------------------


class _Stream(io.RawIOBase):
    """A file's text from its first row on, as bytes of UTF-8. Counts lines, and keeps the last bytes for what an end says."""

    def __init__(self, path: Path, charset: Charset, start: int, mark: bytes = b"") -> None:
        self.tail, self.lines = b"", 0
        self._chunks = _utf8(path, charset)
        self._buffer = memoryview(mark)
        self._before = start

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        filled = 0
        while filled < len(into) and (self._buffer or self._more()):
            size = min(len(into) - filled, len(self._buffer))
            into[filled : filled + size], self._buffer = self._buffer[:size], self._buffer[size:]
            filled += size
        return filled

    def _more(self) -> bool:
        """Whether there is another chunk, which is made ready."""
        for chunk in self._chunks:
            self._buffer = memoryview(chunk)[self._before :]
            self._before = max(0, self._before - len(chunk))
            self.lines += chunk.count(b"\n", len(chunk) - len(self._buffer))
            self.tail = (self.tail[-_SAMPLE:] + self._buffer)[-_SAMPLE:]
            if self._buffer:
                return True
        return False


@dataclass
class _Rows:
    """The rows of one file."""

    path: Path
    charset: Charset
    found: Layout
    schema: pa.Schema
    checked: bool = False
    """whether quotes have been looked at closely"""

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        form, rows = self.found.form, 0
        stream = self._stream(b"" if form.spaced else BOM_UTF8)  # Arrow takes away the mark it finds, and only one
        padded = [self.schema.get_field_index(name) for name in form.padded]
        with readable(self.path):
            for batch in self._by_python(stream) if form.spaced else self._by_arrow(stream):
                columns = batch.columns
                rows += len(batch)
                for at in padded:
                    columns[at] = pc.utf8_ltrim(columns[at], characters=" ")
                if form.trailing and any(columns.pop().to_pylist()):
                    raise self._mistake() or self._changed()
                whole = pa.RecordBatch.from_arrays(columns, schema=self.schema)
                for start in range(0, len(whole), ROWS):
                    yield whole.slice(start, ROWS)
            if form.quote and stream.lines > rows and not self.checked:  # some cells have several lines
                self._check_quotes()
            self.checked = True

    def _stream(self, mark: bytes = b"") -> _Stream:
        return _Stream(self.path, self.charset, self.found.start, mark)

    def _by_arrow(self, stream: _Stream) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.csv as pc

        form, width = self.found.form, self.found.width
        names = [str(at) for at in range(width)]
        last: Any = None
        done = 0
        try:
            reader = pc.open_csv(
                pa.PythonFile(stream, "r"),
                pc.ReadOptions(column_names=names, block_size=max(_SAMPLE, 8 * self.found.longest)),
                pc.ParseOptions(delimiter=form.delimiter, quote_char=form.quote or False, newlines_in_values=True),
                pc.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for last in reader:
                yield last
                done += len(last)
        except pa.ArrowInvalid:  # it does not name the line, and does not take rows far longer than those before
            if mistake := self._mistake():
                raise mistake from None
            yield from self._by_python(self._stream(), done)
            return
        if last is not None and len(last) and _unclosed(stream.tail, last.column(width - 1)[-1].as_py(), form):
            raise self._mistake() or self._changed()

    def _by_python(self, stream: _Stream, skip: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows after the first `skip`, slowly; an empty cell is null whether quoted or not."""
        import pyarrow as pa

        names = [str(at) for at in range(self.found.width)]
        records = islice(_records(stream, self.found.form), skip, None)
        while rows := [cells for _, _, cells in islice(records, 8192)]:
            if any(len(cells) != self.found.width for cells in rows):
                raise self._mistake() or self._changed()
            columns = zip(*([cell or None for cell in cells] for cells in rows))
            yield pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], names)

    def _mistake(self) -> DataError | None:
        """What is wrong with the rows, found slowly; None when nothing is."""
        found, form, stream = self.found, self.found.form, self._stream()
        records = _records(stream, form)
        before, end, cells, last = 0, 0, [], True
        try:
            for before, end, cells in records:  # noqa: B007
                if len(cells) != found.width or (form.trailing and cells[-1]):
                    last = next(records, None) is None
                    break
        except csv.Error as error:
            line = found.line + end + 1
            return DataError(f"{self.path}, line {line}: {first_line(error)}; is a quoted cell never closed?")
        first, end = found.line + before + 1, found.line + end
        if last and cells and _unclosed(stream.tail, cells[-1], form):
            column = found.names[min(len(cells), len(found.names)) - 1]
            where = f"{self.path}, line {first}, column {column!r}"
            return DataError(f"{where}: a quoted cell is never closed; close or remove the quote")
        if not cells or (len(cells) == found.width and not (form.trailing and cells[-1])):
            return None
        return _ragged(self.path, first, end, cells, found)

    def _check_quotes(self) -> None:
        """Raises DataError for a cell of several lines whose closing quote is followed by text: it was to be closed before."""
        form = self.found.form
        reader: Any = reader_of(_text(self._stream()), form.delimiter, form.quote, form.spaced, strict=True)
        while True:
            before = reader.line_num
            try:
                next(reader)
            except StopIteration:
                return
            except csv.Error:
                if reader.line_num > before + 1:
                    first, last = self.found.line + before + 1, self.found.line + reader.line_num
                    raise DataError(
                        f"{self.path}, line {first}: a quoted cell goes on to line {last}, where text follows its quote; "
                        "close the quote where the cell ends, or double the quotes inside it"
                    ) from None

    def _changed(self) -> DataError:
        return DataError(f"{self.path} changed while it was read; try again")


def _text(stream: _Stream) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8", newline="")


def _records(stream: _Stream, form: Form) -> Iterator[tuple[int, int, list[str]]]:
    """(lines before, lines up to its end, cells) of each row that is not blank, lines counted from the first row."""
    reader: Any = reader_of(_text(stream), form.delimiter, form.quote, form.spaced)
    before = 0
    for cells in reader:
        if cells:
            yield before, reader.line_num, cells
        before = reader.line_num


def _unclosed(tail: bytes, cell: str | None, form: Form) -> bool:
    """Whether a text ends inside the quotes of its last cell."""
    if not form.quote or cell is None:
        return False
    opened = form.quote + cell.replace(form.quote, 2 * form.quote)
    closed = opened + form.quote

    def ends(with_: str) -> bool:
        return tail == with_.encode() or any(
            tail.endswith((sign + with_).encode()) for sign in (form.delimiter, *"\r\n")
        )

    return ends(opened) and not any(ends(closed + line_end) for line_end in ("", "\n", "\r", "\r\n"))


def _ragged(path: Path, first: int, last: int, cells: Sequence[str], found: Layout) -> DataError:
    expected = "the header names" if found.form.header else "the first row has"
    count = len(cells) - (len(cells) == found.width and bool(found.form.trailing) and not cells[-1])
    many = f"{count} cell{'s' * (count != 1)} where {expected} {len(found.names)}"
    if last > first:
        return DataError(
            f"{path}, lines {first} to {last} make one row of {many}; is a quote on line {first} not closed?"
        )
    if count > len(found.names):
        return DataError(f"{path}, line {first}: {many}; quote the cell that holds the delimiter, or mend the row")
    return DataError(f"{path}, line {first}: {many}; mend the row, or remove it")


# ---- writing -------------------------------------------------------------------------------------------------------


def write_delimited(path: Path, schema: pa.Schema, batches: Batches, form: Form) -> None:
    """Writes rows as `form` says; what is no text becomes it. They are read twice where `looked_at_first`. Raises DataError for a
    character its encoding lacks."""
    names, whole = list(schema.names), _whole_seconds(schema, batches)

    def texts() -> Iterator[pa.RecordBatch]:
        return (text for batch in batches() for text in _texts(batch, whole))

    if not form.quote and _torn(names, texts(), form):
        form = replace(form, quote='"')
    encoding = "utf-8-sig" if form.bom and form.encoding == "utf-8" else form.encoding
    try:
        with path.open("w", encoding=encoding, newline="") as file:
            file.write(_head(names, form))
            for batch in texts():
                file.writelines(_lines(batch, form))
    except UnicodeEncodeError as error:
        sign = error.object[error.start]
        raise DataError(
            f"{sign!r} cannot be written in {form.encoding}, the encoding of the source; write a .parquet"
        ) from None


def looked_at_first(schema: pa.Schema, form: Form) -> bool:
    """Whether how the first row is written depends on the last one: on whether any cell needs quotes, or moments parts of a second."""
    return not form.quote or bool(_moments(schema))


def comes_back(path: Path, table: Table) -> bool:
    """Whether `table`, which was read from `path`, would be written as the same bytes again."""
    form = table.form
    encoding = "utf-8-sig" if form.bom and form.encoding == "utf-8" else form.encoding
    with path.open("rb") as file:
        content = _head(table.schema.names, form).encode(encoding)
        if file.read(len(content)) != content:
            return False
        for batch in table.batches():
            content = "".join(_lines(batch, form)).encode(encoding.removesuffix("-sig"))
            if file.read(len(content)) != content:
                return False
        return not file.read(1)


def as_text(column: pa.Array, whole: bool = False) -> pa.Array:
    """Any column as strings: numbers as Python shows them, dates as ISO 8601, moments without a part of a second where told that all
    are `whole`, what has parts as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) and whole:
        column = column.cast(pa.timestamp("s", column.type.tz))
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        cells = [
            None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in column.to_pylist()
        ]
        return pa.array(cells, pa.string())
    texts = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        no_point = pc.match_substring_regex(texts, r"^-?\d+$")
        texts = pc.if_else(no_point, pc.binary_join_element_wise(texts, ".0", ""), texts)
    return texts


def _moments(schema: pa.Schema) -> list[int]:
    """Which columns hold moments."""
    import pyarrow as pa

    kinds = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types)
    return [at for at, kind in enumerate(kinds) if pa.types.is_timestamp(kind)]


def _whole_seconds(schema: pa.Schema, batches: Batches) -> set[int]:
    """Which columns hold moments of whole seconds alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def whole(column: pa.Array) -> bool:
        column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        return pc.all(pc.equal(pc.subsecond(column), 0)).as_py() is not False

    found = set(_moments(schema))
    if found:
        for batch in batches():
            found = {at for at in found if whole(batch.column(at))}
    return found


def _texts(batch: pa.RecordBatch, whole: set[int]) -> Iterator[pa.RecordBatch]:
    """Rows as strings, few enough to become lines at once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = max(1, _CELLS // batch.num_columns)
    for start in range(0, len(batch), size):
        part = batch.slice(start, size)
        columns = [as_text(column, at in whole) for at, column in enumerate(part.columns)]
        if len(columns) == 1:
            columns = [pc.fill_null(columns[0], "")]  # written as "", since a line of nothing is no row
        yield from _pieces(pa.RecordBatch.from_arrays(columns, batch.schema.names))


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if len(batch) < 2 or batch.nbytes <= _PIECE:
        yield batch
    else:
        yield from _pieces(batch.slice(0, len(batch) // 2))
        yield from _pieces(batch.slice(len(batch) // 2))


def _torn(names: Sequence[str], batches: Iterator[pa.RecordBatch], form: Form) -> bool:
    """Whether names and cells written without quotes would be read as something else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def some(column: pa.Array, pattern: str) -> bool:
        return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())

    special = rf"[{re.escape(_signs(form, len(names)))}\r\n]|^$"
    opened = closed = False
    spaces, cells = [0] * len(names), [0] * len(names)
    heads = pa.RecordBatch.from_arrays([pa.array([name]) for name in names], list(names))
    for number, batch in enumerate(chain([heads], batches)):
        for at, column in enumerate(batch.columns):
            if some(column, special):
                return True
            opened, closed = opened or some(column, '^"'), closed or some(column, '"$')
            if number:
                spaces[at] += pc.sum(pc.starts_with(column, " ")).as_py() or 0
                cells[at] += len(column) - column.null_count
    if opened and (closed or form.delimiter not in UNQUOTED or len(names) == 1):
        return True
    return any(padding > 0.9 * all_ for padding, all_ in zip(spaces, cells))  # would be taken for padding


def _signs(form: Form, columns: int) -> str:
    """The delimiter; of a single column all signs that could be taken for one."""
    return form.delimiter if columns > 1 else COMMON + form.delimiter


def _head(names: Sequence[str], form: Form) -> str:
    """The line that names the columns, where there is one."""
    if not form.header:
        return ""
    heads = [_header_cell(name, form) for name in names]
    return form.delimiter.join(heads) + form.delimiter * (form.trailing == "all") + form.line_end


def _header_cell(name: str, form: Form) -> str:
    special = (
        not name
        or name.startswith(("#", "//", " "))
        or any(sign in name for sign in (form.delimiter, form.quote, "\r", "\n"))
    )
    if not form.quote or not (form.header_quoted or special):
        return name
    return form.quote + name.replace(form.quote, 2 * form.quote) + form.quote


def _lines(batch: pa.RecordBatch, form: Form) -> Iterator[str]:
    """The lines of a batch, each with its end; a missing cell is left empty."""
    import pyarrow.compute as pc

    signs = _signs(form, batch.num_columns)
    columns = [_written(column, name, form, signs) for name, column in zip(batch.schema.names, batch.columns)]
    parts = [*columns, ""] if form.trailing else columns
    joined = pc.binary_join_element_wise(*parts, form.delimiter, null_handling="replace", null_replacement="")
    return (line + form.line_end for line in joined.to_pylist())


def _written(column: pa.Array, name: str, form: Form, signs: str) -> pa.Array:
    """The cells of a column as they stand in a line: padded, and quoted where the source quotes or where they must be."""
    import pyarrow.compute as pc

    padded = name in form.padded
    plain = pc.binary_join_element_wise(" ", column, "") if padded else column
    if not form.quote:
        return plain
    quoted = pc.replace_substring(column, form.quote, 2 * form.quote)
    quoted = pc.binary_join_element_wise(" " * (padded and form.spaced) + form.quote, quoted, form.quote, "")
    if name in form.quoted:
        return quoted
    must = pc.match_substring_regex(column, rf"[{re.escape(signs + form.quote)}\r\n]|^ |^$")
    return pc.if_else(must, quoted, plain)
