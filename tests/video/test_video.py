"""Clips in, videos of flow out: times, sound, orientation, size and colour survive, and what is broken is said in one sentence."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from clips import moving, read_clip, sound_packets, write_clip
from helpers import run_command, write_frames
from PIL import Image

from featherflow import Estimator
from featherflow.errors import FeatherflowError, FileError, InputError, MissingExtraError
from featherflow.flow import read_flow
from featherflow.video import CODECS, VIEWS, Colour, Selection, ahead, behind, draw, flow_video, open_clip, video_writer

pytest.importorskip("cv2")
av = pytest.importorskip("av")
FAST = "dis-ultrafast"
UNEVEN = [Fraction(t, 1000) for t in (0, 40, 110, 120, 350, 351)]


@pytest.fixture
def clip(tmp_path):
    """Six frames that move by (2, 1) px, at uneven times, with sound."""
    write_clip(tmp_path / "clip.mkv", moving(), UNEVEN, sound="aac")
    return tmp_path / "clip.mkv"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_are_exact_and_sound_is_the_same_bytes(clip, tmp_path, view, suffix):
    output = tmp_path / f"out{suffix}"
    result = flow_video(clip, output, view=view, estimator=Estimator(FAST))
    assert (result.frames, result.sound, result.codec) == (5, True, "vp9")
    frames, times = read_clip(output)
    assert times == UNEVEN[:-1]
    assert frames[0].shape == (64, 192 if view == "side-by-side" else 96, 3)
    heard, original = sound_packets(output), sound_packets(clip)
    assert [content for _, content in heard] == [content for _, content in original][: len(heard)]
    assert all(abs(a - b) < Fraction(1, 1000) for (a, _), (b, _) in zip(heard, original, strict=False))
    assert heard[-1][0] > UNEVEN[-2] - Fraction(1, 20)


def test_a_part_of_the_clip_starts_at_zero_with_its_own_sound(clip, tmp_path):
    flow_video(clip, tmp_path / "out.mkv", start=0.1, end=0.351, estimator=Estimator(FAST))
    _, times = read_clip(tmp_path / "out.mkv")
    assert times == [t - UNEVEN[2] for t in UNEVEN[2:4]]
    heard, original = sound_packets(tmp_path / "out.mkv"), dict((c, t) for t, c in sound_packets(clip))
    assert heard and all(abs(original[content] - time - UNEVEN[2]) <= Fraction(1, 1000) for time, content in heard)
    assert -0.03 < heard[0][0] < 0.03


def test_stride_and_fps_choose_frames_that_keep_their_times(clip, tmp_path):
    flow_video(clip, tmp_path / "stride.mp4", stride=2, estimator=Estimator(FAST))
    assert read_clip(tmp_path / "stride.mp4")[1] == [UNEVEN[0], UNEVEN[2]]
    assert [picture.time for picture in open_clip(clip, fps=10)] == [UNEVEN[0], UNEVEN[2], UNEVEN[4]]
    assert [time for time, _ in Selection(stride=3).take((Fraction(k), k) for k in range(7))] == [0, 3, 6]


def test_confidence_of_a_clip(clip, tmp_path):
    import featherflow

    frames = moving()
    trusted = featherflow.estimate(frames[1], frames[2], model=FAST, confidence=True)[1]
    assert run_command("video", clip, "--flow-dir", tmp_path / "a", "--format", "npz", "--confidence", "--model", FAST) == 0
    assert np.array_equal(np.load(tmp_path / "a/000001.npz")["confidence"], trusted) and len(os.listdir(tmp_path / "a")) == 5
    least = str(float(np.median(trusted)))
    some = ("--flow-dir", tmp_path / "b", "-o", tmp_path / "b.mkv", "--codec", "ffv1", "--min-confidence", least)
    assert run_command("video", clip, *some, "--confidence", "--model", FAST) == 0
    assert np.array_equal(np.isnan(read_flow(tmp_path / "b/000001.flo")[..., 0]), trusted < float(least))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b/000001_confidence.png")) > 32767, np.rint(trusted * 65535) > 32767)
    assert (read_clip(tmp_path / "b.mkv")[0][1][trusted < float(least)] < 8).mean() > 0.95
    assert run_command("video", clip, "-o", tmp_path / "c.mp4", "--confidence", "--model", FAST) == 2
    assert run_command("video", clip, "--flow-dir", tmp_path / "c", "--min-confidence", "-1", "--model", FAST) == 2


def test_flow_files_equal_the_pairwise_ones(clip, tmp_path, capsys):
    code = run_command(
        "video", clip, "--flow-dir", tmp_path / "flows", "--format", "npz", "--backward", "--occlusion", "--model", FAST, "--json"
    )
    assert code == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 5
    assert sorted(os.listdir(tmp_path / "flows"))[:3] == ["000000.npz", "000000_backward.npz", "000000_occlusion.png"]
    assert len(os.listdir(tmp_path / "flows")) == 15
    import featherflow

    frames = moving()
    forward, backward = featherflow.estimate(frames[1], frames[2], model=FAST, backward=True)
    assert np.array_equal(read_flow(tmp_path / "flows/000001.npz"), forward)
    assert np.array_equal(read_flow(tmp_path / "flows/000001_backward.npz"), backward)
    assert np.abs(np.median(forward, axis=(0, 1)) - (2, 1)).max() < 0.2


def test_occluded_pixels_are_black(clip, tmp_path):
    """Pixels that leave the frame to the right have no flow to be trusted."""
    flow_video(clip, tmp_path / "out.mp4", occlusion=True, estimator=Estimator(FAST))
    frames, _ = read_clip(tmp_path / "out.mp4")
    assert frames[0][:, -1].mean() < 60 < frames[0][:, 40].mean()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_that_of_an_independent_reader(tmp_path, rotation):
    import cv2

    write_clip(tmp_path / "turned.mp4", moving(3), codec="mpeg4", rotation=rotation, sample_aspect=Fraction(4, 3))
    reader = cv2.VideoCapture(str(tmp_path / "turned.mp4"))
    reader.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    expected = [reader.read()[1][..., ::-1] for _ in range(3)]
    clip = open_clip(tmp_path / "turned.mp4")
    pictures = [picture.image for picture in clip]
    assert (clip.height, clip.width) == expected[0].shape[:2] == ((96, 64) if rotation != 180 else (64, 96))
    assert clip.pixel_aspect == (Fraction(3, 4) if rotation != 180 else Fraction(4, 3))
    for ours, theirs in zip(pictures, expected, strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 3


@pytest.mark.parametrize("codec", CODECS)
def test_odd_sizes_and_colours_survive_every_codec(tmp_path, codec):
    images = [np.ascontiguousarray(image[:63, :95]) for image in moving(4)]
    images[0][:] = (200, 30, 60)
    times = [Fraction(k, 30) for k in range(4)]
    path = tmp_path / {"prores": "odd.mov", "ffv1": "odd.mkv"}.get(codec, "odd.mp4")
    try:
        with video_writer(path, 95, 63, Fraction(30), Fraction(1, 30), codec=codec) as writer:
            for image, when in zip(images, times, strict=True):
                writer.write(image, when)
    except InputError as error:
        assert "no encoder" in str(error)
        pytest.skip(str(error))
    frames, read_times = read_clip(path)
    assert [pytest.approx(float(time), abs=6e-4) for time in read_times] == [float(time) for time in times]  # .mkv: whole ms
    assert frames[0].shape == ((64, 96, 3) if codec in ("h264", "prores") else (63, 95, 3))
    assert np.abs(frames[0][:63, :95].astype(int) - (200, 30, 60)).mean() < 4
    assert np.abs(frames[2][:63, :95].astype(int) - images[2]).mean() < 16  # chroma has half the grid


def test_h264_is_never_chosen_unasked():
    assert next(iter(CODECS)) == "vp9"
    from featherflow.video.writing import CONTAINERS, _choose

    for suffix, (_, allowed) in CONTAINERS.items():
        assert _choose(None, Colour(), allowed, f"x{suffix}")[0] == {".mov": "prores"}.get(suffix, "vp9")


def test_folder_and_glob_are_clips_at_a_rate(tmp_path):
    write_frames(tmp_path, 4)
    for source in (tmp_path, tmp_path / "*.png"):
        flow_video(source, tmp_path / "out.mp4", fps=12, estimator=Estimator(FAST))
        assert read_clip(tmp_path / "out.mp4")[1] == [Fraction(k, 12) for k in range(3)]


def pipe(frames, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "featherflow", "video", "-", "--model", FAST, *map(str, arguments)],
        input=b"".join(frame.tobytes() for frame in frames),
        capture_output=True,
    )


def test_raw_frames_from_a_pipe(tmp_path):
    done = pipe(moving(4), "--size", "96x64", "--fps", 10, "-o", tmp_path / "out.mp4", "--flow-dir", tmp_path / "flows", "--json")
    assert done.returncode == 0, done.stderr
    assert read_clip(tmp_path / "out.mp4")[1] == [Fraction(k, 10) for k in range(3)]
    assert np.abs(np.median(read_flow(tmp_path / "flows/000001.flo"), axis=(0, 1)) - (2, 1)).max() < 0.2


def test_one_scale_for_the_whole_clip(tmp_path):
    """Short motions first, long ones last: a file is looked at beforehand, so that equal colours mean equal motions."""
    slow, fast = moving(5, dx=1, dy=0), moving(5, dx=4, dy=0)
    write_clip(tmp_path / "clip.mkv", slow + fast)
    result = flow_video(tmp_path / "clip.mkv", tmp_path / "out.mp4", estimator=Estimator("farneback"))
    assert result.scale_px > 3
    frames, _ = read_clip(tmp_path / "out.mp4")
    saturation = [int(np.median(np.ptp(frame.astype(int), axis=2))) for frame in (frames[1], frames[7])]
    assert saturation[0] < 0.5 * saturation[1]
    assert flow_video(tmp_path / "clip.mkv", tmp_path / "out.mp4", estimator=Estimator("farneback"), scale=40).scale_px == 40


BROKEN = {
    "empty.mp4": (lambda whole: b"", "it is empty"),
    "text.mp4": (lambda whole: b"this is no video\n" * 50, "no video"),
    "cut.mp4": (lambda whole: whole[: len(whole) // 2], "cut short"),
    "noise.mkv": (lambda whole: np.random.default_rng(0).bytes(5000), "no video"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_in_one_sentence_and_leave_nothing(tmp_path, name, capsys):
    make, said = BROKEN[name]
    write_clip(tmp_path / "whole.mp4", moving(), codec="mpeg4")
    (tmp_path / name).write_bytes(make((tmp_path / "whole.mp4").read_bytes()))
    assert run_command("video", tmp_path / name, "-o", tmp_path / "out.mp4", "--model", FAST) == 3
    error = capsys.readouterr().err
    assert said in error and name in error and error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == sorted([name, "whole.mp4"])


def test_a_clip_that_is_cut_short_keeps_what_could_be_read(tmp_path, capsys):
    write_clip(tmp_path / "whole.mkv", moving(20))
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    assert run_command("video", tmp_path / "cut.mkv", "-o", tmp_path / "out.mp4", "--model", FAST) == 3
    said = capsys.readouterr().err
    assert "cut short" in said and "until then is kept: " in said and "\n" not in said.strip()
    frames, times = read_clip(tmp_path / "out.mp4")
    assert 5 < len(frames) < 16 and times == [Fraction(k, 25) for k in range(len(frames))]


BAD_CALLS = {
    "one frame": (lambda: flow_video("one.mkv", "out.mp4", estimator=Estimator(FAST)), "two or more"),
    "no file": (lambda: flow_video("missing.mp4", "out.mp4"), "no file or folder 'missing.mp4'"),
    "an image": (lambda: flow_video("frame0.png", "out.mp4"), "single frame"),
    "sound only": (lambda: flow_video("sound.m4a", "out.mp4"), "holds no video"),
    "suffix": (lambda: flow_video("one.mkv", "out.avi"), ".mp4"),
    "view": (lambda: flow_video("one.mkv", "out.mp4", view="fancy"), "side-by-side"),
    "format": (lambda: flow_video("one.mkv", flow_dir="flows", format="jpg"), "flo, png16"),
    "codec": (lambda: flow_video("two.mkv", "out.mp4", codec="theora", estimator=Estimator(FAST)), "vp9"),
    "webm and h264": (lambda: flow_video("two.mkv", "out.webm", codec="h264", estimator=Estimator(FAST)), "cannot hold h264"),
    "sound in webm": (lambda: flow_video("two.mkv", "out.webm", estimator=Estimator(FAST)), "--no-audio"),
    "end": (lambda: flow_video("two.mkv", "out.mp4", start=3, end=2), "after the start"),
    "beyond": (lambda: flow_video("two.mkv", "out.mp4", start=30, estimator=Estimator(FAST)), "two or more"),
    "stride": (lambda: flow_video("two.mkv", "out.mp4", stride=0), "stride"),
    "nothing": (lambda: flow_video("two.mkv"), "Nothing would be written"),
    "backward": (lambda: flow_video("two.mkv", "out.mp4", backward=True), "--flow-dir"),
    "camera": (lambda: flow_video("87", "out.mp4"), "camera 87"),
    "pixels": (lambda: flow_video("-", "out.mp4", size="8x8", pixel_format="rgb"), "pixel format 'rgb'"),
    "sizes": (lambda: flow_video("mixed", "out.mp4", estimator=Estimator(FAST)), "one size"),
    "folder": (lambda: flow_video("two.mkv", "no/folder/out.mp4", estimator=Estimator(FAST)), "folder does not exist"),
}


@pytest.fixture(scope="module")
def bad_sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    write_frames(folder, 1)
    write_clip(folder / "one.mkv", moving(1))
    write_clip(folder / "two.mkv", moving(2), sound="aac")
    write_clip(folder / "both.mp4", moving(2), codec="mpeg4", sound="aac")
    with av.open(str(folder / "both.mp4")) as source, av.open(str(folder / "sound.m4a"), "w", format="mp4") as target:
        track = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                target.mux(packet)
    (folder / "mixed").mkdir()
    for index, size in enumerate([(64, 80), (64, 96)]):
        Image.new("RGB", size[::-1]).save(folder / "mixed" / f"{index}.png")
    return folder


@pytest.mark.parametrize("key", BAD_CALLS)
def test_bad_calls_end_in_one_sentence(key, bad_sources, monkeypatch):
    monkeypatch.chdir(bad_sources)
    before = sorted(os.listdir("."))
    call, said = BAD_CALLS[key]
    with pytest.raises(FeatherflowError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)
    assert sorted(os.listdir(".")) == before


def test_without_pyav_the_cure_is_named(monkeypatch, clip):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"featherflow\[video\]"):
        open_clip(clip)


def test_ctrl_c_leaves_a_playable_file(tmp_path):
    write_clip(tmp_path / "long.mkv", moving(12) * 60, sound="aac")
    command = [sys.executable, "-m", "featherflow", "video", "long.mkv", "-o", "out.mp4", "--model", "farneback", "--scale", "4"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 40
    while time.time() < deadline and not any(p.stat().st_size > 2000 for p in tmp_path.glob(".featherflow-*.tmp")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    frames, times = read_clip(tmp_path / "out.mp4")
    assert 1 <= len(frames) < 700 and times == [Fraction(k, 25) for k in range(len(frames))]
    assert f"what was made until then is kept: {len(frames)} pictures in out.mp4" in said
    assert sorted(os.listdir(tmp_path)) == ["long.mkv", "out.mp4"]


def test_memory_stays_flat(tmp_path):
    """Resident memory after 300 frames is that after 100: the queues between the threads are bounded."""
    write_clip(tmp_path / "long.mkv", moving(10, 128, 160) * 30)
    code = """
import sys, featherflow.video as video
from featherflow import Estimator
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
sizes = {}
def note(done, total): sizes[done] = resident()
video.flow_video("long.mkv", "out.mp4", estimator=Estimator("dis-ultrafast"), scale=4, progress=note)
at = lambda wanted: sizes[min(sizes, key=lambda done: abs(done - wanted))]
print(at(100), at(295))
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    early, late = map(int, done.stdout.split())
    assert late - early < 8 << 20  # 195 decoded frames and flows more would be 43 MB


def test_reading_ahead_is_bounded_and_passes_errors_on():
    fetched = []

    def items():
        for index in range(20):
            fetched.append(index)
            yield index
        raise FileError("the end is damaged")

    seen = []
    with pytest.raises(FileError, match="damaged"):
        for item in ahead(items(), most=3):
            time.sleep(0.005)
            assert len(fetched) <= item + 1 + 3
            seen.append(item)
    assert seen == list(range(20))


def test_work_behind_keeps_its_order_and_passes_errors_on():
    seen, threads = [], set()

    def work(item):
        time.sleep(0.002)
        threads.add(threading.get_ident())
        seen.append(item)
        if item == 6:
            raise FileError("the disk is full")

    with behind(work) as hand_over:
        for item in range(5):
            hand_over(item)
    assert seen == list(range(5)) and threads.isdisjoint({threading.get_ident()}) and len(threads) == 1
    with pytest.raises(FileError, match="full"), behind(work) as hand_over:
        for item in range(5, 30):
            hand_over(item)
    assert max(seen) < 12


def test_views_show_the_flow_of_each_pixel():
    image = moving(1)[0]
    flow = np.zeros((64, 96, 2), np.float32)
    flow[:, 48:, 0] = 3
    still, moved = draw("overlay", image, flow, 3.0)[:, :48], draw("overlay", image, flow, 3.0)[:, 48:]
    assert np.ptp(still.astype(int), axis=2).max() == 0  # grey where nothing moves
    assert (moved[..., 0].astype(int) > moved[..., 2]).all()  # red to the right
    assert np.array_equal(draw("side-by-side", image, flow, 3.0)[:, :96], image)
    with pytest.raises(InputError, match="colour, arrows"):
        draw("map", image, flow, 1.0)


def test_arrows_of_small_motions_are_arrows(tmp_path):
    """Motions of a twentieth of a pixel: scaled up until they can be seen, and told apart from rest."""
    import cv2

    image = cv2.GaussianBlur(moving(1, 128, 160)[0], None, 2.0)
    frames = [cv2.warpAffine(image, np.float32([[1, 0, 0.05 * k], [0, 1, 0]]), (160, 128), flags=cv2.INTER_CUBIC) for k in range(3)]
    write_clip(tmp_path / "clip.mkv", frames)
    result = flow_video(tmp_path / "clip.mkv", tmp_path / "out.mkv", view="arrows", codec="ffv1", estimator=Estimator("dis"))
    assert result.scale_px < 0.3
    drawn = (np.abs(read_clip(tmp_path / "out.mkv")[0][0].astype(int) - frames[0]).max(axis=2) > 40).mean()
    still = draw("arrows", frames[0], np.full((128, 160, 2), 1e-4, np.float32), 0.5)
    assert drawn > 2 * (np.abs(still.astype(int) - frames[0]).max(axis=2) > 40).mean()
