"""What is a flow worth to those who use it? Steadiness, tracks and magnified motions, measured.

    python benchmarks/transport.py [--clip NAME=PATH ...] [--method liteflownet2-slim --method dis ...] [--frames 9]

Without clips: procedural ones, whose truth is known. With clips (video files, folders or quoted globs):

- stabilise: jitter, the root mean square change of the corners' motion from frame to frame [px], before and after, both measured
  with OpenCV's DIS on what is written.
- tracks: a grid of points followed to the middle of a clip and, on the reversed clip, back again: median distance from the start
  [px] and points that are kept.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

import featherflow
from featherflow import Estimator
from featherflow.transport import Similarity, global_motion, grid, magnify, stabilise_video, track
from featherflow.transport.stabilisation import apply, jitter
from featherflow.video import open_clip, video_writer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", action="append", default=[])
    parser.add_argument("--method", action="append")
    parser.add_argument("--frames", type=int, default=9, help="of each clip")
    parser.add_argument("--verbs", default="stabilise,tracks,magnify")
    arguments = parser.parse_args()
    methods = arguments.method or ["liteflownet2-slim", "dis", "farneback"]
    verbs = arguments.verbs.split(",")
    clips = dict(text.split("=", 1) for text in arguments.clip)
    clips = {name: frames_of(path, arguments.frames) for name, path in clips.items()} or {"layers": layers(arguments.frames)}
    if "stabilise" in verbs:
        steadiness(clips, methods)
    if "tracks" in verbs:
        tracks(clips, methods)
    if "magnify" in verbs and not arguments.clip:
        magnification(methods)


def header(*names: str) -> None:
    print("\n| " + " | ".join(names) + " |\n| --- |" + " ---: |" * (len(names) - 1), flush=True)


def frames_of(path: str, count: int) -> list[np.ndarray]:
    return [picture.image for _, picture in zip(range(count), open_clip(path), strict=False)]


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with detail of all sizes, `(H, W, 3)` float32."""
    random = np.random.default_rng(seed)
    total = sum(
        s**0.7 * cv2.resize(random.random((height // s, width // s, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for s in (3, 6, 12, 24, 48)
    )
    return cv2.normalize(total, None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)


def layers(count: int, height: int = 240, width: int = 320) -> list[np.ndarray]:
    """A background and two discs, each with a motion of its own of a few pixels per frame."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moving = [((1.5, 0.7), None, 0), ((-4.0, 1.0), (200, 90, 50), 1), ((3.0, -3.5), (100, 160, 38), 2)]
    frames = []
    for k in range(count):
        picture = 0
        for (dx, dy), disc, seed in moving:
            canvas = texture(height + 160, width + 160, seed)
            layer = cv2.remap(canvas, x + 80 - dx * k, y + 80 - dy * k, cv2.INTER_CUBIC)
            cover = 1
            if disc is not None:
                cover = np.clip(disc[2] + 0.5 - np.hypot(x - disc[0] - dx * k, y - disc[1] - dy * k), 0, 1)[..., None]
            picture = picture * (1 - cover) + layer * cover
        frames.append(np.asarray(picture).round().clip(0, 255).astype(np.uint8))
    return frames


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def half_flow(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)

    def fetched(image: np.ndarray, share: float) -> np.ndarray:
        place = (x + share * flow[..., 0], y + share * flow[..., 1])
        return cv2.remap(image.astype(np.float32), *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return (fetched(first, -0.5) + fetched(second, 0.5)) / 2


def shaken(frames: list[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Frames as a shaking hand would have filmed them."""
    random = np.random.default_rng(seed)
    poses = [Similarity(np.exp(1j * random.normal(0, 0.004)), complex(*random.normal(0, 2.5, 2))) for _ in frames]
    return [apply(image, pose, 1.08) for image, pose in zip(frames, poses, strict=True)]


def measured_jitter(frames: list[np.ndarray]) -> float:
    motions = [global_motion(featherflow.estimate(a, b, model="dis")) for a, b in itertools.pairwise(frames)]
    return jitter(motions, frames[0].shape[1], frames[0].shape[0])


def steadiness(clips: dict[str, list[np.ndarray]], methods: list[str]) -> None:
    header("shaken clip, jitter [px]", "before", *methods)
    for name, frames in clips.items():
        height, width = frames[0].shape[:2]
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "shaken.mkv", Path(folder) / "steady.mkv"
            with video_writer(source, width, height, Fraction(25), Fraction(1, 25)) as writer:
                for index, image in enumerate(shaken(frames)):
                    writer.write(image, Fraction(index, 25))
            row = [measured_jitter(frames_of(source, len(frames)))]
            for method in methods:
                stabilise_video(source, output, estimator=Estimator(method))
                row.append(measured_jitter(frames_of(output, len(frames))))
        print(f"| {name} ({len(frames)} frames) | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)


def tracks(clips: dict[str, list[np.ndarray]], methods: list[str]) -> None:
    header("there and back again, median [px] / points kept", *methods)
    for name, frames in clips.items():
        half = frames[: len(frames) // 2 + 1]
        there_and_back = half + half[-2::-1]
        points = grid(frames[0].shape[1], frames[0].shape[0], 16)
        cells = []
        for method in methods:
            found = track(there_and_back, points, Estimator(method))
            away = np.linalg.norm(found.positions[-1] - points, axis=1)
            cells.append(f"{np.nanmedian(away):.2f} / {100 * found.visible[-1].mean():.0f} %")
        print(f"| {name} ({len(half) - 1} frames each way) | " + " | ".join(cells) + " |", flush=True)


def magnification(methods: list[str], factor: float = 5.0) -> None:
    header(f"magnified {factor:g} times, PSNR [dB] against the truth", "as it is", *methods)
    canvas = texture(240, 320, 3)
    y, x = np.mgrid[:240, :320].astype(np.float32)

    def trembling(shift: float) -> np.ndarray:
        share = np.exp(-(((x - 160) / 60) ** 2 + ((y - 120) / 50) ** 2))
        return cv2.remap(canvas, x - shift * share, y, cv2.INTER_CUBIC).round().clip(0, 255).astype(np.uint8)

    for shift in (0.2, 0.5, 1.0):
        still, moved, truth = trembling(0), trembling(shift), trembling(factor * shift)
        row = [psnr(moved, truth)]
        for method in methods:
            row.append(psnr(magnify(moved, still, featherflow.estimate(moved, still, model=method), factor), truth))
        print(f"| a bump of {shift:g} px | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
