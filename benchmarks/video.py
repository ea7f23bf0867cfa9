"""Does a long clip need more memory than a short one, and what does it save to encode each frame once?

    python benchmarks/video.py [--frames 3000] [--size 160x120] [--model liteflownet2-slim] [--reuse-pairs 12]

Makes a clip of that many frames with sound, turns it into a video of its flow and prints the resident memory on the way. Then
times `stream` against `estimate` pair by pair, forward and in both directions, in turn and in one process: only the ratio counts.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

import featherflow
from featherflow import Estimator
from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.video import flow_video, video_writer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--model")
    parser.add_argument("--reuse-size", default="512x384")
    parser.add_argument("--reuse-pairs", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.frames:
        memory(arguments.frames, *map(int, arguments.size.split("x")), arguments.model)
    if arguments.reuse_pairs:
        reuse(arguments.reuse_pairs, *map(int, arguments.reuse_size.split("x")), arguments.model)


def moving_texture(width: int, height: int, seed: int = 0):
    """Frames without end: a textured plane that circles."""
    bank = TextureBank.procedural(4, 512, torch.Generator().manual_seed(seed))
    scene = SceneConfig(height=height * 2, width=width * 2, effects=None)
    pair = render_pairs(1, scene, bank, torch.Generator().manual_seed(seed), backward=False)
    canvas = (pair.frame1[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()
    index = 0
    while True:
        x, y = (round(side / 2 * (1 + 0.9 * f(index / 20))) for side, f in ((width, np.cos), (height, np.sin)))
        yield np.ascontiguousarray(canvas[y : y + height, x : x + width])
        index += 1


def resident() -> float:
    """Resident memory of this process [MiB]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def memory(frames: int, width: int, height: int, model: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "clip.mp4", Path(folder) / "flow.mp4"
        with video_writer(source, width, height, Fraction(25), Fraction(1, 25)) as writer:
            for index, image in zip(range(frames), moving_texture(width, height), strict=False):
                writer.write(image, Fraction(index, 25))
        rows = {}

        def note(done: int, total: int | None) -> None:
            rows[done] = resident()

        result = flow_video(source, output, estimator=Estimator(model), progress=note)
        print(result.sentence())
        print("| frame | resident memory [MiB] |\n| ---: | ---: |")
        for wanted in [*range(frames // 20, frames, frames // 10), frames - 2]:
            done = min(rows, key=lambda key: abs(key - wanted))
            print(f"| {done} | {rows[done]:.1f} |")
        late = [value for done, value in rows.items() if done >= frames // 20]
        print(f"from frame {frames // 20} on: {min(late):.1f} to {max(late):.1f} MiB")


def reuse(pairs: int, width: int, height: int, model: str | None) -> None:
    frames = [image for _, image in zip(range(pairs + 1), moving_texture(width, height), strict=False)]
    featherflow.estimate(frames[0], frames[1], model=model)
    what = f"{width}x{height}, {pairs} pairs, {torch.get_num_threads()} thread(s)"
    print(f"| {what} | pairwise [s/pair] | stream [s/pair] | ratio | largest difference [px] |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for backward in (False, True):
        times, difference = {"pairwise": [], "stream": []}, 0.0
        flows = featherflow.stream(frames, model, backward=backward)
        for first, second in itertools.pairwise(frames):  # in turn, so that both meet the same load
            began = time.perf_counter()
            pairwise = featherflow.estimate(first, second, model=model, backward=backward)
            middle = time.perf_counter()
            streamed = next(flows)
            times["pairwise"].append(middle - began)
            times["stream"].append(time.perf_counter() - middle)
            difference = max(difference, float(np.abs(np.subtract(pairwise, streamed)).max()))
        # The first pair of a stream encodes two frames.
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        what = "both directions" if backward else "forward"
        ratio = medians["stream"] / medians["pairwise"]
        print(f"| {what} | {medians['pairwise']:.3f} | {medians['stream']:.3f} | {ratio:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
