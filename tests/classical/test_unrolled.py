"""Unrolled Horn-Schunck: would catch an operator that is not the classical one when hand-set, or that no gradient reaches."""

import torch

from featherflow.classical.methods import grey_levels
from featherflow.classical.pyramid import Pyramid, coarse_to_fine
from featherflow.classical.solvers import HornSchunck
from featherflow.classical.unrolled import UnrolledConfig, UnrolledHornSchunck


def frames(seed=0, size=(48, 60)):
    """A smooth random pattern and itself two pixels further right, `(2, 3, H, W)` each."""
    noise = torch.rand(2, 3, size[0], size[1] + 2, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)
    return smooth[..., 2:].contiguous(), smooth[..., :-2].contiguous()


def test_hand_set_it_is_the_classical_method():
    first, second = frames()
    pyramid = Pyramid(factor=0.5, warps=3)
    for iterations, alpha in ((1, 8.0), (10, 8.0), (25, 15.0)):
        network = UnrolledHornSchunck(UnrolledConfig(iterations=iterations, alpha=alpha, pyramid=pyramid))
        grey = [grey_levels(frame, colour=False) for frame in (first, second)]
        expected = coarse_to_fine(*grey, HornSchunck(alpha=alpha, iterations=iterations), pyramid)
        with torch.no_grad():
            found = network(first, second)
        assert expected.abs().max() > 0.5  # there is something to agree on
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_loosened_it_is_not():
    first, second = frames()
    network = UnrolledHornSchunck()
    with torch.no_grad():
        assert (network(first, second) - network.loosen()(first, second)).abs().max() > 1e-3


def test_every_operator_learns():
    first, second = frames()
    network = UnrolledHornSchunck(UnrolledConfig(iterations=3)).loosen()
    network(first, second).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_training_lowers_its_error():
    first, second = frames()
    truth = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    network = UnrolledHornSchunck(UnrolledConfig(iterations=3, pyramid=Pyramid(warps=1, median=1))).loosen()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    errors = []
    for _ in range(12):
        error = (network(first, second) - truth).norm(dim=1).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]


def test_estimate_takes_it_and_it_takes_any_size():
    import featherflow

    first, second = frames(size=(33, 47))
    network = UnrolledHornSchunck(UnrolledConfig(iterations=2))
    flow = featherflow.estimate(first, second, model=network)
    assert flow.shape == (2, 2, 33, 47)
    with torch.no_grad():
        assert network(first, second, size=(66, 94)).shape == (2, 2, 66, 94)
