"""How far flow in tiles is from flow of the whole frame, and which of the two is nearer to the truth.

    python benchmarks/tiles.py PAIRS [--model liteflownet2-slim] [--tile 1024x768]

PAIRS is a folder of real pairs in the layout of `featherflow.evaluation.samples`; each is enlarged to 1920x1080, its true flow too.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F

import featherflow
from featherflow.evaluation import Dataset
from featherflow.frames import as_batch

SIZE = (1080, 1920)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--model", default="liteflownet2-slim")
    parser.add_argument("--tile", default="1024x768")
    parser.add_argument("--limit", type=int, default=1, help="pairs of each group")
    options = parser.parse_args()
    print("| pair at 1920x1080 | mean length [px] | tiled - whole: mean | median | EPE whole | EPE tiled |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    seen: dict[str, int] = {}
    for pair in Dataset.parse(f"samples={options.pairs}").pairs():
        seen[pair.group] = seen.get(pair.group, 0) + 1
        if seen[pair.group] > options.limit:
            continue
        example = pair.read()
        height, width = example.flow.shape[:2]
        first, second = (F.interpolate(as_batch(f), SIZE, mode="bicubic").clamp(0, 1) for f in (example.frame1, example.frame2))
        scale = torch.tensor([SIZE[1] / width, SIZE[0] / height]).view(1, 2, 1, 1)
        truth = F.interpolate(torch.from_numpy(example.flow).permute(2, 0, 1)[None], SIZE, mode="nearest") * scale
        valid = truth.isfinite().all(dim=1) & (truth.abs() < 1e6).all(dim=1)
        if example.valid is not None:
            known = torch.from_numpy(example.valid.astype("float32"))[None, None]
            valid &= F.interpolate(known, SIZE, mode="nearest")[:, 0] > 0.5
        whole = featherflow.estimate(first, second, model=options.model, tile=None)
        tiled = featherflow.estimate(first, second, model=options.model, tile=options.tile)
        apart = (tiled - whole).norm(dim=1)
        errors = [(flow - truth).norm(dim=1)[valid].mean() for flow in (whole, tiled)]
        cells = [truth.norm(dim=1)[valid].mean(), apart.mean(), apart.median(), *errors]
        print(f"| {pair.group} {pair.name} | " + " | ".join(f"{float(cell):.3f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
