"""The manual as a site: it builds without a warning, every page is in its navigation, every link leads somewhere."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from featherflow.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class _Links(HTMLParser):
    """What a page points at, and what in it can be pointed at."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        self.targets += [values[key] for key in ("href", "src") if values.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("manual")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(DOCS, folder / "docs")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_link_of_the_built_site_leads_somewhere(site):
    pages = {page: _Links(page) for page in site.rglob("*.html") if page.name != "404.html"}  # whose links are absolute
    assert len(pages) > 20
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            start = site if parts.path.startswith("/") else page.parent
            file = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors):
                broken.append(f"{page.relative_to(site)}: {target}")
    assert not broken


def test_the_site_asks_nothing_of_other_hosts(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"""<(?:script|img|link|iframe)[^>]*?(?:src|href)=["']?(https?://[^"'\s>]+)""", page.read_text())
        assert not [address for address in loaded if "canonical" not in address], page


def test_every_page_is_in_the_navigation():
    """Else nobody finds it: add it to `nav` in zensical.toml."""
    named = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_every_command_has_a_page():
    verbs = {name for name in app if not name.startswith("-")}
    assert {page.stem for page in (DOCS / "howto").glob("*.md")} <= verbs <= {page.stem for page in DOCS.rglob("*.md")}


def test_pictures_are_small_and_used():
    text = "".join(page.read_text() for page in DOCS.rglob("*.md")) + (ROOT / "README.md").read_text()
    pictures = list((DOCS / "images").iterdir())
    assert not [picture.name for picture in pictures if picture.stat().st_size > 150_000 or f"images/{picture.name}" not in text]
    assert sum(picture.stat().st_size for picture in pictures) < 1_000_000


def test_the_page_of_licences_names_every_direct_dependency():
    """Written by benchmarks/licences.py; whoever adds a dependency runs it again."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    page = (DOCS / "licences.md").read_text().lower().replace("_", "-")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in lines} - {"featherflow"}
    assert names and not [name for name in names if f"| {name} |" not in page]
