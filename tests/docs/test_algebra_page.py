"""The page on flow algebra: its examples run and say what is true."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "algebra.md"


def test_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("OpenEXR")
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"8[78]% of the pixels follow", printed)
    assert np.allclose(names["matrix"], [[1.02, 0.03, -2], [-0.03, 1.02, 1]], atol=1e-5)
    assert not names["follows"][30:70, 40:100].any()
    known = ~np.isnan(names["flow"][..., 0])
    assert known.all() and np.abs(names["flow"] - names["first"]).max() < 1e-4
    assert names["small"].shape == (60, 80, 2) and (tmp_path / "motion.exr").is_file()
    assert names["loss"].item() == 0.25 and names["flow"].shape == (120, 160, 2)
