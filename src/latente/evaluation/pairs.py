"""Models of pairs, measured: how likely the targets of held-out sources are, and how far what is written is from them.

    log-probabilities of held-out targets -> nats per token, beside a model that knows only how frequent tokens are
    what is written for held-out sources  -> errors by token and by sequence, BLEU, chrF; beside taking the target of the training
                                             source that is most alike
    how sure the model is of what it wrote -> errors by confidence, and the errors it was surest of: they show what is wrong in the
                                             data, or what the model has not learned
A source may have several targets: what is written is held against the nearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np

from latente.evaluation.distances import RESAMPLES, Z, share_interval
from latente.evaluation.findings import Bars, Evaluation, Gallery, Map, Say, silent
from latente.evaluation.scores import Answer, Score

MOST = 20_000  # held-out sources that are written for
ALIKE = 1_000  # of these, how many are looked up among training sources
LEARNT = 100_000  # training sources that are looked through
PARTS = 5  # of the sources, by length and by confidence
WRONG, OTHERS = 12, 6  # pairs on the page: errors, and of those that are right, and of those it was least sure of
MAPS, SIDE = 6, 32  # errors with a map of what they looked at; tokens of a side of it, at most
FEW, HALF = 0.1, 0.5  # share of wrong targets up to which they are right on the whole, and that are not good enough
WORDS = 4  # of sources and of targets, on average, from which on another wording may be as good
COPIED = "the target of the most alike training source"
FREQUENT = "how frequent each token is"
Pieces = Callable[[Sequence[str]], Sequence[Sequence[Any]]]
"""Texts -> what errors are counted in: words, or characters"""
Looked = Callable[[str, str], Map]
"""A source and its target -> what the target looked at"""


class Written(NamedTuple):
    """What a model wrote for sources."""

    texts: list[str]
    confidence: np.ndarray
    """the probability the model gives a token of each, the geometric mean (n,)"""


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


def evaluated(
    real: Held, written: Written, pieces: Pieces, looked: Looked | None = None, say: Say = silent
) -> Evaluation:
    """Scores of what was `written` for the sources of `real`, errors by length and by confidence, and pairs to look at."""
    say("what simpler methods make of the same sources")
    made, part = written.texts, slice(0, ALIKE)
    copied = _most_alike(real.sources[part], real.train)
    errors, sizes, at = _errors(made, real.references, pieces)
    theirs, their_sizes, _ = _errors(copied, real.references[part], pieces)
    words, free = isinstance(pieces(["a"])[0], list), _free(real)
    scores = [
        _likelihood(real),
        _token_errors(errors, sizes, theirs.sum() / their_sizes.sum(), "word" if words else "character"),
        _sequence_errors(errors, float((theirs > 0).mean()), free),
        *_overlaps(made, copied, real.references, words),
    ]
    charts = [_by_length(errors, sizes), _by_confidence(errors, sizes, written.confidence)]
    nearest = [references[place] for references, place in zip(real.references, at)]
    say("looking at what it was surest of")
    figures = (values.tolist() for values in (written.confidence, errors, sizes))
    pairs = [Pair(*pair) for pair in zip(real.sources, nearest, made, *figures)]
    groups = _groups(errors, written.confidence)
    galleries = [
        _gallery(group, [pairs[place] for place in places], looked) for group, places in groups.items() if len(places)
    ]
    several = sum(len(references) > 1 for references in real.references)
    notes = [f"{several:,} sources have several targets; the nearest one counts"] * bool(several)
    how = {"sources": len(real.sources), "looked up": len(copied), "free wording": free}
    details = {
        **{chart.title.lower().replace(" ", "_"): _listed(chart) for chart in charts},
        "pairs": [
            {"shown_as": group, **pairs[place]._asdict()} for group, places in groups.items() for place in places
        ],
    }
    return Evaluation(scores, galleries, charts, notes, how, details)


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
            question="right",
        )
    )  # fmt: skip


def _sequence_errors(errors: np.ndarray, theirs: float, free: bool) -> Score:
    """Being ahead of a simpler method is not enough: most targets must be right too, unless their wording is free."""
    value = float((errors > 0).mean())
    said = f"{value:.1%} of the targets are not exactly right, {theirs:.1%} with {COPIED}"
    score = _answered(
        Score(
            "sequence_error_rate", value, share_interval(value, len(errors)), "lower", "share of sources", {COPIED: theirs}, said,
            question="right",
        )
    )  # fmt: skip
    plainly: Answer = "good" if free or value <= FEW else "unsure" if value <= HALF else "bad"
    return replace(score, answer=max(score.answer or "good", plainly, key=get_args(Answer).index))


def _free(real: Held) -> bool:
    """Whether both sides are sentences, which can be put in other words and be as right."""
    sides = (real.sources, [several[0] for several in real.references])
    return all(np.mean([len(text.split()) for text in side]) >= WORDS for side in sides)


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

    def score(name: str, metric: Any) -> Score:
        """Of what was made, its interval by resampling targets, beside the reference."""
        found = metric.corpus_score(list(made), columns, n_bootstrap=RESAMPLES)
        theirs = metric.corpus_score(list(copied), [column[: len(copied)] for column in columns]).score
        ci = max(0.0, float(found.score - found._ci)), min(100.0, float(found.score + found._ci))
        return Score(name, float(found.score), ci, "higher", "of 100", {COPIED: float(theirs)}, question="right")

    scores = [score("chrf", CHRF())]
    if np.mean([len(several[0].split()) for several in references]) >= 4:
        scores.insert(0, score("bleu", BLEU(tokenize="none" if words else "13a")))
    return scores


def _by_length(errors: np.ndarray, sizes: np.ndarray) -> Bars:
    """Errors for parts of the sources, from the shortest targets to the longest."""
    return _by(
        sizes, "{}", errors, sizes, "Errors by length",
        "How long the target is that should be written, and how much is wrong.",
    )  # fmt: skip


def _by_confidence(errors: np.ndarray, sizes: np.ndarray, confidence: np.ndarray) -> Bars:
    """Errors for parts of the sources, from the target the model was least sure of to the one it was surest of."""
    return _by(
        confidence, "{:.1%}", errors, sizes, "Errors by confidence",
        "How sure the model is of what it wrote, in five equal parts of the sources. Where few of the surest are wrong, its confidence "
        "says which ones to check.",
    )  # fmt: skip


def _by(values: np.ndarray, label: str, errors: np.ndarray, sizes: np.ndarray, title: str, note: str) -> Bars:
    bounds = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1)[1:-1], method="lower"))
    part = np.searchsorted(bounds, values)
    parts = [part == number for number in np.unique(part)]
    ends = [dict.fromkeys(label.format(end(values[inside])) for end in (np.min, np.max)) for inside in parts]
    labels = [" to ".join(both) for both in ends]
    bars = {
        "token error rate": np.array([errors[inside].sum() / max(1, sizes[inside].sum()) for inside in parts]),
        "sequence error rate": np.array([(errors[inside] > 0).mean() for inside in parts]),
    }
    return Bars(title, note, "share", labels, bars)


def _listed(chart: Bars) -> list[dict[str, Any]]:
    """A chart for programs, part by part."""
    values = {name.replace(" ", "_"): value.tolist() for name, value in chart.bars.items()}
    return [{"part": label, **dict(zip(values, row))} for label, row in zip(chart.labels, zip(*values.values()))]


# ---- pairs to look at ----------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A held-out source and what became of it."""

    source: str
    should_be: str
    """the nearest of its targets"""
    made: str
    confidence: float
    """the probability the model gave a token of it"""
    errors: int
    """edits to what it should be"""
    size: int
    """the length of what it should be, in what errors are counted in"""


SHOWN = {
    "surest errors": (
        "Wrong, and sure of it",
        "The errors the model was surest of, surest first: they show what is wrong in the data, and what it has not learned. "
        "Confidence is the probability it gave a token of what it wrote, the geometric mean.",
    ),
    "right": ("Right", "The first that came out right, in no order."),
    "least sure": ("Least sure", "What the model itself doubts most."),
}
"""titles and notes, by the kind of pairs"""
MAPPED = (
    " The squares show what each token it wrote, from above to below, looked at in the source, from left to right: the fuller the "
    "colour the more, the mean over blocks and heads."
)


def _groups(errors: np.ndarray, confidence: np.ndarray) -> dict[str, list[int]]:
    """Which pairs are shown, by their kind; none twice."""
    order = np.argsort(-confidence, kind="stable")
    wrong = order[errors[order] > 0][:WRONG].tolist()
    right = np.flatnonzero(errors == 0)[:OTHERS].tolist()
    doubted = [place for place in order[::-1].tolist() if place not in {*wrong, *right}][:OTHERS]
    return dict(zip(SHOWN, (wrong, right, doubted)))


def _gallery(kind: str, pairs: Sequence[Pair], looked: Looked | None) -> Gallery:
    """Pairs below each other; errors with maps where their model has any."""
    title, note = SHOWN[kind]
    maps: list[Map | None] = []
    if looked is not None and kind == "surest errors":
        for pair in pairs:
            found = looked(pair.source, pair.made) if sum(map(bool, maps)) < MAPS else None
            maps.append(found if found is not None and max(found.weights.shape) <= SIDE else None)
    rows = [
        (name.replace("_", " "), [str(getattr(pair, name)) for pair in pairs])
        for name in ("source", "should_be", "made")
    ]
    captions = [f"confidence {pair.confidence:.1%}, {_said(pair)}" for pair in pairs]
    return Gallery(title, note + MAPPED * any(maps), rows, True, captions, maps=maps)


def _said(pair: Pair) -> str:
    return f"{pair.errors:,} edit{'s' * (pair.errors > 1)} from right" if pair.errors else "right"
