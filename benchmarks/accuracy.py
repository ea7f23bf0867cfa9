"""The README's accuracy table: our networks and OpenCV's methods on the same real pairs, in one run.

    python benchmarks/accuracy.py ../shared/data
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

import featherflow
from featherflow.classical import METHODS
from featherflow.evaluation import compare, find_samples, markdown_table
from featherflow.weights import available

OPENCV = [name for name in ("farneback", "dis-ultrafast", "dis", "tvl1", "pcaflow", "deepflow") if name in METHODS]


def main(folder: str) -> None:
    names = [info.name for info in available()] + OPENCV
    methods = {name: partial(featherflow.estimate, model=name) for name in names}
    methods["zero flow"] = lambda frame1, frame2: np.zeros((*frame1.shape[:2], 2), np.float32)

    def progress(done: int, total: int) -> None:
        print(f"\r{done}/{total} pairs", end="", file=sys.stderr)

    print("\n" + markdown_table(compare(methods, find_samples(folder), progress)))


if __name__ == "__main__":
    main(sys.argv[1])
