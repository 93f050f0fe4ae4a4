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

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

MAGIC = b"\xabLAT\r\n\x1a\n"  # not text; changed by whatever converts line ends or clears the eighth bit
VERSION = 2

START = struct.Struct("<8sHI8s")
FOOTER = struct.Struct("<I8s4s")
_PLACE = struct.Struct("<QQ")  # of a chunk: its number, that of its first item
END = b"\xabEND"
CHECK = 8
LEAST = CHECK + 2  # bytes of a frame; its two varints are no longer than this
MOST_HEAD = 1 << 20  # bytes of the head, deflated and not
MOST_DEPTH = 32  # of lists and dicts within each other in the header
MOST_CHUNKS = 1 << 20
MOST_INDEX = 11 << 20  # bytes, deflated: two varints a chunk, and what deflating them may add
MOST = (1 << 32) - 2  # bytes of a chunk, items of a chunk


class Damaged(ValueError):
    """Something in the file is not as it was written; `part` is "header", "index", "chunk 3" or the name of a part."""

    def __init__(self, message: str, part: str = "") -> None:
        super().__init__(message)
        self.part = part


def check(what: bytes, *pieces: bytes, key: bytes = b"") -> bytes:
    digest = blake2b(digest_size=CHECK, key=key, person=what)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def chunk_check(key: bytes, number: int, first: int, lead: bytes, payload: bytes) -> bytes:
    return check(b"chunk", _PLACE.pack(number, first), lead, payload, key=key)


def packed_head(header: dict[str, Any], parts: dict[str, bytes]) -> tuple[bytes, bytes]:
    """Start and head of a file, and the head's check. Raises ValueError for what a reader would refuse."""
    if not _shallow(header):
        raise ValueError(f"the header of a .latente file is more than {MOST_DEPTH} deep")
    try:
        both = [header, [[name, len(part)] for name, part in parts.items()]]
        text = json.dumps(both, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the header of a .latente file must be JSON: {error}") from None
    content = text.encode("utf-8", "surrogatepass")  # names of files need not be Unicode
    head = deflated(content) + b"".join(check(b"part", part) for part in parts.values())
    if max(len(content), len(head)) > MOST_HEAD:
        raise ValueError(f"the header of a .latente file is {len(content):,} bytes of JSON; {MOST_HEAD:,} at most")
    unpacked_head(head)
    rest = struct.pack("<HI", VERSION, len(head))
    own = check(b"head", rest, head)
    return MAGIC + rest + own + head, own


def unpacked_head(head: bytes) -> tuple[dict[str, Any], list[tuple[str, int, bytes]]]:
    """The header, and name, size and check of each part. Raises ValueError, TypeError or RecursionError for anything else."""
    content, checks = inflated(head, MOST_HEAD)
    header, sizes = json.loads(content.decode("utf-8", "surrogatepass"), parse_constant=_no_number)
    if not isinstance(header, dict) or not _shallow(header):
        raise ValueError(f"the header of a .latente file is a dict, at most {MOST_DEPTH} deep")
    if (
        not isinstance(sizes, list)
        or len(checks) != CHECK * len(sizes)
        or len({name for name, _ in sizes}) < len(sizes)
    ):
        raise ValueError("the list of parts is damaged")
    for name, size in sizes:
        if not (isinstance(name, str) and name.isascii() and name.isidentifier()) or name in ("header", "index"):
            raise ValueError(f"a part cannot be called {name!r:.40}: a word of ASCII letters, not header or index")
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise ValueError(f"part {name} has no size")
    return header, [(name, size, checks[CHECK * i :][:CHECK]) for i, (name, size) in enumerate(sizes)]


def declared(header: Mapping[str, Any]) -> int | None:
    """How many items the header says there are, if it does."""
    return header["items"] if type(header.get("items")) is int else None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _shallow(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        held: list[Iterable[Any]] = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple)
        ]
        level = [inner for values in held for inner in values]
    return not level


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def inflated(content: bytes, most: int) -> tuple[bytes, bytes]:
    """What `content` was deflated from, and what follows it. Raises ValueError when it is damaged, or more than `most` bytes."""
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(plain) > most or not unpacker.eof:
        raise ValueError("cut off, or larger than it may be")
    return plain, unpacker.unused_data


def lead(length: int, items: int) -> bytes:
    """What a frame begins with: never a zero byte, for that begins the index."""
    return varint(length + 1) + varint(items)


def varint(number: int) -> bytes:
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    content.append(number)
    return bytes(content)


def varints(content: bytes) -> Iterator[int]:
    """The numbers below 2**32 that `content` is made of. Raises ValueError for a larger one, or one that is cut off."""
    number = shift = 0
    for byte in content:
        number |= (byte & 127) << shift
        shift += 7
        if byte > 127:
            if shift == 35:
                raise ValueError("a number of more than five bytes")
            continue
        if number > MOST + 1:
            raise ValueError("a number of more than 32 bits")
        yield number
        number = shift = 0
    if shift:
        raise ValueError("a number is cut off")
