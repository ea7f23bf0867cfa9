"""Kills commands of featherflow at random moments, and looks at what they leave.

    python benchmarks/kill_verbs.py --kills 10
    python benchmarks/kill_verbs.py --only train --seed 3

Each command is run once in full, which gives its time and its files. Then it is killed (SIGKILL) again and again in one folder:
every other time at any moment of that time, else within 50 ms of its first temporary file; with `--writing` always when one of its
first `--moments` temporary files is there, and only kills count that left one. After each kill all files under final names are
read: a half-written one is "torn". Then the command is run in full: it has to succeed, and temporary files that are there
afterwards are "stale". Commands run in forked processes, so that the start of Python, in which nothing is written, takes no time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Verb:
    """A command that is killed."""

    words: tuple[str, ...]
    #: How files are held against those of the first run: "bytes", "content" (what is read from them), or "read": that they can be.
    like: str = "bytes"


def verbs(place: Path) -> dict[str, Verb]:
    """The commands by name; their inputs are written into `place`, their results go into the folder that is current."""
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((480, 320), Image.Resampling.BICUBIC)
    (place / "clip").mkdir()
    for number in range(4):
        noise.transform(noise.size, Image.Transform.AFFINE, (1, 0, 2 * number, 0, 1, number)).save(place / f"clip/{number}.png")
    for number in range(2):
        Image.open(place / f"clip/{number}.png").crop((0, 0, 64, 64)).save(place / f"small{number}.png")
    _run(("video", str(place / "clip"), "-o", str(place / "clip.mkv"), "--model", "dis", "--codec", "mpeg4"), place)
    _code(_forked(lambda: _checkpoint(place / "spynet.pth")))
    one, two = str(place / "clip/0.png"), str(place / "clip/1.png")
    _code(_forked(lambda: _weights(place / "small.safetensors")))
    network = ("--weights", str(place / "small.safetensors"))  # of few layers: exporters take half a minute for a whole network
    small = (str(place / "small0.png"), str(place / "small1.png"), "--model", "liteflownetx", *network)
    numbers = ("height=64", "width=64", "batch=2", "chunks=1")
    sets = tuple(word for number in numbers for word in ("--set", number))
    dis = ("--model", "dis")
    assert torch.get_num_threads() == 1, "run it with OMP_NUM_THREADS=1: threads do not survive a fork"
    return {
        "estimate": Verb(("estimate", one, two, "-o", "a.flo", "--picture", "a.png", "--backward", "--occlusion", *dis)),
        "video": Verb(("video", str(place / "clip"), "-o", "a.mp4", "--flow-dir", "flows", "--codec", "mpeg4", *dis)),
        "interpolate": Verb(
            ("interpolate", str(place / "clip.mkv"), "-o", "a.mkv", "--codec", "mpeg4", "--factor", "2", *dis), "content"
        ),
        "piv": Verb(
            ("piv", one, two, "-o", "a.csv", "-o", "a.vti", "-o", "a.nc", "--quiver", "a.png", "--model", "dis"), "content"
        ),
        "weights import": Verb(
            ("weights", "import", str(place / "spynet.pth"), "--as", "spynet:a", "-o", "a.safetensors"), "content"
        ),
        "data pack": Verb(
            ("data", "pack", str(place / "clip"), "-o", "a.st", "--drawn", "4", "--particles", "1", "--size", "64"), "content"
        ),
        "export": Verb(("export", "liteflownetx", *network, "-o", "a.xml", "--height", "64", "--width", "64"), "content"),
        "export torchscript": Verb(
            ("export", "liteflownetx", *network, "-o", "a.pt", "--height", "64", "--width", "64"), "content"
        ),
        "engine build": Verb(("estimate", *small, "-o", "a.flo", "--engine", "onnx", "--dtype", "float32"), "content"),
        "train": Verb(("train", "modern/liteflownetx", "--run", ".", "--samples", "4", *sets), "read"),
    }


def _checkpoint(path: Path) -> None:
    import torch

    from featherflow import networks

    torch.save(networks.untrained("spynet").state_dict(), path)


def _weights(path: Path) -> None:
    from featherflow import networks
    from featherflow.weights.store import WeightsInfo, save_weights

    options = {"features": ((2,),) * 6, "subpixel": (1,), "regularization": (1,), "expanded_features": 1}
    network = networks.untrained("liteflownetx", **options)
    save_weights(path, network.state_dict(), WeightsInfo("liteflownetx", "a", options=options))


def _forked(work: Callable[[], object], folder: Path | None = None) -> int:
    """Start `work` in a process of its own; gives its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        log = os.open(os.environ["KILLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if folder is not None:
            os.chdir(folder)
            os.environ["FEATHERFLOW_HOME"] = str(folder / "home")
        work()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _code(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def _start(words: tuple[str, ...], folder: Path) -> int:
    from featherflow.cli import main

    return _forked(lambda: main(words), folder)


def _run(words: tuple[str, ...], folder: Path) -> None:
    if code := _code(_start(words, folder)):
        sys.exit(f"featherflow {' '.join(words)} ended with {code}; see {os.environ['KILLS_LOG']}")


def _files(folder: Path) -> dict[str, Path]:
    """Final files by name; locks and temporary files are none."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in found}
    return {name: path for name, path in names.items() if not any(part.startswith(".") for part in Path(name).parts)}


def _temporary(folder: Path) -> list[Path]:
    return list(folder.rglob(".featherflow-*"))


def _read(path: Path) -> object:
    """Read a file to its end: something that files which are alike have in common. Raises where it is not whole."""
    if path.suffix in (".mkv", ".mp4"):
        import av

        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    if path.suffix in (".safetensors", ".st"):
        from safetensors.torch import load_file

        return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
    if path.suffix == ".png":
        from PIL import Image

        Image.open(path).load()
    if path.suffix == ".xml":
        import openvino

        return len(openvino.Core().read_model(path).get_ops())
    if path.name == "build.json":
        from featherflow.inference.runners import builds

        assert builds.find(path.parent.name), f"{path} is no sound build"  # compares the digests of all its files
    if path.suffix == ".vti":
        return path.stat().st_size
    if path.suffix == ".nc":
        import h5py

        with h5py.File(path) as file:
            return {name: file[name][()].shape for name in file}
    if path.suffix == ".pt":
        import torch

        return sorted(torch.load(path, weights_only=True)) if path.stem == "checkpoint" else torch.jit.load(path).code
    return path.suffix


def _torn(verb: Verb, folder: Path, whole: Path) -> list[str]:
    """Names of files that are not as a run in full wrote them into the folder `whole`."""

    def compare(path: Path, other: Path) -> None:
        content = Path.read_bytes if verb.like == "bytes" else _read
        found = content(path)
        assert verb.like == "read" or found == content(other), f"{path} is not like {other}"

    return [name for name, path in _files(folder).items() if _code(_forked(lambda p=path, n=name: compare(p, whole / n), folder))]


def kill(verb: Verb, kills: int, draw: random.Random, writing: int = 0) -> str:
    """Kill a command so often; what was found, in one line. `writing`: while it writes, at one of so many moments."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        began = time.monotonic()
        _run(verb.words, Path(first))
        seconds = time.monotonic() - began
        torn, failed, stale, left, killed, tries = [], 0, 0, 0, 0, 0
        while killed < kills and tries < 4 * kills:
            tries += 1
            folder = Path(second)
            before = set(_temporary(folder))
            number, early = _start(verb.words, folder), bool(writing) or killed % 2 == 0
            seen, moment = set(), draw.randint(1, max(writing, 1))  # a moment: another temporary file than before
            end = time.monotonic() + (4 * seconds if early else draw.uniform(0, seconds))
            over = False
            while time.monotonic() < end and not over and not (early and len(seen) >= moment and seen & set(_temporary(folder))):
                time.sleep(0 if writing else 0.001)
                seen |= set(_temporary(folder)) - before
                over = os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            if early and not writing:
                time.sleep(draw.uniform(0, 0.05))
            os.kill(number, signal.SIGKILL)
            if _code(number) != -signal.SIGKILL:  # it was done before
                continue
            if writing and not _temporary(folder):
                continue
            killed += 1
            left += bool(_temporary(folder))
            torn += _torn(verb, folder, Path(first))
            failed += _code(_start(verb.words, folder)) != 0
            stale += len(_temporary(folder))
            torn += _torn(verb, folder, Path(first))
    what = f"{killed} kills of {seconds:.1f} s, {left} with a temporary file left"
    return f"{what}: torn {sorted(set(torn)) or 0}, stale {stale}, repeats that failed {failed}"


def _prepare() -> None:
    """Load what commands need, once, before the forks; exporters load half of it with their first network."""
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401
    import torch

    from featherflow import cli, data, inference, training, video, weights  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(torch.nn.Conv2d(1, 1, 1), (torch.zeros(1, 1, 4, 4),), dynamo=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", action="append", help="a command; may be given several times")
    parser.add_argument("--writing", action="store_true", help="kill while a temporary file is there")
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _prepare()
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("KILLS_LOG", f"{place}/log")
        found = verbs(Path(place))
        for name in arguments.only or found:
            draw, writing = random.Random(f"{arguments.seed} {name}"), arguments.moments if arguments.writing else 0
            print(f"{name}: {kill(found[name], arguments.kills, draw, writing)}", flush=True)


if __name__ == "__main__":
    main()
