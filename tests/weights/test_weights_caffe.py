"""The protobuf reader: golden bytes, every form of a blob, and any damage told in one sentence."""

import gzip
import io
import lzma
import tarfile

import caffe_writer as writer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherflow.errors import FileError
from featherflow.weights import containers
from featherflow.weights.caffe import read_caffemodel
from featherflow.weights.containers import read_contents, unwrap

# Made with the release's schema and the protobuf library (specification, section 8.1).
GOLDEN = bytes.fromhex(
    "a206360a05636f6e7631120b436f6e766f6c7574696f6e3a202a180000803f0000004000004040000080400000a0400000c0403a040a020203"
)
GOLDEN_LEGACY = bytes.fromhex("12192201632804321208011001180120022a080000803f00000040")

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7
BIAS = np.float32([0.5, -1])
LAYERS = [("conv1", "Convolution", [WEIGHT, BIAS]), ("relu1", "ReLU", []), ("up", "Deconvolution", [WEIGHT[:, :1]])]
SMALL = writer.caffemodel(LAYERS)


def test_golden_bytes():
    layer = read_caffemodel(GOLDEN, "x")["conv1"]
    assert layer.type == "Convolution"
    assert len(layer.blobs) == 1 and np.array_equal(layer.blobs[0], [[1, 2, 3], [4, 5, 6]])


def test_golden_bytes_of_the_legacy_form():
    layer = read_caffemodel(GOLDEN_LEGACY, "x")["c"]
    assert layer.type == "Convolution" and layer.blobs[0].shape == (1, 1, 1, 2)
    assert layer.blobs[0].ravel().tolist() == [1, 2]


def test_our_writer_makes_the_golden_bytes():
    """The tests below rest on the writer."""
    blob = writer.bytes_field(7, writer.blob(np.float32([[1, 2, 3], [4, 5, 6]])))
    head = writer.bytes_field(1, b"conv1") + writer.bytes_field(2, b"Convolution")
    assert writer.bytes_field(100, head + blob) == GOLDEN


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("legacy_shape", [False, True])
def test_every_form_of_a_blob(legacy, packed, double, legacy_shape):
    data = writer.caffemodel(LAYERS, legacy=legacy, packed=packed, double=double, legacy_shape=legacy_shape)
    layers = read_caffemodel(data, "x")
    assert list(layers) == ["conv1", "relu1", "up"] and layers["relu1"].blobs == ()
    weight, bias = layers["conv1"].blobs
    assert weight.dtype == np.float32 and np.array_equal(weight, WEIGHT)
    assert bias.shape == ((1, 1, 1, 2) if legacy_shape else (2,)) and np.array_equal(bias.ravel(), BIAS)
    assert layers["up"].type == "Deconvolution"


def test_unknown_fields_are_skipped_by_wire_type():
    group = writer.varint(77 << 3 | 3) + writer.number_field(100, 5) + writer.varint(77 << 3 | 4)
    fixed = writer.varint(78 << 3 | 1) + bytes(8) + writer.varint(79 << 3 | 5) + bytes(4)
    data = group + fixed + writer.bytes_field(80, b"\xff\xff") + SMALL + group
    assert list(read_caffemodel(data, "x")) == ["conv1", "relu1", "up"]


def test_a_name_that_stands_twice():
    """The release has one such name, without weights; with other weights it would be unclear which to take."""
    empty, full = ("a", "Eltwise", []), ("a", "Convolution", [BIAS])
    assert len(read_caffemodel(writer.caffemodel([empty, full, full, empty]), "x")["a"].blobs) == 1
    with pytest.raises(FileError, match="'a' stands twice"):
        read_caffemodel(writer.caffemodel([full, ("a", "Convolution", [-BIAS])]), "x")


def blob_field(content: bytes) -> bytes:
    return writer.bytes_field(100, writer.bytes_field(1, b"conv9") + writer.bytes_field(7, content))


def shaped(shape: bytes, data: bytes) -> bytes:
    return blob_field(writer.bytes_field(7, shape) + writer.bytes_field(5, data))


LIES = {
    "a shape larger than memory": shaped(writer.number_field(1, 1 << 62), b""),
    "a shape that overflows": shaped(writer.number_field(1, 1 << 40) * 4, bytes(4)),
    "a negative side": shaped(writer.number_field(1, -1), bytes(4)),
    "data that end within a number": blob_field(writer.bytes_field(5, bytes(7))),
    "more data than the shape": shaped(writer.number_field(1, 1), bytes(8)),
    "a length beyond the layer": blob_field(writer.varint(5 << 3 | 2) + writer.varint(1 << 50)),
    "a thousand dimensions": shaped(writer.bytes_field(1, b"\x01" * 1000), bytes(4)),
    "a layer cut off": SMALL + blob_field(writer.bytes_field(5, bytes(400)))[:-9],
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_told_with_the_layer(lie):
    with pytest.raises(FileError, match="conv9") as error:
        read_caffemodel(LIES[lie], "weights.caffemodel")
    assert_one_sentence(error.value, "weights.caffemodel")


@pytest.mark.parametrize(
    "foreign", [b"name: 'LiteFlowNet'\ninput: 'img0'\n", b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(64), b"\xff" * 64, b"\x08\x01"]
)
def test_foreign_bytes(foreign):
    with pytest.raises(FileError, match="is not a Caffe model") as error:
        read_caffemodel(foreign, "weights.caffemodel")
    assert_one_sentence(error.value, "weights.caffemodel")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_a_file_error_or_harmless(data):
    """Truncated and altered at random: layers or one typed sentence, nothing else."""
    damaged = bytearray(SMALL[: data.draw(st.integers(0, len(SMALL)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        layers = read_caffemodel(bytes(damaged), "x")
    except FileError as error:
        assert_one_sentence(error, "x")
    else:
        assert sum(blob.nbytes for layer in layers.values() for blob in layer.blobs) <= len(SMALL)


def test_archive_with_one_model():
    data = writer.tar_gz({"../README": b"words", "folder/a.caffemodel": SMALL})
    assert unwrap(data, "x").data == SMALL


@pytest.mark.parametrize("members", [{"a.txt": b"a"}, {"a.caffemodel": SMALL, "b.caffemodel": SMALL}])
def test_archive_without_exactly_one_model(members):
    with pytest.raises(FileError, match=f"holds {sum(name.endswith('.caffemodel') for name in members)} .caffemodel files"):
        unwrap(writer.tar_gz(members), "x.tar.gz")


def test_links_in_an_archive_are_not_followed(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("a.caffemodel")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(FileError, match="holds 0"):
        unwrap(out.getvalue(), "x.tar")


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, lambda data: writer.tar_gz({"a.caffemodel": data})])
def test_a_bomb_is_not_unpacked(monkeypatch, pack):
    """Content far larger than any weights, in a small file."""
    monkeypatch.setattr(containers, "MOST_BYTES", 1 << 20)
    assert len(unwrap(pack(bytes(900_000)), "x").data) == 900_000
    with pytest.raises(FileError, match="more than 1 MiB"):
        unwrap(pack(bytes(5 << 20)), "x")


def test_damaged_wrappings():
    packed = writer.tar_gz({"a.caffemodel": np.random.default_rng(0).bytes(5000)})
    for damaged in (packed[:-30], packed[:600], packed[:20], b"\xfd7zXZ\x00" + bytes(40)):
        with pytest.raises(FileError, match=r"truncated|damaged") as error:
            unwrap(damaged, "x.tar.gz")
        assert_one_sentence(error.value, "x.tar.gz")


def test_pointer_missing_folder_and_empty(tmp_path):
    pointer = tmp_path / "a.caffemodel"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (tmp_path / "empty").touch()
    for name, said in (("a.caffemodel", "Git LFS pointer"), ("no", "no file"), (".", "is a folder"), ("empty", "is empty")):
        with pytest.raises(FileError, match=said):
            read_contents(tmp_path / name)


def assert_one_sentence(error: Exception, source: str) -> None:
    text = str(error)
    assert source in text and text.endswith(".") and "\n" not in text and len(text) < 250, text
