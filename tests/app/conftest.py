"""A service in a process of its own, as its users meet it."""

import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A function of a verb and its options that starts it on a free port, and gives its process and address."""
    running = []

    def run(*arguments: str) -> tuple[subprocess.Popen, str]:
        log = tmp_path_factory.mktemp("server") / "log.txt"
        command = [sys.executable, "-m", "featherflow", *arguments, "--port", "0"]
        process = subprocess.Popen(command, stderr=log.open("w"), stdout=subprocess.DEVNULL)
        running.append(process)
        deadline = time.monotonic() + 180  # on a busy machine the worker alone takes a minute
        while time.monotonic() < deadline and process.poll() is None:
            line = log.read_text().partition("\n")
            if line[1]:
                address = line[0].split()[3].rstrip("/")
                _wait(address, deadline)
                return process, address
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    yield run
    for process in running:
        process.kill()
        process.wait()


def _wait(address: str, deadline: float) -> None:
    while True:
        try:
            urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
