"""Latent vectors of images: {"latent": float32 (N,Z), "name": [str]}."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latente.data.errors import DataError
from latente.provenance import arrays
from latente.provenance.kind import Kind, Made, Unlike, check_count
from latente.run import CHUNK


class Vectors(Kind):
    """In a .npy, or a .parquet with the names of the images. They are apart by the largest difference of a number."""

    name = "vector"

    def items(self, made: Made) -> Sequence[np.ndarray]:
        return made["latent"]

    def check_output(self, path: Path) -> None:
        if path.exists():
            raise DataError(f"--out {path} exists already; choose another")
        if path.suffix not in (".npy", ".parquet"):
            raise DataError(f"--out {path}: latents go to .npy or .parquet")

    def write(self, path: Path, made: Made, spec: Any) -> None:
        if path.suffix == ".npy":
            np.save(path, made["latent"])
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"name": made["name"], "latent": list(made["latent"])}), path)

    def check_count(self, path: Path, n: int) -> None:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            check_count(pq.ParquetFile(path).metadata.num_rows, n, self.name)
        elif path.suffix == ".npy":
            check_count(arrays.length(path, "latent"), n, self.name)
        else:
            raise Unlike("vectors are not written to such files")

    def read(self, path: Path, made: Made, spec: Any) -> Iterator[np.ndarray | None]:
        if path.suffix == ".parquet":
            return _rows(path, made)
        return iter(arrays.array(path, "latent", made["latent"].shape, np.float32))

    def distance(self, expected: np.ndarray, found: np.ndarray) -> float:
        if np.array_equal(expected, found, equal_nan=True):
            return 0.0
        with np.errstate(all="ignore"):
            apart = np.abs(expected.astype(np.float64) - found).max()
        return float(apart) if np.isfinite(apart) else float("inf")

    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        largest = max((distance for distance in far if distance is not None), default=None)
        return "" if largest is None else f"; a number differs by up to {largest:.3g}", largest


def _rows(path: Path, made: Made) -> Iterator[np.ndarray | None]:
    import pyarrow.parquet as pq

    size, number = made["latent"].shape[1:], 0
    for batch in pq.ParquetFile(path).iter_batches(CHUNK, columns=["name", "latent"]):
        for row in batch.to_pylist():
            with np.errstate(all="ignore"):
                found = np.array(row["latent"], np.float32)
            yield found if found.shape == size and row["name"] == made["name"][number] else None
            number += 1
