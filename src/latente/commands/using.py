"""The commands that put a user's own data through a model: `fill`, `predict`, `reconstruct`, `denoise`, `encode`; and `explore`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from latente.commands.making import written
from latente.flags import flags, parsed

if TYPE_CHECKING:
    from latente.run import ImageRun, TableRun


@dataclass
class Fill:
    """Draw the empty cells of a table from what the other cells of their row leave open. The others stay as they are."""

    run: Annotated[Path, "positional"]
    """the run directory, of a table-gpt"""
    source: Annotated[str, "positional"]
    """the rows; a column that is missing is filled as well"""
    out: Path
    """.csv, .tsv, .parquet, .arrow or .xlsx"""
    seed: int = 0
    """the same seed fills in the same"""


def fill(words: list[str], started: float) -> int:
    given = parsed(flags(Fill), words, "latente fill")
    from latente import provenance

    provenance.check_output("fill", given.out)
    n = provenance.write_filled(_rows(given.run, "fill"), given.source, given.out, seed=given.seed)
    print(f"{n:,} rows, without gaps, in {given.out}")
    return 0


@dataclass
class Predict:
    """Say how likely each level of a column is, given the other cells of each row."""

    run: Annotated[Path, "positional"]
    """the run directory, of a table-gpt"""
    source: Annotated[str, "positional"]
    """the rows"""
    target: str
    """the column; what stands in it is not looked at"""
    out: Path | None = None
    """.csv, .tsv, .parquet, .arrow or .xlsx (default: the terminal)"""


def predict(words: list[str], started: float) -> int:
    given = parsed(flags(Predict), words, "latente predict")
    import pyarrow as pa

    from latente.data.table_sources import check_table_output, write_table

    if given.out is not None:
        check_table_output(given.out)
    made = _rows(given.run, "chances").predict(given.source, given.target)
    if given.out is None:
        print(made.to_string(index=False, float_format="{:.4g}".format))
    else:
        write_table(given.out, pa.Table.from_pandas(made, preserve_index=False))
        print(f"{len(made):,} rows of {given.target} in {given.out}")
    return 0


def _rows(path: Path, what: str) -> TableRun:
    """A run of rows that can do `what`. Raises ValueError for another."""
    from latente import run

    opened = run.load(path)
    if not isinstance(opened, run.TableRun):
        raise ValueError(f"this is for tables; {path} holds a model of {opened.spec.kind}s")
    opened.require(what)
    return opened


@dataclass
class Apply:
    """Put images through a trained model."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    source: Annotated[str, "positional"]
    """the images: what `latente train` takes"""
    out: Path
    """where the result goes"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def apply(what: str) -> Callable[[list[str], float], int]:
    def command(words: list[str], started: float) -> int:
        given = parsed(flags(Apply), words, f"latente {what}")
        from latente import provenance

        provenance.check_output(what, given.out)
        opened = _images(given.run, given.model_file, what)
        count = provenance.apply(opened, what, given.source, given.out)
        print(written(count, "vectors" if what == "encode" else "images", given.out))
        return 0

    return command


@dataclass
class Explore:
    """Draw the latent space of a run: interpolations, traversals, a plane of two latents."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    out: Path
    """the picture to write, as latent.png"""


def explore(words: list[str], started: float) -> int:
    given = parsed(flags(Explore), words, "latente explore")
    if given.out.exists() or given.out.suffix != ".png":
        raise ValueError(
            f"--out {given.out}: " + ("exists already" if given.out.exists() else "a picture ends in .png")
        )
    from latente.data.images import contact_sheet

    contact_sheet(_images(given.run, None, "explore").explore(), given.out)
    print(f"the latent space is drawn in {given.out}")
    return 0


def _images(path: Path, model_file: str | None, what: str) -> ImageRun:
    """A run of pictures that can do `what`. Raises ValueError for another."""
    from latente import run

    opened = run.load(path, model_file=model_file)
    opened.require(what)
    if not isinstance(opened, run.ImageRun):
        raise ValueError(f"{what} is for images; {path} holds a model of {opened.spec.kind}s")
    return opened
