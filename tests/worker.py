"""What `test_processes.py` starts on one process or two: gradients of every phase of every family, and a short run of each."""

import dataclasses
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import families
import latente
from latente import registry
from latente.training import budget, devices, engine

out, processes = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
out.mkdir(exist_ok=True)
for name in registry.names():
    family, data = registry.load(name), families.opened(name)
    torch.manual_seed(0)
    preset = family.Config.preset("tiny", data.spec)
    # What dropout draws differs between one process and two.
    still = {"dropout": 0.0} if hasattr(preset, "dropout") else {}
    model = family.Model(dataclasses.replace(preset, **still), data.spec)
    recipe = dataclasses.replace(model.recipe, batch_size=16)
    plan = budget.plan(
        20, recipe, precision="float32", threads=1, processes=processes, compile=False, checkpoint_every=None,
        validation_items=10,
    )  # fmt: skip
    trainer = engine.Trainer(devices.fabric("cpu", processes), model, data, recipe, plan, seed=0)
    batch = next(iter(trainer.batches(0, 1)))
    gradients = {}
    for phase in trainer.phases:
        trainer.backward(batch, phase)
        for parameter, value in trainer.owned[phase.name].items():
            if value.grad is not None:
                gradients[f"{phase.name}/{parameter}"] = value.grad.clone().contiguous()
            value.grad = None
    if trainer.fabric.is_global_zero:
        save_file(gradients, out / f"{name}.safetensors")
    # A low rate: a leaky ReLU whose input rounds to the other side of zero makes two opponents drift apart within steps.
    rate = {"steps": 20, "learning_rate": 1e-4, "batch_size": 16, **still}
    latente.train(name, data, out=out / f"{name}-run", size="tiny", threads=1, quiet=True, **rate)
