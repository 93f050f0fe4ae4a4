"""What the judge of images learns with: a small convolutional network. N items, C channels, H W height and width."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.evaluation.judge import Classifier, Scorer

BATCH = 128
SEEN = 60_000  # images the network is shown in all, repeats included: what some seconds allow
EPOCHS = (4, 30)  # but no fewer and no more passes than these


def network(channels: int, side: int) -> nn.Module:
    """(N,C,H,W) -> (N,): every other layer halves the picture, whose smaller side is `side`, until that is at most 8 pixels."""
    layers: list[nn.Module] = []
    width, wide = channels, 32
    while not layers or side > 8:
        stride = 2 if side >= 8 else 1
        layers += [nn.Conv2d(width, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        layers += [nn.Conv2d(wide, 2 * wide, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * wide), nn.ReLU()]
        side, width, wide = side // stride, 2 * wide, min(64, 2 * wide)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 1), nn.Flatten(0))


def cnn(images: np.ndarray, fake: np.ndarray, seed: int) -> Scorer:
    """The network fitted to say which of the images, uint8 (N,C,H,W), are fake, (N,) bool; its rate rises and falls once."""

    def tensor(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part).float() / 127.5 - 1

    y = torch.from_numpy(fake).float()
    epochs = min(EPOCHS[1], max(EPOCHS[0], SEEN // len(images)))
    batch = min(BATCH, len(images))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = network(images.shape[1], min(images.shape[2:])).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
        steps = epochs * (len(images) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(images)).numpy()
            for start in range(0, len(images) - batch + 1, batch):
                at = order[start : start + batch]
                loss = F.binary_cross_entropy_with_logits(model(tensor(images[at])), y[at])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()

    def scores(part: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([model(tensor(part[i : i + 500])).numpy() for i in range(0, len(part), 500)])

    return scores


CLASSIFIERS: dict[str, Classifier] = {"convolutional network": cnn}
