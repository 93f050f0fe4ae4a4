"""Images in and out of a .latente file, through an exact network. N images, C channels, H W height and width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latente.codec import exact, packing
from latente.codec.coding import Decoder
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks, headers, quality
from latente.compression.chunks import Chunk, Missed
from latente.compression.coders import REMEMBERED, Coder, Labelled, Lossless, Lossy, at_once
from latente.compression.quality import Point, Wish
from latente.config import from_json
from latente.data.dataset import Dataset
from latente.data.images import Part, check_output, classed, is_png, png_names, suffixed, write_parts
from latente.evaluation.findings import Say
from latente.run import ImageRun, Run, built

TRIED = (5, 6, 7, 8, 10)  # bits of a weight
FEWER = 3, 4  # tried too where weights are rounded by their worth: a file may have fewer images than was reckoned with
TRIAL = 200  # images that decide how many, and on which a quality is looked for
AT_ONCE = 1 << 15  # pixels of theirs that are looked at together
NEAR = 0.01  # dB above what is wished, at most, of refined images
RETRIES = 4  # files that turn out larger than wished
OVERHEAD = 500, 14  # bytes of header and index: of a file, of a chunk


class ImageJob:
    """Images on their way into a file."""

    bound = ""

    def __init__(self, run: ImageRun, source: Any, external_model: bool, wish: Wish, say: Say, refine: int = 0) -> None:
        given = _given(run, source)
        self.x, self.labels, self.notes, self.raw = given.x, given.labels, given.notes, given.x.nbytes
        self.class_names, self.names = given.classes, given.names
        self._run, self._external, self._wish, self._tries = run, external_model, wish, RETRIES
        self._refine, self._say = refine, say
        self._short, self._enough = -1, 1 << 62  # qualities and better images that are known to be too few, and to do
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by quality: numbers of images, and which have any
        self._classes: list[int] = []
        if self.labels is not None:
            self._classes = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        self._paths = {} if self.names is None else {"paths": chunks.squeezed_names(self.names)}
        remembered = _kept(run.model).remembered
        self._size = max(1, min(headers.PIXELS // (run.spec.height * run.spec.width), REMEMBERED // remembered))
        at = np.linspace(0, max(0, len(self.x) - 1), min(TRIAL, len(self.x))).astype(int)
        self._some, self._some_labels = self.x[at], None if self.labels is None else self.labels[at]
        self._estimated = cache(self._estimate)
        say("finding out how many bits a weight is worth")
        tried = FEWER + TRIED if getattr(run.model.config, "shared_by", 0) else TRIED
        self._bits = exact.MOST_BITS if external_model else chunks.bits_worth(tried, self._worth)
        self._errors = cache(self._squared)
        self._point: Point | None = None
        if hasattr(run.model, "at"):
            say("looking for the quality")
            self._qualities = run.model.config.levels
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
            "weights": packing.digest(net), "quality": point and point.quality, "better": point.better if point else 0,
            "nested": point is not None, "labels": () if self._run.spec.classes else self.class_names,
        }  # fmt: skip
        self.parts = dict(self._paths)
        if not self._external:
            self.parts["model"] = packing.pack(net)
            net = network(headers.exactly(headers.Images, self.header, "header"), self.parts["model"])
        self._coding: Coder = Lossless(net, self._classes) if point is None else Lossy(net, self._classes)
        if point is not None:
            of_each = [Point(point.quality + better) for better in range(point.levels)]
            self._coders = [self._coder(each, self._bits, self._refine) for each in of_each]

    def _coder(self, point: Point | None, bits: int, refine: int = 0) -> Any:
        model: Any = self._run.model if point is None else self._run.model.at(point.quality, point.levels)
        net = exact.exact(_kept(model), bits)
        return Lossless(net, self._classes) if point is None else Lossy(net, self._classes, model, refine)

    def _worth(self, bits: int) -> float:
        """Bytes of a file with weights of so many bits; of a lossy one, with what its errors are worth in bytes at its price."""
        lossy, n, each = hasattr(self._run.model, "at"), len(self._some), 0.0
        coder = self._coder(Point(self._run.model.config.levels // 2) if lossy else None, bits)
        if n and lossy:
            numbers = coder.numbers(self._some, self._some_labels)
            errors = quality.squared(coder.shown(numbers), self._some).sum()
            each = coder.code(numbers, self._some_labels, [n])[1].mean() + float(coder.model.prices[0]) * errors / n
        elif n:
            each = self._unlikely(coder.net)
        return len(packing.pack(coder.net)) + each / 8 * len(self.x)

    @torch.inference_mode()
    def _unlikely(self, net: Any) -> float:
        """Bits of an image, from some of them: what an exact network expects, by floating-point numbers, which is sooner known."""
        model: Any = exact.floating(net, _kept(self._run.model))
        total, pixels = 0.0, self._run.spec.height * self._run.spec.width
        for part in chunks.batches(len(self._some), max(1, AT_ONCE // pixels)):
            batch = {"x": torch.from_numpy(self._some[part.start : part.stop])}
            if self._some_labels is not None:
                batch["label"] = torch.from_numpy(self._some_labels[part.start : part.stop])
            total -= float(model.log_prob(batch).sum())
        return total / math.log(2) / len(self._some)

    def _estimate(self, quality: int) -> float:
        """Bytes of a file of a quality, from what some images take."""
        coder = self._coder(Point(quality), self._bits, self._refine)
        numbers = coder.numbers(self._some, self._some_labels)
        _, cost = coder.code(numbers, self._some_labels, [len(self._some)])
        fixed = sum(map(len, self._paths.values())) + (0 if self._external else len(packing.pack(coder.net)))
        return fixed + OVERHEAD[0] + OVERHEAD[1] * -(-len(self.x) // self._size) + cost.mean() / 8 * len(self.x)

    def _squared(self, of: int, of_all: bool) -> np.ndarray:
        """The squared errors of a quality, of all images or of some, (N,); of all refined ones, as they are by what some of them gain."""
        plain = self._coder(Point(of), self._bits)
        if not of_all:
            coder = self._coder(Point(of), self._bits, self._refine)
            return quality.squared(coder.shown(coder.numbers(self._some, self._some_labels)), self._some)
        found = np.zeros(len(self.x))
        for batch in chunks.batches(len(self.x), quality.CHUNK):
            part = slice(batch.start, batch.stop)
            numbers = plain.numbers(self.x[part], None if self.labels is None else self.labels[part])
            found[part] = quality.squared(plain.shown(numbers), self.x[part])
        if self._refine:
            coarse = quality.squared(plain.shown(plain.numbers(self._some, self._some_labels)), self._some)
            found *= self._errors(of, False).sum() / max(coarse.sum(), 1)
        return found

    def _numbers(self, coder: Coder, of: int, at: np.ndarray) -> np.ndarray:
        """The symbols of images `at` (n,) of a quality. Where they are refined, which takes its time, they are kept."""
        if not self._refine:
            return coder.numbers(self.x[at], None if self.labels is None else self.labels[at])
        if of not in self._found:
            shape = len(self.x), len(coder.net.symbols), *coder.net.grid
            self._found[of] = np.zeros(shape, np.int8), np.zeros(len(self.x), bool)
        symbols, known = self._found[of]
        if len(new := at[~known[at]]):
            self._say(f"refining, {known.sum():,} of {len(self.x):,} images done")
            symbols[new] = coder.numbers(self.x[new], None if self.labels is None else self.labels[new])
            known[new] = True
        return symbols[at]

    def _mixed(self, point: Point, at: np.ndarray, levels: Any) -> np.ndarray:
        """The symbols of images `at` (n,), each of its own of the qualities of `point`."""
        found = np.zeros((len(at), len(self._coding.net.symbols), *self._coding.net.grid), np.int8)
        for better, coder in enumerate(self._coders):
            found[levels == better] = self._numbers(coder, point.quality + better, at[levels == better])
        return found

    def _wished(self) -> Point:
        """The quality that was asked for; ValueError where there is none."""
        qualities, wish = self._qualities, self._wish
        if not wish or not len(self.x):
            return Point(qualities - 1)
        if wish.psnr is not None:
            return quality.good(self._errors, qualities, wish.psnr, self.x[0].size)
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
        point, wanted = self._point, self._wish.bytes_per_item
        if point is None or not len(self.x):
            return
        if self._wish.psnr is not None and (found := self._nearer(point)) != point:
            self._point = found
            self._build()
            raise Missed
        if wanted is None or size <= wanted * len(self.x):
            return
        if point == Point(0):
            raise self._unreached(size)
        self._most -= size - wanted * len(self.x)  # by so much the estimate was too low
        self._tries -= 1
        found = quality.small(self._estimated, self._qualities, self._most, len(self.x))
        if found is None or found >= point:  # as good, by the estimate
            fewer = point.better - 1 - len(self.x) // 1000
            found = Point(point.quality, max(0, fewer)) if point.better else Point(max(0, point.quality - 1))
        self._point = found if self._tries else Point(0)
        self._build()
        raise Missed

    def _nearer(self, point: Point) -> Point:
        """Where the wish should be met more nearly than by `point`, by how far off that is: better where it fell short; and worse, some
        times, where refined images are better than wished, which is only known when they are. Always between what is known to
        fall short and to be good enough."""
        n, wanted, reached = len(self.x), self._wish.psnr or 0, self.psnr or math.inf
        at, last = point.quality * n + point.better, (self._qualities - 1) * n
        if reached >= wanted:
            self._enough = min(self._enough, at)
            if not self._refine or reached <= wanted + NEAR:
                return point
        elif at == last:
            return point
        else:
            self._short = max(self._short, at)
        self._tries -= self._enough <= last
        if self._enough <= self._short + 1 or self._tries < 0:
            return Point(*divmod(self._enough, n))
        lower = max(0, point.quality - (not point.better))
        low, high = (self._errors(min(lower + more, self._qualities - 1), True).mean() for more in (0, 1))
        off = self.squared_error - self.x.size * 255**2 / 10 ** (wanted / 10)
        better = at + 1 + n // 1000 + math.ceil(off / max(low - high, 1e-9))
        return Point(*divmod(min(max(self._short + 1, better), self._enough - 1, last), n))

    def chunks(self, say: Say) -> Iterator[Chunk]:
        """As `Job.chunks`."""
        self.squared_error, together = 0.0, at_once(self._coding.net, self._size)
        for group in chunks.batches(-(-len(self.x) // self._size), together):
            start, stop = group[0] * self._size, min(len(self.x), (group[-1] + 1) * self._size)
            say(f"coding, {start:,} of {len(self.x):,} images done")
            x = np.ascontiguousarray(self.x[start:stop])
            labels = None if self.labels is None else self.labels[start:stop]
            counts = [len(x[at : at + self._size]) for at in range(0, len(x), self._size)]
            levels = None if self._point is None else self._point.each(range(start, stop), len(self.x))
            numbers = x if self._point is None else self._mixed(self._point, np.arange(start, stop), levels)
            coded, bits = self._coding.code(numbers, labels, counts, levels)
            made = self._coding.shown(numbers, levels)
            self.squared_error += quality.squared(made, x).sum()
            cuts = np.cumsum(counts)[:-1]
            known = [None] * len(counts) if labels is None else np.split(labels, cuts)
            contents = [_content(part, of, len(self._classes)) for part, of in zip(np.split(made, cuts), known)]
            for content, code, count, each in zip(contents, coded, counts, np.split(bits, cuts)):
                yield Chunk(chunks.kept(content, code), count, each.sum() / 8, chunks.digest(content))

    def matches(self, content: PackedImages) -> bool:
        """As `Job.matches`."""
        found = content.names(), content.classes, [*content.held.classes]
        return found == (self.names, self.class_names, self._classes)

    @property
    def psnr(self) -> float | None:
        """Peak signal-to-noise ratio in dB of what was coded, over all pixels; None where nothing is lost."""
        return None if self._point is None or not len(self.x) else quality.psnr(self.squared_error / self.x.size)


class PackedImages:
    """Images in a file."""

    def __init__(self, reader: Reader, held: headers.Images, run: Run | None) -> None:
        self.reader, self.held, self.spec, self.classes = reader, held, held.spec, held.class_names
        self.notes: list[str] = []
        if "model" in reader.parts:
            net = network(held, reader.part("model"))
        else:
            net = exact.exact(_kept(chunks.made_with(run, ImageRun, held).model, _point(held)), held.bits)
        if packing.digest(net) != held.weights:
            raise ValueError("these are not the weights it was made with")
        self.coding: Coder = (Lossless if held.quality is None else Lossy)(net, held.classes)
        self.together = at_once(self.coding.net, held.size)

    def decode(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The images of some chunks, uint8 (n,C,H,W) each. Raises Damaged."""
        return [x for x, _ in self._labelled(numbers)]

    def plain(self, numbers: Sequence[int]) -> list[bytes]:
        """As `Content.plain`."""
        return [_content(*part, len(self.classes)) for part in self._labelled(numbers)]

    def item(self, chunk: np.ndarray, at: int) -> np.ndarray:
        """An image of a chunk."""
        return chunk[at]

    def labels(self) -> np.ndarray | None:
        """The class of each image, int64 (N,), None where there are none; the images are not decoded. Raises Damaged."""
        if not self.classes:
            return None

        def decode(payloads: Sequence[bytes], items: Sequence[range]) -> list[np.ndarray]:
            return [_labels(self.coding, payload, len(of)) for payload, of in zip(payloads, items)]

        each = [chunks.decoded(self.reader, [number], self.held.size, decode)[0] for number in range(len(self.reader))]
        return np.concatenate([np.empty(0, np.int64), *each])

    def _labelled(self, numbers: Sequence[int]) -> list[Labelled]:
        point = _point(self.held)

        def decode(payloads: Sequence[bytes], items: Sequence[range]) -> list[Labelled]:
            levels = None if point is None else np.concatenate([point.each(of, self.held.items) for of in items])
            return _images(self.coding, payloads, [len(of) for of in items], levels)

        return chunks.decoded(self.reader, numbers, self.held.size, decode)

    def names(self) -> list[str] | None:
        """What each image was called, as a path below a folder; None where that is not known. Raises Damaged."""
        if "names" in self.reader.parts:  # of an older file, without suffix
            return [f"{name}.png" for name in chunks.unsqueezed_names(self.reader.part("names"), self.held.items)]
        if "paths" in self.reader.parts:
            return chunks.unsqueezed_names(self.reader.part("paths"), self.held.items)
        return None

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """A folder of PNG, .npy, .npz or .parquet, as `write_images`."""
        check_output(out)
        self.notes = []
        if self.reader.items > self.held.items:
            raise ValueError(f"it has {self.reader.items:,} images, its header says {self.held.items:,}")
        names, folder = self._names(lost), not out.suffix
        if names is not None and folder:
            names = self._png(names)
        slashed = [name for name in self.classes if "/" in name] if folder else []
        if slashed:
            self.notes.append(
                f"{len(slashed):,} names of classes have a / that is a - in their folders: {slashed[0]:.60}"
            )
        if out.suffix == ".npy" and (self.classes or names):
            self.notes.append("a .npy has no room for names and classes; .npz and .parquet have")
        return write_parts(out, self.spec.shape, self._parts(names, out.suffix, lost, say), self.classes or None)

    def _parts(self, names: list[str] | None, suffix: str, lost: list[Damaged] | None, say: Say) -> Iterator[Part]:
        moved = twice = 0
        taken = set() if suffix else {str(Path(name)) for name in names or ()}
        for number, (x, labels) in chunks.each(len(self.reader), self.together, self._labelled, lost, say):
            items = self.reader.items_of(number)
            own = None if names is None else names[items.start : items.stop]
            if own is None and suffix in ("", ".parquet"):  # their numbers in the file, whatever of it is lost
                own = [f"{item:06d}.png" for item in items]
            elif own is not None and labels is not None and not suffix:
                for at, of in enumerate(labels):
                    placed = str(Path(classed(own[at], self.classes[of])))
                    if placed != str(Path(own[at])):
                        moved, twice = moved + 1, twice + (placed in taken)
                        own[at] = suffixed(placed, ".png", taken) if placed in taken else placed
                        taken.add(own[at])
            yield x, labels, own
        if moved:
            self.notes.append(f"{moved:,} images lie in folders of their classes, which their names are without")
        if twice:
            self.notes.append(f"{twice:,} of these have .png behind their names, which others have there already")

    def _png(self, names: list[str]) -> list[str]:
        """Names for PNG files; what is changed is noted."""
        found = png_names(names)
        changed = [pair for pair in zip(names, found) if pair[0] != pair[1]]
        if changed:
            what = "1 image is" if len(changed) == 1 else f"{len(changed):,} images are"
            self.notes.append(f"{what} written as PNG, with .png behind the name: {' is '.join(changed[0])}")
        return found

    def _names(self, lost: list[Damaged] | None) -> list[str] | None:
        """As `names`; without them where they are damaged and that may be."""
        try:
            return self.names()
        except Damaged as error:
            if lost is None:
                raise
            lost.append(
                Damaged(f"{self.reader.name}: {error.part} is damaged; the images are numbered instead", error.part)
            )
            return None


def network(held: headers.Images, packed: bytes) -> Any:
    """The exact network of `packed` weights. Raises ValueError where they are not of such a model, before anything large is made."""
    family = headers.family(held.model, "walk" if held.quality is None else "at")
    config = headers.config(family.Config, held.config)
    with torch.device("meta"):  # shapes alone
        kept = _kept(built(family, config, held.spec, 0), _point(held))
    weights = sum(p.numel() for p in kept.parameters())
    if weights > headers.WEIGHTS[0] * len(packed) + headers.WEIGHTS[1]:
        raise ValueError(f"{len(packed):,} bytes are no {weights:,} weights")
    if held.size * kept.remembered > REMEMBERED:
        raise ValueError(f"its chunks of {held.size:,} images take more memory to decode than any it may have")
    kept.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in chain(kept.parameters(), kept.buffers()):
            tensor.zero_()
    net = exact.exact(kept, held.bits)
    packing.unpack(packed, net)
    return net


def _point(held: headers.Images) -> Point | None:
    return None if held.quality is None else Point(held.quality, held.better, held.nested)


def _kept(model: Any, point: Point | None = None) -> Any:
    """What of a model decoding takes, at a quality."""
    return getattr(model if point is None else model.at(point.quality, point.levels), "coder", model)


# ---- a chunk as bytes: the classes of its images, then their numbers --------------------------------------------------


def _content(x: np.ndarray, labels: np.ndarray | None, classes: int) -> bytes:
    return (b"" if labels is None else labels.astype(_kind(classes)).tobytes()) + x.tobytes()


def _kind(classes: int) -> np.dtype:
    """Of a class as bytes."""
    return np.dtype("<u1" if classes <= 256 else "<u2")


def _head(coder: Coder, count: int) -> int:
    """Bytes of the classes of so many images."""
    return count * _kind(len(coder.classes)).itemsize if len(coder.classes) else 0


def _images(
    coder: Coder, payloads: Sequence[bytes], counts: Sequence[int], levels: np.ndarray | None
) -> list[Labelled]:
    """The images of chunks of so many each, of so many `levels`. Raises ValueError for payloads that hold others."""
    classes, shape = len(coder.classes), coder.spec.shape
    sizes = [_head(coder, count) + count * math.prod(shape) for count in counts]
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
    for payload, content, count, size in zip(payloads, contents, counts, sizes):
        content = chunks.checked(payload, content, size)
        x = np.frombuffer(content[_head(coder, count) :], np.uint8).reshape(-1, *shape)
        found.append((x, _kept_labels(coder, content, count) if classes else None))
    return found


def _labels(coder: Coder, payload: bytes, count: int) -> np.ndarray:
    """The classes of a chunk of so many images, int64 (count,); the images are not decoded. Raises ValueError for other payloads."""
    content, modelled = chunks.opened(payload, _head(coder, count) + count * math.prod(coder.spec.shape))
    return coder.labels(Decoder(content), count) if modelled else _kept_labels(coder, content, count)


def _kept_labels(coder: Coder, content: bytes, count: int) -> np.ndarray:
    labels = np.frombuffer(content[: _head(coder, count)], _kind(len(coder.classes))).astype(np.int64)
    if len(labels) != count or (labels >= len(coder.classes)).any():
        raise ValueError("classes that there are not")
    return labels


# ---- what is given --------------------------------------------------------------------------------------------------


@dataclass
class _Given:
    x: np.ndarray
    """(N,C,H,W) uint8"""
    labels: np.ndarray | None = None
    """(N,) int64, where there are classes"""
    classes: tuple[str, ...] = ()
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def _given(run: ImageRun, source: Any) -> _Given:
    """Raises ValueError for what does not fit the run."""
    if unfit := [name for name in run.spec.classes if not headers.is_folder(name)]:
        raise ValueError(
            f"a class of this run is called {unfit[0]!r}, and images lie in folders of their classes: train it on classes of other "
            "names, or with --no-labels"
        )
    x, labels = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if isinstance(x, np.ndarray):
        given = _in_memory(run, x, labels)
    else:
        given = _opened(run, source if isinstance(source, Dataset) else run.open(source))
    if not run.spec.classes and not headers.holds(given.classes):
        given.notes.append(
            f"labels are left out: {len(given.classes):,} classes that are too many, or whose names no folder can have"
        )
        given.labels, given.classes = None, ()
    return given


def _opened(run: ImageRun, data: Dataset) -> _Given:
    if data.spec.shape != run.spec.shape or (run.spec.classes and data.spec.classes != run.spec.classes):
        raise ValueError(
            f"{data.name} has images {data.spec.shape} of other shape or classes than this run, {run.spec.shape}"
        )
    labels, classes, names = data.labels, data.spec.classes, None
    if data.sole_class is not None:
        labels, classes = np.zeros(len(data.images), np.int64), (data.sole_class,)
    if data.keys is not None:
        names = [data.keys[i] for i in data.items]
        if names == [f"{number:06d}" for number in range(len(names))]:
            names = None  # they are numbered again
    given = _Given(
        data.images[data.items], None if labels is None else labels[data.items], classes, names, _changes(data)
    )
    unlike = [name for name in names or () if not is_png(name)]
    if unlike:
        given.notes.append(
            f"{len(unlike):,} of {len(data.items):,} names do not end in .png: written to a folder they get that behind them "
            f"({unlike[0]}.png)"
        )
    return given


def _in_memory(run: ImageRun, x: np.ndarray, labels: Any) -> _Given:
    if x.dtype != np.uint8 or x.shape[1:] != run.spec.shape:
        raise ValueError(
            f"this run takes images uint8 (N, {', '.join(map(str, run.spec.shape))}), not {x.dtype} {x.shape}"
        )
    if labels is None:
        if run.spec.classes:
            raise ValueError("this run needs labels: source=(images, labels)")
        return _Given(x)
    labels, classes = np.asarray(labels), run.spec.classes
    if labels.shape != (len(x),):
        raise ValueError(f"labels are {len(x)} numbers or names, one an image, not {labels.dtype} {labels.shape}")
    if not classes:
        values, labels = np.unique(labels, return_inverse=True)
        classes = tuple(map(str, values))
    elif not np.isin(labels, np.arange(len(classes))).all():
        raise ValueError(f"labels are {len(x)} numbers from 0 to {len(classes) - 1}")
    return _Given(x, labels.astype(np.int64) if classes else None, classes)


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
        several = len(found.skipped) > 1
        said.append(f"{len(found.skipped):,} {'files' if several else 'file'} cannot be read: left out ({shown})")
    said += [f"left out: {what}" for what in found.left_out]
    if found.renumbered:
        said.append(f"{found.renumbered:,} images have names that are no different paths: they are numbered instead")
    return said
