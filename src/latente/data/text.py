"""A dataset of text: one stream of tokens, windows of it, and three splits that share no token.

The splits are stretches of the documents laid end to end: the last tenth of the bytes is the test split; of the rest a
stretch in the middle (`TextOptions.validation`) is validation, so that training keeps the beginning and what lies next to the
test split. Where a source brings its own test set, that is the test split. With several documents an end token follows each,
and it counts as neither a character nor a byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from latente.data.errors import DataError
from latente.data.text_audit import TextAudit, describe, warnings
from latente.data.tokenizer import Tokenizer
from latente.rng import key, permutation
from latente.spec import TextSpec

if TYPE_CHECKING:
    import torch

CONTEXT, SHORTEST = 256, 8
_STEP = 1 << 20


@dataclass(frozen=True)
class TextOptions:
    """How a source of text is read."""

    tokenizer: str = "char"
    """char, byte, bpe:4096 (byte-level BPE of that vocabulary, from the training text), or the path of a tokenizer.json"""
    context: int | None = None
    """tokens a window is long (default: 256, or less for short texts)"""
    column: str | None = None
    """the text column of .jsonl, Parquet and hf: sources (default: text, or the only one of strings)"""
    encoding: str = "auto"
    """what text files are encoded in, as cp1252; auto: UTF-8, or what the bytes suggest"""
    bad_bytes: Literal["stop", "replace"] = "stop"
    """what to do about bytes that are not of the encoding"""
    validation: float = 0.05
    """share of the text before the test split, in its middle, that is held out to choose the best checkpoint and the stop"""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 0.5:
            raise DataError(f"--validation {self.validation}: above 0 and below 0.5")
        if self.context is not None and self.context < 2:
            raise DataError(f"--context {self.context}: at least 2")
        if self.bad_bytes not in ("stop", "replace"):
            raise DataError(f"--bad-bytes {self.bad_bytes!r}: stop or replace")


@dataclass
class TextDataset:
    """A stream of tokens with its splits. `batch` is what training calls; the tokens may lie on disk."""

    name: str
    spec: TextSpec
    fingerprint: str
    tokens: np.ndarray
    """(N,) unsigned integers, possibly memory-mapped"""
    tokenizer: Tokenizer
    ranges: dict[str, tuple[int, int]]
    """train, validation, test: from which token to before which"""
    characters: dict[str, int]
    """how many a split holds; of bytes that are not UTF-8, those that could begin one"""
    bytes: dict[str, int]
    """how many a split holds in UTF-8"""
    splits: dict[str, np.ndarray]
    """train, validation, test: where windows that follow one another begin"""
    audit: TextAudit
    previewed: ClassVar[int] = 2
    """how many texts `preview` is given"""

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Where the training windows of one epoch begin, (N,) int64, shuffled; N is the same in every epoch.

        Each epoch lays the grid of windows at another offset, so that no token always stands at the same place of a window;
        the last window ends where the split does.
        """
        starts = self.splits["train"] + key(seed, "offset", epoch) % self.spec.context
        last = self.ranges["train"][1] - self.spec.context - 1
        return np.minimum(starts, last)[permutation(len(starts), seed, "epoch", epoch).numpy()]

    def batch(self, starts: np.ndarray) -> dict[str, torch.Tensor]:
        """{"tokens": int64 (B, context + 1)}: the windows that begin at `starts`, in their order."""
        import torch

        windows = self.tokens[np.asarray(starts)[:, None] + np.arange(self.spec.context + 1)]
        return {"tokens": torch.from_numpy(windows.astype(np.int64))}

    def text(self, split: str, limit: int | None = None) -> str:
        """The text of a split, or its first `limit` tokens' worth; bytes that are not UTF-8 become U+FFFD."""
        start, stop = self.ranges[split]
        return self.tokenizer.decode(self.tokens[start : stop if limit is None else min(stop, start + limit)])

    def raw(self, split: str) -> bytes:
        """The bytes of a split without end tokens: what a compressor is given, to be compared with."""
        return b"".join(self._raw_parts(split))

    def _raw_parts(self, split: str) -> Iterator[bytes]:
        start, stop = self.ranges[split]
        for at in range(start, stop, _STEP):
            ids = self.tokens[at : min(stop, at + _STEP)].tolist()
            yield b"".join(map(self.tokenizer.bytes_of, ids))

    def warnings(self) -> list[str]:
        """What the user should know before training, a line each."""
        return warnings(self)

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) rows, for people."""
        return describe(self)

    def preview(self, drawn: dict[str, np.ndarray], path: Path) -> None:
        """Writes drawn texts {"tokens": (n,T)} to PATH.txt."""
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [self.tokenizer.decode(row) for row in drawn["tokens"]]
        path.with_suffix(".txt").write_text("\n\n-----\n\n".join(texts) + "\n", encoding="utf-8")

    def save_assets(self, folder: str | Path) -> None:
        """Writes the tokenizer, from which `TextOptions(tokenizer=folder)` makes this dataset again."""
        self.tokenizer.save(folder)


def windows(name: str, ranges: dict[str, tuple[int, int]], context: int | None) -> tuple[int, dict[str, np.ndarray]]:
    """The context, and where the windows of each split begin. Raises DataError when a split is shorter than one window."""
    lengths = {split: stop - start for split, (start, stop) in ranges.items()}
    shortest = min(lengths, key=lambda split: lengths[split])
    most = lengths[shortest] - 1
    chosen = context or max(SHORTEST, min(CONTEXT, lengths["train"] // 8, most))
    if chosen > most:
        raise DataError(
            f"{name}: the {shortest} split holds {lengths[shortest]} tokens: too few for a window of --context {chosen}; "
            + (f"at most {most}" if most >= SHORTEST else "add text, or take smaller tokens: --tokenizer char")
        )
    return chosen, {
        split: np.arange(start, stop - chosen, chosen, dtype=np.int64) for split, (start, stop) in ranges.items()
    }


OUTPUTS = (".txt", ".jsonl", ".parquet")


def check_text_output(path: Path) -> None:
    """Raises DataError when texts cannot be written to `path`: it exists, or is of no known kind."""
    if path.exists():
        raise DataError(f"--out {path} exists already; choose another")
    if path.suffix not in OUTPUTS:
        raise DataError(f"--out {path}: texts go to {', '.join(OUTPUTS)}")


def write_texts(path: Path, texts: list[str]) -> Path:
    """Writes texts to a .txt (an empty line between two), .jsonl or .parquet (column "text"); it appears whole or not at all."""
    check_text_output(path)
    draft = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"text": texts}), draft)
        elif path.suffix == ".jsonl":
            draft.write_text(
                "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
            )
        else:
            draft.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return path
