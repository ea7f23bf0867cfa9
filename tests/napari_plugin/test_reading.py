"""Flow files that are opened in napari; and the manifest by which napari finds all of this."""

import ast
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import featherflow
from featherflow import write_flow
from featherflow.errors import FeatherflowError, FileError, InputError
from featherflow.napari_plugin.reading import SUFFIXES, get_reader

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(featherflow.__file__).parent / "napari_plugin"


@pytest.fixture
def flow() -> np.ndarray:
    flow = np.full((32, 48, 2), (3, 1), np.float32)
    flow[16:, :16] = np.nan
    return flow


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flow_file_becomes_colours_and_vectors(suffix, flow, tmp_path):
    if suffix == ".flo5":
        pytest.importorskip("h5py", reason="needs the extra flo5")
    path = str(tmp_path / f"first{suffix}")
    write_flow(path, flow)
    reader = get_reader(path)
    assert reader is not None
    (colours, keywords, kind), (vectors, _, kind2) = reader(path)
    assert (kind, kind2) == ("image", "vectors") and keywords["name"].startswith("first flow")
    assert colours.shape == (32, 48, 3) and not colours[20, 5].any() and colours[5, 5].any()
    assert vectors.shape == (5, 2, 2) and (vectors[:, 1] == (1, 3)).all()


def test_several_files_are_a_stack(flow, tmp_path):
    paths = [str(tmp_path / f"{index}.flo") for index in range(3)]
    for index, path in enumerate(paths):
        write_flow(path, flow * index)
    (colours, _, _), (vectors, _, _) = get_reader(paths)(paths)
    assert colours.shape == (3, 32, 48, 3)
    assert {(time, tuple(step)) for (time, _, _), step in vectors} == {(t, (0, t, 3 * t)) for t in range(3)}


def test_what_is_no_flow_by_its_name_is_left_to_others():
    assert get_reader("frame.png") is None and get_reader(["a.flo", "b.tif"]) is None


def test_what_cannot_be_read_is_told(flow, tmp_path):
    small, large, broken, other = (str(tmp_path / name) for name in ("small.flo", "large.flo", "broken.flo", "other.npz"))
    write_flow(large, flow)
    write_flow(small, flow[1:])
    Path(broken).write_bytes(Path(large).read_bytes()[:99])
    np.savez(other, picture=np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"one size, but .*large.flo' is 48x32 and .*small.flo' 48x31"):
        get_reader([large, small])([large, small])
    with pytest.raises(FileError):
        get_reader(broken)(broken)
    with pytest.raises(FeatherflowError):
        get_reader(other)(other)


def test_the_manifest_names_what_there_is():
    yaml = pytest.importorskip("yaml", reason="the extra docs is not installed")
    contributions = yaml.safe_load((FOLDER / "napari.yaml").read_text())["contributions"]
    for command in contributions["commands"]:
        module, name = command["python_name"].split(":")
        tree = ast.parse((FOLDER.parent.parent / f"{module.replace('.', '/')}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names = {command["id"] for command in contributions["commands"]}
    used = {entry["command"] for kind in ("widgets", "readers") for entry in contributions[kind]}
    assert used == names
    assert contributions["readers"][0]["filename_patterns"] == [f"*{suffix}" for suffix in SUFFIXES]


def test_napari_finds_the_manifest():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    module, file = points["featherflow"].split(":")
    assert (FOLDER.parent.parent / module.replace(".", "/") / file).is_file()


def test_the_manifest_is_valid():
    npe2 = pytest.importorskip("npe2", reason="the extra napari is not installed")
    manifest = npe2.PluginManifest.from_file(FOLDER / "napari.yaml")
    assert manifest.name == "featherflow"
    if any(find_spec(name) for name in ("PySide6", "PyQt6", "PyQt5")):  # napari's own widgets need one, and it is the user's
        manifest.validate_imports()
