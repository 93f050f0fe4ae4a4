"""What every run is: a directory, its record, a model with its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from latente import checkpoint, registry
from latente.checkpoint import RunError
from latente.config import from_json
from latente.data.pairs import PairOptions
from latente.data.sources import OPTIONS, open_source
from latente.data.table import TableOptions
from latente.data.text import TextOptions
from latente.evaluation.findings import Evaluation, Say, silent
from latente.rng import key
from latente.spec import Spec, spec_from_json

ASSETS = "data"  # the folder of a run that holds its tokenizers, or what its columns are


def built(family: registry.Family, config: Any, spec: Spec, seed: int) -> Any:
    """A model with its initial weights. Raises ValueError when the settings cannot be built."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "init"))
        try:
            return family.Model(config, spec)
        except (RuntimeError, ArithmeticError, IndexError) as error:
            raise ValueError(f"{family.name} cannot be built with {config}: {error}") from None


def family_of(record: dict[str, Any], model_file: str | None) -> registry.Family:
    """The family of a run. Raises ValueError when it is a user's own file and that file is not given."""
    if record["model_sha256"] is None:
        return registry.load(record["model"])
    if model_file is None:
        raise ValueError(f"this run's model is a file of its user's own; give --model-file FILE ({record['model']}.py)")
    return registry.load_file(model_file, record["model_sha256"])


def options_of(path: Path, record: dict[str, Any]) -> Any:
    """How a run's source is read again; texts by the run's own tokenizers, a table as its columns were found to be."""
    options = from_json(OPTIONS[record["spec"]["kind"]], record["data"]["options"])
    if isinstance(options, TableOptions):
        return replace(options, columns=str(path / ASSETS))
    if isinstance(options, PairOptions):
        return options.by(path / ASSETS)
    return replace(options, tokenizer=str(path / ASSETS)) if isinstance(options, TextOptions) else options


def averaged_weights(path: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of the best checkpoint; where nothing was averaged, its weights."""
    try:
        return checkpoint.read_tensors(path, "best", "ema")
    except RunError:
        return checkpoint.read_tensors(path, "best", "model")


def usable_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights a run is used with: what it ended with, or its best checkpoint's while it is not finished."""
    return checkpoint.read_weights(path) or averaged_weights(path)


def positive(flag: str, value: int) -> None:
    """Raises ValueError for less than one."""
    if value < 1:
        raise ValueError(f"{flag} {value}: at least 1")


class Run(ABC):
    """A trained model: the averaged weights of its best checkpoint, and what they can do."""

    def __init__(self, path: Path, record: dict[str, Any], family: registry.Family) -> None:
        self.path, self.record, self.family = path, record, family
        self.spec: Any = spec_from_json(record["spec"])
        self.model = built(family, from_json(family.Config, record["config"]), self.spec, record["seed"])
        try:
            self.model.load_state_dict(usable_weights(path))
        except RuntimeError:
            raise ValueError(f"{path}: its weights are not those of the model that run.json describes") from None
        if not all(bool(torch.isfinite(value).all()) for value in self.model.state_dict().values()):
            raise ValueError(f"{path}: some of its weights are no finite numbers; it cannot be used")
        self.model.eval()

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Any:
        """`n` new items; the same seed gives the same items."""

    def made(self, n: int, *, seed: int = 0, **options: Any) -> dict[str, Any]:
        """What `sample` gives, item by item and as it is written to files."""
        return self.sample(n, seed=seed, **options)

    @abstractmethod
    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Scores on the test split, and what to look at. `source` is needed where training was on data in memory; `say` is
        told what is being measured."""

    def reopened(self, source: Any = None) -> Any:
        """The source this run was trained on. Raises ValueError when it was in memory and is not given, or has changed since."""
        source = self.record["data"]["source"] if source is None else source
        if source is None:
            raise ValueError(f"{self.path} was trained on data in memory; give the same: run.evaluate(source=...)")
        data = open_source(source, options_of(self.path, self.record))
        if data.fingerprint != self.record["data"]["fingerprint"]:
            what = source if isinstance(source, str | Path) else "the data"
            raise ValueError(f"{what} has changed since {self.path} was trained on it; restore it, or train anew")
        return data

    def require(self, what: str) -> None:
        """Raises ValueError when this run's family cannot do `what`."""
        if not hasattr(self.model, what):
            raise ValueError(f"{self.family.name} cannot {what}")
