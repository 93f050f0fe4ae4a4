"""Texts, each after its prompt: {"text": [str]}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from latente.data.text import check_text_output, write_texts
from latente.provenance.kind import Kind, Made, Unlike, check_count
from latente.run import CHUNK, TEXTS

_MOST = 1 << 26  # tokens of one batch


class Texts(Kind):
    """In a .txt, .jsonl or .parquet. They are apart by the first character that differs, counted from 1."""

    name = "text"
    options: ClassVar = {
        "prompt": str, "tokens": int, "stop": list, "temperature": float,
        "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float,
    }  # fmt: skip

    def whole(self, made: Made, options: Mapping[str, Any]) -> Made:
        return {"text": [options.get("prompt", "") + text for text in made["text"]]}

    def items(self, made: Made) -> Sequence[str]:
        return made["text"]

    def check_output(self, path: Path) -> None:
        check_text_output(path)

    def write(self, path: Path, made: Made, spec: Any) -> None:
        write_texts(path, made["text"])

    def fits(self, n: int, options: Mapping[str, Any], spec: Any) -> bool:
        return options.get("tokens", spec.context) * min(n, TEXTS) <= _MOST

    def check_count(self, path: Path, n: int) -> None:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            check_count(pq.ParquetFile(path).metadata.num_rows, n, self.name)
        elif path.suffix == ".jsonl":
            check_count(len(path.read_bytes().splitlines()), n, self.name)
        elif path.suffix == ".txt":  # an empty line may also stand within a text
            check_count(min(n, plain(decoded(path)).count("\n\n") + 1), n, self.name)
        else:
            raise Unlike("texts are not written to such files")

    def read(self, path: Path, made: Made, spec: Any) -> Iterator[str | None]:
        if path.suffix == ".txt":
            return passages(decoded(path), made["text"])
        return _rows(path) if path.suffix == ".parquet" else map(_text, map(json.loads, path.read_bytes().splitlines()))

    def distance(self, expected: str, found: str) -> float:
        if expected == found:
            return 0
        pairs = list(zip(expected, found))
        return 1 + next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))

    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        return "" if far[0] is None else f", from its character {far[0]:,} on", None


def passages(body: str, texts: Sequence[str]) -> Iterator[str]:
    """The texts of a .txt. An empty line stands between two, but also within some, so the expected ones show where they end."""
    whole = "\n\n".join(texts)
    if plain(body) == plain(f"{whole}\n"):
        yield from texts
        return
    at = 0
    for text, following in zip(texts, [*texts[1:], None]):
        end = at + len(text)
        if not (
            body.startswith(text, at)
            and (body[end:] in ("", "\n") if following is None else body.startswith("\n\n", end))
        ):
            end = len(body) if following is None else body.find(f"\n\n{following}", at)
            end = body.find("\n\n", at) if end < 0 else end
        yield body[at:] if end < 0 else body[at:end]
        at = len(body) if end < 0 else end + 2


def _rows(path: Path) -> Iterator[str | None]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(CHUNK, columns=["text"]):
        yield from map(_text, batch.to_pylist())


def _text(row: Any) -> str | None:
    text = row.get("text") if isinstance(row, dict) else None
    return text if isinstance(text, str) else None


def decoded(path: Path) -> str:
    """What a file of text holds."""
    return path.read_bytes().decode("utf-8", "surrogateescape")  # a byte that is not UTF-8 then equals nothing


def plain(body: str) -> str:
    """What a .txt says whatever editor saved it: without byte-order mark, \\n between lines, no newline at the end."""
    return body.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")
