"""What every kind of data does with its chunks: keep the shortest form, check what comes out, go through them in batches."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from latente import registry
from latente.codec.layout import Damaged
from latente.evaluation.findings import Say

PLAIN, LZMA, MODEL = range(3)  # how a chunk is coded
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
HEAD = 5  # bytes of a chunk before its content: how, and a check of what comes out


@dataclass(frozen=True)
class Chunk:
    """A chunk on its way into a file."""

    payload: bytes
    items: int
    expected: float
    """bytes that the model expects to need; what `payload` holds where `modelled`"""

    @property
    def modelled(self) -> bool:
        return self.payload[0] == MODEL


class Job(Protocol):
    """Data on its way into a file."""

    header: dict[str, Any]
    parts: dict[str, bytes]
    raw: int
    """bytes of the data"""

    @property
    def psnr(self) -> float | None: ...

    def chunks(self, verify: bool, say: Say) -> Iterator[Chunk]: ...


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
        try:
            content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(content, size)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from None
    return content, way[0] == MODEL


def checked(payload: bytes, content: bytes, size: int) -> bytes:
    """`content`, if it is what was coded as `payload`; ValueError otherwise."""
    if len(content) != size or zlib.crc32(content).to_bytes(4, "little") != payload[1:HEAD]:
        raise ValueError("what was decoded is not what was coded")
    return content


def squeezed(content: bytes) -> bytes:
    """A part of a file that no model knows."""
    return lzma.compress(content, lzma.FORMAT_RAW, filters=FILTERS)


def unsqueezed(content: bytes, most: int) -> bytes:
    """The inverse of `squeezed`. Raises ValueError for other bytes, and for more than `most`."""
    try:
        found = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
        result = found.decompress(content, most)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None
    if not found.eof:
        raise ValueError("longer than it may be")
    return result


def inside(name: str) -> Path:
    """A name as a path below a folder. Raises ValueError for one that leaves it."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        raise ValueError(f"a name in it, {name!r:.60}, leaves the folder it is to be written to; nothing is written")
    return path


def batches(count: int, size: int) -> Iterator[range]:
    """0..count-1, so many at a time."""
    yield from (range(start, min(start + size, count)) for start in range(0, count, size))


def digest(content: bytes) -> str:
    """A short hash that names weights."""
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


def own_family(name: Any) -> registry.Family:
    """A family of ours by name; ValueError for any other: a header may come from a stranger, and a path would be a program to run."""
    if not isinstance(name, str) or name not in registry.names():
        raise ValueError(f"its model {name!r:.40} is none of {', '.join(registry.names())}")
    return registry.load(name)


def plausible(config: dict[str, Any], spec: dict[str, Any], weights: int) -> None:
    """Raises ValueError where a header asks for a model so large that `weights` bytes of weights cannot be its own: building it first
    would take all the memory there is."""
    for name, value in [*config.items(), *spec.items()]:
        if isinstance(value, int) and value > max(weights, 1 << 10):
            raise ValueError(f"its weights are not those of a model with {name} {value:,}")


def undecodable(name: str, number: int, error: ValueError) -> Damaged:
    return Damaged(f"{name}: chunk {number} does not decode: {error}", f"chunk {number}")
