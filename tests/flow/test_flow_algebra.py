"""Flow algebra: exact on analytic fields, held against SciPy, differentiable, and honest about where it knows nothing."""

import numpy as np
import pytest
import torch

from featherflow.errors import InputError
from featherflow.flow.algebra import compose, invert, path, resample, switch_frame
from featherflow.flow.transforms import from_affine

SIZE = (60, 80)
FIRST = np.array([[1.05, 0.1, -3.0], [-0.08, 0.97, 2.0]])
SECOND = np.array([[0.9, 0.05, 3.0], [0.02, 1.1, -2.0]])
QUARTER_TURN = np.array([[0.0, -1.0, 60.0], [1.0, 0.0, 0.0]])
MIRROR = np.array([[-1.0, 0.0, 79.0], [0.0, 1.0, 0.0]])


def full(matrix):
    return np.vstack((matrix, [0, 0, 1]))


def affine(matrix, size=SIZE):
    """The flow in float64, by its definition."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    goal = np.stack((x, y, np.ones_like(x)), axis=-1) @ full(matrix)[:2].T
    return goal - np.stack((x, y), axis=-1)


def inside(flow):
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width]
    goal = flow + np.stack((x, y), axis=-1)
    return ((goal >= -1e-9) & (goal <= [width - 1 + 1e-9, height - 1 + 1e-9])).all(axis=-1)


def smooth(seed, size=(40, 50), amplitude=3.0):
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    a, b, c, d = np.random.default_rng(seed).uniform(0.08, 0.16, 4)
    # The shift keeps places off the edges of cells, where a bilinear flow has two derivatives.
    return amplitude * np.stack((np.sin(a * x + b * y + 0.1), np.cos(c * x - d * y + 0.1)), axis=-1)


def as_tensor(flow):
    return torch.from_numpy(np.moveaxis(flow, -1, 0).copy())[None]


def test_composition_of_affine_flows_is_the_product_of_their_matrices():
    flow, valid = compose(affine(FIRST), affine(SECOND))
    expected = affine((full(SECOND) @ full(FIRST))[:2])
    assert np.abs(flow - expected)[valid].max() < 1e-12
    np.testing.assert_array_equal(valid, inside(affine(FIRST)))
    assert np.isnan(flow[~valid]).all() and 0 < valid.mean() < 1


def test_composition_as_scipy_samples_it():
    from scipy.ndimage import map_coordinates

    first, second = smooth(1), smooth(2)
    flow, valid = compose(first, second)
    y, x = np.mgrid[:40, :50]
    place = [y + first[..., 1], x + first[..., 0]]
    expected = first + np.stack([map_coordinates(second[..., k], place, order=1) for k in (0, 1)], axis=-1)
    assert np.abs(flow - expected)[valid].max() < 1e-10 and valid.mean() > 0.8


def test_unknown_pixels_make_unknown_what_is_made_of_them():
    first, second = np.zeros((20, 30, 2)), np.ones((20, 30, 2))
    first[..., 0] = 2.5
    first[3, 4] = np.nan
    second[10, 10] = np.nan
    flow, valid = compose(first, second)
    expected = np.ones((20, 30), bool)
    expected[:, 27:] = False  # leads outside
    expected[3, 4] = False
    expected[10, 7:9] = False  # arrives half on the unknown pixel, from either side
    np.testing.assert_array_equal(valid, expected)
    assert (flow[valid] == [3.5, 1]).all()


@pytest.mark.parametrize("matrix", [FIRST, SECOND, QUARTER_TURN, MIRROR], ids=["first", "second", "quarter turn", "mirror"])
def test_inverse_of_an_affine_flow_is_that_of_the_inverse_matrix(matrix):
    flow, valid = invert(affine(matrix))
    expected = affine(np.linalg.inv(full(matrix))[:2])
    assert np.abs(flow - expected)[valid].max() < 1e-10
    np.testing.assert_array_equal(valid, inside(expected))


def test_there_and_back_is_at_rest():
    flow = smooth(3)
    inverse, _ = invert(flow)
    rest, valid = compose(inverse, flow)
    assert valid.mean() > 0.85 and np.abs(rest[valid]).max() < 1e-6


def test_nothing_comes_from_a_tear_when_tears_are_told_from_stretching():
    flow = np.zeros((20, 40, 2))
    flow[:, 20:, 0] = 8  # the right half moves away
    _, stretched = invert(flow)
    inverse, valid = invert(flow, max_gradient=2)
    assert stretched.all() and not valid[:, 20:28].any()
    assert valid[:, :20].all() and (inverse[:, :20] == 0).all()
    assert valid[:, 28:].all() and (inverse[:, 28:, 0] == -8).all()


def test_switching_the_frame_there_and_back():
    flow = affine(FIRST)
    second, valid = switch_frame(flow)
    inverse = affine(np.linalg.inv(full(FIRST))[:2])
    assert np.abs(second + inverse)[valid].max() < 1e-10  # what has come by f comes from y + g(y) = y - second(y)
    first, again = switch_frame(-inverse, to="first")
    assert np.abs(first - flow)[again].max() < 1e-10 and again.mean() > 0.7


@pytest.mark.parametrize("size", [(30, 40), (45, 71), (120, 200), (7, 9), (61, 79), (60, 80)])
def test_resampling_keeps_affine_flows_as_they_are(size):
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    grow = np.linalg.inv(half) @ np.diag([size[1] / 80, size[0] / 60, 1]) @ half
    flow, valid = resample(affine(FIRST), size)
    expected = affine((grow @ full(FIRST) @ np.linalg.inv(grow))[:2], size)
    assert flow.shape == (*size, 2) and valid.all() and np.abs(flow - expected).max() < 1e-10


def test_resampling_averages_what_is_known():
    flow = np.ones((8, 8, 2), np.float32)
    flow[:4, :4] = np.nan
    small, valid = resample(flow, (2, 2))
    np.testing.assert_array_equal(valid, [[False, True], [True, True]])
    assert np.abs(small[valid] - 0.25).max() < 1e-6


def test_a_path_adds_up():
    flows = [smooth(seed, amplitude=1.0) for seed in range(4)]
    walked = list(path(iter(flows)))
    assert len(walked) == 4 and (walked[0][0] == flows[0]).all()
    # Independent: one point followed by hand.
    from scipy.ndimage import map_coordinates

    place = np.array([25.0, 20.0])
    for flow, (whole, valid) in zip(flows, walked, strict=True):
        place = place + [map_coordinates(flow[..., k], place[::-1, None], order=1)[0] for k in (0, 1)]
        assert valid[20, 25] and np.abs(whole[20, 25] + [25, 20] - place).max() < 1e-10


def test_tensors_and_arrays_and_batches_agree():
    first, second = smooth(4), smooth(5)
    for operation in (lambda a, b: compose(a, b), lambda a, b: invert(a), lambda a, b: resample(a, (19, 70))):
        flow, valid = operation(first, second)
        tensor, mask = operation(as_tensor(first), as_tensor(second))
        assert tensor.dtype == torch.float64 and mask.shape[:2] == (1, 1) and mask.dtype == torch.bool
        np.testing.assert_array_equal(mask[0, 0], valid)
        assert np.abs(np.moveaxis(tensor[0].numpy(), 0, -1) - np.nan_to_num(flow)).max() < 1e-12
        single, single_mask = operation(as_tensor(first)[0], as_tensor(second)[0])
        assert single.shape == tensor.shape[1:] and single_mask.shape == mask.shape[1:]
        many, many_valid = operation(np.stack((first, second)), np.stack((second, first)))
        np.testing.assert_allclose(many[0], flow, atol=1e-12)
        np.testing.assert_array_equal(many_valid[0], valid)


def test_float32_arrays_stay_float32():
    for flow, _ in (invert(smooth(1).astype(np.float32)), resample(smooth(1).astype(np.float32), (9, 9))):
        assert flow.dtype == np.float32


def test_gradients_are_those_of_finite_differences():
    flow = as_tensor(smooth(6, (5, 6), 1.0)).requires_grad_()
    other = as_tensor(smooth(7, (5, 6), 1.0))
    for operation in (
        lambda f: compose(f, other)[0],
        lambda f: compose(other, f)[0],
        lambda f: invert(f)[0],
        lambda f: switch_frame(f, to="first")[0],
        lambda f: resample(f, (3, 9))[0],
    ):
        assert torch.autograd.gradcheck(operation, flow, atol=1e-6)


def test_unknown_pixels_spoil_no_gradient():
    flow = as_tensor(smooth(8, (12, 14), 1.0))
    flow[..., 4, 5] = torch.nan
    flow.requires_grad_()
    loss = sum(answer.square().sum() for answer in (compose(flow, flow)[0], invert(flow)[0], resample(flow, (6, 7))[0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(flow.grad).all() and (flow.grad[..., 4, 5] == 0).all()


def test_a_mask_counts_as_nan_does():
    flow = smooth(9)
    holes = np.zeros(flow.shape[:2], bool)
    holes[5:9, 5:9] = True
    with_nan = np.where(holes[..., None], np.nan, flow)
    for by_mask, by_nan in (
        (compose(flow, flow, ~holes, ~holes), compose(with_nan, with_nan)),
        (invert(flow, ~holes), invert(with_nan)),
        (resample(flow, (20, 25), ~holes), resample(with_nan, (20, 25))),
    ):
        np.testing.assert_array_equal(by_mask[0], by_nan[0])
        np.testing.assert_array_equal(by_mask[1], by_nan[1])
        assert not by_nan[1].all()


def test_one_row_and_one_pixel_are_flows_too():
    for size in ((1, 20), (20, 1), (1, 1)):
        flow, valid = compose(np.zeros((*size, 2)), np.zeros((*size, 2)))
        assert valid.all() and (flow == 0).all()
        flow, valid = invert(np.zeros((*size, 2)))
        assert valid.all() and (flow == 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compose(np.zeros((5, 5, 2)), np.zeros((5, 6, 2))), "one size"),
        (lambda: compose(np.zeros((5, 5, 3)), np.zeros((5, 5, 3))), "the first flow as an array"),
        (lambda: invert(torch.zeros(2, 5, 5, dtype=torch.int32)), "floating point"),
        (lambda: invert([[0, 0]]), "got a list"),
        (lambda: invert(np.zeros((5, 5, 2)), np.ones((5, 6))), r"must have the shape \(5, 5\)"),
        (lambda: invert(np.zeros((5, 5, 2)), tolerance=0), "tolerance"),
        (lambda: compose(np.zeros((5, 5, 2)), torch.zeros(2, 5, 5)), "one form"),
        (lambda: compose(np.zeros((1, 5, 5, 2)), np.zeros((5, 5, 2))), "one form"),
        (lambda: resample(np.zeros((5, 5, 2)), (0, 5)), "at least 1"),
        (lambda: resample(np.zeros((5, 5, 2)), (np.nan, 5)), "at least 1"),
        (lambda: resample(np.zeros((5, 5, 2)), 5), "at least 1"),
        (lambda: switch_frame(np.zeros((5, 5, 2)), to="third"), "'second' or 'first'"),
        (lambda: from_affine(np.eye(3), (5, 5)), r"must be \(2, 3\)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
