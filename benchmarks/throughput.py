"""Training throughput: our engine beside a plain loop over the same architecture, on Fashion-MNIST.

    python benchmarks/throughput.py [--threads 1] [--seconds 20] [--size tiny] [--models vae gan]

The plain loop is what one writes by hand: float32, channels_last, batches already in memory, the same phases, losses and fused
AdamW; no averaging of weights, no logging, nothing read from disk. Ours is the whole engine in the precision a budget would
choose. The two alternate, several times, so that both meet the same machine; the median of the ratios counts.
"""

import argparse
import statistics
import time

import torch

from latente import registry
from latente.data.dataset import ImageOptions
from latente.data.sources import open_source
from latente.rng import keyed
from latente.training import budget, devices, engine


def plain(model, batches, recipe):
    """A hand-written loop: gives a function that trains one step."""
    model = model.to(memory_format=torch.channels_last)
    named = list(model.named_parameters())
    owned = {p.name: [w for n, w in named if not p.modules or n.split(".")[0] in p.modules] for p in model.phases}
    kinds = {p.modules: owned[p.name] for p in model.phases}
    optimizers = {
        modules: torch.optim.AdamW(w, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)
        for modules, w in kinds.items()
    }
    generator = torch.Generator().manual_seed(0)
    count = 0

    def step():
        nonlocal count
        batch = batches[count % len(batches)]
        for phase in model.phases:
            if count % phase.every:
                continue
            mine = {id(w) for w in owned[phase.name]}
            for _, weight in named:
                weight.requires_grad_(id(weight) in mine)
            noise = model.noise(recipe.batch_size, phase.name, generator) if hasattr(model, "noise") else {}
            model({**batch, **noise}, phase.name, 0.5).total.backward()
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(owned[phase.name], recipe.clip)
            optimizers[phase.modules].step()
            optimizers[phase.modules].zero_grad()
        count += 1

    return step


def ours(model, data, recipe, threads, precision):
    plan = budget.plan(
        10_000, recipe, precision=precision, threads=threads, processes=1, compile=False, checkpoint_every=None,
        validation_items=1000,
    )  # fmt: skip
    trainer = engine.Trainer(devices.fabric("cpu", 1), model, data, recipe, plan, 0)
    batches = trainer.batches(0, 10_000)
    return lambda: trainer.train_step(next(batches))


def rate(step, seconds):
    """Steps per second, over whole cycles of lazy phases."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(8):
            step()
        done += 8
    return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", default="tiny")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = open_source("fashion-mnist", ImageOptions())
    print(f"{'family':<14}{'plain loop':>14}{'latente':>14}   items/s, {given.threads} threads, size {given.size}")
    for name in given.models or [name for name in registry.names() if registry.load(name).kind == "image"]:
        family = registry.load(name)
        config = family.Config.preset(given.size, data.spec)

        def built(family=family, config=config):
            torch.manual_seed(0)
            return family.Model(config, data.spec)

        recipe = built().recipe
        chosen = data.splits["train"][torch.randperm(50_000, generator=keyed(0))[: 32 * recipe.batch_size].numpy()]
        batches = [data.batch(chosen[i * recipe.batch_size : (i + 1) * recipe.batch_size]) for i in range(32)]
        hand = plain(built(), batches, recipe)
        engines = {p: ours(built(), data, recipe, given.threads, p) for p in ("float32", "bfloat16")}
        for step in (hand, *engines.values()):
            rate(step, 2)
        precision = max(engines, key=lambda p: rate(engines[p], 3))
        pairs = [(rate(hand, given.seconds / 4), rate(engines[precision], given.seconds / 4)) for _ in range(5)]
        ratio = statistics.median(b / a for a, b in pairs)
        a, b = (statistics.median(column) * recipe.batch_size for column in zip(*pairs))
        print(f"{name:<14}{a:>14,.0f}{b:>14,.0f}   {ratio:.2f}x  {precision}", flush=True)


if __name__ == "__main__":
    main()
