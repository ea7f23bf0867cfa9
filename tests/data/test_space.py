"""Scenes with depth against the geometry of two views, which is written out here once more."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from featherflow.data import PairBatch, SceneConfig, TextureBank, render_pairs, scenes, space
from featherflow.errors import InputError

HEIGHT, WIDTH = 112, 160
CLEAN = SceneConfig(height=HEIGHT, width=WIDTH, effects=None, depth=1.0)
MOVING = replace(CLEAN, static_camera=0.0, small=(0.0, 1.0), medium=(1.0, 6.0))
RIGID = replace(MOVING, static_layer=1.0)

KINDS = {"drive": space.DRIVE, "track": space.TRACK, "orbit": space.ORBIT, "shake": space.SHAKE}

# px; share of pixels: those on an outline lie on both sides of it.
TOLERANCE = {"epipolar": 0.02, "inverse depth": 0.02, "outline": 0.05, "corner": 1e-4}


@pytest.fixture(scope="module")
def textures() -> TextureBank:
    return TextureBank.procedural(15, 128, torch.Generator().manual_seed(1))


@pytest.fixture
def drawn(monkeypatch) -> list[space.Space]:
    """The geometry of the scenes that are rendered in a test, in order."""
    recorded, draw_space = [], space.draw_space

    def record(*arguments):
        recorded.append(draw_space(*arguments))
        return recorded[-1]

    monkeypatch.setattr(scenes, "draw_space", record)
    return recorded


def only(monkeypatch, kind: str) -> None:
    """Let all cameras move in one way."""
    monkeypatch.setattr(space, "KINDS", tuple(float(number >= KINDS[kind]) for number in range(4)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points() -> Tensor:
    """`(H * W, 3)` pixels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack((x, y, torch.ones_like(x)), -1).view(-1, 3).double()


def carried(flow: Tensor) -> Tensor:
    """`(B, H * W, 3)`: where the pixels go."""
    moved = points().expand(len(flow), -1, 3).clone()
    moved[..., :2] += flow.flatten(2).transpose(1, 2)
    return moved


def two_views(scene: space.Space) -> tuple[Tensor, Tensor]:
    """A = K R K^-1 and e = K t: what is seen at p with inverse depth r moves to A p + r e."""
    infinite = scene.intrinsics @ scene.rotation @ torch.linalg.inv(scene.intrinsics)
    return infinite, (scene.intrinsics @ scene.translation[..., None])[..., 0]


def triangulated(flow: Tensor, scene: space.Space) -> tuple[Tensor, Tensor]:
    """Inverse depth of every pixel from its flow, and how many pixels of displacement one unit of it makes, `(B, H * W)`."""
    infinite, epipole = two_views(scene)
    there, base = carried(flow), points() @ infinite.transpose(1, 2)
    constant = torch.linalg.cross(there, base)
    slope = torch.linalg.cross(there, epipole[:, None].expand_as(there))
    squared = slope.square().sum(-1)
    return -(constant * slope).sum(-1) / squared.clamp_min(1e-12), squared.sqrt()


@pytest.mark.parametrize("kind", KINDS)
def test_flow_of_a_rigid_scene_obeys_epipolar_geometry(textures, drawn, monkeypatch, kind):
    only(monkeypatch, kind)
    pair = render_pairs(6, RIGID, textures, seeded(1))
    (scene,) = drawn
    assert scene.translation.norm(dim=-1).min() > 0 and not scene.moving.any()
    infinite, epipole = two_views(scene)
    fundamental = torch.linalg.cross(epipole[:, None].expand_as(infinite), infinite.transpose(1, 2)).transpose(1, 2)
    for flow, matrix in ((pair.flow, fundamental), (pair.flow_backward, fundamental.transpose(1, 2))):
        line = points() @ matrix.transpose(1, 2)
        distance = (carried(flow) * line).sum(-1).abs() / line[..., :2].norm(dim=-1).clamp_min(1e-12)
        assert distance.max() < TOLERANCE["epipolar"]
    # Another geometry is told apart: that of the next scene.
    line = points() @ fundamental.roll(1, 0).transpose(1, 2)
    wrong = (carried(pair.flow) * line).sum(-1).abs() / line[..., :2].norm(dim=-1)
    assert wrong.mean() > 10 * TOLERANCE["epipolar"]


@pytest.mark.parametrize("kind", ["drive", "track"])
def test_every_ray_sees_the_nearest_surface(textures, drawn, monkeypatch, kind):
    only(monkeypatch, kind)
    pair = render_pairs(12, RIGID, textures, seeded(2))
    (scene,) = drawn
    found, sensitivity = triangulated(pair.flow, scene)
    clear = sensitivity > 2
    assert clear.float().mean() > 0.5
    surfaces = scene.inverse_depth @ points().t()
    # What is seen is one of the surfaces, and neither backdrop nor ground lies in front of it.
    there = scene.outlined | scene.bounded
    there[:, 0] = True
    gap = torch.where(there[..., None], (surfaces - found[:, None]).abs(), torch.inf).amin(1)
    assert gap[clear].max() < TOLERANCE["inverse depth"]
    whole = torch.where(scene.bounded[:, 1:2, None], surfaces[:, :2], surfaces[:, :1]).amax(1)
    assert (found < whole - TOLERANCE["inverse depth"])[clear].double().mean() < TOLERANCE["corner"]
    assert scene.bounded[:, 1].any() and (found > whole + 0.1)[clear].any()


def test_a_hidden_point_has_a_nearer_one_in_front_of_it(textures, drawn):
    pair = render_pairs(16, RIGID, textures, seeded(3))
    (scene,) = drawn
    infinite, epipole = two_views(scene)
    found, sensitivity = triangulated(pair.flow, scene)
    depth_ratio = (points() @ infinite.transpose(1, 2))[..., 2] + found * epipole[:, None, 2]
    # Inverse depths in frame 2: of the points of frame 1, and of what is seen there.
    expected = found / depth_ratio
    there = carried(pair.flow)[..., :2].round().long()
    inside = (there >= 0).all(-1) & (there[..., 0] < WIDTH) & (there[..., 1] < HEIGHT)
    pixel = (there[..., 1].clamp(0, HEIGHT - 1) * WIDTH + there[..., 0].clamp(0, WIDTH - 1))[:, None]
    back = pair.flow_backward.flatten(2).gather(2, pixel.expand(-1, 2, -1)).double()
    # The same point is found from frame 2 if the way back leads where it came from.
    origin = there.transpose(1, 2) + back
    origin = torch.cat((origin, torch.ones_like(origin[:, :1])), 1).transpose(1, 2)
    target = torch.cat((there.double(), torch.ones_like(there[..., :1])), -1)
    base = origin @ infinite.transpose(1, 2)
    slope = torch.linalg.cross(target, epipole[:, None].expand_as(target))
    seen = -(torch.linalg.cross(target, base) * slope).sum(-1) / slope.square().sum(-1).clamp_min(1e-12)
    seen = seen / (base[..., 2] + seen * epipole[:, None, 2])
    hidden = pair.occluded.flatten(1) & inside & (sensitivity > 2)
    assert hidden.sum() > 1000
    nearer = (seen > expected - TOLERANCE["inverse depth"])[hidden].double().mean()
    assert nearer > 1 - TOLERANCE["outline"]
    assert (seen > expected + TOLERANCE["inverse depth"])[hidden].double().mean() > 0.5
    shown = ~pair.occluded.flatten(1) & (sensitivity > 2)
    assert ((seen - expected).abs() < TOLERANCE["inverse depth"])[shown].double().mean() > 1 - TOLERANCE["outline"]


def test_one_board_over_a_still_scene_hides_what_it_moves_over(textures, drawn):
    config = replace(CLEAN, layers=(1, 1), layer_size=(0.3, 0.4), static_camera=1.0, static_layer=0.0, deformable=0.0)
    pair = render_pairs(12, replace(config, small=(0.0, 1.0), medium=(1.0, 6.0)), textures, seeded(4))
    assert drawn[0].moving.any() and (drawn[0].translation == 0).all()
    board1 = pair.flow.abs().amax(1, keepdim=True) > 1e-3
    board2 = pair.flow_backward.abs().amax(1, keepdim=True) > 1e-3
    assert board1.any() and board2.any() and not board1.all(dim=-1).all()
    for occluded, here, there in ((pair.occluded, board1, board2), (pair.occluded_backward, board2, board1)):
        # But for single pixels where the board, the ground and the backdrop meet.
        assert ((occluded ^ there) & ~here).sum() < 0.01 * (there & ~here).sum()


def test_planes_stay_in_front_of_both_cameras_however_far_it_goes(textures, drawn):
    config = replace(CLEAN, small=(0.0, 1.0), medium=(0.0, 6.0), large=500.0, static_layer=0.0)
    pairs = [render_pairs(12, config, textures, seeded(seed)) for seed in range(4)]
    corner = torch.tensor(((0, 0, 1), (WIDTH - 1, 0, 1), (0, HEIGHT - 1, 1), (WIDTH - 1, HEIGHT - 1, 1)), dtype=torch.float64)
    for scene, pair in zip(drawn, pairs, strict=True):
        there = scene.outlined | scene.bounded
        there[:, 0] = True
        for way in (scene.motion, torch.linalg.inv(scene.motion)):
            assert (way[:, :, 2] @ corner.t())[there].min() > 0.2
        assert pair.valid.all()
        for flow in (pair.flow, pair.flow_backward):
            assert flow.isfinite().all()
        assert pair.flow.norm(dim=1).max() < WIDTH


def test_motions_are_as_long_as_those_of_other_scenes(textures):
    def median(depth: float) -> float:
        config = replace(CLEAN, depth=depth, particles=0.0)
        pairs = [render_pairs(24, config, textures, seeded(seed), backward=False) for seed in range(3)]
        return torch.cat([pair.flow.norm(dim=1).mean((1, 2)) for pair in pairs]).median().item()

    assert 0.5 < median(1.0) / median(0.0) < 2


def test_the_share_says_how_many_scenes_have_depth(textures, drawn):
    render_pairs(200, replace(CLEAN, height=16, width=16, depth=0.4), textures, seeded(5), backward=False)
    assert 60 < len(drawn[0].motion) < 100
    render_pairs(2, replace(CLEAN, depth=0.0), textures, seeded(5))
    assert len(drawn) == 1
    # Particles are for flat scenes.
    assert isinstance(render_pairs(4, replace(CLEAN, particles=1.0), textures, seeded(6)), PairBatch) and len(drawn[1].motion) == 4
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="depth"):
            SceneConfig(depth=wrong)


@pytest.mark.parametrize("layers", [(0, 0), (1, 2), (5, 20)])
def test_there_is_room_for_any_number_of_layers(textures, drawn, layers):
    pair = render_pairs(4, replace(CLEAN, layers=layers), textures, seeded(7))
    assert pair.flow.isfinite().all()
    assert drawn[0].outlined.sum(1).max() <= layers[1]
