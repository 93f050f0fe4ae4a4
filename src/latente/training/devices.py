"""Where a training runs: in this one process on the CPU, or wherever Lightning Fabric puts it.

This is the only place that knows Fabric, and it is imported only when something it does is asked for: its import alone
takes longer than many a small training.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class OneProcess:
    """What the engine asks of Fabric, for one process on the CPU, where all of it is trivial."""

    device = torch.device("cpu")
    global_rank = 0
    is_global_zero = True

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module

    def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        return value

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        return None

    @contextlib.contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        yield


def fabric(device: str, processes: int, shard: bool = False) -> Any:
    """Fabric for `device` (auto, cpu, cuda, mps), or `OneProcess` when one process on the CPU is all there is.

    `processes` of them were started by torchrun, on one machine or several. With `shard`, each keeps a part of the weights,
    gradients and optimiser states (FSDP), else a copy (DDP).
    """
    alone = processes == 1 and not shard
    if alone and (device == "cpu" or (device == "auto" and not _accelerated())):
        return OneProcess()
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise ValueError(f"--device {device}: torch finds none on this machine; --device auto takes what there is")
    import lightning_fabric
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes)) if processes > 1 else 1
    strategy: Any = "auto"
    if shard:
        strategy = ModelParallelStrategy(_sharded, data_parallel_size=processes, tensor_parallel_size=1)
    elif processes > 1:
        strategy = DDPStrategy(find_unused_parameters=True)
    made = lightning_fabric.Fabric(
        accelerator=device, devices=here, num_nodes=processes // here, strategy=strategy, precision="32-true"
    )
    made.launch()
    return made


def _accelerated() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _sharded(model: nn.Module, mesh: Any) -> nn.Module:
    """FSDP of every block of a model and of what is left of it."""
    from torch.distributed.fsdp import fully_shard

    mesh = mesh["data_parallel"]
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@contextlib.contextmanager
def threads(wanted: int) -> Iterator[None]:
    """So many processor threads inside: they decide the order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def give_back() -> None:
    """Returns to the system what the C library holds free of memory, where it can: tensors of many sizes leave that in pieces, gigabytes
    of them, which are slower to find room in than to ask for anew."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
