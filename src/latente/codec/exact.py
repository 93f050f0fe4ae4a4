"""Networks of whole numbers, whose results are the same on every machine and in whatever order they are added up.

    weights n 2^-s, activations m 2^-12 (n, m whole)  --products and sums, below 2^53, in float64--> exact --round--> m 2^-12

A floating-point network differs between machines, numbers of threads and batch sizes in its last digits, and one digit is enough to
garble all that an entropy decoder reads after it. Here every number is a whole one, or some eighths of one, that float64 holds exactly,
so nothing is lost in any order of adding up; so is a quotient or a square root of two such numbers, which IEEE 754 rounds one way only.
Linear layers, embeddings, relus (leaky ones of a slope of an eighth) and rms norms are all there is. What a layer gives is kept within
`BOUND`, what it takes within what its own weights allow, so no weights, a stranger's least of all, make a sum that depends on its order.

Since the order does not matter, nor does the kind of number: products of weights of a byte may be those of bytes, which processors made
for neural networks multiply many times as fast, of each `digits` of an activation on its own. They give the same to the last bit.
"""

from __future__ import annotations

import copy
import time
from functools import cache
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
DIGITS = 3  # bytes of an activation
HIGHEST = 127 * (1 + (1 << 8) + (1 << 16))  # that they hold either way
# sums, of a row's weights and of what they make of the highest digits, with which all digits' sums together stay within 32 bits
LIGHT, SMALL = 1 << 15, 1 << 13


class Linear(nn.Module):
    """A linear layer whose weights are whole numbers times a power of two, one for each output, and its inputs whole or in eighths. With
    `columns`, a power of two for each input, they are multiples of that."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    columns: Tensor | None
    most: int
    """of its inputs; larger ones are cut: no sum of products, in part or in all, passes `WHOLE`"""
    bytes: Tensor | None
    """its weights (I,O) int8, where they are such"""

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
        """Finds `most` and `bytes`: to be called when weights have changed."""
        largest, heaviest = int(self.weight.abs().max()), int(self.weight.abs().sum(1).max())
        self.most = WHOLE // max(1, heaviest)
        light = largest < 128 and heaviest <= LIGHT and self.weight.shape[1] > 1  # torch is wrong about a single input
        self.bytes = self.weight.T.to(torch.int8).contiguous() if light else None

    def forward(self, x: Tensor, *higher: Tensor) -> Tensor:
        """(...,I) -> (...,O), whole numbers. Those of a layer of `bytes` may be `digits`, two or three (N,I) int8, the lowest first."""
        return self._of_digits(x, *higher) if higher else self.part(x, slice(None))

    def part(self, x: Tensor, outputs: slice) -> Tensor:
        """(...,I) -> only these of the outputs."""
        if self.most < LARGEST:
            x = x.clamp(-self.most, self.most)
        return self._rounded(F.linear(x, self.weight[outputs]), outputs)

    def _of_digits(self, *digits: Tensor) -> Tensor:
        assert self.bytes is not None
        low, middle, *highest = (torch._int_mm(digit, self.bytes) for digit in digits)
        low.add_(middle, alpha=1 << 8)  # at most 257 * 128 * LIGHT, near 2^30
        for high in highest:
            least, most = high.aminmax()
            if int(least) <= -SMALL or int(most) >= SMALL:
                return self._rounded(low.double().add_(high, alpha=1 << 16), slice(None))
            low.add_(high, alpha=1 << 16)  # below 2^31
        return self._rounded(low.double(), slice(None))

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


def digits(x: Tensor, out: Tensor) -> int:
    """Whole numbers (...), below 2^31, to the base 256, with digits from -128 to 127, the lowest first: into `out` (3,...) int8. Returns
    how many are not all 0, two at least. Raises OverflowError for numbers beyond `HIGHEST`."""
    number = x.to(torch.int32)
    out[0] = number
    for digit in out[1:]:
        digit.copy_(number.add_(128).bitwise_right_shift_(8))
    least, most = map(int, number.aminmax())
    if least < -128 or most > 127:
        raise OverflowError(f"a number beyond {HIGHEST:,}")
    return DIGITS if least or most else DIGITS - 1


def numbers(digits: Tensor) -> Tensor:
    """The whole numbers (...), float64, of `digits` (3,...)."""
    return sum(digit.double() * 256**place for place, digit in enumerate(digits))  # type: ignore[return-value]


@cache
def bytes_pay() -> bool:
    """Whether products of bytes are right here, for some processors cut off the sums of two, and with all digits faster than float64's."""
    if not hasattr(torch, "_int_mm"):
        return False
    draw, best = np.random.default_rng(0), []
    a, b = (torch.from_numpy(draw.choice([-128, 127], shape).astype(np.int8)) for shape in ((1024, 512), (512, 64)))
    wide, weight = a.double(), b.double()
    right = torch.equal(torch._int_mm(a, b).double(), wide @ weight)
    for product in (lambda: [torch._int_mm(a, b) for _ in range(DIGITS)], lambda: wide @ weight):
        timings = []
        for _ in range(3):
            began = time.perf_counter()
            product()
            timings.append(time.perf_counter() - began)
        best.append(min(timings))
    return right and best[0] < 0.7 * best[1]


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
