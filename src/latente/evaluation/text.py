"""How well a language model predicts held-out text, beside what compressors and counting make of the same text.

N tokens, T a model's context, V vocabulary, B windows at once. Cross-entropies are in nats, natural logarithms.
"""

from __future__ import annotations

import bz2
import lzma
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from latente.evaluation import passages, text_costs, verbatim
from latente.evaluation.findings import Chart, Evaluation, Gallery, Say, silent
from latente.evaluation.judge import FEWEST, judged, membership
from latente.evaluation.ngram import NGram
from latente.evaluation.scores import Outcome, Score
from latente.rng import key

if TYPE_CHECKING:
    import torch

BLOCKS = 100  # at most, that the held-out text is resampled in: passages differ over thousands of characters, not over one window
RESAMPLES = 2_000
BZ2_BLOCK = 900_000 - 100  # bytes that bz2 -9 sorts together, and forgets after
PASSAGES = 500  # at most, that samples are judged by
LETTERS = 64, 256  # characters of a passage: no fewer and no more
SHOWN = 8
XZ_TEXT = 16 << 20  # bytes of training text, at most, that xz reads first: some ten seconds


@dataclass(frozen=True)
class Held:
    """The real text an evaluation needs, and what the model makes of it."""

    train: str
    test: str
    validation: str
    nats: Mapping[str, np.ndarray]
    """of the tokens of the three, or of a stretch of them, but each one's first"""
    tokens: Mapping[str, np.ndarray]
    """of "test" and "train", whose nats these are"""
    spelled: Callable[[int], bytes]
    """the bytes of a token"""
    context: int

    @property
    def letters(self) -> int:
        """Characters of a passage: so many that the test split holds enough passages to judge by."""
        return max(LETTERS[0], min(LETTERS[1], len(self.test) // (2 * PASSAGES // 5)))

    @property
    def count(self) -> int:
        """How many passages of each kind are compared."""
        return min(PASSAGES, len(self.test) // self.letters)


def evaluated(made: Sequence[str], likely: Sequence[Score], held: Held, seed: int = 0, say: Say = silent) -> Evaluation:
    """Everything that can be measured of texts a model wrote, after what is `likely` (the scores of `likelihood`)."""
    n, letters = held.count, held.letters
    real = passages.cut([held.test], letters)[:n]
    fresh = passages.cut([held.validation], letters)
    beside = passages.cut([held.train], letters)  # where validation is short, training text is as real
    other = np.concatenate([fresh, beside[:: max(1, len(beside) // n)]])[:n]
    written = passages.cut(made, letters)[:n]
    scores, notes = list(likely), []
    if min(len(written), len(real), len(other)) >= FEWEST:
        say("a judge learns to tell the passages from real ones")
        against = judged(real, other, passages.CLASSIFIERS, seed)
        scores.append(judged(real, written, passages.CLASSIFIERS, seed).score(against, "passages"))
    else:
        notes.append(
            f"{min(len(written), len(real))} passages are too few to judge samples by: at least {FEWEST} are needed"
        )
    say("words, spans of characters, surprise")
    scores += passages.written(list(written), list(real), list(other), held.train, seed)
    say("looking for passages copied from the training text")
    found, pairs = verbatim.copied(list(written), [*real, *fresh], held.train, seed)
    windows = {
        part: nats[: len(nats) // held.context * held.context].reshape(-1, held.context)
        for part, nats in held.nats.items()
    }
    if min(len(windows["train"]), len(windows["validation"])) > 1:
        found.append(membership(windows["train"].mean(1), windows["validation"].mean(1), "passages"))
    sheet = [("real, held out", list(real[:SHOWN])), ("samples", list(written[:SHOWN]))]
    places = np.arange(1, held.context + 1)
    lines = {part: (places, nats.mean(0)) for part, nats in windows.items() if len(nats)}
    note = "How much reading more of a passage helps, and how much better the model knows what it was trained on."
    charts = [Chart("By place in the window", note, "tokens read", "nats per token", lines)] if lines else []
    beside = Gallery("Samples beside real passages", "Neither was chosen: they are the first ones.", sheet)
    spread, costly, costs = _costs(held, scores)
    made_of = {"passages": n, "characters": letters, "seed": seed}
    details = {"costs": costs} if costs else {}
    return Evaluation([*scores, *found], [beside, pairs, *costly], [*spread, *charts], notes, made_of, details)


def _costs(held: Held, likely: Sequence[Score]) -> tuple[list[Chart], list[Gallery], dict[str, Any]]:
    """What lines cost, beside what the references of `nats_per_char` need."""
    references = next((score.references for score in likely if score.name == "nats_per_char"), {})
    marks = {kind: value / math.log(2) for kind, value in references.items()}
    parts = {"training": "train", "test": "test"}
    tokens, nats = ({name: of[part] for name, part in parts.items()} for of in (held.tokens, held.nats))
    return text_costs.costs(tokens, nats, held.spelled, held.context, marks)


def token_nats(
    logits: Callable[[torch.Tensor], torch.Tensor], tokens: np.ndarray, context: int, batch: int = 32
) -> np.ndarray:
    """Cross-entropy of every token but the first, in nats, (N-1,) float64.

    `logits` maps tokens (B,T) int64, on the CPU, to (B,T,V) on any device; it is called without gradients, and is to be in
    evaluation mode. Window i reads tokens [iT, iT+T) and predicts [iT+1, iT+T+1): windows do not overlap and the last is as
    short as it comes, so that a window's first tokens are predicted from little, as in the published figures.
    Raises ValueError for fewer than two tokens.
    """
    import torch

    if len(tokens) < 2:
        raise ValueError(f"held-out text of {len(tokens)} tokens: nothing to predict; it needs at least 2")
    stream = torch.from_numpy(np.array(tokens, dtype=np.int64))
    whole = (len(stream) - 1) // context * context
    inputs = [*stream[:whole].view(-1, context).split(batch), stream[None, whole:-1]]
    targets = [*stream[1 : whole + 1].view(-1, context).split(batch), stream[None, whole + 1 :]]
    nats: list[np.ndarray] = []
    with torch.no_grad():
        for x, y in zip(inputs, targets):
            if x.numel():
                scores = logits(x).flatten(0, 1).float()
                loss = torch.nn.functional.cross_entropy(scores, y.flatten().to(scores.device), reduction="none")
                nats.append(loss.cpu().double().numpy())
    return np.concatenate(nats)


def likelihood(
    nats: np.ndarray, window: int, characters: int, byte_count: int, references: Mapping[str, float]
) -> list[Score]:
    """The Scores `nats_per_char`, `bits_per_byte` and `perplexity` of the nats (N-1,) of a text's tokens.

    `window`: tokens in one; `characters`, `byte_count`: how many the predicted tokens spell; `references`: nats per
    character, by kind, and converted for the other two. Intervals are 95 %, from a bootstrap over blocks of whole
    windows, so they speak of other text like this one; None where there are fewer than two windows.
    """
    total, n = float(nats.sum(dtype=np.float64)), len(nats)
    ends = _interval(nats, window)

    def score(name: str, unit: str, convert: Callable[[float], float]) -> Score:
        """`convert` turns the nats of the whole text into the figure."""
        others = {kind: convert(value * characters) for kind, value in references.items()}
        ci = (convert(ends[0] * n), convert(ends[1] * n)) if ends else None
        return Score(name, convert(total), ci, "lower", unit, others, question="predicts")

    main = score("nats_per_char", "nats per character", lambda nats: nats / characters)
    main = replace(main, verdict=verdict(main), answer="bad" if "LOSES" in verdict(main) else "good")
    return [
        main,
        score("bits_per_byte", "bits per byte", lambda nats: nats / math.log(2) / byte_count),
        score("perplexity", "equally likely tokens", lambda nats: _exp(nats / n)),
    ]


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else x if math.isnan(x) else math.inf


def _interval(nats: np.ndarray, window: int) -> tuple[float, float] | None:
    """95 % interval (low, high) of the mean of `nats` (N-1,): percentiles over resampled blocks (not overlapping:
    Carlstein 1986), each of the same number of whole windows; the last may be short."""
    windows = math.ceil(len(nats) / window)
    size = window * math.ceil(windows / BLOCKS)
    starts = np.arange(0, len(nats), size)
    if len(starts) < 2:
        return None
    sums, lengths = np.add.reduceat(nats, starts), np.diff(starts, append=len(nats))
    generator = np.random.default_rng(key("evaluation", "text", "bootstrap"))
    drawn = generator.multinomial(len(starts), np.full(len(starts), 1 / len(starts)), size=RESAMPLES)
    low, high = np.quantile(drawn @ sums / (drawn @ lengths), [0.025, 0.975])
    return float(low), float(high)


def references(
    train: bytes, held: bytes, train_tokens: np.ndarray, held_tokens: np.ndarray, vocabulary: int, characters: int
) -> dict[str, float]:
    """Nats per character of the held-out text for bz2 -9, xz -9e and an n-gram model, by what they are.

    `train`, `held`: the texts as bytes; `train_tokens`, `held_tokens`: the same as the model sees them; `characters`: of the
    held-out text. A model has read the training text, so a compressor may too: what `held` adds to the compressed
    training text, or `held` alone where that is smaller. Each kind says how much it read: bz2 what shares its block with
    `held`, xz the last `XZ_TEXT` bytes, the n-gram model the last tokens it counts.
    """
    strongest = 9 | lzma.PRESET_EXTREME
    result = dict(
        (
            _compressed("bz2", lambda text: bz2.compress(text, 9), train, held, BZ2_BLOCK - len(held), characters),
            _compressed("xz", lambda text: lzma.compress(text, preset=strongest), train, held, XZ_TEXT, characters),
        )
    )
    model = NGram.fit(train_tokens, vocabulary)
    article = "an" if model.order == 8 else "a"
    capped = f" of the last {model.fitted:,} training tokens" if model.fitted < len(train_tokens) else ""
    result[f"{article} {model.order}-gram model{capped}"] = float(model.nats(held_tokens)[1:].sum()) / characters
    return result


def _compressed(
    name: str, compress: Callable[[bytes], bytes], train: bytes, held: bytes, room: int, characters: int
) -> tuple[str, float]:
    """(kind, nats per character) of `held` after the last `room` bytes of `train`, or alone, whichever is smaller."""
    nats = 8 * math.log(2) / characters
    alone = len(compress(held)), f"{name} alone"
    if not train or room <= 0:
        return alone[1], alone[0] * nats
    read = train[-room:]
    after = (
        len(compress(read + held)) - len(compress(read)),
        f"{name} after {math.ceil(len(read) / 1000):,} kB of training text",
    )
    size, kind = min(alone, after)
    return kind, max(0, size) * nats  # bz2 may need less for more


def verdict(score: Score) -> str:
    """One line on how the score stands to its references, and what to do where it loses."""
    groups: dict[Outcome, list[str]] = {"behind": [], "level": [], "ahead": []}
    for kind, value in sorted(score.references.items(), key=lambda item: item[1], reverse=score.better == "higher"):
        groups[score.against(kind)].append(f"{kind} ({value:.4g})")
    said = []
    if groups["behind"]:
        said.append(f"LOSES to {_listed(groups['behind'])} on held-out text: train longer, or a larger size")
    if groups["level"]:
        said.append(f"level with {_listed(groups['level'])}")
    if groups["ahead"]:
        said.append(f"predicts held-out text better than {_listed(groups['ahead'])}")
    return "; ".join(said) or "nothing to compare it with"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
