"""Stacks as image layers, as far as the plugin looks at them, so that most of it is tested without napari."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from clips import moving

from featherflow.napari_plugin.layers import Outcome, Pictures, Wanted, estimated, pictures_of


@dataclass
class ImageLayer:
    data: object
    rgb: bool = False
    name: str = "cells"
    multiscale: bool = False
    contrast_limits: tuple[float, float] = (0.0, 255.0)
    scale: np.ndarray = field(default_factory=lambda: np.ones(3))
    translate: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def affine(self):
        return SimpleNamespace(affine_matrix=np.eye(len(self.scale) + 1))

    def data_to_world(self, point) -> tuple:
        return tuple(np.array(point) * self.scale + self.translate)


def colour_stack(count: int = 3, **motion: int) -> np.ndarray:
    """`(T, Y, X, 3)` uint8 that moves by 3 px to the right and 1 px down."""
    return np.stack(moving(count, **{"dx": 3, "dy": 1, **motion}))


def grey_stack(count: int = 3, **motion: int) -> np.ndarray:
    """`(T, Y, X)` uint8, likewise."""
    return colour_stack(count, **motion)[..., 0].copy()


def layer(data, **keywords) -> ImageLayer:
    axes = data.ndim - bool(keywords.get("rgb"))
    return ImageLayer(data, **{"scale": np.ones(axes), "translate": np.zeros(axes), **keywords})


def outcome(pictures: Pictures, wanted: Wanted | None = None, model: str | None = "dis", stop_after: int = 99) -> Outcome:
    """What `estimated` returns, once it is run to its end."""
    done: list[int] = []
    run = estimated(pictures, wanted or Wanted(spacing=8), model, lambda: len(done) >= stop_after)
    while True:
        try:
            done.append(next(run))
        except StopIteration as end:
            assert done == list(range(1, len(done) + 1))
            return end.value


def outcome_of(data, second=None, rgb: bool = False, **wanted) -> Outcome:
    other = None if second is None else layer(second, rgb=rgb, name="later")
    return outcome(pictures_of(layer(data, rgb=rgb), other), Wanted(**{"spacing": 8, **wanted}))
