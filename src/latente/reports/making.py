"""How a run was made: the facts of run.json, the command that makes it again, and both as rows of the page.

run.json, metrics.jsonl --facts--> plain values for metrics.json --settings--> (title, rows) ...
                        --command--> a line for a shell, or Python where the data was in memory
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latente import __version__
from latente.data.sources import OPTIONS
from latente.looks import rule
from latente.reports.curves import records
from latente.reports.words import duration, told

if TYPE_CHECKING:
    from latente.run import Run

KEPT = ("model", "model_sha256", "size", "seed", "budget", "init", "status", "stopped", "seconds", "device", "shard",
        "data", "spec", "config", "recipe", "plan")  # fmt: skip


def facts(run: Run) -> dict[str, Any]:
    """All of run.json that says how a run was made, with its name, size in numbers, weights and the command that makes it again."""
    weights = run.path / "weights.safetensors"
    line, notes = command(run)
    return {
        "name": run.path.resolve().name,
        "path": str(run.path),
        **{name: run.record.get(name) for name in KEPT},
        "versions": {"latente": __version__, **run.record["versions"]},
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        "command": line,
        "command_notes": notes,
    }


def command(run: Run) -> tuple[str, list[str]]:
    """What trains the run again, and what to know about it. Python where the source was in memory, else a line for a shell."""
    record = run.record
    source, own = record["data"]["source"], record["model_sha256"]
    model = f"{record['model']}.py" if own else record["model"]
    given = {**_asked(run), **_changed(run)}
    notes = [f"{model} is the user's own model file, of SHA-256 {own}."] if own else []
    if "budget" in given:
        notes.append(
            "The number of steps was measured on the machine that trained, so the same command gives a similar model, not the same one."
        )
    if record.get("extension"):
        notes.append("This run was made longer by latente resume; the command trains all its steps in one go.")
    if source is None:
        notes.append("The data was in memory and is not kept: `source` stands for the same arrays or texts.")
        listed = "".join(f", {name}={value!r}" for name, value in given.items())
        return f"latente.train({model!r}, source{listed})", notes
    processes = record["plan"]["processes"]
    start = ["latente"]
    if processes > 1:
        start = ["torchrun", "--nproc-per-node", str(processes), "-m", "latente"]
    optional = record["config"].keys() | record["recipe"].keys()
    return shlex.join([*start, "train", model, source, *_flags(given, optional)]), notes


def _asked(run: Run) -> dict[str, Any]:
    """What the training itself was asked for: how long, from what, under which rule. Threads too: the last bits of the weights depend
    on them."""
    record, plan = run.record, run.record["plan"]
    longer = record.get("extension")
    budget = None if longer else record["budget"]
    # The plan tells where a training ended; the first event that moved the end, where it was to end.
    moved = (event["from"] for event in records(run) if "from" in event)
    steps = longer["steps"] if longer else next(moved, plan["steps"])
    given: dict[str, Any] = {"budget": budget} if budget else {"steps": steps}
    given |= {"size": record["size"], "seed": record["seed"], "threads": plan["threads"]}
    usual = {
        "init": None,
        "precision": "float32",
        "checkpoint_every": max(1, -(-steps // 10)),
        "stop": rule("auto", run.family, budget is not None, bool(record["shard"])),
        "compile": False,
        "shard": False,
    }
    was = {**record, **plan}
    return given | {name: was[name] for name, value in usual.items() if was[name] != value}


def _changed(run: Run) -> dict[str, Any]:
    """Settings of the model, the recipe and the reading that differ from what the family takes for this size."""
    record = run.record
    bases = (
        (record["config"], run.family.Config.preset(record["size"], run.spec)),
        (record["recipe"], run.model.recipe),
        (record["data"]["options"], OPTIONS[record["spec"]["kind"]]()),
    )
    timed = record["budget"] and not record.get("extension")  # a budget measures how to accumulate
    return {
        name: value
        for had, base in bases
        for name, value in had.items()
        if value is not None
        and json.dumps(value) != json.dumps(asdict(base).get(name))
        and not (timed and name == "accumulate")
    }


def _flags(given: Mapping[str, Any], optional: Iterable[str]) -> Iterator[str]:
    """Words of a command line. `optional` settings that are on or off are followed by a word; the others are a flag or its --no-."""
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool) and name not in optional:
            yield f"--{flag}" if value else f"--no-{flag}"
            continue
        yield f"--{flag}"
        yield from (str(part) for part in (value if isinstance(value, list | tuple) else [value]))


def settings(made: Mapping[str, Any], measured: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, rows) of the last part of the page, from `facts` and from how an evaluation was made."""
    data = made["data"]
    run = {
        "model": made["model"], "size": made["size"], "parameters": made["parameters"], "seed": made["seed"], "budget": made["budget"],
        "begun with the weights of": made["init"], "training time": duration(made["seconds"]), "status": made["status"],
        "why it stopped": made["stopped"], "device": made["device"], "weights, SHA-256": made["weights_sha256"],
        "model file, SHA-256": made["model_sha256"],
    }  # fmt: skip
    kept = {name: value for name, value in data.items() if name not in ("source", "options")}
    parts = {
        "Run": run,
        "Data": {"source": data["source"] or "in memory", **kept},
        "Model settings": made["config"],
        "Training settings": made["recipe"],
        "Training plan": made["plan"],
        "How the data was read": data["options"],
        "Software": made["versions"],
        "How it was measured": measured,
    }
    return [(title, list(_pairs(part))) for title, part in parts.items() if part]


def _pairs(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of values that may be nested; what is not set is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{before}{name} ")
        elif value is not None:
            yield f"{before}{name}".replace("_", " "), told(value)
