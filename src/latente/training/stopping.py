"""Why a training ends before its last step: a signal, or losses that are no longer numbers."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the run at `path` was saved at `step`."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(f"interrupted at step {step}")
        self.path, self.step = path, step


class Diverged(Exception):
    """Losses or weights stopped being finite, a second time; the run keeps its last good checkpoint."""


class Signals:
    """While entered, SIGINT and SIGTERM only raise `.arrived`; a second SIGINT stops at once, as the terminal's user expects."""

    arrived = False

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: whoever started us keeps the signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.arrived and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.arrived = True
