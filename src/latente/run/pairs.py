"""Runs of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from latente.data.pairs import SIDES, PairDataset, Side, decoded
from latente.data.tokenizer import Tokenizer
from latente.evaluation import pairs
from latente.evaluation.findings import Evaluation, Map, Say, silent
from latente.generation import Hypothesis, Sampling, Search, search, targets
from latente.rng import keyed
from latente.run.base import ASSETS, Run, positive

ROWS, PLACES = 256, 1 << 15  # targets written at a time, and tokens of their sources, at most


class Translation(NamedTuple):
    """A target of a source."""

    text: str
    log_prob: float
    """of the model, in nats"""
    score: float
    """what it is ranked by"""
    ended: bool
    """whether the model ended it, or only its longest length did"""
    tokens: int
    """how many it has, its end counted"""

    @property
    def confidence(self) -> float:
        """The probability the model gives a token of it: the geometric mean."""
        return math.exp(self.log_prob / self.tokens)


class PairRun(Run):
    """A trained model of pairs: sources go in, targets come out. What becomes of one does not depend on the others."""

    @cached_property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of sources and targets."""
        source, target = (Tokenizer.load(self.path / ASSETS / side) for side in SIDES)
        if (source.size + self.spec.special, target.size + self.spec.special) != (self.spec.source, self.spec.target):
            raise ValueError(f"{self.path / ASSETS}: these are not the tokenizers the model was built for")
        return source, target

    def sample(self, n: int, *, seed: int = 0, source: Any = None, **sampling: Any) -> dict[str, list[str]]:
        """Targets drawn for `n` held-out sources: {"source": [...], "target": [...]}.

        `source` is needed where training was on pairs in memory; `sampling` are the fields of `generation.Sampling`.
        """
        positive("--n", n)
        data: PairDataset = self.reopened(source)
        rows = np.resize(data.splits["test"] if len(data.splits["test"]) else data.splits["validation"], n)
        texts = [data.texts["source"][row] for row in rows]
        drawn = self.hypotheses(texts, seed=seed, **{"temperature": 1.0, **sampling})
        return {"source": texts, "target": [found[0].text for found in drawn]}

    def translate(self, text: str | Sequence[str], *, seed: int = 0, **options: Any) -> Any:
        """The likeliest target of a text (a str), or of each of several (a list of str); `options` as for `hypotheses`."""
        texts = [text] if isinstance(text, str) else list(text)
        best = [found[0].text for found in self.hypotheses(texts, seed=seed, **options)]
        return best[0] if isinstance(text, str) else best

    def hypotheses(
        self, texts: Sequence[str], n: int = 1, *, seed: int = 0, tokens: int | None = None, **options: Any
    ) -> list[list[Translation]]:
        """Up to `n` targets of each text, best first, of at most `tokens` tokens each; of a blank text a blank one. Unless said,
        targets are at most as long as the longest of training, and twice that where the source is longer than all of training.

        `options` are the fields of `generation.Search`, by which the likeliest are looked for, or of `generation.Sampling`, by
        which they are drawn. Raises ValueError, naming it, for a text of more than twice as many tokens
        as any the model was trained on.
        """
        positive("--n", n)
        positive("--tokens", 1 if tokens is None else tokens)
        side = self._read(texts)
        blank = np.array([not text.strip() for text in texts], bool)
        how: Search | Sampling
        drawing, searching = (sorted(set(options) & set(way.__dataclass_fields__)) for way in (Sampling, Search))
        if drawing and searching:
            flags = [f"--{name.replace('_', '-')}" for name in (drawing[0], searching[0])]
            raise ValueError(
                f"{flags[0]} is for targets that are drawn, {flags[1]} for the likeliest: one or the other"
            )
        if drawing:
            how = Sampling(**options)
        else:
            how = Search(**options)
            how = replace(how, beams=max(n, how.beams))
        found = [[Hypothesis([], 0.0, 0.0, True, True)] for _ in texts]
        if isinstance(how, Search):
            if n == 1 and how.beams > 1:
                # Most targets are sure with one beam; those of the others that it finds are to be beaten.
                self._search(side, np.flatnonzero(~blank), replace(how, beams=1), 1, tokens, found)
                unsure = np.array([number for number, (best,) in enumerate(found) if not best.sure], np.int64)
                self._search(side, unsure, how, 1, tokens, found, beat=True)
            else:
                self._search(side, np.flatnonzero(~blank), how, n, tokens, found)
        else:
            for places in self._batches(side.lengths[~blank], n):
                numbers = np.flatnonzero(~blank)[places]
                source = torch.from_numpy(side.padded(numbers, opened=False))
                most = self._most(source.shape[1], tokens)
                draws = [torch.rand(n, most, generator=keyed(seed, "target", int(number))) for number in numbers]
                for number, several in zip(numbers, targets(self.model, source, torch.stack(draws), how, self._never)):
                    found[number] = several
        return [[self._told(hypothesis) for hypothesis in several] for several in found]

    def _search(self, side: Side, numbers: np.ndarray, how: Search, n: int, tokens: int | None, found: list[list[Hypothesis]],
                beat: bool = False) -> None:  # fmt: skip
        """Puts the `n` likeliest targets of the texts `numbers` in `found`; they are to `beat` those that are there."""
        for places in self._batches(side.lengths[numbers], how.beams):
            chosen = numbers[places]
            source = torch.from_numpy(side.padded(chosen, opened=False))
            known = [found[number][0] for number in chosen] if beat else None
            made = search(self.model, source, how, self._never, self._most(source.shape[1], tokens), n, known)
            for number, several in zip(chosen, made):
                found[number] = several

    def _most(self, length: int, tokens: int | None) -> int:
        """How many tokens targets of sources of `length` tokens have at most, the ends counted; `tokens` are asked for."""
        spec = self.spec
        return min(
            tokens or (spec.longest_target if length <= spec.longest_source else spec.most_target), spec.most_target
        )

    def _read(self, texts: Sequence[str]) -> Side:
        """The tokens of sources. Raises ValueError for one that is much longer than any of training."""
        tokenizer = self.tokenizers[0]
        ids, sizes = tokenizer.encode_each(texts)
        longest = self.spec.longest_source - 1
        if len(texts) and sizes.max() > self.spec.reach * longest:
            number = int((sizes > self.spec.reach * longest).argmax())
            raise ValueError(
                f"text {number + 1} has {sizes[number]:,} tokens, more than {self.spec.reach} times the {longest:,} of the longest this "
                "model was trained on: cut it, or train on longer pairs"
            )
        return Side(tokenizer, ids, np.concatenate([[0], np.cumsum(sizes)]))

    def _batches(self, lengths: np.ndarray, each: int) -> Iterator[np.ndarray]:
        """Numbers of texts of like length, few enough that `each` targets of every one are written at a time; those longer than any of
        training by themselves."""
        order = np.argsort(-lengths, kind="stable")
        longer, at = int((lengths >= self.spec.longest_source).sum()), 0
        while at < len(order):
            size = max(1, min(ROWS // each, PLACES // (int(lengths[order[at]]) + 1)))
            upto = min(at + size, longer) if at < longer else at + size
            yield order[at:upto]
            at = upto

    @property
    def _never(self) -> list[int]:
        """Tokens no target has: those that are special to the tokenizer."""
        target = self.tokenizers[1]
        return [token + self.spec.special for token in {target.end, target.unknown} if token is not None]

    def _told(self, made: Hypothesis) -> Translation:
        text, tokens = decoded(self.tokenizers[1], made.tokens), len(made.tokens) + made.ended
        return Translation(text, made.log_prob, made.score, made.ended, tokens)

    def attention_maps(self, source: str, target: str) -> np.ndarray:
        """What each token of a target, its end at last where there is room for one, looks at in its source and the source's end:
        (L,H,T,S), rows sum to 1."""
        self.require("attention_maps")
        sides = [self._read([source]), Side(self.tokenizers[1], *_one(self.tokenizers[1], target))]
        rows = [torch.from_numpy(side.padded(np.array([0]), opened=bool(at))) for at, side in enumerate(sides)]
        with torch.no_grad():
            return self.model.attention_maps(rows[0], rows[1][:, :-1][:, : self.spec.most_target])[:, 0].numpy()

    def looked(self, source: str, target: str) -> Map:
        """The mean of `attention_maps` over blocks and heads, with the tokens it is about."""
        weights = self.attention_maps(source, target).mean((0, 1))
        tokens = [[*self.pieces(text, side), "end"] for side, text in enumerate((source, target))]
        return Map(tokens[0], tokens[1][: len(weights)], weights)

    def pieces(self, text: str, side: int) -> list[str]:
        """The tokens of a source (side 0) or a target (1), each as a text."""
        tokenizer = self.tokenizers[side]
        return [tokenizer.decode([token]) for token in tokenizer.encode(text).tolist()]

    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Likelihood of the targets of the test split, and what the model makes of its sources beside what is written there."""
        data: PairDataset = self.reopened(source)
        rows = data.splits["test"]
        if not len(rows):
            raise ValueError(f"{self.path} held out no pairs to be measured by (--test 0)")
        say("the likelihood of held-out targets")
        nats = self._nats(data, rows)
        side, train = data.sides["target"], data.splits["train"]
        frequent = _frequent(side, train, rows, self.spec.target)
        held = pairs.held(data.texts, rows, train, nats, side.lengths[rows] + 1, frequent)
        say(f"translating {len(held.sources):,} sources")
        best = [found[0] for found in self.hypotheses(held.sources)]
        written = pairs.Written([one.text for one in best], np.array([one.confidence for one in best]))
        looked = self.looked if hasattr(self.model, "attention_maps") else None
        return pairs.evaluated(held, written, lambda texts: _pieces(self.tokenizers[1], texts), looked, say)

    def _nats(self, data: PairDataset, rows: np.ndarray) -> np.ndarray:
        """-ln p of the targets of pairs (n,), given their sources."""
        made = np.zeros(len(rows))
        lengths = np.maximum(*(data.sides[side].lengths[rows] for side in SIDES))
        with torch.inference_mode():
            for places in self._batches(lengths, 1):
                made[places] = -self.model.log_prob(data.batch(rows[places])).numpy()
        return made


def _one(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    ids, sizes = tokenizer.encode_each([text])
    return ids, np.concatenate([[0], sizes])


def _frequent(side: Side, train: np.ndarray, rows: np.ndarray, vocabulary: int) -> np.ndarray:
    """-ln p of the targets `rows`, (n,), by how frequent each token and the end are in the training pairs `train`."""
    counts = np.bincount(side.tokens(train), minlength=vocabulary) + 1.0
    end = len(train) + 1.0
    nats = np.log(counts.sum() + end) - np.log(counts)
    owners = np.repeat(np.arange(len(rows)), side.lengths[rows])
    spent = np.bincount(owners, nats[side.tokens(rows)], minlength=len(rows))
    return spent + np.log(counts.sum() + end) - np.log(end)


def _pieces(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Sequence[Any]]:
    """What errors are counted in: words where the model writes words, else characters."""
    return [text.split() if tokenizer.kind == "word" else text for text in texts]
