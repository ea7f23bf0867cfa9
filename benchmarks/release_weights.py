"""Turn a training run into a released weight file, with its figures on real pairs measured at this moment.

    python benchmarks/release_weights.py runs/tied --tag procedural --validate ../shared/data \
        -o src/featherflow/weights/bundled/liteflownet-tied-procedural.safetensors

Everything that a user should know of the weights goes into the file: recipe and its numbers, data, samples seen, scores,
licences, commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
from pathlib import Path

import torch

from featherflow import networks
from featherflow.training.validation import Validator
from featherflow.weights.store import read_weights, save_weights

DATA = (
    "procedural pairs rendered by featherflow; surfaces from photographs under CC BY 2.0 (TensorFlow flower_photos), CC BY 4.0 "
    "and Unsplash (google/dreambooth), CC0 and public domain (pexels, elementary wallpapers), BSD-2-Clause (brighton_beach), "
    "and from drawn textures; no research-only and no share-alike image"
)

#: Frames of fewer pixels are seen at twice their size: the finest flow stands on a quarter of the grid.
ENLARGE_BELOW = 120_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--tag", default="procedural")
    parser.add_argument("--validate", required=True, help="folder of real pairs")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--before", type=int, default=0, help="samples seen by the weights that the run began with")
    parser.add_argument(
        "--rest-in", default="", help="weights beside OUTPUT, as liteflownet2:procedural, whose tensors are left out"
    )
    options = parser.parse_args()

    # As they will be used: what the run wrote is rounded to half precision.
    state, info = read_weights(options.run / "weights.safetensors")
    recipe = torch.load(options.run / "checkpoint.pt", map_location="cpu", weights_only=True)["recipe"]
    told = ("name", "network", "options", "augmentation")  # elsewhere in the file; pairs that are rendered are not augmented
    numbers = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in told and value not in ((), ""))
    info = dataclasses.replace(
        info,
        tag=options.tag,
        recipe=f"{recipe['name']}: {numbers}",
        data=DATA,
        samples_seen=info.samples_seen + options.before,
        enlarge_below=ENLARGE_BELOW,
        licence_code="Apache-2.0",
        licence_weights="Apache-2.0",
        source="trained by the featherflow authors",
        commit=subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip(),
    )
    network = networks.build(info.architecture, **info.options)
    network.load_state_dict(state)
    network.weights_info = info
    scores = Validator([options.validate], "cpu")(network)
    info = dataclasses.replace(info, scores={"epe_px_per_image": scores}, rest_in=options.rest_in)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(options.output, state, info, dtype=torch.float16)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB, {info.samples_seen:,} samples")
    for group, value in scores.items():
        print(f"  {group:14s} {value:.3f} px (per_image)")


if __name__ == "__main__":
    main()
