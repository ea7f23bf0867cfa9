"""Effects against independent oracles: Pillow's JPEG, the definition of a Gaussian, and none at all."""

import io
from dataclasses import fields, replace

import numpy as np
import torch
from PIL import Image

from featherflow.data.effects import EffectsConfig, _gaussian_blur, apply_effects, jpeg
from featherflow.data.textures import TextureBank

NONE = EffectsConfig(**{entry.name: 0.0 for entry in fields(EffectsConfig) if isinstance(entry.default, float)})


def pictures(count: int = 4, size: int = 64) -> torch.Tensor:
    return TextureBank.procedural(count, size, particles=0).images.float() / 255


def test_jpeg_looks_like_pillows():
    # Pillow's own loss is the yardstick: ours must lose about as much, and be nearer to Pillow's result than that.
    images = pictures()
    for quality in (20, 50, 85):
        ours = jpeg(images, torch.full((len(images),), float(quality)))
        for image, mine in zip(images, ours, strict=True):
            buffer = io.BytesIO()
            Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
            theirs = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
            loss = (theirs - image).square().mean().sqrt()
            assert 0.7 * loss - 0.005 < (mine - image).square().mean().sqrt() < 1.3 * loss + 0.005
            assert (mine - theirs).square().mean().sqrt() < 0.5 * loss + 0.005


def test_jpeg_takes_any_size():
    image = pictures(1)[..., :37, :51]
    assert jpeg(image, torch.tensor([90.0])).shape == image.shape


def test_blur_of_a_point_is_a_gaussian():
    point = torch.zeros(2, 3, 21, 21)
    point[..., 10, 10] = 1
    sigma = torch.tensor([0.8, 1.5])
    blurred = _gaussian_blur(point, sigma)
    ratio = blurred[:, 0, 10, 11] / blurred[:, 0, 10, 10]
    torch.testing.assert_close(ratio, torch.exp(-0.5 / sigma.square()))
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(2, 3))


def test_no_effect_leaves_frames_alone():
    frames = pictures()
    after = apply_effects(frames.clone(), torch.zeros(2, 2, 64, 64), NONE, torch.Generator())
    torch.testing.assert_close(after, frames, atol=1e-5, rtol=0)


def test_each_effect_alone_does_something_and_stays_in_range():
    frames = pictures(2)
    flow = torch.full((2, 2, 64, 64), 6.0)
    for name in ("colour", "light", "grey", "shadow", "fog", "motion_blur", "defocus", "noise", "jpeg"):
        config = replace(NONE, **{name: 1.0, "noise_sigma": 0.04, "light_strength": 0.1})
        both = apply_effects(frames.repeat(2, 1, 1, 1), flow, config, torch.Generator().manual_seed(1))
        first, second = both.chunk(2)
        assert (second - frames).abs().mean() > 2e-4, name
        assert min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) <= 1, name
        if name == "light":
            torch.testing.assert_close(first, frames, atol=1e-5, rtol=0)
        if name == "grey":
            assert (first[:, 0] - first[:, 2]).abs().max() < 1e-5


def test_motion_blur_smears_along_the_flow_only():
    stripes = (torch.arange(64) // 4 % 2).float().expand(1, 3, 64, 64)
    config = replace(NONE, motion_blur=1.0)
    along, across = torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 64, 64)
    along[:, 0], across[:, 1] = 8.0, 8.0
    smeared, kept = (
        apply_effects(stripes.repeat(2, 1, 1, 1), flow, config, torch.Generator().manual_seed(1))[:1] for flow in (along, across)
    )
    torch.testing.assert_close(kept, stripes, atol=1e-4, rtol=0)
    assert smeared.std() < 0.8 * stripes.std()
