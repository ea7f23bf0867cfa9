"""`python -m featherflow.training RECIPE ...`: training with torch, NumPy, Pillow, safetensors and rich alone."""

from __future__ import annotations

import argparse
import sys

from ..errors import FeatherflowError
from .command import train


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m featherflow.training",
        description="Train a network, on procedural pairs or on benchmarks.",
        epilog="example: python -m featherflow.training modern/liteflownet2 --photos photos/ --run runs/first --minutes 30",
    )
    parser.add_argument("recipe", help="name of a recipe, e.g. modern/liteflownet2")
    # torchrun takes what its own options begin with for its own: --run, --start. Hence the second names.
    parser.add_argument("--run", "--folder", required=True, help="folder of the run; a checkpoint in it is continued")
    parser.add_argument("--photos", action="append", default=[], help="folder of photos for textures; may be repeated")
    parser.add_argument("--textures", help="packed texture file in place of --photos")
    parser.add_argument("--minutes", type=float, help="length of this piece")
    parser.add_argument("--samples", type=int, help="length of this piece in samples")
    parser.add_argument("--data", action="append", default=[], metavar="KIND=ROOT", help="benchmark to read pairs from")
    parser.add_argument("--validate", action="append", help="folder of real pairs to watch, or KIND=ROOT")
    parser.add_argument("--validate-every", type=float, default=15.0, help="minutes between validations")
    parser.add_argument("--start", "--weights", help="weights to begin a new run with: a file or a name")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="take only these tensors of --start")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a number of the recipe")
    parser.add_argument("--state-shards", help="folder of small files that the full state is kept in too")
    parser.add_argument("--tensorboard", action="store_true", help="write curves to RUN/tensorboard")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--threads", type=int, default=4, help="how many decode pairs that are read")
    parser.add_argument("--device", default=None)
    options = vars(parser.parse_args(arguments))
    options["changes"] = options.pop("set")
    try:
        train(**options)
    except FeatherflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the last checkpoint is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
