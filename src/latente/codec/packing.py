"""The weights of an exact network as bytes, each as long as it is unlikely among those it is packed with.

    weights alike    all together, or kind by kind (layers whose names differ in numbers only), shifts, tables and biases
    graded weights   shifts of rows and columns; then kind by kind, those of small steps apart from those of large ones; tables and biases

What lies before a group says how often each of its values is there.
"""

from __future__ import annotations

import re
import struct
import zlib
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latente.codec.coding import Decoder, Encoder
from latente.codec.exact import BOUND, COARSE, SHIFTS, SPREAD, Embedding, Linear

_BY_KIND = struct.pack("<i", 2**31 - 1)  # begins weights packed kind by kind: no group has such a smallest value
_GRADED = struct.pack("<i", 2**31 - 2)  # and those that are graded
_GROUP = struct.Struct("<iIII")  # smallest value, how many may be, bytes of their counts, bytes of the values


class _Group(NamedTuple):
    """Whole numbers of one distribution."""

    parts: list[tuple[str, np.ndarray]]
    """by name, (n,) each"""
    least: int
    most: int

    @property
    def values(self) -> np.ndarray:
        return np.concatenate([values for _, values in self.parts])

    @property
    def size(self) -> int:
        return sum(len(values) for _, values in self.parts)

    def put(self, made: Any, values: np.ndarray) -> None:
        """Others in their place, (n,)."""
        ends = np.cumsum([len(part) for _, part in self.parts])
        for (name, _), part in zip(self.parts, np.split(values, ends[:-1])):
            owner, _, own = name.rpartition(".")
            kept = getattr(made.get_submodule(owner), own)
            kept.copy_(torch.from_numpy(_restored(made, name, part)).view_as(kept))


def pack(made: Any) -> bytes:
    """The whole numbers of an exact network, entropy coded; what they belong to is not in it."""

    def packed(by_kind: bool) -> bytes:
        return b"".join(_coded(group.values) for group in _groups(made, by_kind))

    return _GRADED + _graded(made) if made.graded else min(packed(False), _BY_KIND + packed(True), key=len)


def _graded(made: Any) -> bytes:
    """Shifts, and then kind by kind the weights of each few steps, those of the smallest first."""
    *weights, shifts, columns, tables = _groups(made, True)
    found = [_coded(shifts.values), _coded(columns.values)]
    for group in weights:
        steps = _steps(made, group)
        parts = _few(group.values, steps)
        ends = [int(steps[part].max()) for part in parts]
        found += [struct.pack(f"<B{len(ends)}b", len(ends), *ends), *(_coded(group.values[part]) for part in parts)]
    return b"".join([*found, _coded(tables.values)])


def unpack(packed: bytes, made: Any) -> None:
    """Fills `made`, which `exact.exact` made of a model of the same sizes. Raises ValueError for bytes that are not of such a model."""
    graded, by_kind = packed.startswith(_GRADED), packed.startswith(_BY_KIND)
    if graded != made.graded:
        raise ValueError("these are not the weights of this model")
    packed = packed.removeprefix(_GRADED).removeprefix(_BY_KIND) if graded or by_kind else packed
    *weights, last = _groups(made, by_kind or graded)
    if graded:
        *weights, shifts, columns = weights
        packed = _filled(made, columns, _filled(made, shifts, packed))
    for group in weights:
        packed = _unpacked(made, group, packed) if graded else _filled(made, group, packed)
    if _filled(made, last, packed):
        raise ValueError("more weights than the model has")
    for module in made.modules():
        if isinstance(module, Linear):
            module.bounded()


def _filled(made: Any, group: _Group, packed: bytes) -> bytes:
    """Puts a group's numbers where they belong; what follows them."""
    values, rest = _decoded(packed, group.size, group)
    group.put(made, values)
    return rest


def _unpacked(made: Any, group: _Group, packed: bytes) -> bytes:
    """The same with the weights of a kind, as `_graded` packs them."""
    steps, values = _steps(made, group), np.zeros(group.size, np.int64)
    n = packed[0] if packed else 0
    ends = np.frombuffer(packed[1 : 1 + n], "i1").astype(np.int64)
    part_of, packed = np.searchsorted(ends, steps), packed[1 + n :]
    if len(ends) < n or (np.diff(ends) <= 0).any() or sorted(set(part_of)) != [*range(n)]:
        raise ValueError("these are not the weights of this model")
    for number in range(n):
        part = part_of == number
        values[part], packed = _decoded(packed, int(part.sum()), group)
    group.put(made, values)
    return packed


def _steps(made: Any, group: _Group) -> np.ndarray:
    """The steps that weights were rounded in, as powers of two, (n,)."""
    layers = [made.get_submodule(name.rpartition(".")[0]) for name, _ in group.parts]
    rows = [np.frexp(layer.scale.numpy())[1].astype(np.int64) - 1 for layer in layers]
    return np.concatenate([(row[:, None] + layer.columns.numpy()).ravel() for row, layer in zip(rows, layers)])


def _few(values: np.ndarray, steps: np.ndarray) -> list[np.ndarray]:
    """Where the values of each step are, neighbours together where apart they would take more bytes."""
    parts = [np.flatnonzero(steps == step) for step in np.unique(steps)]
    sizes = [_size(values[part]) for part in parts]
    both = [_size(values[np.concatenate(pair)]) for pair in pairwise(parts)]  # of each and the next
    while both:
        saved = [low + high - size for low, high, size in zip(sizes, sizes[1:], both)]
        best = int(np.argmax(saved))
        if saved[best] <= 0:
            break
        parts[best : best + 2] = [np.sort(np.concatenate(parts[best : best + 2]))]
        sizes[best : best + 2] = [both[best]]
        at = slice(max(0, best - 1), best + 2)
        both[at] = [_size(values[np.concatenate(pair)]) for pair in pairwise(parts[at])]
    return parts


def digest(made: Any) -> str:
    """A hash of the whole numbers, however they are packed."""
    found = blake2b(digest_size=8)
    for group in _groups(made):
        for _, values in group.parts:
            found.update(values.astype("<i4").tobytes())
    return found.hexdigest()


def _groups(made: Any, by_kind: bool = False) -> list[_Group]:
    """Weights, those of layers that are named alike but for numbers on their own if `by_kind`; shifts, of graded ones those of columns as
    well; tables with biases."""
    most, table = 2 ** (made.bits - 1), int(BOUND / COARSE)
    weights: dict[str, _Group] = {}
    shifts, columns, tables = _Group([], *SHIFTS), _Group([], 0, SPREAD), _Group([], -table, table)
    for name, buffer in made.named_buffers():
        if not isinstance(made.get_submodule(name.rpartition(".")[0]), Linear | Embedding):
            continue  # a model's own, which it makes of its settings
        values = buffer.flatten().numpy()
        if name.endswith(".scale"):
            shifts.parts.append((name, 1 - np.frexp(values)[1].astype(np.int64)))
        elif name.endswith(".columns"):
            columns.parts.append((name, values.astype(np.int64)))
        elif _is_weight(made, name):
            kind = re.sub(r"\d+", "", name) if by_kind else ""
            numbers = buffer / _finest(made, name)
            weights.setdefault(kind, _Group([], -most, most)).parts.append((name, numbers.flatten().long().numpy()))
        else:
            tables.parts.append((name, (values / COARSE).astype(np.int64)))
    return [*weights.values(), shifts, *([columns] if made.graded else []), tables]


def _restored(made: Any, name: str, values: np.ndarray) -> np.ndarray:
    if name.endswith(".scale"):
        return np.ldexp(1.0, -values)
    if name.endswith(".columns"):
        return values.astype(float)
    if _is_weight(made, name):
        weight = made.get_submodule(name.rpartition(".")[0]).weight
        return (torch.from_numpy(values).view_as(weight) * _finest(made, name)).numpy()
    return values * COARSE


def _finest(made: Any, name: str) -> Tensor:
    """What the weights of each column are multiples of, (I,) or (1,)."""
    columns = made.get_submodule(name.rpartition(".")[0]).columns
    return torch.from_numpy(np.ldexp(1.0, np.zeros(1, int) if columns is None else columns.numpy()))


def _is_weight(made: Any, name: str) -> bool:
    owner, _, own = name.rpartition(".")
    return own == "weight" and isinstance(made.get_submodule(owner), Linear)


def _counted(values: np.ndarray) -> tuple[int, np.ndarray, bytes]:
    """The least, how many there are of each from it on, and that as bytes."""
    low = int(values.min())
    counts = np.bincount(values - low)
    return low, counts, zlib.compress(counts.astype("<u4").tobytes(), 9)


def _size(values: np.ndarray) -> float:
    """About how many bytes `_coded` makes."""
    _, counts, kept = _counted(values)
    counts = counts[counts > 0]
    return _GROUP.size + len(kept) - float((counts * np.log2(counts / counts.sum())).sum()) / 8


def _coded(values: np.ndarray) -> bytes:
    low, counts, kept = _counted(values)
    encoder = Encoder()
    if len(counts) > 1:  # of one value, the counts say all
        encoder.alike(values - low, counts)
    coded = encoder.finish()
    return _GROUP.pack(low, len(counts), len(kept), len(coded)) + kept + coded


def _decoded(packed: bytes, n: int, group: _Group) -> tuple[np.ndarray, bytes]:
    """`n` values, and what follows them."""
    if len(packed) < _GROUP.size:
        raise ValueError("fewer weights than the model has")
    low, size, kept, coded = _GROUP.unpack_from(packed)
    start, end = _GROUP.size + kept, _GROUP.size + kept + coded
    if not (size >= 1 and group.least <= low and low + size - 1 <= group.most and end <= len(packed)):
        raise ValueError("these are no weights")
    try:
        plain = zlib.decompressobj().decompress(packed[_GROUP.size : start], 4 * size)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    counts = np.frombuffer(plain[: len(plain) // 4 * 4], "<u4")
    if len(counts) != size or counts.sum(dtype=np.uint64) != n:
        raise ValueError("these are not the weights of this model")
    if size == 1:
        return np.full(n, low), packed[end:]
    return low + Decoder(packed[start:end]).alike(n, counts).astype(np.int64), packed[end:]
