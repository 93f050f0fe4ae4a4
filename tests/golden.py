"""What the files in golden/ hold. Each was made once, by the code of its day, and has its weights in it: whatever changes later, it must
still be read. `python tests/golden.py FOLDER` makes such files, to be added, under new names, beside those that are there.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent / "golden"


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits in three colours, uint8 (n,8,8,3), and which of two classes each is of, (n,)."""
    data = load_digits()
    grey = (data.images * 255 // 16).astype(np.uint8)
    return np.stack([grey[:n], grey[:n] // 2, 255 - grey[:n]], 3), data.target[:n] // 5


def rows(n: int) -> str:
    """A CSV with numbers of two kinds, missing ones, levels, one of them rare, days, and a column that is no other's business."""
    lines = ["name,age,score,city,day"]
    for i in range(n):
        age = 17 + i * i % 73
        score = "" if i % 11 == 3 else f"{(i * 37 % 101) / 10 + age:.1f}"
        city = "Nowhere" if i == 5 else ("Köln", "Bonn", "Bonn", '"Ulm, Donau"')[i * age % 4]
        lines.append(f"A-{i:05d}-{i * 7919 % 100:02d},{age},{score},{city},2021-{1 + i % 12:02d}-{1 + i * 5 % 28:02d}")
    return "\n".join(lines) + "\n"


def make(folder: Path) -> None:
    import latente
    from latente.compression import compress, headers

    folder.mkdir()
    x, labels = pictures(150)
    np.savez(folder / "x.npz", x=x, y=labels)
    (folder / "rows.csv").write_text(rows(400), encoding="utf-8")
    headers.PIXELS, headers.TABLE = 3_000, 150  # several chunks of each
    small = {"width": 8, "blocks": 1, "steps": 300, "quiet": True}
    run = latente.train("pixelcnn", folder / "x.npz", window=2, embedding=2, out=folder / "a", **small)
    compress(run, (x[:60].transpose(0, 3, 1, 2), labels[:60]), folder / "pixels.latente")
    sizes = {"latent_channels": 6, "decoder_width": 8, "encoder_width": 16, "levels": 2}
    run = latente.train("compressor", folder / "x.npz", **sizes, out=folder / "b", **small)
    best = compress(run, folder / "x.npz", folder / "best.latente").psnr
    assert best is not None
    compress(run, folder / "x.npz", folder / "latents.latente", psnr=best - 0.3)
    run = latente.train("table-gpt", folder / "rows.csv", out=folder / "c", **small)
    compress(run, folder / "rows.csv", folder / "rows.latente")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
