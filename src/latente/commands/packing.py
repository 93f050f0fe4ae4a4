"""The commands for data in few bytes: `compress` and `decompress`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from latente.data.errors import one_line
from latente.flags import flags, parsed


@dataclass
class Compress:
    """Write a data set into one small file: images without loss (pixelcnn) or with some (compressor), files byte by byte (gpt), rows
    cell by cell (table-gpt)."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    source: Annotated[str, "positional"]
    """the images or rows (what `latente train` takes), or a file or folder of text"""
    out: Path
    """the file to write, as set.latente"""
    psnr: float | None = None
    """compressor: images at least this good, in dB over all their pixels"""
    bytes_per_item: float | None = None
    """compressor: a file of at most this many bytes for each image, the weights counted in"""
    refine: int = 0
    """compressor: steps that look for better symbols than the encoder's, image by image: 200 save about a tenth of the bytes and take
    a sixth of a second of a core or, without AVX-512, up to one, for an image of 28x28"""
    external_model: bool = False
    """leave the model's weights out: the run is then needed to read the file"""
    verify: bool = True
    """decode everything and compare before the file appears"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def compress(words: list[str], started: float) -> int:
    given = parsed(flags(Compress), words, "latente compress")
    from rich.console import Console

    from latente import compression, run

    opened = run.load(given.run, model_file=given.model_file)
    with Console(stderr=True).status("the data is opened") as status:
        found = compression.compress(
            opened, given.source, given.out, psnr=given.psnr, bytes_per_item=given.bytes_per_item,
            refine=given.refine, external_model=given.external_model, verify=given.verify, say=status.update,
        )  # fmt: skip
    ratio = f"one in {found.raw / found.size:.1f}" if found.size < found.raw else "larger than the data"
    print(f"{found.raw:,} bytes in {found.size:,}, {ratio}: {found.path}")
    print(f"of these {found.model:,} are the model's weights, {found.coded:,} what it did not expect")
    if found.size - found.model < found.raw <= found.size:
        print(
            f"--external-model leaves the weights out: {found.size - found.model:,} bytes; the run is then needed to read it"
        )
    if found.modelled:
        more = found.modelled / found.expected - 1
        print(f"the model's own likelihood promised {found.expected:,.0f} for that: {more:.2%} more")
    if found.psnr is not None:
        print(f"{found.size / found.items:.1f} bytes an image, {found.psnr:.2f} dB over all of them")
    for note in found.notes:
        print(f"note: {one_line(note)}")
    came = "the same" if found.psnr is None else "as they were coded, with loss"
    came += ", but for what is noted above" * bool(found.notes)
    print(f"decoded and compared: {came}" if given.verify else "not decoded and compared (--no-verify)")
    if found.bound:
        print(f"it can be read where sums are the same as here: {found.bound}")
    words = ["latente", "decompress", str(found.path)]
    if given.external_model:
        words += ["--run", str(given.run)]
        words += [] if given.model_file is None else ["--model-file", given.model_file]
    print(f"next: {shlex.join(words)} --out ...")
    return 0


@dataclass
class Decompress:
    """Write again what a .latente file holds. Exit code 1 when a part of it is damaged."""

    file: Annotated[Path, "positional"]
    """what `latente compress` wrote"""
    out: Path
    """images: a folder of PNG, .npy, .npz or .parquet; text: the file, or a folder of the files; rows: .csv or .tsv as
    they were written, .parquet, .arrow, .feather or .xlsx"""
    run: Path | None = None
    """the run it was made with, where its weights were left out"""
    skip_damaged: bool = False
    """write what can be read of a damaged file, and say what cannot"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def decompress(words: list[str], started: float) -> int:
    given = parsed(flags(Decompress), words, "latente decompress")
    from rich.console import Console

    from latente import compression, run
    from latente.codec.layout import Damaged

    opened = None if given.run is None else run.load(given.run, model_file=given.model_file)
    lost: list[Damaged] | None = [] if given.skip_damaged else None
    try:
        archive = compression.Archive(given.file, opened)
    except Damaged as error:  # of something without which nothing can be read
        print(f"latente: {one_line(error)}", file=sys.stderr)
        return 1
    with archive, Console(stderr=True).status("the file is opened") as status:
        try:
            path = archive.write(given.out, lost, status.update)
        except Damaged as error:
            print(f"latente: {one_line(error)}" + " (--skip-damaged writes the rest)" * (lost is None), file=sys.stderr)
            return 1
    for damage in lost or ():
        print(f"latente: {one_line(damage)}", file=sys.stderr)
    for note in archive.notes:
        print(f"note: {one_line(note)}")
    print(f"what {given.file} holds is in {path}" + (", without what is damaged" if lost else ""))
    return 1 if lost else 0
