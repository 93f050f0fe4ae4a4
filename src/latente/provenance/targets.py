"""Targets that a model of pairs wrote: {"target": [str]}, with "source" in .tsv and .jsonl, and "log_prob" and "score" in .jsonl."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from latente.data.errors import DataError
from latente.data.pair_outputs import check_pair_output, columns, read_lines, write_pairs
from latente.provenance.kind import Kind, Made, check_count
from latente.provenance.texts import decoded, plain
from latente.run import PairRun

_MOST = 1 << 10  # targets of each source, where a file is too short to hold as many

Row = tuple[Any, ...]


class Targets(Kind):
    """In a .txt, .tsv or .jsonl. They are apart by the largest difference of a number; without end where a text is another."""

    name = "target"
    options: ClassVar = {
        "n": int, "tokens": int, "beams": int, "length_penalty": float, "no_repeat": int, "temperature": float, "top_k": int,
        "top_p": float,
    }  # fmt: skip
    least: ClassVar = {"no_repeat": 0}

    def items(self, made: Made) -> Sequence[Row]:
        return list(zip(*made.values()))

    def check_output(self, path: Path) -> None:
        check_pair_output(path, 1)

    def write(self, path: Path, made: Made, spec: Any) -> None:
        write_pairs(path, made)

    def fits(self, n: int, options: Mapping[str, Any], spec: Any) -> bool:
        return options.get("n", 1) <= max(n, _MOST)

    def check_count(self, path: Path, n: int) -> None:
        check_count(len(_lines(path)), n, self.name)

    def read(self, path: Path, made: Made, spec: Any) -> Iterator[Row | None]:
        return (_row(line, path.suffix, list(made)) for line in _lines(path))

    def distance(self, expected: Row, found: Row) -> float:
        numbers = [type(b) is float and isinstance(a, float) for a, b in zip(expected, found)]
        if any(a != b for a, b, number in zip(expected, found, numbers) if not number):
            return math.inf
        return max((abs(float(a) - b) for a, b, number in zip(expected, found, numbers) if number), default=0.0)

    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        largest = max((distance for distance in far if distance is not None and distance < math.inf), default=None)
        return "" if largest is None else f"; a log-probability or score differs by up to {largest:.3g}", largest


def translated(run: PairRun, sources: Sequence[str], options: Mapping[str, Any], seed: int, path: Path) -> Made:
    """What `run` writes for the sources, as a file like `path` holds it. Raises ValueError as `PairRun.hypotheses` does."""
    return columns(path, sources, run.hypotheses(sources, seed=seed, **options))


def fingerprint(sources: Sequence[str]) -> str:
    """SHA-256 of sources, a line each: that of their file, where it is UTF-8 and its lines end as on Unix."""
    return hashlib.sha256("".join(f"{text}\n" for text in sources).encode("utf-8", "surrogatepass")).hexdigest()


def sources_of(path: Path, n: int) -> list[str] | None:
    """The sources that stand in a file of up to `n` targets each; None where it holds none."""
    if path.suffix == ".txt":
        return None
    rows = [_row(line, path.suffix, ["source"]) for line in _lines(path)]
    found: list[str] = []
    for source, several in groupby(row[0] if row else "" for row in rows):
        each = n if source.strip() else 1  # of a blank source there is one target, a blank one
        found += [source] * -(-len(list(several)) // each)
    return found


def given(source: Any) -> list[str]:
    """The sources a user gives: the path of a file of lines, or texts. Raises DataError for a file that cannot be read."""
    if isinstance(source, str | Path):
        return read_lines(source)
    texts = list(source)
    if not all(isinstance(text, str) for text in texts):
        raise DataError("sources are a file of lines, or a list of texts")
    return texts


def _lines(path: Path) -> list[str]:
    return plain(decoded(path)).split("\n")


def _row(line: str, suffix: str, names: Sequence[str]) -> Row | None:
    """What stands under `names` in a line; None where it is no such line."""
    if suffix == ".jsonl":
        held = json.loads(line)
        return tuple(held.get(name) for name in names) if isinstance(held, dict) else None
    cells = line.split("\t")
    if len(cells) != (2 if suffix == ".tsv" else 1):
        return None
    return tuple(cells[: len(names)])
