"""What is in a source of pairs and what is wrong with it, told before an hour is spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from latente.data.text_audit import escaped

if TYPE_CHECKING:
    from latente.data.pairs import PairDataset

ENOUGH = 1_000  # training pairs below which a model mostly copies
_SHOWN = 60


@dataclass
class PairAudit:
    """Facts found while a source was read."""

    pairs: int = 0
    """how many were read"""
    empty: int = 0
    """pairs without a source or without a target, which are left out"""
    long: int = 0
    """pairs that are longer than `longest` on a side, which are left out"""
    first_long: str = ""
    """where the first of them is"""
    duplicates: int = 0
    """pairs that occurred before"""
    sources: int = 0
    """how many sources are different"""
    unknown: dict[str, int] = field(default_factory=dict)
    """side -> held-out tokens the vocabulary lacks"""
    notes: list[str] = field(default_factory=list)
    """what reading did that the user should know"""


def warnings(data: PairDataset) -> list[str]:
    """What the user should know before training; each one line with what to do."""
    found, said = data.audit, list(data.audit.notes)
    train = len(data.splits["train"])
    if train < ENOUGH:
        said.append(
            f"only {train:,} training pairs: a model will mostly copy them; add pairs, or use the smallest --size"
        )
    if found.empty:
        said.append(f"{found.empty:,} pairs lack their source or their target and are left out")
    if found.long:
        said.append(
            f"{found.long:,} pairs are too long and left out, first {found.first_long}: raise --longest, or take larger tokens "
            "(--tokenizer bpe:4096)"
        )
    if found.duplicates > 0.2 * found.pairs:
        said.append(
            f"{found.duplicates:,} of {found.pairs:,} pairs occurred before: remove them to train on what is different"
        )
    for side, count in found.unknown.items():
        if count:
            said.append(
                f"{count:,} held-out tokens of the {side} side never occur in training and count as <|unknown|>: "
                "--tokenizer byte or bpe:4096 has none"
            )
    return said


def describe(data: PairDataset) -> list[tuple[str, str]]:
    """(what, value) rows, for people."""
    found, first = data.audit, int(data.splits["train"][0])
    several = len(data.texts["source"]) - found.sources
    rows = [
        ("pairs", f"{len(data.texts['source']):,}" + (f", of {found.sources:,} different sources" if several else "")),
        ("splits", ", ".join(f"{name} {len(part):,}" for name, part in data.splits.items())),
        ("exact duplicates", f"{found.duplicates:,}"),
    ]
    for side, one in data.sides.items():
        kind = {
            "char": "characters",
            "byte": "bytes",
            "word": "words",
            "bpe": "byte-level BPE",
            "own": "your own tokenizer",
        }
        rows.append(
            (f"{side}s", f"{one.tokenizer.size:,} different tokens, {kind[one.tokenizer.kind]}; {_spread(one.lengths)}")
        )
    rows += [
        ("vocabulary", "one for both sides" if data.spec.shared else "one a side"),
        ("fingerprint", data.fingerprint[:16]),
        ("a pair", " -> ".join(escaped(data.texts[side][first])[:_SHOWN] for side in data.sides)),
    ]
    return rows + [("warning", line) for line in warnings(data)]


def _spread(lengths: np.ndarray) -> str:
    return f"{lengths.min():,} to {lengths.max():,} tokens long, {lengths.mean():.1f} on average"
