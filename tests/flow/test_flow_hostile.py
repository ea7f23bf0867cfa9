"""Flow files made to hurt: would catch a small file that takes much memory, and one that reads another file."""

import io
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from featherflow.errors import FeatherflowError, FileError, LimitError
from featherflow.flow import decode_flow, encode_flow, read_flow
from featherflow.flow import files as module

SIDE = 8192  # px; twice as many pixels as are taken


def refused(name: str, data: bytes, error=FeatherflowError, mebibytes: float = 40) -> str:
    """The sentence that reading ends in, at once and without the memory that the file asks for."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(error) as caught:
            decode_flow(name, data)
        assert time.monotonic() - started < 5
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20 + 2 * len(data)
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    return str(caught.value)


def deflated(length: int) -> bytes:
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(
        [*(packer.compress(piece) for _ in range(length >> 20)), packer.compress(bytes(length & 0xFFFFF)), packer.flush()]
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def kitti(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def npz(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def npy(shape, descr: str = "<f4", length: int = 0) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(length)


def test_more_pixels_than_are_taken():
    """What would unpack to half a gigabyte and more is told from its header."""
    data = kitti(SIDE, SIDE, deflated(SIDE * (1 + 6 * SIDE)))
    assert len(data) < 500_000
    assert f"{SIDE} x {SIDE}" in refused("flow.png", data, LimitError)
    assert f"{SIDE} x {SIDE}" in refused("flow.npz", npz(flow=npy((SIDE, SIDE, 2), length=SIDE * SIDE * 8)), LimitError)


def test_png_data_longer_than_they_should_be():
    assert "more" in refused("flow.png", kitti(64, 64, deflated(200 << 20)), FileError)


def test_the_limit_can_be_chosen(tmp_path):
    flow = np.ones((20, 30, 2), np.float32)
    for name in ("a.flo", "a.pfm", "a.png", "a.npz", "a.npy"):
        (tmp_path / name).write_bytes(encode_flow(name, flow))
        np.testing.assert_array_equal(read_flow(tmp_path / name, max_pixels=600), flow)
        with pytest.raises(LimitError, match="at most 599"):
            read_flow(tmp_path / name, max_pixels=599)


def test_a_limit_for_what_compresses_alone(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 599)
    flow = np.ones((20, 30, 2), np.float32)
    for name in ("a.flo", "a.pfm", "a.npy"):
        assert decode_flow(name, encode_flow(name, flow)).shape == flow.shape
    for name in ("a.png", "a.npz"):
        with pytest.raises(LimitError):
            decode_flow(name, encode_flow(name, flow))


ODD = {
    "empty text": npy((4, 4, 2), "<U0"),
    "long text": npy((1, 1, 2), "<U100000", 800_000),
    "nothing": npy((4, 4, 2), "|V0"),
    "records": npy((1, 1, 2), "[('a', '<f4')]", 8).replace(b"\"[('a', '<f4')]\"", b"[('a', '<f4')]  "),
    "negative": npy((-4, 4, 2)),
    "many sides": npy((1,) * 70 + (2,), length=8),
    "complex": npy((1, 1, 2), "<c16", 32),
    "dates": npy((1, 1, 2), "<M8[s]", 16),
    "objects": npy((1, 1, 2), "|O", 16),
    "giant": npy((2**40, 2**40, 2)),
}


@pytest.mark.parametrize("kind", ODD)
def test_arrays_with_odd_headers(kind):
    refused("flow.npy", ODD[kind])
    refused("flow.npz", npz(flow=ODD[kind]))
    refused("flow.npz", npz(flow=npy((2, 2, 2), length=32), valid=ODD[kind]))


# HDF5 -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def h5(tmp_path):
    return pytest.importorskip("h5py"), tmp_path / "flow.flo5"


def test_hdf5_that_leads_elsewhere(h5, tmp_path):
    h5py, path = h5
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones((16, 16, 2), np.float32).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["flow"] = np.ones((16, 16, 2), np.float32)

    def external(file):
        file.create_dataset("flow", (16, 16, 2), "<f4", external=[(str(secret), 0, 2048)])

    def external_link(file):
        file["flow"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/flow")

    def soft_link(file):
        file["other"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/flow")
        file["flow"] = h5py.SoftLink("/other")

    def virtual(file):
        layout = h5py.VirtualLayout((16, 16, 2), "<f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "flow", (16, 16, 2))
        file.create_virtual_dataset("flow", layout)

    for write in (external, external_link, soft_link, virtual):
        with h5py.File(path, "w") as file:
            write(file)
        with pytest.raises(FileError, match=r"other files|holds no flow"):
            read_flow(path)


def test_hdf5_that_unpacks_without_end(h5):
    h5py, path = h5
    with h5py.File(path, "w") as file:
        file.create_dataset("flow", (500, 500, 2), "<f4", data=np.zeros((500, 500, 2), "<f4"), compression="lzf")
    refused("flow.flo5", path.read_bytes(), FileError)

    with h5py.File(path, "w") as file:  # deflate twice
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4000, 4000, 2))
        plan.set_deflate(9)
        plan.set_deflate(9)
        space = h5py.h5s.create_simple((4000, 4000, 2))
        identity = h5py.h5d.create(file.id, b"flow", h5py.h5t.IEEE_F32LE, space, plan)
        identity.write_direct_chunk((0, 0, 0), zlib.compress(deflated(4000 * 4000 * 8)))
    assert path.stat().st_size < 20_000
    assert "filters" in refused("flow.flo5", path.read_bytes(), FileError)

    with h5py.File(path, "w") as file:
        whole = file.create_dataset("flow", (8, 8, 2), "<f4", chunks=(4000, 4000, 2), maxshape=(None, None, 2), compression="gzip")
        whole.id.write_direct_chunk((0, 0, 0), deflated(4000 * 4000 * 8))
    assert "pieces" in refused("flow.flo5", path.read_bytes(), FileError)

    with h5py.File(path, "w") as file:
        file.create_dataset("flow", (SIDE, SIDE, 2), "<f4", chunks=(SIDE, SIDE, 2), compression="gzip")
        file["flow"].id.write_direct_chunk((0, 0, 0), deflated(SIDE * SIDE * 8))
    assert path.stat().st_size < 600_000
    refused("flow.flo5", path.read_bytes(), LimitError)


def test_hdf5_that_others_write(h5):
    h5py, path = h5
    flow = np.random.default_rng(0).normal(size=(50, 40, 2)).astype(np.float32)
    for options in (
        {},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "fletcher32": True},
        {"chunks": (10, 40, 1)},
    ):
        with h5py.File(path, "w") as file:
            file.create_dataset("flow", data=flow, **options)
        np.testing.assert_array_equal(read_flow(path), flow)
