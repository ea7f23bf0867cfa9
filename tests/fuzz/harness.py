"""Fuzzing by mutation: every reader of files and requests is given damaged inputs, and may only return or raise errors of ours.

    cd tests
    python -m fuzz.harness --inputs 100000                 # so many inputs for each reader
    python -m fuzz.harness --minutes 10 --only torch7      # or for so long
    python -m fuzz.harness --only videos --seed 7 --first 120 --inputs 1   # one input again

With both, each reader has its part of the time, and what one does not need goes to those after it. Files are written into memory
where the system has a file system there (`/dev/shm`), since a disk takes longer than most readers.

Reports for each reader: inputs, how many were still read, the slowest [s], and growth of the process's memory [MiB]. An exception
that is not ours, or an input of more than 5 s of a processor, ends it with an exit code of 1 and the command that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featherflow.errors import FeatherflowError, printable

from .corpus import Reader, readers

_IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # None: where the system puts temporary files
SLOWEST = 5.0  # s of a processor that one input may take
_HANGS = 60.0  # s on the clock: more is no busy machine
_DIGIT = re.compile(rb"[0-9]")
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)


@dataclass
class Figures:
    """What fuzzing one reader gave."""

    inputs: int = 0
    read: int = 0
    slowest: float = 0.0
    memory: float = 0.0
    #: What was wrong with the first input that was.
    fault: str = ""


def mutated(seeds: tuple[bytes, ...], number: int, seed: int) -> bytes:
    """Input `number` of a run: a function of its arguments alone."""
    draw = random.Random(f"{seed} {number}")
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5, 10))):
        _damage(data, draw, seeds)
    return bytes(data)


def _damage(data: bytearray, draw: random.Random, seeds: tuple[bytes, ...]) -> None:
    """One change: bits, bytes, numbers, pieces that are lost, doubled, filled, or taken from another seed."""
    if not data:
        data += draw.randbytes(draw.randint(1, 20))
        return
    at, kind = draw.randrange(len(data)), draw.randrange(9)
    length = min(draw.choice((1, 2, 4, 8, 16, 64, 512)), len(data) - at)
    if kind == 0:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        data[at] = draw.randrange(256)
    elif kind == 2:
        size = min(draw.choice((1, 2, 4, 8)), len(data) - at)
        number = draw.choice(_NUMBERS) & ((1 << 8 * size) - 1)
        data[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
    elif kind == 5:
        data[at : at + length] = bytes([draw.choice((0, 0xFF, 0x20, 0x39, 0x5B))]) * length
    elif kind == 6:
        del data[at:]
    elif kind == 7:
        other = draw.choice(seeds)
        start = draw.randrange(len(other))
        data[at : at + length] = other[start : start + length]
    else:
        digit = _DIGIT.search(data, at) or _DIGIT.search(data)
        if digit:
            data[digit.start()] = draw.choice(b"0123456789-.eE")


def run(name: str, reader: Reader, seed: int, first: int, count: int | None, seconds: float | None) -> Figures:
    """Give a reader inputs until one of the limits is reached, or one input is wrong."""
    figures = Figures()
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as place, _silence():
        folder = Path(place)
        for data in reader.seeds:  # what is imported with the first input counts for none
            with contextlib.suppress(FeatherflowError):
                reader.read(data, folder)
        started, before = time.monotonic(), _memory()
        while (count is None or figures.inputs < count) and (seconds is None or time.monotonic() - started < seconds):
            number = first + figures.inputs
            data = mutated(reader.seeds, number, seed)
            begun, busy = time.monotonic(), time.process_time()
            try:
                figures.read += reader.read(data, folder) is not None
            except FeatherflowError as error:
                if printable(str(error)) != str(error):
                    figures.fault = f"a message that is not safe to print: {str(error)[:200]!r}"
            except Exception as error:
                figures.fault = f"{type(error).__name__}: {str(error)[:200]}"
            took, waited = time.process_time() - busy, time.monotonic() - begun
            figures.inputs += 1
            figures.slowest = max(figures.slowest, took)
            if took > SLOWEST or waited > _HANGS:
                figures.fault = figures.fault or f"{took:.1f} s of a processor in {waited:.1f} s"
            if figures.fault:
                figures.fault += f" (python -m fuzz.harness --only '{name}' --seed {seed} --first {number} --inputs 1)"
                break
    figures.memory = _memory() - before
    return figures


def _memory() -> float:
    """The most memory that the process has held [MiB]."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the remarks that decoders print on damaged files."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImportError):
            import av.logging

            av.logging.set_level(None)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, help="inputs for each reader")
    parser.add_argument("--minutes", type=float, help="time for all readers together")
    parser.add_argument("--only", action="append", help="a reader; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args()
    if arguments.inputs is None and arguments.minutes is None:
        arguments.minutes = 1.0
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        found = readers(Path(folder))
        chosen = {name: found[name] for name in arguments.only or found}
        end = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
        print(f"{'reader':16} {'inputs':>9} {'read':>9} {'slowest s':>9} {'MiB more':>9}", flush=True)
        for done, (name, reader) in enumerate(chosen.items()):
            seconds = None if end is None else (end - time.monotonic()) / (len(chosen) - done)
            got = run(name, reader, arguments.seed, arguments.first, arguments.inputs, seconds)
            print(f"{name:16} {got.inputs:9,} {got.read:9,} {got.slowest:9.2f} {got.memory:9.0f}  {got.fault}", flush=True)
            faults += bool(got.fault)
    return min(faults, 1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
