"""Where the shared material lies: beside the repository, or in the folder that FEATHERFLOW_SHARED names, never inside it.

Tests that need it are skipped without it, unless FEATHERFLOW_REQUIRE_PARITY=1: then those that prove a network exact fail.
"""

import os
import signal
from pathlib import Path

import pytest

# Of several processes that test side by side, each computes on one core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(os.environ.get("FEATHERFLOW_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")

# A shell that starts the tests in the background lets them and all that they start ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked slow has an hour unless it says otherwise; all else has the `timeout` of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After a failure, the order in which the tests ran, so that it can be had again."""
    if terminalreporter.stats.get("failed") and config.getoption("randomly_seed", None) is not None:
        terminalreporter.write_line(f"The tests ran in the order of --randomly-seed={config.getoption('randomly_seed')}.")


def _shared(name: str, required: bool = False) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        if required and os.environ.get("FEATHERFLOW_REQUIRE_PARITY") == "1":
            pytest.fail(f"FEATHERFLOW_REQUIRE_PARITY is set, and there is no folder {folder}")
        pytest.skip(f"needs the folder {name} of the shared material beside the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real image pairs with ground truth, texture photos and demo frames."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Golden cases that prove a network exact."""
    return _shared("golden", required=True)
