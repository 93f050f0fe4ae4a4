"""What stands in a sidecar, and reading one that may come from a stranger: plain values of known types, nothing in it is run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latente.data.errors import DataError, first_line
from latente.provenance.images import Images
from latente.provenance.kind import Kind, files
from latente.provenance.rows import Rows
from latente.provenance.targets import Targets
from latente.provenance.texts import Texts
from latente.provenance.vectors import Vectors
from latente.run import CHUNK, PairRun, Run, TextRun

SUFFIX = ".latente.json"
KINDS: dict[str, Kind] = {"image": Images(), "text": Texts(), "table": Rows()}
"""what is sampled, by kind of data"""
APPLIED: dict[str, Kind] = {
    "encode": Vectors(), "reconstruct": Images(), "denoise": Images(), "translate": Targets(), "fill": Rows()
}  # fmt: skip
"""what is made of a source, by what was done"""
OPTIONS: dict[str, dict[str, type]] = {name: kind.options for name, kind in KINDS.items()}
"""What can be asked of sampling beside n and seed, by kind of data."""

_LONGEST = 4 << 20  # bytes of a sidecar
_RUN = {
    "model": str, "model_sha256": str | None, "config": dict, "spec": dict, "size": str, "seed": int,
    "data": {"name": str, "fingerprint": str}, "weights_sha256": str, "tokenizer": str | None,
}  # fmt: skip
_MADE_WITH = {
    "torch": str, "latente": str, "threads": int, "machine": str, "processor": str, "numpy": str, "python": str, "chunk": int,
}  # fmt: skip
_EVERY = {
    "format": int, "what": str, "n": int, "options": dict, "run": _RUN, "made_with": _MADE_WITH,
    "content_sha256": str, "values_sha256": str, "scores": list,
}  # fmt: skip
_SIDECARS = {
    "sample": {**_EVERY, "seed": int},
    **{what: {**_EVERY, "source": {"name": str | None, "fingerprint": str}} for what in APPLIED},
}
for _drawn in ("translate", "fill"):
    _SIDECARS[_drawn] |= {"seed": int}


def sidecar(path: str | Path) -> Path:
    """Where the provenance of what is at `path` lies: beside it, `made` -> `made.latente.json`."""
    return Path(path).with_name(Path(path).name + SUFFIX)


def kind_of(run: Run, what: str) -> Kind:
    """The kind of things `run` makes when it does `what`. Raises DataError for samples of a model that makes none."""
    if what == "sample" and run.spec.kind not in KINDS:
        raise DataError(f"{run.path} makes no samples")
    return APPLIED[what] if what in APPLIED else KINDS[run.spec.kind]


# ---- writing -------------------------------------------------------------------------------------------------------


def record(run: Run, kind: Kind, made: Mapping[str, Any], how: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The sidecar of what was made and written to `path`; `how` holds "what", "options", and "seed" or "source"."""
    return {
        "format": 1, "n": len(kind.items(made)), **how, "run": identity(run), "made_with": made_with(),
        "content_sha256": content_sha256(path), "values_sha256": kind.sha256(made), "scores": _scores(run.path),
    }  # fmt: skip


def identity(run: Run) -> dict[str, Any]:
    """What makes a run the one it is, in plain JSON values."""
    known = run.record
    made = {name: known[name] for name in ("model", "model_sha256", "config", "spec", "size", "seed")}
    made["data"] = {name: known["data"][name] for name in ("name", "fingerprint")}
    made["weights_sha256"] = weights_sha256(run.model.state_dict())
    tokenizers = run.tokenizers if isinstance(run, PairRun) else [run.tokenizer] if isinstance(run, TextRun) else []
    made["tokenizer"] = " ".join(tokenizer.digest() for tokenizer in tokenizers) or None
    return json.loads(json.dumps(made))


def made_with() -> dict[str, Any]:
    """The software and the machine that decide what exactly is made."""
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
    for name, file in sorted(files(path).items()):
        digest.update(f"{name}\0{content_sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# ---- reading a sidecar ---------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    """The sidecar of what is at `path`, its types checked. Raises DataError when there is none or it is damaged."""
    path, file = Path(path), sidecar(path)
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"no samples, and nothing else that was made, at {path}")
    if not file.is_file():
        raise DataError(
            f"{path} has no {file.name} beside it; only what sample, translate, fill, encode, reconstruct or denoise wrote can be verified"
        )
    try:
        with file.open("rb") as handle:
            content = handle.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError("it is too long")
        held = json.loads(content)
        if not isinstance(held, dict):
            raise ValueError("it is no JSON object")
        if type(held.get("format")) is int and held["format"] != 1:
            raise ValueError(f"its format {held['format']!r:.20} is not one this version of latente reads")
        what = held.setdefault("what", "sample")  # the first sidecars were of samples alone
        if not (isinstance(what, str) and what in _SIDECARS):
            raise ValueError(f"what was done is none of {', '.join(_SIDECARS)}")
        _check_shape(held, _SIDECARS[what], "it")
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
            raise ValueError(f"{'no' if other in shape else 'unknown'} entry {shown(other)}")
        for key, inner in shape.items():
            _check_shape(value[key], inner, key)
    elif not isinstance(value, shape) or isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}, of the wrong type")


def shown(value: Any) -> str:
    """A value of a file for a line on a terminal: short, and without control characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 40 else f"{text[:37]}..."
