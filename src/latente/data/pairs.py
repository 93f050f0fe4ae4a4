"""A dataset of pairs of texts: tokens of both sides, and three splits that share no source.

Splits go by content (splits.py), by a hash of the source alone: all targets of one source are on one side, so that none is known
beforehand. The text of a pair stays beside its tokens: references are what was written, not what a vocabulary makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from latente.data.errors import DataError
from latente.data.pair_audit import PairAudit, describe, warnings
from latente.data.tokenizer import Tokenizer
from latente.rng import permutation
from latente.spec import PairSpec

if TYPE_CHECKING:
    import torch

BLOCK, BLOCKS = 512, 16  # pairs of like length that follow one another, at most; how many blocks an epoch has, at least
SIDES = ("source", "target")


@dataclass(frozen=True)
class PairOptions:
    """How a source of pairs is read."""

    tokenizer: str | None = None
    """of both sides: char, word (what stands between spaces), byte, bpe:4096 (byte-level BPE of that vocabulary, from the training
    pairs), or the path of a tokenizer.json (default: char, or what a named source is made for)"""
    source_tokenizer: str | None = None
    """of the source side, where it has its own"""
    target_tokenizer: str | None = None
    """of the target side, where it has its own"""
    shared_vocabulary: bool = False
    """one vocabulary, made from both sides"""
    targets: str | None = None
    """a file whose line n is the target of line n of the source"""
    source_column: str | None = None
    """where sources stand in a table or .jsonl (default: source, or the first of two columns); 1, 2, ... without a header"""
    target_column: str | None = None
    """where targets stand (default: target, or the second of two columns)"""
    longest: int = 512
    """pairs with more tokens than this on a side are left out"""
    encoding: str = "auto"
    """what text files are encoded in, as cp1252; auto: UTF-8, or what the bytes suggest"""
    bad_bytes: Literal["stop", "replace"] = "stop"
    """what to do about bytes that are not of the encoding"""
    validation: float = 0.05
    """share of the sources that is held out to choose the best checkpoint and the stop"""
    test: float = 0.1
    """share of the sources that only evaluate reads; 0 where you have held out pairs yourself"""

    def __post_init__(self) -> None:
        for name, least in (("validation", 1e-9), ("test", 0.0)):
            if not least <= getattr(self, name) < 0.5:
                raise DataError(f"--{name} {getattr(self, name)}: {'above 0' if least else 'at least 0'} and below 0.5")
        if self.longest < 1:
            raise DataError(f"--longest {self.longest}: at least 1")
        if self.bad_bytes not in ("stop", "replace"):
            raise DataError(f"--bad-bytes {self.bad_bytes!r}: stop or replace")
        if (self.source_column is None) != (self.target_column is None):
            raise DataError("--source-column and --target-column go together")
        if self.shared_vocabulary and (self.source_tokenizer, self.target_tokenizer) != (None, None):
            raise DataError("--shared-vocabulary has one --tokenizer for both sides")
        if self.targets is not None:
            # A run is opened from any folder.
            object.__setattr__(self, "targets", str(Path(self.targets).expanduser().resolve()))

    def by(self, folder: Path) -> PairOptions:
        """The same with the tokenizers that `PairDataset.save_assets` wrote to a folder."""
        source, target = (str(folder / side) for side in SIDES)
        if self.shared_vocabulary:
            return replace(self, tokenizer=source)
        return replace(self, source_tokenizer=source, target_tokenizer=target)


@dataclass
class Side:
    """The tokens of all sources, or of all targets."""

    tokenizer: Tokenizer
    ids: np.ndarray
    """(tokens,) unsigned integers, one text after another, as the tokenizer counts them"""
    starts: np.ndarray
    """(N+1,) int64: where each text begins, and where the last one ends"""

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each text has, (N,), without special ones."""
        return np.diff(self.starts)

    def tokens(self, indices: np.ndarray) -> np.ndarray:
        """The tokens of texts one after another as a batch counts them, int64, without special ones."""
        lengths = self.lengths[indices]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.ids[np.repeat(self.starts[indices], lengths) + within].astype(np.int64) + PairSpec.special

    def padded(self, indices: np.ndarray, opened: bool) -> np.ndarray:
        """Texts as a batch holds them, int64 (B, longest + 1): tokens, `end`, `pad`; where they are `opened`, `begin` goes first."""
        lengths, first = self.lengths[indices], int(opened)
        width = int(lengths.max(initial=0)) + first + 1
        made = np.full((len(indices), width), PairSpec.pad, np.int64)
        made[:, :first] = PairSpec.begin
        inside = np.arange(width) < (lengths + first)[:, None]
        inside[:, :first] = False
        made[inside] = self.tokens(indices)
        made[np.arange(len(indices)), lengths + first] = PairSpec.end
        return made

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of a row of a batch, up to its end."""
        return decoded(self.tokenizer, tokens)


def decoded(tokenizer: Tokenizer, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of tokens as a batch holds them, up to the first `end`; other special ones are nothing."""
    row = np.asarray(tokens).reshape(-1)
    ends = np.flatnonzero(row == PairSpec.end)
    row = row[: ends[0]] if len(ends) else row
    return tokenizer.decode(row[row >= PairSpec.special] - PairSpec.special)


@dataclass
class PairDataset:
    """Pairs with their splits. `batch` is what training calls."""

    name: str
    spec: PairSpec
    fingerprint: str
    texts: dict[str, list[str]]
    """source, target: the N texts of each side"""
    sides: dict[str, Side]
    """source, target"""
    splits: dict[str, np.ndarray]
    """train, validation, test: numbers of pairs; of the last two in an order that has nothing to do with that of the source"""
    audit: PairAudit
    previewed: ClassVar[int] = 8
    """how many targets `preview` is given"""

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Training pairs in the order of one epoch, (N,) int64: blocks of like length, shuffled, as are pairs of the same length.

        What fills no block goes last: pairs drawn at random.
        """
        rows = self.splits["train"][permutation(len(self.splits["train"]), seed, "epoch", epoch).numpy()]
        size = max(1, min(BLOCK, len(rows) // BLOCKS))
        over = len(rows) % size
        blocks = self._by_length(rows[over:]).reshape(-1, size)
        blocks = blocks[permutation(len(blocks), seed, "blocks", epoch).numpy()]
        return np.concatenate([blocks.reshape(-1), self._by_length(rows[:over])])

    def _by_length(self, rows: np.ndarray) -> np.ndarray:
        source, target = (self.sides[side].lengths[rows] for side in SIDES)
        return rows[np.lexsort((source, target))]

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """{"source": int64 (B,S), "target": int64 (B,T+1)} of these pairs, in their order."""
        import torch

        return {
            side: torch.from_numpy(self.sides[side].padded(np.asarray(indices), opened=side == "target"))
            for side in SIDES
        }

    def condition(self, n: int) -> torch.Tensor:
        """The sources, int64 (n,S), whose targets are looked at while a model trains: the first of validation, again if there are fewer."""
        return self.batch(np.resize(self.splits["validation"], n))["source"]

    def warnings(self) -> list[str]:
        """What the user should know before training, a line each."""
        return warnings(self)

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) rows, for people."""
        return describe(self)

    def preview(self, drawn: dict[str, np.ndarray], path: Path) -> None:
        """Writes drawn targets {"target": (n,T)} of `condition(n)` to PATH.txt, each below its source and what it should be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.resize(self.splits["validation"], len(drawn["target"]))
        made = [
            f"{self.texts['source'][row]}\nshould be: {self.texts['target'][row]}\nmade:      {self.sides['target'].decode(tokens)}"
            for row, tokens in zip(rows, drawn["target"])
        ]
        path.with_suffix(".txt").write_text("\n\n".join(made) + "\n", encoding="utf-8")

    def save_assets(self, folder: str | Path) -> None:
        """Writes the tokenizers to FOLDER/source and FOLDER/target, from which options make this dataset again."""
        for side in SIDES:
            self.sides[side].tokenizer.save(Path(folder) / side)
