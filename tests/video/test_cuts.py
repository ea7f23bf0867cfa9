"""Cuts, fades, repeats and empty frames: where nothing tells motion there is none, and nothing is followed across a cut."""

import json

import numpy as np
import pytest
from clips import moving, psnr, read_clip, write_clip
from helpers import frame, run_command

import featherflow
from featherflow import Estimator, networks
from featherflow.errors import FileError, InputError
from featherflow.flow import read_flow
from featherflow.images import read_image
from featherflow.transport import interpolate_video, magnify_video, stabilise_video, track_video
from featherflow.transport.stabilisation import Similarity, smooth_path
from featherflow.video import change, open_clip, shows_motion, steps
from featherflow.video.decoding import VideoClip

pytest.importorskip("av")
pytest.importorskip("cv2")
MODEL = "dis"
SIZE = (96, 128)


def scene(seed: int, count: int = 5, dx: int = 2) -> list[np.ndarray]:
    canvas = frame(SIZE[0], SIZE[1] + abs(dx) * count, seed)
    return [np.ascontiguousarray(canvas[:, (count - 1 - k) * dx : (count - 1 - k) * dx + SIZE[1]]) for k in range(count)]


def found(first, second, **options):
    return change(first, second, featherflow.estimate(first, second, model=MODEL), **options)


def test_what_lies_between_two_frames():
    first, second = scene(1)[:2]
    other, black = scene(2)[0], np.zeros_like(first)
    assert found(first, second).kind == "motion" and found(first, second).likeness > 0.9
    assert found(first, first).kind == "same" and found(black, black).kind == "same"
    assert found(first, other).kind == "cut" and found(first, other).breaks
    assert found(black, first).kind == "empty" and found(first, black).breaks and found(black, black + 255).kind == "empty"
    assert found(first, (second * 0.6).astype(np.uint8)).kind == "motion"  # a fade, or a flash
    assert found(first, other, threshold=0).kind == "motion"
    far = scene(1, dx=16)
    along = np.full((*SIZE, 2), (16, 0), np.float32)
    assert change(far[0], far[1], along).kind == "motion" and change(far[0], far[1], 0 * along).kind == "cut"
    assert found(first.astype(np.uint16) * 257, second.astype(np.uint16) * 257).kind == "motion"


@pytest.mark.parametrize("size", [(16, 4000), (17, 1000), (1080, 20), (333, 517), (16, 16)])
def test_frames_of_any_shape(size):
    random = np.random.default_rng(0)
    first, second, other = (frame(*size, seed).copy() for seed in (1, 1, 2))
    second[random.integers(size[0]), random.integers(size[1])] ^= 1
    still = np.zeros((*size, 2), np.float32)
    assert change(first, second, still).kind == "motion" and change(first, other, still).likeness < 0.6
    assert shows_motion(first, second, still) is False


def test_a_fade_shows_no_motion_and_a_shift_of_a_fraction_of_a_pixel_does():
    import cv2

    first = cv2.GaussianBlur(scene(3)[0], None, 1.0)
    noise = np.random.default_rng(0).normal(0, 2, (2, *first.shape))
    drift = np.full((*SIZE, 2), (0.3, 0.0), np.float32)
    moved = cv2.warpAffine(first, np.float32([[1, 0, 0.3], [0, 1, 0]]), SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
    noisy = [(image + grain).clip(0, 255).astype(np.uint8) for image, grain in zip((first, moved), noise, strict=True)]
    assert shows_motion(*noisy, drift)
    faded = (first * 0.7 + noise[1]).clip(0, 255).astype(np.uint8)
    assert not shows_motion(noisy[0], faded, drift)
    assert not shows_motion(first * 0, first, drift)


@pytest.mark.parametrize("model", ["liteflownet2-slim", "dis", "farneback", "horn-schunck"])
def test_equal_frames_have_exactly_no_flow(model):
    for image in (np.zeros((64, 80, 3), np.uint8), frame(64, 80)):
        assert not featherflow.estimate(image, image.copy(), model=model).any()
        assert not any(flow.any() for flow in featherflow.estimate(image, image.copy(), model=model, backward=True))
        assert not any(flow.any() for flow in featherflow.stream([image] * 3, model=model))
    moved = np.roll(frame(64, 80), 2, axis=1)
    batch = featherflow.estimate([image, image], [image, moved], model=model)
    assert not batch[0].any() and batch[1].any()


def test_interpolation_repeats_the_nearer_frame_over_a_cut(tmp_path):
    images = scene(1, 3) + scene(2, 3)
    write_clip(tmp_path / "clip.mkv", images)
    result = interpolate_video(tmp_path / "clip.mkv", tmp_path / "out.mkv", factor=4, estimator=Estimator(MODEL), codec="ffv1")
    pictures, _ = read_clip(tmp_path / "out.mkv")
    assert result.cuts == 1
    assert [np.array_equal(picture, images[2]) for picture in pictures[8:10]] == [True, True]
    assert [np.array_equal(picture, images[3]) for picture in pictures[10:13]] == [True, True, True]
    assert not np.array_equal(pictures[1], images[0])
    never = interpolate_video(tmp_path / "clip.mkv", tmp_path / "never.mkv", estimator=Estimator(MODEL), codec="ffv1", cuts=0)
    torn = read_clip(tmp_path / "never.mkv")[0][5]
    assert never.cuts == 0 and max(psnr(torn, images[2]), psnr(torn, images[3])) < 25


def test_tracks_end_at_a_cut(tmp_path, capsys):
    write_clip(tmp_path / "clip.mkv", scene(1, 3) + scene(2, 3))
    arguments = ("tracks", tmp_path / "clip.mkv", "-o", tmp_path / "t.csv", "--model", MODEL, "--json")
    assert run_command(*arguments) == 0
    said = json.loads(capsys.readouterr().out)
    frames = [int(line.split(",")[0]) for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert (said["left"], said["cuts"], max(frames)) == (0, 1, 2)
    assert run_command(*arguments, "--cuts", "2") == 2
    assert "from 0" in capsys.readouterr().err


def intro_and_fade(kind: str) -> list[np.ndarray]:
    image = scene(4)[0]
    if kind == "black intro":
        return [np.zeros_like(image)] * 6 + [image] * 6
    return [(image * (k / 12)).astype(np.uint8) for k in range(13)] + [image] * 3


@pytest.mark.parametrize("model", ["dis", "liteflownet2-slim"])
@pytest.mark.parametrize("kind", ["black intro", "fade-in"])
def test_a_motionless_clip_is_left_alone(tmp_path, kind, model):
    images = intro_and_fade(kind)
    write_clip(tmp_path / "clip.mkv", images)
    result = stabilise_video(tmp_path / "clip.mkv", tmp_path / "out.mkv", estimator=Estimator(model), codec="ffv1")
    assert result.zoom == 1.0
    for picture, image in zip(read_clip(tmp_path / "out.mkv")[0], images, strict=True):
        assert np.abs(picture.astype(int) - image).max() <= 1


def test_a_new_path_begins_at_a_cut():
    still, jump = Similarity(), Similarity(1.0, 300 + 0j)
    times = np.arange(9) / 25
    motions = [still] * 8
    motions[3] = None
    assert all(abs(correction.shift) < 1e-9 for correction in smooth_path(motions, times, 1.0))
    motions[3] = jump  # what it would be without
    assert max(abs(correction.shift) for correction in smooth_path(motions, times, 1.0)) > 50


def test_magnification_counts_motion_anew_after_a_cut(tmp_path):
    images = scene(1, 2, 0) + scene(2, 3, 0)
    write_clip(tmp_path / "clip.mkv", images)
    result = magnify_video(tmp_path / "clip.mkv", tmp_path / "out.mkv", estimator=Estimator(MODEL), codec="ffv1", factor=10)
    assert result.cuts == 1
    for picture, image in zip(read_clip(tmp_path / "out.mkv")[0], images, strict=True):
        assert psnr(picture, image) > 45


def test_points_outside_are_refused_first(tmp_path, capsys):
    write_clip(tmp_path / "clip.mkv", moving(3))
    with pytest.raises(InputError, match="lies outside of the frame"):
        track_video(tmp_path / "clip.mkv", tmp_path / "t.csv", points=[(10, 10), (96, 5)], estimator=Estimator(MODEL))
    assert run_command("tracks", tmp_path / "clip.mkv", "-o", tmp_path / "t.csv", "--point", "-1,5") == 2
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("model", ["liteflownet2-slim", "liteflownet2", "dis", "sparse-to-dense", "pcaflow", "horn-schunck"])
def test_where_nothing_tells_motion_there_is_none(model):
    """A frame of one colour says nothing of where anything went, nor does one with the noise of black."""
    black, white, texture = np.zeros((256, 272, 3), np.uint8), np.full((256, 272, 3), 255, np.uint8), frame(256, 272)
    noise = np.random.default_rng(0).integers(0, 3, black.shape).astype(np.uint8)
    estimator = Estimator(model)
    for pair in ((black, white), (black, texture), (texture, white), (noise, noise[::-1]), (white, white.copy())):
        assert not any(flow.any() for flow in estimator.both(*pair))
    grey = [np.full((64, 80), value, np.uint16) for value in (0, 60_000)]
    assert not Estimator("dis")(*grey).any()
    dot = black.copy()
    dot[100:104, 120:124] = 200
    assert Estimator("liteflownet2-slim")(dot, np.roll(dot, 3, axis=1)).any()  # little is not nothing


def test_flow_over_a_cut_is_none(tmp_path, capsys):
    """As files and as pictures; the colours of the rest are not scaled by it."""
    write_clip(tmp_path / "clip.mkv", scene(1, 4) + scene(2, 4))
    arguments = ("video", tmp_path / "clip.mkv", "--flow-dir", tmp_path / "flows", "--backward", "--occlusion", "--model", "dis")
    assert run_command(*arguments, "-o", tmp_path / "out.mkv", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cuts"] == 1 and said["scale_px"] < 4
    for index in range(7):
        for name in (f"{index:06d}.flo", f"{index:06d}_backward.flo"):
            assert read_flow(tmp_path / "flows" / name).any() == (index != 3)
    assert read_image(tmp_path / "flows/000003_occlusion.png").min() == 255  # none of it is shown by the next frame
    assert run_command(*arguments, "--cuts", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cuts"] == 0 and read_flow(tmp_path / "flows/000003.flo").any()


def test_a_cut_ends_a_warm_start(tmp_path):
    """Behind a cut all is as in a clip that begins there; up to it, as without the rest."""
    network = networks.untrained("raft-small")
    before, behind = scene(1, 3), scene(2, 3)
    for name, images in (("both", before + behind), ("before", before), ("behind", behind)):
        write_clip(tmp_path / f"{name}.mkv", images)

    def flows(name: str, cuts: float) -> list[np.ndarray]:
        clip = open_clip(tmp_path / f"{name}.mkv")
        return [step.flow for step in steps(clip, Estimator(network, iterations=2), warm_start=True, cuts=cuts)]

    joined = flows("both", 0.65)
    assert not joined[2].any()
    for flow, alone in zip(joined[:2] + joined[3:], flows("before", 0.0) + flows("behind", 0.0), strict=True):
        assert np.array_equal(flow, alone)
    assert not np.array_equal(flows("both", 0.0)[3], joined[3])


def test_what_leaves_its_place_is_no_cut(tmp_path):
    """A scene that drifts away from the first frame has no cut in it; motion is counted anew, and the result says so."""
    write_clip(tmp_path / "clip.mkv", moving(24, dx=4, dy=1))
    result = magnify_video(tmp_path / "clip.mkv", tmp_path / "out.mkv", factor=0, estimator=Estimator(MODEL))
    assert result.cuts == 0 and result.new_references > 0
    assert "motion is counted anew" in result.sentence() and "cut" not in result.sentence()


@pytest.mark.parametrize("verb", ["stabilise", "magnify", "interpolate", "tracks", "video"])
def test_what_comes_before_the_damage_is_kept_by_every_verb(tmp_path, capsys, verb):
    write_clip(tmp_path / "whole.mkv", moving(20))
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    out = ("-o", tmp_path / "t.csv", "--video", tmp_path / "out.mkv") if verb == "tracks" else ("-o", tmp_path / "out.mkv")
    assert run_command(verb, tmp_path / "cut.mkv", *out, "--model", MODEL) == 3
    said = capsys.readouterr().err.strip()
    kept = len(read_clip(tmp_path / "out.mkv")[0])
    assert "cut short" in said and f"what was made until then is kept: {kept} pictures in " in said and "\n" not in said
    assert kept > 8


@pytest.mark.parametrize("verb", ["stabilise", "magnify", "interpolate", "tracks", "video"])
def test_of_one_frame_of_a_damaged_clip_nothing_is_kept(tmp_path, capsys, monkeypatch, verb):
    write_clip(tmp_path / "clip.mkv", moving(6))
    whole = VideoClip.__iter__

    def one_frame(self):
        yield next(whole(self))
        raise FileError(f"'{self.name}' is cut short.")

    monkeypatch.setattr(VideoClip, "__iter__", one_frame)
    out = ("-o", tmp_path / "t.csv", "--video", tmp_path / "out.mkv") if verb == "tracks" else ("-o", tmp_path / "out.mkv")
    assert run_command(verb, tmp_path / "clip.mkv", *out, "--model", MODEL) == 3
    assert "kept" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]
