"""torch.hub finds every network in hubconf.py, and the default one estimates."""

import importlib.util
import runpy
from pathlib import Path

import pytest
import torch

from featherflow import networks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def hub_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def test_every_network_is_an_entry_point():
    found = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = {name for name, value in found.items() if callable(value) and not name.startswith("_")}  # as torch.hub.list has it
    assert entries == {"featherflow", *(name.replace("-", "_") for name in networks.names())}
    assert all(found[name].__doc__ for name in entries)
    missing = [name for name in found["dependencies"] if not importlib.util.find_spec(name)]
    assert not missing


def test_networks_come_with_weights_or_without():
    network = torch.hub.load(str(ROOT), "featherflow", source="local")
    assert network.weights_info.name == "liteflownet-tied:procedural" and not network.training
    assert torch.hub.load(str(ROOT), "raft_small", source="local", pretrained=False).weights_info is None
    with torch.inference_mode():
        assert network(*torch.rand(2, 1, 3, 64, 64)).shape == (1, 2, 64, 64)
