"""Files in and out of a .latente file, through a language model, byte by byte."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from latente.codec import tokens
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks
from latente.compression.chunks import Chunk
from latente.config import from_json
from latente.data import named
from latente.data.errors import DataError
from latente.data.files import located, readable
from latente.data.tokenizer import Tokenizer
from latente.evaluation.findings import Say
from latente.run import Run, TextRun, built
from latente.spec import TextSpec, spec_from_json, spec_to_json
from latente.training import devices

PIECE = 1 << 18  # bytes of a chunk
NAMES = 1 << 28  # bytes of all names, at most
TOKENIZER = 1 << 28  # bytes of one, at most


class TextJob:
    """Files on their way into a file."""

    psnr = None

    def __init__(self, run: TextRun, source: Any, external_model: bool) -> None:
        files = _files(source)
        self.model, self.tokenizer = run.model, run.tokenizer
        self.pieces = [piece for _, content in files for piece in _pieces(content)]
        self.raw = sum(len(content) for _, content in files)
        weights = _weights(run.model)
        self.parts = {"files": chunks.squeezed(json.dumps([[name, len(content)] for name, content in files]).encode())}
        if not external_model:
            self.parts |= {"model": weights, "tokenizer": chunks.squeezed(self.tokenizer.json.encode())}
        first = next((ids for piece in self.pieces if (ids := self._ids(piece)) is not None), np.empty(0, np.int64))
        self.header = {
            "codec": "tokens", "model": run.family.name, "config": run.record["config"], "spec": spec_to_json(run.spec),
            "items": self.raw, "weights": chunks.digest(weights), "tokenizer": run.tokenizer.digest()[:16],
            "made_with": _made_with(), "probe": [len(first), tokens.fingerprint(self.model, len(first)) if len(first) else ""],
        }  # fmt: skip

    def _ids(self, piece: bytes) -> np.ndarray | None:
        """The tokens that spell a piece, and nothing else; None where there are none."""
        ids = self.tokenizer.encode(piece)
        spelled = b"".join(map(self.tokenizer.bytes_of, ids.tolist()))
        return ids if spelled == piece and len(ids) else None

    def chunks(self, verify: bool, say: Say) -> Iterator[Chunk]:
        """Codes everything, decoding it again where told to `verify`. Raises ValueError when something else comes out."""
        done = 0
        for piece in self.pieces:
            say(f"coding, {done:,} of {self.raw:,} bytes done")
            ids, coded, expected = self._ids(piece), None, 0.0
            if ids is not None:
                code, bits = tokens.encoded(self.model, ids)
                coded, expected = len(ids).to_bytes(4, "little") + code, bits / 8
            payload = chunks.kept(piece, coded)
            if verify and _bytes(self.model, self.tokenizer, payload, len(piece)) != piece:
                raise ValueError("what was decoded is not what was coded; nothing is written")
            yield Chunk(payload, len(piece), expected)
            done += len(piece)


class PackedTexts:
    """Files in a file."""

    def __init__(self, reader: Reader, run: Run | None) -> None:
        self.reader, held = reader, reader.header
        spec = spec_from_json(held["spec"])
        if not isinstance(spec, TextSpec):
            raise ValueError("its header is of no text")
        self.files = [
            (str(name), int(size)) for name, size in json.loads(chunks.unsqueezed(reader.part("files"), NAMES))
        ]
        if sum(size for _, size in self.files) != held["items"] or any(size < 0 for _, size in self.files):
            raise ValueError("its files are not those of its chunks")
        if "model" in reader.parts:
            weights = reader.part("model")
            self.model = _restored(held, spec, weights)
            self.tokenizer = Tokenizer(chunks.unsqueezed(reader.part("tokenizer"), TOKENIZER).decode())
        elif not isinstance(run, TextRun):
            raise ValueError(f"its weights are not in it; give the run it was made with (--run), a {held['model']}")
        else:
            self.model, self.tokenizer = run.model, run.tokenizer
            weights = _weights(run.model)
        if chunks.digest(weights) != held["weights"] or self.tokenizer.digest()[:16] != held["tokenizer"]:
            raise ValueError("these are not the weights it was made with")
        self.threads = int(held["made_with"]["threads"])
        self._check_machine(held)

    def _check_machine(self, held: dict[str, Any]) -> None:
        n, wanted = held["probe"]
        if not 1 <= self.threads <= 1024 or not 0 <= n <= PIECE:
            raise ValueError("its header is of no text")
        with devices.threads(self.threads):
            if n and tokens.fingerprint(self.model, n) != wanted:
                mine, theirs = _made_with(), held["made_with"]
                unlike = [
                    f"{name} {theirs.get(name)}, here {value}"
                    for name, value in mine.items()
                    if theirs.get(name) != value
                ]
                said = "; ".join(unlike) or "the processor rounds otherwise"
                raise ValueError(
                    f"it was made on a machine whose arithmetic differs from this one's ({said}); decompress it there"
                )

    def decode(self, numbers: Sequence[int]) -> list[bytes]:
        """The bytes of some chunks. Raises Damaged."""
        found = []
        for number in numbers:
            payload, size = self.reader.chunk(number), len(self.reader.items_of(number))
            try:
                if size > PIECE:
                    raise ValueError("more bytes than it can hold")
                with devices.threads(self.threads):
                    found.append(_bytes(self.model, self.tokenizer, payload, size))
            except ValueError as error:
                raise chunks.undecodable(self.reader.name, number, error) from None
        return found

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """The file, or a folder of the files where there were several; without what is `lost`."""
        if out.exists() or out.is_symlink():
            raise DataError(f"{out} exists already; choose another --out")
        parts = chunks.each(len(self.reader), 1, self.decode, lost, say)
        found = {self.reader.items_of(number).start: content for number, content in parts}
        draft = out.with_name(f".tmp-{os.getpid()}-{out.name}")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            start, alone = 0, len(self.files) == 1
            if not alone:
                draft.mkdir()
            for name, size in self.files:
                target = draft if alone else draft / chunks.inside(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    for first in sorted(first for first in found if start <= first < start + size):
                        file.write(found[first])
                start += size
            draft.rename(out)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)
        return out


def _files(source: Any) -> list[tuple[str, bytes]]:
    """(name, content) of a file, of all files of a folder, of a named text, or of bytes. Raises DataError."""
    if isinstance(source, bytes):
        return [("bytes", source)]
    path = named.shakespeare() if source == "shakespeare" else located(source)
    with readable(path):
        if not path.is_dir():
            return [(path.name, path.read_bytes())]
        found = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.is_symlink()]
        return [(file.relative_to(path).as_posix(), file.read_bytes()) for file in found]


def _pieces(content: bytes) -> Iterator[bytes]:
    """Up to `PIECE` bytes each, none ending inside a character of UTF-8."""
    start = 0
    while start < len(content):
        stop = start + PIECE
        while stop < len(content) and stop > start + PIECE - 4 and content[stop] & 0xC0 == 0x80:
            stop -= 1
        yield content[start:stop]
        start = stop


def _bytes(model: Any, tokenizer: Tokenizer, payload: bytes, size: int) -> bytes:
    """What a chunk of so many bytes holds. Raises ValueError for a payload that holds something else."""
    content, modelled = chunks.opened(payload, size)
    if modelled:
        n = int.from_bytes(content[:4], "little")
        if not 1 <= n <= 4 * size:
            raise ValueError("more tokens than it can hold")
        ids = tokens.decoded(model, content[4:], n)
        content = b"".join(map(tokenizer.bytes_of, ids.tolist()))
    return chunks.checked(payload, content, size)


def _restored(held: dict[str, Any], spec: TextSpec, weights: bytes) -> Any:
    """The model of weights that lie in a file. Raises ValueError where they are not of such a model."""
    chunks.plausible(held["config"], vars(spec), len(weights))
    family = chunks.own_family(held["model"])
    config = from_json(family.Config, held["config"])
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in built(family, config, spec, 0).state_dict().items()}
    try:
        found = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"its weights cannot be read: {error}") from None
    if {name: value.shape for name, value in found.items()} != shapes:
        raise ValueError("its weights are of another model")
    model = built(family, config, spec, 0)
    model.load_state_dict(found)
    return model.eval()


def _weights(model: Any) -> bytes:
    return safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})


def _made_with() -> dict[str, Any]:
    return {"torch": torch.__version__, "machine": platform.machine(), "threads": torch.get_num_threads()}
