"""The family's tables: published counts, strict input, any batch and size, gradients everywhere."""

import pytest
import torch

from featherflow import networks
from featherflow.errors import InputError
from featherflow.inference.runners.pytorch import computing
from featherflow.networks import build
from featherflow.networks.liteflownet import (
    LITEFLOWNET,
    LITEFLOWNET2,
    LITEFLOWNETX,
    LiteFlowNet,
    replace,
)
from featherflow.ops import downsample, resize, strips
from featherflow.training.initialization import carry_over, initialize
from featherflow.training.paper import ABLATIONS, COST_VOLUMES, LITEFLOWNET2_REDIRECTED

# Weights, biases, fixed bilinear weights, convolutions: section 6 of the specification.
COUNTS = {
    "liteflownet": (5_371_985, 5_932, 128 + 1_568, 92),
    "liteflownet2": (6_421_578, 6_534, 96 + 784, 90),
    "liteflownet2-kitti": (6_485_265, 6_698, 128 + 784, 95),
    "liteflownetx": (900_680, 2_175, 128, 69),
}

UNIT_COUNTS = {
    "liteflownet": {
        "matching": (149_410, 149_410, 150_434, 150_434, 151_970),
        "subpixel": (537_634, 390_178, 317_474, 243_746, 245_282),
        "regularization": (513_385, 439_657, 456_647, 452_551, 469_161),
    },
    "liteflownet2": {
        "matching": (389_250, 389_250, 390_274, 390_274),
        "subpixel": (777_474, 630_018, 557_314, 483_586),
        "regularization": (513_385, 439_657, 456_647, 452_551),
    },
    "liteflownetx": {
        "subpixel": (90_386, 67_346, 56_338, 44_818, 45_586),
        "regularization": (88_401, 76_881, 88_737, 87_713, 115_129),
    },
}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_the_specification(name):
    network = networks.build(name)
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    biases = sum(p.numel() for p in network.parameters() if p.ndim == 1)
    fixed = sum(b.numel() for key, b in network.named_buffers() if not key.startswith("mean"))
    layers = sum(p.ndim > 1 for p in network.parameters())
    assert (weights, biases, fixed, layers) == COUNTS[name]


@pytest.mark.parametrize("name", UNIT_COUNTS)
def test_counts_per_unit(name):
    network = networks.build(name)
    for unit, counts in UNIT_COUNTS[name].items():
        for level, expected in zip(network.config.levels, counts, strict=True):
            assert count(getattr(network.nete[f"level{level}"], unit)) == expected, (unit, level)


def test_counts_of_the_parts_outside_the_units():
    assert count(networks.build("liteflownet").netc) == 558_432
    assert count(networks.build("liteflownetx").netc) == 140_976
    assert count(networks.build("liteflownet").nete["level2"].expansion) == 2_112
    assert count(networks.build("liteflownetx").nete["level2"].expansion) == 544
    pseudo = networks.build("liteflownet2-kitti").pseudo
    assert count(pseudo.upsubpixel) + count(pseudo.flow) == 19_554
    assert count(pseudo.upregularization) + count(pseudo.distance) == 44_297


VARIANTS = {
    **{f"table6-{key}": config for key, config in ABLATIONS.items()},
    **{f"table7-{key}": config for key, config in COST_VOLUMES.items()},
    "redirected": LITEFLOWNET2_REDIRECTED,
    "x": LITEFLOWNETX,
    "normalized": replace(LITEFLOWNET2, normalized_matching=True),
    "octaves": replace(LITEFLOWNETX, octaves=2),
}


@pytest.mark.parametrize("key", VARIANTS)
def test_every_variant_runs_and_every_parameter_learns(key):
    """A unit that is built but not wired would have no gradient."""
    torch.manual_seed(0)
    network = LiteFlowNet(VARIANTS[key])
    frame1, frame2 = torch.rand(2, 1, 3, 64, 96)
    flow = network(frame1, frame2)
    assert flow.shape == (1, 2, 64, 96) and flow.dtype == torch.float32 and flow.isfinite().all()
    estimates = network.flows(network.encode(frame1, network.mean1), network.encode(frame2, network.mean2))
    sum(u.square().sum() for estimate in estimates for u in estimate.outputs).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []


def test_detached_flow_changes_gradients_only():
    torch.manual_seed(0)
    network = LiteFlowNet(LITEFLOWNET2)
    frames = torch.rand(2, 1, 3, 64, 64)
    pyramids = [network.encode(frame, network.mean1) for frame in frames]
    free, cut = network.flows(*pyramids), network.flows(*pyramids, detach=True)
    assert torch.equal(free[-1].last, cut[-1].last)
    coarse = network.nete["level6"].matching.flow.weight
    assert torch.autograd.grad(free[-1].last.sum(), coarse, allow_unused=True)[0] is not None
    assert torch.autograd.grad(cut[-1].last.sum(), coarse, allow_unused=True)[0] is None


@pytest.mark.parametrize("height, width", [(64, 64), (64, 160), (96, 64)])
def test_multiples_of_32(height, width):
    network = networks.build("liteflownetx")
    frames = torch.rand(2, 2, 3, height, width)
    with torch.inference_mode():
        assert network(*frames).shape == (2, 2, height, width)
        assert network(*frames, size=(50, 70)).shape == (2, 2, 50, 70)


def test_an_octave_starts_level_6_from_the_frames_at_half_their_size():
    """Written out by hand for one octave; with a network that sees no motion, nothing changes."""
    plain = networks.build("liteflownet2-slim").eval()
    network = networks.build("liteflownet2-slim", octaves=1).eval()
    network.load_state_dict(plain.state_dict())
    frames = torch.rand(2, 1, 3, 128, 192)
    with torch.inference_mode():
        small = [resize(frame, (64, 96)) for frame in frames]
        start = 2 * plain.flows(*(plain.encode(frame, plain.mean1) for frame in small))[-1].last
        pyramids = [plain.encode(frame, plain.mean1) for frame in frames]
        level6 = plain.nete["level6"](*pyramids, 6, None, start=downsample(start, (4, 6)))
        found = network.flows(*(network.encode(frame, network.mean1) for frame in frames))[0]
        assert torch.allclose(found.last, level6.last, atol=1e-6)
        assert not torch.allclose(found.last, plain.flows(*pyramids)[0].last, atol=1e-3)
        for name, parameter in [*plain.named_parameters(), *network.named_parameters()]:
            if ".flow." in name:
                parameter.zero_()
        assert torch.equal(plain(*frames), network(*frames))


def test_normalized_matching_ignores_brightness():
    """Features scaled by a gain and an offset match the same: what the option is for."""
    from featherflow.networks.liteflownet import normalize_features

    features = torch.rand(1, 8, 12, 16)
    assert torch.allclose(normalize_features(features), normalize_features(3 * features + 1), atol=1e-3)


@pytest.mark.parametrize(
    "frame1, frame2, said",
    [
        (torch.zeros(1, 3, 64, 65), torch.zeros(1, 3, 64, 65), "64x65"),
        (torch.zeros(1, 3, 32, 64), torch.zeros(1, 3, 32, 64), "32x64"),
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 96), "(1, 3, 64, 96)"),
        (torch.zeros(1, 4, 64, 64), torch.zeros(1, 4, 64, 64), "(1, 4, 64, 64)"),
        (torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), "(3, 64, 64)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "uint8"),
    ],
)
def test_forward_is_strict_and_says_what_it_got(frame1, frame2, said):
    with pytest.raises(InputError, match=r".") as error:
        LiteFlowNet(LITEFLOWNETX)(frame1, frame2)
    assert said in str(error.value)


def test_unknown_name_points_to_the_nearest():
    with pytest.raises(InputError, match="did you mean 'liteflownet'"):
        networks.build("lightflownet")


def test_family_is_one_table_of_numbers():
    assert ABLATIONS["ALL"] is LITEFLOWNET and COST_VOLUMES["3(6)/1(2)"] is LITEFLOWNET2


def test_options_replace_numbers_of_the_table():
    network = networks.build("liteflownet2", normalized_matching=True, matching=[64, 32])
    assert network.config.normalized_matching and network.config.matching == (64, 32)


@pytest.mark.parametrize(
    "options",
    [
        {"warp": True},
        {"warping": 1},
        {"finest_level": 1},
        {"matching": [8, "x"]},
        {"matching": 8},
        {"features": [[-3]]},
        {"octaves": 9},
        {"octaves": 1, "finest_level": 6},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        networks.build("liteflownet2", **options)


def test_a_negative_number_is_told_so():
    with pytest.raises(InputError, match="'octaves' of the LiteFlowNet family must be at least 0, got -1"):
        networks.build("liteflownet2", octaves=-1)


@pytest.mark.parametrize(
    "name, options",
    [
        ("liteflownet2-slim", {"normalized_matching": True, "octaves": 1}),
        ("liteflownet2-kitti", {}),
        ("liteflownet", {}),
        ("liteflownet2", {"search_radius": (4,) * 5, "redirected_features": 8}),
        ("liteflownetx", {"normalized_matching": True}),
    ],
)
def test_strips_change_nothing(monkeypatch, name, options):
    """Large maps are worked on in strips; here small ones are, in strips as low as they come."""
    network = build(name, **options)
    initialize(network, torch.Generator().manual_seed(1))
    frames = torch.rand(2, 2, 3, 384, 160, generator=torch.Generator().manual_seed(2))
    with computing(torch.device("cpu"), "float32"):
        whole = network(*frames)
        monkeypatch.setattr(strips, "LEAST", 0)
        monkeypatch.setattr(strips, "_STRIP", 0)
        monkeypatch.setattr(strips, "_LEAST_MARGINS", 1)
        cut = network(*frames)
    assert 0 < (cut - whole).abs().max() < 1e-5 * whole.abs().max()  # convolutions of other sizes add in another order


def test_convex_upsampling_begins_as_the_bilinear_one():
    """With the starting weights of the trainer the flow is enlarged bilinearly inside the frame, whatever the hidden features."""
    options = {"normalized_matching": True}
    plain = networks.build("liteflownet2-slim", **options)
    initialize(plain, torch.Generator().manual_seed(0))
    learned = networks.build("liteflownet2-slim", convex_upsampling=True, **options)
    initialize(learned, torch.Generator().manual_seed(1))
    carry_over(learned, plain.state_dict(), torch.Generator())
    frames = torch.rand(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, flow = plain(*frames), learned(*frames)
        assert learned(*frames, size=(50, 70)).shape == (1, 2, 50, 70)
    assert torch.allclose(flow[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=2e-3 * expected.abs().max())


def test_convex_upsampling_needs_hidden_features():
    with pytest.raises(InputError, match="hidden features"):
        networks.build("liteflownet2-kitti", convex_upsampling=True)
