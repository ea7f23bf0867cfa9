"""Where the shared material lies: beside the repository, never inside it. Tests that need it are skipped without it."""

import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

# A shell that starts the tests in the background lets them and all that they start ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder {name} of the shared material beside the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real image pairs with ground truth, texture photos and demo frames."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Golden cases that prove a network exact."""
    return _shared("golden")
