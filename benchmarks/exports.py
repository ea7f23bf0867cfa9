"""Which network can be exported to which format, and how far is each file from PyTorch?

    python benchmarks/exports.py [NETWORK ...] [--dynamic] [--octaves N]

Random weights, 2 iterations where a network iterates. A file for one size takes frames of 150x100 px, with resizing or padding
inside, and is compared on two pairs; with --dynamic it leaves height and width free and is compared on two sizes. Prints the
largest difference [px] as a Markdown table, row by row, and on standard error why a file was refused and how long each took.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from featherflow import networks
from featherflow.errors import FeatherflowError
from featherflow.inference import exporting
from featherflow.inference.runners import graphs, onnx, openvino

SIZE = (100, 150)
FEW = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=networks.names())
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--octaves", type=int, help="for networks of the LiteFlowNet family")
    options = parser.parse_args()
    formats = exporting.FREE_SIZES if options.dynamic else tuple(exporting.FORMATS)
    print(f"| network | {' | '.join(formats)} |\n| --- |{' ---: |' * len(formats)}")
    for name in options.networks:
        share_capture()
        network = networks.untrained(name)
        cells = []
        for format in formats:
            started = time.perf_counter()
            try:
                cells.append(f"{worst(network, format, options.dynamic, options.octaves):.1g}")
            except FeatherflowError as error:
                cells.append("no")
                print(f"{name}, {format}: {error}", file=sys.stderr, flush=True)
            print(f"{name}, {format}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def worst(network: networks.FlowNetwork, format: str, dynamic: bool, octaves: int | None = None) -> float:
    """Largest difference of a file from PyTorch [px]."""
    run = networks.RunOptions(FEW if network.traits.iterates else None, octaves)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"flow{exporting.FORMATS[format]}"
        done = exporting.export(network, path, size=None if dynamic else SIZE, dynamic=dynamic, options=run)
        return max(done.differences.values())


def share_capture() -> None:
    """Capture the next network once for all formats: that is most of the time."""
    captured = []

    def exported_program(*args):
        if not captured:
            try:
                captured.append(graphs.exported_program(*args))
            except Exception as error:  # exporters raise whatever they stumble over
                captured.append(error)
        if isinstance(captured[0], Exception):
            raise captured[0]
        return captured[0]

    for user in (exporting, onnx, openvino):
        user.exported_program = exported_program


if __name__ == "__main__":
    main()
