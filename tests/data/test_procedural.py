"""The procedural generator against what must hold for any exact flow: brightness, inversion, visibility."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from featherflow.data import PairBatch, SceneConfig, TextureBank, render_pairs
from featherflow.data.procedural import CHUNK
from featherflow.errors import InputError

CLEAN = SceneConfig(height=112, width=160, effects=None)

# Mean brightness difference, share of pixels above 0.03, px. Bilinear sampling of fine texture is not free of error.
TOLERANCE = {"mean": 0.02, "share": 0.12, "share of tracers": 0.16, "inversion": 0.05}


@pytest.fixture(scope="module")
def textures() -> TextureBank:
    return TextureBank.procedural(15, 128, torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """`image` at x + flow: written out here, independent of the package."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack(((x + flow[:, 0]) * 2 / (width - 1) - 1, (y + flow[:, 1]) * 2 / (height - 1) - 1), -1)
    return F.grid_sample(image, grid, align_corners=True, padding_mode="border")


def inner(pair: PairBatch) -> torch.Tensor:
    """Visible pixels away from occlusions and from edges of the flow, where a bilinear sample would mix layers; the
    landing points must be away from the edges of frame 2 as well."""

    def smooth(flow: torch.Tensor) -> torch.Tensor:
        largest, smallest = F.max_pool2d(flow, 5, 1, 2), -F.max_pool2d(-flow, 5, 1, 2)
        return ((largest - smallest).amax(1, keepdim=True) < 1.2).float()

    visible = -F.max_pool2d(-(~pair.occluded).float(), 5, 1, 2)
    there = warp(smooth(pair.flow_backward) * -F.max_pool2d(-(~pair.occluded_backward).float(), 5, 1, 2), pair.flow)
    return (visible * smooth(pair.flow) * (there > 0.99)) > 0


def test_same_seed_same_pairs_another_seed_others(textures):
    # Catches randomness from anywhere but the generator.
    config = replace(SceneConfig(), height=64, width=96)
    first, again, other = (render_pairs(3, config, textures, seeded(seed)) for seed in (5, 5, 6))
    for entry in fields(PairBatch):
        assert torch.equal(getattr(first, entry.name), getattr(again, entry.name)), entry.name
    assert not torch.equal(first.flow, other.flow)


def test_drawing_on_leaves_the_global_generator_alone(textures):
    before = torch.get_rng_state()
    render_pairs(1, CLEAN, textures, seeded())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", [{}, {"particles": 1.0}, {"camera": 1.0, "particles": 0.0}, {"depth": 1.0}])
def test_frame_2_at_the_flow_is_frame_1(textures, kind):
    pair = render_pairs(8, replace(CLEAN, **kind), textures, seeded(2))
    seen = inner(pair)
    assert seen.float().mean() > 0.3

    def difference(scale: float) -> torch.Tensor:
        gap = (warp(pair.frame2, pair.flow * scale) - pair.frame1).abs().mean(1, keepdim=True)
        return gap[seen]

    true = difference(1.0)
    assert true.mean() < TOLERANCE["mean"]
    # Tracers are little wider than a pixel: the bilinear sample of frame 2 differs where it meets one.
    assert (true > 0.03).float().mean() < TOLERANCE["share of tracers" if kind.get("particles") else "share"]
    # The same figures must tell a wrong flow from the right one.
    for wrong in (-1.0, 0.5, 0.0):
        assert difference(wrong).mean() > 2.5 * true.mean()


def test_backward_flow_inverts_the_forward_flow(textures):
    pair = render_pairs(8, CLEAN, textures, seeded(3))
    there_and_back = (pair.flow + warp(pair.flow_backward, pair.flow)).norm(dim=1, keepdim=True)[inner(pair)]
    # Where two layers move nearly alike no edge shows in the flow, but a bilinear sample still mixes them.
    assert there_and_back.quantile(0.99) < TOLERANCE["inversion"]
    assert pair.flow.norm(dim=1).max() > 3


def test_the_strongest_deformation_still_inverts(textures):
    # Catches too few fixed-point iterations or a deformation that folds.
    config = replace(CLEAN, particles=1.0, tracer_flow=100.0)
    pair = render_pairs(6, config, textures, seeded(4))
    there_and_back = (pair.flow + warp(pair.flow_backward, pair.flow)).norm(dim=1, keepdim=True)[~pair.occluded]
    assert there_and_back.max() < TOLERANCE["inversion"]


def test_pixels_that_leave_the_frame_are_occluded(textures):
    pair = render_pairs(8, replace(CLEAN, small=(0.0, 1.0), medium=(0.0, 1.0)), textures, seeded(5))
    for flow, occluded in ((pair.flow, pair.occluded), (pair.flow_backward, pair.occluded_backward)):
        y, x = torch.meshgrid(torch.arange(112), torch.arange(160), indexing="ij")
        to_x, to_y = x + flow[:, :1], y + flow[:, 1:]
        outside = (to_x < 0) | (to_x > 159) | (to_y < 0) | (to_y > 111)
        assert outside.any()
        assert occluded[outside].all()


def test_a_plane_alone_is_occluded_only_by_the_frame(textures):
    pair = render_pairs(6, replace(CLEAN, layers=(0, 0)), textures, seeded(6))
    y, x = torch.meshgrid(torch.arange(112), torch.arange(160), indexing="ij")
    to_x, to_y = x + pair.flow[:, :1], y + pair.flow[:, 1:]
    assert torch.equal(pair.occluded, (to_x < 0) | (to_x > 159) | (to_y < 0) | (to_y > 111))


def test_one_layer_over_a_still_background_hides_what_it_moves_over(textures):
    # The hand-made case: with a static camera the background's flow is zero, so the layer's pixels in frame 2 that
    # are background in frame 1 are exactly the background that vanishes.
    config = replace(
        CLEAN,
        layers=(1, 1),
        layer_size=(0.4, 0.5),
        static_camera=1.0,
        static_layer=0.0,
        expansion=0.0,
        deformable=0.0,
        particles=0.0,
        camera=0.0,
        small=(0.0, 1.0),
        medium=(1.0, 6.0),
    )
    pair = render_pairs(12, config, textures, seeded(7))
    layer1 = pair.flow.abs().amax(1, keepdim=True) > 1e-3
    layer2 = pair.flow_backward.abs().amax(1, keepdim=True) > 1e-3
    assert layer1.any() and layer2.any()
    assert torch.equal(pair.occluded & ~layer1, layer2 & ~layer1)
    assert torch.equal(pair.occluded_backward & ~layer2, layer1 & ~layer2)
    y, x = torch.meshgrid(torch.arange(112), torch.arange(160), indexing="ij")
    inside = ((x + pair.flow[:, :1]).clamp(0, 159) == x + pair.flow[:, :1]) & (
        (y + pair.flow[:, 1:]).clamp(0, 111) == y + pair.flow[:, 1:]
    )
    # The topmost layer itself never is, but for pixels of its rim that straddle the outline.
    assert (pair.occluded & layer1 & inside).sum() < 0.01 * layer1.sum()


@settings(max_examples=10, deadline=None)
@given(st.integers(64, 160), st.integers(64, 160), st.integers(1, 3), st.booleans())
def test_shapes_types_and_ranges(textures, height, width, batch, backward):
    pair = render_pairs(batch, SceneConfig(height=height, width=width), textures, seeded(height), backward=backward)
    for frame in (pair.frame1, pair.frame2):
        assert frame.shape == (batch, 3, height, width) and frame.dtype == torch.float32
        assert frame.min() >= 0 and frame.max() <= 1
    for flow in (pair.flow, pair.flow_backward)[: 1 + backward]:
        assert flow.shape == (batch, 2, height, width) and flow.dtype == torch.float32 and flow.isfinite().all()
    for mask in (pair.occluded, pair.valid, pair.occluded_backward)[: 2 + backward]:
        assert mask.shape == (batch, 1, height, width) and mask.dtype == torch.bool
    assert (pair.flow_backward is None) == (pair.occluded_backward is None) == (not backward)


def test_parts_of_a_batch_join_up(textures, monkeypatch):
    # On a CPU a batch is rendered a few samples at a time; that must not show.
    whole = render_pairs(4, CLEAN, textures, seeded(8))
    assert 4 * CLEAN.height * CLEAN.width < CHUNK
    monkeypatch.setattr("featherflow.data.procedural.CHUNK", 2 * CLEAN.height * CLEAN.width)
    parts = render_pairs(4, CLEAN, textures, seeded(8))
    for entry in fields(PairBatch):
        torch.testing.assert_close(getattr(parts, entry.name), getattr(whole, entry.name), atol=1e-4, rtol=0)


def test_motion_is_heavy_tailed(textures):
    # Catches a default distribution that lost its sub-pixel half or its tail.
    config = replace(SceneConfig(), height=96, width=256, effects=None)
    pairs = [render_pairs(12, config, textures, seeded(seed), backward=False) for seed in range(3)]
    length = torch.cat([pair.flow.norm(dim=1).flatten() for pair in pairs])
    assert 0.3 < length.median() < 3
    assert (length < 1).float().mean() > 0.3
    assert 5 < length[::8].quantile(0.9) < 30
    assert length.max() > 40
    assert all(pair.valid.all() for pair in pairs)


def test_effects_change_frames_and_never_the_flow(textures):
    clean = render_pairs(6, CLEAN, textures, seeded(9))
    full = render_pairs(6, replace(CLEAN, effects=SceneConfig().effects), textures, seeded(9))
    for name in ("flow", "flow_backward", "occluded", "valid"):
        assert torch.equal(getattr(clean, name), getattr(full, name))
    assert not torch.equal(clean.frame1, full.frame1)


def test_renders_without_any_bank():
    pair = render_pairs(1, SceneConfig(height=64, width=64), generator=seeded())
    assert pair.frame1.std() > 0.01


def test_impossible_scenes_are_refused(textures):
    for wrong in ({"height": 8}, {"layers": (3, 2)}, {"layers": (0, 200)}):
        with pytest.raises(InputError):
            SceneConfig(**wrong)
    with pytest.raises(InputError):
        render_pairs(0, CLEAN, textures)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_renders_what_the_cpu_renders(textures):
    cpu, gpu = (render_pairs(4, CLEAN, textures, seeded(10), device) for device in ("cpu", "cuda"))
    assert (cpu.flow - gpu.flow.cpu()).abs().median() < 1e-4
    assert (cpu.frame1 - gpu.frame1.cpu()).abs().mean() < 1e-3
    full = render_pairs(4, SceneConfig(height=96, width=128, depth=0.5), textures, torch.Generator("cuda").manual_seed(1), "cuda")
    assert full.frame2.is_cuda and full.frame2.isfinite().all()
