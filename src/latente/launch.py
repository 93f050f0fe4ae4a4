"""`train` and `resume`: the whole path from a source to a run."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from latente import checkpoint, looks, registry
from latente.checkpoint import RunError
from latente.config import SIZES, Recipe, from_json, merge
from latente.data.errors import DataError
from latente.data.sources import OPTIONS, lasting, open_source
from latente.evaluation.findings import Say
from latente.rng import keyed
from latente.run import CHUNK, Run, averaged_weights, built, family_of, opened, options_of, usable_weights
from latente.spec import spec_from_json, spec_to_json
from latente.training import budget as budgets
from latente.training import devices, engine, progress, stopping
from latente.training.stopping import Diverged, Interrupted


def train(
    model: str = "vae", source: Any = "digits", *, out: str | Path | None = None,
    budget: str | None = None, steps: int | None = None, epochs: int | None = None, seed: int = 0, size: str | None = None,
    init: str | Path | None = None, threads: int | None = None, device: str = "auto", precision: str = "auto",
    compile: bool = False, shard: bool = False, stop: str = "auto", checkpoint_every: int | None = None, track: str | None = None,
    quiet: bool = False, started: float | None = None, **settings: Any,
) -> Run:  # fmt: skip
    """Trains `model` on `source` within `budget` ("5m" when no limit is given), or for `steps` or `epochs`.

    `settings` are fields of the model's Config, of Recipe and of the options of its kind of data. Raises ValueError
    (DataError, RunError), one clear line, for bad input; Interrupted after a signal, the run being saved; Diverged when the
    numbers blew up twice.
    """
    started = time.monotonic() if started is None else started
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    say: Say = (lambda line: None) if quiet else _say
    _check_words(budget, steps, epochs, threads, checkpoint_every, size, out, track)
    allowed = budgets.seconds(budget or "5m") if steps is None and epochs is None else None
    family = registry.load(model)
    stop = looks.rule(stop, family, allowed is not None, shard)
    config, recipe, options = _sort_settings(family, settings)
    fabric = devices.fabric(device, processes, shard)
    with fabric.rank_zero_first():
        data = open_source(source, options, None if quiet else _decoding())
    if not isinstance(data.spec, family.Model.accepts):
        raise ValueError(f"{family.name} does not take {data.spec.kind}s")
    for line in data.warnings():
        say(f"note: {line}")
    if shard:
        _check_shardable(family, recipe, processes)
    free = threads is None and processes == 1 and fabric.device.type == "cpu"  # to take fewer, where that is faster
    threads = threads or int(os.environ.get("OMP_NUM_THREADS") or len(_cores()))
    torch.set_num_threads(threads)

    def build(of: str) -> tuple[Any, Recipe]:
        preset = family.Config.preset(of, data.spec)
        if hasattr(preset, "for_items"):
            preset = preset.for_items(sum(map(len, data.splits.values())))
        made = built(family, merge(preset, config), data.spec, seed)
        if init is not None:
            _take_weights(made, Path(init))
        return made, merge(made.recipe, recipe)

    planned = {"processes": processes, "threads": threads, "compile": compile, "checkpoint_every": checkpoint_every,
               "validation_items": len(data.splits["validation"])}  # fmt: skip
    deadline = None
    chosen_size = size or "small"
    if allowed is not None:
        deadline = started + allowed * 0.97
        choice = _measured(fabric, data, build, planned, size, precision, deadline, seed, threads if free else 1)
        chosen_size, precision, planned["threads"] = choice.size, choice.precision, choice.threads or threads
        net, own = build(chosen_size)
        own = replace(own, accumulate=choice.recipe.accumulate)
        # A tenth more than measured, for a warm-up is slower; the deadline moves the end where it must.
        watch = looks.planned(fabric, data, net, seed, deadline - time.monotonic()) if stop == "judge" else looks.NONE
        left = deadline - time.monotonic() - watch.seconds
        total = fabric.broadcast(max(20, int(left * 1.1 / choice.seconds_per_step)))
    else:
        net, own = build(chosen_size)
        watch = looks.planned(fabric, data, net, seed, None) if stop == "judge" else looks.NONE
        total = steps or max(1, round((epochs or 1) * len(data.splits["train"]) / own.batch_size))
    if stop == "judge" and not watch.count:
        stop = "never"
        say(
            "note: too little time, or too few validation items, to judge samples while training: it goes on to the end"
        )
    plan = budgets.plan(
        total, own, precision="float32" if precision == "auto" else precision, stop=stop,
        looks=stopping.planned(total, watch.count), **planned,
    )  # fmt: skip
    record = {
        "format": 1, "model": family.name, "model_sha256": family.sha256, "config": asdict(net.config), "recipe": asdict(own),
        "size": chosen_size, "spec": spec_to_json(data.spec), "seed": seed, "plan": plan.to_json(),
        "budget": (budget or "5m") if allowed else None,
        "init": None if init is None else str(init),
        "data": {"source": lasting(source),
                 "name": data.name, "fingerprint": data.fingerprint, "options": asdict(options),
                 "splits": {n: len(s) for n, s in data.splits.items()}},
        "device": str(fabric.device), "shard": shard, "looks": watch.distance, "versions": _versions(),
        "status": "training", "stopped": None,
    }  # fmt: skip
    path = Path(fabric.broadcast(str(out or _free_name(family.name, data.name))))
    if fabric.is_global_zero:
        checkpoint.create(path, record, getattr(data, "save_assets", None))
    fabric.barrier()
    say(
        f"{family.name} ({chosen_size}) on {data.name}: {plan.steps:,} steps of {plan.batch_size}, {plan.precision}, into {path}"
    )
    torch.set_num_threads(plan.threads)
    try:
        return _fit(fabric, net, data, own, plan, record, path, track, quiet, deadline, family, look=watch.look)
    finally:
        torch.set_num_threads(threads)


def resume(
    path: str | Path, *, source: Any = None, budget: str | None = None, steps: str | int | None = None, model_file: str | None = None,
    device: str = "auto", track: str | None = None, quiet: bool = False,
) -> Run:  # fmt: skip
    """Goes on with a run exactly where its last checkpoint left it; `steps="+500"` or `budget="+10m"` make it longer."""
    path = Path(path)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    record = checkpoint.read_run(path)
    family = family_of(record, model_file)
    spec = spec_from_json(record["spec"])
    source = source if source is not None else record["data"]["source"]
    if source is None:
        raise ValueError(
            f"{path} was trained on arrays in memory; give the same ones: latente.resume(path, source=...)"
        )
    data = open_source(source, options_of(path, record), None if quiet else _decoding())
    if data.fingerprint != record["data"]["fingerprint"]:
        raise DataError(f"{source} has changed since {path} was trained on it; restore it, or train anew")
    plan = budgets.Plan.from_json(record["plan"])
    if processes != plan.processes:
        raise ValueError(f"{path} was trained by {plan.processes} processes; resume it with as many")
    torch.set_num_threads(plan.threads)
    recipe = from_json(Recipe, record["recipe"])
    net = built(family, from_json(family.Config, record["config"]), spec, record["seed"])
    fabric = devices.fabric(device, processes, record.get("shard", False))
    extended = _extension(path, record, recipe, steps, budget)
    if extended is None and record["status"] == "finished":
        raise ValueError(
            f"{path} is finished; to train it longer: latente resume {path} --steps +1000, or --budget +10m"
        )
    if extended is None and record.get("extension"):  # a longer run was asked for, and interrupted
        extended = budgets.Plan.from_json(record["extension"])
    if fabric.is_global_zero:
        checkpoint.clean(path)
        record |= {"status": "training", "extension": extended and extended.to_json()}
        checkpoint.write_json(path / "run.json", record)
    plan = extended or plan
    look = looks.again(fabric, data, record["seed"], record["looks"]) if plan.stop == "judge" else None
    return _fit(fabric, net, data, recipe, plan, record, path, track, quiet, None, family, bool(extended), look)


class _Samples:
    """A few samples at every checkpoint, from the same noise, so that one can watch them grow."""

    def __init__(self, path: Path, data: Any, seed: int) -> None:
        self.path, self.data, self.seed = path, data, seed

    def step(self, step: int, steps: int, items: int) -> None:
        return None

    def record(self, record: dict[str, Any]) -> None:
        return None

    def saved(self, step: int, averaged: Any) -> None:
        count, asked = self.data.previewed, getattr(self.data, "condition", None)
        with torch.no_grad():
            condition = {} if asked is None else {"condition": asked(count)}
            drawn = averaged.eval().sample(count, generator=keyed(self.seed, "sample", 0), **condition)
        self.data.preview({n: t.cpu().numpy() for n, t in drawn.items()}, self.path / "samples" / f"{step:08d}")

    def close(self) -> None:
        return None


def _fit(fabric: Any, net: Any, data: Any, recipe: Recipe, plan: budgets.Plan, record: dict[str, Any], path: Path, track: str | None,
         quiet: bool, deadline: float | None, family: registry.Family, extended: bool = False, look: Any = None) -> Run:  # fmt: skip
    watchers: list[Any] = []
    if fabric.is_global_zero:
        # A part of the weights cannot sample.
        watchers = [] if record.get("shard") else [_Samples(path, data, record["seed"])]
        if not quiet:
            watchers.insert(0, progress.Bar() if sys.stderr.isatty() else progress.Lines())
        if track == "tensorboard":
            watchers.append(progress.TensorBoard(path))
    trainer = engine.Trainer(fabric, net, data, recipe, plan, record["seed"], look)
    began = time.monotonic()
    try:
        trainer.fit(path, watchers, deadline, plan if extended else None)
        if fabric.is_global_zero:
            _finish(family, data, path, record)
        record |= {"status": "finished", "stopped": trainer.why}  # only now: a finished run has its weights
    except Interrupted as error:
        record |= {"status": "interrupted", "stopped": str(error)}
        raise
    except Diverged as error:
        record |= {"status": "diverged", "stopped": str(error)}
        raise
    finally:
        for watcher in watchers:
            watcher.close()
        if fabric.is_global_zero:
            record["plan"] = trainer.plan.to_json()
            record["seconds"] = round(record.get("seconds", 0) + time.monotonic() - began, 1)
            checkpoint.write_json(path / "run.json", record)
    if fabric.is_global_zero:
        if not quiet:
            _say(f"done: {record['stopped']}")
        for line in _model_warnings(net, path):
            if not quiet:
                _say(f"note: {line}")
    fabric.barrier()
    return opened(path, record, family)


def _finish(family: registry.Family, data: Any, path: Path, record: dict[str, Any]) -> None:
    """Writes the weights a run is used with: the best averaged ones, after what the model fits once at the end."""
    model = built(family, from_json(family.Config, record["config"]), data.spec, record["seed"]).eval()
    model.load_state_dict(averaged_weights(path))
    if hasattr(model, "finish"):
        items = data.splits["train"]
        with torch.no_grad():
            model.finish(data.batch(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK))
    checkpoint.write_weights(path, model.state_dict())


def _model_warnings(net: Any, path: Path) -> list[str]:
    if not hasattr(net, "warnings"):
        return []
    held = [r for r in checkpoint.read_metrics(path) if any(n.startswith("validation/") for n in r)]
    return net.warnings({n.removeprefix("validation/"): v for n, v in held[-1].items()}) if held else []


def _measured(
    fabric: Any,
    data: Any,
    build: Any,
    planned: dict[str, Any],
    size: str | None,
    precision: str,
    deadline: float,
    seed: int,
    threads: int,
) -> Any:
    def timed(model: Any, recipe: Recipe, kind: str, steps: int) -> float:
        plan = budgets.plan(1000, recipe, precision=kind, **{**planned, "processes": 1})
        trainer = engine.Trainer(fabric, model, data, recipe, plan, seed)
        began = time.perf_counter()
        for batch in trainer.batches(0, steps):
            trainer.train_step(batch)
        return (time.perf_counter() - began) / steps

    def single(of: str) -> tuple[Any, Recipe]:
        model, recipe = build(of)
        return model, replace(recipe, batch_size=max(1, recipe.batch_size // planned["processes"]))

    half = precision == "auto" and budgets.half_precision_pays(fabric.device.type)
    precisions = ("float32", "bfloat16") if half else ("float32",) if precision == "auto" else (precision,)
    choice = None
    if fabric.is_global_zero:
        choice = budgets.choose(
            single, (size,) if size else SIZES, precisions, timed, lambda: deadline - time.monotonic()
        )
        choice = budgets.fewer_threads(choice, single(choice.size)[0], timed, threads)
    return fabric.broadcast(choice)


def _extension(
    path: Path, record: dict[str, Any], recipe: Recipe, steps: str | int | None, budget: str | None
) -> budgets.Plan | None:
    """The plan of a longer run, or None when nothing was asked for."""
    if steps is None and budget is None:
        return None
    state = checkpoint.read_state(path)
    plan = budgets.Plan.from_json(state["plan"])
    if steps is not None:
        text = str(steps).removeprefix("+")
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"--steps {steps!r}: how many more, as +1000")
        more = int(text)
    else:
        rate = record.get("seconds", 0) / max(1, state["step"])
        more = max(1, int(budgets.seconds(str(budget).removeprefix("+")) / max(rate, 1e-6)))
    total = max(plan.steps, state["step"]) + more if steps is not None else state["step"] + more
    decay_start = max(state["step"], total - round(recipe.decay * total))
    later = stopping.planned(total, stopping.LOOKS) if plan.stop == "judge" else ()
    return replace(plan, steps=total, decay_start=decay_start, looks=tuple(n for n in later if n > state["step"]))


def _check_words(budget: str | None, steps: int | None, epochs: int | None, threads: int | None, checkpoint_every: int | None,
                 size: str | None, out: str | Path | None, track: str | None) -> None:  # fmt: skip
    """Whatever can be refused before anything is read."""
    if sum(limit is not None for limit in (budget, steps, epochs)) > 1:
        raise ValueError("give one of --budget, --steps and --epochs")
    counts = {"--steps": steps, "--epochs": epochs, "--threads": threads, "--checkpoint-every": checkpoint_every}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: at least 1")
    if threads is not None and threads > 16 * len(_cores()):
        raise ValueError(f"--threads {threads}: this machine has {len(_cores())} processor cores")
    if size is not None and size not in SIZES:
        raise ValueError(f"--size {size}: {', '.join(SIZES)}")
    if out is not None and Path(out).exists():
        raise RunError(
            f"{out} exists already and a run is never overwritten; choose another --out, or: latente resume {out}"
        )
    if track is not None:
        progress.check_tracker(track)


def _sort_settings(family: registry.Family, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Settings by whom they belong to. Raises ValueError naming an unknown one."""
    options = OPTIONS[family.kind]
    owners = {kind: {f.name for f in fields(kind)} for kind in (family.Config, Recipe, options)}
    unknown = [name for name in settings if not any(name in known for known in owners.values())]
    if unknown:
        known = sorted(set().union(*owners.values()))
        raise ValueError(f"{family.name} has no setting {', '.join(unknown)}; there are {', '.join(known)}")
    config, recipe, data = ({n: v for n, v in settings.items() if n in known} for known in owners.values())
    return config, recipe, merge(options(), data)


def _check_shardable(family: registry.Family, recipe: dict[str, Any], processes: int) -> None:
    if processes == 1:
        raise ValueError(
            "--shard divides a model among processes; start them: torchrun --nproc-per-node N -m latente train ..."
        )
    if len(family.Model.phases) > 1:
        raise ValueError(
            f"--shard: {family.name} trains several networks in turn; only families with one phase can be sharded"
        )
    if merge(family.Model.recipe, recipe).ema:
        raise ValueError("--shard keeps no averaged weights; add --ema 0")


def _take_weights(model: Any, run: Path) -> None:
    """Those of a run; statistics that it has not kept, in buffers, begin anew."""
    checkpoint.read_run(run)
    found, parameters = usable_weights(run), {name for name, _ in model.named_parameters()}
    try:
        missing, unknown = model.load_state_dict(found, strict=False)
    except RuntimeError:
        missing, unknown = parameters, []
    if unknown or parameters & {*missing}:
        raise ValueError(f"--init {run}: its model has other sizes; give the same --size and settings")


def _free_name(model: str, data: str) -> Path:
    number = 1
    while (path := Path("runs") / f"{model}-{data}-{number}").exists():
        number += 1
    return path


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}


def _cores() -> set[int] | range:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _decoding() -> Any:
    said = [time.monotonic()]

    def tell(what: str, done: int, total: int) -> None:
        if time.monotonic() - said[0] > 2 or (done == total and total > 5000):
            said[0] = time.monotonic()
            _say(f"{what} {done:,}/{total:,}")

    return tell
