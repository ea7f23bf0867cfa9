"""A folder of a few real pairs from several benchmarks, as used to watch training and to compare methods.

middlebury/<sequence>/frame10.png frame11.png flow10.flo
sintel/<sequence>/{clean,final}/frame_NNNN.png  flow/frame_NNNN.flo  [invalid/frame_NNNN.png]
kitti2012/<number>/colored_0/<number>_1{0,1}.png  flow_noc/<number>_10.png
kitti2015/<number>/image_2/<number>_1{0,1}.png    flow_occ/<number>_10.png
flyingchairs/<number>/*-img0.ppm *-img1.ppm *-gt.flo  (or *_img1.ppm *_img2.ppm *_flow.flo)
piv/<case>/*_img1.tif *_img2.tif *_flow.flo
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FileError
from ..flow import read_flow_with_valid
from ..images import read_frames, read_image

#: Pairs left out of the means: motion blur and smoke beyond what their frames show.
FLAGGED = ("ambush_4",)


@dataclass(frozen=True)
class Sample:
    """One pair with ground truth."""

    group: str
    name: str
    frame1: Path
    frame2: Path
    flow: Path
    invalid: Path | None = None

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Frames `(H, W, 3)` RGB, uint8 or of deeper files float32 in [0, 1], flow `(H, W, 2)` float32 [px], and validity
        `(H, W)` bool.
        """
        flow, valid = read_flow_with_valid(self.flow)
        if self.invalid is not None and self.invalid.exists():
            valid = valid & (read_image(self.invalid)[..., 0] == 0)
        frame1, frame2 = read_frames([self.frame1, self.frame2])
        return frame1, frame2, flow, valid


def find_samples(root: Path | str, flagged: bool = False) -> list[Sample]:
    """All pairs below `root`, by group and name.

    Args:
        flagged: include the pairs named in `FLAGGED`.

    Raises:
        FileError: if there is no such folder or no pair in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileError(f"There is no folder '{root}'.")
    samples = sorted(_search(root), key=lambda sample: (_GROUPS.index(sample.group), sample.name))
    samples = [s for s in samples if flagged or not any(word in s.name for word in FLAGGED)]
    if not samples:
        raise FileError(f"'{root}' holds no pair with ground truth in a layout that is known here (middlebury, sintel, ...).")
    return samples


_GROUPS = ("middlebury", "sintel-clean", "sintel-final", "kitti2012", "kitti2015", "flyingchairs", "piv")


def _search(root: Path) -> Iterator[Sample]:
    for flow in root.glob("middlebury/*/flow10.flo"):
        yield Sample("middlebury", flow.parent.name, flow.with_name("frame10.png"), flow.with_name("frame11.png"), flow)
    for flow in root.glob("sintel/*/flow/frame_*.flo"):
        sequence, number = flow.parents[1], int(flow.stem[-4:])
        for rendering in ("clean", "final"):
            frame1, frame2 = (sequence / rendering / f"frame_{n:04d}.png" for n in (number, number + 1))
            if frame1.exists() and frame2.exists():
                invalid = sequence / "invalid" / f"{flow.stem}.png"
                yield Sample(f"sintel-{rendering}", f"{sequence.name}/{flow.stem}", frame1, frame2, flow, invalid)
    for year, images, labels in (("kitti2012", "colored_0", "flow_noc"), ("kitti2015", "image_2", "flow_occ")):
        for flow in root.glob(f"{year}/*/{labels}/*_10.png"):
            folder, number = flow.parents[1], flow.stem[:-3]
            frame1, frame2 = (folder / images / f"{number}_{n}.png" for n in (10, 11))
            yield Sample(year, number, frame1, frame2, flow)
    for group, suffix in (("flyingchairs", "ppm"), ("piv", "tif")):
        for flow in root.glob(f"{group}/*/*.flo"):
            if flow.stem.endswith("-gt"):
                frame1, frame2 = (flow.with_name(f"{flow.stem[:-3]}-img{n}.{suffix}") for n in (0, 1))
            else:
                frame1, frame2 = (flow.with_name(f"{flow.stem.removesuffix('_flow')}_img{n}.{suffix}") for n in (1, 2))
            yield Sample(group, flow.parent.name, frame1, frame2, flow)
