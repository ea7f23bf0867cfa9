"""What several test files make: small weights, frames, and the command line run in this process."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featherflow import Estimator, networks
from featherflow.training.initialization import initialize
from featherflow.weights import WeightsInfo, save_weights


def frame(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    """A smooth random picture, `(H, W, 3)` uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def write_frames(folder: Path, count: int = 2, height: int = 64, width: int = 80) -> list[Path]:
    paths = [folder / f"frame{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(frame(height, width, index)).save(path)
    return paths


def small_weights(path: Path, architecture: str = "liteflownetx", tag: str = "test") -> Path:
    """Untrained weights, of the smallest network unless another is named, as a file."""
    network = networks.build(architecture)
    initialize(network, torch.Generator().manual_seed(0))
    save_weights(path, network.state_dict(), WeightsInfo(architecture=architecture, tag=tag))
    return path


def run_network(network, first, second, **settings):
    """Flow by a network object, in float32 by PyTorch unless something else is asked for, frames seen as they are."""
    return Estimator(network, **{"dtype": "float32", "engine": "torch", "enlarge": 1.0, "tile": None, **settings})(first, second)


def run_command(*arguments: object) -> int:
    """Exit code of the command line, run in this process."""
    from featherflow.cli import main

    try:
        main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code or 0
    return 0
