"""Cases of our own: what every network answered, with weights by a rule, when it last passed the golden cases of its release.

    python tests/regression/own_cases.py           write them all again, from the version that is installed
    python tests/regression/own_cases.py NAME      those of one network

They hold two small rendered frames, and for every network its flow and what it finds on the way, at evenly spaced places. Write
them again only after a change that is meant to change a network, and only if `tests/parity` passes with its material there.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featherflow import networks
from featherflow.networks.liteflownet import LiteFlowNet
from featherflow.networks.liteflownet_tied import LiteFlowNetTied

FOLDER = Path(__file__).parent / "cases"
SIZE = (128, 192)  # a multiple of what each network takes
ITERATIONS = 3
_PLACES = 384  # of each tensor


def set_weights(network: torch.nn.Module) -> None:
    """Weights by a rule: normal, from a generator seeded with the tensor's name, as wide as keeps the size of maps."""
    for name, tensor in network.state_dict().items():
        if name in ("mean1", "mean2") or not tensor.is_floating_point() or name.endswith(("upflow.weight", "upcost.weight")):
            continue  # numbers of the release
        draws = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape) or (1,))
        if name.endswith("running_var"):
            values = 1 + 0.2 * np.abs(draws)
        elif tensor.ndim < 2:
            values = 0.02 * draws + (name.endswith("weight") and tensor.ndim == 1)
        else:
            values = draws * np.sqrt(1.2 / np.prod(tensor.shape[1:]))
        tensor.copy_(torch.from_numpy(values.reshape(tuple(tensor.shape))))


def frames() -> list[torch.Tensor]:
    """The two frames `(1, 3, H, W)` float32 RGB in [0, 1]."""
    images = [np.asarray(Image.open(FOLDER / f"frame{index}.png")) for index in (1, 2)]
    return [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255 for image in images]


def answers(name: str) -> dict[str, np.ndarray]:
    """What a network finds: its flow, and the flows on the way, each at `_PLACES` evenly spaced places."""
    network = networks.build(name)
    with torch.no_grad():
        set_weights(network)
    first, second = frames()
    options = {"iterations": ITERATIONS} if network.traits.iterates else {}
    with torch.inference_mode():
        found = {"flow": network(first, second, **options)}
        if isinstance(network, LiteFlowNet | LiteFlowNetTied):
            found["features"] = network.encode(first, network.mean1).features[4]
            pyramids = network.encode(first, network.mean1), network.encode(second, network.mean2)
            steps = [u for estimate in network.flows(*pyramids, **options) for u in estimate.outputs]
        else:
            steps = [getattr(step, "coarse", step) for step in network.flows(first, second, **options)]
    found |= {f"step{index}": step for index, step in enumerate(steps)}
    return {key: sampled(tensor) for key, tensor in found.items()}


def sampled(tensor: torch.Tensor) -> np.ndarray:
    """Float32 values at `_PLACES` evenly spaced places."""
    values = tensor.float().flatten()
    return values[torch.linspace(0, values.numel() - 1, _PLACES, dtype=torch.float64).round().long()].numpy()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    if not (FOLDER / "frame1.png").exists():
        draw_frames()
    for name in sys.argv[1:] or networks.names():
        found = answers(name)
        np.savez_compressed(FOLDER / f"{name}.npz", **found)
        print(name, {key: f"{np.abs(value).mean():.3g}" for key, value in found.items()})


def draw_frames() -> None:
    """Kept, and not rendered for each test: the generator may change, the cases stay."""
    from featherflow.data import SceneConfig, TextureBank, render_pairs

    scene = SceneConfig(height=SIZE[0], width=SIZE[1], effects=None)
    textures = TextureBank.procedural(24, 256, torch.Generator().manual_seed(3))
    pair = render_pairs(1, scene, textures, torch.Generator().manual_seed(4), backward=False)
    for index, frame in enumerate((pair.frame1, pair.frame2), start=1):
        pixels = (frame[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(FOLDER / f"frame{index}.png", optimize=True)


if __name__ == "__main__":
    main()
