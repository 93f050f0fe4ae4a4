"""Optimisers for a phase's parameters, and the learning-rate schedule as a pure function of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latente.config import Recipe

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def multiplier(step: int, warmup: int, decay_start: int, steps: int) -> float:
    """The share of the peak rate used at `step` (0-based): linear rise, constant, linear fall to zero just past the last step."""
    rise = (step + 1) / warmup if step < warmup else 1.0
    fall = (steps - step) / (steps - decay_start) if step >= decay_start and steps > decay_start else 1.0
    return max(0.0, min(rise, fall, 1.0))


def brought_forward(step: int, steps: int, decay_start: int, new_steps: int) -> int:
    """Where the fall starts once a run of `steps` must end at `new_steps`: it continues from the rate in force at `step`."""
    now = multiplier(step, 0, decay_start, steps)
    if now >= 1.0:
        return max(step, new_steps - (steps - decay_start))
    return new_steps - round((new_steps - step) / max(now, 1e-6))


def build(parameters: dict[str, nn.Parameter], muon: set[str], recipe: Recipe) -> dict[str, Optimizer]:
    """AdamW for `parameters`, and torch's Muon for those named in `muon` (2-D hidden matrices). Keys "adamw", "muon"."""
    import torch

    hidden = {n: p for n, p in parameters.items() if n in muon}
    assert all(p.ndim == 2 for p in hidden.values()), "Muon takes matrices"
    rest = [p for n, p in parameters.items() if n not in muon]
    decays = [p for p in rest if p.ndim >= 2]
    plain = [p for p in rest if p.ndim < 2]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    made: dict[str, Optimizer] = {}
    if rest:
        made["adamw"] = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            eps=1e-8,
            fused=True,
        )
    if hidden:
        made["muon"] = torch.optim.Muon(
            list(hidden.values()),
            lr=recipe.muon_learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="original",
        )
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made
