"""Write rendered pairs to a folder: for looking at them, and in the layout that `data check`, `evaluate` and `train` read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..images import write_image
from ..outputs import make_folder, make_new_folder
from .procedural import SceneConfig, render_pairs
from .textures import TextureBank


def render_folder(
    out: str | os.PathLike[str],
    count: int = 8,
    config: SceneConfig | None = None,
    textures: TextureBank | None = None,
    seed: int = 0,
) -> Path:
    """Write `count` pairs under `out`, a new or empty folder, in the layout `folder` of `featherflow.data.benchmarks`, and one
    contact sheet.

    Pair k is `frames/0000k/frame1.png` and `frame2.png`, `flow/0000k/frame1.flo`, and `occlusions/0000k/frame1.png`, white where
    frame 2 does not show what frame 1 does. It depends on `seed` and k only, not on `count`. A row of the sheet `sheet.png` shows
    frame 1, frame 2, the flow in colour, and the occlusions.

    Returns:
        The path of the sheet.

    Raises:
        InputError: if `out` holds anything: pairs of two runs, or of somebody else, would be taken for one set.
        FileError: if it cannot be written.
    """
    from ..flow import flow_to_rgb, write_flow

    out = make_new_folder(out)
    rows = []
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        pair = render_pairs(1, config, textures, generator, backward=False)
        flow = pair.flow[0].permute(1, 2, 0).numpy()
        frames = [as_bytes(frame[0]) for frame in (pair.frame1, pair.frame2)]
        hidden = pair.occluded[0, 0].numpy().astype(np.uint8) * 255
        folders = {name: make_folder(out / name / f"{index:05d}") for name in ("frames", "flow", "occlusions")}
        for number, frame in enumerate(frames, 1):
            write_image(folders["frames"] / f"frame{number}.png", frame)
        write_flow(folders["flow"] / "frame1.flo", flow)
        write_image(folders["occlusions"] / "frame1.png", hidden)
        rows.append(np.concatenate([*frames, flow_to_rgb(flow), np.repeat(hidden[..., None], 3, axis=2)], axis=1))
    sheet = out / "sheet.png"
    if rows:
        write_image(sheet, np.concatenate(rows))
    return sheet


def as_bytes(frame: Tensor) -> np.ndarray:
    """`(3, H, W)` in [0, 1] as `(H, W, 3)` uint8."""
    return (frame * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
