"""A yardstick that is the same everywhere: 128 rendered pairs whose photos no training has seen.

ROOT/layers/NNN/{frame1,frame2,occlusion}.png flow.flo, the same below ROOT/depth and ROOT/particles, and ROOT/heldback.json, which
names the photos. Which photos of a folder are held back is decided by their names alone, so that whoever packs textures for
training can leave the same ones out (`TextureBank.from_folder(..., keep=lambda photo: not is_held_back(photo))`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import FileError
from ..files import atomic_write
from ..flow import write_flow
from ..images import write_image
from ..outputs import check_outputs
from .procedural import render_pairs
from .render import as_bytes
from .scenes import SceneConfig
from .textures import TextureBank, find_photos

ONE_IN = 8
"""Of so many photos one is held back."""

SEED = 20_231

SIZES = ((436, 1024), (384, 512))
"""Heights and widths of the frames, in turn [px]."""

PAIRS = {"layers": 56, "depth": 56, "particles": 16}
"""Pairs of each kind of scene."""

MEDIUM, LARGE = 14.0, 40.0
"""Means of medium and large motions, whatever the width [px]."""

CAP = 0.12
"""Longest motion over the width: beyond it a few pairs that nothing solves would decide the mean."""

TEXTURES = 448
"""Side of the textures [texels]."""


def is_held_back(photo: str | os.PathLike[str]) -> bool:
    """Whether a photo is for the held-back set, by a digest of its file name."""
    return hashlib.sha256(Path(photo).name.encode()).digest()[0] % ONE_IN == 0


def scene_of(kind: str, height: int, width: int) -> SceneConfig:
    """Scenes of one kind, "layers", "depth" or "particles", with all effects."""
    unit = width / 256
    return SceneConfig(
        height=height,
        width=width,
        depth=float(kind == "depth"),
        particles=float(kind == "particles"),
        medium=(0.33, MEDIUM / unit),
        large=LARGE / unit,
        cap=CAP,
        tracer_flow=MEDIUM / unit,
    )


def write_held_back(
    out: str | os.PathLike[str],
    photos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    pairs: Mapping[str, int] = PAIRS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the held-back set into the new folder `out`: whole, or not at all. The same photos give the same set.

    Args:
        photos: a folder of photos or several, of which those held back are used, beside drawn textures that no training has either;
            in which order, or as one folder that holds them all, does not matter.
        pairs, sizes: how many of which kind, and the frames' heights and widths in turn; the set's own unless it is to be smaller.
        progress: called with (pairs done, pairs in all).

    Returns:
        How many photos were used.

    Raises:
        FileError: if `out` is there already, or no photo is held back.
    """
    out = Path(out)
    if out.exists():
        raise FileError(f"'{out}' is there already; the held-back set needs a new folder.")
    folders = [photos] if isinstance(photos, (str, os.PathLike)) else sorted(photos, key=lambda folder: Path(folder).name)
    check_outputs([("a frame of the set", out / "frame1.png")], trees=folders, makes_folders=True)
    names = sorted({photo.name for photo in find_photos(folders) if is_held_back(photo)})
    if not names:
        raise FileError(
            f"None of the photos under {', '.join(map(str, folders))} is held back, which one in {ONE_IN} is by its name; add more."
        )
    bank = TextureBank.from_folder(folders, TEXTURES, seed=SEED, keep=is_held_back)
    drawn = TextureBank.procedural(24, TEXTURES, torch.Generator().manual_seed(SEED), particles=8)
    textures = TextureBank.concat([bank, drawn])
    partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    total, done = sum(pairs.values()), 0
    try:
        for number, (kind, count) in enumerate(pairs.items()):
            for index in range(count):
                if progress:
                    progress(done, total)
                config = scene_of(kind, *sizes[index % len(sizes)])
                generator = torch.Generator().manual_seed((SEED + number) * 1_000_003 + index)
                _write(partial / kind / f"{index:03d}", config, textures, generator)
                done += 1
        about = {"seed": SEED, "pairs": dict(pairs), "sizes": [list(size) for size in sizes], "photos": names}
        with atomic_write(partial / "heldback.json") as file:
            file.write(json.dumps(about, indent=1).encode())
        os.rename(partial, out)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"The held-back set cannot be written to '{out}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if progress:
        progress(total, total)
    return len(bank)


def _write(folder: Path, config: SceneConfig, textures: TextureBank, generator: torch.Generator) -> None:
    pair = render_pairs(1, config, textures, generator, backward=False)
    folder.mkdir(parents=True)
    for number, frame in enumerate((pair.frame1, pair.frame2), 1):
        write_image(folder / f"frame{number}.png", as_bytes(frame[0]))
    write_image(folder / "occlusion.png", pair.occluded[0, 0].numpy().astype(np.uint8) * 255)
    write_flow(folder / "flow.flo", pair.flow[0], pair.valid[0, 0].numpy())
