"""Models of pairs, measured: how likely the targets of held-out sources are, and how far what is written is from them.

    log-probabilities of held-out targets -> nats per token, beside a model that knows only how frequent tokens are
    what is written for held-out sources  -> errors by token and by sequence, BLEU, chrF; beside taking the target of the training
                                             source that is most alike
A source may have several targets: what is written is held against the nearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latente.evaluation.distances import Z, share_interval
from latente.evaluation.findings import Bars, Evaluation, Gallery, Say, silent
from latente.evaluation.scores import Answer, Score

MOST = 20_000  # held-out sources that are written for
ALIKE = 1_000  # of these, how many are looked up among training sources
LEARNT = 100_000  # training sources that are looked through
PARTS, SHOWN = 5, 24  # parts of the sources by length; pairs on the page
COPIED = "the target of the most alike training source"
FREQUENT = "how frequent each token is"
Pieces = Callable[[Sequence[str]], Sequence[Sequence[Any]]]
"""Texts -> what errors are counted in: words, or characters"""


@dataclass(frozen=True)
class Held:
    """The real pairs that a model is measured by."""

    sources: list[str]
    """different ones of the test split, at most `MOST`"""
    references: list[list[str]]
    """for each of these its targets"""
    train: list[tuple[str, str]]
    """training pairs that simpler methods know, at most `LEARNT`"""
    nats: np.ndarray
    """-ln p of each test target with its end, (n,)"""
    lengths: np.ndarray
    """tokens of each test target, its end counted, (n,)"""
    frequent: np.ndarray
    """-ln p of each test target by `FREQUENT`, (n,)"""


def held(
    texts: Mapping[str, list[str]], test: np.ndarray, train: np.ndarray, nats: np.ndarray, lengths: np.ndarray,
    frequent: np.ndarray,
) -> Held:  # fmt: skip
    """`texts` are all sources and targets; `test` and `train` numbers of pairs; the others as in `Held`."""
    found: dict[str, list[str]] = {}
    for row in test.tolist():
        found.setdefault(texts["source"][row], []).append(texts["target"][row])
    sources = list(found)[:MOST]
    known = train[:: max(1, -(-len(train) // LEARNT))]
    pairs = [(texts["source"][row], texts["target"][row]) for row in known.tolist()]
    return Held(sources, [found[source] for source in sources], pairs, nats, lengths, frequent)


def evaluated(real: Held, made: list[str], pieces: Pieces, say: Say = silent) -> Evaluation:
    """Scores of what was `made` for the sources of `real`, errors by length, and pairs to look at."""
    say("what simpler methods make of the same sources")
    looked = slice(0, ALIKE)
    copied = _most_alike(real.sources[looked], real.train)
    errors, sizes, at = _errors(made, real.references, pieces)
    theirs, their_sizes, _ = _errors(copied, real.references[looked], pieces)
    words = isinstance(pieces(["a"])[0], list)
    scores = [
        _likelihood(real),
        _token_errors(errors, sizes, theirs.sum() / their_sizes.sum(), "word" if words else "character"),
        _sequence_errors(errors, float((theirs > 0).mean())),
        *_overlaps(made, copied, real.references, words),
    ]
    charts = [_by_length(errors, sizes)]
    nearest = [references[place] for references, place in zip(real.references, at)]
    galleries = [_gallery(real.sources, nearest, made, errors)]
    several = sum(len(references) > 1 for references in real.references)
    notes = [f"{several:,} sources have several targets; the nearest one counts"] * bool(several)
    return Evaluation(scores, galleries, charts, notes, {"sources": len(real.sources), "looked up": len(copied)})


def edits(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The fewest insertions, deletions and replacements that make `b` of `a` (Levenshtein 1966)."""
    if not len(a) or not len(b):
        return max(len(a), len(b))
    codes = {piece: code for code, piece in enumerate(dict.fromkeys([*a, *b]))}
    other = np.array([codes[piece] for piece in b])
    places = np.arange(len(b) + 1)
    row = places.copy()
    for number, piece in enumerate(a, 1):
        replaced = row[:-1] + (other != codes[piece])
        above = np.minimum(row[1:] + 1, replaced)
        # Insertions go along the row: the least of what stands to the left and the way from there.
        row = np.minimum.accumulate(np.concatenate([[number], above]) - places) + places
    return int(row[-1])


def _errors(
    made: Sequence[str], references: Sequence[Sequence[str]], pieces: Pieces
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each text the edits to its nearest reference, that one's length, and which it is: (n,) each."""
    found = []
    for text, several in zip(pieces(made), references):
        tried = [(edits(text, reference), len(reference), at) for at, reference in enumerate(pieces(several))]
        found.append(min(tried, key=lambda one: one[0] / max(1, one[1])))
    distances, sizes, at = np.array(found).reshape(-1, 3).T
    return distances, sizes, at


def _most_alike(sources: Sequence[str], train: Sequence[tuple[str, str]]) -> list[str]:
    """For each source the target of the training source that shares most of its short strings of characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counted: Any = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    known = counted.fit_transform([source for source, _ in train])
    asked = counted.transform(sources)
    places = [
        int(row) for at in range(0, len(sources), 64) for row in (known @ asked[at : at + 64].T).toarray().argmax(0)
    ]
    return [train[place][1] for place in places]


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Sum over sum and its 95 % interval, over independent items (the delta method)."""
    value = float(parts.sum() / max(1, wholes.sum()))
    error = Z * float(np.sqrt(((parts - value * wholes) ** 2).sum())) / max(1, wholes.sum())
    return float(value), (max(0.0, float(value - error)), float(value + error))


def _answered(score: Score) -> Score:
    """The score with its answer: ahead of its reference, level, or behind."""
    assert score.reference_kind is not None
    answers: dict[str, Answer] = {"ahead": "good", "level": "unsure", "behind": "bad"}
    return replace(score, answer=answers[score.against(score.reference_kind)])


def _likelihood(real: Held) -> Score:
    value, ci = _ratio(real.nats, real.lengths)
    plain = float(real.frequent.sum() / real.lengths.sum())
    said = f"a token of a held-out target surprises the model by {value:.3g} nats, and by {plain:.3g} who only knows {FREQUENT}"
    return _answered(
        Score("nats_per_token", value, ci, "lower", "nats per token", {FREQUENT: plain}, said, question="predicts")
    )


def _token_errors(errors: np.ndarray, sizes: np.ndarray, theirs: float, unit: str) -> Score:
    value, ci = _ratio(errors, sizes)
    said = f"{value:.1%} of the {unit}s are wrong, {theirs:.1%} with {COPIED}"
    return _answered(
        Score(
            "token_error_rate", value, ci, "lower", f"edits per {unit}", {COPIED: float(theirs)}, said,
            question="predicts",
        )
    )  # fmt: skip


def _sequence_errors(errors: np.ndarray, theirs: float) -> Score:
    value = float((errors > 0).mean())
    said = f"{value:.1%} of the targets are not exactly right"
    return _answered(
        Score(
            "sequence_error_rate", value, share_interval(value, len(errors)), "lower", "share of sources", {COPIED: theirs}, said,
            question="predicts",
        )
    )  # fmt: skip


def _overlaps(
    made: Sequence[str], copied: Sequence[str], references: Sequence[Sequence[str]], words: bool
) -> list[Score]:
    """BLEU (Papineni et al. 2002) and chrF (Popovic 2015), as sacrebleu counts them.

    BLEU counts runs of four words, so there is none of shorter targets.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    most = max(map(len, references))
    columns: list[Any] = [[several[at] if at < len(several) else None for several in references] for at in range(most)]

    def counted(metric: Any) -> tuple[float, dict[str, float]]:
        """Of what was made, and of the reference."""
        value, theirs = (
            float(metric.corpus_score(list(texts), [column[: len(texts)] for column in columns]).score)
            for texts in (made, copied)
        )
        return value, {COPIED: theirs}

    value, beside = counted(CHRF())
    scores = [Score("chrf", value, None, "higher", "of 100", beside, question="predicts")]
    if np.mean([len(several[0].split()) for several in references]) >= 4:
        value, beside = counted(BLEU(tokenize="none" if words else "13a"))
        scores.insert(0, Score("bleu", value, None, "higher", "of 100", beside, question="predicts"))
    return scores


def _by_length(errors: np.ndarray, sizes: np.ndarray) -> Bars:
    """Errors for parts of the sources, from the shortest targets to the longest."""
    bounds = np.unique(np.quantile(sizes, np.linspace(0, 1, PARTS + 1)[1:-1], method="nearest"))
    part = np.searchsorted(bounds, sizes)
    parts = [part == number for number in np.unique(part)]
    labels = [f"{sizes[inside].min()} to {sizes[inside].max()}" for inside in parts]
    bars = {
        "token error rate": np.array([errors[inside].sum() / max(1, sizes[inside].sum()) for inside in parts]),
        "sequence error rate": np.array([(errors[inside] > 0).mean() for inside in parts]),
    }
    return Bars(
        "Errors by length",
        "How long the target is that should be written, and how much is wrong.",
        "share",
        labels,
        bars,
    )


def _gallery(sources: list[str], nearest: list[str], made: list[str], errors: np.ndarray) -> Gallery:
    """The first pairs that are wrong, and the first that are right."""
    shown = [at for kind in (errors > 0, errors == 0) for at in np.flatnonzero(kind)[: SHOWN // 2].tolist()]
    rows = [
        (name, [texts[at] for at in shown])
        for name, texts in (("source", sources), ("should be", nearest), ("made", made))
    ]
    return Gallery("Held-out sources", "Those that went wrong first.", rows, paired=True)
