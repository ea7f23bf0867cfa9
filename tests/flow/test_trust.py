"""Confidence: would catch a flow of the wrong sign, content without information that is believed, flows that are believed because
they agree with each other, strips that differ from the whole, and forms or sizes that pass for others."""

import numpy as np
import pytest
import torch
from helpers import frame

from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.errors import InputError
from featherflow.evaluation.sparsification import ause
from featherflow.flow import confidence, draw_confidence, trust

HEIGHT, WIDTH = 96, 128
LARGE = frame(HEIGHT + 20, WIDTH + 20)
#: Frame 2 shows at (x + 4, y + 3) what frame 1 shows at (x, y).
FIRST, SECOND = LARGE[10 : 10 + HEIGHT, 10 : 10 + WIDTH], LARGE[7 : 7 + HEIGHT, 6 : 6 + WIDTH]


def constant(u, v):
    return np.broadcast_to(np.float32([u, v]), (HEIGHT, WIDTH, 2)).copy()


def test_right_and_wrong_flows():
    right = confidence(FIRST, SECOND, constant(4, 3), constant(-4, -3))
    assert right.shape == (HEIGHT, WIDTH) and right.dtype == np.float32
    assert right[8:-8, 8:-8].mean() > 0.95 and right.max() <= 1
    still = confidence(FIRST, FIRST, constant(0, 0), constant(0, 0))
    assert still.mean() > 0.95
    for wrong in (
        confidence(FIRST, SECOND, constant(-4, -3), constant(4, 3)),  # the wrong way, and agreeing with each other
        confidence(FIRST, SECOND, constant(-1, 0), constant(1, 0)),
        confidence(FIRST, frame(HEIGHT, WIDTH, seed=9), constant(4, 3), constant(-4, -3)),  # two scenes
    ):
        assert wrong.mean() < 0.35


def test_flows_that_disagree_are_trusted_less():
    agreeing = confidence(FIRST, SECOND, constant(4, 3), constant(-4, -3))[8:-8, 8:-8].mean()
    means = [confidence(FIRST, SECOND, constant(4, 3), constant(-4 + off, -3))[8:-8, 8:-8].mean() for off in (0.5, 2, 8)]
    assert agreeing > means[0] > means[1] > means[2]


def noise(deviation, base, seed):
    random = np.random.default_rng(seed)
    return (base + random.normal(0, deviation, (HEIGHT, WIDTH, 3))).round().clip(0, 255).astype(np.uint8)


BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize(
    "first, second",
    [
        (BLACK, BLACK),
        (BLACK + 128, BLACK + 128),
        (BLACK, BLACK + 255),
        (BLACK, FIRST),
        (FIRST, BLACK),
        (noise(1, 0, 0), noise(1, 0, 1)),
        (noise(5, 128, 0), noise(5, 128, 1)),
    ],
    ids=["black", "grey", "black to white", "from black", "to black", "noise of black", "noise of grey"],
)
def test_content_without_information_has_none(first, second):
    assert confidence(first, second, constant(0, 0), constant(0, 0)).max() < 0.05


def test_a_black_part_has_none_and_the_rest_has():
    half = FIRST.copy()
    half[:, : WIDTH // 2] = 0
    found = confidence(half, half, constant(0, 0), constant(0, 0))
    assert found[:, : WIDTH // 2 - 28].max() < 0.01 and found[:, WIDTH // 2 + 28 :].min() > 0.9


def test_errors_are_ordered_on_a_rendered_pair():
    """The true flows with blobs of errors in the forward one: most of what an oracle gains is gained."""
    bank = TextureBank.procedural(8, 128, torch.Generator().manual_seed(0))
    pair = render_pairs(1, SceneConfig(HEIGHT, WIDTH, effects=None), bank, torch.Generator().manual_seed(4))
    coarse = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(2)) * 6
    error = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic") * (torch.linspace(0, 1, WIDTH) > 0.5)
    found = confidence(pair.frame1, pair.frame2, pair.flow + error, pair.flow_backward)
    lengths = error.norm(dim=1).flatten().numpy()
    random = np.random.default_rng(0).random(lengths.size)
    assert ause(lengths, found.flatten().numpy()) < 0.4 * ause(lengths, random)


def test_strips_change_nothing(monkeypatch):
    flow = constant(4, 3) + np.random.default_rng(0).normal(0, 0.5, (HEIGHT, WIDTH, 2)).astype(np.float32)
    whole = confidence(FIRST, SECOND, flow, -flow)
    monkeypatch.setattr(trust, "_STRIP_PIXELS", 20 * WIDTH)
    np.testing.assert_array_equal(confidence(FIRST, SECOND, flow, -flow), whole)


def test_forms():
    flow, back = constant(4, 3), constant(-4, -3)
    found = confidence(FIRST, SECOND, flow, back)
    np.testing.assert_array_equal(
        confidence([FIRST, SECOND], [SECOND, FIRST], np.stack((flow, back)), np.stack((back, flow)))[0], found
    )
    frames = [torch.from_numpy(np.moveaxis(part, -1, 0) / np.float32(255)) for part in (FIRST, SECOND)]
    tensors = confidence(*frames, *(torch.from_numpy(np.moveaxis(part, -1, 0).copy()) for part in (flow, back)))
    assert tensors.shape == (1, HEIGHT, WIDTH)
    np.testing.assert_allclose(tensors[0].numpy(), found, atol=1e-5)


def test_unknown_flow_has_none():
    flow, back = constant(4, 3), constant(-4, -3)
    flow[5, 7], back[40:60, 40:60] = np.nan, 1e10
    found = confidence(FIRST, SECOND, flow, back)
    assert found[5, 7] == 0 and np.isfinite(found).all()
    assert found[47, 46] < confidence(FIRST, SECOND, constant(4, 3), constant(-4, -3))[47, 46]


def test_what_does_not_fit_is_refused():
    for frames, flow, back in (
        ((FIRST, SECOND[:-1]), constant(0, 0), constant(0, 0)),
        ((FIRST, SECOND), constant(0, 0)[:-1], constant(0, 0)),
        ((FIRST, SECOND), constant(0, 0), np.stack([constant(0, 0)] * 2)),
        ((FIRST, SECOND), constant(0, 0)[..., 0], constant(0, 0)),
    ):
        with pytest.raises(InputError):
            confidence(*frames, flow, back)
    for least in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="least confidence"):
            trust.check_confidence(least)


def test_picture():
    grey = np.full((2, 3, 3), 100, np.uint8)
    picture = draw_confidence(grey, np.array([[1, 1, 0.5], [0, 0, 0]], np.float32))
    assert (picture[0, :2] == 100).all()
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    assert (red[1] > green[1] + 100).all() and green[0, 2] > 150 and red[0, 2] > 150 and blue[0, 2] < 60
    for bad in (np.ones((3, 2)), np.full((2, 3), 1.5), np.full((2, 3), np.nan)):
        with pytest.raises(InputError):
            draw_confidence(grey, bad)
