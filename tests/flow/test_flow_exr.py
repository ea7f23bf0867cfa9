"""OpenEXR: motion vectors and STMaps, in compositing's own axes, and damaged files."""

import io

import numpy as np
import pytest

from featherflow.errors import FileError, LimitError
from featherflow.flow import decode_flow, encode_flow, read_flow, write_flow

OpenEXR = pytest.importorskip("OpenEXR")
SIZE = (24, 37)


@pytest.fixture
def flow():
    field = np.random.default_rng(0).normal(0, 10, (*SIZE, 2)).astype(np.float32)
    field[3, 4] = np.nan
    return field


def stored(path):
    return {name: channel.pixels for name, channel in OpenEXR.File(str(path), separate_channels=True).channels().items()}


def exr(channels, **header):
    buffer = io.BytesIO()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(header, channels).write(buffer)
    return buffer.getvalue()


def test_motion_vectors_point_up_in_the_file_and_down_in_memory(tmp_path, flow):
    write_flow(tmp_path / "flow.exr", flow)
    channels = stored(tmp_path / "flow.exr")
    known = ~np.isnan(flow[..., 0])
    assert set(channels) == {"forward.u", "forward.v", "forward.valid"}
    np.testing.assert_array_equal(channels["forward.u"][known], flow[known][:, 0])
    np.testing.assert_array_equal(channels["forward.v"][known], -flow[known][:, 1])
    np.testing.assert_array_equal(channels["forward.valid"], known)
    assert channels["forward.u"][3, 4] == 0  # NaN would spread in a compositing program
    np.testing.assert_array_equal(read_flow(tmp_path / "flow.exr"), flow)


def test_an_stmap_fetches_what_the_flow_fetches(tmp_path):
    """Applied as a compositing program does, to a picture, it gives what backward warping gives."""
    from scipy.ndimage import map_coordinates

    from featherflow.flow import backward_warp

    random = np.random.default_rng(1)
    flow = random.uniform(-3, 3, (*SIZE, 2)).astype(np.float32)
    picture = random.random(SIZE)
    write_flow(tmp_path / "lens_stmap.exr", flow)
    channels = stored(tmp_path / "lens_stmap.exr")
    # Its rows counted from the bottom, its places from the lower left corner of the lower left pixel.
    rows = channels["G"].astype(np.float64) * SIZE[0] - 0.5
    columns = channels["R"].astype(np.float64) * SIZE[1] - 0.5
    fetched = map_coordinates(picture[::-1], [rows, columns], order=1)
    expected, inside = backward_warp(picture, flow)
    assert inside.mean() > 0.7 and np.abs(fetched - expected)[inside].max() < 1e-4


def test_an_stmap_there_and_back(tmp_path, flow):
    write_flow(tmp_path / "A.STMap.exr", flow)
    assert np.nanmax(np.abs(read_flow(tmp_path / "A.STMap.exr") - flow)) < 1e-4
    np.testing.assert_array_equal(np.isnan(read_flow(tmp_path / "A.STMap.exr")), np.isnan(flow))
    identity = stored_identity(tmp_path)
    assert identity["R"][0, 0] == pytest.approx(0.5 / SIZE[1]) and identity["G"][0, 0] == pytest.approx(1 - 0.5 / SIZE[0])


def stored_identity(folder):
    write_flow(folder / "rest_stmap.exr", np.zeros((*SIZE, 2), np.float32))
    return stored(folder / "rest_stmap.exr")


@pytest.mark.parametrize(
    ("names", "taken"),
    [(("R", "G", "B"), 0), (("Vector.u", "Vector.v", "R", "G"), 0), (("backward.u", "backward.v", "forward.u", "forward.v"), 2)],
)
def test_channels_of_other_programs(names, taken):
    arrays = {name: np.full(SIZE, float(index + 1), np.float16) for index, name in enumerate(names)}
    flow = decode_flow("x.exr", exr(arrays))
    assert flow.dtype == np.float32 and (flow == [taken + 1, -(taken + 2)]).all()


def test_a_data_window_is_a_part_of_the_frame():
    ones = np.ones((3, 4), np.float32)
    box = (np.array([2, 1], np.int32), np.array([5, 3], np.int32))
    frame = (np.array([0, 0], np.int32), np.array([9, 5], np.int32))
    flow = decode_flow("x.exr", exr({"u": ones, "v": 2 * ones}, dataWindow=box, displayWindow=frame))
    assert flow.shape == (6, 10, 2) and (flow[1:4, 2:6] == [1, -2]).all() and np.isnan(flow).sum() == 2 * (60 - 12)


def test_damaged_files_end_in_a_sentence(flow):
    whole = encode_flow("x.exr", flow)
    for data in (whole[:60], whole[:-300], b"no such file at all", whole[:4] + bytes(200)):
        with pytest.raises(FileError, match=r"x\.exr"):
            decode_flow("x.exr", data)
    for seed in range(40):
        damaged = bytearray(whole)
        random = np.random.default_rng(seed)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(256)
        try:
            decode_flow("x.exr", bytes(damaged))
        except FileError:
            pass


def test_sizes_that_a_file_cannot_hold_are_refused_before_memory_is_asked_for(flow):
    whole = bytearray(encode_flow("x.exr", flow))
    for window in (b"dataWindow", b"displayWindow"):
        start = whole.index(window) + len(window) + len(b"\0box2i\0") + 4
        whole[start + 8 : start + 16] = np.array([60000, 60000], "<i4").tobytes()
    with pytest.raises(FileError, match="cannot hold"):
        decode_flow("x.exr", bytes(whole))


def test_other_channels_are_named():
    with pytest.raises(FileError, match="found Z"):
        decode_flow("x.exr", exr({"Z": np.ones(SIZE, np.float32)}))
    with pytest.raises(FileError, match="no STMap"):
        decode_flow("x_stmap.exr", exr({"Z": np.ones(SIZE, np.float32)}))


def test_more_pixels_than_are_taken(flow):
    with pytest.raises(LimitError, match="max_pixels"):
        decode_flow("x.exr", encode_flow("x.exr", flow), max_pixels=100)
