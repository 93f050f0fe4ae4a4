"""Rows of a table: {"rows": pa.Table, "columns": Columns}."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from latente.data.columns import as_levels, whole
from latente.data.table_sources import check_table_output, sniff
from latente.provenance.kind import Kind, Made, Unlike, check_count
from latente.run import TableRun

_MOST = 1 << 27  # fields of all rows

Row = tuple[str | None, ...]


class Rows(Kind):
    """In a .csv, .tsv, .parquet, .arrow, .feather or .xlsx. They are apart by the cells that differ."""

    name = "row"
    options: ClassVar = {"given": str}

    def items(self, made: Made) -> Sequence[Row]:
        return cells(made["rows"])

    def check_output(self, path: Path) -> None:
        check_table_output(path)

    def write(self, path: Path, made: Made, spec: Any) -> None:
        made["columns"].write(path, made["rows"])

    def sha256(self, made: Made) -> str:
        return fingerprint(made["rows"])

    def fits(self, n: int, options: Mapping[str, Any], spec: Any) -> bool:
        return n * len(spec.fields) <= _MOST

    def check_count(self, path: Path, n: int) -> None:
        check_count(sum(batch.num_rows for batch in sniff(path).batches()), n, self.name)

    def read(self, path: Path, made: Made, spec: Any) -> Iterator[Row | None]:
        """Row by row, None for one that differs: what is expected comes back from a file of the same kind too."""
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder) / f"rows{path.suffix}"
            self.write(again, made, spec)
            expected, found = (sniff(file).read() for file in (again, path))
        if found.column_names != expected.column_names:
            raise Unlike(f"its columns are {', '.join(found.column_names[:20])}")
        for mine, theirs, row in zip(cells(expected), cells(found), cells(made["rows"])):
            yield tuple(own if a == b else f"{b}" for own, a, b in zip(row, mine, theirs))

    def distance(self, expected: Row, found: Row) -> float:
        return sum(a != b for a, b in zip(expected, found))

    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        return f", in {far[0]:,.0f} of its cells" if far[0] else "", None


def fingerprint(table: pa.Table) -> str:
    """SHA-256 of the names of columns and of the cells."""
    digest = hashlib.sha256(json.dumps(table.column_names).encode())
    for row in cells(table):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def filled(run: TableRun, source: Any, seed: int) -> Made:
    """The rows of a source with their gaps filled. Raises ValueError as `TableRun.filled` does."""
    return {"rows": run.filled(source, seed=seed), "columns": run.columns}


def cells(table: pa.Table) -> list[Row]:
    """Rows as texts, cell by cell; None for a missing one."""
    return list(zip(*(as_levels(whole(column)).to_pylist() for column in table.columns)))
