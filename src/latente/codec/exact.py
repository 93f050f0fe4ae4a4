"""Networks of whole numbers, whose results are the same on every machine and in whatever order they are added up.

    weights n 2^-s, activations m 2^-12 (n, m whole)  --products and sums, all below 2^53, in float64--> exact --round--> m 2^-12

A floating-point network differs between machines, numbers of threads and batch sizes in its last digits, and one digit is enough to
garble all that an entropy decoder reads after it. Here every number is a whole one that float64 holds exactly, so nothing is lost
in any order of adding up. Linear layers, embeddings and relu are all there is.
"""

from __future__ import annotations

import copy
import struct
import zlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.codec.coding import FRACTION, Decoder, Encoder

# Of what a layer gives: with sums of a few, weights below 2^11 and some 2^14 inputs, nothing reaches 2^53.
BOUND = 2.0**22
COARSE = 2.0 ** (FRACTION - 8)  # biases and tables are multiples of this
MOST_BITS = 12
_GROUP = struct.Struct("<iHII")  # smallest value, how many may be, bytes of their counts, bytes of the values


class Linear(nn.Module):
    """A linear layer whose weights are whole numbers times a power of two, one for each output."""

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, bits: int) -> None:
        super().__init__()
        weight = layer.weight.detach().double()
        largest = weight.abs().amax(1).clamp(min=2.0**-20)
        scale = torch.floor(torch.log2((2.0 ** (bits - 1) - 1) / largest)).clamp(-8, 24)
        self.register_buffer("weight", torch.round(weight * 2.0 ** scale[:, None]))
        self.register_buffer("bias", whole(torch.zeros(len(weight)) if layer.bias is None else layer.bias))
        self.register_buffer("scale", 2.0**-scale)

    def forward(self, x: Tensor) -> Tensor:
        """(...,I) -> (...,O), whole numbers."""
        return F.linear(x, self.weight).mul_(self.scale).round_().clamp_(-BOUND, BOUND).add_(self.bias)


class Embedding(nn.Module):
    """A table of whole numbers."""

    weight: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", whole(table.weight))

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


def whole(values: Tensor) -> Tensor:
    """Numbers as whole multiples of 2^-FRACTION, float64, no finer than tables are kept."""
    return (
        torch.round(values.detach().double() * 2.0**FRACTION / COARSE).clamp(-BOUND / COARSE, BOUND / COARSE) * COARSE
    )


def exact(model: nn.Module, bits: int) -> Any:
    """A copy of a model whose linear layers hold weights of so many bits. Raises ValueError for a model with other layers."""
    made = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for name, module in list(made.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            parent, _, own = name.rpartition(".")
            new = Linear(module, bits) if isinstance(module, nn.Linear) else Embedding(module)
            setattr(made.get_submodule(parent), own, new)
    made.one = 2**FRACTION  # type: ignore[assignment]  # what stands for 1
    if any(True for _ in made.parameters()):
        raise ValueError("this model has layers that cannot be made exact")
    return made


# ---- as bytes ------------------------------------------------------------------------------------------------------


def pack(made: nn.Module) -> bytes:
    """The whole numbers of `exact`, entropy coded; what they belong to is not in it."""
    return b"".join(_coded(np.concatenate([values.numpy() for _, values in group])) for group in _groups(made))


def unpack(packed: bytes, made: nn.Module) -> None:
    """Fills `made`, which `exact` made of a model of the same sizes. Raises ValueError for bytes that are not of such a model."""
    for group in _groups(made):
        values, packed = _decoded(packed, sum(len(values) for _, values in group))
        for (name, _), part in zip(group, np.split(values, np.cumsum([len(values) for _, values in group])[:-1])):
            owner, _, own = name.rpartition(".")
            kept = getattr(made.get_submodule(owner), own)
            kept.copy_(_restored(made, name, torch.from_numpy(part)).view_as(kept))
    if packed:
        raise ValueError("more weights than the model has")


def _groups(made: nn.Module) -> list[list[tuple[str, Tensor]]]:
    """Weights, shifts, tables with biases, as whole numbers (n,) by name: the numbers of a group are of one distribution."""
    groups: list[list[tuple[str, Tensor]]] = [[], [], []]
    for name, values in made.named_buffers():
        owner, _, own = name.rpartition(".")
        if own == "scale":
            groups[1].append((name, -torch.log2(values.flatten()).long()))
        elif own == "weight" and isinstance(made.get_submodule(owner), Linear):
            groups[0].append((name, values.flatten().long()))
        else:
            groups[2].append((name, (values.flatten() / COARSE).long()))
    return groups


def _restored(made: nn.Module, name: str, values: Tensor) -> Tensor:
    owner, _, own = name.rpartition(".")
    if own == "scale":
        return 2.0 ** -values.double()
    return values.double() * (1.0 if own == "weight" and isinstance(made.get_submodule(owner), Linear) else COARSE)


def _coded(values: np.ndarray) -> bytes:
    low = int(values.min())
    counts = np.bincount(values - low)
    kept = zlib.compress(counts.astype("<u4").tobytes(), 9)
    encoder = Encoder()
    encoder.alike(values - low, counts)
    coded = encoder.finish()
    return _GROUP.pack(low, len(counts), len(kept), len(coded)) + kept + coded


def _decoded(packed: bytes, n: int) -> tuple[np.ndarray, bytes]:
    """`n` values, and what follows them."""
    if len(packed) < _GROUP.size:
        raise ValueError("fewer weights than the model has")
    low, size, kept, coded = _GROUP.unpack_from(packed)
    start, end = _GROUP.size + kept, _GROUP.size + kept + coded
    counts = np.frombuffer(zlib.decompressobj().decompress(packed[_GROUP.size : start], 4 * size), "<u4")
    if len(counts) != size or len(packed) < end or abs(low) > BOUND or size < 1:
        raise ValueError("these are no weights")
    return low + Decoder(packed[start:end]).alike(n, counts).astype(np.int64), packed[end:]
