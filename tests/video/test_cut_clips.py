"""Of a clip that was cut, every whole picture before the cut is read, then one sentence says so."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from clips import moving
from helpers import run_command
from PIL import Image

from featherflow.errors import FileError
from featherflow.images import page_times
from featherflow.video import open_clip
from featherflow.video.gif import is_cut_gif

av = pytest.importorskip("av")
COUNT = 8
FAST = ("--model", "dis-ultrafast")


def animation(suffix: str) -> bytes:
    pictures, file = [Image.fromarray(image) for image in moving(COUNT)], io.BytesIO()
    pictures[0].save(file, suffix, save_all=True, append_images=pictures[1:], duration=[80] * COUNT)
    return file.getvalue()


def mp4_with_frames_in_another_order(path) -> bytes:
    """Its header first, with frames that refer to later ones, so that the decoder always holds some back."""
    if "libx264" not in av.codecs_available:
        pytest.skip("FFmpeg without libx264; the decoders of other codecs make up what is missing")
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image in moving(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return path.read_bytes()


def pictures(path):
    """What is read of a clip, and what is said at its end."""
    found = []
    try:
        for picture in open_clip(path):
            found.append(picture.image)
    except FileError as error:
        return found, str(error)
    return found, None


@pytest.mark.parametrize("kind", ["gif", "png", "tiff", "mp4"])
def test_what_was_whole_before_the_cut_is_read(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    content = mp4_with_frames_in_another_order(path) if kind == "mp4" else animation(kind)
    path.write_bytes(content)
    whole, said = pictures(path)
    assert len(whole) == COUNT and said is None
    counts = []
    for share in (0.8, 0.9, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        found, said = pictures(path)
        assert said is not None and "\n" not in said
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=False))
        counts.append(len(found))
    assert counts == sorted(counts) and counts[0] >= 1 and counts[-1] >= (COUNT // 2 if kind == "mp4" else COUNT - 2)


def test_a_byte_too_few_costs_one_frame_whatever_the_decoder_holds(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4_with_frames_in_another_order(path)[:-1])
    found, said = pictures(path)
    assert len(found) == COUNT - 1 and "cut short" in said


@pytest.mark.parametrize("piped", [False, True])
def test_yuv4mpeg2_that_ends_within_a_picture(piped, tmp_path, monkeypatch):
    """FFmpeg leaves the last picture out and says nothing; where only whole ones are missing, nothing can be known."""
    path = tmp_path / "a.y4m"
    with av.open(str(path), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image in moving(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image).reformat(format="yuv420p")))
        container.mux(stream.encode())
    content = path.read_bytes()
    size = len(b"FRAME\n") + 96 * 64 * 3 // 2
    for missing, expected in ((0, None), (1, "within a picture"), (size - 1, "within a picture"), (size, None)):
        path.write_bytes(content[: len(content) - missing])
        with path.open("rb") as file:
            monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
            found, said = pictures("-" if piped else path)
        assert len(found) == (4 if missing == 0 else 3)
        assert said is None if expected is None else expected in str(said)


def test_times_of_an_animation_that_was_cut(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(animation("png")[:-200])
    assert page_times(path) == pytest.approx([0.08] * COUNT)


@pytest.mark.parametrize("kind", ["tiff", "gif"])
def test_the_console_hears_one_sentence(kind, tmp_path, capfd, recwarn):
    path = tmp_path / f"a.{kind}"
    content = animation(kind)
    path.write_bytes(content[: int(len(content) * 0.8)])
    assert run_command("tracks", path, "-o", tmp_path / "a.csv", "--point", "5,5", *FAST) == 3
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.endswith("what was made until then is kept.\n")
    assert len((tmp_path / "a.csv").read_text().splitlines()) > 2


def test_which_gif_is_cut(tmp_path):
    content = animation("gif")
    path = tmp_path / "a.gif"
    for end, expected in ((len(content), False), (len(content) - 1, False), (len(content) - 2, True), (10, True), (5, False)):
        path.write_bytes(content[:end])
        assert is_cut_gif(path) is expected, end
    path.write_bytes(content + b"what some programs add")
    assert not is_cut_gif(path)
    assert not is_cut_gif(tmp_path / "none.gif")
