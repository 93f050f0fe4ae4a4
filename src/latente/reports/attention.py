"""A picture of what each token of a target looked at in its source: a square sheet for each block of the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latente.drafts import check_free, draft
from latente.reports.words import shown

if TYPE_CHECKING:
    from latente.run import PairRun

EACH, LEAST, MOST = 0.22, 2.0, 14.0  # inches of a token, and of a side of a sheet


def check_picture(path: Path) -> None:
    """Raises ValueError for a path that is taken or no .png."""
    check_free(path)
    if path.suffix != ".png":
        raise ValueError(f"{path}: a picture ends in .png")


def attention(run: PairRun, source: str, target: str, path: Path) -> Path:
    """Draws PATH.png: targets from above to below, sources from left to right; darker is more, the mean over heads.

    Raises ValueError for a path that is taken or no .png, and for a source that is too long for the run.
    """
    check_picture(path)
    maps = run.attention_maps(source, target).mean(1)
    labels = [[shown(piece) for piece in (*run.pieces(text, at), "end")] for at, text in enumerate((source, target))]
    labels[1] = labels[1][: maps.shape[1]]  # one that the model did not end may have no room for its end
    from matplotlib.figure import Figure

    across, down = (min(MOST, max(LEAST, EACH * len(side))) for side in labels)
    sheet = Figure(figsize=((across + 1) * len(maps), down + 1.2), layout="constrained")
    for layer, (axes, weights) in enumerate(zip(sheet.subplots(1, len(maps), squeeze=False)[0], maps), 1):
        axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"block {layer}", fontsize=9)
        # Without mathematics: a text may hold dollar signs.
        for set_ticks, side in ((axes.set_xticks, labels[0]), (axes.set_yticks, labels[1])):
            set_ticks(range(len(side)), side, fontsize=7, parse_math=False)
    with draft(path) as hidden:
        sheet.savefig(hidden, format="png", dpi=120)
    return path
