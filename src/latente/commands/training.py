"""The commands that train: `train` and `resume`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from latente.flags import flags, parsed


@dataclass
class Train:
    """Train a model on your data; without a limit, for five minutes."""

    source: Annotated[str, "positional"]
    """a path (a folder of images or texts, .npy, .npz, IDX, a text file, .jsonl, .csv, .tsv, .xlsx, .parquet, .arrow), hf:NAME, or a
    name (digits, fashion-mnist; shakespeare, pydoc; adult, wine, breast-cancer, diabetes; roman, cmudict)"""
    out: Path | None = None
    """the run directory to make (default: runs/MODEL-SOURCE-N)"""
    budget: str | None = None
    """total time, as 60s, 5m or 1h30m: size, precision and number of steps are chosen to fit"""
    steps: int | None = None
    """train this many steps instead"""
    epochs: int | None = None
    """train this many passes over the data instead"""
    seed: int = 0
    """the same command with the same seed gives the same weights (with --steps or --epochs)"""
    size: Literal["tiny", "small", "base"] | None = None
    """how large the model is (default: by the budget, or small)"""
    init: Path | None = None
    """start from the weights of this run"""
    threads: int | None = None
    """processor threads (default: all)"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to train"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: what measures faster within a budget, else float32"""
    shard: bool = False
    """behind torchrun: each process keeps a part of the model (FSDP) instead of a copy of it"""
    compile: bool = False
    """torch.compile the phases without gradient penalty (needs a C++ compiler)"""
    stop: Literal["auto", "judge", "loss", "never"] = "auto"
    """what may end it early: judge (samples can no longer be told apart, or get no better), loss (held-out loss, for pairs the share of
    wrong tokens, gets no better); auto: within a budget, loss, or judge for a model without one (gan)"""
    checkpoint_every: int | None = None
    """steps between checkpoints (default: ten a run)"""
    track: Literal["tensorboard"] | None = None
    """also log there"""
    quiet: bool = False
    """no progress"""


def train(words: list[str], started: float) -> int:
    from latente import registry

    if not words or words[0].startswith("-"):
        wanted = "" if words and words[0] in ("-h", "--help") else "latente: which model? "
        print(
            f"{wanted}usage: latente train MODEL SOURCE [flags]; models: {', '.join(registry.names())}", file=sys.stderr
        )
        return 0 if not wanted else 2
    name, rest = words[0], words[1:]
    from latente.config import Recipe
    from latente.data.sources import OPTIONS

    family = registry.load(name)
    settings = (family.Config, Recipe, OPTIONS[family.kind])
    given = vars(parsed(flags(Train, *settings), rest, f"latente train {name}"))
    from latente import launch

    return _ended(lambda: launch.train(name, **{k: v for k, v in given.items() if v is not None}, started=started))


@dataclass
class Resume:
    """Go on with an interrupted run exactly, or make a finished one longer."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    steps: str | None = None
    """this many more steps, as +1000"""
    budget: str | None = None
    """about this much more time, as +10m"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to train"""
    track: Literal["tensorboard"] | None = None
    """also log there"""
    quiet: bool = False
    """no progress"""


def resume(words: list[str], started: float) -> int:
    given = vars(parsed(flags(Resume), words, "latente resume"))
    from latente import launch

    return _ended(lambda: launch.resume(given.pop("run"), **given))


def _ended(training: Callable[[], Any]) -> int:
    """Trains, and says how it ended; the exit code."""
    from latente.training.stopping import Diverged, Interrupted

    try:
        made = training()
    except Interrupted as error:
        path = shlex.quote(str(error.path))
        print(f"latente: interrupted at step {error.step}, saved; go on with: latente resume {path}", file=sys.stderr)
        return 130
    except Diverged as error:
        print(f"latente: {error}", file=sys.stderr)
        return 1
    _after(made)
    return 0


def _after(made: Any) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        run = shlex.quote(str(made.path))
        following = {
            "image": f"sample {run} --n 1000 --out samples",
            "text": f'sample {run} --prompt "..."',
            "table": f"sample {run} --n 1000 --out rows.csv",
            "pair": f'translate {run} "..."',
        }[made.spec.kind]
        what = "Targets" if made.spec.kind == "pair" else "Samples"
        print(f"{made.path} is ready. {what} so far: {made.path / 'samples'}")
        print(f"next: latente {following}")
