"""What is in a source of text and what is wrong with it, told before an hour is spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latente.data.text import TextDataset

ENOUGH = 50_000  # bytes of training text below which a model mostly learns to copy
_SHOWN = 120


@dataclass
class TextAudit:
    """Facts found while a source was read."""

    documents: int = 1
    duplicates: int = 0
    """documents whose exact bytes occurred before"""
    encodings: dict[str, int] = field(default_factory=dict)
    """encoding -> how many files"""
    line_ends: tuple[int, int] = (0, 0)
    """how many lines end in \\r\\n, and how many in \\n alone"""
    unknown: dict[str, int] = field(default_factory=dict)
    """split -> characters the vocabulary lacks"""


def warnings(data: TextDataset) -> list[str]:
    """What the user should know before training; each one line with what to do."""
    found, said = data.audit, []
    train, unit = data.characters["train"], "bytes" if data.tokenizer.kind == "byte" else "characters"
    if train < ENOUGH:
        said.append(
            f"only {train:,} training {unit}: a model will mostly copy them; add text, or use the smallest --size"
        )
    guessed = [name for name in found.encodings if name.endswith("(guessed)")]
    if guessed:
        said.append(
            f"read as {', '.join(guessed)}: look at the excerpt (latente data), and name another with --encoding"
        )
    if found.duplicates > 0.2 * found.documents:
        said.append(
            f"{found.duplicates:,} of {found.documents:,} documents occurred before, so splits share text: remove duplicates"
        )
    held = found.unknown.get("validation", 0) + found.unknown.get("test", 0)
    if held:
        said.append(
            f"{held:,} held-out characters never occur in training and count as <|unknown|>: "
            "--tokenizer byte or bpe:4096 has none"
        )
    windows, plain = found.line_ends
    if min(windows, plain) > 0.01 * (windows + plain):
        said.append(f"{windows:,} lines end in \\r\\n and {plain:,} in \\n: make them alike, or the model learns both")
    return said


def describe(data: TextDataset) -> list[tuple[str, str]]:
    """(what, value) rows, for people."""
    found = data.audit
    rows = [
        ("documents", f"{found.documents:,}" + (f" ({found.duplicates:,} duplicates)" if found.duplicates else "")),
        ("characters", _each(data.characters)),
        ("bytes", _each(data.bytes)),
        ("encoding", ", ".join(name + (f" ({n:,})" if len(found.encodings) > 1 else "") for name, n in found.encodings.items())),
        ("vocabulary", _vocabulary(data)),
        ("tokens", f"{len(data.tokens):,}"),
        ("splits", ", ".join(f"{split} {stop - start:,} tokens" for split, (start, stop) in data.ranges.items())),
        ("context", f"{data.spec.context} tokens a window; {len(data.splits['train']):,} training windows"),
        ("fingerprint", data.fingerprint[:16]),
        ("excerpt", escaped(data.text("train", _SHOWN))),
    ]  # fmt: skip
    if any(found.unknown.values()):
        held = ", ".join(f"{split} {n:,}" for split, n in found.unknown.items() if n)
        rows.append(("never seen in training", f"<|unknown|> stands for them: {held}"))
    if data.tokenizer.kind == "byte":
        rows.pop(1)  # of bytes that need not be text
    return rows + [("warning", line) for line in warnings(data)]


def _each(counts: dict[str, int]) -> str:
    return f"{sum(counts.values()):,} (" + ", ".join(f"{split} {n:,}" for split, n in counts.items()) + ")"


def _vocabulary(data: TextDataset) -> str:
    made = data.tokenizer
    kind = {"char": "characters", "byte": "bytes", "bpe": "byte-level BPE", "own": "your own tokenizer"}[made.kind]
    said = f"{made.size:,} tokens, {kind}"
    if made.kind == "byte":
        return said
    shown = [t for t in range(made.size) if t not in (made.end, made.unknown)]
    shown = shown if made.kind == "char" else shown[-16:]
    gap = "" if made.kind == "char" else " "
    text = gap.join(escaped(made.bytes_of(t).decode("utf-8", "replace")) for t in shown)
    return f"{said}: {text[:_SHOWN]}" + (" ..." if len(text) > _SHOWN else "")


def escaped(text: str) -> str:
    """`text` on one line: control characters are spelled as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
