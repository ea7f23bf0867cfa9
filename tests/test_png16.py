"""Colours of 16 bit: pypng, which is written in Python and has nothing to do with Pillow's decoder, makes the files."""

import io

import numpy as np
import png
import pytest

from featherflow.images import read_frames, read_image
from featherflow.png16 import decoded


@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 18)])
def test_every_number_is_as_it_was_written(planes, interlaced, size):
    height, width = size
    values = np.random.default_rng(0).integers(0, 65536, (height, width, planes), dtype=np.uint16)
    file = io.BytesIO()
    writer = png.Writer(width, height, greyscale=False, alpha=planes == 4, bitdepth=16, interlace=interlaced)
    writer.write_array(file, values.ravel().tolist())
    packed = b"".join(body for kind, body in png.Reader(bytes=file.getvalue()).chunks() if kind == b"IDAT")
    np.testing.assert_array_equal(decoded(packed, width, height, planes, interlaced), values)


def test_filters_of_opencv(tmp_path):
    """OpenCV predicts each row from the one above, pypng predicts nothing; a picture has both."""
    cv2 = pytest.importorskip("cv2")
    rows, columns = np.mgrid[:40, :50]
    values = np.stack([500 * rows + columns, 900 * columns, rows * columns], axis=-1).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    deep = (values / 65535 * 255).round().astype(np.uint8)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - deep).max() <= 1


def test_contents_that_are_too_short_are_an_error():
    with pytest.raises(ValueError):
        decoded(b"\x78\x9c\x03\x00\x00\x00\x00\x01", 4, 4, 3, False)


def test_large_pictures_are_converted_in_bands(tmp_path, monkeypatch):
    """Of the numbers in 64 bit that a conversion takes, few are held at a time, and the bands meet without a seam."""
    from featherflow import pixels

    rng = np.random.default_rng(0)
    array = rng.integers(0, 4096, (50, 40, 3), dtype=np.uint16)
    whole = pixels.to_unit(array, "a", (0.0, 4095.0))
    monkeypatch.setattr(pixels, "_BAND", 7 * 40 * 3)
    assert np.array_equal(pixels.to_unit(array, "a", (0.0, 4095.0)), whole)
    assert np.allclose(whole, array / 4095)
    assert pixels.to_unit(array[:0], "a", (0.0, 4095.0)).shape == (0, 40, 3)


def test_alpha_does_not_say_how_many_bits_a_colour_has(tmp_path):
    """A camera's 12 bit in 16, and alpha that is opaque."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 4096, (20, 30, 3), dtype=np.uint16)
    colours[0, 0] = 4095
    opaque = np.concatenate((colours, np.full((20, 30, 1), 65535, np.uint16)), axis=-1)
    for name, array in (("rgb", colours), ("rgba", opaque)):
        with open(tmp_path / f"{name}.png", "wb") as file:
            png.Writer(30, 20, bitdepth=16, greyscale=False, alpha=array.shape[-1] == 4).write(file, array.reshape(20, -1))
    plain, without = (read_frames([tmp_path / f"{name}.png"])[0] for name in ("rgb", "rgba"))
    assert np.array_equal(plain, without) and plain.max() == 1
