"""What holds for every registered network. A new one is tested here from the moment it registers."""

import inspect
import math

import pytest
import torch
from helpers import run_network

from featherflow import Estimator, networks
from featherflow.errors import InputError
from featherflow.networks import FlowNetwork

NAMES = networks.names()
# Two names of one network, or a part of another; the costly tests take one of them.
SAME_AS = {"flownet2-s": "flownets", "flownet2-c": "flownetc", "flownet2-css": "flownet2"}
FEW = 2  # iterations, where a network iterates
# bfloat16 keeps 8 bits: the flow of untrained networks moves by less than this share of its length.
BFLOAT16_SHARE = 0.15


def options_of(network):
    return {"iterations": FEW} if network.traits.iterates else {}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def frames(network, batch=1, seed=0):
    """Smooth random frames of the smallest size that the network takes, not square."""
    side = -(-network.traits.smallest_size // network.traits.size_multiple) * network.traits.size_multiple
    noise = torch.rand(2, batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    size = (side, side + network.traits.size_multiple)
    return [torch.nn.functional.interpolate(frame, size=size, mode="bicubic").clamp(0, 1) for frame in noise]


@pytest.fixture(scope="module", params=[name for name in NAMES if name not in SAME_AS])
def network(request):
    torch.manual_seed(0)
    return networks.build(request.param)


def test_forward_gives_a_flow_of_the_size_of_the_frames_or_of_another(network):
    first, second = frames(network)
    with torch.inference_mode():
        flow = network(first, second, **options_of(network))
        assert flow.shape == (1, 2, *first.shape[-2:]) and flow.dtype == torch.float32 and flow.isfinite().all()
        assert network(first, second, size=(50, 70), **options_of(network)).shape == (1, 2, 50, 70)


def test_frames_of_any_floating_point_type(network):
    first, second = frames(network)
    with torch.inference_mode():
        flow = network(first.double(), second.double(), **options_of(network))
        assert torch.allclose(flow, network(first, second, **options_of(network)), atol=1e-4)


def test_nothing_is_kept_between_calls(network):
    first, second = frames(network)
    with torch.inference_mode():
        before = network(first, second, **options_of(network))
        network(second, first, **options_of(network))
        assert torch.equal(network(first, second, **options_of(network)), before)


def test_a_batch_equals_its_pairs(network):
    """Statistics, attention or a reshape that mixes samples."""
    first, second = frames(network, batch=2)
    with torch.inference_mode():
        both = network(first, second, **options_of(network))
        singles = torch.cat([network(first[i : i + 1], second[i : i + 1], **options_of(network)) for i in range(2)])
    assert float((both - singles).abs().max()) <= 1e-4 * max(1.0, float(singles.abs().max()))


@pytest.mark.parametrize("height, width", [(37, 83), (131, 129)])
def test_odd_sizes_through_the_kind_interface(network, height, width):
    noise = torch.rand(2, 1, 3, height, width, generator=torch.Generator().manual_seed(0))
    flow = run_network(network, *noise, iterations=FEW if network.traits.iterates else None)
    assert flow.shape == (1, 2, height, width) and flow.dtype == torch.float32 and flow.isfinite().all()


def test_gradients_reach_the_weights(network):
    first, second = frames(network)
    network.zero_grad(set_to_none=True)
    with torch.enable_grad():
        network(first, second, **options_of(network)).square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad(set_to_none=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    reached = sum(gradient.numel() for gradient in gradients if gradient.any())
    # SPyNet has levels that small frames do not use; some releases carry layers that nothing uses.
    assert reached >= (0.1 if type(network).__name__ == "SPyNet" else 0.8) * parameters(network)


def test_half_precision_keeps_the_flow_in_float32(network):
    first, second = frames(network)
    with torch.inference_mode():
        exact = network(first, second, **options_of(network))
        with torch.autocast("cpu", torch.bfloat16):
            flow = network(first, second, **options_of(network))
    assert flow.dtype == torch.float32 and flow.isfinite().all()
    assert float((flow - exact).abs().mean()) <= BFLOAT16_SHARE * float(exact.abs().mean()) + 0.02


def test_mirrored_and_swapped_frames(network):
    """Mirrored frames give a flow of their own size; swapped ones give what `both` gives, swapped."""
    noise = torch.rand(2, 1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    estimator = Estimator(network, dtype="float32", iterations=FEW if network.traits.iterates else None)
    for axes in ((-1,), (-2,), (-2, -1)):
        mirrored = estimator(*(frame.flip(axes) for frame in noise))
        assert mirrored.shape == (1, 2, 70, 90) and mirrored.isfinite().all()
    forward, backward = estimator.both(*noise)
    again, forth = estimator.both(*noise.flip(0))
    assert torch.equal(forward, forth) and torch.equal(backward, again) and not torch.equal(forward, backward)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete(name):
    entry = networks.get(name)
    assert entry.summary and entry.paper and entry.name == name
    with torch.device("meta"):
        network = networks.build(name)
    assert not network.training
    assert network.traits.size_rule in ("resize", "pad")
    assert network.traits.smallest_size >= 1 and network.traits.size_multiple >= 1
    assert inspect.signature(network.forward).parameters["size"].default is None
    assert ("iterations" in inspect.signature(network.forward).parameters) == network.traits.iterates
    assert network.traits.iterates or not network.traits.accepts_initial_flow


@pytest.mark.parametrize("name", NAMES)
def test_forward_refuses_frames_it_cannot_take(name):
    with torch.device("meta"):
        network = networks.build(name)
        side = -(-network.traits.smallest_size // network.traits.size_multiple) * network.traits.size_multiple
        bad = torch.zeros(1, 3, side, side + 1)
    with pytest.raises(InputError, match=f"{side}x{side + 1}"):
        network(bad, bad)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name):
    with torch.device("meta"), pytest.raises(InputError, match="no_such_option"):
        networks.build(name, no_such_option=1)


def smallest_of_each_class():
    chosen = {}
    with torch.device("meta"):
        for name in NAMES:
            network = networks.build(name)
            kind, count = type(network), parameters(network)
            if count < chosen.get(kind, ("", math.inf))[1]:
                chosen[kind] = (name, count)
    return [name for name, _ in chosen.values()]


@pytest.mark.parametrize("name", smallest_of_each_class())
def test_export(name):
    """A branch on values, state kept on a module, or an operator that cannot be captured as a graph."""
    torch.manual_seed(0)
    network = networks.build(name)
    options = {"iterations": 1} if network.traits.iterates else {}
    first, second = frames(network)
    with torch.no_grad():
        captured = torch.export.export(network, (first, second), options).module()
        assert torch.allclose(captured(second, first, **options), network(second, first, **options), atol=1e-5)


QUICK_TO_COMPILE = ("liteflownet2-slim", "spynet", "raft-small")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK_TO_COMPILE else pytest.mark.slow) for name in NAMES if name not in SAME_AS],
)
def test_compiling_meets_no_graph_break(name):
    """What PyTorch's compiler cannot follow splits the network, and each part is started from Python."""
    torch.manual_seed(0)
    network = networks.build(name)
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch._dynamo.explain(network)(*frames(network), **({"iterations": 1} if network.traits.iterates else {}))
    assert found.graph_count == 1 and found.graph_break_count == 0, found.break_reasons


def test_padding_repeats_the_border_half_on_each_side():
    torch.manual_seed(0)
    network = networks.build("raft-small")
    noise = torch.rand(2, 1, 3, 131, 141, generator=torch.Generator().manual_seed(0))
    rows, columns = (torch.arange(136) - 2).clamp(0, 130), (torch.arange(144) - 1).clamp(0, 140)
    with torch.inference_mode():
        whole = network(*(frame[..., rows, :][..., columns] for frame in noise), iterations=1)
    assert torch.allclose(run_network(network, *noise, iterations=1), whole[..., 2:133, 1:142], atol=1e-5)


@pytest.mark.parametrize("height", [100, 128])
def test_pwcnet_sees_resized_frames_in_8_bits(height):
    """Frames of a fitting size are not touched."""

    class Listener(FlowNetwork):
        traits = networks.build("pwcnet").traits

        def forward(self, first, second, size):
            seen.append(first * 255)
            return torch.zeros(1, 2, *size)

    seen = []
    noise = torch.rand(2, 1, 3, height, 64, generator=torch.Generator().manual_seed(0))
    run_network(Listener(), *noise)
    assert torch.allclose(seen[0], seen[0].round(), atol=1e-4) == (height == 100)


def test_iterations_are_for_networks_that_iterate():
    frame = torch.rand(1, 3, 64, 64)
    with pytest.raises(InputError, match="does not iterate"):
        run_network(networks.build("liteflownetx"), frame, frame, iterations=3)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="at least 1"):
            run_network(networks.build("raft-small"), frame, frame, iterations=wrong)


@pytest.mark.parametrize("rule_of", ["raft-small", "spynet"])
def test_frames_of_a_fitting_size_are_left_as_they_are(rule_of):
    network = networks.build(rule_of)
    first, second = frames(network)
    with torch.inference_mode():
        direct = network(first, second, **options_of(network))
    kind = run_network(network, first, second, iterations=FEW if network.traits.iterates else None)
    assert torch.allclose(kind, direct, atol=1e-5)


@pytest.mark.parametrize("name", ["raft", "raft-small"])
def test_raft_computes_costs_on_lookup_with_equal_result(name):
    torch.manual_seed(0)
    network = networks.build(name)
    first, second = frames(network)
    with torch.inference_mode():
        network.compute_on_lookup = False
        stored = network(first, second, iterations=4)
        network.compute_on_lookup = True
        computed = network(first, second, iterations=4)
    assert float((stored - computed).abs().max()) <= 1e-4


def test_a_flow_to_start_from(network):
    """Warm start: two runs in a row from where the first stopped differ from one that starts at rest; no flow is none."""
    if not network.traits.accepts_initial_flow:
        pytest.skip("updates no flow")
    first, second = frames(network)
    with torch.inference_mode():
        coarse = network.flows(first, second, iterations=1)[-1].coarse
        rest = network(first, second, iterations=1)
        assert torch.equal(network(first, second, iterations=1, initial_flow=torch.zeros_like(coarse)), rest)
        assert not torch.equal(network(first, second, iterations=1, initial_flow=coarse + 2), rest)
        with pytest.raises(InputError, match="initial_flow"):
            network(first, second, initial_flow=coarse[..., 1:])
