"""Particle images whose motion is known."""

import numpy as np

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
