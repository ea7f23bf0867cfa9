"""OpenCV's methods on frames that their code was not made for: a correct flow or a sentence, never a crash or what is no number.

Each method runs in a process of its own, since what this guards against ends the process.
"""

import json
import subprocess
import sys

import pytest

pytest.importorskip("cv2")

SIZES = ((16, 16), (24, 24), (32, 32), (48, 48), (640, 16), (1000, 17), (16, 640), (48, 300))
METHODS = ("farneback", "dis", "dis-fast", "dis-ultrafast", "deepflow", "pcaflow", "tvl1", "rlof", "sparse-to-dense")

CODE = """
import json, sys
import cv2
import numpy as np
import featherflow
from featherflow.errors import InputError

def moved(width, height, dx, dy):
    canvas = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 256, (height + 20, width + 20)).astype(np.float32), None, 1.2)
    canvas = (canvas - canvas.min()) / np.ptp(canvas) * 255
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grey = cv2.remap(canvas, x + 10 - dx, y + 10 - dy, cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)

found = {}
for width, height in json.loads(sys.argv[2]):
    try:
        flow = featherflow.estimate(moved(width, height, 0, 0), moved(width, height, 2, -1), model=sys.argv[1])
        found[f"{width}x{height}"] = [list(flow.shape), *np.median(flow, axis=(0, 1)).tolist()]
    except InputError as error:
        found[f"{width}x{height}"] = str(error)
texture, black = moved(80, 60, 0, 0), np.zeros((60, 80, 3), np.uint8)
for pair in ((black, texture), (texture, black), (black, black + 255), (black, black), (black + 255, black + 255)):
    assert not featherflow.estimate(*pair, model=sys.argv[1]).any()  # nothing tells a motion
print(json.dumps(found))
"""


@pytest.mark.parametrize("method", METHODS)
def test_small_and_narrow_frames(method):
    done = subprocess.run(
        [sys.executable, "-c", CODE, method, json.dumps(SIZES)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for size, answer in json.loads(done.stdout).items():
        if isinstance(answer, str):
            assert method == "pcaflow" and size in answer and "take another method" in answer
            continue
        width, height = map(int, size.split("x"))
        assert answer[0] == [height, width, 2]
        assert answer[1:] == [pytest.approx(2, abs=0.2), pytest.approx(-1, abs=0.15)], size
