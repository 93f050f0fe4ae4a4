"""Removing Gaussian noise of known strength from Fashion-MNIST: the autoencoder beside scikit-image's classical filters.

    pip install scikit-image && python benchmarks/denoising.py [--budget 240s] [--sigma 50]

Noise of standard deviation sigma (of 255) is added, then rounded and clipped to 8 bits. Each filter's strength is tuned on
training images under the same noise; all are scored on the same noisy test images (1,000 by default). PSNR in dB from the mean
squared error over all of them; higher is better.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.filters import median
from skimage.morphology import disk
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

import latente

FILTERS: dict[str, tuple[Callable, list]] = {
    "median": (
        lambda x, shape, s: median(
            x, np.ones((2, 2)) if shape == 0 else np.ones((3, 3)) if shape == 1.5 else disk(shape)
        ),
        [0, 1, 1.5, 2],
    ),
    "total variation": (
        lambda x, weight, s: denoise_tv_chambolle(x, weight=weight),
        [0.06, 0.09, 0.12, 0.15, 0.2, 0.25, 0.3],
    ),
    "non-local means": (
        lambda x, given, s: denoise_nl_means(
            x, patch_size=given[0], patch_distance=given[1], h=given[2] * s, sigma=s, fast_mode=False
        ),
        [(p, d, h) for p in (3, 5) for d in (5, 9) for h in (0.4, 0.6, 0.8, 1.0)],
    ),
    "wavelet": (
        lambda x, given, s: denoise_wavelet(x, sigma=given[1] * s, wavelet=given[0], method=given[2], mode="soft"),
        [
            (w, k, m)
            for w in ("haar", "db2", "sym4")
            for k, m in ((1.0, "BayesShrink"), (0.3, "VisuShrink"), (0.5, "VisuShrink"))
        ],
    ),
}


def psnr(x: np.ndarray, clean: np.ndarray) -> float:
    return -10 * np.log10(((x.astype(np.float64) - clean) ** 2).mean() / 255**2)


def eight_bit(x: np.ndarray) -> np.ndarray:
    return (255 * x).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="240s")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--sigma", type=float, default=50.0)
    parser.add_argument("--images", type=int, default=1000)
    given, flags = parser.parse_known_args()
    sigma = given.sigma / 255
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        limits = ["--budget", given.budget, "--threads", given.threads, "--noise", f"gaussian:{sigma:.6f}"]
        subprocess.run(
            [sys.executable, "-m", "latente", "train", "autoencoder", "fashion-mnist", "--out", out, *limits, *flags],
            check=True,
        )
        run = latente.load(out)
        data = run.reopened()
        random = np.random.default_rng(0)

        def noisy(clean: np.ndarray) -> np.ndarray:
            return eight_bit(clean / 255 + sigma * random.standard_normal(clean.shape))

        tuning, test = (data.images[data.splits[split][: given.images]] for split in ("train", "test"))
        tuning = tuning[:100]
        noisy_tuning, noisy_test = noisy(tuning), noisy(test)
        print(f"\n{'noisy':<18}{psnr(noisy_test, test):6.2f} dB")
        best = 0.0
        for name, (clean, settings) in FILTERS.items():

            def cleaned(images: np.ndarray, setting: object, clean: Callable = clean) -> np.ndarray:
                return np.stack([eight_bit(clean(x[0] / 255, setting, sigma)) for x in images])[:, None]

            chosen = max(settings, key=lambda setting: psnr(cleaned(noisy_tuning, setting), tuning))
            score = psnr(cleaned(noisy_test, chosen), test)
            best = max(best, score)
            print(f"{name:<18}{score:6.2f} dB   {chosen}")
        ours = psnr(run.denoise(noisy_test), test)
        print(
            f"{'autoencoder':<18}{ours:6.2f} dB   {ours - best:+.2f} dB above the best filter; its budget {given.budget}"
        )


if __name__ == "__main__":
    main()
