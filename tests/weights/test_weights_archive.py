"""Fetching published archives, without a network: an injected opener answers."""

import hashlib
import http.client
import io
import urllib.error
from email.message import Message

import caffe_writer as writer
import pytest
from random_networks import random_network

from featherflow import weights
from featherflow.errors import FileError, InputError, WeightsError
from featherflow.weights import archive


@pytest.fixture(scope="module")
def published() -> bytes:
    model = writer.caffemodel(writer.official_layers_of(random_network("liteflownet")))
    return writer.tar_gz({"liteflownet.caffemodel": model})


class Server:
    """Answers by URL; counts what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, url, timeout):
        assert 0 < timeout <= 60
        host = url.split("/")[2].partition(".")[0]
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        response = io.BytesIO(answer)
        response.headers = Message()
        response.headers["Content-Length"] = str(len(answer))
        return response


@pytest.fixture
def known(monkeypatch):
    """Make content the published one."""

    def know(content: bytes) -> None:
        entry = archive.ARCHIVES["liteflownet"]
        blob = archive.blob_id(content)
        monkeypatch.setitem(archive.ARCHIVES, "liteflownet", archive.Archive(entry.name, entry.target, blob, entry.summary))

    return know


def pointer(content: bytes) -> bytes:
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


def test_blob_id_is_that_of_git():
    """`echo hello | git hash-object --stdin`."""
    assert archive.blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_good(published, known, home):
    known(published)
    shown, steps = [], []
    path, imported = archive.fetch(
        "liteflownet",
        lambda terms: shown.append(terms) or True,
        progress=lambda *step: steps.append(step),
        opener=Server(raw=published),
    )
    assert path == home / "liteflownet-official.safetensors" and path.is_file()
    assert "research" in shown[0] and "https://" in shown[0]
    assert steps[-1] == (len(published), len(published))
    assert weights.load("liteflownet:official").weights_info == imported.info
    assert imported.info.source.startswith("liteflownet.caffemodel.tar.gz, sha256")


def test_behind_a_verified_pointer(published, known, home):
    known(pointer(published))
    server = Server(raw=pointer(published), media=published)
    assert archive.fetch("liteflownet", True, opener=server)[0].is_file()
    assert server.asked == ["raw", "media"]


OTHER = b"\x1f\x8b other content"
OFFLINE = urllib.error.URLError(OSError(101, "Network is unreachable"))
FAILURES = {
    "wrong hash": ({"raw": OTHER}, b"published", WeightsError, "is not the published file"),
    "pointer, not the published one": ({"raw": pointer(OTHER)}, OTHER, WeightsError, "Git LFS pointer instead of"),
    "pointer to a pointer": ({"raw": pointer(OTHER), "media": pointer(OTHER)}, pointer(OTHER), WeightsError, "by hand"),
    "pointer to other content": ({"raw": pointer(OTHER), "media": b"x"}, pointer(OTHER), WeightsError, "sha256 differs"),
    "offline": ({"raw": OFFLINE}, OTHER, FileError, "Network is unreachable"),
    "timeout": ({"raw": TimeoutError("timed out")}, OTHER, FileError, "timed out"),
    "gone": ({"raw": urllib.error.HTTPError("u", 404, "Not Found", Message(), None)}, OTHER, FileError, "answered 404"),
    "broken off": ({"raw": http.client.IncompleteRead(b"")}, OTHER, FileError, "broke off"),
    "not an archive": ({"raw": b"<html>"}, b"<html>", FileError, "is not a Caffe model"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(case, known, home):
    answers, content, kind, said = FAILURES[case]
    known(content)
    with pytest.raises(kind, match=said) as error:
        archive.fetch("liteflownet", True, opener=Server(**answers))
    text = str(error.value)
    assert "liteflownet.caffemodel.tar.gz" in text and "\n" not in text
    assert not home.exists()


def test_shorter_than_announced(known, home):
    def opener(url, timeout):
        response = io.BytesIO(b"half")
        response.headers = {"Content-Length": "8"}
        return response

    with pytest.raises(FileError, match="broke off at 4 of 8 bytes"):
        archive.fetch("liteflownet", True, opener=opener)


def test_too_large(known, home, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    with pytest.raises(WeightsError, match="is larger than"):
        archive.fetch("liteflownet", True, opener=Server(raw=bytes(11)))


@pytest.mark.parametrize("agree", [False, lambda terms: False])
def test_without_consent_nothing_is_asked_of_the_network(agree, home):
    server = Server()
    with pytest.raises(WeightsError, match="have to be agreed to"):
        archive.fetch("liteflownet", agree, opener=server)
    assert server.asked == []


def test_unknown_name():
    with pytest.raises(InputError, match="did you mean 'liteflownet-ft-sintel'"):
        archive.fetch("liteflownet-ft-sintl", True, opener=Server())


def test_table():
    assert [entry.name for entry in archive.ARCHIVES.values()] == ["liteflownet", "liteflownet-ft-sintel", "liteflownet-ft-kitti"]
    assert all(len(entry.blob) == 40 for entry in archive.ARCHIVES.values())
    assert archive.ARCHIVES["liteflownet"].url.endswith("/twhui/LiteFlowNet/master/models/trained/liteflownet.caffemodel.tar.gz")
