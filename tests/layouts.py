"""Tiny copies of the real samples, laid out as each benchmark lays out its own files."""

import shutil
from pathlib import Path

import numpy as np

from featherflow.flow import read_flow, write_flow


def link(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def sintel(root: Path, data: Path, sequence: str = "alley_1", frames=(2, 3)) -> Path:
    for rendering in ("clean", "final"):
        for number in frames:
            name = f"frame_{number:04d}.png"
            link(root / "training" / rendering / sequence / name, data / "sintel" / sequence / rendering / name)
    for number in frames[:-1]:
        stem = f"frame_{number:04d}"
        link(root / "training/flow" / sequence / f"{stem}.flo", data / "sintel" / sequence / f"flow/{stem}.flo")
        for masks in ("occlusions", "invalid"):
            link(root / "training" / masks / sequence / f"{stem}.png", data / "sintel" / sequence / masks / f"{stem}.png")
    return root


def kitti2012(root: Path, data: Path) -> Path:
    sample, base = data / "kitti2012/000045", root / "training"
    for images in ("colored_0", "image_0"):
        for number in (10, 11):
            link(base / images / f"000045_{number}.png", sample / images / f"000045_{number}.png")
    for labels in ("flow_noc", "flow_occ"):  # the sample comes without flow_occ
        link(base / labels / "000045_10.png", sample / "flow_noc/000045_10.png")
    return root


def kitti2015(root: Path, data: Path, vehicles: bool = True) -> Path:
    sample, base = data / "kitti2015/000010", root / "training"
    for number in (10, 11):
        link(base / f"image_2/000010_{number}.png", sample / f"image_2/000010_{number}.png")
    for labels in ("flow_noc", "flow_occ"):
        link(base / labels / "000010_10.png", sample / labels / "000010_10.png")
    if vehicles:  # the sample comes without a map of vehicles: the right half of the frame stands in
        from PIL import Image

        mask = np.zeros((375, 1242), np.uint8)
        mask[:, 621:] = 3
        (base / "obj_map").mkdir(parents=True)
        Image.fromarray(mask).save(base / "obj_map/000010_10.png")
    return root


def middlebury(root: Path, data: Path, names=("RubberWhale", "Venus")) -> Path:
    for name in names:
        for number in (10, 11):
            link(root / f"other-data/{name}/frame{number}.png", data / f"middlebury/{name}/frame{number}.png")
        link(root / f"other-gt-flow/{name}/flow10.flo", data / f"middlebury/{name}/flow10.flo")
    return root


def flyingchairs(root: Path, data: Path) -> Path:
    for number, source in (("00001", "0000000"), ("00002", "0000001"), ("00003", "0000002")):
        sample = data / "flyingchairs" / source / source
        for end, found in (("img1.ppm", "img0.ppm"), ("img2.ppm", "img1.ppm"), ("flow.flo", "gt.flo")):
            link(root / "data" / f"{number}_{end}", sample.with_name(f"{source}-{found}"))
    (root / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n")
    return root


def flyingthings3d(root: Path, data: Path) -> Path:
    """One scene of two frames; the flow of the sample, in both directions (only its form matters here)."""
    sample = data / "flyingchairs/0000000/0000000"
    flow = read_flow(sample.with_name("0000000-gt.flo"))
    from PIL import Image

    for index, number in enumerate(("0006", "0007")):
        folder = root / "frames_cleanpass/TEST/A/0000/left"
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(sample.with_name(f"0000000-img{index}.ppm")).save(folder / f"{number}.png", compress_level=1)
    for number in ("0006", "0007"):  # as published: a flow for every frame, also where it leads out of the sequence
        for way, field in (("Future", flow), ("Past", -flow)):
            folder = root / f"optical_flow/TEST/A/0000/into_{way.lower()}/left"
            folder.mkdir(parents=True, exist_ok=True)
            write_flow(folder / f"OpticalFlowInto{way}_{number}_L.pfm", field)
    return root


def hd1k(root: Path, data: Path) -> Path:
    sample = data / "kitti2015/000010"
    for index, number in enumerate((10, 11)):
        link(root / f"hd1k_input/image_2/000000_{index:04d}.png", sample / f"image_2/000010_{number}.png")
        link(root / f"hd1k_flow_gt/flow_occ/000000_{index:04d}.png", sample / "flow_occ/000010_10.png")
    return root


def spring(root: Path, data: Path) -> Path:
    """The frames of a small sample, and its flow on a grid twice as fine."""
    sample = data / "middlebury/Venus"
    for index, number in enumerate((10, 11)):
        link(root / f"train/0001/frame_left/frame_left_{index + 1:04d}.png", sample / f"frame{number}.png")
    (root / "train/0001/flow_FW_left").mkdir()
    flow = read_flow(sample / "flow10.flo").repeat(2, axis=0).repeat(2, axis=1)
    write_flow(root / "train/0001/flow_FW_left/flow_FW_left_0001.flo5", flow)
    return root


def piv(root: Path, data: Path) -> Path:
    for end in ("img1.tif", "img2.tif", "flow.flo"):
        link(root / f"SQG/SQG_00001_{end}", data / f"piv/SQG_00001/SQG_00001_{end}")
    return root


def heldback(root: Path, data: Path) -> Path:
    sample = data / "middlebury/Venus"
    for number in (1, 2):
        link(root / f"depth/000/frame{number}.png", sample / f"frame1{number - 1}.png")
    link(root / "depth/000/flow.flo", sample / "flow10.flo")
    link(root / "depth/000/occlusion.png", sample / "frame10.png")
    return root


def folder(root: Path, data: Path) -> Path:
    sample = data / "middlebury/Venus"
    for number in (10, 11):
        link(root / f"frames/walk/{number}.png", sample / f"frame{number}.png")
    link(root / "flow/walk/10.flo", sample / "flow10.flo")
    return root


ALL = {
    make.__name__: make
    for make in (sintel, kitti2012, kitti2015, middlebury, flyingchairs, flyingthings3d, hd1k, spring, piv, heldback, folder)
}
