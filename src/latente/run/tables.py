"""Runs of tables."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from latente.data.columns import Columns, whole
from latente.data.conditions import Condition, Rule, conditions
from latente.data.conditions import rules as parsed_rules
from latente.data.rules import combinations, kept
from latente.data.sources import check_kind
from latente.data.table import TableOptions
from latente.data.table_dataset import TableDataset
from latente.data.table_sources import Table, sniff
from latente.evaluation import tables
from latente.evaluation.findings import Evaluation, Say, silent
from latente.rng import key, keyed
from latente.run.base import ASSETS, Run, positive

if TYPE_CHECKING:
    import pandas as pd

# Rows are drawn in chunks, each from its own keys: so many, or of so many fields in all.
MOST, FEWEST, FIELDS = 8_192, 256, 1 << 17
IDLE = 200  # chunks without a row that is kept, after which no more are tried
LIKELY = 10_000  # rows of a split whose likelihood is measured

READING = "encoding", "delimiter", "decimal", "excel_sheet"  # of the options: how a file is read
Given = str | Mapping[str, Any] | Sequence[str]


class TableRun(Run):
    """A trained model of rows. Rows go in as anything `open_source` reads, and come out as a pandas frame in the source's types."""

    @cached_property
    def columns(self) -> Columns:
        made = Columns.load(self.path / ASSETS)
        if made.spec(self.spec.target) != self.spec:
            raise ValueError(f"{self.path / ASSETS}: these are not the columns the model was built for")
        return made

    @cached_property
    def rules(self) -> list[tuple[Rule, set[tuple[str | None, ...]] | None]]:
        """What all rows satisfy, with the combinations that training rows have where those are the rule."""
        rules = parsed_rules(self.record["data"]["options"].get("rules") or (), self.columns.names)
        if not any(rule.kind == "known" for rule in rules):
            return [(rule, None) for rule in rules]
        data = self.reopened()
        table = data.table(data.splits["train"])
        return [(rule, set(combinations(rule, table)) if rule.kind == "known" else None) for rule in rules]

    @property
    def chunk(self) -> int:
        """Rows that are drawn at once. It decides what is drawn."""
        return max(FEWEST, min(MOST, FIELDS // len(self.spec.fields)))

    # ---- new rows -----------------------------------------------------------------------------------------------------

    def sample(self, n: int, *, seed: int = 0, given: Given = ()) -> pd.DataFrame:
        """`n` new rows; the same seed gives the same rows.

        `given` are conditions that all of them satisfy, as "age>60, sex=Female", {"age": ">60"}: they are distributed as such rows
        are. Raises ValueError for what cannot be read, and when rows that satisfy everything are too rare to be found.
        """
        return self.frame(self.table(n, seed=seed, given=given))

    def made(self, n: int, *, seed: int = 0, **options: Any) -> dict[str, Any]:
        return {"rows": self.table(n, seed=seed, **options), "columns": self.columns}

    def table(self, n: int, *, seed: int = 0, given: Given = ()) -> pa.Table:
        """As `sample`, as an Arrow table."""
        positive("--n", n)
        asked = conditions(given, self.columns.names)
        allowed = self._allowed(asked)
        met: dict[Rule, set[tuple[str | None, ...]]] = {}
        parts: list[pa.Table] = []
        rows = chunk = idle = 0
        while rows < n:
            made = self._chunk(seed, chunk, allowed)
            for condition in asked:
                made = made.filter(
                    pa.array(self.columns[condition.column].holds(whole(made[condition.column]), condition))
                )
            made = self._ruled(made, met)
            idle = 0 if len(made) else idle + 1
            if idle == IDLE:
                raise ValueError(self._rare(rows, (chunk + 1) * self.chunk, asked))
            parts.append(made)
            rows, chunk = rows + len(made), chunk + 1
        return pa.concat_tables(parts).slice(0, n).combine_chunks()

    def _chunk(self, seed: int, chunk: int, allowed: dict[int, torch.Tensor]) -> pa.Table:
        """The rows of one chunk that are kept by chance, which is what makes those under conditions right."""
        size = self.chunk
        with torch.inference_mode():
            drawn = self.model.sample(
                size, generator=keyed(seed, "sample", chunk), **({"allowed": allowed} if allowed else {})
            )
        tokens = drawn["tokens"].numpy()
        random = np.random.default_rng(key(seed, "rows", chunk))
        rest = self.columns.draw(tokens, random.random((size, len(self.columns.learned))))
        made = self.columns.table(tokens, rest, chunk * size, key(seed, "identifiers"))
        if allowed:
            chance = torch.exp(drawn["log_weight"]).numpy()
            made = made.filter(pa.array(random.random(size) < chance))
        return made

    def _allowed(self, asked: Sequence[Condition]) -> dict[int, torch.Tensor]:
        """The tokens that conditions leave to each field. Raises ValueError where they leave none."""
        owners, names = self.spec.owners, self.spec.columns
        found: dict[int, torch.Tensor] = {}
        for condition in asked:
            masks = self.columns[condition.column].allowed(condition)
            first = owners.index(names.index(condition.column))
            for field, mask in enumerate(masks, first):
                both = torch.from_numpy(mask) & found.get(field, torch.ones(len(mask), dtype=torch.bool))
                if field == first and not (mask[0] and condition.value == ""):
                    both[list(self.spec.never[owners[field]])] = False
                if not both.any():
                    raise ValueError(f"{condition}: no value that may be sampled satisfies this")
                found[field] = both
        return {field: mask for field, mask in found.items() if not mask.all()}

    def _ruled(self, made: pa.Table, met: dict[Rule, set[tuple[str | None, ...]]]) -> pa.Table:
        for rule, known in self.rules:
            holds = kept(rule, made, self.columns, met.get(rule) if rule.kind == "unique" else known)
            made = made.filter(pa.array(holds))
        for rule, _ in self.rules:
            if rule.kind == "unique":
                met.setdefault(rule, set()).update(combinations(rule, made))
        return made

    def _rare(self, rows: int, tried: int, asked: Sequence[Condition]) -> str:
        wanted = ", ".join([*map(str, asked), *(str(rule) for rule, _ in self.rules)])
        return (
            f"only {rows:,} of some {tried:,} rows satisfy {wanted}: too rare to go on; ask for less, or for fewer rows"
        )

    def frame(self, table: pa.Table) -> pd.DataFrame:
        """An Arrow table as a pandas frame: numbers and times where a CSV has them written, else in the dtypes of the source."""
        frame = self.columns.typed(table).to_pandas()
        for name, dtype in self.columns.form.dtypes:
            if name in frame.columns:
                try:
                    frame[name] = frame[name].astype(dtype)
                except (TypeError, ValueError):
                    continue  # whole numbers with gaps have no such type in pandas
        return frame

    # ---- rows that are given ---------------------------------------------------------------------------------------------

    def sniffed(self, source: Any, *, empty: bool = False) -> Table:
        """The table a source stands for, read as this run's own was; it may have no rows where told that it may be `empty`."""
        check_kind(source, "table")
        options = self.record["data"]["options"]
        return sniff(source, TableOptions(**{name: options[name] for name in READING}), empty=empty)

    def read(self, source: Any) -> pa.Table:
        """Rows of the columns this run has learned; a column that is not there is empty. Raises ValueError for other columns."""
        table = self.sniffed(source).read()
        names = [column.name for column in self.columns.learned]
        if not set(names) & set(table.column_names):
            raise ValueError(
                f"none of the columns {', '.join(table.column_names[:10])} is one of this run: {', '.join(names[:10])}"
            )
        empty = pa.nulls(len(table), pa.string())
        made = {
            c.name: c.written(whole(table[c.name])) if c.name in table.column_names else empty
            for c in self.columns.learned
        }
        return pa.table(made)

    def _known(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tokens (n,F), rest (n, columns), exact (n, columns), and which fields are known (n,F): those of cells that are not empty."""
        tokens, rest, exact = self.columns.encode(table)
        given = np.stack([_given(whole(table[name])) for name in self.spec.columns], 1)
        there = np.stack([tokens[:, self.spec.owners.index(i)] > 0 for i in range(len(self.spec.columns))], 1)
        return tokens, rest, exact, (given & there)[:, list(self.spec.owners)]

    def fill(self, source: Any, *, seed: int = 0) -> pd.DataFrame:
        """Rows whose empty cells are drawn from what the other cells of the row leave open; the others stay as they are."""
        return self.frame(self.filled(source, seed=seed))

    def filled(self, source: Any, *, seed: int = 0) -> pa.Table:
        """As `fill`, as an Arrow table."""
        self.require("fill")
        table = self.read(source)
        parts = []
        for chunk, start in enumerate(range(0, len(table), self.chunk)):
            part = table.slice(start, self.chunk)
            tokens, rest, _, known = self._known(part)
            with torch.inference_mode():
                drawn = self.model.fill(
                    torch.from_numpy(tokens), torch.from_numpy(known), generator=keyed(seed, "fill", chunk)
                )
            new = drawn["tokens"].numpy()
            random = np.random.default_rng(key(seed, "fill", chunk))
            inside = self.columns.draw(new, random.random(rest.shape))
            made = self.columns.table(new, inside, start, key(seed, "identifiers"))
            parts.append(
                _filled(part, made, known[:, [self.spec.owners.index(i) for i in range(len(self.spec.columns))]])
            )
        return pa.concat_tables(parts) if parts else table

    def predict(self, source: Any, target: str) -> pd.DataFrame:
        """The probabilities of each level of `target` (columns) for every row, given its other cells; of a number its expected value
        and the bounds that hold it with 90 %."""
        import pandas as pd

        self.require("chances")
        column = self.columns[target]
        if target not in self.spec.columns or len(column.sizes) != 1:
            raise ValueError(f"--predict {target}: a learned column of at most a thousand levels")
        field = self.spec.owners.index(self.spec.columns.index(target))
        tokens, _, _, known = self._known(self.read(source))
        known[:, field] = False
        parts = []
        with torch.inference_mode():
            for start in range(0, len(tokens), self.chunk):
                pair = (torch.from_numpy(part[start : start + self.chunk]) for part in (tokens, known))
                parts.append(self.model.chances(*pair, field).exp().numpy())
        chances = np.concatenate(parts) if parts else np.zeros((0, column.sizes[0]))
        chances[:, list(column.never)] = 0
        chances /= np.maximum(chances.sum(1, keepdims=True), 1e-30)
        if not column.ordered:
            return pd.DataFrame(dict(zip(column.levels, chances[:, 2:].T)))
        assert column.scale is not None
        low, high = (column.scale.numbers(np.array(ends, np.int64)) for ends in zip(*column.bins))
        inside = chances[:, 1:] / np.maximum(chances[:, 1:].sum(1, keepdims=True), 1e-30)
        up_to = inside.cumsum(1)
        at = [np.minimum((up_to < share).sum(1), len(low) - 1) for share in (0.05, 0.95)]
        return pd.DataFrame({"expected": inside @ ((low + high) / 2), "low": low[at[0]], "high": high[at[1]]})

    def log_prob(self, source: Any, *, seed: int = 0, orders: int = 0) -> pd.DataFrame:
        """Nats per row: -ln p of its tokens, columns in the order of the table ("nats"); with `orders` random ones also the spread
        over them ("spread", a standard deviation)."""
        import pandas as pd

        self.require("log_prob")
        tokens = self.columns.encode(self.read(source))[0]
        found = {"nats": self._nats(tokens, seed)}
        if orders:
            self.require("nats")
            each = [self._nats(tokens, seed, order) for order in range(orders)]
            found["spread"] = np.std(each, 0)
        return pd.DataFrame(found)

    def _nats(self, tokens: np.ndarray, seed: int, order: int | None = None) -> np.ndarray:
        """-ln p of each row of tokens (n,F); columns in a random order where one is named."""
        parts, bounded = [np.zeros(0)], hasattr(self.model, "posterior")
        with torch.inference_mode():
            for start in range(0, len(tokens), self.chunk):
                batch = {"tokens": torch.from_numpy(tokens[start : start + self.chunk].astype(np.int64))}
                if order is not None:
                    places = torch.rand(len(self.spec.columns), generator=keyed(seed, "order", order))
                    batch["places"] = places.expand(len(batch["tokens"]), -1)
                draws = (keyed(seed, "likelihood", start), 16) if bounded else ()
                parts.append(-self.model.log_prob(batch, *draws).numpy())
        return np.concatenate(parts)

    def _fields(self, tokens: np.ndarray) -> np.ndarray | None:
        """-ln p of each field of rows of tokens (n,F) given those before it, in the order of sampling: (n,F); None where the model
        has no such order."""
        if not hasattr(self.model, "nats"):
            return None
        parts = []
        with torch.inference_mode():
            for start in range(0, len(tokens), self.chunk):
                part = torch.from_numpy(tokens[start : start + self.chunk].astype(np.int64))
                parts.append(self.model.nats(part, self.model.places.expand(len(part), -1)).numpy())
        return np.concatenate(parts).astype(np.float64)

    # ---- how good -----------------------------------------------------------------------------------------------------------

    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Samples beside the rows of the test split, and what validation rows score there: judge, quality, copying, use."""
        data: TableDataset = self.reopened(source)
        held = held_rows(data)
        if hasattr(self.model, "log_prob"):
            say("the likelihood of held-out rows")
            numbers = data.splits["test"][:LIKELY]
            tokens = data.tokens[data.splits["train"]], data.tokens[numbers]
            nats = self._nats(tokens[0][:LIKELY], seed), self._nats(tokens[1], seed)
            of = self.spec.fields, self.spec.owners
            held = replace(held, likely=tables.likely(nats, self._fields(tokens[1]), tokens, *of, numbers))
        wanted = tables.wanted(held)
        say(f"making {wanted:,} samples")
        made = self.columns.cells(self.table(wanted, seed=seed))
        return tables.evaluated(rows_of(data, made), held, seed, say)


def rows_of(data: TableDataset, cells: np.ndarray) -> tables.Rows:
    """Cells (n, learned columns) with what evaluation must know of their columns."""
    learned = data.columns.learned
    levels = tuple(data.levels[i] if not column.ordered else () for i, column in enumerate(learned))
    return tables.Rows(cells, tuple(c.name for c in learned), tuple(not c.ordered for c in learned), levels)


def held_rows(data: TableDataset) -> tables.Held:
    """The real rows that samples are measured by."""
    train, test, fresh = (rows_of(data, data.cells(data.splits[part])) for part in ("train", "test", "validation"))
    return tables.Held(train, test, fresh, data.target)


def _given(array: pa.Array) -> np.ndarray:
    """Which cells (n,) hold something."""
    there = ~np.asarray(array.is_null())
    return there & ~np.asarray(pc.equal(array, "").fill_null(False)) if pa.types.is_string(array.type) else there


def _filled(given: pa.Table, made: pa.Table, known: np.ndarray) -> pa.Table:
    """The cells that are `known` (n, columns) as they were given, the others as they were made."""
    parts = {}
    for number, name in enumerate(given.column_names):
        new, old = whole(made[name]), whole(given[name])
        there = pa.array(known[:, number])
        old = old if old.type == new.type else old.cast(new.type)
        parts[name] = pc.if_else(there, old, new)
    return pa.table(parts)
