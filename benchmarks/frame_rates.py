"""Frames between frames, against the frames that were there: every second one is held out and made from its neighbours.

    python benchmarks/frame_rates.py --clip cat=clips/cat.mp4 --clip film=frames/film --worst worst/

PSNR [dB] and SSIM, mean over the held-out frames, of

- the mean of both neighbours;
- FFmpeg's filter minterpolate (motion-compensated), through PyAV: the better of its two kinds of block compensation, clip by clip;
- OpenCV's DIS flow, fetched along half of it;
- OpenCV's DIS flow in `featherflow.transport.interpolate`, the same warping as ours;
- ours: `featherflow.transport.interpolate` with the default network alone;
- what `featherflow interpolate` does: the default network, and DIS beside it.

What stands last is by how much ours is ahead of the best of the others.

SSIM is OpenCV's, mean over the three channels. `--worst FOLDER` writes, of each clip, the frame in which ours is worst: frame 1,
truth, frame 2 above ours, half of DIS, minterpolate. Without `--clip` a scene of moving discs is made.

    python benchmarks/frame_rates.py --memory --model dis-ultrafast

converts a small generated clip of 300 and one of 3,000 frames from 25 to 10 pictures a second, each in a process of its own, and
prints the peak of resident memory of both.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from transport import frames_of, half_flow, header, layers

from featherflow import Estimator
from featherflow.transport import interpolate

BLENDING, MINTERPOLATE, HALF, SAME = "blending", "minterpolate", "DIS, half flow", "DIS, same warping"
ALONE, OURS = "network alone", "ours"
COMPENSATION = ("mc_mode=obmc", "mc_mode=aobmc:vsbmc=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", action="append", default=[], help="NAME=PATH")
    parser.add_argument("--frames", type=int, default=9, help="of each clip")
    parser.add_argument("--worst", type=Path, help="folder for the worst frames")
    parser.add_argument("--model", help="of ours; by default the default")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.model)
        return
    paths = dict(text.split("=", 1) for text in arguments.clip)
    clips = {name: frames_of(path, arguments.frames) for name, path in paths.items()} or {"discs": layers(arguments.frames)}
    held_out(clips, arguments.model, arguments.worst)


def held_out(clips: dict[str, list[np.ndarray]], model: str | None, worst: Path | None) -> None:
    ours, dis = Estimator(model), Estimator("dis")
    others = [BLENDING, MINTERPOLATE, HALF, SAME]
    columns = [*others, ALONE, OURS]
    header(f"held-out frames, PSNR [dB] / SSIM; ours: {ours.model}", *columns, "ahead by")
    for name, frames in clips.items():
        frames = frames[: (len(frames) - 1) // 2 * 2 + 1]
        made = {column: [] for column in columns}
        made[MINTERPOLATE] = best_minterpolated(frames)
        for first, _, second in triplets(frames):
            made[BLENDING].append((first.astype(float) + second) / 2)
            flow, backward = dis.both(first, second)
            made[HALF].append(half_flow(first, second, flow))
            made[SAME].extend(interpolate(first, second, flow, backward))
            flows = ours.both(first, second)
            made[ALONE].extend(interpolate(first, second, *flows))
            made[OURS].extend(interpolate(first, second, *flows, also=[(flow, backward)]))
        scores = {column: [score(*pair) for pair in zip(made[column], frames[1::2], strict=True)] for column in columns}
        means = {column: np.mean(rows, axis=0) for column, rows in scores.items()}
        ahead = [means[OURS][k] - max(means[column][k] for column in others) for k in (0, 1)]
        cells = [f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in means.values()] + [f"{ahead[0]:+.2f} / {ahead[1]:+.4f}"]
        print(f"| {name} ({len(frames) // 2}, {frames[0].shape[1]}x{frames[0].shape[0]}) | " + " | ".join(cells) + " |", flush=True)
        if worst is not None:
            index = int(np.argmin([psnr for psnr, _ in scores[OURS]]))
            first, truth, second = list(triplets(frames))[index]
            rows = [[first, truth, second], [made[column][index] for column in (OURS, HALF, MINTERPOLATE)]]
            picture = np.vstack([np.hstack(row) for row in rows])
            worst.mkdir(parents=True, exist_ok=True)
            Image.fromarray(bytes_of(picture)).save(worst / f"{name}_{2 * index + 1}.png")


def triplets(frames: list[np.ndarray]):
    return zip(frames[:-2:2], frames[1::2], frames[2::2], strict=True)


def bytes_of(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def score(made: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    made = bytes_of(made)
    return cv2.PSNR(made, truth), float(np.mean(cv2.quality.QualitySSIM_compute(made, truth)[0][:3]))


def best_minterpolated(frames: list[np.ndarray]) -> list[np.ndarray]:
    candidates = [minterpolated(frames[::2], options) for options in COMPENSATION]
    return max(candidates, key=lambda made: np.mean([score(*pair)[0] for pair in zip(made, frames[1::2], strict=True)]))


def minterpolated(frames: list[np.ndarray], options: str) -> list[np.ndarray]:
    """The pictures halfway between neighbours by FFmpeg's minterpolate, in full chroma.

    The filter looks at frames before and after, so that the first and last are repeated for it.
    """
    height, width = frames[0].shape[:2]
    graph = av.filter.Graph()
    nodes = (
        graph.add("buffer", f"video_size={width}x{height}:pix_fmt=yuv444p:time_base=1/10:frame_rate=10"),
        graph.add("minterpolate", f"fps=20:mi_mode=mci:me_mode=bidir:scd=none:{options}"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()
    made: dict[Fraction, np.ndarray] = {}

    def pull() -> None:
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            made[frame.pts * Fraction(frame.time_base)] = frame.to_ndarray(format="rgb24")

    for number, image in enumerate([frames[0]] * 2 + frames + [frames[-1]] * 3):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv444p")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        graph.push(frame)
        pull()
    graph.push(None)
    pull()
    return [made[Fraction(2 * k + 5, 20)] for k in range(len(frames) - 1)]


def memory(model: str | None) -> None:
    """Peak of resident memory along a short and a long clip."""
    header("frames", "pictures made", "peak of resident memory [MiB]")
    with tempfile.TemporaryDirectory() as folder:
        for count in (300, 3000):
            source = Path(folder) / f"{count}.mkv"
            generate(source, count)
            code = (
                "import resource; from featherflow import Estimator; from featherflow.transport import interpolate_video; "
                f"estimator = Estimator({model!r}); "
                f"r = interpolate_video({str(source)!r}, {str(Path(folder) / 'out.mkv')!r}, to_fps=10, estimator=estimator); "
                "print(r.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
            )
            made, peak = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
            print(f"| {count} (64x48) | {made} | {peak} |", flush=True)


def generate(path: Path, count: int) -> None:
    frames = itertools.islice(itertools.cycle(layers(8, 48, 64)), count)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
