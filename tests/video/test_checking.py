"""`check`: would catch flicker that passes for motion, cuts in the mean, clips that do not fit each other, and another table."""

import csv
import json
import os

import numpy as np
import pytest
from clips import moving, write_clip
from helpers import frame, run_command
from PIL import Image

from featherflow import Estimator
from featherflow.errors import InputError
from featherflow.video import check_clip

pytest.importorskip("cv2")
FAST = "dis"


def write(folder, frames):
    folder.mkdir()
    for index, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def steady(tmp_path):
    return write(tmp_path / "steady", moving())


def flickering(frames):
    return [(picture * (0.8 if index % 2 else 1.0)).astype(np.uint8) for index, picture in enumerate(frames)]


def test_flicker_is_measured_along_the_motion_of_the_original(steady, tmp_path):
    edited = write(tmp_path / "edited", flickering(moving()))
    clean = check_clip(steady, estimator=Estimator(FAST))
    found = check_clip(edited, flow_from=steady, estimator=Estimator(FAST))
    assert len(clean.frames) == len(found.frames) == 5 and clean.compared_frames == 5 and clean.cuts == 0
    assert clean.warp_error < 1e-3
    expected = np.mean([np.mean((picture / 255 * 0.2) ** 2) for picture in moving()])
    assert found.warp_error == pytest.approx(expected, rel=0.1)
    assert found.warp_error == pytest.approx(np.mean([one.warp_error for one in found.frames]))
    assert all(0.7 < one.compared <= 1 for one in found.frames) and [one.time_s for one in found.frames][1] == 0.04


def test_cuts_are_left_out(tmp_path):
    other = [picture[::-1, ::-1].copy() for picture in moving(3)]
    clip = write(tmp_path / "cut", [*moving(3), *(255 - picture for picture in other)])
    found = check_clip(clip, estimator=Estimator(FAST))
    assert [one.cut for one in found.frames] == [False, False, True, False, False]
    assert found.frames[2].warp_error is None and found.compared_frames == 4 and found.warp_error < 1e-3
    black = write(tmp_path / "black", [np.zeros((64, 96, 3), np.uint8) + k % 2 for k in range(3)])
    empty = check_clip(black, estimator=Estimator(FAST))
    assert empty.warp_error is None and "no of 2 pairs" in empty.sentence()


def test_clips_that_do_not_fit_are_refused(steady, tmp_path):
    for name, frames, said in (
        ("small", [picture[:, :80] for picture in moving()], "80x64"),
        ("short", moving()[:4], "4 frames"),
        ("long", [*moving(), frame(64, 96)], "more than the 6 frames"),
    ):
        with pytest.raises(InputError, match=said):
            check_clip(write(tmp_path / name, frames), tmp_path / "t.csv", flow_from=steady, estimator=Estimator(FAST))
    with pytest.raises(InputError, match=r"\.csv"):
        check_clip(steady, tmp_path / "t.txt", estimator=Estimator(FAST))
    assert not os.path.exists(tmp_path / "t.csv")


def test_command(steady, tmp_path, capsys):
    assert run_command("check", steady, "--model", FAST, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["frames"]) == 5 and said["warp_error"] < 1e-3 and said["frames"][4]["frame"] == 4
    assert run_command("check", steady, "--model", FAST, "-o", tmp_path / "t.csv") == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert list(rows[0]) == ["frame", "time_s", "warp_error", "compared", "cut"] and len(rows) == 5
    assert [float(row["warp_error"]) for row in rows] == [one["warp_error"] for one in said["frames"]]
    assert "5 of 5 pairs" in capsys.readouterr().out
    assert run_command("check", steady, "--model", FAST) == 0
    assert "compared" in capsys.readouterr().out
    assert run_command("check", steady, "--model", FAST, "--flow-from", tmp_path / "none") == 3


def test_a_clip_that_is_cut_short_keeps_what_was_measured(tmp_path, capsys):
    pytest.importorskip("av")
    write_clip(tmp_path / "whole.mkv", moving(20))
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    assert run_command("check", tmp_path / "cut.mkv", "-o", tmp_path / "out.csv", "--model", FAST) == 3
    assert "until then is kept: " in capsys.readouterr().err
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 5 < len(rows) < 16 and [int(row["frame"]) for row in rows] == list(range(len(rows)))
