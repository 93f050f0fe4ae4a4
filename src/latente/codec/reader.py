"""Reads a .latente file (`latente.codec.layout`), and says what of it is damaged."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from latente.codec import layout
from latente.codec.layout import Damaged


class _Table(NamedTuple):
    """Where the chunks are; `offsets` and `firsts` have one entry more than there are chunks."""

    offsets: list[int]
    lengths: list[int]
    firsts: list[int]
    damages: tuple[Damaged, ...] = ()
    """the index, and what is missing without it"""


class Reader:
    """Opens a .latente file, given as a path or as bytes; parts and chunks are read, and checked, when they are asked for.

    Raises ValueError for what is no such file or is of a newer version, Damaged when the header is damaged: without it nothing
    can be read. Threads may share a reader.

    name    the file, as messages call it
    header  what the writer was given
    parts   names of the parts
    """

    def __init__(self, source: str | Path | bytes | io.BytesIO) -> None:
        self.name = "the file" if isinstance(source, bytes | io.BytesIO) else str(source)
        self._lock = Lock()
        self._file = _opened(source)
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            self.header, blobs, self._key, end = self._read_head()
        except BaseException:
            self.close()
            raise
        self._parts: dict[str, tuple[int, int, bytes]] = {}
        for name, size, check in blobs:
            self._parts[name] = (end, size, check)
            end += size
        self._start = end  # of the first frame
        self.parts = tuple(self._parts)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        """Chunks, as the index says; without it, as many as were found."""
        return len(self._table.lengths)

    @property
    def items(self) -> int:
        """Items of all these chunks."""
        return self._table.firsts[-1]

    def part(self, name: str) -> bytes:
        """A part of the whole file. Raises Damaged when it is damaged, ValueError when there is none of that name."""
        if name not in self._parts:
            raise ValueError(f"{self.name} has no part {name!r:.40}")
        offset, size, check = self._parts[name]
        content = self._read(offset, size, name)
        if layout.check(b"part", content) != check:
            raise self._damaged(name, "checksum")
        return content

    def chunk(self, number: int) -> bytes:
        """The payload of a chunk. Raises Damaged when this one is damaged or missing, IndexError when there never was one."""
        if not 0 <= number < len(self):
            raise self._absent(f"chunk {number}")
        table, items = self._table, len(self.items_of(number))
        return self._payload(table.offsets[number], table.lengths[number], number, table.firsts[number], items)

    def end_of(self, number: int, size: int) -> bytes:
        """The last bytes of a chunk's payload, not checked, for a guess at what it holds. Raises Damaged where they are missing."""
        lead = len(layout.lead(self._table.lengths[number], len(self.items_of(number)))) + layout.CHECK
        size = min(size, self._table.lengths[number])
        return self._read(
            self._table.offsets[number] + lead + self._table.lengths[number] - size, size, f"chunk {number}"
        )

    def items_of(self, number: int) -> range:
        """Which items a chunk holds, counted through the whole file."""
        if not 0 <= number < len(self):
            raise self._absent(f"chunk {number}")
        return range(*self._table.firsts[number : number + 2])

    def chunk_of(self, item: int) -> int:
        """Which chunk holds an item."""
        if not 0 <= item < self.items:
            raise self._absent(f"item {item}")
        return bisect_right(self._table.firsts, item) - 1

    def incomplete(self) -> list[Damaged]:
        """What is wrong with the index, and what is missing because of that. Reads no chunk of a file whose index is sound."""
        return list(self._table.damages)

    def damages(self) -> list[Damaged]:
        """Reads and checks everything; one entry for each part, the index and each chunk that is damaged."""
        found = []
        for read, key in [*((self.part, name) for name in self.parts), *((self.chunk, i) for i in range(len(self)))]:
            try:
                read(key)
            except Damaged as error:
                found.append(error)
        return found + self.incomplete()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read_head(self) -> tuple[dict[str, Any], list[tuple[str, int, bytes]], bytes, int]:
        """The header; the parts' names, sizes and checks; the head's own check; where it ends."""
        start = self._read(0, min(self._size, layout.START.size), "header")
        if start[:4] != layout.MAGIC[:4]:
            raise ValueError(f"{self.name}: not a latente file{'' if start else ' (it is empty)'}")
        if len(start) < layout.START.size or start[:8] != layout.MAGIC:
            raise self._damaged("header", "cut off, or changed as if it were text")
        _, version, length, check = layout.START.unpack(start)
        if version > layout.VERSION or version == 1:
            age = "a newer latente" if version > 1 else "an older latente"
            said = f"{self.name} is of format {version}, from {age}; this one reads {layout.VERSION}"
            raise ValueError(said + (": upgrade" if version > 1 else ""))
        if length > layout.MOST_HEAD:
            raise self._damaged("header", "too long")
        head = self._read(layout.START.size, length, "header")
        if version != layout.VERSION or layout.check(b"head", start[8:14], head) != check:
            raise self._damaged("header", "checksum")
        try:
            header, blobs = layout.unpacked_head(head)
        except (ValueError, TypeError, RecursionError):
            raise self._damaged("header", "not what a writer writes") from None
        return header, blobs, check, layout.START.size + length

    @cached_property
    def _table(self) -> _Table:
        try:
            return self._indexed()
        except Damaged:
            return self._scanned("cannot be read")
        except ValueError as error:
            return self._scanned(str(error))

    def _indexed(self) -> _Table:
        """The table as the index says. Raises ValueError when that cannot be trusted."""
        end = self._size - layout.FOOTER.size
        if end < self._start:
            raise ValueError("cut off")
        length, check, magic = layout.FOOTER.unpack(self._read(end, layout.FOOTER.size, "index"))
        most = min(layout.MOST_CHUNKS, (end - self._start) // layout.LEAST)
        if magic != layout.END or not 1 <= length <= min(end - self._start, layout.MOST_INDEX):
            raise ValueError("cut off, or its end is not one")
        index = self._read(end - length, length, "index")
        if index[0] != 0 or layout.check(b"index", index, key=self._key) != check:
            raise ValueError("checksum")
        content, _ = layout.inflated(index[1:], 10 * most)
        numbers = list(layout.varints(content))
        lengths, counts = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        sizes = (len(layout.lead(*pair)) + layout.CHECK + pair[0] for pair in zip(lengths, counts))
        table = _Table([*accumulate(sizes, initial=self._start)], lengths, [*accumulate(counts, initial=0)])
        if len(numbers) % 2 or len(lengths) > most or table.offsets[-1] != end - length:
            raise ValueError("it does not fit the file")
        declared = layout.declared(self.header)
        if declared not in (None, table.firsts[-1]):
            wrong = Damaged(f"{self.name}: index and header differ: {table.firsts[-1]:,}, {declared:,} items", "index")
            return table._replace(damages=(wrong,))
        return table

    def _scanned(self, why: str) -> _Table:
        """The table as the frames say. A damaged one is passed over when one after it is sound, in its place and number."""
        table, sound = _Table([self._start], [], [0]), 0
        while len(table.lengths) < layout.MOST_CHUNKS:
            number, offset, first = len(table.lengths), table.offsets[-1], table.firsts[-1]
            lead = self._lead_at(offset)
            if lead is None:
                break
            length, items, end = lead
            table.lengths.append(length)
            table.offsets.append(end)
            table.firsts.append(first + items)
            try:
                self._payload(offset, length, number, first, items)
                sound = number + 1
            except Damaged:
                pass
        for column, size in zip(table[:3], (sound + 1, sound, sound + 1)):
            del column[size:]
        declared = layout.declared(self.header)
        found = f"{sound:,} chunks with {table.firsts[-1]:,}{'' if declared is None else f' of {declared:,}'} items"
        damages = [Damaged(f"{self.name}: index is damaged ({why}); {found} were found without it", "index")]
        if self._cut_at(table.offsets[-1]) if declared is None else declared > table.firsts[-1]:
            say = f"{self.name}: chunk {sound} and any after it are damaged or missing; the chunks before can be read"
            damages.append(Damaged(say, f"chunk {sound}"))
        return table._replace(damages=tuple(damages))

    def _cut_at(self, offset: int) -> bool:
        """Whether chunks may be missing here: neither does an index begin, nor does the footer say that one does."""
        begins = offset < self._size and self._read(offset, 1, "index") == b"\0"
        end = self._size - layout.FOOTER.size
        said = end >= offset and offset + layout.FOOTER.unpack(self._read(end, layout.FOOTER.size, "index"))[0] == end
        return not (begins or said)

    def _lead_at(self, offset: int) -> tuple[int, int, int] | None:
        """Bytes, items and end of the frame at `offset`, as it says; None where there is none."""
        try:
            numbers = layout.varints(self._read(offset, layout.LEAST, "index"))
            length, items = next(numbers) - 1, next(numbers)
        except (ValueError, StopIteration):
            return None
        return None if length < 0 else (length, items, offset + len(layout.lead(length, items)) + layout.CHECK + length)

    def _payload(self, offset: int, length: int, number: int, first: int, items: int) -> bytes:
        part, lead = f"chunk {number}", layout.lead(length, items)
        frame = self._read(offset, len(lead) + layout.CHECK + length, part)
        payload = frame[len(lead) + layout.CHECK :]
        if frame[: len(lead) + layout.CHECK] != lead + layout.chunk_check(self._key, number, first, lead, payload):
            raise self._damaged(part, "checksum")
        return payload

    def _read(self, offset: int, length: int, part: str) -> bytes:
        if offset + length > self._size:
            raise self._damaged(part, "cut off")
        try:
            with self._lock:
                self._file.seek(offset)
                content = self._file.read(length)
        except OSError as error:
            raise self._damaged(part, error.strerror or "cannot be read") from None
        if len(content) < length:
            raise self._damaged(part, "cut off")
        return content

    def _damaged(self, part: str, why: str) -> Damaged:
        rest = "the other chunks can be read" if part.startswith("chunk ") else "get the file again from where it came"
        return Damaged(f"{self.name}: {part} is damaged ({why}); {rest}", part)

    def _absent(self, what: str) -> Exception:
        """For a chunk or an item beyond the last: missing, or never there."""
        missing = [damage for damage in self.incomplete() if damage.part != "index"]
        return missing[0] if missing else IndexError(f"{self.name} has no {what}")


def _opened(source: str | Path | bytes | io.BytesIO) -> io.BufferedIOBase:
    if isinstance(source, bytes | io.BytesIO):
        return io.BytesIO(source if isinstance(source, bytes) else source.getvalue())
    path = Path(source)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path} is not a file" if path.exists() else f"no file at {path}")
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
