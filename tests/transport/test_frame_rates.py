"""Clips at other rates: when each picture is shown, which it is, and what stays of duration, sound, cuts and depth."""

import io
import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from clips import moving, psnr, read_clip, sound_packets, write_clip
from helpers import frame, run_command

from featherflow import Estimator
from featherflow.errors import FileError, InputError
from featherflow.transport import as_rate, interpolate_video
from featherflow.transport.frame_rates import Timeline
from featherflow.transport.repeats import Unrepeated, largest_change
from featherflow.video import Picture, open_clip

av = pytest.importorskip("av")
pytest.importorskip("cv2")

FAST = "dis-ultrafast"


def convert(source, output, **options):
    return interpolate_video(source, output, estimator=Estimator(FAST), **options)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60", Fraction(60)),
        (59.94, Fraction(60000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("23.98", Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("60000/1001", Fraction(60000, 1001)),
        ("12.5", Fraction(25, 2)),
        (24, Fraction(24)),
    ],
)
def test_rates(text, rate):
    assert as_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "0", "-5", "1/0", "1e9", "nan", "1e999999999"])
def test_what_is_no_rate(text):
    with pytest.raises(InputError, match="rate of pictures"):
        as_rate(text)


def test_a_timeline_shows_each_time_once():
    """Whatever the frames of the clip are, the pictures are those of the rate, and each lies between its frames."""
    frames = [Fraction(0), Fraction(1, 7), Fraction(1, 6), Fraction(2), Fraction(5, 2)]
    for slower in (Fraction(1), Fraction(3), Fraction(7, 5)):
        line = Timeline(slower, Fraction(60000, 1001))
        due = [entry for begin, end in itertools.pairwise(frames) for entry in line.due(begin, end)]
        assert [shown for shown, _ in due] == [Fraction(k * 1001, 60000) for k in range(len(due))]
        assert all(shown == slower * time for shown, time in due)
        assert Fraction(5, 2) - due[-1][1] <= 1 / (line.rate * slower)


@pytest.mark.parametrize(("source", "target"), [(24, "60"), (25, "59.94"), (30, "24"), (30, "10")])
def test_a_clip_at_another_rate(tmp_path, source, target):
    """As many pictures as the duration holds, at even times, and each of them the texture where it is at that time."""
    frames, rate = moving(13, dx=4, dy=2), as_rate(target)
    write_clip(tmp_path / "clip.mp4", frames, [Fraction(k, source) for k in range(13)], "mpeg4", Fraction(1, source * 100))
    result = convert(tmp_path / "clip.mp4", tmp_path / "out.mp4", to_fps=target)
    _, times = read_clip(tmp_path / "out.mp4")
    assert result.frames == len(times) == math.ceil(Fraction(13, source) * rate)
    assert times == [k / rate for k in range(len(times))]
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert abs(stream.duration * stream.time_base - Fraction(13, source)) <= 1 / rate and stream.average_rate == rate
    write_clip(tmp_path / "clip.mkv", frames, [Fraction(k, source) for k in range(13)])
    convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", to_fps=target, codec="ffv1")
    inside = np.s_[30:-8, 56:-8]
    pictures, _ = read_clip(tmp_path / "out.mkv")
    assert len(pictures) == len(times)
    for picture, time in zip(pictures, times, strict=True):
        place = min(time * source, Fraction(12))
        before, share = frames[int(place)], float(place % 1)
        truth = shifted(before, 4 * share, 2 * share)[inside]
        assert psnr(picture[inside], truth) > 28
        assert psnr(picture[inside], truth) > psnr(shifted(before, 4 * share + 1, 2 * share)[inside], truth)


def shifted(image, dx, dy):
    import cv2

    return cv2.warpAffine(image, np.float32([[1, 0, dx], [0, 1, dy]]), image.shape[1::-1], flags=cv2.INTER_CUBIC)


def test_uneven_times_become_even(tmp_path):
    times = [Fraction(k, 1000) for k in (0, 10, 90, 120, 200)]
    write_clip(tmp_path / "clip.mkv", moving(5), times)
    convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", to_fps=50, codec="ffv1")
    _, made = read_clip(tmp_path / "out.mkv")
    assert made == [Fraction(k, 50) for k in range(len(made))] and 10 <= len(made) <= 14


def test_slow_motion(tmp_path):
    """Every frame of the clip comes at its time, so many times as late; the sound is left out."""
    frames = moving(5)
    write_clip(tmp_path / "clip.mkv", frames, sound="aac")
    result = convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", slower=4, codec="ffv1")
    pictures, times = read_clip(tmp_path / "out.mkv")
    assert times == [Fraction(k, 25) for k in range(20)] and not result.sound
    for k in range(5):
        assert np.array_equal(pictures[4 * k], frames[k])
    assert np.array_equal(pictures[19], frames[4])
    convert(tmp_path / "clip.mkv", tmp_path / "half.mkv", slower="1.5", to_fps=50, codec="ffv1")
    pictures, times = read_clip(tmp_path / "half.mkv")
    assert len(times) == 15 and np.array_equal(pictures[6], frames[2])
    convert(tmp_path / "clip.mkv", tmp_path / "same.mkv", slower=2, factor=2, codec="ffv1")
    assert read_clip(tmp_path / "same.mkv")[1] == [Fraction(k, 25) for k in range(9)]


def loud(path):
    """Sound of a file: seconds, and the frequency of its tone [Hz]."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [f.to_ndarray().reshape(len(f.layout.channels), -1)[0] for f in container.decode(stream)]
        rate = stream.rate
    wave = np.concatenate(parts).astype(float)
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return len(wave) / rate, spectrum.argmax() * rate / len(middle)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("slower", [2, "2.5"])
def test_stretched_sound_lasts_as_long_at_its_pitch(tmp_path, suffix, slower):
    write_clip(tmp_path / "clip.mkv", moving(25, dx=0, dy=0) + moving(25), sound="aac")
    result = convert(tmp_path / "clip.mkv", tmp_path / f"out{suffix}", slower=slower, to_fps=10, stretch_sound=True)
    seconds, pitch = loud(tmp_path / f"out{suffix}")
    before, tone = loud(tmp_path / "clip.mkv")
    assert result.sound and tone == pytest.approx(0.06 * 44100 / (2 * np.pi), rel=0.02)
    assert seconds == pytest.approx(float(slower) * before, abs=0.15) and pitch == pytest.approx(tone, rel=0.02)


@pytest.mark.parametrize(
    ("source", "codec", "layout", "suffix"),
    [
        ("clip.mkv", "pcm_s16le", "stereo", ".mp4"),  # PCM in these does not say which its channels are
        ("clip.avi", "pcm_s16le", "mono", ".mkv"),
        ("clip.mkv", "flac", "5.1(side)", ".webm"),  # as AC-3 has it, and Opus does not
    ],
)
def test_stretched_sound_of_any_layout(tmp_path, source, codec, layout, suffix):
    """Each channel keeps its tone."""
    count = av.AudioLayout(layout).nb_channels
    tones = np.array([400 + 200 * k for k in range(count)])
    wave = (np.sin(2 * np.pi * tones[:, None] * np.arange(48000) / 48000) * 8000).astype(np.int16)
    with av.open(str(tmp_path / source), "w") as container:
        video, audio = container.add_stream("ffv1", rate=25), container.add_stream(codec, rate=48000, layout=layout)
        video.width, video.height, video.pix_fmt = 96, 64, "bgr0"
        for image in moving(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for start in range(0, 48000, 4800):
            packed = np.ascontiguousarray(wave[:, start : start + 4800].T.reshape(1, -1))
            block = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            container.mux(audio.encode(block))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    convert(tmp_path / source, tmp_path / f"out{suffix}", slower=2, stretch_sound=True)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        found = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    middle = found[:, 24000:72000]
    heard = np.abs(np.fft.rfft(middle * np.hanning(48000))).argmax(axis=1)
    loud = np.ones(count, bool) if count < 6 else np.arange(6) != 3  # the fourth of 5.1 is for low tones alone
    assert len(found) == count and found.shape[1] / 48000 == pytest.approx(2, abs=0.1)
    assert heard[loud] == pytest.approx(tones[loud], abs=20)


def test_stretched_sound_of_too_many_channels(tmp_path):
    """What the encoder cannot hold is said, and nobody is told that the clip is damaged."""
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        video, audio = container.add_stream("ffv1", rate=25), container.add_stream("pcm_s16le", rate=48000, layout="hexadecagonal")
        video.width, video.height, video.pix_fmt = 96, 64, "bgr0"
        for image in moving(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16 * 4800), np.int16), format="s16", layout="hexadecagonal")
        block.sample_rate, block.pts, block.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(audio.encode(block))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    with pytest.raises(FileError, match="16 channels"):
        convert(tmp_path / "clip.mkv", tmp_path / "out.webm", slower=2, stretch_sound=True)
    assert not (tmp_path / "out.webm").exists()


def test_stretched_sound_of_a_part(tmp_path):
    """The tone begins where the source has it: with the sixth of the part's fifteen frames."""
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        video, audio = container.add_stream("ffv1", rate=25), container.add_stream("flac", rate=48000)
        video.width, video.height, video.pix_fmt = 96, 64, "bgr0"
        for image in moving(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        wave = (np.sin(np.arange(48000) * 0.05) * 16000 * (np.arange(48000) >= 30000)).astype(np.int16)  # from 0.625 s on
        for start in range(0, 48000, 4800):
            block = av.AudioFrame.from_ndarray(wave[None, start : start + 4800], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            container.mux(audio.encode(block))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", start=0.4, slower=2, stretch_sound=True)
    with av.open(str(tmp_path / "out.mkv")) as container:
        found = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    begin = np.flatnonzero(np.abs(found) > 0.1)[0] / 48000
    assert begin == pytest.approx(2 * (0.625 - 0.4), abs=0.06)


def test_sound_stays_where_the_speed_does(tmp_path):
    write_clip(tmp_path / "clip.mkv", moving(6), sound="aac")
    assert convert(tmp_path / "clip.mkv", tmp_path / "out.mp4", to_fps=60).sound
    heard, original = ([content for _, content in sound_packets(path)] for path in (tmp_path / "out.mp4", tmp_path / "clip.mkv"))
    assert heard and heard == original[: len(heard)]


def test_at_a_cut_a_frame_and_no_blend(tmp_path):
    frames = moving(3) + [frame(64, 96, seed=91)] * 3
    write_clip(tmp_path / "clip.mkv", frames)
    result = convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", to_fps=100, codec="ffv1")
    pictures, _ = read_clip(tmp_path / "out.mkv")
    assert result.cuts == 1
    around = [next(k for k, image in enumerate(frames) if np.array_equal(image, picture)) for picture in pictures[8:13]]
    assert around[:2] == [2, 2] and all(place >= 3 for place in around[2:])


def pulled_down(frames, pattern):
    """Frames shown as often in turn as a pattern says."""
    return [frames[k] for k in range(len(frames)) for _ in range(pattern[k % len(pattern)])]


def test_cadences_come_out_even():
    """3:2 in 60 and 2:1:1:1 in 30 both were 24 a second, and are again; nothing stands still where nothing did."""
    frames = moving(24)
    for rate, pattern in ((60, (3, 2)), (30, (2, 1, 1, 1))):
        shown = [Picture(image, Fraction(k, rate), Fraction(1, rate)) for k, image in enumerate(pulled_down(frames, pattern))]
        found = Unrepeated(shown)
        kept = list(found)
        assert [picture.image is image for picture, image in zip(kept, frames, strict=True)] == [True] * 24
        assert found.count == len(shown) - 24
        times = [picture.time for picture in kept]
        assert {b - a for a, b in itertools.pairwise(times[3:-3])} == {Fraction(1, 24)}
        assert all(a < b for a, b in itertools.pairwise(times))
        assert times[0] == 0 and kept[-1].time + kept[-1].duration == Fraction(len(shown), rate)


def test_what_stands_still_stays_so_and_uneven_times_without_repeats_too():
    frames = moving(8)
    shown = [frames[0], frames[1], *[frames[2]] * 12, *frames[3:]]
    kept = list(Unrepeated(Picture(image, Fraction(k, 25), Fraction(1, 25)) for k, image in enumerate(shown)))
    assert [picture.time * 25 for picture in kept] == [0, 1, 2, 13, *range(14, 19)]
    uneven = [Picture(image, Fraction(t), Fraction(1)) for image, t in zip(frames, (0, 1, 5, 6, 7, 20, 21, 22), strict=True)]
    assert list(Unrepeated(uneven)) == uneven
    still = list(Unrepeated(Picture(frames[0], Fraction(k), Fraction(1)) for k in range(4)))
    assert [(picture.time, picture.duration) for picture in still] == [(0, Fraction(1)), (3, Fraction(1))]


def test_a_change_is_judged_by_those_around_it():
    """What compression leaves of a repeat is no change where much moves, and one where nothing else does; a cut is no measure."""
    image = frame(70, 90, seed=3)
    moved = image.copy()
    moved[16:32, 32:48] = np.clip(moved[16:32, 32:48].astype(int) + 7, 0, 255)
    change = largest_change(image, moved)
    assert 6 < change <= 7 and largest_change(image.astype(np.uint16) * 257, moved.astype(np.uint16) * 257) == pytest.approx(change)

    def left(*shown):
        return len(list(Unrepeated(Picture(image, Fraction(k), Fraction(1)) for k, image in enumerate(shown))))

    fast = moving(4, height=70, width=90, dx=9)
    assert left(fast[0], fast[1], image, moved, fast[2], fast[3]) == 5
    assert left(image, moved, image, moved, fast[0], fast[0]) == 5


@pytest.mark.parametrize("codec", ["mpeg4", "libvpx-vp9"])
def test_a_telecined_clip_moves_evenly(tmp_path, codec):
    """Of a compressed clip of 24 in 30 a second: all repeats are found, and no two pictures are alike any more."""
    frames = moving(16, height=96, width=128, dx=3, dy=1)
    write_clip(tmp_path / "clip.mkv", pulled_down(frames, (2, 1, 1, 1)), [Fraction(k, 30) for k in range(20)], codec=codec)
    result = convert(tmp_path / "clip.mkv", tmp_path / "out.mkv", to_fps=30, duplicates=True, codec="ffv1")
    assert result.duplicates == 4 and "4 repeated frames left out" in result.sentence()
    pictures, times = read_clip(tmp_path / "out.mkv")
    assert abs(len(times) - 20) <= 1  # the file counts in milliseconds
    moves = [np.abs(a.astype(float) - b).mean() for a, b in itertools.pairwise(pictures[:-1])]
    assert min(moves) > 0.4 * np.median(moves)
    plain = convert(tmp_path / "clip.mkv", tmp_path / "plain.mkv", to_fps=30, codec="ffv1")
    assert plain.duplicates is None and "repeated" not in plain.sentence()


@pytest.mark.parametrize(("codec", "output"), [("ffv1", "out.mkv"), ("prores", "out.mov")])
def test_ten_bits_of_eight(tmp_path, codec, output):
    write_clip(tmp_path / "clip.mkv", moving(3))
    convert(tmp_path / "clip.mkv", tmp_path / output, codec=codec, bits=10)
    with av.open(str(tmp_path / output)) as container:
        assert next(container.decode(video=0)).format.components[0].bits >= 10
    made = list(open_clip(tmp_path / output))
    assert len(made) == 5 and made[2].image.dtype == np.uint16 and psnr(made[2].shown.mean(2), moving(3)[1].mean(2)) > 30


@pytest.mark.parametrize("bits", [None, 10])
def test_between_two_programs(tmp_path, bits):
    """YUV4MPEG2 in and out, with the rate in the header, as FFmpeg and its like pass it on."""
    write_clip(tmp_path / "clip.mkv", moving(4))
    command = [sys.executable, "-m", "featherflow", "interpolate"]
    first = subprocess.run(
        [*command, tmp_path / "clip.mkv", "-o", "-", "--factor", "2", "--model", FAST], capture_output=True, check=True
    )
    options = ["--bits", "10"] if bits else []
    second = subprocess.run(
        [*command, "-", "-o", "-", "--to-fps", "59.94", "--model", FAST, *options],
        input=first.stdout,
        capture_output=True,
        check=True,
    )
    header = second.stdout.split(b"\n")[0].decode().split()
    assert header[0] == "YUV4MPEG2" and "F60000:1001" in header and ("C420p10" in header) == bool(bits)
    with av.open(io.BytesIO(second.stdout), format="yuv4mpegpipe") as container:
        assert len(list(container.decode(video=0))) == len(moving(7)) * 59.94 // 50 + 1
    assert b"frames" in second.stderr


def test_what_is_no_stream_of_pictures_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "featherflow", "interpolate", "-", "-o", "-"], input=b"nothing of the kind", capture_output=True
    )
    assert done.returncode == 2 and done.stdout == b"" and b"no YUV4MPEG2" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--factor", "1"), "whole number from 2 to 64"),
        (("--factor", "2", "--to-fps", "50"), "not by both"),
        (("--slower", "0.5"), "1 to 1000 times as slow"),
        (("--slower", "much"), "times as slow"),
        (("--to-fps", "often"), "rate of pictures"),
        (("--stretch-sound",), "is for --slower"),
        (("--bits", "12"), "must be 10"),
        (("--slower", "2", "--stretch-sound", "--end", "0"), "end"),
    ],
)
def test_bad_options(tmp_path, options, said, capsys):
    write_clip(tmp_path / "clip.mkv", moving(2), sound="aac")
    assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "out.mkv", *options, "--model", FAST) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and not (tmp_path / "out.mkv").exists()
