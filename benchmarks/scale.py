"""`featherflow scale` against one process: what a second worker gains, and what a worker that is killed costs.

    python benchmarks/scale.py --pairs 2000 --clips 20 --json scale.json

Small pairs and clips of moving discs are written into a temporary folder. The pairs are done by one process
(`featherflow.jobs.run`), by one worker and by two, each with one thread; then by two of which one is ended by its process id in the
middle. The files of all must be equal, byte for byte. The clips are interpolated by one worker and by two, whose files must be
equal too. Seconds are those of the work and of starting the workers, not of Ray; for ratios to mean anything, on a machine of two
cores that do nothing else, with enough work that the start does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from PIL import Image
from transport import header, layers

from featherflow import jobs, scale
from featherflow.inference import Estimator
from featherflow.inference.settings import EstimationSettings
from featherflow.plans import plan_files
from featherflow.scale.work import RECORD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=9, help="of each clip")
    parser.add_argument("--model", default="", help="by default the default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # of this process; workers have one for each CPU that is set aside for them
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), arguments)
    header("what", "items", "workers", "seconds", "flows or pictures for each core-hour", "same files")
    for what, entry in figures.items():
        rate = entry.get("frames_per_core_hour")
        equal = {True: "yes", False: "NO", None: ""}[entry.get("equal")]
        workers = len(entry["workers"])
        print(f"| {what} | {entry['items']} | {workers} | {entry['seconds']:.1f} | {rate or 0:.0f} | {equal} |")
    for what in ("pairs", "clips"):
        ratio = figures[f"{what}, one worker"]["seconds"] / figures[f"{what}, two workers"]["seconds"]
        print(f"\n{what}: two workers are {ratio:.2f} times as fast as one")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    wrong = [what for what, entry in figures.items() if entry.get("equal") is False or entry["failures"]]
    if wrong:
        raise SystemExit(f"Not as it should be: {', '.join(wrong)}.")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    frames = folder / "frames"
    write_frames(frames, arguments.pairs + 1)
    for number in range(arguments.clips):
        write_frames(folder / "clips" / f"{number:03d}", arguments.frames)
    settings = EstimationSettings(model=arguments.model or None, device="cpu")
    alone = folder / "alone"
    estimator = Estimator.of(settings)
    job = jobs.run(plan_files([frames], alone, settings=settings), estimator, overlap=False)
    figures = {"pairs, one process": {"items": arguments.pairs, "workers": ["this"], "failures": [], "seconds": job.seconds}}
    figures["pairs, one process"]["frames_per_core_hour"] = arguments.pairs / job.seconds * 3600

    def on_ray(what: str, source: str, count: int, like: Path | None, verb: str = "flow", kill_at: int | None = None) -> None:
        out = folder / what
        killed: list[int] = []
        watch = threading.Thread(target=kill_one, args=(out, kill_at, killed)) if kill_at else None
        if watch:
            watch.start()
        result = scale.run(source, out, verb=verb, settings=settings, workers=(count, count), cpus=count)
        if watch:
            watch.join()
        print(f"{what}: {result.sentence()}", file=sys.stderr, flush=True)
        figures[what] = result.as_dict() | {"killed": killed}
        if like is not None:
            figures[what]["equal"] = same(like, out)
        complete = result.done == result.items and not result.skipped
        if not complete or (kill_at and not killed):
            raise SystemExit(f"{what}: {result.sentence()} Killed: {killed}.")

    on_ray("pairs, one worker", str(frames), 1, alone)
    on_ray("pairs, two workers", str(frames), 2, alone)
    on_ray("pairs, two workers, one killed", str(frames), 2, alone, kill_at=arguments.pairs // 2)
    on_ray("clips, one worker", str(folder / "clips" / "*"), 1, None, "interpolate")
    on_ray("clips, two workers", str(folder / "clips" / "*"), 2, folder / "clips, one worker", "interpolate")
    return figures


def write_frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(itertools.islice(itertools.cycle(layers(8)), count)):
        Image.fromarray(image).save(folder / f"{number:05d}.png")


def kill_one(out: Path, after: int, killed: list[int]) -> None:
    """End the worker of the last record that is there when there are so many."""
    while len(records := list(out.glob(f"*{RECORD}"))) < after:
        time.sleep(0.2)
    last = max(records, key=lambda path: path.stat().st_mtime)
    process = int(json.loads(last.read_text())["worker"].rpartition("/")[2])
    os.kill(process, signal.SIGKILL)
    killed.append(process)


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same flow files, and nothing else but records."""

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.endswith(RECORD)}

    return content(one) == content(other)


if __name__ == "__main__":
    main()
