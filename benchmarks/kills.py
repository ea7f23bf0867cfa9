"""Kills a program that replaces a file and a pair of files, at random moments, and counts what is wrong afterwards.

python benchmarks/kills.py --kills 30
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = """
import sys
from featherflow.files import atomic_write, together
print("ready", flush=True)
number = 0
while True:
    number = (number + 1) % 250
    content = bytes([number]) * (8 << 20)
    with atomic_write(sys.argv[1] + "/one", durable=True) as file:
        file.write(content)
    with together():
        for name in ("model.bin", "model.xml"):
            with atomic_write(sys.argv[1] + "/" + name) as file:
                file.write(content[:100_000])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, torn, mixed, most = random.Random(arguments.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for _ in range(arguments.kills):
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, place], stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(draw.uniform(0.05, 0.5))
            process.kill()
            process.wait()
            process.stdout.close()
            most = max(most, sum(path.name.startswith(".") for path in folder.iterdir()))
            one = (folder / "one").read_bytes() if (folder / "one").exists() else b""
            torn += len(set(one)) > 1 or len(one) not in (0, 8 << 20)
            pair = [folder / name for name in ("model.bin", "model.xml")]
            mixed += all(path.exists() for path in pair) and len({path.read_bytes() for path in pair}) > 1
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, place], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(1)
        process.kill()
        process.wait()
        left = sum(path.name.startswith(".") for path in folder.iterdir())
    wrong = f"{torn} torn files, {mixed} mixed pairs"
    print(f"{arguments.kills} kills: {wrong}, at most {most} temporary files at a time, {left} at the end")


if __name__ == "__main__":
    main()
