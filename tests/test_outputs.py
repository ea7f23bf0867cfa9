"""No output destroys an input or another output, and sequences are what their names say."""

import json
import os

import numpy as np
import pytest
from clips import moving, read_clip, write_clip
from helpers import run_command, small_weights
from PIL import Image

from featherflow import Estimator
from featherflow.errors import InputError
from featherflow.flow import read_flow, write_flow
from featherflow.outputs import check_outputs
from featherflow.sequences import gaps, natural_order, stills
from featherflow.video import flow_video

pytest.importorskip("cv2")
FAST = ("--model", "dis-ultrafast")


def save(folder, names, frames=None):
    folder.mkdir(exist_ok=True, parents=True)
    for name, frame in zip(names, frames or moving(len(names)), strict=True):
        Image.fromarray(frame).save(folder / name)


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "frames", [f"{k:04d}.png" for k in range(4)])
    save(tmp_path, ["a.png", "b.png"])
    save(tmp_path / "mixed", ["f.bmp", "f.png", "g.png"])
    write_clip(tmp_path / "clip.mkv", moving(3))
    (tmp_path / "pair.csv").write_text("a.png,b.png\n")
    (tmp_path / "pairs.csv").write_text("a.png,b.png\nb.png,a.png\n")
    save(tmp_path / "halves/a", ["0.png"])
    save(tmp_path / "halves/b", ["0.png"])
    save(tmp_path / "own/frames", ["0000.png", "0001.png"])
    (tmp_path / "own/flow").mkdir()
    write_flow(tmp_path / "own/flow/0000.flo", np.zeros((64, 96, 2), np.float32))
    (tmp_path / "folder.mp4").mkdir()
    os.symlink("a.png", "link.png")
    return tmp_path


REFUSED = {
    "pictures over frames": (("estimate", "frames", "-o", "flows", "--picture", "frames"), "frames/0000.png"),
    "pictures over frames, overwrite": (
        ("estimate", "frames", "-o", "flows", "--picture", "frames", "--overwrite"),
        "frames/0000.png",
    ),
    "KITTI flow over frame 1": (("estimate", "a.png", "b.png", "-o", "a.png"), "--overwrite"),
    "another way to the same file": (("estimate", "a.png", "b.png", "-o", "frames/../b.png"), "--overwrite"),
    "through a link": (("estimate", "a.png", "b.png", "--picture", "link.png"), "--overwrite"),
    "flow and picture in one": (("estimate", "a.png", "b.png", "-o", "x.png", "--picture", "x.png"), "both be written to 'x.png'"),
    "mask over picture": (
        ("estimate", "a.png", "b.png", "-o", "x.flo", "--picture", "x_occlusion.png", "--occlusion"),
        "x_occlusion.png",
    ),
    "flow and pictures of one folder": (("estimate", "frames", "-o", "x", "--picture", "x", "--format", "png16"), "both"),
    "pictures among frames": (("estimate", "frames/*", "-o", "flows", "--picture", "frames/../frames"), "frames/0000.png"),
    "masks among frames": (("estimate", "frames", "-o", "frames", "--occlusion"), "would be one of the frames"),
    "masks of a clip among frames": (("video", "frames", "--flow-dir", "frames", "--occlusion"), "would be one of the frames"),
    "equal stems": (("estimate", "mixed", "-o", "flows"), "twice"),
    "a folder named like a picture": (("estimate", "frames", "--picture", "x.png"), "goes into a folder"),
    "a clip over itself": (("video", "clip.mkv", "-o", "clip.mkv"), "--overwrite"),
    "interpolate": (("interpolate", "clip.mkv", "-o", "clip.mkv"), "--overwrite"),
    "stabilise": (("stabilise", "clip.mkv", "-o", "clip.mkv"), "--overwrite"),
    "magnify": (("magnify", "clip.mkv", "-o", "clip.mkv"), "--overwrite"),
    "numbered pictures over frames": (("interpolate", "frames", "-o", "frames/%04d.png"), "frames/0000.png"),
    "flow files over frames": (("video", "frames", "--flow-dir", "six", "--format", "png16"), "six/000000.png"),
    "a list over itself": (("piv", "pair.csv", "-o", "pair.csv"), "take the place of 'pair.csv'"),
    "a list by whose name files would be numbered": (("piv", "pairs.csv", "-o", "pairs.csv"), "take the place of 'pairs.csv'"),
    "arrows among frames": (("piv", "frames", "--quiver", "frames/q.png"), "would be one of the frames of 'frames'"),
    "vorticity among frames": (("piv", "frames/*.png", "--vorticity", "frames/v.png"), "would be one of the frames"),
    "arrows among the frames of folder a": (("piv", "halves", "--quiver", "halves/a/q.png"), "would be one of the frames"),
    "a field over a frame": (("piv", "a.png", "b.png", "--quiver", "b.png"), "which is read; name another file."),
    "a table over a frame": (("evaluate", "--data", "folder=own", "--csv", "own/frames/0000.png"), "which is read"),
    "a page over a flow": (("evaluate", "--data", "folder=own", "--html", "own/flow/0000.flo"), "which is read"),
    "a flow file named like a folder": (("estimate", "a.png", "b.png", "-o", "x.flo/"), "the name of a folder"),
    "a picture named like a folder": (("estimate", "a.png", "b.png", "--picture", "x.png/"), "the name of a folder"),
    "a video named like a folder": (("video", "clip.mkv", "-o", "x.mp4/"), "the name of a folder"),
    "a table named like a folder": (("tracks", "clip.mkv", "-o", "x.csv/"), "the name of a folder"),
    "a field named like a folder": (("piv", "a.png", "b.png", "-o", "x.csv/"), "the name of a folder"),
    "figures named like a folder": (("evaluate", "--data", "folder=own", "--csv", "x.csv/"), "the name of a folder"),
    "a video over a folder": (("video", "clip.mkv", "-o", "folder.mp4"), "the name of a folder"),
    "tracks": (("tracks", "clip.mkv", "-o", "t.csv", "--video", "clip.mkv"), "--overwrite"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_nothing_is_destroyed(work, key, capsys, monkeypatch):
    """Refused before anything is computed, in one sentence that names the file."""
    import featherflow.classical.opencv as opencv

    def computed(*_):
        raise AssertionError("something was computed")

    monkeypatch.setattr(opencv, "estimate", computed)
    arguments, said = REFUSED[key]
    if "six" in arguments:
        save(work / "six", [f"{k:06d}.png" for k in range(3)])
        arguments = tuple("six" if part == "frames" else part for part in arguments)
    before = contents(work)
    assert run_command(*arguments, *FAST) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1
    assert contents(work) == before


PLACES = {
    "estimate": ("estimate", "a.png", "b.png", "-o", "gone/x.flo"),
    "estimate along a sequence": ("estimate", "frames", "-o", "a.png/flows"),
    "video": ("video", "clip.mkv", "-o", "gone/x.mp4"),
    "video into a file system of another kind": ("video", "clip.mkv", "-o", "/proc/x.mp4"),
    "flow files": ("video", "clip.mkv", "--flow-dir", "/proc/flows"),
    "interpolate": ("interpolate", "clip.mkv", "-o", "gone/x.mp4"),
    "stabilise": ("stabilise", "clip.mkv", "-o", "gone/x.mp4"),
    "magnify": ("magnify", "clip.mkv", "-o", "gone/x.mp4"),
    "tracks": ("tracks", "clip.mkv", "-o", "x.csv", "--video", "gone/x.mp4"),
    "piv": ("piv", "a.png", "b.png", "-o", "gone/x.csv"),
    "evaluate": ("evaluate", "--data", "folder=own", "--html", "gone/x.html"),
}


@pytest.mark.parametrize("key", PLACES)
def test_a_place_where_no_file_can_be_is_refused_before_the_work(work, key, capsys, monkeypatch):
    import featherflow.classical.opencv as opencv

    def computed(*_):
        raise AssertionError("something was computed")

    monkeypatch.setattr(opencv, "estimate", computed)
    if "/proc" in PLACES[key][-1] and not os.path.isdir("/proc/self"):
        pytest.skip("there is no /proc")
    before = contents(work)
    assert run_command(*PLACES[key], *FAST) == 3
    error = capsys.readouterr().err.strip()
    assert error.startswith("featherflow: cannot write ") and len(error.splitlines()) == 1
    assert contents(work) == before


def test_a_folder_may_be_named_like_a_file(work):
    """What ends in a slash is a folder, whatever its suffix."""
    assert run_command("estimate", "frames", "-o", "an_x.tif/", *FAST) == 0
    assert sorted(os.listdir("an_x.tif")) == ["0000.flo", "0001.flo", "0002.flo"]


def test_pictures_that_are_made_do_not_become_pictures_that_are_read(work, capsys):
    """Photos are read at any depth, and folders of frames whole: nothing is written among them."""
    before = contents(work)
    small = ("--count", "1", "--height", "32", "--width", "32")
    for arguments, said in (
        (("data", "render", "frames", *small), "is not empty"),
        (("data", "render", "frames/new", *small, "--photos", "frames"), "would be one of the pictures of 'frames'"),
        (("data", "heldback", "frames/new", "--photos", "frames"), "would be one of the pictures of 'frames'"),
        (("data", "pack", "frames", "-o", "frames/0000.png"), "would be one of the pictures of 'frames'"),
        (("train", "modern/liteflownetx", "--run", "frames/run", "--photos", "frames"), "would be one of the pictures of 'frames'"),
        (("demo", "frames"), "holds pictures"),
    ):
        assert run_command(*arguments) == 2, arguments
        assert said in capsys.readouterr().err
        assert contents(work) == before


def test_weights_and_networks_do_not_replace_what_they_are_made_of(work, capsys):
    weights = small_weights(work / "w.xml")  # the name says nothing of what is in it
    for arguments in (
        ("export", "liteflownetx", "--weights", weights, "-o", weights),
        ("weights", "import", weights, "--as", "liteflownetx:mine", "-o", weights),
    ):
        before = contents(work)
        assert run_command(*arguments) == 2
        assert "which is read; name another file." in capsys.readouterr().err
        assert contents(work) == before


def test_overwrite_lets_a_result_take_an_inputs_place(work):
    assert run_command("estimate", "a.png", "b.png", "-o", "b.png", "--overwrite", *FAST) == 0
    assert read_flow("b.png").shape == (64, 96, 2)
    assert run_command("video", "clip.mkv", "-o", "clip.mkv", "--overwrite", *FAST) == 0
    assert len(read_clip(work / "clip.mkv")[0]) == 2


def test_a_result_of_before_is_replaced(work):
    for _ in range(2):
        assert run_command("estimate", "a.png", "b.png", "-o", "x.flo", "--picture", "x.png", *FAST) == 0


def test_numbers_count_as_numbers(tmp_path):
    names = ["frame_1.png", "frame_2.png", "frame_10.png", "frame_11.png"]
    save(tmp_path, names)
    assert [still.path.name for still in stills(tmp_path)] == names
    assert [still.path.name for still in stills(tmp_path / "*.png")] == names
    assert sorted(["b2/1", "b10/0", "a"], key=natural_order) == ["a", "b2/1", "b10/0"]
    assert sorted(["x1", "x01", "x"], key=natural_order)[0] == "x"
    assert run_command("estimate", tmp_path, "-o", tmp_path / "flows", *FAST) == 0
    for name in names[:3]:
        flow = read_flow(tmp_path / "flows" / name.replace("png", "flo"))
        assert np.abs(np.median(flow, axis=(0, 1)) - (2, 1)).max() < 0.3


def test_pairs_stay_within_a_folder(tmp_path, capsys):
    for name in ("one", "two"):
        save(tmp_path / "seq" / name, ["0.png", "1.png", "2.png"])
    code = run_command("estimate", tmp_path / "seq/*/*.png", "-o", tmp_path / "flows", "--picture", tmp_path / "p", "--json", *FAST)
    assert code == 0
    found = sorted(path.relative_to(tmp_path / "flows").as_posix() for path in (tmp_path / "flows").rglob("*.flo"))
    assert found == ["one/0.flo", "one/1.flo", "two/0.flo", "two/1.flo"]
    for pair in json.loads(capsys.readouterr().out):
        assert os.path.dirname(pair["frame1"]) == os.path.dirname(pair["frame2"])


def test_gaps_are_said(tmp_path, capsys, caplog):
    save(tmp_path, [f"f{k}.png" for k in (1, 2, 3, 6, 7)])
    assert len(gaps(stills(tmp_path))) == 1 and "3 apart" in gaps(stills(tmp_path))[0]
    assert run_command("estimate", tmp_path, "-o", tmp_path / "flows", *FAST) == 0
    assert "'f3.png' and 'f6.png'" in caplog.text
    caplog.clear()
    flow_video(tmp_path, tmp_path / "out.mp4", estimator=Estimator("dis-ultrafast"))
    assert "'f3.png' and 'f6.png'" in caplog.text
    for path in tmp_path.glob("*.png"):
        path.unlink()
    save(tmp_path, [f"f{k}.png" for k in (10, 20, 30)])
    assert gaps(stills(tmp_path)) == []


def test_one_scale_for_a_sequence(tmp_path, capsys):
    slow, fast = moving(3, dx=1, dy=0), moving(3, dx=4, dy=0)
    save(tmp_path, [f"{k}.png" for k in range(6)], slow + fast)
    arguments = ("estimate", tmp_path, "--picture", tmp_path / "p", "--json", "--model", "farneback")
    assert run_command(*arguments) == 0
    scales = {pair["picture_scale_px"] for pair in json.loads(capsys.readouterr().out)}
    assert len(scales) == 1 and scales.pop() > 3
    plain = np.asarray(Image.open(tmp_path / "p/0.png"))
    assert run_command(*arguments, "--legend") == 0
    drawn = np.asarray(Image.open(tmp_path / "p/0.png"))
    different = (drawn != plain).any(axis=2)
    assert different[-20:, -24:].mean() > 0.5 and not different[:20].any()


def test_a_run_goes_on_where_it_was_and_past_what_fails(tmp_path, capsys):
    frames = moving(5)
    frames[2] = frames[2][:40]
    save(tmp_path, [f"{k}.png" for k in range(5)], frames)
    arguments = ("estimate", tmp_path, "-o", tmp_path / "flows", "--format", "npz", *FAST)
    assert run_command(*arguments) == 2
    assert sorted(os.listdir(tmp_path / "flows")) == ["0.npz"]
    stamp = os.stat(tmp_path / "flows/0.npz").st_mtime_ns
    capsys.readouterr()
    assert run_command(*arguments, "--keep-going", "--skip-existing", "--json") == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert [("error" in pair, pair["frame1"][-5:]) for pair in said] == [(True, "1.png"), (True, "2.png"), (False, "3.png")]
    assert "1 pair done; 1 was there already; 2 failed" in err
    assert os.stat(tmp_path / "flows/0.npz").st_mtime_ns == stamp
    os.chmod(tmp_path / "flows/0.npz", 0o444)  # what is left as it is may be protected
    assert run_command(*arguments, "--keep-going", "--skip-existing", "--json") == 1
    assert sorted(os.listdir(tmp_path / "flows")) == ["0.npz", "3.npz"]


def test_seconds_are_those_of_estimation(work, capsys, monkeypatch):
    """Loading is apart: a model that takes half a second to load does not take half a second for a pair."""
    import time

    monkeypatch.setattr("featherflow.inference.estimator._check_classical", lambda *_: time.sleep(0.5))
    assert run_command("estimate", "frames", "-o", "x", "--json", *FAST) == 0
    said = json.loads(capsys.readouterr().out)
    assert said[0]["load_seconds"] >= 0.5 > said[0]["seconds"] and said[1]["load_seconds"] == 0


def test_check_outputs_knows_files_by_more_than_their_names(tmp_path):
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "hard")
    with pytest.raises(InputError, match="which is read"):
        check_outputs([("the flow", tmp_path / "hard")], [tmp_path / "a"])
    with pytest.raises(InputError, match="both"):
        check_outputs([("the flow", tmp_path / "new"), ("the picture", tmp_path / "x/../new")])
    check_outputs([("the flow", tmp_path / "new"), ("the picture", None)], [tmp_path / "a"])


def test_flow_video_in_python_too(work):
    with pytest.raises(InputError, match=r"take the place of 'clip\.mkv'"):
        flow_video("clip.mkv", "clip.mkv", estimator=Estimator("dis-ultrafast"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("weights", "import", "a.png", "--as", "liteflownet:x", "-o", "a.png"),
        ("evaluate", "frames", "--csv", "x", "--html", "x"),
    ],
)
def test_other_verbs_check_their_outputs_too(work, arguments, capsys):
    before = contents(work)
    assert run_command(*arguments) == 2
    said = capsys.readouterr().err
    assert ("take the place of" in said or "both be written" in said) and contents(work) == before


@pytest.mark.parametrize("failing", ["write_image", "save_flow_picture"])
def test_a_disk_that_is_full_before_the_last_file_leaves_the_first_one_alone(work, monkeypatch, capsys, failing):
    from featherflow import jobs
    from featherflow.errors import FileError

    everything = ("estimate", "a.png", "b.png", "-o", "x.flo", "--picture", "x.png", "--backward", "--occlusion", *FAST)
    assert run_command(*everything) == 0
    before = contents(work)

    def full(*_):
        raise FileError("cannot write x: the disk is full")

    monkeypatch.setattr(jobs, failing, full)
    swapped = ("estimate", "b.png", "a.png", *everything[3:])
    assert run_command(*swapped) == 3 and "disk is full" in capsys.readouterr().err
    assert contents(work) == before
