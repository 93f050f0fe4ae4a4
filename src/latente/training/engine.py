"""The one training loop. It knows phases, not families.

A step: one batch from the data; for every phase that is due, the model's losses, their gradients on that phase's
parameters alone, the phase's optimisers; then the averaged weights. Every random draw is keyed by (seed, step, phase) and
made for the global batch, so an interrupted run and a run on two processes see what one uninterrupted process saw.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from latente import checkpoint, optim
from latente.config import Recipe
from latente.phases import Losses, Phase
from latente.rng import key, keyed
from latente.training import devices, stopping
from latente.training.budget import Plan
from latente.training.stopping import Diverged, Interrupted, Signals

Batch = dict[str, Tensor]
Look = Callable[[nn.Module, int, int], stopping.Look]
"""Judges the samples of a model at a step, the how-manieth look it is"""
COOLING = 0.25  # of the steps done: how many more a training winds up in, its rate falling to zero


class Source(Protocol):
    """What the loop asks of a dataset."""

    splits: dict[str, np.ndarray]

    def order(self, seed: int, epoch: int) -> np.ndarray: ...
    def batch(self, indices: np.ndarray) -> Batch: ...


class Watcher(Protocol):
    """What follows a training and is told about it (a progress bar, a log, a tracker, a picture of samples)."""

    def step(self, step: int, steps: int, items: int) -> None: ...
    def record(self, record: dict[str, Any]) -> None: ...
    def saved(self, step: int, averaged: nn.Module) -> None: ...


class Trainer:
    """A model in training: its optimisers, averaged weights and position. `fit` runs it to the plan's end."""

    def __init__(self, fabric: Any, model: nn.Module, data: Source, recipe: Recipe, plan: Plan, seed: int,
                 look: Look | None = None) -> None:  # fmt: skip
        """`fabric` as `devices.fabric` makes it; `look` judges samples, on the first process alone."""
        self.fabric, self.data, self.recipe, self.plan, self.seed, self.look = fabric, data, recipe, plan, seed, look
        self.step, self.lr_scale, self.best, self.stale = 0, 1.0, float("inf"), 0
        self.timed = 0, 0.0  # steps and seconds since the end was last compared with the deadline
        self.looks: list[stopping.Look] = []
        self.judged = 0  # looks in all, those before a roll-back too: each has spent its part of alpha
        self.since = 0  # how many looks there were when training was last made longer
        self.ending: str | None = None  # why training ends, once a rule has decided that it does
        model = model.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: Any = model
        self.averaged: Any = copy.deepcopy(model).eval().requires_grad_(False) if recipe.ema else model
        self.phases: tuple[Phase, ...] = self.model.phases
        # Sharding replaces the parameters by their parts, which are what the optimisers are to know.
        self.module: Any = fabric.setup_module(model) if plan.processes > 1 else model
        self.owned = {phase.name: self._owned(phase) for phase in self.phases}
        muon = set(self.model.muon_parameters()) if hasattr(self.model, "muon_parameters") else set()
        groups = {phase.modules: self.owned[phase.name] for phase in self.phases}
        self.optimizers = {
            "+".join(modules) or "all": optim.build(named, muon, recipe, plan.precision == "bfloat16")
            for modules, named in groups.items()
        }
        self.compiled = torch.compile(self.module) if plan.compile else self.module
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @property
    def why(self) -> str:
        """Why training ended, and, where samples were looked at, which step is kept."""
        said = self.ending or "all steps done"
        if not self.looks:
            return said
        found = stopping.best(self.looks)
        said = f"{said}; step {found.step:,} is kept ({found})"
        return (
            said
            if self.looks[-1].enough
            else f"{said}; too few held-out items to say when samples cannot be told apart"
        )

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters())

    def _owned(self, phase: Phase) -> dict[str, nn.Parameter]:
        """The parameters a phase trains, by name."""
        prefixes = tuple(f"{module}." for module in phase.modules)
        named = {
            n: p
            for n, p in self.model.named_parameters()
            if p.requires_grad and (not prefixes or n.startswith(prefixes))
        }
        if not named:
            raise ValueError(f"phase {phase.name!r} of this model owns no parameters")
        return named

    # ---- one step -------------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch) -> None:
        """One step on this process's share of the global batch: (accumulate * b) items, micro-batch by micro-batch."""
        scale = self.lr_scale * optim.multiplier(self.step, self.plan.warmup, self.plan.decay_start, self.plan.steps)
        for phase in self.phases:
            if self.step % phase.every:
                continue
            self.backward(batch, phase)
            if self.recipe.clip:
                norm = torch.nn.utils.clip_grad_norm_(self.owned[phase.name].values(), self.recipe.clip)
                self._count(f"{phase.name}/gradient_norm", optim.whole(norm))
            for optimizer in self.optimizers["+".join(phase.modules) or "all"].values():
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * scale
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.averaged is not self.model:
            weight = 1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), weight)

    def backward(self, batch: Batch, phase: Phase) -> None:
        """The gradients of one phase's loss, on the parameters it owns; averaged over the processes."""
        plan = self.plan
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.owned[phase.name])
        generator = keyed(self.seed, "noise", self.step, phase.name)
        noise = self.model.noise(plan.batch_size, phase.name, generator) if hasattr(self.model, "noise") else {}
        noise = {name: self._share(drawn) for name, drawn in noise.items()}
        size = plan.batch_size // (plan.processes * plan.accumulate)
        run = self.module if phase.float32 else self.compiled
        for micro in range(plan.accumulate):
            part = {
                n: t[micro * size : (micro + 1) * size].to(self.fabric.device) for n, t in {**batch, **noise}.items()
            }
            last = micro == plan.accumulate - 1
            with self._unsynced(not last), self._autocast(phase):
                torch.manual_seed(key(self.seed, "layers", self.step, phase.name, micro, self.fabric.global_rank))
                losses: Losses = run(part, phase.name, self.step / plan.steps)
            with self._unsynced(not last):
                (losses.total / plan.accumulate).backward()
            for name, term in losses.terms.items():
                self._count(f"{phase.name}/{name}", term)
            self._count(f"{phase.name}/total", losses.total)

    def _share(self, drawn: Tensor) -> Tensor:
        """This process's rows of something made for the global batch: its part of every micro-batch, in order."""
        plan = self.plan
        if plan.processes == 1:
            return drawn
        rows = drawn.unflatten(0, (plan.accumulate, plan.processes, -1))
        return rows[:, self.fabric.global_rank].flatten(0, 1)

    def _unsynced(self, enabled: bool) -> contextlib.AbstractContextManager[Any]:
        if self.plan.processes == 1 or not enabled:
            return contextlib.nullcontext()
        return self.fabric.no_backward_sync(self.module)

    def _autocast(self, phase: Phase | None = None) -> contextlib.AbstractContextManager[Any]:
        half = self.plan.precision == "bfloat16" and not (phase and phase.float32)
        return torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=half)

    def _count(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def _pool_sums(self) -> None:
        """Running sums become their mean over the processes, on every process."""
        if self.plan.processes > 1 and self.sums:
            pooled: Any = self.fabric.all_reduce(torch.stack(list(self.sums.values())), reduce_op="mean")
            self.sums = dict(zip(self.sums, pooled.unbind()))

    # ---- data -----------------------------------------------------------------------------------------------------

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the batches of steps start..stop-1; one is prepared while one is used.

        The order of items is one shuffle of the training split after another, each keyed by its epoch, cut into batches.
        """
        count, size = len(self.data.splits["train"]), self.plan.batch_size
        shuffles: dict[int, np.ndarray] = {}

        def indices(step: int) -> np.ndarray:
            places = np.arange(step * size, (step + 1) * size)
            epochs = places // count
            for epoch in [old for old in shuffles if old < epochs[0]]:
                del shuffles[epoch]
            for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
                if epoch not in shuffles:
                    shuffles[epoch] = self.data.order(self.seed, epoch)
            order = np.concatenate([shuffles[int(e)][places[epochs == e] % count] for e in np.unique(epochs)])
            return self._share(torch.from_numpy(order)).numpy()

        with ThreadPoolExecutor(1) as worker:
            pending = worker.submit(lambda: self.data.batch(indices(start)))
            for step in range(start, stop):
                ready = pending.result()
                if step + 1 < stop:
                    pending = worker.submit(lambda following=step + 1: self.data.batch(indices(following)))
                yield ready

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the first validation batches, by the averaged weights; the same items and draws every time."""
        model, items = self._evaluated(), self.data.splits["validation"]
        totals: dict[str, float] = {}
        seen = 0
        for number in range(self.plan.validation_batches):
            chosen = items[number * self.plan.batch_size : (number + 1) * self.plan.batch_size]
            if not len(chosen):
                break
            batch = {n: t.to(self.fabric.device) for n, t in self.data.batch(chosen).items()}
            with self._autocast():
                figures = validate_batch(model, batch, keyed(self.seed, "validation", number))
            for name, value in figures.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(chosen)
            seen += len(chosen)
        return {name: total / seen for name, total in totals.items()}

    def _evaluated(self) -> Any:
        if self.averaged is not self.model:
            for mine, theirs in zip(self.averaged.buffers(), self.model.buffers()):
                mine.copy_(theirs)
        return self.averaged.eval()

    # ---- saving ---------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that trains, by checkpoint file and name."""
        named = {"model": self.model.state_dict(), "optimizer": {}}
        if self.averaged is not self.model:
            named["ema"] = self._evaluated().state_dict()
        for modules, name, parameter, optimizer in self._states():
            for what, value in optimizer.state.get(parameter, {}).items():
                named["optimizer"][f"{modules}/{name}/{what}"] = value
        return {stem: {name: optim.whole(value) for name, value in part.items()} for stem, part in named.items()}

    def _states(self) -> Iterator[tuple[str, str, nn.Parameter, torch.optim.Optimizer]]:
        for phase in {p.modules: p for p in self.phases}.values():
            modules = "+".join(phase.modules) or "all"
            names = {id(p): n for n, p in self.owned[phase.name].items()}
            for kind, optimizer in self.optimizers[modules].items():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        yield f"{modules}/{kind}", names[id(parameter)], parameter, optimizer

    def save(self, path: Path, metrics: checkpoint.Metrics | None, best: bool) -> None:
        """Writes a checkpoint (the first process does; the others wait for it)."""
        self._pool_sums()
        tensors = self.tensors() if self.fabric.is_global_zero or self.sharded else {}
        if self.fabric.is_global_zero and metrics is not None:
            state = {
                "metrics_offset": metrics.offset(), "lr_scale": self.lr_scale, "best": self.best, "stale": self.stale,
                "looks": [asdict(look) for look in self.looks], "judged": self.judged, "since": self.since,
                "ending": self.ending, "plan": self.plan.to_json(),
                "sums": {n: float(v) for n, v in self.sums.items()}, "counts": self.counts,
            }  # fmt: skip
            checkpoint.save(path, self.step, tensors, state, best)
        self.fabric.barrier()

    def load(self, path: Path, which: str = "last") -> int:
        """Takes up the last (or best) checkpoint; gives the offset at which metrics.jsonl goes on."""
        state = checkpoint.read_state(path, which)
        self.step, self.lr_scale, self.best = state["step"], state["lr_scale"], state["best"]
        self.stale, self.since, self.ending = state.get("stale", 0), state.get("since", 0), state.get("ending")
        self.looks = [stopping.Look(**look) for look in state.get("looks", ())]
        self.judged = state.get("judged", len(self.looks))
        self.plan = Plan.from_json(state["plan"])
        self.sums = {n: torch.tensor(v, device=self.fabric.device) for n, v in state["sums"].items()}
        self.counts = state["counts"]
        own = self.model.state_dict()
        read = checkpoint.read_tensors(path, which, "model")
        self.model.load_state_dict({name: optim.parted(value, own[name]) for name, value in read.items()})
        if self.averaged is not self.model:
            self.averaged.load_state_dict(checkpoint.read_tensors(path, which, "ema"))
        saved = checkpoint.read_tensors(path, which, "optimizer")
        for modules, name, parameter, optimizer in self._states():
            prefix = f"{modules}/{name}/"
            for full in [n for n in saved if n.startswith(prefix)]:
                value = saved[full]
                if value.shape == parameter.shape:  # fused kernels walk state and parameter in one memory order
                    value = torch.empty_like(parameter, dtype=value.dtype).copy_(optim.parted(value, parameter))
                optimizer.state[parameter][full.removeprefix(prefix)] = value
        return state["metrics_offset"]

    # ---- the whole run --------------------------------------------------------------------------------------------

    def fit(
        self, path: Path, watchers: list[Watcher], deadline: float | None = None, longer: Plan | None = None
    ) -> None:
        """Trains to the plan's last step. `deadline` (time.monotonic) may move that step, at a checkpoint; `longer` is the
        plan that replaces the checkpoint's when a run is extended.

        Raises Interrupted (saved) on a signal to end, and Diverged when losses stop being finite a second time.
        """
        start = copy.deepcopy(self.model.state_dict()) if not checkpoint.index(path) else None
        offset = self.load(path) if start is None else 0
        if longer:
            self.plan, self.ending, self.stale, self.since = longer, None, 0, len(self.looks)
        metrics = checkpoint.Metrics(path, offset) if self.fabric.is_global_zero else None
        with Signals() as signals:
            while self.step < self.plan.steps:
                done = self._until_checkpoint(path, metrics, watchers, signals, deadline)
                if not done:
                    self._roll_back(path, metrics, start)
        if metrics is not None:
            metrics.close()

    def _until_checkpoint(self, path: Path, metrics: checkpoint.Metrics | None, watchers: list[Watcher], signals: Signals,
                          deadline: float | None) -> bool:  # fmt: skip
        """Trains to the next checkpoint and writes it. False when the numbers are no longer finite."""
        plan, first, began = self.plan, self.step, time.monotonic()
        stop = min(plan.steps, (first // plan.checkpoint_every + 1) * plan.checkpoint_every)
        stop = min([stop, *(look for look in plan.looks if look > first)])
        self.model.train()  # where nothing is averaged, it is also what was validated and sampled from
        for batch in self.batches(first, stop):
            self.train_step(batch)
            for watcher in watchers:
                watcher.step(self.step, plan.steps, plan.batch_size)
            if self.step % plan.log_every == 0 and not self._log(metrics, watchers):
                return False
            if self._any(signals.arrived):
                self.save(path, metrics, best=False)
                raise Interrupted(path, self.step)
        if not self._finite():
            return False
        events: list[dict[str, Any]] = []
        best, record = self._held_out(events)
        devices.give_back()
        looked = time.monotonic()
        self.timed = self.timed[0] + self.step - first, self.timed[1] + looked - began
        if plan.stop == "judge":
            best = not self.looks  # until a look says which is
        if plan.stop == "judge" and (self.step in plan.looks or self.step == plan.steps):
            best = self._judge(events)
            seen = self.looks[-1]
            record = {
                "step": self.step,
                "validation/judge_auc": seen.auc,
                "validation/distance": seen.distance,
                **record,
            }
            if self.ending is None and stopping.collapsed(self.looks):
                for event in (record, self._back_to_best(path)):
                    self._note(event, metrics)
                return True
        enough = 2 * self.timed[0] >= plan.checkpoint_every  # a few steps between two looks tell little about the rate
        if deadline is not None and enough and self.step < self.plan.steps:
            reserve = (time.monotonic() - looked) * sum(look > self.step for look in plan.looks)
            moved = self._meet(deadline - reserve, self.timed[1] / self.timed[0])
            events += [moved] if moved else []
            self.timed = 0, 0.0
        for event in (record, *events):
            self._note(event, metrics)
        self.save(path, metrics, best)
        if self.fabric.is_global_zero:
            for watcher in watchers:
                watcher.record(record)
                watcher.saved(self.step, self.averaged)
        return True

    def _note(self, record: dict[str, Any], metrics: checkpoint.Metrics | None) -> None:
        if metrics is not None:
            metrics.write(record)

    def _held_out(self, events: list[dict[str, Any]]) -> tuple[bool, dict[str, Any]]:
        """Whether the held-out figures are the best so far (where none counts: always), and their record."""
        figures = self.validate()
        monitor = self.model.monitor
        best = True
        if monitor is not None:
            best = figures[monitor] <= self.best  # of two that are alike, the one that was trained longer
            self.stale = 0 if figures[monitor] < self.best else self.stale + 1
            self.best = min(figures[monitor], self.best)
        if self.plan.stop == "loss" and self.stale >= stopping.PATIENCE and self.step < self.plan.steps:
            figure = "loss" if monitor == "total" else str(monitor).replace("_", " ")
            why = f"held-out {figure} was no better for {self.stale} checkpoints; the best one is kept"
            self._end(why, self.step, events)
        return best, {"step": self.step, **{f"validation/{n}": v for n, v in figures.items()}}

    def _judge(self, events: list[dict[str, Any]]) -> bool:
        """Looks at samples and decides for every process what follows. Whether they are the best so far."""
        self.judged += 1
        mine = self.look(self._evaluated(), self.step, self.judged) if self.look else None
        seen = self.fabric.broadcast(mine)
        self.looks.append(seen)
        found, last = stopping.best(self.looks), self.step >= self.plan.steps
        if stopping.told_apart_no_more(self.looks):
            why = f"real and fake can no longer be told apart ({seen}; surely below {seen.bound:.3f})"
            self._end(why, self.step, events)
        elif stopping.collapsed(self.looks) and (last or self.lr_scale < 1):
            self._end(f"samples collapsed ({seen})", self.step, events)
        elif not last and self.ending is None and stopping.no_better(self.looks, self.since):
            why = f"{stopping.PATIENCE} looks brought nothing better than step {found.step:,} ({found})"
            self._end(why, min(self.plan.steps, self.step + max(1, round(COOLING * self.step))), events)
        return found is seen

    def _end(self, why: str, end: int, events: list[dict[str, Any]]) -> None:
        """Training ends at step `end`, its rate falling to zero until then."""
        steps, self.ending = self.plan.steps, why
        decay_start = min(end, optim.moved(self.step, steps, self.plan.decay_start, end))
        looks = (end,) if self.plan.looks else ()
        self.plan = replace(self.plan, steps=end, decay_start=decay_start, looks=looks)
        events.append({"step": self.step, "event": "ending", "why": why, "from": steps, "to": end})

    def _back_to_best(self, path: Path) -> dict[str, Any]:
        """After samples collapsed: the best checkpoint again, at half the rate. What to note about it."""
        where, plan, judged = self.step, self.plan, self.judged
        self.load(path, "best")
        self.plan, self.judged, self.lr_scale = plan, judged, 0.5
        return {"step": where, "event": "rolled back", "why": "samples collapsed", "to": self.step, "lr_scale": 0.5}

    def _log(self, metrics: checkpoint.Metrics | None, watchers: list[Watcher]) -> bool:
        self._pool_sums()
        record = {"step": self.step, **{n: float(v) / self.counts[n] for n, v in self.sums.items()}}
        self.sums, self.counts = {}, {}
        if not all(np.isfinite(v) for v in record.values()):
            return False
        if metrics is not None:
            metrics.write(record)
            for watcher in watchers:
                watcher.record(record)
        return True

    def _finite(self) -> bool:
        norms = torch.stack([optim.whole(norm) for norm in torch._foreach_norm(list(self.model.parameters()))])
        finite = bool(torch.isfinite(norms).all()) and all(np.isfinite(float(v)) for v in self.sums.values())
        return not self._any(not finite)

    def _any(self, flag: bool) -> bool:
        """Whether the flag is up on any process; all must agree where to stop."""
        if self.plan.processes == 1:
            return flag
        flags: Any = self.fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum")
        return bool(flags > 0)

    def _meet(self, deadline: float, seconds_per_step: float) -> dict[str, Any] | None:
        """Moves the end to where the deadline will be; the only decision a clock takes in mid-run."""
        steps = self.plan.steps
        left = self.fabric.broadcast(max(1, int((deadline - time.monotonic()) / seconds_per_step)))
        end = self.step + left
        if end > steps:
            end = steps + int(0.9 * (end - steps))  # too early costs less than too late
        if steps * 0.98 <= end <= steps * 1.05 or (self.ending and end > steps):
            return None
        decay_start = min(end, optim.moved(self.step, steps, self.plan.decay_start, end))
        self.plan = replace(self.plan, steps=end, decay_start=decay_start)
        return {"step": self.step, "event": "end moved", "from": steps, "to": end, "decay_start": decay_start}

    def _roll_back(self, path: Path, metrics: checkpoint.Metrics | None, start: dict[str, Tensor] | None) -> None:
        """Back to the last checkpoint (or the beginning) at half the rate; a second time is the end."""
        where = self.step
        if self.lr_scale < 1:
            raise Diverged(
                f"losses stopped being finite at step {where}, also at half the learning rate; lower --learning-rate"
            )
        if checkpoint.index(path):
            self.load(path)
        else:
            assert start is not None
            self.model.load_state_dict(start)
            self.averaged.load_state_dict(start)
            for _, _, parameter, optimizer in self._states():
                optimizer.state.pop(parameter, None)
            self.step, self.sums, self.counts = 0, {}, {}
        self.lr_scale = 0.5
        if metrics is not None:
            metrics.write({"step": where, "event": "rolled back", "to": self.step, "lr_scale": self.lr_scale})


def validate_batch(model: Any, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """A model's figures on held-out data: its own `validate`, or else the terms of its first phase."""
    if hasattr(model, "validate"):
        return model.validate(batch, generator)
    phase = model.phases[0].name
    drawn = model.noise(len(next(iter(batch.values()))), phase, generator) if hasattr(model, "noise") else {}
    losses = model({**batch, **{n: t.to(next(model.parameters()).device) for n, t in drawn.items()}}, phase, 1.0)
    return {"total": losses.total, **losses.terms}
