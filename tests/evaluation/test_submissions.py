"""Submissions: would catch a wrong name or folder, a flow that changes on its way to the file, a check that lets faults pass."""

import zipfile

import layouts
import numpy as np
import pytest

from featherflow.cli import main
from featherflow.data import find_pairs
from featherflow.errors import FileError, InputError
from featherflow.evaluation.submissions import check_submission, write_submission
from featherflow.flow import read_flow, write_flow


def method(frame1, frame2):
    """Something with fractions, different at every pixel."""
    y, x = np.mgrid[: frame1.shape[0], : frame1.shape[1]]
    return np.stack((x / 7 - 3, y / -11 + frame1[..., 0] / 255), axis=-1).astype(np.float32)


def make_test_set(name, root, data):
    """The layout of the training set, as a test set without ground truth."""
    root = layouts.ALL[name](root, data)
    split = {"sintel": ("training", "test"), "spring": ("train", "test")}.get(name, ("training", "testing"))
    (root / split[0]).rename(root / split[1])
    return root


@pytest.mark.parametrize(
    "name, entries",
    [
        ("sintel", {"clean/alley_1/frame0002.flo", "final/alley_1/frame0002.flo"}),
        ("spring", {"0001/flow_FW_left/flow_FW_left_0001.flo5", "0001/flow_BW_left/flow_BW_left_0002.flo5"}),
    ],
)
def test_folders(name, entries, tmp_path, shared_data):
    root, target = make_test_set(name, tmp_path / "data", shared_data), tmp_path / "out"
    report = write_submission(name, root, target, method)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == entries and report.flows == len(entries) and report.clipped == 0
    example = next(find_pairs(name, root, "test")).read()
    first = sorted(entries)[0 if name == "sintel" else 1]
    np.testing.assert_array_equal(read_flow(target / first), method(example.frame1, example.frame2))
    with pytest.raises(InputError, match="new or empty folder"):
        write_submission(name, root, target, method)


@pytest.mark.parametrize("name, entry", [("kitti2012", "000045_10.png"), ("kitti2015", "flow/000010_10.png")])
def test_zip_files(name, entry, tmp_path, shared_data):
    root, target = make_test_set(name, tmp_path / "data", shared_data), tmp_path / "out.zip"
    report = write_submission(name, root, target, method)
    assert not report.complete and "1 of" in report.sentence() and "incomplete" in report.sentence()
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == [entry]
        archive.extractall(tmp_path / "unpacked")
    example = next(find_pairs(name, root, "testing")).read()
    difference = read_flow(tmp_path / "unpacked" / entry) - method(example.frame1, example.frame2)
    assert np.abs(difference).max() <= 1 / 128 + 1e-6
    again = tmp_path / "again.zip"
    write_submission(name, root, again, method)
    assert again.read_bytes() == target.read_bytes()
    with pytest.raises(InputError, match=r"must end in \.zip"):
        write_submission(name, root, tmp_path / "folder", method)


def test_what_the_format_cannot_hold_is_clipped_and_told(tmp_path, shared_data):
    root = make_test_set("kitti2015", tmp_path / "data", shared_data)
    report = write_submission("kitti2015", root, tmp_path / "o.zip", lambda a, b: method(a, b) * 0 + np.float32([600, 1]))
    assert report.clipped == 0.5 and "50 % of all values clipped" in report.sentence()


def test_flows_that_no_server_takes(tmp_path, shared_data):
    root = make_test_set("kitti2015", tmp_path / "data", shared_data)
    for wrong in (lambda a, b: method(a, b)[1:], lambda a, b: method(a, b) * np.nan):
        with pytest.raises(InputError, match="flow of kitti2015 000010 must be finite and 1242x375 px"):
            write_submission("kitti2015", root, tmp_path / "out.zip", wrong)
    assert not (tmp_path / "out.zip").exists()
    with pytest.raises(InputError, match="no submission format of 'middlebury'"):
        write_submission("middlebury", root, tmp_path / "out", method)


def test_faults_are_found(tmp_path, shared_data):
    root, target = make_test_set("sintel", tmp_path / "data", shared_data), tmp_path / "out"
    write_submission("sintel", root, target, method)
    path = target / "final/alley_1/frame0002.flo"
    good = read_flow(path)
    write_flow(path, good[:-1])
    with pytest.raises(FileError, match=r"final/alley_1/frame0002\.flo is 1024x435 px, but its frame is 1024x436"):
        check_submission("sintel", root, target)
    holes = good.copy()
    holes[3, 4] = np.nan
    write_flow(path, holes)
    with pytest.raises(FileError, match="unknown pixels"):
        check_submission("sintel", root, target)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"frame0002\.flo: the file is cut short"):
        check_submission("sintel", root, target)
    path.rename(path.with_name("frame_0002.flo"))
    with pytest.raises(FileError, match=r"lacks final/alley_1/frame0002\.flo"):
        check_submission("sintel", root, target)
    write_flow(path, good)
    with pytest.raises(FileError, match=r"holds final/alley_1/frame_0002\.flo"):
        check_submission("sintel", root, target)


def test_zip_faults_are_found(tmp_path, shared_data):
    root, target = make_test_set("kitti2012", tmp_path / "data", shared_data), tmp_path / "out.zip"
    with pytest.raises(FileError, match="no file"):
        check_submission("kitti2012", root, target)
    target.write_bytes(b"no zip")
    with pytest.raises(FileError, match="no sound zip file"):
        check_submission("kitti2012", root, target)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("../000045_10.png", b"")
    with pytest.raises(FileError, match="belongs to no test pair"):
        check_submission("kitti2012", root, target)


def test_command_line(tmp_path, shared_data, capsys):
    pytest.importorskip("cv2")
    root = make_test_set("kitti2012", tmp_path / "data", shared_data)
    arguments = ["evaluate", "--data", f"kitti2012={root}", "--model", "dis-ultrafast", "--submit", str(tmp_path / "out.zip")]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code and "1 of 195 flows of kitti2012, written and read again" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--model", "dis"])
    assert left.value.code == 2 and "one method and one data set" in capsys.readouterr().err
