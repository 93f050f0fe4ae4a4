"""A dataset of rows: a key for every cell, tokens for what is learned, and three splits that share no row.

    Table --inferred--> kinds --> keys of all cells --row hashes--> splits --training rows--> bins, levels --> tokens (N,F)

Splits go by content (splits.py): by a hash of a row's values, where what is written differently (1.5 and 1.50) is equal;
identifiers and ignored columns have no say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from latente.data.cache import Progress, cache_folder, digest, entry
from latente.data.columns import FILE, Column, Columns, as_levels, binned, levelled, ranks, whole
from latente.data.conditions import rules as parsed_rules
from latente.data.errors import DataError
from latente.data.forms import Table
from latente.data.inference import Seen, inferred
from latente.data.rules import broken
from latente.data.splits import FEWEST, mixed, split
from latente.data.table import TableOptions
from latente.data.table_audit import TableAudit, describe, warnings
from latente.data.table_sources import sniff
from latente.rng import permutation
from latente.spec import TableSpec

if TYPE_CHECKING:
    import torch

MISSING, ODD = np.iinfo(np.int64).min, np.iinfo(np.int64).min + 1  # keys that no value has
_FORMAT = 3


@dataclass
class TableDataset:
    """Rows with their splits. `batch` is what training calls; keys and tokens may lie on disk."""

    name: str
    spec: TableSpec
    fingerprint: str
    columns: Columns
    keys: np.ndarray
    """(learned columns, N) int64: of numbers and times as their scale counts, of categories the rank of the level among `levels`;
    MISSING and ODD for what is not there and what has no key"""
    tokens: np.ndarray
    """(N,F) unsigned integers"""
    levels: tuple[tuple[str, ...], ...]
    """for each learned column of categories all its levels, rare ones too"""
    splits: dict[str, np.ndarray]
    """train, validation, test: row numbers"""
    audit: TableAudit
    rules: tuple[str, ...] = ()
    previewed: ClassVar[int] = 20
    """how many rows `preview` is given"""

    @property
    def target(self) -> int | None:
        """The learned column whose prediction says how useful samples are."""
        return self.spec.target

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """{"tokens": int64 (B,F)} of these rows, in their order."""
        import torch

        return {"tokens": torch.from_numpy(self.tokens[indices].astype(np.int64))}

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Training rows in the order of one epoch, (N,) int64: a shuffle keyed by seed and epoch."""
        rows = self.splits["train"]
        return rows[permutation(len(rows), seed, "epoch", epoch).numpy()]

    def cells(self, indices: np.ndarray) -> np.ndarray:
        """(n, learned columns) float64 as they are in the source: numbers and times, ranks of levels, NaN where missing."""
        parts = []
        for column, keys in zip(self.columns.learned, self.keys):
            found = keys[indices]
            there = found > ODD
            values = (
                column.scale.numbers(np.where(there, found, 0))
                if column.ordered and column.scale
                else found.astype(float)
            )
            parts.append(np.where(there, values, np.nan))
        return np.stack(parts, 1)

    def table(self, indices: np.ndarray) -> pa.Table:
        """These rows in the source's types; identifiers are null, columns that are ignored are left out."""
        made = {}
        for number, column in enumerate(self.columns.learned):
            found = self.keys[number][indices]
            there = found > ODD
            if column.ordered and column.scale is not None:
                made[column.name] = column.scale.array(np.where(there, found, 0), there)
                continue
            levels = pa.array([*self.levels[number], None], pa.string())
            whole_column = replace(column, levels=self.levels[number])
            codes = np.where(there, found, len(self.levels[number]))
            made[column.name] = whole_column.typed(levels.take(pa.array(codes)))
        for column in self.columns.columns:
            if column.kind == "constant":
                made[column.name] = column.anew(len(indices), 0, 0)
            elif column.kind == "identifier":
                made[column.name] = pa.nulls(len(indices), pa.string())
        return pa.table({name: made[name] for name in self.columns.names})

    def warnings(self) -> list[str]:
        """What the user should know before training, a line each."""
        return warnings(self)

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) rows, for people."""
        return describe(self)

    def preview(self, drawn: Mapping[str, np.ndarray], path: Path) -> None:
        """Writes drawn rows {"tokens": (n,F)} to PATH.csv, numbers at the middle of their bins."""
        tokens = drawn["tokens"]
        rest = self.columns.draw(tokens, np.full((len(tokens), len(self.columns.learned)), 0.5))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".csv").unlink(missing_ok=True)
        self.columns.write(path.with_suffix(".csv"), self.columns.table(tokens, rest))

    def save_assets(self, folder: str | Path) -> None:
        """Writes what the columns are, from which `TableOptions(columns=folder)` makes this dataset again."""
        self.columns.save(folder)


def open_table(source: Any, options: TableOptions, tell: Progress) -> TableDataset:
    """The dataset a source of rows stands for. Raises DataError, one line, when it cannot be learned."""
    table = sniff(source, options)
    known = Path(str(options.columns)) if isinstance(options.columns, str | Path) else None
    columns = Columns.load(known) if known is not None and (known / FILE).is_file() else None
    if columns is not None and tuple(c.name for c in columns.columns) != tuple(table.schema.names):
        raise DataError(f"{table.name} has other columns than {known}: {', '.join(table.schema.names[:20])}")
    if table.stamp is None:
        return _dataset(table, options, _made(table, options, columns, None, tell))
    told = (table.stamp, _asked(options), columns, _FORMAT)
    folder = cache_folder() / f"table-{digest(*told)}"
    ready = _read_cache(folder)
    if ready is None:
        with entry(folder, lambda: _read_cache(folder) is not None) as draft:
            made = _made(table, options, columns, draft, tell)
            made.columns.save(draft)
            np.savez(draft / "arrays.npz", **made.splits, hashes=made.hashes)  # type: ignore[arg-type]
            (draft / "record.json").write_text(
                json.dumps([made.levels, asdict(made.audit), made.shape]), encoding="utf-8"
            )
        ready = _read_cache(folder)
    assert ready is not None
    return _dataset(table, options, ready)


def _asked(options: TableOptions) -> tuple[Any, ...]:
    """What of the options decides how a source is read: of a file of columns, what it says."""
    own = options.columns
    if isinstance(own, str | Path) and Path(own).expanduser().is_file():
        own = Path(own).expanduser().read_text(encoding="utf-8", errors="replace")
    return repr(own), *(value for name, value in asdict(options).items() if name not in ("columns", "target", "rules"))


@dataclass
class _Made:
    """What is made of a source once, and kept."""

    columns: Columns
    keys: np.ndarray
    tokens: np.ndarray
    levels: list[list[str]]
    splits: dict[str, np.ndarray]
    hashes: np.ndarray
    audit: TableAudit

    @property
    def shape(self) -> list[int]:
        return [*self.keys.shape, self.tokens.shape[1]]


def _read_cache(folder: Path) -> _Made | None:
    try:
        levels, audit, (columns, rows, fields) = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        keys = np.memmap(folder / "keys.bin", np.int64, "r", shape=(columns, rows))
        tokens = np.memmap(folder / "tokens.bin", np.uint16, "r", shape=(rows, fields))
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            splits = {split: arrays[split] for split in ("train", "validation", "test")}
            return _Made(Columns.load(folder), keys, tokens, levels, splits, arrays["hashes"], TableAudit(**audit))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _made(table: Table, options: TableOptions, known: Columns | None, folder: Path | None, tell: Progress) -> _Made:
    tell("reading", 0, 1)
    found, count, seen = inferred(table, options if known is None else replace(options, columns=_kinds_of(known)))
    columns = list(known.columns) if known is not None else found
    # A column that training rows made constant is read as what it is: it may have a say in the splits.
    read = [new if old.kind == "constant" else old for old, new in zip(columns, found)]
    counted = [column for column in read if column.scale is not None or column.kind in ("category", "boolean")]
    keys = _keys(table, counted, seen, count, folder, tell)
    hashes = _hashed(counted, keys, seen, known is None)
    if known is None and count >= FEWEST and (hashes == hashes[0]).all():
        raise _unlearned(table, columns, "; but for identifiers all rows are the same")
    splits = split(hashes, table.test, options.validation, options.test, table.name)
    levels: dict[str, list[str]] = {}
    places = {column.name: place for place, column in enumerate(columns)}
    for row, column in enumerate(counted):
        if column.kind in ("category", "boolean"):
            levels[column.name] = _ranked(keys[row], seen[column.name], splits["train"])
        if known is None:
            columns[places[column.name]] = _learned(
                column, keys[row], levels.get(column.name), splits["train"], options, seen
            )
    made = Columns(tuple(columns), table.form)
    if not made.learned:
        raise _unlearned(table, columns, "")
    rows = {column.name: row for row, column in enumerate(counted)}
    kept = keys[[rows[column.name] for column in made.learned]] if len(made.learned) < len(counted) else keys
    if folder is not None and kept is not keys:
        np.asarray(kept).tofile(folder / "keys.bin")
    tokens = _tokens(made, kept, folder)
    audit = TableAudit(count, count - len(np.unique(hashes)), [*table.notes])
    return _Made(made, kept, tokens, [levels.get(c.name, []) for c in made.learned], splits, np.sort(hashes), audit)


def _unlearned(table: Table, columns: Sequence[Column], why: str) -> DataError:
    shown = ", ".join(f"{column.name} ({column.kind})" for column in columns[:20])
    return DataError(f"{table.name} has no column to learn from: {shown}{why}")


def _kinds_of(columns: Columns) -> dict[str, Any]:
    """Columns of a run, as the kinds that reading is told: what they were found to be is not found out again."""
    same = {"constant": None}
    return {c.name: c.kind for c in columns.columns if c.kind not in same}


def _keys(
    table: Table, columns: Sequence[Column], seen: Mapping[str, Seen], rows: int, folder: Path | None, tell: Progress
) -> np.ndarray:
    """(columns, rows) int64; levels are numbered as they were first met."""
    shape = (len(columns), rows)
    keys = (
        np.empty(shape, np.int64)
        if folder is None or not columns
        else np.memmap(folder / "keys.bin", np.int64, "w+", shape=shape)
    )
    met = {c.name: pa.array(list(seen[c.name].levels or ()), pa.string()) for c in columns if c.scale is None}
    at = 0
    for batch in table.batches():
        upto = at + batch.num_rows
        for row, column in enumerate(columns):
            array = whole(batch.column(column.name))
            if column.scale is not None:
                found, there, odd = column.scale.counted(array)
                keys[row, at:upto] = np.where(there, np.where(odd, ODD, found), MISSING)
            else:
                codes = ranks(as_levels(array), met[column.name])
                keys[row, at:upto] = np.where(codes < 0, MISSING, codes)
        at = upto
        tell("counting rows", at, rows)
    return keys


def _hashed(columns: Sequence[Column], keys: np.ndarray, seen: Mapping[str, Seen], free: bool) -> np.ndarray:
    """A mixed 64-bit hash of each row (N,) uint64: of the values in all columns but identifiers and those that are always the same."""
    from pandas.core.util.hashing import hash_array

    total = np.zeros(keys.shape[1], np.uint64)
    for column, own in zip(columns, keys):
        own = np.asarray(own)
        if (own == own[0]).all() or column.kind == "identifier" or (free and _numbers_rows(column, own, seen)):
            continue
        if column.scale is not None:
            values = column.scale.places(own).astype(np.uint64)
        else:
            known = hash_array(np.array([*(seen[column.name].levels or ()), ""], object), categorize=False)
            known[-1] = np.uint64(MISSING & (1 << 64) - 1)
            values = known[np.where(own < 0, -1, own)]
        total = mixed(total ^ mixed(values))
    return total


def _numbers_rows(column: Column, keys: np.ndarray, seen: Mapping[str, Seen]) -> bool:
    """Whether a column of whole numbers, of which the user has said nothing, tells rows apart and no more."""
    scale = column.scale
    if column.kind != "number" or scale is None or scale.kind != "decimal" or scale.decimals or scale.multiple != 1:
        return False
    if seen[column.name].wanted is not None or len(keys) <= 50 or (keys <= ODD).any():
        return False
    return int(keys.max()) - int(keys.min()) < 2 * len(keys) and len(np.unique(keys)) == len(keys)


def _ranked(keys: np.ndarray, seen: Seen, train: np.ndarray) -> list[str]:
    """Levels by falling frequency in training rows, and the keys in place of first-met numbers."""
    levels = list(seen.levels or ())
    known = np.asarray(keys[train])
    counts = np.bincount(known[known >= 0], minlength=len(levels))
    order = sorted(range(len(levels)), key=lambda code: (-counts[code], levels[code]))
    rank = np.empty(len(levels) + 1, np.int64)
    rank[order] = np.arange(len(levels))
    rank[-1] = MISSING
    keys[:] = rank[np.where(keys < 0, -1, keys)]
    return [levels[code] for code in order]


def _learned(
    column: Column,
    keys: np.ndarray,
    levels: list[str] | None,
    train: np.ndarray,
    options: TableOptions,
    seen: Mapping[str, Seen],
) -> Column:
    """The column with what training rows teach: levels, bins, whether anything is missing; or what else it turns out to be."""
    known = np.asarray(keys[train])
    present = known[known > ODD]
    missing = bool((known == MISSING).any())
    if levels is not None:
        counts = np.bincount(present, minlength=len(levels))
        kept = levelled(dict(zip(levels, counts.tolist())), options.protect)
        if not kept:
            return replace(column, kind="constant", levels=(), missing=True)
        return replace(column, levels=kept, missing=missing)
    everything = np.asarray(keys)
    there = everything[everything > ODD]
    low, high = (int(there.min()), int(there.max())) if len(there) else (0, 0)
    if column.kind == "identifier" or _numbers_rows(column, everything, seen):
        return replace(column, kind="identifier", pattern=(str(low), str(high)))
    if low == high and len(there) == len(everything):
        text = as_levels(column.scale.array(there[:1], np.ones(1, bool)))[0].as_py() if column.scale else None
        return replace(column, kind="constant", levels=(text,) if text is not None else (), scale=None)
    bins = binned(present, options.protect, options.bins)
    if not bins:
        return replace(column, kind="constant", levels=(), missing=True, scale=None)
    return replace(column, bins=bins, missing=missing)


def _tokens(columns: Columns, keys: np.ndarray, folder: Path | None) -> np.ndarray:
    """(N,F) uint16, chunk by chunk."""
    rows, fields = keys.shape[1], len(columns.spec().fields)
    tokens = (
        np.empty((rows, fields), np.uint16)
        if folder is None
        else np.memmap(folder / "tokens.bin", np.uint16, "w+", shape=(rows, fields))
    )
    for at in range(0, rows, 1 << 18):
        part = np.asarray(keys[:, at : at + (1 << 18)])
        found = [c.tokens(k, k > ODD, k == ODD)[0] for c, k in zip(columns.learned, part)]
        tokens[at : at + (1 << 18)] = np.concatenate(found, 1)
    return tokens


def _dataset(table: Table, options: TableOptions, made: _Made) -> TableDataset:
    spec = made.columns.spec(_target(options.target, made.columns))
    content = digest(
        made.hashes.tobytes(),
        [(c.name, c.kind, c.bins, c.levels) for c in made.columns.columns],
        options.test,
        options.validation,
    )
    data = TableDataset(
        table.name, spec, content, made.columns, made.keys, made.tokens, tuple(map(tuple, made.levels)), made.splits, made.audit,
        tuple(options.rules),
    )  # fmt: skip
    for rule in parsed_rules(data.rules, made.columns.names):
        number, first = broken(rule, data.table(data.splits["train"]), made.columns)
        if number:
            row = int(data.splits["train"][first])
            raise DataError(f"{table.name} breaks the rule {rule} in {number:,} training rows, first in row {row + 1}")
    return data


def _target(wanted: str | None, columns: Columns) -> int | None:
    """The place of the target among the learned columns. Raises DataError for one that is not learned."""
    names = [column.name for column in columns.learned]
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"--target {wanted}: not a column that is learned; there are {', '.join(names)}")
        return names.index(wanted)
    few = [i for i, c in enumerate(columns.learned) if c.kind in ("boolean", "category") and 2 <= len(c.levels) <= 20]
    return few[-1] if few else None
