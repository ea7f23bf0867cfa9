"""Every reader under fuzzing for about half a minute in all, or `FEATHERFLOW_FUZZ_SECONDS`; by hand longer, see `harness`."""

import os

import pytest
from fuzz import harness

SECONDS = float(os.environ.get("FEATHERFLOW_FUZZ_SECONDS", "30"))
NAMES = (
    "flow .flo", "flow .pfm", "flow .png", "flow .npz", "flow .npy", "flow .flo5", "images", "weights", "checkpoints", "import",
    "archives", "torch7", "caffemodel", "texture packs", "engine records", "training logs", "requests", "videos",
)  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return harness.readers(tmp_path_factory.mktemp("seeds"))


def test_all_readers_are_named(readers):
    assert set(readers) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_in_our_errors(readers, name):
    if name not in readers:
        pytest.skip("its extra is not installed")
    figures = harness.run(name, readers[name], seed=0, first=0, count=None, seconds=SECONDS / len(NAMES))
    assert not figures.fault
    assert figures.inputs > 5


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_are_read(readers, name, tmp_path):
    """Else the fuzzing would try nothing but one early refusal."""
    if name not in readers:
        pytest.skip("its extra is not installed")
    refused = {"checkpoints": 1, "import": 4}.get(name, 0)  # those that end at the last check, by tensors or names
    for seed in readers[name].seeds:
        try:
            readers[name].read(seed, tmp_path)
        except harness.FeatherflowError:
            refused -= 1
    assert refused == 0


def test_the_harness_finds_what_is_wrong():
    def read(data, folder):
        if len(data) < 10:
            raise KeyError("not ours")

    figures = harness.run("a", harness.Reader(read, (bytes(40),)), seed=0, first=0, count=1000, seconds=None)
    assert "KeyError" in figures.fault and "--first" in figures.fault
    number = figures.inputs - 1
    assert len(harness.mutated((bytes(40),), number, 0)) < 10


def test_the_harness_finds_what_is_slow(monkeypatch):
    monkeypatch.setattr(harness, "SLOWEST", 0.05)

    def read(data, folder):
        return sum(range(20_000_000)) if len(data) < 10 else None

    figures = harness.run("a", harness.Reader(read, (bytes(40),)), seed=0, first=0, count=1000, seconds=None)
    assert "of a processor" in figures.fault and "--first" in figures.fault
