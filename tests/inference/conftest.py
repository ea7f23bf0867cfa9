"""A network of one level, so that exporters have little to chew; builds kept in a folder of the test."""

import pytest
import torch

from featherflow import networks
from featherflow.training.initialization import initialize

SMALL = {
    "features": ((4,), (4,), (6,), (6,), (8,), (8,)),
    "finest_level": 6,
    "matching": (8,),
    "subpixel": (8,),
    "regularization": (8,),
}


@pytest.fixture(scope="session")
def small():
    """A network of a few channels, of one level unless numbers of its table are given."""

    def build(**options):
        built = networks.build("liteflownet2", **{**SMALL, **options})
        initialize(built, torch.Generator().manual_seed(0))
        return built

    return build


@pytest.fixture(scope="session")
def network(small):
    return small()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """FEATHERFLOW_HOME of all these tests, so that what one builds the next finds."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("home")
    patch.setenv("FEATHERFLOW_HOME", str(folder))
    yield folder
    patch.undo()
