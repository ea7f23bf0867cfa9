"""Files for the evaluation servers of the benchmarks whose test flows are secret; written, read again and checked.

| benchmark   | what is written                                                                                          |
|-------------|----------------------------------------------------------------------------------------------------------|
| `sintel`    | folder with `{clean,final}/SEQ/frameNNNN.flo` (no underscore), as the benchmark's bundler takes it       |
| `kitti2012` | zip with `NNNNNN_10.png`, 16-bit PNG                                                                     |
| `kitti2015` | zip with `flow/NNNNNN_10.png`, 16-bit PNG                                                                |
| `spring`    | folder with `SEQ/flow_{FW,BW}_{left,right}/flow_FW_left_NNNN.flo5`, as the benchmark's subsampler takes it |
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.benchmarks import BENCHMARKS, Pair, find_pairs
from ..errors import FileError, InputError
from ..files import atomic_write
from ..flow import read_flow, write_flow
from ..images import read_image
from .benchmark import Dataset, Method
from .figures import kitti_rounded

#: Benchmark to the split that is submitted and the suffix of its files.
SUBMISSIONS = {
    "sintel": ("test", ".flo"),
    "kitti2012": ("testing", ".png"),
    "kitti2015": ("testing", ".png"),
    "spring": ("test", ".flo5"),
}
_NEXT = {
    "sintel": "next: run the benchmark's bundler on its folders clean and final, and upload what that writes",
    "kitti2012": "next: upload it",
    "kitti2015": "next: upload it",
    "spring": "next: run the benchmark's flow_subsampling in it, and upload what that writes",
}
# Zip files carry times; with a fixed one, equal flows give equal bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class SubmissionReport:
    """What was written and read again without fault."""

    benchmark: str
    path: str
    flows: int
    #: Flows that the full test set has; None where that is no fixed number here.
    expected: int | None
    #: Share of flow components that lay beyond what the format holds and were clipped.
    clipped: float

    @property
    def complete(self) -> bool:
        """False where it is known that pairs are missing, which a server would refuse."""
        return self.expected is None or self.flows == self.expected

    def sentence(self) -> str:
        """One line for a person."""
        of = "" if self.expected is None else f" of {self.expected}"
        state = _NEXT[self.benchmark] if self.complete else "incomplete: a server would refuse it"
        clipped = f", {100 * self.clipped:.3g} % of all values clipped to what the format holds" if self.clipped else ""
        return f"{self.path}: {self.flows}{of} flows of {self.benchmark}, written and read again{clipped}; {state}."


def entry_name(benchmark: str, pair: Pair) -> str:
    """Where a pair's flow lies in the submission, e.g. "clean/ambush_1/frame0001.flo".

    Raises:
        InputError: for a benchmark without a submission format here.
    """
    if benchmark == "sintel":
        sequence, frame = pair.name.split("/")
        return f"{pair.group.removeprefix('sintel-')}/{sequence}/{frame.replace('_', '')}.flo"
    if benchmark == "kitti2012":
        return f"{pair.name}_10.png"
    if benchmark == "kitti2015":
        return f"flow/{pair.name}_10.png"
    if benchmark == "spring":
        sequence, direction, number = pair.name.split("/")
        return f"{sequence}/{direction}/{direction}_{number}.flo5"
    raise InputError(f"There is no submission format of '{benchmark}'; there are those of {', '.join(SUBMISSIONS)}.")


def write_submission(
    benchmark: str,
    root: str | os.PathLike[str],
    target: str | os.PathLike[str],
    method: Method,
    progress: Callable[[int, int], None] | None = None,
) -> SubmissionReport:
    """Estimate the test pairs of a benchmark and write them as its server takes them; then read everything again.

    Args:
        benchmark: one of `SUBMISSIONS`. root: where the benchmark lies, in its own layout.
        target: a `.zip` file for KITTI, a new or empty folder for the others.
        progress: called with (pairs done, pairs in all).

    Raises:
        InputError: for another benchmark, a target of the wrong kind, or a flow that is not finite or of another size.
        FileError: as `find_pairs`; if a file cannot be written, or is not what was estimated when read again.
    """
    if benchmark not in SUBMISSIONS:
        raise InputError(f"There is no submission format of '{benchmark}'; there are those of {', '.join(SUBMISSIONS)}.")
    target = Path(target)
    packed = benchmark.startswith("kitti")
    _check_target(benchmark, target, packed)
    pairs = list(find_pairs(benchmark, root, SUBMISSIONS[benchmark][0]))
    if packed:
        with tempfile.TemporaryDirectory(prefix="featherflow-") as folder, atomic_write(target) as file:
            clipped = _write_flows(benchmark, pairs, Path(folder), method, progress)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted(entry_name(benchmark, pair) for pair in pairs):
                    archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), (Path(folder) / name).read_bytes())
    else:
        clipped = _write_flows(benchmark, pairs, target, method, progress)
    report = check_submission(benchmark, root, target)
    return SubmissionReport(benchmark, str(target), report.flows, report.expected, clipped)


def submit_one(
    methods: Mapping[str, Method],
    datasets: Sequence[Dataset],
    target: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> SubmissionReport:
    """`write_submission` of the only method on the only data set.

    Raises:
        InputError: if there is not one of each, or as `write_submission`; FileError likewise.
    """
    if len(methods) != 1 or len(datasets) != 1:
        raise InputError(f"A submission takes one method and one data set, got {len(methods)} and {len(datasets)}.")
    return write_submission(datasets[0].name, datasets[0].root, target, next(iter(methods.values())), progress)


def _check_target(benchmark: str, target: Path, packed: bool) -> None:
    if packed and target.suffix.lower() != ".zip":
        raise InputError(f"'{target}' must end in .zip: {benchmark} takes one zip file.")
    if not packed and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"'{target}' must be a new or empty folder: what lies there would be submitted too.")


def _write_flows(benchmark: str, pairs: list[Pair], folder: Path, method: Method, progress) -> float:
    clipped = values = 0
    for index, pair in enumerate(pairs):
        if progress:
            progress(index, len(pairs))
        example = pair.read()
        flow = np.asarray(method(example.frame1, example.frame2), np.float32)
        if flow.shape != (*example.frame1.shape[:2], 2) or not np.isfinite(flow).all():
            size = f"{example.frame1.shape[1]}x{example.frame1.shape[0]}"
            raise InputError(f"The flow of {pair.group} {pair.name} must be finite and {size} px, got {flow.shape}.")
        stored = kitti_rounded(flow) if benchmark.startswith("kitti") else flow
        clipped += int((np.abs(stored - flow) > 0.01).sum())
        values += flow.size
        path = folder / entry_name(benchmark, pair)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder '{path.parent}' cannot be made: {error.strerror}.") from None
        write_flow(path, stored)
        again = read_flow(path)
        if not np.array_equal(again, stored):
            raise FileError(f"'{path}' does not hold what was written to it; is the disk sound?")
    if progress:
        progress(len(pairs), len(pairs))
    return clipped / max(values, 1)


def check_submission(benchmark: str, root: str | os.PathLike[str], target: str | os.PathLike[str]) -> SubmissionReport:
    """Hold a submission against the benchmark's test frames: every flow there, none too many, dense and of its frame's size.

    Raises:
        InputError, FileError: naming the first flow that is missing, too many, or not what the server takes.
    """
    pairs = {entry_name(benchmark, pair): pair for pair in find_pairs(benchmark, root, SUBMISSIONS[benchmark][0])}
    target = Path(target)
    with tempfile.TemporaryDirectory(prefix="featherflow-") as folder:
        if target.suffix.lower() == ".zip":
            names = _unpack(target, Path(folder))
            base = Path(folder)
        else:
            names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
            base = target
        missing, extra = sorted(set(pairs) - set(names)), sorted(set(names) - set(pairs))
        if missing or extra:
            what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which belongs to no test pair"
            raise FileError(f"'{target}' {what}.")
        for name, pair in sorted(pairs.items()):
            _check_flow(benchmark, target, name, base / name, read_image(pair.frame1).shape[:2])
    split = SUBMISSIONS[benchmark][0]
    counts = [count for (part, _), count in BENCHMARKS[benchmark].published.items() if part == split]
    return SubmissionReport(benchmark, str(target), len(pairs), sum(counts) or None, 0.0)


def _unpack(target: Path, folder: Path) -> list[str]:
    try:
        with zipfile.ZipFile(target) as archive:
            names = archive.namelist()
            strange = next((name for name in names if not re.fullmatch(r"(flow/)?\d{6}_10\.png", name)), None)
            if strange is not None:
                raise FileError(f"'{target}' holds {strange!r}, which belongs to no test pair.")
            archive.extractall(folder)
    except FileNotFoundError:
        raise FileError(f"There is no file '{target}'.") from None
    except zipfile.BadZipFile as error:
        raise FileError(f"'{target}' is no sound zip file: {error}.") from None
    return names


def _check_flow(benchmark: str, target: Path, name: str, path: Path, size: tuple[int, int]) -> None:
    try:
        flow = read_flow(path)
    except FileError as error:
        raise FileError(f"'{target}', {name}: {str(error).replace(str(path), 'the file')}") from None
    if flow.shape[:2] != size:
        raise FileError(f"'{target}', {name} is {flow.shape[1]}x{flow.shape[0]} px, but its frame is {size[1]}x{size[0]} px.")
    if np.isnan(flow).any():
        raise FileError(f"'{target}', {name} has unknown pixels; {benchmark} takes dense flow only.")
