"""README and manual hold the tables that the figures under benchmarks/results make, and no others."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import page_tables

    yield page_tables
    sys.modules.pop("page_tables")


def test_pages_are_what_the_figures_make(tables):
    named = []
    for page in tables.PAGES:
        text = (ROOT / page).read_text()
        assert tables.filled(text) == text, (
            f"run python benchmarks/page_tables.py: {page} has other figures than benchmarks/results"
        )
        found = [name for name, _ in tables.BLOCK.findall(text)]
        assert len(found) == text.count("<!-- table:") == text.count("<!-- end of table -->")
        named += found
    assert sorted(named) == sorted(tables.TABLES)


def test_a_block_with_another_figure_is_seen(tables):
    text = (ROOT / "docs/evaluation.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| **liteflownet2-slim**"))
    assert tables.filled(text.replace(line, line.replace("0.", "1.", 1))) == text


def test_the_figures_of_a_run_take_the_place_of_the_old_ones(tables):
    known = {"command": "how", "note": "rounded", "milliseconds": {"dis": 34}, "results": [1]}
    run = {"units": {"epe": "px"}, "cost": {"dis": 1}, "results": [{"model": "dis", "each": {"a": 1}, "pairs": 1}]}
    assert tables.taken(run, known) == {
        "command": "how",
        "milliseconds": {"dis": 34},
        "units": {"epe": "px"},
        "results": [{"model": "dis", "pairs": 1}],
    }


def test_figures_are_small_and_are_json():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert path.stat().st_size < 100_000 and json.loads(path.read_text())["command"].startswith("featherflow evaluate")
