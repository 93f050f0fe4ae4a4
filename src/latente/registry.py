"""Model families by name. A family is one file in `latente/models`; its file name is its name everywhere (with `-` for `_`).

Nothing is listed by hand: adding a file adds the family. A user's own file is opened by path and known by its SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDER = Path(__file__).with_name("models")


@dataclass(frozen=True)
class Family:
    """A model family: its name, its Config and Model classes, and the hash of its file when it is the user's own."""

    name: str
    Config: Any
    Model: Any
    description: str
    sha256: str | None = None

    @property
    def kind(self) -> str:
        """The kind of data it takes."""
        return self.Model.accepts[0].kind


def names() -> list[str]:
    """All built-in families, sorted; reads file names only."""
    return sorted(p.stem.replace("_", "-") for p in _FOLDER.glob("*.py") if p.stem != "__init__")


def summary(name: str) -> str:
    """The first line of a family's file, without importing it."""
    first = (_FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8").split("\n", 1)[0]
    return first.strip().strip('"').rstrip(".")


def load(name: str) -> Family:
    """A built-in family, or the one in a `.py` file. Raises ValueError naming what there is."""
    if name.endswith(".py"):
        return load_file(name)
    if name not in names():
        raise ValueError(f"no model called {name!r}; there are {', '.join(names())}, or give a .py file")
    return _family(name, importlib.import_module(f"latente.models.{name.replace('-', '_')}"))


def load_file(path: str | Path, sha256: str | None = None) -> Family:
    """The family in the user's own file. With `sha256`, a file of any other content is refused before a line of it runs."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no model file at {path}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"{path} is not the file this run was trained with (SHA-256 {found[:12]}..., the run wants {sha256[:12]}...)"
        )
    spec = importlib.util.spec_from_loader(f"latente_user_{found[:16]}", loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    module.__file__ = str(path)
    # The bytes that were hashed are the bytes that run: reading the file a second time could give others.
    exec(compile(content, str(path), "exec"), module.__dict__)
    return _family(path.stem, module, found)


def _family(name: str, module: ModuleType, sha256: str | None = None) -> Family:
    missing = [part for part in ("Config", "Model") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"{module.__file__} defines no {' and no '.join(missing)}; see docs/adding-a-model.md")
    description = (module.__doc__ or name).strip().split("\n", 1)[0].rstrip(".")
    return Family(name, module.Config, module.Model, description, sha256)
