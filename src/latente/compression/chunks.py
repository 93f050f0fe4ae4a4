"""What every kind of data does with its chunks: keep the shortest form, check what comes out, go through them in batches."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, TypeVar

from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression.headers import FILES, NAMES
from latente.data.errors import first_line
from latente.data.images import is_path
from latente.evaluation.findings import Say
from latente.run import Run

PLAIN, LZMA, MODEL = range(3)  # how a chunk is coded
REACH, LEAST_REACH = 1 << 26, 1 << 12  # bytes of LZMA's dictionary
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": REACH}]
HEAD = 5  # bytes of a chunk before its content: how, and a check of what comes out

T = TypeVar("T")
R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Chunk:
    """A chunk on its way into a file."""

    payload: bytes
    items: int
    expected: float
    """bytes that the model expects to need; what `payload` holds where `modelled`"""
    digest: str
    """of the bytes it is to become again"""

    @property
    def modelled(self) -> bool:
        return self.payload[0] == MODEL


class Missed(Exception):
    """The file would be larger, or worse or much better, than wished."""


class Job(Protocol):
    """Data on its way into a file."""

    header: dict[str, Any]
    parts: dict[str, bytes]
    raw: int
    """bytes of the data"""
    notes: list[str]
    """what comes back otherwise than it was given, a line each"""
    bound: str
    """what a machine has to be to read it; "" where any can"""

    @property
    def psnr(self) -> float | None: ...

    def chunks(self, say: Say) -> Iterator[Chunk]:
        """Codes everything."""
        ...

    def settle(self, size: int) -> None:
        """Told how large the file is. Raises Missed where that is too much: header, parts and chunks are smaller then."""
        ...

    def matches(self, content: Any) -> bool:
        """Whether the `Content` of the file that was made has, beside its chunks, all that was given."""
        ...


class Content(Protocol):
    """Data in a file."""

    @property
    def together(self) -> int:
        """Chunks that are best decoded at once."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What `write` wrote otherwise than it was given, a line each."""
        ...

    def decode(self, numbers: Sequence[int]) -> list[Any]:
        """The items of some chunks. Raises Damaged."""
        ...

    def plain(self, numbers: Sequence[int]) -> list[bytes]:
        """Some chunks as the bytes that were coded. Raises Damaged."""
        ...

    def item(self, chunk: Any, at: int) -> Any:
        """An item of a chunk."""
        ...

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """Everything, but for what is `lost`."""
        ...


def kept(raw: bytes, coded: bytes | None) -> bytes:
    """The shortest of the ways to keep `raw`, of which the model made `coded`: nothing grows by more than `HEAD` bytes."""
    ways = {PLAIN: raw} | ({} if coded is None else {MODEL: coded})
    if coded is None or len(coded) > len(raw) // 2:
        ways[LZMA] = squeezed(raw)
    way = min(ways, key=lambda way: len(ways[way]))
    return bytes([way]) + zlib.crc32(raw).to_bytes(4, "little") + ways[way]


def opened(payload: bytes, size: int) -> tuple[bytes, bool]:
    """The content of a payload, and whether the model is still to decode it; else it is the `size` bytes of the data.

    Raises ValueError for what `kept` did not write.
    """
    way, content = payload[:1], payload[HEAD:]
    if len(payload) < HEAD or way[0] > MODEL:
        raise ValueError("coded in an unknown way")
    if way[0] == LZMA:
        content = unsqueezed(content, size)
    return content, way[0] == MODEL


def checked(payload: bytes, content: bytes, size: int) -> bytes:
    """`content`, if it is what was coded as `payload`; ValueError otherwise."""
    if len(content) != size or zlib.crc32(content).to_bytes(4, "little") != payload[1:HEAD]:
        raise ValueError("what was decoded is not what was coded")
    return content


def squeezed(content: bytes) -> bytes:
    """A part of a file that no model knows."""
    reach = min(max(len(content), LEAST_REACH), REACH)  # with more, LZMA clears its tables for longer than it codes
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[FILTERS[0] | {"dict_size": reach}])


def unsqueezed(content: bytes, most: int) -> bytes:
    """The inverse of `squeezed`. Raises ValueError for other bytes, and for more than `most`."""
    try:
        found = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
        result = found.decompress(content, most + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(str(error)) from None
    if len(result) > most or not found.eof:
        raise ValueError("cut off, or longer than it may be")
    return result


def squeezed_names(names: Sequence[str]) -> bytes:
    """What files are called. Raises ValueError where they are too many to be read again."""
    content = "\0".join(names).encode("utf-8", "surrogatepass")
    if len(content) > NAMES or len(names) > FILES:
        raise ValueError(f"{len(names):,} names of {len(content):,} bytes; at most {FILES:,} of {NAMES:,} can be kept")
    return squeezed(content)


def unsqueezed_names(content: bytes, count: int) -> list[str]:
    """The inverse of `squeezed_names`. Raises ValueError for other bytes, another count, or names that are no different paths below a
    folder."""
    found = unsqueezed(content, NAMES)
    if count > FILES or found.count(b"\0") != max(0, count - 1) or (not count and found):
        raise ValueError("its names are of other files")
    names = found.decode("utf-8", "surrogatepass").split("\0") if count else []
    if len({str(inside(name)) for name in names}) < count:
        raise ValueError("two of its names are the same")
    return names


def inside(name: str) -> Path:
    """A name as a path below a folder. Raises ValueError for one that is none."""
    if not is_path(name):
        raise ValueError(
            f"a name in it, {name!r:.60}, leaves the folder it is to be written to, or is no file's; nothing is written"
        )
    return Path(name)


def made_with(run: Run | None, kind: type[R], held: Any) -> R:
    """The run of a file whose header is `held`, which its weights are not in. Raises ValueError where none was given, or another."""
    if run is None:
        raise ValueError(f"its weights are not in it; give the run it was made with (--run), a {held.model:.40}")
    if not isinstance(run, kind) or run.spec != held.spec or run.family.name != held.model:
        raise ValueError(f"its weights are not in it, and this is not the run it was made with, a {held.model:.40}")
    return run


def batches(count: int, size: int) -> Iterator[range]:
    """0..count-1, so many at a time."""
    yield from (range(start, min(start + size, count)) for start in range(0, count, size))


def bits_worth(tried: Sequence[int], size: Callable[[int], float]) -> int:
    """That of `tried` bits of a weight, in order, at which a file has the least `size`, found downhill from their middle: each bit more
    takes as much as the one before and saves less, so a size that grows goes on growing."""
    found, at = cache(size), len(tried) // 2
    for step in (-1, 1):
        start = at
        while 0 <= at + step < len(tried) and found(tried[at + step]) < found(tried[at]):
            at += step
        if at != start:
            break
    return tried[at]


def digest(content: bytes) -> str:
    """A short hash."""
    return blake2b(content, digest_size=8).hexdigest()


def each(
    count: int, together: int, decode: Callable[[Sequence[int]], list[Any]], lost: list[Damaged] | None, say: Say
) -> Iterator[tuple[int, Any]]:
    """(number, items) of every chunk. Raises Damaged; or, with `lost`, adds that to it and goes on."""
    for numbers in batches(count, together):
        say(f"decoding, {numbers[0]:,} of {count:,} chunks done")
        try:
            found = list(zip(numbers, decode(numbers)))
        except Damaged:
            if lost is None:
                raise
            found = []
            for number in numbers:  # one by one: the damaged ones alone are left out
                try:
                    found.append((number, decode([number])[0]))
                except Damaged as error:
                    lost.append(error)
        yield from found


def decoded(
    reader: Reader, numbers: Sequence[int], most: int, decode: Callable[[Sequence[bytes], Sequence[range]], list[T]]
) -> list[T]:
    """What `decode` makes of the payloads of some chunks, and of which of all items they hold, at `most` so many each. Raises Damaged
    for the first that it makes nothing of."""
    payloads, items = [reader.chunk(number) for number in numbers], [reader.items_of(number) for number in numbers]
    try:
        if any(len(of) > most for of in items):
            raise ValueError(f"more than the {most:,} items it can hold")
        return decode(payloads, items)
    except Exception as error:  # of a forged payload, each library raises whatever it met
        if len(numbers) > 1:
            return [found for number in numbers for found in decoded(reader, [number], most, decode)]
        name, number = reader.name, numbers[0]
        raise Damaged(f"{name}: chunk {number} does not decode: {first_line(error)}", f"chunk {number}") from None
