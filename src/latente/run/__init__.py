"""`load`: a run directory becomes a model one can use; what it can do depends on its kind of data.

ImageRun   sample, encode, reconstruct, denoise, explore, evaluate: arrays of pictures in and out
TextRun    sample, complete, stream, evaluate: strings in and out
TableRun   sample, fill, predict, log_prob, evaluate: frames in and out
PairRun    sample, translate, hypotheses, evaluate: strings in and out
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latente import checkpoint, registry
from latente.run.base import Run, averaged_weights, built, family_of, options_of, usable_weights
from latente.run.images import CHUNK, ImageRun, held
from latente.run.pairs import PairRun
from latente.run.tables import TableRun, rows_of
from latente.run.texts import TEXTS, TextRun

__all__ = [
    "CHUNK", "TEXTS", "ImageRun", "PairRun", "Run", "TableRun", "TextRun", "averaged_weights", "built", "family_of", "held", "load",
    "opened", "options_of", "rows_of", "usable_weights",
]  # fmt: skip
KINDS: dict[str, type[Run]] = {"image": ImageRun, "text": TextRun, "table": TableRun, "pair": PairRun}


def load(path: str | Path, *, model_file: str | None = None) -> Run:
    """Opens a run to use it. Runs nothing that came with the run; a run of a user's own model needs `model_file`."""
    path = Path(path)
    record = checkpoint.read_run(path)
    return opened(path, record, family_of(record, model_file))


def opened(path: Path, record: dict[str, Any], family: registry.Family) -> Run:
    """The run of `record`, as the class of its kind of data."""
    return KINDS[record["spec"]["kind"]](path, record, family)
