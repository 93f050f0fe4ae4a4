"""Every test has its own cache folder and one thread, the processes it starts too: as many tests as cores run side by side."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(1)
