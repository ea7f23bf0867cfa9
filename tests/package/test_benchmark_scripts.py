"""Scripts in `benchmarks/` run by hand, and rarely: what they take from the package must still be there."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


def taken(tree: ast.AST) -> dict[str, ModuleType]:
    """Modules of the package by the names that a script has for them; fails for an import of what there is not."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in (name for name in node.names if name.name.partition(".")[0] == "featherflow"):
                modules[name.asname or name.name.partition(".")[0]] = importlib.import_module(
                    name.name if name.asname else "featherflow"
                )
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "featherflow":
            package = importlib.import_module(node.module)
            for name in node.names:
                try:
                    found = getattr(package, name.name)
                except AttributeError:
                    found = importlib.import_module(f"{node.module}.{name.name}")
                if isinstance(found, ModuleType):
                    modules[name.asname or name.name] = found
    return modules


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_takes_from_the_package_is_there(script):
    tree = ast.parse(script.read_text())
    modules = taken(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"line {node.lineno}: {node.value.id}.{node.attr}"
