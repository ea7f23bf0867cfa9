"""Frames whose flow is known in closed form: a smooth pattern without period, moved by an affine map."""

import torch

_WAVES = ((0.31, 0.12, 0.3), (-0.17, 0.27, 1.1), (0.08, -0.35, 2.0), (0.43, 0.39, 4.0), (-0.05, 0.11, 0.7), (0.13, -0.06, 5.1))


def pattern(x, y):
    """Grey levels, 8 to 248, at any point."""
    return 128 + 20 * sum(torch.sin(a * x + b * y + c) for a, b, c in _WAVES)


def pair(matrix, shift, height=64, width=80):
    """Frames `(1, 1, H, W)` in grey levels and the flow `(1, 2, H, W)` [px] that takes x to c + M (x - c) + t."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    x, y = x - width / 2, y - height / 2
    (a, b), (c, d) = matrix
    flow = torch.stack((a * x + b * y + shift[0] - x, c * x + d * y + shift[1] - y))
    u, v = x - shift[0], y - shift[1]
    determinant = a * d - b * c
    first, second = pattern(x, y), pattern((d * u - b * v) / determinant, (a * v - c * u) / determinant)
    return first[None, None].float(), second[None, None].float(), flow[None].float()


MOTIONS = {
    "translation": (((1, 0), (0, 1)), (2.3, -1.6)),
    "rotation": (((0.998, -0.05), (0.05, 0.998)), (0.4, 0.7)),
    "zoom": (((1.06, 0), (0, 1.06)), (-0.5, 0.2)),
    "shear": (((1.0, 0.06), (0.0, 1.0)), (1.0, 0.0)),
}
