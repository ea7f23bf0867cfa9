"""The page on the lineage: its snippets run, its links lead somewhere, and it leaves no network out."""

import re
from pathlib import Path

from featherflow import networks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lineage.md"


def test_snippets_run():
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
    same = [bool((warm == cold).all()) for warm, cold in zip(names["warm"], names["cold"], strict=True)]
    assert same == [True, False]


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text())
    assert links and all((PAGE.parent / link).is_file() for link in links)


def test_every_file_of_a_network_is_linked():
    text = PAGE.read_text()
    modules = {networks.get(name).build.args[1].__module__ for name in networks.names() if len(networks.get(name).build.args) > 1}
    assert modules and all(f"networks/{module.rpartition('.')[2]}.py" in text for module in modules)
