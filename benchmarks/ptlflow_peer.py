r"""The toolbox ptlflow as a peer of `featherflow bench`, in an environment of its own.

    python3 -m venv ptl && ptl/bin/pip install torch numpy scipy pillow einops loguru opencv-python-headless lightning && \
        ptl/bin/pip install --no-deps ptlflow
    featherflow bench liteflownet2 --against "ptl/bin/python benchmarks/ptlflow_peer.py --model liteflownet2"

With its compiled correlation sampler, which it takes where it finds it (the source archive builds without CUDA once its setup.py
says `CPU_ONLY = True` and `c++20`, and correlation_sampler.cpp includes CUDAGuard.h only `#ifdef USE_CUDA`):

    ptl/bin/pip install --no-build-isolation --no-deps --target ptl-sampler ./spatial_correlation_sampler-0.5.0
    featherflow bench liteflownet2 --against \
        "env PYTHONPATH=ptl-sampler ptl/bin/python benchmarks/ptlflow_peer.py --model liteflownet2"

It times the model's forward with ptlflow's own fitting of sizes, from a float tensor in [0, 1], with random weights. Only the
module of the model is imported, not the whole toolbox, whose other models need much more than a forward pass of this one does.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
import types

import numpy as np
import torch
from PIL import Image

MODELS = {
    "liteflownet": ("liteflownet.liteflownet", "LiteFlowNet"),
    "liteflownet2": ("liteflownet.liteflownet2", "LiteFlowNet2"),
    "pwcnet": ("pwcnet.pwcnet", "PWCNet"),
    "raft_small": ("raft.raft", "RAFTSmall"),
    "fastflownet": ("fastflownet.fastflownet", "FastFlowNet"),
    "rapidflow_it3": ("rapidflow.rapidflow", "RAPIDFlow_it3"),
    "rapidflow_it6": ("rapidflow.rapidflow", "RAPIDFlow_it6"),
    "neuflow2": ("neuflow2.neuflow2", "NeuFlow2"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="liteflownet2", choices=MODELS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("frames", nargs=2)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module, name = MODELS[options.model]
    network = getattr(import_model(module), name)().eval()
    frames = [torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float() / 255 for path in options.frames]
    images = torch.stack(frames)[None]

    def estimate() -> None:
        with torch.inference_mode():
            network({"images": images})["flows"]

    estimate()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        estimate()
        print(f"{1000 * (time.perf_counter() - started):.3f}", flush=True)


def import_model(module: str):
    """A model's module, with the packages above it in place but their own imports left out."""
    root = importlib.util.find_spec("ptlflow").submodule_search_locations[0]
    for package in ("ptlflow", "ptlflow.models", f"ptlflow.models.{module.split('.')[0]}"):
        shell = types.ModuleType(package)
        shell.__path__ = ["/".join([root, *package.split(".")[1:]])]
        sys.modules[package] = shell
    return importlib.import_module(f"ptlflow.models.{module}")


if __name__ == "__main__":
    main()
