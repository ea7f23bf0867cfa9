"""The page on fluids: its examples and its command run, its pairings exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import run_command
from particle_images import particles
from PIL import Image

from featherflow.transport.fluids import PAIRINGS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fluids.md"


@pytest.fixture
def images(tmp_path, monkeypatch):
    for image, name in zip(particles(), ("run_a.tif", "run_b.tif"), strict=True):
        Image.fromarray(image).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_run(images, capsys):
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert "(24, 32) mm/s" in capsys.readouterr().out
    # The particles turn clockwise by 0.03 rad in 2 ms.
    assert np.nanmedian(names["field"].vorticity) == pytest.approx(-30, rel=0.1)


def test_the_command_runs(images, capsys):
    for part in ("xarray", "h5netcdf", "matplotlib"):
        pytest.importorskip(part)
    (command,) = re.findall(r"^featherflow (piv run_a\.tif .*)$", PAGE.read_text(), re.MULTILINE)
    assert run_command(*shlex.split(command)) == 0
    assert {path.name for path in images.iterdir()} == {
        *("run_a.tif", "run_b.tif", "field.csv", "field.nc", "arrows.png", "vorticity.png")
    }


def test_pairings_and_links():
    text = PAGE.read_text()
    assert set(re.findall(r"--pairing (\w+)", text)) <= set(PAIRINGS)
    assert all((PAGE.parent / link).is_file() for link in re.findall(r"\]\(([^)#]+)\)", text))
