"""What tests of runs share."""

import pytest
import torch

from featherflow.data import TextureBank


@pytest.fixture(scope="module")
def textures():
    return TextureBank.procedural(8, 96, torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _threads():
    """A trainer hands its cores to its workers."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
