"""The demonstration: a pair of frames drawn by featherflow itself, with its exact flow, and what the default network makes of it.

The frames come from `make_pair`: drawn textures only, nobody's photos, so that they may be copied freely.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
FRAME1, FRAME2, TRUTH = FOLDER / "frame1.png", FOLDER / "frame2.png", FOLDER / "flow.png"

_TEXTURE_SEED, _SCENE_SEED = 5, 132


@dataclass(frozen=True)
class DemoResult:
    """Files written, and figures of the estimate."""

    model: str
    flow: str
    picture: str
    overview: str
    width: int
    height: int
    #: Loading the network, and estimating [s].
    load_seconds: float
    seconds: float
    #: Mean end-point error, and mean length of the true flow [px].
    epe_px: float
    mean_length_px: float


def run(folder: str | os.PathLike[str] = "featherflow-demo", model: str | None = None) -> DemoResult:
    """Estimate the flow of the bundled pair; write `flow.flo`, `flow.png` and `overview.png` into `folder`.

    Raises:
        InputError: for a folder with pictures of its own; FileError: if it cannot be written.
    """
    import numpy as np

    from ..errors import InputError
    from ..flow import FlowMetrics, error_map, flow_to_rgb, read_flow_with_valid, save_flow_picture, write_flow
    from ..images import IMAGE_SUFFIXES, read_image, write_image
    from ..inference import Estimator
    from ..outputs import check_outputs, make_folder

    folder = make_folder(folder)
    ours = [folder / name for name in ("flow.flo", "flow.png", "overview.png")]
    others = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path not in ours]
    if others:
        raise InputError(f"'{folder}' holds pictures, among which those of the demonstration would be; name another folder.")
    check_outputs([("a file of the demonstration", path) for path in ours])
    frame1, frame2 = read_image(FRAME1), read_image(FRAME2)
    truth, valid = read_flow_with_valid(TRUTH)

    started = time.perf_counter()
    estimator = Estimator(model)
    loaded = time.perf_counter()
    flow = estimator(frame1, frame2)
    done = time.perf_counter()

    write_flow(folder / "flow.flo", flow)
    scale = save_flow_picture(folder / "flow.png", flow)
    top = np.concatenate((frame1, flow_to_rgb(truth, scale)), axis=1)
    bottom = np.concatenate((error_map(flow, truth, valid), flow_to_rgb(flow, scale)), axis=1)
    write_image(folder / "overview.png", np.concatenate((top, bottom)))

    metrics = FlowMetrics()
    metrics.update(flow, truth, valid)
    length = float(np.hypot(truth[..., 0], truth[..., 1])[valid].mean())
    height, width = flow.shape[:2]
    return DemoResult(
        estimator.model,
        str(folder / "flow.flo"),
        str(folder / "flow.png"),
        str(folder / "overview.png"),
        width,
        height,
        round(loaded - started, 3),
        round(done - loaded, 3),
        round(metrics.result().per_image.epe, 4),
        round(length, 4),
    )


def make_pair(folder: str | os.PathLike[str] = FOLDER) -> None:
    """Draw the bundled pair again: frames as PNG, exact flow as a KITTI PNG (1/64 px)."""
    import torch
    from PIL import Image

    from ..data import SceneConfig, TextureBank, render_pairs
    from ..flow import write_flow

    scene = SceneConfig(
        height=384, width=512, layers=(5, 9), particles=0, camera=0, effects=None, small=(0.0, 1.0), medium=(1.0, 8.0)
    )
    textures = TextureBank.procedural(96, 448, torch.Generator().manual_seed(_TEXTURE_SEED))
    pair = render_pairs(1, scene, textures, torch.Generator().manual_seed(_SCENE_SEED), backward=False)
    for name, frame in (("frame1.png", pair.frame1), ("frame2.png", pair.frame2)):
        pixels = (frame[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(Path(folder) / name, optimize=True)
    write_flow(Path(folder) / "flow.png", pair.flow[0].permute(1, 2, 0).numpy())
