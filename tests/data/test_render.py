"""Samples written for looking at."""

import numpy as np
from PIL import Image

import featherflow.flow
from featherflow.data import SceneConfig, TextureBank
from featherflow.data.render import render_folder


def test_folder_holds_frames_flows_and_a_sheet(tmp_path, monkeypatch):
    # The flow room is stood in for: what matters here is what is handed to it.
    written = {}
    monkeypatch.setattr(featherflow.flow, "write_flow", lambda path, flow: written.update({path: flow}), raising=False)
    monkeypatch.setattr(featherflow.flow, "flow_to_rgb", lambda flow: np.zeros((*flow.shape[:2], 3), np.uint8), raising=False)
    config, textures = SceneConfig(height=64, width=80), TextureBank.procedural(5, 64, particles=1)
    sheet = render_folder(tmp_path / "few", 2, config, textures, seed=3)
    assert Image.open(sheet).size == (4 * 80, 2 * 64)
    assert sorted(path.name for path in (tmp_path / "few").rglob("*.png")) == [
        "frame1.png",
        "frame1.png",
        "frame2.png",
        "frame2.png",
        "sheet.png",
    ]
    assert [flow.shape for flow in written.values()] == [(64, 80, 2)] * 2
    assert (next(iter(written)).parent / "frame1.png").exists()

    # A sample depends on the seed and its number only.
    render_folder(tmp_path / "fewer", 1, config, textures, seed=3)
    first, again = ((tmp_path / run / "00000" / "frame2.png").read_bytes() for run in ("few", "fewer"))
    assert first == again
