"""The README stays short, and its figures are those of the weights' own metadata and of the manual's tables."""

import re
from pathlib import Path

import pytest

from featherflow.weights.catalogue import BUNDLED
from featherflow.weights.store import read_info

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MANUAL = (ROOT / "docs" / "evaluation.md").read_text().partition("## Our weights beside OpenCV")[2]
#: Of the manual's tables; without the numbers of pairs.
COLUMNS = [title.split(" (")[0].strip() for title in MANUAL.partition("per_image |")[2].partition(" |\n")[0].split("|")]
GROUPS = ("middlebury", "sintel-clean", "kitti2015")
#: As the README names a method, and as the table of docs/evaluation.md does.
CLASSICAL = {"DIS (medium), OpenCV": "dis", "DeepFlow, OpenCV": "deepflow"}


def rows(text: str) -> dict[str, list[str]]:
    """First cell to the others, of all tables."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {first.strip("`*"): others for first, *others in cells}


def test_it_is_short_and_shows_a_flow_and_what_it_costs():
    assert len(README.splitlines()) < 150
    assert re.findall(r"\]\(docs/images/(\w+)", README) == ["estimate", "pareto"]


def test_links_lead_to_files():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)]
    assert len(links) > 10 and all((ROOT / link).is_file() for link in links)


def in_manual(name: str) -> list[float]:
    row = rows(MANUAL.partition("## Refinement")[0])[name]
    return [float(row[COLUMNS.index(group)]) for group in GROUPS]


def figures(name: str) -> list[float]:
    (row,) = (others for first, others in rows(README).items() if first.split("`")[0] == name)
    return [float(figure) for figure in row[1].split(" / ")]


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_figures_of_our_weights_are_those_of_their_metadata(path):
    """The manual's, of networks alone; the README's are those of a run, see test_page_tables.py."""
    info = read_info(path)
    scores = info.scores["epe_px_per_image"]
    # Both are rounded, and what ends in a 5 may be either way.
    assert in_manual(info.architecture) == pytest.approx([scores[group] for group in GROUPS], abs=0.0051)


@pytest.mark.parametrize("name", CLASSICAL)
def test_figures_of_others_are_those_of_the_manual(name):
    assert figures(name) == in_manual(CLASSICAL[name])
