"""What is in a table and what is wrong with it, told before an hour is spent on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from latente.data.columns import Column

if TYPE_CHECKING:
    from latente.data.table_dataset import TableDataset

ENOUGH = 200  # training rows below which a model mostly copies
LOOKED = 20_000  # training rows looked at for leaks
DECIDES = 0.99  # share of rows from which a column that foretells the target is said to decide it
_PERSONAL = re.compile(
    r"(^|[_\W])(name|first.?name|last.?name|surname|vorname|nachname|e.?mail|phone|tel(efon)?|mobile|address|adresse|street|stra(ss|ß)e|"
    r"birth.?(date|day)?|dob|geburts\w*|ssn|iban|passport|license.?plate)($|[_\W])",
    re.IGNORECASE,
)

_VALUES = re.compile(
    r"[^@\s]+@[^@\s]+\.[a-z]{2,}|[A-Z]{2}\d{2}[A-Z0-9]{11,30}|\+\d[\d /().-]{7,}"
)  # e-mail, IBAN, telephone


@dataclass
class TableAudit:
    """Facts found while a source was read."""

    rows: int = 0
    duplicates: int = 0
    """rows that occurred before"""
    notes: list[str] = field(default_factory=list)
    """what reading did that the user should know"""


def warnings(data: TableDataset) -> list[str]:
    """What the user should know before training; each one line with what to do."""
    said = list(data.audit.notes)
    train = len(data.splits["train"])
    if train < ENOUGH:
        said.append(f"only {train} training rows: a model will mostly copy them; add rows, or use the smallest --size")
    if data.audit.duplicates > 0.05 * data.audit.rows:
        said.append(
            f"{data.audit.duplicates:,} of {data.audit.rows:,} rows occurred before; equal rows are kept on one side of the splits"
        )
    for column in data.columns.columns:
        said += _of_column(column, data)
    return said + _leaks(data) + _decides(data)


def _of_column(column: Column, data: TableDataset) -> list[str]:
    if column.kind == "identifier":
        return [f"{column.name} is an identifier: it is made anew and never learned"]
    if column.kind == "constant" and not column.levels:
        return [
            f"{column.name} has nothing that may be sampled (all missing, or every level in fewer rows than --protect): it stays empty"
        ]
    if column.kind == "constant":
        return [f"{column.name} is always {column.levels[0]!r}"]
    if column.kind != "ignored" and (_PERSONAL.search(column.name) or _holds_personal(column)):
        return [f"{column.name} looks personal: leave it out (ignored in --columns), unless it is meant to be learned"]
    if column.kind in ("category", "boolean"):
        number = [c.name for c in data.columns.learned].index(column.name)
        rare = len(data.levels[number]) - len(column.levels)
        if rare:
            return [
                f"{column.name}: {rare:,} of {len(data.levels[number]):,} levels are in too few training rows to be sampled (--protect)"
            ]
    return []


def _leaks(data: TableDataset) -> list[str]:
    """Columns that are the same as another, level for level or value for value."""
    rows = data.splits["train"][:LOOKED]
    seen: dict[bytes, str] = {}
    said = []
    for column, keys in zip(data.columns.learned, data.keys):
        _, codes = np.unique(np.asarray(keys)[rows], return_inverse=True)
        _, first = np.unique(codes, return_index=True)
        order = np.empty(len(first), np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        met = order[codes].tobytes()  # numbered as they are first met
        if met in seen and len(first) > 1:
            said.append(f"{column.name} and {seen[met]} say the same: leave one out (ignored in --columns)")
        seen.setdefault(met, column.name)
    return said


def _holds_personal(column: Column) -> bool:
    """Whether most levels look like addresses of people."""
    found = [bool(_VALUES.fullmatch(level.strip())) for level in column.levels[:200]]
    return column.kind == "category" and sum(found) > len(found) / 2


def _decides(data: TableDataset) -> list[str]:
    """Columns that alone foretell the target in nearly all rows they were not learned from."""
    if data.target is None or len(data.columns.learned[data.target].levels) < 2:
        return []
    rows = data.splits["train"][:LOOKED]
    tokens, half = np.asarray(data.tokens[rows]).astype(np.int64), len(rows) // 2
    goal = tokens[:, data.spec.owners.index(data.target)]
    usual = np.bincount(goal[half:]).max() / max(1, len(goal) - half)
    said = []
    for number, (column, own) in enumerate(data.columns.each(tokens)):
        codes = own[:, 0] if own.shape[1] == 1 else own[:, 0] * column.sizes[1] + own[:, 1]
        if number == data.target or codes.max(initial=0) * (goal.max(initial=0) + 1) > 1 << 24:
            continue
        counts = np.zeros((codes.max() + 1, goal.max() + 1), np.int64)
        np.add.at(counts, (codes[:half], goal[:half]), 1)
        right = float((counts.argmax(1)[codes[half:]] == goal[half:]).mean())
        if right > max(DECIDES, (1 + usual) / 2):
            target = data.columns.learned[data.target].name
            said.append(
                f"{column.name} alone foretells {target} in {right:.1%} of rows: leave it out if it is known only afterwards"
            )
    return said


def describe(data: TableDataset) -> list[tuple[str, str]]:
    """(what, value) rows, for people."""
    found = data.audit
    rows = [
        ("source", f"{data.name}: {data.columns.form}"),
        ("rows", f"{found.rows:,}" + (f", {found.duplicates:,} of them occurred before" if found.duplicates else "")),
        ("splits", ", ".join(f"{len(items):,} {name}" for name, items in data.splits.items())),
    ]
    numbers = {column.name: number for number, column in enumerate(data.columns.learned)}
    for column in data.columns.columns:
        rows.append((column.name, _told(column, data, numbers.get(column.name))))
    if data.target is not None:
        rows.append(
            ("target", f"{data.columns.learned[data.target].name} (what samples are tried on; --target names another)")
        )
    rows += [("rule", rule) for rule in data.rules]
    return rows + [("note", line) for line in data.warnings()]


def _told(column: Column, data: TableDataset, number: int | None) -> str:
    if number is None:
        return {"identifier": "identifier: made anew", "ignored": "ignored: left out"}.get(
            column.kind, f"always {column.levels[0]!r}" if column.levels else "empty"
        )
    keys = np.asarray(data.keys[number])
    there = keys > np.iinfo(np.int64).min + 1
    missing = f", {1 - there.mean():.1%} missing" if not there.all() else ""
    if column.ordered and column.scale is not None and there.any():
        low, high = (
            column.scale.array(np.array([end]), np.ones(1, bool))[0].as_py()
            for end in (keys[there].min(), keys[there].max())
        )
        step = (
            f", in steps of {column.scale.multiple / 10**column.scale.decimals:g}"
            if column.scale.kind == "decimal"
            else ""
        )
        return f"{column.kind}: {low} to {high}{step}{missing}; {len(column.bins)} bins"
    levels = data.levels[number]
    shown = ", ".join(levels[:5]) + (", ..." if len(levels) > 5 else "")
    return f"{column.kind}: {len(levels):,} levels ({shown}){missing}"
