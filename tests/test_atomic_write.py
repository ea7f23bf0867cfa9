"""Atomic writing: would catch a half file, a lost old file, a temporary file left behind, or an untyped error."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from featherflow import files
from featherflow.errors import FileError, InputError
from featherflow.files import atomic_write, together


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_complete_or_as_before(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, InputError("no"), FileError("no")])
@pytest.mark.parametrize("old", [None, b"old"])
def test_interruption_leaves_the_old_file_alone(tmp_path, error, old):
    target = tmp_path / "a.bin"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        with atomic_write(target) as file:
            file.write(b"half" * 100000)
            raise error
    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or target.read_bytes() == old


def test_interruption_of_the_rename(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as file:
        file.write(b"new")
    assert names(tmp_path) == ["a.bin"] and target.read_bytes() == b"old"


@pytest.mark.parametrize(
    "number, message",
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EIO, os.strerror(errno.EIO))],
)
def test_system_errors_are_one_sentence(tmp_path, number, message):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(FileError, match=f"cannot write {target}: .*{message}"), atomic_write(target) as file:
        file.write(b"half")
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == ["a.bin"] and target.read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path):
    # The system's own full device stands in for the temporary file, so that flush and close fail for real.
    with pytest.raises(FileError, match="disk is full"), atomic_write(tmp_path / "a.bin") as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        file.write(b"x")
    assert names(tmp_path) == []


def test_an_error_about_another_file_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "a.bin"):
        open(tmp_path / "other.bin", "rb")
    assert not isinstance(caught.value, FileError)
    assert names(tmp_path) == []


def test_targets_that_cannot_be(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "folder": "is a folder",
        "pipe": "device or a pipe",
        "none/a.bin": "folder does not exist",
        "file/a.bin": "not a folder",
        "n" * 300: "too long",
    }
    for name, message in cases.items():
        with pytest.raises(FileError, match=message), atomic_write(tmp_path / name):
            pytest.fail("opened")
    assert names(tmp_path) == ["file", "folder", "pipe"]


def test_longest_name(tmp_path):
    with atomic_write(tmp_path / ("n" * 255)) as file:
        file.write(b"x")
    assert names(tmp_path) == ["n" * 255]


def test_write_protected(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    with pytest.raises(FileError, match="write-protected"), atomic_write(target):
        pytest.fail("opened")
    assert target.read_bytes() == b"old"


def test_permissions_and_links_are_kept(tmp_path):
    umask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"first")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o644
    (tmp_path / "a.bin").chmod(0o640)
    (tmp_path / "link").symlink_to("a.bin")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.bin").read_bytes() == b"second"
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


# Several files at once ------------------------------------------------------------------------------------------------


def write(path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_files_that_belong_together_come_together(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with together():
        write(tmp_path / "a", b"new")
        write(tmp_path / "b", b"new")
        assert (tmp_path / "a").read_bytes() == b"old" and not (tmp_path / "b").exists()
    assert names(tmp_path) == ["a", "b"] and {path.read_bytes() for path in tmp_path.iterdir()} == {b"new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("no")])
def test_none_of_them_where_one_fails(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error) if isinstance(error, Exception) else error), together():
        write(tmp_path / "a", b"new")
        write(tmp_path / "b", b"new")
        raise error
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_none_of_them_where_one_cannot_be_put_in_its_place(tmp_path, monkeypatch, failing):
    for name in "ac":
        (tmp_path / name).write_bytes(b"old")
    replace, count = os.replace, 0

    def sometimes(source, target):
        nonlocal count
        if str(source).endswith(".tmp"):
            count += 1
            if count == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", sometimes)
    with pytest.raises(FileError, match="disk is full"), together():
        for name in "abc":
            write(tmp_path / name, b"new")
    assert names(tmp_path) == ["a", "c"] and {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}


def test_a_kill_between_two_renames_leaves_no_mixed_pair(tmp_path):
    code = f"""
import os, signal
from featherflow.files import atomic_write, together
replace = os.replace
def killed(source, target):
    if target.name == "model.xml":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
with together():
    for name in ("model.bin", "model.xml"):
        with atomic_write({str(tmp_path)!r} + "/" + name) as file:
            file.write(b"new")
"""
    for name in ("model.bin", "model.xml"):
        (tmp_path / name).write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "model.bin").read_bytes() == b"new" and not (tmp_path / "model.xml").exists()


# What killed processes leave ------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    code = f"""
import os, signal
from featherflow.files import atomic_write
with atomic_write({str(tmp_path / "a")!r}) as file:
    file.write(b"half" * 100000)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code])
    assert len(names(tmp_path)) == 1  # the second one took away what the first had left
    files._swept.discard(tmp_path)
    write(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_what_living_processes_and_strangers_write_is_left_alone(tmp_path):
    ours = files.temporary_path(tmp_path)
    elsewhere = tmp_path / f".featherflow-00000000-1-{'0' * 16}.tmp"
    abandoned = tmp_path / f".featherflow-00000000-1-{'1' * 16}.tmp"
    for path in (ours, elsewhere, abandoned, tmp_path / ".featherflow-notes.tmp"):
        path.write_bytes(b"")
    os.utime(abandoned, (1e9, 1e9))
    assert files.sweep(tmp_path) == [abandoned]


# Errors that libraries make of a full disk ----------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_library_that_hides_a_full_disk(tmp_path):
    """PyTorch reports a failed write as a fault of its own archive; a checkpoint must end in the sentence all the same."""
    import torch

    with pytest.raises(FileError, match="disk is full"), atomic_write(tmp_path / "a.pt") as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        torch.save({"weight": torch.zeros(100_000)}, file)
    assert names(tmp_path) == []


def test_a_disk_is_asked_where_a_library_does_not_say(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="basic_ios"), files.full_disk_told(tmp_path):
        raise RuntimeError("basic_ios::clear")
    monkeypatch.setattr(files, "_write_failure", lambda folder: OSError(errno.ENOSPC, "full"))
    with pytest.raises(FileError, match="disk is full"), files.full_disk_told(tmp_path):
        raise RuntimeError("basic_ios::clear")
    assert names(tmp_path) == []


def test_durable_files_are_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    with atomic_write(tmp_path / "a", durable=True) as file:
        file.write(b"x")
    assert synced == [False, True]
    write(tmp_path / "b", b"x")
    assert len(synced) == 2
