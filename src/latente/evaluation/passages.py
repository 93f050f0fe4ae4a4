"""How good passages of text are that a model wrote: figures of samples, each beside the same figure of real passages.

    samples, real, other (passages) --as many characters of each--+-> characters three by three, lengths of lines   ~ real
                                                                   +-> pairs of words that differ, words that are words
    training text --> 6-gram model, vocabulary --------------------+-> how surprising it finds them

and what the judge (judge.py) reads them with: n-grams by hash, and a small Transformer. `other` are real passages that take the
place of samples, which gives the references. N passages, L bytes of a passage, K different n-grams, W words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latente.evaluation import distances
from latente.evaluation.judge import Classifier, Scorer
from latente.evaluation.ngram import NGram
from latente.evaluation.scores import Answer, Score
from latente.rng import key

if TYPE_CHECKING:
    import torch

LETTERS = 512  # bytes of a passage that the Transformer reads
SEEN = 700_000  # bytes it learns from in all, repeats included: some ten seconds
PASSES = 30  # over the passages, at most
WINDOW, WIDTH, BATCH, RATE = 64, 64, 32, 8e-3
EDGE = 256  # stands before a passage and after its end
GRAM = 3
ORDER = 6  # of the reference model: longer contexts than these are mostly new
COUNTED = 2_000_000  # characters of the training text, its last ones, that it is counted on
READ = 20_000_000  # and that the vocabulary is taken from
RESAMPLES = 1_000
# Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, kana, ideographs): a character is a word.
ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
BETWEEN = r"\s!-&(-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u2018\u201a-\u2027\u2030-\u205e\u3000-\u303f\uff00-\uff0f"  # not apostrophes
WORD = re.compile(f"[{ALONE}]|[^{BETWEEN}{ALONE}]+")


def cut(texts: Sequence[str], length: int, skip: int = 0) -> np.ndarray:
    """Passages of `length` characters, one after another, of each text but its first `skip`: (N,) of str. What is left over is dropped."""
    pieces = [t[i : i + length] for t in texts for i in range(skip, len(t) - length + 1, length)]
    return np.array(pieces, dtype=object)


# ---- what the judge reads with -------------------------------------------------------------------------------------


def hashed_ngrams(passages: np.ndarray, fake: np.ndarray, seed: int) -> Scorer:
    """Logistic regression on how often one to five characters, and words and their pairs, occur in passages (N,) of str."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    settings: dict[str, Any] = {"n_features": 1 << 18, "lowercase": False, "alternate_sign": False}
    kinds = (
        HashingVectorizer(analyzer="char", ngram_range=(1, 5), **settings),
        HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", **settings),
    )

    def counted(part: np.ndarray) -> Any:
        valid = [text.encode("utf-8", "replace").decode() for text in part]
        return hstack([kind.transform(valid) for kind in kinds]).tocsr()

    model = LogisticRegression(C=100.0, solver="liblinear", random_state=seed % 2**31).fit(counted(passages), fake)
    return lambda part: model.decision_function(counted(part))


def transformer(passages: np.ndarray, fake: np.ndarray, seed: int) -> Scorer:
    """A Transformer that learns to write passages (N,) of str, real or fake as it is told: how much likelier a passage is as a fake.

    It learns something from every byte, where one that only says which is which learns one bit a passage, and from a few hundred of
    them learns them by heart (Ng & Jordan 2002, "On Discriminative vs. Generative Classifiers").
    """
    import torch

    from latente.optim import AdamW

    x = _bytes(passages, max(len(text.encode("utf-8", "replace")) for text in passages))
    kind = torch.from_numpy(fake).long()
    window = min(WINDOW, x.shape[1] - 1)
    steps = max(1, min(SEEN, PASSES * x.numel()) // (BATCH * window))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = _writer(x.shape[1])
        optimizer = AdamW(model.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(steps):
            at, start = torch.randint(len(x), (BATCH,)), torch.randint(x.shape[1] - window, (BATCH, 1))
            loss = model(x[at[:, None], start + torch.arange(window + 1)], kind[at], start).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def score(part: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(len(part))
        for start in range(0, part.shape[1] - 1, window):
            piece, place = part[:, start : start + window + 1], torch.tensor([[start]])
            real, made = (model(piece, torch.full((len(part),), told), place).sum(1) for told in (0, 1))
            result += real - made
        return result

    def scores(part: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([score(piece) for piece in _bytes(part, x.shape[1] - 1).split(200)]).numpy()

    return scores


def _bytes(passages: np.ndarray, length: int) -> torch.Tensor:
    """The first `length` bytes of passages, `LETTERS` at most, with `EDGE` before them and after their end: (N,1+L) int64."""
    import torch

    rows = np.full((len(passages), 1 + max(1, min(length, LETTERS))), EDGE)
    for row, text in zip(rows, passages):
        letters = np.frombuffer(text.encode("utf-8", "replace")[: len(row) - 1], np.uint8)
        row[1 : 1 + len(letters)] = letters
    return torch.from_numpy(rows)


def _writer(places: int) -> torch.nn.Module:
    """Windows (N,1+W) of bytes, whether each is fake (N,) and where it begins (N,1) -> -ln p of its bytes but the first, (N,W)."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letter, self.kind = nn.Embedding(EDGE + 1, WIDTH), nn.Embedding(2, WIDTH)
            self.place = nn.Embedding(places, WIDTH)
            nn.init.normal_(self.place.weight, std=0.02)
            self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
            self.next = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, EDGE + 1))

        def forward(self, x: torch.Tensor, kind: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
            n = x.shape[1] - 1
            h = self.letter(x[:, :-1]) + self.place(start + torch.arange(n)) + self.kind(kind)[:, None]
            h = self.layer(h, nn.Transformer.generate_square_subsequent_mask(n), is_causal=True)
            scores = self.next(h).flatten(0, 1)
            return F.cross_entropy(scores, x[:, 1:].flatten(), reduction="none").view(len(x), n)

    return Writer()


CLASSIFIERS: dict[str, Classifier] = {"hashed n-grams": hashed_ngrams, "Transformer": transformer}


# ---- figures beside those of real text -----------------------------------------------------------------------------


def written(made: Sequence[str], real: Sequence[str], other: Sequence[str], train: str, seed: int = 0) -> list[Score]:
    """What the samples `made` are like beside `real` held-out passages, as `other` held-out passages are beside the same.

    Passages are of one length, cut alike (`cut`); of each kind as many characters are compared. `train` is the training text.
    """
    size = min(sum(map(len, kind)) for kind in (made, real, other))
    if not size:
        said = "the samples are empty, so there is nothing to measure: train longer, or ask for more tokens"
        return [Score("distinct_2", 0.0, None, "higher", "share of word pairs", {}, said, "varied", "bad")]
    made, real, other = (_first(kind, size) for kind in (made, real, other))
    return [
        _ngram_divergence(made, real, other, seed),
        _length_divergence(made, real, other, seed),
        *_distinct(made, real),
        *_validity(made, real, train, seed),
        *_perplexity(made, real, train, seed),
    ]


def _first(texts: Sequence[str], size: int) -> list[str]:
    """The first texts that make up `size` characters, the last cut short."""
    result: list[str] = []
    for text in texts:
        result.append(text[:size])
        size -= len(result[-1])
    return [text for text in result if text]


def divergence(a: Any, b: Any) -> float:
    """Jensen-Shannon divergence, in bits, of what the rows of two tables count, (N,K) and (M,K): 0 when alike, 1 when nothing is shared."""
    p, q = (np.asarray(x.sum(0), np.float64).ravel() for x in (a, b))
    p, q = p / max(p.sum(), 1), q / max(q.sum(), 1)
    middle = (p + q) / 2

    def entropy(x: np.ndarray) -> float:
        return -float((x[x > 0] * np.log2(x[x > 0])).sum())

    return max(0.0, entropy(middle) - (entropy(p) + entropy(q)) / 2)


def _around(a: Any, b: Any, seed: int) -> tuple[float, float]:
    """95 % interval of a divergence, over resampled passages of both."""

    def resampled(rows: np.ndarray, others: np.ndarray) -> float:
        return divergence(a[rows], b[others])

    return distances.around(resampled, np.arange(a.shape[0]), np.arange(b.shape[0]), seed)


def grams(kinds: Sequence[Sequence[str]], n: int = GRAM) -> list[Any]:
    """How often each sequence of `n` <= 3 characters occurs in each passage of each kind: sparse (N,K), K shared by the kinds."""
    from scipy.sparse import csr_matrix

    texts = [text for kind in kinds for text in kind]
    points = [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) for text in texts]
    codes = [np.zeros(max(0, len(x) - n + 1), np.int64) for x in points]
    for code, x in zip(codes, points):
        for i in range(n):
            code |= x[i : i + len(code)] << 21 * i
    known, column = np.unique(np.concatenate(codes), return_inverse=True)
    row = np.repeat(np.arange(len(texts)), [len(code) for code in codes])
    whole = csr_matrix((np.ones(len(row)), (row, column)), (len(texts), len(known)))
    ends = np.cumsum([len(kind) for kind in kinds])
    return [whole[end - len(kind) : end] for kind, end in zip(kinds, ends)]


def _ngram_divergence(made: list[str], real: list[str], other: list[str], seed: int) -> Score:
    a, b, c = grams([real, other, made])
    value, usual = divergence(a, c), divergence(a, b)
    said = f"spelling is {value / max(usual, 1e-9):.1f} times as far from real text as other real text is"
    return Score("ngram_divergence", value, _around(a, c, seed), "lower",
                 f"bits, Jensen-Shannon, {GRAM} characters", {"real against real": usual}, said)  # fmt: skip


def _length_divergence(made: list[str], real: list[str], other: list[str], seed: int) -> Score:
    """Of the lengths of lines: text written by counting characters alone has words of the right lengths, while its lines are fifty times
    as far off as real ones. Of words where a passage seldom holds a whole line."""
    lines = sum(text.count("\n") - 1 for text in real) >= len(real)
    of, what = (_lines, "lines") if lines else (words, "words")
    a, b, c = (lengths([list(map(len, of(text))) for text in kind], 4 if lines else 1) for kind in (real, other, made))
    value, usual = divergence(a, c), divergence(a, b)
    said = (
        f"lengths of {what} are {value / max(usual, 1e-9):.1f} times as far from real text's as other real text's are"
    )
    return Score("length_divergence", value, _around(a, c, seed), "lower",
                 f"bits, Jensen-Shannon, lengths of {what}", {"real against real": usual}, said)  # fmt: skip


def _lines(text: str) -> list[str]:
    return text.split("\n")[1:-1]  # the first and the last may be cut


def lengths(passages: Sequence[Sequence[int]], step: int, bins: int = 64) -> np.ndarray:
    """How many of each passage's lengths fall into each `step` of lengths, (N,bins); the last takes all longer ones."""
    return np.array([np.bincount(np.minimum(np.array(p, int) // step, bins - 1), minlength=bins) for p in passages])


def words(text: str) -> list[str]:
    """The words of a passage, in small letters. Those at its edges, which may be cut, are left out."""
    return [m[0] for m in WORD.finditer(text.lower()) if m.start() > 0 and m.end() < len(text)]


def distinct(passages: Sequence[Sequence[str]]) -> tuple[float, tuple[float, float]]:
    """The share of the pairs of neighbouring words (of passages given as words) that differ from all others, and its 95 % interval.

    The interval is a jackknife's over passages (Tukey 1958): a resampled passage repeats its pairs, so a bootstrap's would lie too low.
    """
    pairs = [list(zip(part, part[1:])) for part in passages]
    found: dict[tuple[str, str], set[int]] = {}
    for number, part in enumerate(pairs):
        for pair in part:
            found.setdefault(pair, set()).add(number)
    own, sizes = np.zeros(len(pairs)), np.array([len(part) for part in pairs])
    for owners in found.values():
        if len(owners) == 1:
            own[next(iter(owners))] += 1
    total = int(sizes.sum())
    value, n = len(found) / total, len(pairs)
    without = (len(found) - own) / np.maximum(total - sizes, 1)
    half = distances.Z * (float(np.square(without - without.mean()).sum()) * (n - 1) / n) ** 0.5
    return value, (max(0.0, value - half), min(1.0, value + half))


def _distinct(made: list[str], real: list[str]) -> list[Score]:
    kinds = [[words(text) for text in kind] for kind in (made, real)]
    count = min(sum(max(0, len(part) - 1) for part in kind) for kind in kinds)
    if not count:
        return []
    (value, ci), (usual, _) = (distinct(_pairs(kind, count)) for kind in kinds)
    answer: Answer = "good" if ci[1] >= 0.9 * usual else "unsure" if value >= 0.6 * usual else "bad"
    said = f"{value:.0%} of the samples' word pairs are different ones, {usual:.0%} of real text's"
    if answer != "good":
        said += ": they repeat themselves; sample at a higher temperature, or train longer"
    elif value > usual + (ci[1] - ci[0]):
        said += ": more than in real text, as in words thrown together"
    unit = f"share of {count:,} word pairs"
    return [Score("distinct_2", value, ci, "higher", unit, {"real text": usual}, said, "varied", answer)]


def _pairs(passages: Sequence[list[str]], count: int) -> list[list[str]]:
    """The first of the passages that hold `count` pairs of words, the last cut short."""
    result = []
    for part in passages:
        result.append(part[: count + 1])
        count -= max(0, len(result[-1]) - 1)
        if count <= 0:
            break
    return result


def share(counts: np.ndarray, seed: int) -> tuple[float, tuple[float, float] | None]:
    """Hits among all, of passages' (hits, all) (N,2), and a 95 % interval from resampled passages; None for a single one."""
    if len(counts) < 2:
        return float(counts[:, 0].sum() / max(counts[:, 1].sum(), 1e-300)), None
    random = np.random.default_rng(key(seed, "passages", "bootstrap"))
    drawn = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES) @ counts
    low, high = np.quantile(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-300), [0.025, 0.975])
    return float(counts[:, 0].sum() / max(counts[:, 1].sum(), 1e-300)), (float(low), float(high))


def _validity(made: list[str], real: list[str], train: str, seed: int) -> list[Score]:
    known = {match[0] for match in WORD.finditer(train[-READ:].lower())}
    counts = []
    for kind in (made, real):
        parts = [words(text) for text in kind]
        counts.append(np.array([(sum(word in known for word in part), len(part)) for part in parts]))
    if not (counts[0][:, 1].any() and counts[1][:, 1].any()):
        return []
    (value, ci), (usual, _) = (share(kind, seed) for kind in counts)
    answer: Answer = "good" if value >= usual - 0.03 else "unsure" if value >= usual - 0.1 else "bad"
    said = f"{value:.1%} of the samples' words are words of the training text; of held-out text {usual:.1%}"
    if answer != "good":
        said += ": the others are made up; train longer, a larger size, or sample at a lower temperature"
    return [Score("word_validity", value, ci, "higher", "share of words known from the training text",
                  {"held-out text": usual}, said, "faithful", answer)]  # fmt: skip


def _perplexity(made: list[str], real: list[str], train: str, seed: int) -> list[Score]:
    """How surprising an n-gram model of the training text, which is neither `made` nor `real`, finds both, a character."""
    text = train[-COUNTED:]
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    known, tokens = np.unique(points, return_inverse=True)
    if not len(known):
        return []
    model = NGram.fit(tokens, len(known) + 1, ORDER)
    counts = [surprise(model, known, kind) for kind in (made, real)]
    if not (counts[0][:, 1].any() and counts[1][:, 1].any()):
        return []
    (nats, ends), (real_nats, _) = (share(kind, seed) for kind in counts)
    value, usual = float(np.exp(nats)), float(np.exp(real_nats))
    ci = (float(np.exp(ends[0])), float(np.exp(ends[1]))) if ends else None
    said = f"a {model.order}-gram model hesitates between {value:.1f} characters in samples, {usual:.1f} in real text"
    ratio, answer = value / usual, "good"
    question = "varied" if ratio < 1 else "faithful"
    if ratio < 0.85:
        answer = "unsure" if ratio >= 0.6 else "bad"
        said += ": the samples are duller than real text, or copied; sample at a higher temperature, and look at what is copied"
    elif ratio > 1.3:
        answer = "unsure" if ratio <= 1.8 else "bad"
        said += ": the samples are garbled; train longer, a larger size, or sample at a lower temperature"
    unit = "equally likely characters"
    return [Score("sample_perplexity", value, ci, "nearer", unit, {"real text": usual}, said, question, answer)]


def surprise(model: NGram, known: np.ndarray, passages: Sequence[str]) -> np.ndarray:
    """The nats of each passage's characters, and how many were counted, (N,2). Characters are numbered by `known` (V,), their sorted code
    points; others are all V. A passage's first characters only are context, so that it does not matter what stands before it."""
    texts = [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) for text in passages]
    points = np.concatenate(texts)
    place = np.minimum(np.searchsorted(known, points), len(known) - 1)
    nats = model.nats(np.where(known[place] == points, place, len(known)))
    sizes = np.array([len(text) for text in texts])
    first = np.arange(len(points)) - np.repeat(sizes.cumsum() - sizes, sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    counted = first >= model.order - 1
    return np.stack([np.bincount(owner, weights, len(sizes)) for weights in (nats * counted, counted * 1.0)], 1)
