"""Lines to translate, and files of what was made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latente.data.charsets import charset_of, utf8_of
from latente.data.errors import DataError
from latente.data.files import located
from latente.data.text_sources import lines
from latente.drafts import draft

OUTPUTS = (".txt", ".tsv", ".jsonl")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file without their ends. Raises DataError, one line, for a file that cannot be read."""
    path = located(path)
    found = [
        line.removesuffix(b"\r").decode() for line in lines(utf8_of(path, charset_of(path, "auto", "stop"), "stop"))
    ]
    return found if found[-1] else found[:-1]


def check_pair_output(path: Path, n: int) -> None:
    """Raises DataError when `n` targets of each source cannot be written to `path`: it exists, or is of no such kind."""
    if path.exists() or path.is_symlink():
        raise DataError(f"--out {path} exists already; choose another")
    if path.suffix not in OUTPUTS:
        raise DataError(f"--out {path}: targets go to {', '.join(OUTPUTS)}")
    if path.suffix == ".txt" and n > 1:
        raise DataError(f"--out {path}: a .txt has one line for each source; take .tsv or .jsonl for --n {n}")


def columns(path: Path, sources: Sequence[str], made: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What a file like `path` holds of what was `made` of each source, several of `text`, `log_prob`, `score`: an entry a target.

    .txt: "target"; .tsv: "source", "target"; .jsonl: also "log_prob", in nats, and "score". Where a text breaks lines, or holds
    tabs, .txt and .tsv have spaces.
    """
    rows = [(source, one) for source, several in zip(sources, made) for one in several]
    whole = str if path.suffix == ".jsonl" else _flat
    held: dict[str, Any] = {} if path.suffix == ".txt" else {"source": [whole(source) for source, _ in rows]}
    held["target"] = [whole(one.text) for _, one in rows]
    if path.suffix == ".jsonl":
        held |= {name: np.array([getattr(one, name) for _, one in rows], np.float64) for name in ("log_prob", "score")}
    return held


def write_pairs(path: Path, held: Mapping[str, Any]) -> Path:
    """Writes `columns`: .txt and .tsv a target a line, .jsonl an object a line; the file appears whole or not at all."""
    check_pair_output(path, 1)
    values = [list(column) for column in held.values()]
    if path.suffix == ".jsonl":
        told = [json.dumps(dict(zip(held, row)), ensure_ascii=False) for row in zip(*values)]
    else:
        told = ["\t".join(row) for row in zip(*values)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft(path) as hidden:
            hidden.write_text("".join(f"{line}\n" for line in told), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _flat(text: str) -> str:
    return " ".join(text.replace("\t", " ").splitlines())
