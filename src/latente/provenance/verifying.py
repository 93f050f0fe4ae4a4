"""Making again what was made, as its sidecar says, and comparing: the same bytes, the same values, or what differs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from latente.data.errors import DataError, first_line
from latente.provenance import rows, targets
from latente.provenance.kind import Kind, Made, Unlike, files
from latente.provenance.sidecars import content_sha256, identity, kind_of, made_with, read, shown, sidecar
from latente.provenance.writing import applied, check_options
from latente.run import ImageRun, PairRun, Run, TableRun
from latente.training import devices


@dataclass(frozen=True)
class Verdict:
    """What came of making it again."""

    outcome: Literal["same bytes", "same values", "differs"]
    said: tuple[str, ...]
    """in words, a sentence each; the first begins with the outcome"""
    n: int
    """how many there should be"""
    differing: int = 0
    """how many are missing, cannot be read, or have other values"""
    first: int | None = None
    """the first of those, counted from 0"""
    largest: float | None = None
    """the largest difference of a number (of a pixel: of 255) among those that could be compared; None for texts"""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of a folder: its files that are "changed", "missing" or "added" """


def verify(run: Run, path: str | Path, source: Any = None) -> Verdict:
    """Makes what is at `path` again, as its sidecar says, and compares; `source` is what `encode`, `reconstruct`, `denoise` or `fill` was
    given, or `translate`: a file of lines, or texts; not needed for a .tsv or .jsonl, which hold them.

    Raises DataError when there is nothing or no sidecar, when it is damaged or asks for what this run cannot do, or when the
    source is not given or is not what it was.
    """
    path = Path(path)
    held = read(path)
    n, then, now = held["n"], held["run"], identity(run)
    if then != now:
        told = [f"differs: {run.path} is not the run that made {path}, or not as it was then"]
        told += _differences(then, now) if then["model"] == now["model"] else [f"it is a {now['model']}"]
        return Verdict("differs", tuple(told), n)
    kind = kind_of(run, held["what"])
    ways = {"sample": _sampling, "translate": _translating, "fill": _filling}
    try:
        make = ways.get(held["what"], _applying)(run, kind, held, path, source)
        with _mangled():
            kind.check_count(path, n)
        content, made = content_sha256(path), _made_again(make, held, sidecar(path))
        return _compared(run, kind, path, held, content, made)
    except Unlike as error:
        return Verdict("differs", (f"differs: {path}: {error}",), n, n)


# ---- making again --------------------------------------------------------------------------------------------------


def _sampling(run: Run, kind: Kind, held: dict[str, Any], path: Path, source: Any) -> Callable[[], Made]:
    """How to sample as the sidecar says. Raises DataError for what the run cannot do, or a machine cannot hold."""
    n, options = held["n"], held["options"]
    if source is not None:
        raise DataError(f"{path} was sampled, from no source: leave --source out")
    try:
        check_options(run, options)
    except ValueError as error:
        raise DataError(f"{sidecar(path)} is damaged: {error}") from None
    if not kind.fits(n, options, run.spec):
        raise DataError(f"{sidecar(path)} asks for more than can be made again at once: {n:,} {kind.name}s")
    return lambda: kind.whole(run.made(n, seed=held["seed"], **options), options)


def _translating(run: Run, kind: Kind, held: dict[str, Any], path: Path, source: Any) -> Callable[[], Made]:
    """How to translate the sources again. Raises DataError when they are neither given nor in the file, or are not those of then."""
    then, options = held["source"], held["options"]
    if not isinstance(run, PairRun):
        raise DataError(f"{sidecar(path)} is damaged: {run.family.name} cannot translate")
    try:
        check_options(run, options, kind)
    except ValueError as error:
        raise DataError(f"{sidecar(path)} is damaged: {error}") from None
    if not kind.fits(held["n"], options, run.spec):
        raise DataError(
            f"{sidecar(path)} asks for more than can be made again at once: {options['n']:,} {kind.name}s each"
        )
    called = "texts of no file" if then["name"] is None else shown(then["name"])
    if source is not None:
        sources = targets.given(source)
    else:
        with _mangled():
            sources = targets.sources_of(path, options.get("n", 1))
    if sources is None:
        raise DataError(f"{path} was made of {called} and holds no sources: give them again with --source FILE")
    if targets.fingerprint(sources) != then["fingerprint"]:
        if source is None:
            raise DataError(
                f"the sources in {path} are not those it was made of ({called}): give these with --source FILE"
            )
        what = source if isinstance(source, str | Path) else "the source"
        raise DataError(f"{what} is not what {path} was made of ({called}), or has changed since")

    def make() -> Made:
        made = targets.translated(run, sources, options, held["seed"], path)
        if len(kind.items(made)) != held["n"]:
            raise Unlike(f"it should hold {len(kind.items(made)):,} {kind.name}s, not {held['n']:,}")
        return made

    return make


def _filling(run: Run, kind: Kind, held: dict[str, Any], path: Path, source: Any) -> Callable[[], Made]:
    """How to fill the gaps again. Raises DataError when the rows are not given, or are not those of then."""
    then = held["source"]
    if not isinstance(run, TableRun) or not hasattr(run.model, "fill") or held["options"]:
        raise DataError(f"{sidecar(path)} is damaged: {run.family.name} cannot fill like that")
    called = "rows in memory" if then["name"] is None else shown(then["name"])
    if source is None:
        raise DataError(f"{path} was made of {called}: give that again with --source")
    gaps = run.read(source)
    if rows.fingerprint(gaps) != then["fingerprint"]:
        given = source if isinstance(source, str | Path) else "the source"
        raise DataError(f"{given} is not what {path} was made of ({called}), or has changed since")
    if held["n"] != len(gaps):
        raise DataError(f"{sidecar(path)} is damaged: n is {held['n']:,}, but the source has {len(gaps):,} rows")
    return lambda: rows.filled(run, gaps, held["seed"])


def _applying(run: Run, kind: Kind, held: dict[str, Any], path: Path, source: Any) -> Callable[[], Made]:
    """How to put the source through the run again. Raises DataError when it is not given, or is not the one of then."""
    what, then = held["what"], held["source"]
    if not isinstance(run, ImageRun) or not hasattr(run.model, what):
        raise DataError(f"{sidecar(path)} is damaged: {run.family.name} cannot {what}")
    if held["options"] != asdict(run.reading):
        raise DataError(f"{sidecar(path)} is damaged: it reads the source otherwise than this run does")
    called = "data in memory" if then["name"] is None else shown(then["name"])
    if source is None:
        raise DataError(f"{path} was made of {called}: give that again with --source")
    data = run.open(source)
    if data.fingerprint != then["fingerprint"]:
        given = source if isinstance(source, str | Path) else "the source"
        raise DataError(f"{given} is not what {path} was made of ({called}), or has changed since")
    if held["n"] != len(data.items):
        raise DataError(
            f"{sidecar(path)} is damaged: n is {held['n']:,}, but the source has {len(data.items):,} images"
        )
    return lambda: applied(run, what, data)


def _made_again(make: Callable[[], Made], held: dict[str, Any], file: Path) -> Made:
    """What `make` gives with the threads of then, for they decide the order of sums."""
    threads = held["made_with"]["threads"]
    try:
        with devices.threads(threads if 1 <= threads <= 16 * (os.cpu_count() or 1) else torch.get_num_threads()):
            return make()
    except (ValueError, RuntimeError, IndexError, ArithmeticError) as error:
        raise DataError(f"{file}: this cannot be made: {first_line(error)}") from None


# ---- comparing -----------------------------------------------------------------------------------------------------


def _compared(run: Run, kind: Kind, path: Path, held: dict[str, Any], content: str, made: Made) -> Verdict:
    n, kinds, far = held["n"], f"{kind.name}s", _distances(run, kind, path, made)
    wrong = [i for i, distance in enumerate(far) if distance != 0]
    named = _named(path, kind.places(made, run.spec), wrong) if path.is_dir() else {}
    untouched, repeated = content == held["content_sha256"], kind.sha256(made) == held["values_sha256"]
    if not wrong and not any(named.values()) and repeated:
        if untouched:
            return Verdict("same bytes", (f"same bytes: {path} is what {run.path} makes, all {n:,} {kinds}",), n)
        said = f"same values: the {n:,} {kinds} in {path} are those {run.path} makes; the file is written otherwise"
        return Verdict("same values", (said,), n)
    said = [f"differs: {len(wrong):,} of {n:,} {kinds} in {path} are not those {run.path} makes"]
    largest = None
    if wrong:
        words, largest = kind.measured([far[i] for i in wrong])
        said[0] += f"; the first is number {wrong[0]:,}, counted from 0{words}"
    for what, which in named.items():
        if which:
            more = f" and {len(which) - 5:,} more" if len(which) > 5 else ""
            said.append(f"{what}: {', '.join(map(shown, which[:5]))}{more}")
    said.append(_reason(kinds, held, untouched, repeated))
    return Verdict("differs", tuple(said), n, len(wrong), wrong[0] if wrong else None, largest, named)


def _distances(run: Run, kind: Kind, path: Path, made: Made) -> list[float | None]:
    """How far each is from what it should be; None where nothing can be compared."""
    expected = kind.items(made)
    with _mangled():
        pairs = zip(expected, kind.read(path, made, run.spec))
        far = [None if found is None else kind.distance(item, found) for item, found in pairs]
    return far + [None] * (len(expected) - len(far))


def _named(folder: Path, places: list[str], wrong: list[int]) -> dict[str, tuple[str, ...]]:
    found = files(folder)
    return {
        "changed": tuple(places[i] for i in wrong if places[i] in found),
        "missing": tuple(place for place in places if place not in found),
        "added": tuple(sorted(found.keys() - set(places))),
    }


@contextmanager
def _mangled() -> Iterator[None]:
    """Turns whatever the readers of numpy, zipfile and Arrow raise on mangled files into Unlike."""
    try:
        yield
    except Unlike:
        raise
    except Exception as error:
        raise Unlike(f"it cannot be read: {first_line(error)}") from None


# ---- in words ------------------------------------------------------------------------------------------------------


def _reason(kinds: str, held: dict[str, Any], untouched: bool, repeated: bool) -> str:
    """The likely reason in words: what was touched, or what the run is used with now."""
    others = _differences(held["made_with"], made_with())
    images = "source" in held and held["what"] not in ("translate", "fill")
    source = "the source has other names, labels or another order now, " if images else ""
    if repeated and untouched and source:
        return "likely because the files of the source have other names now: the values are what the sidecar says"
    if repeated:
        return (
            f"likely because the {kinds} were changed after they were made: the run still makes what the sidecar says"
        )
    if untouched and others:
        return f"likely because {source and source + 'or '}the run makes other {kinds} here: {'; '.join(others)}"
    if untouched:
        return f"likely because {source}this is another kind of processor, or the sidecar was changed: the {kinds} were not"
    changed = f"the {kinds} were changed after they were made, and the run does not make what the sidecar says"
    return f"likely because {changed}{': ' if others else ''}{'; '.join(others)}"


def _differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What two JSON values differ in, a phrase each."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [f"{name} was {shown(then)}, is {shown(now)}"]
    found = []
    for key in [*now, *sorted(then.keys() - now.keys())]:
        found += _differences(then.get(key), now.get(key), f"{name}.{shown(key)}".lstrip("."))
    return found
