"""Who watches a training: a live bar in a terminal, plain lines elsewhere, TensorBoard on request."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn


class Lines:
    """A line every few seconds, for logs and pipes."""

    every = 10.0

    def __init__(self) -> None:
        self._said = self._began = time.monotonic()
        self._done = 0

    def step(self, step: int, steps: int, items: int) -> None:
        self._done += 1
        if step == steps or time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            rate = self._done * items / (self._said - self._began)
            left = (steps - step) * items / rate
            print(f"step {step:,}/{steps:,}  {rate:,.0f} items/s  {left:.0f} s left", file=sys.stderr, flush=True)

    def record(self, record: dict[str, Any]) -> None:
        shown = {n.split("/", 1)[1]: v for n, v in record.items() if n.startswith("validation/")}
        if shown:
            print(f"step {record['step']:,}  validation  " + figures(shown), file=sys.stderr, flush=True)

    def saved(self, step: int, averaged: nn.Module) -> None:
        return None

    def close(self) -> None:
        return None


class Bar(Lines):
    """A moving bar with losses, items per second and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__()
        columns = (
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]:,.0f} items/s"),
            TimeRemainingColumn(), TextColumn("[dim]{task.fields[losses]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task: Any = None

    def step(self, step: int, steps: int, items: int) -> None:
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=steps, rate=0.0, losses="")
        self._done += 1
        rate = self._done * items / max(1e-6, time.monotonic() - self._began)
        self._progress.update(self._task, completed=step, total=steps, rate=rate)

    def record(self, record: dict[str, Any]) -> None:
        held = {n.split("/", 1)[1]: v for n, v in record.items() if n.startswith("validation/")}
        totals = {
            n.split("/")[0]: v for n, v in record.items() if n.endswith("/total") and not n.startswith("validation")
        }
        if self._task is not None and (held or totals):
            self._progress.update(self._task, losses=figures(held or totals))

    def close(self) -> None:
        self._progress.stop()


def check_tracker(name: str) -> None:
    """Raises ValueError for a tracker that is not known or not installed: asked before a run is made."""
    if name != "tensorboard":
        raise ValueError(f"--track {name}: tensorboard")
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--track tensorboard needs its library: pip install 'latente[tensorboard]'")


class TensorBoard:
    """Every record as scalars under RUN/tensorboard."""

    def __init__(self, path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"))

    def step(self, step: int, steps: int, items: int) -> None:
        return None

    def record(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, record["step"])

    def saved(self, step: int, averaged: nn.Module) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def figures(named: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in list(named.items())[:4])
