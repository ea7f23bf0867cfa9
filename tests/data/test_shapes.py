"""Outlines of layers: which there are, and where they end."""

import numpy as np
import pytest
import torch

from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.data.shapes import TILE, ShapeBank, default_shapes
from featherflow.errors import InputError

cv2 = pytest.importorskip("cv2")


def tile(bank: ShapeBank, index: int) -> torch.Tensor:
    row, column = divmod(index, bank.columns)
    return bank.atlas[0, 0, row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]


def furniture() -> list[np.ndarray]:
    bank = default_shapes()
    return [(tile(bank, index) > 0).numpy() for index in range(bank.count - bank.furniture, bank.count)]


def test_furniture_leaves_the_other_shapes_as_they_are():
    # The held-back set is drawn from them: it must not change when a kind of shape is added.
    plain, more = ShapeBank(20), ShapeBank(20, furniture=9)
    assert (plain.furniture, more.count, more.furniture) == (0, 29, 9)
    assert all(torch.equal(tile(plain, index), tile(more, index)) for index in range(20))


def test_a_piece_of_furniture_is_one_whole_within_its_tile():
    y, x = np.mgrid[:TILE, :TILE] / (TILE - 1) * 2 - 1
    for index, piece in enumerate(furniture()):
        assert cv2.connectedComponents(piece.astype(np.uint8))[0] == 2, index
        assert np.hypot(x, y)[piece].max() < 0.95, index


def test_much_is_seen_between_the_legs_of_furniture():
    shares = []
    for piece in furniture():
        corners = cv2.convexHull(np.argwhere(piece)[:, None].astype(np.int32))
        shares.append(piece.sum() / cv2.contourArea(corners))
    assert 0.2 < np.mean(shares) < 0.6
    assert min(shares) > 0.03


def test_scenes_without_furniture_show_none_and_scenes_of_furniture_nothing_else():
    # A bank whose other shapes cover everything, or nothing: what is seen tells which were drawn.
    bank = ShapeBank(4, furniture=3)
    everywhere = torch.full_like(bank.atlas, 12.0)
    for index in range(4, 7):
        row, column = divmod(index, bank.columns)
        everywhere[0, 0, row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = -12.0
    bank.atlas, bank._on = everywhere, {"cpu": everywhere}
    textures = TextureBank.procedural(8, 64, torch.Generator().manual_seed(0), particles=0)

    def moved(share: float) -> float:
        config = SceneConfig(
            height=64,
            width=96,
            effects=None,
            particles=0,
            camera=0,
            static_camera=1,
            expansion=0,
            deformable=0,
            layers=(9, 9),
            furniture=share,
        )
        flow = render_pairs(4, config, textures, torch.Generator().manual_seed(3), shapes=bank).flow
        return (flow.abs().amax(1) > 0).float().mean().item()

    assert moved(0.0) > 0.5
    assert moved(1.0) == 0.0


def test_furniture_needs_a_bank_that_has_some():
    with pytest.raises(InputError, match="furniture"):
        render_pairs(
            1, SceneConfig(height=32, width=32, furniture=0.5), generator=torch.Generator().manual_seed(0), shapes=ShapeBank(4)
        )


def test_plain_furniture_varies_less():
    textures = TextureBank.procedural(12, 128, torch.Generator().manual_seed(1), particles=0)

    def variation(plain: float) -> float:
        config = SceneConfig(
            height=96,
            width=128,
            effects=None,
            particles=0,
            camera=0,
            layers=(14, 14),
            layer_size=(0.5, 1.0),
            furniture=1.0,
            plain=plain,
        )
        frame = render_pairs(6, config, textures, torch.Generator().manual_seed(5)).frame1
        return torch.diff(frame, dim=3).abs().median().item()

    assert variation(1.0) < variation(0.0)
