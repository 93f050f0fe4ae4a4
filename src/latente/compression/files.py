"""`compress`, `decompress`, and `Archive`, an open .latente file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import headers
from latente.compression.chunks import Job, Missed
from latente.compression.images import ImageJob, PackedImages
from latente.compression.quality import Wish
from latente.compression.tables import PackedTables, TableJob
from latente.compression.texts import PackedTexts, TextJob
from latente.data.errors import DataError, first_line
from latente.evaluation.findings import Say, silent
from latente.run import ImageRun, Run, TableRun, TextRun

PACKED = {headers.Images: PackedImages, headers.Texts: PackedTexts, headers.Tables: PackedTables}
# The parts of each kind of file; those that it cannot be without.
PARTS = {
    headers.Images: ({"model", "names"}, set()),
    headers.Texts: ({"model", "names", "sizes", "tokens"}, {"sizes"}),
    headers.Tables: ({"model", "columns"}, {"columns"}),
}


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
    notes: tuple[str, ...] = ()
    """what comes back otherwise than it was given, a line each"""


def compress(
    run: Run, source: Any, out: str | Path, *, psnr: float | None = None, bytes_per_item: float | None = None,
    external_model: bool = False, verify: bool = True, say: Say = silent,
) -> Packed:  # fmt: skip
    """Writes `source` to the new file `out`; it is decoded and compared before it appears under its name.

    With a pixelcnn: images without loss, at the run's size and colours (whatever `latente train` takes, or uint8 (N,C,H,W), with
    labels as a pair). With a compressor: images at least `psnr` dB good, or in a file of at most `bytes_per_item` for each; what came
    of it is in the result. With a gpt: files byte by byte (a path, a folder, bytes). With a table-gpt: rows, cell by cell, in their
    order (whatever `latente train` takes, of the run's columns). `external_model` leaves the weights out: the
    run is then needed to read it. Raises ValueError for what cannot be compressed.
    """
    lossy, wish = hasattr(run.model, "at"), Wish(psnr, bytes_per_item)
    if not lossy and wish:
        raise ValueError(f"{run.family.name} loses nothing; --psnr and --bytes-per-item are for a compressor")
    if run.record["model_sha256"] is not None and not external_model:
        raise ValueError("a model of your own file cannot be put into a .latente file; give --external-model")
    if isinstance(run, ImageRun) and (lossy or hasattr(run.model, "walk")):
        job: Job = ImageJob(run, source, external_model, wish, say)
    elif isinstance(run, TextRun):
        job = TextJob(run, source, external_model)
    elif isinstance(run, TableRun) and hasattr(run.model, "walk"):
        job = TableJob(run, source, external_model, say)
    else:
        raise ValueError(
            f"{run.family.name} is no codec: train a pixelcnn or a compressor on images, a gpt on text, a table-gpt on rows"
        )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            return _written(Path(out), job, verify, say)
        except Missed:
            say("larger than wished: once more, at a lower quality")


def _written(out: Path, job: Job, verify: bool, say: Say) -> Packed:
    headers.read(job.header)  # what cannot be read is not written
    items = coded = modelled = 0
    expected = 0.0
    with Writer(out, job.header, job.parts) as writer:
        for chunk in job.chunks(verify, say):
            writer.add(chunk.payload, chunk.items)
            items, coded = items + chunk.items, coded + len(chunk.payload)
            if chunk.modelled:
                expected, modelled = expected + chunk.expected, modelled + len(chunk.payload)
        size = writer.size
        job.settle(size)
    model = len(job.parts.get("model", b""))
    return Packed(out, items, job.raw, size, model, coded, expected, modelled, job.psnr, tuple(job.notes))


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
        """Raises ValueError for what is no such file, for one whose weights are not there, and for another machine's."""
        self.reader = Reader(path)
        try:
            held = headers.read(self.reader.header)
            every, needed = PARTS[type(held)]
            if not every >= set(self.reader.parts) >= needed:
                raise ValueError("its parts are not those that this latente writes")
            self._content: Any = PACKED[type(held)](self.reader, held, run)  # type: ignore[arg-type]
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
        """One image, uint8 (C,H,W), one byte as a number, or one row as a dict; its chunk alone is read. Raises Damaged, IndexError."""
        number = self.reader.chunk_of(item)
        return self._content.item(self.chunk(number), item - self.reader.items_of(number).start)

    def chunk(self, number: int) -> Any:
        """The items of a chunk: images uint8 (n,C,H,W), bytes, or rows as a pa.Table. Raises Damaged, IndexError."""
        return self._content.decode([number])[0]

    def write(self, out: str | Path, lost: list[Damaged] | None = None, say: Say = silent) -> Path:
        """As `decompress`."""
        incomplete = self.reader.incomplete()
        if lost is None and incomplete:
            raise incomplete[-1]
        if lost is not None:
            lost += incomplete
        try:
            return self._content.write(Path(out), lost, say)
        except (DataError, Damaged):
            raise
        except ValueError as error:
            raise ValueError(f"{self.reader.name} cannot be written: {first_line(error)}") from None
