"""Files of several pictures are sequences: animated PNG and WebP, TIFF of many pages."""

from fractions import Fraction

import numpy as np
import pytest
from clips import moving, read_clip
from helpers import run_command
from PIL import Image, features

import featherflow
from featherflow.errors import InputError
from featherflow.flow import read_flow
from featherflow.images import Still, decode_image, page_count, read_image
from featherflow.pairs import find_pairs
from featherflow.video import open_clip

pytest.importorskip("cv2")
NEEDS_AVIF = pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow that knows AVIF")


def animation(path, **options):
    images = [Image.fromarray(image) for image in moving(4)]
    images[0].save(path, save_all=True, append_images=images[1:], **options)


LOSSLESS = {".png": {"duration": 80}, ".webp": {"duration": 80, "lossless": True}, ".tif": {}}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_animations_are_clips(tmp_path, suffix):
    pytest.importorskip("av")
    path = tmp_path / f"moving{suffix}"
    animation(path, **LOSSLESS[suffix])
    clip = list(open_clip(path))
    step = Fraction(80, 1000) if suffix != ".tif" else Fraction(1, 25)
    assert [picture.time for picture in clip] == [step * k for k in range(4)]
    for picture, image in zip(clip, moving(4), strict=True):
        np.testing.assert_array_equal(picture.image, image)
    assert run_command("video", path, "-o", tmp_path / "out.mp4", "--model", "dis-ultrafast") == 0
    assert read_clip(tmp_path / "out.mp4")[1] == [step * k for k in range(3)]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_estimate_takes_them_as_sequences(tmp_path, suffix, capsys):
    path = tmp_path / f"moving{suffix}"
    animation(path, **LOSSLESS[suffix])
    assert page_count(path) == 4
    assert run_command("estimate", path, "-o", tmp_path / "flows", "--model", "dis") == 0
    names = sorted(file.name for file in (tmp_path / "flows").iterdir())
    assert names == [f"moving_{k:06d}.flo" for k in range(3)]
    images = moving(4)
    np.testing.assert_array_equal(read_flow(tmp_path / "flows" / names[1]), featherflow.estimate(*images[1:3], model="dis"))
    assert run_command("estimate", path, path, "-o", tmp_path / "x.flo", "--model", "dis") == 2
    assert "holds 4 pictures; name it alone" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".gif", pytest.param(".avif", marks=NEEDS_AVIF)])
def test_an_animation_is_no_frame_of_a_pair(tmp_path, capsys, suffix):
    path = tmp_path / f"moving{suffix}"
    animation(path, duration=80)
    assert page_count(path) == 4
    assert run_command("estimate", path, path, "-o", tmp_path / "x.flo", "--model", "dis") == 2
    assert "holds 4 pictures; name it alone" in capsys.readouterr().err and not (tmp_path / "x.flo").exists()


@NEEDS_AVIF
def test_an_animated_avif_is_a_sequence_and_a_clip(tmp_path):
    path = tmp_path / "moving.avif"
    animation(path, duration=80, quality=95)
    assert run_command("estimate", path, "-o", tmp_path / "flows", "--model", "dis") == 0
    assert len(list((tmp_path / "flows").iterdir())) == 3
    pytest.importorskip("av")
    assert [picture.time for picture in open_clip(path)] == [Fraction(80 * k, 1000) for k in range(4)]


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".gif"])
def test_no_reader_takes_a_sequence_for_a_frame(tmp_path, suffix):
    path = tmp_path / f"moving{suffix}"
    animation(path)
    for read in (
        lambda: featherflow.estimate(path, str(path), model="dis"),
        lambda: next(iter(featherflow.stream([path, path], model="dis"))),
        lambda: read_image(path),
        lambda: find_pairs([path, path]),
    ):
        with pytest.raises(InputError, match=r"moving.* holds 4 pictures"):
            read()
    if suffix != ".gif":  # which the service takes from nobody
        with pytest.raises(InputError, match="frame1 holds 4 pictures"):
            decode_image(path.read_bytes(), "frame1")
    assert read_image(Still(path, 2)).shape == (64, 96, 3)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_folder_of_sequences_is_no_sequence(tmp_path, capsys, suffix):
    for name in "ab":
        animation(tmp_path / f"{name}{suffix}")
    assert run_command("estimate", tmp_path, "-o", tmp_path / "flows", "--model", "dis") == 2
    assert f"a{suffix}' holds 4 pictures" in capsys.readouterr().err


def test_what_is_no_sequence_is_one_picture(tmp_path, capsys):
    """Views beside a photo, and smaller copies of a page, are no frames."""
    images = [Image.fromarray(image) for image in moving(2)]
    images[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=images[1:])
    images[0].save(tmp_path / "pyramid.tif", save_all=True, append_images=[images[1].resize((48, 32))])
    for name in ("phone.jpg", "pyramid.tif"):
        assert page_count(tmp_path / name) == 1
        assert run_command("estimate", tmp_path / name, "-o", tmp_path / "flows") == 2
        assert "single frame" in capsys.readouterr().err
    assert read_image(Still(tmp_path / "pyramid.tif")).shape == (64, 96, 3)


def test_pages_of_16_bit_are_scaled_alike(tmp_path):
    pages = [Image.fromarray(np.full((32, 32), value, np.uint16)) for value in (1000, 2000, 500)]
    pages[0].save(tmp_path / "deep.tif", save_all=True, append_images=pages[1:])
    levels = [int(picture.image[0, 0, 0]) for picture in open_clip(tmp_path / "deep.tif")]
    assert levels == [round(65535 * value / 4095) for value in (1000, 2000, 500)]
