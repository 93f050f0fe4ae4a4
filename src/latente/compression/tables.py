"""Rows in and out of a .latente file, through an exact network.

    a chunk of rows --columns--> tokens --what the network expects--> range coder
                                 place in its bin --all alike--> range coder       > payload
                                 cells that no token stands for, columns that are not learned --LZMA-->

Every cell comes back as it was, in the order of the source: of a CSV what is written, of other files values of their types.
They are written out chunk by chunk too. n rows, F fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from latente.codec import exact, packing, walks
from latente.codec.coding import Decoder, Encoder, even_bits
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import cells, chunks, headers
from latente.compression.chunks import Chunk
from latente.compression.coders import REMEMBERED, at_once
from latente.config import from_json
from latente.data import hub, named
from latente.data.columns import Column, Columns, same, type_name, whole
from latente.data.delimited import comes_back
from latente.data.errors import DataError
from latente.data.files import located
from latente.data.forms import Batches
from latente.data.table_sources import (
    DELIMITED,
    Table,
    check_table_output,
    read_again,
    read_twice,
    write_rows,
    writing,
)
from latente.evaluation.findings import Say
from latente.run import Run, TableRun, built

TRIED = (4, 5, 6, 8)  # bits of a weight
TRIAL = 2_000  # rows that decide how many
SIZE = 4  # bytes that say how many a chunk's cells are
SPARE = 1 << 22  # bytes, for what columns of few rows take beside their cells


class Rows:
    """Codes rows of some columns by a network of whole numbers."""

    def __init__(self, net: Any, columns: Columns) -> None:
        self.net, self.columns = net, columns

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the tables that come back. Raises ValueError where the columns are of no types."""
        return self.unpacked(b"", 0).schema

    @cached_property
    def _lengths(self) -> list[np.ndarray]:
        """Of each learned column the bytes of its levels (levels + 1,), of none at the end."""
        texts = ((*column.levels, "") for column in self.columns.learned)
        return [np.array([len(text.encode()) for text in levels]) for levels in texts]

    def code(self, tables: Sequence[pa.Table]) -> tuple[list[bytes], list[float]]:
        """Chunks of these rows, and the bytes that each is expected to take."""
        coders, counts = [Encoder() for _ in tables], [len(table) for table in tables]
        encoded = [self.columns.encode(table) for table in tables]
        tokens = np.concatenate([part for part, _, _ in encoded])
        order = self.net.order({})
        bits = walks.encoded(self._walk, lambda rows: tokens[rows].T[order], coders, counts)
        sums = [float(part.sum()) for part in np.split(bits, np.cumsum(counts)[:-1])]
        found, expected = [], []
        for coder, table, (own, rest, _), bits_ in zip(coders, tables, encoded, sums):
            for _, place, wide in self._places(own, rest):
                coder.even(place, wide)
                bits_ += float(even_bits(wide).sum())
            code, side = coder.finish(), chunks.squeezed(self._side(table, own, rest))
            found.append(len(code).to_bytes(4, "little") + code + side)
            expected.append(bits_ / 8 + len(side))
        return found, expected

    def tables(self, contents: Sequence[bytes], counts: Sequence[int], sizes: Sequence[int]) -> list[pa.Table]:
        """The rows of chunks of so many each, of so many bytes. Raises ValueError for what `code` did not make."""
        ends = [4 + int.from_bytes(content[:4], "little") for content in contents]
        coders = [Decoder(content[4:end]) for content, end in zip(contents, ends)]
        tokens = np.split(walks.decoded(self._walk, coders, counts).numpy(), np.cumsum(counts)[:-1])
        found = []
        for coder, content, end, own, size in zip(coders, contents, ends, tokens, sizes):
            rest = np.zeros((len(own), len(self.columns.learned)), np.int64)
            for column, place, wide in self._places(own, rest):
                place[:] = coder.even(wide)
                rest[:, column] = place.view(np.int64)
            side = memoryview(chunks.unsqueezed(content[end:], _room(size)))
            found.append(self._joined(own, rest, side, _room(size)))
        return found

    def _walk(self, rows: slice) -> Any:
        return self.net.walk(rows.stop - rows.start)

    def _places(self, tokens: np.ndarray, rest: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each column of numbers or times: its place among those learned, rest (n,) uint64, and the most it can be (n,) uint64."""
        for at, (column, own) in enumerate(self.columns.each(tokens)):
            if column.ordered and column.bins:
                yield at, rest[:, at].astype(np.uint64), column.widths(own)

    def _side(self, table: pa.Table, tokens: np.ndarray, rest: np.ndarray) -> bytes:
        """What tokens and rest leave out."""
        parts = []
        for at, (column, own) in enumerate(self.columns.each(tokens)):
            array = whole(table[column.name])
            odd = np.flatnonzero(~same(array, column.decode(own, rest[:, at])))
            parts += [np.array([len(odd), *np.diff(odd, prepend=0)], "<u4").tobytes(), cells.packed(array.take(odd))]
        return b"".join([*parts, *(cells.packed(whole(table[column.name])) for column in _apart(self.columns))])

    def _joined(self, tokens: np.ndarray, rest: np.ndarray, side: memoryview, room: int) -> pa.Table:
        made, held = {}, 0
        for at, (column, own) in enumerate(self.columns.each(tokens)):
            count = int.from_bytes(side[:4], "little")
            if count > len(own):
                raise ValueError("more cells apart than there are")
            odd = np.cumsum(np.frombuffer(side[4 : 4 + 4 * count], "<u4"), dtype=np.int64)
            apart, side = cells.unpacked(side[4 + 4 * count :], count, column.type)
            if not column.ordered and self._lengths[at][column.level_ranks(own)].sum() > room:
                raise ValueError("more bytes than it can hold")
            array = column.decode(own, rest[:, at]).cast(self.schema.field(column.name).type)
            if count:
                place = np.arange(len(own))
                place[odd] = len(own) + np.arange(count)
                array = pa.concat_arrays([_plain(array), _plain(apart)]).take(pa.array(place))
                array = array.dictionary_encode() if column.type.startswith("dictionary") else array
            made[column.name], held = array, held + array.nbytes
            if held > room:
                raise ValueError("more bytes than it can hold")
        for column in _apart(self.columns):
            made[column.name], side = cells.unpacked(side, len(tokens), column.type)
        return pa.table({column.name: made[column.name] for column in self.columns.columns})

    def packed(self, table: pa.Table) -> bytes:
        """All cells of rows as bytes."""
        return b"".join(cells.packed(whole(table[column.name])) for column in self.columns.columns)

    def unpacked(self, content: bytes, count: int) -> pa.Table:
        """The inverse of `packed`. Raises ValueError for other bytes."""
        made, rest = {}, memoryview(content)
        for column in self.columns.columns:
            made[column.name], rest = cells.unpacked(rest, count, column.type)
        if rest:
            raise ValueError("more cells than there should be")
        return pa.table(made)


def _apart(columns: Columns) -> list[Column]:
    """The columns that no token stands for."""
    return [column for column in columns.columns if not column.sizes]


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


class TableJob:
    """Rows on their way into a file."""

    psnr, bound = None, ""

    def __init__(self, run: TableRun, source: Any, external_model: bool, say: Say) -> None:
        table = _given(run, source)
        path = _path(source)
        self.raw = path.stat().st_size if path is not None else 0
        self.notes, self._table, self._run, self._path = [*table.notes], table, run, path
        columns = replace(run.columns, form=table.form)
        items, some = _counted(table)
        kept = columns.to_json().encode()
        headers.columns(kept)  # what cannot be read is not written
        say("finding out how many bits a weight is worth")
        bits = TRIED[-1]
        if not external_model:
            bits = chunks.bits_worth(TRIED, lambda bits: self._worth(bits, some, items))
        net = exact.exact(run.model, bits)
        self.header = {
            "codec": "rows", "model": run.family.name,
            "config": asdict(from_json(run.family.Config, run.record["config"])), "spec": asdict(run.spec), "items": items,
            "size": max(1, min(headers.TABLE, REMEMBERED // run.model.remembered)), "bits": bits,
            "weights": packing.digest(net), "columns": chunks.digest(kept),
        }  # fmt: skip
        self.parts = {"columns": chunks.squeezed(kept)}
        if not external_model:
            self.parts["model"] = packing.pack(net)
            net = network(headers.exactly(headers.Tables, self.header, "header"), self.parts["model"])
        self._rows = Rows(net, columns)
        if table.form.kind in ("csv", "tsv") and path is not None and not comes_back(path, table):
            self.notes.append("every cell comes back, but some lines were quoted, padded or ended otherwise")

    def _worth(self, bits: int, some: pa.Table, items: int) -> float:
        """Bytes of a file with weights of so many bits."""
        net = exact.exact(self._run.model, bits)
        expected = Rows(net, self._run.columns).code([some])[1][0] / len(some) * items if items else 0
        return len(packing.pack(net)) + expected

    def settle(self, size: int) -> None:
        """As `Job.settle`: every size will do."""

    def chunks(self, say: Say) -> Iterator[Chunk]:
        """As `Job.chunks`."""
        done, size = 0, self.header["size"]
        for group in _grouped(self._parts(_chunks(self._table, size)), at_once(self._rows.net, size)):
            say(f"coding, {done:,} of {self.header['items']:,} rows done")
            tables, contents = map(list, zip(*group))
            counts = [len(table) for table in tables]
            coded, expected = self._rows.code(tables)
            payloads = [_kept(content, code) for content, code in zip(contents, coded)]
            for payload, content, count, each in zip(payloads, contents, counts, expected):
                self.raw += len(content) if self._path is None else 0
                yield Chunk(payload, count, each, chunks.digest(content))
            done += sum(counts)

    def matches(self, content: PackedTables) -> bool:
        """As `Job.matches`."""
        return content.rows.columns.to_json() == self._rows.columns.to_json()

    def _parts(self, tables: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, bytes]]:
        """Tables whose cells are few enough for a chunk, and those cells as bytes."""
        for table in tables:
            content = self._rows.packed(table)
            if len(content) <= headers.ROWS:
                yield table, content
            elif len(table) == 1:
                raise ValueError(f"a row of more than {headers.ROWS:,} bytes cannot be kept")
            else:
                half = len(table) // 2
                yield from self._parts(iter((table.slice(0, half), table.slice(half))))


class PackedTables:
    """Rows in a file."""

    notes: tuple[str, ...] = ()

    def __init__(self, reader: Reader, held: headers.Tables, run: Run | None) -> None:
        self.reader, self.held = reader, held
        kept = chunks.unsqueezed(reader.part("columns"), headers.DESCRIBED)
        columns = headers.columns(kept)
        if chunks.digest(kept) != held.columns or columns.spec(held.spec.target) != held.spec:
            raise ValueError("these are not the columns it was made with")
        if "model" in reader.parts:
            net = network(held, reader.part("model"))
        else:
            net = exact.exact(chunks.made_with(run, TableRun, held).model, held.bits)
        if packing.digest(net) != held.weights:
            raise ValueError("these are not the weights it was made with")
        self.rows = Rows(net, columns)
        self.schema = self.rows.schema

    @cached_property
    def together(self) -> int:
        """As `Content.together`: fewer where they hold much, or say so."""
        most = 3 * headers.ROWS // _room(max(map(self._said, range(len(self.reader))), default=0))
        return max(1, min(most, at_once(self.rows.net, self.held.size)))

    def _said(self, number: int) -> int:
        """The bytes that a chunk says it holds; 0 where that cannot be so."""
        try:
            size = int.from_bytes(self.reader.end_of(number, SIZE), "little")
        except Damaged:
            return 0
        return size if size <= headers.ROWS else 0

    def decode(self, numbers: Sequence[int]) -> list[pa.Table]:
        """The rows of some chunks. Raises Damaged."""

        def decode(payloads: Sequence[bytes], items: Sequence[range]) -> list[pa.Table]:
            return _tables(self.rows, payloads, [len(of) for of in items])

        return chunks.decoded(self.reader, numbers, self.held.size, decode)

    def plain(self, numbers: Sequence[int]) -> list[bytes]:
        """As `Content.plain`."""
        return [self.rows.packed(table) for table in self.decode(numbers)]

    def item(self, chunk: pa.Table, at: int) -> dict[str, Any]:
        """A row by the names of its columns."""
        return chunk.slice(at, 1).to_pylist()[0]

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """A .csv or .tsv as the source was written, or a file of typed rows."""
        columns, suffix = self.rows.columns, out.suffix.lower()
        parsed = suffix not in DELIMITED and any(column.parsed for column in columns.columns)
        check_table_output(out, self.reader.items, len(columns.columns))
        once = self._batches(lost, say)
        with writing(out), ExitStack() as opened:
            out.parent.mkdir(parents=True, exist_ok=True)
            batches: Batches = partial(iter, once)
            if parsed or read_twice(suffix, self.schema, columns.form):
                batches = opened.enter_context(read_again(once, self.schema, out.parent))
            if not parsed:
                return write_rows(out, self.schema, batches, columns.form)
            odd = _odd(columns, batches())
            schema = _typed(self.schema.empty_table(), columns, odd).schema
            return write_rows(out, schema, lambda: (_typed(rows, columns, odd) for rows in batches()), columns.form)

    def _batches(self, lost: list[Damaged] | None, say: Say) -> Iterator[pa.RecordBatch]:
        """All rows, once."""
        for _, part in chunks.each(len(self.reader), self.together, self.decode, lost, say):
            yield from part.to_batches()


def _odd(columns: Columns, batches: Iterator[pa.RecordBatch]) -> set[str]:
    """The columns of which some cell is none of the numbers, times or truth values that the others are."""
    found: set[str] = set()
    for batch in batches:
        found |= {column.name for column in columns.columns if column.odd(batch[column.name])}
    return found


def _typed(rows: pa.RecordBatch | pa.Table, columns: Columns, odd: set[str]) -> pa.RecordBatch:
    """What is written in columns that are not `odd` as numbers, times and truth values."""
    made = {}
    for column in columns.columns:
        part = whole(rows[column.name])
        made[column.name] = part if column.name in odd else column.values(part)
    return pa.record_batch(made)


def network(held: headers.Tables, packed: bytes) -> Any:
    """The exact network of `packed` weights. Raises ValueError where they are not of such a model, before anything large is made."""
    family = headers.family(held.model, "walk")
    config = headers.config(family.Config, held.config)
    with torch.device("meta"):  # shapes alone
        shapes = built(family, config, held.spec, 0)
    weights = sum(p.numel() for p in shapes.parameters())
    if weights > headers.WEIGHTS[0] * len(packed) + headers.WEIGHTS[1]:
        raise ValueError(f"{len(packed):,} bytes are no {weights:,} weights")
    if held.size * shapes.remembered > REMEMBERED:
        raise ValueError(f"its chunks of {held.size:,} rows take more memory to decode than any it may have")
    net = exact.exact(built(family, config, held.spec, 0), held.bits)
    packing.unpack(packed, net)
    return net


def _grouped(parts: Iterator[tuple[pa.Table, bytes]], count: int) -> Iterator[list[tuple[pa.Table, bytes]]]:
    while group := [*islice(parts, count)]:
        yield group


def _kept(content: bytes, coded: bytes) -> bytes:
    """As `chunks.kept`, with the size of the content at its end."""
    return chunks.kept(content, coded) + len(content).to_bytes(SIZE, "little")


def _size(payload: bytes) -> int:
    """Bytes of the content of what `_kept` made. Raises ValueError for what it did not."""
    size = int.from_bytes(payload[-SIZE:], "little")
    if size > headers.ROWS or len(payload) < chunks.HEAD + SIZE:
        raise ValueError("more bytes than it can hold")
    return size


def _room(size: int) -> int:
    """Bytes that the cells of a chunk of so many may take, a few of them with their place beside them."""
    return 3 * size + SPARE


def _tables(rows: Rows, payloads: Sequence[bytes], counts: Sequence[int]) -> list[pa.Table]:
    """The rows of chunks of so many each. Raises ValueError for payloads that hold others."""
    sizes = [*map(_size, payloads)]
    if any(size < cells.LEAST * count * len(rows.columns.columns) for size, count in zip(sizes, counts)):
        raise ValueError("fewer bytes than so many cells take")
    opened = [chunks.opened(payload[:-SIZE], size) for payload, size in zip(payloads, sizes)]
    own = [number for number, (_, modelled) in enumerate(opened) if modelled]
    picked = [opened[i][0] for i in own], [counts[i] for i in own], [sizes[i] for i in own]
    found = dict(zip(own, rows.tables(*picked))) if own else {}
    made = []
    for number, (payload, size, count) in enumerate(zip(payloads, sizes, counts)):
        table = found.get(number)
        content = opened[number][0] if table is None else rows.packed(table)
        chunks.checked(payload, content, size)
        made.append(rows.unpacked(content, count) if table is None else table)
    return made


# ---- what is given --------------------------------------------------------------------------------------------------


def _given(run: TableRun, source: Any) -> Table:
    """Raises ValueError for what does not fit the run."""
    table, columns = run.sniffed(source, empty=True), run.columns.columns
    if tuple(table.schema.names) != tuple(column.name for column in columns):
        raise DataError(
            f"{table.name} has other columns than this run: {', '.join(table.schema.names[:20])}; "
            f"not {', '.join(column.name for column in columns[:20])}"
        )
    empty = not any(batch.num_rows for batch in table.batches())
    for column in columns:
        kind = type_name(table.schema.field(column.name).type)
        if kind != column.type and not empty:  # where nothing stands, nothing says what it is
            raise DataError(f"{table.name}: column {column.name!r} is {kind}; the run was trained on {column.type}")
    return table


def _path(source: Any) -> Path | None:
    """The file of a source, where it is one."""
    if not isinstance(source, str | Path) or str(source).startswith(hub.PREFIX):
        return None
    if str(source) in named.NAMES["table"]:
        return named.adult() if str(source) == "adult" else None
    return located(source)


def _counted(table: Table) -> tuple[int, pa.Table]:
    """How many rows there are, and some of them."""
    rows, some, held = 0, [], 0
    for batch in table.batches():
        rows += batch.num_rows
        if held < TRIAL:
            some.append(batch.slice(0, TRIAL - held))
            held += some[-1].num_rows
    return rows, pa.Table.from_batches(some, table.schema)


def _chunks(table: Table, size: int) -> Iterator[pa.Table]:
    """All rows, so many at a time."""
    held: list[pa.Table] = []
    for batch in table.batches():
        held.append(pa.Table.from_batches([batch]))
        while sum(map(len, held)) >= size:
            both = pa.concat_tables(held)
            yield both.slice(0, size)
            held = [both.slice(size)] if len(both) > size else []
    if sum(map(len, held)):
        yield pa.concat_tables(held)
