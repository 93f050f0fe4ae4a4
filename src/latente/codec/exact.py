"""Networks of whole numbers, whose results are the same on every machine and in whatever order they are added up.

    weights n 2^-s, activations m 2^-12 (n, m whole)  --products and sums, below 2^53, in float64--> exact --round--> m 2^-12

A floating-point network differs between machines, numbers of threads and batch sizes in its last digits, and one digit is enough to
garble all that an entropy decoder reads after it. Here every number is a whole one, or some eighths of one, that float64 holds exactly,
so nothing is lost in any order of adding up; so is a quotient or a square root of two such numbers, which IEEE 754 rounds one way only.
Linear layers, embeddings, relus (leaky ones of a slope of an eighth) and rms norms are all there is. What a layer gives is kept within
`BOUND`, what it takes within what its own weights allow, so no weights, a stranger's least of all, make a sum that depends on its order.
"""

from __future__ import annotations

import copy
import re
import struct
import zlib
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.codec.coding import FRACTION, Decoder, Encoder

WHOLE = 1 << 50  # float64 holds whole numbers up to this exactly, and eighths, which leaky relus make of them
BOUND = 2.0**22  # of what a layer gives before its bias, of a bias, of a table
# The most that a layer takes: a relu of a layer, squared (table-gpt); sums of a hundred layers stay far below. What enters a layer whose
# weights allow so much need not be looked at.
LARGEST = int(2 * BOUND) ** 2 >> FRACTION
COARSE = 2.0 ** (FRACTION - 8)  # biases and tables are multiples of this
NORMED, WIDEST = 2.0**21, 1 << 11  # what is squared, how many of them: their sum is 2^53 at most
MOST_BITS = 12
FINE = 8  # bits at least of a weight of the layers that a model calls `fine`
SHIFTS = -8, 24  # least and most: of a layer's weights, which are whole numbers times 2^-shift
_BY_KIND = struct.pack("<i", 2**31 - 1)  # begins weights packed kind by kind: no group has such a smallest value
_GROUP = struct.Struct("<iIII")  # smallest value, how many may be, bytes of their counts, bytes of the values


class Linear(nn.Module):
    """A linear layer whose weights are whole numbers times a power of two, one for each output, and its inputs whole or in eighths."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    most: int
    """of its inputs; larger ones are cut: no sum of products, in part or in all, passes `WHOLE`"""

    def __init__(self, layer: nn.Linear, bits: int) -> None:
        super().__init__()
        weight, most = layer.weight.detach().double().numpy(), 2.0 ** (bits - 1)
        # frexp and ldexp are the same to the last bit on every machine; logarithms and powers need not be.
        shift = (np.frexp((most - 1) / np.abs(weight).max(1).clip(2.0**-20))[1] - 1).clip(*SHIFTS)
        numbers = np.round(np.ldexp(weight, shift[:, None])).clip(-most, most)
        self.register_buffer("weight", torch.from_numpy(numbers))
        self.register_buffer("bias", whole(torch.zeros(len(weight)) if layer.bias is None else layer.bias))
        self.register_buffer("scale", torch.from_numpy(np.ldexp(1.0, -shift)))
        self.bounded()

    def bounded(self) -> None:
        """Finds `most`: to be called when weights have changed."""
        self.most = WHOLE // max(1, int(self.weight.abs().sum(1).max()))

    def forward(self, x: Tensor) -> Tensor:
        """(...,I) -> (...,O), whole numbers."""
        return self.part(x, slice(None))

    def part(self, x: Tensor, outputs: slice) -> Tensor:
        """(...,I) -> only these of the outputs."""
        if self.most < LARGEST:
            x = x.clamp(-self.most, self.most)
        found = F.linear(x, self.weight[outputs]).mul_(self.scale[outputs])
        return found.round_().clamp_(-BOUND, BOUND).add_(self.bias[outputs])


class Embedding(nn.Module):
    """A table of whole numbers."""

    weight: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", whole(table.weight))

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


class RMSNorm(nn.Module):
    """Numbers divided by the root of their mean square."""

    def __init__(self, size: int) -> None:
        super().__init__()
        if size > WIDEST:
            raise ValueError(f"a norm of {size:,} numbers cannot be made exact: {WIDEST:,} at most")

    def forward(self, x: Tensor) -> Tensor:
        """(...,C) -> (...,C), whole numbers."""
        x = x.clamp(-NORMED, NORMED)
        mean = x.square().sum(-1, keepdim=True) / x.shape[-1]
        return torch.round(x * 2.0**FRACTION / mean.clamp(min=1).sqrt())


def whole(values: Tensor) -> Tensor:
    """Numbers as whole multiples of 2^-FRACTION, float64, no finer than tables are kept."""
    return (
        torch.round(values.detach().double() * 2.0**FRACTION / COARSE).clamp(-BOUND / COARSE, BOUND / COARSE) * COARSE
    )


def exact(model: nn.Module, bits: int) -> Any:
    """A copy of a model whose linear layers hold weights of so many bits. Raises ValueError for a model with other layers, wider norms or
    numbers that are not finite."""
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError("some weights of this model are no finite numbers")
    made = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    fine: Any = getattr(model, "fine", ())
    for name, module in list(made.named_modules()):
        new = None
        if isinstance(module, nn.Linear):
            new = Linear(module, max(bits, FINE) if name in fine else bits)
        elif isinstance(module, nn.Embedding):
            new = Embedding(module)
        elif isinstance(module, nn.RMSNorm) and not module.elementwise_affine:
            new = RMSNorm(module.normalized_shape[-1])
        if new is not None:
            parent, _, own = name.rpartition(".")
            setattr(made.get_submodule(parent), own, new)
    made.one = 2**FRACTION  # type: ignore[assignment]  # what stands for 1
    made.bits = max(bits, FINE) if fine else bits  # type: ignore[assignment]
    if any(True for _ in made.parameters()):
        raise ValueError("this model has layers that cannot be made exact")
    return made


def floating(made: nn.Module, model: nn.Module) -> nn.Module:
    """A copy of the `model` that `exact` made `made` of, with its numbers: it gives nearly the same, faster and with gradients."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in made.named_modules():
            layer: Any = found.get_submodule(name)
            if isinstance(module, Linear):
                layer.weight.copy_(module.weight * module.scale[:, None])
                if layer.bias is not None:
                    layer.bias.copy_(module.bias / 2**FRACTION)
            elif isinstance(module, Embedding):
                layer.weight.copy_(module.weight / 2**FRACTION)
    return found


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """Whole numbers of one distribution."""

    parts: list[tuple[str, np.ndarray]]
    """by name, (n,) each"""
    least: int
    most: int


def pack(made: nn.Module) -> bytes:
    """The whole numbers of `exact`, entropy coded; what they belong to is not in it."""

    def packed(by_kind: bool) -> bytes:
        groups = _groups(made, by_kind)
        return b"".join(_coded(np.concatenate([values for _, values in group.parts])) for group in groups)

    return min(packed(False), _BY_KIND + packed(True), key=len)


def unpack(packed: bytes, made: nn.Module) -> None:
    """Fills `made`, which `exact` made of a model of the same sizes. Raises ValueError for bytes that are not of such a model."""
    by_kind = packed.startswith(_BY_KIND)
    packed = packed.removeprefix(_BY_KIND)
    for group in _groups(made, by_kind):
        ends = np.cumsum([len(values) for _, values in group.parts])
        found, packed = _decoded(packed, int(ends[-1]), group)
        for (name, _), values in zip(group.parts, np.split(found, ends[:-1])):
            owner, _, own = name.rpartition(".")
            kept = getattr(made.get_submodule(owner), own)
            kept.copy_(torch.from_numpy(_restored(made, name, values)).view_as(kept))
    if packed:
        raise ValueError("more weights than the model has")
    for module in made.modules():
        if isinstance(module, Linear):
            module.bounded()


def digest(made: nn.Module) -> str:
    """A hash of the whole numbers, however they are packed."""
    found = blake2b(digest_size=8)
    for group in _groups(made):
        for _, values in group.parts:
            found.update(values.astype("<i4").tobytes())
    return found.hexdigest()


def _groups(made: Any, by_kind: bool = False) -> list[_Group]:
    """Weights, those of layers that are named alike but for numbers on their own if `by_kind`; shifts; tables with biases."""
    most, table = 2 ** (made.bits - 1), int(BOUND / COARSE)
    weights: dict[str, _Group] = {}
    shifts, tables = _Group([], *SHIFTS), _Group([], -table, table)
    for name, buffer in made.named_buffers():
        if not isinstance(made.get_submodule(name.rpartition(".")[0]), Linear | Embedding):
            continue  # a model's own, which it makes of its settings
        values = buffer.flatten().numpy()
        if name.endswith(".scale"):
            shifts.parts.append((name, 1 - np.frexp(values)[1].astype(np.int64)))
        elif _is_weight(made, name):
            kind = re.sub(r"\d+", "", name) if by_kind else ""
            weights.setdefault(kind, _Group([], -most, most)).parts.append((name, values.astype(np.int64)))
        else:
            tables.parts.append((name, (values / COARSE).astype(np.int64)))
    return [*weights.values(), shifts, tables]


def _restored(made: nn.Module, name: str, values: np.ndarray) -> np.ndarray:
    if name.endswith(".scale"):
        return np.ldexp(1.0, -values)
    return values * (1.0 if _is_weight(made, name) else COARSE)


def _is_weight(made: nn.Module, name: str) -> bool:
    owner, _, own = name.rpartition(".")
    return own == "weight" and isinstance(made.get_submodule(owner), Linear)


def _coded(values: np.ndarray) -> bytes:
    low = int(values.min())
    counts = np.bincount(values - low)
    kept = zlib.compress(counts.astype("<u4").tobytes(), 9)
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
