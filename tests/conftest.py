"""Every test has its own cache folder, torch's global numbers from the same seed whatever ran before, and one thread, in the commands it
starts too: as many tests run side by side as there are cores."""

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(1)
    torch.manual_seed(0)
