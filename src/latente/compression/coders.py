"""Images as bytes and back, through an exact network: without loss by a `pixelcnn`, with some by a `compressor`.

    a chunk: classes of its images --how often each is--> range coder <--what the network expects-- numbers of its images

N images, C channels, H W height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from latente.codec import exact, walks
from latente.codec.coding import Decoder, Encoder

REMEMBERED = 1 << 27  # numbers, 1 GiB, that a walk may hold of all images that take it together

Labelled = tuple[np.ndarray, np.ndarray | None]
"""images uint8 (N,C,H,W), and where there are classes the class of each, (N,)"""


class Coder(ABC):
    """Codes images of a spec, of which so many are of each class, by a network of whole numbers."""

    def __init__(self, net: Any, classes: Sequence[int]) -> None:
        self.net, self.spec, self.classes = net, net.spec, np.asarray(classes, np.float64)

    def code(
        self, x: np.ndarray, labels: np.ndarray | None, counts: Sequence[int], levels: np.ndarray | None = None
    ) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Chunks of so many of the images (N,C,H,W), the bits each image costs (N,), and what will come out. `levels` (N,) are those of
        a network of several qualities."""
        coders, bits = [Encoder() for _ in counts], np.zeros(len(x))
        if labels is not None and len(self.classes) > 1:
            for coder, part in zip(coders, np.split(labels, np.cumsum(counts)[:-1])):
                coder.alike(part, self.classes)
            bits -= np.log2(self.classes[labels] / self.classes.sum())
        values, made = self._values(x, levels)
        bits += walks.encoded(self._walk(len(x), labels, levels), values, coders, counts)
        return [coder.finish() for coder in coders], bits, made

    def images(self, chunks: Sequence[bytes], counts: Sequence[int], levels: np.ndarray | None = None) -> Labelled:
        """The images of chunks of so many each, of the `levels` they were coded with. Raises ValueError for what `code` did not make."""
        coders, labels = [Decoder(chunk) for chunk in chunks], None
        if len(self.classes) > 1:
            labels = np.concatenate([coder.alike(n, self.classes) for coder, n in zip(coders, counts)]).astype(np.int64)
        elif len(self.classes):
            labels = np.zeros(sum(counts), np.int64)
        return self._made(walks.decoded(self._walk(sum(counts), labels, levels), coders, counts), levels), labels

    @abstractmethod
    def _values(self, x: np.ndarray, levels: np.ndarray | None) -> tuple[Iterable[np.ndarray], np.ndarray]:
        """What a walk is told of images, and the images that come of it."""

    @abstractmethod
    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any: ...

    @abstractmethod
    def _made(self, found: torch.Tensor, levels: np.ndarray | None) -> np.ndarray:
        """The images of what a walk gave."""


class Lossless(Coder):
    """Images number by number."""

    name = "pixels"

    def _values(self, x: np.ndarray, levels: np.ndarray | None) -> tuple[Iterable[np.ndarray], np.ndarray]:
        numbers = np.ascontiguousarray(x.transpose(2, 3, 1, 0)).reshape(-1, len(x))
        return (half for row in numbers for half in (row // 16, row % 16)), x

    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any:
        return self.net.walk(n, None if labels is None else torch.from_numpy(labels))

    def _made(self, found: torch.Tensor, levels: np.ndarray | None) -> np.ndarray:
        return found.numpy()


class Lossy(Coder):
    """Images as symbols."""

    name = "latents"

    def __init__(self, net: Any, classes: Sequence[int], model: Any = None) -> None:
        """`model` knows the same qualities as `net` and has the encoder: to code, not to decode. From here on it divides by the steps
        that the exact network multiplies with."""
        super().__init__(net, classes)
        self.model = model
        if model is not None:
            with torch.no_grad():
                model.coder.steps.weight.copy_(net.steps.weight.clamp(min=exact.COARSE) / net.one)

    @torch.inference_mode()
    def coarse(self, x: np.ndarray) -> np.ndarray:
        """Images as they will come out, not coded."""
        return self._made(self.model.symbols({"x": torch.from_numpy(np.ascontiguousarray(x))}, 0), None)

    @torch.inference_mode()
    def _values(self, x: np.ndarray, levels: np.ndarray | None) -> tuple[Iterable[np.ndarray], np.ndarray]:
        symbols = self.model.symbols({"x": torch.from_numpy(np.ascontiguousarray(x))}, _each(len(x), levels))
        lowest = torch.tensor(self.net.symbols)[:, None, None] // 2
        return (symbols + lowest).permute(2, 3, 1, 0).flatten(0, 2).numpy(), self._made(symbols, levels)

    def _walk(self, n: int, labels: np.ndarray | None, levels: np.ndarray | None) -> Any:
        return self.net.walk(n, _each(n, levels), None if labels is None else torch.from_numpy(labels))

    @torch.inference_mode()
    def _made(self, found: torch.Tensor, levels: np.ndarray | None) -> np.ndarray:
        together = max(1, min(256, REMEMBERED // self.net.drawn))
        parts = zip(found.split(together), _each(len(found), levels).split(together))
        return torch.cat([self.net.shown(part.double(), level) for part, level in parts]).numpy()


def _each(n: int, levels: np.ndarray | None) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.int64) if levels is None else torch.from_numpy(levels)
