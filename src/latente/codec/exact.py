"""Networks of whole numbers, whose results are the same on every machine and in whatever order they are added up.

    weights n 2^-s, activations m 2^-12 (n, m whole)  --products and sums, below 2^53, in float64--> exact --round--> m 2^-12

A floating-point network differs between machines, numbers of threads and batch sizes in its last digits, and one digit is enough to
garble all that an entropy decoder reads after it. Here every number is a whole one, or some eighths of one, that float64 holds exactly,
so nothing is lost in any order of adding up; so is a quotient or a square root of two such numbers, which IEEE 754 rounds one way only.
Linear layers, embeddings, relus (leaky ones of a slope of an eighth) and rms norms are all there is. What a layer gives is kept within
`BOUND`, what it takes within what its own weights allow, so no weights, a stranger's least of all, make a sum that depends on its order.

Most numbers are far smaller than float64 can hold, so two may be held as one, and a layer's products of both are had for those of one:

    x + 2^27 y --weights--> s + 2^27 t --round(. / 2^27)--> t --> s        as long as |s| and |t| stay below 2^26
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.codec.coding import FRACTION

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
SPREAD = 8  # of the steps of a layer's columns: the largest is 2^SPREAD of the smallest, at most
APART = 27  # bits between two whole numbers that are held as one
REACH = 0.999 * 2.0 ** (53 - APART)  # of each of the two


class Linear(nn.Module):
    """A linear layer whose weights are whole numbers times a power of two, one for each output, and its inputs whole or in eighths. With
    `columns`, a power of two for each input, they are multiples of that."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    columns: Tensor | None
    most: int
    """of its inputs; larger ones are cut: no sum of products, in part or in all, passes `WHOLE`"""
    reach: float
    """square of the Euclidean length of an input up to which no sum of products, in part or in all, passes `REACH`"""

    def __init__(self, layer: nn.Linear, bits: int, shifts: tuple[Tensor, Tensor] | None = None) -> None:
        """`shifts`: a weight is a multiple of 2^(column - row); else as fine as `bits` allow for the largest of a row."""
        super().__init__()
        weight, most = layer.weight.detach().double().numpy(), 2.0 ** (bits - 1)
        rows, columns = (
            (np.zeros(1, np.int64),) * 2 if shifts is None else (shift.long().cpu().numpy() for shift in shifts)
        )
        # frexp and ldexp are the same to the last bit on every machine; logarithms and powers need not be.
        if shifts is None:
            rows = np.frexp((most - 1) / np.abs(weight).max(1).clip(2.0**-20))[1] - 1
        shift = rows.clip(*SHIFTS)
        numbers = np.round(np.ldexp(weight, shift[:, None] - columns)).clip(-most, most)
        self.register_buffer("weight", torch.from_numpy(np.ldexp(numbers, columns)))
        self.register_buffer("columns", None if shifts is None else torch.from_numpy(columns))
        self.register_buffer("bias", whole(torch.zeros(len(weight)) if layer.bias is None else layer.bias))
        self.register_buffer("scale", torch.from_numpy(np.ldexp(1.0, -shift)))
        self.bounded()

    def bounded(self) -> None:
        """Finds `most` and `reach`: to be called when weights have changed."""
        self.most = WHOLE // max(1, int(self.weight.abs().sum(1).max()))
        self.reach = REACH**2 / max(1.0, float(self.weight.square().sum(1).max())) if self.most >= LARGEST else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(...,I) -> (...,O), whole numbers."""
        return self.part(x, slice(None))

    def part(self, x: Tensor, outputs: slice) -> Tensor:
        """(...,I) -> only these of the outputs."""
        if self.most < LARGEST:
            x = x.clamp(-self.most, self.most)
        return self._rounded(F.linear(x, self.weight[outputs]), outputs)

    def in_pairs(self, x: Tensor) -> Tensor:
        """`forward` of whole numbers (N,I), sooner where most are within `reach`."""
        try:
            lengths = self.squares(x)
            return self.of_pairs(self.paired(x, lengths), lengths)
        except OverflowError:
            return self(x)

    def of_pairs(self, x: Tensor, squares: Tensor) -> Tensor:
        """What `forward` makes (N,O) of whole numbers, `paired` (N/2,I), whose lengths have these `squares` (N,). Raises OverflowError
        where too many are beyond `reach` for this to pay."""
        half, n = len(x), len(squares)
        far = squares[:half] > self.reach
        far[: n - half] |= squares[half:] > self.reach
        rows = far.nonzero()[:, 0]
        if 2 * len(rows) > half:
            raise OverflowError("too many numbers are too large for two to be held as one")
        found = self.apart(F.linear(x, self.weight))
        if len(rows):
            found.view(2, half, -1)[:, rows] = F.linear(self.apart(x[rows]), self.weight).view(2, len(rows), -1)
        return self._rounded(found[:n], slice(None))

    @staticmethod
    def squares(x: Tensor) -> Tensor:
        """Those of the lengths of vectors (N,I), (N,)."""
        return torch.linalg.vector_norm(x, dim=1).square_()

    @staticmethod
    def paired(x: Tensor, squares: Tensor) -> Tensor:
        """Whole numbers (N,I), whose lengths have these `squares`, as half as many (N/2,I), rounded up: each holds one of either half.
        Raises OverflowError where one may be beyond `REACH`."""
        if squares.max() > REACH**2:
            raise OverflowError("a number is too large to be held with another")
        half = (len(x) + 1) // 2
        found = x[:half].clone()
        found[: len(x) - half].add_(x[half:], alpha=1 << APART)
        return found

    @staticmethod
    def apart(pairs: Tensor) -> Tensor:
        """The whole numbers (2N,...) that `paired` ones (N,...) hold."""
        n, found = len(pairs), pairs.new_empty(2 * len(pairs), *pairs.shape[1:])
        torch.mul(pairs, 2.0**-APART, out=found[n:]).round_()
        torch.sub(pairs, found[n:], alpha=1 << APART, out=found[:n])
        return found

    def _rounded(self, sums: Tensor, outputs: slice) -> Tensor:
        return sums.mul_(self.scale[outputs]).round_().clamp_(-BOUND, BOUND).add_(self.bias[outputs])


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
    """A copy of a model whose linear layers hold weights of so many bits; or as fine as the model's `shifts`, if it has any, says for so
    many, of a layer's name. Raises ValueError for a model with other layers, wider norms or numbers that are not finite."""
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError("some weights of this model are no finite numbers")
    made = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    fine: Any = getattr(model, "fine", ())
    shifts: Any = getattr(model, "shifts", lambda name, bits: None)
    made.graded = False  # type: ignore[assignment]
    for name, module in list(made.named_modules()):
        new = None
        if isinstance(module, nn.Linear):
            given = shifts(name, bits)
            new = Linear(module, (max(bits, FINE) if name in fine else bits) if given is None else MOST_BITS, given)
            made.graded |= given is not None  # type: ignore[operator]
        elif isinstance(module, nn.Embedding):
            new = Embedding(module)
        elif isinstance(module, nn.RMSNorm) and not module.elementwise_affine:
            new = RMSNorm(module.normalized_shape[-1])
        if new is not None:
            parent, _, own = name.rpartition(".")
            setattr(made.get_submodule(parent), own, new)
    made.one = 2**FRACTION  # type: ignore[assignment]  # what stands for 1
    made.bits = MOST_BITS if made.graded else max(bits, FINE) if fine else bits  # type: ignore[assignment]
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
