"""`compress`, `decompress`, and `Archive`, an open .latente file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import chunks, headers
from latente.compression.chunks import Content, Job, Missed
from latente.compression.images import ImageJob, PackedImages
from latente.compression.quality import Wish
from latente.compression.tables import PackedTables, TableJob
from latente.compression.texts import PackedTexts, TextJob
from latente.data.errors import DataError, first_line
from latente.drafts import check_place
from latente.evaluation.findings import Say, silent
from latente.run import ImageRun, Run, TableRun, TextRun

PACKED = {headers.Images: PackedImages, headers.Texts: PackedTexts, headers.Tables: PackedTables}
# The parts of each kind of file; those that it cannot be without.
PARTS = {
    headers.Images: ({"model", "paths", "names"}, set()),  # names in older files
    headers.Texts: ({"model", "names", "sizes", "tokens"}, set()),
    headers.Tables: ({"model", "columns"}, {"columns"}),
}


REFINE = 10_000  # steps at most


@dataclass(frozen=True)
class Packed:
    """What became of a data set, in bytes."""

    path: Path
    items: int
    """images, bytes of text, or rows"""
    raw: int
    """of the items themselves"""
    size: int
    """of the file"""
    model: int
    """of these, the weights"""
    coded: int
    """of these, the chunks"""
    expected: float
    """what the model expects to need for the chunks it coded"""
    modelled: int
    """what they take"""
    psnr: float | None = None
    """dB, over all pixels; None where nothing is lost"""
    bound: str = ""
    """what a machine has to be to read it; "" where any can"""
    notes: tuple[str, ...] = ()
    """what comes back otherwise than it was given, a line each"""


def compress(
    run: Run, source: Any, out: str | Path, *, psnr: float | None = None, bytes_per_item: float | None = None, refine: int = 0,
    external_model: bool = False, verify: bool = True, say: Say = silent,
) -> Packed:  # fmt: skip
    """Writes `source` to the new file `out`; it is decoded and compared before it appears under its name.

    With a pixelcnn: images without loss, at the run's size and colours, with their names and classes (whatever `latente train` takes,
    or uint8 (N,C,H,W), with labels as a pair). With a compressor: images at least `psnr` dB good, or in a file of at most
    `bytes_per_item` for each, what came of it being in the result; `refine` steps look for better symbols than the encoder's, image
    by image. With a gpt: files byte by byte (a path, a folder, bytes). With a table-gpt: rows, cell by cell, in their order
    (whatever `latente train` takes, of the run's columns). `external_model` leaves the weights out: the run is then needed to read
    it. Raises ValueError for what cannot be compressed.
    """
    lossy, wish = hasattr(run.model, "at"), Wish(psnr, bytes_per_item)
    coded = hasattr(run.model, "walk") or (lossy and isinstance(run, ImageRun))
    if not (isinstance(run, TextRun) or (isinstance(run, ImageRun | TableRun) and coded)):
        raise ValueError(
            f"{run.family.name} is no codec: train a pixelcnn or a compressor on images, a gpt on text, a table-gpt on rows"
        )
    if not lossy and (wish or refine):
        raise ValueError(f"{run.family.name} loses nothing; --psnr, --bytes-per-item and --refine are for a compressor")
    if not 0 <= refine <= REFINE:
        raise ValueError(f"--refine {refine}: from 0 to {REFINE:,}")
    if run.record["model_sha256"] is not None and not external_model:
        raise ValueError("a model of your own file cannot be put into a .latente file; give --external-model")
    check_place(Path(out))  # before the work, not after it
    if isinstance(run, TextRun):
        job: Job = TextJob(run, source, external_model, say)
    elif isinstance(run, TableRun):
        job = TableJob(run, source, external_model, say)
    else:
        job = ImageJob(run, source, external_model, wish, say, refine)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            return _written(Path(out), job, run if external_model else None, verify, say)
        except Missed:
            say("not as wished: once more, nearer to it")


def _written(out: Path, job: Job, run: Run | None, verify: bool, say: Say) -> Packed:
    """Raises Missed as `Job.settle` does; ValueError where the file that was written does not hold what was given."""
    headers.read(job.header)  # what cannot be read is not written
    items = coded = modelled = 0
    expected, digests = 0.0, []
    with Writer(out, job.header, job.parts) as writer:
        for chunk in job.chunks(say):
            writer.add(chunk.payload, chunk.items)
            digests.append(chunk.digest)
            items, coded = items + chunk.items, coded + len(chunk.payload)
            if chunk.modelled:
                expected, modelled = expected + chunk.expected, modelled + len(chunk.payload)
        size = writer.size
        job.settle(size)
        if verify:
            _verify(out, writer.finish(), job, digests, run, say)
    model = len(job.parts.get("model", b""))
    return Packed(out, items, job.raw, size, model, coded, expected, modelled, job.psnr, job.bound, tuple(job.notes))


def _verify(out: Path, draft: Path, job: Job, digests: list[str], run: Run | None, say: Say) -> None:
    """Reads a file as anyone would. Raises ValueError where it does not hold what was given, and what its chunks were made of."""
    try:
        with Archive(draft, run) as archive:
            for damage in archive.reader.incomplete():
                raise damage
            found = chunks.each(len(archive.reader), archive.content.together, archive.content.plain, None, say)
            same = job.matches(archive.content) and [chunks.digest(plain) for _, plain in found] == digests
    except ValueError as error:
        said = first_line(error).replace(str(draft), "the file")
        raise ValueError(f"{out}: nothing is written, for it could not be read again: {said}") from None
    if not same:
        raise ValueError(f"{out}: nothing is written, for what was decoded is not what was coded")


def decompress(
    path: str | Path, out: str | Path, *, run: Run | None = None, lost: list[Damaged] | None = None, say: Say = silent
) -> Path:
    """Writes what a .latente file holds: images as a folder of PNG, .npy, .npz or .parquet; text as its file, or folder of files;
    rows as a .csv or .tsv like their source, .parquet, .arrow, .feather or .xlsx.

    `run` is needed where the file holds no weights. Raises Damaged, naming the chunk, for a damaged file; given a list `lost`, adds
    the damages to it and writes the rest. Raises ValueError where this machine's arithmetic is not that of a text's file.
    """
    with Archive(path, run) as archive:
        return archive.write(out, lost, say)


class Archive:
    """An open .latente file, whose chunks are decoded one by one: `archive[7]` is the eighth image, or byte."""

    def __init__(self, path: str | Path, run: Run | None = None) -> None:
        """Raises ValueError for what is no such file, for one whose weights are not there, and for another machine's; Damaged for one
        of which nothing can be read."""
        self.reader, self._last = Reader(path), (-1, None)
        try:
            held = headers.read(self.reader.header)
            every, needed = PARTS[type(held)]
            if not every >= set(self.reader.parts) >= needed:
                raise ValueError("its parts are not those that this latente writes")
            self.content: Content = PACKED[type(held)](self.reader, held, run)  # type: ignore[arg-type]
        except Damaged:
            self.reader.close()
            raise
        except Exception as error:  # of a forged file, each library raises whatever it met
            self.reader.close()
            raise ValueError(f"{path} cannot be opened: {first_line(error)}") from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def __len__(self) -> int:
        """Images, bytes of text, or rows."""
        return self.reader.items

    def __getitem__(self, item: int) -> Any:
        """One image, uint8 (C,H,W), one byte as a number, or one row as a dict; its chunk alone is read, and kept until another is.
        Raises Damaged, IndexError; TypeError for a slice."""
        if not isinstance(item, SupportsIndex):
            raise TypeError(f"an archive gives one item, archive[7], or a chunk of them, archive.chunk(0); not {item}")
        at = index(item) + len(self) * (index(item) < 0)
        if not 0 <= at < len(self):
            raise IndexError(f"{self.reader.name} has {len(self):,} items: no item {item}")
        number, chunk = self._last
        if number < 0 or at not in self.reader.items_of(number):
            number = self.reader.chunk_of(at)
            chunk = self.chunk(number)
            self._last = number, chunk
        return self.content.item(chunk, at - self.reader.items_of(number).start)

    def __iter__(self) -> Iterator[Any]:
        """All items in order, as by their numbers; several chunks are decoded at once. Raises Damaged."""
        for number, chunk in chunks.each(len(self.reader), self.content.together, self.content.decode, None, silent):
            yield from (self.content.item(chunk, at) for at in range(len(self.reader.items_of(number))))
        for damage in self.reader.incomplete():
            if damage.part != "index":  # something is missing
                raise damage

    def chunk(self, number: int) -> Any:
        """The items of a chunk: images uint8 (n,C,H,W), bytes, or rows as a pa.Table. Raises Damaged, IndexError."""
        return self.content.decode([number])[0]

    @property
    def names(self) -> list[str] | None:
        """What each image was called, as a path below a folder; None where that is not known. Raises Damaged."""
        return self.content.names() if isinstance(self.content, PackedImages) else None

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each image, int64 (N,), as a place among the `classes`; None where there are none. No image is decoded. Raises
        Damaged."""
        return self.content.labels() if isinstance(self.content, PackedImages) else None

    @property
    def classes(self) -> tuple[str, ...]:
        """What the classes of the images are called."""
        return self.content.classes if isinstance(self.content, PackedImages) else ()

    @property
    def notes(self) -> Sequence[str]:
        """What `write` wrote otherwise than it was given to `compress`, a line each."""
        return self.content.notes

    def write(self, out: str | Path, lost: list[Damaged] | None = None, say: Say = silent) -> Path:
        """As `decompress`."""
        incomplete = self.reader.incomplete()
        if lost is None and incomplete:
            raise incomplete[-1]
        if lost is not None:
            lost += incomplete
        try:
            return self.content.write(Path(out), lost, say)
        except (DataError, Damaged):
            raise
        except ValueError as error:
            raise ValueError(f"{self.reader.name} cannot be written: {first_line(error)}") from None
