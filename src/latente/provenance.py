"""Where samples came from, and whether they can be made again.

    Run.sample -> write -> made/ and made.latente.json: run, weights, seed, options, versions, hashes, scores
    made/ + made.latente.json + run -> verify -> is it the run? -> sample again -> same bytes | same values | what differs

A sidecar may come from a stranger: it is read as plain values of known types, nothing in it is run, and what it asks for is
bounded by the samples that lie beside it. It names no place on anybody's disk.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from latente import checkpoint
from latente.data.errors import DataError, first_line
from latente.data.images import write_images
from latente.data.text import write_texts
from latente.run import CHUNK, TEXTS, Run, TableRun
from latente.samples import UNLIKE, Unlike, count, files_in, items, named, place, rewritten, rows_of
from latente.training import devices

SUFFIX = ".latente.json"
OPTIONS: dict[str, dict[str, type]] = {
    "image": {"label": str, "temperature": float, "truncation": float},
    "text": {
        "prompt": str, "tokens": int, "stop": list, "temperature": float,
        "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float,
    },
    "table": {"given": str},
}  # fmt: skip
"""What can be asked of sampling beside n and seed, by kind of data."""

KINDS = {"image": "images", "text": "texts", "table": "rows"}
_LONGEST = 4 << 20  # bytes of a sidecar
_MOST = {
    "image": 1 << 32,
    "text": 1 << 26,
    "table": 1 << 27,
}  # bytes of pixels, tokens of one batch, fields: what making them again may hold
_RUN = {
    "model": str, "model_sha256": str | None, "config": dict, "spec": dict, "size": str, "seed": int,
    "data": {"name": str, "fingerprint": str}, "weights_sha256": str, "tokenizer": str | None,
}  # fmt: skip
_MADE_WITH = {
    "torch": str, "latente": str, "threads": int, "machine": str, "processor": str, "numpy": str, "python": str, "chunk": int,
}  # fmt: skip
_SIDECAR = {
    "format": int, "n": int, "seed": int, "options": dict, "run": _RUN, "made_with": _MADE_WITH,
    "content_sha256": str, "values_sha256": str, "scores": list,
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What came of making samples again."""

    outcome: Literal["same bytes", "same values", "differs"]
    said: tuple[str, ...]
    """in words, a sentence each; the first begins with the outcome"""
    n: int
    """how many there should be"""
    differing: int = 0
    """how many are missing, cannot be read, or have other values"""
    first: int | None = None
    """the first of those, counted from 0"""
    largest: int | None = None
    """images: the largest difference of a pixel, of 255, among those that could be compared"""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of a folder: its files that are "changed", "missing" or "added" """


# ---- writing -------------------------------------------------------------------------------------------------------


def sidecar(path: str | Path) -> Path:
    """Where the provenance of the samples at `path` lies: beside them, `made` -> `made.latente.json`."""
    return Path(path).with_name(Path(path).name + SUFFIX)


def check_free(path: str | Path) -> None:
    """Raises DataError when samples cannot get a sidecar at `path`: asked before the work, not after it."""
    if sidecar(path).exists() or sidecar(path).is_symlink():
        raise DataError(f"{sidecar(path)} exists already; move it, or choose another --out")


def check_options(run: Run, options: Mapping[str, Any]) -> None:
    """Raises ValueError, as for a flag, for an option that is not of this run's kind of data or model, or is of another type."""
    known = OPTIONS[run.spec.kind]
    parameters = inspect.signature(run.model.sample).parameters
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name not in known or (run.spec.kind == "image" and name != "label" and name not in parameters):
            raise ValueError(f"{run.family.name} has no {flag}")
        if known[name] is float and not (_number(value) and math.isfinite(value)):
            raise ValueError(f"{flag} {value!r:.40}: a finite number")
        if known[name] is int and (type(value) is not int or not 1 <= value < 1 << 31):
            raise ValueError(f"{flag} {value!r:.40}: a whole number from 1")
        texts = value if known[name] is list and isinstance(value, list | tuple) else [value]
        if known[name] in (str, list) and not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{flag}: text")


def write(run: Run, made: Mapping[str, Any], options: Mapping[str, Any], path: str | Path) -> Path:
    """Writes what `run.made(n, seed=..., **options)` gave, and its sidecar: both or neither.

    `options` holds "seed" and what else `sample` was given; a text is written after its prompt. Raises ValueError (DataError)
    when either place is taken, the kind of file is unknown, or an option is none of `OPTIONS`.
    """
    path = Path(path)
    check_free(path)
    folder = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    draft = folder / path.name
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had our number
    try:
        folder.mkdir(parents=True)
        if run.spec.kind == "image":
            write_images(draft, made["x"], made.get("label"), run.spec.classes)
        elif isinstance(run, TableRun):
            run.write(draft, made["rows"])
        else:
            write_texts(draft, [options.get("prompt", "") + text for text in made["text"]])
        checkpoint.write_json(sidecar(draft), record(run, made, options, draft))
        if path.exists():
            raise DataError(f"{path} exists already; choose another --out")
        sidecar(draft).rename(sidecar(path))  # first, so that a kill leaves no samples of unknown origin
        try:
            draft.rename(path)
        except BaseException:
            sidecar(path).unlink()
            raise
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(str(error).replace(str(draft), str(path))) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def record(run: Run, made: Mapping[str, Any], options: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The sidecar of samples written to `path`; arguments as those of `write`."""
    check_options(run, {name: value for name, value in options.items() if name != "seed"})
    asked: dict[str, Any] = {n: list(v) if isinstance(v, tuple) else v for n, v in options.items() if n != "seed"}
    return {
        "format": 1, "n": len(_items(made)), "seed": options.get("seed", 0), "options": asked, "run": _identity(run),
        "made_with": _made_with(), "content_sha256": content_sha256(Path(path)),
        "values_sha256": values_sha256(made, asked.get("prompt", "")), "scores": _scores(run.path),
    }  # fmt: skip


def _identity(run: Run) -> dict[str, Any]:
    """What makes a run the one it is, in plain JSON values."""
    known = run.record
    made = {name: known[name] for name in ("model", "model_sha256", "config", "spec", "size", "seed")}
    made["data"] = {name: known["data"][name] for name in ("name", "fingerprint")}
    made["weights_sha256"] = weights_sha256(run.model.state_dict())
    tokenizer = getattr(run, "tokenizer", None)
    made["tokenizer"] = None if tokenizer is None else tokenizer.digest()
    return json.loads(json.dumps(made))


def _made_with() -> dict[str, Any]:
    return {
        "torch": torch.__version__, "latente": version("latente"), "threads": torch.get_num_threads(), "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(), "numpy": np.__version__, "python": platform.python_version(),
        "chunk": CHUNK,
    }  # fmt: skip


def _scores(run: Path) -> list[dict[str, Any]]:
    """The scores the run was last given by `evaluate`; [] without any, or where they cannot be read."""
    kept = ("name", "value", "ci", "better", "unit", "reference", "reference_kind", "answer")
    try:
        text = (run / "report" / "metrics.json").read_text(encoding="utf-8")
        scores = json.loads(text, parse_constant=lambda name: None)["scores"]
        named = [score for score in scores if isinstance(score.get("name"), str)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [{name: score[name] for name in kept if name in score} for score in named]


# ---- hashes --------------------------------------------------------------------------------------------------------


def weights_sha256(named: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors: their sorted names, types, shapes and bytes; what file held them does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of the sorted relative paths of its files and their SHA-256s."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, file in sorted(files_in(path).items()):
        digest.update(f"{name}\0{content_sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def values_sha256(made: Mapping[str, Any], prompt: str = "") -> str:
    """SHA-256 of samples themselves: the uint8 array and its labels, the texts, each after the prompt, or the cells of rows."""
    digest = hashlib.sha256()
    if "rows" in made:
        for row in rows_of(made["rows"]):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()
    if "text" in made:
        for text in made["text"]:
            content = (prompt + text).encode("utf-8", "surrogatepass")
            digest.update(struct.pack("<Q", len(content)) + content)
        return digest.hexdigest()
    for name in sorted(made):
        values = np.ascontiguousarray(made[name], np.uint8 if name == "x" else "<i8")
        digest.update(json.dumps([name, values.shape]).encode())
        digest.update(values.data)
    return digest.hexdigest()


# ---- reading a sidecar ---------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    """The sidecar of the samples at `path`, its types checked. Raises DataError when there is none or it is damaged."""
    path, file = Path(path), sidecar(path)
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"no samples at {path}")
    if not file.is_file():
        raise DataError(f"{path} has no {file.name} beside it; only what latente sample --out wrote can be verified")
    try:
        with file.open("rb") as handle:
            content = handle.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError("it is too long")
        held = json.loads(content)
        if isinstance(held, dict) and type(held.get("format")) is int and held["format"] != 1:
            raise ValueError(f"its format {held['format']!r:.20} is not one this version of latente reads")
        _check_shape(held, _SIDECAR, "it")
        if not 1 <= held["n"] < 1 << 31:
            raise ValueError(f"n is {held['n']!r:.40}: from 1 to two thousand million")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise DataError(f"{file} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{file} is damaged: {first_line(error)}") from None
    return held


def _check_shape(value: Any, shape: Any, name: str) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is no JSON object")
        for other in sorted(value.keys() ^ shape.keys()):
            raise ValueError(f"{'no' if other in shape else 'unknown'} entry {_shown(other)}")
        for key, inner in shape.items():
            _check_shape(value[key], inner, key)
    elif not isinstance(value, shape) or isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}, of the wrong type")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308


def _shown(value: Any) -> str:
    """A value of a file for a line on a terminal: short, and without control characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 40 else f"{text[:37]}..."


# ---- verifying -----------------------------------------------------------------------------------------------------


def verify(run: Run, path: str | Path) -> Verdict:
    """Makes the samples at `path` again, as their sidecar says, and compares.

    Raises DataError when there are no samples or no sidecar, or when it is damaged or asks for what this run cannot do.
    """
    path = Path(path)
    held = read(path)
    n, then, now = held["n"], held["run"], _identity(run)
    if then != now:
        told = [f"differs: {run.path} is not the run that made {path}, or not as it was then"]
        told += _differences(then, now) if then["model"] == now["model"] else [f"it is a {now['model']}"]
        return Verdict("differs", tuple(told), n)
    _check_bounds(run, held, sidecar(path))
    try:
        found = count(path, run.spec.kind)
        if (found < n / 2) if path.is_dir() else (found < n) if path.suffix == ".txt" else (found != n):
            raise Unlike(f"it holds {found:,} {KINDS[run.spec.kind]}, not {n:,}")
        content, made = content_sha256(path), _made_again(run, held, sidecar(path))
        return _compared(run, path, held, content, made)
    except Unlike as error:
        return Verdict("differs", (f"differs: {path}: {error}",), n, n)


def _check_bounds(run: Run, held: dict[str, Any], file: Path) -> None:
    options, kind = held["options"], run.spec.kind
    try:
        check_options(run, options)
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}") from None
    n = min(held["n"], TEXTS) if kind == "text" else held["n"]
    if n * _size(run, options) > _MOST[kind]:
        raise DataError(f"{file} asks for more than can be made again at once: {held['n']:,} {KINDS[kind]}")


def _size(run: Run, options: Mapping[str, Any]) -> int:
    """What one sample counts for against `_MOST`."""
    if run.spec.kind == "image":
        return run.spec.dimensions
    return len(run.spec.fields) if run.spec.kind == "table" else options.get("tokens", run.spec.context)


def _made_again(run: Run, held: dict[str, Any], file: Path) -> dict[str, Any]:
    """`sample` as it was called, with the threads of then, for they decide the order of sums."""
    threads = held["made_with"]["threads"]
    try:
        with devices.threads(threads if 1 <= threads <= 16 * (os.cpu_count() or 1) else torch.get_num_threads()):
            return run.made(held["n"], seed=held["seed"], **held["options"])
    except (ValueError, RuntimeError, IndexError, ArithmeticError) as error:
        raise DataError(f"{file}: these samples cannot be made: {first_line(error)}") from None


def _compared(run: Run, path: Path, held: dict[str, Any], content: str, made: dict[str, Any]) -> Verdict:
    prompt, n, kind = held["options"].get("prompt", ""), held["n"], KINDS[run.spec.kind]
    expected = _expected(run, made, prompt, path)
    names = [place(i, made, run.spec.classes) for i in range(n)] if path.is_dir() else None
    distance = {"image": _pixel_distance, "text": _text_distance, "table": _row_distance}[run.spec.kind]
    far = [distance(a, b) for a, b in zip(expected, items(path, run, made, expected, names))]
    far += [UNLIKE] * (n - len(far))
    wrong = [i for i, distant in enumerate(far) if distant]
    files = named(path, names, wrong) if names else {}
    untouched, repeated = content == held["content_sha256"], values_sha256(made, prompt) == held["values_sha256"]
    if not wrong and not any(files.values()) and repeated:
        if untouched:
            return Verdict("same bytes", (f"same bytes: {path} is what {run.path} makes, all {n:,} {kind}",), n)
        said = f"same values: the {n:,} {kind} in {path} are those {run.path} makes; the file is written otherwise"
        return Verdict("same values", (said,), n)
    said = [f"differs: {len(wrong):,} of {n:,} {kind} in {path} are not those {run.path} makes"]
    largest = None
    if wrong:
        said[0] += f"; the first is number {wrong[0]:,}, counted from 0"
        comparable = [distant for distant in far if 0 < distant < UNLIKE]
        if run.spec.kind == "image" and comparable:
            largest = max(comparable)
            said[0] += f"; a pixel differs by up to {largest} of 255"
        elif run.spec.kind == "table":
            said[0] += f", in {far[wrong[0]]:,} cells"
        elif run.spec.kind == "text":
            said[0] += f", from its character {far[wrong[0]]:,} on"
    for what, which in files.items():
        if which:
            more = f" and {len(which) - 5:,} more" if len(which) > 5 else ""
            said.append(f"{what}: {', '.join(map(_shown, which[:5]))}{more}")
    said.append(_reason(held, untouched, repeated))
    return Verdict("differs", tuple(said), n, len(wrong), wrong[0] if wrong else None, largest, files)


def _expected(run: Run, made: dict[str, Any], prompt: str, path: Path) -> Sequence[Any]:
    """Samples made again, item by item as `items` reads them back."""
    if isinstance(run, TableRun):
        return rewritten(run, made["rows"], path.suffix)
    return made["x"] if run.spec.kind == "image" else [prompt + text for text in made["text"]]


def _reason(held: dict[str, Any], untouched: bool, repeated: bool) -> str:
    """The likely reason in words: what was touched, or what the run is used with now."""
    others = _differences(held["made_with"], _made_with())
    if repeated:
        return "likely because the samples were changed after they were made: the run still makes what the sidecar says"
    if untouched and others:
        return f"likely because the run makes other samples here: {'; '.join(others)}"
    if untouched:
        return "likely because this is another kind of processor, or the sidecar was changed: the samples were not"
    changed = "the samples were changed after they were made, and the run does not make what the sidecar says"
    return f"likely because {changed}{': ' if others else ''}{'; '.join(others)}"


def _differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What two JSON values differ in, a phrase each."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [f"{name} was {_shown(then)}, is {_shown(now)}"]
    found = []
    for key in [*now, *sorted(then.keys() - now.keys())]:
        found += _differences(then.get(key), now.get(key), f"{name}.{_shown(key)}".lstrip("."))
    return found


def _pixel_distance(expected: np.ndarray, found: np.ndarray | None) -> int:
    return UNLIKE if found is None else int(np.abs(expected.astype(np.int16) - found).max())


def _text_distance(expected: str, found: str | None) -> int:
    """0 for equal texts, else the first character that differs, counted from 1."""
    if expected == found:
        return 0
    pairs = list(zip(expected, found or ""))
    return 1 + next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _row_distance(expected: tuple[str | None, ...], found: tuple[str | None, ...] | None) -> int:
    """How many cells differ."""
    if found is None or len(found) != len(expected):
        return len(expected)
    return sum(a != b for a, b in zip(expected, found))


def _items(made: Mapping[str, Any]) -> Sequence[Any]:
    return next(made[name] for name in ("text", "rows", "x") if name in made)
