"""How threads wait for each other, by what else the machine does."""

import os
import sys

import pytest

from featherflow.inference.runners import threads


@pytest.fixture
def undecided(monkeypatch):
    """A program that has not imported PyTorch, whose environment says nothing."""
    monkeypatch.delitem(sys.modules, "torch")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


def load(folder, running):
    file = folder / "loadavg"
    file.write_text(f"0.52 0.58 0.59 {running}/467 11206\n")
    return file


@pytest.mark.parametrize(("running", "cores", "sleeps"), [(1, 8, False), (2, 8, False), (3, 8, True), (2, 2, True), (1, 1, False)])
def test_threads_sleep_soon_where_others_compute(undecided, monkeypatch, tmp_path, running, cores, sleeps):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    threads.let_others_compute(load(tmp_path, running))
    assert os.environ.get("GOMP_SPINCOUNT") == (threads._SHORT if sleeps else None)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"])
def test_what_the_environment_says_stays(undecided, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "5")
    threads.let_others_compute(load(tmp_path, 30))
    assert os.environ.get("GOMP_SPINCOUNT") == ("5" if name == "GOMP_SPINCOUNT" else None)


def test_once_pytorch_is_there_it_is_too_late(undecided, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    threads.let_others_compute(load(tmp_path, 30))
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("content", [None, "", "0.1 0.2 0.3\n", "0.1 0.2 0.3 many/467 1\n", "a b c /467 1\n"])
def test_a_system_that_does_not_tell(undecided, tmp_path, content):
    file = tmp_path / "loadavg"
    if content is not None:
        file.write_text(content)
    threads.let_others_compute(file)
    assert "GOMP_SPINCOUNT" not in os.environ
