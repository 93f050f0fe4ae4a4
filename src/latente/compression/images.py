"""Images in and out of a .latente file, through an exact network. N images, C channels, H W height and width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latente.codec import exact
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks, headers, quality
from latente.compression.chunks import Chunk, Missed
from latente.compression.coders import REMEMBERED, Coder, Labelled, Lossless, Lossy
from latente.compression.quality import Point, Wish
from latente.config import from_json
from latente.data.dataset import Dataset
from latente.data.images import check_output, write_parts
from latente.evaluation.findings import Say
from latente.run import ImageRun, Run, built

TOGETHER = 4  # chunks at once
TRIED = (6, 7, 8, 10)  # bits of a weight
TRIAL = 200  # images that decide how many, and on which a quality is looked for
RETRIES = 4  # files that turn out larger than wished
OVERHEAD = 500, 14  # bytes of header and index: of a file, of a chunk


class ImageJob:
    """Images on their way into a file."""

    def __init__(self, run: ImageRun, source: Any, external_model: bool, wish: Wish, say: Say) -> None:
        given = _given(run, source)
        self.x, self.labels, self.notes, self.raw = given.x, given.labels, given.notes, given.x.nbytes
        self._run, self._external, self._wish, self._tries = run, external_model, wish, RETRIES
        self._classes: list[int] = []
        if self.labels is not None:
            self._classes = np.bincount(self.labels, minlength=len(run.spec.classes)).tolist()
        self._names = {} if given.names is None else {"names": chunks.squeezed_names(given.names)}
        remembered = _kept(run.model).remembered
        self._size = max(1, min(headers.PIXELS // (run.spec.height * run.spec.width), REMEMBERED // remembered))
        at = np.linspace(0, max(0, len(self.x) - 1), min(TRIAL, len(self.x))).astype(int)
        self._some, self._some_labels = self.x[at], None if self.labels is None else self.labels[at]
        self._estimated = cache(self._estimate)
        say("finding out how many bits a weight is worth")
        self._bits = exact.MOST_BITS if external_model else min(TRIED, key=self._worth)
        self._point: Point | None = None
        if hasattr(run.model, "at"):
            say("looking for the quality")
            self._point = self._wished()
        self._build()

    def _build(self) -> None:
        """Header, parts and coder, for the quality."""
        point = self._point
        net = self._coder(point, self._bits).net
        self.header = {
            "codec": Lossless.name if point is None else Lossy.name, "model": self._run.family.name,
            "config": asdict(from_json(self._run.family.Config, self._run.record["config"])), "spec": asdict(self._run.spec),
            "items": len(self.x), "classes": self._classes, "size": self._size, "bits": self._bits,
            "weights": exact.digest(net), "quality": point and point.quality, "better": point.better if point else 0,
        }  # fmt: skip
        self.parts = dict(self._names)
        if not self._external:
            self.parts["model"] = exact.pack(net)
            net = network(headers.exactly(headers.Images, self.header, "header"), self.parts["model"])
        self._coding: Coder = Lossless(net, self._classes)
        if point is not None:
            self._coding = Lossy(net, self._classes, self._run.model.at(point.quality, point.levels))

    def _coder(self, point: Point | None, bits: int) -> Any:
        model: Any = self._run.model if point is None else self._run.model.at(point.quality, point.levels)
        net = exact.exact(_kept(model), bits)
        return Lossless(net, self._classes) if point is None else Lossy(net, self._classes, model)

    def _worth(self, bits: int) -> float:
        """Bytes of a file with weights of so many bits; of a lossy one, with what its errors are worth in bytes at its price."""
        lossy = hasattr(self._run.model, "at")
        coder, each = self._coder(Point(self._run.model.config.levels // 2) if lossy else None, bits), 0.0
        if n := len(self._some):
            _, cost, made = coder.code(self._some, self._some_labels, [n])
            each = cost.mean() / 8
            if lossy:
                each += float(coder.model.prices[0]) * quality.squared(made, self._some).sum() / n / 8
        return len(exact.pack(coder.net)) + each * len(self.x)

    def _estimate(self, quality: int) -> float:
        """Bytes of a file of a quality, from what some images take."""
        coder = self._coder(Point(quality), self._bits)
        _, cost, _ = coder.code(self._some, self._some_labels, [len(self._some)])
        fixed = sum(map(len, self._names.values())) + (0 if self._external else len(exact.pack(coder.net)))
        return fixed + OVERHEAD[0] + OVERHEAD[1] * -(-len(self.x) // self._size) + cost.mean() / 8 * len(self.x)

    def _wished(self) -> Point:
        """The quality that was asked for; ValueError where there is none."""
        qualities, wish = self._run.model.config.levels, self._wish
        if not wish or not len(self.x):
            return Point(qualities - 1)
        if wish.psnr is not None:
            coder = cache(lambda quality: self._coder(Point(quality), self._bits))
            return quality.good(coder, qualities, wish.psnr, self._some, self.x)
        assert wish.bytes_per_item is not None
        self._most = wish.bytes_per_item * len(self.x)
        found = quality.small(self._estimated, qualities, self._most, len(self.x))
        if found is None:
            raise self._unreached(self._estimated(0))
        return found

    def _unreached(self, size: float) -> ValueError:
        return ValueError(
            f"--bytes-per-item {self._wish.bytes_per_item:g}: this model needs {size / len(self.x):.1f} at least, its weights "
            "counted in; --external-model leaves them out"
        )

    def settle(self, size: int) -> None:
        """As `Job.settle`."""
        wanted = self._wish.bytes_per_item
        if wanted is None or size <= wanted * len(self.x) or not len(self.x) or self._point is None:
            return
        if self._point == Point(0):
            raise self._unreached(size)
        self._most -= size - wanted * len(self.x)  # by so much the estimate was too low
        self._tries -= 1
        found = quality.small(self._estimated, self._run.model.config.levels, self._most, len(self.x))
        # Where the estimate still says no less: the quality below.
        self._point = found if found and found < self._point else Point(max(0, self._point.quality - 1))
        if not self._tries:
            self._point = Point(0)
        self._build()
        raise Missed

    def chunks(self, verify: bool, say: Say) -> Iterator[Chunk]:
        """As `Job.chunks`."""
        self.squared_error, together = 0.0, _together(self._coding, self._size)
        for numbers in chunks.batches(-(-len(self.x) // self._size), together):
            start, stop = numbers[0] * self._size, min(len(self.x), (numbers[-1] + 1) * self._size)
            say(f"coding, {start:,} of {len(self.x):,} images done")
            x = np.ascontiguousarray(self.x[start:stop])
            labels = None if self.labels is None else self.labels[start:stop]
            counts = [len(x[at : at + self._size]) for at in range(0, len(x), self._size)]
            levels = None if self._point is None else self._point.each(range(start, stop), len(self.x))
            coded, bits, made = self._coding.code(x, labels, counts, levels)
            self.squared_error += quality.squared(made, x).sum()
            cuts = np.cumsum(counts)[:-1]
            known = [None] * len(counts) if labels is None else np.split(labels, cuts)
            contents = [_content(part, of, len(self._classes)) for part, of in zip(np.split(made, cuts), known)]
            payloads = [chunks.kept(content, code) for content, code in zip(contents, coded)]
            if verify:
                found = _images(self._coding, payloads, counts, levels)
                if [_content(*part, len(self._classes)) for part in found] != contents:
                    raise ValueError("what was decoded is not what was coded; nothing is written")
            for payload, count, each in zip(payloads, counts, np.split(bits, cuts)):
                yield Chunk(payload, count, each.sum() / 8)

    @property
    def psnr(self) -> float | None:
        """Peak signal-to-noise ratio in dB of what was coded, over all pixels; None where nothing is lost."""
        return None if self._point is None or not len(self.x) else quality.psnr(self.squared_error / self.x.size)


class PackedImages:
    """Images in a file."""

    def __init__(self, reader: Reader, held: headers.Images, run: Run | None) -> None:
        self.reader, self.held, self.spec = reader, held, held.spec
        if "model" in reader.parts:
            net = network(held, reader.part("model"))
        elif run is None:
            raise ValueError(f"its weights are not in it; give the run it was made with (--run), a {held.model:.40}")
        elif run.spec != held.spec or hasattr(run.model, "at") != (held.quality is not None):
            raise ValueError("this is not the run it was made with")
        else:
            net = exact.exact(_kept(run.model, _point(held)), held.bits)
        if exact.digest(net) != held.weights:
            raise ValueError("these are not the weights it was made with")
        self.coding: Coder = (Lossless if held.quality is None else Lossy)(net, held.classes)

    def decode(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The images of some chunks, uint8 (n,C,H,W) each. Raises Damaged."""
        return [x for x, _ in self._labelled(numbers)]

    def item(self, chunk: np.ndarray, at: int) -> np.ndarray:
        """An image of a chunk."""
        return chunk[at]

    def _labelled(self, numbers: Sequence[int]) -> list[Labelled]:
        counts = [len(self.reader.items_of(number)) for number in numbers]
        for number, count in zip(numbers, counts):
            if count > self.held.size:
                raise chunks.undecodable(self.reader.name, number, ValueError("more images than it can hold"))
        payloads, point = [self.reader.chunk(number) for number in numbers], _point(self.held)
        levels = None
        if point is not None:
            levels = np.concatenate([point.each(self.reader.items_of(number), self.held.items) for number in numbers])
        try:
            return _images(self.coding, payloads, counts, levels)
        except Exception as error:  # of a forged payload, each library raises whatever it met
            if len(numbers) > 1:
                return [self._labelled([number])[0] for number in numbers]  # names the one it is
            raise chunks.undecodable(self.reader.name, numbers[0], error) from None

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """A folder of PNG, .npy, .npz or .parquet, as `write_images`."""
        check_output(out)
        if self.reader.items > self.held.items:
            raise ValueError(f"it has {self.reader.items:,} images, its header says {self.held.items:,}")
        names = self._names(lost)
        labelled = bool(self.spec.classes) and (
            names is None or bool(out.suffix)
        )  # names have the folders of classes in them
        return write_parts(out, self.spec.shape, self._parts(names, lost, say), self.spec.classes if labelled else None)

    def _parts(
        self, names: list[str] | None, lost: list[Damaged] | None, say: Say
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, list[str] | None]]:
        together = _together(self.coding, self.held.size)
        for number, (x, labels) in chunks.each(len(self.reader), together, self._labelled, lost, say):
            items = self.reader.items_of(number)
            yield x, labels, None if names is None else names[items.start : items.stop]

    def _names(self, lost: list[Damaged] | None) -> list[str] | None:
        """What the images' files were called; None where that is not known."""
        if "names" not in self.reader.parts:
            return None
        try:
            packed = self.reader.part("names")
        except Damaged as error:
            if lost is None:
                raise
            lost.append(Damaged(f"{self.reader.name}: names is damaged; the images are numbered instead", error.part))
            return None
        return chunks.unsqueezed_names(packed, self.held.items)


def network(held: headers.Images, packed: bytes) -> Any:
    """The exact network of `packed` weights. Raises ValueError where they are not of such a model, before anything large is made."""
    family = headers.family(held.model, "walk" if held.quality is None else "at")
    config = headers.exactly(family.Config, held.config, "config")
    with torch.device("meta"):  # shapes alone
        kept = _kept(built(family, config, held.spec, 0), _point(held))
    weights = sum(p.numel() for p in kept.parameters())
    if weights * headers.LEAST > len(packed):
        raise ValueError(f"{len(packed):,} bytes are no {weights:,} weights")
    if held.size * kept.remembered > REMEMBERED:
        raise ValueError(f"its chunks of {held.size:,} images take more memory to decode than any it may have")
    kept.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in kept.parameters():
            parameter.zero_()
    net = exact.exact(kept, held.bits)
    exact.unpack(packed, net)
    return net


def _point(held: headers.Images) -> Point | None:
    return None if held.quality is None else Point(held.quality, held.better)


def _kept(model: Any, point: Point | None = None) -> Any:
    """What of a model decoding takes, at a quality."""
    return getattr(model if point is None else model.at(point.quality, point.levels), "coder", model)


def _together(coder: Coder, size: int) -> int:
    """How many chunks of so many images take a walk together."""
    return max(1, min(TOGETHER, REMEMBERED // (size * coder.net.remembered)))


# ---- a chunk as bytes: the classes of its images, then their numbers --------------------------------------------------


def _content(x: np.ndarray, labels: np.ndarray | None, classes: int) -> bytes:
    return (b"" if labels is None else labels.astype(_kind(classes)).tobytes()) + x.tobytes()


def _kind(classes: int) -> np.dtype:
    """Of a class as bytes."""
    return np.dtype("<u1" if classes <= 256 else "<u2")


def _images(
    coder: Coder, payloads: Sequence[bytes], counts: Sequence[int], levels: np.ndarray | None
) -> list[Labelled]:
    """The images of chunks of so many each, of so many `levels`. Raises ValueError for payloads that hold others."""
    classes, shape = len(coder.classes), coder.spec.shape
    heads = [count * _kind(classes).itemsize if classes else 0 for count in counts]
    sizes = [head + count * math.prod(shape) for head, count in zip(heads, counts)]
    contents, modelled = map(list, zip(*map(chunks.opened, payloads, sizes)))
    own = [number for number, coded in enumerate(modelled) if coded]
    if own:
        of_own = None
        if levels is not None:
            parts = np.split(levels, np.cumsum(counts)[:-1])
            of_own = np.concatenate([parts[i] for i in own])
        x, labels = coder.images([contents[i] for i in own], [counts[i] for i in own], of_own)
        cuts = np.cumsum([counts[i] for i in own])[:-1]
        known = [None] * len(own) if labels is None else np.split(labels, cuts)
        for i, part, of in zip(own, np.split(x, cuts), known):
            contents[i] = _content(part, of, classes)
    found: list[Labelled] = []
    for payload, content, head, size in zip(payloads, contents, heads, sizes):
        content, labels = chunks.checked(payload, content, size), None
        if classes:
            labels = np.frombuffer(content[:head], _kind(classes)).astype(np.int64)
            if (labels >= classes).any():
                raise ValueError("classes that there are not")
        found.append((np.frombuffer(content[head:], np.uint8).reshape(-1, *shape), labels))
    return found


# ---- what is given --------------------------------------------------------------------------------------------------


@dataclass
class _Given:
    x: np.ndarray
    """(N,C,H,W) uint8"""
    labels: np.ndarray | None
    """(N,) where the run has classes"""
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def _given(run: ImageRun, source: Any) -> _Given:
    """Raises ValueError for what does not fit the run."""
    x, labels = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not isinstance(x, np.ndarray):
        data = source if isinstance(source, Dataset) else run.open(source)
        if data.spec.shape != run.spec.shape or (run.spec.classes and data.spec.classes != run.spec.classes):
            raise ValueError(
                f"{data.name} has images {data.spec.shape} of other shape or classes than this run, {run.spec.shape}"
            )
        known = data.labels[data.items] if run.spec.classes and data.labels is not None else None
        names = None if data.keys is None else data.names(data.items)
        return _Given(data.images[data.items], known, names, _changes(data))
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
    return _Given(x, labels)


def _changes(data: Dataset) -> list[str]:
    """What of the images is not as in their source."""
    found, size = data.audit, f"{data.spec.width}x{data.spec.height}"
    resized, said = sum(n for of, n in found.sizes.items() if of != size), []
    if resized:
        said.append(f"{resized:,} of {found.found:,} images were resized to {size}: the file holds them at that size")
    if found.recoloured:
        kind = "grey" if data.spec.channels == 1 else "RGB"
        said.append(
            f"{found.recoloured:,} of {found.found:,} images were brought to {kind} of 8 bits: the file holds them like that"
        )
    if found.skipped:
        shown = "; ".join(f"{name}: {reason}" for name, reason in found.skipped[:3])
        said.append(f"{len(found.skipped):,} files cannot be read and are left out ({shown})")
    return said
