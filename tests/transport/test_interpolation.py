"""Warping obeys its equations, and pictures between frames come near to the true ones."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import layered, layered_flow, moving, psnr, read_clip, sound_packets, write_clip
from helpers import run_command

import featherflow
from featherflow.classical import opencv
from featherflow.errors import InputError
from featherflow.ops import warp
from featherflow.transport import frame_rates, interpolate, interpolate_video, splat, warp_backward
from featherflow.transport.interpolation import Between, Passing
from featherflow.transport.warping import fill_holes

cv2 = pytest.importorskip("cv2")


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_splat_and_backward_warp_undo_a_shift_of_whole_pixels():
    image = random(2, 3, 12, 16)
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 12, 16)
    moved, share = splat(image, flow)
    assert torch.allclose(moved[..., :10, 3:], image[..., 2:, :13], atol=1e-6)
    assert (share[..., :10, 3:] == 1).all() and (share[..., :3] == 0).all() and (moved[..., 10:, :] == 0).all()
    back, inside = warp_backward(moved, flow)
    assert torch.allclose((back * inside)[..., 2:, :13], image[..., 2:, :13], atol=1e-6)
    assert inside[..., 2:, :13].all() and not inside[..., 13:].any() and not inside[..., :2, :].any()


def test_splat_keeps_the_sum_of_what_stays_inside():
    values, flow = random(1, 2, 20, 20), (random(1, 2, 20, 20) - 0.5) * 4
    flow[..., :3, :] = flow[..., -3:, :] = flow[..., :3] = flow[..., -3:] = 0
    mean, share = splat(values, flow)
    assert torch.allclose((mean * share).sum((2, 3)), values.sum((2, 3)), rtol=1e-5)
    assert share.sum() == pytest.approx(400, rel=1e-5)


def test_the_more_important_pixel_wins_and_the_mean_is_a_softmax():
    values = torch.tensor([[[[1.0, 5.0, 0.0]]]])
    flow = torch.zeros(1, 2, 1, 3)
    flow[0, 0, 0] = torch.tensor([2.0, 1.0, 0.0])  # all three land on the last
    importance = torch.tensor([[[[0.0, 2.0, 1.0]]]])
    mean, share = splat(values, flow, importance)
    expected = (torch.softmax(importance.flatten(), 0) * values.flatten()).sum()
    assert mean[0, 0, 0, 2] == pytest.approx(expected.item(), abs=1e-6) and share[0, 0, 0].tolist() == [0, 0, 3]
    assert splat(values, flow, importance * 500)[0][0, 0, 0, 2] == pytest.approx(5)


WARPS = [splat, lambda v, f, i: warp_backward(v * i, f), lambda v, f, i: warp_backward(v + i, f, "bicubic")]


@pytest.mark.parametrize("function", WARPS)
def test_gradients_are_those_of_finite_differences(function):
    values, importance = random(1, 2, 4, 5).double(), random(1, 1, 4, 5).double()
    flow = (random(1, 2, 4, 5).double() - 0.5) * 1.4 + 0.013
    inputs = [x.requires_grad_() for x in (values, flow, importance)]
    assert torch.autograd.gradcheck(lambda *x: function(*x)[0], inputs, eps=1e-6, atol=1e-4)


def test_backward_warp_is_the_networks_warp_inside_the_frame():
    image, flow = random(1, 3, 20, 24), (random(1, 2, 20, 24) - 0.5) * 6
    ours, inside = warp_backward(image, flow)
    assert torch.allclose(ours * inside, warp(image, flow) * inside, atol=1e-5) and 0.5 < inside.mean() < 1


def test_holes_are_filled_from_around_them():
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(1, 1, 32, 32).clone()
    weight = torch.ones(1, 1, 32, 32)
    weight[..., 10:16, 10:16] = 0
    filled = fill_holes(torch.where(weight > 0, ramp, 999.0), weight)
    assert (filled - ramp).abs().max() < 2.5 and torch.equal(filled[weight > 0], ramp[weight > 0])


def naive(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Mean of both frames, each fetched along half of the flow of frame 1."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    places = [(x + s * flow[..., 0], y + s * flow[..., 1]) for s in (-0.5, 0.5)]
    at = [
        cv2.remap(frame.astype(np.float32), *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for frame, place in zip((first, second), places, strict=True)
    ]
    return (at[0] + at[1]) / 2


def test_true_flow_gives_nearly_the_true_picture():
    """Two layers with occlusion: far better than blending, and better than fetching along half the flow."""
    (first, _), (middle, _), (second, _) = (layered(t) for t in (0, 0.5, 1))
    flow, backward = layered_flow(0, 1), layered_flow(1, 0)
    (ours,) = interpolate(first, second, flow, backward)
    inside = np.s_[6:-6, 6:-6]  # what enters from outside the frame is seen by one frame only, at most
    assert psnr(ours[inside], middle[inside]) > 34
    assert psnr(ours, middle) > psnr(naive(first, second, flow), middle) + 3
    assert psnr(ours, middle) > psnr((first.astype(float) + second) / 2, middle) + 10
    near_first, near_second = interpolate(first, second, flow, backward, (0, 1))
    assert psnr(near_first, first) > 45 and psnr(near_second, second) > 45


def test_estimated_flow_beats_blending_and_fetching_along_farneback():
    (first, _), (middle, _), (second, _) = (layered(t) for t in (0, 0.5, 1))
    (ours,) = interpolate(first, second, *featherflow.estimate(first, second, backward=True))
    farneback = naive(first, second, featherflow.estimate(first, second, model="farneback"))
    assert psnr(ours, middle) > psnr(farneback, middle) + 0.3
    assert psnr(ours, middle) > psnr((first.astype(float) + second) / 2, middle) + 5


def test_another_method_is_believed_where_the_frames_fit_it_better():
    """A small square, whose motion one of two flows overlooks."""
    random = np.random.default_rng(0)
    ground, square = random.integers(0, 256, (96, 128, 3)), random.integers(0, 256, (20, 20, 3))
    frames, flow, backward = [], np.zeros((96, 128, 2), np.float32), np.zeros((96, 128, 2), np.float32)
    for left in (20, 30, 40):
        frames.append(cv2.GaussianBlur(ground.astype(np.uint8), (0, 0), 2))
        frames[-1][40:60, left : left + 20] = cv2.GaussianBlur(square.astype(np.uint8), (0, 0), 2)
    flow[40:60, 20:40, 0], backward[40:60, 40:60, 0] = 20, -20
    still = np.zeros_like(flow)
    there = np.s_[42:58, 32:48]
    alone, both, swapped = (
        interpolate(frames[0], frames[2], *own, also=also)[0]
        for own, also in (((still, still), []), ((still, still), [(flow, backward)]), ((flow, backward), [(still, still)]))
    )
    assert psnr(alone[there], frames[1][there]) < 27
    assert min(psnr(picture[there], frames[1][there]) for picture in (both, swapped)) > 35
    assert psnr(both, frames[1]) > psnr(alone, frames[1]) + 3


def test_who_is_asked_beside_the_model(monkeypatch, tmp_path):
    write_clip(tmp_path / "clip.mkv", moving(2), [Fraction(0), Fraction(1, 25)])
    asked = []
    monkeypatch.setattr(frame_rates, "interpolate", lambda a, b, f, g, times, also: asked.append(len(also)) or [a for _ in times])
    for options in (("--model", "dis"), ("--model", "farneback", "--also", "dis-fast"), (), ("--also", "none")):
        assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "out.mp4", "--overwrite", *options) == 0
    monkeypatch.setattr(opencv, "is_installed", lambda: False)
    assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "out.mp4", "--overwrite") == 0
    assert asked == [0, 1, 1, 0, 0]
    assert run_command("interpolate", tmp_path / "clip.mkv", "-o", tmp_path / "new.mp4", "--also", "dsi") != 0


def test_a_clip_gets_more_pictures_at_the_times_between(tmp_path):
    times = [Fraction(t, 1000) for t in (0, 40, 120)]
    frames = moving(3)
    write_clip(tmp_path / "clip.mkv", frames, times, sound="aac")
    output = tmp_path / "out.mp4"
    for factor in (2, 3):
        assert run_command("interpolate", tmp_path / "clip.mkv", "-o", output, "--factor", factor, "--model", "dis-fast") == 0
        pictures, read = read_clip(output)
        expected = [a + Fraction(k, factor) * (b - a) for a, b in itertools.pairwise(times) for k in range(factor)]
        assert read == [*expected, times[2]]
        assert all(psnr(pictures[k * factor], frames[k]) > 20 for k in range(3))
    heard, original = ([content for _, content in sound_packets(path)] for path in (output, tmp_path / "clip.mkv"))
    assert heard and heard == original[: len(heard)]


def test_bad_calls():
    first, second = moving(2)
    flow = np.zeros((64, 96, 2), np.float32)
    with pytest.raises(InputError, match="from 0 to 1"):
        interpolate(first, second, flow, flow, [1.5])
    with pytest.raises(InputError, match="shape"):
        interpolate(first, second, flow[:32], flow)
    for factor in (1, 2.5, True, 65):
        with pytest.raises(InputError, match="whole number from 2 to 64"):
            interpolate_video("x.mp4", "y.mp4", factor=factor)


def test_where_the_own_motion_fits_worst_and_no_other_counts_there_is_a_picture(monkeypatch):
    """Right of the middle a wrong motion that neither frame is said to show; beside it the right one, which may not count there."""
    still, wrong = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 2, 64, 96)
    wrong[..., 48:] = 7.0
    monkeypatch.setattr(Between, "_passing", lambda self, t: (wrong, *(torch.zeros(1, 1, 64, 96),) * 2))
    assert torch.isfinite(Between(Passing(still, still, wrong, -wrong)).at(0.5)).all()


def test_where_the_frames_differ_one_is_taken_and_not_half_of_each():
    """A bar that the flow overlooks: it stands in one place, whole, and not half transparent in two."""
    frames = [np.full((64, 96, 3), 60, np.uint8) for _ in range(2)]
    frames[0][8:-8, 26:38], frames[1][8:-8, 58:70] = 220, 220
    still = np.zeros((64, 96, 2), np.float32)
    (between,) = interpolate(*frames, still, still)
    half = np.abs(between[12:-12, :, 0].astype(int) - 140) < 45
    assert half.mean() < 0.05  # a blend has 0.25
    assert (between[12:-12, 28:36] > 190).all() != (between[12:-12, 60:68] > 190).all()
