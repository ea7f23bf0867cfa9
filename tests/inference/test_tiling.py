"""Tiles: would catch a seam, a tile that is never laid, or a motion too long for a tile."""

import numpy as np
import pytest
import torch
from helpers import frame, run_command, small_weights, write_frames

import featherflow
from featherflow import networks
from featherflow.errors import InputError
from featherflow.inference.defaults import largest_untiled
from featherflow.inference.settings import EstimationSettings
from featherflow.inference.tiling import LARGEST_WHOLE, OVERLAP, USUAL_TILE, estimate_in_tiles, tile_for


def gradual(height, width):
    """A flow that differs everywhere, as two frames of which the first holds it: `told` reads it from there."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    first = torch.stack((x, y, x * 0))[None]
    return first, torch.zeros_like(first)


def told(first, second):
    return first[:, :2] * 8


@pytest.mark.parametrize("size", [(256, 700), (600, 256), (600, 900), (513, 385)])
def test_tiles_cover_every_pixel_and_leave_no_seam(size):
    """A method that sees only its own tile but is right there must come out right everywhere."""
    first, second = gradual(*size)
    flow = estimate_in_tiles(told, first, second, tuple(min(side, 256) for side in size))
    assert torch.allclose(flow, told(first, second), atol=1e-4)


def test_neighbours_fade_into_each_other():
    """Tiles that disagree: the flow goes from one to the other without a step, the outer quarter of an overlap left out."""
    calls = []

    def disagreeing(first, second):
        calls.append(first.shape)
        return torch.full((1, 2, *first.shape[-2:]), float(len(calls)))

    flow = estimate_in_tiles(disagreeing, *gradual(256, 384), (256, 256))[0, 0, 100]
    assert len(calls) == 3  # the whole, then two tiles
    quarter = OVERLAP // 4
    assert (flow[: 128 + quarter] == 2).all() and (flow[256 - quarter :] == 3).all() and 2 < flow[192] < 3
    steps = flow.diff()
    assert (steps >= 0).all() and steps.max() < 2.5 / (OVERLAP / 2)


def short_sighted(first, second):
    """One motion for the whole frame, by phase correlation, of at most 64 px along each axis."""
    spectra = [torch.fft.fft2(frame.mean(1) - frame.mean()) for frame in (second, first)]
    product = spectra[0] * spectra[1].conj()
    peaks = torch.fft.ifft2(product / (product.abs() + 1e-6)).real
    near = [((torch.arange(side) + side // 2) % side - side // 2).abs() <= 64 for side in peaks.shape[-2:]]
    peaks = peaks.masked_fill(~(near[0].view(-1, 1) & near[1]), -1)
    y, x = divmod(int(peaks.argmax()), peaks.shape[-1])
    x, y = ((value + side // 2) % side - side // 2 for value, side in zip((x, y), peaks.shape[:-3:-1], strict=True))
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, *first.shape[-2:]).clone()


def test_motions_longer_than_a_tile_can_see():
    noise = torch.rand(1, 3, 80, 130, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(noise, (640, 1040), mode="bicubic")
    first, second = texture[..., 30:, 140:], texture[..., :-30, :-140]
    alone = short_sighted(first[..., :256, :256], second[..., :256, :256])
    assert (alone[0, 0] - 140).abs().min() > 50  # by itself a tile looks in vain
    flow = estimate_in_tiles(short_sighted, first, second, (256, 256))
    seen = flow[..., :-90, :-200]  # what has not left frame 2
    assert (seen - torch.tensor([140.0, 30.0]).view(1, 2, 1, 1)).norm(dim=1).quantile(0.8) < 3


def test_batches():
    first, second = gradual(256, 300)
    both = estimate_in_tiles(told, torch.cat((first, first.flip(-1))), torch.cat((second, second)), (256, 256))
    assert torch.allclose(both, told(torch.cat((first, first.flip(-1))), None), atol=1e-4)


def test_which_frames_are_tiled():
    assert tile_for("auto", (1080, 1920)) is None and tile_for("auto", (2160, 3840)) == USUAL_TILE
    assert tile_for(None, (4320, 7680)) is None and 1088 * 1920 < LARGEST_WHOLE
    assert tile_for((512, 512), (300, 4000)) == (300, 512) and tile_for((512, 512), (300, 400)) is None
    for wrong in ("all", (64, 512), (512,), (512.0, 512)):
        with pytest.raises(InputError, match=r"[Tt]ile"):
            EstimationSettings(tile=wrong)
    assert EstimationSettings(tile="1024x768") == EstimationSettings(tile=(768, 1024)) == EstimationSettings(tile=[768, 1024])
    assert EstimationSettings(tile="none").tile is None


def test_networks_of_bounded_memory_see_large_frames_whole():
    slim = networks.build("liteflownet2-slim").traits
    assert largest_untiled(slim, "auto", "bfloat16") >= 4320 * 7680 and largest_untiled(slim, "torch", "float32") >= 2160 * 3840
    assert largest_untiled(slim, "openvino", "bfloat16") == LARGEST_WHOLE  # a graph does not go strip by strip
    for name in ("raft-small", "liteflownet"):  # liteflownet's finest level is half the frame, and twice as wide
        assert largest_untiled(networks.build(name).traits, "auto", "float32") < 2160 * 3840


def test_estimate_in_tiles_is_near_the_whole(tmp_path):
    weights = small_weights(tmp_path / "x.safetensors")
    pair = frame(256, 384, 1), frame(256, 384, 2)
    settings = {"model": "liteflownetx", "weights": weights}
    whole, tiled = (featherflow.estimate(*pair, **settings, tile=tile) for tile in (None, (256, 288)))
    assert tiled.shape == whole.shape and not np.array_equal(tiled, whole)
    assert np.abs(tiled - whole).mean() < 0.1 * np.abs(whole).mean()


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path, 2, 64, 80)
    chosen = ("--model", "liteflownetx", "--weights", small_weights(tmp_path / "x.safetensors"), "-o", "out.flo")
    for tile, code in (("none", 0), ("auto", 0), ("1024x768", 0), ("big", 2), ("64x64", 2)):
        assert run_command("estimate", "frame0.png", "frame1.png", *chosen, "--tile", tile) == code, tile
