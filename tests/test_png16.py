"""Colours of 16 bit: pypng, which is written in Python and has nothing to do with Pillow's decoder, makes the files."""

import io

import numpy as np
import png
import pytest

from featherflow.frames import read_image
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
