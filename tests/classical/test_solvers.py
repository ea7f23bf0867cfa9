"""Our classical methods: would catch a wrong sign, factor or neighbour in any equation, a biased interpolation, lost convergence.

Oracles: equations as printed in the papers, dense linear algebra, SciPy, flows in closed form, OpenCV.
"""

from itertools import pairwise

import numpy as np
import pytest
import scenes
import torch
from scipy import ndimage

from featherflow.classical import METHODS, estimate, refinement
from featherflow.classical.median import median_filter
from featherflow.classical.pyramid import (
    Pyramid,
    blur,
    coarse_to_fine,
    gradient,
    linearize,
    rescale_flow,
    sample,
)
from featherflow.classical.refinement import refine
from featherflow.classical.solvers import (
    TVL1,
    Brox,
    HornSchunck,
    LucasKanade,
    NormalEquations,
    conjugate_gradients,
    data_solution,
    data_tensor,
    divergence,
    forward_differences,
    neighbour_mean,
)
from featherflow.errors import InputError
from featherflow.flow import read_flow
from featherflow.frames import as_batch

OWN = ("horn-schunck", "lucas-kanade", "brox", "tv-l1")


def random(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rgb(frame):
    return (frame / 255).expand(-1, 3, -1, -1)


# Parts ----------------------------------------------------------------------------------------------------------------


def test_gradient_is_exact_on_quartics():
    x = torch.arange(12, dtype=torch.float64) - 5
    frame = (x**4 - 2 * x**2)[None, None, None] + 3 * x.view(1, 1, -1, 1) ** 3
    dx, dy = gradient(frame)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(dx[inner], (4 * x**3 - 4 * x).view(1, 1, 1, -1).expand_as(dx)[inner])
    torch.testing.assert_close(dy[inner], (9 * x**2).view(1, 1, -1, 1).expand_as(dy)[inner])


def test_blur_is_a_gaussian():
    x = random(1, 2, 20, 24, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=(0, 0, 5, 5))
    np.testing.assert_allclose(blur(x, 1.5).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_median(side):
    x = random(2, 2, 9, 11)
    expected = ndimage.median_filter(x.numpy(), (1, 1, side, side), mode="nearest")
    np.testing.assert_array_equal(median_filter(x, side).numpy(), expected)


def test_sampling_keeps_quadratics_and_says_what_is_inside():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    frame = (x**2 - x * y + 2 * y)[None, None]
    flow = torch.stack((torch.full_like(x, 0.3), torch.full_like(y, -0.6)))[None]
    warped, inside = sample(frame, flow)
    u, v = x + 0.3, y - 0.6
    torch.testing.assert_close(warped[0, 0, 2:-2, 2:-2], (u**2 - u * v + 2 * v)[2:-2, 2:-2], atol=1e-4, rtol=0)
    assert torch.equal(inside[0, 0], ((u <= 10) & (v >= 0)).float())
    torch.testing.assert_close(sample(frame, torch.zeros_like(flow))[0], frame)


def test_flow_changes_its_unit_with_its_grid():
    flow = torch.ones(1, 2, 10, 20)
    rescaled = rescale_flow(flow, (15, 60))
    assert rescaled.shape == (1, 2, 15, 60) and torch.equal(rescaled[0, :, 0, 0], torch.tensor([3.0, 1.5]))


def test_linearization_predicts_the_difference():
    first, second, flow = scenes.pair(((1, 0), (0, 1)), (0.2, -0.1))
    dx, dy, dt = linearize(first, second, torch.zeros_like(flow))
    rest = dt + dx * flow[:, :1] + dy * flow[:, 1:]
    assert rest[..., 3:-3, 3:-3].abs().max() < 0.02 * dt.abs().max()


def test_divergence_is_the_negative_adjoint():
    u, px, py = (random(1, 2, 6, 7, seed=seed, dtype=torch.float64) for seed in range(3))
    ux, uy = forward_differences(u)
    assert (ux * px + uy * py).sum().item() == pytest.approx(-(u * divergence(px, py)).sum().item(), rel=1e-12)


# Steps ----------------------------------------------------------------------------------------------------------------


def test_horn_and_schunck_iterate_as_printed():
    # u = ubar - Ix (Ix ubar + Iy vbar + It) / (alpha^2 + Ix^2 + Iy^2), equations 12 and 13, around zero flow.
    dx, dy, dt, flow = (random(1, n, 5, 6, seed=n) for n in (1, 1, 1, 2))
    dy, dt = dy - 0.5, dt * 3
    mean = neighbour_mean(flow)
    rest = (dx * mean[:, :1] + dy * mean[:, 1:] + dt) / (4.0 + dx**2 + dy**2)
    expected = mean - torch.cat((dx * rest, dy * rest), dim=1)
    torch.testing.assert_close(data_solution(data_tensor(dx, dy, dt), mean, torch.zeros_like(flow), 4.0), expected)


def test_neighbour_mean_is_the_papers():
    flow = random(1, 2, 5, 6)
    kernel = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    expected = [ndimage.correlate(part, kernel, mode="nearest") for part in flow[0].numpy()]
    np.testing.assert_allclose(neighbour_mean(flow)[0].numpy(), expected, atol=1e-6)


def test_horn_schunck_ends_at_the_solution_of_its_equations():
    # At rest, (J + alpha^2) w = alpha^2 mean(w) - J0: one dense linear system, 2 unknowns per pixel.
    height, width, alpha = 5, 6, 1.5
    parts = [random(1, 1, height, width, seed=seed, dtype=torch.float64) for seed in range(3)]
    tensor = data_tensor(parts[0], parts[1] - 0.5, parts[2])
    count = 2 * height * width
    system = np.zeros((count, count))
    for column in range(count):
        unit = torch.zeros(1, 2, height, width, dtype=torch.float64)
        unit.view(-1)[column] = 1
        u, v = unit.split(1, dim=1)
        xx, xy, yy, _, _ = tensor
        image = torch.cat((xx * u + xy * v, xy * u + yy * v), dim=1) + alpha**2 * (unit - neighbour_mean(unit))
        system[:, column] = image.view(-1).numpy()
    expected = np.linalg.solve(system, -torch.cat(tensor[3:], dim=1).view(-1).numpy())
    flow = start = torch.zeros(1, 2, height, width, dtype=torch.float64)
    step = HornSchunck(alpha=alpha)
    for _ in range(3000):
        flow = step.iterate(tensor, flow, start)
    np.testing.assert_allclose(flow.view(-1).numpy(), expected, atol=1e-9)


def testconjugate_gradients_solve_the_system():
    shape = (1, 1, 4, 5)
    a, b, d, smooth = (random(*shape, seed=seed, dtype=torch.float64) for seed in range(4))
    a, d, b = a + 1, d + 1, b - 0.5
    target = random(1, 2, 4, 5, seed=9, dtype=torch.float64)
    count = target.numel()
    system = np.zeros((count, count))
    for column in range(count):
        unit = torch.zeros_like(target)
        unit.view(-1)[column] = 1
        u, v = unit.split(1, dim=1)
        ux, uy = forward_differences(unit)
        image = torch.cat((a * u + b * v, b * u + d * v), dim=1) - divergence(smooth * ux, smooth * uy)
        system[:, column] = image.view(-1).numpy()
    np.testing.assert_allclose(system, system.T, atol=1e-12)
    found = conjugate_gradients(NormalEquations(a, b, d, smooth), target, None, 40)
    np.testing.assert_allclose(found.view(-1).numpy(), np.linalg.solve(system, target.view(-1).numpy()), atol=1e-9)


def _brox_energy(step, first, second, flow):
    warped, inside = sample(second, flow)
    dt = (warped - first) * inside
    residual = dt.square() + step.gamma * sum(part.square() for part in gradient(dt))
    data = (residual.sum(dim=1, keepdim=True) + step.epsilon**2).sqrt()
    lengths = sum(part.square().sum(dim=1, keepdim=True) for part in forward_differences(flow))
    return float((data + step.alpha * (lengths + step.epsilon**2).sqrt()).mean())


def test_brox_lowers_its_own_energy():
    first, second, truth = scenes.pair(*scenes.MOTIONS["zoom"])
    step, flow = Brox(), torch.zeros_like(truth)
    energies = [_brox_energy(step, first, second, flow)]
    for _ in range(4):
        flow = step(first, second, flow)
        energies.append(_brox_energy(step, first, second, flow))
    assert all(after < 1.001 * before for before, after in pairwise(energies))
    assert energies[-1] < min(0.1 * energies[0], 1.1 * _brox_energy(step, first, second, truth))


# Whole methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", scenes.MOTIONS)
@pytest.mark.parametrize("name", OWN)
def test_analytic_flow(name, motion):
    first, second, truth = scenes.pair(*scenes.MOTIONS[motion])
    errors = (estimate(name, rgb(first), rgb(second)) - truth).norm(dim=1)[0]
    assert errors[8:-8, 8:-8].mean() < 0.012
    assert errors.mean() < 0.12


def test_gradient_constancy_forgives_a_change_of_light():
    first, second, truth = scenes.pair(*scenes.MOTIONS["translation"])
    errors = [
        (coarse_to_fine(first, second + 15, Brox(alpha=100, gamma=gamma), Pyramid()) - truth).norm(dim=1).mean()
        for gamma in (0, 1000)
    ]
    assert errors[1] < 0.06 and errors[0] > 0.5


@pytest.mark.parametrize("name", OWN)
def test_still_and_flat_frames_have_no_flow(name):
    frame = random(1, 3, 24, 33)
    assert estimate(name, frame, frame).abs().max() < 1e-3
    flat = torch.full((1, 3, 17, 16), 0.5)
    assert torch.equal(estimate(name, flat, flat), torch.zeros(1, 2, 17, 16))


@pytest.mark.parametrize("name", OWN)
def test_pairs_do_not_depend_on_their_batch(name):
    first, second = random(3, 3, 32, 40), random(3, 3, 32, 40, seed=1)
    together = estimate(name, first, second)
    assert together.isfinite().all()
    assert torch.equal(together[1:2], estimate(name, first[1:2], second[1:2]))


@pytest.mark.parametrize("step", [HornSchunck(iterations=3), LucasKanade(), Brox(fixed_points=1, iterations=3), TVL1(iterations=3)])
def test_steps_are_differentiable(step):
    first, second, flow = scenes.pair(*scenes.MOTIONS["shear"], height=20, width=24)
    second.requires_grad_()
    (coarse_to_fine(first, second, step, Pyramid(warps=1, smallest=10)) - flow).abs().mean().backward()
    assert second.grad.isfinite().all() and second.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "shape, keywords",
    [((1, 1, 20, 21), {}), ((1, 1, 20, 20), {"flow": torch.zeros(1, 2, 5, 5)}), ((1, 1, 20, 20), {"pyramid": Pyramid(median=4)})],
)
def test_what_cannot_be(shape, keywords):
    with pytest.raises(InputError):
        coarse_to_fine(torch.zeros(1, 1, 20, 20), torch.zeros(shape), LucasKanade(), **{"pyramid": Pyramid(), **keywords})
    with pytest.raises(InputError, match="no classical method named 'broks'"):
        estimate("broks", torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def crops(shared_data):
    """A part of each of two Middlebury pairs: frames `(1, 3, 200, 240)`, flow `(200, 240, 2)`."""
    found = []
    for name, top, left in (("RubberWhale", 100, 200), ("Venus", 120, 100)):
        folder, window = shared_data / "middlebury" / name, np.s_[top : top + 200, left : left + 240]
        frames = [as_batch(folder / f"frame{n}.png")[:, :, window[0], window[1]].contiguous() for n in (10, 11)]
        found.append((*frames, read_flow(folder / "flow10.flo")[window]))
    return found


def error(flow, truth):
    return float(np.nanmean(np.hypot(*np.moveaxis(flow[0].permute(1, 2, 0).numpy() - truth, -1, 0))))


def test_against_opencv_on_real_frames(crops):
    pytest.importorskip("cv2").setNumThreads(1)
    mean = {
        name: np.mean([error(estimate(name, one, two), truth) for one, two, truth in crops])
        for name in (*OWN, "tvl1", "deepflow", "farneback")
    }
    assert mean["tv-l1"] < 1.2 * mean["tvl1"]
    assert mean["brox"] < 1.2 * min(mean["tvl1"], mean["deepflow"])
    assert max(mean[name] for name in OWN) < mean["farneback"]


def test_refinement_helps_a_rough_start(crops):
    pytest.importorskip("cv2").setNumThreads(1)
    for one, two, truth in crops:
        for name in ("dis", "farneback"):
            start = estimate(name, one, two)
            assert error(refine(one, two, start, 3), truth) < 0.95 * error(start, truth)
    with pytest.raises(InputError, match="at least 1"):
        refine(one, two, start, 0)
    with pytest.raises(InputError, match="of one size"):
        refine(one, two, start[..., 1:], 1)


@pytest.mark.parametrize("size", [(40, 48), (41, 47)])
def test_blocks_of_one_pixel_are_brox(monkeypatch, size):
    first, second, truth = scenes.pair(*scenes.MOTIONS["shear"], height=size[0], width=size[1])
    frames, start = (rgb(first), rgb(second)), truth + 0.3
    of_blocks = refine(*frames, start)
    assert of_blocks.shape == truth.shape and (of_blocks - truth).norm(dim=1).mean() < 0.5 * (start - truth).norm(dim=1).mean()
    for name, value in (("BLOCK", 1), ("MEDIAN", 1), ("SIGMA", 0.01), ("relit", lambda frame, *_: frame)):
        monkeypatch.setattr(refinement, name, value)
    step = Brox(refinement.ALPHA, refinement.GAMMA, refinement.EPSILON, fixed_points=1, iterations=refinement.ITERATIONS)
    torch.testing.assert_close(refine(*frames, start), step(first, second, start), rtol=0, atol=2e-4)


def test_bands_are_the_whole(monkeypatch):
    first, second, truth = scenes.pair(*scenes.MOTIONS["shear"], height=61, width=50)
    whole = refine(rgb(first), rgb(second), truth + 0.3)
    monkeypatch.setattr(refinement, "_BAND_PIXELS", 500)
    torch.testing.assert_close(refine(rgb(first), rgb(second), truth + 0.3), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gain, offset", [(0.8, 0.0), (0.85, 25.0), (1.0, -20.0)])
def test_another_exposure_is_no_motion(gain, offset):
    first, second, truth = scenes.pair(*scenes.MOTIONS["shear"], height=96, width=112)
    frames, start = (rgb(first), (rgb(second) * gain + offset / 255).clamp(0, 1)), truth + 0.2
    error = (refine(*frames, start) - truth).norm(dim=1).mean()
    assert error < 0.35 * (start - truth).norm(dim=1).mean()


def test_strips_of_large_frames_are_nearly_the_whole(monkeypatch):
    first, second, truth = scenes.pair(*scenes.MOTIONS["shear"], height=420, width=64)
    whole = refine(rgb(first), rgb(second), truth + 0.3)
    monkeypatch.setattr(refinement, "_STRIP_PIXELS", 100 * 64)
    in_strips = refine(rgb(first), rgb(second), truth + 0.3)
    assert (in_strips - whole).norm(dim=1).mean() < 0.02 * (whole - truth - 0.3).norm(dim=1).mean()


def test_refinement_keeps_what_is_right():
    first, second, truth = scenes.pair(*scenes.MOTIONS["translation"])
    assert (refine(rgb(first), rgb(second), truth, 2) - truth).norm(dim=1).mean() < 0.02


def test_every_opencv_method_answers(crops):
    pytest.importorskip("cv2")
    one, two, truth = crops[0]
    still = error(torch.zeros(1, 2, 200, 240), truth)
    for name in set(METHODS) - set(OWN):
        flow = estimate(name, one, two)
        assert flow.shape == (1, 2, 200, 240) and flow.dtype == torch.float32 and error(flow, truth) < 0.8 * still, name


def test_estimate_takes_the_names(crops):
    import featherflow

    one, two, _ = crops[0]
    small = [frame[0, :, :40, :48] for frame in (one, two)]
    plain = featherflow.estimate(*small, model="tv-l1")
    refined = featherflow.estimate(*small, model="tv-l1", refine=2)
    assert plain.shape == refined.shape == (2, 40, 48) and not torch.equal(plain, refined)
    assert torch.equal(refined, refine(small[0][None], small[1][None], plain[None], 2)[0])
    with pytest.raises(InputError, match="refine is a number of steps"):
        featherflow.estimate(*small, model="tv-l1", refine=-1)
