"""Depth and orientation of still pictures: by one rule for files and arrays, and for both frames of a pair."""

import itertools
import logging

import numpy as np
import png
import pytest
from clips import moving, write_clip
from helpers import run_command
from PIL import Image

import featherflow
from featherflow.data import find_pairs
from featherflow.data.augmentation import gather_sources
from featherflow.errors import InputError
from featherflow.evaluation import Dataset, evaluate
from featherflow.flow import read_flow, write_flow
from featherflow.frames import as_batch, as_batches
from featherflow.images import read_frames, read_image

pytest.importorskip("cv2")


def pair() -> list[np.ndarray]:
    """Two grey frames of a texture that moves by (2, 1) px, float in [0, 1], not reaching either end."""
    return [0.1 + 0.8 * frame[..., 0].astype(np.float64) / 255 for frame in moving(2)]


def flow_of(paths, **settings) -> np.ndarray:
    return featherflow.estimate(*paths, model="dis", **settings)


@pytest.fixture
def right():
    return featherflow.estimate(*[np.round(255 * frame).astype(np.uint8) for frame in pair()], model="dis")


STORED = {
    "12 bit in 16, PNG": (".png", lambda grey: np.round(4095 * grey).astype(np.uint16)),
    "10 bit in 16, TIFF": (".tif", lambda grey: np.round(1023 * grey).astype(np.uint16)),
    "16 bit": (".png", lambda grey: np.round(65535 * grey).astype(np.uint16)),
    "32-bit sums": (".tif", lambda grey: np.round(306_000 * grey).astype(np.int32)),
    "32-bit with negative numbers": (".tif", lambda grey: np.round(70_000 * grey - 35_000).astype(np.int32)),
    "floating point": (".tif", lambda grey: grey.astype(np.float32)),
}


@pytest.mark.parametrize("key", STORED)
def test_deep_files_give_the_flow_of_8_bit_ones(tmp_path, key, right):
    suffix, stored = STORED[key]
    paths = [tmp_path / f"{index}{suffix}" for index in range(2)]
    arrays = [stored(grey) for grey in pair()]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    assert np.abs(flow_of(paths) - right).mean() < 0.03
    assert np.array_equal(flow_of(arrays), flow_of(paths))  # arrays follow the rules of files


def test_both_frames_are_scaled_alike(tmp_path):
    """The brighter frame needs 12 bit, the darker would do with 10: half as bright must stay half as bright."""
    for index, value in enumerate((2000, 1000)):
        Image.fromarray(np.full((32, 32), value, np.uint16)).save(tmp_path / f"{index}.png")
    bright, dark = read_frames([tmp_path / "0.png", tmp_path / "1.png"])
    assert (bright.mean(), dark.mean()) == (pytest.approx(2000 / 4095), pytest.approx(1000 / 4095))
    first, second = as_batches([np.full((32, 32), value, np.int32) for value in (-100, 100)], ("a", "b"))
    assert (float(first.max()), float(second.min())) == (0.0, 1.0)


def test_nothing_wraps(tmp_path):
    values = np.tile(np.array([0, 255, 70_000, 65_536], np.int32), (32, 8))
    Image.fromarray(values).save(tmp_path / "wide.tif")
    shown = read_image(tmp_path / "wide.tif")
    assert shown[0, :4, 0].tolist() == [0, 1, 255, 239]


def test_a_range_can_be_named(tmp_path, right):
    arrays = [(1000 * grey + 5000).astype(np.float32) for grey in pair()]
    with pytest.raises(InputError, match="--range"):
        as_batch(arrays[0])
    paths = [tmp_path / f"{index}.tif" for index in range(2)]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    frames = read_frames(paths, (5000.0, 6000.0))
    assert np.abs(flow_of(frames) - right).mean() < 0.03


@pytest.mark.parametrize("planes", [3, 4])
def test_16_bit_colours_are_read_whole(tmp_path, planes):
    colours = np.random.default_rng(0).integers(0, 65536, (20, 24, planes), dtype=np.uint16)
    with open(tmp_path / "deep.png", "wb") as file:
        png.Writer(24, 20, greyscale=False, bitdepth=16, alpha=planes == 4).write(file, colours.reshape(20, -1))
    (read,) = read_frames([tmp_path / "deep.png"])
    assert np.abs(read - colours[..., :3] / 65535).max() < 1e-6


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_in_every_format(tmp_path, orientation, suffix):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:12, :20], upright[:12, 20:], upright[12:, :20] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = upright.swapaxes(0, 1) if orientation >= 5 else upright
    stored = stored[:, ::-1] if orientation in (2, 3, 7, 8) else stored
    stored = stored[::-1] if orientation in (3, 4, 6, 7) else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    assert read_image(path).shape == upright.shape
    assert np.abs(read_image(path)[4:8, 4:8].astype(int) - (250, 0, 0)).max() < 30
    assert np.abs(read_image(path)[4:8, 32:36].astype(int) - (0, 250, 0)).max() < 30
    with Image.open(path) as opened:
        assert as_batch(opened).shape[-2:] == (24, 40)


def test_a_note_where_depth_is_lost(tmp_path, monkeypatch, caplog):
    """16-bit colours in a TIFF without OpenCV: what cannot be read whole is said."""
    import sys

    import cv2

    cv2.imwrite(str(tmp_path / "deep.tif"), np.full((20, 20, 3), 40_000, np.uint16))
    (whole,) = read_frames([tmp_path / "deep.tif"])
    assert np.abs(whole - 40_000 / 65535).max() < 1e-4
    monkeypatch.setitem(sys.modules, "cv2", None)
    with caplog.at_level(logging.WARNING):
        assert read_image(tmp_path / "deep.tif").dtype == np.uint8
    assert "deep.tif" in caplog.text and "8 bits" in caplog.text


def test_a_stream_scales_deep_frames_as_estimate_does():
    """The third frame needs more bits than the first two, of which the second is then scaled again."""
    frames = [np.round(900 * frame[..., 0].astype(np.float64) / 255).astype(np.uint16) for frame in moving(4)]
    frames[2:] = [frame * 2 for frame in frames[2:]]
    streamed = list(featherflow.stream(frames, model="dis"))
    for flow, (first, second) in zip(streamed, itertools.pairwise(frames), strict=True):
        np.testing.assert_array_equal(flow, featherflow.estimate(first, second, model="dis"))


CLIP_VERBS = {
    "video": ("--flow-dir", "out"),
    "interpolate": ("-o", "out/%06d.png"),
    "stabilise": ("-o", "out/%06d.png"),
    "magnify": ("-o", "out/%06d.png"),
    "tracks": ("-o", "out.csv"),
}


@pytest.mark.parametrize("verb", CLIP_VERBS)
def test_a_range_can_be_named_for_clips_of_pictures_too(tmp_path, monkeypatch, capsys, verb):
    """Of 16-bit files in which one hot pixel hides that they hold 8 bit, and of floating point that has no range of its own."""
    monkeypatch.chdir(tmp_path)
    for folder, stored in (
        ("deep", lambda grey: np.round(255 * grey).astype(np.uint16)),
        ("float", lambda grey: (1000 * grey - 300).astype(np.float32)),
    ):
        (tmp_path / folder).mkdir()
        for index, grey in enumerate(pair()):
            array = stored(grey)
            if folder == "deep":
                array[5, 5] = 65535
            Image.fromarray(array).save(tmp_path / folder / f"{index}.tif")
    out = CLIP_VERBS[verb]
    assert run_command(verb, "deep", *out, "--range", "0,255", "--model", "dis") == 0
    assert run_command(verb, "float", *out, "--range", "-300,700", "--model", "dis", "--overwrite") == 0
    if verb == "video":
        assert np.median(read_flow("out/000000.flo"), axis=(0, 1)) == pytest.approx((2, 1), abs=0.1)
    elif verb != "tracks":
        shown = read_image("out/000000.png")[..., 0] / 255
        assert np.abs(shown - pair()[0])[8:-8, 8:-8].mean() < 0.02
    write_clip(tmp_path / "clip.mkv", moving(3))
    capsys.readouterr()
    assert run_command(verb, "clip.mkv", *out, "--range", "0,255", "--model", "dis") == 2
    assert "a video says itself" in capsys.readouterr().err
    assert run_command(verb, "deep", *out, "--range", "9,1", "--model", "dis") == 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_evaluation_and_training_see_deep_frames_as_estimate_does(tmp_path, suffix):
    """Faint texture in 16 bit, of which 8 bit would leave seven levels."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "flow").mkdir()
    for index, grey in enumerate(pair()):
        Image.fromarray(np.round(65535 * (0.9 + 0.03 * grey)).astype(np.uint16)).save(tmp_path / "frames" / f"{index}{suffix}")
    write_flow(tmp_path / "flow" / "0.flo", np.full((*pair()[0].shape, 2), (2, 1), np.float32))
    paths = [tmp_path / "frames" / f"{index}{suffix}" for index in range(2)]
    example = next(find_pairs("folder", tmp_path)).read()
    assert example.frame1.dtype == np.float32 and len(np.unique(example.frame1)) > 100
    seen = []

    def method(frame1, frame2):
        seen.append(featherflow.estimate(frame1, frame2, model="horn-schunck"))
        return seen[-1]

    evaluate({"it": method}, [Dataset("folder", tmp_path)])
    assert np.array_equal(seen[-1], featherflow.estimate(*paths, model="horn-schunck"))
    sources = gather_sources(
        [example, example._replace(frame1=np.uint8(255 * example.frame1), frame2=np.uint8(255 * example.frame2))]
    )
    assert np.allclose(sources.frame1[0].permute(1, 2, 0).numpy(), example.frame1, atol=1e-7)
    assert np.abs(sources.frame1[1] - sources.frame1[0]).max() < 1 / 255
