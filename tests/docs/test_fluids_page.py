"""The page on fluids: its examples say what is true, its pairings exist."""

import re
from pathlib import Path

import numpy as np
import pytest
from particle_images import write_recordings

from featherflow.transport.fluids import PAIRINGS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fluids.md"


def test_examples_run(tmp_path, monkeypatch, capsys):
    write_recordings(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert "(24, 32) mm/s" in capsys.readouterr().out
    # The particles turn clockwise by 0.03 rad in 2 ms.
    assert np.nanmedian(names["field"].vorticity) == pytest.approx(-30, rel=0.1)


def test_pairings_and_links():
    text = PAGE.read_text()
    assert set(re.findall(r"--pairing (\w+)", text)) <= set(PAIRINGS)
    assert all((PAGE.parent / link).is_file() for link in re.findall(r"\]\(([^)#]+)\)", text))
