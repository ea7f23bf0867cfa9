"""The page on training: its example runs, its recipes exist, its links lead somewhere."""

import re
import shutil
from pathlib import Path

from featherflow.training import RECIPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def test_the_example_runs(tmp_path, monkeypatch, shared_data, capsys):
    """As it stands, but for the number of samples and the size of the crop."""
    for part, case in (("train", "SQG_00001"), ("test", "backstep_Re800_00001")):
        shutil.copytree(shared_data / "piv" / case, tmp_path / "piv" / part / case)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    short = re.sub(r'"samples=\d+"', '"samples=4", "height=64", "width=64"', code)
    assert short != code
    exec(compile(short, str(PAGE), "exec"), {})
    assert re.search(r"EPE \[px\] per_image: 0\.\d+ before, 0\.\d+ after", capsys.readouterr().out)


def test_recipes_exist_and_links_lead_to_files():
    text = PAGE.read_text()
    names = set(re.findall(r"(?:paper|modern)/[a-z0-9]+(?:-[a-z0-9]+)*", text))
    assert len(names) > 10 and names <= set(RECIPES)
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert len(links) > 2
    for file, _, heading in links:
        path = PAGE.parent / file if file else PAGE
        assert path.is_file(), file
        assert not heading or heading in headings(path), heading


def headings(page):
    """Anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
