"""What a model tells the engine about its training: phases, and the losses of one step of a phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """One optimisation target inside a training step.

    name      what `Model.forward` is told
    modules   the top-level sub-modules it trains, () = the whole model; phases naming the same modules share an optimiser.
              The parameters of all others are frozen while it runs
    every     it runs on steps divisible by this (a lazy penalty: every=4)
    float32   run without autocast and never compiled (gradient penalties differentiate twice)
    """

    name: str
    modules: tuple[str, ...] = ()
    every: int = 1
    float32: bool = False


class Losses(NamedTuple):
    """`total` is minimised; `terms` are named scalars for the log, detached by the engine. All are means over the batch."""

    total: Tensor
    terms: dict[str, Tensor]
