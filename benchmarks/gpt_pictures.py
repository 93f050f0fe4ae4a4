"""The pictures of docs/gpt.md, from a run of `latente train gpt shakespeare`.

pip install matplotlib && python benchmarks/gpt_pictures.py RUN [--out docs]
"""

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import latente
from latente.checkpoint import read_metrics

LINE = "My lord, the king is"
BLUE, GREY = "#2b6cb0", "#718096"


def loss(run: latente.Run, path: Path) -> None:
    records = read_metrics(run.path)
    figure, axis = plt.subplots(figsize=(7, 3.4), constrained_layout=True)
    for key, label, style in (
        ("main/nats_per_token", "training", {"color": GREY, "alpha": 0.7}),
        ("validation/nats_per_token", "validation", {"color": BLUE, "marker": "o", "markersize": 3}),
    ):
        points = [(r["step"], r[key]) for r in records if key in r]
        axis.plot(*zip(*points), label=label, **style)
    axis.set(xlabel="step", ylabel="nats per character", ylim=(0.9, 3.0))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def attention(run: latente.Run, path: Path) -> None:
    maps = run.attention_maps(LINE)
    layers, heads = maps.shape[:2]
    figure, axes = plt.subplots(
        layers, heads, figsize=(2.6 * heads, 2.6 * layers), constrained_layout=True, squeeze=False
    )
    for layer, row in enumerate(axes):
        for head, axis in enumerate(row):
            axis.imshow(maps[layer, head], cmap="Blues", vmin=0, vmax=1)
            axis.set_xticks(range(len(LINE)), list(LINE.replace(" ", "\u00b7")), fontsize=6)
            axis.set_yticks(range(len(LINE)), list(LINE.replace(" ", "\u00b7")), fontsize=6)
            axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
            axis.tick_params(length=0)
    figure.savefig(path, dpi=90)


def samples(run: latente.Run, path: Path) -> None:
    files = sorted((run.path / "samples").glob("*.txt"))
    chosen = [files[0], files[len(files) // 4], files[len(files) // 2], files[-1]]
    figure, axes = plt.subplots(1, len(chosen), figsize=(3.1 * len(chosen), 2.4), constrained_layout=True)
    for axis, file in zip(axes, chosen):
        text = file.read_text(encoding="utf-8").split("\n\n-----\n\n")[0].strip()
        lines = [part for line in text.split("\n") for part in (textwrap.wrap(line, 34) or [""])][:14]
        axis.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=7.5, parse_math=False)
        axis.set_title(f"step {int(file.stem):,}", loc="left", fontsize=10, color=BLUE)
        axis.axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = latente.load(given.run)
    loss(run, given.out / "gpt-loss.png")
    attention(run, given.out / "gpt-attention.png")
    samples(run, given.out / "gpt-samples.png")


if __name__ == "__main__":
    main()
