"""Runs of images."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from latente.data.cache import cache_folder
from latente.data.dataset import Dataset, Reading
from latente.data.errors import DataError
from latente.data.sources import open_source
from latente.evaluation import features, images
from latente.evaluation.findings import Evaluation, Say, silent
from latente.evaluation.rates import Rates
from latente.rng import keyed
from latente.run.base import Run, positive

CHUNK = 500  # images are drawn in chunks of this many, each from its own key, so memory stays bounded
LIKELY, DRAWS = 1_000, 16  # images whose likelihood is measured, with so many draws each: what some seconds allow


class ImageRun(Run):
    """A trained model of images.

    Images go in as uint8 arrays (N,C,H,W), (N,H,W) or (N,H,W,C), or as anything `open_source` reads, and come out as
    uint8 (N,C,H,W).
    """

    def sample(self, n: int, *, seed: int = 0, label: str | None = None, **options: Any) -> dict[str, np.ndarray]:
        """`n` new images {"x": (n,C,H,W) uint8}, with "label" (n,) when there are classes; the same seed gives the same images."""
        positive("--n", n)
        code = None
        if label is not None:
            if label not in self.spec.classes:
                raise ValueError(
                    f"--label {label!r}: "
                    + (f"one of {', '.join(self.spec.classes)}" if self.spec.classes else "this run has no classes")
                )
            code = self.spec.classes.index(label)
        parts: list[dict[str, np.ndarray]] = []
        with torch.no_grad():
            for chunk in range(-(-n // CHUNK)):
                size = min(CHUNK, n - chunk * CHUNK)
                condition = None if code is None else torch.full((CHUNK,), code)
                drawn = self.model.sample(CHUNK, condition=condition, generator=keyed(seed, "sample", chunk), **options)
                parts.append({name: t[:size].numpy() for name, t in drawn.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def encode(self, source: Any) -> np.ndarray:
        """Latent vectors, float32 (N,Z)."""
        return self._each("encode", source)

    def reconstruct(self, source: Any) -> np.ndarray:
        """What the model keeps of the images, uint8 (N,C,H,W)."""
        return self._each("reconstruct", source)

    def denoise(self, source: Any) -> np.ndarray:
        """The images without their noise, uint8 (N,C,H,W)."""
        return self._each("denoise", source)

    def explore(self) -> list[tuple[str, np.ndarray]]:
        """Titled rows of pictures of the latent space, from test images of the source the run was trained on."""
        self.require("explore")
        data = self.reopened()
        with torch.no_grad():
            return [(title, x.numpy()) for title, x in self.model.explore(data.batch(data.splits["test"][:64]))]

    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Samples beside the images of the test split, and what validation images score there: judge, distances, copying, use."""
        data = self.reopened(source)
        say("the likelihood of held-out images")
        known = replace(held(data, self._nats(data, seed)), rates=self._rates(data))
        wanted = images.wanted(known)
        say(f"making {wanted:,} samples")
        made = self.sample(wanted, seed=seed)
        return images.evaluated(made["x"], made.get("label"), known, seed, say)

    def _nats(self, data: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
        """-ln p of the first images of the train and test splits, (n,) each, where the model has a likelihood."""
        if not hasattr(self.model, "log_prob"):
            return None
        found = []
        with torch.inference_mode():
            for split in ("train", "test"):
                items, nats = data.splits[split][:LIKELY], []
                for start in range(0, len(items), CHUNK):
                    batch = data.batch(items[start : start + CHUNK])
                    nats.append(-self.model.log_prob(batch, keyed(seed, "likelihood", split, start), DRAWS).numpy())
                found.append(np.concatenate(nats))
        return found[0], found[1]

    def _rates(self, data: Dataset) -> Rates | None:
        """What the first test images cost at each quality, where the model codes with loss."""
        if not hasattr(self.model, "rate"):
            return None
        train, items = (data.splits[part][:LIKELY] for part in ("train", "test"))
        levels = self.model.config.levels

        def rated(of: np.ndarray, level: int) -> np.ndarray:
            """Bits and errors (2,n)."""
            starts = range(0, len(of), CHUNK)
            with torch.inference_mode():
                pairs = [self.model.rate(data.batch(of[start : start + CHUNK]), level) for start in starts]
            return np.stack([np.concatenate([pair[i].numpy() for pair in pairs]) for i in (0, 1)])

        def made(at: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return self.model.at(levels // 2).reconstruct(data.batch(items[at]))["x"].numpy()

        bits, errors = np.stack([rated(items, level) for level in range(levels)], 1)
        return Rates(bits, errors, rated(train, levels // 2)[0], made)

    @property
    def reading(self) -> Reading:
        """How a source is read: at this run's size and colours."""
        return Reading(f"{self.spec.height}x{self.spec.width}", "grey" if self.spec.channels == 1 else "rgb")

    def open(self, source: Any) -> Dataset:
        """`source` read at this run's size and colours; where the model needs labels, with the run's classes, of which some may have no
        images. Raises DataError for others, and for none."""
        data = open_source(source, self.reading)
        if not getattr(self.model, "needs_label", False) or data.spec.classes == self.spec.classes:
            return data
        known, alone = ", ".join(self.spec.classes[:10]), data.sole_class
        names = data.spec.classes if alone is None else (alone,)
        if not names:
            raise DataError(
                f"this run is conditional on classes ({known}), and {data.name} has none: give folders that are called so, or labels"
            )
        if other := [name for name in names if name not in self.spec.classes]:
            raise DataError(f"this run is conditional on the classes {known}; {data.name} has {', '.join(other[:10])}")
        labels = np.zeros(len(data.images), np.int64) if data.labels is None else data.labels
        place = np.array([self.spec.classes.index(name) for name in names])
        return replace(data, labels=place[labels], spec=replace(data.spec, classes=self.spec.classes), sole_class=None)

    def _each(self, what: str, source: Any) -> np.ndarray:
        self.require(what)
        if isinstance(source, Dataset):
            data, items = source, source.items
        elif (
            isinstance(source, np.ndarray)
            and source.dtype == np.uint8
            and source.shape[1:] == self.spec.shape
            and not getattr(self.model, "needs_label", False)
        ):
            batches = [{"x": torch.from_numpy(source[i : i + CHUNK])} for i in range(0, len(source), CHUNK)]
            return self._mapped(what, batches)
        else:
            data = self.open(source)
            items = data.items
        return self._mapped(what, (data.batch(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK)))

    def _mapped(self, what: str, batches: Any) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for batch in batches:
                made = getattr(self.model, what)(batch)
                parts.append((made["x"] if isinstance(made, dict) else made).numpy())
        return np.concatenate(parts)


def held(data: Dataset, nats: tuple[np.ndarray, np.ndarray] | None = None) -> images.Held:
    """The real images that samples are measured by. What is learned on them once is kept in the cache."""
    train, test, fresh = (images.Images(data.images, data.splits[part]) for part in ("train", "test", "validation"))
    labels = b"" if data.labels is None else data.labels[data.items].tobytes()  # the fingerprint is of pictures alone
    classed = blake2b(labels, digest_size=8).hexdigest()
    kept = cache_folder() / "features" / f"{data.fingerprint}-{classed}-{features.LEARNING}.safetensors"
    names = data.names(data.splits["test"])
    return images.Held(train, test, fresh, data.labels, data.spec.classes, nats, names=names, kept=kept)
