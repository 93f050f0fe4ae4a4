"""Decisions that depend on time: taken once, after a short warm-up measured on this machine, and written to `run.json`."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from latente.config import Recipe, from_json

STEPS_WORTH_A_SIZE = 4000  # the largest size that gets this many steps (or the model's own `steps_worth`) is chosen
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclass(frozen=True)
class Plan:
    """All that a resume must repeat to compute the same numbers."""

    steps: int
    decay_start: int
    warmup: int
    batch_size: int
    accumulate: int
    precision: str  # "float32" or "bfloat16"
    checkpoint_every: int
    log_every: int
    validation_batches: int
    compile: bool
    threads: int
    processes: int
    stop: str = "never"
    """the rule that may end the training early: judge, loss or never"""
    looks: tuple[int, ...] = ()
    """at which steps the judge looks at samples"""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> Plan:
        return from_json(Plan, record)


def seconds(text: str) -> float:
    """Seconds in "90s", "5m", "1.5h", "1h30m" or "90". Raises ValueError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if not parts or "".join(n + u for n, u in parts) != re.sub(r"\s", "", text.lower()):
        raise ValueError(f"--budget {text!r} is not a time; say 90s, 5m or 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"--budget {text!r} leaves no time; say 90s, 5m or 1h30m")
    return total


def half_precision_pays(device: str, n: int = 512) -> bool:
    """Whether a bfloat16 matrix product is faster than a float32 one: without it, no step can be. `device` "cpu", "cuda", "mps"."""
    if device != "cpu":
        return True
    best = {}
    for kind in (torch.float32, torch.bfloat16):
        a = torch.ones(n, n, dtype=kind)
        torch.mm(a, a)
        timings = []
        for _ in range(3):
            began = time.perf_counter()
            torch.mm(a, a)
            timings.append(time.perf_counter() - began)
        best[kind] = min(timings)
    return best[torch.bfloat16] < best[torch.float32]


def plan(steps: int, recipe: Recipe, *, precision: str, threads: int, processes: int, compile: bool,
         checkpoint_every: int | None, validation_items: int, stop: str = "never", looks: tuple[int, ...] = ()) -> Plan:  # fmt: skip
    """The plan of a training of `steps` steps; takes no clock into account."""
    share = recipe.batch_size / (processes * recipe.accumulate)
    if share != int(share):
        raise ValueError(
            f"batch size {recipe.batch_size} does not divide into {processes} processes x {recipe.accumulate} micro-batches"
        )
    return Plan(
        steps=steps,
        decay_start=steps - round(recipe.decay * steps),
        warmup=round(recipe.warmup * steps),
        batch_size=recipe.batch_size,
        accumulate=recipe.accumulate,
        precision=precision,
        checkpoint_every=checkpoint_every or max(1, -(-steps // 10)),
        log_every=max(1, min(50, steps // 50)),
        validation_batches=max(1, min(16, -(-validation_items // recipe.batch_size))),
        compile=compile,
        threads=threads,
        processes=processes,
        stop=stop,
        looks=looks,
    )


@dataclass(frozen=True)
class Choice:
    """What a measured budget decided. `seconds_per_step` is what the number of steps was computed from."""

    size: str
    precision: str
    recipe: Recipe
    seconds_per_step: float
    threads: int = 0
    """fewer than there are, where these are faster: small operations wait for each other; 0 = as many as before"""


def choose(build: Callable[[str], tuple[nn.Module, Recipe]], sizes: tuple[str, ...], precisions: tuple[str, ...],
           timed: Callable[[nn.Module, Recipe, str, int], float], left: Callable[[], float]) -> Choice:  # fmt: skip
    """Size, precision and seconds per step for the time that `left()` says there is.

    `build(size)` makes a model and its recipe; `timed(model, recipe, precision, steps)` runs that many warm-up steps on a
    throw-away copy and gives seconds per step. Sizes are tried from the largest down, each with a handful of steps.
    """
    chosen = None
    for size in reversed(sizes):
        model, recipe = build(size)
        worth, rates = getattr(model, "steps_worth", STEPS_WORTH_A_SIZE), {}
        for precision in precisions:
            # A thirtieth of the time left is too much for one step; so is ten times what a larger size may take.
            patience = left() / 30 if size == sizes[0] else min(left() / 30, left() * 30 / worth)
            recipe, rates[precision] = _fitting(model, recipe, precision, timed, patience)
            if size != sizes[0] and left() / rates[precision] < worth / 3:
                break  # no other precision makes up for that; time spent on measuring is not spent on training
        # Half precision must earn its place: 5 % is more than a timing's noise.
        precision = min(rates, key=lambda name: rates[name] * (1.05 if name != "float32" else 1.0))
        chosen = Choice(size, precision, recipe, rates[precision])
        if left() / rates[precision] >= worth:
            break
    assert chosen is not None
    return chosen


def fewer_threads(choice: Choice, model: nn.Module, timed: Callable[..., float], threads: int) -> Choice:
    """The choice, with half as many threads, a quarter, ... for as long as that makes its steps faster by a tenth or more."""
    steps = max(4, math.lcm(*(phase.every for phase in model.phases)))  # type: ignore[attr-defined]
    while threads > 1:
        torch.set_num_threads(threads // 2)
        rate = timed(copy.deepcopy(model), choice.recipe, choice.precision, steps)
        if rate > 0.9 * choice.seconds_per_step:
            break
        threads //= 2
        choice = replace(choice, seconds_per_step=rate, threads=threads)
    torch.set_num_threads(threads)
    return choice


def _fitting(
    model: nn.Module, recipe: Recipe, precision: str, timed: Callable[..., float], patience: float
) -> tuple[Recipe, float]:
    """Seconds per step, and the recipe with as many micro-batches as memory asks for.

    Where the first step alone takes longer than `patience` seconds, that is the answer.
    """
    phases: Any = model.phases
    while True:
        try:
            cycle = math.lcm(*(phase.every for phase in phases))  # a lazy phase counts as often as it runs
            first = timed(copy.deepcopy(model), recipe, precision, 1)
            if first > patience:
                return recipe, first
            rate = timed(copy.deepcopy(model), recipe, precision, max(4, cycle))
            if rate * max(4, cycle) < 0.5:
                steps = max(1, min(40, int(0.5 / max(rate, 1e-4))) // cycle) * cycle
                rate = min(rate, timed(copy.deepcopy(model), recipe, precision, steps))
            return recipe, rate
        except (MemoryError, RuntimeError) as error:
            short = isinstance(error, MemoryError) or "memory" in str(error).lower()
            if not short or recipe.batch_size // recipe.accumulate < 2 or recipe.batch_size % (2 * recipe.accumulate):
                raise
            recipe = replace(recipe, accumulate=2 * recipe.accumulate)
