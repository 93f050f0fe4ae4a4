"""A table in fewer bytes: latente's file, its model counted in, beside Parquet with zstd -19, and xz, bz2 and zstd -19 of the CSV.

    latente train table-gpt TABLE.csv --size tiny [flags] --out RUN
    python benchmarks/compress_tables.py RUN TABLE.csv

latente: coded, decoded again, and compared byte by byte with the source; every row comes back in its place. Debian: zstd.
"""

import argparse
import bz2
import lzma
import subprocess
import tempfile
import time
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

import latente


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    run, content = latente.load(given.run), given.table.read_bytes()
    table = pyarrow.csv.read_csv(given.table)
    print(f"{len(table):,} rows of {table.num_columns} columns, {len(content):,} bytes")

    def row(name: str, size: float, note: str = "") -> None:
        print(f"  {name:<34}{size:>12,.0f}{8 * size / len(table):>8.2f} bits a row  {note}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        found = latente.compress(run, str(given.table), folder / "a.latente", verify=False)
        coded = time.monotonic()
        same = latente.decompress(found.path, folder / "again.csv").read_bytes() == content
        assert same, "what came back is not what went in"
        took = f"coded in {coded - began:.1f} s, decoded in {time.monotonic() - coded:.1f} s"
        row("latente, weights in", found.size, took)
        row("  of these the weights", found.model)
        for dictionary in (True, False):
            path = folder / f"{dictionary}.parquet"
            pyarrow.parquet.write_table(
                table, path, compression="zstd", compression_level=19, use_dictionary=dictionary
            )
            row(f"Parquet, zstd -19, {'' if dictionary else 'no '}dictionary", path.stat().st_size)
        row("xz -9e of the CSV", len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)))
        row("bz2 -9 of the CSV", len(bz2.compress(content, 9)))
        words = ["zstd", "-q", "-19", "--ultra", "-c", str(given.table)]
        row("zstd -19 of the CSV", len(subprocess.run(words, check=True, capture_output=True).stdout))


if __name__ == "__main__":
    main()
