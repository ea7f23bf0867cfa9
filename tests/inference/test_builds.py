"""Builds on disk: whole or not there, whoever else is building."""

import os
import threading
import time

import pytest

from featherflow.errors import FileError
from featherflow.inference.runners import builds


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERFLOW_HOME", str(tmp_path))
    return tmp_path


def make(text):
    def work(folder):
        (folder / "model").write_text(text)
        return {"text": text}

    return work


def test_built_once():
    first = builds.build("name", make("first"))
    assert builds.build("name", make("second")) == first == builds.find("name")
    assert (first / "model").read_text() == "first" and builds.read(first) == {"text": "first"}


def test_an_interrupted_build_leaves_nothing():
    def interrupted(folder):
        (folder / "model").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builds.build("name", interrupted)
    assert builds.find("name") is None and list(builds.folder().iterdir()) == []
    assert (builds.build("name", make("whole")) / "model").read_text() == "whole"


def test_many_at_once_agree():
    gate = threading.Barrier(4)

    def work(folder):
        gate.wait()  # all are building before any has finished
        return make(folder.name)(folder)

    places = []
    threads = [threading.Thread(target=lambda: places.append(builds.build("name", work))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 4 and len(set(places)) == 1
    assert builds.read(places[0])["text"] == (places[0] / "model").read_text()
    assert [place.name for place in builds.folder().iterdir()] == ["name"]


def test_what_a_killed_program_left_is_removed_later():
    old, young = (builds.folder() / f".unfinished-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    long_ago = time.time() - 2 * builds._STALE
    os.utime(old, (long_ago, long_ago))
    builds.build("name", make("x"))
    assert not old.exists() and young.exists()


def test_the_key_holds_every_fact():
    assert builds.key(size=[1, 2], dtype="a") == builds.key(dtype="a", size=[1, 2])
    assert len({builds.key(size=[1, 2]), builds.key(size=[2, 1]), builds.key(size=[1, 2], version="3")}) == 3


def test_a_folder_that_cannot_be_written(home):
    (home / "engines").write_text("a file in the way")
    with pytest.raises(FileError, match="cannot be kept"):
        builds.build("name", make("x"))


def test_places(monkeypatch, tmp_path):
    monkeypatch.delenv("FEATHERFLOW_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert builds.folder() == tmp_path / "cache" / "featherflow" / "engines"
