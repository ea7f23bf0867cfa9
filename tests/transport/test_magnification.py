"""What moves a little moves so many times as far, and what is still stays."""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from clips import psnr, read_clip, write_clip
from helpers import frame, run_command

import featherflow
from featherflow.errors import InputError
from featherflow.transport import magnify
from featherflow.transport.magnification import _Band

cv2 = pytest.importorskip("cv2")


def trembling(shift: float) -> np.ndarray:
    """A texture whose middle moves sideways by `shift` px, fading to none towards the border."""
    canvas = cv2.GaussianBlur(frame(96, 128, 4), None, 1.5)
    y, x = np.mgrid[:96, :128].astype(np.float32)
    share = np.exp(-(((x - 64) / 30) ** 2 + ((y - 48) / 24) ** 2))
    return cv2.remap(canvas, x - shift * share, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def test_a_small_motion_becomes_five_times_as_long():
    still, moved, truth = trembling(0), trembling(0.5), trembling(2.5)
    larger = magnify(moved, still, featherflow.estimate(moved, still, model="dis"), 5)
    assert psnr(larger, truth) > psnr(moved, truth) + 8
    flow = featherflow.estimate(still, larger, model="dis")
    assert np.median(flow[43:53, 59:69, 0]) == pytest.approx(2.5 * 0.97, abs=0.25)
    assert np.abs(larger[:8].astype(int) - still[:8]).mean() < 3


def test_factor_one_changes_nothing_and_factor_nought_takes_the_motion_out():
    still, moved = trembling(0), trembling(1)
    flow = featherflow.estimate(moved, still, model="dis")
    assert np.abs(magnify(moved, still, flow, 1).astype(int) - moved).max() <= 1
    assert psnr(magnify(moved, still, flow, 0), still) > psnr(moved, still) + 8
    with pytest.raises(InputError, match="factor"):
        magnify(moved, still, flow, -1)


def test_a_clip(tmp_path):
    shifts = [0, 0.3, 0.6, 0.3]
    write_clip(tmp_path / "clip.mkv", [trembling(s) for s in shifts])
    assert run_command("magnify", tmp_path / "clip.mkv", "-o", tmp_path / "out.mp4", "--factor", 4, "--model", "dis") == 0
    frames, _ = read_clip(tmp_path / "out.mp4")
    assert len(frames) == 4
    for k, shift in enumerate(shifts[1:], start=1):
        flow = featherflow.estimate(frames[0], frames[k], model="dis")
        assert np.median(flow[43:53, 59:69, 0]) == pytest.approx(4 * shift * 0.97, abs=0.45)  # the video is not lossless


@pytest.mark.parametrize(("band", "passing"), [((1, 3), 0), ((5, 8), 1)])
def test_a_band_passes_what_lies_in_it(band, passing):
    """Against a sine whose length and phase are known, at steps of uneven length."""
    generator = np.random.default_rng(0)
    steps = [Fraction(int(step), 1000) for step in generator.integers(15, 26, 300)]
    frequencies = (np.sqrt(3), np.sqrt(40))  # half-way, as frequencies go, in either band
    rows = []
    kept = _Band(*band, Fraction(0))
    for time in accumulate(steps):
        waves = torch.tensor([np.sin(2 * np.pi * frequency * float(time)) for frequency in frequencies])
        rows.append(torch.stack([waves, kept.filtered(waves, time)]))
    waves, passed = torch.stack(rows)[100:].permute(1, 2, 0)
    assert (passed[passing] - waves[passing]).abs().max() < 0.1
    assert passed[1 - passing].abs().max() < 0.35


def test_a_band_beyond_the_frames(tmp_path, capsys):
    write_clip(tmp_path / "clip.mkv", [trembling(0), trembling(0.3)])
    assert run_command("magnify", tmp_path / "clip.mkv", "-o", tmp_path / "out.mp4", "--band", "13,20", "--model", "dis") == 2
    assert "nothing faster than 12.5 Hz" in capsys.readouterr().err
    assert run_command("magnify", tmp_path / "clip.mkv", "-o", tmp_path / "out.mp4", "--band", "13", "--model", "dis") == 2
    assert "A band is written as LOW,HIGH" in capsys.readouterr().err
