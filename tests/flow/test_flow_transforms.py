"""Affine maps and homographies to flows and back, among pixels that move otherwise."""

import numpy as np
import pytest
import torch

from featherflow.errors import InputError
from featherflow.flow.transforms import from_affine, from_homography, to_affine, to_homography

SIZE = (60, 80)
AFFINE = np.array([[1.05, 0.1, -3.0], [-0.08, 0.97, 2.0]])
HOMOGRAPHY = np.array([[1.02, 0.03, -2.0], [0.01, 0.98, 1.5], [1e-4, -2e-4, 1.0]])


def disturbed(flow, share, seed=0):
    """The flow where a part, chosen by chance, moves as one thing of its own, another anyhow, and some is unknown."""
    random = np.random.default_rng(seed)
    draw = random.random(SIZE)
    flow = flow.copy()
    flow[draw < share] = flow[draw < share] * 0.3 + [9, 4]
    flow[draw < share / 2] += random.uniform(5, 30, ((draw < share / 2).sum(), 2))
    flow[draw > 0.95] = np.nan
    return flow, (draw >= share) & (draw <= 0.95)


def test_a_flow_leads_where_the_matrix_says():
    flow, valid = from_homography(HOMOGRAPHY, SIZE)
    assert flow.dtype == np.float32 and flow.shape == (*SIZE, 2)
    goal = HOMOGRAPHY @ [70, 50, 1]
    assert np.abs(flow[50, 70] + [70, 50] - goal[:2] / goal[2]).max() < 1e-5
    assert not valid[0, 0] and valid[30, 40]  # (-2, 1.5) lies outside
    straight, _ = from_affine(AFFINE, SIZE)
    assert np.abs(straight[50, 70] + [70, 50] - AFFINE @ [70, 50, 1]).max() < 1e-5


def test_behind_the_horizon_nothing_is_known():
    flow, valid = from_homography(np.array([[1, 0, 0], [0, 1, 0], [-1 / 40, 0, 1]]), SIZE)
    assert np.isnan(flow[:, 40:]).all() and not valid[:, 40:].any() and np.isfinite(flow[:, :40]).all()


@pytest.mark.parametrize("share", [0, 0.25, 0.6])
def test_the_affine_map_that_most_follow_is_found(share):
    flow, follows = disturbed(from_affine(AFFINE, SIZE)[0], share)
    matrix, mask = to_affine(flow)
    assert np.abs(matrix - AFFINE).max() < 1e-6
    assert (mask == follows).mean() > 0.99 and mask[follows].all()


@pytest.mark.parametrize("share", [0, 0.25, 0.5])
def test_the_homography_that_most_follow_is_found(share):
    flow, follows = disturbed(from_homography(HOMOGRAPHY, SIZE)[0], share)
    matrix, mask = to_homography(flow)
    assert np.abs(matrix - HOMOGRAPHY).max() < 1e-6
    assert mask[follows].all()


def test_noise_is_averaged_as_opencv_does():
    cv2 = pytest.importorskip("cv2")
    clean, _ = from_homography(HOMOGRAPHY, SIZE)
    flow = (clean + np.random.default_rng(1).normal(0, 0.2, clean.shape)).astype(np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    start = np.stack((x, y), axis=-1).reshape(-1, 2)
    theirs, _ = cv2.findHomography(start, start + flow.reshape(-1, 2), 0)
    ours, _ = to_homography(flow, threshold=3.0)

    def corners(matrix):
        return from_homography(matrix, SIZE)[0][[0, 0, -1, -1], [0, -1, 0, -1]]

    truth = corners(HOMOGRAPHY)
    # Tukey's weights cost a few per cent of efficiency against least squares on normal noise, which is all that is here.
    assert np.abs(corners(ours) - truth).max() < 2 * np.abs(corners(theirs) - truth).max() + 0.01


def test_batches_of_tensors_have_maps_of_their_own_and_gradients():
    matrices = torch.tensor(np.stack((AFFINE, AFFINE[::-1, [1, 0, 2]].copy()))).requires_grad_()
    flow, valid = from_affine(matrices, (12, 14))
    assert flow.shape == (2, 2, 12, 14) and valid.shape == (2, 1, 12, 14)
    found, _ = to_affine(flow)
    assert torch.allclose(found, matrices, atol=1e-9)
    (gradient,) = torch.autograd.grad((found * torch.arange(12.0).view(2, 2, 3)).sum(), matrices)
    assert torch.allclose(gradient, torch.arange(12.0, dtype=torch.float64).view(2, 2, 3), atol=1e-6)


def test_gradients_of_a_fit_are_those_of_finite_differences():
    flow = torch.from_numpy(np.moveaxis(from_homography(HOMOGRAPHY, (8, 9))[0], -1, 0).astype(np.float64).copy())
    bump = torch.zeros_like(flow)
    bump[0, 3, 4] = 1e-6
    matrix, _ = to_homography(flow.requires_grad_())
    (gradient,) = torch.autograd.grad(matrix[0, 2], flow)
    plus, minus = (to_homography((flow + sign * bump).detach())[0][0, 2] for sign in (1, -1))
    # The weights are held while a gradient is taken; on a flow that follows the map they are one nearly everywhere.
    assert float(gradient[0, 3, 4]) == pytest.approx(float((plus - minus) / 2e-6), rel=0.5, abs=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: to_affine(np.full((5, 5, 2), np.nan)), "3 or more known pixels"),
        (lambda: to_homography(np.zeros((1, 20, 2))), "not on one line"),
        (lambda: to_affine(np.zeros((5, 5, 2)), threshold=-1), "threshold"),
        (lambda: from_homography(AFFINE, (5, 5)), r"must be \(3, 3\)"),
        (lambda: from_affine("half", (5, 5)), "numbers"),
        (lambda: from_affine(AFFINE, (5.5, 5)), "at least 1"),
        (lambda: from_homography(HOMOGRAPHY, (0, 5)), "at least 1"),
        (lambda: from_affine(AFFINE, 5), "at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
