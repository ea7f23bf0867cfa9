"""Particle images whose motion is known."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (96, 128)


def particles(seed=0, count=900):
    """Two images of particles in solid body rotation about the centre, by 0.03 rad, as drawn from their places."""
    random = np.random.default_rng(seed)
    centre = np.array([63.5, 47.5])
    places = random.uniform(-10, [138, 106], (count, 2))
    turn = np.array([[np.cos(0.03), -np.sin(0.03)], [np.sin(0.03), np.cos(0.03)]])
    moved = (places - centre) @ turn.T + centre
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]

    def draw(points):
        picture = np.zeros(SIZE)
        for px, py in points:
            near = (slice(max(int(py) - 5, 0), max(int(py) + 6, 0)), slice(max(int(px) - 5, 0), max(int(px) + 6, 0)))
            picture[near] += np.exp(-((x[near] - px) ** 2 + (y[near] - py) ** 2) / (2 * 1.2**2))
        return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)

    return draw(places), draw(moved)


def write_recordings(folder: Path) -> None:
    """`run_a.tif` and `run_b.tif`, both in `run/` too, `recording.tif` of four pages, and `wall.png`, black in a corner."""
    first, second = (Image.fromarray(image) for image in particles())
    (folder / "run").mkdir()
    for image, name in ((first, "run_a.tif"), (second, "run_b.tif")):
        image.save(folder / name)
        image.save(folder / "run" / name)
    first.save(folder / "recording.tif", save_all=True, append_images=[second, first, second])
    mask = np.full(SIZE, 255, np.uint8)
    mask[:16, :16] = 0
    Image.fromarray(mask).save(folder / "wall.png")
