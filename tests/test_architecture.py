"""How the package is laid out: which way imports point, and what no function may look like again."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import featherflow

ROOT = Path(featherflow.__file__).parent
#: From the lowest to the highest. What stands in one row may import what stands before it in the row.
ORDER = (
    ("errors",),
    ("files", "headers", "png16", "pixels", "images", "frames", "sequences", "pairs", "outputs", "overlap"),
    ("flow",),
    ("ops",),
    ("networks", "classical"),
    ("data",),
    ("weights",),
    ("inference",),
    ("evaluation", "video", "transport", "plans", "jobs", "demo"),
    ("training", "scale", "app", "napari_plugin"),
    ("cli",),
    ("__main__",),
)
RANK = {name: (row, column) for row, names in enumerate(ORDER) for column, name in enumerate(names)}
#: The choices of `featherflow.inference.EstimationSettings`.
SETTINGS = {"model", "weights", "device", "dtype", "iterations", "refine", "enlarge", "engine", "tile", "octaves"}


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def parts_of(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and subpackage of all that is imported of the package itself, also inside functions."""
    folder = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = folder[: len(folder) - node.level + 1]
            elif node.module and node.module.split(".")[0] == "featherflow":
                base = []
            else:
                continue
            names = (node.module or "").split(".") if node.module else []
            names = names[1:] if not node.level else names
            for alias in node.names:
                yield node.lineno, (base + names + [alias.name])[0]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "featherflow":
                    yield node.lineno, [*alias.name.split("."), ""][1]


def upward(path: Path, text: str | None = None) -> list[str]:
    own = (parts_of(path) or ["__init__"])[0]
    if own == "__init__":
        return []  # the public face
    return [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for line, other in imports(path, text)
        if other != own and other in RANK and RANK[other] >= RANK[own]
    ]


def test_every_subpackage_has_its_place():
    assert {parts_of(path)[0] for path in files() if parts_of(path)} == set(RANK) - _absent()


def _absent() -> set[str]:
    return {name for name in RANK if not (ROOT / name).is_dir() and not (ROOT / f"{name}.py").is_file()}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_points_up(path):
    assert upward(path) == []


def test_an_arrow_that_points_up_would_be_seen():
    inside = "def f():\n    from ..inference import Estimator\n"
    assert upward(ROOT / "networks" / "raft.py", inside) == ["networks/raft.py:2 imports inference"]
    assert upward(ROOT / "networks" / "raft.py", "import featherflow.classical.methods") != []
    assert upward(ROOT / "networks" / "raft.py", "from ..ops import warp\nfrom .contract import Traits") == []
    assert upward(ROOT / "inference" / "runners" / "choice.py", "from ...video import steps") != []
    assert upward(ROOT / "inference" / "runners" / "choice.py", "from ...ops import warp\nfrom .. import fitting") == []


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    found = node.args
    return {argument.arg for argument in (*found.posonlyargs, *found.args, *found.kwonlyargs)}


def crowded(path: Path) -> list[str]:
    """Functions that are handed three or more of the ten settings one by one."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and len(arguments(node) & SETTINGS) >= 3
    ]


def test_settings_travel_together():
    """Only `estimate` and `stream` take them one by one."""
    found = [place for path in files() for place in crowded(path)]
    source = (ROOT / "inference" / "estimator.py").read_text()
    public = [
        f"inference/estimator.py:{node.lineno}"
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name in ("estimate", "stream")
    ]
    assert len(public) >= 2 and set(found) == {place for place in public if place in found}
    assert len(found) >= 2  # the two are found


def test_settings_do_not_travel_unseen():
    """Only what makes an estimator takes them as `**settings`."""
    found = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.args.kwarg is not None
        if node.args.kwarg.arg in ("settings", "kwargs")
    ]
    assert set(found) <= {f"inference/estimator.py:{name}" for name in ("__init__", "kept_estimator", "estimate", "stream")}


def careless_zips(path: Path) -> list[str]:
    text = path.read_text()
    lines = text.splitlines()
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "zip"
        and not any(key.arg == "strict" and getattr(key.value, "value", None) is True for key in node.keywords)
        and not any("#" in line for line in lines[node.lineno - 1 : node.end_lineno])
    ]


def test_every_zip_is_strict_or_says_why_not():
    assert [place for path in files() for place in careless_zips(path)] == []
