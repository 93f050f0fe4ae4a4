"""Entropy coding: values and how likely each was -> bytes -> values. The coder is constriction's range coder.

    logits, whole multiples of 2^-12 nat --table--> whole chances --> whole frequencies, 2^24 in all --> constriction --> bytes

Chances are whole numbers from a table of whole numbers, and brought to 2^24 by operations that IEEE 754 rounds one way only, so
frequencies are the same on every machine, and constriction, which gets them in 64-bit floats, has nothing left to round. All constants
here are part of the file format: another one is another version of it. N values, K what each may be.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache
from importlib.metadata import version
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

FRACTION = 12  # logits are whole multiples of 2^-FRACTION nat
STEP = 8  # the table's step is 2^-STEP nat
UNIT = 1 << 17  # the chance of the likeliest value
TOTAL = 1 << 24  # all frequencies together
CODER = 0x67C3B3C5  # CRC-32 of what the coder makes of some values
_stream: Any = constriction.stream  # type: ignore[attr-defined]
_FAMILY = _stream.model.Categorical(perfect=False)
_EVEN = _stream.model.Uniform()
DIGIT, LEADING = 16, 22  # bits of what a number that may be large is cut into: digits, and what leads them, at most


@cache
def table() -> Tensor:
    """UNIT * exp(-i * 2^-STEP), rounded, for i = 0, 1, ... until it is 0: float64 whole numbers."""
    found: list[int] = []
    with localcontext(Context(prec=50, rounding=ROUND_HALF_EVEN)):  # whatever the caller has set
        while not found or found[-1] > 0:
            found.append(int((UNIT * (Decimal(-len(found)) / (1 << STEP)).exp()).to_integral_value()))
    return torch.tensor(found, dtype=torch.float64)


def frequencies(logits: Tensor) -> np.ndarray:
    """Whole logits (N,K), K up to 64, float64 -> how often each value is expected, float64 (N,K) whole numbers, TOTAL - K in all: the
    coder adds 1 to each, so that every value has a chance."""
    powers = table()
    below = torch.floor((logits.amax(1, keepdim=True) - logits) * 2.0 ** (STEP - FRACTION))
    return _shared(powers[below.clamp_(max=len(powers) - 1).long()].numpy())


def _shared(chances: np.ndarray) -> np.ndarray:
    """Whole chances (N,K) as frequencies: where each begins is rounded down."""
    free = float(TOTAL - chances.shape[1])
    ends = chances.cumsum(1)
    ends *= free / ends[:, -1:]
    np.floor(ends, out=ends)
    ends[:, -1] = free
    return np.diff(ends, axis=1, prepend=0)


class Encoder:
    """Values in, bytes out. Raises ValueError where the coder is not the one that .latente files are written with."""

    def __init__(self) -> None:
        _check_coder()
        self._coder = _stream.queue.RangeEncoder()

    def add(self, values: np.ndarray, chances: np.ndarray) -> None:
        """Values (N,) in 0..K-1 with the chances of each, (N,K): `frequencies`, or any, which constriction rounds."""
        self._coder.encode(np.ascontiguousarray(values, np.int32), _FAMILY, np.ascontiguousarray(chances, np.float64))

    def alike(self, values: np.ndarray, chances: np.ndarray) -> None:
        """Values (N,) that all have the same whole chances (K,)."""
        self._coder.encode(np.ascontiguousarray(values, np.int32), _alike(chances))

    def even(self, values: np.ndarray, most: np.ndarray) -> None:
        """Values (N,) uint64, each as likely as any other from 0 to its `most` (N,) uint64."""
        for rows, shift, size in _digits(most):
            digit = values[rows] >> shift if size is None else (values[rows] >> shift) & np.uint64((1 << DIGIT) - 1)
            leading = (most[rows] >> shift) + 1 if size is None else np.full(len(digit), size)
            self._coder.encode(digit.astype(np.int32), _EVEN, leading.astype(np.int32))

    def finish(self) -> bytes:
        return self._coder.get_compressed().astype("<u4").tobytes()


class Decoder:
    """The values of an `Encoder`, in the order they were added. What it makes of other bytes is undefined but for ValueError."""

    def __init__(self, coded: bytes) -> None:
        _check_coder()
        if len(coded) % 4:
            raise ValueError("coded values are whole words")
        self._coder = _stream.queue.RangeDecoder(np.frombuffer(coded, "<u4").astype(np.uint32))

    def take(self, chances: np.ndarray) -> np.ndarray:
        """The next values (N,) int32, whose chances (N,K) are those given to `Encoder.add`."""
        return self._taken(_FAMILY, np.ascontiguousarray(chances, np.float64))

    def alike(self, n: int, chances: np.ndarray) -> np.ndarray:
        """The next `n` values, whose chances (K,) are those given to `Encoder.alike`."""
        return self._taken(_alike(chances), n)

    def even(self, most: np.ndarray) -> np.ndarray:
        """The next values (N,) uint64, of which `Encoder.even` was given the `most`."""
        values = np.zeros(len(most), np.uint64)
        for rows, shift, size in _digits(most):
            leading = (most[rows] >> shift) + 1 if size is None else np.full(int(rows.sum()), size)
            values[rows] |= self._taken(_EVEN, leading.astype(np.int32)).astype(np.uint64) << shift
        return values

    def _taken(self, *asked: object) -> np.ndarray:
        try:
            return self._coder.decode(*asked)
        except (AssertionError, ValueError):  # constriction's words are many, and of no help to whoever has the file
            raise ValueError("coded values do not decode") from None


def _digits(most: np.ndarray) -> Iterator[tuple[np.ndarray, np.uint64, int | None]]:
    """How numbers up to `most` (N,) uint64 are cut: which of them (N,) bool, from which bit on, among how many; None for the part that
    leads, which the number itself bounds."""
    digits = np.stack([most >> np.uint64(LEADING + DIGIT * i) > 0 for i in range(3)]).sum(0)
    for count in range(4):
        rows = (digits == count) & (most > 0)
        if rows.any():
            yield rows, np.uint64(DIGIT * count), None
    for count in range(3):
        rows = digits > count
        if rows.any():
            yield rows, np.uint64(DIGIT * count), 1 << DIGIT


def even_bits(most: np.ndarray) -> np.ndarray:
    """What `Encoder.even` takes for each value, in bits (N,)."""
    bits = np.zeros(len(most))
    for rows, shift, size in _digits(most):
        bits[rows] += np.log2((most[rows] >> shift) + 1.0) if size is None else DIGIT
    return bits


def _alike(chances: np.ndarray) -> object:
    return _stream.model.Categorical(_shared(np.asarray(chances, np.float64)[None])[0], perfect=False)


@cache
def _check_coder() -> None:
    """Raises ValueError for a constriction that makes other bytes than those of the day the format was fixed."""
    values = np.arange(99, dtype=np.int32) ** 2 % 16
    chances = _shared(np.arange(99.0)[:, None] * np.arange(16) % 13 + 1)
    coder, sizes = _stream.queue.RangeEncoder(), 16 + 163 * values
    coder.encode(values, _FAMILY, chances)
    coder.encode(values, _alike(chances[1]))
    coder.encode(values, _EVEN, sizes)
    if zlib.crc32(coder.get_compressed().astype("<u4").tobytes()) != CODER:
        raise ValueError(
            f"constriction {version('constriction')} codes otherwise than .latente files are coded; install constriction 0.4.1 to 0.5"
        )
