"""Small networks with random weights, and a home for weights that is thrown away."""

import caffe_writer
import pytest
import torch
from random_networks import random_network


@pytest.fixture(scope="session")
def small_network() -> torch.nn.Module:
    """The smallest of the family, random."""
    return random_network("liteflownetx")


@pytest.fixture(scope="session")
def small_caffemodel(small_network) -> bytes:
    """It, as an official file."""
    return caffe_writer.caffemodel(caffe_writer.official_layers_of(small_network))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's weights, empty."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FEATHERFLOW_HOME", str(folder))
    return folder / "weights"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Hundreds of small tensors: threads cost more than they bring, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
