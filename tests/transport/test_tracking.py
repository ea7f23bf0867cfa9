"""Points stay on what they were put on, and those that vanish are given up."""

import json
from fractions import Fraction

import numpy as np
import pytest
from clips import BACKGROUND_MOTION, DISC_MOTION, layered, layered_flow, moving, read_clip, write_clip
from helpers import run_command

from featherflow import Estimator
from featherflow.errors import InputError
from featherflow.transport import grid, points_of, track
from featherflow.transport.tracking import follow, sample

pytest.importorskip("cv2")
COUNT = 6


def clip() -> list[np.ndarray]:
    return [layered(k / 2)[0] for k in range(COUNT)]


def truth(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positions `(T, N, 2)` of points on the first frame, and whether each is to be seen in all frames."""
    disc = layered(0)[1][points[:, 1].astype(int), points[:, 0].astype(int)]
    steps = np.arange(COUNT)[:, None, None] / 2
    places = points + steps * np.where(disc[:, None], DISC_MOTION, BACKGROUND_MOTION)
    seen = np.ones(len(points), bool)
    for k in range(COUNT):
        _, cover = layered(k / 2)
        x, y = np.round(places[k]).astype(int).T
        inside = (x >= 0) & (x < 128) & (y >= 0) & (y < 96)
        seen &= inside & (disc | ~cover[y.clip(0, 95), x.clip(0, 127)])
    return places, seen


def test_true_flow_gives_true_tracks_and_gives_up_what_vanishes():
    points = grid(128, 96, 8)
    flows = [(layered_flow(k / 2, k / 2 + 0.5), layered_flow(k / 2 + 0.5, k / 2)) for k in range(COUNT - 1)]
    states = list(follow(flows, points))
    places, seen = truth(points)
    last, confidence = states[-1]
    kept = confidence > 0
    assert np.abs(last - places[-1])[kept & seen].max() < 0.01
    assert kept[seen].mean() > 0.95 and kept[~seen].mean() < 0.05
    assert (~seen).sum() > 10 and np.isnan(last[~kept]).all()


def test_estimated_tracks_drift_by_less_than_half_a_pixel():
    points = grid(128, 96, 8)
    tracks = track(clip(), points, Estimator("dis"))
    places, seen = truth(points)
    assert tracks.positions.shape == (COUNT, len(points), 2) and (tracks.confidence[0] == 1).all()
    kept = tracks.visible[-1]
    drift = np.linalg.norm(tracks.positions - places, axis=2)[-1]
    assert np.median(drift[kept & seen]) < 0.5
    assert kept[seen].mean() > 0.8 and kept[~seen].mean() < 0.5
    assert (np.diff(tracks.confidence, axis=0) <= 0).all()


def test_sample_is_bilinear_and_outside_is_unknown():
    field = np.stack(np.meshgrid(np.arange(6.0), np.arange(4.0)), axis=-1)
    places = np.array([[1.25, 2.5], [5.0, 3.0], [0.0, 0.0], [5.01, 1.0], [2.0, -0.1]])
    values = sample(field, places)
    assert np.allclose(values[:3], places[:3]) and np.isnan(values[3:]).all()


def test_tables_and_video(tmp_path, capsys):
    write_clip(tmp_path / "clip.mkv", clip())
    command = ("tracks", tmp_path / "clip.mkv", "--model", "dis")
    assert run_command(*command, "-o", tmp_path / "t.csv", "--video", tmp_path / "t.mp4", "--spacing", 8, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    rows = np.genfromtxt(tmp_path / "t.csv", delimiter=",", names=True)
    assert said["points"] == len(grid(128, 96, 8)) == (rows["frame"] == 0).sum()
    assert said["left"] == (rows["frame"] == COUNT - 1).sum() < said["points"]
    frames, times = read_clip(tmp_path / "t.mp4")
    assert times == [Fraction(k, 25) for k in range(COUNT)]
    assert np.abs(frames[3].astype(int) - clip()[3]).max() > 100  # something is drawn
    assert run_command(*command, "-o", tmp_path / "t.json", "--point", "20,30", "--point", "64.5,48") == 0
    table = json.loads((tmp_path / "t.json").read_text())
    assert len(table) == COUNT and table[0]["points"] == [[0, 20, 30, 1], [1, 64.5, 48, 1]]
    assert table[2]["time_s"] == 0.08


def test_bad_calls(tmp_path):
    with pytest.raises(InputError, match="X,Y"):
        points_of(["12;5"])
    with pytest.raises(InputError, match="pairs"):
        list(follow([], [[1.0, np.nan]]))
    assert run_command("tracks", tmp_path, "-o", tmp_path / "t.txt") == 2


def test_a_point_left_of_the_frame_is_a_point(tmp_path, capsys):
    write_clip(tmp_path / "clip.mkv", moving(3))
    for words in (("--point", "-0.4,3"), ("--point=-0.4,3",), ("--point", "5,5", "--point", "-0.4,3")):
        assert run_command("tracks", tmp_path / "clip.mkv", "-o", tmp_path / "a.csv", "--model", "dis", *words) == 2
        assert "The point -0.4,3 lies outside of the frame" in capsys.readouterr().err
