"""The demonstration works offline and tells the truth about its figures."""

import json

import numpy as np
import pytest
from helpers import run_command
from PIL import Image

from featherflow import demo
from featherflow.flow import read_flow, read_flow_with_valid


def test_demo_writes_what_it_says(tmp_path, capsys):
    assert run_command("demo", tmp_path / "out", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    flow = read_flow(said["flow"])
    truth, valid = read_flow_with_valid(demo.TRUTH)
    assert flow.shape == truth.shape == (said["height"], said["width"], 2) == (384, 512, 2)
    assert Image.open(said["picture"]).size == (512, 384) and Image.open(said["overview"]).size == (1024, 768)
    assert said["epe_px"] == pytest.approx(np.linalg.norm(flow - truth, axis=2)[valid].mean(), abs=1e-3)


def test_the_default_network_is_much_better_than_nothing(tmp_path):
    """Bundled weights that are missing, of another network or badly rounded would not do this."""
    result = demo.run(tmp_path)
    assert result.epe_px < 0.2 * result.mean_length_px


def test_the_bundled_pair_is_what_the_generator_draws(tmp_path):
    demo.make_pair(tmp_path)
    for name in ("frame1.png", "frame2.png"):
        drawn, bundled = (np.asarray(Image.open(folder / name)).astype(int) for folder in (tmp_path, demo.FOLDER))
        assert np.abs(drawn - bundled).mean() < 1.0
    assert np.nanmax(np.abs(read_flow(tmp_path / "flow.png") - read_flow(demo.TRUTH))) <= 2 / 64


def test_demo_into_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run_command("demo", tmp_path / "taken") == 3
    assert "taken" in capsys.readouterr().err
