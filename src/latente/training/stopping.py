"""Why a training ends before its last step: a signal, losses that are no longer numbers, or a rule that says it is done.

The rule `judge` looks at samples now and then, by steps that are planned once. An independent judge compares them with validation
data; a training is done when they can no longer be told apart (an equivalence test: the judge's AUC is surely below 0.5 + `MARGIN`,
its chance of error spread over all looks), and winds up when `PATIENCE` looks brought nothing better. As each look comes
after a quarter more steps than the one before, that is a training almost doubled for nothing. The rule `loss` does the same with
the held-out loss, or whatever figure a family is watched by.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

RULES = ("auto", "judge", "loss", "never")
ALPHA = 0.05
MARGIN = 0.1
PATIENCE = 3
LOOKS, GROWTH = 12, 1.25
SHARE = 0.15  # of the training time, at most, goes into looks
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
COLLAPSE = 2.0  # times the best distance


@dataclass(frozen=True)
class Look:
    """What an independent judge made of the samples of a step."""

    step: int
    auc: float
    low: float
    high: float
    """95 % interval of `auc`"""
    bound: float
    """what `auc` is surely below, with a chance of error of `alpha` of this look"""
    enough: bool
    """whether there is data enough for that to mean anything"""
    distance: float
    """Frechet distance of samples and validation data, in features of the data"""
    floor: float = 0.0
    """the same of training data in place of samples: few items are at a distance even where they are alike"""

    def better(self, than: Look) -> bool:
        """Plainly nearer to 0.5, or, where the judge sees no difference, nearer by a fiftieth of what there is between `than` and the
        floor."""
        if self.high < than.auc or self.auc > than.high:
            return self.auc < than.auc
        return self.distance < than.distance - 0.02 * max(than.distance - than.floor, 0.0)

    def __str__(self) -> str:
        return f"judge AUC {self.auc:.3f}, distance {self.distance:.3g}"


def alpha(number: int) -> float:
    """The chance of error that look `number` (1, 2, ...) may take; over any number of looks they sum to less than `ALPHA`."""
    return ALPHA / (number * (number + 1))


def planned(steps: int, count: int = LOOKS) -> tuple[int, ...]:
    """At which steps to look: `count` times at most, each a quarter later than the one before, and at the end."""
    return tuple(sorted({max(1, round(steps / GROWTH**i)) for i in range(count)}))


def best(looks: Sequence[Look]) -> Look:
    """The first look that no later one is better than."""
    found = looks[0]
    for look in looks[1:]:
        if look.better(found):
            found = look
    return found


def told_apart_no_more(looks: Sequence[Look]) -> bool:
    return looks[-1].enough and looks[-1].bound < 0.5 + MARGIN


def no_better(looks: Sequence[Look], since: int = 0) -> bool:
    """Whether the last `PATIENCE` looks brought nothing better than those before them. `since`: looks there were when training was
    made longer, which patience does not count."""
    return len(looks) - max(since, 1) >= PATIENCE and best(looks) in looks[:-PATIENCE]


def collapsed(looks: Sequence[Look]) -> bool:
    """Whether samples were, twice in a row, plainly unreal and twice as far off as they had been."""
    if len(looks) < 3:
        return False
    limit = COLLAPSE * best(looks).distance
    return all(look.distance > limit and look.low > 0.5 for look in looks[-2:])


class Interrupted(Exception):
    """A signal to end arrived; the run at `path` was saved at `step`."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(f"interrupted at step {step}")
        self.path, self.step = path, step


class Diverged(Exception):
    """Losses or weights stopped being finite, a second time; the run keeps its last good checkpoint."""


class Signals:
    """While entered, signals to end only raise `.arrived`; a second SIGINT stops at once, as the terminal's user expects."""

    arrived = False

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        for number in ENDING:
            try:
                if number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # behind nohup
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
