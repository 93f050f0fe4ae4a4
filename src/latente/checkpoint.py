"""A run directory on disk: read, write, verify. Nothing in it is executable; weights are safetensors, the rest is JSON.

    data/                  what the data room needs to read and write this kind of data again (a tokenizer)
    run.json               what was asked and planned, versions, status, why it stopped, events
    metrics.jsonl          one JSON object a line; a resume cuts it back to the offset its checkpoint remembers
    checkpoints/index.json {"last": "00001200", "best": "00000900"}
    checkpoints/00001200/  model.safetensors ema.safetensors optimizer.safetensors state.json

A checkpoint folder is written under a temporary name, synced, renamed; then index.json is replaced; then old folders go.
A kill between any two instructions leaves a run that opens and resumes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TEMPORARY = ".tmp-"


class RunError(ValueError):
    """A run directory that cannot be made, opened or written; the message says which and what to do."""


def create(path: Path, record: dict[str, Any], assets: Callable[[Path], None] | None = None) -> None:
    """Makes a run directory holding `run.json`, and in `data/` what `assets` writes into the folder it is given.

    It appears whole or not at all; an existing path is never touched.
    """
    if path.exists():
        raise RunError(
            f"{path} exists already and a run is never overwritten; choose another --out, or: latente resume {path}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
        (draft / "checkpoints").mkdir(parents=True)
        write_json(draft / "run.json", record)
        (draft / "metrics.jsonl").touch()
        if assets is not None:
            assets(draft / "data")
        draft.rename(path)
    except OSError as error:
        raise RunError(f"cannot make a run directory at {path}: {error.strerror or error}") from None


def read_run(path: Path) -> dict[str, Any]:
    """`run.json` of a run. Raises RunError when there is none or it is no run of ours."""
    if not path.exists():
        raise RunError(f"no run at {path}")
    if not (path / "run.json").is_file():
        raise RunError(f"{path} is not a run directory (no run.json in it)")
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path / 'run.json'} cannot be read: {error}") from None
    if not isinstance(record, dict) or record.get("format") != 1:
        raise RunError(f"{path / 'run.json'} was not written by this version of latente")
    return record


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replaces `path` in one step, synced."""
    draft = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    try:
        # Half a surrogate pair, as names of files may hold, is escaped as JSON does it.
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def index(path: Path) -> dict[str, str]:
    """{"last": ..., "best": ...} of the run at `path`; {} before its first checkpoint."""
    file = path / "checkpoints" / "index.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def save(
    path: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], best: bool
) -> None:
    """Writes checkpoint `step` of the run at `path` and makes it the last one (and the best one, when `best`).

    `tensors` maps a file's stem (model, ema, optimizer) to named tensors; `state` is JSON. Raises RunError when the disk
    is full, leaving the checkpoint before it intact.
    """
    from safetensors.torch import save as to_bytes

    name = f"{step:08d}"
    folder = path / "checkpoints"
    draft = folder / f"{_TEMPORARY}{name}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for stem, named in tensors.items():
            _write_synced(
                draft / f"{stem}.safetensors", to_bytes({k: t.detach().contiguous() for k, t in named.items()})
            )
        _write_synced(draft / "state.json", json.dumps({"step": step, **state}, indent=1).encode())
        final = folder / name
        before = index(path)
        if final.exists():  # an interrupted run was resumed and has come to the same step: the same content
            shutil.rmtree(final)
        draft.rename(final)
        _sync_folder(folder)
        after = {"last": name, "best": name if best or "best" not in before else before["best"]}
        write_json(folder / "index.json", after)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kept = index(path).get("last")
            held = f"checkpoint {kept} is intact" if kept else "no checkpoint was written yet"
            raise RunError(f"the disk is full: checkpoint {name} of {path} was not written; {held}") from None
        raise RunError(f"cannot write checkpoint {name} of {path}: {error.strerror or error}") from None
    clean(path)


def clean(path: Path) -> None:
    """Removes what no index entry names: drafts a kill left behind, and old checkpoints."""
    keep = set(index(path).values())
    for folder in (path / "checkpoints").iterdir():
        if folder.is_dir() and folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)
    for draft in [*path.glob(f"{_TEMPORARY}*"), *(path / "checkpoints").glob(f"{_TEMPORARY}*")]:
        if draft.is_file():
            draft.unlink(missing_ok=True)


def read_state(path: Path, which: str = "last") -> dict[str, Any]:
    """`state.json` of the last or best checkpoint. Raises RunError when there is none."""
    return json.loads((_folder(path, which) / "state.json").read_text(encoding="utf-8"))


def read_tensors(path: Path, which: str, stem: str) -> dict[str, Tensor]:
    """The named tensors of one file of the last or best checkpoint, on the CPU. Raises RunError for a damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = _folder(path, which) / f"{stem}.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None


def write_weights(path: Path, named: Mapping[str, Tensor]) -> None:
    """Writes RUN/weights.safetensors: what a finished run is used with."""
    from safetensors.torch import save as to_bytes

    draft = path / f"{_TEMPORARY}weights"
    try:
        _write_synced(draft, to_bytes({k: t.detach().contiguous() for k, t in named.items()}))
        draft.replace(path / "weights.safetensors")
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunError(f"cannot write the weights of {path}: {error.strerror or error}") from None


def read_weights(path: Path) -> dict[str, Tensor] | None:
    """RUN/weights.safetensors, or None while a run is not finished. Raises RunError for a damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "weights.safetensors"
    try:
        return load_file(file) if file.exists() else None
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None


def _folder(path: Path, which: str) -> Path:
    name = index(path).get(which)
    if name is None:
        raise RunError(f"{path} has no checkpoint yet; latente resume {path} starts it")
    return path / "checkpoints" / name


def _write_synced(file: Path, content: bytes) -> None:
    with file.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Metrics:
    """Appends records to metrics.jsonl; knows the offset a checkpoint must remember."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """Opens the file; with `offset`, what was written after it (by a run killed later) is cut off."""
        self._file = (path / "metrics.jsonl").open("ab")
        if offset is not None:
            self._file.truncate(offset)

    def write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._file.name}: {error.strerror or error}") from None

    def offset(self) -> int:
        """Bytes written so far, synced to disk."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole records of a run's metrics.jsonl; a last line cut by a kill is left out."""
    lines = (path / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]
