"""Were training items, images or rows, copied? Three one-sided tests, each beside what real items that were never trained on do.

    nearer to training   is a sample's nearest neighbour a training or a held-out item, of as many of both? Chance: one half
    near copies          samples much nearer to a training item than to any held-out one, oftener than training items are to
                         the other training items: such stand in for samples that copy nothing
    exact copies         samples equal to a training item, oftener than real items are equal to one another

Distances are root mean squares of the numbers an item is compared by. Of images these are pixels (0 to 255) of pictures averaged down
to at most 1,024 numbers, so that a copy is found under noise and compression too. N samples, P numbers an item is compared by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from latente.evaluation.distances import Z, share_interval
from latente.evaluation.findings import Gallery
from latente.evaluation.scores import Answer, Score
from latente.rng import key

ALPHA = 0.01 / 4  # three tests, one at two limits, share one chance in a hundred of a false alarm
LIMITS = (0.0, 0.01)  # the share of real images that is let lie as near as a near copy: but one, or one in a hundred
NUMBERS = 1024
PERMUTATIONS = 1_999
NOTICED = 0.05  # a share of copies this large must show, or there was too little data to say that none are
USUAL = 4_000  # training images, at most, that show how near real ones lie to each other
SHOWN = 12
EXACTLY = {"images": "pixel for pixel", "rows": "cell for cell"}
_ROWS, _POOL = 1_000, 10_000


class Pool(Protocol):
    """Items to be near to."""

    def __len__(self) -> int: ...

    def points(self, part: slice) -> np.ndarray:
        """What they are compared by, float32 (n,P)."""
        ...

    def some(self, at: np.ndarray) -> Pool:
        """Those numbered `at` (n,)."""
        ...


@dataclass(frozen=True)
class Images:
    """Some of an array of images, uint8 (N,C,H,W), which may lie on disk: those numbered `at` (n,)."""

    array: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.array[self.at[part]])

    def points(self, part: slice) -> np.ndarray:
        return compared(self[part])

    def some(self, at: np.ndarray) -> Images:
        return Images(self.array, self.at[at])


def compared(images: np.ndarray, most: int = NUMBERS) -> np.ndarray:
    """What pictures are compared by: uint8 (N,C,H,W) -> float32 (N,P), averaged over as small blocks as P <= `most` allows."""
    import torch
    import torch.nn.functional as F

    channels, height, width = images.shape[1:]
    block = next(b for b in range(1, height + width) if channels * -(-height // b) * -(-width // b) <= most)
    x = torch.from_numpy(np.ascontiguousarray(images)).float()
    if block > 1:
        x = F.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    return x.flatten(1).numpy()


def nearest(queries: np.ndarray, pool: Pool, apart: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Root-mean-square distance (N,) of each of `queries` (N,P) to its nearest in the pool, and which that is (N,).

    `apart` (N,) names the one of the pool that each query is itself and is not to be compared with.
    """
    best, which = np.full(len(queries), np.inf, np.float32), np.zeros(len(queries), np.int64)
    for start in range(0, len(pool), _POOL):
        there = pool.points(slice(start, start + _POOL))
        norms = np.square(there).sum(1)
        for first in range(0, len(queries), _ROWS):
            rows = slice(first, first + _ROWS)
            squares = norms - 2 * (queries[rows] @ there.T)
            if apart is not None:
                (mine,) = np.nonzero((apart[rows] >= start) & (apart[rows] < start + len(there)))
                squares[mine, apart[rows][mine] - start] = np.inf
            at = squares.argmin(1)
            found = np.square(queries[rows] - there[at]).sum(1)  # exact: what was subtracted above rounds
            found[np.isinf(squares[np.arange(len(at)), at])] = np.inf
            better = found < best[rows]
            best[rows] = np.where(better, found, best[rows])
            which[rows] = np.where(better, start + at, which[rows])
    return np.sqrt(best / queries.shape[1]), which


@dataclass(frozen=True)
class Neighbours:
    """Of each sample (N,): how far the nearest training item and held-out item are, and which they are."""

    to_train: np.ndarray
    which: np.ndarray
    to_test: np.ndarray
    held: np.ndarray
    exact: np.ndarray
    """whether it equals a training item"""

    @property
    def suspicious(self) -> np.ndarray:
        """The samples most like a copy, (SHOWN,) at most."""
        return np.lexsort((_ratio(self.to_train, self.to_test), ~self.exact))[:SHOWN]


def tested(
    made: np.ndarray, train: Pool, test: Pool, exact: np.ndarray, among_real: int, seed: int, what: str,
    once: tuple[Pool, Pool] | None = None,
) -> tuple[list[Score], Neighbours]:  # fmt: skip
    """The three tests of samples, compared by `made` (N,P); `exact` (N,) are those that equal a training item, `among_real` how many
    training items equal another one, and `what` they all are ("images"). `once` are both pools without repeats, where items repeat."""
    random = np.random.default_rng(key(seed, "copying"))
    found = Neighbours(*nearest(made, train), *nearest(made, test), exact)
    some = np.sort(random.permutation(len(train))[:USUAL])
    real = train.some(some).points(slice(None))
    usual = _ratio(nearest(real, train, some)[0], nearest(real, test)[0])
    near = _near(_ratio(found.to_train, found.to_test), usual, what)
    return [
        _nearer(made, *(once or (train, test)), random, what),
        near,
        _equal(exact, among_real, len(train), what),
    ], found


def copied(samples: np.ndarray, train: Images, test: Images, seed: int = 0) -> tuple[list[Score], Gallery]:
    """The three tests of samples, uint8 (N,C,H,W), and the most suspicious ones beside what they are nearest to: every training
    image, and held-out ones."""
    scores, found = tested(compared(samples), train, test, *_exact(samples, train), seed, "images")
    order = found.suspicious
    captions = ["equal" if found.exact[i] else f"{found.to_train[i]:.0f} / {found.to_test[i]:.0f}" for i in order]
    rows = [
        ("sample", samples[order]),
        ("nearest training image", train[found.which[order]]),
        ("nearest held-out image", test[found.held[order]]),
    ]
    note = (
        "The samples that lie much nearer to a training image than to any held out. Under each: its distance from the one / from the "
        "other, 0 to 255 (root mean square)."
    )
    return scores, Gallery("Most like a copy", note, rows, paired=True, captions=captions)


def _ratio(to_train: np.ndarray, to_test: np.ndarray) -> np.ndarray:
    return to_train / np.maximum(to_test, 1e-6)


def _nearer(made: np.ndarray, train: Pool, test: Pool, random: np.random.Generator, what: str) -> Score:
    """Were both drawn alike, swapping training for held-out items would change nothing: the p-value swaps them at random."""
    count = min(len(train), len(test))
    some = [p.some(np.sort(random.permutation(len(p))[:count])) for p in (train, test)]
    (near, one), (far, other) = (nearest(made, part) for part in some)
    won = (near < far) + 0.5 * (near == far)  # a tie is half a win
    weights = np.bincount(one, won, count), np.bincount(other, 1 - won, count)
    value = float(weights[0].sum() / len(made))
    both, swapped = np.concatenate(weights), []
    for start in range(0, PERMUTATIONS, 500):
        rows = min(500, PERMUTATIONS - start)
        swapped.append(random.permuted(np.broadcast_to(both, (rows, len(both))), axis=1)[:, :count].sum(1) / len(made))
    chance = np.concatenate(swapped)
    p = float(1 + (chance >= value - 1e-9).sum()) / (PERMUTATIONS + 1)
    half = Z * float(
        chance.std()
    )  # some items are the nearest of many samples: wider than for a share of so many coins
    words = (
        f"samples lie nearer to training {what} than to held-out ones ({value:.0%}, p = {p:.2g})"
        if p <= ALPHA
        else f"samples lie no nearer to training {what} than to held-out ones (p = {p:.2g})"
    )
    return Score(
        "nearer_to_training", value, (value - half, value + half), "lower", "share of samples; 0.5 = copies nothing",
        {"chance": 0.5}, words + _advice(p), "copied", "bad" if p <= ALPHA else "good",
    )  # fmt: skip


def _near(ratios: np.ndarray, usual: np.ndarray, what: str) -> Score:
    """How many samples lie within a limit that hardly any real item does, for the limit that tells more."""
    n, m = len(ratios), len(usual)
    tried = []
    for share in LIMITS:
        limit = np.sort(usual)[max(1, round(share * m)) - 1]
        found, expected = int((ratios <= limit).sum()), int((usual <= limit).sum())
        significant = more_than(np.arange(1, n + 1), n, expected, m) <= ALPHA
        noticed = float(significant.argmax() + 1) / n if significant.any() else 1.0
        tried.append((float(more_than(found, n, expected, m)), noticed, found, expected))
    p, _, found, expected = min(tried)
    noticed = min(row[1] for row in tried)
    answer: Answer = "bad" if p <= ALPHA else "good" if noticed <= NOTICED else "unsure"
    words = {
        "bad": f"{found:,} of {n:,} samples lie as near to training {what} as only {expected:,} of {m:,} real ones (p = {p:.2g})",
        "good": f"no more near copies than among real {what}; {noticed:.1%} of samples would have shown",
        "unsure": f"too little data to notice fewer near copies than {noticed:.0%} of samples",
    }[answer]
    return Score(
        "near_copies", found / n, share_interval(found / n, n), "lower", "share of samples", {f"real {what}": expected / m},
        words + _advice(p), "copied", answer,
    )  # fmt: skip


def _exact(samples: np.ndarray, train: Images) -> tuple[np.ndarray, int]:
    """Which samples equal a training image (N,), and how many training images equal another one."""
    seen: dict[bytes, int] = {}
    for start in range(0, len(train), _POOL):
        for image in train[start : start + _POOL]:
            mark = _mark(image)
            seen[mark] = seen.get(mark, 0) + 1
    exact = np.array([_mark(image) in seen for image in samples])
    return exact, sum(count for count in seen.values() if count > 1)


def _mark(image: np.ndarray) -> bytes:
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=12).digest()


def _equal(exact: np.ndarray, among_real: int, count: int, what: str) -> Score:
    found, n = int(exact.sum()), len(exact)
    p = more_than(found, n, among_real, count)
    bad = found > 0 and p <= ALPHA
    words = f"{found:,} of {n:,} samples are {EXACTLY[what]} training {what}" + (
        f" (p = {p:.2g})" + _advice(p) if bad else ""
    )
    return Score(
        "exact_copies", found / n, share_interval(found / n, n), "lower", "share of samples",
        {f"real {what} that occur twice": among_real / count}, words, "copied", "bad" if bad else "good",
    )  # fmt: skip


def _advice(p: float) -> str:
    return ": do not share these samples; train on more data, or for a shorter time" if p <= ALPHA else ""


def more_than(found: Any, n: int, others: int, m: int) -> Any:
    """P-value of `found` among n where `others` among m are the usual: Fisher's exact test, one-sided."""
    from scipy.stats import hypergeom

    return hypergeom.sf(found - 1, n + m, found + others, n)
