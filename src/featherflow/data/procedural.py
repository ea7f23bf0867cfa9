"""Pairs of frames with exact flow, rendered in batches on a CPU or a GPU.

A scene is a background and a stack of layers. Layer l shows a texture through a shape; both are fixed to the layer's
own plane. With p a pixel of frame 1 [px],

    D_l   a small smooth deformation, a sum of sine products with |grad D| < 0.3,
    M_l   the layer's motion, a homography: its own similarity, shear and perspective, after which the camera's,

the point of the plane seen at p in frame 1 is p + D_l(p), and the one seen at p in frame 2 is M_l^-1(p). Hence

    flow           = M_l(p + D_l(p)) - p                                  in closed form,
    backward flow  = q - p  with  q + D_l(q) = M_l^-1(p)                  a contraction, iterated to < 0.01 px.

Nothing is resampled: both frames read the textures directly, so the flow is exact, not the flow of a warped picture.
`scenes` draws what stands where and how it moves, `rendering` makes frames, flow and masks of it. In a share of the
scenes (`SceneConfig.depth`) the layers are planes in space and M_l follows from a camera that moves among them: `space`.

Leads: FlyingChairs (Dosovitskiy et al., ICCV 2015), AutoFlow (Sun et al., 2104.14544), Kubric and "The Devil in the
Details" (2308.07378) for the mixture of motions and effects.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError
from .effects import apply_effects
from .rendering import PairBatch, render
from .scenes import SceneConfig, draw_scene
from .shapes import ShapeBank, default_shapes
from .textures import PARTICLES, TextureBank
from .tracers import add_unpaired

CHUNK = 200_000
"""Pixels of a frame that are rendered at a time on a CPU, rounded down to whole samples."""


@torch.no_grad()
def render_pairs(
    batch_size: int,
    config: SceneConfig | None = None,
    textures: TextureBank | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    backward: bool = True,
    shapes: ShapeBank | None = None,
) -> PairBatch:
    """Render a batch of pairs: the same for the same generator state, configuration, banks and device.

    Args:
        batch_size: B.
        config: what to render; `SceneConfig()` when left out.
        textures: where surfaces come from; a procedural bank made once per process when left out.
        generator: source of all randomness, on any device; a freshly seeded one when left out.
        device: where to render. Scenes are drawn on the generator's device, which may be another.
        backward: also give the backward flow and its occlusion (about twice the time).
        shapes: outlines of the layers; a bank made once per process when left out.
    """
    config = config if config is not None else SceneConfig()
    textures = textures if textures is not None else _default_textures()
    shapes = shapes if shapes is not None else default_shapes()
    if batch_size < 1:
        raise InputError(f"a batch holds at least one pair, got {batch_size}")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    scene = draw_scene(batch_size, config, textures, shapes, generator, torch.device(device))
    # On a CPU a few samples at a time: with larger temporaries the allocator returns its pages to the system after
    # every operation, and getting them back costs as much as the arithmetic.
    few = batch_size if scene.motion.is_cuda else max(1, CHUNK // (config.height * config.width))
    frames = torch.empty((2 * batch_size, 3, config.height, config.width), device=device)
    pairs = _blank(frames, backward)
    for begin in range(0, batch_size, few):
        render(scene.part(begin, begin + few), textures, shapes, pairs.part(begin, begin + few))
    if config.unpaired > 0 and len(textures.indices(PARTICLES)):
        tracers = textures.kinds[scene.backgrounds().cpu()] == PARTICLES
        add_unpaired(frames, tracers, config.unpaired, textures, generator)
    if config.effects is not None:
        apply_effects(frames, pairs.flow, config.effects, generator)
    return pairs


def _blank(frames: Tensor, backward: bool) -> PairBatch:
    """Memory for a batch; the frames are views of `frames` `(2B, 3, H, W)`, frame 1 first."""
    batch, _, height, width = (len(frames) // 2, *frames.shape[1:])

    def flow() -> Tensor:
        return frames.new_empty((batch, 2, height, width))

    def mask() -> Tensor:
        return torch.empty((batch, 1, height, width), dtype=torch.bool, device=frames.device)

    both_ways = (flow(), mask(), mask()) if backward else ()
    return PairBatch(frames[:batch], frames[batch:], flow(), mask(), mask(), *both_ways)


@lru_cache(maxsize=1)
def _default_textures() -> TextureBank:
    return TextureBank.procedural(48, 256)
