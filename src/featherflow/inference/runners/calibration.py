"""Pairs on which a network is quantised: always the same ones, of textures drawn from formulas, so that nobody's images are needed
and the same network gives the same model."""

from __future__ import annotations

import torch

from ...data import SceneConfig, TextureBank, render_pairs
from ...data.scenes import BLOCK
from .graphs import ExportWrapper

PAIRS = 16  # that are looked at
_SEED = 1
# Longer than most that is met: a motion beyond the range that was seen is cut off, in every layer that reads a flow.
_MOTIONS = {"small": (0.3, 1.2), "medium": (0.33, 20.0), "large": 60.0}


def rendered_pairs(module: ExportWrapper, batch: int = 1) -> list[list]:
    """`PAIRS` times two arrays of `batch` frames as `module` takes them."""
    height, width = module.fitting.size
    scenes = SceneConfig(height=max(height, BLOCK), width=max(width, BLOCK), effects=None, **_MOTIONS)
    textures = TextureBank.procedural(24, 512, torch.Generator().manual_seed(_SEED))
    pairs = []
    for seed in range(PAIRS):
        pair = render_pairs(batch, scenes, textures, torch.Generator().manual_seed(seed), backward=False)
        pairs.append([module.as_taken(frame[..., :height, :width]).numpy() for frame in (pair.frame1, pair.frame2)])
    return pairs
