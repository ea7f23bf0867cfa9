"""Does the wheel work with the oldest and with the newest versions of what it depends on?

    python benchmarks/versions.py

Builds the wheel, installs it into two empty environments in a temporary folder, one with the lower bound of each dependency in
`pyproject.toml`, one with the newest that pip finds, runs `featherflow demo` and a few public calls in each, and prints a table of
the versions and of what came of it. Only torch is the same in both (`--torch`), since its builds take gigabytes where no CPU build
is found; `--python` names other interpreters. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 40_000_000  # bytes of a wheel

#: Run in each environment: prints the versions and figures as JSON, and fails where a call does.
CALLS = """
import json, sys
from importlib.metadata import version
import numpy as np, torch
from PIL import Image
import featherflow

rng = np.random.default_rng(0)
low = rng.uniform(0, 255, (20, 28, 3)).astype(np.uint8)
wide = np.asarray(Image.fromarray(low).resize((224, 160), Image.Resampling.BICUBIC))
one, two = wide[16:144, 16:208], wide[16:144, 13:205]  # everything moves 3 px to the right
truth = np.zeros((128, 192, 2), np.float32)
truth[..., 0] = 3
errors = {}
for model in ("liteflownet2-slim", "liteflownetx"):
    flow = featherflow.estimate(one, two, model=model)
    errors[model] = round(float(np.linalg.norm(flow - truth, axis=-1)[8:-8, 8:-8].mean()), 3)
estimator = featherflow.Estimator("liteflownet2-slim")
forward, backward = estimator.both(Image.fromarray(one), torch.from_numpy(two.copy()).permute(2, 0, 1))
flows = list(featherflow.stream([one, two, one]))
for name in ("a.flo", "a.pfm", "a.npz", "a.npy", "a.png"):
    featherflow.write_flow(name, flow)
    found = featherflow.read_flow(name)
    assert np.abs(found - flow).max() <= (1 / 64 if name.endswith("png") else 0), name
assert featherflow.flow_to_rgb(flow).shape == (128, 192, 3)
Image.fromarray(one).save("one.png")
Image.fromarray(two).save("two.png")
assert np.abs(forward + backward)[8:-8, 8:-8].mean() < 1 and len(flows) == 2 and max(errors.values()) < 0.5, errors
print(json.dumps({"errors": errors, "versions": {name: version(name) for name in sys.argv[1:]}}))
"""
COMMANDS = (
    ("estimate", "one.png", "two.png", "-o", "again.flo", "--picture", "picture.png", "--backward", "--occlusion"),
    ("models", "--json"),
    ("weights", "show", "liteflownet2"),
    ("estimate", "--help"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip is asked for")
    parser.add_argument("--json", type=Path, help="file for all figures")
    arguments = parser.parse_args()
    bounds = lower_bounds()
    names = ["torch", *(name for name in bounds if name != "torch")]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
        for number, python in enumerate(arguments.python):
            for which in ("oldest", "newest"):
                pins = [f"{name}=={bound}" for name, bound in bounds.items() if name != "torch"] if which == "oldest" else []
                place = Path(folder) / f"{number}-{which}"
                rows.append({"python": python, "which": which} | tried(python, place, wheel, [arguments.torch, *pins], names))
                print(f"{python}, {which}: {rows[-1]['result']}", file=sys.stderr, flush=True)
        too_large = wheel.stat().st_size > LARGEST
    print("| | Python |", " | ".join(names), "| demo, EPE [px] | result |")
    print("| --- | --- |", " | ".join("---" for _ in names), "| ---: | --- |")
    for row in rows:
        versions = [row.get("versions", {}).get(name, "") for name in names]
        print(
            "|", " | ".join([row["which"], row.get("python_version", ""), *versions, str(row.get("demo", "")), row["result"]]), "|"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if too_large or any(row["result"] != "works" for row in rows):
        raise SystemExit("The wheel is larger than 40 MB." if too_large else 1)


def lower_bounds() -> dict[str, str]:
    """The least version of each dependency of the core, by `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(re.fullmatch(r"([\w-]+)>=([\w.]+)", entry).groups() for entry in project["dependencies"])


def tried(python: str, place: Path, wheel: Path, wanted: list[str], names: list[str]) -> dict[str, object]:
    """What came of the wheel in an environment of its own: versions, figures and "works", or the last line of what failed."""
    place.mkdir()
    inside, work = place / "venv/bin", place / "work"
    work.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str | Path) -> str:
        done = subprocess.run([str(part) for part in command], cwd=work, capture_output=True, text=True, env=clean)
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise RuntimeError(f"{Path(command[0]).name} {command[1]}: {words[-1]}")
        return done.stdout

    found: dict[str, object] = {}
    try:
        found["python_version"] = run(python, "-c", "import platform; print(platform.python_version())").strip()
        run(python, "-m", "venv", place / "venv")
        run(inside / "python", "-m", "pip", "install", "--quiet", wheel, *wanted)
        found |= json.loads(run(inside / "python", "-W", "error::DeprecationWarning:featherflow", "-c", CALLS, *names))
        told = run(inside / "featherflow", "demo", "demo")
        found["demo"] = float(re.search(r"End-point error ([\d.]+) px", told).group(1))
        for command in COMMANDS:
            run(inside / "featherflow", *command)
    except (RuntimeError, AttributeError) as error:
        return found | {"result": str(error)}
    return found | {"result": "works"}


if __name__ == "__main__":
    main()
