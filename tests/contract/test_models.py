"""What every family promises, found by itself: one suite over every model file and every kind of spec it accepts."""

import copy
import dataclasses
import hashlib

import numpy as np
import pytest
import torch

import families
import latente
from latente import registry
from latente.commands.training import Train
from latente.config import Recipe
from latente.data.sources import OPTIONS
from latente.flags import flags
from latente.rng import keyed, permutation
from latente.spec import ImageSpec, PairSpec, TableSpec, TextSpec
from latente.training import budget, devices, engine

SPECS = {
    "8x8 grey, 4 classes": ImageSpec(1, 8, 8, ("a", "b", "c", "d")),
    "28x28 grey": ImageSpec(1, 28, 28),
    "30x21 RGB, 3 classes": ImageSpec(3, 30, 21, ("x", "y", "z")),
    "64x128 RGB": ImageSpec(3, 64, 128),
    "11 tokens, 16 at once": TextSpec(11, 16),
    "300 tokens, 40 at once": TextSpec(300, 40, start=7),
    "3 columns": TableSpec(("a", "b", "c"), ((5,), (9,), (4,)), (True, True, False), ((0,), (), (0, 1)), target=2),
    "1 column of 2 fields": TableSpec(("a",), ((7, 30),), (False,), ((1,),)),
    "12 columns": TableSpec(tuple("abcdefghijkl"), ((40,),) * 11 + ((12, 100),), (True,) * 11 + (False,), ((0,),) * 12),
    "pairs of up to 8": PairSpec(12, 9, 9, 9, usual_target=5.0),
    "pairs of one token": PairSpec(5, 6, 2, 2, usual_target=2.0),
    "pairs of up to 40, one vocabulary": PairSpec(60, 60, 41, 41, usual_target=20.0, shared=True),
}
SMALL = {"image": SPECS["8x8 grey, 4 classes"], "text": SPECS["11 tokens, 16 at once"], "table": SPECS["3 columns"],
         "pair": SPECS["pairs of up to 8"]}  # fmt: skip
TYPICAL = {"image": SPECS["28x28 grey"], "text": SPECS["300 tokens, 40 at once"], "table": SPECS["12 columns"],
           "pair": SPECS["pairs of up to 40, one vocabulary"]}  # fmt: skip
FAMILIES = registry.names()
PAIRS = [
    (name, spec) for name in FAMILIES for spec in SPECS if isinstance(SPECS[spec], registry.load(name).Model.accepts)
]
every_family = pytest.mark.parametrize("name", FAMILIES)


def kind(name):
    return registry.load(name).kind


def made(name, spec, size="tiny", **config):
    """A model in training that draws nothing of its own."""
    family = registry.load(name)
    torch.manual_seed(0)
    preset = family.Config.preset(size, spec)
    still = {"dropout": 0.0} if hasattr(preset, "dropout") else {}
    return family.Model(dataclasses.replace(preset, **still, **config), spec)


def rows(batch):
    return len(next(iter(batch.values())))


def whole(model, batch, phase, progress=0.5):
    noise = model.noise(rows(batch), phase, keyed(0, phase)) if hasattr(model, "noise") else {}
    return model({**batch, **noise}, phase, progress)


def sampled(model, spec, n, generator):
    """New items; of pairs the targets of example sources."""
    condition = {"condition": spec.example(n, keyed(9))["source"]} if spec.kind == "pair" else {}
    return model.sample(n, generator=generator, **condition)


def content(drawn, spec, n):
    """What was drawn, after a look at its type, shape and range."""
    if spec.kind == "pair":
        target = drawn["target"]
        assert target.dtype == torch.int64 and len(target) == n and 1 <= target.shape[1] <= spec.longest_target
        assert target.min() >= 0 and target.max() < spec.target and not (target == spec.begin).any()
        closed = (target == spec.end).cumsum(1) - (target == spec.end).long()
        assert torch.equal(target == spec.pad, closed > 0)
        return torch.nn.functional.pad(target, (0, spec.longest_target - target.shape[1]))
    if spec.kind == "image":
        assert drawn["x"].dtype == torch.uint8 and drawn["x"].shape == (n, *spec.shape)
        return drawn["x"]
    tokens = drawn["tokens"]
    if spec.kind == "table":
        assert tokens.dtype == torch.int64 and tokens.shape == (n, len(spec.fields))
        assert (tokens >= 0).all() and (tokens < torch.tensor(spec.fields)).all()
        for column, never in enumerate(spec.never):
            assert not torch.isin(tokens[:, spec.owners.index(column)], torch.tensor(never)).any()
        return tokens
    assert tokens.dtype == torch.int64 and tokens.shape == (n, spec.context)
    assert tokens.min() >= 0 and tokens.max() < spec.vocabulary
    return tokens


@pytest.mark.parametrize(("name", "spec"), PAIRS)
def test_every_spec_trains_and_samples(name, spec):
    spec = SPECS[spec]
    model = made(name, spec)
    batch = spec.example(6, keyed(1))
    for phase in model.phases:
        losses = whole(model, batch, phase.name)
        assert losses.total.ndim == 0 and torch.isfinite(losses.total)
        assert all(torch.isfinite(term) for term in losses.terms.values())
    model.eval()
    with torch.no_grad():
        if hasattr(model, "finish"):
            model.finish(spec.example(64, keyed(n)) for n in range(4))
        drawn = content(sampled(model, spec, 5, keyed(2)), spec, 5)
        assert torch.equal(content(sampled(model, spec, 5, keyed(2)), spec, 5), drawn)
        others = (content(sampled(model, spec, 5, keyed(3 + other)), spec, 5) for other in range(3))
        assert any(not torch.equal(other, drawn) for other in others)
        if getattr(spec, "classes", ()):
            wanted = torch.tensor([1, 0, 2, 1, 0])
            assert torch.equal(model.sample(5, condition=wanted, generator=keyed(2))["label"], wanted)
        if hasattr(model, "reconstruct"):
            assert model.reconstruct(batch)["x"].shape == batch["x"].shape


@every_family
def test_gradients_reach_each_phase_parameters_and_no_others(name):
    spec = SMALL[kind(name)]
    model = made(name, spec)
    trainer = a_trainer(model, spec)
    for phase in model.phases:
        owned = trainer.owned[phase.name]
        for n, p in model.named_parameters():
            p.requires_grad_(n in owned)
            p.grad = None
        whole(model, spec.example(8, keyed(1)), phase.name).total.backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None}
        assert reached <= set(owned), f"{phase.name} reaches {sorted(reached - set(owned))[:3]}"
        assert reached, f"{phase.name} reaches nothing"
    everything = {n for phase in model.phases for n in trainer.owned[phase.name]}
    assert everything == {n for n, p in model.named_parameters()}, "some parameters belong to no phase"


@every_family
def test_a_batch_is_the_mean_of_its_items(name):
    """The loss of a batch is the mean over its items taken alone, so nothing couples items but what a phase declares."""
    spec = SMALL[kind(name)]
    model = made(name, spec)
    batch = spec.example(8, keyed(1))
    for phase in model.phases:
        full = {**batch, **(model.noise(8, phase.name, keyed(4)) if hasattr(model, "noise") else {})}
        halves = [{n: t[i : i + 4] for n, t in full.items()} for i in (0, 4)]
        # What a forward keeps in buffers, statistics of its batch, is for the next one.
        together, *parts = (copy.deepcopy(model)(part, phase.name, 0.5).total for part in (full, *halves))
        assert torch.allclose(together, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5), phase.name


@every_family
def test_no_config_field_has_the_name_of_a_training_or_data_flag(name):
    flags(Train, registry.load(name).Config, Recipe, OPTIONS[kind(name)])


@every_family
def test_sizes_grow(name):
    counts = [
        sum(p.numel() for p in made(name, TYPICAL[kind(name)], size).parameters()) for size in ("tiny", "small", "base")
    ]
    assert counts[0] < counts[1] < counts[2]


class Examples:
    """A dataset of a spec's example images, for the engine."""

    def __init__(self, spec, n=256):
        self.made = spec.example(n, keyed("examples"))
        self.splits = {"train": np.arange(n - 32), "validation": np.arange(n - 32, n), "test": np.arange(0)}

    def order(self, seed, epoch):
        return self.splits["train"][permutation(len(self.splits["train"]), seed, epoch).numpy()]

    def batch(self, indices):
        return {n: t[torch.from_numpy(indices)] for n, t in self.made.items()}


def a_trainer(model, spec, steps=6, batch_size=16, accumulate=1, **recipe):
    recipe = dataclasses.replace(model.recipe, batch_size=batch_size, accumulate=accumulate, **recipe)
    plan = budget.plan(
        steps,
        recipe,
        precision="float32",
        threads=2,
        processes=1,
        compile=False,
        checkpoint_every=None,
        validation_items=32,
    )
    return engine.Trainer(devices.fabric("cpu", 1), model, Examples(spec), recipe, plan, seed=0)


@every_family
def test_accumulated_micro_batches_are_one_batch(name):
    spec = SMALL[kind(name)]
    results = []
    for accumulate in (1, 2):
        trainer = a_trainer(made(name, spec), spec, accumulate=accumulate, warmup=0.0, beta2=0.5)
        for batch in trainer.batches(0, 2):
            trainer.train_step(batch)
        results.append({n: float(v) / trainer.counts[n] for n, v in trainer.sums.items() if n.endswith("/total")})
    for term, value in results[0].items():
        assert results[1][term] == pytest.approx(value, rel=2e-3), term


def digest(run):
    """SHA-256 of everything trained: weights, averaged weights, optimisers."""
    last = (run / "checkpoints" / "index.json").read_text().split('"last": "')[1][:8]
    files = sorted((run / "checkpoints" / last).glob("*.safetensors"))
    assert {f.stem for f in files} >= {"model", "optimizer"}
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


@every_family
def test_the_same_command_gives_the_same_weights_and_samples(name, tmp_path):
    runs = [
        latente.train(**families.arguments(name), out=tmp_path / o, steps=12, size="tiny", batch_size=16, quiet=True)
        for o in "ab"
    ]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    first, second = runs[0].sample(20, seed=3), latente.load(tmp_path / "b").sample(20, seed=3)
    assert all(np.array_equal(first[n], second[n]) for n in first)


@every_family
def test_stopped_and_resumed_equals_never_stopped(name, tmp_path, monkeypatch):
    arguments = {"steps": 15, "size": "tiny", "batch_size": 16, "quiet": True, "checkpoint_every": 4}
    if "dropout" in {field.name for field in dataclasses.fields(registry.load(name).Config)}:
        arguments["dropout"] = 0.2  # what layers draw must come back too
    latente.train(**families.arguments(name), out=tmp_path / "whole", **arguments)
    step = engine.Trainer.train_step

    def until(stop):
        def train_step(self, batch):
            if self.step == stop:
                raise MemoryError("the machine dies here")
            step(self, batch)

        return train_step

    for stop in (2, 6, 13):
        run = tmp_path / f"stopped-{stop}"
        monkeypatch.setattr(engine.Trainer, "train_step", until(stop))
        with pytest.raises(MemoryError):
            latente.train(**families.arguments(name), out=run, **arguments)
        monkeypatch.setattr(engine.Trainer, "train_step", step)
        latente.resume(run, quiet=True)
        assert digest(run) == digest(tmp_path / "whole"), stop
        assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@every_family
def test_one_batch_is_learnt(name):
    """On 16 images, a few hundred steps bring what the model minimises far below where it began (or, for opponents, keep it finite)."""
    spec = SMALL[kind(name)]
    model = made(name, spec)
    trainer = a_trainer(model, spec, steps=150, batch_size=16)
    trainer.data.splits["train"] = trainer.data.splits["train"][:16]
    seen = []
    for batch in trainer.batches(0, 150):
        trainer.train_step(batch)
        seen.append(float(trainer.sums[f"{model.phases[0].name}/total"]))
    assert all(map(lambda v: v == v and abs(v) < 1e9, seen))
    if len(model.phases) == 1:
        first, last = seen[9] / 10, (seen[-1] - seen[-11]) / 10
        assert last < 0.8 * first
