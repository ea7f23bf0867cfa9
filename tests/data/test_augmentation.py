"""Augmented pairs obey their own flow, equal OpenCV and a per-pixel reading of the formulas, and follow their distributions."""

import colorsys
import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch

from featherflow.data import augmentation
from featherflow.data.augmentation import (
    EigenChange,
    PaperAugmentation,
    RaftAugmentation,
    Sources,
    centre_crop,
    change_colours,
    chromatic_eigen,
    colour_statistics,
    draw_eigen,
    gather_sources,
    growth,
    jitter,
    transform,
    turn_hue,
)
from featherflow.data.benchmarks import Example
from featherflow.ops import warp

SIZE = (96, 128)
GEOMETRY_ONLY = PaperAugmentation(
    eigen=False, relative_colour=0.0, relative_gamma=0.0, relative_brightness=0.0, relative_contrast=0.0, noise=(0.0, 0.0)
)
FLIPS_ONLY = RaftAugmentation(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, erased=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_image(height, width, shift=(0.0, 0.0)):
    """Waves of many pixels, sampled anywhere: the same picture moved by `shift` (x, y)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x - shift[0], y - shift[1]
    waves = [np.sin(x / 17 + y / 31), np.cos(x / 23 - y / 19), np.sin(x / 29) * np.cos(y / 13)]
    return np.stack(waves, -1) * 0.35 + 0.5


def sources(batch=3, height=192, width=256, flow=(3.25, -1.5)):
    """Pairs with one exact motion; the frames are kept in float, so that nothing is rounded."""
    frames = [torch.tensor(smooth_image(height, width, shift), dtype=torch.float32).permute(2, 0, 1) for shift in ((0, 0), flow)]
    field = torch.tensor(flow).view(1, 2, 1, 1).expand(batch, 2, height, width).contiguous()
    return Sources(
        frames[0].repeat(batch, 1, 1, 1),
        frames[1].repeat(batch, 1, 1, 1),
        field,
        torch.zeros(batch, 1, height, width, dtype=torch.bool),
        torch.tensor([(width, height)] * batch, dtype=torch.float64),
    )


@pytest.mark.parametrize("augment", [GEOMETRY_ONLY, dataclasses.replace(GEOMETRY_ONLY, mirror=0.5), FLIPS_ONLY])
def test_frame_2_sampled_along_the_flow_is_frame_1(augment):
    """The one property everything rests on; a sign, an order or an inverse the wrong way breaks it."""
    pairs = augment(sources(8), SIZE, generator(), iteration=200_000)
    back = warp(pairs.frame2, pairs.flow, border="replicate")
    grid = augmentation.pixel_grid(*SIZE, pairs.flow) + pairs.flow
    seen = (grid[:, :1] > 1) & (grid[:, :1] < SIZE[1] - 2) & (grid[:, 1:] > 1) & (grid[:, 1:] < SIZE[0] - 2)
    error = (back - pairs.frame1).abs().amax(dim=1, keepdim=True)[seen]
    assert seen.float().mean() > 0.5 and error.max() < 0.01
    assert (pairs.frame2 - pairs.frame1).abs().mean() > 0.02  # there was motion to undo
    assert pairs.flow.std(dim=0).mean() > 0.1  # and not the same one for all


def test_the_flow_of_known_maps_in_closed_form():
    """Frame 1 enlarged by 2 about the origin, frame 2 by 2 and moved by (5, 7) of the crop: flow = 2 f - (5, 7)."""
    first = torch.tensor([[[0.5, 0, 10], [0, 0.5, 10]]], dtype=torch.float64)
    second = torch.tensor([[[0.5, 0, 12.5], [0, 0.5, 13.5]]], dtype=torch.float64)
    pairs = transform(sources(1), first, second, SIZE)
    assert torch.allclose(pairs.flow[0, 0], torch.tensor(2 * 3.25 - 5), atol=1e-4)
    assert torch.allclose(pairs.flow[0, 1], torch.tensor(2 * -1.5 - 7), atol=1e-4)
    quarter = torch.tensor([[[0.0, -1, 150], [1, 0, 20]]], dtype=torch.float64)  # a quarter turn takes (u, v) to (v, -u)
    turned = transform(sources(1), quarter, quarter, SIZE)
    assert torch.allclose(turned.flow[0, :, 5, 5], torch.tensor((-1.5, -3.25)), atol=1e-4)


def test_geometry_equals_opencv():
    data = sources(2)
    draw = augmentation._Draw(2, generator(3))
    first, second = GEOMETRY_ONLY.draw_maps(draw, data.sizes, SIZE, 1.0)
    pairs = transform(data, first, second, SIZE)
    for index in range(2):
        image = data.frame1[index].permute(1, 2, 0).numpy()
        expected = cv2.warpAffine(image, first[index].numpy(), SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        found = pairs.frame1[index].permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() < 5e-3  # OpenCV rounds positions to 1/32 px


def test_sparse_labels_survive_and_are_not_mixed():
    data = sources(2, flow=(2.0, 0.0))
    data.flow[:] = math.nan
    data.flow[:, :, ::4, ::4] = torch.tensor((2.0, 0.0)).view(1, 2, 1, 1)
    same = torch.tensor([[[0.5, 0, 10], [0, 0.5, 10]]] * 2, dtype=torch.float64)
    pairs = transform(data, same, same, SIZE)
    assert pairs.valid.float().mean() == pytest.approx(1 / 16, rel=0.1)
    assert torch.allclose(pairs.flow[pairs.valid.expand(-1, 2, -1, -1)].view(2, 2, -1)[:, 0], torch.tensor(4.0))
    assert (pairs.flow[~pairs.valid.expand(-1, 2, -1, -1)] == 0).all() and pairs.flow.isfinite().all()


def test_masks_move_with_the_flow():
    data = sources(1)
    data.occluded[0, 0, 40:80, 60:90] = True
    maps = torch.tensor([[[1.0, 0, 50], [0, 1.0, 30]]], dtype=torch.float64)
    occluded = transform(data, maps, maps, SIZE).occluded[0, 0]
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[10:50, 10:40] = True
    assert torch.equal(occluded, expected)


def test_sources_of_different_sizes_share_a_batch():
    """What a pair gives does not depend on its larger neighbour; where the source ends, there is no label."""

    def example(height, width):
        image = (smooth_image(height, width) * 255).astype(np.uint8)
        flow = np.zeros((height, width, 2), np.float32)
        return Example(image, image, flow, np.ones((height, width), bool))

    small, large = example(64, 80), example(200, 300)
    together, alone = (centre_crop(gather_sources(given), SIZE) for given in ([small, large], [small]))
    assert torch.allclose(together.frame1[:1], alone.frame1, atol=1e-4) and torch.equal(together.valid[:1], alone.valid)
    assert int(together.valid[0].sum()) == 64 * 80 and together.valid[1].all()
    assert torch.allclose(together.frame1[1], torch.from_numpy(large.frame1[52:148, 86:214]).permute(2, 0, 1) / 255.0, atol=1e-4)
    grown = FLIPS_ONLY(gather_sources([small]), SIZE, generator())
    assert grown.valid.all()  # enlarged to the crop


def test_maps_stay_inside_and_follow_their_ranges():
    data = sources(1)
    sizes, size = torch.tensor([(512.0, 384.0)] * 4000, dtype=torch.float64), (320, 448)
    first, second = PaperAugmentation(mirror=0.5).draw_maps(augmentation._Draw(4000, generator(1)), sizes, size, 1.0)
    corners = torch.tensor(((0, 447, 0, 447), (0, 0, 319, 319), (1, 1, 1, 1)), dtype=torch.float64)
    for maps in (first, second):
        points = maps @ corners
        assert points.min() >= 0 and (points[:, 0] < 511).all() and (points[:, 1] < 383).all()
    zooms = 1 / first[:, :, :2].norm(dim=2)  # rows: R / z
    zoom, squeeze = zooms.prod(dim=1).sqrt(), (zooms[:, 0] / zooms[:, 1]).sqrt()
    moved = (zoom - 1).abs() > 1e-9
    assert moved.float().mean() > 0.99
    assert zoom[moved].min() > math.exp(-0.2) and zoom.max() < math.exp(0.6) and zoom.max() > 1.7
    assert 0.7408 <= squeeze.min() < 0.78 and 1.28 < squeeze.max() <= 1.3499
    mirrored = torch.linalg.det(first[:, :, :2]) < 0
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03)
    angle = torch.atan2(-first[:, 0, 1] * zooms[:, 0], first[:, 1, 1] * zooms[:, 1])
    assert angle.abs().max() < 0.4001 and angle.abs().max() > 0.3
    assert data.sizes.shape == (1, 2)


def test_differences_between_the_frames_grow_with_the_iteration():
    assert [growth(n) for n in (0, 50_000, 10**7)] == pytest.approx([0.5, 0.75, 1.0], abs=1e-4)
    sizes = torch.tensor([(4000.0, 4000.0)] * 4000, dtype=torch.float64)  # nothing is rejected
    for grown in (0.5, 1.0):
        first, second = PaperAugmentation().draw_maps(augmentation._Draw(4000, generator(2)), sizes, (320, 448), grown)
        # Determinants are 1 / (z_x z_y), so that of the ratio gives the relative zoom alone.
        ratio = (torch.linalg.det(second[:, :, :2]) / torch.linalg.det(first[:, :, :2])).log() / 2
        assert ratio.std() == pytest.approx(0.03 * grown, rel=0.05) and abs(ratio.mean()) < 0.002
    steady, longer = (PaperAugmentation(noise=(0.0, 0.0))(sources(1), SIZE, generator(5), n) for n in (0, 10**7))
    assert torch.equal(steady.frame1, longer.frame1) and not torch.equal(steady.frame2, longer.frame2)


def eigen_by_hand(image, change, mean, extent):
    """The published steps, pixel by pixel, in Python floats. Colours B, G, R."""
    basis = np.array(augmentation.EIGENVECTORS)
    out = np.empty_like(image)
    longest = math.sqrt(float((extent**2).sum()))
    for index in np.ndindex(image.shape[:2]):
        a = [float(basis[i] @ (image[index] - mean)) for i in range(3)]
        for i in range(3):
            if extent[i] > 0.01:
                a[i] /= extent[i]
            a[i] = math.copysign(abs(a[i]) ** change["power"][i], a[i])
            a[i] = (a[i] + change["add"][i]) * change["factor"][i]
            a[i] += float(basis[i] @ mean) / (extent[i] if extent[i] > 0.01 else 1.0)
        s = math.hypot(a[1], a[2])
        wanted = max(s ** change["saturation_power"] + change["saturation_add"], 0) * change["saturation_factor"] if s > 0.01 else s
        c, n = math.cos(change["rotation"]), math.sin(change["rotation"])
        a[1], a[2] = c * a[1] - n * a[2], n * a[1] + c * a[2]
        a = [a[i] * (extent[i] if extent[i] > 0.01 else 1.0) for i in range(3)]
        length = math.sqrt(sum(v * v for v in a)) / longest
        if s > 0.01:
            a[1], a[2] = a[1] * wanted / s, a[2] * wanted / s
        now = math.sqrt(sum(v * v for v in a))
        goal = max(length ** change["length_power"] + change["length_add"], 0) * change["length_factor"] * longest
        if now > 0.01:
            a = [min(v * goal / now, extent[i]) for i, v in enumerate(a)]
        out[index] = np.clip(sum(a[i] * basis[i] for i in range(3)), 0, 1)
    return out


def test_the_chromatic_eigen_transform_equals_its_formulas_pixel_by_pixel():
    data = sources(2, height=12, width=16)
    data.frame1[1] = 0.4  # without any colour or contrast: the steps that divide are left out
    change = draw_eigen(augmentation._Draw(2, generator(7)))
    means, extents = colour_statistics(data)
    found = chromatic_eigen(torch.stack((data.frame1, data.frame2)), change, (means, extents))
    for slot, frames in enumerate((data.frame1, data.frame2)):
        for index in range(2):
            numbers = {field.name: getattr(change, field.name)[index].tolist() for field in dataclasses.fields(EigenChange)}
            image = frames[index].flip(0).permute(1, 2, 0).double().numpy()
            expected = eigen_by_hand(image, numbers, means[slot, index].double().numpy(), extents[slot, index].double().numpy())
            assert np.abs(found[slot, index].flip(0).permute(1, 2, 0).numpy() - expected).max() < 2e-4


def test_eigen_numbers_follow_their_distributions():
    change = draw_eigen(augmentation._Draw(20_000, generator(8)))
    assert change.power.log().std(dim=0).tolist() == pytest.approx([0.4] * 3, rel=0.05)
    assert change.add.std(dim=0).tolist() == pytest.approx([0.04, 0.02, 0.02], rel=0.05)
    assert change.factor.log().std(dim=0).tolist() == pytest.approx([0.4, 0.2, 0.2], rel=0.05)
    for values, low, high in (
        (change.saturation_power, 0.670, 1.492),
        (change.saturation_factor, 0.449, 1.221),
        (change.length_power, 0.549, 1.221),
        (change.length_factor, 0.670, 1.492),
        (change.saturation_add, -0.03, 0.03),
        (change.length_add, -0.03, 0.03),
        (change.rotation, -1.0, 1.0),
    ):
        assert low - 1e-3 <= values.min() < low + 0.01 * (high - low) + 1e-3
        assert high - 0.01 * (high - low) - 1e-3 < values.max() <= high + 1e-3


def test_colour_changes_equal_opencv():
    frame = sources(1).frame1
    image = frame[0].permute(1, 2, 0).numpy()
    one, zero = torch.ones(1), torch.zeros(1)
    assert torch.allclose(change_colours(frame, torch.ones(1, 3), one, zero, one), frame, atol=0.01)  # 0.01 in the divisor
    factors = torch.tensor([[1.1, 0.95, 1.02]])
    found = change_colours(frame, factors, one * 1.07, zero + 0.03, one * 0.9)[0].permute(1, 2, 0).numpy()
    tinted = cv2.multiply(image, np.float32([1.1, 0.95, 1.02, 0]))
    balanced = tinted * (image.sum(-1) / (tinted.sum(-1) + 0.01))[..., None]
    expected = cv2.addWeighted(cv2.pow(np.clip(balanced, 0, 1), 1.07), 0.9, np.zeros_like(image), 0, 0.9 * 0.03 + 0.05)
    assert np.abs(found - np.clip(expected, 0, 1)).max() < 1e-5


def test_only_frame_2_changes_colours_and_noise_has_its_range():
    data = sources(400, height=40, width=50)
    data.frame2.copy_(data.frame1)
    still = PaperAugmentation(relative_translation=0.0, relative_rotation=0.0, relative_zoom=0.0, eigen=False, noise=(0.0, 0.0))
    pairs = still(data, (24, 32), generator())
    plain = dataclasses.replace(GEOMETRY_ONLY, relative_translation=0.0, relative_rotation=0.0, relative_zoom=0.0)
    assert torch.equal(pairs.frame1, plain(data, (24, 32), generator()).frame1)
    difference = (pairs.frame2 - pairs.frame1).mean(dim=(1, 2, 3))
    assert 0.003 < difference.std() < 0.03
    quiet, noisy = (dataclasses.replace(plain, noise=noise)(data, (24, 32), generator()) for noise in ((0.0, 0.0), (0.0, 0.06)))
    for name in ("frame1", "frame2"):
        sigma = (getattr(noisy, name) - getattr(quiet, name)).std(dim=(1, 2, 3))
        assert sigma.min() < 0.003 and 0.057 < sigma.max() < 0.065 and sigma.mean() == pytest.approx(0.03, abs=0.003)
    grain1, grain2 = noisy.frame1 - quiet.frame1, noisy.frame2 - quiet.frame2
    assert abs((grain1 * grain2).mean() / (grain1.std() * grain2.std())) < 0.01


def test_hue_equals_colorsys_and_jitter_equals_opencv():
    frame = torch.rand(1, 3, 6, 7, generator=generator())
    turned = turn_hue(frame, torch.tensor([0.3]).view(1, 1, 1, 1))[0]
    for y, x in np.ndindex(6, 7):
        hue, saturation, value = colorsys.rgb_to_hsv(*frame[0, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb((hue + 0.3) % 1.0, saturation, value)
        assert turned[:, y, x].tolist() == pytest.approx(expected, abs=1e-5)
    one, zero = torch.ones(1), torch.zeros(1)
    assert torch.allclose(jitter(frame, one, one, one, zero), frame, atol=1e-6)
    image = frame[0].permute(1, 2, 0).numpy()
    brighter = jitter(frame, one * 0.7, one, one, zero)[0].permute(1, 2, 0).numpy()
    assert np.allclose(brighter, image * 0.7, atol=1e-6)
    mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    assert np.allclose(jitter(frame, one, one * 0.6, one, zero)[0].permute(1, 2, 0).numpy(), mean + (image - mean) * 0.6, atol=1e-4)
    grey = jitter(frame, one, one, zero, zero)[0].permute(1, 2, 0).numpy()
    assert np.allclose(grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], atol=1e-3)


def test_raft_numbers_follow_their_ranges():
    augment = RaftAugmentation()
    sizes = torch.tensor([(512.0, 384.0)] * 4000, dtype=torch.float64)
    maps = augment.draw_maps(augmentation._Draw(4000, generator(1)), sizes, (320, 448))
    corners = torch.tensor(((0, 447, 0, 447), (0, 0, 319, 319), (1, 1, 1, 1)), dtype=torch.float64)
    points = maps @ corners
    assert points.min() > -0.5 - 1e-9 and points[:, 0].max() < 511.5 + 1e-9 and points[:, 1].max() < 383.5 + 1e-9
    scale = 1 / maps[:, [0, 1], [0, 1]].abs()
    assert 0.83 <= scale.min() < 0.9 and 2.1 < scale.max() <= 2**1.2 + 1e-9
    assert (maps[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert (maps[:, 1, 1] < 0).float().mean() == pytest.approx(0.1, abs=0.02)


def test_the_eraser_fills_rectangles_of_frame_2_only():
    augment = dataclasses.replace(FLIPS_ONLY, erased=1.0, erased_side=(20.0, 30.0))
    wiped, whole = (a(sources(50), SIZE, generator()) for a in (augment, FLIPS_ONLY))
    assert torch.equal(wiped.frame1, whole.frame1) and torch.equal(wiped.flow, whole.flow)
    changed = (wiped.frame2 != whole.frame2).any(dim=1)
    sides = [(mask.any(0).sum(), mask.any(1).sum()) for mask in changed]
    single = [pair for mask, pair in zip(changed, sides, strict=True) if mask.sum() == pair[0] * pair[1] and max(pair) <= 31]
    assert len(single) > 15 and changed.flatten(1).sum(dim=1).max() <= 2 * 31 * 31
    assert changed.flatten(1).any(dim=1).float().mean() > 0.95


def test_frames_change_colours_together_or_apart():
    data = sources(300, height=24, width=32)
    data.frame2.copy_(data.frame1)
    pairs = RaftAugmentation(erased=0.0)(data, (24, 32), generator())
    apart = ((pairs.frame1 - pairs.frame2).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()
    assert apart == pytest.approx(0.2, abs=0.07)


def test_the_same_seed_gives_the_same_batch():
    for augment in (PaperAugmentation(), RaftAugmentation()):
        a, b, c = (augment(sources(2), SIZE, generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(a.frame1, b.frame1) and torch.equal(a.flow, b.flow) and not torch.equal(a.flow, c.flow)
