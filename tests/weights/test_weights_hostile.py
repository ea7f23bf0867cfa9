"""Files made to hurt: would catch a small file that takes much memory or time, and tensors that are no weights."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from torch7_writer import Object, Tensor, tensor, torch7

from featherflow.errors import FeatherflowError, FileError, WeightsError
from featherflow.weights.checkpoints import safetensors_entries, torch_entries, unwrapped
from featherflow.weights.containers import Contents, unwrap
from featherflow.weights.importer import import_weights
from featherflow.weights.tar import members
from featherflow.weights.torch7 import convolutions, read_torch7

MEBIBYTE = 1 << 20


def refused(read, data: bytes, error=FeatherflowError, seconds: float = 5, mebibytes: float = 80) -> str:
    """The sentence that reading ends in, within time and memory."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(error) as caught:
            read(data, "bad.bin")
        assert time.monotonic() - started < seconds
        assert tracemalloc.get_traced_memory()[1] < mebibytes * MEBIBYTE + len(data)
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "bad.bin" in text and text.endswith(".") and text.isprintable() and len(text) < 400, text
    return text


# Archives -------------------------------------------------------------------------------------------------------------


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157], block[257:265] = name, size, kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    return header(b"pax", f"{len(records):011o}".encode(), kind) + records + bytes(-len(records) % 512)


MODEL = header(b"a.caffemodel", f"{5:011o}".encode(), b"0") + b"model" + bytes(507)
END = bytes(1024)
TARS = {
    "a size below zero": extended(b"13 size=-512\n") + MODEL + END,
    "a size below zero, in base 256": header(b"a", b"\xff" * 12, b"0") + END,
    "a record of no length": extended(b"0 size=1\n") + MODEL + END,
    "a record with a length below zero": extended(b"-9 size=1\n") + MODEL + END,
    "a pattern's nightmare": extended(b"1" * 60_000) + MODEL + END,
    "a long header of digits": extended(b"1" * 200_000) + MODEL + END,
    "sparse, old": header(b"a.caffemodel", f"{0:011o}".encode(), b"S") + END,
    "sparse, new": extended(b"22 GNU.sparse.major=1\n") + MODEL + END,
    "a size beyond the file": header(b"a.caffemodel", b"77777777777", b"0") + END,
    "a size of many digits": extended(b"40 size=" + b"9" * 31 + b"\n") + MODEL + END,
    "no sum": MODEL[:148] + b"0000000\0" + MODEL[156:] + END,
    "cut off": MODEL[:514],
    "many": header(b"a", b"", b"0") * 20_000,
}


@pytest.mark.parametrize("kind", TARS)
def test_archives_that_lie(kind):
    refused(unwrap, TARS[kind], FileError)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.caffemodel", "f" * 90 + "/" + "n" * 80 + ".caffemodel", "é/ü.caffemodel"])
def test_archives_of_every_writer(format, name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for member, content in (("README", b"words"), (name, b"model" * 999)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert members(out.getvalue()) == [("README", b"words"), (name, b"model" * 999)]


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress], ids=["xz", "gz"])
def test_what_unpacks_without_end_is_stopped_early(pack):
    packed = pack(bytes(300 * MEBIBYTE))
    assert "64 MiB" in refused(unwrap, packed, FileError, mebibytes=260)


def test_gzip_of_several_members_and_padding():
    assert unwrap(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(512), "x").data == b"one two"
    refused(unwrap, gzip.compress(b"") * 5000, FileError)
    refused(unwrap, gzip.compress(b"one") + b"\x1f\x8bnothing", FileError)


# Torch7 ---------------------------------------------------------------------------------------------------------------


def test_references_to_references_are_walked_once():
    chain = Object("nn.Sequential", {"modules": {1: Object("nn.ReLU", {})}})
    for _ in range(24):
        chain = Object("nn.Sequential", {"modules": {1: chain, 2: chain}})
    data = torch7(chain)
    assert len(data) < 4000
    started = time.monotonic()
    with pytest.raises(WeightsError, match="several places"):
        convolutions(read_torch7(data, "bad.t7"), "bad.t7")
    assert time.monotonic() - started < 2


def test_references_in_a_message_are_not_spelled_out():
    table = {}
    for _ in range(24):
        table = {1: table, 2: table}
    weight = tensor(np.zeros((2, 2), np.float32))
    layer = Object("nn.SpatialConvolutionMM", {"weight": weight, "bias": tensor(np.zeros(2, np.float32)), "nOutputPlane": table})
    with pytest.raises(WeightsError) as error:
        convolutions(read_torch7(torch7(layer), "bad.t7"), "bad.t7")
    assert len(str(error.value)) < 200


def test_many_tensors_on_one_storage():
    storage = np.zeros(20_000, np.float32)
    many = {index: Tensor(storage, (20_000,), (1,)) for index in range(1000)}
    assert "times its own size" in refused(read_torch7, torch7(many), FileError, mebibytes=2)


def test_any_stride_along_a_side_of_one():
    value = read_torch7(torch7(Tensor(np.arange(3, dtype=np.float32), (1, 3), (2**62, 1))), "a.t7")
    assert value.tolist() == [[0, 1, 2]]


def test_an_empty_storage():
    assert read_torch7(torch7(Tensor(np.zeros(0, np.float32), (0,), (1,))), "a.t7").shape == (0,)


# PyTorch and safetensors ----------------------------------------------------------------------------------------------


def saved(value) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def test_a_checkpoint_that_was_packed_again_and_again():
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(25 * MEBIBYTE)}))) as whole:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for member in whole.infolist():
                packed.writestr(member.filename, whole.read(member))
    assert len(out.getvalue()) < MEBIBYTE
    assert "64 MiB" in refused(torch_entries, out.getvalue(), FileError)


ODD = {
    "sparse": torch.eye(3).to_sparse(),
    "compressed": torch.eye(3).to_sparse_csr(),
    "quantised": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "complex": torch.zeros(3, dtype=torch.complex64),
    "without numbers": torch.zeros(3, device="meta"),
    "a view without end": torch.zeros(1).expand(10**6, 10**6),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_odd_kinds(kind):
    refused(torch_entries, saved({"fine": torch.zeros(2), "odd": ODD[kind]}))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8], ids=str)
@pytest.mark.parametrize("name", ["spynet", "flownets"])
def test_numbers_that_are_no_weights(dtype, name):
    from featherflow import networks

    state = {key: value.to(dtype) for key, value in networks.build(name).state_dict().items()}
    with pytest.raises(WeightsError, match="floating-point"):
        import_weights(Contents(saved(state), "weights.pth"), name)


def test_a_header_longer_than_any():
    data = json.dumps({"__metadata__": {"a": "x" * (5 << 20)}}).encode()
    assert "header" in refused(safetensors_entries, struct.pack("<Q", len(data)) + data, FileError)
    refused(safetensors_entries, struct.pack("<Q", 100_000) + b"{" * 100_000, FileError)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"model.{key}": value for key, value in state.items()},
        lambda state: {f"module.model.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"n_averaged": torch.tensor(5), **{f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model_state_dict": state, "epoch": 3},
        lambda state: {"net": state},
        lambda state: {"ema": {f"module.{key}": value for key, value in state.items()}, "optimizer": {}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {key.replace("moduleBasic.0.", "moduleBasic.0._orig_mod."): value for key, value in state.items()},
    ],
)
def test_what_training_programs_put_round_weights(wrap):
    from featherflow import networks

    state = networks.build("spynet").state_dict()
    imported = import_weights(Contents(saved(wrap(state)), "weights.pth"), "spynet:mine")
    assert all(torch.equal(imported.state_dict[key], value) for key, value in state.items())


def test_names_that_only_look_wrapped_stay():
    assert list(unwrapped({"model.a": torch.zeros(1), "b": torch.zeros(1)})) == ["model.a", "b"]


def test_foreign_compression_is_no_model():
    refused(lambda data, name: import_weights(Contents(data, name), "liteflownet"), bz2.compress(bytes(1000)), FileError)


def test_entries_of_a_file_cannot_move_the_cursor():
    with pytest.raises(WeightsError) as error:
        import_weights(Contents(saved({"\x1b[2J": torch.zeros(1, dtype=torch.complex64)}), "a.pth"), "raft")
    assert str(error.value).isprintable()
