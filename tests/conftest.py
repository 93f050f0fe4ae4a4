"""Every test has its own cache folder, and two threads so that timings and sums are alike everywhere."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(2)
