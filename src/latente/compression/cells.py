"""Columns of a table as bytes, and back, whatever they hold: what no model knows of a row is kept like this.

    which cells are there (1 bit each) | numbers, times: differences of whole numbers, byte by byte | anything written: lengths, UTF-8

Plain values: no Arrow file is read that a stranger may have made. n rows.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latente.data.columns import as_typed
from latente.data.errors import DataError
from latente.data.scales import arrow_type

LEAST = 4  # bytes of a cell


def packed(array: pa.Array) -> bytes:
    """Raises DataError for a column of lists or the like."""
    there = ~np.asarray(array.is_null())
    mask = np.packbits(there).tobytes()
    if _written(str(array.type)):
        text = _as_text(array)
        offsets = np.frombuffer(text.buffers()[1], "<i4")[text.offset : text.offset + len(text) + 1].astype(np.int64)
        data = text.buffers()[2]
        content = b"" if data is None else memoryview(data)[offsets[0] : offsets[-1]].tobytes()
        return mask + _planes(np.diff(offsets).astype("<u4")) + content
    return mask + _planes(np.diff(np.where(there, _whole(array), 0), prepend=0).astype("<i8"))


def unpacked(content: memoryview, n: int, kind: str) -> tuple[pa.Array, memoryview]:
    """The column of `n` cells of a type, and what follows it. Raises ValueError for what `packed` did not write."""
    there = np.unpackbits(np.frombuffer(_first(content, -(-n // 8)), np.uint8), count=n).astype(bool)
    content = content[-(-n // 8) :]
    if _written(kind):
        lengths = _joined(_first(content, 4 * n), "<u4", n)
        ends = np.cumsum(np.append(0, lengths), dtype=np.int64)
        data, content = _first(content[4 * n :], int(ends[-1])), content[4 * n + int(ends[-1]) :]
        buffers = [None, pa.py_buffer(ends.astype("<i4").tobytes()), pa.py_buffer(data)]
        text = pa.Array.from_buffers(pa.string(), n, buffers)  # type: ignore[arg-type]
        text.validate(full=True)
        return as_typed(pc.if_else(pa.array(there), text, None), kind), content
    keys = np.cumsum(_joined(_first(content, 8 * n), "<i8", n), dtype=np.int64)
    return _array(keys, ~there, kind), content[8 * n :]


def _first(content: memoryview, size: int) -> memoryview:
    if size > len(content):
        raise ValueError("fewer cells than there should be")
    return content[:size]


def _planes(values: np.ndarray) -> bytes:
    """All lowest bytes, then all next ones, and so on: like stands beside like."""
    return values.view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()


def _joined(content: memoryview, kind: str, n: int) -> np.ndarray:
    planes = np.frombuffer(content, np.uint8).reshape(np.dtype(kind).itemsize, n)
    return np.ascontiguousarray(planes.T).view(kind)[:, 0]


def _written(kind: str) -> bool:
    """Whether cells of this type are kept as text."""
    return kind.startswith(("dictionary", "decimal", "large_string", "string", "null"))


def _as_text(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return pc.fill_null(array.cast(pa.string()), "")


def _whole(array: pa.Array) -> np.ndarray:
    """Cells of numbers and times as int64 (n,), anything where there are none."""
    kind = array.type
    if pa.types.is_floating(kind):
        return np.asarray(pc.fill_null(array.cast(pa.float64()), 0.0)).view(np.int64)
    if pa.types.is_uint64(kind):
        return np.asarray(pc.fill_null(array, 0)).view(np.int64)
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind)):
        raise DataError(f"a column of {kind} cannot be kept; leave it out of the source")
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    array = array.cast(pa.int32()) if narrow else array.cast(pa.int8()) if pa.types.is_boolean(kind) else array
    return np.asarray(pc.fill_null(array.cast(pa.int64()), 0))


def _array(keys: np.ndarray, mask: np.ndarray, kind: str) -> pa.Array:
    wanted = pa.bool_() if kind == "bool" else arrow_type(kind)
    if pa.types.is_floating(wanted):
        return pa.array(keys.view(np.float64), mask=mask, from_pandas=False).cast(wanted, safe=False)
    if pa.types.is_uint64(wanted):
        return pa.array(keys.view(np.uint64), mask=mask)
    whole = pa.array(keys, mask=mask)
    return (
        whole.cast(pa.int32()).cast(wanted)
        if kind in ("date32[day]", "time32[s]", "time32[ms]")
        else whole.cast(wanted)
    )
