"""`featherflow data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .numbers import PARAMETERS

app = App(
    name="data",
    help="Data: procedural pairs, and the public benchmarks. Example: featherflow data check sintel MPI-Sintel/",
    group_arguments=PARAMETERS,
    group_parameters=PARAMETERS,
)


@app.command
def render(
    out: Path,
    *,
    count: int = 8,
    photos: list[Path] | None = None,
    height: int = 384,
    width: int = 512,
    depth: float = 0.0,
    seed: int = 0,
) -> None:
    """Write procedural pairs with their exact flow, in the layout that check, evaluate and train call 'folder', and a sheet of all.

    Example: featherflow data render samples/ --count 16 --photos photos/

    Parameters
    ----------
    out
        New or empty folder to write to.
    count
        Number of pairs.
    photos
        Folder of photos that surfaces are made of; without any, textures are drawn.
    height
        Of the frames, in pixels.
    width
        Of the frames, in pixels.
    depth
        Share of scenes in which a camera moves among planes in space, from 0 to 1.
    seed
        Number that decides everything.
    """
    from ..data import SceneConfig, TextureBank
    from ..data.render import render_folder
    from ..outputs import check_outputs
    from .output import say

    check_outputs([("the sheet", out / "sheet.png")], trees=photos or (), makes_folders=True)
    bank = TextureBank.from_folder(photos) if photos else None
    say(str(render_folder(out, count, SceneConfig(height=height, width=width, depth=depth), bank, seed)))


@app.command
def heldback(out: Path, *, photos: list[Path]) -> None:
    """Write the held-back set: 128 rendered pairs, always the same for the same photos, to judge and compare networks by.

    One in eight photos is used, chosen by its file name; pack textures for training with --hold-back, which leaves these out.
    `featherflow evaluate --data heldback=OUT` and `featherflow train --validate heldback=OUT` read it. About 450 MB.

    Example: featherflow data heldback heldback/ --photos photos/

    Parameters
    ----------
    out
        New folder to write to.
    photos
        Folder of photos; may be given several times.
    """
    from ..data.heldback import write_held_back
    from ..errors import counted
    from .output import say, show_progress

    with show_progress("pairs") as progress:
        used = write_held_back(out, photos, progress=progress)
    say(f"{out}: pairs from {counted(used, 'photo')} held back.")


@app.command
def pack(
    photos: list[Path],
    *,
    output: Annotated[str, Parameter(alias="-o")],
    drawn: int = 120,
    particles: int = 20,
    size: int = 448,
    hold_back: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Pack photos and drawn textures into one file under 30 MB that `featherflow train --textures` takes.

    Example: featherflow data pack photos/ -o textures.st

    Parameters
    ----------
    photos
        Folders of photos that surfaces are made of.
    output
        File to write.
    drawn
        Number of drawn textures beside them.
    particles
        Number of tracer-particle textures beside them.
    size
        Side of each texture in pixels; a smaller one leaves room for more photos.
    hold_back
        Leave out the photos, one in eight, that `featherflow data heldback` makes its pairs of.
    """
    import torch

    from ..data import TextureBank
    from ..data.heldback import is_held_back
    from ..outputs import check_outputs
    from .output import say

    check_outputs([("the packed file", output)], trees=photos)
    bank = TextureBank.procedural(drawn, size, torch.Generator().manual_seed(0), particles=particles)
    taken = TextureBank.from_folder(photos, size, keep=(lambda photo: not is_held_back(photo)) if hold_back else None)
    bank = TextureBank.concat([taken, bank])
    quality = bank.pack(output)
    megabytes = Path(output).stat().st_size / 1e6
    say(f"{output}: {len(bank)} textures of {size}x{size} px, {megabytes:.1f} MB at JPEG quality {quality}")


@app.command
def check(name: str, root: Path, *, split: str | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Read every file of a benchmark in its own layout, and name the first one that is missing or broken.

    Example: featherflow data check kitti2015 KITTI/2015/

    Parameters
    ----------
    name
        sintel, kitti2012, kitti2015, middlebury, flyingchairs, flyingthings3d, hd1k, spring, piv, heldback, or folder (your own:
        frames/*.png and flow/*.flo named after the first frame of each two neighbours).
    root
        Folder that the benchmark was unpacked to, e.g. the one that holds training/ and test/.
    split
        Part of the benchmark; by default the one that figures are published for.
    json
        Print what was found as JSON.
    """
    import dataclasses

    from ..data import benchmarks
    from .output import print_json, say

    report = benchmarks.check(name, root, split)
    if json:
        print_json(dataclasses.asdict(report))
    else:
        for sentence in report.sentences():
            say(sentence)
