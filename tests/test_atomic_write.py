"""Atomic writing: would catch a half file, a lost old file, a temporary file left behind, or an untyped error."""

import errno
import os
import stat

import pytest

from featherflow.errors import FileError, InputError
from featherflow.files import atomic_write


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
