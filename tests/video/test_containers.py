"""What containers say is not taken at its word: streams, names, orientation, places sought and the last picture's time."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from clips import moving, read_clip, sound_packets, write_clip
from helpers import run_command

from featherflow import Estimator
from featherflow.errors import FileError
from featherflow.video import flow_video, open_clip

av = pytest.importorskip("av")
pytest.importorskip("cv2")

IDENTITY = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
# a, b, c, d of the matrix, and what it makes of a frame.
MATRICES = {
    "hflip": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda image: image[::-1]),
    "rotated by 180": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "transpose": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "antitranspose": ((0, -1, -1, 0), lambda image: image.swapaxes(0, 1)[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
}


def with_matrix(path, a, b, c, d):
    """Put a display matrix into an MP4 file: that of its track, which is the last identity in its header."""
    data = path.read_bytes()
    place = data.rindex(IDENTITY)
    matrix = struct.pack(">9i", a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:place] + matrix + data[place + 36 :])


@pytest.mark.parametrize("key", MATRICES)
def test_display_matrices_with_and_without_mirrors(tmp_path, key):
    numbers, right = MATRICES[key]
    write_clip(tmp_path / "clip.mp4", moving(3), codec="mpeg4")
    stored = [picture.image for picture in open_clip(tmp_path / "clip.mp4")]
    with_matrix(tmp_path / "clip.mp4", *numbers)
    for shown, plain in zip(open_clip(tmp_path / "clip.mp4"), stored, strict=True):
        np.testing.assert_array_equal(shown.image, right(plain))


def cover_first(path):
    """Move the tags of an MP4 file, which hold its cover, before its tracks."""
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    end = start + struct.unpack(">I", data[start : start + 4])[0]
    parts, place = [], start + 8
    while place < end:
        size = struct.unpack(">I", data[place : place + 4])[0]
        parts.append(data[place : place + size])
        place += size
    parts.sort(key=lambda part: part[4:8] == b"trak")
    path.write_bytes(data[: start + 8] + b"".join(parts) + data[end:])


def test_the_larger_of_two_streams_is_the_clip(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = []
        for frames in (moving(4, 16, 16), moving(4)):
            video = container.add_stream("ffv1", rate=25)
            video.height, video.width, video.pix_fmt = *frames[0].shape[:2], "bgr0"
            streams.append((video, frames))
        for index in range(4):
            for video, frames in streams:
                container.mux(video.encode(av.VideoFrame.from_ndarray(frames[index], format="rgb24")))
        for video, _ in streams:
            container.mux(video.encode(None))
    clip = open_clip(tmp_path / "two.mkv")
    assert (clip.width, clip.height, len(list(clip))) == (96, 64, 4)


def test_a_cover_picture_is_not_the_clip(tmp_path):
    frames = moving(6)
    with av.open(str(tmp_path / "cover.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 400, 400, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((400, 400, 3), 99, np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    cover_first(tmp_path / "cover.mp4")
    with av.open(str(tmp_path / "cover.mp4")) as container:
        assert container.streams.video[0].width == 400
    clip = open_clip(tmp_path / "cover.mp4")
    assert (clip.width, clip.height, len(list(clip))) == (96, 64, 6)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_a_larger_still_beside_the_clip_is_not_the_clip(tmp_path, suffix):
    """One picture as a stream like any other, first and larger, not marked as a cover."""
    path = tmp_path / f"still{suffix}"
    with av.open(str(path), "w") as container:
        still = container.add_stream("mjpeg", rate=25)
        still.width, still.height, still.pix_fmt = 300, 300, "yuvj420p"
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        container.mux(still.encode(av.VideoFrame.from_ndarray(np.full((300, 300, 3), 99, np.uint8), format="rgb24")))
        container.mux(still.encode(None))
        for image in moving(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    clip = open_clip(path)
    assert (clip.width, clip.height, len(list(clip))) == (96, 64, 12)
    assert len(list(open_clip(path, start=0.2))) == 7


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_several_streams_of_one_picture_each_are_no_clip(tmp_path, suffix, capsys):
    path = tmp_path / f"pictures{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream, image in zip(streams, moving(2), strict=True):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    with pytest.raises(FileError, match="2 video streams of one picture each"):
        open_clip(path)
    assert run_command("interpolate", path, "-o", tmp_path / "out.mp4", "--to-fps", "50", "--model", "dis-ultrafast") == 3
    assert "name those as frames" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["take: one.mkv", "2024-11-14T22:57:44.mkv", "take[1].mkv", "50%d.mkv", "http:x.mkv"])
def test_names_are_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mkv", moving(3), sound="aac")
    (tmp_path / "plain.mkv").rename(tmp_path / name)
    assert run_command("video", name, "-o", "out.mkv", "--model", "dis-ultrafast") == 0
    assert len(read_clip(tmp_path / "out.mkv")[0]) == 2 and sound_packets(tmp_path / "out.mkv")


def numbered(count: int) -> list[np.ndarray]:
    """Frames 96x32 that hold their number: bar b is bright where bit b is 1."""
    frames = []
    for number in range(count):
        frame = np.full((32, 96, 3), 16, np.uint8)
        for bit in range(9):
            frame[8:24, 10 * bit + 3 : 10 * bit + 11] = 235 if number >> bit & 1 else 16
        frames.append(frame)
    return frames


def number_of(image: np.ndarray) -> int:
    return sum(int(image[10:22, 10 * bit + 5 : 10 * bit + 9].mean() > 128) << bit for bit in range(9))


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory):
    """300 frames, few of them keyframes, by codecs with frames that are shown before the keyframe they follow."""
    folder = tmp_path_factory.mktemp("long")
    for name, codec in (("clip.ts", "mpeg2video"), ("clip.mp4", "mpeg4"), ("clip.mkv", "mpeg4")):
        with av.open(str(folder / name), "w") as container:
            video = container.add_stream(codec, rate=25, options={"g": "120", "bf": "2", "sc_threshold": "1000000000"})
            video.height, video.width, video.pix_fmt = 32, 96, "yuv420p"
            video.codec_context.bit_rate = 2_000_000
            audio = container.add_stream("aac", rate=44100)
            for index, image in enumerate(numbered(300)):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1764), np.int16), format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = 44100, 1764 * index, Fraction(1, 44100)
                container.mux(audio.encode(block))
            container.mux(video.encode(None))
            container.mux(audio.encode(None))
    return folder


@pytest.mark.parametrize("name", ["clip.ts", "clip.mp4", "clip.mkv"])
def test_the_start_is_the_first_frame_at_or_after_it(long_clips, name):
    times = [picture.time for picture in open_clip(long_clips / name)]
    assert [number_of(picture.image) for picture in open_clip(long_clips / name)] == list(range(300))
    for number in (0, 1, 7, 50, 117, 118, 119, 120, 121, 122, 200, 239, 240, 241, 290, 299):
        start = float(times[number])
        first = next(iter(open_clip(long_clips / name, start=start)))
        assert number_of(first.image) == number
    part = [number_of(picture.image) for picture in open_clip(long_clips / name, start=float(times[150]), end=float(times[160]))]
    assert part == list(range(150, 160))
    found = [(number_of(a), number_of(b)) for a, b in open_clip(long_clips / name).pairs(8)]
    assert len(found) == 8 and all(b == a + 1 for a, b in found) and all(abs(a - 37.5 * k) < 3 for k, (a, _) in enumerate(found))


@pytest.mark.parametrize("name", ["clip.ts", "clip.mp4"])
def test_sound_begins_where_the_pictures_do(long_clips, tmp_path, name):
    flow_video(long_clips / name, tmp_path / "out.mkv", start=7.0, end=8.0, scale=1, estimator=Estimator("dis-ultrafast"))
    heard = [time for time, _ in sound_packets(tmp_path / "out.mkv")]
    assert heard[0] < Fraction(1, 10) and heard[-1] > Fraction(8, 10)


def test_a_last_picture_that_stays_is_no_damage(tmp_path):
    """Four pictures in 0.16 s, the last of which stays for 5 s; and the same file without its end."""
    path = tmp_path / "slides.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        packets = [p for image in moving(4) for p in video.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))]
        packets += video.encode(None)
        packets[-1].duration = round(5 / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    pictures = list(open_clip(path))
    assert len(pictures) == 4 and pictures[-1].duration > 4
    write_clip(tmp_path / "whole.mkv", moving(30))
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="cut short"):
        list(open_clip(tmp_path / "cut.mkv"))


def test_a_damaged_clip_keeps_what_was_done_without_a_scale(tmp_path, capsys):
    """The pass that fixes the scale of colours reaches into the damage; what comes before it is done all the same."""
    write_clip(tmp_path / "whole.mkv", moving(40))
    data = bytearray((tmp_path / "whole.mkv").read_bytes())
    place = int(len(data) * 0.6)
    data[place : place + 3000] = np.random.default_rng(0).bytes(3000)
    (tmp_path / "bad.mkv").write_bytes(data)
    assert run_command("video", tmp_path / "bad.mkv", "-o", tmp_path / "out.mp4", "--model", "dis-ultrafast") == 3
    assert "made until then is kept: " in capsys.readouterr().err
    assert len(read_clip(tmp_path / "out.mp4")[0]) > 5


@pytest.mark.parametrize(
    ("name", "codec"),
    [("late.mkv", "mpeg4"), ("late.nut", "mpeg4"), ("late.wmv", "wmv2"), ("late.ts", "mpeg2video"), ("late.mp4", "mpeg4")],
)
def test_a_clip_that_starts_late_is_whole(tmp_path, name, codec):
    """Some containers count their length from 0, others from the first picture; neither is taken for a clip that was cut."""
    path = tmp_path / name
    write_clip(path, moving(40), [7 + Fraction(k, 25) for k in range(40)], codec=codec, time_base=Fraction(1, 25))
    clip = open_clip(path)
    pictures = list(clip)
    assert [picture.time for picture in pictures] == pytest.approx([k / 25 for k in range(40)], abs=1e-3)
    assert clip.expected == pytest.approx(40, abs=1)


def test_a_clip_that_starts_late_and_was_cut(tmp_path):
    write_clip(tmp_path / "late.mkv", moving(60), [2 + Fraction(k, 25) for k in range(60)])
    data = (tmp_path / "late.mkv").read_bytes()
    (tmp_path / "late.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match=r"it says that it lasts 2\.40 s, but its pictures end at 1"):
        list(open_clip(tmp_path / "late.mkv"))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.avi", "libx264", {"bf": "2", "g": "8"}),
        ("clip.avi", "mpeg4", {"bf": "2", "g": "8"}),
        ("clip.rm", "rv10", {"g": "8"}),
        ("clip.h264", "libx264", {"bf": "2", "g": "8"}),
    ],
)
def test_each_picture_comes_once_and_from_any_start(tmp_path, name, codec, options):
    """AVI says no times of showing; some RealMedia and bare streams cannot be sought."""
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg without {codec}")
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image in moving(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    whole = [(picture.time, picture.image.tobytes()) for picture in open_clip(path)]
    assert len(whole) == len({image for _, image in whole}) == 40
    for start in (Fraction(1, 2), 1, Fraction(5, 2)):
        part = [(picture.time, picture.image.tobytes()) for picture in open_clip(path, start=start)]
        assert part == [(time, image) for time, image in whole if time >= start]
