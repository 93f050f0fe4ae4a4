"""Making, and writing what was made with its sidecar: both or neither."""

from __future__ import annotations

import inspect
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latente import checkpoint
from latente.data import hub
from latente.data.dataset import Dataset
from latente.data.errors import DataError
from latente.data.pair_outputs import columns
from latente.data.sources import lasting
from latente.provenance import rows, targets
from latente.provenance.kind import Kind
from latente.provenance.sidecars import APPLIED, KINDS, record, sidecar
from latente.run import ImageRun, PairRun, Run, TableRun


def check_free(path: str | Path) -> None:
    """Raises DataError when what is made cannot get a sidecar at `path`: asked before the work, not after it."""
    if sidecar(path).exists() or sidecar(path).is_symlink():
        raise DataError(f"{sidecar(path)} exists already; move it, or choose another --out")


def check_output(what: str, path: str | Path) -> None:
    """Raises DataError when what `encode`, `reconstruct`, `denoise` or `fill` makes cannot be written to `path`."""
    APPLIED[what].check_output(Path(path))
    check_free(path)


def check_options(run: Run, options: Mapping[str, Any], kind: Kind | None = None) -> None:
    """Raises ValueError, as for a flag, for an option that is not of this run's kind of data or model, or is of another type.

    `kind` is what is made, where that is not samples.
    """
    kind = kind or KINDS[run.spec.kind]
    known, parameters = kind.options, inspect.signature(run.model.sample).parameters
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name not in known or (name in kind.some and name not in parameters):
            raise ValueError(f"{run.family.name} has no {flag}")
        if known[name] is float and not (_number(value) and math.isfinite(value)):
            raise ValueError(f"{flag} {value!r:.40}: a finite number")
        least = kind.least.get(name, 1)
        if known[name] is int and (type(value) is not int or not least <= value < 1 << 31):
            raise ValueError(f"{flag} {value!r:.40}: a whole number from {least}")
        texts = value if known[name] is list and isinstance(value, list | tuple) else [value]
        if known[name] in (str, list) and not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{flag}: text")


def write(run: Run, made: Mapping[str, Any], options: Mapping[str, Any], path: str | Path) -> Path:
    """Writes what `run.made(n, seed=..., **options)` gave, and its sidecar: both or neither.

    `options` holds "seed" and what else `sample` was given; a text is written after its prompt. Raises ValueError (DataError)
    when either place is taken, the kind of file is unknown, or an option is none of `OPTIONS`.
    """
    asked = {n: list(v) if isinstance(v, tuple) else v for n, v in options.items() if n != "seed"}
    check_options(run, asked)
    kind, how = KINDS[run.spec.kind], {"what": "sample", "seed": options.get("seed", 0), "options": asked}
    return _written(run, kind, kind.whole(made, asked), how, Path(path))


def apply(run: ImageRun, what: str, source: Any, path: str | Path) -> int:
    """Writes what `encode`, `reconstruct` or `denoise` makes of a source, and its sidecar: both or neither; gives how many.

    Raises ValueError (DataError) when either place is taken, the kind of file is unknown, or the source or the run cannot be used.
    """
    check_output(what, path)
    run.require(what)
    data, kept = run.open(source), lasting(source)
    local = kept is not None and Path(kept.removeprefix(hub.PREFIX)).exists()
    name = data.name if local else kept  # where things lie on this disk is nobody's business
    how = {
        "what": what, "source": {"name": name, "fingerprint": data.fingerprint}, "options": asdict(run.reading),
    }  # fmt: skip
    _written(run, APPLIED[what], applied(run, what, data), how, Path(path))
    return len(data.items)


def write_targets(
    run: PairRun, sources: Sequence[str], found: Sequence[Sequence[Any]], options: Mapping[str, Any], path: str | Path,
    name: str | None = None,
) -> Path:  # fmt: skip
    """Writes what `run.hypotheses(sources, **options)` `found`, and its sidecar: both or neither.

    `name` is what the file of the sources is called. Raises ValueError (DataError) when either place is taken, the kind of file is
    unknown, or an option is none of translating.
    """
    path, kind = Path(path), APPLIED["translate"]
    asked = {option: value for option, value in options.items() if option != "seed"}
    check_options(run, asked, kind)
    how = {
        "what": "translate", "seed": options.get("seed", 0), "options": asked,
        "source": {"name": name, "fingerprint": targets.fingerprint(sources)},
    }  # fmt: skip
    return _written(run, kind, columns(path, sources, found), how, path)


def write_filled(run: TableRun, source: Any, path: str | Path, *, seed: int = 0) -> int:
    """Writes the rows of a source with their gaps filled, and their sidecar: both or neither; gives how many.

    Raises ValueError (DataError) when either place is taken, the kind of file is unknown, or the source or the run cannot be used.
    """
    check_output("fill", path)
    run.require("fill")
    name = Path(source).name if isinstance(source, str | Path) else None
    source = run.read(source)
    how = {
        "what": "fill", "seed": seed, "options": {},
        "source": {"name": name, "fingerprint": rows.fingerprint(source)},
    }  # fmt: skip
    made = rows.filled(run, source, seed)
    _written(run, APPLIED["fill"], made, how, Path(path))
    return len(made["rows"])


def applied(run: ImageRun, what: str, data: Dataset) -> dict[str, Any]:
    """What `run` makes of the images, and what they are called."""
    return {"latent" if what == "encode" else "x": getattr(run, what)(data), "name": data.names(data.items)}


def _written(run: Run, kind: Kind, made: Mapping[str, Any], how: Mapping[str, Any], path: Path) -> Path:
    check_free(path)
    folder = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    draft = folder / path.name
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had our number
    try:
        folder.mkdir(parents=True)
        kind.write(draft, made, run.spec)
        checkpoint.write_json(sidecar(draft), record(run, kind, made, how, draft))
        if path.exists():
            raise DataError(f"{path} exists already; choose another --out")
        sidecar(draft).rename(sidecar(path))  # first, so that a kill leaves nothing of unknown origin
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


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
