"""The pictures of the manual: what each verb makes of frames that anyone may copy.

All are drawn by featherflow itself from the bundled pair, from rendered pairs, or from frames made of these.

    python benchmarks/manual_pictures.py docs/images       # a minute or two; needs the extra `video`
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import featherflow
from featherflow import demo
from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.flow import (
    backward_warp,
    colour_wheel_legend,
    confidence,
    draw_arrows,
    draw_confidence,
    error_map,
    flow_to_rgb,
    mark,
    occlusion,
    overlay,
    read_flow_with_valid,
)
from featherflow.images import read_image
from featherflow.transport import interpolate, magnify, stabilise_video, track
from featherflow.transport.tracking import draw_tracks, grid
from featherflow.video import open_clip

GAP = 6  # px of white between parts of a picture
QUALITY = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    frame1, frame2 = read_image(demo.FRAME1), read_image(demo.FRAME2)
    truth, valid = read_flow_with_valid(demo.TRUTH)
    flow, backward = featherflow.estimate(frame1, frame2, backward=True)
    scale = float(np.nanmax(np.hypot(truth[..., 0], truth[..., 1])))

    save(folder / "estimate.webp", row(frame1, frame2, with_wheel(flow_to_rgb(flow, scale))))
    save(folder / "occlusion.webp", row(frame1, mark(frame1, occlusion(flow, backward))))
    trusted = confidence(frame1, frame2, flow, backward)
    save(folder / "confidence.webp", row(frame1, draw_confidence(frame1, trusted), error_map(flow, truth, valid)))
    save(folder / "error.webp", row(flow_to_rgb(truth, scale), flow_to_rgb(flow, scale), error_map(flow, truth, valid)))
    save(folder / "views.webp", row(flow_to_rgb(flow, scale), draw_arrows(frame1, flow), overlay(frame1, flow, scale)))
    save(folder / "warp.webp", warp_direction(frame1, frame2, flow))
    save(folder / "scale.webp", row(*(flow_to_rgb(flow, length) for length in (scale / 2, scale, scale * 3))))
    save(folder / "interpolate.webp", moving_part(frame1, frame2, flow, backward))
    save(folder / "tracks.webp", tracked(frame1, frame2, flow, backward))
    save(folder / "stabilise.webp", steadied(frame1))
    save(folder / "magnify.webp", magnified(frame1))
    save(folder / "render.webp", rendered())


def warp_direction(frame1: np.ndarray, frame2: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """How frame 1 differs from frame 2, and from frame 2 fetched along the flow."""
    warped, _ = backward_warp(frame2, flow)
    return row(difference(frame1, frame2), warped, difference(frame1, warped))


def moving_part(frame1: np.ndarray, frame2: np.ndarray, flow: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Frame 1, what lies half way, frame 2; and the mean of both, which shows everything twice."""
    (middle,) = interpolate(frame1, frame2, flow, backward)
    mean = ((frame1.astype(np.float32) + frame2) / 2).round().astype(np.uint8)
    y, x = busiest(flow, 192, 192)
    return row(*(picture[y : y + 192, x : x + 192] for picture in (frame1, middle, mean, frame2)))


def tracked(frame1: np.ndarray, frame2: np.ndarray, flow: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Points followed through five frames, drawn with their way."""
    frames = [frame1, *interpolate(frame1, frame2, flow, backward, (0.25, 0.5, 0.75)), frame2]
    tracks = track(frames, grid(frame1.shape[1], frame1.shape[0], 24))
    return draw_tracks(frame2, tracks.positions)


def steadied(frame: np.ndarray, count: int = 16) -> np.ndarray:
    """The mean of the frames of a shaken clip, and of the same clip made steady: what stands still in it is sharp."""
    random = np.random.default_rng(4)
    height, width = 256, 352
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            x, y = random.integers(0, 9, 2) + 40
            Image.fromarray(frame[y : y + height, x : x + width]).save(Path(folder) / f"{index:02}.png")
        stabilise_video(folder, Path(folder) / "steady.mp4", smoothness=2)
        clips = open_clip(folder), open_clip(Path(folder) / "steady.mp4")
        means = [np.mean([picture.image.astype(np.float32) for picture in clip], axis=0).round().astype(np.uint8) for clip in clips]
    return row(*means)


def magnified(frame: np.ndarray, factor: float = 20.0) -> np.ndarray:
    """A frame, the same with a bump that moved by a pixel, and that motion enlarged."""
    frame = frame[64:320, 128:384]
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    bump = np.maximum(np.exp(-((x - 128) ** 2 + (y - 128) ** 2) / (2 * 45**2)) - 0.05, 0) / 0.95  # nothing moves at the edges
    moved, _ = backward_warp(frame, np.stack((bump, np.zeros_like(bump)), axis=-1))
    return row(frame, moved, magnify(moved, frame, featherflow.estimate(moved, frame), factor))


def rendered() -> np.ndarray:
    """Three rendered pairs: frame 1 above, exact flow below."""
    import torch

    random = torch.Generator().manual_seed(2)
    textures = TextureBank.procedural(32, 448, random)
    pairs = render_pairs(3, SceneConfig(height=192, width=256), textures, random, backward=False)
    frames = (pairs.frame1 * 255).round().byte().permute(0, 2, 3, 1).numpy()
    flows = pairs.flow.permute(0, 2, 3, 1).numpy()
    return column(row(*frames), row(*(flow_to_rgb(flow) for flow in flows)))


def busiest(flow: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Top left corner of the window whose motions differ most."""
    corners = [(y, x) for y in range(0, flow.shape[0] - height, 16) for x in range(0, flow.shape[1] - width, 16)]
    return max(corners, key=lambda at: flow[at[0] : at[0] + height, at[1] : at[1] + width].std(axis=(0, 1)).sum())


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Brightness difference, dark where there is none; white outside the frame."""
    apart = np.abs(first.astype(np.float32) - second).mean(axis=-1, keepdims=True)
    return np.repeat(np.nan_to_num(apart * 3, nan=255).clip(0, 255).astype(np.uint8), 3, axis=-1)


def with_wheel(picture: np.ndarray, size: int = 96) -> np.ndarray:
    """The wheel of colours in the lower right corner."""
    picture = picture.copy()
    wheel = np.asarray(Image.fromarray(colour_wheel_legend()).resize((size, size), Image.Resampling.LANCZOS))
    picture[-size - 8 : -8, -size - 8 : -8] = wheel
    return picture


def row(*pictures: np.ndarray) -> np.ndarray:
    """Side by side, all as high as the first."""
    return _joined(pictures, axis=1)


def column(*pictures: np.ndarray) -> np.ndarray:
    """One below the other."""
    return _joined(pictures, axis=0)


def _joined(pictures: tuple[np.ndarray, ...], axis: int) -> np.ndarray:
    shape = list(pictures[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (white, picture)][1:]
    return np.concatenate(parts, axis=axis)


def save(path: Path, picture: np.ndarray) -> None:
    """As WebP, at most 1,100 px wide."""
    image = Image.fromarray(picture)
    if image.width > 1100:
        image = image.resize((1100, round(image.height * 1100 / image.width)), Image.Resampling.LANCZOS)
    image.save(path, quality=QUALITY, method=6)
    print(f"{path}: {image.width}x{image.height} px, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
