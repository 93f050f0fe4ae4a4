"""Images in and out of a .latente file, through an exact pixel model. N images, C channels, H W height and width."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latente import registry
from latente.codec import exact, walks
from latente.codec.coding import Decoder, Encoder
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks
from latente.compression.chunks import Chunk
from latente.config import from_json
from latente.data.dataset import Dataset
from latente.data.images import check_output, write_images
from latente.evaluation.findings import Say
from latente.run import ImageRun, Run, built
from latente.spec import ImageSpec, spec_from_json, spec_to_json

PIXELS = 400_000  # of a chunk
TOGETHER = 4  # chunks at once: a walk remembers some hundred MB for them
TRIED = (6, 7, 8, 10)  # bits of a weight
TRIAL = 200  # images that decide how many
LEAST = 1 / 16  # bytes of a weight, on average: a header that asks for more weights than its file can hold is a forgery
NAMES = 1 << 30  # bytes of all names, at most


class Lossless:
    """Images number by number, by an exact `pixelcnn`."""

    codec = "pixels"

    def __init__(self, net: Any) -> None:
        self.net, self.spec = net, net.spec

    def code(
        self, x: np.ndarray, labels: np.ndarray | None, counts: Sequence[int]
    ) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Chunks of so many of the images (N,C,H,W), the bits each image costs (N,), and what will come out."""
        numbers = np.ascontiguousarray(x.transpose(2, 3, 1, 0)).reshape(-1, len(x))
        halves = (half for row in numbers for half in (row // 16, row % 16))
        return *walks.encoded(self._walk(len(x), labels), halves, counts), x

    def images(self, codes: Sequence[bytes], labels: np.ndarray | None, counts: Sequence[int]) -> np.ndarray:
        """The images of chunks of so many each, uint8 (N,C,H,W)."""
        return walks.decoded(self._walk(sum(counts), labels), codes, counts).numpy()

    def _walk(self, n: int, labels: np.ndarray | None) -> Any:
        return self.net.walk(n, None if labels is None else torch.from_numpy(labels))


class Lossy:
    """Images as symbols of one quality, by the exact coder of a `compressor`."""

    codec = "latents"

    def __init__(self, net: Any, level: int, model: Any = None) -> None:
        """`model`, with its encoder, is asked for to code, not to decode."""
        self.net, self.spec, self.level, self.model = net, net.spec, level, model

    def code(
        self, x: np.ndarray, labels: np.ndarray | None, counts: Sequence[int]
    ) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """As `Lossless.code`."""
        with torch.inference_mode():
            symbols = self.model.symbols({"x": torch.from_numpy(np.ascontiguousarray(x))}, self.level)
        lowest = torch.tensor(self.net.symbols)[:, None, None] // 2
        values = (symbols + lowest).permute(2, 3, 1, 0).flatten(0, 2).numpy()
        return *walks.encoded(self._walk(len(x), labels), values, counts), self._shown(symbols)

    def images(self, codes: Sequence[bytes], labels: np.ndarray | None, counts: Sequence[int]) -> np.ndarray:
        """As `Lossless.images`."""
        return self._shown(walks.decoded(self._walk(sum(counts), labels), codes, counts))

    def _walk(self, n: int, labels: np.ndarray | None) -> Any:
        known = None if labels is None else torch.from_numpy(labels)
        return self.net.walk(n, torch.full((n,), self.level), known)

    def _shown(self, symbols: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            parts = [self.net.shown(part.double(), self.level) for part in symbols.split(256)]
        return torch.cat(parts).numpy() if parts else np.empty((0, *self.spec.shape), np.uint8)


@dataclass(frozen=True)
class Wish:
    """How good lossy images are to be, or how small; neither: as good as the model can."""

    psnr: float | None = None
    """dB, at least"""
    bytes_per_item: float | None = None
    """at most, the model's weights counted in"""


class ImageJob:
    """Images on their way into a file."""

    def __init__(self, run: ImageRun, source: Any, external_model: bool, wish: Wish, say: Say) -> None:
        self.x, self.labels, names = _given(run, source)
        self.size = max(1, PIXELS // (run.spec.height * run.spec.width))
        self.raw, self.squared_error = self.x.nbytes, 0.0
        at = np.linspace(0, max(0, len(self.x) - 1), min(TRIAL, len(self.x))).astype(int)
        self.some, self.some_labels = self.x[at], None if self.labels is None else self.labels[at]
        say("finding out how many bits a weight is worth")
        bits, model = exact.MOST_BITS, b""
        if not external_model:
            bits = min(TRIED, key=lambda bits: self._size(run, bits))
        model = exact.pack(exact.exact(_kept(run.model), bits))
        net = _net(run.family, run.record["config"], run.spec, bits, model)
        self.coding: Any = Lossless(net)
        if hasattr(run.model, "coder"):
            self.coding = Lossy(net, self._level(run, net, wish, 0 if external_model else len(model)), run.model)
        self.parts = {} if external_model else {"model": model}
        if self.labels is not None:
            self.parts["labels"] = _packed_labels(self.labels, len(run.spec.classes))
        if names is not None:
            self.parts["names"] = chunks.squeezed(json.dumps(names, separators=(",", ":")).encode())
        self.header = {
            "codec": self.coding.codec, "model": run.family.name, "config": run.record["config"], "spec": spec_to_json(run.spec),
            "bits": bits, "items": len(self.x), "size": self.size, "weights": chunks.digest(model),
            "level": getattr(self.coding, "level", None),
        }  # fmt: skip

    def _size(self, run: ImageRun, bits: int) -> float:
        """Bytes of a file with weights of so many bits; of a lossy one, with what its errors are worth in bytes at its price."""
        net, n = exact.exact(_kept(run.model), bits), len(self.some)
        level = run.record["config"].get("levels", 1) // 2
        coding = Lossy(net, level, run.model) if hasattr(run.model, "coder") else Lossless(net)
        each = 0.0
        if n:
            _, cost, made = coding.code(self.some, self.some_labels, [n])
            each = cost.mean() / 8
            if isinstance(coding, Lossy):
                each += float(run.model.prices[level]) * _squared(made, self.some) / n / 8
        return len(exact.pack(net)) + each * len(self.x)

    def _level(self, run: Any, net: Any, wish: Wish, model: int) -> int:
        """The least quality that is as good as wished, or the highest that is as small; ValueError where there is none."""
        found = []
        for level in range(run.model.config.levels):
            _, cost, made = Lossy(net, level, run.model).code(self.some, self.some_labels, [len(self.some)])
            error = _squared(made, self.some) / max(1, self.some.size)
            found.append((psnr(error), cost.mean() / 8 + model / max(1, len(self.x)) if len(self.some) else 0.0))
        if wish.psnr is not None:
            fitting = [level for level, (quality, _) in enumerate(found) if quality >= wish.psnr]
            if not fitting:
                raise ValueError(
                    f"--psnr {wish.psnr:g}: this model reaches {max(q for q, _ in found):.1f} dB; train it longer, or a larger size"
                )
            return min(fitting, key=lambda level: found[level][1])
        if wish.bytes_per_item is not None:
            fitting = [level for level, (_, size) in enumerate(found) if size <= wish.bytes_per_item]
            if not fitting:
                least = min(size for _, size in found)
                raise ValueError(
                    f"--bytes-per-item {wish.bytes_per_item:g}: this model needs {least:.1f} at least, its weights counted in"
                )
            return max(fitting, key=lambda level: found[level][0])
        return len(found) - 1

    def chunks(self, verify: bool, say: Say) -> Iterator[Chunk]:
        """Codes everything, decoding it again where told to `verify`. Raises ValueError when something else comes out."""
        for numbers in chunks.batches(-(-len(self.x) // self.size), TOGETHER):
            start, stop = numbers[0] * self.size, min(len(self.x), (numbers[-1] + 1) * self.size)
            say(f"coding, {start:,} of {len(self.x):,} images done")
            x = np.ascontiguousarray(self.x[start:stop])
            labels = None if self.labels is None else self.labels[start:stop]
            counts = [len(x[at : at + self.size]) for at in range(0, len(x), self.size)]
            coded, bits, made = self.coding.code(x, labels, counts)
            self.squared_error += _squared(made, x)
            cuts = np.cumsum(counts)[:-1]
            parts = np.split(made, cuts)
            payloads = [chunks.kept(part.tobytes(), code) for part, code in zip(parts, coded)]
            if verify and not all(map(np.array_equal, parts, _images(self.coding, payloads, labels, counts))):
                raise ValueError("what was decoded is not what was coded; nothing is written")
            for payload, count, each in zip(payloads, counts, np.split(bits, cuts)):
                yield Chunk(payload, count, each.sum() / 8)

    @property
    def psnr(self) -> float | None:
        """Peak signal-to-noise ratio in dB of what was coded so far, over all pixels; None where nothing is lost."""
        return psnr(self.squared_error / max(1, self.x.size)) if isinstance(self.coding, Lossy) else None


def psnr(squared_error: float) -> float:
    """dB, of a mean squared error of 8-bit numbers."""
    return 10 * math.log10(255**2 / squared_error) if squared_error > 0 else math.inf


def _squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).sum())


class PackedImages:
    """Images in a file."""

    def __init__(self, reader: Reader, run: Run | None) -> None:
        self.reader, held = reader, reader.header
        spec, bits, self.size = spec_from_json(held["spec"]), held["bits"], held["size"]
        if not (isinstance(spec, ImageSpec) and 1 <= self.size <= PIXELS and 2 <= bits <= exact.MOST_BITS):
            raise ValueError("its header is of no images")
        if not all(
            isinstance(name, str) and name.strip(". ") and not set(name) & set("/\\\0") for name in spec.classes
        ):
            raise ValueError("its classes are no names of folders")
        if "model" in reader.parts:
            model = reader.part("model")
            family, config = chunks.own_family(held["model"]), held["config"]
        elif run is None:
            raise ValueError(f"its weights are not in it; give the run it was made with (--run), a {held['model']}")
        else:
            family, config, model = run.family, run.record["config"], exact.pack(exact.exact(_kept(run.model), bits))
        if chunks.digest(model) != held["weights"]:
            raise ValueError("these are not the weights it was made with")
        net, level = _net(family, config, spec, bits, model), held.get("level")
        if hasattr(net, "synthesis") != (held["codec"] == Lossy.codec) or (
            level is not None and not 0 <= level < net.config.levels
        ):
            raise ValueError("its header is of another model")
        self.spec, self.coding = spec, Lossless(net) if level is None else Lossy(net, level)
        self.labels = _labels(reader, len(spec.classes)) if "labels" in reader.parts else None

    def decode(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The images of some chunks, uint8 (n,C,H,W) each. Raises Damaged."""
        items = [self.reader.items_of(number) for number in numbers]
        for number, part in zip(numbers, items):
            if len(part) > self.size:
                raise chunks.undecodable(self.reader.name, number, ValueError("more images than it can hold"))
        payloads = [self.reader.chunk(number) for number in numbers]
        labels = (
            None if self.labels is None else np.concatenate([self.labels[part.start : part.stop] for part in items])
        )
        try:
            return _images(self.coding, payloads, labels, [len(part) for part in items])
        except ValueError as error:
            if len(numbers) > 1:
                return [self.decode([number])[0] for number in numbers]  # names the one it is
            raise chunks.undecodable(self.reader.name, numbers[0], error) from None

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """A folder of PNG, .npy, .npz or .parquet, as `write_images`."""
        check_output(out)
        found = list(chunks.each(len(self.reader), TOGETHER, self.decode, lost, say))
        at = [item for number, _ in found for item in self.reader.items_of(number)]
        none = np.empty((0, *self.spec.shape), np.uint8)
        names = _names(self.reader)
        labels = None if self.labels is None else self.labels[at]
        if names is not None and not out.suffix:
            labels = None  # the names have the folders of the classes in them
        x = np.concatenate([images for _, images in found] or [none])
        return write_images(out, x, labels, self.spec.classes, None if names is None else [names[item] for item in at])


def _images(
    coding: Any, payloads: Sequence[bytes], labels: np.ndarray | None, counts: Sequence[int]
) -> list[np.ndarray]:
    """The images of chunks of so many each. Raises ValueError for payloads that hold others."""
    shape = coding.spec.shape
    sizes = [count * math.prod(shape) for count in counts]
    contents, modelled = zip(*map(chunks.opened, payloads, sizes))
    own = [number for number, coded in enumerate(modelled) if coded]
    if own:
        ends = np.cumsum(counts)
        known = None if labels is None else np.concatenate([labels[ends[i] - counts[i] : ends[i]] for i in own])
        found = coding.images([contents[i] for i in own], known, [counts[i] for i in own])
        parts = dict(zip(own, np.split(found, np.cumsum([counts[i] for i in own])[:-1])))
        contents = [parts[i].tobytes() if i in parts else content for i, content in enumerate(contents)]
    whole = map(chunks.checked, payloads, contents, sizes)
    return [np.frombuffer(content, np.uint8).reshape(-1, *shape) for content in whole]


def _kept(model: Any) -> Any:
    """What of a model decoding takes."""
    return getattr(model, "coder", model)


def _given(run: ImageRun, source: Any) -> tuple[np.ndarray, np.ndarray | None, list[str] | None]:
    """Images (N,C,H,W) uint8, labels (N,) where the run has classes, and names. Raises ValueError for what does not fit the run."""
    x, labels = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not isinstance(x, np.ndarray):
        data = source if isinstance(source, Dataset) else run.open(source)
        labels = data.labels[data.items] if run.spec.classes and data.labels is not None else None
        return data.images[data.items], labels, None if data.keys is None else _distinct(data.names(data.items))
    if x.dtype != np.uint8 or x.shape[1:] != run.spec.shape:
        raise ValueError(
            f"this run takes images uint8 (N, {', '.join(map(str, run.spec.shape))}), not {x.dtype} {x.shape}"
        )
    if (labels is not None) != bool(run.spec.classes):
        raise ValueError(f"this run {'needs' if run.spec.classes else 'has no'} labels: source=(images, labels)")
    if labels is not None:
        labels = np.asarray(labels).astype(np.int64)
        if labels.shape != (len(x),) or not np.isin(labels, np.arange(len(run.spec.classes))).all():
            raise ValueError(f"labels are {len(x)} numbers from 0 to {len(run.spec.classes) - 1}")
    return x, labels, None


def _distinct(names: list[str]) -> list[str]:
    """The names, a number behind those that stand there already: a.png and a.jpg are both written as a.png."""
    found: dict[str, None] = {}
    for name in names:
        unlike, number = name, 2
        while unlike in found:
            unlike, number = f"{name}-{number}", number + 1
        found[unlike] = None
    return list(found)


def _net(family: registry.Family, config: dict[str, Any], spec: ImageSpec, bits: int, packed: bytes) -> Any:
    """The exact network of `packed` weights. Raises ValueError where they are not of such a model."""
    chunks.plausible(config, vars(spec), len(packed))
    config = from_json(family.Config, config)
    with torch.device("meta"):
        weights = sum(p.numel() for p in _kept(built(family, config, spec, 0)).parameters())
    if weights * LEAST > len(packed):
        raise ValueError(f"{len(packed):,} bytes are no {weights:,} weights")
    net = exact.exact(_kept(built(family, config, spec, 0)), bits)
    exact.unpack(packed, net)
    return net


def _packed_labels(labels: np.ndarray, classes: int) -> bytes:
    counts = np.bincount(labels, minlength=classes)
    coder = Encoder()
    if len(labels) and classes > 1:
        coder.alike(labels, counts)
    return counts.astype("<u4").tobytes() + coder.finish()


def _labels(reader: Reader, classes: int) -> np.ndarray:
    packed = reader.part("labels")
    counts = np.frombuffer(packed[: 4 * classes], "<u4")
    if len(counts) != classes or counts.sum() != reader.header["items"]:
        raise ValueError("its labels are of other images")
    n = int(counts.sum())
    if classes < 2 or not n:
        return np.zeros(n, np.int64)
    return Decoder(packed[4 * classes :]).alike(n, counts).astype(np.int64)


def _names(reader: Reader) -> list[str] | None:
    """What the images' files were called. Raises ValueError for names that would leave the folder they are written to."""
    if "names" not in reader.parts:
        return None
    try:
        names = json.loads(chunks.unsqueezed(reader.part("names"), NAMES))
        for name in names:
            chunks.inside(name)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{reader.name}: its names are none: {error}") from None
    if len(names) != reader.header["items"] or len(set(names)) != len(names):
        raise ValueError(f"{reader.name}: its names are of other images")
    return names
