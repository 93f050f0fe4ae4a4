"""Typed settings: how a family is trained by default (`Recipe`), and how dataclasses are read from JSON and flags."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

Size = Literal["tiny", "small", "base"]
SIZES: tuple[Size, ...] = ("tiny", "small", "base")

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How a family is trained unless a flag says otherwise. Each model file states its own as `Model.recipe`."""

    batch_size: int = 128
    """items a step, over all processes and accumulated micro-batches"""
    accumulate: int = 1
    """micro-batches a step is split into, to fit memory"""
    learning_rate: float = 1e-3
    """peak step size of AdamW"""
    muon_learning_rate: float = 0.02
    """peak step size of Muon, for the matrices a model gives to it"""
    beta1: float = 0.9
    """AdamW's decay of the gradient mean"""
    beta2: float = 0.99
    """AdamW's decay of the squared-gradient mean"""
    weight_decay: float = 0.0
    """decoupled weight decay, on tensors of two or more dimensions"""
    clip: float = 1.0
    """largest gradient norm of a phase; 0 = no clipping"""
    ema: float = 0.999
    """decay per step of the averaged weights that validate and sample; 0 = none"""
    warmup: float = 0.02
    """share of the steps in which the rate rises from zero"""
    decay: float = 0.3
    """share of the steps, at the end, in which the rate falls linearly to zero"""

    def __post_init__(self) -> None:
        for names, holds, says in (
            (("batch_size", "accumulate"), lambda v: v >= 1, "at least 1"),
            (("learning_rate", "muon_learning_rate"), lambda v: 0 < v < float("inf"), "above 0"),
            (("beta1", "beta2", "ema"), lambda v: 0 <= v < 1, "from 0 to below 1"),
            (("weight_decay", "clip"), lambda v: 0 <= v < float("inf"), "at least 0"),
            (("warmup", "decay"), lambda v: 0 <= v <= 1, "from 0 to 1"),
        ):
            for name in names:
                if not holds(getattr(self, name)):
                    raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: {says}")


def merge(base: T, overrides: dict[str, Any]) -> T:
    """`base` (a frozen dataclass) with the given fields; None means "not given". Raises ValueError for an unknown key."""
    known = {f.name for f in fields(base)}  # type: ignore[arg-type]
    unknown = set(overrides) - known
    if unknown:
        raise ValueError(
            f"unknown {type(base).__name__} setting {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
        )
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items() if v is not None}
    return type(base)(**{**{name: getattr(base, name) for name in known}, **given})


def from_json(kind: type[T], record: dict[str, Any]) -> T:
    """A dataclass from a JSON object that must name exactly known fields. Raises ValueError otherwise."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = set(record) - known
    if unknown:
        raise ValueError(
            f"unknown {kind.__name__} setting {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
        )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})
