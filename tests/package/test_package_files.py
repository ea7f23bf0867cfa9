"""What stands beside the code says the same as the code: version, licence, changelog, forms, hooks."""

import re
from pathlib import Path

import pytest

import featherflow

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

yaml = pytest.importorskip("yaml", reason="the extra docs is not installed")


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == featherflow.__version__
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])


def test_the_changelog_keeps_its_form():
    """Versions newest first, the unreleased one on top, and under each only the six kinds of change, each with something in it."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "") and all(date for _, date in versions[1:])
    assert len(versions) == text.count("\n## ")
    kinds = re.findall(r"^### (.+)\n\n(- .)?", text, re.MULTILINE)
    assert kinds and {kind for kind, _ in kinds} <= KINDS and all(first for _, first in kinds)


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_forms_are_forms(form):
    content = yaml.safe_load(form.read_text())
    if form.stem == "config":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"] and content["description"]
    kinds = {"textarea", "input", "dropdown", "checkboxes", "markdown"}
    assert content["body"] and all(part["type"] in kinds and part["attributes"]["label"] for part in content["body"])
    identifiers = [part["id"] for part in content["body"]]
    assert len(set(identifiers)) == len(identifiers)


def test_hooks_are_those_of_ci():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {hook["id"] for hook in repository["hooks"]} == {"ruff-check", "ruff-format", "pyright"}
    script = (ROOT / ".ci" / "run").read_text()
    assert "ruff check ." in script and "ruff format --check ." in script and "basedpyright" in script


def test_types_are_part_of_the_package():
    assert (Path(featherflow.__file__).parent / "py.typed").is_file()


def test_the_wheel_stays_small():
    """Below 40 MB, nearly all of it weights, which do not compress further."""
    files = [path for path in Path(featherflow.__file__).parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 100 and sum(path.stat().st_size for path in files) < 40_000_000
