"""The small convolutional network that this room learns with, to judge, to see and to use; and the loop that fits it.

    images (N,C,H,W) uint8 -> -1..1 -> convolutions, every other one halving the picture -> (N,F) -> linear -> (N,K)

N images, C channels, H W height and width, F what the convolutions leave of a picture, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from latente.optim import AdamW

BASE = 16  # channels of the first layer: with 32 the judge sees hardly more, and takes three times as long
BATCH = 128
EPOCHS = (1, 30)  # no fewer and no more passes over the images than these


def tensor(images: np.ndarray) -> Tensor:
    """uint8 as floats in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def network(channels: int, side: int, outputs: int) -> nn.Sequential:
    """(N,C,H,W) -> (N,K): every other layer halves the picture, whose smaller side is `side`, until that is at most 8 pixels."""
    layers: list[nn.Module] = []
    width, wide = channels, BASE
    while not layers or side > 8:
        stride = 2 if side >= 8 else 1
        layers += [nn.Conv2d(width, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        layers += [nn.Conv2d(wide, 2 * wide, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * wide), nn.ReLU()]
        side, width, wide = side // stride, 2 * wide, min(2 * BASE, 2 * wide)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, outputs))


def fitted(
    build: Callable[[], nn.Module], loss: Callable[[nn.Module, np.ndarray], Tensor], count: int, seen: int, seed: int
) -> nn.Module:
    """The network that `build` makes after `seen` of `count` items, repeats included; its rate rises and falls once.

    `loss` is that of a batch of items, given by their numbers (n,). torch's generator is left as it was.
    """
    epochs, batch = min(EPOCHS[1], max(EPOCHS[0], seen // count)), min(BATCH, count)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = build().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = AdamW(model.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * (count // batch))
        for _ in range(epochs):
            order = torch.randperm(count).numpy()
            for start in range(0, count - batch + 1, batch):
                value = loss(model, order[start : start + batch])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
    return model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def outputs(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """What a fitted network says of images, float32 (N,K)."""
    with torch.no_grad():
        return np.concatenate([model(tensor(images[i : i + 500])).numpy() for i in range(0, len(images), 500)])
