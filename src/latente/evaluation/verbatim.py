"""Was training text copied, word for word? What samples share with it, beside what held-out passages share with it.

    passages ----hash of every stretch of L characters----+
                                                          +--> where each occurs --bisect on L--> longest copied span
    training text, a chunk at a time, hashed alike -------+

The hash of a stretch is a polynomial of its characters modulo 2^64 (Karp & Rabin 1987), taken from running sums, so that
every stretch of any length costs one subtraction and one product; what is said to be copied has been compared character by character.
Held-out text repeats headings, names and phrases of the training text too: only what samples repeat beyond that is copying.
N passages, C characters of all of them, T characters of training text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latente.evaluation import judge
from latente.evaluation.distances import RESAMPLES, Z, share_interval
from latente.evaluation.findings import Gallery
from latente.evaluation.passages import share
from latente.evaluation.scores import Answer, Score
from latente.rng import key

ALPHA = 0.01  # the chance of a false alarm
SPAN = 50  # characters that are hardly ever the same by chance
NOTICED = 0.05  # a share of copied passages this large must show, or there was too little data to say that none are
PERMUTATIONS = 9_999
SHOWN = 12
CHUNK = 1 << 20  # characters of training text that are hashed at once: bounds the memory to some 100 MB
_BASE = key("verbatim") | 1
_BITS = 22  # of a table that says which hashes are worth a closer look


def numbers(text: str) -> np.ndarray:
    """The code points of a text, (n,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def copied(made: Sequence[str], held: Sequence[str], train: str, seed: int = 0) -> tuple[list[Score], Gallery]:
    """What of the training text the samples `made` repeat, beside the held-out passages `held`; and the most suspicious of them.

    Passages are of one length, cut alike (`passages.cut`): longer ones repeat longer spans. All of `train` is searched: the memory
    does not grow with it, the time does (a thousand passages of 256 characters: about a second a million characters).
    """
    both, n = [*made, *held], len(made)
    (spans, at, place), counts = longest(both, train), repeated(both, train, SPAN)
    ours, theirs = spans[:n], spans[n:]
    sizes = np.array([len(text) for text in made])
    scores = [_passages(ours, theirs, sizes, seed), _longest(ours, theirs, seed), _mean(ours, theirs)]
    scores += _spans(counts[:n], counts[n:], seed)
    order = [i for i in np.argsort(-ours, kind="stable")[:SHOWN].tolist() if ours[i]]
    starts = [max(0, int(place[i] - at[i])) for i in order]
    rows = [
        ("sample", [made[i] for i in order]),
        (
            "where it stands in the training text",
            [train[start : start + len(made[i])] for i, start in zip(order, starts)],
        ),
    ]
    captions = [f"{ours[i]:,} characters in a row" for i in order]
    note = "The samples with the longest spans that stand in the training text, beside the training text around them."
    return scores, Gallery("Most like a copy", note, rows, paired=True, captions=captions)


def membership(train: np.ndarray, held: np.ndarray) -> Score:
    """`judge.membership` of -ln p of training and of held-out passages, (n,) each; of one length, or a character's mean."""
    return judge.membership(train, held, "passages")


# ---- what stands where ---------------------------------------------------------------------------------------------


def longest(passages: Sequence[str], train: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The longest span of each passage that stands in the training text: its length, where in the passage, where in the
    training text; (N,) int64 each, 0 where nothing does."""
    sizes = np.array([len(text) for text in passages], np.int64)
    starts = sizes.cumsum() - sizes
    low, high = np.zeros_like(sizes), np.minimum(sizes, len(train))
    at, place = np.zeros_like(sizes), np.zeros_like(sizes)
    while (open_ := np.flatnonzero(low < high)).size:
        middle = np.where(low < high, np.minimum((low + high + 1) // 2, np.maximum(16, 2 * low)), 0)
        where = _places(passages, middle, train)
        hits = np.flatnonzero(where >= 0)
        owners, first = np.unique(np.searchsorted(starts + sizes, hits, "right"), return_index=True)
        high[open_] = np.where(np.isin(open_, owners), high[open_], middle[open_] - 1)
        low[owners], at[owners], place[owners] = middle[owners], hits[first] - starts[owners], where[hits[first]]
    return low, at, place


def repeated(passages: Sequence[str], train: str, length: int) -> np.ndarray:
    """How many of a passage's spans of `length` characters stand in the training text, and how many it has: (N,2) int64."""
    sizes = np.array([len(text) for text in passages], np.int64)
    where = _places(passages, np.full(len(sizes), length), train)
    found = np.concatenate([[0], (where >= 0).cumsum()])
    ends = sizes.cumsum()
    return np.stack([found[ends] - found[ends - sizes], np.maximum(sizes - length + 1, 0)], 1)


def _places(passages: Sequence[str], lengths: np.ndarray, train: str) -> np.ndarray:
    """Where in the training text the span stands that begins at each character of the passages, (C,) int64; -1 where it does not.

    `lengths` (N,) is how long the spans of each passage are; 0 for a passage that is not asked about.
    """
    text = "".join(passages)
    sizes = np.array([len(passage) for passage in passages], np.int64)
    width = np.repeat(lengths, sizes)
    fits = np.arange(len(text)) + width <= np.repeat(sizes.cumsum(), sizes)
    result = np.full(len(text), -1)
    inverse = _powers(pow(_BASE, -1, 1 << 64), max(len(text), CHUNK) + 1)
    sums = _sums(text)
    asked = {int(n): np.flatnonzero((width == n) & fits) for n in np.unique(lengths[lengths > 0])}
    hashes = {n: (sums[at + n] - sums[at]) * inverse[at] for n, at in asked.items()}
    for start in range(0, len(train), CHUNK):
        sums = _sums(train[start : start + CHUNK + max(asked, default=0) - 1])
        for n, at in asked.items():
            count = min(CHUNK, len(sums) - n)
            if count > 0 and len(at):
                there = (sums[n : n + count] - sums[:count]) * inverse[:count]
                found = _found(hashes[n], there)
                for i in np.flatnonzero((found >= 0) & (result[at] < 0)):
                    q, t = int(at[i]), start + int(found[i])
                    if text[q : q + n] == train[t : t + n]:
                        result[q] = t
    return result


def _found(wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where in `there` (T,) each of the hashes `wanted` (C,) stands, -1 where it does not."""
    short = [(hashes >> np.uint64(64 - _BITS)).view(np.int64) for hashes in (wanted, there)]
    table = np.zeros(1 << _BITS, bool)
    table[short[0]] = True
    likely = np.flatnonzero(table[short[1]])  # most are ruled out by a look at the table
    if not likely.size:
        return np.full(len(wanted), -1)
    known, first = np.unique(there[likely], return_index=True)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, likely[first[place]], -1)


def _powers(base: int, count: int) -> np.ndarray:
    """1, base, base^2, ... modulo 2^64, (count,) uint64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _sums(text: str) -> np.ndarray:
    """Running sums of character i times base^i, (n+1,) uint64: the stretch from i to j hashes to (sums[j] - sums[i]) / base^i."""
    points = numbers(text).astype(np.uint64)
    return np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum(points * _powers(_BASE, len(points) + 1)[:-1], dtype=np.uint64)]
    )


# ---- what it means -------------------------------------------------------------------------------------------------


def p_value(
    ours: np.ndarray, theirs: np.ndarray, random: np.random.Generator, permutations: int = PERMUTATIONS
) -> float:
    """One-sided: the share of permutations of passages, the true order counted in, in which `ours` (N,) have at least that mean
    beside `theirs` (M,). Ranks would not do: ten copies among a thousand passages hardly move them."""
    both = np.concatenate([ours, theirs]).astype(np.float64)  # whole numbers: sums are exact
    found, reached = both[: len(ours)].sum(), 1
    for start in range(0, permutations, 500):
        rows = min(500, permutations - start)
        drawn = random.permuted(np.broadcast_to(both, (rows, len(both))), axis=1)[:, : len(ours)].sum(1)
        reached += int((drawn >= found).sum())
    return reached / (permutations + 1)


def noticed(theirs: np.ndarray, sizes: np.ndarray, random: np.random.Generator) -> float:
    """The smallest share of copied passages, of those of `sizes` (N,) characters, that `p_value` finds four times in five or so
    where the others are like `theirs` (M,); 1 where none is found."""
    n = len(sizes)
    if not n or not len(theirs):
        return 1.0
    for part in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        planted, trials = max(1, round(part * n)), []
        for _ in range(5):
            ours = np.minimum(random.choice(theirs, n), sizes)
            at = random.permutation(n)[:planted]
            ours[at] = sizes[at]
            trials.append(p_value(ours, random.choice(theirs, len(theirs)), random, 499) <= ALPHA)
        if sum(trials) >= 4:
            return planted / n
    return 1.0


def _longest(ours: np.ndarray, theirs: np.ndarray, seed: int) -> Score:
    """The longest of all; of as many passages of each kind, or more samples would mean longer spans."""
    n = min(len(ours), len(theirs)) or len(ours)
    random = np.random.default_rng(key(seed, "longest"))
    drawn = [random.choice(ours[:n], n).max() for _ in range(RESAMPLES)] if n else [0.0]
    low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    value, usual = float(ours[:n].max(initial=0)), float(theirs[:n].max(initial=0))
    words = f"the longest span copied from the training text is {value:.0f} characters; held-out text has one of {usual:.0f}"
    return Score(
        "longest_copied_span", value, (low, high), "lower", "characters", {"held-out text": usual}, words, "copied"
    )


def _passages(ours: np.ndarray, theirs: np.ndarray, sizes: np.ndarray, seed: int) -> Score:
    """The test: by how much the longest spans exceed `SPAN` characters. Shorter ones are names, headings and phrases, of which text
    of the same works as the training text always has a few more than text of others."""
    random = np.random.default_rng(key(seed, "verbatim"))
    above, usually, whole = (np.maximum(x - SPAN + 1, 0) for x in (ours, theirs, sizes))
    p = p_value(above, usually, random)
    least = noticed(usually, whole, random)
    value, usual = (float((x > 0).mean()) if len(x) else 0.0 for x in (above, usually))
    said = f"{value:.1%} of samples repeat {SPAN} characters of training text or more in a row, of held-out text {usual:.1%}"
    answer: Answer = "good"
    if p <= ALPHA:
        answer = "bad"
        said += f" (p = {p:.2g}): do not share these samples; train on more text, or for a shorter time"
    elif least > NOTICED:
        answer = "unsure"
        said += f"; there is too little text to notice fewer copies than {least:.0%}: hold out more, sample more"
    else:
        said += f"; had {least:.1%} been copied, it would have shown"
    return Score(
        "copied_passages", value, share_interval(value, len(ours)) if len(ours) else None, "lower",
        f"share of passages with {SPAN} copied characters in a row", {"held-out text": usual}, said, "copied", answer,
    )  # fmt: skip


def _mean(ours: np.ndarray, theirs: np.ndarray) -> Score:
    value, usual = (float(x.mean()) if len(x) else 0.0 for x in (ours, theirs))
    half = Z * float(ours.std(ddof=1)) / len(ours) ** 0.5 if len(ours) > 1 else 0.0
    return Score(
        "mean_copied_span", value, (max(0.0, value - half), value + half), "lower", "characters, mean of each passage's longest",
        {"held-out text": usual}, question="copied",
    )  # fmt: skip


def _spans(ours: np.ndarray, theirs: np.ndarray, seed: int) -> list[Score]:
    """Of counts (N,2) of spans; nothing where no sample is that long."""
    if not ours[:, 1].any():
        return []
    value, ci = share(ours, seed)
    references = {"held-out text": share(theirs, seed)[0]} if theirs[:, 1].any() else {}
    words = f"{value:.2%} of all stretches of {SPAN} characters stand in the training text"
    words += "".join(f"; of held-out text {usual:.2%}" for usual in references.values())
    return [
        Score(
            "copied_spans", value, ci, "lower", f"share of stretches of {SPAN} characters", references, words, "copied"
        )
    ]
