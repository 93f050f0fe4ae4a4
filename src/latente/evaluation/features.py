"""Features learned on the user's own images: where distances between pictures mean something.

    images -> network -> (N,64)      with labels: what tells the classes apart
                                     without: what two views of one picture have in common and no two pictures share
                                     (Zbontar et al. 2021, "Barlow Twins", arXiv:2103.03230)

They come from training images alone, once a data set: runs on the same data are measured in the same features, which the digest
of their weights proves. No weights from elsewhere, no download.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.evaluation.networks import fitted, network, outputs, tensor
from latente.rng import key

SIZE = 64
SEEN = 60_000
REDUNDANCY = 0.02  # weight of what features share with each other
LEARNING = 1  # number of the way they are learned, to be raised whenever that changes


@dataclass(frozen=True)
class Features:
    """Learned features of images, and, where there were labels, a classifier upon them."""

    model: nn.Sequential
    supervised: bool

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N,C,H,W) -> float64 (N,64), each of mean 0 and variance 1 over the training images."""
        return outputs(self.model[:2], images).astype(np.float64)

    def classes(self, images: np.ndarray) -> np.ndarray:
        """The likeliest class of each image, (N,). Only where there were labels."""
        return outputs(self.model, images).argmax(1)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, 16 digits of it."""
        state = self.model.state_dict()
        return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()[:16]


def learned(images: np.ndarray, labels: np.ndarray | None, classes: int, kept: Path | None = None) -> Features:
    """Features of the training images, uint8 (N,C,H,W), possibly on disk; read from `kept`, or written there.

    `labels` (N,) of 0..classes-1 make them supervised; without any, or with fewer than two classes, they are not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    supervised = labels is not None and classes > 1

    def build() -> nn.Sequential:
        seeing = network(images.shape[1], min(images.shape[2:]), SIZE)
        head = nn.Linear(SIZE, classes) if supervised else nn.Sequential(nn.ReLU(), nn.Linear(SIZE, 4 * SIZE))
        return nn.Sequential(seeing, nn.BatchNorm1d(SIZE, affine=False), head)

    if kept is not None and kept.exists():
        model = build()
        try:
            model.load_state_dict(load_file(kept))
            return Features(model.eval(), supervised)
        except (RuntimeError, OSError, SafetensorError):  # damaged: learned anew
            pass

    def named(model: nn.Module, at: np.ndarray) -> Tensor:
        at = np.sort(at)  # the images may lie on disk
        assert labels is not None
        return F.cross_entropy(model(tensor(images[at])), torch.from_numpy(labels[at]).long(), label_smoothing=0.1)

    def twins(model: nn.Module, at: np.ndarray) -> Tensor:
        x = tensor(images[np.sort(at)])
        return redundancy(model(torch.cat([view(x), view(x)])))

    loss = named if supervised else twins
    model: Any = fitted(build, loss, len(images), SEEN, key("features", LEARNING))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_name(f".tmp-{kept.name}")
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, draft)
        draft.replace(kept)
    return Features(model, supervised)


def redundancy(z: Tensor) -> Tensor:
    """The loss of two views' features, (2N,K): their correlations over the batch should be the identity."""
    a, b = ((part - part.mean(0)) / (part.std(0, correction=0) + 1e-5) for part in z.chunk(2))
    correlation = a.T @ b / len(a)
    same = torch.diagonal(correlation)
    return (1 - same).square().sum() + REDUNDANCY * (correlation.square().sum() - same.square().sum())


def view(x: Tensor) -> Tensor:
    """A picture as it might as well have been taken: turned by up to 15 degrees, nearer or farther by a fifth, moved by a tenth,
    brighter or with more contrast. (N,C,H,W) in -1..1."""
    n = len(x)

    def drawn(limit: float) -> Tensor:
        return limit * (2 * torch.rand(n) - 1)

    angle, scale = drawn(0.26), 1 + drawn(0.2)
    rows = torch.stack([torch.cos(angle) * scale, -torch.sin(angle) * scale, drawn(0.2)], 1)
    columns = torch.stack([torch.sin(angle) * scale, torch.cos(angle) * scale, drawn(0.2)], 1)
    grid = F.affine_grid(torch.stack([rows, columns], 1), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return moved * (1 + drawn(0.3))[:, None, None, None] + drawn(0.2)[:, None, None, None]
