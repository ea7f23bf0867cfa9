"""Builds on disk: whole or not there, whoever else is building."""

import json
import subprocess
import sys
import threading

import pytest

from featherflow.errors import FileError
from featherflow.inference.runners import builds


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERFLOW_HOME", str(tmp_path))
    return tmp_path


def left() -> list[str]:
    """What the folder of builds holds, beside its locks."""
    return sorted(place.name for place in builds.folder().iterdir() if place.name != builds._LOCKS)


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
    assert builds.find("name") is None and left() == []
    assert (builds.build("name", make("whole")) / "model").read_text() == "whole"


def test_of_many_at_once_one_builds_and_the_others_wait():
    started, made, places, errors = threading.Barrier(8), [], [], []

    def work(folder):
        made.append(folder)
        (folder / "model").write_text("whole")
        return {"checks": {}}

    def run():
        started.wait()
        try:
            places.append(builds.build("name", work))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(made) == 1
    assert len(places) == 8 and set(places) == {builds.find("name")}
    assert left() == ["name"]


def test_of_many_processes_one_builds(home):
    code = """
import sys, time
from featherflow.inference.runners import builds
def work(folder):
    print("made", flush=True)
    time.sleep(0.5)
    (folder / "model").write_text("whole")
    return {"checks": {}}
builds.build("name", work)
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0] and "".join(said).split() == ["made"]


def _rewrite(change):
    def damage(place):
        content = json.loads((place / builds._RECORD).read_text())
        change(content)
        (place / builds._RECORD).write_text(json.dumps(content))

    return damage


def _resealed(record):
    """What some other program may have written, as if it were whole."""

    def damage(place):
        files = json.loads((place / builds._RECORD).read_text())["files"]
        (place / builds._RECORD).write_bytes(builds._sealed(record, files))

    return damage


DAMAGE = {
    "empty record": lambda place: (place / builds._RECORD).write_bytes(b""),
    "cut record": lambda place: (place / builds._RECORD).write_bytes((place / builds._RECORD).read_bytes()[:20]),
    "no text": lambda place: (place / builds._RECORD).write_bytes(b"\xff\xfe\x00"),
    "a list": lambda place: (place / builds._RECORD).write_text("[]"),
    "a number": lambda place: (place / builds._RECORD).write_text("1"),
    "nested": lambda place: (place / builds._RECORD).write_text("[" * 100_000),
    "no checks": _rewrite(lambda content: content["record"].pop("checks")),
    "checks of another kind": _rewrite(lambda content: content["record"].update(checks={"float32, 1 threads": {"ms": "x"}})),
    "checks that are no table": _resealed({"checks": ["float32, 1 threads"]}),
    "a check without times": _resealed({"checks": {"float32, 1 threads": {}}}),
    "a check of no time": _resealed({"checks": {"float32, 1 threads": {"ms": 1, "torch_ms": 0}}}),
    "a check of words": _resealed({"checks": {"float32, 1 threads": {"ms": "a", "torch_ms": "b"}}}),
    "a check of a huge number": _resealed({"checks": {"float32, 1 threads": {"ms": 10**400, "torch_ms": 1}}}),
    "a list for a record": _resealed([]),
    "no record": _rewrite(lambda content: content.pop("record")),
    "files of another kind": _rewrite(lambda content: content.update(files=[1])),
    "empty model": lambda place: (place / "model").write_bytes(b""),
    "altered model": lambda place: (place / "model").write_text("fresh"),
    "no model": lambda place: (place / "model").unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_build_is_built_again(kind):
    def work(folder):
        (folder / "model").write_text("first")
        return {"checks": {}}

    place = builds.build("name", work)
    DAMAGE[kind](place)
    assert builds.find("name") is None
    with pytest.raises(FileError, match="damaged"):
        builds.read(place)
    assert builds.build("name", work) == place and (place / "model").read_text() == "first"
    assert builds.read(place) == {"checks": {}} and left() == ["name"]


def test_checks_are_added():
    place = builds.build("name", lambda folder: {"checks": {}})
    builds.record_check(place, "a", {"ms": 1.0, "torch_ms": 3.0})
    builds.record_check(place, "b", {"ms": 2.0, "torch_ms": 3.0})
    assert builds.read(place)["checks"] == {
        "a": {"ms": 1.0, "torch_ms": 3.0},
        "b": {"ms": 2.0, "torch_ms": 3.0},
    }


def test_what_a_killed_program_left_is_removed():
    code = """
import os, signal
from featherflow.inference.runners import builds
def work(folder):
    (folder / "model").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
builds.build("name", work)
"""
    subprocess.run([sys.executable, "-c", code], timeout=120)
    assert len(left()) == 1
    builds.build("name", make("x"))
    assert left() == ["name"]


def test_a_full_disk_is_one_sentence(monkeypatch):
    from featherflow import files

    monkeypatch.setattr(files, "_write_failure", lambda folder: OSError(28, "No space left on device"))

    def work(folder):
        raise RuntimeError("basic_ios::clear: iostream error")

    with pytest.raises(FileError, match="disk is full") as error:
        builds.build("name", work)
    assert ".featherflow-" not in str(error.value)  # the place is named, not the temporary folder in it
    assert left() == []


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
