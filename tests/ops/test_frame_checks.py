"""What networks refuse, and when two frames show no motion; by hand-made frames."""

import pytest
import torch

from featherflow.errors import InputError
from featherflow.ops.frames import FLAT, check_frames, check_iterations, show_no_motion, starting_flow
from featherflow.ops.shapes import size_of

FRAME = torch.zeros(2, 3, 32, 48)


def test_frames_that_fit_are_taken():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        check_frames(FRAME.to(dtype), FRAME.to(dtype), 16, 32)
    assert size_of(FRAME) == (32, 48)


@pytest.mark.parametrize(
    ("frame1", "frame2", "said"),
    [
        (FRAME[0], FRAME, r"frame1 must be .* got \(3, 32, 48\) of float32"),
        (FRAME, FRAME[:, :1], r"frame2 must be .* got \(2, 1, 32, 48\)"),
        (FRAME, FRAME.to(torch.uint8), "frame2 must be a floating-point .* of uint8"),
        (FRAME, FRAME[:1], "one shape"),
        (FRAME[..., :40], FRAME[..., :40], "multiples of 16 and at least 32 px, got 32x40"),
        (FRAME[..., :16, :], FRAME[..., :16, :], "at least 32 px, got 16x48"),
    ],
)
def test_what_does_not_fit_is_said(frame1, frame2, said):
    with pytest.raises(InputError, match=said):
        check_frames(frame1, frame2, 16, 32)


def test_motion_shows_only_in_two_frames_that_differ_and_are_not_flat():
    """Batches judge each pair for itself; noise of one level of 8 bit is flat, and so is one colour that is not grey."""
    generator = torch.Generator().manual_seed(0)
    scene, other = torch.rand(2, 3, 32, 48, generator=generator)
    noise = 0.4 + FLAT * (torch.rand(3, 32, 48, generator=generator) - 0.5)
    colour = torch.tensor([0.9, 0.1, 0.5]).view(3, 1, 1).expand(3, 32, 48)
    edge = noise.clone()
    edge[2, :, 24:] += 3 * FLAT  # in one channel alone
    pairs = [(scene, other), (scene, scene), (scene, noise), (noise, scene), (colour, scene), (edge, scene)]
    first, second = (torch.stack(frames) for frames in zip(*pairs, strict=True))
    assert show_no_motion(first, second) == [False, True, True, True, True, False]


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "3", None])
def test_iterations_are_a_whole_number_above_0(number):
    assert check_iterations(1) == 1 and check_iterations(12) == 12
    with pytest.raises(InputError, match="whole number of at least 1"):
        check_iterations(number)


def test_flow_to_start_from():
    features = torch.ones(2, 5, 4, 6, dtype=torch.bfloat16)
    none = starting_flow(None, features)
    assert none.shape == (2, 2, 4, 6) and none.dtype == torch.float32 and not none.any()
    given = torch.rand(2, 2, 4, 6, dtype=torch.float64)
    assert torch.equal(starting_flow(given, features), given.float())
    with pytest.raises(InputError, match=r"initial_flow must have the shape \(2, 2, 4, 6\), got \(2, 2, 6, 4\)"):
        starting_flow(given.mT, features)
