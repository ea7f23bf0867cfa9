"""Flow for hundreds of small pairs of files, with and without reading and writing in threads of their own: seconds and memory.

    python benchmarks/pairs.py --pairs 500

Frames of moving discs, 320x240, are written as PNG files into a temporary folder; each way then runs in a process of its own over
all of them, in turn and several times, and writes KITTI's PNG of 16 bit. The lowest time of each way counts. Peak memory is the
resident one of the process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from transport import header, layers

_CODE = """
import json, resource, sys
from pathlib import Path
from featherflow.inference import Estimator
from featherflow.inference.settings import EstimationSettings
from featherflow.jobs import run
from featherflow.plans import plan_files

folder, out, model, overlap = sys.argv[1], sys.argv[2], sys.argv[3] or None, sys.argv[4] == "True"
settings = EstimationSettings(model=model)
estimator = Estimator.of(settings)
plan = plan_files([folder], out, format="png16", settings=settings)
job = run(plan, estimator, overlap=overlap)
print(json.dumps(job.totals | {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--model", default="", help="by default the default")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    header(
        "pairs of 320x240",
        "seconds, overlapping",
        "seconds, one after the other",
        "ratio",
        "seconds of estimation",
        "peak [MiB], both",
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(itertools.islice(itertools.cycle(layers(8)), arguments.pairs + 1)):
            Image.fromarray(image).save(Path(folder) / f"{number:05d}.png")
        found = {True: [], False: []}
        for index, overlap in itertools.product(range(arguments.rounds), (True, False)):
            command = [
                sys.executable,
                "-c",
                _CODE,
                folder,
                str(Path(folder) / f"out{index}{overlap}"),
                arguments.model,
                str(overlap),
            ]
            found[overlap].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    best = {overlap: min(runs, key=lambda run: run["seconds"]) for overlap, runs in found.items()}
    one, other = best[True], best[False]
    times = f"{one['seconds']:.1f} | {other['seconds']:.1f} | {one['seconds'] / other['seconds']:.2f}"
    print(f"| {one['done']} | {times} | {other['estimation_seconds']:.1f} | {one['mib']}, {other['mib']} |")


if __name__ == "__main__":
    main()
