"""What a video is written as: depth and colours are kept, lossless means lossless, the last frame stays, and so do titles."""

import json
import logging
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import moving, psnr, read_clip, sound_packets, write_clip
from helpers import run_command
from PIL import Image

from featherflow import Estimator
from featherflow.errors import InputError
from featherflow.pixels import eight_bits
from featherflow.transport import interpolate_video, magnify_video, stabilise_video
from featherflow.video import flow_video, open_clip, video_writer
from featherflow.video.clips import Colour

av = pytest.importorskip("av")
pytest.importorskip("cv2")
FAST = "dis-ultrafast"
PQ = Colour(10, 9, 16)


def deep(count: int = 3) -> list[np.ndarray]:
    """Grey frames of 16 bit with steps too fine for 8, moving by (2, 1) px."""
    return [image.astype(np.uint16) * 100 + 20_000 + np.arange(96, dtype=np.uint16)[None, :, None] for image in grey(count)]


def grey(count: int) -> list[np.ndarray]:
    """Frames without colour, of which no codec keeps every pixel."""
    return [np.repeat(image[..., :1], 3, axis=2) for image in moving(count)]


@pytest.fixture(scope="module")
def hdr(tmp_path_factory):
    """10 bit, BT.2020, PQ."""
    path = tmp_path_factory.mktemp("hdr") / "hdr.mkv"
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("needs an encoder of AV1")
    with video_writer(path, 96, 64, Fraction(25), Fraction(1, 25), codec="av1", colour=PQ, crf=5) as writer:
        for index, image in enumerate(deep()):
            writer.write(image, Fraction(index, 25))
    return path


def facts(path) -> tuple[int, int, int, str]:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), frame.format.name


@pytest.mark.parametrize("job", [interpolate_video, stabilise_video, magnify_video])
def test_hdr_keeps_depth_and_colours(hdr, tmp_path, job):
    assert open_clip(hdr).colour == PQ
    result = job(hdr, tmp_path / "out.mp4", estimator=Estimator(FAST), crf=5)
    assert result.codec == "av1" and facts(tmp_path / "out.mp4") == (9, 16, 9, "yuv420p10le")
    before, after = (next(iter(open_clip(path))).image for path in (hdr, tmp_path / "out.mp4"))
    assert before.dtype == after.dtype == np.uint16
    assert np.abs(before.astype(int) - after)[8:-8, 8:-8].mean() < 300  # of 65535; 8 bit alone would be 257 apart
    with pytest.raises(InputError, match="HDR of 10 bit, of which vp9 keeps 8"):
        job(hdr, tmp_path / "eight.mp4", estimator=Estimator(FAST), codec="vp9")


def test_the_numbers_of_bt2020_come_back(hdr):
    """Written and read by one matrix: the colours are those that were given."""
    shown = next(iter(open_clip(hdr))).image
    assert np.abs(shown.astype(int).mean(axis=(0, 1)) - deep()[0].mean(axis=(0, 1))).max() < 150


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("told", ["by frames", "by the container"])
def test_hdr_of_prores_is_read_as_such(tmp_path, transfer, told):
    """PQ and HLG stay when what we write, and what says its colours in the container alone, is read."""
    if "prores_ks" not in av.codecs_available:
        pytest.skip("needs an encoder of ProRes")
    path, colour = tmp_path / "hdr.mov", Colour(10, 9, transfer)
    if told == "by frames":
        with video_writer(path, 96, 64, Fraction(25), Fraction(1, 25), colour=colour) as writer:
            writer.write(deep(1)[0], Fraction(0))
        assert facts(path) == (9, transfer, 9, "yuv422p10le")
    else:
        with av.open(str(path), "w") as container:
            video = container.add_stream("prores_ks", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv422p10le"
            context = video.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
            frame = av.VideoFrame.from_ndarray(deep(1)[0], format="rgb48le")
            frame = frame.reformat(format="yuv422p10le", dst_colorspace="BT2020", dst_color_range="MPEG")
            frame.colorspace = 2
            container.mux([*video.encode(frame), *video.encode(None)])
        assert facts(path)[:3] == (2, 2, 2)
    clip = open_clip(path)
    assert clip.colour == colour
    shown = next(iter(clip)).image.astype(int)
    assert np.abs(shown.mean(axis=(0, 1)) - deep(1)[0].mean(axis=(0, 1))).max() < 300


def test_flow_pictures_of_hdr_are_ordinary_ones(hdr, tmp_path):
    flow_video(hdr, tmp_path / "out.mp4", view="side-by-side", estimator=Estimator(FAST))
    assert facts(tmp_path / "out.mp4") == (1, 1, 1, "yuv420p")


def test_a_note_where_depth_is_lost(tmp_path, caplog):
    for index, image in enumerate(deep(2)):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index}.png")
    with caplog.at_level(logging.WARNING):
        interpolate_video(tmp_path / "*.png", tmp_path / "out.mp4", estimator=Estimator(FAST), codec="vp9")
    assert caplog.text.count("16 bit, of which vp9 keeps 8") == 1


@pytest.mark.parametrize("job", [interpolate_video, stabilise_video, magnify_video])
@pytest.mark.parametrize(("largest", "value_range"), [(4000, None), (4000, (0, 4095)), (65535, None)])
def test_a_note_where_numbers_are_scaled(tmp_path, caplog, job, largest, value_range):
    """12 bit in files of 16 come out in all 16; numbers of 16 bit stay what they are."""
    for index, image in enumerate(deep(3)):
        numbers = (image[..., 0].astype(float) * largest / image.max()).astype(np.uint16)
        Image.fromarray(numbers).save(tmp_path / f"{index}.png")
    with caplog.at_level(logging.WARNING):
        job(tmp_path / "?.png", tmp_path / "out/%d.png", estimator=Estimator(FAST), value_range=value_range)
    assert caplog.text.count("holds numbers from 0 to 4095, which become 0 to 65535") == (largest == 4000)


@pytest.mark.parametrize("output", ["out.mkv", "out/%04d.png"])
def test_lossless_means_that_nothing_is_lost(tmp_path, output):
    images = moving(3)
    write_clip(tmp_path / "clip.mkv", images)
    codec = "ffv1" if output.endswith("mkv") else None
    result = interpolate_video(tmp_path / "clip.mkv", tmp_path / output, estimator=Estimator(FAST), codec=codec)
    if codec:
        pictures = read_clip(tmp_path / output)[0]
    else:
        assert result.codec == "png"
        pictures = [np.asarray(Image.open(tmp_path / "out" / f"{k:04d}.png")) for k in range(5)]
    assert len(pictures) == 5
    for picture, image in zip(pictures[::2], images, strict=True):
        np.testing.assert_array_equal(picture, image)


def test_16_bit_pictures_stay_16_bit(tmp_path):
    import png

    for index, image in enumerate(deep(2)):
        with open(tmp_path / f"{index}.png", "wb") as file:
            png.Writer(96, 64, greyscale=False, bitdepth=16).write(file, image.reshape(64, -1))
    interpolate_video(tmp_path / "?.png", tmp_path / "out/%d.png", estimator=Estimator(FAST))
    interpolate_video(tmp_path / "?.png", tmp_path / "out.mkv", estimator=Estimator(FAST), codec="ffv1")
    width, height, rows, info = png.Reader(filename=str(tmp_path / "out/0.png")).read()
    assert (width, height, info["bitdepth"]) == (96, 64, 16)
    scaled = np.vstack([np.asarray(row) for row in rows]).reshape(64, 96, 3)
    assert np.abs(scaled / 65535 - deep(2)[0] / 65535).max() < 1e-4
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert next(container.decode(video=0)).format.name == "gbrp16le"
    np.testing.assert_array_equal(next(iter(open_clip(tmp_path / "out.mkv"))).image, scaled)


def test_quality_is_a_choice(tmp_path):
    write_clip(tmp_path / "clip.mkv", grey(4))
    near = {}
    for crf in ("4", "50"):
        assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "o.mp4", "--crf", crf, "--model", FAST) == 0
        near[crf] = psnr(read_clip(tmp_path / "o.mp4")[0][2], grey(4)[1])
    assert near["4"] > near["50"] + 3
    assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "o.mp4", "--crf", "99", "--model", FAST) == 2
    with pytest.raises(InputError, match="mpeg4 has none"):
        flow_video(tmp_path / "clip.mkv", tmp_path / "o.mp4", codec="mpeg4", crf=5, estimator=Estimator(FAST))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_last_frame_is_held_and_sound_keeps_its_length(tmp_path, suffix):
    with video_writer(tmp_path / "slides.mp4", 96, 64, Fraction(25), Fraction(1, 25), codec="mpeg4") as writer:
        for index, image in enumerate(moving(4)):
            writer.write(image, Fraction(index, 25))
        writer.hold = Fraction(12, 25)
    interpolate_video(tmp_path / "slides.mp4", tmp_path / f"out{suffix}", factor=4, estimator=Estimator(FAST))
    for path in (tmp_path / "slides.mp4", tmp_path / f"out{suffix}"):
        with av.open(str(path)) as container:
            assert container.duration / 1e6 == pytest.approx(0.6, abs=0.001)
    write_clip(tmp_path / "clip.mkv", moving(4), sound="aac")
    interpolate_video(tmp_path / "clip.mkv", tmp_path / f"out{suffix}", factor=4, estimator=Estimator(FAST))
    assert len(sound_packets(tmp_path / f"out{suffix}")) == len(sound_packets(tmp_path / "clip.mkv"))


def test_prores_in_mov(tmp_path):
    if "prores_ks" not in av.codecs_available:
        pytest.skip("needs an encoder of ProRes")
    write_clip(tmp_path / "clip.mkv", grey(3))
    assert interpolate_video(tmp_path / "clip.mkv", tmp_path / "out.mov", estimator=Estimator(FAST)).codec == "prores"
    assert psnr(read_clip(tmp_path / "out.mov")[0][2], grey(3)[1]) > 35
    assert facts(tmp_path / "out.mov")[3] == "yuv422p10le"


def test_frames_on_standard_output(tmp_path):
    write_clip(tmp_path / "clip.mkv", moving(3), sound="aac")
    command = [sys.executable, "-m", "featherflow", "video", str(tmp_path / "clip.mkv"), "-o", "-", "--model", FAST, "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    header, _, rest = done.stdout.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 W96 H64 F25:1") and rest.count(b"FRAME\n") == 2
    assert len(rest) == 2 * (6 + 96 * 64 * 3 // 2)
    assert json.loads(done.stderr)["frames"] == 2


def test_titles_and_languages_stay(tmp_path):
    write_clip(tmp_path / "plain.mkv", moving(3), sound="aac")
    with av.open(str(tmp_path / "plain.mkv")) as source, av.open(str(tmp_path / "clip.mkv"), "w") as target:
        target.metadata.update({"title": "A beam that swings", "artist": "the workshop"})
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        copies[source.streams.audio[0].index].metadata["language"] = "nor"
        copies[source.streams.video[0].index].metadata["language"] = "swe"
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    for name in ("out.mp4", "out.mkv"):
        flow_video(tmp_path / "clip.mkv", tmp_path / name, estimator=Estimator(FAST))
        with av.open(str(tmp_path / name)) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            assert tags["title"] == "A beam that swings"
            assert container.streams.audio[0].metadata["language"] == "nor"
            assert container.streams.video[0].metadata["language"] == "swe"


def test_magnification_carries_nothing_farther_than_the_limit(tmp_path):
    from featherflow.transport import magnify

    image = moving(1)[0]
    flow = np.full((64, 96, 2), (3, 0), np.float32)
    reference = np.roll(image, 3, axis=1)
    free, held = (magnify(image, reference, flow, 11, limit) for limit in (None, 10))
    x = 40
    assert np.abs(free[10:-10, x].astype(int) - image[10:-10, x + 30]).mean() < 12  # carried by -30 px
    assert np.abs(held[10:-10, x].astype(int) - image[10:-10, x + 10]).mean() < 12
    write_clip(tmp_path / "clip.mkv", moving(3, dx=4))
    said = magnify_video(tmp_path / "clip.mkv", tmp_path / "o.mp4", estimator=Estimator(FAST), factor=20, limit=20)
    assert said.limited_frames >= 1 and "moves too far" in said.sentence()


def test_a_band_of_frequencies_is_made_larger_and_no_drift(tmp_path):
    """What swings three times a second is magnified, what drifts slowly is not."""
    import cv2

    from featherflow import estimate

    canvas = cv2.GaussianBlur(moving(1, 80, 200, 0, 0)[0], None, 2.0)

    def at(shift: float) -> np.ndarray:
        return cv2.warpAffine(canvas, np.float32([[1, 0, shift - 40], [0, 1, 0]]), (110, 80), flags=cv2.INTER_CUBIC)

    times = np.arange(24) / 24
    swing, drift = 0.4 * np.sin(2 * np.pi * 3 * times), 1.5 * times
    reach = {}
    for name, path in (("swing", swing), ("drift", drift)):
        write_clip(tmp_path / "clip.mkv", [at(shift) for shift in path], [Fraction(k, 24) for k in range(24)])
        magnify_video(
            tmp_path / "clip.mkv", tmp_path / "o.mkv", factor=6, band=(2.0, 5.0), codec="ffv1", estimator=Estimator("dis")
        )
        pictures = read_clip(tmp_path / "o.mkv")[0]
        moved = [float(np.median(estimate(pictures[0], picture, model="dis")[20:-20, 20:-20, 0])) for picture in pictures[1:]]
        reach[name] = np.ptp(moved) / np.ptp(path)
    assert reach["swing"] > 1.8 and reach["drift"] < 1.6 < reach["swing"]
    assert eight_bits(np.full((1, 1, 3), 65535, np.uint16)).max() == 255


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
def test_no_encoder_takes_the_machine_for_itself(tmp_path):
    """libsvtav1, opened by root, gives its threads and the caller's real-time priority: all else on the machine would wait."""
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libsvtav1")

    def policies():
        return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}

    assert policies() == {os.SCHED_OTHER}
    with video_writer(tmp_path / "x.mp4", 96, 64, Fraction(25), Fraction(1, 25), codec="av1") as writer:
        for k in range(3):
            writer.write(np.full((64, 96, 3), 40 * k, np.uint8), Fraction(k, 25))
            assert policies() == {os.SCHED_OTHER}
    assert policies() == {os.SCHED_OTHER}
