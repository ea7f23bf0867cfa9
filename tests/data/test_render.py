"""Samples written for looking at, and for the readers."""

import json

import numpy as np
from helpers import run_command
from PIL import Image

from featherflow.data import SceneConfig, TextureBank
from featherflow.data.render import render_folder
from featherflow.flow import read_flow


def test_folder_holds_frames_flows_and_a_sheet(tmp_path):
    config, textures = SceneConfig(height=64, width=80), TextureBank.procedural(5, 64, particles=1)
    sheet = render_folder(tmp_path / "few", 2, config, textures, seed=3)
    assert Image.open(sheet).size == (4 * 80, 2 * 64)
    written = sorted(path.relative_to(tmp_path / "few").as_posix() for path in (tmp_path / "few").rglob("*.*"))
    pair = ["flow/{}/frame1.flo", "frames/{}/frame1.png", "frames/{}/frame2.png", "occlusions/{}/frame1.png"]
    assert written == sorted([name.format(f"0000{k}") for k in (0, 1) for name in pair] + ["sheet.png"])
    assert read_flow(tmp_path / "few/flow/00001/frame1.flo").shape == (64, 80, 2)

    # A sample depends on the seed and its number only.
    render_folder(tmp_path / "fewer", 1, config, textures, seed=3)
    first, again = ((tmp_path / run / "frames/00000/frame2.png").read_bytes() for run in ("few", "fewer"))
    assert first == again


def test_what_is_rendered_is_what_the_readers_read(tmp_path, capsys):
    """One layout: `data render`, `data check` and `evaluate` agree on it."""
    assert run_command("data", "render", tmp_path / "pairs", "--count", "2", "--height", "64", "--width", "96") == 0
    assert run_command("data", "check", "folder", tmp_path / "pairs") == 0
    capsys.readouterr()
    assert run_command("evaluate", "--data", f"folder={tmp_path / 'pairs'}", "--model", "horn-schunck", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [result["pairs"] for result in said["results"]] == [2]
    assert np.isfinite(said["results"][0]["per_image"]["epe"])


def test_packed_textures_can_be_read_by_all_who_may(tmp_path, monkeypatch):
    import os

    mask = os.umask(0o022)
    try:
        TextureBank.procedural(3, 32, particles=1).pack(tmp_path / "textures.st")
    finally:
        os.umask(mask)
    assert (tmp_path / "textures.st").stat().st_mode & 0o777 == 0o644
