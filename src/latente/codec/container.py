r"""A .latente file: a data set in chunks that are decoded one by one. What the chunks mean is not known here: bytes.

    start    magic \xabLAT\r\n\x1a\n (8)  version u16  length of the head u32  check (8)
    head     deflated JSON [header, [[part, bytes], ...]], then the check (8) of each part
    parts    one after another, bare
    frames   bytes + 1 (varint)  items (varint)  check (8)  payload                       one a chunk
    index    \0  deflated varints: bytes of every chunk, then items of every chunk
    footer   length of the index u32  check (8)  magic \xabEND (4)

Integers are little-endian, a varint has 7 bits a byte; deflated is RFC 1951 without a wrapper. A check is BLAKE2b of 8 bytes.
Those of frames and index are keyed by the head's check, which covers the parts' checks; that of a frame covers its number and
the number of its first item too: a chunk that was moved, or that belongs to another model, is as damaged as one with a changed
bit. A frame is found through the index; where that is damaged or cut off, from the front, each frame saying where the next
begins. So one damage after the head costs one chunk, one part, or only the index. Checks find accidents, not forgers.

A file from a stranger is read as plain values: every length is held against the file's size before anything is allocated.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

MAGIC = b"\xabLAT\r\n\x1a\n"  # not text; changed by whatever converts line ends or clears the eighth bit
VERSION = 1

_START = struct.Struct("<8sHI8s")
_FOOTER = struct.Struct("<I8s4s")
_PLACE = struct.Struct("<QQ")  # of a chunk: its number, that of its first item
_END = b"\xabEND"
_CHECK = 8
_LEAST = _CHECK + 2  # bytes of a frame; its two varints are no longer than this
_MOST_HEAD = 1 << 20  # bytes of the head, deflated and not
_MOST_DEPTH = 32  # of lists and dicts within each other in the header
_MOST_CHUNKS = 1 << 20
_MOST_INDEX = 11 << 20  # bytes, deflated: two varints a chunk, and what deflating them may add
_MOST = (1 << 32) - 2  # bytes of a chunk, items of a chunk


class Damaged(ValueError):
    """Something in the file is not as it was written; `part` is "header", "index", "chunk 3" or the name of a part."""

    def __init__(self, message: str, part: str = "") -> None:
        super().__init__(message)
        self.part = part


class Writer:
    """Writes a .latente file: `with Writer(path, header, parts) as writer: writer.add(payload, items)`, chunk by chunk.

    The file appears under its name whole, synced, when the body ends; or not at all. `header` is a dict of JSON values; where it
    has "items", that is how many there must be. `parts` are blobs of the whole file, by name. Raises ValueError when the path
    is taken or cannot be written, or the header is no JSON or too long.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any], parts: Mapping[str, bytes] | None = None) -> None:
        self.path = Path(path)
        self._check_free()
        self._header, self._parts = dict(header), dict(parts or {})
        self._head, self._key = _packed_head(self._header, self._parts)
        self._draft = self.path.with_name(f".tmp-{self.path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}")
        self._lengths: list[int] = []
        self._counts: list[int] = []
        self._items = self._size = 0

    def __enter__(self) -> Writer:
        try:
            self._file = self._draft.open("xb")
        except OSError as error:
            raise self._cannot(error) from None
        try:
            for piece in (self._head, *self._parts.values()):
                self._write(piece)
        except BaseException:
            self._discard()
            raise
        return self

    def add(self, payload: bytes, items: int) -> None:
        """Writes the next chunk, which holds the next `items` items."""
        number = len(self._lengths)
        if number == _MOST_CHUNKS:
            raise ValueError(f"{self.path}: more than {_MOST_CHUNKS:,} chunks; make them larger")
        if len(payload) > _MOST or not 0 <= items <= _MOST:
            raise ValueError(f"{self.path}: chunk {number} has {len(payload):,} bytes, {items:,} items; 4 GiB at most")
        lead = _lead(len(payload), items)
        self._write(lead + _chunk_check(self._key, number, self._items, lead, payload))
        self._write(payload)
        self._lengths.append(len(payload))
        self._counts.append(items)
        self._items += items

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as error:
            raise self._cannot(error) from None
        finally:
            self._discard()

    def _finish(self) -> None:
        declared = _declared(self._header)
        if declared not in (None, self._items):
            raise ValueError(f"{self.path}: {self._items:,} items were added, its header says {declared:,}")
        index = b"\0" + _deflated(b"".join(map(_varint, [*self._lengths, *self._counts])))
        self._write(index + _FOOTER.pack(len(index), _check(b"index", index, key=self._key), _END))
        self._file.flush()
        os.fsync(self._file.fileno())
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise ValueError(f"cannot write {self.path}: a write before this one failed")
        self._file.close()
        self._publish()

    def _publish(self) -> None:
        try:
            self.path.hardlink_to(self._draft)  # refuses a taken name, as a rename does not
        except OSError:  # taken, or a file system without hard links
            self._check_free()
            self._draft.rename(self.path)
        if os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                with suppress(OSError):  # some file systems cannot; the file is whole
                    os.fsync(folder)
            finally:
                os.close(folder)

    def _discard(self) -> None:
        with suppress(OSError):  # what is buffered may still find the disk full
            self._file.close()
        self._draft.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise self._cannot(error) from None
        self._size += len(content)

    def _check_free(self) -> None:
        try:
            taken = self.path.exists() or self.path.is_symlink()
        except OSError as error:
            raise self._cannot(error) from None
        if taken:
            raise ValueError(f"{self.path} already exists; choose another --out")

    def _cannot(self, error: OSError) -> ValueError:
        return ValueError(f"cannot write {self.path}: {error.strerror or error}")


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
        if _check(b"part", content) != check:
            raise self._damaged(name, "checksum")
        return content

    def chunk(self, number: int) -> bytes:
        """The payload of a chunk. Raises Damaged when this one is damaged or missing, IndexError when there never was one."""
        if not 0 <= number < len(self):
            raise self._absent(f"chunk {number}")
        table, items = self._table, len(self.items_of(number))
        return self._payload(table.offsets[number], table.lengths[number], number, table.firsts[number], items)

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
        start = self._read(0, min(self._size, _START.size), "header")
        if start[:4] != MAGIC[:4]:
            raise ValueError(f"{self.name}: not a latente file{'' if start else ' (it is empty)'}")
        if len(start) < _START.size or start[:8] != MAGIC:
            raise self._damaged("header", "cut off, or changed as if it were text")
        _, version, length, check = _START.unpack(start)
        if version > VERSION:
            raise ValueError(
                f"{self.name} is of format {version}, from a newer latente; this one reads {VERSION}: upgrade"
            )
        if length > _MOST_HEAD:
            raise self._damaged("header", "too long")
        head = self._read(_START.size, length, "header")
        if version != VERSION or _check(b"head", start[8:14], head) != check:
            raise self._damaged("header", "checksum")
        try:
            header, blobs = _unpacked_head(head)
        except (ValueError, TypeError, RecursionError):
            raise self._damaged("header", "not what a writer writes") from None
        return header, blobs, check, _START.size + length

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
        end = self._size - _FOOTER.size
        if end < self._start:
            raise ValueError("cut off")
        length, check, magic = _FOOTER.unpack(self._read(end, _FOOTER.size, "index"))
        most = min(_MOST_CHUNKS, (end - self._start) // _LEAST)
        if magic != _END or not 1 <= length <= min(end - self._start, _MOST_INDEX):
            raise ValueError("cut off, or its end is not one")
        index = self._read(end - length, length, "index")
        if index[0] != 0 or _check(b"index", index, key=self._key) != check:
            raise ValueError("checksum")
        content, _ = _inflated(index[1:], 10 * most)
        numbers = list(_varints(content))
        lengths, counts = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        sizes = (len(_lead(*pair)) + _CHECK + pair[0] for pair in zip(lengths, counts))
        table = _Table([*accumulate(sizes, initial=self._start)], lengths, [*accumulate(counts, initial=0)])
        if len(numbers) % 2 or len(lengths) > most or table.offsets[-1] != end - length:
            raise ValueError("it does not fit the file")
        declared = _declared(self.header)
        if declared not in (None, table.firsts[-1]):
            wrong = Damaged(f"{self.name}: index and header differ: {table.firsts[-1]:,}, {declared:,} items", "index")
            return table._replace(damages=(wrong,))
        return table

    def _scanned(self, why: str) -> _Table:
        """The table as the frames say. A damaged one is passed over when one after it is sound, in its place and number."""
        table, sound = _Table([self._start], [], [0]), 0
        while len(table.lengths) < _MOST_CHUNKS:
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
        declared = _declared(self.header)
        found = f"{sound:,} chunks with {table.firsts[-1]:,}{'' if declared is None else f' of {declared:,}'} items"
        damages = [Damaged(f"{self.name}: index is damaged ({why}); {found} were found without it", "index")]
        if self._cut_at(table.offsets[-1]) if declared is None else declared > table.firsts[-1]:
            say = f"{self.name}: chunk {sound} and any after it are damaged or missing; the chunks before can be read"
            damages.append(Damaged(say, f"chunk {sound}"))
        return table._replace(damages=tuple(damages))

    def _cut_at(self, offset: int) -> bool:
        """Whether chunks may be missing here: neither does an index begin, nor does the footer say that one does."""
        begins = offset < self._size and self._read(offset, 1, "index") == b"\0"
        end = self._size - _FOOTER.size
        said = end >= offset and offset + _FOOTER.unpack(self._read(end, _FOOTER.size, "index"))[0] == end
        return not (begins or said)

    def _lead_at(self, offset: int) -> tuple[int, int, int] | None:
        """Bytes, items and end of the frame at `offset`, as it says; None where there is none."""
        try:
            numbers = _varints(self._read(offset, _LEAST, "index"))
            length, items = next(numbers) - 1, next(numbers)
        except (ValueError, StopIteration):
            return None
        return None if length < 0 else (length, items, offset + len(_lead(length, items)) + _CHECK + length)

    def _payload(self, offset: int, length: int, number: int, first: int, items: int) -> bytes:
        part, lead = f"chunk {number}", _lead(length, items)
        frame = self._read(offset, len(lead) + _CHECK + length, part)
        payload = frame[len(lead) + _CHECK :]
        if frame[: len(lead) + _CHECK] != lead + _chunk_check(self._key, number, first, lead, payload):
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


# ---- pieces of the file --------------------------------------------------------------------------------------------


def _check(what: bytes, *pieces: bytes, key: bytes = b"") -> bytes:
    digest = blake2b(digest_size=_CHECK, key=key, person=what)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _chunk_check(key: bytes, number: int, first: int, lead: bytes, payload: bytes) -> bytes:
    return _check(b"chunk", _PLACE.pack(number, first), lead, payload, key=key)


def _packed_head(header: dict[str, Any], parts: dict[str, bytes]) -> tuple[bytes, bytes]:
    """Start and head of a file, and the head's check. Raises ValueError for what a reader would refuse."""
    if not _shallow(header):
        raise ValueError(f"the header of a .latente file is more than {_MOST_DEPTH} deep")
    try:
        both = [header, [[name, len(part)] for name, part in parts.items()]]
        text = json.dumps(both, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the header of a .latente file must be JSON: {error}") from None
    content = text.encode("utf-8", "surrogatepass")  # names of files need not be Unicode
    head = _deflated(content) + b"".join(_check(b"part", part) for part in parts.values())
    if max(len(content), len(head)) > _MOST_HEAD:
        raise ValueError(f"the header of a .latente file is {len(content):,} bytes of JSON; {_MOST_HEAD:,} at most")
    _unpacked_head(head)
    rest = struct.pack("<HI", VERSION, len(head))
    check = _check(b"head", rest, head)
    return MAGIC + rest + check + head, check


def _unpacked_head(head: bytes) -> tuple[dict[str, Any], list[tuple[str, int, bytes]]]:
    """The header, and name, size and check of each part. Raises ValueError, TypeError or RecursionError for anything else."""
    content, checks = _inflated(head, _MOST_HEAD)
    header, sizes = json.loads(content.decode("utf-8", "surrogatepass"), parse_constant=_no_number)
    if not isinstance(header, dict) or not _shallow(header):
        raise ValueError(f"the header of a .latente file is a dict, at most {_MOST_DEPTH} deep")
    if (
        not isinstance(sizes, list)
        or len(checks) != _CHECK * len(sizes)
        or len({name for name, _ in sizes}) < len(sizes)
    ):
        raise ValueError("the list of parts is damaged")
    for name, size in sizes:
        if not (isinstance(name, str) and name.isascii() and name.isidentifier()) or name in ("header", "index"):
            raise ValueError(f"a part cannot be called {name!r:.40}: a word of ASCII letters, not header or index")
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise ValueError(f"part {name} has no size")
    return header, [(name, size, checks[_CHECK * i :][:_CHECK]) for i, (name, size) in enumerate(sizes)]


def _declared(header: Mapping[str, Any]) -> int | None:
    """How many items the header says there are, if it does."""
    return header["items"] if type(header.get("items")) is int else None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _shallow(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        held: list[Iterable[Any]] = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple)
        ]
        level = [inner for values in held for inner in values]
    return not level


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def _inflated(content: bytes, most: int) -> tuple[bytes, bytes]:
    """What `content` was deflated from, and what follows it. Raises ValueError when it is damaged, or more than `most` bytes."""
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(plain) > most or not unpacker.eof:
        raise ValueError("cut off, or larger than it may be")
    return plain, unpacker.unused_data


def _lead(length: int, items: int) -> bytes:
    """What a frame begins with: never a zero byte, for that begins the index."""
    return _varint(length + 1) + _varint(items)


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    content.append(number)
    return bytes(content)


def _varints(content: bytes) -> Iterator[int]:
    """The numbers below 2**32 that `content` is made of. Raises ValueError for a larger one, or one that is cut off."""
    number = shift = 0
    for byte in content:
        number |= (byte & 127) << shift
        shift += 7
        if byte > 127:
            if shift == 35:
                raise ValueError("a number of more than five bytes")
            continue
        if number > _MOST + 1:
            raise ValueError("a number of more than 32 bits")
        yield number
        number = shift = 0
    if shift:
        raise ValueError("a number is cut off")


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
