"""Readers: would catch a swapped frame or mask, a second frame from another sequence, a file that goes unnoticed missing."""

import json

import layouts
import numpy as np
import pytest
from clips import moving
from helpers import run_command
from PIL import Image

from featherflow.cli import main
from featherflow.data import BENCHMARKS, check, find_pairs
from featherflow.errors import FileError, InputError
from featherflow.flow import read_flow, write_flow
from featherflow.images import read_image

GROUPS = {
    "sintel": {"sintel-clean": 1, "sintel-final": 1},
    "kitti2012": {"kitti2012": 1},
    "kitti2015": {"kitti2015": 1},
    "middlebury": {"middlebury": 2},
    "flyingchairs": {"flyingchairs": 1},
    "flyingthings3d": {"flyingthings3d-clean": 2},
    "hd1k": {"hd1k": 1},
    "spring": {"spring": 1},
    "piv": {"piv": 1},
    "heldback": {"heldback-depth": 1},
    "folder": {"folder": 1},
}


def test_every_reader_has_a_layout_here():
    assert set(layouts.ALL) == set(BENCHMARKS) == set(GROUPS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_layout_is_read(name, tmp_path, shared_data):
    root = layouts.ALL[name](tmp_path / name, shared_data)
    assert check(name, root).pairs == GROUPS[name]
    for pair in find_pairs(name, root):
        example = pair.read()
        assert example.flow.shape == (*example.frame1.shape[:2], 2) and example.frame1.shape == example.frame2.shape
        assert example.valid.any() and not np.isnan(example.flow[example.valid]).any()
        assert (example.frame1 != example.frame2).any()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_missing_file_is_named(name, tmp_path, shared_data):
    root = layouts.ALL[name](tmp_path / name, shared_data)
    for path in sorted({file for pair in find_pairs(name, root) for file in pair.files()}):
        hidden = path.rename(path.with_name("hidden"))
        with pytest.raises(FileError) as error:
            check(name, root)
        # Its flow names the pair where the last frame of a folder is gone, since any number of frames may be there.
        assert (path.stem if name != "folder" else "10") in str(error.value)
        hidden.rename(path)
    check(name, root)


@pytest.mark.parametrize("name", ["sintel", "kitti2015", "flyingchairs"])
def test_a_broken_file_is_named(name, tmp_path, shared_data):
    root = layouts.ALL[name](tmp_path / name, shared_data)
    for path in sorted({file for pair in find_pairs(name, root) for file in pair.files()}):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(FileError, match=path.name):
            check(name, root)
        path.write_bytes(content)


def test_a_flow_of_another_size_is_named(tmp_path, shared_data):
    root = layouts.middlebury(tmp_path, shared_data)
    layouts.link(root / "other-gt-flow/Venus/flow10.flo", shared_data / "middlebury/RubberWhale/flow10.flo")
    with pytest.raises(FileError, match=r"flow10\.flo' is 584x388 px, but its frame 'frame10\.png' is 420x380"):
        check("middlebury", root)


def test_sintel_masks(tmp_path, shared_data):
    root = layouts.sintel(tmp_path, shared_data, "market_5", (2, 3))
    pair = next(find_pairs("sintel", root))
    assert (pair.group, pair.name) == ("sintel-clean", "market_5/frame_0002")
    example = pair.read()
    occluded = read_image(shared_data / "sintel/market_5/occlusions/frame_0002.png")[..., 0] > 0
    np.testing.assert_array_equal(example.matched, ~occluded)
    np.testing.assert_array_equal(example.frame2, read_image(shared_data / "sintel/market_5/clean/frame_0003.png"))
    assert 0 < example.invalid.sum() < 1000 and example.valid.all()


def test_kitti_regions(tmp_path, shared_data):
    example = next(find_pairs("kitti2015", layouts.kitti2015(tmp_path, shared_data))).read()
    noc = ~np.isnan(read_flow(shared_data / "kitti2015/000010/flow_noc/000010_10.png")[..., 0])
    np.testing.assert_array_equal(example.matched, noc)
    assert example.valid.sum() > noc.sum() and not (noc & ~example.valid).any()
    assert example.foreground[:, 621:].all() and not example.foreground[:, :621].any()


def test_chairs_split(tmp_path, shared_data):
    root = layouts.flyingchairs(tmp_path, shared_data)
    assert [p.name for p in find_pairs("flyingchairs", root)] == ["00002"]
    assert [p.name for p in find_pairs("flyingchairs", root, "train")] == ["00001", "00003"]
    assert len(list(find_pairs("flyingchairs", root, "all"))) == 3
    (root / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    with pytest.raises(FileError, match="2 lines, but"):
        list(find_pairs("flyingchairs", root))
    (root / "FlyingChairs_train_val.txt").write_text("1\nx\n2")
    with pytest.raises(FileError, match="'x' in line 2"):
        list(find_pairs("flyingchairs", root))
    (root / "FlyingChairs_train_val.txt").unlink()
    with pytest.raises(FileError, match="take the split 'all'"):
        list(find_pairs("flyingchairs", root))


def test_things_leaves_out_frames_that_its_authors_leave_out(tmp_path, shared_data):
    root = layouts.flyingthings3d(tmp_path, shared_data)
    (root / "all_unused_files.txt").write_text("TRAIN/A/0000/left/0007.png\nTEST/A/0000/left/0006.png\n\n")
    assert [pair.name for pair in find_pairs("flyingthings3d", root)] == ["A/0000/left/into_past/0007"]
    (root / "all_unused_files.txt").write_text("TEST/A/0000/left/0006.png\nsomething\n")
    with pytest.raises(FileError, match="line 2"):
        list(find_pairs("flyingthings3d", root))


def test_things_subset(tmp_path, shared_data):
    full = layouts.flyingthings3d(tmp_path / "full", shared_data)
    for number, name in enumerate(("0006", "0007")):
        layouts.link(tmp_path / f"val/image_clean/left/{number:07d}.png", full / f"frames_cleanpass/TEST/A/0000/left/{name}.png")
    flow = shared_data / "flyingchairs/0000000/0000000-gt.flo"
    layouts.link(tmp_path / "val/flow/left/into_future/0000000.flo", flow)
    layouts.link(tmp_path / "val/flow/left/into_past/0000001.flo", flow)
    pairs = {pair.name: pair for pair in find_pairs("flyingthings3d", tmp_path, "test")}
    assert set(pairs) == {"left/into_future/0000000", "left/into_past/0000001"}
    assert pairs["left/into_past/0000001"].frame2.stem == "0000000"
    assert check("flyingthings3d", tmp_path).pairs == {"flyingthings3d-clean": 2}


def test_things_directions(tmp_path, shared_data):
    pairs = {p.name: p for p in find_pairs("flyingthings3d", layouts.flyingthings3d(tmp_path, shared_data))}
    assert set(pairs) == {"A/0000/left/into_future/0006", "A/0000/left/into_past/0007"}
    past = pairs["A/0000/left/into_past/0007"]
    assert (past.frame1.stem, past.frame2.stem) == ("0007", "0006")


def test_spring_takes_one_of_four(tmp_path, shared_data):
    example = next(find_pairs("spring", layouts.spring(tmp_path, shared_data))).read()
    np.testing.assert_array_equal(example.flow, read_flow(shared_data / "middlebury/Venus/flow10.flo"))


def test_test_splits_have_no_flow(tmp_path, shared_data):
    root = layouts.sintel(tmp_path, shared_data)
    (root / "training").rename(root / "test")
    pairs = list(find_pairs("sintel", root, "test"))
    assert len(pairs) == 2 and pairs[0].flow is None and pairs[0].read().flow is None


def test_reading_is_lazy(tmp_path, shared_data):
    root = layouts.middlebury(tmp_path, shared_data)
    (root / "other-data/Venus/frame10.png").write_bytes(b"broken")
    pairs = find_pairs("middlebury", root)
    next(pairs).read()
    with pytest.raises(FileError, match="Venus"):
        next(pairs).read()


def test_what_is_not_there():
    with pytest.raises(InputError, match="no benchmark named 'sintl'"):
        find_pairs("sintl", ".")
    with pytest.raises(InputError, match="no split 'val'"):
        find_pairs("sintel", ".", "val")
    with pytest.raises(FileError, match="no folder"):
        list(find_pairs("sintel", "nowhere"))


def test_command_line(tmp_path, shared_data, capsys):
    root = layouts.kitti2012(tmp_path, shared_data)
    with pytest.raises(SystemExit) as left:
        main(["data", "check", "kitti2012", str(root)])
    assert not left.value.code
    assert "kitti2012, split training: 1 pair of the 194" in capsys.readouterr().out
    (root / "training/colored_0/000045_11.png").unlink()
    with pytest.raises(SystemExit) as left:
        main(["data", "check", "kitti2012", str(root)])
    assert left.value.code == 3 and "000045_11.png' is missing" in capsys.readouterr().err


def test_a_flow_that_knows_nothing_is_no_truth(tmp_path, capsys, caplog):
    """`check` names it, and `evaluate` does not count its pair."""
    (tmp_path / "flow").mkdir()
    (tmp_path / "frames").mkdir()
    for index, image in enumerate(moving(3)):
        Image.fromarray(image).save(tmp_path / "frames" / f"{index}.png")
    write_flow(tmp_path / "flow" / "0.flo", np.full((64, 96, 2), (2, 1), np.float32))
    write_flow(tmp_path / "flow" / "1.flo", np.full((64, 96, 2), np.nan, np.float32))
    assert run_command("data", "check", "folder", tmp_path) == 3
    said = capsys.readouterr().err
    assert "1.flo" in said and "of no pixel" in said
    assert run_command("evaluate", "--data", f"folder={tmp_path}", "--model", "horn-schunck", "--json") == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert result["pairs"] == 1 and result["pixels"] == 64 * 96 and result["each"]["1"] is None
    assert "1.flo" in caplog.text and "does not count" in caplog.text
