"""Flow files: would catch a wrong byte order, axis, sign, offset or row order, a lost unknown pixel, and a bad file
that ends in a traceback, a wrong flow or an allocation of whatever its header claims."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featherflow.errors import FileError, InputError, MissingExtraError
from featherflow.flow import SUFFIXES, read_flow, read_flow_with_valid, write_flow

NAN = np.float32(np.nan)
# Two rows, three columns, no symmetry: each component of each pixel is different.
SMALL = np.array([[[1, 2], [3, 4], [-5, 6.5]], [[0, -0.25], [100, -200], [511.984375, -512]]], np.float32)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, rows: bytes, depth=16, kind=2, interlace=0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(compression=zipfile.ZIP_DEFLATED, **members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy_claiming(shape) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + b"\0" * 48


# Hand-built bytes and other people's codecs ---------------------------------------------------------------------------


def test_flo_bytes(tmp_path):
    content = struct.pack("<fii", 202021.25, 3, 2) + struct.pack("<12f", *SMALL.ravel())
    (tmp_path / "a.flo").write_bytes(content)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), SMALL)
    write_flow(tmp_path / "b.flo", SMALL)
    assert (tmp_path / "b.flo").read_bytes() == content
    assert content[:4] == b"PIEH"


@pytest.mark.parametrize("unknown", [1.666666752e9, -2e9, np.nan, np.inf])
def test_flo_unknown_component_makes_the_pixel_nan_and_is_written_as_middlebury_does(tmp_path, unknown):
    (tmp_path / "a.flo").write_bytes(struct.pack("<fii4f", 202021.25, 2, 1, 7, unknown, 1e9, -1e9))
    flow, valid = read_flow_with_valid(tmp_path / "a.flo")
    np.testing.assert_array_equal(flow, [[[NAN, NAN], [1e9, -1e9]]])
    np.testing.assert_array_equal(valid, [[False, True]])
    write_flow(tmp_path / "b.flo", flow)
    expected = struct.pack("<fii4f", 202021.25, 2, 1, 1.666666752e9, 1.666666752e9, 1e9, -1e9)
    assert (tmp_path / "b.flo").read_bytes() == expected


def test_flo_agrees_with_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    write_flow(tmp_path / "ours.flo", SMALL)
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(tmp_path / "ours.flo")), SMALL)
    assert cv2.writeOpticalFlow(str(tmp_path / "theirs.flo"), SMALL)
    np.testing.assert_array_equal(read_flow(tmp_path / "theirs.flo"), SMALL)


def test_kitti_png_bytes(tmp_path):
    # Pixel (u, v) = (1, -0.5), an unknown one, and the two ends of the range; filter byte 0 before the row.
    row = struct.pack(">x12H", 32832, 32736, 1, 0, 0, 0, 0, 65535, 1, 32768, 32768, 65535)
    (tmp_path / "a.png").write_bytes(png(4, 1, row))
    flow, valid = read_flow_with_valid(tmp_path / "a.png")
    np.testing.assert_array_equal(flow, [[[1, -0.5], [NAN, NAN], [-512, 511.984375], [0, 0]]])
    np.testing.assert_array_equal(valid, [[True, False, True, True]])


def test_kitti_png_agrees_with_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    valid = np.array([[1, 0, 1], [1, 1, 1]], bool)
    write_flow(tmp_path / "ours.png", SMALL, valid)
    blue, green, red = np.moveaxis(cv2.imread(str(tmp_path / "ours.png"), cv2.IMREAD_UNCHANGED), -1, 0)
    assert blue.dtype == np.uint16
    np.testing.assert_array_equal(blue, valid)
    np.testing.assert_array_equal(((red - 32768.0) / 64)[valid], SMALL[valid][:, 0])
    np.testing.assert_array_equal(((green - 32768.0) / 64)[valid], SMALL[valid][:, 1])
    np.testing.assert_array_equal(np.stack([red, green])[:, ~valid], 0)
    # OpenCV's encoder filters its rows, ours does not: the other way round reads what ours never writes.
    rng = np.random.default_rng(0)
    field = (rng.integers(-32768, 32768, (40, 50, 2)).cumsum(axis=1) % 65536 - 32768) / 64
    image = np.dstack([np.ones((40, 50)), field[..., 1] * 64 + 32768, field[..., 0] * 64 + 32768]).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "theirs.png"), image)
    np.testing.assert_array_equal(read_flow(tmp_path / "theirs.png"), field)


@pytest.mark.parametrize("order, scale", [("<", "-1.0"), (">", "1.0"), (">", "0.0039"), ("<", "-1e-3")])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_pfm_bytes(tmp_path, order, scale, newline):
    bottom_up = np.concatenate([SMALL, np.full((2, 3, 1), 9)], axis=2)[::-1]
    header = newline.join(["PF", "3 2", scale, ""]).encode()
    (tmp_path / "a.pfm").write_bytes(header + struct.pack(f"{order}18f", *bottom_up.ravel()))
    np.testing.assert_array_equal(read_flow(tmp_path / "a.pfm"), SMALL)


def test_written_pfm_agrees_with_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    write_flow(tmp_path / "a.pfm", SMALL)
    image = cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED)[..., ::-1]  # OpenCV reverses the channels
    np.testing.assert_array_equal(image, np.dstack([SMALL, np.zeros((2, 3))]))


def test_npz_takes_any_number_type_and_memory_order(tmp_path):
    np.savez(tmp_path / "a.npz", flow=np.asfortranarray(SMALL.astype(">f8")), valid=np.array([[2, 0, 1], [1, 1, 1]]))
    flow, valid = read_flow_with_valid(tmp_path / "a.npz")
    assert flow.dtype == np.float32 and flow.flags.c_contiguous
    np.testing.assert_array_equal(valid, [[True, False, True], [True, True, True]])
    np.testing.assert_array_equal(flow[valid], SMALL[valid])
    write_flow(tmp_path / "b.npz", flow)
    with np.load(tmp_path / "b.npz") as archive:
        np.testing.assert_array_equal(archive["valid"], valid)
        np.testing.assert_array_equal(archive["flow"], flow)


def test_flo5_agrees_with_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_flow(tmp_path / "a.flo5", SMALL)
    with h5py.File(tmp_path / "a.flo5") as archive:
        assert archive["flow"].dtype == np.float32
        np.testing.assert_array_equal(archive["flow"][()], SMALL)
    with h5py.File(tmp_path / "b.flo5", "w") as archive:
        archive.create_dataset("flow", data=SMALL.astype(np.float16), compression="gzip")
    np.testing.assert_array_equal(read_flow(tmp_path / "b.flo5"), SMALL.astype(np.float16))


def test_flo5_without_h5py_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.flo5").write_bytes(b"something")
    for action in (lambda: read_flow(tmp_path / "a.flo5"), lambda: write_flow(tmp_path / "b.flo5", SMALL)):
        with pytest.raises(MissingExtraError, match=r"pip install 'featherflow\[flo5\]'"):
            action()
    assert not (tmp_path / "b.flo5").exists()


# Round trips ----------------------------------------------------------------------------------------------------------

LIMITS = {".png": 500, ".flo": 1e6}


def skip_without_codec(suffix):
    if suffix == ".flo5":
        pytest.importorskip("h5py")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(tmp_path_factory, suffix, data):
    skip_without_codec(suffix)
    height, width = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64, ">f4", np.int16]))
    limit = min(LIMITS.get(suffix, 1e6), 1000)
    elements = {"min_value": -limit, "max_value": limit}
    if np.dtype(dtype).kind == "f":
        elements["allow_nan"] = False
    else:
        elements = {"min_value": int(-limit), "max_value": int(limit)}
    if suffix == ".png":
        elements = {"min_value": -500, "max_value": 500}
    values = hnp.arrays(dtype, (height, width, 2), elements=hnp.from_dtype(np.dtype(dtype), **elements))
    flow = data.draw(values)
    valid = data.draw(st.none() | hnp.arrays(bool, (height, width)))
    path = tmp_path_factory.mktemp("round") / f"f{suffix}"
    before = flow.copy()
    write_flow(path, flow, valid)
    np.testing.assert_array_equal(flow, before)
    read, known = read_flow_with_valid(path)
    assert read.shape == (height, width, 2) and read.dtype == np.float32 and read.flags.writeable
    np.testing.assert_array_equal(known, np.ones((height, width), bool) if valid is None else valid)
    assert np.isnan(read[~known]).all()
    # Each format holds float32 exactly, but KITTI's PNG is in steps of 1/64 px.
    tolerance = 0.5 / 64 if suffix == ".png" else 0
    assert np.abs(read[known] - flow.astype(np.float32)[known]).max(initial=0) <= tolerance
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nan_is_unknown_in_every_format(tmp_path, suffix):
    skip_without_codec(suffix)
    flow = SMALL.copy()
    flow[0, 1, 0] = np.nan
    write_flow(tmp_path / f"a{suffix}", flow)
    read, valid = read_flow_with_valid(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(valid, [[True, False, True], [True, True, True]])
    assert np.isnan(read[0, 1]).all()
    np.testing.assert_array_equal(read[valid], flow[valid])


def test_suffix_in_capitals_and_path_as_text(tmp_path):
    write_flow(str(tmp_path / "A.FLO"), SMALL)
    np.testing.assert_array_equal(read_flow(str(tmp_path / "A.FLO")), SMALL)


def test_tensor_is_written_as_its_array(tmp_path):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(SMALL.copy()).permute(2, 0, 1).requires_grad_()
    write_flow(tmp_path / "a.flo", tensor)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), SMALL)
    write_flow(tmp_path / "b.flo", tensor[None].double())
    np.testing.assert_array_equal(read_flow(tmp_path / "b.flo"), SMALL)


# What cannot be written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-512.01, 512, 1e6])
def test_kitti_range(tmp_path, value):
    flow = SMALL.copy()
    flow[0, 0, 1] = value
    with pytest.raises(InputError, match=r"-512 to 511\.98 px, but the flow holds .* px; use \.flo"):
        write_flow(tmp_path / "a.png", flow)
    assert list(tmp_path.iterdir()) == []
    write_flow(tmp_path / "a.png", flow, valid=[[0, 1, 1], [1, 1, 1]])  # what is unknown may hold anything


@pytest.mark.parametrize(
    "flow, message",
    [
        (np.zeros((2, 3, 3)), r"\(H, W, 2\), but got \(2, 3, 3\)"),
        (np.zeros((2, 4, 5)), r"\(H, W, 2\), but got \(2, 4, 5\)"),
        (np.zeros((0, 3, 2)), r"\(H, W, 2\), but got \(0, 3, 2\)"),
        (np.zeros((2, 3, 2), complex), "real numbers"),
        (np.zeros((2, 3, 2), bool), "real numbers"),
        ([[[0, 0]]], "got a list"),
        (np.full((2, 3, 2), np.inf), "infinite"),
        (np.full((2, 3, 2), 2e9), "beyond 1e9"),
        (np.full((2, 3, 2), 1e300), "infinite"),
    ],
)
def test_what_is_no_flow_is_not_written(tmp_path, flow, message):
    with pytest.raises(InputError, match=message):
        write_flow(tmp_path / "a.flo", flow)
    assert list(tmp_path.iterdir()) == []


def test_tensor_of_another_shape_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    for shape in [(2, 2, 3, 4), (3, 4, 2), (2, 3)]:
        with pytest.raises(InputError, match=r"\(2, H, W\)"):
            write_flow(tmp_path / "a.flo", torch.zeros(shape))


def test_valid_of_another_shape_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\(2, 3\), but got \(3, 2\)"):
        write_flow(tmp_path / "a.flo", SMALL, np.ones((3, 2)))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.flo.txt", ".flo"])
def test_unknown_suffix_lists_the_known(tmp_path, name):
    for action in (lambda: read_flow(tmp_path / name), lambda: write_flow(tmp_path / name, SMALL)):
        with pytest.raises(InputError, match=r"\.flo, \.png, \.pfm, \.npz, \.npy, \.flo5"):
            action()


def test_missing_folder(tmp_path):
    with pytest.raises(FileError, match="folder does not exist"):
        write_flow(tmp_path / "no" / "a.flo", SMALL)


# Bad files ------------------------------------------------------------------------------------------------------------

FLO = struct.pack("<fii", 202021.25, 3, 2) + bytes(48)
PFM = b"PF\n3 2\n-1\n" + bytes(72)
PNG = png(3, 2, bytes(2 * 19))
BAD = {
    "short header.flo": (FLO[:7], "cut short"),
    "wrong magic.flo": (b"HEIP" + FLO[4:], "magic"),
    "truncated.flo": (FLO[:-1], "cut short: 3 x 2 pixels take 60 bytes, but the file has 59"),
    "trailing.flo": (FLO + b"x", "after its end"),
    "billion.flo": (struct.pack("<fii", 202021.25, 40000, 25000) + bytes(48), "8000000012 bytes"),
    "overflowing.flo": (struct.pack("<fii", 202021.25, 2**31 - 1, 2**31 - 1) + bytes(48), "cut short"),
    "negative.flo": (struct.pack("<fii", 202021.25, -3, -2) + bytes(48), "-3 x -2"),
    "zero.flo": (struct.pack("<fii", 202021.25, 0, 2), "0 x 2"),
    "other format.flo": (PNG, "magic"),
    "no header.pfm": (b"P6\n3 2\n255\n" + bytes(72), "expected 'PF'"),
    "grey.pfm": (b"Pf\n3 2\n-1\n" + bytes(24), "grey"),
    "scale zero.pfm": (b"PF\n3 2\n0\n" + bytes(72), "scale"),
    "scale no number.pfm": (b"PF\n3 2\n1.2.3\n" + bytes(72), "scale"),
    "truncated.pfm": (PFM[:-1], "cut short"),
    "trailing.pfm": (PFM + b"xx", "after its end"),
    "billion.pfm": (b"PF\n40000 25000\n-1\n" + bytes(72), "cut short"),
    "negative.pfm": (b"PF\n-3 2\n-1\n" + bytes(72), "-3 x 2"),
    "no signature.png": (FLO, "PNG signature"),
    "truncated.png": (PNG[:-5], "cut short"),
    "signature only.png": (PNG[:8], "cut short"),
    "trailing.png": (PNG + b"x", "after the end"),
    "eight bit.png": (png(3, 2, bytes(2 * 10), depth=8), "16-bit RGB, found 8-bit RGB"),
    "grey.png": (png(3, 2, bytes(2 * 7), kind=0), "found 16-bit grey"),
    "alpha.png": (png(3, 2, bytes(2 * 25), kind=6), "found 16-bit RGB and alpha"),
    "billion.png": (png(40000, 25000, bytes(100)), "40000 x 25000"),
    "too few rows.png": (png(3, 3, bytes(2 * 19)), "57 bytes of pixel data, but holds 38"),
    "too much data.png": (png(3, 2, bytes(100000)), "holds more"),
    "zero size.png": (png(0, 2, bytes(2)), "0 x 2"),
    "bad sum.png": (PNG.replace(PNG[-20:-16], b"abcd"), "damaged"),
    "bad stream.png": (PNG[:41] + b"\xff\xff" + PNG[43:], "damaged"),
    "bad filter.png": (png(3, 2, b"\x09" * (2 * 19)), "damaged"),
    "not a zip.npz": (FLO, "not a readable .npz"),
    "truncated.npz": (npz(flow=npy(SMALL))[:-30], "not a readable .npz"),
    "other key.npz": (npz(motion=npy(SMALL)), "expected the key 'flow', found motion"),
    "empty.npz": (npz(), "found nothing"),
    "not an array.npz": (npz(flow=b"hello, world"), "NumPy array"),
    "wrong shape.npz": (npz(flow=npy(SMALL[..., 0])), r"expected 'flow' of shape \(H, W, 2\), found \(2, 3\)"),
    "channels first.npz": (npz(flow=npy(np.moveaxis(SMALL, -1, 0))), r"found \(2, 2, 3\)"),
    "text.npz": (npz(flow=npy(SMALL.astype("U5"))), "real numbers"),
    "objects.npz": (npz(flow=npy(SMALL.astype(object))), "unpickle"),
    "valid shape.npz": (npz(flow=npy(SMALL), valid=npy(np.ones((3, 2)))), "'valid' of shape"),
    "billion.npz": (npz(flow=npy_claiming((25000, 40000, 2))), "8000000000 bytes"),
    "lzma.npz": (npz(zipfile.ZIP_LZMA, flow=npy(SMALL)), "zip method"),
    "truncated.npy": (npy(SMALL)[:-3], "48 bytes of float32, but holds 45"),
    "trailing.npy": (npy(SMALL) + b"xyz", "holds 51"),
    "billion.npy": (npy_claiming((25000, 40000, 2)), "8000000000 bytes"),
    "negative.npy": (npy_claiming((-2, -3, 2)), "claims"),
    "wrong magic.npy": (FLO, "NumPy array"),
    "objects.npy": (npy(SMALL.astype(object)), "unpickle"),
    "not hdf5.flo5": (FLO, "HDF5"),
    "just a word.flo5": (b"flow", "HDF5"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_sentence_and_little_memory(tmp_path, name):
    content, message = BAD[name]
    if name.endswith("flo5"):
        pytest.importorskip("h5py")
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=message) as caught:
            read_flow(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_empty_and_folder(tmp_path, suffix):
    with pytest.raises(FileError, match="does not exist"):
        read_flow(tmp_path / f"missing{suffix}")
    (tmp_path / f"empty{suffix}").touch()
    with pytest.raises(FileError, match="is empty"):
        read_flow(tmp_path / f"empty{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        read_flow(tmp_path / f"folder{suffix}")
    with pytest.raises(FileError, match="is a folder"):
        write_flow(tmp_path / f"folder{suffix}", SMALL)


def test_bad_flo5(tmp_path):
    h5py = pytest.importorskip("h5py")
    cases = {
        "other": (lambda f: f.create_dataset("motion", data=SMALL), "expected the dataset 'flow', found motion"),
        "group": (lambda f: f.create_group("flow"), "expected the dataset 'flow'"),
        "shape": (lambda f: f.create_dataset("flow", data=SMALL[..., 0]), r"found \(2, 3\)"),
        "text": (lambda f: f.create_dataset("flow", data=np.full((2, 3, 2), b"x")), "real numbers"),
        "billion": (lambda f: f.create_dataset("flow", (25000, 40000, 2), "f4", chunks=(100, 100, 2)), "claims"),
    }
    for name, (fill, message) in cases.items():
        with h5py.File(tmp_path / f"{name}.flo5", "w") as archive:
            fill(archive)
        with pytest.raises(FileError, match=message):
            read_flow(tmp_path / f"{name}.flo5")
    write_flow(tmp_path / "whole.flo5", SMALL)
    (tmp_path / "cut.flo5").write_bytes((tmp_path / "whole.flo5").read_bytes()[:-40])
    with pytest.raises(FileError, match="HDF5"):
        read_flow(tmp_path / "cut.flo5")


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm", ".npz", ".npy"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_file_error_or_a_flow(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("damage") / f"f{suffix}"
    write_flow(path, SMALL)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        flow = read_flow(path)
    except FileError:
        return
    assert flow.dtype == np.float32 and flow.shape[2] == 2


# Real files and the door ----------------------------------------------------------------------------------------------


def test_middlebury_sample(shared_data):
    cv2 = pytest.importorskip("cv2")
    path = shared_data / "middlebury" / "RubberWhale" / "flow10.flo"
    flow, valid = read_flow_with_valid(path)
    assert flow.shape == (388, 584, 2)
    assert valid.mean() == pytest.approx(0.984, abs=5e-4)  # the share of known pixels in the data's own README
    np.testing.assert_array_equal(flow[valid], cv2.readOpticalFlow(str(path))[valid])
    lengths = np.hypot(*flow[valid].T)
    assert lengths.mean() == pytest.approx(1.26, abs=5e-3) and lengths.max() == pytest.approx(4.6, abs=0.05)


def test_kitti_sample(shared_data):
    cv2 = pytest.importorskip("cv2")
    path = shared_data / "kitti2015" / "000010" / "flow_occ" / "000010_10.png"
    flow, valid = read_flow_with_valid(path)
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.float64)
    np.testing.assert_array_equal(valid, raw[..., 2] > 0)
    np.testing.assert_array_equal(flow[valid], ((raw[..., :2] - 32768) / 64)[valid])
    assert valid.mean() == pytest.approx(0.240, abs=5e-4)


def test_importing_the_room_is_light():
    code = "import sys, featherflow.flow; print([m for m in ('torch', 'png', 'h5py', 'PIL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
