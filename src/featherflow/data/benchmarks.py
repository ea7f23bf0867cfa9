"""Readers of the public benchmarks, each in the folder layout in which it is distributed.

    for pair in find_pairs("sintel", "MPI-Sintel"):        # paths only; nothing is decoded yet
        example = pair.read()                              # one pair in memory
        print(pair.group, pair.name, example.flow.shape)

Below each root, with the splits in brackets:

sintel (training, test)
    training/{clean,final}/SEQ/frame_NNNN.png, training/flow/SEQ/frame_NNNN.flo; masks of the same form in
    training/{occlusions,invalid}/, which may be absent; test/{clean,final}/SEQ/
kitti2012 (training, testing)
    training/colored_0/NNNNNN_1{0,1}.png, or else the grey image_0; training/flow_{occ,noc}/NNNNNN_10.png
kitti2015 (training, testing)
    training/image_2/NNNNNN_1{0,1}.png, training/flow_{occ,noc}/NNNNNN_10.png; vehicles in
    training/obj_map/NNNNNN_10.png, which may be absent
middlebury (training, test)
    other-data/SEQ/frame1{0,1}.png, other-gt-flow/SEQ/flow10.flo; eval-data/SEQ/
flyingchairs (validation, train, all)
    data/NNNNN_img{1,2}.ppm, data/NNNNN_flow.flo, or without data/; and FlyingChairs_train_val.txt, whose line n says of
    the n-th pair: 1 = train, 2 = validation
flyingthings3d (test, train)
    frames_{cleanpass,finalpass}/{TRAIN,TEST}/{A,B,C}/NNNN/{left,right}/NNNN.png and
    optical_flow/TRAIN/A/NNNN/into_{future,past}/left/OpticalFlowInto{Future,Past}_NNNN_{L,R}.pfm; frames named in
    all_unused_files.txt (lines TRAIN/A/NNNN/left/NNNN.png), where that is there, are left out with all pairs that begin there;
    or the subset for DispNet and FlowNet2: {train,val}/image_{clean,final}/{left,right}/NNNNNNN.png and
    {train,val}/flow/{left,right}/into_{future,past}/NNNNNNN.flo, its val being the split test
hd1k (training)
    hd1k_input/image_2/SSSSSS_NNNN.png, hd1k_flow_gt/flow_occ/SSSSSS_NNNN.png
spring (train, test)
    {train,test}/NNNN/frame_{left,right}/frame_left_NNNN.png, train/NNNN/flow_{FW,BW}_left/flow_FW_left_NNNN.flo5
piv (all)
    NAME_img1.tif, NAME_img2.tif, NAME_flow.flo side by side, at any depth
heldback (test): 128 rendered pairs, as `featherflow data heldback` writes them
    {layers,depth,particles}/NNN/{frame1,frame2,occlusion}.png flow.flo
folder (all): your own frames and flow
    frames/*.png (any image suffix) and flow/STEM.flo (any flow suffix), named after the first frame of each two neighbours
    by name; masks invalid/STEM.png and occlusions/STEM.png where those folders are there; or the same with sequences:
    frames/SEQ/*.png, flow/SEQ/STEM.flo

The first split is the default. Splits without public ground truth give pairs whose `flow` is None.

Spring's ground truth stands on a grid twice as fine as the frames, with lengths in px of the frames; of each 2 x 2 values
the upper left one is taken, as the benchmark's own example loader does (Mehl et al., CVPR 2023).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featherflow.data.heldback import PAIRS
from featherflow.errors import FileError, InputError, counted
from featherflow.flow import SUFFIXES, read_flow, read_flow_with_valid
from featherflow.images import IMAGE_SUFFIXES, read_frames, read_image
from featherflow.sequences import natural_order


class Example(NamedTuple):
    """One pair in memory. What the benchmark does not give is None."""

    #: Frames `(H, W, 3)` RGB: uint8, or float32 in [0, 1] where the files are deeper, both scaled alike.
    frame1: np.ndarray
    frame2: np.ndarray
    #: True flow `(H, W, 2)` float32 [px], NaN where unknown.
    flow: np.ndarray | None = None
    #: `(H, W)` bool: the flow is known.
    valid: np.ndarray | None = None
    #: `(H, W)` bool: known, and frame 2 shows the point too (Sintel: not occluded; KITTI: in `flow_noc`).
    matched: np.ndarray | None = None
    #: `(H, W)` bool: a vehicle (KITTI 2015).
    foreground: np.ndarray | None = None
    #: `(H, W)` bool: the benchmark calls the flow untrustworthy here (Sintel). Its published figures count these pixels.
    invalid: np.ndarray | None = None

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """The true flow and where it is known.

        Raises:
            InputError: for a pair whose truth is not public.
        """
        if self.flow is None or self.valid is None:
            raise InputError("This pair has no ground truth.")
        return self.flow, self.valid


@dataclass(frozen=True)
class Pair:
    """The files of one pair; `read` decodes them. `group` is what figures are averaged over, e.g. "sintel-clean"."""

    group: str
    name: str
    frame1: Path
    frame2: Path
    #: None where the ground truth is not public.
    flow: Path | None = None
    occlusion: Path | None = None
    invalid: Path | None = None
    flow_noc: Path | None = None
    objects: Path | None = None
    #: Ground-truth grid points per frame pixel and axis.
    oversampling: int = 1

    def files(self) -> list[Path]:
        """All files of the pair, frames first."""
        given = (self.frame1, self.frame2, self.flow, self.flow_noc, self.occlusion, self.invalid, self.objects)
        return [path for path in given if path is not None]

    def read(self) -> Example:
        """Decode the pair.

        Raises:
            FileError: naming the first file that is missing, damaged or of another size than frame 1.
        """
        frame1, frame2 = read_frames([self.frame1, self.frame2])
        size = frame1.shape[:2]
        _same_size(frame2.shape[:2], size, self.frame2, self.frame1)
        if self.flow is None:
            return Example(frame1, frame2)
        step = self.oversampling
        flow, valid = read_flow_with_valid(self.flow)
        flow, valid = flow[::step, ::step], valid[::step, ::step]
        _same_size(valid.shape, size, self.flow, self.frame1)
        matched = foreground = invalid = None
        if self.occlusion is not None:
            matched = valid & ~_read_mask(self.occlusion, size, self.frame1)
        if self.flow_noc is not None:
            noc = ~np.isnan(read_flow(self.flow_noc)[..., 0])
            _same_size(noc.shape, size, self.flow_noc, self.frame1)
            matched = valid & noc
        if self.objects is not None:
            foreground = _read_mask(self.objects, size, self.frame1)
        if self.invalid is not None:
            invalid = _read_mask(self.invalid, size, self.frame1)
        return Example(frame1, frame2, flow, valid, matched, foreground, invalid)


def _read_mask(path: Path, size: tuple[int, int], frame: Path) -> np.ndarray:
    mask = np.any(read_image(path), axis=-1)
    _same_size(mask.shape, size, path, frame)
    return mask


def _same_size(found: tuple[int, ...], expected: tuple[int, int], path: Path, frame: Path) -> None:
    if tuple(found) != tuple(expected):
        raise FileError(f"'{path}' is {found[1]}x{found[0]} px, but its frame '{frame.name}' is {expected[1]}x{expected[0]} px.")


@dataclass(frozen=True)
class Benchmark:
    """One reader: `find(root, split, complete)` gives its pairs in order of group and name.

    With `complete`, every frame that has a successor must have ground truth; otherwise pairs go by the ground truth there is.
    """

    name: str
    splits: tuple[str, ...]
    find: Callable[[Path, str, bool], Iterator[Pair]]
    #: Pairs that the full set has, by (split, group), as published.
    published: dict[tuple[str, str], int]


@dataclass(frozen=True)
class CheckReport:
    """What `check` read without fault: pairs by group, and how many the published set has (None: no fixed number)."""

    name: str
    split: str
    pairs: dict[str, int]
    published: dict[str, int | None]
    files: int

    def sentences(self) -> list[str]:
        """One line per group for a person."""
        lines = []
        for group, count in self.pairs.items():
            full = self.published[group]
            of = "" if full is None else f" of the {full} that the published set has"
            lines.append(f"{group}, split {self.split}: {counted(count, 'pair')}{of}; all files read, sizes agree.")
        return lines


def find_pairs(name: str, root: str | os.PathLike[str], split: str | None = None) -> Iterator[Pair]:
    """The pairs of a benchmark, by group and name, one at a time; nothing is decoded.

    Args:
        name: one of `BENCHMARKS`. root: folder in the layout given at the top of this file.
        split: one of the benchmark's; default its first.

    Raises:
        InputError: for an unknown name or split. FileError: if a folder, or a frame of a pair, is not there.
    """
    benchmark, split = _benchmark(name, split)
    return _found(benchmark, Path(root), split, complete=False)


def check(name: str, root: str | os.PathLike[str], split: str | None = None) -> CheckReport:
    """Decode every file of a benchmark, one pair at a time.

    Raises:
        FileError: naming the first file that is missing or broken, in order of group and name. InputError as `find_pairs`.
    """
    benchmark, split = _benchmark(name, split)
    counts: dict[str, int] = {}
    files: set[Path] = set()
    for pair in _found(benchmark, Path(root), split, complete=True):
        example = pair.read()
        if example.valid is not None and not example.valid.any():
            raise FileError(f"'{pair.flow}' says of no pixel how it moves; a true flow that knows nothing is none.")
        counts[pair.group] = counts.get(pair.group, 0) + 1
        files.update(pair.files())
    published = {group: benchmark.published.get((split, group)) for group in counts}
    return CheckReport(name, split, counts, published, len(files))


def _benchmark(name: str, split: str | None) -> tuple[Benchmark, str]:
    if name not in BENCHMARKS:
        raise InputError(f"There is no benchmark named '{name}'; known are {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    if split is not None and split not in benchmark.splits:
        raise InputError(f"'{name}' has no split '{split}'; it has {', '.join(benchmark.splits)}.")
    return benchmark, split or benchmark.splits[0]


def _found(benchmark: Benchmark, root: Path, split: str, complete: bool) -> Iterator[Pair]:
    if not root.is_dir():
        raise FileError(f"There is no folder '{root}'.")
    found = False
    for pair in benchmark.find(root, split, complete):
        found = True
        for path in pair.files():
            if not path.is_file():
                raise FileError(f"'{path}' is missing; {pair.group} needs it for the pair {pair.name}.")
        yield pair
    if not found:
        raise FileError(f"'{root}' holds no pair of {benchmark.name}, split '{split}'; see `featherflow data check --help`.")


def _folder(*parts: str | Path) -> Path:
    path = Path(*parts)
    if not path.is_dir():
        raise FileError(f"There is no folder '{path}', which the benchmark's layout has.")
    return path


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())


def _if_there(path: Path) -> Path | None:
    return path if path.parent.is_dir() else None


def _stems_with_next(folder: Path, pattern: str) -> list[str]:
    """Stems of the frames that a later frame follows, by name."""
    return [path.stem for path in sorted(folder.glob(pattern))][:-1]


def _counted(stem: str, step: int = 1) -> str:
    """`frame_0004` -> `frame_0005`: the number at the end, moved by `step`, in as many digits."""
    digits = len(stem) - len(stem.rstrip("0123456789"))
    if not digits:
        raise FileError(f"The frame '{stem}' has no number at the end of its name, which the benchmark's layout needs.")
    return f"{stem[:-digits]}{int(stem[-digits:]) + step:0{digits}d}"


def _sintel(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    base = _folder(root, split)
    passes = [name for name in ("clean", "final") if (base / name).is_dir()]
    if not passes:
        raise FileError(f"'{base}' has neither 'clean' nor 'final' in it, one of which the layout of Sintel needs.")
    truth = _folder(base, "flow") if split == "training" else None
    for rendering in passes:
        for sequence in _folders(base / rendering):
            frames = _stems_with_next(sequence, "frame_*.png")
            if truth is None:
                stems = frames
            else:
                flows = [path.stem for path in sorted((truth / sequence.name).glob("frame_*.flo"))]
                stems = sorted({*flows, *frames}) if complete else flows
            for stem in stems:
                mask = Path(sequence.name) / f"{stem}.png"
                yield Pair(
                    f"sintel-{rendering}",
                    f"{sequence.name}/{stem}",
                    sequence / f"{stem}.png",
                    sequence / f"{_counted(stem)}.png",
                    truth and truth / sequence.name / f"{stem}.flo",
                    occlusion=_if_there(base / "occlusions" / mask) if truth else None,
                    invalid=_if_there(base / "invalid" / mask) if truth else None,
                )


def _kitti(group: str, image_folders: tuple[str, ...]) -> Callable[[Path, str, bool], Iterator[Pair]]:
    def find(root: Path, split: str, complete: bool) -> Iterator[Pair]:
        base = _folder(root, split)
        images = next((base / name for name in image_folders if (base / name).is_dir()), None)
        if images is None:
            raise FileError(f"'{base}' has no folder {' or '.join(image_folders)}, which the layout of {group} needs.")
        frames = [path.stem for path in sorted(images.glob("*_10.png"))]
        if split == "testing":
            for stem in frames:
                yield Pair(group, stem[:-3], images / f"{stem}.png", images / f"{stem[:-3]}_11.png")
            return
        occ, noc = _folder(base, "flow_occ"), _folder(base, "flow_noc")
        flows = [path.stem for path in sorted(occ.glob("*_10.png"))]
        for stem in sorted({*flows, *frames}) if complete else flows:
            file = f"{stem}.png"
            yield Pair(
                group,
                stem[:-3],
                images / file,
                images / f"{stem[:-3]}_11.png",
                occ / file,
                flow_noc=noc / file,
                objects=_if_there(base / "obj_map" / file) if group == "kitti2015" else None,
            )

    return find


def _middlebury(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    if split == "test":
        for sequence in _folders(_folder(root, "eval-data")):
            yield Pair("middlebury", sequence.name, sequence / "frame10.png", sequence / "frame11.png")
        return
    frames = _folder(root, "other-data")
    # Four sequences of other-data come without ground truth, so completeness goes by other-gt-flow.
    for truth in _folders(_folder(root, "other-gt-flow")):
        sequence = frames / truth.name
        yield Pair("middlebury", truth.name, sequence / "frame10.png", sequence / "frame11.png", truth / "flow10.flo")


CHAIRS_SPLIT = "FlyingChairs_train_val.txt"


def _chairs(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    data = root / "data" if (root / "data").is_dir() else root
    flows = {path.name[: -len("_flow.flo")] for path in data.glob("*_flow.flo")}
    frames = {path.name[: -len("_img1.ppm")] for path in data.glob("*_img1.ppm")}
    names = sorted(flows | frames if complete else flows)
    if split != "all":
        labels = _chairs_labels(root, data)
        if len(labels) != len(flows | frames):
            raise FileError(f"'{CHAIRS_SPLIT}' has {len(labels)} lines, but '{data}' has {len(flows | frames)} pairs.")
        wanted = 1 if split == "train" else 2
        # Line n belongs to the n-th pair by name, and the names count from 00001.
        order = {name: index for index, name in enumerate(sorted(flows | frames))}
        names = [name for name in names if labels[order[name]] == wanted]
    for name in names:
        yield Pair("flyingchairs", name, data / f"{name}_img1.ppm", data / f"{name}_img2.ppm", data / f"{name}_flow.flo")


def _chairs_labels(root: Path, data: Path) -> list[int]:
    path = next((folder / CHAIRS_SPLIT for folder in (root, data) if (folder / CHAIRS_SPLIT).is_file()), None)
    if path is None:
        raise FileError(f"'{root / CHAIRS_SPLIT}' is missing; put the published file there, or take the split 'all'.")
    words = path.read_text(encoding="ascii", errors="replace").split()
    for line, word in enumerate(words, 1):
        if word not in ("1", "2"):
            raise FileError(f"'{path}' has '{word[:20]}' in line {line}; expected 1 (train) or 2 (validation).")
    return [int(word) for word in words]


def _things(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    subset = root / ("val" if split == "test" else split)
    if (subset / "flow").is_dir():
        yield from _things_subset(subset)
        return
    part = split.upper()
    passes = [name for name in ("clean", "final") if (root / f"frames_{name}pass" / part).is_dir()]
    if not passes:
        raise FileError(f"'{root}' has neither frames_cleanpass/{part} nor frames_finalpass/{part} in it.")
    truth = _folder(root, "optical_flow", part)
    unused = _things_unused(root)
    for rendering in passes:
        for letter in _folders(root / f"frames_{rendering}pass" / part):
            for scene in _folders(letter):
                for side in _folders(scene):
                    for pair in _things_camera(rendering, scene, side, truth / letter.name / scene.name, complete):
                        if (part, letter.name, scene.name, pair.frame1.stem) not in unused:
                            yield pair


def _things_subset(base: Path) -> Iterator[Pair]:
    passes = [name for name in ("clean", "final") if (base / f"image_{name}").is_dir()]
    if not passes:
        raise FileError(f"'{base}' has neither image_clean nor image_final in it.")
    for rendering in passes:
        for side in _folders(base / "flow"):
            frames = base / f"image_{rendering}" / side.name
            for way, step in (("future", 1), ("past", -1)):
                for flow in sorted((side / f"into_{way}").glob("*.flo")):
                    yield Pair(
                        f"flyingthings3d-{rendering}",
                        f"{side.name}/into_{way}/{flow.stem}",
                        frames / f"{flow.stem}.png",
                        frames / f"{_counted(flow.stem, step)}.png",
                        flow,
                    )


def _things_unused(root: Path) -> set[tuple[str, ...]]:
    """Part, letter, scene and number of the frames that the authors of the set leave out: motions beyond all measure."""
    path = root / "all_unused_files.txt"
    if not path.is_file():
        return set()
    found = set()
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = text.strip().split("/")
        if text.strip() and (len(words) != 5 or not words[4].endswith(".png")):
            raise FileError(f"'{path}' has '{text[:40]}' in line {line}; expected a frame such as TRAIN/A/0000/left/0006.png.")
        if text.strip():
            found.add((*words[:3], words[4].removesuffix(".png")))
    return found


def _things_camera(rendering: str, scene: Path, side: Path, truth: Path, complete: bool) -> Iterator[Pair]:
    frames = [path.stem for path in sorted(side.glob("*.png"))]
    for way, step in (("future", 1), ("past", -1)):
        folder = truth / f"into_{way}" / side.name
        prefix, suffix = f"OpticalFlowInto{way.capitalize()}_", f"_{side.name[0].upper()}.pfm"
        flows = [path.name[len(prefix) : -len(suffix)] for path in sorted(folder.glob(f"{prefix}*{suffix}"))]
        # The published set has a flow for every frame; the one that leads out of the sequence has no second frame.
        stems = sorted({*flows, *frames}) if complete and folder.is_dir() else flows
        for stem in stems:
            other = _counted(stem, step)
            if other in frames or (stem not in (frames[-1:] if step > 0 else frames[:1])):
                yield Pair(
                    f"flyingthings3d-{rendering}",
                    f"{scene.parent.name}/{scene.name}/{side.name}/into_{way}/{stem}",
                    side / f"{stem}.png",
                    side / f"{other}.png",
                    folder / f"{prefix}{stem}{suffix}",
                )


def _hd1k(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    frames, truth = _folder(root, "hd1k_input", "image_2"), _folder(root, "hd1k_flow_gt", "flow_occ")
    there = {path.stem for path in frames.glob("*_*.png")}
    flows = {path.stem for path in truth.glob("*_*.png")}
    # Each sequence has ground truth for its last frame too, which leads out of it.
    for stem in sorted(there | flows if complete else flows):
        following = _counted(stem)
        last = following not in there and not any(other > stem for other in there if other[:7] == stem[:7])
        if not last or stem not in there:
            yield Pair("hd1k", stem, frames / f"{stem}.png", frames / f"{following}.png", truth / f"{stem}.png")


def _spring(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    for scene in _folders(_folder(root, split)):
        for side in ("left", "right"):
            folder = scene / f"frame_{side}"
            numbers = [path.stem[-4:] for path in sorted(folder.glob(f"frame_{side}_*.png"))]
            for way, step in (("FW", 1), ("BW", -1)):
                truth = scene / f"flow_{way}_{side}"
                starts = numbers[:-1] if step > 0 else numbers[1:]
                if split == "train":
                    flows = [path.stem[-4:] for path in sorted(truth.glob("*.flo5"))]
                    starts = sorted({*flows, *starts}) if complete and truth.is_dir() else flows
                for number in starts:
                    yield Pair(
                        "spring",
                        f"{scene.name}/{truth.name}/{number}",
                        folder / f"frame_{side}_{number}.png",
                        folder / f"frame_{side}_{_counted(number, step)}.png",
                        truth / f"flow_{way}_{side}_{number}.flo5" if split == "train" else None,
                        oversampling=2,
                    )


def _piv(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    stems = {path.with_name(path.name[: -len("_flow.flo")]) for path in root.rglob("*_flow.flo")}
    if complete:
        stems |= {path.with_name(path.name[: -len("_img1.tif")]) for path in root.rglob("*_img1.tif")}
    for stem in sorted(stems):
        frame1, frame2, flow = (stem.with_name(stem.name + end) for end in ("_img1.tif", "_img2.tif", "_flow.flo"))
        yield Pair("piv", stem.relative_to(root).as_posix(), frame1, frame2, flow)


def _held_back(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    for kind in _folders(root):
        for folder in _folders(kind):
            frame1, frame2, mask = (folder / f"{name}.png" for name in ("frame1", "frame2", "occlusion"))
            yield Pair(f"heldback-{kind.name}", folder.name, frame1, frame2, folder / "flow.flo", mask)


def _own(root: Path, split: str, complete: bool) -> Iterator[Pair]:
    frames, truth = _folder(root, "frames"), _folder(root, "flow")
    for sequence in [frames, *_folders(frames)]:
        below = sequence.relative_to(frames)
        images = sorted((path for path in sequence.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)
        flows = {path.stem: path for path in sorted((truth / below).glob("*")) if path.suffix.lower() in SUFFIXES}
        for stem in flows:
            if stem not in {image.stem for image in images[:-1]}:
                raise FileError(
                    f"'{flows[stem]}' belongs to two frames, '{stem}' and the next, of which '{sequence}' lacks at least one."
                )
        for frame1, frame2 in pairwise(images):
            if frame1.stem in flows or complete:
                mask = below / f"{frame1.stem}.png"
                yield Pair(
                    "folder",
                    (below / frame1.stem).as_posix(),
                    frame1,
                    frame2,
                    flows.get(frame1.stem, truth / below / f"{frame1.stem}.flo"),
                    occlusion=_if_there(root / "occlusions" / mask),
                    invalid=_if_there(root / "invalid" / mask),
                )


#: Readers by name.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "sintel",
            ("training", "test"),
            _sintel,
            {
                ("training", "sintel-clean"): 1041,
                ("training", "sintel-final"): 1041,
                ("test", "sintel-clean"): 552,
                ("test", "sintel-final"): 552,
            },
        ),
        Benchmark(
            "kitti2012",
            ("training", "testing"),
            _kitti("kitti2012", ("colored_0", "image_0")),
            {
                ("training", "kitti2012"): 194,
                ("testing", "kitti2012"): 195,
            },
        ),
        Benchmark(
            "kitti2015",
            ("training", "testing"),
            _kitti("kitti2015", ("image_2",)),
            {
                ("training", "kitti2015"): 200,
                ("testing", "kitti2015"): 200,
            },
        ),
        Benchmark(
            "middlebury",
            ("training", "test"),
            _middlebury,
            {
                ("training", "middlebury"): 8,
                ("test", "middlebury"): 12,
            },
        ),
        Benchmark(
            "flyingchairs",
            ("validation", "train", "all"),
            _chairs,
            {
                ("validation", "flyingchairs"): 640,
                ("train", "flyingchairs"): 22232,
                ("all", "flyingchairs"): 22872,
            },
        ),
        Benchmark("flyingthings3d", ("test", "train"), _things, {}),
        Benchmark("hd1k", ("training",), _hd1k, {}),
        Benchmark("spring", ("train", "test"), _spring, {}),
        Benchmark("piv", ("all",), _piv, {}),
        Benchmark("heldback", ("test",), _held_back, {("test", f"heldback-{kind}"): count for kind, count in PAIRS.items()}),
        Benchmark("folder", ("all",), _own, {}),
    )
}
