"""Tracer particles that only one frame of a pair shows, because they crossed the sheet of light in between."""

from __future__ import annotations

import torch
from torch import Tensor

from .textures import PARTICLES, TextureBank


def add_unpaired(frames: Tensor, tracers: Tensor, most: float, textures: TextureBank, generator: torch.Generator) -> None:
    """Add to each frame of particle scenes other particles than to its partner, in place.

    Args:
        frames: `(2B, 3, H, W)` in [0, 1], all first frames before all second ones.
        tracers: `(B,)` bool, which pairs show particles.
        most: brightness of those that are added, at most, as a share of that of the others; drawn for each pair.
        textures: with particle images among them. generator: source of all randomness, on any device.
    """
    batch, height, width = len(tracers), *frames.shape[2:]
    among = textures.indices(PARTICLES)

    def draw(high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device).mul(high).cpu()

    brightness, which = draw(most, batch), draw(len(among), 2 * batch).long().clamp_(max=len(among) - 1)
    corners, flips = draw(textures.size, 2 * batch, 2).long(), draw(1.0, 2 * batch) < 0.5
    for pair in tracers.cpu().nonzero().flatten().tolist():
        for index in (pair, pair + batch):
            rows, columns = (
                (torch.arange(length) + corner) % textures.size
                for length, corner in zip((height, width), corners[index].tolist(), strict=True)
            )
            image = textures.images[among[which[index]]].cpu()  # its edges meet
            own = (image.transpose(1, 2) if flips[index] else image)[:, rows][:, :, columns].to(frames.device) / 255
            frames[index] += (1 - frames[index]) * own * brightness[pair]
