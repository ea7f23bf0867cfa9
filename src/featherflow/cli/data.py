"""`featherflow data`."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

app = App(name="data", help="Training data: look at procedural pairs. Example: featherflow data render out/ --count 16")


@app.command
def render(
    out: Path, *, count: int = 8, photos: list[Path] | None = None, height: int = 384, width: int = 512, seed: int = 0
) -> None:
    """Write procedural pairs with their exact flow, and one sheet that shows them all.

    Example: featherflow data render samples/ --count 16 --photos photos/

    Parameters
    ----------
    out
        Folder to write to.
    count
        Number of pairs.
    photos
        Folder of photos that surfaces are made of; without any, textures are drawn.
    height
        Of the frames, in pixels.
    width
        Of the frames, in pixels.
    seed
        Number that decides everything.
    """
    from ..data import SceneConfig, TextureBank
    from ..data.render import render_folder

    bank = TextureBank.from_folder(photos) if photos else None
    print(render_folder(out, count, SceneConfig(height=height, width=width), bank, seed))
