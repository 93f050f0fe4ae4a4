"""Bytes as tokens and back. What no token spells is kept aside, so that a rare letter costs itself and not the model.

bytes --> all that tokens spell, closed up --tokenizer--> ids
     \\--> the rest: where it stood, how much, and what, by LZMA
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from latente.codec import layout
from latente.compression import chunks
from latente.data.tokenizer import Tokenizer

MEANINGS = 1 << 20, 1 << 9  # bytes that what tokens stand for may take: in all, and of each
NEAR = 8  # bytes: a shorter stretch between two that are kept aside goes with them


class Meanings:
    """What each token stands for: all that decoding needs of a tokenizer."""

    def __init__(self, each: Sequence[bytes]) -> None:
        self.each, self.lengths = each, np.array([len(one) for one in each], np.int64)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Meanings:
        return cls([tokenizer.bytes_of(token) for token in range(tokenizer.size)])

    def pack(self) -> bytes:
        content = self.lengths.astype("<u4").tobytes() + b"".join(self.each)
        if len(content) > self._most(len(self.each)):
            raise ValueError(f"what the tokens of this run stand for takes {len(content):,} bytes; too many for a file")
        return chunks.squeezed(content)

    @classmethod
    def unpack(cls, packed: bytes, count: int) -> Meanings:
        """Raises ValueError for bytes that are not of so many tokens."""
        content = chunks.unsqueezed(packed, cls._most(count))
        ends = np.cumsum(np.frombuffer(content[: 4 * count], "<u4"), dtype=np.int64).tolist()
        if len(ends) != count or ends[-1] != len(content) - 4 * count:
            raise ValueError("its tokens are of another model")
        return cls([content[4 * count + start : 4 * count + end] for start, end in zip([0, *ends], ends)])

    @staticmethod
    def _most(count: int) -> int:
        return MEANINGS[0] + MEANINGS[1] * count

    def digest(self) -> str:
        return chunks.digest(self.lengths.astype("<u4").tobytes() + b"".join(self.each))

    def spell(self, ids: np.ndarray, size: int) -> bytes:
        """The bytes of tokens. Raises ValueError where they are not `size`."""
        if int(self.lengths[ids].sum()) != size:
            raise ValueError("its tokens spell another number of bytes")
        return self.join(ids)

    def join(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self.each.__getitem__, ids.tolist()))


class Speller:
    """A tokenizer that knows which characters it spells; `between` files it may put its end token, which spells nothing."""

    def __init__(self, tokenizer: Tokenizer, between: bool) -> None:
        self.tokenizer, self.meanings, self.between = tokenizer, Meanings.of(tokenizer), between
        self._known: dict[int, bool] = {}

    def __call__(self, content: bytes, ends: np.ndarray) -> tuple[np.ndarray, bytes]:
        """Tokens (N,) of the smallest type for bytes in which files end at the offsets `ends`, and what is kept aside, for `restored`.

        N is 0 where tokens are of no use.
        """
        apart = self._apart(content)
        data = np.frombuffer(content, np.uint8)
        text = data[~apart].tobytes()
        inner = np.unique((ends - np.cumsum(apart)[ends - 1])[ends < len(content)]) if self.between else ends[:0]
        ids = self.tokenizer.encode_documents(text, inner[inner > 0])
        if len(ids) > 2 * len(content) or self.meanings.join(ids) != text:
            return ids[:0], b""
        return ids, _packed(apart, data[apart].tobytes())

    def _apart(self, content: bytes) -> np.ndarray:
        """Which bytes are kept aside: bool, one each."""
        text = content.decode("utf-8", "surrogateescape")  # bytes that are no UTF-8 are characters of their own
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        unknown = [point for point in np.unique(points).tolist() if not self._spells(point)]
        escaped = (points >= 0xDC80) & (points <= 0xDCFF)
        sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
        found = np.repeat(np.isin(points, unknown), np.where(escaped, 1, sizes))
        starts, stops = _stretches(found)
        for start, stop in zip(stops, starts[1:]):
            found[start:stop] |= stop - start < NEAR
        return found

    def _spells(self, point: int) -> bool:
        if point not in self._known:
            letter = chr(point).encode("utf-8", "surrogateescape")
            self._known[point] = self.meanings.join(self.tokenizer.encode(letter)) == letter
        return self._known[point]


def restored(text: bytes, apart: Sequence[tuple[int, bytes]]) -> bytes:
    """Text with what was kept aside in its places, each so many bytes after the one before."""
    parts, at = [], 0
    for gap, content in apart:
        parts += [text[at : at + gap], content]
        at += gap
    return b"".join([*parts, text[at:]])


def unpacked(packed: bytes, size: int) -> list[tuple[int, bytes]]:
    """What is kept aside of `size` bytes, as `restored` takes it. Raises ValueError for what was not kept so."""
    if not packed:
        return []
    content = chunks.unsqueezed(packed, 8 * size + 8)
    count = next(layout.varints(content), 0)
    numbers = list(islice(layout.varints(content), 1 + 2 * count))
    at = sum(len(layout.varint(number)) for number in numbers)
    gaps, sizes = numbers[1::2], numbers[2::2]
    if len(numbers) != 1 + 2 * count or min(sizes, default=0) < 1 or not sum(sizes) == len(content) - at <= size:
        raise ValueError("what is kept aside is cut off")
    ends = np.cumsum([at, *sizes]).tolist()
    return [(gap, content[start:end]) for gap, start, end in zip(gaps, ends, ends[1:])]


def _packed(apart: np.ndarray, content: bytes) -> bytes:
    if not content:
        return b""
    starts, stops = _stretches(apart)
    gaps = starts - np.array([0, *stops[:-1]])
    numbers = [len(starts), *np.stack([gaps, stops - starts], 1).flatten().tolist()]
    return chunks.squeezed(b"".join(map(layout.varint, numbers)) + content)


def _stretches(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where stretches of True begin, and where they end."""
    edges = np.flatnonzero(np.diff(found, prepend=False, append=False))
    return edges[::2], edges[1::2]
