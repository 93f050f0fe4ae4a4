"""The judge in the training: it looks at the samples of a model between two steps, and the engine decides what follows.

    model at a step -> samples, beside validation data -> judge, distance -> stopping.Look

A look draws from its own generators and leaves torch's as it was, so it changes nothing that trains.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from latente.evaluation import distances, features, images, judge, passages, tables
from latente.registry import Family
from latente.rng import key, keyed
from latente.run import CHUNK, TEXTS, held, rows_of
from latente.training import stopping

GLANCED, LETTERS = 400, 128  # passages of validation text, and characters of each, that are looked at
GLANCED_ROWS = 2_000  # validation rows that are looked at
FEWEST_LOOKS = 4  # with fewer, patience has nothing to go by


def rule(stop: str, family: Family, timed: bool, shard: bool) -> str:
    """The rule that may end a training: judge, loss or never. `timed`: within a budget, where steps were not asked for.

    Raises ValueError for a rule that this family cannot follow.
    """
    loss = family.Model.monitor is not None
    if stop == "auto":
        return "never" if not timed or (shard and not loss) else "loss" if loss else "judge"
    if stop not in stopping.RULES:
        raise ValueError(f"--stop {stop}: one of {', '.join(stopping.RULES)}")
    if stop == "loss" and not loss:
        raise ValueError(f"--stop loss: {family.name} has no held-out loss; --stop judge looks at its samples")
    if stop == "judge" and hasattr(family.Model, "finish"):
        raise ValueError(f"--stop judge: {family.name} can sample only once it is trained; --stop loss")
    if stop == "judge" and family.kind not in KINDS:
        raise ValueError(f"--stop judge: no judge looks at {family.kind}s; --stop loss")
    if stop == "judge" and shard:
        raise ValueError("--stop judge: a part of a model (--shard) cannot sample")
    return stop


class Looks(ABC):
    """Called with a model, the step and the how-manieth look it is."""

    floor = 0.0
    """how far training data are, where that is known"""

    def __init__(self, data: Any, seed: int) -> None:
        self.data, self.seed = data, seed

    def __call__(self, model: Any, step: int, number: int) -> stopping.Look:
        with torch.no_grad():
            found, distance = self.glance(model.eval(), step)
        bound = judge.interval(found.auc, found.items, found.items, 1 - 2 * stopping.alpha(number))[1]
        enough = found.detectable <= 0.5 + stopping.MARGIN
        return stopping.Look(step, found.auc, *found.ci, bound, enough, distance, self.floor)

    @abstractmethod
    def glance(self, model: Any, step: int) -> tuple[judge.Judgement, float]:
        """What the judge makes of samples of the model, and how far they are from validation data."""


class ImageLooks(Looks):
    """Looks at pictures; their distance is between features learned on the training images, or between "thumbnails"."""

    def __init__(self, data: Any, seed: int, distance: str) -> None:
        super().__init__(data, seed)
        known = held(data)
        self.real = known.fresh[: images.COMPARED]
        self._seen = images.thumbnails if distance == "thumbnails" else images.features(known)
        self.floor = distances.frechet(self._seen(self.real), self._seen(known.train[: len(self.real)]))

    def glance(self, model: Any, step: int) -> tuple[judge.Judgement, float]:
        parts = []
        for start in range(
            0, len(self.real), CHUNK
        ):  # from the same noise at every step, so that looks differ by the model alone
            drawn = model.sample(CHUNK, generator=keyed(self.seed, "look", start))["x"]
            parts.append(drawn[: len(self.real) - start].cpu().numpy())
        return images.glance(np.concatenate(parts), self.real, self._seen, key(self.seed, "look", step))


class TextLooks(Looks):
    """Looks at passages, by n-grams alone; their distance is the divergence of three characters in a row."""

    def __init__(self, data: Any, seed: int, distance: str) -> None:
        super().__init__(data, seed)
        text = data.text("validation", GLANCED * LETTERS)
        self.real = passages.cut([text], min(LETTERS, max(16, len(text) // 200)))[:GLANCED]

    def glance(self, model: Any, step: int) -> tuple[judge.Judgement, float]:
        letters, texts = len(self.real[0]), list[str]()
        while sum(map(len, texts)) < letters * len(self.real):
            drawn = model.sample(TEXTS, generator=keyed(self.seed, "look", step, len(texts)))["tokens"].cpu().numpy()
            texts += [self.data.tokenizer.decode(row) or " " for row in drawn]
        made = passages.cut(["".join(texts)], letters)[: len(self.real)]
        classifiers = {"hashed n-grams": passages.hashed_ngrams}
        found = judge.judged(self.real, made, classifiers, key(self.seed, "look", step))
        return found, passages.divergence(*passages.grams([list(self.real), list(made)]))


class TableLooks(Looks):
    """Looks at rows; their distance is what keeps columns and pairs of columns from being as alike as can be."""

    def __init__(self, data: Any, seed: int, distance: str) -> None:
        super().__init__(data, seed)
        self.real = rows_of(data, data.cells(data.splits["validation"][:GLANCED_ROWS]))

    def glance(self, model: Any, step: int) -> tuple[judge.Judgement, float]:
        drawn = model.sample(len(self.real), generator=keyed(self.seed, "look", step))["tokens"].cpu().numpy()
        uniform = np.random.default_rng(key(self.seed, "look", step)).random((len(drawn), self.real.values.shape[1]))
        made = self.data.columns.table(drawn, self.data.columns.draw(drawn, uniform))
        return tables.glance(rows_of(self.data, self.data.columns.cells(made)), self.real, key(self.seed, "look", step))


KINDS: dict[str, Callable[[Any, int, str], Looks]] = {"image": ImageLooks, "text": TextLooks, "table": TableLooks}


@dataclass(frozen=True)
class Watch:
    """Looks that were planned: `count` of them, `seconds` in all, measuring distances by `distance`."""

    look: Looks | None = None
    count: int = 0
    seconds: float = 0.0
    distance: str | None = None


NONE = Watch()


def planned(fabric: Any, data: Any, model: Any, seed: int, seconds: float | None) -> Watch:
    """The looks of a training, at most `SHARE` of its `seconds`; none where there are too few for any use.

    Without a number of seconds there are `LOOKS`. Features are learned first, where there is time for it, else thumbnails do.
    """
    watch = NONE
    if fabric.is_global_zero and len(data.splits["validation"]) >= judge.FEWEST:
        watch = _measured(data, model, seed, seconds)
    told = fabric.broadcast(replace(watch, look=None))
    return watch if fabric.is_global_zero else told


def _measured(data: Any, model: Any, seed: int, seconds: float | None) -> Watch:
    make = KINDS[data.spec.kind]
    if seconds is None:
        return Watch(make(data, seed, "features"), stopping.LOOKS, 0.0, "features")
    allowed, began = stopping.SHARE * seconds, time.monotonic()
    look = make(data, seed, "thumbnails")
    look(model, 0, 1)
    each = time.monotonic() - began
    distance = "thumbnails"
    if data.spec.kind == "image":
        known = held(data).kept
        learning = 0.0 if known is not None and known.exists() else each * features.SEEN / images.GLANCED_SEEN
        if allowed - learning - each >= FEWEST_LOOKS * each:
            distance, look = "features", make(data, seed, "features")
    count = min(stopping.LOOKS, int((allowed - (time.monotonic() - began)) / max(each, 1e-3)))
    return Watch(look, count, count * each, distance) if count >= FEWEST_LOOKS else NONE


def again(fabric: Any, data: Any, seed: int, distance: str) -> Looks | None:
    """The looks of a run that goes on, as they were planned."""
    return KINDS[data.spec.kind](data, seed, distance) if fabric.is_global_zero else None
