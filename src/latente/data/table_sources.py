"""From what the user points at to rows, and back to a file of the same kind.

CSV, TSV (delimited.py), Excel (spreadsheets.py), Parquet, Arrow, hf:NAME, a name, a frame --sniff--> Table
pa.Table --write_table--> .csv .tsv .parquet .arrow .feather .xlsx; --as_frame--> what was in memory
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latente.data import delimited, hub, named
from latente.data.delimited import looked_at_first, open_delimited, write_delimited
from latente.data.errors import DataError, first_line
from latente.data.files import located, readable, stamp
from latente.data.forms import ROWS, Batches, Form, Table
from latente.data.image_sources import bytes_column
from latente.data.spreadsheets import check_sheet, open_spreadsheet, write_spreadsheet
from latente.data.table import TableOptions
from latente.drafts import draft

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLE_SUFFIXES", "Form", "Table", "as_frame", "check_table_output", "is_table", "sniff", "write_table"]

_PARQUET, _ARROW, _EXCEL = (".parquet", ".pq"), (".arrow", ".feather", ".ipc"), (".xlsx", ".xlsm", ".xls")
TABLE_SUFFIXES = frozenset({*delimited.SUFFIXES, *_PARQUET, *_ARROW, *_EXCEL})
DELIMITED = (".csv", ".tsv")
OUTPUTS = (*DELIMITED, ".parquet", ".arrow", ".feather", ".xlsx")
# What is written together: so many rows, or so many bytes, of which each column of a batch takes some more.
_GROUP, _HELD, _OVERHEAD = 1 << 20, 1 << 26, 1 << 10


def sniff(source: Any, options: TableOptions | None = None, *, empty: bool = False) -> Table:
    """The table a path, a name, `hf:NAME`, a frame, arrays by name or a list of rows stands for. Raises DataError, one line; for one
    that has columns and no rows too, unless it may be `empty`."""
    options = options or TableOptions()
    if not isinstance(source, str | Path):
        return _in_memory(source, empty)
    text = str(source)
    if text == "adult":
        return open_delimited(named.adult(), options, "adult")
    if text in named.NAMES["table"]:
        return _of_arrow(named.table(text), text, Form("frame", frame="arrow"), f"{text} of {named.edition()}")
    if text.startswith(hub.PREFIX):
        return _hub(text.removeprefix(hub.PREFIX), empty)
    path = located(source)
    with readable(path):
        if path.is_dir():
            raise DataError(f"{path} is a folder; name one file of rows: {', '.join(OUTPUTS)}")
        return _file(path, options, empty)


def _file(path: Path, options: TableOptions, empty: bool) -> Table:
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: it holds no rows")
    if suffix in _PARQUET:
        return _parquet(path, empty)
    if suffix in _ARROW:
        return _arrow(path, empty)
    if suffix in _EXCEL:
        return open_spreadsheet(path, options.excel_sheet, empty)
    if suffix in (*delimited.SUFFIXES, ".txt", ".dat", ".data", ""):
        return open_delimited(path, options, empty=empty)
    raise DataError(f"{path} is not a source of rows: {', '.join(sorted(TABLE_SUFFIXES))}")


# ---- is it a table? ------------------------------------------------------------------------------------------------


def is_table(source: Any) -> bool:
    """Whether a source is rows rather than images or text, by what it looks like. Raises DataError for what cannot be read.

    Of Parquet and `hf:` sources, a column of pictures makes images, and a column of strings called text (or the only column)
    makes text, where no other column holds strings.
    """
    if not isinstance(source, str | Path):
        return _library(source) is not None
    text = str(source)
    if text in named.NAMES["table"]:
        return True
    if "\n" in text or any(text in names for names in named.NAMES.values()):
        return False
    if text.startswith(hub.PREFIX):
        parts = hub.parts_of(text.removeprefix(hub.PREFIX))
        names = list(next(iter(parts.values())).features)
        return hub.image_column(parts) is None and not _is_prose(names, hub.string_columns(parts))
    path = located(source)
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES or path.is_dir():
        return False
    return suffix not in _PARQUET or _rows_in_parquet(path)


def _rows_in_parquet(path: Path) -> bool:
    import pyarrow.parquet as pq

    with readable(path), _parsed(path, "Parquet"):
        schema = pq.read_schema(path)
    strings = [field.name for field in schema if _is_string(field.type)]
    return bytes_column(schema) is None and not _is_prose(schema.names, strings)


def _is_prose(names: Sequence[str], strings: Sequence[str]) -> bool:
    return list(strings) == ["text"] or (len(names) == 1 and len(strings) == 1)


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


# ---- files ---------------------------------------------------------------------------------------------------------


@contextmanager
def _parsed(path: Path, kind: str) -> Iterator[None]:
    """Turns what Arrow says about a file into DataError, one line."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} cannot be read as {kind}: {first_line(error)[:200]}") from None
    except OSError as error:
        if isinstance(error, PermissionError | FileNotFoundError):
            raise
        raise DataError(f"{path} cannot be read as {kind}: {first_line(error)[:200]}") from None


def _parquet(path: Path, empty: bool) -> Table:
    import pyarrow.parquet as pq

    with _parsed(path, "Parquet"), pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    _rows_and_names(str(path), rows or empty, schema.names)

    def batches() -> Iterator[pa.RecordBatch]:
        with readable(path), _parsed(path, "Parquet"), pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(ROWS)

    return Table(path.stem, schema, batches, stamp(path), Form("parquet"))


def _arrow(path: Path, empty: bool) -> Table:
    import pyarrow as pa

    stream = path.open("rb").read(6) != b"ARROW1"

    def batches() -> Iterator[pa.RecordBatch]:
        with readable(path), _parsed(path, "Arrow"), pa.memory_map(str(path)) as source:
            if stream:
                yield from _sliced(pa.ipc.open_stream(source))
            else:
                file = pa.ipc.open_file(source)
                yield from _sliced(file.get_batch(at) for at in range(file.num_record_batches))

    with _parsed(path, "Arrow"), pa.memory_map(str(path)) as source:
        schema = (pa.ipc.open_stream if stream else pa.ipc.open_file)(source).schema
    _rows_and_names(str(path), empty or any(len(batch) for batch in batches()), schema.names)
    return Table(path.stem, schema, batches, stamp(path), Form("arrow"))


def _sliced(batches: Any) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, len(batch), ROWS):
            yield batch.slice(start, ROWS)


def _rows_and_names(where: str, rows: int | bool, names: Sequence[str]) -> None:
    """Raises DataError where there are no columns, no rows, or two columns of a name."""
    if not names:
        raise DataError(f"{where} has no columns")
    if not rows:
        raise DataError(f"{where} has columns and no rows; add rows")
    twice = (
        next((name for at, name in enumerate(names) if name in names[:at]), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        raise DataError(f"{where}: two columns are called {twice!r}; rename one")


# ---- hub and memory ------------------------------------------------------------------------------------------------


def _hub(name: str, empty: bool) -> Table:
    parts = hub.parts_of(name)
    splits = hub.ordered(parts)
    schema = hub.schema_of(parts)
    rows = {split: len(parts[split]) for split in splits}
    _rows_and_names(f"hf:{name}", sum(rows.values()) or empty, schema.names)

    def batches() -> Iterator[pa.RecordBatch]:
        for split in splits:
            yield from hub.batches(parts[split], schema, ROWS)

    test = sum(rows.values()) - rows["test"] if "test" in splits and len(splits) > 1 else None
    key = json.dumps([name, [parts[split]._fingerprint for split in splits]])
    return Table(name.rstrip("/").split("/")[-1], schema, batches, key, Form("parquet"), test)


def _library(source: Any) -> str | None:
    """What a source in memory is: pandas, polars, arrow, dict or rows; None when it is no table."""
    import pyarrow as pa

    module, kind = type(source).__module__.split(".")[0], type(source).__name__
    if module in ("pandas", "polars") and kind in ("DataFrame", "LazyFrame"):
        return module
    if isinstance(source, pa.Table | pa.RecordBatch):
        return "arrow"
    if isinstance(source, Mapping):
        return "dict"
    listed = isinstance(source, Sequence) and not isinstance(source, str | bytes) and len(source) > 0
    return "rows" if listed and all(isinstance(row, Mapping) for row in source) else None


def _in_memory(source: Any, empty: bool) -> Table:
    import pyarrow as pa

    library, notes, dtypes = _library(source), [], ()
    if library is None:
        raise DataError(
            f"a source of rows is a path, a name, a frame, arrays by name or a list of rows, not {type(source).__name__}"
        )
    if library == "pandas":
        table, dtypes = _from_pandas(source, notes), tuple((str(n), str(t)) for n, t in source.dtypes.items())
    elif library == "polars":
        table = (source.collect() if hasattr(source, "collect") else source).to_arrow()
    elif library == "arrow":
        table = pa.Table.from_batches([source]) if isinstance(source, pa.RecordBatch) else source
    elif library == "rows":
        names = list(dict.fromkeys(name for row in source for name in row))
        table = _from_columns({name: [row.get(name) for row in source] for name in names})
    else:
        table = _from_columns(source)
    found = _of_arrow(table, "table", Form("frame", frame=library, dtypes=dtypes), None, empty)
    found.notes += notes
    return found


def _of_arrow(table: pa.Table, name: str, form: Form, key: str | None, empty: bool = False) -> Table:
    _rows_and_names(f"the {name} in memory", len(table) or empty, table.column_names)
    return Table(name, table.schema, partial(table.to_batches, ROWS), key, form)  # type: ignore[arg-type]


def _from_pandas(frame: Any, notes: list[str]) -> pa.Table:
    import pyarrow as pa

    if type(frame.columns).__name__ == "MultiIndex":
        raise DataError("the frame has columns on several levels; join their names into one")
    if type(frame.index).__name__ != "RangeIndex":
        notes.append("the index of the frame is left out; reset_index() makes it a column")
    _rows_and_names("the frame", True, [str(name) for name in frame.columns])
    arrays = [_array(str(name), partial(pa.Array.from_pandas, frame[name])) for name in frame.columns]
    return pa.table(arrays, [str(name) for name in frame.columns])


def _from_columns(columns: Mapping[Any, Any]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    arrays = []
    for name, cells in columns.items():
        if getattr(cells, "ndim", 1) != 1:
            raise DataError(f"column {str(name)!r} has {cells.ndim} dimensions; a column has one")
        listed = cells if hasattr(cells, "__arrow_array__") or isinstance(cells, np.ndarray) else list(cells)
        arrays.append(_array(str(name), partial(pa.array, listed, from_pandas=True)))
    lengths = {str(name): len(array) for name, array in zip(columns, arrays)}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"columns are not equally long: {', '.join(f'{n} {rows}' for n, rows in lengths.items())}"[:300]
        )
    return pa.table(arrays, list(lengths))


def _array(name: str, make: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"column {name!r} mixes kinds of values: {first_line(error)[:150]}; make them one kind"
        ) from None


# ---- the way back --------------------------------------------------------------------------------------------------


def check_table_output(path: Path, rows: int = 0, columns: int = 0) -> None:
    """Raises DataError when so many rows cannot be written to `path`: it exists, is of no known kind, or holds no more than fewer."""
    if path.exists() or path.is_symlink():
        raise DataError(f"--out {path} exists already; choose another")
    if path.suffix.lower() not in OUTPUTS:
        raise DataError(f"--out {path}: rows go to {', '.join(OUTPUTS)}")
    if path.suffix.lower() == ".xlsx":
        check_sheet(rows, columns)


def write_table(path: str | Path, table: pa.Table, form: Form | None = None) -> Path:
    """Writes rows to a file of the kind its suffix says, a .csv or .tsv as `form` says; it appears whole or not at all.

    Raises DataError for a path that exists, a suffix that is unknown, and cells that the kind of file cannot hold.
    """
    check_table_output(Path(path), len(table), table.num_columns)
    return write_rows(path, table.schema, partial(_batches, table), form)


def write_rows(path: str | Path, schema: pa.Schema, batches: Batches, form: Form | None = None) -> Path:
    """As `write_table`, of rows that come batch by batch, of which only a few are held. They are read once, or twice where
    `read_twice`."""
    path = Path(path)
    check_table_output(path, 0, len(schema))
    with writing(path), draft(path) as hidden:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(hidden, path.suffix.lower(), schema, batches, form)
        with hidden.open("r+b") as file:
            os.fsync(file.fileno())
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says while `path` is written into DataError, one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def read_again(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path) -> Iterator[Batches]:
    """Rows that come once, to be read again and again: they lie in a nameless file in `folder` meanwhile."""
    import pyarrow as pa

    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

        def read() -> Iterator[pa.RecordBatch]:
            file.seek(0)
            yield from pa.ipc.open_stream(file)

        yield read


def read_twice(suffix: str, schema: pa.Schema, form: Form | None) -> bool:
    """Whether `write_rows` reads rows twice for a file of that suffix: all of them decide how, or whether, the first can be written."""
    return suffix == ".xlsx" or (suffix in DELIMITED and looked_at_first(schema, form_for(suffix, form)))


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return iter(table.to_batches(ROWS))


def _write(hidden: Path, suffix: str, schema: pa.Schema, batches: Batches, form: Form | None) -> None:
    if suffix in DELIMITED:
        write_delimited(hidden, schema, batches, form_for(suffix, form))
    elif suffix == ".xlsx":
        write_spreadsheet(hidden, schema, batches, form.sheet if form else None)
    elif suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetWriter(hidden, schema) as file:
            for group in _groups(batches(), schema):
                file.write_table(group)
    else:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        with pa.ipc.new_file(str(hidden), schema, options=options) as writer:
            for batch in _growing(batches()):
                writer.write_batch(batch)


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows that are written together."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes + _OVERHEAD * batch.num_columns
        if rows >= _GROUP or size >= _HELD:
            yield pa.Table.from_batches(held, schema)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema)


def _growing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows whose dictionaries begin with those of the rows before: an Arrow file can hold no others. Raises DataError for one that
    grows without end."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known: dict[int, pa.Array] = {}
    for batch in batches:
        columns: list[Any] = batch.columns
        for at, column in enumerate(columns):
            if not pa.types.is_dictionary(column.type):
                continue
            own, before = column.dictionary, known.get(at, column.dictionary)
            if not own.equals(before):
                both = pa.concat_arrays([before, own.filter(pc.invert(pc.is_in(own, before)))])
                if both.nbytes > _HELD:
                    name = batch.schema.names[at]
                    raise DataError(
                        f"column {name!r} has too many different values for an Arrow file; write a .parquet"
                    )
                places = pc.index_in(own, both).cast(column.type.index_type)
                columns[at] = pa.DictionaryArray.from_arrays(
                    places.take(column.indices), both, ordered=column.type.ordered
                )
            known[at] = columns[at].dictionary
        yield pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def form_for(suffix: str, form: Form | None) -> Form:
    """How a .csv or .tsv is written: as the source was, if that is what it was, but for the delimiter of the other one."""
    kind = suffix.removeprefix(".")
    if form is None or form.kind not in ("csv", "tsv"):
        return Form(kind, delimiter="\t" if kind == "tsv" else ",")
    if form.kind == kind:
        return form
    return replace(form, kind=kind, quote=form.quote or '"', delimiter="\t" if kind == "tsv" else ",")


def as_frame(table: pa.Table, form: Form) -> Any:
    """Rows as what the source in memory was: a pandas or polars frame with its dtypes, a pa.Table, arrays by name, a list of rows.

    Of any other source, a pandas frame.
    """
    if form.frame == "arrow":
        return table
    if form.frame == "rows":
        return table.to_pylist()
    if form.frame == "polars":
        import polars

        return polars.from_arrow(table)
    frame = table.to_pandas()
    if form.frame == "dict":
        return {name: frame[name].to_numpy() for name in frame.columns}
    wanted = {name: kind for name, kind in form.dtypes if name in frame.columns and kind not in ("object", "category")}
    return frame.astype({name: kind for name, kind in wanted.items() if str(frame[name].dtype) != kind})
