"""Fashion-MNIST in fewer bytes: latente's files beside the standard codecs, on contact sheets of the same images.

    latente train pixelcnn fashion-mnist --budget 32m --precision bfloat16 --threads 1 --out PIXELS
    latente train compressor fashion-mnist --size small --levels 3 --least-price 0.0014 --most-price 0.00206 --steps 8000 \
        --learning-rate 2e-3 --muon-learning-rate 5e-3 --decay 0.5 --precision bfloat16 --threads 1 --out LOW
    TRAIN="latente train compressor fashion-mnist --size small --width 72 --levels 3 --least-price 0.0046 --most-price 0.0066"
    $TRAIN --shared-by 0 --steps 20000 --precision bfloat16 --threads 1 --out A
    $TRAIN --shared-by 0 --steps 14000 --init A --threads 1 --out B    # stopped after 4,587 steps
    $TRAIN --steps 10500 --init B --learning-rate 3e-3 --muon-learning-rate 7.5e-3 --threads 1 --out C
    REFINE="--refine 30 --learning-rate 7e-4 --muon-learning-rate 1.5e-3 --decay 1"
    $TRAIN --steps 400 --init C $REFINE --threads 1 --out D
    $TRAIN --steps 1800 --init D $REFINE --precision bfloat16 --threads 1 --out HIGH
    python benchmarks/compress_images.py --lossless PIXELS
    python benchmarks/compress_images.py --lossy LOW --psnr 27.5 --refine 200
    python benchmarks/compress_images.py --lossy HIGH --psnr 31.4 --refine 400

Lossless: all 70,000 images, `latente compress` with the weights in the file, beside JPEG XL (cjxl -d 0 -e 9), WebP, xz and
bz2; then the 10,000 test images alone, with the time to code and to decode them. Lossy: the test images at so many dB over all
their pixels, in bytes an image, the weights shared by all 70,000, beside WebP, AVIF, JPEG XL and JPEG on one sheet of the same
images at that quality (interpolated between two settings).
Needs `cjxl` and `djxl` (Debian: libjxl-tools).
"""

import argparse
import bz2
import io
import lzma
import math
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import latente
from latente import compression
from latente.compression.quality import Wish
from latente.data.sources import open_source

SETTINGS = {
    "WebP": ("WEBP", (2, 4, 8, 12, 16, 20, 25, 30, 40), {"method": 6}),
    "JPEG": ("JPEG", (30, 40, 45, 50, 60, 70, 80), {"optimize": True}),
    "AVIF": ("AVIF", (30, 34, 38, 42, 46, 50), {"speed": 2}),
}


def sheet(images: np.ndarray) -> np.ndarray:
    """(N,28,28) as one picture, 100 to a row."""
    rows = len(images) // 100
    return images.reshape(rows, 100, 28, 28).transpose(0, 2, 1, 3).reshape(28 * rows, 2800)


def jxl(picture: Image.Image, *flags: str) -> tuple[int, np.ndarray]:
    """Bytes, and what comes out."""
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, out = (Path(folder) / name for name in ("a.png", "a.jxl", "b.png"))
        picture.save(raw)
        subprocess.run(["cjxl", "--quiet", *flags, raw, coded], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["djxl", "--quiet", coded, out], check=True, stderr=subprocess.DEVNULL)
        return coded.stat().st_size, np.asarray(Image.open(out).convert("L"))


def saved(picture: Image.Image, kind: str, **flags) -> tuple[int, np.ndarray]:
    file = io.BytesIO()
    picture.copy().save(file, kind, **flags)  # a picture remembers how it is being saved, for all threads
    return len(file.getvalue()), np.asarray(Image.open(file).convert("L"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(a.astype(float) - b).mean())


def lossless(run, data, folder: Path, verify: bool) -> None:
    every = data.images[data.items][:, 0]
    pixels = every.size
    print(f"{len(every):,} images without loss, bytes (bits a pixel):")

    def row(name: str, size: int) -> None:
        print(f"  {name:<24}{size:>12,}{8 * size / pixels:>8.3f}", flush=True)

    began = time.monotonic()
    found = latente.compress(run, data, folder / "all.latente", verify=verify)
    row("latente, weights in it", found.size)
    more = found.modelled / found.expected - 1
    print(f"  {found.model:,} of that are weights, {found.coded:,} images, {more:.3%} above the likelihood")
    print(f"  {time.monotonic() - began:.0f} s{', decoded and compared included' if verify else ''}")
    sheets = [sheet(part) for part in np.split(every, range(10_000, len(every), 10_000))]
    row("JPEG XL, -d 0 -e 9", sum(jxl(Image.fromarray(s), "-d", "0", "-e", "9")[0] for s in sheets))
    row(
        "WebP, lossless",
        sum(saved(Image.fromarray(s), "WEBP", lossless=True, quality=100, method=6)[0] for s in sheets),
    )
    row("xz -9e", len(lzma.compress(every.tobytes(), preset=9 | lzma.PRESET_EXTREME)))
    row("bz2 -9", len(bz2.compress(every.tobytes(), 9)))
    test = data.images[data.splits["test"]], data.labels[data.splits["test"]]
    began = time.monotonic()
    found = latente.compress(run, test, folder / "test.latente", verify=False)
    coded = time.monotonic()
    latente.decompress(found.path, folder / "test.npy")
    decoded = time.monotonic()
    assert (np.load(folder / "test.npy") == test[0][:, 0]).all()
    print(f"the {len(test[0]):,} test images, {8 * found.size / test[0].size:.3f} bits a pixel, weights in them; "
          f"coded in {coded - began:.0f} s, decoded in {decoded - coded:.0f} s")  # fmt: skip


def lossy(run, data, folder: Path, wishes: list[float], refine: int) -> None:
    test, labels = data.images[data.splits["test"]], data.labels[data.splits["test"]]
    real = sheet(test[:, 0])
    picture = Image.fromarray(real)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        curves = {
            name: [pool.submit(saved, picture, kind, quality=quality, **flags) for quality in qualities]
            for name, (kind, qualities, flags) in SETTINGS.items()
        }
        curves["JPEG XL"] = [
            pool.submit(jxl, picture, "-e", "9", "-q", str(quality)) for quality in (40, 45, 50, 60, 70)
        ]
        points = {
            name: sorted((psnr(out, real), size / len(test)) for size, out in (each.result() for each in curve))
            for name, curve in curves.items()
        }
    every = data.images[data.items], data.labels[data.items]
    compression.images.TRIED = (compression.images.ImageJob(run, every, False, Wish(), lambda _: None).header["bits"],)
    print(
        f"weights of {compression.images.TRIED[0]} bits, as a file of all {len(data.items):,} images has them",
        flush=True,
    )
    for wanted in wishes:
        print(f"{wanted} dB over the test images, bytes an image:")
        for name, curve in points.items():
            print(f"  {name:<24}{np.interp(wanted, *zip(*curve)):>8.1f}")
        began = time.monotonic()
        try:
            found = latente.compress(run, (test, labels), folder / f"{wanted}.latente", psnr=wanted, refine=refine)
        except ValueError as error:
            print(f"  latente: {error}")
            continue
        weights = found.model / len(data.items)
        size = (found.size - found.model) / len(test) + weights
        best = min(np.interp(wanted, *zip(*curve)) for curve in points.values())
        print(f"  {'latente':<24}{size:>8.1f}  at {found.psnr:.2f} dB, {weights:.1f} of it weights, {size / best:.3f} of the best codec's; "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lossless", type=Path)
    parser.add_argument("--lossy", type=Path)
    parser.add_argument("--psnr", type=float, nargs="+", default=[27.5, 31.4], help="dB, of the lossy ones")
    parser.add_argument("--refine", type=int, default=200, help="steps for the symbols of each lossy image")
    parser.add_argument("--no-verify", action="store_true", help="do not decode the 70,000 as well")
    given = parser.parse_args()
    data = open_source("fashion-mnist")
    with tempfile.TemporaryDirectory() as folder:
        if given.lossless:
            lossless(latente.load(given.lossless), data, Path(folder), not given.no_verify)
        if given.lossy:
            lossy(latente.load(given.lossy), data, Path(folder), given.psnr, given.refine)


if __name__ == "__main__":
    main()
