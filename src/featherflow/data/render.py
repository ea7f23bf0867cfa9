"""Write rendered pairs to a folder, for looking at them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featherflow.data.procedural import SceneConfig, render_pairs
from featherflow.data.textures import TextureBank
from featherflow.frames import write_image


def render_folder(
    out: str | os.PathLike, count: int = 8, config: SceneConfig | None = None, textures: TextureBank | None = None, seed: int = 0
) -> Path:
    """Write `count` pairs under `out` as `00000/frame1.png`, `frame2.png`, `flow.flo`, and one contact sheet.

    Pair k depends on `seed` and k only, not on `count`. A row of the sheet `sheet.png` shows frame 1, frame 2, the
    flow in colour, and the pixels that frame 2 does not show in white.

    Returns:
        The path of the sheet.
    """
    from featherflow.flow import flow_to_rgb, write_flow

    out = Path(out)
    rows = []
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        pair = render_pairs(1, config, textures, generator, backward=False)
        flow = pair.flow[0].permute(1, 2, 0).numpy()
        frames = [as_bytes(frame[0]) for frame in (pair.frame1, pair.frame2)]
        folder = out / f"{index:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames, 1):
            write_image(folder / f"frame{number}.png", frame)
        write_flow(folder / "flow.flo", flow)
        hidden = np.repeat(pair.occluded[0, 0].numpy()[..., None], 3, axis=2).astype(np.uint8) * 255
        rows.append(np.concatenate([*frames, flow_to_rgb(flow), hidden], axis=1))
    sheet = out / "sheet.png"
    if rows:
        write_image(sheet, np.concatenate(rows))
    return sheet


def as_bytes(frame: Tensor) -> np.ndarray:
    """`(3, H, W)` in [0, 1] as `(H, W, 3)` uint8."""
    return (frame * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
