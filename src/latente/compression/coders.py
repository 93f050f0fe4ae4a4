"""Images as bytes and back, through an exact network: without loss by a `pixelcnn`, with some by a `compressor`.

    a chunk: classes of its images --how often each is--> range coder <--what the network expects-- numbers of its images

N images, C channels, H W height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from threading import Event
from typing import Any

import numpy as np
import torch

from latente.codec import exact, walks
from latente.codec.coding import Decoder, Encoder
from latente.training.budget import half_precision_pays

REMEMBERED = 1 << 27  # numbers, 1 GiB, that walks may hold of all images or rows that take them at once
MOST, REFINED = 256, 64  # images at once; fewer where each step makes all its tensors anew, which are to stay small
TOGETHER = 8  # chunks at once, or as many as there are threads

Labelled = tuple[np.ndarray, np.ndarray | None]
"""images uint8 (N,C,H,W), and where there are classes the class of each, (N,)"""


class Coder(ABC):
    """Codes images of a spec, of which so many are of each class, by a network of whole numbers.

    images --numbers--> what is coded of them --code--> chunks --images--> --shown--> images
    """

    def __init__(self, net: Any, classes: Sequence[int]) -> None:
        self.net, self.spec, self.classes = net, net.spec, np.asarray(classes, np.float64)

    def code(
        self, numbers: np.ndarray, labels: np.ndarray | None, counts: Sequence[int], levels: np.ndarray | None = None
    ) -> tuple[list[bytes], np.ndarray]:
        """Chunks of so many of the images, given as `numbers`, and the bits each costs (N,). `levels` (N,) are those of a network of
        several qualities."""
        coders, bits = [Encoder() for _ in counts], np.zeros(len(numbers))
        if labels is not None and len(self.classes) > 1:
            for coder, part in zip(coders, np.split(labels, np.cumsum(counts)[:-1])):
                coder.alike(part, self.classes)
            bits -= np.log2(self.classes[labels] / self.classes.sum())
        bits += walks.encoded(self._walks(labels, levels), lambda images: self._told(numbers[images]), coders, counts)
        return [coder.finish() for coder in coders], bits

    def images(self, chunks: Sequence[bytes], counts: Sequence[int], levels: np.ndarray | None = None) -> Labelled:
        """The images of chunks of so many each, of the `levels` they were coded with. Raises ValueError for what `code` did not make."""
        coders = [Decoder(chunk) for chunk in chunks]
        labels = (
            np.concatenate([self.labels(coder, n) for coder, n in zip(coders, counts)]) if len(self.classes) else None
        )
        found = walks.decoded(self._walks(labels, levels), coders, counts)
        return self.shown(found.numpy(), levels), labels

    def _walks(self, labels: np.ndarray | None, levels: np.ndarray | None) -> Callable[[slice], Any]:
        """What makes the walk of some of the images."""

        def walk(images: slice) -> Any:
            known, of = (None if each is None else each[images] for each in (labels, levels))
            return self._walk(images.stop - images.start, known, of)

        return walk

    def labels(self, coder: Decoder, n: int) -> np.ndarray:
        """The classes of the `n` images of a chunk, int64 (n,): what it begins with."""
        return coder.alike(n, self.classes).astype(np.int64) if len(self.classes) > 1 else np.zeros(n, np.int64)

    @abstractmethod
    def numbers(self, x: np.ndarray, labels: np.ndarray | None, levels: np.ndarray | None = None) -> np.ndarray:
        """What images are coded as, (N,...)."""

    @abstractmethod
    def shown(self, numbers: np.ndarray, levels: np.ndarray | None = None) -> np.ndarray:
        """The images that come of `numbers`."""

    @abstractmethod
    def _told(self, numbers: np.ndarray) -> Iterable[np.ndarray]:
        """What a walk is told of them, (N,) each."""

    @abstractmethod
    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any: ...


class Lossless(Coder):
    """Images pixel by pixel."""

    name = "pixels"

    def numbers(self, x: np.ndarray, labels: np.ndarray | None, levels: np.ndarray | None = None) -> np.ndarray:
        return x

    def shown(self, numbers: np.ndarray, levels: np.ndarray | None = None) -> np.ndarray:
        return numbers

    def _told(self, numbers: np.ndarray) -> Iterable[np.ndarray]:
        in_order = np.ascontiguousarray(numbers.transpose(2, 3, 1, 0)).reshape(-1, len(numbers))
        return (half for row in in_order for half in (row // 16, row % 16))

    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any:
        return self.net.walk(n, None if labels is None else torch.from_numpy(labels))


class Lossy(Coder):
    """Images as symbols."""

    name = "latents"

    def __init__(self, net: Any, classes: Sequence[int], model: Any = None, refine: int = 0) -> None:
        """`model` knows the same qualities as `net` and has the encoder: to code, not to decode. From here on it has the exact
        network's numbers. `refine` steps look for better symbols than the encoder's."""
        super().__init__(net, classes)
        self.model, self.refine = model, refine
        if model is not None:
            self._half = bool(refine) and half_precision_pays("cpu")
            model.requires_grad_(False).coder = exact.floating(net, model.coder)
            model.coder.steps.weight.data.clamp_(min=exact.COARSE / net.one)

    def numbers(self, x: np.ndarray, labels: np.ndarray | None, levels: np.ndarray | None = None) -> np.ndarray:
        level, parts = _each(len(x), levels), self._parts(len(x), REFINED if self.refine else MOST)

        def work(share: slice, _: slice, stopped: Event) -> list[torch.Tensor]:
            found = []
            for part in parts[share]:
                batch = {"x": torch.from_numpy(np.ascontiguousarray(x[part]))}
                if labels is not None:
                    batch["label"] = torch.from_numpy(labels[part])
                made = self.model.refined(
                    batch, level[part], self.refine, self._half, go_on=lambda: walks.go_on(stopped)
                )
                found.append(made.to(torch.int8))
            return found

        none = torch.empty(0, len(self.net.symbols), *self.net.grid, dtype=torch.int8)
        counts = [part.stop - part.start for part in parts]
        return torch.cat([none, *chain(*walks.side_by_side(work, counts))]).numpy()

    @torch.inference_mode()
    def shown(self, numbers: np.ndarray, levels: np.ndarray | None = None) -> np.ndarray:
        symbols, level = torch.from_numpy(numbers), _each(len(numbers), levels)
        found = [torch.empty(0, *self.spec.shape, dtype=torch.uint8)]
        found += [self.net.shown(symbols[part].double(), level[part]) for part in self._parts(len(numbers))]
        return torch.cat(found).numpy()

    def _parts(self, n: int, most: int = MOST) -> list[slice]:
        """So many images at a time."""
        together = max(1, min(most, REMEMBERED // self.net.drawn))
        return [slice(at, min(n, at + together)) for at in range(0, n, together)]

    def _told(self, numbers: np.ndarray) -> Iterable[np.ndarray]:
        lowest = np.array(self.net.symbols)[:, None, None] // 2
        return (numbers.astype(np.int64) + lowest).transpose(2, 3, 1, 0).reshape(-1, len(numbers))

    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any:
        return self.net.walk(n, _each(n, levels), None if labels is None else torch.from_numpy(labels))


def at_once(net: Any, size: int) -> int:
    """How many chunks of so many items an exact network walks over at once."""
    return max(1, min(max(TOGETHER, torch.get_num_threads()), REMEMBERED // (size * net.remembered)))


def _each(n: int, levels: np.ndarray | None) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.int64) if levels is None else torch.from_numpy(levels)
