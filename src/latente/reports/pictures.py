"""Galleries: sheets of pictures and texts, as many and as large as a page has room for.

rows of items --shown--> sheets beside each other | a grid, a row a kind and a column an item, with captions below
map --looked--> a picture of its weights, and the tokens that stand beside it
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from latente.data.images import picture
from latente.evaluation.findings import Gallery, Map

BYTES = 1_200_000  # of PNG in one page, a third less than they take in it
CHARACTERS = 200_000  # of sampled text in one page
COLUMNS, PICTURES, TEXTS, TEXT = 12, 64, 6, 1500  # at most: of a grid, of a sheet, of a row, characters of a text
SHORT = 240  # characters of texts that stand beside their label, not below it
FIELDS, CUT = 40, 60  # columns of a table, characters of a cell
INK = (46, 130, 222)  # of maps: it is seen on a light ground and on a dark one
CELL, PAIR = 56, 72  # pixels of the page a picture is enlarged to, about: on a sheet, in a grid


def shown(galleries: Sequence[Gallery]) -> list[dict[str, Any]]:
    """What the template shows of galleries."""
    kept = [(gallery, [row for row in gallery.rows if len(row[1])]) for gallery in galleries]
    counts = [len(rows) * (_columns(rows) if gallery.paired else 1) for gallery, rows in kept]
    texts = [min(len(items), TEXTS) for _, rows in kept for _, items in rows]
    room, length = BYTES // max(1, sum(counts)), min(TEXT, CHARACTERS // max(1, sum(texts)))
    return [
        {
            "title": gallery.title,
            "note": gallery.note,
            **(
                _table(gallery, rows)
                if gallery.columns
                else (_paired if gallery.paired else _beside)(gallery, rows, room, length)
            ),
        }
        for gallery, rows in kept
    ]


def _columns(rows: Sequence[tuple[str, Any]]) -> int:
    return min(COLUMNS, *(len(items) for _, items in rows)) if rows else 0


def _beside(gallery: Gallery, rows: Sequence[tuple[str, Any]], room: int, length: int) -> dict[str, Any]:
    """A sheet, or the first texts, of each row."""
    made = []
    for label, items in rows:
        if _are_pictures(items):
            sheet = _sheet(items, f"{gallery.title}: {label}", room)
            made.append({"label": label, "of": len(items), "shown": sheet["count"], "sheet": sheet})
        else:
            texts = [_cut(text, length) for text in items[:TEXTS]]
            made.append({"label": label, "of": len(items), "shown": len(texts), "texts": texts})
    return {"kind": "beside", "rows": made}


def _paired(gallery: Gallery, rows: Sequence[tuple[str, Any]], room: int, length: int) -> dict[str, Any]:
    """Pictures row by row, to stand in a grid; texts column by column, to stand one below the other."""
    at = range(_columns(rows))
    captions = [gallery.captions[i] if i < len(gallery.captions) else "" for i in at]
    if all(_are_pictures(items) for _, items in rows):
        made = [
            {"label": label, "sheets": [_sheet(items[i : i + 1], f"{label}, {i + 1}", room, PAIR) for i in at]}
            for label, items in rows
        ]
        return {"kind": "grid", "rows": made, "captions": captions}
    maps = [*gallery.maps, *[None] * len(at)]
    made = [
        {
            "caption": captions[i],
            "texts": [(label, *_cut(items[i], length)) for label, items in rows],
            "map": there and _looked(there),
        }
        for i, there in zip(at, maps)
    ]
    return {"kind": "texts", "rows": made, "short": all(len(items[i]) <= SHORT for _, items in rows for i in at)}


def _looked(shown: Map) -> dict[str, Any]:
    """A map as a picture, a pixel a weight, with the tokens of its sides."""
    weights = shown.weights / shown.weights.max()
    pixels = np.empty((*weights.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = INK, np.rint(255 * weights)
    sides = [["\u2423" if piece.isspace() else piece for piece in side] for side in (shown.source, shown.target)]
    return {
        "src": _encoded(pixels),
        "alt": f"what each token of the target {''.join(sides[1][:-1])} looked at in its source",
        "across": sides[0],
        "down": sides[1],
        "turned": max(map(len, sides[0][:-1]), default=0) > 1,
    }


def _encoded(pixels: np.ndarray) -> str:
    """Pixels, uint8 (H,W,4), as the address of a PNG that is part of the page."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return _address(file.getvalue())


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _table(gallery: Gallery, rows: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Lines of a table in groups: a kind each; of paired rows a pair each, with its caption, and which cells differ."""
    groups = []
    if gallery.paired:
        for at in range(_columns(rows)):
            items = [(label, items[at]) for label, items in rows]
            groups.append({"lines": items, "caption": gallery.captions[at] if at < len(gallery.captions) else ""})
    else:
        groups = [
            {"lines": [(label * (not at), item) for at, item in enumerate(items)], "caption": ""}
            for label, items in rows
        ]
    for group in groups:
        differ = [gallery.paired and len(set(cells)) > 1 for cells in zip(*(item for _, item in group["lines"]))]
        group["lines"] = [
            (label, [(_short(cell), other) for cell, other in zip(item[:FIELDS], differ)])
            for label, item in group["lines"]
        ]
    return {
        "kind": "table",
        "rows": groups,
        "columns": gallery.columns[:FIELDS],
        "more": max(0, len(gallery.columns) - FIELDS),
    }


def _short(cell: str) -> str:
    return cell if len(cell) <= CUT else f"{cell[: CUT - 1]}…"


def _are_pictures(items: Any) -> bool:
    return isinstance(items, np.ndarray) and items.ndim == 4


def _cut(text: str, length: int) -> tuple[str, int]:
    """(the beginning of a text, how many characters more there are)."""
    return text[:length], max(0, len(text) - length)


def _sheet(images: np.ndarray, alt: str, room: int, cell: int = CELL) -> dict[str, Any]:
    """Images, uint8 (n,C,H,W), as one PNG of at most `room` bytes: fewer of them where they are large, then smaller ones."""
    count, shrink, side = min(len(images), PICTURES), 1, max(images.shape[2:])
    while True:
        content, width, height = _png(images[:count], min(8, count), shrink)
        if len(content) <= room:
            break
        if side >= 96 * shrink:
            shrink *= 2
        elif count > 1:
            count = -(-count // 2)
        elif side >= 16 * shrink:
            shrink *= 2
        else:
            break
    scale = cell * shrink / side
    scale = max(1, round(scale)) if scale > 1 else scale
    return {
        "src": _address(content), "alt": alt, "count": count,
        "width": round(width * scale), "height": round(height * scale), "enlarged": scale > 1,
    }  # fmt: skip


def _png(images: np.ndarray, columns: int, shrink: int) -> tuple[bytes, int, int]:
    """(PNG, width, height) of a sheet, one pixel of the file a pixel of the images; what lies between them is transparent."""
    from PIL import Image

    mode = "LA" if images.shape[1] == 1 else "RGBA"
    height, width = (max(1, side // shrink) for side in images.shape[2:])
    gap = max(1, round(max(height, width) / 14))
    rows = -(-len(images) // columns)
    page = Image.new(mode, (columns * (width + gap) - gap, rows * (height + gap) - gap))
    for number, image in enumerate(images):
        tile = picture(np.asarray(image, np.uint8)).convert(mode)
        if shrink > 1:
            tile = tile.resize((width, height), Image.Resampling.BOX)
        page.paste(tile, (number % columns * (width + gap), number // columns * (height + gap)))
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue(), *page.size
