"""Optimisers for a phase's parameters, and the learning-rate schedule as a pure function of the step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from latente.config import Recipe


class AdamW(torch.optim.AdamW):
    """torch's, without what its `step` and two methods are wrapped in for torch.compile: their first call imports the compiler, which
    takes two seconds, and no optimiser is compiled here."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return _adamw_step(self, closure)


_adamw_step: Any = inspect.unwrap(torch.optim.AdamW.step)
for _method in (Optimizer.add_param_group, Optimizer.zero_grad):
    _plain = getattr(_method, "__wrapped__", _method)
    setattr(_plain, "__dynamo_disable", _plain)  # what torch/_compile.py calls in its place


def multiplier(step: int, warmup: int, decay_start: int, steps: int) -> float:
    """The share of the peak rate used at `step` (0-based): linear rise, constant, linear fall to zero just past the last step."""
    rise = (step + 1) / warmup if step < warmup else 1.0
    fall = (steps - step) / (steps - decay_start) if step >= decay_start and steps > decay_start else 1.0
    return max(0.0, min(rise, fall, 1.0))


def moved(step: int, steps: int, decay_start: int, new_steps: int) -> int:
    """Where the fall starts once a run of `steps` is to end at `new_steps`: it continues from the rate in force at `step`."""
    now = multiplier(step, 0, decay_start, steps)
    if now >= 1.0:
        return max(step, new_steps - round(new_steps * (steps - decay_start) / steps))
    return new_steps - round((new_steps - step) / max(now, 1e-6))


def whole(value: Tensor) -> Tensor:
    """All of a tensor whose parts lie with several processes (every process has to ask); any other tensor as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[operator]


def parted(value: Tensor, like: Tensor) -> Tensor:
    """The inverse of `whole`: `value`, which every process holds, divided as `like` is."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


class Muon(Optimizer):
    """Momentum, then the nearest (semi-)orthogonal matrix in place of it (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    The update of torch.optim.Muon, with matrices of one shape taken together, and in the precision of the training: torch's
    goes through them one by one and always in bfloat16, which costs more than the training step itself on a processor
    without bfloat16 units. `lr` is per matrix scaled by sqrt(max(1, rows / columns)).
    """

    def __init__(
        self, params: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95, half: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.half = half

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
                for p in parameters:
                    if "momentum_buffer" not in self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                moments = [self.state[p]["momentum_buffer"] for p in parameters]
                weights: list[Tensor] = list(parameters)
                torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, moments, group["momentum"])  # Nesterov
                full = torch.stack([whole(matrix) for matrix in ahead])
                updates = orthogonal(full.bfloat16() if self.half else full).to(full.dtype)
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(weights, [parted(u, p) for u, p in zip(updates, weights)], alpha=-rate)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N,R,C) -> (N,R,C): singular values are all brought near 1 (to 0.7 .. 1.2) by a quintic Newton-Schulz iteration."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x if wide is matrices else x.mT


def build(
    parameters: dict[str, nn.Parameter], muon: set[str], recipe: Recipe, half: bool = False
) -> dict[str, Optimizer]:
    """AdamW for `parameters`, and Muon for those named in `muon` (2-D hidden matrices). Keys "adamw", "muon"."""
    hidden = {n: p for n, p in parameters.items() if n in muon}
    assert all(p.ndim == 2 for p in hidden.values()), "Muon takes matrices"
    rest = [p for n, p in parameters.items() if n not in muon]
    decays = [p for p in rest if p.ndim >= 2]
    plain = [p for p in rest if p.ndim < 2]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    made: dict[str, Optimizer] = {}
    if rest:
        made["adamw"] = AdamW(
            [g for g in groups if g["params"]],
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            eps=1e-8,
            fused=True,
        )
    if hidden:
        made["muon"] = Muon(list(hidden.values()), recipe.muon_learning_rate, recipe.weight_decay, half=half)
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made
