"""What happens to finished frames: light, colour, air, optics, sensor and compression.

Every effect has a probability per pair; a strength of zero leaves a pair as it is. Costly effects run only on the
pairs that have them. The flow is never touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pixels import GREY


@dataclass(frozen=True)
class EffectsConfig:
    """Probabilities per pair, and strengths. Colours are in [0, 1]."""

    colour: float = 0.7
    """Share of pairs whose brightness, contrast, saturation, tint and tone curve change, in both frames alike."""
    light: float = 0.3
    """Share of pairs in which frame 2 differs in brightness, contrast and tint."""
    light_strength: float = 0.06
    """Deviation of that difference."""
    grey: float = 0.10
    """Share of pairs without colour."""
    shadow: float = 0.25
    """Share of pairs under a smooth or soft-edged field of light that may drift by itself."""
    fog: float = 0.10
    """Share of pairs in fog, uneven, blending to a pale colour by up to 0.6."""
    motion_blur: float = 0.10
    """Share of pairs averaged along the flow over an open shutter of 0.2 to 0.7 of the frame time."""
    defocus: float = 0.12
    """Share of pairs blurred by a Gaussian."""
    defocus_sigma: tuple[float, float] = (0.4, 1.6)
    """Of that Gaussian [px]."""
    noise: float = 0.5
    """Share of pairs with Gaussian noise, new in each frame."""
    noise_sigma: float = 0.04
    """Largest deviation of the noise; small ones are more frequent."""
    jpeg: float = 0.2
    """Share of pairs that went through JPEG: 8x8 cosine transform, quantised, colour at half resolution."""
    jpeg_quality: tuple[float, float] = (35.0, 95.0)
    """As libjpeg counts it."""


def apply_effects(frames: Tensor, flow: Tensor, config: EffectsConfig, generator: torch.Generator) -> Tensor:
    """Change `frames` `(2B, 3, H, W)` RGB in [0, 1], all first frames before all second ones, in place.

    Args:
        frames: contiguous; also the result, in [0, 1].
        flow: `(B, 2, H, W)` [px]; guides the motion blur.
        config: probabilities and strengths.
        generator: source of all randomness, on any device.
    """
    batch, height, width, device = len(flow), *frames.shape[2:], frames.device

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device).mul_(high - low).add_(low)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device)

    def chosen(p: float) -> Tensor:
        """Indices of the pairs that have an effect. All draws that follow are made for the whole batch, so that one
        pair's luck does not shift another's."""
        return (uniform(batch) < p).nonzero().flatten()

    def both(index: Tensor) -> Tensor:
        return torch.cat((index, index + batch)).to(device)

    def spread(values: Tensor, index: Tensor) -> Tensor:
        """Per-pair numbers for both frames of the chosen pairs, `(2n, 1, 1, 1)`."""
        return values[index].repeat(2).to(device)[:, None, None, None]

    # Fields of light and fog come before the camera's own changes.
    index = chosen(config.shadow)
    coarse, drift = normal(batch, 1, 5, 6), normal(batch, 2) * 0.02
    depth, edge = uniform(batch, low=0.1, high=0.7), uniform(batch, low=0.7, high=6.0)
    if len(index):
        field = _field(coarse[index], drift[index], height, width, device)
        frames[both(index)] *= 1 - spread(depth, index) * torch.sigmoid(field * spread(edge, index))

    index = chosen(config.fog)
    coarse, drift = normal(batch, 1, 3, 4), normal(batch, 2) * 0.01
    depth, colour = uniform(batch, low=0.1, high=0.6), 0.6 + 0.35 * uniform(batch, 1) + 0.05 * uniform(batch, 3)
    if len(index):
        density = spread(depth, index) * torch.sigmoid(_field(coarse[index], drift[index], height, width, device))
        pale = colour[index].repeat(2, 1).to(device)[..., None, None]
        frames[both(index)] = torch.lerp(frames[both(index)], pale, density)

    index = chosen(config.motion_blur)
    shutter = uniform(batch, low=0.2, high=0.7)
    if len(index):
        frames[both(index)] = _motion_blur(frames[both(index)], flow[index.to(device)], spread(shutter, index))

    index = chosen(config.defocus)
    sigma = uniform(batch, low=config.defocus_sigma[0], high=config.defocus_sigma[1])
    if len(index):
        frames[both(index)] = _gaussian_blur(frames[both(index)], spread(sigma, index).flatten())

    _colour(frames, config, uniform, normal, batch)

    index = chosen(config.noise)
    sigma = config.noise_sigma * uniform(batch).square()
    if len(index):
        local = _generator_on(device, generator)
        for which in both(index).split(4):
            noise = torch.randn((len(which), 3, height, width), generator=local, device=device)
            frames[which] += noise.mul_(sigma.to(device)[which % batch][:, None, None, None])

    frames.clamp_(0, 1)
    index = chosen(config.jpeg)
    quality = uniform(batch, low=config.jpeg_quality[0], high=config.jpeg_quality[1])
    if len(index):
        frames[both(index)] = jpeg(frames[both(index)], spread(quality, index).flatten())
    return frames


def _generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """`generator` itself where it lives on `device`, else one on `device` seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def _field(coarse: Tensor, drift: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """`(2n, 1, H, W)` smooth fields from `(n, 1, h, w)` numbers, the second half moved by `drift` `(n, 2)` [frame]."""
    coarse = coarse.repeat(2, 1, 1, 1).to(device)
    move = torch.cat((torch.zeros_like(drift), drift)).to(device)
    theta = torch.zeros((len(move), 2, 3), device=device)
    theta[:, 0, 0], theta[:, 1, 1] = 0.7, 0.7
    theta[:, :, 2] = 2 * move
    fine = F.interpolate(coarse, size=(48, 64), mode="bicubic", align_corners=True)
    grid = F.affine_grid(theta, [len(move), 1, height, width], align_corners=True)
    return F.grid_sample(fine, grid, align_corners=True, padding_mode="border")


def _motion_blur(frames: Tensor, flow: Tensor, shutter: Tensor, samples: int = 5) -> Tensor:
    """The mean of `samples` shifts of each frame along the flow, within -shutter / 2 .. shutter / 2 of it. Frame 2
    uses the flow of the same place in frame 1: a stand-in that is right inside large objects."""
    height, width = frames.shape[2:]
    y, x = torch.meshgrid(torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij")
    scale = flow.new_tensor((2 / max(width - 1, 1), 2 / max(height - 1, 1)))
    base = torch.stack((x, y), -1) * scale - 1
    step = (flow.repeat(2, 1, 1, 1) * shutter).permute(0, 2, 3, 1) * scale
    total = torch.zeros_like(frames)
    for index in range(samples):
        grid = base + step * (index / (samples - 1) - 0.5)
        total += F.grid_sample(frames, grid, align_corners=True, padding_mode="border")
    return total / samples


def _gaussian_blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian with a deviation [px] of its own per frame."""
    radius = 4
    offsets = torch.arange(-radius, radius + 1, device=frames.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).t()[..., None, None, None]
    for axis, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded, side = F.pad(frames, padding, mode="reflect"), frames.shape[axis]
        # Shifts and sums: a grouped convolution of varying batch size is slow, as it is planned anew for each.
        first, *rest = (padded.narrow(axis, shift, side) * weight for shift, weight in enumerate(kernel))
        frames = sum(rest, start=first)
    return frames


def _colour(frames: Tensor, config: EffectsConfig, uniform, normal, batch: int) -> None:
    """Brightness, contrast, saturation and tint as one 3 x 4 matrix per frame, then a tone curve v + g v (1 - v)."""
    shared = (uniform(batch, 1) < config.colour).float()
    differs = (uniform(batch, 1) < config.light).float() * config.light_strength
    grey = uniform(batch, 1) < config.grey

    def pair(common: Tensor, single: Tensor) -> Tensor:
        """Numbers of frame 1 and of frame 2."""
        return torch.cat((shared * common, shared * common + differs * single))

    brightness = pair(0.06 * normal(batch, 1), normal(batch, 1))
    contrast = pair(0.2 * normal(batch, 1), normal(batch, 1)).clamp(-0.5, 0.6) + 1
    tint = pair(0.06 * normal(batch, 3), 0.5 * normal(batch, 3)).clamp(-0.3, 0.3) + 1
    saturation = pair(0.35 * normal(batch, 1), 0.5 * normal(batch, 1)).clamp(-0.8, 0.8) + 1
    saturation = torch.where(grey.repeat(2, 1), 0.0, saturation)
    tint = torch.where(grey.repeat(2, 1), 1.0, tint)
    curve = pair(0.3 * normal(batch, 1), normal(batch, 1)).clamp(-0.7, 0.7)

    luma = torch.tensor(GREY, device=saturation.device).expand(3, 3)
    matrix = saturation[..., None] * torch.eye(3, device=saturation.device) + (1 - saturation[..., None]) * luma
    matrix = tint[..., None] * matrix * contrast[..., None]
    offset = 0.5 * (1 - contrast) + brightness
    device = frames.device
    parameters = zip(
        frames.flatten(2).split(4),
        matrix.to(device).split(4),
        offset[..., None].expand(-1, 3, 1).to(device).split(4),
        curve[..., None].to(device).split(4),
        strict=True,
    )
    # A few frames at a time keeps the temporaries within the cache.
    for pixels, mixing, shift, bend in parameters:
        changed = torch.baddbmm(shift, mixing, pixels).clamp_(0, 1)
        pixels.copy_(changed).neg_().add_(1).mul_(changed).mul_(bend).add_(changed)


# Quantisation of luma and chroma at quality 50: ITU-T T.81, annex K, tables K.1 and K.2.
GREY_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG does to `(n, 3, H, W)` RGB in [0, 1] at `(n,)` qualities 1..100, with chroma at half resolution.

    The loss is all in the quantisation of 8 x 8 cosine coefficients; entropy coding, which loses nothing, is left out.
    """
    height, width = images.shape[2:]
    device = images.device
    images = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
    to_ycc = torch.tensor((GREY, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)), device=device)
    ycc = torch.einsum("rc,nchw->nrhw", to_ycc, images)
    scale = torch.where(quality < 50, 50 / quality.clamp_min(1), 2 - quality / 50)[:, None, None]

    def through(plane: Tensor, steps: tuple) -> Tensor:
        """`(n, c, H, W)` quantised in 8 x 8 blocks."""
        table = (torch.tensor(steps, device=device, dtype=torch.float32) * scale).round_().clamp_(1, 255)
        k = torch.arange(8, device=device, dtype=torch.float32)
        cosine = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
        cosine[0] /= math.sqrt(2)
        blocks = plane.unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).transpose(3, 4)
        coefficients = cosine @ blocks @ cosine.t()
        table = table[:, None, None, None]
        coefficients = (coefficients / table).round_() * table
        return (cosine.t() @ coefficients @ cosine).transpose(3, 4).reshape(plane.shape)

    luma = through(ycc[:, :1] - 128, GREY_STEPS) + 128
    chroma = through(F.avg_pool2d(ycc[:, 1:], 2), _CHROMA_STEPS)
    cb, cr = F.interpolate(chroma, scale_factor=2, mode="bilinear").unbind(1)
    luma = luma[:, 0]
    rgb = torch.stack((luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb), 1)
    return (rgb[..., :height, :width] / 255).clamp_(0, 1)
