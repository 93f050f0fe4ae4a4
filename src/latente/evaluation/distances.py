"""How far samples are from real items in a space of features: as a whole, in what they reach, and in what they miss.

    features of real items (M,D), of samples (N,D)  ->  Frechet and kernel distance, precision, recall

M real items, N samples, D features. What the figures mean shows beside the same figure of real against real at the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from latente.rng import key

Z = 1.959964  # of a 95 % interval
RESAMPLES = 100
NEIGHBOURS = 3
_ROWS = 2_000


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance between normal distributions of the same means and covariances (Heusel et al. 2017, arXiv:1706.08500)."""
    mean, covariance = _moments(real)
    other, spread = _moments(fake)
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are those of a symmetric matrix.
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ spread @ root).clip(0)).sum()
    return float(max(0.0, np.square(mean - other).sum() + np.trace(covariance) + np.trace(spread) - 2 * shared))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def kernel(real: np.ndarray, fake: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Unbiased squared maximum mean discrepancy under the kernel (a.b/D + 1)^3, and its 95 % interval (Binkowski et al. 2018,
    arXiv:1801.01401); around 0 when alike. Of as many real items as samples, the first ones."""
    n, d = min(len(real), len(fake)), real.shape[1]
    real, fake = real[:n], fake[:n]
    means = np.zeros(n)  # of h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) over j != i
    for start in range(0, n, _ROWS):
        rows = slice(start, min(n, start + _ROWS))
        h = (real[rows] @ real.T / d + 1) ** 3 + (fake[rows] @ fake.T / d + 1) ** 3
        h -= (real[rows] @ fake.T / d + 1) ** 3 + (fake[rows] @ real.T / d + 1) ** 3
        h[np.arange(len(h)), np.arange(start, rows.stop)] = 0
        means[rows] = h.sum(1) / (n - 1)
    half = Z * 2 * means.std(ddof=1) / n**0.5
    return float(means.mean()), (float(means.mean() - half), float(means.mean() + half))


def around(
    distance: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, fake: np.ndarray, seed: int
) -> tuple[float, float]:
    """95 % interval of a distance that is at least 0: its standard deviation over resampled items, both ways.

    Percentiles would not do: resampled items are fewer different ones, and every distance between such is larger.
    """
    random = np.random.default_rng(key(seed, "distances", "bootstrap"))
    value = distance(real, fake)
    drawn = [distance(*(x[random.integers(0, len(x), len(x))] for x in (real, fake))) for _ in range(RESAMPLES)]
    half = Z * float(np.std(drawn, ddof=1))
    return max(0.0, value - half), value + half


def coverage(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991): the share of samples that lie nearer to some real item
    than its third-nearest real neighbour does, and the same the other way round."""
    reach, spread = (_radii(x) for x in (real, fake))
    within, reached = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows, squares in _squares(real, fake):
        within |= (squares <= reach[rows, None]).any(0)
        reached[rows] = (squares <= spread[None]).any(1)
    return float(within.mean()), float(reached.mean())


def _radii(x: np.ndarray) -> np.ndarray:
    """Squared distance of each item to its third-nearest other, (N,)."""
    kth = min(NEIGHBOURS, len(x) - 1)
    return np.concatenate([np.partition(squares, kth, axis=1)[:, kth] for _, squares in _squares(x, x)])


def _squares(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances between rows of `a` and all of `b`, float32, some rows at a time."""
    a, b = (x.astype(np.float32) for x in (a, b))
    norms = np.square(b).sum(1)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, min(len(a), start + _ROWS))
        squares = a[rows] @ b.T
        squares *= -2
        squares += norms
        squares += np.square(a[rows]).sum(1)[:, None]
        yield rows, squares


def share_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n items (Wilson 1927)."""
    middle, half = share + Z**2 / (2 * n), Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
    return (low if share > 0 else 0.0, high if share < 1 else 1.0)  # but for rounding the same


def powers(images: np.ndarray) -> np.ndarray:
    """Power of each picture at each frequency, from one period a picture to one every two pixels: uint8 (N,C,H,W) -> (N,R)."""
    height, width = images.shape[2:]
    rows, columns = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width
    side = min(height, width)
    ring = np.hypot(rows * side / height, columns * side / width).round().astype(int).ravel()
    rings = (ring[:, None] == np.arange(1, side // 2 + 1)).astype(np.float32)
    parts = []
    for start in range(0, len(images), _ROWS):
        grey = images[start : start + _ROWS].astype(np.float32).mean(1)
        parts.append((np.abs(np.fft.rfft2(grey)) ** 2).reshape(len(grey), -1).astype(np.float32) @ rings)
    return np.concatenate(parts) / rings.sum(0) / (height * width)


def spectrum(power: np.ndarray) -> np.ndarray:
    """Mean of powers (N,R), in dB, (R,). Blur lacks power at the high end, checkerboards and noise have too much (Durall et al. 2020,
    arXiv:2003.01826)."""
    return 10 * np.log10(power.mean(0, dtype=np.float64) + 1e-3)


def spectrum_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Mean difference of the spectra of two sets of powers (N,R), in dB."""
    return float(np.abs(spectrum(real) - spectrum(fake)).mean())
