"""Camera motion is found among other motions, and the shaking of a clip goes while its pan stays."""

import json
from itertools import pairwise

import numpy as np
import pytest
from clips import read_clip, write_clip
from helpers import frame, run_command

import featherflow
from featherflow import Estimator
from featherflow.errors import InputError
from featherflow.transport import Similarity, global_motion, stabilise_video
from featherflow.transport.stabilisation import _corners, apply, jitter, needed_zoom, smooth_path

cv2 = pytest.importorskip("cv2")
HEIGHT, WIDTH = 96, 128


def flow_of(motion: Similarity) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    z = x - (WIDTH - 1) / 2 + 1j * (y - (HEIGHT - 1) / 2)
    moved = motion(z) - z
    return np.stack((moved.real, moved.imag), axis=-1).astype(np.float32)


def shaken(count: int = 24) -> tuple[list[np.ndarray], list[Similarity]]:
    """Frames of a textured plane under a slow pan with a shaking hand, and where each frame shows the first frame's points."""
    random = np.random.default_rng(0)
    canvas = cv2.GaussianBlur(frame(HEIGHT + 120, WIDTH + 160, seed=3), None, 1.0)
    middle = complex(canvas.shape[1] - 1, canvas.shape[0] - 1) / 2
    poses = [Similarity(np.exp(1j * random.normal(0, 0.006)), complex(*random.normal(0, 1.5, 2)) - 0.8 * k) for k in range(count)]
    images = []
    for pose in poses:
        # OpenCV takes where each pixel of the answer comes from.
        source = pose.inverse()
        offset = source(complex(-(WIDTH - 1) / 2, -(HEIGHT - 1) / 2)) + middle
        turn = source.turn
        matrix = np.array([[turn.real, -turn.imag, offset.real], [turn.imag, turn.real, offset.imag]])
        images.append(cv2.warpAffine(canvas, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP))
    return images, poses


def test_global_motion_is_exact_among_a_third_of_outliers():
    truth = Similarity(1.01 * np.exp(0.02j), 3.2 - 1.7j)
    flow = flow_of(truth)
    flow[20:70, 10:90] = (-6, 4)  # something else moves, on a third of the frame
    flow[80:, :10] = np.nan
    found = global_motion(flow)
    assert np.abs(found(_corners(WIDTH, HEIGHT)) - truth(_corners(WIDTH, HEIGHT))).max() < 0.01
    noise = np.random.default_rng(1).uniform(-30, 30, flow.shape).astype(np.float32)
    assert global_motion(noise) == Similarity()


def test_estimated_flow_tells_the_camera_motion():
    images, poses = shaken(4)
    for k in range(3):
        truth = poses[k + 1] @ poses[k].inverse()
        found = global_motion(featherflow.estimate(images[k], images[k + 1], model="dis"))
        assert np.abs(found(_corners(WIDTH, HEIGHT)) - truth(_corners(WIDTH, HEIGHT))).max() < 0.5


def test_a_steady_pan_with_zoom_needs_no_correction():
    motions = [Similarity(1.002 * np.exp(0.001j), 2 - 1j)] * 40
    times = np.arange(41) / 25
    moved = [np.abs(c(_corners(WIDTH, HEIGHT)) - _corners(WIDTH, HEIGHT)).max() for c in smooth_path(motions, times, 0.4)]
    assert max(moved) < 1.0  # the path itself goes 80 px
    assert needed_zoom([Similarity()] * 3, WIDTH, HEIGHT) == 1.0


def test_needed_zoom_hides_the_border_and_hardly_more():
    shift = Similarity(1.0, 4 + 0j)
    zoom = needed_zoom([shift], WIDTH, HEIGHT)
    assert zoom == pytest.approx((WIDTH - 1) / (WIDTH - 1 - 8), abs=2e-3)
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    assert apply(white, shift, zoom).min() == 255


def test_apply_moves_a_frame_by_the_similarity():
    image = cv2.GaussianBlur(frame(HEIGHT, WIDTH, 2), None, 1.0)
    moved = apply(image, Similarity(1.0, 5 - 3j))
    assert np.abs(moved[:-3, 5:].astype(int) - image[3:, :-5]).max() <= 1


def test_a_shaken_clip_becomes_steady_and_keeps_its_pan(tmp_path, capsys):
    images, poses = shaken()
    write_clip(tmp_path / "shaky.mkv", images, sound="aac")
    files = (tmp_path / "shaky.mkv", "-o", tmp_path / "steady.mp4")
    assert run_command("stabilise", *files, "--model", "dis", "--smoothness", "0.3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    steady, _ = read_clip(tmp_path / "steady.mp4")
    assert len(steady) == len(images) and said["sound"] and 1 < said["zoom"] <= 1.25

    def measured(clip: list[np.ndarray]) -> list[Similarity]:
        return [global_motion(featherflow.estimate(a, b, model="dis")) for a, b in pairwise(clip)]

    before = jitter([b @ a.inverse() for a, b in pairwise(poses)], WIDTH, HEIGHT)
    after = measured(steady)
    assert said["jitter_before_px"] == pytest.approx(before, rel=0.1)
    assert jitter(after, WIDTH, HEIGHT) < 0.15 * before  # by an independent measurement of the written video
    pan = np.mean([motion.shift for motion in after]) / said["zoom"]
    assert pan == pytest.approx(np.mean([(b @ a.inverse()).shift for a, b in pairwise(poses)]), abs=0.25)


def test_little_crop_smooths_less(tmp_path):
    images, _ = shaken(10)
    write_clip(tmp_path / "shaky.mkv", images)
    narrow = stabilise_video(tmp_path / "shaky.mkv", tmp_path / "a.mp4", crop=0.02, estimator=Estimator("dis"))
    assert narrow.zoom <= 1 / 0.98
    with pytest.raises(InputError, match="between 0 and 1"):
        stabilise_video(tmp_path / "shaky.mkv", tmp_path / "b.mp4", crop=1.0)
    with pytest.raises(InputError, match="more than 0"):
        stabilise_video(tmp_path / "shaky.mkv", tmp_path / "b.mp4", smoothness=0)
